"""Commands that read surveys, in process."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

import convscope as cs
from convscope.cli import main
from made import drawn, made


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    labels = ["ant", "bee", None] * 12
    maps = drawn(36, 8, 4, 4)
    maps[[label == "ant" for label in labels], :2] += 1
    maps[[label == "bee" for label in labels], 2:4] += 1
    made(Path("photos"), {"layer": maps}, labels, classes=["ant", "bee"], votes_per_image=2)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_from_class_maps_to_an_evaluated_detector(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "class-maps", "photos", "layer", "--per-image", "2", "--per-class", "3")
    assert code == 0 and "ant (12 images): 2 maps of its own" in out and "wrote out/class-maps/photos-layer/figure.png  the figure" in out
    code, out, _ = run(capsys, "activation-sums", "photos", "layer", "--maps", "out/class-maps/photos-layer", "--others", "photos")
    assert code == 0 and out.count("photos, 2 maps of ant: median mean of images of ant") == 2
    maps = ["--maps", "ant=0,1", "--maps", "bee=2"]
    code, out, _ = run(
        capsys, "detector", "photos", "layer", *maps, "--rule", "youden", "--draws", "20", "--outputs", "ant=0", "--outputs", "bee=1"
    )
    assert code == 0 and "18 images to fit" not in out and "12 images to fit, 12 to choose thresholds" in out
    loaded = cs.load("out/detector/photos-layer")
    assert isinstance(loaded, cs.Detector) and loaded.maps == {"ant": (0, 1), "bee": (2,)} and loaded.rule == "youden"
    code, out, _ = run(capsys, "detector-evaluation", "out/detector/photos-layer", "photos", "--out", "judged")
    assert code == 0 and "maps    recall 100.0 %" in out and Path("judged/figure.png").is_file()


def test_exemplars_profile_and_health(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "exemplars", "photos", "layer", "--units", "0,3-4", "--top", "2", "--label", "bee", "--no-crops", "--out", "x"
    )
    assert code == 0 and [line.split(":")[0] for line in out.splitlines()[:3]] == ["unit 0", "unit 3", "unit 4"]
    loaded = cs.load("x")
    assert loaded.images.shape == (3, 2) and loaded.crops.size == 0  # type: ignore[attr-defined]
    code, out, _ = run(capsys, "class-profile", "photos", "output", "--units", "bee")
    assert code == 0 and out.startswith("unit 1 bee: ")
    code, out, _ = run(capsys, "filter-health", "photos", "--layer", "layer")
    assert code == 0 and "0 of 8 units dead on 36 images" in out


def test_query_as_table_csv_and_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select label, count(*) as images from images group by label order by label nulls last"
    code, out, err = run(capsys, "query", "photos", sql)
    assert (code, err) == (0, "")
    assert [line.rstrip() for line in out.splitlines()] == ["label  images", "ant        12", "bee        12", "           12", "3 rows"]
    code, out, _ = run(capsys, "query", "photos", sql, "--csv")
    assert list(csv.reader(io.StringIO(out))) == [["label", "images"], ["ant", "12"], ["bee", "12"], ["", "12"]]
    code, out, _ = run(capsys, "query", "photos", sql, "--json")
    assert json.loads(out)[2] == {"label": None, "images": 12}
    code, out, _ = run(capsys, "query", "photos", "select * from values", "--rows", "3")
    assert len(out.splitlines()) == 5 and out.endswith("360 rows; the first 3 are shown, --rows, --csv or --json give more\n")


def test_dates_and_structs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select date '2020-01-02' as day, {'a': 1.5, 'b': [time '03:04:05']} as nested, 1.25::decimal(4, 2) as exact, 7 as day"
    wanted = {"day": "2020-01-02", "nested": {"a": 1.5, "b": ["03:04:05"]}, "exact": 1.25, "day_2": 7}
    assert json.loads(run(capsys, "query", "photos", sql, "--json")[1]) == [wanted]
    row = next(csv.DictReader(io.StringIO(run(capsys, "query", "photos", sql, "--csv")[1])))
    assert row["day"] == "2020-01-02" and json.loads(row["nested"]) == wanted["nested"]


def test_sums_of_whole_numbers_stay_whole(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DuckDB's sums are decimals of 38 digits: 630 became 630.0, and longer ones lost digits."""
    sql = f"select sum(image) as total, {2**100 + 1}::hugeint as long, sum(0.5::decimal(4, 2)) as halves from images"
    assert run(capsys, "query", "photos", sql, "--csv")[1].splitlines()[1] == f"630,{2**100 + 1},18"
    assert json.loads(run(capsys, "query", "photos", sql, "--json")[1]) == [{"total": 630, "long": 2**100 + 1, "halves": 18}]
    assert run(capsys, "query", "photos", sql, "--rows", "99999999999999999999")[0] == 0


def test_lists_and_bytes_and_nan(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select maximum, 'nan'::double as odd, 'ab'::blob as raw from rows where layer = 'layer' order by image limit 1"
    _, out, _ = run(capsys, "query", "photos", sql)
    assert "... 8 in all]" in out and "nan" in out and "2 bytes" in out
    row = json.loads(run(capsys, "query", "photos", sql, "--json")[1])[0]
    np.testing.assert_array_equal(np.float32(row["maximum"]), cs.read_survey("photos").maximum("layer")[0])
    assert row["odd"] is None and row["raw"] == "6162"
    assert json.loads(next(csv.DictReader(io.StringIO(run(capsys, "query", "photos", sql, "--csv")[1])))["maximum"]) == row["maximum"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["query", "nowhere", "select 1"], "error: nowhere: there is no such folder"),
        (["query", "photos", "select * from vals"], "error: query: Catalog Error: Table with name vals does not exist"),
        # further: -infinity, a timestamp, a list of dates; NULL, a lone half of a character, a path that is no UTF-8
        (
            ["query", "photos", "select 'infinity'::date as day", "--json"],
            "error: query: column day holds dates beyond the years 1 to 9999",
        ),
        (["query", "photos", "select ['290309-12-22 (BC)'::date] as day"], "error: query: column day holds dates beyond the years"),
        (["query", "photos", "select '\udcff'"], "error: query: DuckDB takes nothing but UTF-8"),
        (["query", "photos", "select 1", "--csv", "--json"], "error: --csv and --json exclude each other"),
        (["exemplars", "photos", "lay", "--units", "0"], "error: no layer 'lay' in this survey; near names: layer"),
        (["exemplars", "photos", "layer", "--units", "ant"], "error: layer layer has units 0 to 7, got 'ant'"),
        (["exemplars", "photos", "layer", "--units", "7-8"], "error: layer layer has units 0 to 7, got 8"),
        (["class-profile", "photos", "output", "--units", "cat"], "error: class 'cat' is unknown"),
        (["detector", "photos", "layer", "--maps", "photos"], "error: photos: is a survey, no result; open it with convscope.read_survey"),
        (["detector", "photos", "layer", "--maps", "ant=x"], "error: layer layer has units 0 to 7, got 'x'"),
        (["detector", "photos", "layer", "--maps", "ant", "--maps", "b=1"], "error: ant: expected NAME=VALUE"),
        (["filter-health", "photos", "--out", "photos"], "error: --out photos is there already; choose another folder"),
        (["detector-evaluation", "photos", "photos"], "error: photos: is a survey, no result; open it with convscope.read_survey"),
    ],
)
def test_mistakes_are_one_line(place: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    before = sorted(place.rglob("*"))
    code, out, err = run(capsys, *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith(message)
    assert sorted(place.rglob("*")) == before


def test_results_of_another_kind_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "filter-health", "photos", "--out", "health")
    assert run(capsys, "detector", "photos", "layer", "--maps", "health")[2].startswith(
        "error: Invalid value for --maps: health: holds a result of filter_health"
    )
    assert run(capsys, "detector-evaluation", "health", "photos")[2].startswith(
        "error: health: holds a result of filter_health, not of detector"
    )
