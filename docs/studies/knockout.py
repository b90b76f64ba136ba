"""The study behind knockout.md: python docs/studies/knockout.py [matched|any] (about ten minutes on one core for each).

Kinds of ImageNet's classes as labels of photographs, one photograph of each class; SqueezeNet's last feature layer. The kinds come from
WordNet by a rule that was fixed before anything was measured. Every second class of each kind elects the kind's class maps, the photographs
of the others are tested without them, and the other way round. As many random units are silenced as a control. Writes
../pictures/knockout_squeezenet_CONTROL.png and prints the numbers. Uses real weights and photographs from ../shared.
"""

from __future__ import annotations

import csv
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import convscope as cs
from convscope import render
from convscope.render.panels import Interval, Intervals, View

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
LAYER = "features.12"
CONTROLS, DRAWS = 20, 2000
"""Sets of random units; bootstrap draws."""

WRITTEN = {
    "aquatic vertebrate": "0-6 389-397",
    "bird": "7-24 80-100 127-146",
    "reptile": "33-68",
    "invertebrate": "69-79 107-126 300-329",
    "dog": "151-268",
    "feline": "281-293",
    "ungulate": "339-355",
    "primate": "365-384",
    "machine": "398 480 527 590 595 620 681 798 800 856 886 916",
    "covering": "419 442 446 448 455 461 490 501-502 514 524 538-539 556 570 597 619 622 630 640 669 680 715 750 770 774 777 "
    "787 789 796 853 858 879 884 904-905 921",
    "commodity": "434 534 544 550 589 606 651 760 766 859 882 891 897",
    "musical instrument": "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 822 875 881 889",
    "conveyance": "403-405 417 450 466 472 484 510 537 554 576 625 628 654 724 779-780 814 830 833 871 874 895 913-914",
    "structure": "406 410 415 421 424-425 437 449 454 458 460 467 483 489 497-498 500 506 509 525 536 562 580-582 598-599 624 "
    "634 649 663 668 672 682 698 706 708 716 727 729 743 762 781 788 799 821 825 832 839 860 863 865 873 877 888 "
    "912 915",
    "container": "412 414 427 435 438 440-441 463 478 481 492 503-504 519 549 572 588 618 636-637 647 653 659 666 692 709 712 "
    "719-720 725 728 737-738 748 756 771 773 790 797 804 809 868 876 883 893 896 898-901 907 910",
    "instrument": "409 413 426 447 456 471 530-531 583 604 633 635 685 704 744-745 755 763-764 769 778 823 826 835 837 845 892",
    "equipment": "416 422 429-430 477 482 485 487 508 522 528 540 543 574 602 605 611 662 664 688 701-702 707 713 722 732 747 "
    "759 768 805 848 852 890 918",
    "implement": "418 462 473 499 512 521 523 542 557 563 567 587 596 621 623 644 693 696 710 726 730-731 733 749 752 767 784 "
    "792 810 813 816 840 909",
    "furnishing": "423 431 453 493 495 516 520 526 532 548 553 559 564 648 703 765 831 846 857 861 894",
    "mechanism": "476 479 571 600 694 723 739 746 753 758 843-844",
    "matter": "551 922-947 958-969 999",
    "natural object": "977 984 987-990 998",
}
"""Kinds from WordNet 3.0: from `entity` down, the kind with most of ImageNet's classes is replaced by those below it that have 12 or more,
until there are 20 or more; a kind that lies in another is left out, and classes that belong to two kinds belong to neither."""


def numbers(text: str) -> list[int]:
    """Numbers of words like "3" and "5-8"."""
    ends = [[int(end) for end in word.split("-")] for word in text.split()]
    return [number for first, *last in ends for number in range(first, (last or [first])[0] + 1)]


KINDS = {name: numbers(text) for name, text in WRITTEN.items()}


def listed(photographs: Sequence[Path], half: int, where: Path) -> Path:
    """A list of the photographs of every second class of each kind, with their labels."""
    with where.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([photographs[number], label] for label, own in KINDS.items() for number in own[half::2])
    return where


def lost(found: cs.Knockout, label: str) -> np.ndarray:
    """For each photograph of a kind: accuracy lost by its own units, and by random ones, (2 n)."""
    own, number = found.classes.index(label), found.groups.index(label)
    its = found.truth == own
    before = found.predicted[its] == own
    after = (found.predicted_after[number][:, its] == own).mean(0)
    control = (found.predicted_control[number][:, its] == own).mean(0)
    return np.stack([before - after, before - control])


def figure(rows: Sequence[tuple[str, np.ndarray]], control: str) -> View:
    """Accuracy lost by each kind with its interval: its own units, and random ones, (2 3) of each."""
    ordered = sorted(rows, key=lambda row: row[1][1, 0] - row[1][0, 0])
    own, drawn = (np.array([100 * found[place] for _, found in ordered]) for place in (0, 1))
    names = tuple(name for name, _ in ordered)
    chance = "random units of the same mean activation" if control == "matched" else "any random units of the layer"
    panel = Intervals(names, (Interval("its own units", own, 1), Interval(chance, drawn, 0)), x_label="accuracy lost, points", zero=True)
    note = "Bars: 95 % bootstrap intervals over photographs. Units were chosen on the photographs of other classes of the kind."
    return View(
        "Knock-out", (panel,), subtitle=f"squeezenet1_0 \u00b7 layer {LAYER} \u00b7 kinds of ImageNet's classes from WordNet", note=note
    )


def main(control: str) -> None:
    scope = cs.open("squeezenet1_0", weights=SHARED / "weights" / "squeezenet1_0-imagenet.safetensors")
    photographs = sorted((SHARED / "images" / "imagenet-sample").glob("*.jpg"))
    halves: list[cs.Knockout] = []
    with tempfile.TemporaryDirectory() as folder:
        lists = [listed(photographs, half, Path(folder, f"{half}.csv")) for half in (0, 1)]
        for elects, tested in (lists, lists[::-1]):
            survey = cs.scan(scope, str(elects), Path(folder, f"survey of {elects.stem}"), layers=[LAYER])
            maps = cs.class_maps(survey, LAYER)
            halves.append(cs.knockout(scope, LAYER, maps, str(tested), outputs=KINDS, control=control, controls=CONTROLS))
            print(halves[-1].summary(), flush=True)
    generator = np.random.default_rng(0)
    rows: list[tuple[str, np.ndarray]] = []
    for label in KINDS:
        parts = [lost(found, label) for found in halves if label in found.groups]
        if not parts:
            print(f"{label}: no maps in either half")
            continue
        values = np.concatenate(parts, 1)
        draws = values[:, generator.integers(0, values.shape[1], (DRAWS, values.shape[1]))].mean(2)
        beyond = values[0] - values[1]
        ends = np.quantile(np.stack([*draws, draws[0] - draws[1]]), [0.025, 0.975], axis=1).T
        found = np.column_stack([[*values.mean(1), beyond.mean()], ends])
        units = [len(one.units[one.groups.index(label)]) for one in halves if label in one.groups]
        print(f"{label}: {values.shape[1]} photographs, {units} units: own {found[0]}, random {found[1]}, beyond {found[2]}")
        rows.append((label, found))
    own, beyond = (np.array([found[place] for _, found in rows]) for place in (0, 2))
    print(f"mean lost: own {own[:, 0].mean():.3f}, beyond random units {beyond[:, 0].mean():.3f}")
    print(f"more than random units: {(beyond[:, 0] > 0).sum()} of {len(rows)}; interval above zero: {(beyond[:, 1] > 0).sum()}")
    print(f"less: {(beyond[:, 0] < 0).sum()}; interval below zero: {(beyond[:, 2] < 0).sum()}")
    picture = Image.open(io.BytesIO(render.png(figure(rows, control)))).convert("RGB")
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(
        HERE.parent / "pictures" / f"knockout_squeezenet_{control}.png", optimize=True
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "matched")
