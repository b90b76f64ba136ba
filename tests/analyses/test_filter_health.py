"""Filter health: each notion on channels made to have it, and only it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import convscope as cs
import promises
from convscope.analyses.filter_health import duplicates
from convscope.render.panels import Bars, Table
from made import drawn, made

PROMISE = promises.Promise(lambda s: cs.filter_health(s), "(result.alive_below, tuple(result.of('layer').items()))")

COUNT = 40


def maps_with_findings() -> np.ndarray:
    """Channel 1 dead, 2 constant, 3 twice channel 0, 4 saturated at 6, 5 dead but for one image, the others sound."""
    maps = drawn(COUNT, 9, 4, 4)
    maps[:, 1] = 0
    maps[:, 2] = 0.75
    maps[:, 3] = 2 * maps[:, 0]
    maps[:, 4] = np.minimum(maps[:, 4] * 40, 6)
    maps[:, 5] = 0
    maps[7, 5, 2, 2] = 0.1
    return maps


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    layers = {"sound": drawn(COUNT, 5, 3, 3, seed=2), "ill": maps_with_findings(), "linear": -drawn(COUNT, 4, 3, 3, seed=3) - 1}
    bounds = {("ill", 1): -0.5, ("ill", 0): 9.0, ("linear", 0): -1.0}
    return made(tmp_path_factory.mktemp("survey") / "s", layers, ["a"] * COUNT, rectified={"linear": False}, bounds=bounds)


def test_each_finding_on_its_own_channel(survey: cs.Survey) -> None:
    health = cs.filter_health(survey)
    assert health.layers == ("sound", "ill", "linear") and len(health.units) == 18
    assert health.of("ill") == {"dead": [1], "structural": [1], "constant": [2], "saturated": [4], "duplicate": [3]}
    assert not any(health.of("sound").values())
    assert not any(health.of("linear").values()), "without a ReLU, below zero is no death, whatever the bound"
    ill = health.layer_index == 1
    assert health.twin[ill][3] == 0 and health.likeness[ill][3] == pytest.approx(1)
    assert np.isnan(health.likeness[ill][0]) and health.bound[ill][0] == 9 and np.isnan(health.bound[ill][2])


def test_zeros_are_counted_over_images_and_positions(survey: cs.Survey) -> None:
    health = cs.filter_health(survey, "ill")
    maps = maps_with_findings()
    np.testing.assert_allclose(health.apoz, (maps <= 0).mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_array_equal(health.maximum, maps.max((0, 2, 3)))
    assert ((health.apoz == 1) == (health.dead > 0)).all(), "dead on data is exactly an APoZ of 1"
    assert 0.4 < health.apoz[0] < 0.6


def test_dust_is_zero(tmp_path: Path) -> None:
    maps = maps_with_findings()
    maps[:, 1] = 1e-14  # as weight decay leaves it: above zero on every image
    health = cs.filter_health(made(tmp_path / "s", {"ill": maps}, ["a"] * COUNT, bounds={("ill", 1): 1e-14, ("ill", 0): 1e-3}))
    assert health.of("ill")["dead"] == health.of("ill")["structural"] == [1] and health.of("ill")["constant"] == [2]
    nothing = cs.filter_health(made(tmp_path / "0", {"ill": maps * 0}, ["a"] * COUNT))
    assert nothing.of("ill")["dead"] == list(range(9))


def test_the_rule_of_three(survey: cs.Survey) -> None:
    health = cs.filter_health(survey)
    assert health.alive_below == 3 / COUNT
    unseen = 1 - health.alive_below  # chance that an image at the bound leaves the channel silent
    assert unseen**COUNT < 0.05 < (1 - 2 / COUNT) ** COUNT
    assert health.summary().splitlines()[-1] == "1 of 18 units dead on 40 images: with 95 % confidence, active on fewer than 7.5 % of such"


def test_duplicates_are_pearsons() -> None:
    generator = np.random.default_rng(0)
    means, maxima = generator.normal(size=(2, 30, 6))
    means[:, 4], maxima[:, 4] = 3 * means[:, 1] + 1, maxima[:, 1] * 0.5 - 2
    means[:, 5] = means[:, 0]  # alike in the mean alone
    twin, likeness = duplicates(means, maxima, 0.999)
    assert twin.tolist() == [-1, -1, -1, -1, 1, -1] and likeness[4] == pytest.approx(1)
    twin, likeness = duplicates(means, maxima, -1.0)
    known = min(scipy.stats.pearsonr(each[:, 2], each[:, 0]).statistic for each in (means, maxima))
    assert twin[2] == 0 and likeness[2] == pytest.approx(known)
    flat = np.ones((30, 2), np.float32) * np.float32(0.1)
    assert duplicates(flat, flat, 0.999)[0].tolist() == [-1, -1], "what never varies has no correlation"


def test_a_survey_of_summaries_says_what_it_lacks(tmp_path: Path) -> None:
    survey = made(tmp_path / "s", {"ill": maps_with_findings()}, ["a"] * COUNT, summary_only=True, bounds={("ill", 1): -0.5})
    health = cs.filter_health(survey)
    assert health.of("ill") == {"dead": [1], "structural": [1], "constant": [2], "saturated": [4], "duplicate": []}
    assert not health.paired and "duplicates were not looked for" in health.summary()
    assert "Duplicates were not looked for" in health.view().note


def test_the_figure(survey: cs.Survey) -> None:
    health = cs.filter_health(survey)
    flat = health.view().flat()
    counts, which = (panel for panel in flat if isinstance(panel, Table))
    assert counts.rows[1][:7] == ("ill", "9", "1", "1", "1", "1", "1") and counts.rows[0][2:7] == ("-",) * 5
    assert counts.rows[2][2:4] == ("n/a", "n/a")
    assert ("ill", "duplicate", "3 = 0 (r 1)") in which.rows and ("ill", "dead", "1") in which.rows
    bars = [panel for panel in flat if isinstance(panel, Bars)]
    assert bars[1].spikes == ((1, "1"),)
    np.testing.assert_array_equal(bars[1].values, 100 * health.apoz[health.layer_index == 1])
