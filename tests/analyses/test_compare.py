"""Comparisons of two surveys: permuted units, plain correlations and CKA, dead units, class maps, accuracy, the gate."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import convscope as cs
import promises
from convscope.analyses.compare import assign, correlations, linear_cka
from convscope.errors import BadInput, LayerNotFound
from convscope.render.panels import Table
from convscope.survey.schema import SCHEMAS
from made import drawn, made

PROMISE = promises.Promise(
    lambda s: cs.compare(s, s, layers="layer", examples=2), "(result.of('layer'), result.passed, result.table().rows)"
)

LABELS: list[str | None] = ["ant", "bee", "cat"] * 10
MAPS = drawn(30, 6, 3, 3)
OUTPUT = np.random.default_rng(0).normal(size=(30, 3))
ORDER = np.array([3, 0, 5, 1, 4, 2])


def survey_of(folder: Path, maps: np.ndarray = MAPS, **more: object) -> cs.Survey:
    return made(folder, {"layer": maps}, LABELS, **({"output": OUTPUT, "classes": ["ant", "bee", "cat"]} | more))


def test_permuted_channels_are_found_exactly(tmp_path: Path) -> None:
    one, two = survey_of(tmp_path / "a"), survey_of(tmp_path / "b", MAPS[:, ORDER])
    found = cs.compare(one, two)
    assert {unit: match for unit, (match, _) in found.of("layer").items()} == {int(unit): match for match, unit in enumerate(ORDER)}
    assert found.correlations == pytest.approx(np.ones(9)) and found.cka == pytest.approx([1, 1])
    assert found.gained == found.lost == {"layer": {"ant": [], "bee": [], "cat": []}}
    assert (found.accuracy[:, 0] == found.accuracy[:, 1]).all() and found.accuracy[:, 0, 1].tolist() == [10, 10, 10]
    assert found.matched("layer") == (6, 6) and found.passed


def test_correlation_and_assignment_are_the_plain_ones() -> None:
    generator = np.random.default_rng(1)
    one, two = generator.normal(size=(20, 4)), generator.normal(size=(20, 5))
    two[:, 3] = 2
    matrix = correlations(one, two)
    for a, b in np.ndindex(4, 5):
        assert matrix[a, b] == pytest.approx(0 if b == 3 else np.corrcoef(one[:, a], two[:, b])[0, 1])
    best = max(itertools.permutations(range(5), 4), key=lambda columns: sum(matrix[row, column] for row, column in enumerate(columns)))
    assert assign(matrix)[1].tolist() == list(best)


def test_cka_does_not_see_rotations_and_is_near_zero_by_chance() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(size=(40, 8))
    turned, _ = np.linalg.qr(generator.normal(size=(8, 8)))
    assert linear_cka(values, 3 * values @ turned + 1) == pytest.approx(1)
    by_chance = [linear_cka(generator.normal(size=(20, 60)), generator.normal(size=(20, 60))) for _ in range(50)]
    assert abs(np.mean(by_chance)) < 0.05, "the biased estimate is about 0.75 here"
    one, two = values[:6], values[:6] ** 3
    plain = [_plain_hsic(a, b) for a, b in ((one, two), (one, one), (two, two))]
    assert linear_cka(one, two) == pytest.approx(plain[0] / np.sqrt(plain[1] * plain[2]))
    assert np.isnan(linear_cka(values, np.ones((40, 2))))


def _plain_hsic(one: np.ndarray, two: np.ndarray) -> float:
    """Song et al. 2012, the sums over different images written out: mean k_ij l_ij + mean k_ij l_qr - 2 mean k_ij l_iq."""
    k, el = one @ one.T, two @ two.T
    pairs = [k[i, j] * el[i, j] for i, j in itertools.permutations(range(len(k)), 2)]
    threes = [k[i, j] * el[i, q] for i, j, q in itertools.permutations(range(len(k)), 3)]
    fours = [k[i, j] * el[q, r] for i, j, q, r in itertools.permutations(range(len(k)), 4)]
    return float(np.mean(pairs) + np.mean(fours) - 2 * np.mean(threes))


def test_born_and_dead_units_and_unequal_widths(tmp_path: Path) -> None:
    maps = np.concatenate([MAPS[:, ORDER], drawn(30, 2, 3, 3, seed=9)], 1)
    maps[:, 0] = 0  # the match of unit 3 has died
    found = cs.compare(survey_of(tmp_path / "a"), survey_of(tmp_path / "b", maps), layers="layer")
    assert found.dead.tolist() == [[0, 1]]
    assert found.of("layer")[3][1] < found.threshold and found.matched("layer") == (5, 6)
    assert (found.units == -1).sum() == 2 and found.shown[0]["unit"] == 3
    assert "5 of 6 active units" in found.summary() and found.figure()
    assert not found.one_line and found.dead_units("layer") == ([], [0]) and "died" not in found.summary()
    assert _table(found, "Dead units").rows == (("layer", "-", "0"),)


def _table(found: cs.Compare, title: str) -> Table:
    return next(panel for panel in found.view().flat() if isinstance(panel, Table) and panel.title.startswith(title))


def test_of_two_networks_of_one_line_units_that_died_and_were_born(tmp_path: Path) -> None:
    before, after = MAPS.copy(), MAPS.copy()
    before[:, [1, 4]], after[:, [1, 2]] = 0, 0
    found = cs.compare(survey_of(tmp_path / "a", before), survey_of(tmp_path / "b", after), layers="layer")
    assert found.one_line and found.dead_units("layer") == ([1, 4], [1, 2])
    assert "1 unit died: layer 2\n1 unit born: layer 4" in found.summary() and "changed most: layer" in found.summary()
    table = _table(found, "Units that died or were born")
    assert table.header == ("layer", "died", "born") and table.rows == (("layer", "2", "4"),)
    assert found.to_frame().query("constant_after == 1 and constant_before == 0")["counterpart"].tolist() == [2]


def test_accuracy_where_one_network_has_no_such_class(tmp_path: Path) -> None:
    other = survey_of(tmp_path / "b", classes=["antelope", "beetle", "catalogue"])
    found = cs.compare(survey_of(tmp_path / "a"), other, layers="layer")
    right = 100 * (OUTPUT.argmax(1) == np.arange(30) % 3).mean()
    assert (
        f"accuracy: before {right:.1f} %, after not known (no classes called ant, bee, cat: say --classes LABEL=CLASS)" in found.summary()
    )
    assert {row[3] for row in _table(found, "Accuracy by label").rows} == {"no such class"}
    assert _table(found, "Accuracy by label").rows[0][1] == "10"
    said = cs.compare(survey_of(tmp_path / "c"), other, layers="layer", classes={"ant": "antelope", "bee": 1, "cat": "catalogue"})
    assert (said.accuracy[:, 0] == said.accuracy[:, 1]).all() and (said.accuracy[:, :, 1] == 10).all()
    with pytest.raises(BadInput, match="no image has the label"):
        cs.compare(survey_of(tmp_path / "d"), other, layers="layer", classes={"dog": 0})


def test_layers_with_other_numbers_of_units_are_left_out_and_named(tmp_path: Path) -> None:
    one = made(tmp_path / "a", {"layer": MAPS, "last": drawn(30, 9, 2, 2, seed=5)}, LABELS)
    two = made(tmp_path / "b", {"layer": MAPS, "last": drawn(30, 2, 2, 2, seed=5)}, LABELS)
    found = cs.compare(one, two)
    assert "last" not in found.layers and found.uneven == ("last",) and found.changed_most == "layer"
    assert "Left out, as the numbers of units differ: last." in found.view().note
    assert cs.compare(one, two, layers="last").layers == ("last",) and len(cs.compare(one, two, layers="last").units) == 9


def test_of_one_line_a_unit_is_shown_beside_itself(tmp_path: Path) -> None:
    before, after = MAPS.copy(), MAPS.copy()
    after[:, 4], before[:, 0] = drawn(30, 1, 3, 3, seed=6)[:, 0], 0
    found = cs.compare(survey_of(tmp_path / "a", before), survey_of(tmp_path / "b", after), layers="layer", examples=2)
    own = np.corrcoef(before.mean((2, 3))[:, 4], after.mean((2, 3))[:, 4])[0, 1]
    assert (found.shown[0]["unit"], found.shown[0]["match"]) == (4, 4) and found.shown[0]["correlation"] == pytest.approx(own)
    assert found.shown[1]["unit"] == found.shown[1]["match"] != 0
    assert "layer: unit 4 before and after, r = " in " ".join(getattr(panel, "title", "") for panel in found.view().panels)


def test_exemplars_are_of_units_that_live_in_both(tmp_path: Path) -> None:
    after = drawn(30, 6, 3, 3, seed=8)
    after[:, :4] = 0
    found = cs.compare(survey_of(tmp_path / "a"), survey_of(tmp_path / "b", after), layers="layer")
    assert {one["match"] for one in found.shown} == {4, 5}


def test_class_maps_gained_and_lost(tmp_path: Path) -> None:
    before, after = drawn(30, 120, 2, 2, seed=3), drawn(30, 120, 2, 2, seed=3)
    for maps, unit in ((before, 0), (after, 1)):
        maps[:, unit] = 0
        maps[0::3, unit] = 9
    found = cs.compare(survey_of(tmp_path / "a", before), survey_of(tmp_path / "b", after), layers="layer")
    maps = [cs.class_maps(cs.read_survey(tmp_path / name), "layer").maps for name in "ab"]
    assert found.gained is not None and found.lost is not None and maps[0] is not None and maps[1] is not None
    kept = {unit: match for unit, (match, r) in found.of("layer").items() if r > found.threshold}
    for label in ("ant", "bee", "cat"):
        assert set(found.lost["layer"][label]) == {unit for unit in maps[0][label] if kept.get(unit) not in maps[1][label]}
    assert 0 in maps[0]["ant"] and 1 in maps[1]["ant"], "as they were made"
    assert (0 in found.lost["layer"]["ant"]) == (1 in found.gained["layer"]["ant"]) == (kept.get(0) != 1)


def test_the_gate(tmp_path: Path) -> None:
    one, two = survey_of(tmp_path / "a"), survey_of(tmp_path / "b", drawn(30, 6, 3, 3, seed=7))
    assert not cs.compare(one, two, fail_above=0.2).passed and "FAILED" in cs.compare(one, two, fail_above=0.2).summary()
    assert cs.compare(one, two, fail_above=1.0).passed and cs.compare(one, one, fail_above=0.0).passed
    from convscope.cli import main

    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--fail-above"]
    assert main([*words, "0.2", "--out", str(tmp_path / "x")]) == 1 and (tmp_path / "x" / "figure.png").exists()
    assert main([*words, "1", "--out", str(tmp_path / "y")]) == 0


def test_only_images_of_both_count(tmp_path: Path) -> None:
    made(tmp_path / "b", {"layer": MAPS[:12]}, LABELS[:12], output=OUTPUT[:12])
    found = cs.compare(survey_of(tmp_path / "a"), cs.read_survey(tmp_path / "b"))
    assert found.images == 12 and found.left_out == 18 and found.correlations == pytest.approx(np.ones(9))
    made(tmp_path / "c", {"deep": MAPS[:3]}, LABELS[:3])
    with pytest.raises(BadInput, match="share 3 images"):
        cs.compare(survey_of(tmp_path / "d"), cs.read_survey(tmp_path / "c"))
    with pytest.raises(LayerNotFound):
        cs.compare(cs.read_survey(tmp_path / "a"), cs.read_survey(tmp_path / "b"), layers="deep")


def test_images_of_one_name_that_are_others_are_refused(tmp_path: Path) -> None:
    one = survey_of(tmp_path / "a")
    rows = pq.read_table(tmp_path / "a" / "images.parquet").to_pylist()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    rows[4] |= {"height": 3 * rows[4]["height"]}
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["images"]), tmp_path / "b" / "images.parquet")
    with pytest.raises(BadInput, match="is not the same image in both surveys"):
        cs.compare(one, cs.read_survey(tmp_path / "b"))
    for row in rows:  # a copy of another size is the same image
        row |= {"height": 2 * row["height"], "width": 2 * row["width"]}
    rows[4]["height"] //= 3
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["images"]), tmp_path / "b" / "images.parquet")
    assert cs.compare(one, cs.read_survey(tmp_path / "b")).images == 30
