"""The looks at a training, as one result and back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convscope.errors import StoreConflict
from convscope.ops.resize import resized
from convscope.results.feature_visualization import FeatureVisualization
from convscope.results.filter_health import FilterHealth
from convscope.results.folder import load
from convscope.results.watch import Watch

_SIDE, _MOST_SHOWN = 96, 10
"""Longer side of the images of a timeline in pixels, and looks whose images it has."""


@dataclass
class Look:
    """One look.

    Attributes:
        scores: Of each unit watched, at its feature visualization, (unit).
        dead: Dead units of each layer, (layer); -1 without a ReLU.
        images: The feature visualizations, reduced, (unit c h w) uint8; None where they are no longer at hand.
        seconds: How long it took.
    """

    scores: np.ndarray
    dead: np.ndarray
    images: np.ndarray | None
    seconds: float = 0.0


class History:
    """All looks at a training so far.

    Args:
        names: The units watched, by name.

    Attributes:
        looks: {step: look}.
        failed: Looks that failed, as (step, reason).
        layers, sizes, of: As in :class:`~convscope.results.watch.Watch`.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.looks: dict[int, Look] = {}
        self.failed: list[tuple[int, str]] = []
        self.layers: tuple[str, ...] = ()
        self.sizes: tuple[int, ...] = ()
        self.of = 0
        self._begun, self._before = time.monotonic(), 0.0

    def add(self, step: int, pictures: Sequence[FeatureVisualization], health: FilterHealth) -> Look:
        """Adds a look: the feature visualizations of the units of each layer, and the filter health."""
        scores, images = (np.concatenate([getattr(each, name) for each in pictures]) for name in ("scores", "images"))
        counts = [int(health.dead[health.layer_index == index].sum()) for index in range(len(health.layers))]
        dead = np.array([count if rectified else -1 for count, rectified in zip(counts, health.rectified, strict=True)])
        self.layers, self.of = health.layers, health.images
        self.sizes = tuple(int((health.layer_index == index).sum()) for index in range(len(health.layers)))
        self.looks[step] = look = Look(scores, dead, _reduced(images))
        return look

    def timeline(self, manifest: Mapping[str, Any]) -> Watch:
        """All looks as a result; of the images, those of at most ten looks, evenly spread."""
        steps = sorted(self.looks)
        pictured = [step for step in steps if self.looks[step].images is not None]
        places = np.linspace(0, len(pictured) - 1, min(_MOST_SHOWN, len(pictured))).round().astype(int)
        shown = [pictured[place] for place in places]
        images = [images for step in shown if (images := self.looks[step].images) is not None]
        return Watch(
            steps=np.array(steps),
            seconds=np.array([self.looks[step].seconds for step in steps]),
            scores=np.stack([self.looks[step].scores for step in steps], 1),
            dead=np.stack([self.looks[step].dead for step in steps], 1),
            images=np.stack(images, 1).astype(np.float32) / 255,
            shown=np.array(shown),
            names=self.names,
            layers=self.layers,
            sizes=self.sizes,
            trained=self._before + time.monotonic() - self._begun,
            failed=tuple(self.failed),
            of=self.of,
            manifest=manifest,
        )

    def resume(self, folder: Path) -> None:
        """Reads the looks that an earlier part of the training left.

        Raises:
            StoreConflict: They are of other units, or cannot be read.
        """
        known = load(folder)
        if not isinstance(known, Watch) or known.names != self.names:
            raise StoreConflict(f"{folder.parent}: holds looks at other units; choose another folder")
        columns = {int(step): column for column, step in enumerate(known.shown)}
        for look, step in enumerate(known.steps.tolist()):
            images = np.rint(known.images[:, columns[step]] * 255).astype(np.uint8) if step in columns else None
            self.looks[step] = Look(known.scores[:, look], known.dead[:, look], images, float(known.seconds[look]))
        self.layers, self.sizes, self.of = known.layers, known.sizes, known.of
        self.failed, self._before = list(known.failed), known.trained


def _reduced(images: np.ndarray) -> np.ndarray:
    """Images (n c h w) in [0,1] with a longer side of at most 96 px, in 8 bits."""
    height, width = images.shape[-2:]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(scale * height)), max(1, round(scale * width))
    small = resized(torch.from_numpy(np.array(images)), size)
    return np.rint(small.clamp(0, 1).numpy() * 255).astype(np.uint8)
