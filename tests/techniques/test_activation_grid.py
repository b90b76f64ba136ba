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
import promises
from convscope import render
from convscope.errors import BadInput, LayerNotFound, UnitNotFound
from convscope.render.layout import arrange
from convscope.render.panels import Image, Mosaic, Table
from convscope.results.activation_grid import grid_of, maps_of
from convscope.scope import Inputs, Scope
from convscope.techniques.activation_grid import _scale
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: convscope.activation_grid(s, promises.IMAGES[:2], follow={"5": 3}),
    "(result.grid('5', 1), result.dead_units('5'), result.path(1))",
    forwards=4,
)


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


def test_the_scale_that_shows_most() -> None:
    """The layer's scale, unless most of the live maps never come to 0.4 of it. Tried as well: all dead, one unit, negative values."""
    maps = np.zeros((1, 6, 4, 4), np.float32)
    maps[0, :5, 1, 2] = 10, 3.9, 3.9, 3.9, 5  # the sixth is dead and does not count
    assert _scale(maps, "auto") == "channel"
    maps[0, 1, 1, 2] = 4.1
    assert _scale(maps, "auto") == "layer" and _scale(maps, "quantile") == "quantile"
    assert _scale(np.zeros((2, 3, 4, 4)), "auto") == "layer"
    made = convscope.activation_grid(Scope(hand_built.small(), Inputs(size=24)), draws(1, 3, 24, 24))
    assert made.scales == tuple(_scale(each, "auto") for each in made.maps)


def test_a_figure_for_each_layer_and_an_index(tmp_path: Path) -> None:
    """Names that are no file names, or differ by case alone; also tried: "figure", a leading dot, 300 characters."""
    names = {"conv/1": 3, "conv:1": 4, "figure": 4, "Figure": 4}
    model, channels = nn.Sequential(), 3
    for name, width in names.items():
        model.add_module(name, hand_built.seeded(lambda channels=channels, width=width: nn.Conv2d(channels, width, 3, padding=1)))
        channels = width
    made = convscope.activation_grid(Scope(model, Inputs(size=16)), draws(1, 3, 16, 16), list(names))
    assert list(made.sheets()) == list(names)
    folder = made.save(tmp_path / "grid")
    files = ["Figure-2.png", "conv-1-1.png", "conv-1.png", "figure-1.png"]
    assert sorted(path.name for path in folder.glob("*.png")) == sorted([*files, "figure.png"])
    page = (folder / "index.html").read_text()
    assert page.startswith("<!doctype html>") and all(f'href="{file}"' in page for file in files) and "conv/1" in page
    assert type(convscope.load(folder)) is convscope.ActivationGrid
    assert not convscope.activation_grid(Scope(model, Inputs(size=16)), draws(1, 3, 16, 16), "figure").sheets()


def test_many_layers_are_not_one_figure(squeezenet: Scope) -> None:
    made = convscope.activation_grid(squeezenet, draws(1, 3, 96, 96), follow={"features.12": 300})
    assert "features.12" in made.layers and len(made.sheets()) == 27
    view = made.view()
    assert not any(isinstance(panel, Mosaic) for panel in view.flat()) and arrange(view).height < 2400
    tables = [panel for panel in view.flat() if isinstance(panel, Table)]
    assert [len(table.rows) for table in tables][-1] == 27
    (mosaic,) = [panel for panel in made.sheets()["features.12"].flat() if isinstance(panel, Mosaic)]
    assert mosaic.title.startswith("features.12: 512 maps of 5x5") and "colour scale" in mosaic.title


class Linear(nn.Module):
    """Convolutions, a sum and a batch norm, without anything between that is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.c = nn.Conv2d(4, 5, (3, 1), stride=2, padding=(1, 0), dilation=(2, 1))
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.a(x)
        return self.norm(self.c(self.b(first) + first))


def contributions_slowly(kernel: np.ndarray, maps: np.ndarray, y: int, x: int, conv: nn.Conv2d) -> np.ndarray:
    """Sum over the kernel window of weight * activation, (c), tap by tap."""
    found = np.zeros(len(maps))
    for c in range(len(maps)):
        for i in range(kernel.shape[1]):
            for j in range(kernel.shape[2]):
                v = y * conv.stride[0] - conv.padding[0] + i * conv.dilation[0]
                u = x * conv.stride[1] - conv.padding[1] + j * conv.dilation[1]
                if 0 <= v < maps.shape[1] and 0 <= u < maps.shape[2]:
                    found[c] += kernel[c, i, j] * maps[c, v, u]
    return found


def test_contributions_of_linear_parts_are_exact() -> None:
    """c reads b and, past it, a; what reaches a through b belongs to b. Together with the bias they make up the value."""
    net = hand_built.seeded(Linear).double().eval().requires_grad_(False)
    scope = Scope(net, Inputs(size=(9, 11)))
    made = convscope.activation_grid(scope, draws(2, 3, 9, 11, dtype=torch.float64), ["a", "b", "norm"], follow={"norm": 2})
    for image in range(2):
        maps = {name: made.layer(name)[image] for name in made.layers}
        y, x = np.unravel_index(maps["norm"][2].argmax(), maps["norm"][2].shape)
        factor = float(net.norm.weight[2] / (net.norm.running_var[2] + net.norm.eps).sqrt())
        kernel = net.c.weight[2].detach().numpy() * factor
        expected = {name: contributions_slowly(kernel, maps[name], int(y), int(x), net.c) for name in ("a", "b")}
        found = made.contributions[image]["norm"]
        assert set(found) == {"a", "b"}
        for name in ("a", "b"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, atol=1e-12)
        bias = (float(net.c.bias[2]) - float(net.norm.running_mean[2])) * factor + float(net.norm.bias[2])
        assert sum(each.sum() for each in found.values()) + bias == pytest.approx(maps["norm"][2].max(), abs=1e-10)
        best = max(expected, key=lambda name: expected[name].max())
        steps = {layer: (unit, place, share) for layer, unit, place, share in made.path(image)}
        assert steps["norm"] == (2, (y, x), 1.0) and steps[best][0] == expected[best].argmax()
        assert steps[best][2] == pytest.approx(expected[best].max() / maps["norm"][2].max())


def test_a_path_with_known_contributions() -> None:
    """Two 1x1 layers with a ReLU and a maximum in between: worked out by hand, biases included."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 1), nn.ReLU()).double()
    with torch.no_grad():
        net[0].weight[:] = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, -1]], dtype=torch.float64)[:, :, None, None]
        net[0].bias[:] = torch.tensor([0.0, 0, 0.5], dtype=torch.float64)
        net[3].weight[:] = torch.tensor([[3.0, 1, 2], [0, 0, -1]], dtype=torch.float64)[:, :, None, None]
        net[3].bias[:] = torch.tensor([0.25, 0.1], dtype=torch.float64)
    image = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    image[0, :, 2, 3] = torch.tensor([0.5, 0.9, 0.2])  # maps 0.5, 1.8, 0.3 there, and 0, 0, 0.5 elsewhere
    made = convscope.activation_grid(Scope(net, Inputs(size=4)), image, follow={"4": 0})
    assert made.layers == ("1", "4")
    # pooled at (1, 1): 0.5, 1.8, 0.5 (the third from a neighbour); value 3 * 0.5 + 1.8 + 2 * 0.5 + 0.25 = 4.55
    np.testing.assert_allclose(made.contributions[0]["4"]["1"], [1.5, 1.8, 1.0])
    assert made.path() == [("1", 1, (2, 3), pytest.approx(1.8 / 4.55)), ("4", 0, (1, 1), 1.0)]
    (table,) = [panel for panel in made.view().flat() if isinstance(panel, Table)]
    assert table.rows == (("4 0", "4.55", "1 1: 1.8 (40%)", "1 0: 1.5 (33%)", "1 2: 1 (22%)", "5 %"),)
    frames = [tile.boxes for tile in made.view().flat() if isinstance(tile, Image)]
    assert [len(boxes) for boxes in frames] == [0, 1, 1] and "strongest path on image 0: 1 1 (40%) > 4 0" in made.summary()
    with pytest.raises(BadInput, match="unit 1 of layer 4 is zero everywhere on image 0: there is nothing to follow"):
        convscope.activation_grid(Scope(net, Inputs(size=4)), image * 0 + 0.1, follow={"4": 1})
    with pytest.raises(BadInput, match="no unit was followed"):
        convscope.activation_grid(Scope(net, Inputs(size=4)), image).path()


def test_a_path_goes_on_through_both_branches(squeezenet: Scope) -> None:
    """Units of a concatenation come from one of its branches, whole; every step's contributions and biases make up its value."""
    made = convscope.activation_grid(squeezenet, draws(1, 3, 96, 96), follow={"features.12": 300})
    steps = made.path()
    layer, unit, _, share = steps[-2]
    assert (layer, unit) == ("features.12.expand3x3_activation", 300 - 256) and share == pytest.approx(1)
    assert steps[0][0] == "features.1" and [each[0] for each in steps] == sorted((each[0] for each in steps), key=made.layers.index)
    for name, unit, (y, x), _ in steps[1:-1]:
        conv = squeezenet.model.get_submodule(name.replace("_activation", ""))
        total = sum(float(each.sum()) for each in made.contributions[0][name].values()) + float(conv.bias.detach()[unit])
        assert total == pytest.approx(float(made.layer(name)[0, unit, y, x]), rel=1e-4)


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
    assert "2 layers, 12 units" in view.subtitle
    mosaics = [panel for panel in view.flat() if isinstance(panel, Mosaic)]
    assert all("; each map on its own colour scale" in panel.title for panel in mosaics)
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
        ({"scale": "map"}, BadInput, "scale must be auto, layer, channel or quantile, got 'map'"),
        ({"columns": 0}, BadInput, "columns must be at least 1, got 0"),
        ({"units": {"5": 99}}, UnitNotFound, "units 0 to 7, got 99"),
        ({"follow": {"5": 99}}, UnitNotFound, "units 0 to 7, got 99"),
        ({"follow": {"5": 1, "2": 1}}, BadInput, "follow takes one layer and one unit"),
        ({"follow": {"5": 1}, "units": {"2": 1}}, BadInput, "follow takes one layer and one unit, and no units beside it"),
        ({"follow": {"4": 1}, "layers": ["2", "5"]}, BadInput, "follow names 4, which is not among the layers shown: 2, 5"),
        ({"follow": {"output": 1}}, BadInput, "layer output has no maps"),
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
    with pytest.raises(BadInput, match="not in this result"):
        convscope.activation_grid(Scope(hand_built.small(), Inputs(size=24)), draws(1, 3, 24, 24)).grid("0")


def test_every_layer_of_a_trained_network(squeezenet: Scope, shared: object) -> None:
    made = convscope.activation_grid(squeezenet, shared("images/imagenet-sample/n01443537_goldfish.jpg"))  # type: ignore[operator]
    assert len(made.layers) == 26 and made.layers[0] == "features.1" and made.layers[-1] == "classifier.2"
    assert all(maps.min() >= 0 for maps in made.maps), "after the ReLU"
