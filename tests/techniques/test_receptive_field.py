"""Receptive fields as a result: boxes, the effective field, the table of all layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
import promises
from convscope.errors import BadInput
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
