"""Layers of a network in call order, found by name, and their table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from convscope.errors import AmbiguousLayer, BadInput, LayerNotFound, NotReached
from convscope.graph.after_convolution import path_to_activation
from convscope.graph.graph import Field, Graph, everything
from convscope.names import OUTPUT, early_middle_last, no_layer
from convscope.results.table import frame
from convscope.text import one_line

if TYPE_CHECKING:
    from pandas import DataFrame

INPUT = "@input"
"""Suffix for the input of a shape-preserving module: ``features.2@input`` is the value before that ReLU."""


MARK = " *"
"""Sign of a layer to look at, in the table."""


@dataclass(frozen=True)
class Layer:
    """One call of one module.

    Attributes:
        name: Dotted PyTorch name; with ``:0``, ``:1``, ... where the module is called several times; "output" for the network.
        kind: Class name of the module.
        shape: Shape of the value without the batch axis, at the recorded input size.
        channel_axis: Axis of `shape` that counts units: 0 for (c h w), the last for channels-last values.
        parameters: Number of parameters of the module and its children.
        macs: Multiply-accumulate operations of the convolutions and matrix products in it, for one image.
        position: Index in call order; a layer comes after every layer that it was computed from.
        node: Index of its operation in the network's graph; None if it does not depend on the image.
        call: Number of earlier calls of the same module in the forward.
        overwritten: Whether the value is overwritten in place later in the forward (e.g. by ``out += identity``).
        pointwise: Whether the module's value has the shape of its input, so that ``name@input`` is a layer as well.
        of_input: Whether this is the module's input (``name@input``), not its output.
        module: The module itself.
        part: Which part of what the module returned is the value, e.g. ``logits``; None: the first tensor.
        batch_axis: Axis of the module's value that counts the images; None: no single axis does, and the value cannot be asked for.
            Values of layers always have it in front.
        grid: Height and width of the grid that a sequence of tokens stands for; None: no tokens, or none of a grid.
        prefix: Tokens before those of the grid, such as a class token; techniques leave them out.
        unclear: Whether it cannot be told which axis counts units, as in the heads of attention.
        passes: Whether the module returns its input as it is, as Identity does, and Dropout in evaluation mode.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    channel_axis: int
    parameters: int
    macs: int
    position: int
    node: int | None
    call: int
    overwritten: bool
    pointwise: bool
    of_input: bool
    module: nn.Module = field(repr=False, compare=False)
    part: str | None = None
    batch_axis: int | None = 0
    grid: tuple[int, int] | None = None
    prefix: int = 0
    unclear: bool = False
    passes: bool = False

    def is_a(self, *kinds: str) -> bool:
        """Whether its module is of one of these classes, or of a class derived from one."""
        return any(each.__name__ in kinds for each in type(self.module).__mro__)

    @property
    def channels(self) -> int:
        """Number of units; see :meth:`check_units`."""
        self.check_units()
        return self.shape[self.channel_axis]

    @property
    def spatial(self) -> tuple[int, ...]:
        """Sizes of the other axes: (h, w) for maps and for tokens of a grid, () for a vector."""
        return self.grid or tuple(length for axis, length in enumerate(self.shape) if axis != self.channel_axis)

    def check_readable(self) -> None:
        """Raises BadInput if what belongs to which image cannot be told."""
        if self.batch_axis is None:
            raise BadInput(
                f"layer {self.name} ({self.kind}): no axis of its value counts the images, so that no image has a value of its own"
            )

    def check_units(self) -> None:
        """Raises BadInput if it cannot be told which axis counts units."""
        if self.unclear:
            raise BadInput(
                f"layer {self.name} ({self.kind}): which axis of its value, {'x'.join(map(str, self.shape))}, counts units cannot be told; "
                "ask for the layer around it"
            )

    def units_first(self, values: Tensor) -> Tensor:
        """(n ...) values of this layer with the units on axis 1: (n c h w), (n c tokens) or (n c), in the same memory.

        Raises:
            BadInput: It cannot be told which axis counts units.
        """
        self.check_units()
        return values.movedim(self.channel_axis + 1, 1)

    def channels_first(self, values: Tensor) -> Tensor:
        """(n ...) values of this layer as maps (n c h w) or vectors (n c), in the same memory. Of tokens, those of the grid.

        Raises:
            BadInput: It cannot be told which axis counts units, or there are other tokens than those of the grid.
        """
        values = self.units_first(values)
        if self.grid is None:
            return values
        height, width = self.grid
        tokens = self.shape[1 - self.channel_axis]
        if values.shape[2] != tokens:
            raise BadInput(
                f"layer {self.name}: {values.shape[2]} tokens, which are no grid that is known; at the network's own input size there are "
                f"{tokens}, of a {height}x{width} grid"
            )
        return values[:, :, self.prefix : self.prefix + height * width].unflatten(2, (height, width))


class Layers(Mapping[str, Layer]):
    """All layers by name, in call order. Prints as a table."""

    def __init__(self, layers: Sequence[Layer], idle: Mapping[str, str] | None = None, graph: Graph | None = None) -> None:
        """`idle`: why other modules of the network have no value, by name."""
        self._by_name = {layer.name: layer for layer in layers}
        self._idle = dict(idle or {})
        self._graph = graph

    def __getitem__(self, name: str) -> Layer:
        if name in self._by_name:
            return self._by_name[name]
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] (callers may not check types)
            raise LayerNotFound(
                f"a layer is asked for by its name, got {one_line(repr(name), 60)}; names are {', '.join(list(self._by_name)[:3])}, ..."
            )
        if name in self._idle:
            raise NotReached(f"layer {name!r} is in this network, but {self._idle[name]}")
        calls = [known for known in self._by_name if ":" in known and known.rpartition(":")[0] == name]
        if calls:
            raise AmbiguousLayer(f"layer {name!r} is called {len(calls)} times in one forward; say which: {', '.join(calls)}")
        if name.endswith(INPUT) and self[name.removesuffix(INPUT)].pointwise:
            return replace(self[name.removesuffix(INPUT)], name=name, of_input=True, overwritten=False)
        more = "; all: scope.layers, or convscope layers NETWORK"
        raise no_layer(name, self._by_name, "network", more, self.activated() or self.after_relu())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def of_kind(self, *kinds: str) -> Layers:
        """The layers of these kinds, e.g. ``of_kind("Conv2d")``, and of kinds made of them, as of convolutions with normalized weights."""
        return Layers([layer for layer in self.values() if layer.is_a(*kinds)], self._idle, self._graph)

    def field(self, layer: Layer, axis: int, *, clipped: bool = False) -> Field:
        """Receptive field of every position of a layer's map along an axis, see :meth:`~convscope.graph.graph.Graph.field`.

        Tokens are not followed through the graph: each counts as seeing the whole image, which attention makes true.

        Raises:
            BadInput: The layer's value does not depend on the image.
        """
        if self._graph is None or layer.node is None:
            raise BadInput(f"layer {layer.name} does not depend on the image, so it has no receptive field")
        found = self._graph.field(layer.node, axis, clipped=clipped)
        length = layer.spatial[axis] if len(layer.spatial) == 2 else len(found.first)
        size = self._graph.nodes[0].size
        return found if len(found.first) == length or size is None else everything(length, size[axis])

    def place(self, layer: Layer, cells: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Where on an image a layer's maps lie, so that the middle of each cell is the middle of its receptive field.

        Without padding, as in SqueezeNet, they end inside the image; with padding before a stride, as in ResNet, they begin outside.

        Args:
            layer: A layer with maps.
            cells: Height and width of the maps.
            size: Height and width of the image.

        Returns:
            y0, x0, y1, x1 in pixels of the image: the cells divide this evenly. The whole image along an axis where fields do not follow
            one another evenly, as those that see all of it.
        """
        ends = [self._ends(layer, axis, cells[axis]) or (0.0, float(size[axis])) for axis in (0, 1)]
        return ends[0][0], ends[1][0], ends[0][1], ends[1][1]

    def step(self, layer: Layer, cells: tuple[int, int]) -> tuple[float, float] | None:
        """How many pixels the cells of a layer's maps (height, width) lie apart; None where they do not follow one another evenly."""
        ends = [self._ends(layer, axis, cells[axis]) for axis in (0, 1)]
        if ends[0] is None or ends[1] is None:
            return None
        return (ends[0][1] - ends[0][0]) / cells[0], (ends[1][1] - ends[1][0]) / cells[1]

    def own_place(self, name: str) -> tuple[float, float, float, float] | None:
        """:meth:`place` of a layer for images of the network's own size; None for a layer without maps."""
        layer, size = self[name], None if self._graph is None else self._graph.nodes[0].size
        return (
            None if size is None or len(layer.spatial) != 2 else self.place(layer, (layer.spatial[0], layer.spatial[1]), (size[0], size[1]))
        )

    def _ends(self, layer: Layer, axis: int, count: int) -> tuple[float, float] | None:
        """Where cells along an axis begin and end, in pixels; None where fields do not follow one another evenly."""
        if self._graph is None or layer.node is None or len(layer.spatial) != 2:
            return None
        field = self.field(layer, axis)
        middle = (field.first + field.last + 1) / 2
        if field.whole or len(middle) < 2:
            return None
        step = float(middle[-1] - middle[0]) / (len(middle) - 1)
        if step <= 0 or np.abs(middle - middle[0] - step * np.arange(len(middle))).max() > 1:
            return None
        begin = float(middle[0]) - step / 2
        return begin, begin + count * step

    def after_relu(self) -> list[str]:
        """The layers whose values are the convolutions' outputs after their ReLU: one per convolution, in call order, none twice.

        For each Conv2d, the layer of the first activation function (ReLU and its relatives, module or functional) after it, through norm,
        dropout and at most one residual sum: a ReLU module, or the block that ends with a functional ReLU. Where no layer has that value,
        or no activation function follows (as in a linear bottleneck), the last layer before: the norm, or the convolution itself, with
        values below zero. Of layers with the same value, the first that does not merely return its input.
        """
        readable = [layer for layer in self.values() if layer.batch_axis is not None]
        shown = {layer.node: layer for passes in (True, False) for layer in reversed(readable) if layer.passes == passes}
        ways = (path_to_activation(self._graph, layer.node) for layer in self.of_kind("Conv2d").values())
        found = dict.fromkeys(next((shown[node] for node in reversed(way) if node in shown), None) for way in ways)
        return [layer.name for layer in sorted(filter(None, found), key=lambda layer: layer.position)]

    def activated(self) -> list[str]:
        """Those of :meth:`after_relu` whose values an activation function made: the layers to look at first."""
        nodes = [] if self._graph is None else self._graph.nodes
        return [name for name in self.after_relu() if (node := self[name].node) is not None and nodes[node].role == "activation"]

    def passing(self) -> list[str]:
        """The layers that return their input as it is (Identity, Dropout), but for those of :meth:`after_relu`, and where all do."""
        kept = {OUTPUT, *self.after_relu()}
        found = [layer.name for layer in self.values() if layer.passes and layer.name not in kept]
        return found if len(found) < len(self) else []

    def last_maps(self) -> str:
        """The last of :meth:`after_relu` with maps of more than one position, unless it has a map for each class.

        Where its value is only a part of a concatenation (SqueezeNet, Inception), the layer that holds the whole.

        Raises:
            BadInput: There is none.
        """
        classes = self[OUTPUT].channels
        for name in reversed(self.after_relu()):
            found = self[name]
            if len(found.spatial) == 2 and found.channels != classes and max(found.spatial) > 1:
                return self._whole(found).name
        raise BadInput("the network has no convolution with maps of more than one position; name a layer")

    def last_with_maps(self, among: Sequence[str]) -> list[str]:
        """Those of some layers that make up :meth:`last_maps`: itself, or its parts; else the last with maps that are not the classes'."""
        try:
            last = self.last_maps()
        except BadInput:
            return []
        found = [last] if last in among else [name for name in among if self._whole(self[name]).name == last]
        if found:
            return found
        classes = self[OUTPUT].channels
        spatial = [name for name in among if len(self[name].spatial) == 2 and max(self[name].spatial) > 1]
        return [name for name in spatial if self[name].channels != classes][-1:]

    def _whole(self, layer: Layer) -> Layer:
        """The layer whose value is the concatenation that alone reads a layer's value; else the layer itself."""
        nodes = [] if self._graph is None else self._graph.nodes
        readers = [place for place, node in enumerate(nodes) if any(edge.node == layer.node for edge in node.edges)]
        if layer.node is None or len(readers) != 1 or nodes[readers[0]].role != "join":
            return layer
        return next((self._whole(other) for other in self.values() if other.node == readers[0] and len(other.spatial) == 2), layer)

    def rows(self, *, every: bool = True) -> list[tuple[str, ...]]:
        """The cells of the table as text, a row per layer; see `HEADER`. Without `every`, those of :meth:`passing` are left out."""
        marked, left_out = set(self.activated()), () if every else set(self.passing())
        return [
            (
                layer.name,
                f"{layer.kind}{f' [{layer.part}]' if layer.part else ''}{MARK if layer.name in marked else ''}",
                "?" if layer.unclear else str(layer.channels),
                "x".join(map(str, layer.shape if layer.unclear else layer.spatial)) or "-",
                *self._field(layer),
                f"{layer.parameters:,}" if layer.parameters else "-",
                f"{layer.macs / 1e6:,.1f} M" if layer.macs else "-",
            )
            for layer in self.values()
            if layer.name not in left_out
        ]

    def columns(self) -> dict[str, np.ndarray]:
        """The table as {column: values, (layer)}; what a layer has not is None. Stride and field are in pixels, down and across."""
        rows: list[dict[str, Any]] = []
        for layer in self.values():
            fields = [] if layer.node is None else [self.field(layer, axis) for axis in (0, 1)]
            whole = any(found.whole for found in fields)
            seen = [None] * 4 if whole or not fields else [float(value) for found in fields for value in (found.jump, found.size)]
            row: dict[str, Any] = {"name": layer.name, "kind": layer.kind, "part": layer.part}
            row["channels"] = None if layer.unclear else layer.channels
            row |= dict(zip(("height", "width"), (*(() if layer.unclear else layer.spatial), None, None), strict=False))
            row |= dict(zip(("stride_y", "field_y", "stride_x", "field_x"), seen, strict=True))
            rows.append(row | {"whole_field": whole, "parameters": layer.parameters, "macs": layer.macs})
        return {name: np.array([row[name] for row in rows], object) for name in (rows[0] if rows else ())}

    def to_frame(self) -> DataFrame:
        """The table as a pandas data frame, a row for each layer; see :meth:`columns`.

        Raises:
            NotInstalled: pandas is not installed.
        """
        return frame(self.columns())

    HEADER = ("name", "kind", "channels", "size", "stride", "field", "parameters", "MACs")
    """Columns of the table: size (h w), stride and receptive field in pixels, MACs for one image."""

    def _field(self, layer: Layer) -> tuple[str, str]:
        """Stride and size of a layer's receptive field."""
        if layer.node is None:
            return "-", "-"
        fields = [self.field(layer, axis) for axis in (0, 1)]
        if fields[0].whole or fields[1].whole:
            return "-", "all"
        stride, size = ([f"{value:g}" for value in values] for values in ([f.jump for f in fields], [f.size for f in fields]))
        return (stride[0] if stride[0] == stride[1] else "x".join(stride)), (size[0] if size[0] == size[1] else "x".join(size))

    def legend(self, where: str, *, every: bool = False) -> str:
        """What is said below the table, a line for the star and one for rows that are left out; "" if nothing is.

        Args:
            where: What shows the rows that are left out.
            every: Whether none is left out.
        """
        marked, left_out = self.activated(), [] if every else self.passing()
        look = f"* activations of convolutions, e.g. {', '.join(early_middle_last(marked))}" if marked else ""
        kinds = ", ".join(list(dict.fromkeys(self[name].kind for name in left_out))[:3])
        hidden = f"{len(left_out)} of {len(self)} layers return their input ({kinds}) and are left out: {where}" if left_out else ""
        return "\n".join(filter(None, [look, hidden]))

    def __repr__(self) -> str:
        rows = [self.HEADER, *self.rows(every=False)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.HEADER))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join(filter(None, [*(line.rstrip() for line in lines), self.legend("to_frame() has all")]))
