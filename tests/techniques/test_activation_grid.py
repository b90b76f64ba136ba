"""Activation grids: a slow twin, the grid and its inverse, scales, strips, what the figure shows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convscope
import hand_built
from convscope import render
from convscope.errors import BadInput, LayerNotFound, UnitNotFound
from convscope.render.panels import Image, Mosaic
from convscope.results.activation_grid import grid_of, maps_of
from convscope.scope import Inputs, Scope
from hand_built import draws


def maps_slowly(scope: Scope, image: torch.Tensor, layer: int) -> np.ndarray:
    """The small network one layer after the other, in float64."""
    values = scope.inputs.normalize(image[None].double())
    for module in list(hand_built.small().double().eval())[: layer + 1]:
        values = values.clamp(min=0) if isinstance(module, nn.ReLU) else module(values)
    return values[0].detach().numpy()


def article(maps: np.ndarray) -> np.ndarray:
    """S3's own loop, with its own row and column formulas and zeros in unused places; maps (c h w)."""
    channels, h, w = maps.shape
    cols = 16
    grid = np.zeros((h * math.ceil(channels / cols), w * cols))
    for c in range(channels):
        row = math.ceil((c + 1) / cols)
        column = (c + 1) if row == 1 else (c + 1 - (row - 1) * cols)
        grid[(row - 1) * h : row * h, (column - 1) * w : column * w] = maps[c]
    return grid


def test_against_a_slow_twin(scope: Scope) -> None:
    images = draws(2, 3, 24, 40)
    made = convscope.activation_grid(scope, images)
    assert made.layers == ("2", "5") and [maps.shape for maps in made.maps] == [(2, 6, 24, 40), (2, 8, 12, 20)]
    for image in range(2):
        for layer in (2, 5):
            slow = maps_slowly(scope, images[image], layer)
            np.testing.assert_allclose(made.layer(str(layer))[image], slow, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(np.nan_to_num(made.grid(str(layer), image)), article(slow), rtol=1e-4, atol=1e-5)
    assert all(not maps.flags.writeable for maps in made.maps)


@pytest.mark.parametrize(("channels", "columns"), [(5, 16), (16, 16), (37, 16), (48, 16), (7, 3), (1, 1)])
def test_the_grid_and_its_inverse(channels: int, columns: int) -> None:
    maps = np.random.default_rng(0).normal(size=(channels, 3, 5))
    grid = grid_of(maps, columns)
    rows = math.ceil(channels / columns)
    assert grid.shape == (rows * 3, columns * 5)
    assert (maps_of(grid, channels, columns) == maps).all()
    assert np.isnan(grid).sum() == (rows * columns - channels) * 15, "unused places are empty, not zero"
    assert math.isclose(np.nansum(grid), maps.sum(), abs_tol=1e-9)
    if columns == 16:
        np.testing.assert_array_equal(np.nan_to_num(grid), article(maps))


def test_scales(scope: Scope) -> None:
    images = draws(3, 3, 24, 24)
    by_layer, by_channel, by_quantile = (
        convscope.activation_grid(scope, images, "0", scale=scale) for scale in ("layer", "channel", "quantile")
    )
    maps = by_layer.maps[0]
    assert (by_layer.limits[0] == [maps.min(), maps.max()]).all() and by_layer.limits[0].shape == (6, 2)
    for channel in range(6):
        assert by_channel.limits[0][channel].tolist() == [maps[:, channel].min(), maps[:, channel].max()]
    ordered = np.sort(maps.astype(np.float64), axis=None)
    place = 0.99 * (ordered.size - 1)
    expected = ordered[int(place)] + (place % 1) * (ordered[int(place) + 1] - ordered[int(place)])
    assert by_quantile.limits[0][0, 1] == pytest.approx(expected, rel=1e-5)
    assert all((each.maps[0] == maps).all() for each in (by_channel, by_quantile)), "scaling is the figure's business"


def test_the_strip(scope: Scope) -> None:
    images = draws(2, 3, 24, 24)
    made = convscope.activation_grid(scope, images, ["5", "2"], units={"2": 4})
    assert made.layers == ("2", "5"), "in call order"
    for image in range(2):
        (first, unit, shown), (second, strongest, _) = made.strip(image)
        assert (first, unit, second) == ("2", 4, "5") and (shown == made.maps[0][image, 4]).all()
        means = [float(channel.sum()) / channel.size for channel in made.maps[1][image]]
        assert strongest == means.index(max(means))


def test_dead_units_are_told_from_unused_places() -> None:
    model = hand_built.small()
    with torch.no_grad():
        model[4].bias[3] = -1e6
    made = convscope.activation_grid(Scope(model, Inputs(size=24)), draws(1, 3, 24, 24), columns=5)
    dead = [[unit for unit, values in enumerate(maps[0]) if not (values > 0).any()] for maps in made.maps]
    assert made.dead.tolist() == [[len(each) for each in dead]] and made.dead_units("5") == dead[1] and 3 in dead[1]
    mosaics = [panel for panel in made.view().flat() if isinstance(panel, Mosaic)]
    assert mosaics[1].crossed == tuple(dead[1]) and f"{len(dead[1])} dead" in mosaics[1].title and "8 maps of 12x12" in mosaics[1].title
    assert "dead on image 0" in made.summary()


def test_the_figure(scope: Scope) -> None:
    made = convscope.activation_grid(scope, draws(2, 3, 24, 36), ["0", "2"], scale="channel")
    view = made.view()
    assert "scale of its own" in view.note and "2 layers, 12 units" in view.subtitle
    mosaics = [panel for panel in view.flat() if isinstance(panel, Mosaic)]
    assert [panel.scale for panel in mosaics] == ["signed", "heat"] * 2, "what goes below zero is centred on it"
    tiles = [panel for panel in view.flat() if isinstance(panel, Image)]
    assert [tile.title for tile in tiles] == ["image 0", "0", "2", "image 1", "0", "2"]
    assert len({tile.pixels.shape for tile in tiles}) == 1
    assert render.png(made.view())[:4] == b"\x89PNG"


def test_store_model_and_repetition(scope: Scope, small: nn.Module, tmp_path: Path) -> None:
    hand_built.unsettle(small)
    before = hand_built.state_of(small)
    forwards = scope.layers and scope.forwards
    made = convscope.activation_grid(scope, draws(2, 3, 24, 24))
    assert scope.forwards == forwards + 1, "all layers in one pass"
    again = convscope.activation_grid(scope, draws(2, 3, 24, 24))
    assert all((a == b).all() for a, b in zip(made.maps, again.maps, strict=True))
    with pytest.raises(BadInput):
        convscope.activation_grid(scope, draws(2, 3, 24, 24) * 9)
    assert hand_built.state_of(small) == before
    loaded = convscope.load(made.save(tmp_path / "grid"))
    assert isinstance(loaded, convscope.ActivationGrid) and loaded.layers == made.layers and loaded.manifest["parameters"]["columns"] == 16
    assert all((a == b).all() for a, b in zip(made.maps + made.limits, loaded.maps + loaded.limits, strict=True))
    assert render.png(loaded.view()) == render.png(made.view())


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"layers": "9"}, LayerNotFound, "no layer '9'"),
        ({"layers": ["2", "output"]}, BadInput, "layer output has no maps: its value is 5, not .c h w.; layers with maps: 2, 5"),
        ({"layers": []}, BadInput, "no layer asked for"),
        ({"scale": "map"}, BadInput, "scale must be layer, channel or quantile, got 'map'"),
        ({"columns": 0}, BadInput, "columns must be at least 1, got 0"),
        ({"units": {"5": 99}}, UnitNotFound, "units 0 to 7, got 99"),
        ({"units": {"4": 1}}, BadInput, "units names 4, which is not among the layers shown: 2, 5"),
    ],
)
def test_wrong_questions(scope: Scope, wrong: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        convscope.activation_grid(scope, draws(1, 3, 24, 24), **wrong)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_network_without_convolutions() -> None:
    scope = Scope(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), Inputs(size=8))
    with pytest.raises(BadInput, match="has no convolution; say which layers"):
        convscope.activation_grid(scope, draws(1, 3, 8, 8))
    with pytest.raises(BadInput, match="not in this grid"):
        convscope.activation_grid(Scope(hand_built.small(), Inputs(size=24)), draws(1, 3, 24, 24)).grid("0")


def test_every_layer_of_a_trained_network(squeezenet: Scope, shared: object) -> None:
    made = convscope.activation_grid(squeezenet, shared("images/imagenet-sample/n01443537_goldfish.jpg"))  # type: ignore[operator]
    assert len(made.layers) == 26 and made.layers[0] == "features.1" and made.layers[-1] == "classifier.2"
    assert all(maps.min() >= 0 for maps in made.maps), "after the ReLU"
