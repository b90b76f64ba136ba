"""The second article's study on real photographs: three models, their class maps, and what alarms by class maps are worth.

    python examples/ants_bees/study.py            # about six minutes of CPU time; writes out/ants_bees/

Photographs and weights lie beside the repository, in ../shared, unless told otherwise. What is there already is kept: a second call goes on
where the first one stopped; for a fresh start, remove the folder.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from augment import colourful, shapely
from photographs import Photograph, chosen, parts, rendered, write_list
from report import Study, write_report
from safetensors.torch import load_file
from torch.nn import functional as F
from train import adapt, fine_tune, save

import convscope as cs
from networks import LABELS, LAYER, Insects, from_imagenet

SHARED = Path(__file__).resolve().parents[3] / "shared"
NETWORKS = Path(__file__).with_name("networks.py")
STEPS = {"model1": 100, "control": 150, "model2": 150, "model3": 150}
"""Training steps. The control is model 2 with model 1's augmentation, to tell what the outputs do from what the augmentation does."""
OVERLAID = 3
"""Images of each class under the overlays."""


@dataclass(frozen=True)
class Material:
    """What the study works with: photographs by part, their renderings, and where things are written."""

    photographs: list[Photograph]
    renderings: list[Photograph]
    weights: Path
    out: Path
    steps: dict[str, int]
    seed: int

    def kept(self, model: str) -> Path:
        """Where a model's weights are."""
        return self.out / "weights" / f"{model}.safetensors"


def trained(model: str, material: Material) -> Path:
    """Weights of a model, trained unless they are there."""
    path = material.kept(model)
    if path.exists():
        print(f"{model}: weights are there")
        return path
    started = time.perf_counter()
    print(f"{model}: training")
    network = _train(model, material)
    print(f"{model}: trained in {time.perf_counter() - started:.0f} s")
    return save(network, path)


def _train(model: str, material: Material) -> Insects:
    photographs, steps, seed = material.photographs, material.steps[model], material.seed
    fit = chosen(photographs, "fit")
    if model == "model1":
        insects = [each for each in fit if each.label in LABELS]
        return fine_tune(from_imagenet(material.weights), insects, colourful, F.cross_entropy, steps=steps, seed=seed)
    if model in ("control", "model2"):
        augment, independent = colourful if model == "control" else shapely, F.binary_cross_entropy_with_logits
        return fine_tune(from_imagenet(material.weights), fit, augment, independent, steps=steps, seed=seed)
    source = Insects()
    source.load_state_dict(load_file(material.kept("model2")))
    return adapt(source, fit, chosen(material.renderings, "target"), steps=steps, seed=seed)


def studied(model: str, material: Material) -> Study:
    """A model under the microscope: everything below is what any user of convscope would call."""
    function = "binary" if model == "model1" else "multi_label"
    scope = cs.open(f"{os.path.relpath(NETWORKS)}:{function}", weights=trained(model, material))
    fit, tune, val = (chosen(material.photographs, part) for part in ("fit", "tune", "val"))
    insects = [each for each in fit if each.label in LABELS]
    xrays = chosen(material.renderings, "val")
    lists = {"classes": insects, "train": [*fit, *tune], "photographs": val, "xray": xrays}
    surveys = {name: _scanned(scope, model, name, images, material.out) for name, images in lists.items()}
    maps = cs.class_maps(surveys["classes"], LAYER)
    alarms = cs.detector(surveys["train"], LAYER, maps, split="tune", activation="softmax" if function == "binary" else "sigmoid")
    shown = [each for pair in zip(_examples(val), _examples(xrays), strict=True) for each in pair]
    return Study(
        name=model,
        maps=maps,
        overlay=cs.map_overlay(scope, LAYER, shown, units=[maps.maps[label][0] for label in LABELS], scale="map"),
        sums={name: cs.activation_sums(surveys[name], LAYER, maps) for name in ("photographs", "xray")},
        detector=alarms,
        evaluation=cs.detector_evaluation(alarms, surveys["photographs"], surveys["xray"]),
    )


def _scanned(scope: cs.Scope, model: str, name: str, images: Sequence[Photograph], out: Path) -> cs.Survey:
    listed = write_list(images, out / "lists" / f"{name}.csv")
    return cs.scan(scope, listed, out / "surveys" / f"{model}-{name}", layers=[LAYER], decoders=0)


def _examples(images: Sequence[Photograph]) -> list[Path]:
    """A few images of each class, evenly from the list."""
    groups = [[each.path for each in images if each.label == label] for label in LABELS]
    return [group[place * len(group) // OVERLAID] for group in groups for place in range(OVERLAID)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=SHARED / "images" / "ants-bees", help="train/ and val/ with ants/ and bees/")
    parser.add_argument("--others", type=Path, default=SHARED / "images" / "imagenet-sample", help="photographs of neither")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / "squeezenet1_0-imagenet.safetensors")
    parser.add_argument("--out", type=Path, default=Path("out/ants_bees"))
    parser.add_argument("--seed", type=int, default=0, help="of training; the parts stay the same")
    parser.add_argument("--steps", type=int, default=0, help="training steps of every model; 0: those of the study")
    parser.add_argument("--limit", type=int, default=0, help="at most so many images of each label and part; 0: all")
    given = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    photographs = parts(given.images, given.others, limit=given.limit)
    renderings = rendered(chosen(photographs, "target", "val"), given.out / "xray")
    steps = {model: given.steps or count for model, count in STEPS.items()}
    material = Material(photographs, renderings, given.weights, given.out, steps, given.seed)
    write_report([studied(model, material) for model in STEPS], given.out)


if __name__ == "__main__":
    main()
