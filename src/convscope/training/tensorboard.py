"""Looks at a training as TensorBoard shows them: images by step, dead units, and what watching takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from convscope.errors import BadInput, NotInstalled
from convscope.results.channels import shown
from convscope.results.exemplars import Exemplars
from convscope.results.feature_visualization import FeatureVisualization
from convscope.results.watch import Watch


class Board:
    """Where TensorBoard's entries go.

    Args:
        target: A ``SummaryWriter``, or anything with its methods, or a folder for one.

    Raises:
        NotInstalled: A folder is given, and TensorBoard is not installed.
        BadInput: Something else is given.
    """

    def __init__(self, target: Any) -> None:
        if isinstance(target, (str, os.PathLike)):
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise NotInstalled("TensorBoard's entries need tensorboard", "tensorboard") from None
            target = SummaryWriter(os.fspath(target))
        if not all(callable(getattr(target, name, None)) for name in ("add_image", "add_scalar")):
            raise BadInput(f"tensorboard must be a SummaryWriter or a folder, got {type(target).__name__}")
        self._writer: Any = target

    def show(self, timeline: Watch, seen: Sequence[tuple[FeatureVisualization, Exemplars]]) -> None:
        """Adds the last look.

        Args:
            timeline: All looks.
            seen: What the last one saw of the units of each layer.
        """
        step = int(timeline.steps[-1])
        for pictures, strongest in seen:
            for row, unit in enumerate(strongest.units):
                tag = f"{strongest.layer}/unit {unit}"
                self._writer.add_image(f"{tag}/feature visualization", shown(pictures, pictures.images[row]), step)
                self._writer.add_image(f"{tag}/exemplars", np.concatenate(list(strongest.crops[row]), axis=2), step)
        for layer, size, dead in zip(timeline.layers, timeline.sizes, timeline.dead[:, -1].tolist(), strict=True):
            if dead >= 0:
                self._writer.add_scalar(f"dead units/{layer}", dead / size, step)
        self._writer.add_scalar("watch/share of time", timeline.share, step)
        if callable(flush := getattr(self._writer, "flush", None)):
            flush()
