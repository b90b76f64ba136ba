"""Where a layer's maps lie on the image: against the centre of what their cells depend on, as gradients say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
import hand_built
from convscope.scope import Inputs, Scope


def centre(scope: Scope, layer: str, cell: tuple[int, int], size: int) -> np.ndarray:
    """Mean y and x of the pixels that a cell's units depend on, each weighted by the derivative's magnitude, over noise images."""
    found = np.zeros((size, size))
    for seed in range(4):
        images = hand_built.draws(1, 3, size, size, seed=seed).requires_grad_()
        values: list[torch.Tensor] = []
        handle = scope.model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, value, kept=values: kept.append(value))
        with torch.enable_grad():
            scope.model(images)
        handle.remove()
        (slope,) = torch.autograd.grad(values[0][0, :, cell[0], cell[1]].sum(), images)
        found += slope[0].abs().sum(0).numpy()
    axis = np.arange(size) + 0.5
    return np.array([(found.sum(1 - each) * axis).sum() / found.sum() for each in (0, 1)])


@pytest.mark.parametrize(("name", "layer", "cell"), [("squeezenet1_0", "features.9", (3, 9)), ("resnet18", "layer2", (4, 9))])
def test_a_cell_lies_where_what_it_depends_on_lies(name: str, layer: str, cell: tuple[int, int]) -> None:
    size = 224 if name == "squeezenet1_0" else 128
    scope = Scope(hand_built.torchvision_network(name).eval(), Inputs(size=size))
    known = scope.layers[layer]
    cells = (known.spatial[0], known.spatial[1])
    y0, x0, y1, x1 = scope.layers.place(known, cells, (size, size))
    placed = np.array([y0 + (cell[0] + 0.5) * (y1 - y0) / cells[0], x0 + (cell[1] + 0.5) * (x1 - x0) / cells[1]])
    evenly = (np.array(cell) + 0.5) * size / np.array(cells)
    seen = centre(scope, layer, cell, size)
    assert np.abs(placed - seen).max() < 2 < np.abs(evenly - seen).max(), (placed, evenly, seen)


def test_without_stride_or_with_all_of_the_image_it_is_the_image() -> None:
    scope = Scope(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2)), Inputs(size=16))
    for layer, cells in (("0", (16, 16)), ("1", (8, 8))):
        assert scope.layers.place(scope.layers[layer], cells, (16, 16)) == (0, 0, 16, 16)
    whole = Scope(nn.Sequential(nn.Conv2d(3, 4, 15, padding=7), nn.AdaptiveAvgPool2d(1)), Inputs(size=8))
    assert whole.layers.place(whole.layers["1"], (1, 1), (8, 8)) == (0, 0, 8, 8)


def test_other_sizes_of_images_keep_the_steps() -> None:
    scope = Scope(nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.Conv2d(4, 4, 3, stride=2)), Inputs(size=33))
    assert scope.layers.place(scope.layers["1"], (7, 7), (33, 33)) == (2.5, 2.5, 30.5, 30.5)
    assert scope.layers.place(scope.layers["1"], (7, 15), (33, 65)) == (2.5, 2.5, 30.5, 62.5)


def test_results_carry_it() -> None:
    scope = Scope(
        nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), Inputs(size=32)
    )
    images = hand_built.draws(1, 3, 32, 32)
    place = (1.0, 1.0, 31.0, 31.0)
    for result in (
        cs.grad_cam(scope, images, layer="1"),
        cs.map_overlay(scope, "1", images),
        cs.unit_attribution(scope, images, layer="1"),
    ):
        assert result.place == place, result.technique
    assert cs.map_overlay(scope, "1", images, aligned=False).place == ()
