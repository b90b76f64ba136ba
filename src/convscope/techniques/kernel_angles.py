"""Kernel angles: which patches of images point along a convolution's kernels, by the angle between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.errors import BadInput
from convscope.names import Units, is_whole
from convscope.progress import task
from convscope.results.kernel_angles import BINS, KernelAngles
from convscope.results.provenance import technique
from convscope.scope import Images, Layer, Scope

_GREY = 0.5


@technique
def kernel_angles(scope: Scope, layer: str, units: Units, images: Images, *, top: int = 8) -> KernelAngles:
    """Angles between a convolution's kernels and the patches that they are laid on: which patches of real images point along a kernel.

    A convolution's value is w . x + b = |w| |x| cos(angle) + b, where x is the patch of the layer's input under the kernel w, all
    channels together. Angles are exact, in float64; patches that reach into the padding are left out, and so are those of zeros alone.

    Args:
        scope: The network.
        layer: A convolution.
        units: Unit numbers; None: all of them.
        images: One or several images, or a folder.
        top: Number of patches to show for each unit, those of smallest angle; patches of one image do not overlap.

    Returns:
        For each unit these patches, that of its highest value, and the one that points against the kernel, with angles and values; a
        histogram of the angles of all patches; and how angle and value correlate.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: The layer is no convolution, reads what no layer holds, or has nothing but patches in the padding.
        BadImage: No image can be read.

    Source:
        Kumar, PadhAI (S1): "when the angle is zero the neuron fires most". True of patches of one length; real patches differ in length
        (contrast) as well, so that the highest value is not at the smallest angle.

    Example:
        >>> import convscope as cs, torch
        >>> seen = cs.kernel_angles(cs.open("textures"), "features.0", [0, 1], torch.rand(2, 3, 64, 64))
        >>> seen.angles.shape
        (2, 10)

    Command line:
        convscope kernel-angles textures features.0 data/images/chains --units 0-3
    """
    if not is_whole(top) or top < 1:
        raise BadInput(f"top must be a whole number of at least 1, got {top!r}")
    weights, known = scope.weights_of(layer).double(), scope.layers[layer]
    chosen = scope.units(layer, units)
    convolution = cast("nn.Conv2d", known.module)  # or weights_of would have refused it
    if convolution.padding_mode != "zeros":
        raise BadInput(f"layer {layer} pads with {convolution.padding_mode}, and only patches in the image itself are compared")
    source, begin = _source(scope, known), _begin(convolution)
    reader = scope.inputs.reader(images)
    found = [_Found(top) for _ in chosen]
    with task(f"{layer}: angles on {len(reader)} images", len(reader)) as advance, scope.session(), torch.no_grad():
        for number, image in enumerate(reader):
            read = scope.inputs.normalize(image[None]) if source is None else scope.run(image[None], source, channels_first=True)[source]
            read = read.to("cpu", torch.float64)
            for each, products in zip(found, _products(convolution, weights, read, chosen, begin), strict=True):
                each.add(number, *products, begin, _apart(convolution))
                for place in each.shown():
                    if place.image == number:
                        place.patch = _cut(scope, known, image, place.position)
            advance(1)
    for each, unit in zip(found, chosen, strict=True):
        if not each.along:
            raise BadInput(f"layer {layer}, unit {unit}: no patch to compare; all reach into the padding, or kernel or images are zero")
    shown = [each.shown() for each in found]
    return KernelAngles(
        kernels=weights[chosen],
        angles=np.array([[place.angle for place in row] for row in shown]),
        values=np.array([[place.value for place in row] for row in shown]),
        positions=np.array([[place.position for place in row] for row in shown]),
        images=np.array([[place.image for place in row] for row in shown]),
        patches=np.stack([np.stack([place.patch for place in row]) for row in shown]),
        histogram=np.stack([each.histogram for each in found]),
        correlation=np.array([each.correlation() for each in found]),
        layer=layer,
        units=tuple(chosen),
        names=reader.names,
        skipped=reader.skipped,
        cut=reader.cut,
        reads=source or "the image",
        manifest={"precision": "float64", "images": list(reader.names)},
    )


@dataclass
class _Place:
    """A patch: its image, its position on the layer's map, its angle to the kernel in degrees, and the convolution's value there."""

    image: int
    position: tuple[int, int]
    angle: float
    value: float
    patch: np.ndarray = field(default_factory=lambda: np.zeros(0))


class _Found:
    """What was found for one unit: the patches along its kernel, that of the highest value, the one against it, and statistics."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.along: list[_Place] = []
        self.highest: _Place | None = None
        self.against: _Place | None = None
        self.histogram = np.zeros(BINS, np.int64)
        self._sums = np.zeros(6)

    def shown(self) -> list[_Place]:
        """Patches along the kernel, filled up with the last if there are too few; the highest; the one against."""
        if not self.along or self.highest is None or self.against is None:
            return []
        return [*self.along, *[self.along[-1]] * (self.top - len(self.along)), self.highest, self.against]

    def add(self, image: int, cosine: np.ndarray, value: np.ndarray, begin: tuple[int, int], apart: tuple[int, int]) -> None:
        """Adds the patches of an image.

        Args:
            image: Its number.
            cosine: (y x) of each patch; NaN where there is none.
            value: (y x) of the convolution.
            begin: Position on the map of the first patch.
            apart: Positions from which on two patches do not overlap.
        """
        there = np.isfinite(cosine)
        if not there.any():
            return
        angle = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
        self.histogram += np.histogram(angle[there], BINS, (0, 180))[0]
        x, y = cosine[there], value[there]
        self._sums += [len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]

        def at(place: int) -> _Place:
            row, column = np.unravel_index(place, cosine.shape)
            return _Place(image, (int(row) + begin[0], int(column) + begin[1]), float(angle[row, column]), float(value[row, column]))

        highest, against = at(int(np.where(there, value, -np.inf).argmax())), at(int(np.where(there, angle, -1).argmax()))
        if self.highest is None or highest.value > self.highest.value:
            self.highest = highest
        if self.against is None or against.angle > self.against.angle:
            self.against = against
        left = np.where(there, angle, np.inf)
        for _ in range(self.top):
            place = int(left.argmin())
            nearest = float(left.flat[place])
            if not np.isfinite(nearest) or (len(self.along) == self.top and nearest >= self.along[-1].angle):
                return
            self.along = sorted([*self.along, at(place)], key=lambda one: one.angle)[: self.top]
            row, column = np.unravel_index(place, left.shape)
            near = (slice(max(int(at) - step + 1, 0), int(at) + step) for at, step in zip((row, column), apart, strict=True))
            left[tuple(near)] = np.inf

    def correlation(self) -> float:
        """Pearson's correlation of cosine and value over all patches; NaN where either is constant."""
        count, x, y, xx, yy, xy = self._sums
        spread = (count * xx - x * x) * (count * yy - y * y)
        return float((count * xy - x * y) / np.sqrt(spread)) if spread > 0 else float("nan")


def _products(
    convolution: nn.Conv2d, weights: Tensor, read: Tensor, units: Sequence[int], begin: tuple[int, int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each unit, of every patch inside the input: its cosine to the kernel, NaN for patches of zeros, and the value, (y x)."""
    padding, (_, inputs, *sides) = _padding(convolution), weights.shape
    starts = [at * int(step) - pad for at, step, pad in zip(begin, convolution.stride, padding, strict=True)]
    covered = [int(step) * (length - 1) + 1 for step, length in zip(convolution.dilation, sides, strict=True)]
    if any(length - start < least for length, start, least in zip(read.shape[2:], starts, covered, strict=True)):
        return [(np.zeros((0, 0)), np.zeros((0, 0)))] * len(units)
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for group in range(convolution.groups):
        members = [unit for unit in dict.fromkeys(units) if unit * convolution.groups // convolution.out_channels == group]
        if not members:
            continue
        part, kernels = read[:, group * inputs : (group + 1) * inputs, starts[0] :, starts[1] :], weights[members].cpu()
        products = F.conv2d(part, kernels, stride=convolution.stride, dilation=convolution.dilation)[0]
        ones = torch.ones(1, 1, *sides, dtype=torch.float64, device="cpu")
        squares = F.conv2d(part.square().sum(1, keepdim=True), ones, stride=convolution.stride, dilation=convolution.dilation)[0]
        lengths = squares.clamp(min=0).sqrt() * kernels.flatten(1).norm(dim=1)[:, None, None]
        cosines = torch.where(lengths > 0, products / lengths, torch.nan)
        for unit, cosine, product in zip(members, cosines.numpy(), products.numpy(), strict=True):
            found[unit] = cosine, product + (0.0 if convolution.bias is None else float(convolution.bias.detach()[unit]))
    return [found[unit] for unit in units]


def _padding(convolution: nn.Conv2d) -> tuple[int, int]:
    """Rows and columns of zeros above and at the left."""
    if convolution.padding == "same":
        sides = zip(convolution.dilation, convolution.kernel_size, strict=True)
        down, right = (int(step) * (int(length) - 1) // 2 for step, length in sides)
        return down, right
    return (0, 0) if isinstance(convolution.padding, str) else (int(convolution.padding[0]), int(convolution.padding[1]))


def _begin(convolution: nn.Conv2d) -> tuple[int, int]:
    """Position on the map of the first patch without padding."""
    down, right = (-(-pad // int(step)) for pad, step in zip(_padding(convolution), convolution.stride, strict=True))
    return down, right


def _apart(convolution: nn.Conv2d) -> tuple[int, int]:
    """Positions from which on two patches do not overlap, down and across."""
    sizes = zip(convolution.dilation, convolution.kernel_size, convolution.stride, strict=True)
    down, right = (-(-(int(step) * (int(length) - 1) + 1) // int(stride)) for step, length, stride in sizes)
    return down, right


def _source(scope: Scope, layer: Layer) -> str | None:
    """The layer that a convolution reads; None: the image itself."""
    edges = () if layer.node is None else scope.graph.nodes[layer.node].edges
    if len(edges) == 1 and edges[0].node == 0:
        return None
    sources = [each for each in scope.layers.values() if edges and each.node == edges[0].node and each.batch_axis is not None]
    if len(edges) != 1 or not sources:
        raise BadInput(f"layer {layer.name} reads a value that no layer holds, so its patches are not known")
    return sources[-1].name


def _cut(scope: Scope, layer: Layer, image: Tensor, position: tuple[int, int]) -> np.ndarray:
    """What of an image (c h w) a unit at a position sees, grey beyond the border."""
    spans: list[tuple[int, int]] = []
    for axis, at in enumerate(position):
        seen = scope.graph.field(layer.node or 0, axis)
        first = 0 if seen.whole else round(float(seen.first[0]) + at * seen.jump)
        spans.append((first, first + (image.shape[axis + 1] if seen.whole else int(seen.size))))
    patch = np.full((len(image), *(last - first for first, last in spans)), _GREY, np.float32)
    inside = [(max(first, 0), min(last, length)) for (first, last), length in zip(spans, image.shape[1:], strict=True)]
    places = [slice(low - first, high - first) for (low, high), (first, _) in zip(inside, spans, strict=True)]
    patch[:, places[0], places[1]] = image[:, slice(*inside[0]), slice(*inside[1])].cpu().numpy()
    return patch
