"""What each axis of every value counts: images, units, y, x, or tokens of a grid. Found by following the axes through a recorded graph.

An axis is a list of parts of known quantities, outermost first: windows split y in two, attention heads split the units, flattening joins
y and x, and later reshapes put the parts together again. Units are what weights make: the outputs of a convolution or a dense layer.
Attention mixes tokens, but its output has one for each query. What is not known is a quantity of its own, which nothing takes for y or x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convscope.graph.graph import Graph, Node, Reference


@dataclass(frozen=True)
class Quantity:
    """Something that is counted.

    Attributes:
        kind: "units", "y", "x", "tokens", "rolled", or "" for what is not known.
        length: How many there are.
        inner: Of tokens and padded or rolled axes: the parts that are in there, in one piece.
        offset: Where in there they begin; of a rolled axis, by how much.
    """

    kind: str
    length: int
    inner: tuple[Part, ...] = ()
    offset: int = 0


@dataclass(frozen=True)
class Part:
    """A digit of a quantity's number: the number is the sum of every part's index times its stride."""

    of: Quantity
    stride: int
    length: int


Axis = tuple[Part, ...]
Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class Layout:
    """Where units and positions are in a value.

    Attributes:
        channel_axis: The axis that counts units; the batch's counts, too.
        grid: Height and width of its map; None: it has no map.
        offset: For tokens: how many there are before the first of the grid.
    """

    channel_axis: int
    grid: tuple[int, int] | None = None
    offset: int = 0


def layout_of(axes: Axes, batch_axis: int) -> Layout | None:
    """The layout of a value with these axes; None where it cannot be told which axis counts what."""
    others = [number for number in range(len(axes)) if number != batch_axis]
    units = [number for number in others if _is_units(axes[number])]
    if not units:  # an axis that is 1 long says nothing of itself: where there are no other units, it counts a single one
        single = [number for number in others if not axes[number]]
        units = single[:1] if len(others) > 2 else single[-1:]
    if any(part.of.kind == "units" for number in others if number not in units for part in axes[number]):
        return None  # units on several axes, as with attention heads
    if len(units) != 1:
        return None
    places = [axes[number] for number in others if number != units[0]]
    if len(places) == 1:
        found = _grid(places[0])
        return Layout(units[0]) if found is None else Layout(units[0], *found)
    if len(places) == 2:
        sizes = [_whole(axis, kind) for axis, kind in zip(places, ("y", "x"), strict=True)]
        return None if None in sizes else Layout(units[0], (sizes[0] or 1, sizes[1] or 1))
    return Layout(units[0]) if not places else None


def conventional(axes: Axes | None, batch_axis: int) -> bool:
    """Whether a value of four axes, of which it cannot be told what each counts, may be taken for (n c h w), as all of PyTorch has them.

    It may where nothing that is known of an axis says otherwise: behind an operation of the caller's own, a Fourier transform or an einsum.
    """
    if batch_axis != 0 or axes is None:
        return batch_axis == 0
    allowed = ({"units", ""}, {"y", ""}, {"x", ""})
    return len(axes) == 4 and all({part.of.kind for part in axis} <= kinds for axis, kinds in zip(axes[1:], allowed, strict=True))


def _is_units(axis: Axis) -> bool:
    return any(part.of.kind == "units" for part in axis)


def _whole(axis: Axis, kind: str) -> int | None:
    """The length of an axis that counts y (or x) and nothing else, perhaps in coarser steps; None for any other."""
    if not axis:
        return 1
    part = axis[0]
    fits = len(axis) == 1 and part.of.kind == kind and not part.of.inner and part.stride * part.length == part.of.length
    return part.length if fits else None


def _grid(axis: Axis) -> tuple[tuple[int, int], int] | None:
    """Height and width of the grid that tokens stand for, and how many there are before it."""
    if len(axis) == 1 and axis[0].of.kind == "tokens" and axis[0].length == axis[0].of.length:
        inner = _grid(axis[0].of.inner)
        return None if inner is None else (inner[0], inner[1] + axis[0].of.offset)
    if len(axis) == 2:
        sizes = _whole(axis[:1], "y"), _whole(axis[1:], "x")
        if sizes[0] is not None and sizes[1] is not None:
            return (sizes[0], sizes[1]), 0
    return None


# --- following axes


def axes_of(graph: Graph) -> list[Axes]:
    """The axes of every node of a graph, in order."""
    found: list[Axes] = []
    for node in graph.nodes:
        if node.operation == "input":
            _, channels, height, width = node.shape
            found.append(((), *(_all(kind, length) for kind, length in (("units", channels), ("y", height), ("x", width)))))
            continue
        call = _Call(node, [found[edge.node] for edge in node.edges], found, graph)
        try:
            axes = _RULES.get(node.operation.removesuffix("_"), _unknown)(call)
        except (IndexError, TypeError, ValueError, KeyError, AttributeError):  # a form of the call that the rule does not know
            axes = _nothing(node.shape)
        found.append(axes if [_size(axis) for axis in axes] == list(node.shape) else _nothing(node.shape))
    return found


@dataclass(frozen=True)
class _Call:
    """A recorded call: its node, the axes of the values it was computed from, and those of all nodes so far."""

    node: Node
    inputs: list[Axes]
    known: Sequence[Axes]
    graph: Graph

    def argument(self, index: int, name: str = "", default: Any = None) -> Any:
        arguments, keywords = self.node.arguments, self.node.keywords or {}
        return arguments[index] if len(arguments) > index else keywords.get(name, default)

    def axes(self, index: int) -> Axes | None:
        """The axes of an argument; None if it is no value computed from the image."""
        argument = self.argument(index)
        return self.known[argument.node] if isinstance(argument, Reference) else None

    @property
    def first(self) -> Axes:
        return self.inputs[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.node.shape


def _all(kind: str, length: int) -> Axis:
    return () if length == 1 else (Part(Quantity(kind, length), 1, length),)


def _nothing(shape: Sequence[int]) -> Axes:
    return tuple(_all("", length) for length in shape)


def _size(axis: Axis) -> int:
    return math.prod(part.length for part in axis)


def _joined(parts: Sequence[Part]) -> Axis:
    """Parts of an axis, neighbours that belong together as one."""
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if last is not None and last.of == part.of and last.stride == part.stride * part.length:
            found[-1] = Part(part.of, part.stride, last.length * part.length)
        elif part.length > 1:
            found.append(part)
    return tuple(found)


def _unknown(call: _Call) -> Axes:
    """An operation of which nothing is known leaves maps (n c h w) maps, perhaps of another size; of all else nothing is known."""
    if len(call.shape) != 4 or not call.inputs:
        return _nothing(call.shape)
    maps = [axes for axes in call.inputs if len(axes) == 4 and layout_of(axes, 0) is not None]
    known = layout_of(maps[0], 0) if maps else None
    return _maps(call.shape) if known is not None and known.channel_axis == 1 else _nothing(call.shape)


def _maps(shape: Sequence[int]) -> Axes:
    """(n c h w)."""
    batch, channels, height, width = shape
    return _all("", batch), _all("units", channels), _all("y", height), _all("x", width)


def _same(call: _Call) -> Axes:
    return call.first


def _elementwise(call: _Call) -> Axes:
    """Each axis from the first value that has it; where values differ in what it counts, nothing is known of it."""
    found: list[Axis] = []
    for number, length in enumerate(call.shape):
        places = [(axes, number - len(call.shape) + len(axes)) for axes in call.inputs]
        ways = [axes[place] for axes, place in places if place >= 0 and _size(axes[place]) == length]
        told = [way for way in ways if any(part.of.kind for part in way)]
        told = [way for way in told if not _only_units(way)] or told  # a sum over tokens made by weights is added to those tokens
        agreed = told and all(way == told[0] or (_only_units(way) and _only_units(told[0])) for way in told)
        found.append(told[0] if agreed else _all("", length))
    return tuple(found)


def _convolution(call: _Call) -> Axes:
    if len(call.shape) == 3:  # over a sequence: its positions are tokens of nothing known
        return _all("", call.shape[0]), _all("units", call.shape[1]), _all("", call.shape[2])
    return _maps(call.shape)


def _pool(call: _Call) -> Axes:
    return _maps(call.shape) if len(call.shape) == 4 else _nothing(call.shape)


def _dense(call: _Call) -> Axes:
    """Rows times weights; not where the value is the right factor."""
    left = call.axes(0 if len(call.node.arguments) == 2 else 1)
    if left is None or len(call.inputs) != 1:
        return _nothing(call.shape)
    return left[0], _all("units", call.shape[-1])


def _product(call: _Call) -> Axes:
    """Batched matrices (b i j) times (b j k): rows are those of the first, columns those of the second."""
    first = 1 if call.node.operation == "baddbmm" else 0
    left, right = call.axes(first), call.axes(first + 1)
    outer = left if left is not None else right
    if outer is None:
        return _nothing(call.shape)
    rows = left[1] if left is not None else _all("", call.shape[1])
    columns = right[2] if right is not None else _all("units", call.shape[2])
    return outer[0], rows, columns


def _attention(call: _Call) -> Axes:
    """(… query unit): as the query, with the value's units."""
    query, value = call.axes(0), call.axes(2)
    if query is None or value is None:
        return _nothing(call.shape)
    return *query[:-1], value[-1]


def _norm(call: _Call) -> Axes:
    """Over trailing axes with a weight for each unit: the last counts units, whatever it was made of."""
    axes = call.first
    over = call.argument(1)
    if call.argument(2) is not None and isinstance(over, (list, tuple)) and len(over) == 1 and not _only_units(axes[-1]):
        return *axes[:-1], _all("units", call.shape[-1])
    return axes


def _only_units(axis: Axis) -> bool:
    return bool(axis) and all(part.of.kind == "units" for part in axis)


def _first_output(rule: Callable[[_Call], Axes]) -> Callable[[_Call], Axes]:
    return lambda call: rule(call) if call.node.output == 0 else _nothing(call.shape)


def _view(call: _Call) -> Axes:
    """All parts in a row, cut again where the new axes end."""
    waiting = [part for axis in call.first for part in axis][::-1]
    found: list[Axis] = []
    for length in call.shape:
        own: list[Part] = []
        need = length
        while need > 1:
            part = waiting.pop()
            if need % part.length == 0:
                own.append(part)
                need //= part.length
                continue
            if part.length % need:
                return _nothing(call.shape)
            rest = part.length // need
            own.append(Part(part.of, part.stride * rest, need))
            waiting.append(Part(part.of, part.stride, rest))
            need = 1
        found.append(_joined(own))
    return tuple(found)


def _permuted(call: _Call) -> Axes:
    return tuple(call.first[axis] for axis in call.argument(1))


def _transposed(call: _Call) -> Axes:
    axes = list(call.first)
    one, other = (call.argument(1), call.argument(2)) if call.node.operation == "transpose" else (0, 1)
    if len(axes) > 1:
        axes[one], axes[other] = axes[other], axes[one]
    return tuple(axes)


def _expanded(call: _Call) -> Axes:
    axes = ((),) * (len(call.shape) - len(call.first)) + call.first
    return tuple(axis if _size(axis) == length else _all("", length) for axis, length in zip(axes, call.shape, strict=True))


def _selected(call: _Call) -> Axes:
    axes = list(call.first)
    del axes[call.argument(1, "dim", 0)]
    return tuple(axes)


def _unbound(call: _Call) -> Axes:
    axes = list(call.first)
    del axes[call.argument(1, "dim", 0)]
    return tuple(axes)


def _sliced(call: _Call) -> Axes:
    dim = call.argument(1, "dim", 0) % len(call.shape)
    before = _size(call.first[dim])
    start = call.argument(2, "start", 0) or 0
    start = max(0, start + before if start < 0 else start)
    return _cut(call.first, dim, start, call.argument(4, "step", 1), call.shape)


def _split(call: _Call) -> Axes:
    dim = call.argument(2, "dim", 0) % len(call.shape)
    sizes = call.argument(1)
    start = call.node.output * sizes if isinstance(sizes, int) else sum(sizes[: call.node.output])
    if call.node.operation == "chunk":
        start = call.node.output * -(-_size(call.first[dim]) // sizes)
    return _cut(call.first, dim, start, 1, call.shape)


def _cut(axes: Axes, dim: int, start: int, step: int, shape: Sequence[int]) -> Axes:
    """Indices start, start + step, ... of one axis."""
    axis, length = axes[dim], shape[dim]
    if length == _size(axis):
        return axes
    kept = _all("units" if _only_units(axis) else "", length)
    if len(axis) == 1 and axis[0].length == axis[0].of.length:
        of = axis[0].of
        inside = _size(of.inner)
        if of.kind in ("y", "x") and not of.inner:
            kept = _all(of.kind, length)
        elif of.inner and of.kind != "rolled" and step == 1:
            offset = of.offset - start
            if offset == 0 and length == inside:
                kept = of.inner
            elif offset >= 0 and offset + inside <= length:
                kept = (Part(Quantity(of.kind, length, of.inner, offset), 1, length),)
    return *axes[:dim], kept, *axes[dim + 1 :]


def _joined_values(call: _Call) -> Axes:
    """Units beside units are units; tokens before or after those of a grid are a prefix or suffix."""
    values = call.argument(0)
    dim = call.argument(1, "dim", 0) % len(call.shape)
    known = [(index, call.known[value.node]) for index, value in enumerate(values) if isinstance(value, Reference)]
    first = known[0][1]
    if all(_only_units(axes[dim]) or not axes[dim] for _, axes in known) and any(axes[dim] for _, axes in known):
        return _rest(first, dim, _all("units", call.shape[dim]))
    with_grid = [(index, axes) for index, axes in known if axes[dim] and (_grid(axes[dim]) is not None or _is_place(axes[dim]))]
    if len(with_grid) != 1:
        return _rest(first, dim, _all("", call.shape[dim]))
    index, axes = with_grid[0]
    before = 0
    for value in values[:index]:
        before += _size(call.known[value.node][dim]) if isinstance(value, Reference) else int(value.shape[dim])
    return _rest(axes, dim, (Part(Quantity("tokens", call.shape[dim], axes[dim], before), 1, call.shape[dim]),))


def _is_place(axis: Axis) -> bool:
    return _whole(axis, "y") is not None or _whole(axis, "x") is not None


def _rest(axes: Axes, dim: int, own: Axis) -> Axes:
    return tuple(own if number == dim else axis for number, axis in enumerate(axes))


def _stacked(call: _Call) -> Axes:
    """Along a new axis."""
    values = [value for value in call.argument(0) if isinstance(value, Reference)]
    dim = call.argument(1, "dim", 0) % len(call.shape)
    axes = call.known[values[0].node]
    return *axes[:dim], _all("", call.shape[dim]), *axes[dim:]


def _padded(call: _Call) -> Axes:
    """Pairs of widths, the last axis first."""
    axes, widths = list(call.first), list(call.argument(1))
    for number in range(len(widths) // 2):
        low, high = widths[2 * number : 2 * number + 2]
        dim = len(axes) - 1 - number
        if not (low or high):
            continue
        length = call.shape[dim]
        maps = layout_of(call.first, 0)
        if maps is not None and maps.channel_axis == 1 and len(axes) == 4:  # before a convolution: another map
            axes[dim] = _all({1: "units", 2: "y", 3: "x"}.get(dim, ""), length)
        elif low < 0 or high < 0:
            axes = list(_cut(tuple(axes), dim, -low, 1, [length if each == dim else _size(axis) for each, axis in enumerate(axes)]))
        else:
            kind = axes[dim][0].of.kind if len(axes[dim]) == 1 else ""
            axes[dim] = (Part(Quantity(kind if kind in ("y", "x") else "tokens", length, axes[dim], low), 1, length),)
    return tuple(axes)


def _rolled(call: _Call) -> Axes:
    """Turned by so many; turned back, it is what it was."""
    axes = list(call.first)
    for shift, dim in zip(call.argument(1), call.argument(2), strict=True):
        length = _size(axes[dim])
        inner, turned = axes[dim], shift % length
        if len(inner) == 1 and inner[0].of.kind == "rolled" and inner[0].length == inner[0].of.length:
            inner, turned = inner[0].of.inner, (turned + inner[0].of.offset) % length
        axes[dim] = inner if not turned else (Part(Quantity("rolled", length, inner, turned), 1, length),)
    return tuple(axes)


def _reduced(call: _Call) -> Axes:
    axes = call.first
    dims = call.argument(1, "dim")
    gone = {dim % len(axes) for dim in ([dims] if isinstance(dims, int) else dims)}
    if call.argument(2, "keepdim", False):
        return tuple(() if number in gone else axis for number, axis in enumerate(axes))
    return tuple(axis for number, axis in enumerate(axes) if number not in gone)


def _unfolded(call: _Call) -> Axes:
    """Patches of maps, side by side: (n c*k*k positions)."""
    source = call.graph.nodes[call.node.edges[0].node].shape
    kernel, dilation, padding, stride = (call.argument(index) for index in (1, 2, 3, 4))
    size = [(source[2 + axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1 for axis in (0, 1)]
    return _all("", call.shape[0]), _all("units", call.shape[1]), (*_all("y", size[0]), *_all("x", size[1]))


def _shuffled(call: _Call) -> Axes:
    return _maps(call.shape) if len(call.shape) == 4 else _nothing(call.shape)


_SAME_NAMES = "clone _to_copy to alias detach contiguous lift_fresh dropout native_dropout _softmax _log_softmax cumsum sort flip"
_RULES: dict[str, Callable[[_Call], Axes]] = {
    "convolution": _convolution,
    **dict.fromkeys("mm addmm".split(), _dense),
    **dict.fromkeys("bmm baddbmm".split(), _product),
    **dict.fromkeys(
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
        "_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable".split(),
        _first_output(_attention),
    ),
    "native_layer_norm": _first_output(_norm),
    "_fused_rms_norm": _first_output(_norm),
    "native_group_norm": _first_output(_same),
    "view": _view,
    "_unsafe_view": _view,
    "reshape": _view,
    "_reshape_alias": _view,
    "squeeze": _view,
    "unsqueeze": _view,
    "permute": _permuted,
    "transpose": _transposed,
    "t": _transposed,
    "expand": _expanded,
    "select": _selected,
    "unbind": _unbound,
    "slice": _sliced,
    **dict.fromkeys("split split_with_sizes chunk".split(), _split),
    "cat": _joined_values,
    "stack": _stacked,
    "constant_pad_nd": _padded,
    "roll": _rolled,
    **dict.fromkeys("mean sum amax amin".split(), _reduced),
    "im2col": _unfolded,
    **dict.fromkeys("pixel_shuffle pixel_unshuffle".split(), _shuffled),
    **dict.fromkeys(_SAME_NAMES.split(), _first_output(_same)),
}
_POOLS = ("max pool", "average pool", "adaptive pool", "resize")


def _fill_rules() -> None:
    """The rest, by what an operation is in a network."""
    from convscope.graph.operations import OPERATIONS

    for name, operation in OPERATIONS.items():
        if operation.role in _POOLS:
            _RULES.setdefault(name, _first_output(_pool))
        elif operation.role == "batch norm":
            _RULES.setdefault(name, _first_output(_same))
        elif operation.geometry is not None and operation.geometry.__name__ == "elementwise":
            _RULES.setdefault(name, _elementwise)


_fill_rules()
