"""Receptive fields as a result: boxes, the effective field, the table of all layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
import promises
from convscope import render
from convscope.errors import BadInput
from convscope.render.panels import Heat, Image, Intervals
from convscope.scope import Inputs, Scope
from hand_built import torchvision_network

PROMISE = promises.Promise(lambda s: cs.receptive_field(s, "4"), "result.box(2, 3)", forwards=1)


def test_one_layer_and_all_layers_agree(tmp_path: Path) -> None:
    scope = Scope(torchvision_network("vgg11"), Inputs(size=(64, 96)))
    everything = cs.receptive_field(scope)
    assert everything.layers == tuple(scope.layers)
    place = everything.layers.index("features.3")
    one = cs.receptive_field(scope, "features.3")
    np.testing.assert_array_equal(everything.size[place], one.size[0])
    assert everything.whole[everything.layers.index("output")].all()
    assert one.box(0, 0, clipped=False) == (-3, -3, 5, 5)
    assert one.box(0, 0) == (0, 0, 5, 5)
    assert one.effective.shape == (64, 96)
    y0, x0, y1, x1 = one.box(one.rows.shape[0] // 2, one.columns.shape[0] // 2)
    outside = one.effective.copy()
    outside[y0:y1, x0:x1] = 0
    assert one.effective.max() == 1
    assert not outside.any()
    loaded = cs.load(one.save(tmp_path / "field"))
    np.testing.assert_array_equal(loaded.rows, one.rows)
    assert "features.3" in one.summary()


def test_two_windows_of_three_see_five() -> None:
    """The first example of the weights and occlusion article."""
    scope = Scope(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), Inputs(size=32))
    field = cs.receptive_field(scope, "1")
    assert field.size.tolist() == [[5, 5]]
    assert field.box(3, 7) == (3, 7, 8, 12)


def test_height_and_width_are_apart() -> None:
    scope = Scope(nn.Sequential(nn.Conv2d(3, 4, (3, 7), stride=(1, 2), padding=(0, 3))), Inputs(size=(20, 40)))
    field = cs.receptive_field(scope, "0")
    assert field.size.tolist() == [[3, 7]]
    assert field.jump.tolist() == [[1, 2]]
    assert field.start.tolist() == [[0, -3]]
    assert field.box(0, 0) == (0, 0, 3, 4)


def test_effective_field_of_a_linear_stack_is_as_wide_as_theory_says() -> None:
    """n uniform kernels of width k spread like n (k^2 - 1) / 12 (Luo et al. 2016): the standard deviation of the gradient itself."""
    layers, kernel = 7, 5
    stack = nn.Sequential(*(nn.Conv2d(3 if index == 0 else 1, 1, kernel, padding=2, bias=False) for index in range(layers)))
    for parameter in stack.parameters():
        nn.init.ones_(parameter)
    field = cs.receptive_field(Scope(stack, Inputs(size=65)), str(layers - 1))
    amplitude = np.sqrt(field.effective.astype(np.float64)).sum(1)
    place = np.arange(65) - 32
    variance = (amplitude * place**2).sum() / amplitude.sum()
    assert variance == pytest.approx(layers * (kernel**2 - 1) / 12, rel=1e-3)


def spans_slowly(scope: Scope, layer: str, at: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last row and column of pixels with a gradient, of one unit, in float64 with weights of one sign: nothing cancels."""
    image = torch.rand(1, 3, scope.inputs.height, scope.inputs.width, dtype=torch.float64, requires_grad=True)
    value = image
    for name, module in scope.model.named_children():
        value = module.double()(value)
        if name == layer:
            break
    value[0, :, at[0], at[1]].sum().backward()
    assert image.grad is not None
    rows, columns = (torch.nonzero(image.grad[0].abs().sum((0, axis)))[:, 0].tolist() for axis in (2, 1))
    return min(rows), max(rows), min(columns), max(columns)


def test_the_field_grows_from_layer_to_layer_around_the_unit() -> None:
    """Zero padding is left out of the twin by a unit far from the border; the third layer is as the second and no step."""
    layers = [nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 1), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3)]
    stack = nn.Sequential(*layers)
    for parameter in stack.parameters():
        nn.init.constant_(parameter, 0.1)
    scope = Scope(stack, Inputs(size=(41, 37)))
    field = cs.receptive_field(scope, "5", position=(7, 4))
    assert field.steps == ("0", "2", "4", "5") and field.position == (7, 4)
    sizes = field.spans[:, 1::2] - field.spans[:, ::2] + 1
    assert sizes.tolist() == [[3, 3], [5, 5], [6, 6], [10, 10]]
    averaged = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(module, nn.MaxPool2d) else module for module in layers))
    assert tuple(field.spans[-1].tolist()) == spans_slowly(Scope(averaged, Inputs(size=(41, 37))), "5", (7, 4))
    for smaller, larger in zip(field.spans, field.spans[1:], strict=False):
        assert smaller[0] >= larger[0] and smaller[1] <= larger[1] and smaller[2] >= larger[2] and smaller[3] <= larger[3]
    every = cs.receptive_field(scope)
    assert every.steps == field.steps and every.position == ()
    drawn = [panel for panel in every.view().flat() if isinstance(panel, (Image, Intervals))]
    assert [name for _, name in drawn[0].legend] == ["0: 3x3", "2: 5x5", "4: 6x6", "5: 10x10"]  # type: ignore[union-attr]
    assert drawn[1].rows == ("0  3x3", "2  5x5", "4  6x6", "5  10x10")  # type: ignore[union-attr]


def test_the_drawing_shows_each_field_at_its_place() -> None:
    scope = Scope(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, (3, 5))), Inputs(size=32))
    (nested,) = [panel for panel in cs.receptive_field(scope).view().flat() if isinstance(panel, Image)]
    first, second = (np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255 for color, _ in nested.legend)
    zoom = nested.pixels.shape[1] // 7
    cells = nested.pixels[:, zoom // 2 :: zoom, zoom // 2 :: zoom].transpose(1, 2, 0)
    expected = np.full((7, 9), 0)
    expected[1:6, 1:8], expected[2:5, 3:6] = 2, 1
    shown = np.select([(cells == first).all(2), (cells == second).all(2)], [1, 2])
    assert shown.tolist() == expected.tolist()


def test_a_position_of_ones_own() -> None:
    scope = Scope(torchvision_network("squeezenet1_0"), Inputs(size=64))
    middle, corner = cs.receptive_field(scope, "features.3"), cs.receptive_field(scope, "features.3", position=(2, 5))
    assert middle.position == tuple(length // 2 for length in scope.layers["features.3"].spatial) and corner.position == (2, 5)
    y0, x0, y1, x1 = corner.box(2, 5)
    outside = corner.effective.copy()
    outside[y0:y1, x0:x1] = 0
    assert corner.effective.max() == 1 and not outside.any()
    assert (cs.receptive_field(scope, "features.3", position=middle.position).effective == middle.effective).all()
    shown = next(panel for panel in corner.view().flat() if isinstance(panel, Image))
    assert shown.boxes == ((y0, x0, y1, x1),) and "unit at (2, 5)" in shown.caption
    assert "the unit at (2, 5)" in corner.summary()
    vector = cs.receptive_field(scope, "output")
    assert vector.position == () and vector.steps == () and render.png(vector.view())


def test_the_effective_field_is_drawn_in_decades() -> None:
    scope = Scope(torchvision_network("squeezenet1_0"), Inputs(size=64))
    field = cs.receptive_field(scope, "features.5")
    (inside,) = [panel for panel in field.view().flat() if isinstance(panel, Heat)]
    y0, x0, y1, x1 = field.box(*field.position)
    expected = [[max(-4.0, np.log10(value)) if value > 0 else -4.0 for value in row] for row in field.effective[y0:y1, x0:x1].tolist()]
    np.testing.assert_allclose(inside.values, expected, atol=1e-6)
    assert inside.range() == (-4, 0)


def test_a_picture_of_ones_own() -> None:
    scope = Scope(torchvision_network("squeezenet1_0"), Inputs(size=64))
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    field = cs.receptive_field(scope, "features.5", image=picture)
    np.testing.assert_array_equal(field.image, picture.numpy())
    np.testing.assert_array_equal(field.effective, cs.receptive_field(scope, "features.5", image=picture).effective)


def test_mistakes() -> None:
    scope = Scope(torchvision_network("squeezenet1_0"), Inputs(size=64))
    with pytest.raises(BadInput, match="belongs to one layer"):
        cs.receptive_field(scope).box(0, 0)
    with pytest.raises(BadInput, match="has positions to"):
        cs.receptive_field(scope, "features.5").box(99, 0)
    with pytest.raises(BadInput, match=r"position: layer features\.5 has positions to \(\d+, \d+\), got \(99, 0\)"):
        cs.receptive_field(scope, "features.5", position=(99, 0))
    with pytest.raises(BadInput, match="a unit belongs to one layer; say which"):
        cs.receptive_field(scope, position=(0, 0))
