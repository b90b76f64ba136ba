"""What a detector has to be better than: the network's own output, and a linear probe on the same layer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from convscope.analyses.thresholds import Counter
from convscope.errors import BadInput
from convscope.names import OUTPUT
from convscope.statistics import group_areas
from convscope.survey.survey import Survey

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of the probe's penalty, of which the one with the best area on the validation images is taken."""


def margins(outputs: np.ndarray, channels: np.ndarray, own: str) -> np.ndarray:
    """How far each chosen output is ahead, (n label): softmax: log odds of the class against all others; sigmoid: the output itself."""
    values = outputs.astype(np.float64)
    if own == "sigmoid":
        return values[:, channels]
    found = np.empty((len(values), len(channels)))
    for column, channel in enumerate(channels):
        others = np.delete(values, channel, axis=1)
        highest = others.max(1)
        found[:, column] = values[:, channel] - highest - np.log(np.exp(others - highest[:, None]).sum(1))
    return found


def own_outputs(
    survey: Survey, given: Mapping[str, int] | None, classes: tuple[str, ...], values: np.ndarray, positive: np.ndarray, own: str
) -> tuple[np.ndarray, np.ndarray]:
    """The output that stands for each class, and whether it is high (1) or low (-1) for it."""
    ones = np.ones(len(classes), np.int64)
    if given is not None:
        missing = [label for label in classes if label not in given]
        if missing:
            raise BadInput(f"outputs: no output for {', '.join(missing)}")
        return np.array([survey.units(OUTPUT, given[label])[0] for label in classes]), ones
    names = [str(name).lower() for name in survey.manifest["inputs"]["classes"] or ()]
    if all(names.count(label.lower()) == 1 for label in classes):
        return np.array([names.index(label.lower()) for label in classes]), ones
    highest = values.max(1, keepdims=True)
    likely = values - highest - np.log(np.exp(values - highest).sum(1, keepdims=True)) if own == "softmax" else values
    areas = np.stack([group_areas(likely, (~column).astype(np.int64), 2)[0][0] for column in positive.T])
    if values.shape[1] == 1:
        return np.zeros(len(classes), np.int64), np.where(areas[:, 0] < 0.5, -1, 1)
    return areas.argmax(1), ones


def linear_probe(
    means: np.ndarray, positive: np.ndarray, fit: np.ndarray, validation: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logistic regression for each class: weights (label c), offsets and strengths (label).

    Args:
        means: The layer's means over positions, (n c).
        positive: Whether an image is of the class, (n label).
        fit: Rows that the regression is fitted on.
        validation: Rows that choose its strength.
    """
    from sklearn.linear_model import LogisticRegression

    centre, spread = means[fit].mean(0), means[fit].std(0)
    spread = np.where(spread > 0, spread, np.inf)
    standard = (means - centre) / spread
    classes = positive.shape[1]
    weights, offsets, strengths = np.zeros((classes, means.shape[1])), np.zeros(classes), np.zeros(classes)
    for column in range(classes):
        best = -1.0
        for strength in STRENGTHS:
            model: Any = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # not quite converged is still a probe, and judged by its area like the others
                model.fit(standard[fit], positive[fit, column])
            area = Counter(standard[validation] @ model.coef_[0], positive[validation, column]).area()
            if area > best:
                best, strengths[column] = area, strength
                weights[column] = model.coef_[0] / spread
                offsets[column] = model.intercept_[0] - (weights[column] * centre).sum()
    return weights, offsets, strengths
