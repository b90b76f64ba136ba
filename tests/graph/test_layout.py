"""What axes count: values are led astray by views alone, so that what a layer says of its axes must give the first map back, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
import hand_built
import scanned
from convscope.errors import BadInput
from convscope.scope import Inputs, Scope

N, C, H, W = 2, 6, 8, 12
Way = Callable[[Tensor], Tensor]


class Astray(nn.Module):
    """A convolution, views of its value, and what becomes of it."""

    def __init__(self, way: Way, after: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.astray, self.way = nn.Conv2d(3, C, 1), nn.Identity(), way
        self.after = after if after is not None else nn.Identity()
        self.extra = nn.Parameter(torch.randn(1, 3, C))

    def forward(self, images: Tensor) -> Tensor:
        value = self.after(self.astray(self.way(self.conv(images))))
        return value.flatten(1).sum(1, keepdim=True) + images.new_zeros(1, 2)


def opened(model: nn.Module) -> Scope:
    return Scope(hand_built.seeded(lambda: model), Inputs(size=(H, W)), precision="float32")


def windows(maps: Tensor, side: int) -> Tensor:
    """(n c h w) -> (n*windows side*side c), as Swin does it."""
    n, c, h, w = maps.shape
    cut = maps.permute(0, 2, 3, 1).reshape(n, h // side, side, w // side, side, c)
    return cut.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, c)


def joined(parts: Tensor, side: int, h: int, w: int) -> Tensor:
    """The way back: (n h w c)."""
    cut = parts.reshape(-1, h // side, w // side, side, side, parts.shape[-1])
    return cut.permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, parts.shape[-1])


def shifted(maps: Tensor) -> Tensor:
    rolled = maps.permute(0, 2, 3, 1).roll((-2, -1), (1, 2)).permute(0, 3, 1, 2)
    return joined(windows(rolled, 4), 4, H, W).roll((2, 1), (1, 2))


def padded(maps: Tensor) -> Tensor:
    wide = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 0, 3, 0, 2)).permute(0, 3, 1, 2)
    return joined(windows(wide, 5), 5, H + 2, W + 3)[:, :H, :W].contiguous()


def tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


def beside(before: int, after: int) -> Way:
    def way(maps: Tensor) -> Tensor:
        extra = torch.zeros(len(maps), 1, C)
        return torch.cat([*[extra] * before, tokens(maps), *[extra] * after], 1)

    return way


WAYS: dict[str, tuple[Way, int]] = {
    "maps": (lambda maps: maps * 1, 0),
    "channels-last": (lambda maps: maps.permute(0, 2, 3, 1), 0),
    "tokens": (tokens, 0),
    "units-first": (lambda maps: maps.flatten(2), 0),
    "class-token": (beside(1, 0), 1),
    "registers": (beside(5, 0), 5),
    "suffix": (beside(1, 3), 1),
    "prefix-dropped": (lambda maps: beside(2, 0)(maps)[:, 1:], 1),
    "prefix-gone": (lambda maps: beside(2, 1)(maps)[:, 2:-1], 0),
    "windows-and-back": (lambda maps: joined(windows(maps, 4), 4, H, W), 0),
    "shifted-windows": (shifted, 0),
    "padded-windows": (padded, 0),
    "heads-and-back": (lambda maps: tokens(maps).reshape(len(maps), H * W, 2, C // 2).transpose(1, 2).transpose(1, 2).flatten(2), 0),
    "space-to-tokens": (lambda maps: tokens(maps).unflatten(1, (H, W)), 0),
    "mean-of-two": (lambda maps: torch.stack([maps.permute(0, 2, 3, 1)] * 2, 1).mean(-4), 0),
    "mean-that-stays": (lambda maps: torch.stack([maps.permute(0, 2, 3, 1)] * 2, 1).mean(1, keepdim=True)[:, 0], 0),
    "beside-a-sum": (lambda maps: 0 * maps.sum(()) + maps.permute(0, 2, 3, 1), 0),
}


@pytest.mark.parametrize("name", WAYS)
def test_the_map_is_found_again(name: str) -> None:
    way, prefix = WAYS[name]
    scope, images = opened(Astray(way)), torch.rand(N, 3, H, W)
    layer = scope.layers["astray"]
    assert (layer.channels, layer.spatial, layer.prefix, layer.batch_axis) == (C, (H, W), prefix, 0)
    found = scope.run(images, ["conv", "astray"], channels_first=True)
    assert torch.equal(found["astray"], found["conv"])
    raw = scope.activations(images, "astray")["astray"]
    assert torch.equal(raw, way(found["conv"])), "what is asked for as it is stays as it is"


@pytest.mark.parametrize("name", ["maps", "channels-last", "tokens", "units-first"])
def test_a_single_unit(name: str) -> None:
    way, _ = WAYS[name]
    model = Astray(way)
    model.conv = nn.Conv2d(3, 1, 1)
    scope, images = opened(model), torch.rand(N, 3, H, W)
    layer = scope.layers["astray"]
    assert (layer.channels, layer.spatial) == (1, (H, W))
    found = scope.run(images, ["conv", "astray"], channels_first=True)
    assert torch.equal(found["astray"], found["conv"])


class Square(torch.autograd.Function):
    """An operation that no graph sees into."""

    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(maps.detach().numpy() ** 2)


CONVENTIONAL: dict[str, Way] = {
    "own-operation": Square.apply,
    "fourier": lambda maps: torch.fft.ifft2(torch.fft.fft2(maps)).real,
    "einsum": lambda maps: torch.einsum("nchw,cd->ndhw", maps, torch.ones(C, C)),
}


@pytest.mark.parametrize("name", CONVENTIONAL)
def test_maps_behind_what_is_not_known_are_taken_as_all_of_pytorch_has_them(name: str) -> None:
    # also tried: deformable convolutions, grid_sample
    scope, images = opened(Astray(CONVENTIONAL[name])), torch.rand(2, 3, H, W)
    layer = scope.layers["astray"]
    assert (layer.channels, layer.spatial, layer.unclear) == (C, (H, W), False)
    expected = CONVENTIONAL[name](scope.activations(images, "conv")["conv"])
    assert torch.allclose(scope.run(images, ["astray"], channels_first=True)["astray"], expected)


REFUSED: dict[str, Way] = {
    "heads": lambda maps: tokens(maps).reshape(len(maps), H * W, 2, C // 2).transpose(1, 2),
    "shuffled-units": lambda maps: maps[:, torch.tensor([[0, 1, 2], [3, 4, 5]])],
    "two-units": lambda maps: maps.unflatten(1, (2, C // 2)),
    "windows-apart": lambda maps: windows(maps, 4).reshape(len(maps), 6, 16, C),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused(name: str) -> None:
    scope = opened(Astray(REFUSED[name]))
    assert scope.layers["astray"].unclear and "?" in {row[0]: row[2] for row in scope.layers.rows()}["astray"]
    for ask in (lambda: cs.spectrum(scope, "astray", torch.rand(1, 3, H, W)), lambda: scope.units("astray", None)):
        with pytest.raises(BadInput, match=r"layer astray .*counts units cannot be told; ask for the layer around it") as told:
            ask()
        assert "\n" not in str(told.value)
    assert scope.activations(torch.rand(1, 3, H, W), "astray")["astray"].ndim > 2


NO_GRID: dict[str, Way] = {
    "x-before-y": lambda maps: maps.transpose(2, 3).flatten(2).transpose(1, 2),
    "some-tokens": lambda maps: tokens(maps)[:, 3:40],
    "other-order": lambda maps: tokens(maps)[:, torch.randperm(H * W, generator=torch.Generator().manual_seed(0))],
    "two-grids": lambda maps: torch.cat([tokens(maps), tokens(maps)], 1),
}


@pytest.mark.parametrize("name", NO_GRID)
def test_tokens_of_no_grid_are_no_map(name: str) -> None:
    scope = opened(Astray(NO_GRID[name]))
    layer = scope.layers["astray"]
    assert layer.unclear or (layer.channels == C and len(layer.spatial) == 1)
    with pytest.raises(BadInput, match=r"layer astray"):
        cs.map_overlay(scope, "astray", torch.rand(1, 3, H, W))


class Attention(nn.Module):
    """Attention written out, in a residual block."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj, self.fused = nn.LayerNorm(C), nn.Linear(C, 3 * C), nn.Linear(C, C), fused

    def forward(self, value: Tensor) -> Tensor:
        n, t, c = value.shape
        q, k, v = self.qkv(self.norm(value)).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v) if self.fused else (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return value + self.proj(mixed.transpose(1, 2).reshape(n, t, c))


@pytest.mark.parametrize("fused", [True, False])
def test_attention_keeps_the_places_of_queries(fused: bool) -> None:
    scope = opened(Astray(beside(1, 0), Attention(fused)))
    for name in ("after", "after.norm", "after.qkv", "after.proj"):
        layer = scope.layers[name]
        assert (layer.grid, layer.prefix, layer.channel_axis) == ((H, W), 1, 1), name
    images, model = torch.rand(N, 3, H, W), scope.model
    with torch.no_grad():
        twin: Any = model.get_submodule("after")(beside(1, 0)(model.get_submodule("conv")(images)))
    found = scope.run(images, "after", channels_first=True)["after"]
    for y, x in ((0, 0), (3, 7), (7, 11)):
        assert torch.allclose(found[:, :, y, x], twin[:, 1 + y * W + x], atol=1e-6)


def test_a_mixer_keeps_its_places() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.hidden = nn.Linear(H * W, H * W), nn.Identity()

        def forward(self, value: Tensor) -> Tensor:
            return value + self.hidden(self.mix(value.transpose(1, 2))).transpose(1, 2)

    scope = opened(Astray(tokens, Mixer()))
    assert scope.layers["after"].grid == (H, W) and scope.layers["after.hidden"].unclear


def test_other_sizes_of_images() -> None:
    scope = opened(Astray(tokens))
    with pytest.raises(BadInput, match=r"layer astray: 60 tokens, which are no grid that is known; .* there are 96, of a 8x12 grid"):
        scope.run(torch.rand(1, 3, 6, 10), "astray", channels_first=True)


def test_techniques_on_tokens() -> None:
    scope, images = opened(Astray(beside(1, 0), Attention(True))), torch.rand(N, 3, H, W)
    value = scope.activations(images, "after")["after"]
    seen = cs.spectrum(scope, "after", images)
    assert torch.allclose(torch.from_numpy(seen.values.copy()), value[:, 1:].mean(1), atol=1e-6), "the class token is left out"
    laid = cs.map_overlay(scope, "after", images, units=[4])
    assert torch.equal(torch.from_numpy(laid.maps[:, 0].copy()), value[:, 1:, 4].unflatten(1, (H, W)))
    grid = cs.activation_grid(scope, images, layers=["after"])
    assert grid.maps[0].shape == (N, C, H, W)
    field = cs.receptive_field(scope, "after")
    assert field.whole.all() and field.box(7, 11) in ((0, 0, H, W), (0, 0, H - 1, W - 1))
    made = cs.feature_visualization(scope, "after", [2], steps=2, size=H, crop_size=8)
    assert made.images.shape[0] == 1
    with pytest.raises(BadInput, match="layer after holds tokens: attention mixes them") as told:
        cs.deconvnet(scope, "after", [0], images)
    assert "\n" not in str(told.value)


def test_a_scan_of_tokens(tmp_path: Path) -> None:
    for number in range(3):
        scanned.picture(number, 12).resize((W, H)).save(tmp_path / f"{number}.png")
    scope = opened(Astray(beside(1, 2), Attention(True)))
    survey = cs.scan(scope, tmp_path, tmp_path / "survey", layers=["after"], decoders=0)
    fed = torch.from_numpy(np.stack([survey.read_image(number) for number in range(3)]))
    maps = scope.activations(fed, "after")["after"][:, 1:-2].transpose(1, 2).unflatten(2, (H, W)).numpy()
    assert np.allclose(survey.maximum("after"), maps.max((2, 3)), atol=1e-6) and np.allclose(
        survey.mean("after"), maps.mean((2, 3)), atol=1e-6
    )
    places = survey.positions("after")
    best = cs.exemplars(survey, "after", [3], top=1)
    row = survey.row(int(best.images[0, 0]))
    y, x = np.unravel_index(maps[row, 3].argmax(), (H, W))
    assert places[row, 3].tolist() == best.positions[0, 0].tolist() == [y, x]
    # an eighth of the height is a row of the grid: three of them, around the strongest
    assert best.middle == 3 / 8 and abs((best.boxes[0, 0, 0] + best.boxes[0, 0, 2]) / 2 - (y + 0.5)) <= 1
    whole = cs.exemplars(survey, "after", [3], top=1, middle=1)
    assert whole.boxes[0, 0].tolist() == [0, 0, H, W]
