"""Surveys of guns and knives for the tests of detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import convscope as cs
from made import drawn, made

MAPS = {"gun": (0, 1, 2), "knife": (6, 7)}
LABELS = ["gun", "knife", "benign", "gun", "knife", "benign", "benign", None]


def activations(count: int, seed: int, strength: float = 0.35) -> tuple[np.ndarray, list[str | None], np.ndarray]:
    """Maps whose channels 0-2 are stronger on guns and 6-7 on knives, labels, and outputs that know it, too, but less well."""
    labels = [LABELS[row % 8] for row in range(count)]
    maps = drawn(count, 12, 4, 4, seed=seed)
    for row, label in enumerate(labels):
        maps[row, list(MAPS.get(label or "", ()))] += strength
    clues = np.stack([maps[:, :3].mean((1, 2, 3)), maps[:, 6:8].mean((1, 2, 3)), maps[:, 9].mean((1, 2))], 1)
    return maps, labels, 6 * clues + np.random.default_rng(seed).normal(size=(count, 3))


def survey_of(folder: Path, count: int = 96, seed: int = 0, **more: Any) -> cs.Survey:
    maps, labels, output = activations(count, seed)
    return made(folder, {"layer": maps}, labels, **({"output": output, "classes": ["benign", "knife", "gun"]} | more))
