"""The study behind knockout.md: python docs/studies/knockout.py [matched|any] (about ten minutes on one core for each).

Twenty groups of ImageNet's classes as labels of photographs, one photograph of each class; SqueezeNet's last feature layer. Each label's
class maps are silenced, and as many random units. Writes ../pictures/knockout_squeezenet_CONTROL.png and prints the numbers. Uses real
weights and photographs from ../shared.
"""

from __future__ import annotations

import csv
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import convscope as cs
from convscope import render

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
LAYER = "features.12"
MOST, CONTROLS = 30, 20
"""Photographs of a label, spread evenly over its classes; sets of random units."""

LABELS: dict[str, list[int]] = {
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "reptile or amphibian": list(range(25, 69)),
    "fish": [*range(7), *range(389, 398)],
    "insect": list(range(300, 327)),
    "dog": list(range(151, 269)),
    "cat": list(range(281, 294)),
    "hoofed animal": list(range(339, 356)),
    "monkey or ape": list(range(365, 383)),
    "car or van": [407, 436, 468, 511, 609, 627, 654, 656, 661, 705, 717, 734, 751, 757, 817],
    "ship or boat": [403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914],
    "musical instrument": [401, 402, 420, 432, 486, 513, 541, 546, 558, 566, 579, 593, 594, 683, 687, 699, 776, 875, 881, 889],
    "building": [425, 442, 483, 497, 580, 663, 668, 698, 727, 832, 900, 915],
    "vessel for drinks": [440, 441, 503, 504, 505, 572, 653, 720, 725, 737, 849, 883, 898, 899, 901, 907, 968],
    "fruit or vegetable": [*range(936, 947), *range(948, 958)],
    "landscape": [970, *range(972, 981)],
    "garment": [399, 400, 411, 445, 459, 474, 501, 568, 578, 601, 608, 610, 614, 617, 638, 639, 652, 655, 689, 697, 735, 775, 834, 869],
    "furniture": [423, 431, 453, 493, 495, 516, 520, 526, 532, 548, 553, 559, 564, 703, 765, 831, 857, 894],
    "electronic device": [482, 485, 487, 508, 527, 528, 590, 605, 620, 662, 664, 673, 681, 707, 713, 742, 745, 754, 761, 782, 848, 851],
    "fungus": [947, *range(991, 998)],
    "ball": [429, 430, 522, 574, 722, 768, 805, 852, 890],
}
"""Kinds of things that look different: classes that look alike (snakes and lizards, say) have few maps that are theirs alone."""


def listed(photographs: list[Path], where: Path) -> Path:
    """A list of the photographs with their labels."""
    with where.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for label, numbers in LABELS.items():
            for place in np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), MOST)).round().astype(int)):
                writer.writerow([photographs[numbers[place]], label])
    return where


def main(control: str) -> None:
    scope = cs.open("squeezenet1_0", weights=SHARED / "weights" / "squeezenet1_0-imagenet.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        photographs = listed(sorted((SHARED / "images" / "imagenet-sample").glob("*.jpg")), Path(folder, "photographs.csv"))
        survey = cs.scan(scope, str(photographs), Path(folder, "survey"), layers=[LAYER])
        maps = cs.class_maps(survey, LAYER)
        found = cs.knockout(scope, LAYER, maps, str(photographs), outputs=LABELS, control=control, controls=CONTROLS)
    print(found.summary())
    picture = Image.open(io.BytesIO(render.png(found.view()))).convert("RGB")
    name = HERE.parent / "pictures" / f"knockout_squeezenet_{control}.png"
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(name, optimize=True)
    lost = np.array([found.excess[group, found.own_class(group)] for group in range(len(found.groups))])
    print(f"more than random units: {(lost[:, 0] > 0).sum()} of {len(lost)}; interval above zero: {(lost[:, 1] > 0).sum()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "matched")
