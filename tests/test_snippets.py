"""Every Python block of the documentation runs as printed, page by page, on stand-ins for its networks, photographs and surveys."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

import convscope as cs
from convscope.optimize import recipes
from convscope.zoo import by_name
from convscope.zoo.loaded import Loaded

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
NOT_RUN = ('ray="auto"',)
"""Signs of blocks that need what no test has: a cluster."""
SIDE = 128
CLASSES = torchvision.models.SqueezeNet1_0_Weights.DEFAULT.meta["categories"]
PHOTOGRAPHS = "dog bridge dome gate goldfish photo munch1 munch2 gogh1 scream nude".split()
FOLDERS = {"photos/chains": 6, "photos/dogs": 6, "photos/others": 6, "dogs": 2, "bees": 2, "chains": 3, "others": 3, "paintings": 2}
"""Folders of photographs, and how many they hold; those of a kind have a colour of their own."""


class Vgg(nn.Module):
    """The layers of vgg16_bn, with a classifier of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = make_layers(cfgs["D"], batch_norm=True)
        self.classifier = nn.Linear(512, len(CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).mean((2, 3)))


def pages() -> list[Path]:
    """README and the pages that have Python in them."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if BLOCK.search(page.read_text(encoding="utf-8"))]


def stand_in(name: str, weights: object) -> Loaded:
    """A network of torchvision with random weights, others for a file than for those published."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if weights == "pretrained" else 1)
        model = Vgg() if name.startswith("vgg") else torchvision.models.squeezenet1_0()
    return Loaded(model.eval(), cs.Inputs(size=SIDE, classes=CLASSES), name, "pretrained")


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Networks are stand-ins, and optimizations take two steps."""
    real = by_name.load_network

    def load(name: str, weights: Any = "pretrained") -> Loaded:
        if ".py:" in name:
            return real(name, None)
        if name.startswith("efficientnet"):
            return dataclasses.replace(real(name, None), inputs=cs.Inputs(size=SIDE, classes=CLASSES))
        return stand_in(name, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_name, "load_network", load)
        for name, recipe in recipes.RECIPES.items():
            patch.setitem(
                recipes.RECIPES, name, dataclasses.replace(recipe, steps=2, size=min(recipe.size, SIDE), stages=min(recipe.stages, 2))
            )
        for table in (recipes.INVERSION, recipes.STYLE_TRANSFER):
            for name, descent in table.items():
                patch.setitem(table, name, dataclasses.replace(descent, steps=2))  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="module")
def place(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages read."""
    folder = tmp_path_factory.mktemp("reader")
    draws = np.random.default_rng(0)

    def photograph(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (9, 8, 3), dtype=np.uint8)
        pixels[..., ord(path.parent.name[2]) % 2] //= 5
        Image.fromarray(pixels).resize((SIDE + 8, SIDE + 4)).save(path)

    for name in PHOTOGRAPHS:
        photograph(folder / f"{name}.jpg")
    for name in ("bag", "coat"):
        photograph(folder / f"{name}.png")
    for name, count in FOLDERS.items():
        for number in range(count):
            photograph(folder / name / f"{Path(name).name}{number}.jpg")
    listed = [f"photos/{name}/{name}{number}.jpg,{name}" for name in ("chains", "others") for number in range(6)]
    (folder / "labels.csv").write_text("\n".join(["path,label", *listed]))
    scope = cs.open("squeezenet1_0")
    cs.gallery(scope, "features.12", range(2), folder / "pictures")
    layers = ["features.9.expand1x1_activation", "features.12"]
    train = cs.scan(scope, str(folder / "labels.csv"), folder / "surveys" / "train", layers=layers)
    for name in ("val", "scanner", "resnet", "adapted"):
        shutil.copytree(train.path, folder / "surveys" / name)
    (folder / "fish.csv").write_text("\n".join(["path,label", *(line.replace(",others", ",fish") for line in listed)]))
    cs.scan(scope, str(folder / "fish.csv"), folder / "surveys" / "photos", layers=layers)
    cs.detector(train, "features.12", {"chains": [0, 1], "others": [2]}, draws=9).save(
        folder / "out" / "detector" / "train-features.12", figure=False
    )
    return folder


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_python_of_a_page_runs_as_printed(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in place.iterdir():
        (tmp_path / name.name).symlink_to(name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1):
        if not any(sign in block for sign in NOT_RUN):
            exec(compile(block, f"{page.name}, block {number}", "exec"), names)
