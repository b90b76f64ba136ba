"""Activation sums against plain loops; several surveys and several networks side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import convscope as cs
import promises
from convscope.cli import main
from convscope.errors import BadInput
from convscope.render.panels import Curves
from made import drawn, made

PROMISE = promises.Promise(lambda s: cs.activation_sums(s, "layer", promises.MAPS), "result.beside(result).sums")

PHOTOS, XRAYS = drawn(12, 6, 3, 3), drawn(9, 6, 3, 3, seed=5)
MAPS = {"gun": [0, 2], "knife": [5], "empty": []}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    return made(tmp_path_factory.mktemp("survey") / "photos", {"layer": PHOTOS}, ["gun", "knife", "benign", None] * 3)


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    return made(tmp_path_factory.mktemp("survey") / "xrays", {"layer": XRAYS}, ["knife", "box", "gun"] * 3)


@pytest.mark.parametrize("mode", ["mean", "sum", "standardized"])
def test_sums_by_plain_loops(photos: cs.Survey, xrays: cs.Survey, mode: str) -> None:
    result = cs.activation_sums(photos, "layer", MAPS, mode=mode, others=[xrays])
    means = [maps.astype(np.float64).mean((2, 3)) for maps in (PHOTOS, XRAYS)]
    centre, spread = means[0].mean(0), means[0].std(0)
    assert result.sums.shape == (21, 3) and result.group.tolist() == [0] * 12 + [1] * 9
    for row, a in enumerate(np.concatenate(means)):
        standard = [(a[k] - centre[k]) / spread[k] for k in range(6)]
        values = a if mode != "standardized" else standard
        expected = [values[0] + values[2], values[5]] if mode == "sum" else [(values[0] + values[2]) / 2, values[5]]
        np.testing.assert_allclose(result.sums[row, :2], expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(result.sums[:, 2]).all(), "no maps, no sum"
    assert result.labels == ("benign", "box", "gun", "knife")
    assert [result.labels[place] if place >= 0 else None for place in result.truth[:4]] == ["gun", "knife", "benign", None]
    assert [result.labels[place] for place in result.truth[12:15]] == ["knife", "box", "gun"]
    assert result.sizes.tolist() == [[2, 1, 0]] * 2 and result.surveys == ("photos", "xrays")


def test_a_map_that_never_varies_counts_as_nothing(tmp_path: Path) -> None:
    maps = drawn(6, 3, 2, 2)
    maps[:, 1] = 0.5
    survey = made(tmp_path / "s", {"layer": maps}, ["a", "b"] * 3)
    both, one = (cs.activation_sums(survey, "layer", {"a": own}, mode="standardized").sums for own in ([0, 1], [0]))
    np.testing.assert_allclose(both * 2, one, atol=1e-12)


def test_default_maps_are_the_surveys_own(photos: cs.Survey) -> None:
    own = cs.activation_sums(photos, "layer", cs.class_maps(photos, "layer"))
    assert own.classes == ("benign", "gun", "knife")
    np.testing.assert_array_equal(own.sums, cs.activation_sums(photos, "layer").sums)


def test_networks_side_by_side(photos: cs.Survey, xrays: cs.Survey, tmp_path: Path) -> None:
    other = made(tmp_path / "second", {"deep": XRAYS * 3}, ["knife", "box", "gun"] * 3, weights="xyz")
    first = cs.activation_sums(photos, "layer", {"gun": [0], "knife": [5]})
    second = cs.activation_sums(other, "deep", {"knife": [1, 2], "gun": [3]})
    beside = first.beside(second)
    np.testing.assert_array_equal(beside.sums[:12], first.sums)
    np.testing.assert_array_equal(beside.sums[12:], second.sums[:, ::-1])
    assert beside.layers == ("layer", "deep") and beside.surveys == ("photos", "second") and beside.sizes.tolist() == [[1, 1], [1, 2]]
    assert [beside.labels[place] for place in beside.truth[12:15]] == ["knife", "box", "gun"] and beside.truth[3] == -1
    assert len(beside.names) == 21 and beside.group.tolist() == [0] * 12 + [1] * 9
    with pytest.raises(BadInput, match="can stand side by side if classes and mode are the same"):
        first.beside(cs.activation_sums(xrays, "layer", {"gun": [0]}))


def test_three_models_in_one_question(photos: cs.Survey, tmp_path: Path) -> None:
    labels = ["gun", "knife", "benign"] * 4
    second = made(tmp_path / "second", {"layer": XRAYS[:9], "deep": XRAYS[:9] * 2}, labels[:9], weights="xyz")
    third = made(tmp_path / "third", {"deep": PHOTOS * 3}, labels, weights="uvw")
    found = cs.activation_sums(photos, "layer", classes=["knife", "gun"], beside=[second, third])
    alone = [cs.activation_sums(survey, layer) for survey, layer in ((photos, "layer"), (second, "layer"), (third, "deep"))]
    assert (
        found.surveys == ("photos", "second", "third") and found.layers == ("layer", "layer", "deep") and found.classes == ("knife", "gun")
    )
    for group, own in enumerate(alone):
        np.testing.assert_array_equal(found.sums[found.group == group], own.sums[:, [own.classes.index(name) for name in found.classes]])
    assert cs.activation_sums(third).layers == ("deep",), "the last layer that has maps"
    with pytest.raises(BadInput, match="maps have none for class 'wasp'"):
        cs.activation_sums(photos, "layer", classes=["wasp"])


def test_words_of_the_command(
    photos: cs.Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        made(tmp_path / name, {"layer": PHOTOS}, ["gun", "knife", "benign"] * 4, weights=name)
    for given in ("a b c", "a layer b c", "a b layer c", "a layer --class gun,knife"):
        assert main(f"activation-sums {given}".split()) == 0
    figures = sorted(tmp_path.glob("out/activation-sums/*"))
    loaded = [cs.load(figure) for figure in figures]
    assert sorted(len(each.surveys) for each in loaded) == [1, 3, 3, 3] and {each.layers[0] for each in loaded} == {"layer"}
    assert main("activation-sums a layer other".split()) == 2
    assert "layer and other are no folders of surveys" in capsys.readouterr().err


def test_the_figure_has_a_plot_for_each_survey_and_class(photos: cs.Survey, xrays: cs.Survey) -> None:
    result = cs.activation_sums(photos, "layer", {"gun": [0, 2], "knife": [5]}, others=[xrays])
    plots = [panel for panel in result.view().flat() if isinstance(panel, Curves)]
    titles = ["photos: 2 maps of gun", "photos: 1 map of knife", "xrays: 2 maps of gun", "xrays: 1 map of knife"]
    assert [plot.title for plot in plots] == titles
    lines = {line.name.split(":")[0]: line for line in plots[3].lines if line.name}
    assert set(lines) == {"box (3)", "gun (3)", "knife (3)"}
    strokes = [line for line in plots[3].lines if not line.name]
    assert all(line.x.min() > 3 and not line.dashed for line in strokes), "medians stand beyond the last image, and are no thresholds"
    assert {line.y[0] for line in strokes} == {float(np.median(line.y)) for line in lines.values()}
    np.testing.assert_array_equal(lines["knife (3)"].y, result.sums[12:][[0, 3, 6], 1])
    assert {line.color for line in plots[0].lines if "gun" in line.name} == {lines["gun (3)"].color}, "a label has one colour everywhere"


def test_wrong_questions(photos: cs.Survey, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="mode must be mean, sum or standardized, got 'total'"):
        cs.activation_sums(photos, "layer", MAPS, mode="total")
    other = made(tmp_path / "o", {"layer": PHOTOS}, ["gun"] * 12, weights="other")
    with pytest.raises(BadInput, match=r"is by other weights \(other\) than .*photos \(abc\), so its units are not the same"):
        cs.activation_sums(photos, "layer", MAPS, others=[other])
