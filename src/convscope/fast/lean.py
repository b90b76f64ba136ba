"""Faster forward: folds batch norms, fuses conv + ReLU, skips unused channels. Same values and derivatives up to rounding."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from convscope.fast.fused import Clip, FusedConvolution
from convscope.fast.stem import Stem
from convscope.fast.winograd import Winograd
from convscope.graph.folding import folded_convolutions
from convscope.graph.graph import Graph, Node, Reference
from convscope.graph.operations import RELUS, clip_of, spellings

_MAX_POOLS = spellings("max_pool2d")
_QUESTIONS = frozenset(
    [Tensor.dim, Tensor.size, Tensor.numel, Tensor.stride, Tensor.is_contiguous, Tensor.is_floating_point]
    + [getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "requires_grad", "is_cuda", "layout")]
)
"""Functions that do not read a tensor's values: batch norms ask for its dimensions."""
_BLOCK = 16
"""Channels are computed in multiples of this: other counts are no faster, and a unit's rounding would depend on the others."""
_Kernels = tuple[Tensor, Tensor | None]


@dataclass
class _Convolution:
    """How one convolution is run.

    Attributes:
        kernels: Kernels and bias in place of its own, with a batch norm folded in or for some channels alone; None: its own.
        clip: The bounds of the ReLU or ReLU6 that it may be one operation with; None: there is none.
        pools: Whether its ReLU, which a max pooling alone reads, may come after the pooling.
        faster: A faster algorithm for it, where a derivative is wanted; unknown before its first call.
        fused: As one operation with its ReLU, where a derivative is wanted; unknown before its first call.
    """

    kernels: _Kernels | None = None
    clip: Clip | None = None
    pools: bool = False
    faster: Stem | Winograd | Literal["unknown"] | None = "unknown"
    fused: FusedConvolution | Literal["unknown"] | None = "unknown"


@dataclass
class _Other:
    """A tensor that is not what the network takes it for, until a function reads it.

    Attributes:
        tensor: Kept, so that no other tensor gets its id.
        taken_for: Computes what the network takes it for.
        clip: The network takes it for itself before this clipping, which is done already.
        rectified: The network takes it for itself after a ReLU.
        made_up: What was computed when another function read it. It is read from then on, as it may have been overwritten.
    """

    tensor: Tensor
    taken_for: Callable[[], Tensor]
    clip: Clip | None = None
    rectified: bool = False
    made_up: Tensor | None = None


class lean_pass(TorchFunctionMode):
    """Within the block, a network's forward skips what the wanted values do not need.

    - Batch norms with running statistics are folded into the kernels of the convolutions before them.
    - A ReLU that only a max pooling reads is applied after the pooling: both are monotone, so value and derivative are the same.
    - Of a convolution that only elementwise operations separate from a wanted layer, only the wanted units are computed.
    - Where a derivative is wanted on a CPU, a convolution and its ReLU or ReLU6 are one operation (:mod:`~convscope.fast.fused`); in
      float32, the first convolution has a faster backward (:mod:`~convscope.fast.stem`), and large 3x3 ones use fewer multiplications
      (:mod:`~convscope.fast.winograd`).

    The values of layers that are not wanted may be anything. A forward that differs from the recorded one (control flow that depends on
    the image's size) keeps its values: what was left out is made up for as soon as another function reads it.

    Args:
        graph: The network's operations.
        wanted: Nodes whose own value is wanted; the forward ends at the last of them.
        units: For some of them, the units that are enough, in the order in which they are wanted.
        in_order: Whether values must lie in memory in the order of their axes.

    Attributes:
        narrow: Those of them that come with these units alone (and some that fill up a block). The others come whole.
    """

    def __init__(
        self, graph: Graph, wanted: Collection[int], units: Mapping[int, Sequence[int]] | None = None, *, in_order: bool = False
    ) -> None:
        super().__init__()
        self._in_order = in_order
        self.narrow: set[int] = set()
        self._convolutions: dict[int, _Convolution] = {}  # by the id of their weights
        self._skipped_norms: dict[int, int] = {}  # ids of their running means, and of the weights they are folded into
        self._ran: set[int] = set()  # weights of which this pass has used the kernels planned for them
        self._before_relu: dict[int, Tensor] = {}
        self._others: dict[int, _Other] = {}
        if graph.decisions:  # for another image, the operations that follow may be others
            return
        self._nodes, self._end = graph.nodes, max(wanted, default=0)
        before_end = {node: [one for one in readers if one <= self._end] for node, readers in graph.readers().items()}
        self._readers = {node: readers for node, readers in before_end.items() if readers}
        uses = Counter(id(item) for node in graph.nodes if node.output == 0 for item in node.arguments if isinstance(item, Tensor))
        self._used_once = {tensor for tensor, count in uses.items() if count == 1}  # shared ones mean different things at each use
        self._weights = {index: weight for index, node in enumerate(graph.nodes) if (weight := self._own_weight(node)) is not None}
        self._convolutions = {id(weight): _Convolution() for weight in self._weights.values()}
        self._norms = self._fold(graph, wanted)
        for index in self._weights:
            self._plan_relu(index, wanted)
        for node, asked in (units or {}).items():
            self._plan_units(node, asked)

    # The forward. A tensor that is not what the network takes it for is remembered until a function reads it.

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _QUESTIONS:
            return func(*args, **kwargs)
        first = args[0] if args else None
        other = self._others.get(id(first))
        if func is F.batch_norm and len(args) > 1 and self._skipped_norms.get(id(args[1])) in self._ran:
            return first
        if other and other.made_up is None:
            if other.clip and clip_of(func, args, kwargs) == other.clip:
                return self._others.pop(id(first)).tensor
            if other.rectified and func in _MAX_POOLS:
                del self._others[id(first)]
                return F.relu(func(*args, **kwargs))
        if self._before_relu and func in RELUS and id(first) in self._before_relu:
            value = self._before_relu.pop(id(first))
            self._others[id(value)] = _Other(value, partial(F.relu, value), rectified=True)
            return value
        if self._others and (self._reads_other(args) or (kwargs and self._reads_other(kwargs.values()))):
            args, kwargs = self._as_recorded(args, kwargs)
        if func is torch.conv2d and len(args) == 7:
            return self._convolved(func, args)
        return func(*args, **kwargs)

    def __exit__(self, *raised: Any) -> None:
        for remembered in (self._others, self._before_relu, self._ran):
            remembered.clear()
        super().__exit__(*raised)

    def _reads_other(self, values: Collection[Any]) -> bool:
        """Whether a tensor that is not what the network takes it for is among some values. Asked at each function, so without pytrees."""
        if not self._others.keys().isdisjoint(map(id, values)):
            return True
        for value in values:
            if isinstance(value, (tuple, list, dict)) and self._reads_other(value.values() if isinstance(value, dict) else value):
                return True
        return False

    def _as_recorded(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Arguments of a function that was not expected here, with the values that the network takes its tensors for."""

        def value_of(tensor: Tensor) -> Tensor:
            other = self._others.get(id(tensor))
            if other is None:
                return tensor
            if other.made_up is None:
                with torch.enable_grad():  # others may read it who want a derivative
                    other.made_up = other.taken_for()
            return other.made_up

        return tree_map_only(Tensor, value_of, (args, kwargs))

    def _convolved(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Tensor:
        """A convolution, as planned."""
        values, weight, bias, *options = args
        plan = self._convolutions.get(id(weight))
        kernels, bias = (plan and plan.kernels) or (weight, bias)

        def recorded() -> Tensor:
            return func(values, kernels, bias, *options)

        if plan is None:
            return recorded()
        if plan.kernels:
            self._ran.add(id(weight))
        faster = None
        if values.requires_grad:
            if not torch.is_autocast_enabled("cpu"):
                if plan.faster == "unknown":
                    plan.faster = Stem.of(kernels, bias, *options) or Winograd.of(kernels, bias, *options)
                faster = plan.faster
            if faster is None:
                if plan.fused == "unknown":
                    plan.fused = FusedConvolution.of(kernels, bias, *options, clip=plan.clip)
                faster = plan.fused if plan.fused and plan.fused.takes(values) else None
        if faster is None:
            value = recorded()
        else:
            value = faster(values)
            value = value.contiguous() if self._in_order else value
            if plan.clip and faster is plan.fused:
                self._others[id(value)] = _Other(value, recorded, clip=plan.clip)
        if plan.pools:
            self._before_relu[id(value)] = value
        return value

    # The plan, from the recorded graph.

    def _own_weight(self, node: Node) -> Tensor | None:
        """The kernels of a convolution that no other operation uses. Computed ones, as of weight norm, are others in each pass."""
        if node.role != "convolution" or node.arguments[6] or isinstance(node.arguments[1], Reference):
            return None
        weight = node.arguments[1]
        return weight if isinstance(weight, nn.Parameter) and id(weight) in self._used_once else None

    def _fold(self, graph: Graph, wanted: Collection[int]) -> set[int]:
        """Folds batch norms; those that are skipped."""
        skipped: set[int] = set()
        for norm, kernels in folded_convolutions(graph, self._readers, wanted).items():
            weight, mean = self._weights.get(graph.nodes[norm].edges[0].node), id(graph.nodes[norm].arguments[3])
            if weight is not None and mean in self._used_once:
                self._convolutions[id(weight)].kernels = kernels
                self._skipped_norms[mean] = id(weight)
                skipped.add(norm)
        return skipped

    def _only_reader(self, node: int) -> int | None:
        """The one node that reads a node's value before the forward ends."""
        found = {one for one in self._readers.get(node, []) if self._nodes[one].output == 0}
        return found.pop() if len(found) == 1 else None

    def _plan_relu(self, index: int, wanted: Collection[int]) -> None:
        """Whether a convolution may be fused with its ReLU or ReLU6, or its ReLU, read by a max pooling alone, may come after that."""
        path = [index]
        while (reader := self._only_reader(path[-1])) is not None and len(path) < 4:
            path.append(reader)
        after = [node for node in path[1:] if node not in self._norms][:2]
        clip = _recorded_clip(self._nodes[after[0]]) if after else None
        if clip is None or any(node in wanted for node in path[: path.index(after[0])]):
            return
        pooled = len(after) > 1 and self._nodes[after[0]].is_relu and self._nodes[after[1]].role == "max pool" and after[0] not in wanted
        indices = pooled and any(self._nodes[one].output and self._readers.get(one) for one in self._readers[after[0]])
        plan = self._convolutions[id(self._weights[index])]
        plan.pools = pooled and not indices
        plan.clip = None if plan.pools else clip

    def _plan_units(self, node: int, asked: Sequence[int]) -> None:
        """Computes only some channels of the convolution before a node, if nothing else needs the others."""
        path = [node]
        if node != self._end or node in self._readers:
            return
        while self._is_elementwise(path[-1]):
            before = self._nodes[path[-1]].edges[0].node
            if self._only_reader(before) != path[-1]:
                return
            path.append(before)
        weight, convolution = self._weights.get(path[-1]), self._nodes[path[-1]]
        count = -(-len(asked) // _BLOCK) * _BLOCK
        if weight is None or convolution.arguments[8] != 1 or 2 * count > len(weight):
            return
        some = torch.tensor([*asked, *[asked[0]] * (count - len(asked))], dtype=torch.int64, device=weight.device)
        plan = self._convolutions[id(weight)]
        kernels, bias = plan.kernels or (weight, convolution.arguments[2])
        plan.kernels = kernels[some], None if bias is None else bias[some]
        self.narrow.add(node)

    def _is_elementwise(self, index: int) -> bool:
        """Whether a node is a skipped batch norm, or an activation without parameters for each channel."""
        node = self._nodes[index]
        plain = len(node.edges) == 1 and not any(isinstance(item, Tensor) for item in node.arguments)
        return index in self._norms or (node.role == "activation" and plain)


def _recorded_clip(node: Node) -> Clip | None:
    """The bounds to which a recorded operation clips its value, if it is a ReLU or ReLU6."""
    if node.is_relu:
        return 0, math.inf
    if node.operation not in ("hardtanh", "hardtanh_"):
        return None
    low, high = (*node.arguments[1:3], *(-1, 1)[len(node.arguments) - 1 :])
    return low, high
