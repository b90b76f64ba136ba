"""Where in the picture a unit looks: the pixels it can see, and those it really looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from convscope.errors import BadInput
from convscope.result import Result, axes
from convscope.scope import Image, Scope
from convscope.scope.graph import Field
from convscope.scope.provenance import technique
from convscope.seeding import derive_seed

SAMPLES = 8
"""Random pictures that the effective field is averaged over."""


@dataclass(frozen=True, eq=False)
class ReceptiveField(Result):
    """Receptive fields of layers; of one layer also every unit's box and the effective field.

    Attributes:
        size: Height and width of the field in pixels, (layer 2); of the whole picture where `whole`.
        jump: Pixels between the fields of neighbouring units, (layer 2).
        start: First pixel of the first unit's field, (layer 2); negative: it begins in the padding.
        whole: 1 where units see the whole picture whatever its size (sums over the map, dense layers), (layer 2).
        rows: First and last row of pixels seen by each row of units of the asked layer, not clipped; then the same without what lies in
            padding, (y 4); empty for several layers.
        columns: The same for columns, (x 4).
        effective: Gradient energy at the picture of the middle unit of the asked layer, all channels together, divided by its maximum,
            (h w); empty for several layers.
        image: The picture it is drawn on, (rgb h w) in [0,1].
        layers: Names of the layers.
        height, width: Size of the picture in pixels.
        share: Share of the picture's pixels whose energy is above 4.55 % of the peak (two standard deviations, if it were Gaussian).
    """

    size: np.ndarray = axes("layer yx", unit="pixels")
    jump: np.ndarray = axes("layer yx", unit="pixels")
    start: np.ndarray = axes("layer yx", unit="pixels")
    whole: np.ndarray = axes("layer yx")
    rows: np.ndarray = axes("y ends", unit="pixels")
    columns: np.ndarray = axes("x ends", unit="pixels")
    effective: np.ndarray = axes("h w", "heat", unit="gradient energy / maximum")
    image: np.ndarray = axes("rgb h w", "image")
    layers: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    share: float = 0.0

    def box(self, y: int, x: int, *, clipped: bool = True) -> tuple[int, int, int, int]:
        """The pixels that the unit at (y, x) of the asked layer sees: (y0, x0, y1, x1), end exclusive.

        Args:
            y, x: Position on the layer's map.
            clipped: Leave out what lies in padding, the picture's or that of a map on the way. A unit that sees only padding has an empty
                box.

        Raises:
            BadInput: Several layers were asked for, or there is no such position.
        """
        if len(self.layers) != 1:
            raise BadInput(f"a box belongs to one layer; these are the fields of {len(self.layers)}: ask for receptive_field(scope, layer)")
        if not (0 <= y < len(self.rows) and 0 <= x < len(self.columns)):
            raise BadInput(f"layer {self.layers[0]} has positions to ({len(self.rows) - 1}, {len(self.columns) - 1}), got ({y}, {x})")
        ends = slice(2, 4) if clipped else slice(0, 2)
        (y0, y1), (x0, x1) = self.rows[y, ends], self.columns[x, ends]
        return int(y0), int(x0), int(y1) + 1, int(x1) + 1

    def summary(self) -> str:
        """A line per layer."""
        lines: list[str] = []
        for name, size, jump, start, whole in zip(self.layers, self.size, self.jump, self.start, self.whole, strict=True):
            seen = "the whole picture" if whole.all() else f"{_pair(size)} px, every {_pair(jump)} px, from {_pair(start)}"
            lines.append(f"{name}: {seen}")
        if self.effective.size:
            lines.append(f"effective field of the middle unit: {100 * self.share:.1f} % of the picture above 4.55 % of its peak")
        return "\n".join(lines)


@technique
def receptive_field(scope: Scope, layer: str | None = None, *, image: Image | None = None, seed: int = 0) -> ReceptiveField:
    """Where in the picture units look.

    Exact hulls by interval arithmetic on the network's graph, through branches, residuals, dilation, uneven padding and transposed
    convolutions, y and x separately. For one layer, beside it the effective field: E(p) = mean over random pictures and channel weights
    r of (d sum_c r_c A_c(middle) / dx_p)^2, summed over colours.

    Args:
        scope: The network.
        layer: Layer name; None: the fields of all layers.
        image: A picture to draw box and effective field on; the effective field is then that picture's own.
        seed: Seed of the random pictures and channel weights.

    Returns:
        Size, jump and start for each layer; `.box(y, x)` for the units of one layer.

    Raises:
        LayerNotFound: Unknown layer.

    Source:
        Araujo, Norris, Sim 2019 (distill.00021); effective field: Luo et al. 2016 (arXiv 1701.04128), whose mean of signed gradients
        cancels; squares are averaged here.

    Example:
        >>> import convscope as cs
        >>> field = cs.receptive_field(cs.open("textures"), "features.0")
        >>> field.size.tolist(), field.box(0, 0)
        ([[3, 3]], (0, 0, 2, 2))
    """
    names = list(scope.layers) if layer is None else [scope.layers[layer].name]
    height, width = scope.inputs.height, scope.inputs.width
    fields = {name: [_field(scope, name, axis) for axis in (0, 1)] for name in names}
    picture = np.zeros((3, 0, 0), np.float32) if image is None else scope.inputs(image).numpy()
    rows, columns = (_ends(scope, names[0], axis) if layer is not None else np.zeros((0, 4), int) for axis in (0, 1))
    effective = np.zeros((0, 0), np.float32) if layer is None else _effective(scope, layer, image, seed)
    return ReceptiveField(
        size=np.array([[field.size for field in pair] for pair in fields.values()]),
        jump=np.array([[field.jump for field in pair] for pair in fields.values()]),
        start=np.array([[field.first[0] for field in pair] for pair in fields.values()]),
        whole=np.array([[int(field.whole) for field in pair] for pair in fields.values()]),
        rows=rows,
        columns=columns,
        effective=effective,
        image=picture,
        layers=tuple(names),
        height=height,
        width=width,
        share=float((effective > 0.0455).mean()) if effective.size else 0.0,
        manifest={"precision": scope.resolve("measure")},
    )


def _field(scope: Scope, name: str, axis: int, *, clipped: bool = False) -> Field:
    node = scope.layers[name].node
    if node is None:
        raise BadInput(f"layer {name} does not depend on the picture, so it has no receptive field")
    return scope.graph.field(node, axis, clipped=clipped)


def _ends(scope: Scope, name: str, axis: int) -> np.ndarray:
    """(position 4): first and last pixel, not clipped and clipped."""
    full, inside = (_field(scope, name, axis, clipped=clipped) for clipped in (False, True))
    return np.stack([full.first, full.last, inside.first, inside.last], 1)


def _effective(scope: Scope, layer: str, image: Image | None, seed: int) -> np.ndarray:
    """(h w) gradient energy at the picture, for the unit in the middle of the map, divided by its maximum."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "receptive_field", layer))
    size = 3, scope.inputs.height, scope.inputs.width
    if image is None:
        pictures = torch.stack([torch.rand(size, generator=generator) for _ in range(SAMPLES)])
    else:
        pictures = scope.inputs(image)[None].expand(SAMPLES, -1, -1, -1)
    known = scope.layers[layer]
    seeds = torch.zeros(SAMPLES, *known.shape)
    middle = [slice(None), *(length // 2 for length in known.shape)]
    middle[known.channel_axis + 1] = slice(None)
    seeds[tuple(middle)] = torch.randn(SAMPLES, known.channels, generator=generator)
    energy = scope.pull_back(pictures, layer, seeds).square().sum(1).mean(0)
    return (energy / energy.max().clamp(min=torch.finfo(energy.dtype).tiny)).cpu().numpy()


def _pair(values: np.ndarray) -> str:
    return f"{values[0]:g}" if values[0] == values[1] else "x".join(f"{value:g}" for value in values)
