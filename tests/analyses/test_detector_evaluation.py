"""Evaluation of detectors on other surveys, against scikit-learn and counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

import convscope as cs
import promises
from alarms import MAPS, activations, survey_of
from convscope import render
from convscope.analyses.detector_evaluation import DECISIONS, detector_scores
from convscope.errors import BadInput
from convscope.render.panels import Counts, Curves, Table
from made import made

PROMISE = promises.Promise(
    lambda s: cs.detector_evaluation(cs.detector(s, "layer", promises.MAPS, draws=20), s),
    "result.view().note",
)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    return survey_of(tmp_path_factory.mktemp("survey") / "train")


@pytest.fixture(scope="module")
def xray(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    return survey_of(tmp_path_factory.mktemp("survey") / "xray", 64, seed=3)


def test_evaluation_by_counting(train: cs.Survey, xray: cs.Survey) -> None:
    detector = cs.detector(train, "layer", MAPS, rule="youden", draws=50)
    result = cs.detector_evaluation(detector, train, xray)
    assert result.surveys == ("train", "xray") and result.labels == ("gun", "knife", "benign") and result.classes == ("gun", "knife")
    for place, survey in enumerate((train, xray)):
        labels = [survey.labels[at] if at >= 0 else None for at in survey.truth]
        scores = detector_scores(detector, survey)
        spread = detector.scores.std(1)
        for method in range(3):
            confusion, alarms = np.zeros((3, 3), int), np.zeros((3, 2), int)
            for row, label in enumerate(labels):
                if label is None:
                    continue
                lead = (scores[method, row] - detector.thresholds[method]) / spread[method]
                taken = int(lead.argmax()) if lead.max() > 0 else 2
                confusion[result.labels.index(label), taken] += 1
                alarms[result.labels.index(label)] += scores[method, row] > detector.thresholds[method]
            np.testing.assert_array_equal(result.confusion[place, method], confusion)
            np.testing.assert_array_equal(result.alarms[place, method], alarms)
            for column, label in enumerate(result.classes):
                sounded = scores[method, :, column] > detector.thresholds[method, column]
                truth, known = np.array([each == label for each in labels]), np.array([each is not None for each in labels])
                at = place, method, column
                assert result.recall[at] == metrics.recall_score(truth[known], sounded[known])
                assert result.precision[at] == metrics.precision_score(truth[known], sounded[known])
                assert result.fpr[at] == pytest.approx(sounded[known & ~truth].mean())
                assert result.auc[at] == metrics.roc_auc_score(truth[known], scores[method, known, column])
                assert result.ap[at] == metrics.average_precision_score(truth[known], scores[method, known, column])
                x, y = result.roc[place][method][column]
                assert metrics.auc(x, y) == pytest.approx(result.auc[at], abs=1e-9) and (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
                low, high = result.recall_intervals[at]
                assert low <= result.recall[at] <= high
        decided = survey.maximum("output").argmax(1)  # benign, knife, gun
        own = [{2: 0, 1: 1, 0: 2}[int(each)] for each in decided]
        known = [row for row, label in enumerate(labels) if label is not None]
        expected = metrics.confusion_matrix([result.labels.index(str(labels[row])) for row in known], [own[row] for row in known])
        np.testing.assert_array_equal(result.confusion[place, 3], expected)


def test_an_unseen_class_and_an_absent_one(train: cs.Survey, tmp_path: Path) -> None:
    maps, _, output = activations(40, 7)
    other = made(tmp_path / "other", {"layer": maps}, ["gun", "umbrella"] * 20, output=output)
    result = cs.detector_evaluation(cs.detector(train, "layer", MAPS, draws=30), other)
    assert result.labels == ("gun", "knife", "umbrella") and result.counts.tolist() == [[20, 0, 20]]
    assert np.isnan(result.recall[0, :, 1]).all() and np.isnan(result.auc[0, :, 1]).all() and not np.isnan(result.fpr[0, :, 1]).any()
    assert result.roc[0][0][1].shape == (2, 0) and result.confusion[0, 0].sum() == 40 and not result.confusion[0, 0][1].any()
    assert "knife" in result.summary() and "recall n/a" in result.summary()
    assert render.png(result.view())


def test_figure(train: cs.Survey, xray: cs.Survey) -> None:
    detector = cs.detector(train, "layer", MAPS, draws=30)
    result = cs.detector_evaluation(detector, train, xray)
    flat = result.view().flat()
    confusions = [panel for panel in flat if isinstance(panel, Counts)]
    assert len(confusions) == 2 * len(DECISIONS)
    np.testing.assert_array_equal(confusions[5].values, result.confusion[1, 1])
    assert confusions[0].right == (0, 1, 2) and confusions[0].columns == ("gun", "knife", "none")
    curves = [panel for panel in flat if isinstance(panel, Curves)]
    assert [len(panel.lines) for panel in curves] == [6] * 4 and sum(line.dashed for line in curves[0].lines) == 3
    (table,) = [panel for panel in flat if isinstance(panel, Table)]
    assert len(table.rows) == 16 and table.rows[3][2] == "network's own decision"


def test_evaluation_in_a_loaded_detector(train: cs.Survey, xray: cs.Survey, tmp_path: Path) -> None:
    detector = cs.detector(train, "layer", MAPS, draws=30)
    loaded = cs.load(detector.save(tmp_path / "detector"))
    assert isinstance(loaded, cs.Detector)
    first, second = cs.detector_evaluation(detector, xray), cs.detector_evaluation(loaded, xray)
    for one, other in zip(first.arrays(), second.arrays(), strict=True):
        np.testing.assert_array_equal(one.array, other.array)
    again = cs.load(first.save(tmp_path / "evaluation"))
    assert type(again) is type(first) and again.manifest["parameters"]["surveys"] == [xray.path]
    np.testing.assert_array_equal(again.roc[0][1][0], first.roc[0][1][0])
    assert render.png(again.view()) == render.png(first.view())


def test_surveys_that_do_not_fit(train: cs.Survey, tmp_path: Path) -> None:
    detector = cs.detector(train, "layer", MAPS, draws=9)
    with pytest.raises(BadInput, match="expected at least one survey"):
        cs.detector_evaluation(detector)
    with pytest.raises(BadInput, match=r"expected a survey, as read_survey\(folder\) gives it, got str"):
        cs.detector_evaluation(detector, "train")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"by other weights \(new\) than the detector \(abc\)"):
        cs.detector_evaluation(detector, survey_of(tmp_path / "1", 16, weights="new"))
    maps, _, _ = activations(8, 0)
    with pytest.raises(BadInput, match="its images have no labels to compare alarms with"):
        cs.detector_evaluation(detector, made(tmp_path / "2", {"layer": maps}, [None] * 8))
