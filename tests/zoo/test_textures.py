"""The bundled network `textures`: its image generator, its weights, and their training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from convscope.errors import BadWeights
from convscope.zoo.textures import generator, network
from convscope.zoo.textures.dataset import augmented, normalized, rendered
from convscope.zoo.textures.fields import Plane
from convscope.zoo.textures.shapes import compose
from convscope.zoo.textures.train import class_accuracies, train
from convscope.zoo.weights import load_weights

TEXTURES = [name for name in generator.CLASSES if name not in generator.SHAPES]


# the generator


def test_there_are_enough_distinct_classes():
    assert len(generator.CLASSES) == len(set(generator.CLASSES)) >= 24
    assert set(generator.STRIPE_ANGLES) < set(generator.CLASSES)
    assert set(generator.SHAPES) < set(generator.CLASSES)


@pytest.mark.parametrize("label", generator.CLASSES)
def test_every_class_draws_varied_pictures_with_contrast(label: str):
    first, second = (generator.indexed(label, k, seed=3, size=64) for k in range(2))
    assert first.label == label
    for drawn in (first, second):
        assert drawn.image.shape == (64, 64, 3) and drawn.image.dtype == np.uint8
        assert drawn.image.mean(2).std() > 10
    assert np.abs(first.image.astype(int) - second.image).mean() > 10


@pytest.mark.parametrize("label", generator.CLASSES)
def test_an_image_depends_on_seed_class_and_index_alone(label: str):
    alone = generator.indexed(label, 7, seed=3, size=48)
    generator.indexed("heart", 1, seed=3)
    np.random.seed(1)  # noqa: NPY002 (to show that the global state does not matter)
    again = generator.indexed(generator.CLASSES.index(label), 7, seed=3, size=48)
    assert np.array_equal(alone.image, again.image)
    assert not np.array_equal(alone.image, generator.indexed(label, 7, seed=4, size=48).image)


def test_the_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for label in generator.CLASSES:
        generator.indexed(label, 0, seed=0, size=32)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("label", generator.SHAPES)
def test_a_shape_is_one_object_of_bounded_area_inside_the_image(label: str):
    for index in range(25):
        drawn = generator.indexed(label, index, seed=11)
        assert drawn.mask is not None and drawn.mask.shape == (128, 128) and drawn.mask.dtype == np.bool_
        assert 0.04 <= drawn.mask.mean() <= 0.20
        border = np.concatenate([drawn.mask[0], drawn.mask[-1], drawn.mask[:, 0], drawn.mask[:, -1]])
        assert not border.any()


@pytest.mark.parametrize("label", TEXTURES)
def test_textures_have_no_mask(label: str):
    assert generator.indexed(label, 0, seed=1, size=32).mask is None


@pytest.mark.parametrize("label", generator.SHAPES)
def test_the_mask_lies_on_the_object(label: str):
    """The object stands out in level from what surrounds it, along its own outline."""
    for index in range(10):
        drawn = generator.indexed(label, index, seed=2)
        assert drawn.mask is not None
        grey = drawn.image.mean(2)
        y, x = np.nonzero(drawn.mask)
        window = np.s_[max(y.min() - 4, 0) : y.max() + 5, max(x.min() - 4, 0) : x.max() + 5]
        inside, near = drawn.mask[window], grey[window]
        spread = 0.5 * (near[inside].std() + near[~inside].std())
        assert abs(near[inside].mean() - near[~inside].mean()) > max(20.0, 1.2 * spread)


def test_hearts_stand_upright():
    """On average over their tilts, a heart's mass lies above the middle of its height."""
    heights = []
    for index in range(20):
        mask = generator.indexed("heart", index, seed=6).mask
        assert mask is not None
        rows = np.nonzero(mask)[0]
        heights.append((rows.min() + rows.max() - 2 * rows.mean()) / np.ptp(rows))
    assert np.mean(heights) > 0.03


def test_the_clutter_does_not_know_the_shape():
    plane = Plane.of(128)
    pictures, masks = zip(*(compose(label, plane, np.random.default_rng(5)) for label in generator.SHAPES), strict=True)
    apart = ~np.any(masks, axis=0)
    apart[1:-1, 1:-1] &= apart[:-2, 1:-1] & apart[2:, 1:-1] & apart[1:-1, :-2] & apart[1:-1, 2:]
    assert apart.mean() > 0.3
    for picture in pictures[1:]:
        assert (picture != pictures[0]).any(-1)[apart].mean() < 0.005  # thin tips leave a trace outside the masks


def _line_angle(image: np.ndarray) -> float:
    """Return the angle of an image's lines, counter-clockwise from horizontal, from where its Fourier energy lies."""
    grey = image.mean(2)
    window = np.hanning(len(grey))
    energy = np.abs(np.fft.fft2((grey - grey.mean()) * window[:, None] * window[None, :])) ** 2
    frequency = np.fft.fftfreq(len(grey)) * len(grey)
    fx, fy = frequency[None, :], -frequency[:, None]
    energy[np.hypot(fx, fy) < 4] = 0
    normal = 0.5 * np.angle((energy * np.exp(2j * np.arctan2(fy, fx))).sum())
    return float(np.rad2deg(normal) + 90) % 180


@pytest.mark.parametrize("label", generator.STRIPE_ANGLES)
def test_stripes_run_at_the_angle_of_their_class(label: str):
    for index in range(20):
        angle = _line_angle(generator.indexed(label, index, seed=4).image)
        assert abs((angle - generator.STRIPE_ANGLES[label] + 90) % 180 - 90) < generator.STRIPE_JITTER + 2


def test_the_size_changes_resolution_not_content():
    small, large = (generator.indexed("stripes_30", 0, seed=1, size=size).image for size in (64, 128))
    halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.corrcoef(halved.ravel(), small.ravel())[0, 1] > 0.9


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="'plaid'"):
        generator.sample("plaid", np.random.default_rng(0))
    with pytest.raises(ValueError, match="28"):
        generator.sample(len(generator.CLASSES), np.random.default_rng(0))
    with pytest.raises(ValueError, match="got 16"):
        generator.sample("dots", np.random.default_rng(0), 16)


def test_write_folder_keeps_images_and_masks_apart(tmp_path: Path):
    generator.write_folder(tmp_path, per_class=2, seed=9, size=40)
    assert {p.name for p in tmp_path.iterdir()} == {"images", "masks", "README.txt"}
    assert {p.name for p in (tmp_path / "images").iterdir()} == set(generator.CLASSES)
    assert {p.name for p in (tmp_path / "masks").iterdir()} == set(generator.SHAPES)
    for label in generator.CLASSES:
        assert [p.name for p in sorted((tmp_path / "images" / label).iterdir())] == ["0000.png", "0001.png"]
    drawn = generator.indexed("arrow", 1, seed=9, size=40)
    with Image.open(tmp_path / "images/arrow/0001.png") as image, Image.open(tmp_path / "masks/arrow/0001.png") as mask:
        assert np.array_equal(np.asarray(image), drawn.image)
        assert np.array_equal(np.asarray(mask) == 255, drawn.mask)
    text = (tmp_path / "README.txt").read_text(encoding="utf-8")
    assert "heart" in text and "stripes_30 30" in text


def test_the_generator_does_not_load_torch():
    program = "import sys, convscope.zoo.textures.generator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# the network and its weights


def test_the_network_is_small_and_ends_at_stride_16():
    net = network.build()
    assert sum(p.numel() for p in net.parameters()) <= 700_000
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) >= 8
    assert net.features(torch.zeros(1, 3, 128, 128)).shape[2:] == (8, 8)
    for size in [(32, 32), (33, 70), (128, 128)]:
        assert net.eval()(torch.zeros(2, 3, *size)).shape == (2, len(generator.CLASSES))


def record_of(path: Path) -> dict[str, Any]:
    """The record of the training in a weights file."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[network.METADATA_KEY])


def test_the_bundled_weights_load_strictly_and_know_fresh_images():
    assert network.WEIGHTS.stat().st_size <= 1_500_000
    net = network.build()
    load_weights(net, network.WEIGHTS)
    record = record_of(network.WEIGHTS)
    assert tuple(record["classes"]) == generator.CLASSES
    assert record["generator"] == generator.VERSION
    accuracies = class_accuracies(net, rendered(20, seed=77))
    accuracy = sum(accuracies.values()) / len(accuracies)
    assert accuracy >= 0.95 and abs(accuracy - record["accuracy"]) < 0.03
    assert min(accuracies.values()) >= 0.8


def test_weights_of_another_shape_are_refused():
    with pytest.raises(BadWeights, match="classifier"):
        load_weights(network.build(num_classes=5), network.WEIGHTS)
    larger = network.build()
    larger.extra = torch.nn.Linear(1, 1)
    with pytest.raises(BadWeights, match=r"extra\.weight"):
        load_weights(larger, network.WEIGHTS)


# training


def test_rendering_does_not_depend_on_workers():
    alone, shared = (rendered(2, seed=1, size=32, workers=workers) for workers in (0, 2))
    assert torch.equal(alone.pixels, shared.pixels) and torch.equal(alone.labels, shared.labels)
    last = generator.indexed(len(generator.CLASSES) - 1, 1, seed=1, size=32).image
    assert np.array_equal(alone.pixels[-1].permute(1, 2, 0).numpy(), last)


def test_augmentation_is_seeded_and_changes_every_image():
    pixels = rendered(1, seed=1, size=64).pixels
    first, again, other = (augmented(pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    plain = torch.nn.functional.interpolate(normalized(pixels), size=first.shape[2:])
    assert ((first - plain).abs().mean((1, 2, 3)) > 0.05).all()


def test_training_learns_and_says_what_it_measured(tmp_path: Path):
    lines: list[str] = []
    path = tmp_path / "weights.safetensors"
    figures = train(path, images_per_class=2, epochs=3, seed=1, validation_per_class=2, batch=14, threads=1, report=lines.append)
    assert figures.losses[-1] < figures.losses[0] - 0.2  # measured: 0.36 to 0.43 lower
    net = network.build()
    load_weights(net, path)
    record = record_of(path)
    saved = class_accuracies(net, rendered(2, seed=1_000_004))
    assert saved == figures.per_class and record["accuracy"] == pytest.approx(figures.accuracy, abs=1e-4)
    assert record["seed"] == 1 and any("accuracy" in line for line in lines)


def test_training_is_reproducible_from_its_seed_and_leaves_global_torch_state_alone(tmp_path: Path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for name, seed in {"first": 0, "again": 0, "other": 1}.items():
        train(tmp_path / f"{name}.safetensors", images_per_class=1, epochs=1, seed=seed, validation_per_class=1, batch=14, threads=1)
    assert torch.equal(state, torch.get_rng_state()) and torch.get_num_threads() == threads
    first, again, other = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("first", "again", "other"))
    assert first == again != other
    weights, others = network.build(), network.build()
    load_weights(weights, tmp_path / "first.safetensors")
    load_weights(others, tmp_path / "other.safetensors")
    assert not torch.equal(weights.classifier.weight, others.classifier.weight)
