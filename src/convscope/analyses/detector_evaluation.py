"""Evaluates a detector and its baselines on other surveys: confusion, recall, ROC and precision-recall, with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.analyses.activation_sums import same_weights, survey_names
from convscope.analyses.baselines import margins
from convscope.analyses.labelled_scores import LabelledScores
from convscope.errors import BadInput
from convscope.names import OUTPUT
from convscope.results.detector import Detector
from convscope.results.detector_evaluation import DECISIONS, DetectorEvaluation
from convscope.results.provenance import technique
from convscope.seeding import derive_seed
from convscope.survey.survey import Survey

POINTS = 400
"""Largest number of points of a curve."""


@technique
def detector_evaluation(detector: Detector, *surveys: Survey) -> DetectorEvaluation:
    """Evaluates a detector on other surveys by the same network: before and after a change of domain, say.

    Args:
        detector: The detector.
        surveys: Surveys with labels; labels that the detector has no maps for are background.

    Returns:
        Confusion matrices, recall, ROC and precision-recall curves for each survey and method.

    Raises:
        BadInput: No survey, one without labels, or one by another network.

    Source:
        Shin 2020 (S2, section 6), with the network's own decision and a linear probe for comparison.

    Command line:
        convscope detector-evaluation out/detector/survey-features.27 survey drawings
    """
    if not surveys:
        raise BadInput("detector_evaluation: expected at least one survey")
    for survey in surveys:
        if getattr(survey, "subject", None) != Survey.subject:
            raise BadInput(f"expected a survey, as read_survey(folder) gives it, got {type(survey).__name__}")
        if not survey.labels:
            raise BadInput(f"survey {survey.path}: its images have no labels to compare alarms with")
    labels = tuple(dict.fromkeys([*detector.classes, *sorted({label for survey in surveys for label in survey.labels})]))
    parts = [_on(detector, survey, labels) for survey in surveys]
    arrays: dict[str, Any] = {key: np.stack([part.arrays[key] for part in parts]) for key in parts[0].arrays}
    return DetectorEvaluation(
        **arrays,
        roc=tuple(part.roc for part in parts),
        pr=tuple(part.pr for part in parts),
        layer=detector.layer,
        classes=detector.classes,
        labels=labels,
        surveys=survey_names(surveys),
        confidence=detector.confidence,
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """Fields of a :class:`DetectorEvaluation` for one survey."""

    arrays: dict[str, np.ndarray]
    roc: tuple[tuple[np.ndarray, ...], ...]
    pr: tuple[tuple[np.ndarray, ...], ...]


def _on(detector: Detector, survey: Survey, labels: tuple[str, ...]) -> _Part:
    """The evaluation on one survey."""
    own = survey.truth >= 0
    places = np.array([labels.index(label) for label in survey.labels])
    truth = places[survey.truth[own]]
    scores, decided = detector_scores(detector, survey)[:, own], own_decisions(detector, survey)[own]
    classes = len(detector.classes)
    above = scores > detector.thresholds[:, None]
    spread = detector.scores.std(1)[:, None]
    lead = np.where(above, (scores - detector.thresholds[:, None]) / np.where(spread > 0, spread, 1), -np.inf)
    taken = np.concatenate([np.where(above.any(2), lead.argmax(2), classes), np.where(decided < 0, classes, decided)[None]])
    alarms = np.concatenate([above, (decided[:, None] == np.arange(classes))[None]])
    confusion = np.zeros((len(DECISIONS), len(labels), classes + 1), np.int64)
    by_truth = np.zeros((len(DECISIONS), len(labels), classes), np.int64)
    for decision in range(len(DECISIONS)):
        np.add.at(confusion[decision], (truth, taken[decision]), 1)
        np.add.at(by_truth[decision], truth, alarms[decision])
    counts = np.bincount(truth, minlength=len(labels))
    hits = np.stack([by_truth[:, column, column] for column in range(classes)], 1)  # the first labels are the classes
    sounded = by_truth.sum(1)
    arrays = {
        "confusion": confusion,
        "alarms": by_truth,
        "counts": counts,
        "recall": _share(hits, counts[:classes]),
        "precision": _share(hits, sounded),
        "fpr": _share(sounded - hits, counts.sum() - counts[:classes]),
    }
    return _curves(detector, scores, truth, arrays)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=np.broadcast_to(whole, part.shape) > 0)


def _curves(detector: Detector, scores: np.ndarray, truth: np.ndarray, arrays: dict[str, np.ndarray]) -> _Part:
    """Adds curves, areas and their bootstrap intervals."""
    from sklearn import metrics

    methods, _, classes = scores.shape
    auc, ap = (np.full((methods, classes), np.nan) for _ in range(2))
    intervals, recalls = (np.full((methods, classes, 2), np.nan) for _ in range(2))
    nothing = np.zeros((2, 0))
    roc, pr = ([[nothing] * classes for _ in range(methods)] for _ in range(2))
    for method, column in np.ndindex(methods, classes):
        positive, each = truth == column, scores[method, :, column]
        if not positive.any() or positive.all():
            continue
        auc[method, column], ap[method, column] = metrics.roc_auc_score(positive, each), metrics.average_precision_score(positive, each)
        low, high, _ = metrics.roc_curve(positive, each)
        precision, recall, _ = metrics.precision_recall_curve(positive, each)
        roc[method][column], pr[method][column] = _thinned(low, high), _thinned(recall, precision)
        labelled = LabelledScores(each, positive)
        seed = derive_seed(detector.seed, "detector evaluation", DECISIONS[method], detector.classes[column])
        intervals[method, column] = labelled.area_interval(detector.confidence, detector.draws, seed)
        threshold = float(detector.thresholds[method, column])
        recalls[method, column] = labelled.rate_interval(threshold, detector.confidence, detector.draws, seed)
    arrays |= {"auc": auc, "ap": ap, "auc_intervals": intervals, "recall_intervals": recalls}
    return _Part(arrays, tuple(map(tuple, roc)), tuple(map(tuple, pr)))


def _thinned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A curve as (2 points), thinned to at most `POINTS` points with both ends."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(np.int64))
    return np.stack([x[kept], y[kept]])


def detector_scores(detector: Detector, survey: Survey) -> np.ndarray:
    """Scores of every image of a survey by each method, (method n label).

    Raises:
        BadInput: The survey is by another network, or has no per-image values.
    """
    same_weights(survey, detector.manifest["network"]["weights_hash"], "the detector")
    return scores_of(detector, survey.mean(detector.layer), survey.maximum(OUTPUT))


def scores_of(detector: Detector, means: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Scores by each method, (method n label), of images with these means over the layer's positions (n c) and outputs (n c)."""
    maps, probe = (means @ weights.T + offset for weights, offset in zip(detector.weights, detector.offsets, strict=True))
    return np.stack([maps, margins(outputs, detector.outputs, detector.activation) * detector.signs, probe])


def own_decisions(detector: Detector, survey: Survey) -> np.ndarray:
    """The network's own decision on every image, (n): an index into `detector.classes`, -1 for none of them.

    Softmax: the largest output. Sigmoid: the largest output above zero.
    """
    outputs = survey.maximum(OUTPUT)
    mine = outputs[:, detector.outputs] * detector.signs
    decided = mine.argmax(1)
    taken = mine.max(1) == outputs.max(1) if detector.activation == "softmax" else mine.max(1) > 0
    return np.where(taken, decided, -1)
