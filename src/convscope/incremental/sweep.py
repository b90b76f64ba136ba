"""A network's values for a picture with one box after another replaced: by incremental inference, or in full."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from convscope.fast.memory import give_back_beyond, resident
from convscope.incremental.planner import Batch
from convscope.incremental.rerun import NotRepeatable, Rerun, rerun
from convscope.scope.network import out_of_memory
from convscope.scope.precision import wide
from convscope.scope.scope import Scope

WORTH = 0.9
"""Where an incremental run needs more than this share of the arithmetic of full inference, full inference is as fast."""
_AGREE = {"float32": 1e-3, "bfloat16": 0.1}
"""How far the values of the two methods may lie apart by rounding, as a share of the largest value."""
_TOGETHER = 128
"""Pictures that the dense layers are run on together."""
_log = logging.getLogger("convscope")


class Sweep:
    """A network's values for a picture with one box after another replaced.

    Args:
        scope: The network; its session is entered by the caller.
        picture: (1 3 h w) in pixel space.
        source: The picture that boxes are replaced from, (1 3 h w).
        boxes: (n 4): y0 x0 y1 x1, end exclusive, inside the picture.
        layer: The layer whose value is wanted.
        incremental: Whether to compute only what changes, where that can be done and saves work.

    Attributes:
        method: "incremental" or "full".
    """

    def __init__(self, scope: Scope, picture: Tensor, source: Tensor, boxes: np.ndarray, layer: str, *, incremental: bool = True) -> None:
        self.scope, self.picture, self.source, self.boxes, self.layer = scope, picture, source, boxes, layer
        self._at_once = 4 * scope.fitting(picture.shape[-2] * picture.shape[-1])
        self._fed = scope.inputs.normalize(source.to(scope.device, scope.dtype))
        self._batches: list[Batch] = []
        self._again = self._ready() if incremental and len(boxes) else None

    @property
    def method(self) -> str:
        return "full" if self._again is None else "incremental"

    def base(self) -> Tensor:
        """The layer's value for the unchanged picture, (1 ...), by the method that the others are computed with."""
        return self.scope.run(self.picture, self.layer)[self.layer] if self._again is None else wide(self._again.base)

    def values(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(numbers of boxes, (n ...) values of the layer), batch by batch, in no particular order of boxes."""
        again = self._again
        if again is None:
            everyone = np.arange(len(self.boxes))
            yield from self.scope.in_parts(len(everyone), self._at_once, lambda piece: (everyone[piece], self._full(everyone[piece])))
            return
        waiting: list[tuple[np.ndarray, Tensor]] = []
        most = resident() + self._at_once * again.planner.in_memory() * again.base.element_size()
        for number, batch in enumerate(self._batches, 1):
            work = lambda piece, batch=batch: self._begun(again, batch, piece)  # noqa: E731 - called at once
            waiting += self.scope.in_parts(len(batch.members), len(batch.members), work)
            give_back_beyond(most)
            if number == len(self._batches) or sum(len(members) for members, _ in waiting) >= _TOGETHER:
                members, begun = np.concatenate([members for members, _ in waiting]), torch.cat([begun for _, begun in waiting])
                waiting = []
                finish = lambda piece, members=members, begun=begun: (members[piece], wide(again.finish(begun[piece])))  # noqa: E731
                yield from self.scope.in_parts(len(members), len(members), finish)

    def verify(self, checks: np.ndarray, read: Callable[[Tensor], Tensor]) -> float:
        """Computes some boxes by both methods; more than rounding between them leads to full inference for all.

        Args:
            checks: Numbers of boxes.
            read: What is of interest in the values.

        Returns:
            The largest difference of what is read; NaN where there is nothing to compare.
        """
        if self._again is None or not len(checks):
            return math.nan
        want = self._full(checks)
        try:
            got = wide(self._again.run(self._again.planner.batch(self.boxes, checks), self._fed))
        except (RuntimeError, TypeError) as error:
            if out_of_memory(error):
                raise
            _log.warning("incremental inference fails on this network (%s), so full inference is used", " ".join(str(error).split()))
            self._again = None
            return math.nan
        difference = float((read(want) - read(got)).abs().max())
        if not (want - got).abs().max() <= _AGREE[self._again.precision] * want.abs().max():  # NaN does not agree, either
            _log.warning("incremental inference does not reproduce this network (off by %.3g), so full inference is used", difference)
            self._again = None
        return difference

    def _ready(self) -> Rerun | None:
        try:
            again = rerun(self.scope, self.picture, self.layer, precision=self.scope.resolve("measure"))
        except (
            NotRepeatable,
            RuntimeError,
            TypeError,
        ) as error:  # an operation may refuse what it never met; full inference is always right
            if out_of_memory(error):
                raise
            _log.info("full inference: %s", error)
            return None
        self._batches = again.planner.batches(self.boxes, self._at_once, again.kept)
        cost = sum(batch.cost * len(batch.members) for batch in self._batches) / len(self.boxes)
        return again if cost < WORTH else None

    def _begun(self, again: Rerun, batch: Batch, piece: slice) -> tuple[np.ndarray, Tensor]:
        """A batch, or the part of it that memory suffices for."""
        members = batch.members[piece]
        part = batch if len(members) == len(batch.members) else again.planner.batch(self.boxes, members)
        return members, again.begin(part, self._fed)

    def _full(self, part: np.ndarray) -> Tensor:
        pictures = self.picture.repeat(len(part), 1, 1, 1)
        for one, (y0, x0, y1, x1) in zip(pictures, self.boxes[part], strict=True):
            one[:, y0:y1, x0:x1] = self.source[0, :, y0:y1, x0:x1]
        return self.scope.run(pictures.contiguous(memory_format=torch.channels_last), self.layer)[self.layer]
