"""What the project promises of real networks and photographs, and of the bundled network whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import convscope as cs
from convscope.zoo.textures.generator import CLASSES, STRIPE_ANGLES, indexed

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "squeezenet1_0-imagenet.safetensors"
PHOTOGRAPHS = SHARED / "images" / "imagenet-sample"
with_photographs = pytest.mark.skipif(not (WEIGHTS.exists() and PHOTOGRAPHS.exists()), reason="real weights and photographs are not here")


@pytest.fixture(scope="module")
def squeezenet() -> cs.Scope:
    return cs.open("squeezenet1_0", weights=WEIGHTS)


@pytest.fixture(scope="module")
def textures() -> cs.Scope:
    return cs.open("textures")


def share_in_top_5(scope: cs.Scope, every: int) -> float:
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[::every]
    seen = cs.spectrum(scope, "output", files)
    return float(np.mean([seen.rank(index * every)[index] <= 5 for index in range(len(files))]))


@with_photographs
def test_a_photographs_class_is_among_the_five_highest_outputs(squeezenet):
    assert share_in_top_5(squeezenet, every=5) >= 0.8


@pytest.mark.slow
@with_photographs
def test_the_same_on_all_thousand_photographs(squeezenet):
    assert share_in_top_5(squeezenet, every=1) >= 0.8


def convinced(scope: cs.Scope, classes: list[int]) -> int:
    """How many of the classes' pictures the network itself puts in their class, with softmax at least 0.9."""
    made = cs.feature_visualization(scope, "output", classes)
    probability = torch.softmax(scope.activations(torch.from_numpy(made.images.copy()), "output")["output"].flatten(1), 1)
    return int((probability[range(len(classes)), classes] >= 0.9).sum())


@with_photographs
def test_pictures_of_classes_convince_the_network(squeezenet):
    assert convinced(squeezenet, [1, 130, 340]) == 3


@pytest.mark.slow
@with_photographs
def test_pictures_of_every_tenth_class_convince_the_network(squeezenet):
    assert convinced(squeezenet, list(range(0, 1000, 10))) >= 92


def generated(label: str, count: int, seed: int) -> list[np.ndarray]:
    return [indexed(label, number, seed=seed).image for number in range(count)]


def test_hypothesis_finds_an_output_unit_for_every_texture(textures):
    pool = {name: generated(name, 8, seed=77) for name in CLASSES}
    for index, name in enumerate(CLASSES):
        others = [image for other in CLASSES if other != name for image in pool[other][:2]]
        found = cs.hypothesis(textures, "output", name, pool[name], others, permutations=200)
        assert found.unit == index
        assert found.auc[index] > 0.95, name


def test_hypothesis_discovers_nothing_between_groups_of_the_same_classes(textures):
    generator = np.random.default_rng(5)
    pool = [image for name in CLASSES for image in generated(name, 8, seed=78)]
    discoveries = 0
    for draw in range(100):
        chosen = [pool[number] for number in generator.choice(len(pool), 24, replace=False)]
        found = cs.hypothesis(textures, "output", 0, chosen[:12], chosen[12:], permutations=200, seed=draw)
        discoveries += bool((found.p_corrected < 0.05).any())
    assert discoveries <= 10


def orientation_of_energy(picture: np.ndarray) -> float:
    """Direction of the lines with the most spectral energy in a picture (rgb h w): degrees counter-clockwise from horizontal."""
    grey = picture.mean(0) - picture.mean()
    side = grey.shape[0]
    window = np.hanning(side)
    power = np.abs(np.fft.fftshift(np.fft.fft2(grey * window[:, None] * window[None, :]))) ** 2
    frequency = np.fft.fftshift(np.fft.fftfreq(side))
    fy, fx = np.meshgrid(frequency, frequency, indexing="ij")
    power[(np.hypot(fy, fx) < 2 / side) | (np.hypot(fy, fx) > 0.35)] = 0
    direction = np.degrees(np.arctan2(-fy, fx))  # rows count downwards
    doubled = np.radians(2 * direction)
    mean = np.degrees(np.arctan2((power * np.sin(doubled)).sum(), (power * np.cos(doubled)).sum())) / 2
    return (mean + 90) % 180  # lines run across their frequency


def test_the_ruler_measures_known_stripes():
    y, x = np.mgrid[:128, :128]
    for angle in (0, 30, 75, 90, 120, 150):
        radians = np.radians(angle)
        lines = np.sin(0.5 * (x * np.sin(radians) + y * np.cos(radians)))
        assert abs((orientation_of_energy(np.stack([lines] * 3)) - angle + 90) % 180 - 90) < 2


def test_the_picture_of_a_stripe_class_has_its_energy_at_that_orientation(textures):
    names = list(STRIPE_ANGLES)
    made = cs.feature_visualization(textures, "output", names, size=128, crop_size=96, steps=96)  # type: ignore[arg-type]
    for name, picture in zip(names, made.images, strict=True):
        gap = (orientation_of_energy(picture) - STRIPE_ANGLES[name] + 90) % 180 - 90
        assert abs(gap) <= 15, f"{name}: {gap:+.0f} degrees off"
