"""Spatial geometry of single tensor operations: where y and x are among the output's axes, and which inputs each output reads.

Which operation follows which rule is said in :mod:`convscope.graph.operations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from convscope.graph.geometry import SAME, Geometry, Repeat, Transposed, Whole, Window


@dataclass(frozen=True)
class Spatial:
    """Where y and x are among a tensor's axes.

    Attributes:
        y, x: Axis numbers; for `rows`, the axes before merging.
        rows: (n, h, w) if all three are merged into axis 0, as for dense layers on channels-last maps; else None.
    """

    y: int
    x: int
    rows: tuple[int, int, int] | None = None

    def size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Height and width of a tensor of this shape."""
        return self.rows[1:] if self.rows else (shape[self.y], shape[self.x])


class HasSpatial(Protocol):
    """An input's node, as far as geometry needs it."""

    @property
    def spatial(self) -> Spatial | None: ...


@dataclass(frozen=True)
class Call:
    """One recorded call of an operation.

    Attributes:
        arguments, keywords: Its arguments.
        inputs: (node, value) of the arguments that depend on the image, in order.
        output: The value.
    """

    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    inputs: Sequence[tuple[HasSpatial, Tensor]]
    output: Tensor

    def argument(self, index: int, name: str = "", default: Any = None) -> Any:
        """An argument by position or name."""
        return self.arguments[index] if len(self.arguments) > index else self.keywords.get(name, default)

    @property
    def spatial(self) -> Spatial | None:
        """Where y and x are in the first input; None if they are merged with the batch or there are none."""
        spatial = self.inputs[0][0].spatial
        return None if spatial is None or spatial.rows else spatial

    @property
    def on_images(self) -> bool:
        """Whether the first input and the output are (n c h w)."""
        return self.output.ndim == 4 and self.spatial == Spatial(2, 3)


Edges = list[tuple[Geometry, Geometry]]
Answer = tuple[Spatial | None, Edges] | None
"""The output's spatial axes and a rule for y and x towards each input; None: unknown."""
Rule = Callable[[Call], Answer]


def elementwise(call: Call) -> Answer:
    """Element by element, with broadcasting: an input of length 1 along an axis affects all of it."""
    leading = next((node.spatial for node, value in call.inputs if node.spatial is not None and value.shape == call.output.shape), None)
    if leading is None:
        return None
    edges: Edges = []
    for node, value in call.inputs:
        if value.ndim != call.output.ndim or node.spatial is None or node.spatial != leading:
            edges.append((Whole(), Whole()))
            continue
        sizes = zip(node.spatial.size(value.shape), leading.size(call.output.shape), strict=True)
        y, x = (SAME if have == want else Whole() for have, want in sizes)
        edges.append((y, x))
    return leading, edges


def batch_norm(call: Call) -> Answer:
    """Elementwise with running statistics; with those of the batch (as in instance norm) every output depends on every input."""
    return elementwise(call) if call.argument(5) is False else None


def convolution(call: Call) -> Answer:
    source, weight, _bias, stride, padding, dilation, transposed, _output_padding, *_ = call.arguments
    if len(call.inputs) != 1 or call.inputs[0][1] is not source or not call.on_images:
        return None
    kind = Transposed if transposed else Window
    y, x = (kind(weight.shape[2 + axis], _pick(stride, axis), _pick(padding, axis), _pick(dilation, axis)) for axis in (0, 1))
    return Spatial(2, 3), [(y, x)]


def average_pool(call: Call) -> Answer:
    return _pool(call, dilation=1)


def max_pool(call: Call) -> Answer:
    return _pool(call, dilation=call.argument(4, "dilation", 1))


def _pool(call: Call, dilation: Any) -> Answer:
    if not call.on_images:
        return None
    kernel, padding = call.argument(1, "kernel_size"), call.argument(3, "padding", 0)
    stride = call.argument(2, "stride") or kernel
    y, x = (Window(_pick(kernel, axis), _pick(stride, axis), _pick(padding, axis), _pick(dilation, axis)) for axis in (0, 1))
    return Spatial(2, 3), [(y, x)]


def adaptive_pool(call: Call) -> Answer:
    """Exact where the bins are equal; unequal bins count as whole."""
    if not call.on_images:
        return None

    def rule(axis: int) -> Geometry:
        have, want = call.inputs[0][1].shape[axis], call.output.shape[axis]
        return Window(have // want, have // want) if have % want == 0 and want > 1 else SAME if have == want == 1 else Whole()

    return Spatial(2, 3), [(rule(2), rule(3))]


def concatenation(call: Call) -> Answer:
    """Joined along another axis than y and x."""
    spatial, axis = call.spatial, call.argument(1, "dim", 0) % call.output.ndim
    if spatial is None or axis in (spatial.y, spatial.x) or any(node.spatial != spatial for node, _ in call.inputs):
        return None
    return spatial, [(SAME, SAME)] * len(call.inputs)


def reduction(call: Call) -> Answer:
    """Means and sums that keep the axes: the map stays, but is whole along y or x where these are reduced."""
    spatial, value = call.spatial, call.inputs[0][1]
    axes, keeps = call.argument(1, "dim"), call.argument(2, "keepdim", False)
    if spatial is None or axes is None or not keeps or call.output.ndim != value.ndim:
        return None
    reduced = {axis % value.ndim for axis in ([axes] if isinstance(axes, int) else axes)}
    y, x = (Whole() if axis in reduced else SAME for axis in (spatial.y, spatial.x))
    return spatial, [(y, x)]


def along_axis(call: Call) -> Answer:
    """A function of all values along one axis (softmax)."""
    spatial = call.spatial
    if spatial is None:
        return None
    axis = call.argument(1, "dim") % call.output.ndim
    y, x = (Whole() if own == axis else SAME for own in (spatial.y, spatial.x))
    return spatial, [(y, x)]


def slicing(call: Call) -> Answer:
    """Along channels the map stays; along y or x it is cropped."""
    spatial, value = call.spatial, call.inputs[0][1]
    if spatial is None or call.output.ndim != value.ndim:
        return None
    axis, start, step = call.argument(1, default=0) % value.ndim, call.argument(2) or 0, call.argument(4, default=1)
    start = start + value.shape[axis] if start < 0 else start
    y, x = (Window(1, step, -start) if axis == own else SAME for own in (spatial.y, spatial.x))
    return spatial, [(y, x)]


def selection(call: Call) -> Answer:
    """One index of an axis other than y and x, which disappears."""
    spatial = call.spatial
    axis = call.arguments[1] % call.inputs[0][1].ndim
    if spatial is None or axis in (spatial.y, spatial.x):
        return None
    return Spatial(*(own - (own > axis) for own in (spatial.y, spatial.x))), [(SAME, SAME)]


def splitting(call: Call) -> Answer:
    """Parts along another axis than y and x."""
    spatial, axis = call.spatial, call.argument(2, "dim", 0) % call.output.ndim
    if spatial is None or axis in (spatial.y, spatial.x):
        return None
    return spatial, [(SAME, SAME)]


def padding(call: Call) -> Answer:
    if not call.on_images:
        return None
    pads = [*call.arguments[1], 0, 0, 0, 0]
    return Spatial(2, 3), [(Window(padding=pads[2]), Window(padding=pads[0]))]


def permutation(call: Call) -> Answer:
    return _permuted(call, [axis % call.output.ndim for axis in call.arguments[1]])


def transposition(call: Call) -> Answer:
    order = list(range(call.output.ndim))
    one, other = call.arguments[1] % call.output.ndim, call.arguments[2] % call.output.ndim
    order[one], order[other] = order[other], order[one]
    return _permuted(call, order)


def _permuted(call: Call, order: list[int]) -> Answer:
    spatial = call.spatial
    return None if spatial is None else (Spatial(order.index(spatial.y), order.index(spatial.x)), [(SAME, SAME)])


def reshaping(call: Call) -> Answer:
    """Reshapes that leave y and x whole axes, or merge (n, h, w) into rows and back."""
    node, value = call.inputs[0]
    spatial, output = node.spatial, call.output
    if spatial is None:
        return None
    if spatial.rows:
        if tuple(output.shape[:3]) == spatial.rows:
            return Spatial(1, 2), [(SAME, SAME)]
        return (spatial, [(SAME, SAME)]) if output.shape[0] == value.shape[0] and output.ndim == 2 else None
    if (spatial.y, spatial.x) == (1, 2) and output.ndim == 2 and output.shape[0] == math.prod(value.shape[:3]):
        n, h, w = value.shape[:3]
        return Spatial(1, 2, (n, h, w)), [(SAME, SAME)]
    y, x = (_same_axis(value.shape, output.shape, axis) for axis in (spatial.y, spatial.x))
    return None if y is None or x is None or y == x else (Spatial(y, x), [(SAME, SAME)])


def _same_axis(before: Sequence[int], after: Sequence[int], axis: int) -> int | None:
    """The axis after a reshape that is axis `axis` before it: same length, same number of elements in front."""
    front = math.prod(before[:axis])
    return next((k for k in range(len(after)) if math.prod(after[:k]) == front and after[k] == before[axis]), None)


def dense(call: Call) -> Answer:
    """A dense layer on rows, one row per position."""
    node, value = call.inputs[0]
    if len(call.inputs) != 1 or node.spatial is None or node.spatial.rows is None or call.output.shape[0] != value.shape[0]:
        return None
    left = call.arguments[0] if len(call.arguments) == 2 else call.arguments[1]
    return (node.spatial, [(SAME, SAME)]) if left is value else None


def layer_norm(call: Call) -> Answer:
    """Over trailing axes behind y and x."""
    spatial = call.spatial
    if len(call.inputs) != 1 or spatial is None or max(spatial.y, spatial.x) >= call.output.ndim - len(call.arguments[1]):
        return None
    return spatial, [(SAME, SAME)]


def nearest(call: Call) -> Answer:
    return _upsampled(call, scales_at=2, before=0, after=0)


def bilinear(call: Call) -> Answer:
    return None if call.argument(2, "align_corners") else _upsampled(call, scales_at=3, before=0, after=1)


def bicubic(call: Call) -> Answer:
    return None if call.argument(2, "align_corners") else _upsampled(call, scales_at=3, before=1, after=2)


def _upsampled(call: Call, *, scales_at: int, before: int, after: int) -> Answer:
    """Interpolation by whole factors; between neighbours, if `after`, from centre to centre."""
    if not call.on_images:
        return None
    edge: list[Geometry] = []
    for axis in (2, 3):
        factor, left = divmod(call.output.shape[axis], call.inputs[0][1].shape[axis])
        scale = call.argument(scales_at + axis - 2, ("scales_h", "scales_w")[axis - 2])
        if left or not factor or (scale is not None and scale != factor):
            return None
        # of an odd factor, outputs fall on inputs, where rounding may read one more
        edge.append(Repeat(factor, before + factor % 2, after, factor // 2) if after else Repeat(factor))
    return Spatial(2, 3), [(edge[0], edge[1])]


def pixel_shuffle(call: Call) -> Answer:
    factor = call.argument(1, "upscale_factor")
    return (Spatial(2, 3), [(Repeat(factor), Repeat(factor))]) if call.on_images else None


def pixel_unshuffle(call: Call) -> Answer:
    factor = call.argument(1, "downscale_factor")
    return (Spatial(2, 3), [(Window(factor, factor), Window(factor, factor))]) if call.on_images else None


def _pick(value: Any, axis: int) -> int:
    return int(value if isinstance(value, int) else value[axis if len(value) > 1 else 0])
