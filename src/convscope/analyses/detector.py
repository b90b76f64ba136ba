"""Detector: for each class, whether an image raises an alarm: the summed activation of the class's units (its class map) is above a
threshold chosen on a validation set. Compared with two baselines: the network's output and a linear probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from convscope.analyses.activation_sums import weights_of
from convscope.analyses.baselines import find_outputs, linear_probe, margins
from convscope.analyses.class_maps import PER_CLASS, PER_IMAGE, ClassMaps, choose_units, count_votes, maps_of
from convscope.analyses.labelled_scores import LabelledScores, Rule
from convscope.errors import BadInput
from convscope.names import OUTPUT
from convscope.results.class_maps import of_classes
from convscope.results.detector import METHODS, Detector
from convscope.results.provenance import technique
from convscope.seeding import derive_seed
from convscope.survey.survey import Survey


@technique
def detector(
    survey: Survey,
    layer: str,
    maps: ClassMaps | Mapping[str, Sequence[int]] | None = None,
    *,
    classes: Sequence[str] | None = None,
    rule: Literal["fpr", "youden", "fbeta"] = "fpr",
    fpr: float = 0.05,
    beta: float = 1.0,
    mode: Literal["mean", "sum", "standardized"] = "standardized",
    activation: Literal["softmax", "sigmoid"] = "softmax",
    outputs: Mapping[str, int] | None = None,
    split: str | None = None,
    share: float = 0.5,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Detector:
    """Alarms by class maps, with thresholds from a validation set; the network's own output and a linear probe for comparison.

    There is an alarm for class c if S_c(x) > t_c, see :func:`~convscope.activation_sums`. The survey's images are divided: one part fits
    the statistics of maps, the probe's weights and, if none are given, the maps; the validation part chooses all thresholds, by the same
    rule for all methods.

    Args:
        survey: The survey; its images need labels.
        layer: Layer name.
        maps: Class maps, or {label: units}; None: chosen on the fitting part with the article's numbers. Maps that were chosen on all
            images make the validation part look too good.
        classes: The labels that alarms are for; all others are background, whose images only count as false alarms. None: the labels of
            `maps`, or all labels.
        rule: "fpr" (lowest threshold with at most that false positive rate), "youden" (largest TPR - FPR) or "fbeta" (largest F-beta).
        fpr: Target false positive rate of the rule "fpr".
        beta: Weight of recall relative to precision in the rule "fbeta".
        mode: How activations are added up: "standardized", "mean" or "sum", see :func:`~convscope.activation_sums`.
        activation: The activation function that belongs after the network's output: "softmax" (one class per image) or "sigmoid" (several).
        outputs: {label: unit of "output"}; None: by name, else the unit with the largest area under the ROC curve on the fitting part.
        split: The split that is the validation part; None: a random share of each label's images.
        share: That share.
        confidence: Confidence of the bootstrap intervals.
        draws: Number of bootstrap draws.
        seed: Seed of the random share and the bootstrap.

    Returns:
        The detector; evaluate it on other surveys with :func:`~convscope.detector_evaluation`.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: Fewer than two labels, too few images of a label, a class without maps, an unknown label, split or output, a number out
            of range, or a survey without per-image values.

    Source:
        Shin 2020 (S2, sections 4.4 and 5.6); the rule for thresholds and the comparison are added. Probe: logistic regression on
        standardized means (Alain and Bengio 2016, arXiv 1610.01644), L2 penalty chosen by the area on the validation part.

    Example:
        >>> import convscope as cs
        >>> alarms = cs.detector(cs.read_survey("surveys/train"), "features.12", rule="youden")  # doctest: +SKIP
        >>> cs.detector_evaluation(alarms, cs.read_survey("surveys/val")).recall.shape  # doctest: +SKIP
        (1, 4, 2)

    Command line:
        convscope detector survey features.27 --classes chains,dots
        convscope detector survey features.27 --classes chains,dots --rule youden --maps out/class-maps/survey-features.27
    """
    chooser = Rule(rule, fpr, beta)
    if not 0 < share < 1 or not 0 < confidence < 1 or draws < 1:
        raise BadInput(f"share and confidence must be in (0, 1) and draws at least 1, got {share}, {confidence} and {draws}")
    fit, validation = _parts(survey, split, share, seed)
    means, values, truth = survey.mean(layer).astype(np.float64), survey.maximum(OUTPUT), survey.truth
    chosen = _maps(survey, layer, maps, classes, means[fit], truth[fit])
    positive = truth[:, None] == [survey.labels.index(label) for label in chosen]
    activation = activation if values.shape[1] > 1 else "sigmoid"
    units, signs = find_outputs(survey, outputs, tuple(chosen), values[fit], positive[fit], activation)
    sums, offset = weights_of(chosen, means[fit], mode)
    probe, bias, strengths = linear_probe(means, positive, fit, validation)
    by_maps, by_probe = (means[validation] @ weights.T + each for weights, each in ((sums, offset), (probe, bias)))
    scores = np.stack([by_maps, margins(values[validation], units, activation) * signs, by_probe])
    return Detector(
        **_thresholds(scores, positive[validation], tuple(chosen), chooser, (confidence, draws, seed)),
        scores=scores,
        truth=truth[validation],
        weights=np.stack([sums, probe]),
        offsets=np.stack([offset, bias]),
        outputs=units,
        signs=signs,
        strengths=strengths,
        layer=layer,
        classes=tuple(chosen),
        labels=survey.labels,
        names=tuple(survey.names[row] for row in validation),
        maps=chosen,
        mode=mode,
        rule=rule,
        fpr=fpr,
        beta=beta,
        activation=activation,
        confidence=confidence,
        draws=draws,
        seed=seed,
        fitted=len(fit),
    )


def _thresholds(
    scores: np.ndarray, positive: np.ndarray, classes: tuple[str, ...], rule: Rule, bootstrap: tuple[float, int, int]
) -> dict[str, Any]:
    """Thresholds and areas with their bootstrap intervals, from scores (method n label)."""
    confidence, draws, seed = bootstrap
    shape = scores.shape[::2]
    found = {"thresholds": np.zeros(shape), "intervals": np.zeros((*shape, 2))}
    found |= {"auc": np.zeros(shape), "auc_intervals": np.zeros((*shape, 2))}
    for at in np.ndindex(*shape):
        labelled = LabelledScores(scores[at[0], :, at[1]], positive[:, at[1]])
        stream = derive_seed(seed, "detector", METHODS[at[0]], classes[at[1]])
        found["thresholds"][at] = labelled.threshold(rule)
        found["intervals"][at] = labelled.interval(rule, confidence, draws, stream)
        found["auc"][at] = labelled.area()
        found["auc_intervals"][at] = labelled.area_interval(confidence, draws, stream)
    return found


def _maps(
    survey: Survey,
    layer: str,
    given: ClassMaps | Mapping[str, Sequence[int]] | None,
    classes: Sequence[str] | None,
    means: np.ndarray,
    truth: np.ndarray,
) -> dict[str, tuple[int, ...]]:
    """{label: units}: the given maps, or those that the fitting part votes for.

    Raises:
        BadInput: An unknown label, or a class without units.
        UnitNotFound: An unknown unit.
    """
    names = survey.chosen_labels(classes)
    if given is None:
        votes, mean, _ = count_votes(means, truth, len(survey.labels), PER_IMAGE)
        rows = [survey.labels.index(label) for label in names]
        chosen = dict(zip(names, choose_units(votes[rows], mean[rows], PER_CLASS)[0], strict=True))
    else:
        chosen = of_classes(maps_of(given, survey, layer), None if classes is None else names)
    for label, units in chosen.items():
        survey.known_label(label)
        if not units:
            raise BadInput(f"class {label!r} has no map of its own: other classes list all of its maps, too; try a smaller per_class")
    return chosen


def _parts(survey: Survey, split: str | None, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the fitting part and of the validation part; each has at least two images of every label.

    Raises:
        BadInput: Too few labels or images, or an unknown split.
    """
    truth = survey.truth
    if len(survey.labels) < 2:
        raise BadInput(f"survey {survey.path}: a detector needs images of at least two labels, found {', '.join(survey.labels) or 'none'}")
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
            raise BadInput(f"a detector needs at least 2 images of each label {what}; {survey.labels[place]!r} has {counts[place]}")
    return fit, validation
