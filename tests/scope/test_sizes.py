"""Networks that take images of one size alone, or sizes that are multiples of a number.

Tried further, beside :data:`ONE_SIZE`: a network of squares alone, one of sides of 20 at least, a width alone that is fixed, ViT, MaxViT,
MLP-Mixer, CoAtNet and LeViT at 200 px (all take 224 alone), Swin (any size), a network whose flattened maps hide a remainder (24 and 25 px
give the same maps).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
import hand_built
import networks
from convscope.errors import BadInput
from convscope.ops.resize import resized
from convscope.optimize.recipes import RECIPES
from convscope.scope import Inputs, Scope
from hand_built import built

SIDE = 24


def scope_on(model: nn.Module) -> Scope:
    return Scope(model, Inputs(size=SIDE), precision="float32")


def fixed() -> Scope:
    return scope_on(networks.fixed_size())


def multiples() -> Scope:
    return scope_on(hand_built.seeded(networks.MultiplesOf8))


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (fixed, {(24, 24): (24, 24), (25, 25): (25, 25), (28, 28): (24, 24), (224, 160): (24, 24), (3, 3): (24, 24)}),
        (multiples, {(24, 24): (24, 24), (48, 24): (48, 24), (30, 50): (32, 48), (3, 3): (8, 8), (225, 224): (224, 224)}),
        (lambda: scope_on(hand_built.small()), {(24, 24): (24, 24), (25, 31): (25, 31), (5, 224): (5, 224)}),
    ],
)
def test_where_images_are_seen(make: Callable[[], Scope], sizes: dict[tuple[int, int], tuple[int, int]]) -> None:
    scope = make()
    assert {size: scope.seen_at(size, ["output"]) for size in sizes} == sizes
    forwards = scope.forwards
    assert {size: scope.seen_at(size, ["output"]) for size in sizes} == sizes and scope.forwards == forwards, "found out once"


def test_resizing_is_antialiased_and_differentiable() -> None:
    """Each output pixel is the mean of the input weighted by a triangle as wide as two output pixels, cut at the border."""
    images = hand_built.draws(1, 2, 11, 7, dtype=torch.float64).requires_grad_()

    def weights(length: int, wanted: int) -> Tensor:
        scale = max(length / wanted, 1)
        centers = (torch.arange(wanted, dtype=torch.float64) + 0.5) * length / wanted
        rows = (1 - (torch.arange(length, dtype=torch.float64) + 0.5 - centers[:, None]).abs() / scale).clamp(min=0)
        return rows / rows.sum(1, keepdim=True)

    for size in ((5, 3), (4, 7), (11, 2)):
        found = resized(images, size)
        down, across = weights(11, size[0]), weights(7, size[1])
        torch.testing.assert_close(found, torch.einsum("yh,nchw,xw->ncyx", down, images, across))
        (gradient,) = torch.autograd.grad(found.sum(), images)
        torch.testing.assert_close(gradient, (down.sum(0)[:, None] * across.sum(0)).expand_as(images))
    assert resized(images, (11, 7)) is images


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("make", [fixed, multiples])
def test_every_recipe_works(make: Callable[[], Scope], recipe: str) -> None:
    scope, stages = make(), min(RECIPES[recipe].stages, 4)
    made = cs.feature_visualization(scope, "output", [0, 3], recipe=recipe, steps=2, stages=stages)
    size = made.images.shape[2:]
    with torch.no_grad():
        shown = F.interpolate(torch.from_numpy(made.images.copy()), scope.seen_at(size, ["output"]), mode="bilinear", antialias=True)
        expected = scope.model.eval()(shown)[[0, 1], [0, 3]].numpy()
    np.testing.assert_allclose(made.scores, expected, rtol=1e-3, atol=1e-4)
    if made.manifest.get("seen_at"):
        assert "it saw them at" in made.view().note
    assert (made.manifest.get("seen_at") is None) == (scope.seen_at(size, ["output"]) == size)


def test_an_image_is_optimized_through_the_resizing() -> None:
    """A unit of a network of one size is excited about as well through larger images as at its own size."""
    scope = fixed()
    own, large = (cs.feature_visualization(scope, "output", [2], recipe="fourier", size=side, steps=40) for side in (SIDE, 64))
    start = cs.feature_visualization(scope, "output", [2], recipe="fourier", size=64, steps=1).scores[0]
    assert large.scores[0] - start > 0.5 * (own.scores[0] - start) > 0


def _patches(net: Any, images: Tensor) -> Tensor:
    assert images.shape[-2:] == (SIDE, SIDE), f"Input image size {images.shape} doesn't match model"
    return net.head(net.encoder(net.patches(images).flatten(2).transpose(1, 2)).mean(1))


def _checked(net: Any, images: Tensor) -> Tensor:
    if (maps := net.conv(images)).shape[-1] != 12:
        raise ValueError("bad map")
    return net.head(net.pool(maps).flatten(1))


ONE_SIZE: dict[str, Callable[[], nn.Module]] = {
    "strict patches": lambda: built(
        _patches,
        patches=lambda: nn.Conv2d(3, 16, 8, 8),
        encoder=lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
        head=lambda: nn.Linear(16, 5),
    ),
    "places added to maps": lambda: built(
        lambda net, images: net.head((net.conv(images) + net.conv.places).relu().mean((2, 3))),
        conv=lambda: _with_places(nn.Conv2d(3, 8, 3, padding=1)),
        head=lambda: nn.Linear(8, 5),
    ),
    "a pool after a check": lambda: built(
        _checked, conv=lambda: nn.Conv2d(3, 8, 3, 2, 1), pool=lambda: nn.AdaptiveAvgPool2d(3), head=lambda: nn.Linear(72, 5)
    ),
    "rows that are reshaped": lambda: built(
        lambda net, images: net.head(net.conv(images).relu().view(-1, 8 * 12 * 12)),
        conv=lambda: nn.Conv2d(3, 8, 3, 2, 1),
        head=lambda: nn.Linear(8 * 12 * 12, 5),
    ),
    "norms of maps": lambda: built(
        lambda net, images: net.head(net.norm(net.conv(images)).relu().mean((2, 3))),
        conv=lambda: nn.Conv2d(3, 8, 3, padding=1),
        norm=lambda: nn.LayerNorm([8, SIDE, SIDE]),
        head=lambda: nn.Linear(8, 5),
    ),
}
"""Networks of one size, each in a way of its own. ``view(-1, 1152)`` as in many tutorials does not fail at 48 px, but makes four rows of
an image."""


def _with_places(conv: nn.Conv2d) -> nn.Conv2d:
    conv.places = nn.Parameter(torch.randn(1, 8, SIDE, SIDE))  # type: ignore[assignment]
    return conv


@pytest.mark.parametrize("kind", ONE_SIZE)
def test_one_size_in_many_ways(kind: str) -> None:
    scope = scope_on(ONE_SIZE[kind]())
    for side in (33, 48, 12):
        made = cs.feature_visualization(scope, "output", [0, 3], recipe="fourier", size=side, steps=2)
        assert made.manifest["seen_at"] == [SIDE, SIDE] and made.images.shape == (2, 3, side, side)
        with torch.no_grad():
            expected = scope.model.eval()(resized(torch.from_numpy(made.images.copy()), (SIDE, SIDE)))[[0, 1], [0, 3]]
        np.testing.assert_allclose(made.scores, expected.numpy(), rtol=1e-3, atol=1e-4)
        with pytest.raises(BadInput, match=f"takes images of 24x24 alone, got {side}x{side}"):
            scope.activations(torch.rand(4, 3, side, side), "output")


def test_rows_that_are_no_images_are_refused_at_the_own_size_too() -> None:
    """Three images at once were not tried when the network was recorded: here they come back as one row."""
    scope = scope_on(
        built(lambda net, images: (v := net.conv(images).mean((2, 3)))[: 1 if len(v) == 3 else None], conv=lambda: nn.Conv2d(3, 8, 3))
    )
    assert scope.activations(IMAGES[..., :SIDE, :SIDE], "output")["output"].shape == (2, 8)
    with pytest.raises(BadInput, match="layer output: its value is of 1 images where 3 were given"):
        scope.activations(torch.rand(3, 3, SIDE, SIDE), "output")


IMAGES = hand_built.draws(2, 3, 40, 52)


@pytest.mark.parametrize("make", [fixed, multiples])
@pytest.mark.parametrize(
    "ask",
    [
        lambda scope, layer: scope.activations(IMAGES, layer),
        lambda scope, layer: cs.spectrum(scope, layer, IMAGES),
        lambda scope, layer: cs.occlusion(scope, IMAGES),
        lambda scope, layer: cs.deconvnet(scope, layer, [0], IMAGES),
        lambda scope, layer: cs.inversion(scope, layer, IMAGES, steps=2),
        lambda scope, layer: cs.hypothesis(scope, layer, 0, IMAGES, IMAGES, permutations=9),
        lambda scope, layer: list(scope.activations(IMAGES[:1, :, :2, :2], layer)),
    ],
)
def test_what_is_measured_is_refused_in_one_line(make: Callable[[], Scope], ask: Callable[[Scope, str], object]) -> None:
    """Positions, and codes, belong to the pixels given: an image that is resized behind the caller's back has others."""
    takes = "of 24x24 alone" if make is fixed else "whose sides are multiples of 8"
    scope = make()
    before = hand_built.state_of(scope.model)
    with pytest.raises(BadInput, match=rf"this network takes images {takes}, got (40x52|2x2); files are resized to 24x24") as error:
        ask(scope, "output")
    assert "\n" not in str(error.value) and hand_built.state_of(scope.model) == before


def test_layers_before_the_one_that_fails_take_any_size() -> None:
    scope = fixed()
    assert scope.activations(IMAGES, "5")["5"].shape == (2, 8, 20, 26)
    before = cs.feature_visualization(scope, "5", [1], steps=2, size=40, crop_size=32)
    assert "seen_at" not in before.manifest
    assert cs.feature_visualization(scope, "output", [1], steps=2, size=40, crop_size=32).manifest["seen_at"] == [24, 24]
    after = cs.feature_visualization(scope, "5", [1], steps=2, size=40, crop_size=32)
    assert np.array_equal(before.images, after.images), "what was learned of deeper layers changes nothing"


def test_styles_are_compared_at_the_size_that_is_taken() -> None:
    scope = multiples()
    shown = resized(IMAGES, (40, 56))
    one, other = (cs.style_similarity(scope, images, layers=["conv", "last"]) for images in (IMAGES, shown))
    np.testing.assert_allclose(one.similarity, other.similarity, rtol=1e-5)
    made = cs.style_transfer(scope, IMAGES[0], IMAGES[1], style_layers=["last"], content_layer="conv", steps=3)
    assert made.images.shape == (1, 1, 1, 3, 40, 52)


def test_images_that_are_too_small_for_any_network_of_this_kind() -> None:
    scope = scope_on(hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 9), nn.ReLU())))
    with pytest.raises(BadInput, match="images of 5x5 are too small for this network"):
        scope.activations(torch.rand(1, 3, 5, 5), "1")
    with pytest.raises(BadInput, match="too small"):
        cs.style_similarity(scope, torch.rand(2, 3, 5, 5), layers=["1"])


class Broken(nn.Module):
    """Fails at every size but its own for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] == 61:
            raise ValueError("no wide\nimages")
        return self.conv(images)


def test_the_reason_is_passed_on() -> None:
    with pytest.raises(BadInput, match=r"takes no images of 24x61 \(ValueError: no wide images\); it takes 24x24") as error:
        scope_on(Broken()).activations(torch.rand(1, 3, 24, 61), "output")
    assert isinstance(error.value.__cause__, ValueError)


def test_ordinary_networks_pay_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> bool:
        raise AssertionError("a pass to find out what the passes themselves tell")

    monkeypatch.setattr(Scope, "_takes", asked)
    scope = scope_on(hand_built.small())
    cs.feature_visualization(scope, "output", [0], recipe="multiscale", size=16, stages=3, steps=4)
    cs.style_similarity(scope, IMAGES[..., :SIDE, :SIDE], layers=["2"])
