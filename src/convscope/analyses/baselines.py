"""What a detector of class maps is compared with: the network's own output, and a linear probe on the same layer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from convscope.analyses.labelled_scores import LabelledScores
from convscope.errors import BadInput
from convscope.names import OUTPUT
from convscope.statistics import group_areas
from convscope.survey.survey import Survey

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse penalties of the probe; the one with the largest area on the validation images is chosen."""


def margins(outputs: np.ndarray, units: np.ndarray, activation: str) -> np.ndarray:
    """Score of each class by the network's output, (n label). Softmax: log odds of the class against all others; sigmoid: the output."""
    values = outputs.astype(np.float64)
    if activation == "sigmoid":
        return values[:, units]
    found = np.empty((len(values), len(units)))
    for column, unit in enumerate(units):
        others = np.delete(values, unit, axis=1)
        highest = others.max(1)
        found[:, column] = values[:, unit] - highest - np.log(np.exp(others - highest[:, None]).sum(1))
    return found


def find_outputs(
    survey: Survey, given: Mapping[str, int] | None, classes: tuple[str, ...], values: np.ndarray, positive: np.ndarray, activation: str
) -> tuple[np.ndarray, np.ndarray]:
    """The unit of "output" for each class, (label), and 1, or -1 if that unit is low for the class, (label).

    By `given`, else by name, else the unit with the largest area under the ROC curve.

    Raises:
        BadInput: `given` has no output for a class.
        UnitNotFound: `given` has an unknown output.
    """
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
    likely = values - highest - np.log(np.exp(values - highest).sum(1, keepdims=True)) if activation == "softmax" else values
    areas = np.stack([group_areas(likely, (~column).astype(np.int64), 2)[0][0] for column in positive.T])
    if values.shape[1] == 1:
        return np.zeros(len(classes), np.int64), np.where(areas[:, 0] < 0.5, -1, 1)
    return areas.argmax(1), ones


def linear_probe(
    means: np.ndarray, positive: np.ndarray, fit: np.ndarray, validation: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A linear probe: a logistic regression for each class. Returns weights (label c), offsets and inverse penalties (label).

    Args:
        means: Mean activations of the layer, (n c).
        positive: Whether each image is of each class, (n label).
        fit: Rows to fit on.
        validation: Rows to choose the penalty on.
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
                warnings.simplefilter("ignore")  # a fit that has not converged is compared by its area, too
                model.fit(standard[fit], positive[fit, column])
            area = LabelledScores(standard[validation] @ model.coef_[0], positive[validation, column]).area()
            if area > best:
                best, strengths[column] = area, strength
                weights[column] = model.coef_[0] / spread
                offsets[column] = model.intercept_[0] - (weights[column] * centre).sum()
    return weights, offsets, strengths
