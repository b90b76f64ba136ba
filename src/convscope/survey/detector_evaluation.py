"""How a detector does on surveys that it has not seen: confusion, recall, ROC and precision-recall, beside the honest baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from convscope.errors import BadInput
from convscope.result import Result, axes
from convscope.seeding import derive_seed
from convscope.survey.activation_sums import survey_names
from convscope.survey.provenance import manifest
from convscope.survey.survey import Survey
from convscope.survey.thresholds import Counter

if TYPE_CHECKING:
    from convscope.survey.detector import Detector

DECISIONS = ("maps", "output", "probe", "network")
"""Ways to come to a decision: the three methods by their thresholds, and the network by its own rule, without a threshold of ours."""
POINTS = 400
Curves: TypeAlias = tuple[tuple[tuple[np.ndarray, ...], ...], ...]
"""[survey][method][label]: (2 points), empty where a survey has no image of the class, or nothing else."""


@dataclass(frozen=True, eq=False)
class DetectorEvaluation(Result):
    """What alarms were worth on each survey. What has no images to be measured on is NaN.

    Attributes:
        confusion: Images by their label and what they were taken for, (survey decision truth predicted); the last column is "none". By
            thresholds: of the classes that alarm, the one furthest above its threshold, in standard deviations of the validation scores.
        alarms: Images by their label and the classes that alarm, (survey decision truth label); an image may alarm for several.
        counts: Images of each label, (survey truth).
        recall: Share of a class's images that alarm for it, (survey decision label).
        precision: Share of a class's alarms that are its images, (survey decision label).
        fpr: Share of other images that alarm for it, (survey decision label).
        recall_intervals: Bootstrap intervals of recall, (survey method label end).
        auc: Area under the ROC curve, (survey method label).
        auc_intervals: Bootstrap intervals of it, (survey method label end).
        ap: Average precision, (survey method label).
        roc: False and true positive rates, [survey][method][label] of (2 points).
        pr: Recall and precision, likewise.
        layer: The layer's name.
        classes: The classes that alarms are for.
        truths: All labels.
        surveys: The surveys' names.
        confidence: Of the intervals.
    """

    confusion: np.ndarray = axes("survey decision truth predicted")
    alarms: np.ndarray = axes("survey decision truth label")
    counts: np.ndarray = axes("survey truth")
    recall: np.ndarray = axes("survey decision label")
    precision: np.ndarray = axes("survey decision label")
    fpr: np.ndarray = axes("survey decision label")
    recall_intervals: np.ndarray = axes("survey method label end")
    auc: np.ndarray = axes("survey method label")
    auc_intervals: np.ndarray = axes("survey method label end")
    ap: np.ndarray = axes("survey method label")
    roc: Curves = ()
    pr: Curves = ()
    layer: str = ""
    classes: tuple[str, ...] = ()
    truths: tuple[str, ...] = ()
    surveys: tuple[str, ...] = ()
    confidence: float = 0.95

    def summary(self) -> str:
        """Recall, false positive rate and area of each class, survey and way to decide."""
        lines: list[str] = []
        for place, survey in enumerate(self.surveys):
            for column, label in enumerate(self.classes):
                lines.append(f"{survey}, {label}:")
                for row, name in enumerate(DECISIONS):
                    at = place, row, column
                    rates = f"recall {percent(self.recall[at])}, false alarms {percent(self.fpr[at])}"
                    area = f", AUC {self.auc[at]:.3f}" if name != "network" else " (its own decision)"
                    lines.append(f"  {name:8}{rates}{area}")
        return "\n".join(lines)


def percent(share: float) -> str:
    """A share as a percentage, "n/a" for NaN."""
    return "n/a" if np.isnan(share) else f"{100 * share:.1f} %"


def evaluation(detector: Detector, surveys: Sequence[Survey]) -> DetectorEvaluation:
    """See :meth:`~convscope.survey.detector.Detector.evaluate`."""
    if not surveys:
        raise BadInput("evaluate: expected at least one survey")
    for survey in surveys:
        if not isinstance(survey, Survey):
            raise BadInput(f"expected a survey, as read_survey(folder) gives it, got {type(survey).__name__}")
        if not survey.labels:
            raise BadInput(f"survey {survey.path}: its images have no labels to hold alarms against")
    truths = tuple(dict.fromkeys([*detector.classes, *sorted({label for survey in surveys for label in survey.labels})]))
    parts = [_on(detector, survey, truths) for survey in surveys]
    arrays = {key: np.stack([part.arrays[key] for part in parts]) for key in parts[0].arrays}
    given = {"surveys": [survey.path for survey in surveys], "detector": dict(detector.manifest.get("parameters", {}))}
    return DetectorEvaluation(
        **arrays,  # type: ignore[arg-type]
        roc=tuple(part.roc for part in parts),
        pr=tuple(part.pr for part in parts),
        layer=detector.layer,
        classes=detector.classes,
        truths=truths,
        surveys=survey_names(surveys),
        confidence=detector.confidence,
        manifest=manifest(surveys[0], "detector_evaluation", given),
    )


@dataclass(frozen=True, eq=False)
class _Part:
    arrays: dict[str, np.ndarray]
    roc: tuple[tuple[np.ndarray, ...], ...]
    pr: tuple[tuple[np.ndarray, ...], ...]


def _on(detector: Detector, survey: Survey, truths: tuple[str, ...]) -> _Part:
    """Everything about one survey."""
    own = survey.truth >= 0
    places = np.array([truths.index(label) for label in survey.labels])
    truth = places[survey.truth[own]]
    scores, decided = detector.score(survey)[:, own], detector.decide(survey)[own]
    classes = len(detector.classes)
    above = scores > detector.thresholds[:, None]
    spread = detector.scores.std(1)[:, None]
    lead = np.where(above, (scores - detector.thresholds[:, None]) / np.where(spread > 0, spread, 1), -np.inf)
    taken = np.concatenate([np.where(above.any(2), lead.argmax(2), classes), np.where(decided < 0, classes, decided)[None]])
    alarms = np.concatenate([above, (decided[:, None] == np.arange(classes))[None]])
    confusion = np.zeros((len(DECISIONS), len(truths), classes + 1), np.int64)
    by_truth = np.zeros((len(DECISIONS), len(truths), classes), np.int64)
    for decision in range(len(DECISIONS)):
        np.add.at(confusion[decision], (truth, taken[decision]), 1)
        np.add.at(by_truth[decision], truth, alarms[decision])
    counts = np.bincount(truth, minlength=len(truths))
    hits = np.stack([by_truth[:, column, column] for column in range(classes)], 1)  # the classes are the first of the truths
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
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=np.broadcast_to(whole, part.shape) > 0)


def _curves(detector: Detector, scores: np.ndarray, truth: np.ndarray, arrays: dict[str, np.ndarray]) -> _Part:
    """Areas, their intervals and curves, by scikit-learn."""
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
        counter = Counter(each, positive)
        seed = derive_seed(detector.seed, "detector evaluation", DECISIONS[method], detector.classes[column])
        intervals[method, column] = counter.area_interval(detector.confidence, detector.draws, seed)
        threshold = float(detector.thresholds[method, column])
        recalls[method, column] = counter.rate_interval(threshold, detector.confidence, detector.draws, seed)
    arrays |= {"auc": auc, "ap": ap, "auc_intervals": intervals, "recall_intervals": recalls}
    return _Part(arrays, tuple(map(tuple, roc)), tuple(map(tuple, pr)))


def _thinned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(2 points) with both ends, no more points than a figure can show."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(np.int64))
    return np.stack([x[kept], y[kept]])
