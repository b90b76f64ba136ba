"""Class profiles against scipy and scikit-learn, and on channels that know a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

import convscope as cs
import promises
from convscope.errors import BadInput
from convscope.render.panels import Bars, Heat, Table
from made import drawn, made

PROMISE = promises.Promise(lambda s: cs.class_profile(s, "layer"), "(result.responds(2), result.best('ant'))")

LABELS: list[str | None] = ["ant", "bee", "cat", None, "ant", "bee"] * 8


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    maps = drawn(48, 8, 3, 3)
    maps[[label == "bee" for label in LABELS], 2] += 1
    maps[:, 5] = 0.5
    return made(tmp_path_factory.mktemp("survey") / "s", {"layer": maps}, LABELS)


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_areas_effects_and_p(survey: cs.Survey, reduce: str) -> None:
    profile = cs.class_profile(survey, "layer", [6, 2, 5], reduce=reduce)
    values = survey.mean("layer") if reduce == "mean" else survey.maximum("layer")
    labels = np.array([label or "" for label in LABELS])
    values, labels = values[labels != ""].astype(np.float64), labels[labels != ""]
    for row, unit in enumerate((6, 2, 5)):
        for column, label in enumerate(("ant", "bee", "cat")):
            inside, outside = values[labels == label, unit], values[labels != label, unit]
            at = row, column
            assert profile.auc[at] == pytest.approx(roc_auc_score(labels == label, values[:, unit]))
            known = scipy.stats.mannwhitneyu(inside, outside, alternative="greater", method="asymptotic").pvalue if unit != 5 else 1
            assert profile.p[at] == pytest.approx(known)
            effect = (inside.mean() - outside.mean()) / outside.std(ddof=1) if unit != 5 else 0
            assert profile.effect[at] == pytest.approx(effect, abs=1e-9)
    assert profile.counts.tolist() == [16, 16, 8]


def test_who_responds(survey: cs.Survey) -> None:
    profile = cs.class_profile(survey, "layer")
    assert profile.responds(2) == ("bee",) and profile.best("bee")[0] == 2 and len(profile.best("bee", 3)) == 3
    assert sum(len(profile.responds(unit)) for unit in profile.units) == 1
    assert "unit 2: bee (AUC 1.000" in profile.summary()
    loose = cs.class_profile(survey, "layer", correction="bh")
    assert (loose.p_corrected <= profile.p_corrected + 1e-15).all() and (loose.p == profile.p).all()
    order = np.argsort(profile.p.ravel())
    assert profile.p_corrected.ravel()[order[0]] == pytest.approx(min(1, profile.p.min() * 24))


def test_one_image_for_each_label(tmp_path: Path) -> None:
    """As in a folder with a photograph for each class: the label's own output is the one that its image excites most."""
    output = np.random.default_rng(0).normal(size=(30, 30)) + 6 * np.eye(30)
    labels = [f"class {place:02}" for place in range(30)]
    survey = made(tmp_path / "s", {"layer": drawn(30, 4, 2, 2)}, labels, output=output, classes=labels)
    profile = cs.class_profile(survey, "output")
    assert [profile.best(label)[0] for label in labels] == list(range(30))
    assert np.allclose(np.diag(profile.p), 1 / 30) and profile.unit_names[3] == "class 03"
    assert profile.summary().endswith("before it is corrected)")
    assert profile.summary().splitlines()[0].startswith("class 00 (1 image): best units 0 class 00 (AUC 1.000)")


def test_figures_for_few_and_for_many(survey: cs.Survey) -> None:
    few = cs.class_profile(survey, "layer", [2, 0]).view().flat()
    bars, tables = ([panel for panel in few if isinstance(panel, kind)] for kind in (Bars, Table))
    assert bars[0].spikes == ((1, "bee"),) and bars[1].spikes == () and bars[0].baseline == 0.5
    assert bars[0].limits == bars[1].limits == (0, 1), "one axis for all units"
    assert tables[0].rows[0][:2] == ("bee", "1")
    profile = cs.class_profile(survey, "layer")
    many = profile.view().flat()
    (heat,) = [panel for panel in many if isinstance(panel, Heat)]
    np.testing.assert_array_equal(heat.values, profile.auc.T)
    units, labels = (panel for panel in many if isinstance(panel, Table))
    assert units.rows[1][1].startswith("2 (1.00)") and labels.rows[0][:2] == ("2", "bee")


def test_wrong_questions(survey: cs.Survey, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="reduce must be mean or max, got 'sum'"):
        cs.class_profile(survey, "layer", reduce="sum")
    with pytest.raises(BadInput, match="correction must be holm or bh"):
        cs.class_profile(survey, "layer", correction="none")
    for labels, found in ((["a"] * 4, "only a"), ([None] * 4, "none")):
        lonely = made(tmp_path / found, {"layer": drawn(4, 2, 2, 2)}, labels)
        with pytest.raises(BadInput, match=f"needs images of at least two labels, found {found}"):
            cs.class_profile(lonely, "layer")
