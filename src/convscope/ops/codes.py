"""Other codes made from a code: what an inversion may aim at instead of the image's own.

A code is one image's value at a layer, (c h w) or (c). Every function of a code to a code of the same shape will do; these are the
paper's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor

from convscope.errors import BadInput
from convscope.seeding import derive_seed

Edit: TypeAlias = Callable[[Tensor], Tensor]
"""A code (c h w) or (c) -> a code of the same shape."""


@dataclass(frozen=True)
class FeatureMap:
    """Everything is given to one map: psi_l = the sum over channels at every position, psi_k = 0 for every other k.

    Attributes:
        map: The map l.

    Source:
        Xia et al. 2016 (arXiv 1608.04170), feature map inversion. Their code calls it a mean, but it is the sum that the text speaks of.
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
    """The code's total is dealt out anew among the maps: psi_k = v_k / sum(v) * sum(phi) * phi_k / sum(phi_k), with random v > 0.

    Where a unit was at rest it stays at rest: maps that are zero everywhere get nothing, and the total is preserved.

    Attributes:
        seed: Seed of v, drawn as the magnitudes of N(3, 1000).

    Source:
        Xia et al. 2016, random modification. Deviation: they draw v itself from N(3, 1000), so that half of the targets are negative, out
        of a ReLU's reach, the scale is unbounded, and dead maps give 0/0.
    """

    seed: int = 0

    def __call__(self, code: Tensor) -> Tensor:
        draws = torch.randn(len(code), generator=Generator().manual_seed(derive_seed(self.seed, "reallocate")))
        return reallocated(code, (3 + 1000 * draws).abs().clamp(min=1e-3).to(code))

    def __str__(self) -> str:
        return f"reallocated, seed {self.seed}"


def reallocated(code: Tensor, shares: Tensor) -> Tensor:
    """The code with each map's total in proportion to `shares` (c), all > 0; dead maps stay dead and the whole total is preserved.

    Raises:
        BadInput: The code has negative values, so that "active" and "total" mean nothing.
    """
    if bool((code < 0).any()):
        raise BadInput("reallocating needs a code without negative values: take a layer after its ReLU")
    maps = code.flatten(1) if code.ndim > 1 else code[:, None]
    sums = maps.sum(1)
    alive = sums > 0
    shares = torch.where(alive, shares, 0)
    factors = torch.where(alive, shares / shares.sum().clamp(min=1e-30) * sums.sum() / sums.clamp(min=1e-30), 0)
    return (maps * factors[:, None]).view_as(code)


@dataclass(frozen=True, eq=False)
class Purposeful:
    """The content's maps in the style's order: its i-th smallest map by sum takes the place of the style's i-th smallest, at its mean.

    Attributes:
        style: The style's code, (c h w), of any height and width: ``scope.activations(image, layer)[layer][0]``.

    Source:
        Xia et al. 2016: the modification without optimization, which is in their code only. Targets can be negative.
    """

    style: Tensor

    def __call__(self, code: Tensor) -> Tensor:
        if code.ndim != 3 or self.style.ndim != 3 or len(code) != len(self.style):
            raise BadInput(f"Purposeful: the style's code is {tuple(self.style.shape)}, but the layer's is {tuple(code.shape)}")
        style_means = self.style.to(code).mean((1, 2))
        target = torch.empty_like(code)
        target[style_means.argsort(stable=True)] = code[code.mean((1, 2)).argsort(stable=True)]
        return target + (style_means - target.mean((1, 2)))[:, None, None]

    def __str__(self) -> str:
        return "in the style's order"


def find_edits(asked: Edit | str | Sequence[Edit | str | None] | None) -> list[Edit | None]:
    """The edits meant by one, by words such as "map=0-4,reallocate=1,own", or by a list of these; None is the code itself.

    Raises:
        BadInput: Words that mean no edit, or an empty list.
    """
    several: Sequence[Any] = asked if isinstance(asked, (list, tuple)) else [asked]
    found: list[Edit | None] = []
    for each in several:
        found += _from_words(each) if isinstance(each, str) else [each]
        if not (found and (found[-1] is None or callable(found[-1]))):
            raise BadInput(f"edit: expected FeatureMap(l), Reallocate(seed), a function of a code, or words such as map=3; got {each!r}")
    if not found:
        raise BadInput("edit: got an empty list")
    return found


def _from_words(words: str) -> list[Edit | None]:
    found: list[Edit | None] = []
    for word in (part.strip() for part in words.split(",")):
        match = re.fullmatch(r"(map|reallocate)=(\d+)(?:-(\d+))?", word)
        if word != "own" and match is None:
            raise BadInput(f"edit: expected own, map=3, map=0-4 or reallocate=0, got {word!r}")
        if match is None:
            found.append(None)
            continue
        first, last = int(match[2]), int(match[3] or match[2])
        if last < first:
            raise BadInput(f"edit: {word!r} counts backwards")
        found += [FeatureMap(number) if match[1] == "map" else Reallocate(number) for number in range(first, last + 1)]
    return found


def edit_name(edit: Edit | None) -> str:
    """How to call an edit in a figure."""
    if edit is None:
        return "own code"
    return str(edit) if isinstance(edit, (FeatureMap, Reallocate, Purposeful)) else getattr(edit, "__name__", type(edit).__name__)
