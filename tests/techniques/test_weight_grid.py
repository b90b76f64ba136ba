"""Weight grids: the article's own notebook in numpy, orientation, guards, groups, and twelve thousand kernels at once."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convscope
import hand_built
import promises
from convscope import render
from convscope.errors import BadInput, LayerNotFound
from convscope.render.panels import Mosaic
from convscope.scope import Inputs, Scope

PROMISE = promises.Promise(lambda s: convscope.weight_grid(s, "0"), "result.collated()")


def scope_of(*convolutions: nn.Module, size: int = 16) -> Scope:
    return Scope(hand_built.seeded(lambda: nn.Sequential(*convolutions)), Inputs(size=size))


def first(scope: Scope, values: np.ndarray, layer: str = "0") -> Scope:
    """The scope with these weights in its first layer, or another one."""
    with torch.no_grad():
        scope.model.get_submodule(layer).weight.copy_(torch.tensor(values))
    return scope


def article_multi(t: np.ndarray) -> list[np.ndarray]:
    """plot_filters_multi_channel: each filter as an (h w 3) picture."""
    shown = []
    for i in range(t.shape[0]):
        npimg = np.array(t[i], np.float64)
        npimg = (npimg - np.mean(npimg)) / np.std(npimg)
        npimg = np.minimum(1, np.maximum(0, (npimg + 0.5)))
        shown.append(npimg.transpose((1, 2, 0)))
    return shown


def article_single(t: np.ndarray) -> list[np.ndarray]:
    """plot_filters_single_channel: each kernel, filter by filter."""
    shown = []
    for i in range(t.shape[0]):
        for j in range(t.shape[1]):
            npimg = np.array(t[i, j], np.float64)
            npimg = (npimg - np.mean(npimg)) / np.std(npimg)
            shown.append(np.minimum(1, np.maximum(0, (npimg + 0.5))))
    return shown


def article_collated(t: np.ndarray) -> np.ndarray:
    """plot_filters_single_channel_big, cell by cell: P[i*kw+x, o*kh+y] = w[o, i, y, x]."""
    filters, channels, height, width = t.shape
    big = np.zeros((channels * width, filters * height), t.dtype)
    for o, i, y, x in np.ndindex(*t.shape):
        big[i * width + x, o * height + y] = t[o, i, y, x]
    return big


def test_the_articles_formulas() -> None:
    scope = scope_of(nn.Conv2d(3, 5, (4, 3)))
    weights = scope.weights_of("0").numpy()
    colored = convscope.weight_grid(scope, "0", scale="zscore")
    assert (colored.weights == weights).all() and colored.scale == "zscore"
    for tile, expected in zip(colored.shown, article_multi(weights), strict=True):
        np.testing.assert_allclose(tile.transpose(1, 2, 0), expected, atol=1e-6)
    single = convscope.weight_grid(scope, "0", mode="channels", scale="zscore")
    np.testing.assert_allclose(single.shown.reshape(-1, 4, 3), np.array(article_single(weights)), atol=1e-6)
    p = convscope.weight_grid(scope, "0", mode="collated", scale="range")
    assert (p.collated(article=True) == article_collated(weights)).all() and p.scale == "range"
    np.testing.assert_allclose([p.shown.min(), p.shown.max()], [0, 1], atol=1e-6)


def test_collated_is_a_bijection_and_the_articles_transpose() -> None:
    scope = first(scope_of(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, (2, 3))), np.arange(144.0).reshape(6, 4, 2, 3), "1")
    q = convscope.weight_grid(scope, "1", mode="collated").collated()
    p = convscope.weight_grid(scope, "1", mode="collated").collated(article=True)
    assert (q == p.T).all() and q.shape == (6 * 2, 4 * 3)
    assert sorted(q.ravel()) == list(range(144))
    for o, i, y, x in np.ndindex(6, 4, 2, 3):
        assert q[o * 2 + y, i * 3 + x] == ((o * 4 + i) * 2 + y) * 3 + x


@pytest.mark.parametrize("mode", ["rgb", "channels"])
def test_tiles_do_not_depend_on_gain_and_offset(mode: str) -> None:
    scope = scope_of(nn.Conv2d(3, 4, 5))
    before = convscope.weight_grid(scope, "0", mode=mode, scale="zscore")
    after = convscope.weight_grid(first(scope, 7.5 * before.weights + 2), "0", mode=mode, scale="zscore")
    np.testing.assert_allclose(after.shown, before.shown, atol=1e-5)
    shared = convscope.weight_grid(scope, "0", mode=mode, scale="shared")
    assert not np.allclose(shared.shown, before.shown, atol=1e-2)


@pytest.mark.parametrize("mode", ["rgb", "channels"])
def test_each_tile_has_zero_in_the_middle_and_nothing_is_clipped(mode: str) -> None:
    scope = scope_of(nn.Conv2d(3, 4, 5))
    made = convscope.weight_grid(scope, "0", mode=mode)
    assert made.scale == "tile"
    for o, i, y, x in np.ndindex(*made.weights.shape):
        tile = made.weights[o] if mode == "rgb" else made.weights[o, i]
        expected = 0.5 + float(made.weights[o, i, y, x]) / (2 * max(abs(float(w)) for w in tile.ravel()))
        assert made.shown[o, i, y, x] == pytest.approx(expected, abs=1e-6)
    gained = convscope.weight_grid(first(scope, 7.5 * made.weights), "0", mode=mode)
    np.testing.assert_allclose(gained.shown, made.shown, atol=1e-6)
    assert "is zero" in made.view().note


def test_an_unclipped_tile_has_mean_one_half() -> None:
    calm = np.tile(np.array([[-1.0, 1.0], [1.0, -1.0]]) * 0.1, (2, 3, 1, 1))
    shown = convscope.weight_grid(first(scope_of(nn.Conv2d(3, 2, 2)), calm), "0", mode="channels", scale="zscore").shown
    np.testing.assert_allclose(shown.mean((2, 3)), 0.5)
    assert set(np.unique(shown)) == {0, 1}


def test_the_shared_scale_is_symmetric() -> None:
    weights = np.zeros((2, 3, 2, 2), np.float32)
    weights[0, 0, 0, 0], weights[1, 2, 1, 1] = -4, 1
    made = convscope.weight_grid(first(scope_of(nn.Conv2d(3, 2, 2)), weights), "0", mode="channels", scale="shared")
    assert (made.shown[0, 0, 0, 0], made.shown[1, 2, 1, 1], made.shown[0, 1, 0, 0]) == (0, 0.625, 0.5)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0])
@pytest.mark.parametrize("mode", ["rgb", "channels", "collated"])
def test_equal_weights_are_even(value: float, mode: str) -> None:
    scope = first(scope_of(nn.Conv2d(3, 4, 3)), np.full((4, 3, 3, 3), value, np.float32))
    made = convscope.weight_grid(scope, "0", mode=mode, scale="tile")
    np.testing.assert_allclose(made.shown, 0.5 if value == 0 else 1.0 if value > 0 else 0.0, atol=1e-6)
    np.testing.assert_allclose(convscope.weight_grid(scope, "0", mode=mode, scale="zscore").shown, 0.5, atol=1e-6)
    for scale in ("auto", "range", "zscore"):
        assert np.isfinite(convscope.weight_grid(scope, "0", mode=mode, scale=scale).shown).all()
        assert render.png(convscope.weight_grid(scope, "0", mode=mode, scale=scale).view())


def test_kernels_of_one_weight_compare_with_each_other() -> None:
    scope = scope_of(nn.Conv2d(3, 5, 1))
    made = convscope.weight_grid(scope, "0", mode="channels")
    assert made.scale == "shared" and len(np.unique(made.shown)) == 15
    assert (convscope.weight_grid(scope, "0", mode="channels", scale="zscore").shown == 0.5).all()
    assert convscope.weight_grid(scope, "0").scale == "tile", "in rgb, a filter has three"


def test_groups_and_depthwise() -> None:
    scope = scope_of(nn.Conv2d(3, 12, 3), nn.Conv2d(12, 8, 3, groups=4), nn.Conv2d(8, 8, 3, groups=8))
    grouped, depthwise = (convscope.weight_grid(scope, layer, mode="channels") for layer in "12")
    assert grouped.weights.shape == (8, 3, 3, 3) and grouped.groups == 4
    assert convscope.weight_grid(scope, "1").shown.shape == (8, 3, 3, 3), "three channels by shape"
    assert depthwise.weights.shape == (8, 1, 3, 3)
    assert "8 groups" in depthwise.view().note and "group" not in convscope.weight_grid(scope, "0").view().note
    with pytest.raises(BadInput, match='its filters read 1 channels, so they are no RGB images; use mode="channels"'):
        convscope.weight_grid(scope, "2")


def test_the_figure_has_every_kernel_upright() -> None:
    scope = first(scope_of(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, (2, 3))), np.arange(144.0).reshape(6, 4, 2, 3), "1")
    made = [convscope.weight_grid(scope, "1", mode="collated", scale=scale) for scale in ("auto", "range")]
    panels = [next(panel for panel in one.view().flat() if isinstance(panel, Mosaic)) for one in made]
    for panel in panels:
        assert panel.columns == 24 and panel.together == 4 and len(panel.tiles) == 24
        for o, i in np.ndindex(6, 4):
            assert (panel.tiles[o * 4 + i] == made[0].weights[o, i]).all()
    assert [panel.scale for panel in panels] == ["signed", "grey"]


def test_twelve_thousand_kernels_at_once() -> None:
    scope = Scope(hand_built.torchvision_network("alexnet"), Inputs(size=64))
    began = time.perf_counter()
    made = convscope.weight_grid(scope, "features.3", mode="channels")
    assert time.perf_counter() - began < 5, "measured: 0.15 s and the layers' table"
    assert made.shown.shape == (192, 64, 5, 5)
    (panel,) = made.view().panels
    assert isinstance(panel, Mosaic) and len(panel.tiles) == 12288 and panel.columns == 64


def test_store_model_and_repetition(scope: Scope, small: nn.Module, tmp_path: Path) -> None:
    hand_built.unsettle(small)
    before = hand_built.state_of(small)
    made = convscope.weight_grid(scope, "4", mode="channels")
    assert (convscope.weight_grid(scope, "4", mode="channels").shown == made.shown).all()
    assert hand_built.state_of(small) == before
    loaded = convscope.load(made.save(tmp_path / "weights"))
    assert isinstance(loaded, convscope.WeightGrid) and (loaded.shown == made.shown).all() and loaded.summary() == made.summary()
    assert render.png(loaded.view()) == render.png(made.view())
    assert made.summary().startswith("4: 8 filters of 6 kernels 3x3, weights -")


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"layer": "9"}, LayerNotFound, "no layer '9'"),
        ({"layer": "8"}, BadInput, "layer 8 is a Linear, which has no kernels to show; convolutions near it: 4, 0"),
        ({"layer": "4"}, BadInput, "its filters read 6 channels"),
        ({"mode": "grey"}, BadInput, "mode must be rgb, channels or collated, got 'grey'"),
        ({"scale": "map"}, BadInput, "scale must be auto, tile, zscore, shared or range, got 'map'"),
    ],
)
def test_wrong_questions(scope: Scope, wrong: dict[str, str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        convscope.weight_grid(scope, **({"layer": "0"} | wrong))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
