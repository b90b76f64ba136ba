"""A layer's value for one image with one box after another replaced: by incremental inference, or in full."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from convscope.fast.memory import resident, trim_heap
from convscope.incremental.planner import Batch
from convscope.incremental.rerun import NotRepeatable, Rerun, rerun
from convscope.progress import watched
from convscope.scope.network import out_of_memory
from convscope.scope.precision import wide
from convscope.scope.scope import Scope
from convscope.text import one_line

WORTH = 0.9
"""From this share of the arithmetic of full inference on, full inference is as fast as an incremental run."""
AGREE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference between the two methods that counts as rounding, as a share of the largest value."""
_TOGETHER = 128
"""Images that the dense layers are run on together."""
_SOON = 16
"""The same where someone watches, and wants to see some soon; also how many boxes the first batch has."""
_log = logging.getLogger("convscope")


class Sweep:
    """A layer's value for one image with one box after another replaced.

    Args:
        scope: The network; its session is entered by the caller.
        image: (1 3 h w) in pixel space.
        source: The image that the boxes are filled from, (1 3 h w).
        boxes: (n 4): y0 x0 y1 x1, end exclusive, inside the image.
        layer: The layer whose value is wanted.
        incremental: Whether to compute only what changes, where that is possible and saves work.

    Attributes:
        method: "incremental" or "full".
    """

    def __init__(self, scope: Scope, image: Tensor, source: Tensor, boxes: np.ndarray, layer: str, *, incremental: bool = True) -> None:
        self.scope, self.image, self.source, self.boxes, self.layer = scope, image, source, boxes, layer
        self._at_once = 4 * scope.fitting(image.shape[-2] * image.shape[-1])
        self._watched = watched()
        self._input = scope.inputs.normalize(source.to(scope.device, scope.dtype))
        self._batches: list[Batch] = []
        self._rerun = self._ready() if incremental and len(boxes) else None

    @property
    def method(self) -> str:
        return "full" if self._rerun is None else "incremental"

    def base(self) -> Tensor:
        """The layer's value for the unchanged image, (1 ...), by the method of the other values."""
        return self.scope.run(self.image, self.layer)[self.layer] if self._rerun is None else wide(self._rerun.base)

    def values(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(numbers of boxes, (n ...) values of the layer), batch by batch, in no particular order of boxes."""
        if self._rerun is not None:
            yield from self._incremental_values(self._rerun)
            return
        everyone = np.arange(len(self.boxes))
        yield from self.scope.in_parts(len(everyone), self._at_once, lambda part: (everyone[part], self._full(everyone[part])))

    def _incremental_values(self, engine: Rerun) -> Iterator[tuple[np.ndarray, Tensor]]:
        waiting: list[tuple[np.ndarray, Tensor]] = []
        batches = self._batches
        if self._watched and len(members := batches[0].members) > _SOON:
            few = [engine.planner.batch(self.boxes, some) for some in (members[:_SOON], members[_SOON:])]
            batches = [*few, *batches[1:]]
        together = _SOON if self._watched else _TOGETHER
        most = resident() + self._at_once * engine.planner.in_memory() * engine.base.element_size()
        for number, batch in enumerate(batches, 1):
            waiting += self.scope.in_parts(len(batch.members), len(batch.members), partial(self._begin, engine, batch))
            if self.scope.fast:
                trim_heap(most)
            if number == len(batches) or sum(len(members) for members, _ in waiting) >= together:
                members, begun = np.concatenate([members for members, _ in waiting]), torch.cat([begun for _, begun in waiting])
                waiting = []
                yield from self.scope.in_parts(len(members), len(members), partial(_finish, engine, members, begun))

    def verify(self, checks: np.ndarray, read: Callable[[Tensor], Tensor]) -> float:
        """Computes some boxes by both methods; a difference beyond rounding leads to full inference for all.

        Args:
            checks: Numbers of boxes.
            read: What to compare, from the layer's values.

        Returns:
            The largest difference of what is read; NaN where there is nothing to compare.
        """
        if self._rerun is None or not len(checks):
            return math.nan
        want = self._full(checks)
        try:
            got = wide(self._rerun.run(self._rerun.planner.batch(self.boxes, checks), self._input))
        except (RuntimeError, TypeError) as error:
            if out_of_memory(error):
                raise
            _log.warning("incremental inference fails on this network (%s), so full inference is used", one_line(error))
            self._rerun = None
            return math.nan
        difference = float((read(want) - read(got)).abs().max())
        if not (want - got).abs().max() <= AGREE[self._rerun.precision] * want.abs().max():  # NaN does not agree, either
            _log.warning("incremental inference does not reproduce this network (off by %.3g), so full inference is used", difference)
            self._rerun = None
        return difference

    def _ready(self) -> Rerun | None:
        """Incremental inference, if it is possible and saves work."""
        try:
            ready = rerun(self.scope, self.image, self.layer, precision=self.scope.resolve("measure"))
        except (NotRepeatable, RuntimeError, TypeError) as error:  # an operation may refuse another batch size; full inference works
            if out_of_memory(error):
                raise
            _log.info("full inference: %s", error)
            return None
        self._batches = ready.planner.batches(self.boxes, self._at_once, ready.cached)
        cost = sum(batch.cost * len(batch.members) for batch in self._batches) / len(self.boxes)
        return ready if cost < WORTH else None

    def _begin(self, engine: Rerun, batch: Batch, part: slice) -> tuple[np.ndarray, Tensor]:
        """The first half of a batch, or of the part of it that memory suffices for."""
        members = batch.members[part]
        some = batch if len(members) == len(batch.members) else engine.planner.batch(self.boxes, members)
        return members, engine.begin(some, self._input)

    def _full(self, part: np.ndarray) -> Tensor:
        images = self.image.repeat(len(part), 1, 1, 1)
        for one, (y0, x0, y1, x1) in zip(images, self.boxes[part], strict=True):
            one[:, y0:y1, x0:x1] = self.source[0, :, y0:y1, x0:x1]
        return self.scope.run(images.contiguous(memory_format=torch.channels_last), self.layer)[self.layer]


def _finish(engine: Rerun, members: np.ndarray, begun: Tensor, part: slice) -> tuple[np.ndarray, Tensor]:
    """The second half of several batches."""
    return members[part], wide(engine.finish(begun[part]))
