"""What is known of single ATen operations: how their output's y and x hang together with their inputs', and what they cost."""

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
        rows: (n, h, w) if all three are merged into axis 0, as dense layers on channels-last maps do; else None.
    """

    y: int
    x: int
    rows: tuple[int, int, int] | None = None

    def size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Height and width in a tensor of this shape."""
        return self.rows[1:] if self.rows else (shape[self.y], shape[self.x])


class Known(Protocol):
    """What the rules need to know of an input's node."""

    @property
    def spatial(self) -> Spatial | None: ...


Inputs = Sequence[tuple[Known, Tensor]]
Rules = list[tuple[Geometry, Geometry]]
Answer = tuple[Spatial | None, Rules] | None
"""The output's spatial axes and a rule pair for each input; None: not known."""

POINTWISE = frozenset(
    (
        "relu relu_ hardtanh hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_ silu silu_ gelu gelu_ sigmoid sigmoid_ tanh tanh_ "
        "clamp clamp_ clamp_min clamp_min_ clamp_max leaky_relu leaky_relu_ elu elu_ mish mish_ softplus exp log neg abs sqrt rsqrt "
        "square pow erf threshold threshold_ prelu _prelu_kernel native_dropout dropout clone detach alias _to_copy to contiguous copy_ "
        "lift_fresh _native_batch_norm_legit_no_training add add_ sub sub_ rsub mul mul_ div div_ maximum minimum where lt gt le ge eq"
    ).split()
)


def geometry_of(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor, place: int
) -> tuple[Spatial | None, Rules]:
    """Spatial axes of an operation's output, and a rule for y and x towards each input.

    Args:
        name: ATen name.
        args, kwargs: Its arguments.
        inputs: The inputs that depend on the picture, in order: (node, value).
        output: The value produced.
        place: Which of the outputs it is.

    Returns:
        (spatial, rules). Unknown operations are `Whole` towards every input.
    """
    rule = _RULES.get(name, _pointwise if name in POINTWISE else None)
    answer = rule(args, kwargs, inputs, output) if rule is not None and (place == 0 or name in ("split", "chunk", "unbind")) else None
    if name in ("split", "split_with_sizes", "chunk") and rule is not None:
        answer = rule(args, kwargs, inputs, output)
    if answer is not None:
        return answer
    return Spatial(2, 3) if output.ndim == 4 else None, [(Whole(), Whole())] * len(inputs)


def _pointwise(_args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    """Element-wise operations and joins; an input of length 1 along an axis is spread over it."""
    leading = next((node.spatial for node, value in inputs if node.spatial is not None and value.shape == output.shape), None)
    if leading is None:
        return None
    rules: Rules = []
    for node, value in inputs:
        if value.ndim != output.ndim or node.spatial is None or node.spatial != leading:
            rules.append((Whole(), Whole()))
            continue
        sizes = zip(node.spatial.size(value.shape), leading.size(output.shape), strict=True)
        y, x = (SAME if have == want else Whole() for have, want in sizes)
        rules.append((y, x))
    return leading, rules


def _batch_norm(args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    """With running statistics a scaling of channels; with the batch's own (instance norm is that, too) everything depends on everything."""
    if len(args) < 6 or args[5] is not False:
        return None
    return _pointwise(args, kwargs, inputs, output)


def _convolution(args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    source, weight, _bias, stride, padding, dilation, transposed, _output_padding, *_ = args
    if len(inputs) != 1 or inputs[0][1] is not source or output.ndim != 4 or inputs[0][0].spatial != Spatial(2, 3):
        return None
    kind = Transposed if transposed else Window
    y, x = (kind(weight.shape[2 + i], _pick(stride, i), _pick(padding, i), _pick(dilation, i)) for i in (0, 1))
    return Spatial(2, 3), [(y, x)]


def _pool(args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor, dilates: bool) -> Answer:
    if output.ndim != 4 or inputs[0][0].spatial != Spatial(2, 3):
        return None
    given = dict(enumerate(args))
    kernel = given.get(1, kwargs.get("kernel_size"))
    stride = given.get(2, kwargs.get("stride")) or kernel
    padding = given.get(3, kwargs.get("padding", 0))
    dilation = given.get(4, kwargs.get("dilation", 1)) if dilates else 1
    y, x = (Window(_pick(kernel, i), _pick(stride, i), _pick(padding, i), _pick(dilation, i)) for i in (0, 1))
    return Spatial(2, 3), [(y, x)]


def _adaptive_pool(_args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    """Exact where the bins are equal; unequal bins count as whole."""
    node, value = inputs[0]
    if output.ndim != 4 or node.spatial != Spatial(2, 3):
        return None

    def rule(axis: int) -> Geometry:
        have, want = value.shape[axis], output.shape[axis]
        return Window(have // want, have // want) if have % want == 0 and want > 1 else SAME if have == want == 1 else Whole()

    return Spatial(2, 3), [(rule(2), rule(3))]


def _concatenation(args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    spatial = inputs[0][0].spatial
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % output.ndim
    if spatial is None or spatial.rows or axis in (spatial.y, spatial.x) or any(node.spatial != spatial for node, _ in inputs):
        return None
    return spatial, [(SAME, SAME)] * len(inputs)


def _reduction(args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    """Means and sums over axes other than y and x keep the map; over y or x, they are whole on that axis."""
    node, value = inputs[0]
    axes = args[1] if len(args) > 1 else kwargs.get("dim")
    keeps = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    if node.spatial is None or node.spatial.rows or axes is None or not keeps or output.ndim != value.ndim:
        return None
    reduced = {axis % value.ndim for axis in ([axes] if isinstance(axes, int) else axes)}
    y, x = (Whole() if axis in reduced else SAME for axis in (node.spatial.y, node.spatial.x))
    return node.spatial, [(y, x)]


def _slice(args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    """Slices and parts: along channels the map stays; along y or x it is cropped."""
    node, value = inputs[0]
    if node.spatial is None or node.spatial.rows or output.ndim != value.ndim:
        return None
    axis = (args[1] if len(args) > 1 else 0) % value.ndim
    start, step = (args[2] if len(args) > 2 else 0) or 0, args[4] if len(args) > 4 else 1
    start = start + value.shape[axis] if start < 0 else start
    y, x = (Window(1, step, -start) if axis == own else SAME for own in (node.spatial.y, node.spatial.x))
    return node.spatial, [(y, x)]


def _selection(args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, _output: Tensor) -> Answer:
    """One index of an axis other than y and x, which disappears."""
    node, value = inputs[0]
    axis = args[1] % value.ndim
    if node.spatial is None or node.spatial.rows or axis in (node.spatial.y, node.spatial.x):
        return None
    return Spatial(*(own - (own > axis) for own in (node.spatial.y, node.spatial.x))), [(SAME, SAME)]


def _parts(args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    spatial = inputs[0][0].spatial
    axis = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % output.ndim
    if spatial is None or spatial.rows or axis in (spatial.y, spatial.x):
        return None
    return spatial, [(SAME, SAME)]


def _padding(args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    if output.ndim != 4 or inputs[0][0].spatial != Spatial(2, 3):
        return None
    pads = [*args[1], 0, 0, 0, 0]
    return Spatial(2, 3), [(Window(padding=pads[2]), Window(padding=pads[0]))]


def _permutation(args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, _output: Tensor) -> Answer:
    node, value = inputs[0]
    if node.spatial is None or node.spatial.rows:
        return None
    order = [axis % value.ndim for axis in args[1]]
    return Spatial(order.index(node.spatial.y), order.index(node.spatial.x)), [(SAME, SAME)]


def _transposition(args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    order = list(range(output.ndim))
    one, other = args[1] % output.ndim, args[2] % output.ndim
    order[one], order[other] = order[other], order[one]
    return _permutation([args[0], order], {}, inputs, output)


def _view(_args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    """Reshapes that leave y and x whole axes, or merge (n, h, w) into rows and back."""
    node, value = inputs[0]
    spatial = node.spatial
    if spatial is None:
        return None
    if spatial.rows:
        if tuple(output.shape[:3]) == spatial.rows:
            return Spatial(1, 2), [(SAME, SAME)]
        return (spatial, [(SAME, SAME)]) if output.shape[0] == value.shape[0] and output.ndim == 2 else None
    if (spatial.y, spatial.x) == (1, 2) and output.ndim == 2 and output.shape[0] == math.prod(value.shape[:3]):
        n, h, w = value.shape[:3]
        return Spatial(1, 2, (n, h, w)), [(SAME, SAME)]
    places = [_kept(value.shape, output.shape, axis) for axis in (spatial.y, spatial.x)]
    if places[0] is None or places[1] is None or places[0] == places[1]:
        return None
    return Spatial(places[0], places[1]), [(SAME, SAME)]


def _kept(before: Sequence[int], after: Sequence[int], axis: int) -> int | None:
    """The axis of a reshaped tensor that is axis `axis` of the original: same length, same number of elements in front of it."""
    front = math.prod(before[:axis])
    return next((k for k in range(len(after)) if math.prod(after[:k]) == front and after[k] == before[axis]), None)


def _dense(args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    """A dense layer on rows (one row per position) leaves positions alone."""
    node, value = inputs[0]
    if len(inputs) != 1 or node.spatial is None or node.spatial.rows is None or output.shape[0] != value.shape[0]:
        return None
    left = args[0] if len(args) == 2 else args[1]
    return (node.spatial, [(SAME, SAME)]) if left is value else None


def _layer_norm(args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    spatial = inputs[0][0].spatial
    if len(inputs) != 1 or spatial is None or spatial.rows or max(spatial.y, spatial.x) >= output.ndim - len(args[1]):
        return None
    return spatial, [(SAME, SAME)]


def _enlargement(_args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    node, value = inputs[0]
    if node.spatial != Spatial(2, 3) or any(output.shape[axis] % value.shape[axis] for axis in (2, 3)):
        return None
    return Spatial(2, 3), [(Repeat(output.shape[2] // value.shape[2]), Repeat(output.shape[3] // value.shape[3]))]


def _squeezed(args: Sequence[Any], _kwargs: Mapping[str, Any], inputs: Inputs, output: Tensor) -> Answer:
    return _view(args, {}, inputs, output)


def _pick(value: Any, index: int) -> int:
    return int(value if isinstance(value, int) else value[index if len(value) > 1 else 0])


_RULES: dict[str, Callable[[Sequence[Any], Mapping[str, Any], Inputs, Tensor], Answer]] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "miopen_batch_norm": _batch_norm,
    "max_pool2d_with_indices": lambda a, k, i, o: _pool(a, k, i, o, dilates=True),
    "max_pool2d": lambda a, k, i, o: _pool(a, k, i, o, dilates=True),
    "avg_pool2d": lambda a, k, i, o: _pool(a, k, i, o, dilates=False),
    "_adaptive_avg_pool2d": _adaptive_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "adaptive_max_pool2d": _adaptive_pool,
    "cat": _concatenation,
    "mean": _reduction,
    "sum": _reduction,
    "amax": _reduction,
    "slice": _slice,
    "select": _selection,
    "split": _parts,
    "split_with_sizes": _parts,
    "chunk": _parts,
    "constant_pad_nd": _padding,
    "permute": _permutation,
    "transpose": _transposition,
    "view": _view,
    "_unsafe_view": _view,
    "reshape": _view,
    "expand": _pointwise,
    "unsqueeze": _squeezed,
    "squeeze": _squeezed,
    "addmm": _dense,
    "mm": _dense,
    "native_layer_norm": _layer_norm,
    "upsample_nearest2d": _enlargement,
}


def _convolution_macs(args: Sequence[Any], output: Tensor) -> int:
    source, weight, transposed = args[0], args[1], args[6]
    return (source if transposed else output).numel() * weight[0].numel()


MACS: dict[str, Callable[[Sequence[Any], Tensor], int]] = {
    "convolution": _convolution_macs,
    "addmm": lambda args, output: output.numel() * args[1].shape[-1],
    "mm": lambda args, output: output.numel() * args[0].shape[-1],
    "bmm": lambda args, output: output.numel() * args[0].shape[-1],
    "baddbmm": lambda args, output: output.numel() * args[1].shape[-1],
}
"""Multiply-accumulate operations of a call, for its whole batch; other operations count as free, as is customary."""
