"""A pass that takes less time: the same values and derivatives, up to rounding, from fewer and smaller operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from convscope.fast.fused import can_rectify, rectified_convolution
from convscope.fast.stem import Stem
from convscope.fast.winograd import Winograd
from convscope.graph.graph import Graph, Reference
from convscope.incremental.replay import MAX_POOLS, scaled_convolutions
from convscope.scope.edits import RELUS

_MAX_POOLINGS: tuple[Callable[..., Any], ...] = (F.max_pool2d, torch.max_pool2d)
_POSITION_BY_POSITION = frozenset("relu relu_ hardtanh hardtanh_ silu silu_ gelu leaky_relu leaky_relu_ hardswish hardswish_".split())
_ABOUT = frozenset(
    [Tensor.dim, Tensor.size, Tensor.numel, Tensor.stride, Tensor.is_contiguous, Tensor.is_floating_point]
    + [getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "requires_grad", "is_cuda", "layout")]
)
"""What is asked about a tensor without a look at its values: batch norms ask for dimensions."""
_BLOCK = 16
"""Channels are computed in multiples of this: other counts are no faster, and a unit's rounding would depend on its batch mates."""


class lean_pass(TorchFunctionMode):
    """Within the block, a network's forward does without what the wanted values do not need.

    Batch norms with fixed statistics are multiplied into the kernels of the convolutions before them. A ReLU that only a max pooling
    reads is applied to what the pooling leaves: both are monotone, so value and derivative are the same. Of a convolution that leads
    to a wanted layer position by position, only the wanted units are computed. Where a derivative is wanted on a CPU, a convolution and
    its ReLU are one operation (:mod:`~convscope.fast.fused`); in float32, the first convolution has a faster way back
    (:mod:`~convscope.fast.stem`), and large 3x3 ones multiply less (:mod:`~convscope.fast.winograd`). The values of other layers may
    be anything.

    Args:
        graph: The network's.
        wanted: Nodes whose own value is wanted; the forward is to end at the last of them.
        units: Of some of them, the units that suffice, in the order in which they are to come.

    Attributes:
        narrow: Those of them that come with these units alone (and some that fill up a block). The others come whole.
    """

    def __init__(self, graph: Graph, wanted: Collection[int], units: Mapping[int, Sequence[int]] | None = None) -> None:
        super().__init__()
        self.narrow: set[int] = set()
        self._kernels: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._faster: dict[int, Stem | Winograd | None] = {}
        self._passing: set[int] = set()
        self._late: set[int] = set()
        self._rectifiable: set[int] = set()
        self._before_relu: Tensor | None = None
        self._rectified: Tensor | None = None
        self._raw: Callable[[], Tensor] = Tensor
        self._unrectified: Tensor | None = None
        self._once: set[int] = set()
        if graph.decisions:  # on another picture, what follows may be something else
            return
        self._graph, self._end = graph, max(wanted, default=0)
        before_end = {node: [one for one in readers if one <= self._end] for node, readers in graph.readers().items()}
        self._readers = {node: readers for node, readers in before_end.items() if readers}
        uses = Counter(id(item) for node in graph.nodes if node.place == 0 for item in node.arguments if isinstance(item, Tensor))
        self._once = {tensor for tensor, count in uses.items() if count == 1}  # shared ones mean different things in different places
        scaled = scaled_convolutions(graph, self._readers, wanted)
        self._norms = {norm: pair for norm, pair in scaled.items() if id(graph.nodes[norm].arguments[3]) in self._once}
        for norm, kernel in list(self._norms.items()):
            weight = self._weight(graph.nodes[norm].edges[0].node)
            if weight is None:
                del self._norms[norm]
                continue
            self._kernels[id(weight)] = kernel
            self._passing.add(id(graph.nodes[norm].arguments[3]))
        self._find_rectified(wanted)
        for node, asked in (units or {}).items():
            self._narrow(node, asked)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ABOUT:
            return func(*args, **kwargs)
        if func is F.batch_norm and len(args) > 1 and id(args[1]) in self._passing:
            return args[0]
        if self._rectified is not None and any(item is self._rectified for item in args):
            if func in RELUS:
                rectified, self._rectified = self._rectified, None
                return rectified
            args = tuple(self._raw() if item is self._rectified else item for item in args)  # not as it was recorded
        if func is torch.conv2d and len(args) == 7:
            return self._convolved(func, args)
        if self._before_relu is not None and func in RELUS and args and args[0] is self._before_relu:
            self._unrectified, self._before_relu = args[0], None
            return args[0]
        if self._unrectified is not None and any(item is self._unrectified for item in args):
            if func in _MAX_POOLINGS:
                self._unrectified = None
                return F.relu(func(*args, **kwargs))
            args = tuple(F.relu(item) if item is self._unrectified else item for item in args)  # not as it was recorded
        return func(*args, **kwargs)

    def __exit__(self, *raised: Any) -> None:
        self._before_relu = self._unrectified = self._rectified = None
        self._raw = Tensor
        super().__exit__(*raised)

    def _convolved(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Tensor:
        """A convolution, with the kernels that stand in for its own."""
        weight, values, plan = id(args[1]), args[0], args[3:]
        kernels, bias = self._kernels.get(weight, (args[1], args[2]))
        faster = None
        if weight in self._once and values.requires_grad and not torch.is_autocast_enabled("cpu"):
            if weight not in self._faster:
                self._faster[weight] = Stem.of(kernels, bias, *plan) or Winograd.of(kernels, bias, *plan)
            faster = self._faster[weight]
        if faster is not None:
            value = faster(values)
        elif weight in self._rectifiable and values.requires_grad and can_rectify(values, kernels, *plan[:3]):
            value = self._rectified = rectified_convolution(values, kernels, bias, *plan)
            self._raw = lambda: func(values, kernels, bias, *plan)
        else:
            value = func(values, kernels, bias, *plan)
        if weight in self._late:
            self._before_relu = value
        return value

    def _weight(self, node: int) -> Tensor | None:
        """The kernels of a convolution that is nothing else and shares them with nobody."""
        found = self._graph.nodes[node]
        if found.operation != "convolution" or found.arguments[6] or isinstance(found.arguments[1], Reference):
            return None
        return found.arguments[1] if id(found.arguments[1]) in self._once else None

    def _only_reader(self, node: int) -> int | None:
        """The one node that reads a node's value before the forward ends."""
        nodes = self._graph.nodes
        found = {one for one in self._readers.get(node, []) if nodes[one].place == 0}
        return found.pop() if len(found) == 1 else None

    def _find_rectified(self, wanted: Collection[int]) -> None:
        """Convolutions that may do their ReLU's work, and those whose ReLU, read by a max pooling alone, may come after it."""
        nodes = self._graph.nodes
        for index in range(len(nodes)):
            weight = self._weight(index)
            way = [index]
            while weight is not None and (reader := self._only_reader(way[-1])) is not None and len(way) < 4:
                way.append(reader)
            after = [step for step in way[1:] if step not in self._norms][:2]
            if not after or nodes[after[0]].operation not in ("relu", "relu_"):
                continue
            if any(step in wanted for step in way[: way.index(after[0])]):
                continue
            pooled = len(after) > 1 and nodes[after[1]].operation in MAX_POOLS and after[0] not in wanted
            places = pooled and any(nodes[one].place and self._readers.get(one) for one in self._readers[after[0]])  # of maxima
            (self._late if pooled and not places else self._rectifiable).add(id(weight))

    def _narrow(self, node: int, asked: Sequence[int]) -> None:
        """Leaves only some channels of the convolution before a node, if nothing else needs the others."""
        nodes, way = self._graph.nodes, [node]
        if node != self._end or node in self._readers:
            return
        while nodes[way[-1]].operation in _POSITION_BY_POSITION or way[-1] in self._norms:
            before = nodes[way[-1]].edges[0].node
            if self._only_reader(before) != way[-1]:
                return
            way.append(before)
        weight = self._weight(way[-1])
        if weight is None or nodes[way[-1]].arguments[8] != 1 or 2 * (count := -(-len(asked) // _BLOCK) * _BLOCK) > len(weight):
            return
        some = torch.tensor([*asked, *[asked[0]] * (count - len(asked))], device=weight.device)
        kernels, bias = self._kernels.get(id(weight), (weight, nodes[way[-1]].arguments[2]))
        self._kernels[id(weight)] = kernels[some], None if bias is None else bias[some]
        self.narrow.add(node)
