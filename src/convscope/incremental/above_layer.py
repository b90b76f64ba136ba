"""The part of a network above a layer, run again on other values of that layer, while what does not depend on it stays cached."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.errors import NotReached
from convscope.incremental.replay import NotRepeatable, Replay, batched
from convscope.incremental.sweep import AGREE
from convscope.names import OUTPUT
from convscope.scope.edits import replaced_value
from convscope.scope.network import out_of_memory
from convscope.scope.precision import computing_in, wide
from convscope.scope.scope import Scope

_log = logging.getLogger("convscope")


@dataclass(frozen=True, eq=False)
class Cached:
    """What the part above a layer needs of a batch of images.

    Attributes:
        value: The layer's value, (n ...).
        output: The last layer's value for the images as they are, (n ...), float32 or wider.
        nodes: Values of nodes beside the layer that the part above reads.
        images: The images, where the network cannot be run again from its record.
    """

    value: Tensor
    output: Tensor
    nodes: dict[int, Tensor]
    images: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory that this takes."""
        tensors = [self.value, self.output, *self.nodes.values(), *([] if self.images is None else [self.images])]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class AboveLayer:
    """The part of a network above a layer.

    The network's recorded operations are run again: those that depend on the layer, for each new value of it; all others once for a batch.
    The first batch is also computed by the network itself, with its value replaced by a hook. Where that differs, and where a network
    cannot be run again from its record, all of it is run for each new value.

    Args:
        scope: The network; its session is entered by the caller.
        layer: The layer whose value is replaced.
        size: Height and width of the images.
        last: The layer whose value is wanted.

    Attributes:
        method: "cached" or "full".

    Raises:
        LayerNotFound: Unknown layer.
    """

    def __init__(self, scope: Scope, layer: str, size: tuple[int, int], *, last: str = OUTPUT) -> None:
        self.scope, self.last = scope.at(size), last
        self.layer = self.scope.layers[layer]
        self._precision = scope.resolve("measure")
        self._replay: Replay | None = None
        self._checked = False
        try:
            self._prepare()
        except NotRepeatable as error:
            _log.info("full inference: %s", error)

    @property
    def method(self) -> str:
        return "full" if self._replay is None else "cached"

    def begin(self, images: Tensor) -> Cached:
        """Runs the whole network on a batch (n 3 h w) in pixel space and keeps what the part above the layer needs."""
        if self._replay is not None and not self._checked:
            self._check(self._replay, images[:2])
        if self._replay is not None:
            return self._below(self._replay, images)
        values = self.scope.run(images, list(dict.fromkeys([self.layer.name, self.last])), widen=False)
        return Cached(values[self.layer.name], wide(values[self.last]), {}, images)

    def finish(self, cached: Cached, value: Tensor) -> Tensor:
        """The last layer's value (n ...) with another value of the layer, shaped as `cached.value`; it may be overwritten."""
        if self._replay is None or cached.images is not None:
            return self._full(cached.images, value)
        return self._above(self._replay, cached, value)

    def _prepare(self) -> None:
        graph, last = self.scope.graph, self.scope.layers[self.last].node
        own = self.layer.node
        if own is None or last is None or self.layer.of_input:
            raise NotRepeatable(f"layer {self.layer.name} is no operation of its own")
        if self.scope.one_at_a_time or self.layer.batch_axis or self.scope.layers[self.last].batch_axis:
            raise NotRepeatable(self.scope.one_at_a_time or f"layer {self.layer.name} does not begin with the axis that counts images")
        replay = Replay(graph, last, keep=[own])
        if own not in replay.nodes:
            raise NotReached(f"layer {self.layer.name} has no influence on {self.last}")
        depend = {own}
        for index, node in replay.nodes.items():
            if index != own and any(edge.node in depend for edge in node.edges):
                depend.add(index)
        self._replay, self._own, self._last = replay, own, last
        self._upper = [index for index in replay.nodes if index in depend and index != own]
        read = {edge.node for index in self._upper for edge in replay.nodes[index].edges}
        self._kept = (read - depend) | {own, last}

    def _below(self, replay: Replay, images: Tensor) -> Cached:
        """All of the network, by its record."""
        values: dict[int, Tensor] = {0: self.scope.inputs.normalize(images.to(self.scope.device, self.scope.dtype))}
        with torch.no_grad(), computing_in(self._precision, self.scope.device):
            for index in replay.nodes:
                if index:
                    self._step(replay, values, index, len(images), self._kept)
        kept = {index: value for index, value in values.items() if index in self._kept and index not in (self._own, self._last)}
        return Cached(values[self._own], wide(values[self._last]), kept)

    def _above(self, replay: Replay, cached: Cached, value: Tensor) -> Tensor:
        values = {**cached.nodes, self._own: value}
        with torch.no_grad(), computing_in(self._precision, self.scope.device):
            for index in self._upper:
                self._step(replay, values, index, len(value), cached.nodes)
        return wide(values[self._last])

    def _step(self, replay: Replay, values: dict[int, Tensor], index: int, count: int, kept: Collection[int]) -> None:
        """Computes a node's value and drops those that nothing reads later, except what is kept."""
        node = replay.nodes[index]
        mine = all(edge.node not in kept for edge in node.edges)
        values[index] = replay.run(index, values.__getitem__, batched(node, count, None), overwrites=mine)
        for edge in node.edges:
            if replay.readers[edge.node][-1] == index and edge.node not in kept:
                values.pop(edge.node, None)

    def _full(self, images: Tensor | None, value: Tensor) -> Tensor:
        """The network's own forward with the layer's value replaced."""
        if images is None:
            raise RuntimeError("images were not kept")
        parts = [slice(row, row + 1) for row in range(len(images))] if self.scope.one_at_a_time else [slice(len(images))]
        runs = [self.scope.run(images[part], self.last, edit=replaced_value(self.layer, value[part]))[self.last] for part in parts]
        return torch.cat(runs) if len(runs) > 1 else runs[0]

    def _check(self, replay: Replay, images: Tensor) -> None:
        """Compares both ways on a value that differs everywhere; a difference beyond rounding leads to full inference for all."""
        self._checked = True
        try:
            cached = self._below(replay, images)
            other = 0.5 * cached.value + cached.value.abs().max().clamp(min=1e-3)
            got = self._above(replay, cached, other.clone())
        except (RuntimeError, TypeError, NotRepeatable) as error:  # an operation may refuse another batch size
            if out_of_memory(error):
                raise
            _log.info("full inference: %s", error)
            self._replay = None
            return
        want = self._full(images, other)
        if want.shape != got.shape or not (want - got).abs().max() <= AGREE[self._precision] * want.abs().max():
            _log.warning("layer %s: rerunning what is above it does not reproduce this network, so full inference is used", self.layer.name)
            self._replay = None
