"""Predictions of a survey against a plain count, and what labels mean."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import convscope as cs
import promises
from convscope.analyses.predictions import classes_of
from convscope.errors import BadInput
from convscope.render.panels import Counts, Image, Table
from convscope.statistics import wilson
from made import drawn, made

PROMISE = promises.Promise(
    lambda s: cs.predictions(s, classes={"ant": 0, "bee": 1}),
    "(result.accuracy(), result.confusion()[0])",
)

LABELS: list[str | None] = ["ant", "bee", "cat", None, "ant", "bee", "dog"] * 6
CLASSES = ["fly", "ant", "bee", "cat"]
OUTPUT = np.random.default_rng(5).normal(size=(42, 4)) * 2


def survey_of(folder: Path, **more: object) -> cs.Survey:
    settings = {"output": OUTPUT, "classes": CLASSES} | more
    return made(folder / "s", {"layer": drawn(42, 3, 2, 2)}, LABELS, **settings)


def test_each_split_is_counted(tmp_path: Path) -> None:
    found = cs.predictions(survey_of(tmp_path), worst=3)
    assert found.by_split() == {} and f"3 of {int((found.known & ~found.right).sum())}; --worst" in found.summary()
    splits = tuple("train" if row % 3 else "val" for row in range(42))
    found = dataclasses.replace(found, splits=splits)
    for name, (right, count) in found.by_split().items():
        rows = [row for row in range(42) if splits[row] == name and LABELS[row] in CLASSES]
        assert (right, count) == (sum(OUTPUT[row].argmax() == CLASSES.index(str(LABELS[row])) for row in rows), len(rows))
        assert f"  {name}: {right} of {count} right ({100 * right / count:.1f} %)" in found.summary()
    assert len(found.by_split()) == 2


def test_against_a_plain_count(tmp_path: Path) -> None:
    found = cs.predictions(survey_of(tmp_path), worst=5, top=4)
    right = five = count = 0
    mistakes: list[tuple[float, int]] = []
    matrix = {(label, name): 0 for label in ("ant", "bee", "cat") for name in CLASSES}
    for row, label in enumerate(LABELS):
        logits = np.float32(OUTPUT[row]).astype(np.float64)
        share = np.exp(logits) / np.exp(logits).sum()
        order = sorted(range(4), key=lambda number: (-share[number], number))
        np.testing.assert_allclose(found.probability[row], share[order])
        assert found.predicted[row].tolist() == order
        if label not in CLASSES:
            assert found.truth[row] == -1 and np.isnan(found.truth_probability[row]) and not found.right[row]
            continue
        own = CLASSES.index(label)
        count, right, five = count + 1, right + (order[0] == own), five + (own in order[:2])
        assert found.truth[row] == own and found.truth_probability[row] == pytest.approx(share[own])
        matrix[label, CLASSES[order[0]]] += 1
        if order[0] != own:
            mistakes.append((-share[order[0]], row))
    assert found.accuracy() == right / count and found.accuracy(2) == five / count
    assert found.mistakes.tolist() == [row for _, row in sorted(mistakes)[:5]]
    counts, rows, columns = found.confusion()
    assert {(row, CLASSES[column]): counts[y, x] for y, row in enumerate(rows) for x, column in enumerate(columns)} == matrix
    assert sum(hits for hits, _ in found.by_class().values()) == right and found.by_class()["cat"][1] == 6
    assert found.images.shape == (5, 3, 24, 24)
    assert f"{right} of {count} images right" in found.summary() and "dog" in found.summary() and "occlusion" in found.summary()
    assert [type(panel) for panel in found.view().flat()] == [Counts, *[Image] * 5]


def test_the_most_frequent_confusions_are_named(tmp_path: Path) -> None:
    found = cs.predictions(survey_of(tmp_path), worst=3)
    counts, rows, columns = found.confusion()
    plain = {
        (rows[y], columns[x]): int(counts[y, x])
        for y in range(len(rows))
        for x in range(len(columns))
        if counts[y, x] and CLASSES[columns[x]] != rows[y]
    }
    assert {(label, number): count for label, number, count in found.confused()} == plain
    assert [count for *_, count in found.confused()] == sorted(plain.values(), reverse=True)
    label, number, count = found.confused()[0]
    assert f"most frequent: {count} of {label} taken for {CLASSES[number]}" in found.summary()


def test_commands_name_folders_that_a_command_takes(tmp_path: Path) -> None:
    found = cs.predictions(survey_of(tmp_path))
    for place, command in (
        ("photos/{label}/{row}.jpg", "unit-attribution made photos/ant --target"),
        ("shards/a.tar::train/{label}/{row}.jpg", "unit-attribution made shards/a.tar::train/"),
        ("s3://bucket/{label}/{row}.jpg", "unit-attribution made s3://bucket/"),
    ):
        paths = tuple(place.format(label=label, row=row) for row, label in enumerate(found.labels))
        said = dataclasses.replace(found, paths=paths, network="made").summary()
        assert command in said and "a.tar::train/ant --target" not in said and "bucket/ant --target" not in said
    assert "s3://bucket" in said


def test_without_labels_the_classes_are_said(tmp_path: Path) -> None:
    found = cs.predictions(made(tmp_path / "s", {"layer": drawn(42, 3, 2, 2)}, [None] * 42, output=OUTPUT, classes=CLASSES))
    first = found.predicted[0, 0]
    assert f"{found.names[0]}: {first} {CLASSES[first]} {100 * found.probability[0, 0]:.2g} %" in found.summary()
    assert "... and 30 more" in found.summary() and any(isinstance(panel, Table) for panel in found.view().flat())


def test_what_labels_mean() -> None:
    names = ["tench, Tinca tinca", "great white shark, white shark", "crane", "crane", "hen"]
    labels = ["n01440764_tench", "Great-White Shark", "crane", "4", "white_shark", "rooster"]
    assert classes_of(labels, names, 5, {}) == {
        "n01440764_tench": 0, "Great-White Shark": 1, "4": 4, "white_shark": 1, "crane": 2
    }  # fmt: skip
    assert classes_of(["rooster"], names, 5, {"rooster": "hen"}) == {"rooster": 4}
    assert classes_of(["Hens", "glass"], [*names[:4], "hen", "glas", "glass"], 7, {}) == {"Hens": 4, "glass": 6}
    assert classes_of(["a", "b"], (), 2, {}) == {"a": 0, "b": 1}, "as ImageFolder numbers them"
    assert classes_of(["a", "b"], (), 3, {}) == {} and classes_of(["a", "b"], ("x", "y"), 2, {}) == {}
    for given in ({"cock": 1}, {"rooster": "cock"}, {"rooster": 9}):
        with pytest.raises(cs.ConvscopeError):
            classes_of(["rooster"], names, 5, given)


def test_an_output_of_probabilities_is_taken_as_it_is(tmp_path: Path) -> None:
    shares = np.exp(OUTPUT) / np.exp(OUTPUT).sum(1, keepdims=True)
    found = cs.predictions(survey_of(tmp_path, output=shares))
    np.testing.assert_allclose(found.probability, -np.sort(-shares, 1), rtol=1e-6)


def test_without_known_labels(tmp_path: Path) -> None:
    found = cs.predictions(survey_of(tmp_path, classes=["w", "x", "y", "z"]))
    assert np.isnan(found.accuracy()) and not len(found.mistakes) and "not known" in found.summary() and "nan" not in found.summary()
    assert found.figure()
    with pytest.raises(BadInput, match="at least two outputs"):
        cs.predictions(made(tmp_path / "one", {"layer": drawn(3, 3, 2, 2)}, [None] * 3, output=np.zeros((3, 1))))


def test_many_classes_are_tables(tmp_path: Path) -> None:
    output = np.random.default_rng(0).normal(size=(60, 30))
    labels: list[str | None] = [f"class {row % 30:02}" for row in range(60)]
    made(tmp_path / "s", {"layer": drawn(60, 3, 2, 2)}, labels, output=output, classes=[f"class {row:02}" for row in range(30)])
    found = cs.predictions(cs.read_survey(tmp_path / "s"), worst=0)
    assert [type(panel) for panel in found.view().flat()] == [Table, Table]
    made(tmp_path / "one", {"layer": drawn(30, 3, 2, 2)}, labels[:30], output=output[:30], classes=[f"class {row:02}" for row in range(30)])
    assert not cs.predictions(cs.read_survey(tmp_path / "one"), worst=0).view().panels, "nothing to tabulate with an image per label"


def test_the_interval_is_wilsons() -> None:
    from scipy.stats import binomtest

    for successes, trials in ((0, 5), (3, 7), (88, 100), (5, 5)):
        known = binomtest(successes, trials).proportion_ci(method="wilson")
        assert wilson(successes, trials) == pytest.approx((known.low, known.high))
