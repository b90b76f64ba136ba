"""Spectra: a slow twin, images of any size, spikes and ranks."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope
import hand_built
import promises
from convscope.errors import BadImage, BadInput, LayerNotFound, UnitNotFound
from convscope.render.panels import Bars, Table
from convscope.scope import Inputs, Scope
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: convscope.spectrum(s, "5", promises.IMAGES),
    "(result.spikes(3), result.rank(2))",
    forwards=1,
)


def spectra_slowly(model: nn.Module, scope: Scope, images: list[torch.Tensor], layer: int) -> dict[str, np.ndarray]:
    """Mean, maximum and share above zero, one image, channel and position at a time, in float64."""
    twin = list(hand_built.small().double().eval())[: layer + 1]
    found: dict[str, list[list[float]]] = {"values": [], "maxima": [], "active": []}
    for image in images:
        values = scope.inputs.normalize(image[None].double())
        for module in twin:
            values = values.clamp(min=0) if isinstance(module, nn.ReLU) else module(values)
        rows = [[float(cell.detach()) for cell in channel.flatten()] for channel in values[0]]
        found["values"].append([sum(row) / len(row) for row in rows])
        found["maxima"].append([max(row) for row in rows])
        found["active"].append([sum(cell > 0 for cell in row) / len(row) for row in rows])
    return {name: np.array(value) for name, value in found.items()}


@pytest.mark.parametrize("layer", [0, 2, 5])
def test_against_a_slow_twin(scope: Scope, small: nn.Module, layer: int) -> None:
    images = [draws(3, 24, 24, seed=seed) for seed in range(3)]
    made = convscope.spectrum(scope, str(layer), images)
    for name, expected in spectra_slowly(small, scope, images, layer).items():
        np.testing.assert_allclose(getattr(made, name), expected, rtol=1e-4, atol=1e-6)
    highest = convscope.spectrum(scope, str(layer), images, reduce="max")
    assert (highest.values == made.maxima).all() and highest.reduce == "max"


def test_images_of_mixed_sizes(scope: Scope, small: nn.Module) -> None:
    shapes = [(24, 24), (24, 24), (30, 20), (24, 24), (17, 40)]
    images = [draws(3, *shape, seed=seed) for seed, shape in enumerate(shapes)]
    before = scope.forwards
    made = convscope.spectrum(scope, "5", images)
    assert made.names == tuple(f"image {index}" for index in range(5)) and made.values.shape == (5, 8)
    np.testing.assert_allclose(made.values, spectra_slowly(small, scope, images, 5)["values"], rtol=1e-4, atol=1e-6)
    assert scope.forwards - before <= 1 + 4, "neighbours of one size go together"
    for index, image in enumerate(images):
        np.testing.assert_allclose(convscope.spectrum(scope, "5", image).values[0], made.values[index], rtol=1e-5, atol=1e-7)


def test_batches_do_not_matter(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    images = draws(7, 3, 24, 24)
    whole = convscope.spectrum(scope, "5", images)
    monkeypatch.setattr(scope, "fitting", lambda _pixels: 2)
    np.testing.assert_allclose(convscope.spectrum(scope, "5", images).values, whole.values, rtol=1e-5, atol=1e-7)


def test_a_vector_layer_is_its_own_mean() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24, classes=["a", "b", "c", "d", "e"]))
    images = draws(2, 3, 24, 24)
    made = convscope.spectrum(scope, "output", images)
    assert (made.values == scope.activations(images, "output")["output"].numpy()).all() and (made.maxima == made.values).all()
    assert made.unit_names == ("a", "b", "c", "d", "e")
    assert (made.active == (made.values > 0)).all()


def test_channels_last_layers() -> None:
    scope = Scope(hand_built.torchvision_network("convnext_tiny"), Inputs(size=32))
    images = draws(1, 3, 32, 32)
    value = scope.activations(images, "features.1.0.block.3")["features.1.0.block.3"]
    np.testing.assert_allclose(convscope.spectrum(scope, "features.1.0.block.3", images).values, value.mean((1, 2)), rtol=1e-4, atol=1e-5)


def made_of(values: list[list[float]]) -> convscope.Spectrum:
    array = np.array(values)
    return convscope.Spectrum(
        values=array, maxima=array, active=array, pictures=np.zeros((0, 3, 8, 8)), names=tuple(map(str, range(len(array))))
    )


def test_spikes_and_ranks() -> None:
    made = made_of([[1.0, 5.0, 3.0, 5.0], [2.0, 0.0, 8.0, 0.0]])
    assert made.spikes(3, image=0) == [(1, 5.0), (3, 5.0), (2, 3.0)], "ties by number"
    assert made.mean.tolist() == [1.5, 2.5, 5.5, 2.5] and made.spikes(1) == [(2, 5.5)]
    assert len(made.spikes(99)) == 4
    assert made.rank(1).tolist() == [1, 3] and made.rank(3).tolist() == [1, 3] and made.rank(0).tolist() == [4, 2]
    assert made.summary().splitlines()[0] == "0: 1 (5), 3 (5), 2 (3), 0 (1)"


def test_units_that_fire_evenly_are_said() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[0].bias[:] = torch.tensor([2.0, -1.0, 0.0])
    made = convscope.spectrum(Scope(model, Inputs(size=16)), "1", draws(2, 3, 16, 16))
    assert made.even() == (0,) and "the same value at every position: 0" in made.summary()
    assert convscope.spectrum(Scope(nn.Sequential(model, nn.Flatten()), Inputs(size=16)), "1", draws(1, 3, 16, 16)).even() == ()


def test_files_and_folders(scope: Scope, tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        Image.fromarray(np.random.default_rng(len(name) + ord(name[0])).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    made = convscope.spectrum(scope, "5", tmp_path)
    assert made.names == ("cat", "dog") and made.manifest["images"] == ["cat", "dog"]
    assert (convscope.spectrum(scope, "5", [str(tmp_path / "cat.png"), tmp_path / "dog.png"]).values == made.values).all()
    (tmp_path / "bad.png").write_text("no picture")
    skipping = convscope.spectrum(scope, "5", tmp_path)  # a bad file in a folder ends nothing, and is listed
    assert skipping.names == ("cat", "dog") and (skipping.values == made.values).all()
    assert skipping.skipped == (("bad.png", "not an image file"),)
    listed = convscope.spectrum(scope, "5", [tmp_path / "cat.png", tmp_path / "bad.png"])
    assert listed.names == ("cat",) and listed.skipped == ((str(tmp_path / "bad.png"), "not an image file"),)
    with pytest.raises(BadImage, match=r"bad\.png: not an image file"):  # asked for alone, it is a mistake
        convscope.spectrum(scope, "5", tmp_path / "bad.png")
    for name in ("cat", "dog"):
        (tmp_path / f"{name}.png").write_text("no picture either")
    with pytest.raises(BadImage, match="none of the 3 images can be read"):
        convscope.spectrum(scope, "5", tmp_path)


def test_pictures_of_the_named_units(scope: Scope, tmp_path: Path) -> None:
    image = draws(1, 3, 24, 24)
    plain = convscope.spectrum(scope, "5", image)
    assert plain.pictured == () and plain.lacking == () and plain.pictures.shape == (0, 3, 128, 128)
    first = plain.named()[0]
    low = int(plain.values[0].argmin())
    convscope.gallery(scope, "5", sorted({first, low}), tmp_path / "pictures", size=24, steps=2, crop_size=16)
    made = convscope.spectrum(scope, "5", image, units=low, pictures=tmp_path / "pictures")
    assert made.pictured == (low, first) and made.pictures.shape == (2, 3, 128, 128)
    assert set(made.lacking) == set(made.named()) - {low, first}


def ranks_slowly(values: np.ndarray, unit: int) -> list[int]:
    return [1 + sum(float(other) > float(row[unit]) for other in row) for row in values]


def test_units_asked_about_are_marked_whatever_their_rank(scope: Scope) -> None:
    images = draws(2, 3, 24, 24)
    low = int(convscope.spectrum(scope, "5", images).values.mean(0).argmin())
    made = convscope.spectrum(scope, "5", images, units=[low, 3, low])
    assert made.marked == (low, 3) and made.rank(low).tolist() == ranks_slowly(made.values, low)
    for number, name in enumerate(made.names):
        assert f"  unit {low}: number {made.rank(low)[number]} of 8 ({made.values[number, low]:.3g})" in made.summary(), name
    charts = [panel for panel in made.view().flat() if isinstance(panel, Bars)]
    assert len(charts) == 3 and all(chart.marked == (low, 3) for chart in charts)
    assert all([index for index, _ in chart.spikes][:2] == [low, 3] for chart in charts), "first, so that they keep their labels"
    table = next(panel for panel in made.view().flat() if isinstance(panel, Table))
    ranks = [int(row[1]) for row in table.rows]
    assert str(low) in [row[0] for row in table.rows] and ranks == sorted(ranks)
    assert ranks == [ranks_slowly(made.mean[None], int(row[0]))[0] for row in table.rows]
    assert "Violet" in made.view().note and "Violet" not in convscope.spectrum(scope, "5", images).view().note
    with pytest.raises(UnitNotFound, match="units 0 to 7, got 8"):
        convscope.spectrum(scope, "5", images, units=8)


def test_pictures_that_are_lacking_are_said_or_made(scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = draws(1, 3, 24, 24)
    marked = int(convscope.spectrum(scope, "5", image).values[0].argmin())
    others = [unit for unit in range(8) if unit not in (marked, *convscope.spectrum(scope, "5", image).named())]
    convscope.gallery(scope, "5", others[:1], tmp_path / "pictures", size=24, steps=2, crop_size=16)
    made = convscope.spectrum(scope, "5", image, units=marked, pictures=tmp_path / "pictures")
    assert made.pictured == () and made.lacking == made.named()
    for words in (made.summary(), made.view().note):
        assert f"has none of the named units: {marked}, " in words
    module = importlib.import_module("convscope.techniques.spectrum")
    quick = functools.partial(convscope.feature_visualization, size=24, steps=2, crop_size=16)
    monkeypatch.setattr(module, "feature_visualization", quick)
    filled = convscope.spectrum(scope, "5", image, units=marked, pictures=tmp_path / "pictures", make_pictures=True, seed=4)
    assert filled.pictured == filled.named() and not filled.lacking and "has none" not in filled.summary()
    assert filled.manifest["made"]["units"] == list(filled.named()) and filled.manifest["made"]["seed"] == 4
    expected = quick(scope, "5", [marked], seed=4).images[0]
    again = Image.fromarray(np.rint(255 * expected.transpose(1, 2, 0)).astype(np.uint8)).resize((128, 128), Image.Resampling.LANCZOS)
    assert np.abs(filled.pictures[0] * 255 - np.asarray(again).transpose(2, 0, 1)).max() <= 1
    assert f"Made for this figure (recipe crops, seed 4): {marked}, " in filled.view().note
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [f"unit_{others[0]:04d}.png"], "the folder is left alone"
    alone = convscope.spectrum(scope, "5", image, units=marked, make_pictures=True, seed=4)
    assert (alone.pictures == filled.pictures).all()


def test_pictures_of_another_network_are_refused(scope: Scope, tmp_path: Path) -> None:
    image = draws(1, 3, 24, 24)
    unit = convscope.spectrum(scope, "5", image).named()[0]
    other = hand_built.small()
    with torch.no_grad():
        next(iter(other.parameters())).mul_(2)
    convscope.gallery(Scope(other, Inputs(size=24)), "5", unit, tmp_path / "pictures", size=24, steps=2, crop_size=16)
    with pytest.raises(BadInput, match="another network or other weights"):
        convscope.spectrum(scope, "5", image, pictures=tmp_path / "pictures")


def test_the_same_images_give_the_same_bits(scope: Scope) -> None:
    images = draws(3, 3, 24, 24)
    assert (convscope.spectrum(scope, "5", images).values == convscope.spectrum(scope, "5", images).values).all()


def test_the_network_is_left_as_it_was(small: nn.Module) -> None:
    hand_built.unsettle(small)
    before = hand_built.state_of(small)
    scope = Scope(small, Inputs(size=24))
    convscope.spectrum(scope, "5", draws(2, 3, 24, 24))
    with pytest.raises(BadInput):
        convscope.spectrum(scope, "5", [draws(3, 24, 24), draws(3, 24, 24) * 9])
    assert hand_built.state_of(small) == before


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"layer": "9"}, LayerNotFound, "no layer '9'"),
        ({"images": []}, BadInput, "an empty list"),
        ({"reduce": "sum"}, BadInput, "reduce must be mean or max, got 'sum'"),
        ({"pictures": "nowhere"}, BadInput, "nowhere is not a folder"),
        ({"images": torch.ones(2, 3, 8, 8) * 3}, BadInput, "divide by 255"),
    ],
)
def test_wrong_questions(scope: Scope, wrong: dict[str, object], error: type[Exception], words: str) -> None:
    asked = {"images": draws(1, 3, 24, 24), "layer": "5"} | wrong
    with pytest.raises(error, match=words):
        convscope.spectrum(scope, **asked)  # type: ignore[arg-type]


def test_a_trained_network_recognizes(squeezenet: Scope, shared: object) -> None:
    found = convscope.spectrum(squeezenet, "output", shared("images/imagenet-sample/n01443537_goldfish.jpg"))  # type: ignore[operator]
    assert found.unit_names[found.spikes(1)[0][0]] == "goldfish" and found.rank(1).tolist() == [1]
