"""Map overlays: a slow twin with the article's mask, order, scales, dead maps, what the figure shows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convscope
import hand_built
import promises
from convscope import render
from convscope.errors import BadInput, LayerNotFound, UnitNotFound
from convscope.render.overlay import enlarged
from convscope.render.panels import Image
from convscope.scope import Inputs, Scope
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: convscope.map_overlay(s, "5", promises.IMAGES[:2], top=3),
    "(result.masks(1), result.masked())",
    forwards=2,
)


def enlarged_slowly(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear between the centres of cells, the border repeated, one pixel at a time, in float64."""
    out = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        at = [(place + 0.5) * length / wanted - 0.5 for place, length, wanted in zip((y, x), values.shape, (height, width), strict=True)]
        corner = [math.floor(each) for each in at]
        for dy, dx in np.ndindex(2, 2):
            row, column = (min(max(corner[axis] + step, 0), values.shape[axis] - 1) for axis, step in ((0, dy), (1, dx)))
            weight = [1 - (each - low) if step == 0 else each - low for each, low, step in zip(at, corner, (dy, dx), strict=True)]
            out[y, x] += weight[0] * weight[1] * float(values[row, column])
    return out


@pytest.fixture
def dying(small: nn.Module) -> Scope:
    """The small network with a dead map 3 in layer 5, at 16 x 24."""
    with torch.no_grad():
        small[4].bias[3] = -1e6
    return Scope(small, Inputs(size=(16, 24)), precision="float32")


def test_against_a_slow_twin(dying: Scope) -> None:
    image = draws(3, 16, 24)
    made = convscope.map_overlay(dying, "5", image)
    maps = dying.activations(image[None], "5")["5"][0].double().numpy()
    means = [float(channel.sum()) / channel.size for channel in maps]
    order = sorted(range(8), key=lambda unit: (-means[unit], unit))
    assert made.units.tolist() == [order] and maps[3].max() == 0, "60 asked for, 8 there, strongest first"
    np.testing.assert_allclose(made.values[0], [means[unit] for unit in order], rtol=1e-5)
    masks, masked = made.masks(), made.masked()
    for place, unit in enumerate(order):
        mask = enlarged_slowly(maps[unit], 16, 24)
        mask = mask / maps[unit].max() if maps[unit].max() > 0 else np.zeros((16, 24))
        np.testing.assert_allclose(masks[place], mask, atol=1e-5)
        np.testing.assert_allclose(masked[place], np.clip(image.double().numpy() * mask, 0, 1), atol=1e-5)
    np.testing.assert_allclose(enlarged(made.maps[0, 0], (24, 16)), enlarged_slowly(made.maps[0, 0], 16, 24), atol=1e-5)


def test_reduce_ranks(scope: Scope) -> None:
    image = draws(1, 3, 24, 24)
    maps = scope.activations(image, "5")["5"][0].numpy()
    for reduce, measure in {"mean": np.mean, "sum": np.sum, "max": np.max}.items():
        made = convscope.map_overlay(scope, "5", image, top=3, reduce=reduce)
        values = np.array([measure(channel) for channel in maps])
        assert made.units[0].tolist() == np.argsort(-values, kind="stable")[:3].tolist()
        np.testing.assert_allclose(made.values[0], np.sort(values)[::-1][:3], rtol=1e-5)
    same = [convscope.map_overlay(scope, "5", image, reduce=reduce).units.tolist() for reduce in ("mean", "sum")]
    assert same[0] == same[1], "one size: the mean and the sum rank alike"


def test_ties_go_to_the_lower_channel() -> None:
    model = hand_built.small()
    with torch.no_grad():
        model[4].weight[:], model[4].bias[:] = model[4].weight[:1].clone(), model[4].bias[:1].clone()
    made = convscope.map_overlay(Scope(model, Inputs(size=24)), "5", draws(1, 3, 24, 24), top=5)
    assert made.units.tolist() == [[0, 1, 2, 3, 4]]


def test_scales_over_several_images(scope: Scope) -> None:
    images = draws(3, 3, 24, 24) * torch.tensor([1.0, 0.6, 0.3]).view(3, 1, 1, 1)
    maps = scope.activations(images, "5")["5"].numpy()
    expected = {
        "map": np.array([[maps[n, unit].max() for unit in (6, 2)] for n in range(3)]),
        "channel": np.array([[maps[:, unit].max() for unit in (6, 2)]] * 3),
        "layer": np.full((3, 2), maps.max()),
        "quantile": np.full((3, 2), np.quantile(maps.astype(np.float64), 0.99)),
    }
    for scale, full in expected.items():
        made = convscope.map_overlay(scope, "5", images, units=[6, 2], scale=scale)
        assert made.units.tolist() == [[6, 2]] * 3 and made.chosen, "as asked for"
        np.testing.assert_allclose(made.full, full, rtol=1e-5)
        assert (made.maps == maps[:, [6, 2]]).all(), "values stay physical"
        assert made.masks(1).min() >= 0


def test_values_below_zero_have_no_mask(scope: Scope) -> None:
    made = convscope.map_overlay(scope, "4", draws(1, 3, 24, 24))
    assert made.maps.min() < 0 and made.masks().min() == 0 and made.full.min() >= 0


@pytest.mark.parametrize(("side", "padding"), [(17, 0), (18, 1), (23, 1)])
def test_finer_maps_are_those_of_a_convolution_that_steps_by_one_pixel(side: int, padding: int) -> None:
    # also tried: a pool behind the convolution, SqueezeNet's features.12 by 4 against images shifted one by one, bfloat16
    torch.manual_seed(0)
    coarse = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=padding), nn.ReLU())
    dense = nn.Sequential(nn.Conv2d(3, 4, 3, padding=padding), nn.ReLU())
    dense.load_state_dict(coarse.state_dict())
    scope = Scope(nn.Sequential(coarse, nn.AdaptiveAvgPool2d(1), nn.Flatten()), Inputs(side), precision="float32")
    image = draws(3, side, side)
    made = convscope.map_overlay(scope, "0", image, units=[2, 1], finer=4)
    with torch.no_grad():
        wanted = dense(scope.inputs.normalize(image[None]))[0, [2, 1]].numpy()
    inner = side - 4  # beyond it, shifted images go on with their border
    first = 4 if padding else 0  # a shifted image is padded where it now begins
    np.testing.assert_allclose(made.maps[0][:, first:inner, first:inner], wanted[:, first:inner, first:inner], rtol=1e-5, atol=1e-6)
    rows = made.maps.shape[2]
    assert rows == 4 * ((side + 2 * padding - 3) // 4 + 1) and made.finer == 4 and "4 times as fine" in made.view().subtitle
    y0, _, y1, _ = made.place
    middles = y0 + (np.arange(rows) + 0.5) * (y1 - y0) / rows
    np.testing.assert_allclose(middles, np.arange(rows) + 1.5 - padding, atol=0.3)  # the middle of a 3 x 3 field in pixels
    same = convscope.map_overlay(scope, "0", image, units=[2, 1])
    assert (made.maps[0][:, ::4, ::4] == same.maps[0]).all() and (made.values == same.values).all()


def test_the_figure(dying: Scope) -> None:
    images = draws(2, 3, 16, 24)
    tiles = [panel for panel in convscope.map_overlay(dying, "5", images, top=8).view().flat() if isinstance(panel, Image)]
    assert len(tiles) == 2 * 9 and tiles[0].heat is None and tiles[1].heat is not None
    assert [tile.marked for tile in tiles if tile.title == "unit 3"] == ["dead", "dead"]
    made = convscope.map_overlay(dying, "5", images, units=[1, 3], style="mask")
    view = made.view()
    tiles = [panel for panel in view.flat() if isinstance(panel, Image)]
    assert [tile.title for tile in tiles] == ["image 0", "unit 1", "unit 3", "image 1", "unit 1", "unit 3"]
    np.testing.assert_allclose(tiles[4].pixels, np.clip(made.images[1] * made.masks(1)[0] ** 0.5, 0, 1), rtol=1e-6)
    assert "square root" in view.note, "brighter than the mask itself, and said so"
    assert (tiles[5].pixels == 0).all() and "its own largest value" in view.note
    assert render.png(made.view())[:4] == b"\x89PNG"


def test_store_model_and_repetition(scope: Scope, small: nn.Module, tmp_path: Path) -> None:
    hand_built.unsettle(small)
    before = hand_built.state_of(small)
    made = convscope.map_overlay(scope, "5", draws(2, 3, 24, 24), top=4)
    assert (convscope.map_overlay(scope, "5", draws(2, 3, 24, 24), top=4).maps == made.maps).all()
    alone = convscope.map_overlay(scope, "5", draws(2, 3, 24, 24)[1], top=4)
    assert (alone.units[0] == made.units[1]).all()
    assert hand_built.state_of(small) == before
    loaded = convscope.load(made.save(tmp_path / "overlay"))
    assert isinstance(loaded, convscope.MapOverlay) and (loaded.masked() == made.masked()).all() and loaded.summary() == made.summary()
    assert render.png(loaded.view()) == render.png(made.view())


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"layer": "9"}, LayerNotFound, "no layer '9'"),
        ({"layer": "output"}, BadInput, "layer output has no maps: its value is 5; layers with maps: 2, 5"),
        ({"units": 8}, UnitNotFound, "units 0 to 7, got 8"),
        ({"top": 0}, BadInput, "top must be at least 1, got 0"),
        ({"scale": "image"}, BadInput, "scale must be map, channel, layer or quantile, got 'image'"),
        ({"style": "jet"}, BadInput, "style must be heat or mask, got 'jet'"),
        ({"reduce": "median"}, BadInput, "reduce must be mean, sum or max, got 'median'"),
        ({"images": torch.ones(1, 3, 8, 8) * 3}, BadInput, "divide by 255"),
    ],
)
def test_wrong_questions(scope: Scope, wrong: dict[str, object], error: type[Exception], words: str) -> None:
    asked = {"images": draws(1, 3, 24, 24), "layer": "5"} | wrong
    with pytest.raises(error, match=words) as caught:
        convscope.map_overlay(scope, **asked)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_class_maps_are_framed_and_ranked(dying: Scope) -> None:
    images = draws(2, 3, 16, 24)
    maps = {"ants": [1, 6], "bees": [4], "none": []}
    made = convscope.map_overlay(dying, "5", images, top=5, maps=maps)
    means = dying.activations(images, "5")["5"].double().mean((2, 3)).numpy()
    for image in range(2):
        order = sorted(range(8), key=lambda unit: (-means[image, unit], unit))
        assert made.units[image].tolist() == order[:5] and made.ranks[image].tolist() == [1, 2, 3, 4, 5]
        assert made.owners[image].tolist() == [0 if unit in (1, 6) else 1 if unit == 4 else -1 for unit in order[:5]]
        shown = convscope.map_overlay(dying, "5", images, maps=maps, classes=["bees", "ants"])
        assert shown.units[image].tolist() == [4, 1, 6] and shown.chosen
        assert shown.ranks[image].tolist() == [1 + order.index(unit) for unit in (4, 1, 6)]
    tiles = {panel.title: panel for panel in made.view().flat() if isinstance(panel, Image) and panel.title.startswith("unit")}
    framed = {title: tile.frame for title, tile in tiles.items() if tile.frame is not None}
    assert framed and all(title.endswith(("ants", "bees")[frame]) for title, frame in framed.items())
    assert "Coloured frames: maps of ants, bees" in made.view().note
    assert any("1 map of bees shown: 4 (no." in line or "0 maps of bees" in line for line in made.summary().splitlines())


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"maps": {"a": [1], "b": [1, 2]}}, "unit 1 belongs to two classes, a and b"),
        ({"maps": {"a": [1]}, "classes": ["b"]}, "maps have none for class 'b'; they are for a"),
        ({"maps": {"a": []}, "classes": ["a"]}, "class a has no map of its own"),
        ({"classes": ["a"]}, "it takes maps and no units"),
        ({"maps": {"a": [1]}, "classes": ["a"], "units": [2]}, "it takes maps and no units"),
        ({"maps": {"a": [99]}}, "units 0 to 7, got 99"),
    ],
)
def test_wrong_class_maps(dying: Scope, asked: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        convscope.map_overlay(dying, "5", draws(3, 16, 24), **asked)
