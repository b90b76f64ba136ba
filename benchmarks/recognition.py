"""Do other networks see in a picture what it was made for?

    python benchmarks/recognition.py [--set crop_end=0.4,0.8] [--every 25]
    python benchmarks/recognition.py --units 24

Pictures of every 25th class, seed 1, made with one network, are judged by the others as photographs are: scaled and cropped to their input.
Photographs of the same classes are the ceiling. Pictures are kept in out/recognition/, so that a run goes on where it stopped.

With --units, pictures of so many units of an inner layer instead. In another network, the unit whose mean activations over the photographs
correlate most with a unit's is its counterpart. A picture is good if it excites the counterpart more than 95 % of the photographs do. The
ceiling is the unit's strongest photograph, the floor a picture of another of these units.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convscope as cs

SHARED = Path(__file__).resolve().parents[2] / "shared"
OUT = Path(__file__).resolve().parents[1] / "out" / "recognition"
NETWORKS: dict[str, dict[str, str]] = {
    "squeezenet1_0": {"weights": str(SHARED / "weights" / "squeezenet1_0-imagenet.safetensors")},
    "efficientnet_lite0": {},
    "efficientnet_lite1": {},
}
INNER = {
    "squeezenet1_0": "features.12",
    "efficientnet_lite0": "blocks.5.2.bn2.act",
    "efficientnet_lite1": "blocks.5.3.bn2.act",
}


def judged(scope: cs.Scope, paths: list[Path], classes: list[int]) -> dict[str, Any]:
    """How a network sees images of classes: top-1, top-5, median rank of the class, and its probability."""
    logits = scope.activations(paths, "output")["output"].double()
    own = logits[torch.arange(len(classes)), torch.tensor(classes)]
    rank = 1 + (logits > own[:, None]).sum(1).numpy()
    sure = logits.softmax(1)[torch.arange(len(classes)), torch.tensor(classes)].numpy()
    return {
        "top-1": float((rank == 1).mean()),
        "top-5": float((rank <= 5).mean()),
        "median rank": float(np.median(rank)),
        "softmax >= 0.9": float((sure >= 0.9).mean()),
    }


def pictures(scope: cs.Scope, classes: list[int], seed: int, settings: dict[str, Any]) -> tuple[list[Path], float]:
    """Pictures of classes, and the seconds that each took (read again where they are there already)."""
    folder = OUT / scope.name / f"{words(settings)}-seed{seed}"
    begun = time.perf_counter()
    made = cs.gallery(scope, "output", classes, folder, seed=seed, **settings)
    note = folder / "seconds.json"
    if len(made.made) == len(classes):
        note.write_text(json.dumps((time.perf_counter() - begun) / len(classes)))
    each = json.loads(note.read_text()) if note.exists() else float("nan")
    found = [image.path for number in classes if (image := made.find(number)) is not None]
    return found, each


def means(scope: cs.Scope, layer: str, images: list[Path]) -> np.ndarray:
    """Mean activations of a layer's units, (n c)."""
    return np.concatenate([cs.spectrum(scope, layer, [image]).values for image in images])


def inner(scopes: dict[str, cs.Scope], photographs: list[Path], count: int, seed: int, settings: dict[str, Any]) -> None:
    """Prints how many pictures of inner units excite the units' counterparts in another network as almost no photograph does."""
    surveys = {name: cs.scan(scope, photographs, OUT / f"survey-{name}", layers=INNER[name]) for name, scope in scopes.items()}
    over = {name: survey.mean(INNER[name]) for name, survey in surveys.items()}
    print(f"{count} units; counterparts excited more than by 95 % of {len(photographs)} photographs")
    print(f"{'made with':20} {'seen by':20} {'r':>5} {'picture':>8} {'photograph':>11} {'another picture':>16}")
    for maker, judge in itertools.permutations(scopes, 2):
        own, others = ((over[name] - over[name].mean(0)) / np.maximum(over[name].std(0), 1e-12) for name in (maker, judge))
        correlations = own.T @ others / len(photographs)
        units = np.argsort(-correlations.max(1), kind="stable")[: 4 * count : 4].tolist()  # a quarter of those that have one
        theirs, rows = correlations[units].argmax(1), np.arange(len(units))
        made = cs.gallery(
            scopes[maker], INNER[maker], units, OUT / maker / f"{INNER[maker]}-{words(settings)}-seed{seed}", seed=seed, **settings
        )
        seen = means(scopes[judge], INNER[judge], [image.path for unit in units if (image := made.find(unit)) is not None])
        strongest = over[judge][over[maker][:, units].argmax(0), theirs]
        shares = [
            ((over[judge][:, theirs] < values).mean(0) > 0.95).mean()
            for values in (seen[rows, theirs], strongest, np.roll(seen, 1, 0)[rows, theirs])
        ]
        nearness = correlations[units].max(1).mean()
        print(f"{maker:20} {judge:20} {nearness:5.2f} {shares[0]:8.0%} {shares[1]:11.0%} {shares[2]:16.0%}", flush=True)


def words(settings: dict[str, Any]) -> str:
    """Settings as a folder's name."""
    return ("-".join(f"{key}={value}" for key, value in sorted(settings.items())) or "default").replace(" ", "").replace("/", "_")


def value_of(text: str) -> Any:
    """A recipe's parameter as it is written: numbers, True or False, pairs with a comma, or words."""
    if text in ("True", "False"):
        return text == "True"
    if "," in text:
        return tuple(value_of(part) for part in text.split(","))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--units", type=int, default=0, metavar="COUNT")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    settings = {name: value_of(value) for name, value in (pair.split("=", 1) for pair in given.set)}
    classes = list(range(0, 1000, given.every))
    scopes = {name: cs.open(name, **NETWORKS[name]) for name in given.networks.split(",")}
    photographs = sorted((SHARED / "images" / "imagenet-sample").glob("*.jpg"))
    if given.units:
        inner(scopes, photographs, given.units, given.seed, settings)
        return
    print(f"{len(classes)} classes, seed {given.seed}, {torch.get_num_threads()} threads, {settings or 'the default recipe'}")
    print(f"{'made with':20} {'seen by':20} {'top-1':>6} {'top-5':>6} {'median':>7} {'>= 0.9':>7} {'s each':>7}")
    made = {name: pictures(scope, classes, given.seed, settings) for name, scope in scopes.items()}
    crossed: list[float] = []
    for maker, judge in itertools.product(["photographs", *scopes], scopes):
        paths, seconds = ([photographs[number] for number in classes], float("nan")) if maker == "photographs" else made[maker]
        found = judged(scopes[judge], paths, classes)
        crossed += [found["top-1"]] if maker not in ("photographs", judge) else []
        row = f"{found['top-1']:6.0%} {found['top-5']:6.0%} {found['median rank']:7g} {found['softmax >= 0.9']:7.0%} {seconds:7.1f}"
        print(f"{maker:20} {judge:20} {row}")
    print(f"mean top-1 of other networks: {np.mean(crossed):.1%}")


if __name__ == "__main__":
    main()
