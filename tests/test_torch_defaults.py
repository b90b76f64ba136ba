"""torch's global defaults (dtype, device) reach nothing of ours: same weights, same images, same surveys, bit for bit.

Every technique is held to this by the matrix; here are the choices within them, the networks opened by name, and scans.

Also tried: bfloat16, both defaults at once, deterministic algorithms, anomaly detection, saved tensors' hooks, no subnormal numbers,
NumPy's errors raised, warnings as errors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import convscope as cs
import hand_built
import scanned
import torch_defaults
from convscope.optimize.recipes import RECIPES
from convscope.scope import Scope
from convscope.zoo.textures.dataset import augmented

SIDE = 24
IMAGES = hand_built.draws(3, 3, SIDE, SIDE, seed=3)


def visualized(**choices: object) -> Callable[[Scope], np.ndarray]:
    return lambda scope: cs.feature_visualization(scope, "5", [0], **{"steps": 3, "size": SIDE, "crop_size": 16} | choices).images


def inverted(**choices: object) -> Callable[[Scope], np.ndarray]:
    return lambda scope: cs.inversion(scope, "5", IMAGES[:1], **{"steps": 3} | choices).images


CHOICES: dict[str, Callable[[Scope], np.ndarray]] = {
    **{recipe: visualized(recipe=recipe, stages=1 if RECIPES[recipe].parameterization == "fourier" else 2) for recipe in RECIPES},
    "direction": visualized(objective=lambda _: cs.objectives.direction("5", [0.5, 1, 0, 0, 0, 0, 0, -0.25])),
    "class evidence": lambda scope: (
        cs.feature_visualization(scope, "output", [1], class_weight=1.0, steps=3, size=SIDE, crop_size=16).images
    ),
    "copies": visualized(copies=2, diversity=0.5, penalty=1e-4 * cs.objectives.total_variation()),
    "adam and jitter": inverted(optimizer="adam", jitter=3),
    "paper": inverted(optimizer="paper", prior="cvpr2015"),
    "average pooling": inverted(pooling="average"),
    "reallocated": inverted(edit=cs.Reallocate(0)),
    "style": lambda scope: cs.style_transfer(scope, IMAGES[0], IMAGES[1], statistic="mean-std", optimizer="adam", steps=3).images,
    "full occlusion": lambda scope: cs.occlusion(scope, IMAGES[:1], patch=6, stride=6, method="full", fill="median").map,
    "quantile": lambda scope: cs.map_overlay(scope, "5", IMAGES, scale="quantile").full,
    "bounds": lambda scope: np.stack([bound.high.numpy() for bound in scope.bounds(["5"]).values() if bound is not None]),
}


def scope_on() -> Scope:
    return Scope(hand_built.small(), cs.Inputs(size=SIDE), precision="float32", fast=True)


@pytest.fixture(params=torch_defaults.DEFAULTS)
def default(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def plain() -> dict[str, np.ndarray]:
    return {name: make(scope_on()) for name, make in CHOICES.items()}


@pytest.mark.parametrize("choice", CHOICES)
def test_choices(choice: str, default: str, plain: dict[str, np.ndarray]) -> None:
    scope = scope_on()
    with torch_defaults.set_to(default):
        made = CHOICES[choice](scope)
    assert made.dtype == plain[choice].dtype
    assert np.array_equal(made, plain[choice])


@pytest.mark.parametrize(("name", "weights"), [("textures", "pretrained"), ("textures", None), ("squeezenet1_1", None)])
def test_opened_networks(name: str, weights: str | None, default: str) -> None:
    plain = cs.open(name, weights=weights)
    with torch_defaults.set_to(default):
        opened = cs.open(name, weights=weights)
        assert opened.dtype == torch.float32 and opened.device.type == "cpu"
        assert torch.get_default_dtype() == getattr(torch, default, torch.float32)
    assert opened.weights_hash == plain.weights_hash


def test_a_network_of_the_users_own_file_follows_the_users_defaults(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\ndef build():\n    return torch.nn.Conv2d(3, 4, 3)\n")
    with torch_defaults.set_to("float64"):
        assert cs.open(f"{tmp_path}/net.py:build").dtype == torch.float64


@pytest.fixture(scope="module")
def scanned_plainly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey, and the images beside it."""
    folder = tmp_path_factory.mktemp("plain")
    cs.scan(scanned.small_scope(), scanned.folder_of(folder / "images", 3), folder / "survey", shard_size=2, threads=1, layers=["5"])
    return folder


@pytest.mark.parametrize("default", ["float64", "meta"])
def test_scans(tmp_path: Path, default: str, scanned_plainly: Path) -> None:
    scope = scanned.small_scope()
    with torch_defaults.set_to(default):
        cs.scan(scope, scanned_plainly / "images", tmp_path / "survey", shard_size=2, threads=1, layers=["5"])
    plain, other = scanned.files_of(scanned_plainly / "survey"), scanned.files_of(tmp_path / "survey")
    tables = [name for name in plain if name.endswith(".parquet")]
    assert tables and all(plain[name] == other[name] for name in tables)


def test_training_images(default: str) -> None:
    pixels = torch.randint(256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    plain = augmented(pixels, torch.Generator().manual_seed(1))
    with torch_defaults.set_to(default):
        assert torch.equal(augmented(pixels, torch.Generator("cpu").manual_seed(1)), plain)
