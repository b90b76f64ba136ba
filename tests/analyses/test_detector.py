"""Detectors: thresholds by their rules against plain search, fitting and validation images kept apart, the probe against scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics

import convscope as cs
import promises
from alarms import MAPS, activations, survey_of
from convscope.analyses.baselines import margins
from convscope.analyses.detector_evaluation import detector_scores, own_decisions
from convscope.analyses.labelled_scores import LabelledScores, Rule
from convscope.errors import BadInput, ConvscopeError, UnitNotFound
from convscope.render.panels import Curves
from made import drawn, made

PROMISE = promises.Promise(lambda s: cs.detector(s, "layer", promises.MAPS, draws=20), "result.provenance()['libraries']")


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    return survey_of(tmp_path_factory.mktemp("survey") / "train")


@pytest.fixture(scope="module")
def xray(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    return survey_of(tmp_path_factory.mktemp("survey") / "xray", 64, seed=3)


# --- thresholds


def counts_at(scores: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[int, int]:
    return int((scores[positive] > threshold).sum()), int((scores[~positive] > threshold).sum())


def slow(scores: np.ndarray, positive: np.ndarray, rule: Rule) -> float:
    """The best value of a rule over every threshold that makes a difference; for "fpr", minus the threshold's recall."""
    best = -math.inf
    for threshold in [-math.inf, *scores]:
        hits, alarms = counts_at(scores, positive, threshold)
        recall, false = hits / positive.sum(), alarms / (~positive).sum()
        if rule.name == "fpr":
            best = max(best, recall if false <= rule.fpr else -math.inf)
        elif rule.name == "youden":
            best = max(best, recall - false)
        else:
            missed = positive.sum() - hits
            best = max(best, (1 + rule.beta**2) * hits / ((1 + rule.beta**2) * hits + rule.beta**2 * missed + alarms))
    return best


@pytest.mark.parametrize(
    "rule", [Rule("fpr", 0.0), Rule("fpr", 0.1), Rule("fpr", 0.5), Rule("youden"), Rule("fbeta"), Rule("fbeta", beta=2)]
)
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_are_the_best_there_are(rule: Rule, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, positive = np.round(generator.normal(size=40), seed % 2), generator.random(40) < 0.4
    scores[positive] += 0.7
    threshold = LabelledScores(scores, positive).threshold(rule)
    hits, alarms = counts_at(scores, positive, threshold)
    recall, false = hits / positive.sum(), alarms / (~positive).sum()
    square = rule.beta**2
    reached = {
        "fpr": recall if false <= rule.fpr else -1,
        "youden": recall - false,
        "fbeta": (1 + square) * hits / (square * positive.sum() + hits + alarms),
    }[rule.name]
    assert reached == pytest.approx(slow(scores, positive, rule))
    if rule.name == "fpr":
        lower = max((score for score in scores if score < threshold), default=None)
        assert lower is None or counts_at(scores, positive, np.nextafter(lower, -np.inf))[1] / (~positive).sum() > rule.fpr


def test_thresholds_lie_midway_and_ties_alarm_least() -> None:
    scores, positive = np.array([0.0, 1.0, 3.0, 4.0]), np.array([False, False, True, True])
    assert LabelledScores(scores, positive).threshold(Rule("youden")) == 2
    assert LabelledScores(scores, positive).threshold(Rule("fpr", 0.0)) == 2
    assert LabelledScores(scores, positive).threshold(Rule("fpr", 0.5)) == 0.5
    twice = np.array([False, True, False, True])
    assert LabelledScores(scores, twice).threshold(Rule("youden")) == 3.5, "above 0.5 and above 3.5 are equally good"
    close = np.array([1.0, np.nextafter(1.0, 2)])
    assert LabelledScores(close, np.array([False, True])).threshold(Rule("youden")) == 1.0


def test_areas_are_mann_whitney() -> None:
    generator = np.random.default_rng(0)
    scores, positive = np.round(generator.normal(size=50), 1), generator.random(50) < 0.4
    known = scipy.stats.mannwhitneyu(scores[positive], scores[~positive]).statistic / (positive.sum() * (~positive).sum())
    counter = LabelledScores(scores, positive)
    assert counter.area() == pytest.approx(known, rel=1e-12)
    assert LabelledScores(np.exp(scores), positive).area() == counter.area()
    assert LabelledScores(-scores, positive).area() == pytest.approx(1 - counter.area())
    weights = generator.integers(0, 4, (3, 50)).astype(float)
    repeated = [LabelledScores(np.repeat(scores, row.astype(int)), np.repeat(positive, row.astype(int))).area() for row in weights]
    np.testing.assert_allclose(counter.areas(weights), repeated)


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    generator = np.random.default_rng(1)
    scores, positive = generator.normal(size=120), np.arange(120) < 50
    scores[positive] += 1
    low, high = LabelledScores(scores, positive).area_interval(0.9, 4000, 0)
    drawn_areas: list[float] = []
    for _ in range(800):
        rows = np.concatenate([generator.choice(50, 50), 50 + generator.choice(70, 70)])
        drawn_areas.append(float(metrics.roc_auc_score(positive[rows], scores[rows])))
    np.testing.assert_allclose([low, high], np.quantile(drawn_areas, [0.05, 0.95]), atol=0.012)
    small, large = (np.diff(LabelledScores(scores, positive).interval(Rule("youden"), share, 500, 0))[0] for share in (0.5, 0.95))
    assert 0 < small < large
    assert LabelledScores(scores, positive).interval(Rule(), 0.9, 200, 5) == LabelledScores(scores, positive).interval(Rule(), 0.9, 200, 5)
    rate = LabelledScores(scores, positive).rate_interval(0.5, 0.95, 2000, 0)
    share = (scores[positive] > 0.5).mean()
    np.testing.assert_allclose(rate, share + np.array([-1.96, 1.96]) * np.sqrt(share * (1 - share) / 50), atol=0.03)


# --- the detector


def test_scores_are_sums_margins_and_the_probes(train: cs.Survey, xray: cs.Survey) -> None:
    detector = cs.detector(train, "layer", MAPS, mode="mean", draws=20)
    maps, _, output = activations(64, 3)
    scores = detector_scores(detector, xray)
    a = maps.astype(np.float64).mean((2, 3))
    np.testing.assert_allclose(scores[0], np.stack([a[:, :3].mean(1), a[:, 6:8].mean(1)], 1), rtol=1e-6)
    p = np.exp(output.astype(np.float32).astype(np.float64))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(scores[1], np.log(p[:, [2, 1]] / (1 - p[:, [2, 1]])), rtol=1e-6, err_msg="outputs by name")
    assert detector.outputs.tolist() == [2, 1] and detector.activation == "softmax"


def test_fitting_never_sees_the_images_that_choose(tmp_path: Path) -> None:
    maps, labels, output = activations(96, 0)
    splits = ["val" if row >= 48 else "train" for row in range(96)]
    changed = maps.copy()
    changed[48:] *= 1.7  # the order of images stays, so the probe's strength, which is chosen on them, does, too
    first, second = (
        cs.detector(made(tmp_path / name, {"layer": each}, labels, output=output, splits=splits), "layer", MAPS, split="val", draws=9)
        for name, each in (("1", maps), ("2", changed))
    )
    assert first.fitted == 42 and len(first.truth) == 42, "images without a label take no part"
    np.testing.assert_array_equal(first.weights[0], second.weights[0])
    np.testing.assert_array_equal(first.offsets[0], second.offsets[0])
    np.testing.assert_array_equal(first.weights[1], second.weights[1])
    assert (first.thresholds[[0, 2]] != second.thresholds[[0, 2]]).all()


def test_maps_are_chosen_on_the_fitting_part(tmp_path: Path) -> None:
    maps, labels = drawn(48, 70, 3, 3), ["gun", "knife"] * 24
    for row in range(48):
        own = (row % 2) ^ (row >= 24)  # the validation part would choose the other class's maps
        maps[row, 30 * own : 30 * own + 20] += 1
    splits = ["val" if row >= 24 else "train" for row in range(48)]
    survey = made(tmp_path / "s", {"layer": maps}, labels, splits=splits)
    half = made(tmp_path / "half", {"layer": maps[:24]}, labels[:24])
    assert dict(cs.detector(survey, "layer", split="val", draws=9).maps) == dict(cs.class_maps(half, "layer").maps)
    assert cs.class_maps(survey, "layer").maps != cs.class_maps(half, "layer").maps


def test_a_background_label_gets_no_maps_and_no_alarm(tmp_path: Path) -> None:
    maps, labels = drawn(90, 70, 3, 3), ["gun", "knife", "other"] * 30
    for row in range(90):
        maps[row, 20 * (row % 3) : 20 * (row % 3) + 15] += 1
    splits = ["val" if row >= 45 else "train" for row in range(90)]
    survey = made(tmp_path / "s", {"layer": maps}, labels, splits=splits)
    detector = cs.detector(survey, "layer", classes=["gun", "knife"], split="val", draws=9)
    assert detector.classes == ("gun", "knife") and detector.labels == ("gun", "knife", "other")
    expected = cs.class_maps(survey, "layer", classes=["gun", "knife"], split="train").maps
    assert dict(detector.maps) == dict(expected)
    assert len(detector.truth) == 45 and (detector.truth == 2).sum() == 15, "backgrounds count as false alarms"
    assert cs.detector(survey, "layer", split="val", draws=9).classes == ("gun", "knife", "other")
    assert cs.detector_evaluation(detector, survey).recall.shape[-1] == 2
    one = cs.detector(survey, "layer", expected, classes=["knife"], split="val", draws=9)
    assert dict(one.maps) == {"knife": expected["knife"]}
    with pytest.raises(BadInput, match="maps have none for class 'other'; they are for gun, knife"):
        cs.detector(survey, "layer", expected, classes=["other"], draws=9)


def test_the_probe_is_a_logistic_regression(train: cs.Survey, xray: cs.Survey) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    detector = cs.detector(train, "layer", MAPS, seed=4, draws=9)
    validation = {train.names.index(name) for name in detector.names}
    fit = [row for row in range(96) if row not in validation and train.truth[row] >= 0]
    strength = float(detector.strengths[0])
    twin = make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=1000))
    twin.fit(train.mean("layer")[fit].astype(np.float64), train.truth[fit] == train.labels.index("gun"))
    np.testing.assert_allclose(
        detector_scores(detector, xray)[2, :, 0], twin.decision_function(xray.mean("layer").astype(np.float64)), rtol=1e-4, atol=1e-5
    )
    assert detector.auc[2, 0] > 0.9


def test_parts_are_drawn_label_by_label(train: cs.Survey) -> None:
    detector = cs.detector(train, "layer", MAPS, share=0.25, draws=9)
    assert np.bincount(detector.truth).tolist() == [9, 6, 6] and detector.fitted == 84 - 21
    assert detector.names != cs.detector(train, "layer", MAPS, share=0.25, seed=1, draws=9).names


@pytest.mark.parametrize("rule", ["fpr", "youden", "fbeta"])
def test_thresholds_and_areas_are_those_of_the_validation_scores(train: cs.Survey, rule: str) -> None:
    detector = cs.detector(train, "layer", MAPS, rule=rule, fpr=0.1, beta=2, draws=50)
    for method, column in np.ndindex(3, 2):
        positive = detector.truth == train.labels.index(detector.classes[column])
        scores = detector.scores[method, :, column]
        assert detector.thresholds[method, column] == LabelledScores(scores, positive).threshold(Rule(rule, 0.1, 2))
        assert detector.auc[method, column] == pytest.approx(metrics.roc_auc_score(positive, scores))
        low, high = detector.auc_intervals[method, column]
        assert low <= detector.auc[method, column] <= high


def test_outputs_by_name_by_hand_and_by_search(train: cs.Survey, tmp_path: Path) -> None:
    found = cs.detector(survey_of(tmp_path / "1", classes=None), "layer", MAPS, draws=9)
    assert found.outputs.tolist() == [0, 1], "output 0 was made from what guns excite, 1 from what knives excite"
    assert cs.detector(train, "layer", MAPS, outputs={"gun": 0, "knife": 1}, draws=9).outputs.tolist() == [0, 1]
    maps, labels, output = activations(96, 0)
    single = made(tmp_path / "2", {"layer": maps}, labels, output=output[:, :1] - output[:, 1:2])
    detector = cs.detector(single, "layer", MAPS, draws=9)
    assert detector.activation == "sigmoid" and detector.signs.tolist() == [1, -1] and detector.outputs.tolist() == [0, 0]
    assert (detector.auc[1] > 0.7).all()
    own = own_decisions(detector, single)
    np.testing.assert_array_equal(own, np.where(single.maximum("output")[:, 0] > 0, 0, 1))


def test_margins_do_not_overflow() -> None:
    values = np.array([[1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(margins(values, np.array([0, 1]), "softmax"), [[1000, -1000], [-math.log(2)] * 2])


def test_figure(train: cs.Survey) -> None:
    detector = cs.detector(train, "layer", MAPS, draws=30)
    plots = [panel for panel in detector.view().flat() if isinstance(panel, Curves)]
    assert len(plots) == 6 and [plot.level[0] for plot in plots if plot.level] == detector.thresholds.T.ravel().tolist()


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"rule": "best"}, BadInput, "rule must be fpr, youden or fbeta, got 'best'"),
        ({"fpr": 1.0}, BadInput, r"fpr must be in \[0, 1\) and beta above 0, got 1.0"),
        ({"mode": "max"}, BadInput, "mode must be mean, sum or standardized, got 'max'"),
        ({"activation": "tanh"}, BadInput, "activation must be softmax or sigmoid"),
        ({"share": 1.5}, BadInput, "share and confidence must be in"),
        ({"split": "val"}, BadInput, "has no image of split 'val': its images have no split"),
        ({"share": 0.01}, BadInput, "at least 2 images of each label to choose thresholds; 'benign' has 0"),
        ({"classes": ["spoon"]}, BadInput, "has no label 'spoon': it has"),
        ({"outputs": {"gun": 0}}, BadInput, "outputs: no output for knife"),
        ({"maps": {"spoon": [1]}}, BadInput, "has no label 'spoon': it has"),
        ({"maps": {"gun": []}}, BadInput, "class 'gun' has no map of its own"),
        ({"maps": {"gun": [12]}}, UnitNotFound, "units 0 to 11, got 12"),
    ],
)
def test_wrong_questions(train: cs.Survey, wrong: dict[str, Any], error: type[ConvscopeError], words: str) -> None:
    with pytest.raises(error, match=words):
        cs.detector(train, "layer", **({"maps": MAPS} | wrong))


def test_one_label_is_not_enough(tmp_path: Path) -> None:
    maps, _, _ = activations(8, 0)
    with pytest.raises(BadInput, match="needs images of at least two labels, found gun"):
        cs.detector(made(tmp_path / "3", {"layer": maps}, ["gun"] * 8), "layer", {"gun": [0]})
