"""Edits of codes: targets of an inversion made from the image's own code.

A code is the activations of one image at a layer, (c h w) or (c). Every function from a code to a code of the same shape is an edit; these
are the paper's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor

from convscope.errors import BadInput
from convscope.seeding import derive_seed

Edit: TypeAlias = Callable[[Tensor], Tensor]
"""A code (c h w) or (c) -> a code of the same shape."""


@dataclass(frozen=True)
class FeatureMap:
    """Feature map inversion: psi_l = the sum over channels at every position, psi_k = 0 for every other k.

    Attributes:
        map: Channel number l.

    Source:
        Xia et al. 2016 (arXiv 1608.04170). Their code calls it a mean, but it is a sum, as in their text.
    """

    map: int

    def __call__(self, code: Tensor) -> Tensor:
        if not 0 <= self.map < len(code):
            raise BadInput(f"FeatureMap({self.map}): the layer has maps 0 to {len(code) - 1}")
        target = torch.zeros_like(code)
        target[self.map] = code.sum(0)
        return target

    def __str__(self) -> str:
        return f"map {self.map}"


@dataclass(frozen=True)
class Reallocate:
    """Random modification: every map scaled to a random share of the total: psi_k = v_k / sum(v) * sum(phi) * phi_k / sum(phi_k), v > 0.

    Zeros stay zero, maps that are zero everywhere get no share, and the total is preserved.

    Attributes:
        seed: Seed of v, drawn as the magnitudes of N(3, 1000).

    Source:
        Xia et al. 2016. Deviation: they draw v itself from N(3, 1000), so that half of the targets are negative,
        which no ReLU can reach, the scale is unbounded, and dead maps give 0/0.
    """

    seed: int = 0

    def __call__(self, code: Tensor) -> Tensor:
        draws = torch.randn(
            len(code), generator=Generator("cpu").manual_seed(derive_seed(self.seed, "reallocate")), dtype=torch.float32, device="cpu"
        )
        return reallocated(code, (3 + 1000 * draws).abs().clamp(min=1e-3).to(code))

    def __str__(self) -> str:
        return f"reallocated, seed {self.seed}"


def reallocated(code: Tensor, shares: Tensor) -> Tensor:
    """The code with each map's total in proportion to `shares` (c), all > 0; dead maps stay dead and the whole total is preserved.

    Raises:
        BadInput: The code has negative values, so that shares of the total are not defined.
    """
    if bool((code < 0).any()):
        raise BadInput("Reallocate needs a code without negative values: take a layer after its ReLU")
    maps = code.flatten(1) if code.ndim > 1 else code[:, None]
    sums = maps.sum(1)
    alive = sums > 0
    shares = torch.where(alive, shares, 0)
    factors = torch.where(alive, shares / shares.sum().clamp(min=1e-30) * sums.sum() / sums.clamp(min=1e-30), 0)
    return (maps * factors[:, None]).view_as(code)


@dataclass(frozen=True, eq=False)
class Purposeful:
    """Purposeful modification: the content's i-th smallest map by sum replaces the style's i-th smallest, shifted to that map's mean.

    Attributes:
        style: The style image (path, PIL image, HWC uint8 array), whose code inversion takes at its layer; or that code itself, (c h w),
            of any height and width: ``scope.activations(image, layer)[layer][0]``.

    Source:
        Xia et al. 2016: the variant without optimization, which is in their code only. Targets can be negative.
    """

    style: Any

    def __call__(self, code: Tensor) -> Tensor:
        if not isinstance(self.style, Tensor):
            raise BadInput("Purposeful: a style image has a code at a layer only: call inversion with it, or pass its code (c h w)")
        if code.ndim != 3 or self.style.ndim != 3 or len(code) != len(self.style):
            raise BadInput(f"Purposeful: the style's code is {tuple(self.style.shape)}, but the layer's is {tuple(code.shape)}")
        style_means = self.style.to(code).mean((1, 2))
        target = torch.empty_like(code)
        target[style_means.argsort(stable=True)] = code[code.mean((1, 2)).argsort(stable=True)]
        return target + (style_means - target.mean((1, 2)))[:, None, None]

    def __str__(self) -> str:
        return f"in the order of {Path(self.style).stem}" if isinstance(self.style, (str, os.PathLike)) else "in the style's order"


def find_edits(asked: Edit | Sequence[Edit | None] | None) -> list[Edit | None]:
    """One edit, or a list of edits, as a list; None is the code itself.

    Raises:
        BadInput: Something that is no edit, or an empty list.
    """
    found: list[Any] = list(asked) if isinstance(asked, (list, tuple)) else [asked]
    for each in found:
        if each is not None and not callable(each):
            raise BadInput(f"edit: expected FeatureMap(l), Reallocate(seed), a function of a code, None, or a list of these; got {each!r}")
    if not found:
        raise BadInput("edit: got an empty list")
    return found


def edit_name(edit: Edit | None) -> str:
    """Name of an edit in a figure."""
    if edit is None:
        return "own code"
    return str(edit) if isinstance(edit, (FeatureMap, Reallocate, Purposeful)) else getattr(edit, "__name__", type(edit).__name__)
