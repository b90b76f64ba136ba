"""Every reader against every promise: no torch, the same twice, saved and loaded, shown with a receipt, nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convscope as cs
from convscope.receipts import read_receipt
from convscope.results.base import Result
from fresh import load_in_a_fresh_process
from made import drawn, made
from promises import MAPS, promises_in

PROMISES = promises_in("analyses")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    return made(tmp_path_factory.mktemp("survey") / "s", {"layer": drawn(30, 9, 4, 4)}, ["ant", "bee", None] * 10)


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, np.asarray(other), equal_nan=one.dtype.kind == "f")
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def equal(one: Result, other: Result) -> bool:
    fields = all(same(a.array, b.array) for a, b in zip(one.arrays(), other.arrays(), strict=True))
    return fields and all(same(value, other.extras()[key]) for key, value in one.extras().items())


def test_every_reader_is_here() -> None:
    homes = {name: getattr(getattr(cs, name), "__module__", "") for name in dir(cs)}
    assert set(PROMISES) == {name for name, home in homes.items() if home == f"convscope.analyses.{name}"}


@pytest.mark.parametrize("name", PROMISES)
class TestReader:
    def test_same_twice_and_nothing_written(self, survey: cs.Survey, name: str) -> None:
        before = {path: path.stat().st_mtime_ns for path in Path(survey.path).rglob("*")}
        first = PROMISES[name].call(survey)
        assert equal(first, PROMISES[name].call(cs.read_survey(survey.path)))
        assert {path: path.stat().st_mtime_ns for path in Path(survey.path).rglob("*")} == before

    def test_store_round_trip_and_receipt(self, survey: cs.Survey, name: str, tmp_path: Path) -> None:
        made = PROMISES[name].call(survey)
        loaded = cs.load(made.save(tmp_path / name))
        assert type(loaded) is type(made) and equal(made, loaded) and loaded.summary() == made.summary()
        assert (tmp_path / name / "figure.png").stat().st_size > 1000
        receipt = read_receipt(tmp_path / name / "figure.png")
        of = receipt["parameters"]["surveys"][0] if name == "detector_evaluation" else receipt["survey"]["path"]
        assert receipt["technique"] == name and of == survey.path
        assert receipt["network"]["weights_hash"] == "abc" and receipt["versions"]["convscope"] == cs.__version__

    def test_summaries_alone_work_or_say_what_is_missing(self, name: str, tmp_path: Path) -> None:
        short = made(tmp_path / "s", {"layer": drawn(30, 9, 4, 4)}, ["ant", "bee", None] * 10, summary_only=True, votes_per_image=3)
        if name in ("exemplars", "class_maps", "filter_health"):
            assert PROMISES[name].call(short).save(tmp_path / name)
            return
        with pytest.raises(cs.ConvscopeError, match="holds summaries only") as raised:
            PROMISES[name].call(short)
        assert "\n" not in str(raised.value)


def test_a_fresh_process_loads_the_class_of_every_reader(survey: cs.Survey, tmp_path: Path) -> None:
    results = {name: promise.call(survey) for name, promise in PROMISES.items()}
    folders = {name: result.save(tmp_path / name, figure=False) for name, result in results.items()}
    for name, (cls, summary, value) in load_in_a_fresh_process(folders, {name: promise.says for name, promise in PROMISES.items()}).items():
        assert cls == f"convscope.results.{name}.{type(results[name]).__name__}" and summary == results[name].summary()
        assert same(eval(PROMISES[name].says, {"result": results[name]}), value), name


def test_reading_and_saving_load_no_torch(survey: cs.Survey, tmp_path: Path) -> None:
    code = f"""
import sys
import convscope as cs
survey = cs.read_survey({survey.path!r})
cs.exemplars(survey, "layer", 0).save({str(tmp_path / "a")!r})
cs.detector_evaluation(cs.detector(survey, "layer", {MAPS!r}, draws=5), survey).save({str(tmp_path / "b")!r})
from convscope.cli import main
assert main(["query", {survey.path!r}, "select count(*) from values"]) == 0
assert main(["filter-health", {survey.path!r}, "--out", {str(tmp_path / "c")!r}]) == 0
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("class_profile", "result.responds(99)"),
        ("class_profile", "result.best('wasp')"),
        ("compare", "result.of('layers')"),
        ("compare", "result.matched('')"),
        ("filter_health", "result.of('output')"),
    ],
)
def test_what_a_result_does_not_hold(survey: cs.Survey, name: str, asked: str) -> None:
    with pytest.raises(cs.errors.BadInput, match=r"is not in this result.*it holds"):
        eval(asked, {"result": PROMISES[name].call(survey)})
