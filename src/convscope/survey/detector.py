"""Alarms by the maps of a class, with thresholds chosen on images set aside, beside the network's own output and a linear probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convscope.errors import BadInput
from convscope.result import Result, axes
from convscope.seeding import derive_seed
from convscope.survey.activation_sums import MODES, same_weights, weights_of
from convscope.survey.baselines import OWN, linear_probe, margins, own_outputs
from convscope.survey.class_maps import PER_CLASS, PER_IMAGE, ClassMaps, elect, maps_of, tally
from convscope.survey.detector_evaluation import DetectorEvaluation, evaluation
from convscope.survey.provenance import reader
from convscope.survey.survey import OUTPUT, Survey
from convscope.survey.thresholds import Counter, Rule

METHODS = ("maps", "output", "probe")


@dataclass(frozen=True, eq=False)
class Detector(Result):
    """Thresholds of three methods for each class: its maps, the network's own output, and a linear probe on the same layer.

    Attributes:
        thresholds: A score above it is an alarm, (method label).
        intervals: Where the threshold lies in bootstrap draws of the validation images, (method label end).
        auc: Area under the ROC curve on the validation images, (method label).
        auc_intervals: The same for areas, (method label end).
        scores: Of the validation images, (method n label).
        truth: Their labels as places in `truths`, (n).
        weights: Scores of maps and probe as a linear function of the layer's means over positions, (linear label c).
        offsets: What is added to that, (linear label).
        channels: The output that stands for each class, (label).
        signs: 1, or -1 where the class is what the only output is low for, (label).
        strengths: The probe's inverse penalty, (label).
        layer: The layer's name.
        classes: The classes that alarms are for.
        truths: All labels of the survey.
        names: Names of the validation images.
        maps: {label: channels}.
        mode: How maps are added up: "standardized", "mean" or "sum".
        rule: How thresholds were chosen: "fpr", "youden" or "fbeta".
        fpr, beta: The rule's numbers.
        own: What the outputs are: "softmax" or "sigmoid".
        confidence, draws, seed: Of all bootstrap intervals.
        fitted: Number of images that maps' statistics and probe come from.
    """

    thresholds: np.ndarray = axes("method label", unit="score")
    intervals: np.ndarray = axes("method label end")
    auc: np.ndarray = axes("method label")
    auc_intervals: np.ndarray = axes("method label end")
    scores: np.ndarray = axes("method n label", unit="score")
    truth: np.ndarray = axes("n")
    weights: np.ndarray = axes("linear label c")
    offsets: np.ndarray = axes("linear label")
    channels: np.ndarray = axes("label")
    signs: np.ndarray = axes("label")
    strengths: np.ndarray = axes("label")
    layer: str = ""
    classes: tuple[str, ...] = ()
    truths: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    maps: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    mode: str = "standardized"
    rule: str = "fpr"
    fpr: float = 0.05
    beta: float = 1.0
    own: str = "softmax"
    confidence: float = 0.95
    draws: int = 1000
    seed: int = 0
    fitted: int = 0

    def score(self, survey: Survey) -> np.ndarray:
        """Scores of every image of a survey by each method, (method n label).

        Raises:
            BadInput: The survey is by another network, or of summaries only.
        """
        same_weights(survey, self.manifest["network"]["weights_hash"], "the detector")
        maps, probe = (survey.mean(self.layer) @ weights.T + offset for weights, offset in zip(self.weights, self.offsets, strict=True))
        return np.stack([maps, margins(survey.maximum(OUTPUT), self.channels, self.own) * self.signs, probe])

    def decide(self, survey: Survey) -> np.ndarray:
        """The network's own decision on every image as a place in `classes`, -1 for none of them, (n).

        Softmax: the largest output. Sigmoid: the largest of those outputs that are above zero.
        """
        outputs = survey.maximum(OUTPUT)
        mine = outputs[:, self.channels] * self.signs
        decided = mine.argmax(1)
        taken = mine.max(1) == outputs.max(1) if self.own == "softmax" else mine.max(1) > 0
        return np.where(taken, decided, -1)

    def evaluate(self, *surveys: Survey) -> DetectorEvaluation:
        """How the alarms do on other surveys by the same network, before and after a change of domain, say.

        Args:
            surveys: Surveys with labels; labels without maps of their own are backgrounds.

        Returns:
            Confusion matrices, recall, ROC and precision-recall curves for each survey and method.

        Raises:
            BadInput: No survey, one without labels, or one by another network.
        """
        return evaluation(self, surveys)

    def summary(self) -> str:
        """Threshold and area of each class by each method."""
        lines: list[str] = []
        for column, label in enumerate(self.classes):
            lines.append(f"{label}: {len(self.maps[label])} maps, output {self.channels[column]}")
            for row, method in enumerate(METHODS):
                low, high = self.intervals[row, column]
                area = (
                    f"AUC {self.auc[row, column]:.3f} [{self.auc_intervals[row, column, 0]:.3f}, {self.auc_intervals[row, column, 1]:.3f}]"
                )
                lines.append(f"  {method:6} alarm above {self.thresholds[row, column]:.3g} [{low:.3g}, {high:.3g}], validation {area}")
        best = METHODS[int(np.argmax(self.auc.mean(1)))]
        count = f"{self.fitted} images to fit, {len(self.truth)} to choose thresholds"
        return "\n".join([*lines, f"{count}; the best mean area has: {best}"])


@reader
def detector(
    survey: Survey,
    layer: str,
    maps: ClassMaps | Mapping[str, Sequence[int]] | None = None,
    *,
    classes: Sequence[str] | None = None,
    rule: str = "fpr",
    fpr: float = 0.05,
    beta: float = 1.0,
    mode: str = "standardized",
    own: str = "softmax",
    outputs: Mapping[str, int] | None = None,
    split: str | None = None,
    share: float = 0.5,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Detector:
    """Alarms by the maps of a class, beside the network's own output and a linear probe.

    A class's alarm sounds where S_c(x) > t_c. Part of the survey's images fits (statistics of maps, the probe's weights, and the maps
    themselves if none are given); the other part, which fitting has not seen, chooses every threshold, by the same rule for all methods.

    Args:
        survey: The survey; its images need labels.
        layer: Layer name.
        maps: Class maps, or {label: channels}; None: chosen on the fitting part by the article's numbers. Maps that were chosen on all
            images make the validation look better than it is.
        classes: Labels that alarms are for; all others are background, whose images only count as false alarms. None: the labels of
            `maps`, or all labels.
        rule: "fpr" (lowest threshold with at most that false positive rate), "youden" or "fbeta".
        fpr: Target false positive rate of the rule "fpr".
        beta: How much more recall weighs than precision in the rule "fbeta".
        mode: How maps are added up: "standardized", "mean" or "sum", see :func:`~convscope.activation_sums`.
        own: What the network's outputs are before their last function: "softmax" (one class each image) or "sigmoid" (several).
        outputs: {label: output}; None: by name, else the output with the largest area on the fitting part.
        split: Images with this split choose the thresholds; None: a share of each label's images, drawn by `seed`.
        share: That share.
        confidence: Of bootstrap intervals.
        draws: How many bootstrap draws.
        seed: Seed of split and draws.

    Returns:
        The detector; `.evaluate(*surveys)` says how it does elsewhere.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or channel.
        BadInput: No labels, too few images of a class, a class without maps, an unknown label, split, rule, mode or output; summaries only.

    Source:
        Shin 2020 (S2, sections 4.4 and 5.6), without a rule for thresholds and without a comparison; both are here. The probe: logistic
        regression on standardized means (Alain and Bengio 2016, arXiv 1610.01644), L2, strength by area on the validation part.

    Example:
        >>> import convscope as cs
        >>> alarms = cs.detector(cs.read_survey("surveys/train"), "features.12", rule="youden")  # doctest: +SKIP
        >>> alarms.evaluate(cs.read_survey("surveys/val")).recall.shape  # doctest: +SKIP
        (1, 4, 2)
    """
    chooser = Rule(rule, fpr, beta)
    for name, value, allowed in (("mode", mode, MODES), ("own", own, OWN)):
        if value not in allowed:
            raise BadInput(f"{name} must be {' or '.join(allowed)}, got {value!r}")
    if not 0 < share < 1 or not 0 < confidence < 1 or draws < 1:
        raise BadInput(f"share and confidence must be in (0, 1) and draws at least 1, got {share}, {confidence} and {draws}")
    fit, validation = _parts(survey, split, share, seed)
    means, values, truth = survey.mean(layer).astype(np.float64), survey.maximum(OUTPUT), survey.truth
    chosen = _maps(survey, layer, maps, classes, means[fit], truth[fit])
    positive = truth[:, None] == [survey.labels.index(label) for label in chosen]
    own = own if values.shape[1] > 1 else "sigmoid"
    channels, signs = own_outputs(survey, outputs, tuple(chosen), values[fit], positive[fit], own)
    sums, offset = weights_of(chosen, means[fit], mode)
    probe, bias, strengths = linear_probe(means, positive, fit, validation)
    by_maps, by_probe = (means[validation] @ weights.T + each for weights, each in ((sums, offset), (probe, bias)))
    scores = np.stack([by_maps, margins(values[validation], channels, own) * signs, by_probe])
    return Detector(
        **_thresholds(scores, positive[validation], tuple(chosen), chooser, (confidence, draws, seed)),
        scores=scores,
        truth=truth[validation],
        weights=np.stack([sums, probe]),
        offsets=np.stack([offset, bias]),
        channels=channels,
        signs=signs,
        strengths=strengths,
        layer=layer,
        classes=tuple(chosen),
        truths=survey.labels,
        names=tuple(survey.names[row] for row in validation),
        maps=chosen,
        mode=mode,
        rule=rule,
        fpr=fpr,
        beta=beta,
        own=own,
        confidence=confidence,
        draws=draws,
        seed=seed,
        fitted=len(fit),
    )


def _thresholds(
    scores: np.ndarray, positive: np.ndarray, classes: tuple[str, ...], rule: Rule, bootstrap: tuple[float, int, int]
) -> dict[str, Any]:
    """Thresholds and areas with their intervals, for scores (method n label)."""
    confidence, draws, seed = bootstrap
    shape = scores.shape[::2]
    found = {"thresholds": np.zeros(shape), "intervals": np.zeros((*shape, 2))}
    found |= {"auc": np.zeros(shape), "auc_intervals": np.zeros((*shape, 2))}
    for at in np.ndindex(*shape):
        counter = Counter(scores[at[0], :, at[1]], positive[:, at[1]])
        stream = derive_seed(seed, "detector", METHODS[at[0]], classes[at[1]])
        found["thresholds"][at] = counter.threshold(rule)
        found["intervals"][at] = counter.interval(rule, confidence, draws, stream)
        found["auc"][at] = counter.area()
        found["auc_intervals"][at] = counter.area_interval(confidence, draws, stream)
    return found


def _maps(
    survey: Survey,
    layer: str,
    given: ClassMaps | Mapping[str, Sequence[int]] | None,
    classes: Sequence[str] | None,
    means: np.ndarray,
    truth: np.ndarray,
) -> dict[str, tuple[int, ...]]:
    """The maps of each class: those given, or what the fitting part votes for; a background has none and votes for none."""
    names = survey.chosen_labels(classes)
    if given is None:
        votes, mean, _ = tally(means, truth, len(survey.labels), PER_IMAGE)
        rows = [survey.labels.index(label) for label in names]
        chosen = dict(zip(names, elect(votes[rows], mean[rows], PER_CLASS)[0], strict=True))
    else:
        chosen = maps_of(given, survey, layer)
        if classes is not None:
            if missing := [label for label in names if label not in chosen]:
                raise BadInput(f"maps have none for class {missing[0]!r}; they are for {', '.join(chosen)}")
            chosen = {label: chosen[label] for label in names}
    for label, channels in chosen.items():
        survey.known_label(label)
        if not channels:
            raise BadInput(f"class {label!r} has no map of its own: all of its maps are other classes', too; try a smaller per_class")
    return chosen


def _parts(survey: Survey, split: str | None, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of labelled images that fit, and of those that choose; each with every label, at least twice."""
    truth = survey.truth
    if len(survey.labels) < 2:
        raise BadInput(f"survey {survey.path}: a detector takes images of at least two labels, found {', '.join(survey.labels) or 'none'}")
    if split is not None:
        chosen = survey.in_split(split) & (truth >= 0)
    else:
        chosen = np.zeros(len(truth), bool)
        for place, label in enumerate(survey.labels):
            own = np.flatnonzero(truth == place)
            generator = np.random.default_rng(derive_seed(seed, "detector split", label))
            chosen[generator.permutation(own)[: round(share * len(own))]] = True
    fit, validation = np.flatnonzero(~chosen & (truth >= 0)), np.flatnonzero(chosen)
    for rows, what in ((fit, "to fit"), (validation, "to choose thresholds")):
        counts = np.bincount(truth[rows], minlength=len(survey.labels))
        if counts.min() < 2:
            place = int(counts.argmin())
            raise BadInput(f"a detector takes at least 2 images of each label {what}; {survey.labels[place]!r} has {counts[place]}")
    return fit, validation
