"""Whole scans: the same tables however the work is cut, interrupted or spread; damaged files; conflicts; Ray."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import convscope as cs
import hand_built
import networks
import scanned
from convscope.cluster import Cluster
from convscope.errors import BadImage, BadInput, StoreConflict
from convscope.progress import reporting
from convscope.scanner import on_ray
from convscope.scanner.files import LOCK, OutputFolder
from convscope.scanner.plan import Plan
from convscope.scanner.shard import ShardScanner, _bytes
from convscope.scope import Inputs, Scope
from convscope.survey.schema import MANIFEST, SCHEMAS
from scanned import files_of, folder_of, small_scope, table, values_of

ROOT = Path(__file__).resolve().parents[2]
COUNT = 30
KEYS = "schema technique images skipped shards summary_only top votes_per_image layers labels inputs plan"
"""Of the manifest, as `convscope.survey.schema` lists them."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted scan in shards of 4."""
    out = tmp_path_factory.mktemp("whole") / "survey"
    cs.scan(small_scope(), images, out, **HOW)
    return out


HOW: dict[str, Any] = {"shard_size": 4, "batch_size": 3, "top": 5, "votes_per_image": 2, "threads": 1}


# --- exactness


@pytest.mark.parametrize(
    "how", [{}, {"shard_size": 7, "batch_size": 2}, {"shard_size": 1}, {"batch_size": 1, "decoders": 2}, {"shard_size": 64}]
)
def test_top_is_a_global_sort_however_the_work_is_cut(images: Path, whole: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    cs.scan(small_scope(), images, tmp_path / "survey", **{**HOW, **how})
    rows = table(tmp_path / "survey", "top").to_pylist()
    labels = np.array(table(tmp_path / "survey", "images")["label"].to_pylist())
    for layer in ("2", "5", "output"):
        values = values_of(tmp_path / "survey", layer)
        np.testing.assert_allclose(values["maximum"], values_of(whole, layer)["maximum"], rtol=1e-5, atol=1e-6)
        for label in (None, *scanned.CLASSES):
            of = np.ones(len(labels), bool) if label is None else labels == label
            for channel in range(values["maximum"].shape[1]):
                found = [row for row in rows if (row["layer"], row["channel"], row["label"]) == (layer, channel, label)]
                expected = scanned.largest(values["maximum"][of, channel], values["image"][of], 5)
                assert [(row["value"], row["image"]) for row in found] == expected
                assert [row["rank"] for row in found] == list(range(len(expected)))
                assert [row["y"] for row in found] == [values["y"][image, channel] for _, image in expected]
                assert [row["x"] for row in found] == [values["x"][image, channel] for _, image in expected]


@pytest.mark.parametrize("how", [{"decoders": 0}, {"decoders": 3}])
def test_decoders_do_not_change_a_byte(images: Path, whole: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    cs.scan(small_scope(), images, tmp_path / "survey", **HOW, **how)
    assert files_of(tmp_path / "survey") == files_of(whole)


def test_the_order_of_images_only_renumbers_them(images: Path, whole: Path, tmp_path: Path) -> None:
    names = table(whole, "images")["name"].to_pylist()
    order = np.random.default_rng(0).permutation(COUNT)
    lines = ["path,label", *(f"{images / names[index]},{names[index].split('/')[0]}" for index in order)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    cs.scan(small_scope(), tmp_path / "list.csv", tmp_path / "survey", **HOW)
    for layer in ("2", "5", "output"):
        one, other = values_of(whole, layer), values_of(tmp_path / "survey", layer)
        np.testing.assert_allclose(one["maximum"][order], other["maximum"], rtol=1e-5, atol=1e-6)
    key = ["layer", "channel", "label", "rank"]
    before, after = (table(survey, "top").to_pandas().sort_values(key, ignore_index=True) for survey in (whole, tmp_path / "survey"))
    np.testing.assert_allclose(before["value"], after["value"], rtol=1e-5, atol=1e-6)
    one, other = (
        table(survey, "classes").to_pandas().sort_values(["layer", "channel", "label"]) for survey in (whole, tmp_path / "survey")
    )
    assert one["votes"].tolist() == other["votes"].tolist()


@pytest.mark.parametrize("labels", [["b", "a", "", "lone", "a", "c", "c", "Last", "", "a", "b"], [f"label {place}" for place in range(11)]])
def test_labels_of_one_image(images: Path, tmp_path: Path, labels: list[str]) -> None:
    """Tables leave them out where there are per-image values; the reader's tables and queries are whole, to the bits of summaries alone."""
    files = sorted(images.rglob("*.png"))[:11]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *(f"{file},{label}" for file, label in zip(files, labels, strict=True))]))
    whole = cs.scan(small_scope(), tmp_path / "list.csv", tmp_path / "whole", summary_only=True, **HOW)
    short = cs.scan(small_scope(), tmp_path / "list.csv", tmp_path / "short", **HOW)
    several = {label for label in labels if label and labels.count(label) > 1}
    assert set(table(tmp_path / "short", "classes")["label"].to_pylist()) == several
    assert set(table(tmp_path / "short", "top")["label"].to_pylist()) == {None, *several}
    assert whole.labels == short.labels == tuple(sorted({*labels} - {""}))
    for layer in short.layers:
        assert short.classes(layer).equals(whole.classes(layer)) and short.classes(layer).num_rows
        for label in (None, *short.labels):
            assert short.top(layer, label).equals(whole.top(layer, label)), label
    for view, order in (("classes", "layer, channel, label"), ("top", "layer, channel, label, rank")):
        query = f"select * from {view} order by {order}"
        assert short.query(query).equals(whole.query(query))


def test_the_articles_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cat images whose strongest maps are [1,2,4], [1,3,4], [1,5,6], a dog's [1,10]: cats give map 1 three votes, map 4 two."""
    chosen = {"cat/0.png": [1, 2, 4], "cat/1.png": [1, 3, 4], "cat/2.png": [1, 5, 6], "dog/0.png": [1, 10, 11]}
    lists = iter(chosen.values())

    class Maps(torch.nn.Module):
        """Eleven maps beside map 0, of which three are bright."""

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            made = values.mean((1, 2, 3), keepdim=True).expand(-1, 12, 2, 2) * 0
            if self.filling:
                for place in next(lists):
                    made[:, place] = made[:, place] + 1
            return made

    model = torch.nn.Sequential(Maps())
    model[0].filling = False
    scope = cs.Scope(model, cs.Inputs(8))
    assert scope.layers
    model[0].filling = True
    for name in chosen:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "white").save(tmp_path / "images" / name)
    cs.scan(scope, tmp_path / "images", tmp_path / "survey", layers=["0"], votes_per_image=3, batch_size=1)
    rows = cs.read_survey(tmp_path / "survey").classes("0").to_pylist()
    votes = {(row["label"], row["channel"]): row["votes"] for row in rows if row["votes"]}
    assert votes == {("cat", 1): 3, ("cat", 2): 1, ("cat", 3): 1, ("cat", 4): 2, ("cat", 5): 1, ("cat", 6): 1} | {
        ("dog", 1): 1,
        ("dog", 10): 1,
        ("dog", 11): 1,
    }


# --- what is written


def test_tables_have_the_declared_columns_and_any_reader_reads_them(whole: Path) -> None:
    for name, schema in SCHEMAS.items():
        path = whole / "values" / "00000.parquet" if name == "values" else whole / f"{name}.parquet"
        assert pq.read_schema(path).equals(schema), name
        rows = pq.read_table(path).num_rows
        assert duckdb.sql(f"select count(*) from '{path}'").fetchall() == [(rows,)]
        assert polars.read_parquet(path).height == rows
    assert duckdb.sql(f"select count(*) from '{whole}/values/*.parquet'").fetchall() == [(COUNT * 3,)]
    assert pq.ParquetFile(whole / "values" / "00000.parquet").num_row_groups == 3
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest.keys() >= set(KEYS.split()) | {"technique", "parameters", "network", "versions", "device", "precision"}
    assert (manifest["images"], manifest["skipped"], manifest["shards"]) == (COUNT, 0, 8)
    assert manifest["labels"] == list(scanned.CLASSES) and manifest["layers"] == ["2", "5", "output"]
    assert sorted(path.name for path in whole.iterdir()) == sorted(
        [*(f"{name}.parquet" for name in SCHEMAS if name != "values"), "manifest.json", "values"]
    )


def test_rows_are_sorted(whole: Path) -> None:
    order = {"2": 0, "5": 1, "output": 2}
    for name, key in (
        ("top", ["layer", "channel", "label", "rank"]),
        ("classes", ["layer", "channel", "label"]),
        ("channels", ["layer", "channel"]),
    ):
        rows = [
            tuple((row[column] is not None, order.get(row[column], row[column])) for column in key)
            for row in table(whole, name).to_pylist()
        ]
        assert rows == sorted(rows)


def test_summary_only_leaves_out_the_rows_and_nothing_else(images: Path, whole: Path, tmp_path: Path) -> None:
    cs.scan(small_scope(), images, tmp_path / "survey", **HOW, summary_only=True)
    found, full = files_of(tmp_path / "survey"), files_of(whole)
    assert found.keys() == {name for name in full if not name.startswith("values/")}
    assert {name for name in found if found[name] != full[name]} == {"manifest.json"}


def test_splits_domains_and_tars(tmp_path: Path) -> None:
    folder_of(tmp_path / "images", 4, split="val")
    cs.scan(small_scope(), tmp_path / "images", tmp_path / "one", domain="photo")
    rows = table(tmp_path / "one", "images").to_pylist()
    assert {(row["split"], row["domain"]) for row in rows} == {("val", "photo")}
    assert (rows[0]["height"], rows[0]["width"], rows[3]["height"], rows[3]["width"]) == (24, 24, 26, 26)  # ant 0, ant 3, bee 1, cat 2
    scanned.tar_of(tmp_path / "data.tar", 4)
    cs.scan(small_scope(), tmp_path / "data.tar", tmp_path / "two")
    named = dict(zip([row["name"].split("/")[-1] for row in rows], values_of(tmp_path / "one", "5")["maximum"], strict=True))
    tarred = table(tmp_path / "two", "images").to_pylist()
    for row, values in zip(tarred, values_of(tmp_path / "two", "5")["maximum"], strict=True):
        np.testing.assert_allclose(values, named[row["name"]], rtol=1e-5, atol=1e-6)


def test_a_survey_may_be_written_wherever_fsspec_reaches(images: Path, whole: Path) -> None:
    place = OutputFolder("memory://surveys/one")
    try:
        cs.scan(small_scope(), images, "memory://surveys/one", **HOW)
        for name, content in files_of(whole).items():
            if name != "manifest.json":
                assert place.open(name).read() == content, name
    finally:
        place.remove("")


def test_the_network_is_left_alone_also_after_an_exception(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = small_scope()
    hand_built.unsettle(scope.model)
    assert scope.layers
    before, threads = hand_built.state_of(scope.model), torch.get_num_threads()
    cs.scan(scope, images, tmp_path / "one", threads=2)
    assert hand_built.state_of(scope.model) == before and torch.get_num_threads() == threads

    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError("in mid-forward")

    monkeypatch.setattr(torch.nn.functional, "batch_norm", broken)
    with pytest.raises(ArithmeticError):
        cs.scan(scope, images, tmp_path / "two")
    assert hand_built.state_of(scope.model) == before


# --- resuming


class Stop(BaseException):
    """Ends a scan as a kill would, as far as one process can."""


def stopped_after(monkeypatch: pytest.MonkeyPatch, shards: int, values_too: bool = False) -> None:
    write = ShardScanner._write
    count = iter(range(10**6))

    def counted(self: ShardScanner, shard: int, held: Any) -> None:
        if next(count) == shards:
            if values_too:  # between a shard's two files
                monkeypatch.setattr("convscope.scanner.parts.to_table", lambda _: (_ for _ in ()).throw(Stop))
                write(self, shard, held)
            raise Stop
        write(self, shard, held)

    monkeypatch.setattr(ShardScanner, "_write", counted)


@pytest.mark.parametrize("values_too", [False, True])
def test_interrupted_and_resumed_equals_uninterrupted(images: Path, whole: Path, tmp_path: Path, values_too: bool) -> None:
    for shards in (0, 3, 2):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
            stopped_after(patch, shards, values_too)
            cs.scan(small_scope(), images, tmp_path / "survey", **HOW)
        assert not (tmp_path / "survey" / "manifest.json").exists()
    (tmp_path / "survey" / "parts" / ".tmp-0000-00007.parquet").write_bytes(b"half")
    cs.scan(small_scope(), images, tmp_path / "survey", **HOW)
    assert files_of(tmp_path / "survey") == files_of(whole)


def test_a_resumed_scan_keeps_its_threads_and_does_only_what_is_missing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {key: value for key, value in HOW.items() if key != "threads"}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        stopped_after(patch, 5)
        cs.scan(small_scope(), images, tmp_path / "survey", **how, threads=2)
    scope = small_scope()
    assert scope.layers
    before = scope.forwards
    cs.scan(scope, images, tmp_path / "survey", **how)
    assert scope.forwards - before == 5  # images 20 to 29 in shards of 4, 4 and 2, batches of 3
    assert json.loads((tmp_path / "survey" / "manifest.json").read_text())["plan"]["threads"] == 2
    cs.scan(scope, images, tmp_path / "survey", **how)
    assert scope.forwards - before == 5, "a finished scan is not done again"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"top": 6}, "top was 5, now 6"),
        ({"layers": ["2"]}, "layers was"),
        ({"summary_only": True}, "summary_only"),
        ({"domain": "x"}, "listing"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_question_in_the_same_folder_is_a_conflict(
    images: Path, tmp_path: Path, change: dict[str, Any], words: str, finished: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if finished:
        cs.scan(small_scope(), images, tmp_path / "survey", **HOW)
    else:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
            stopped_after(patch, 1)
            cs.scan(small_scope(), images, tmp_path / "survey", **HOW)
    before = files_of(tmp_path / "survey")
    with pytest.raises(StoreConflict, match=words):
        cs.scan(small_scope(), images, tmp_path / "survey", **{**HOW, **change})
    assert files_of(tmp_path / "survey") == before


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output": "features"}, 'output was "logits", now "features"'),
        ({"classes": list("vwxyz")}, "classes was"),
        ({"mean": 0.5}, "inputs.mean was"),
        ({"crop": None}, "inputs.crop was"),
    ],
)
def test_another_output_or_other_inputs_in_the_same_folder_are_a_conflict(
    images: Path, tmp_path: Path, change: dict[str, Any], words: str, finished: bool
) -> None:
    def ask(**more: Any) -> cs.Survey:
        inputs = {"size": 24, "classes": list("abcde")} | {key: value for key, value in more.items() if key != "output"}
        scope = Scope(networks.UNUSUAL["dict_output"](), Inputs(**inputs), precision="float32", output=more.get("output", "logits"))
        return cs.scan(scope, images, tmp_path / "survey", shard_size=4, threads=1)

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        if not finished:
            stack.enter_context(pytest.raises(Stop))
            stopped_after(patch, 1)
        ask()
    with pytest.raises(StoreConflict, match=words):
        ask(**change)
    assert ask().unit_names("output", [0, 4]) == ("a", "e")


def test_an_interrupted_scan_of_another_layout_is_a_conflict(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr("convscope.scanner.scan.VERSION", 1)
        stopped_after(patch, 1)
        cs.scan(small_scope(), images, tmp_path / "survey", **HOW)
    with pytest.raises(StoreConflict, match="schema was 1, now 3"):
        cs.scan(small_scope(), images, tmp_path / "survey", **HOW)


def test_a_layer_name_alone(images: Path, tmp_path: Path) -> None:
    survey = cs.scan(small_scope(), images, tmp_path / "survey", layers="2", decoders=0)
    assert isinstance(survey, cs.Survey) and list(survey.layers) == ["2", "output"]


@pytest.mark.parametrize("content", ["{", "[1]", "\x00", "[" * 5000])
@pytest.mark.parametrize("name", ["manifest.json", "plan.json"])
def test_a_damaged_folder_is_refused_in_one_line(images: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(StoreConflict, match=f"{name} is damaged .*; delete the folder, or choose another") as told:
        cs.scan(small_scope(), images, tmp_path, **HOW)
    assert "\n" not in str(told.value) and (tmp_path / name).read_text() == content


def test_other_files_are_not_mixed_with(images: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StoreConflict, match=r"holds other files \(letter.txt\)"):
        cs.scan(small_scope(), images, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.txt"]


# --- files that are no pictures


def damaged(folder: Path) -> int:
    """Forty files of every kind of damage, among whatever is there."""
    good = sorted(folder.rglob("*.png"))
    for number in range(8):
        data = good[number].read_bytes()
        (folder / f"cut{number}.png").write_bytes(data[: len(data) // 2])
        (folder / f"empty{number}.jpg").write_bytes(b"")
        (folder / f"text{number}.webp").write_text("no picture at all")
        Image.new("RGB", (4, 40)).save(folder / f"thin{number}.png")
        (folder / f"notes{number}.txt").write_text("remember")
    return 40


def test_forty_damaged_files_among_two_hundred_good_ones(tmp_path: Path) -> None:
    folder_of(tmp_path / "images", 200)
    good = {path.relative_to(tmp_path / "images").as_posix() for path in (tmp_path / "images").rglob("*.png")}
    count = damaged(tmp_path / "images")
    cs.scan(small_scope(), tmp_path / "images", tmp_path / "survey", shard_size=50)
    read, skipped = table(tmp_path / "survey", "images").to_pylist(), table(tmp_path / "survey", "skipped").to_pylist()
    assert {row["name"] for row in read} == good and len(read) == 200
    assert len(skipped) == count == 40
    reasons = {
        name: next(row["reason"] for row in skipped if row["name"].startswith(name)) for name in ("cut", "empty", "text", "thin", "notes")
    }
    assert "cannot be decoded" in reasons["cut"] and reasons["empty"] == "empty file" and reasons["text"] == "not an image file"
    assert reasons["thin"].startswith("4x40 pixels") and reasons["notes"] == "not an image file by its name"
    numbers = [row["image"] for row in read] + [row["image"] for row in skipped]
    assert sorted(numbers) == list(range(240))
    manifest = json.loads((tmp_path / "survey" / "manifest.json").read_text())
    assert (manifest["images"], manifest["skipped"]) == (200, 40)
    assert {row["images"] for row in table(tmp_path / "survey", "channels").to_pylist()} == {200}


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    with pytest.raises(BadImage, match="none of the 1 images can be read; the first: empty file"):
        cs.scan(small_scope(), tmp_path / "images", tmp_path / "survey")


def test_an_image_on_which_the_network_overflows_is_skipped(tmp_path: Path) -> None:
    folder_of(tmp_path / "images", 6)
    Image.new("RGB", (30, 30), "white").save(tmp_path / "images" / "white.png")
    model = hand_built.small()

    scope = cs.Scope(model, cs.Inputs(24, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)))
    assert scope.layers
    model[4].register_forward_pre_hook(lambda _m, a: (torch.where(flat(a[0]), torch.inf, a[0]),))
    cs.scan(scope, tmp_path / "images", tmp_path / "survey", batch_size=3)
    (row,) = table(tmp_path / "survey", "skipped").to_pylist()
    assert (row["name"], row["reason"]) == ("white.png", "the network gives no finite number at layer 5")
    rows = table(tmp_path / "survey", "channels")
    assert set(rows["images"].to_pylist()) == {6} and np.isfinite(rows["mean"].to_numpy()).all()


def flat(values: torch.Tensor) -> torch.Tensor:
    """Which images of a batch have the same values in the middle of their maps, as a white one does."""
    middle = values[:, :, 3:-3, 3:-3]
    return (middle.amax((2, 3)) - middle.amin((2, 3)) < 1e-4).all(1)[:, None, None, None]


# --- forecast and progress


class Notes:
    """Remembers what was said of the work."""

    def __init__(self) -> None:
        self.total, self.done, self.notes = 0, 0, list[str]()

    def begin(self, description: str, total: int) -> int:
        self.total = total
        return 0

    def advance(self, task: int, steps: int, note: str) -> None:
        self.done += steps
        self.notes.append(note)

    def end(self, task: int) -> None: ...


def test_time_and_disk_are_forecast_after_two_batches(images: Path, tmp_path: Path) -> None:
    notes = Notes()
    with reporting(notes):
        cs.scan(small_scope(), images, tmp_path / "survey", shard_size=8, batch_size=2)
    assert notes.total == notes.done == COUNT
    assert notes.notes[0] == "" and re.search(r", \d+(\.\d)? kB on disk", notes.notes[1])


def test_a_disk_that_is_too_small_is_said_before_going_on(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OutputFolder, "free", lambda _: 1000)
    with pytest.raises(BadInput, match=r"will take about .* kB, but 1,000 bytes are free; .* summary_only=True"):
        cs.scan(small_scope(), images, tmp_path / "survey", shard_size=8, batch_size=2)
    assert not list((tmp_path / "survey").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.0 kB"),
        (10**5, "98 kB"),
        (3 * 2**30, "3.0 GB"),
        (2**45, "32 TB"),
        (2**60, "1,048,576 TB"),
    ],
)
def test_sizes_are_said_in_a_unit_that_fits(size: int, words: str) -> None:
    assert _bytes(size) == words


# --- two scans, and a folder that goes away


HOLD = """
import sys, time
from pathlib import Path
from convscope.scanner.files import OutputFolder
with OutputFolder(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_scans_on_one_folder(images: Path, whole: Path, tmp_path: Path) -> None:
    """Further ones: a thread of the same process, a lock file left by a kill, a folder that a finished scan holds, two commands at once."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "survey")], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(StoreConflict, match="survey: another scan is writing to it; wait until it is done"):
        cs.scan(small_scope(), images, tmp_path / "survey")
    kill(holder)
    holder.stdout.close()
    assert (tmp_path / "survey" / LOCK).exists(), "a kill leaves the file, not the lock"
    cs.scan(small_scope(), images, tmp_path / "survey", shard_size=8)
    assert not (tmp_path / "survey" / LOCK).exists()
    with OutputFolder(str(tmp_path / "survey")).locked():
        cs.scan(small_scope(), images, tmp_path / "survey", shard_size=8)  # a finished survey is read only


REMOVED_AT = {
    "first shard": "values/00000.parquet",
    "second shard": "values/00001.parquet",
    "tables": "layers.parquet",
    "manifest": MANIFEST,
}


@pytest.mark.parametrize(
    ("when", "all_of_it"), [("first shard", True), ("second shard", False), ("tables", True), ("tables", False), ("manifest", True)]
)
def test_a_folder_that_is_removed_meanwhile(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, all_of_it: bool
) -> None:
    """Removed as a whole, or as by `rm -r` that cannot remove a folder in which a file appears. Further ones: the parts alone, twice."""
    out, real = tmp_path / "survey", OutputFolder.writing

    @contextmanager
    def writing(self: OutputFolder, name: str) -> Iterator[Any]:
        if name == REMOVED_AT[when]:
            if all_of_it:
                shutil.rmtree(out)
            else:
                (out / "plan.json").unlink()
                (out / LOCK).unlink()
        with real(self, name) as file:
            yield file

    with monkeypatch.context() as patched:
        patched.setattr(OutputFolder, "writing", writing)
        with pytest.raises(StoreConflict, match="survey: was removed while this scan was writing to it; run it again"):
            cs.scan(small_scope(), images, out, shard_size=8)
    assert not out.exists()
    cs.scan(small_scope(), images, out, shard_size=8)
    assert (out / MANIFEST).exists()


def test_a_folder_that_another_scan_takes_meanwhile(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "survey", Plan.check_still_in

    def check(self: Plan, folder: OutputFolder) -> None:
        (out / "plan.json").write_text('{"of": "another"}')
        real(self, folder)

    monkeypatch.setattr(Plan, "check_still_in", check)
    with pytest.raises(StoreConflict, match="came into use by another scan"):
        cs.scan(small_scope(), images, out, shard_size=8)
    assert not list(out.rglob("*.parquet")) and (out / "plan.json").exists()


# --- kill -9

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import torch
torch.set_num_threads(1)
import convscope as cs, scanned
if __name__ == "__main__":
    cs.scan(scanned.small_scope(), {images!r}, {out!r}, shard_size=4, batch_size=3, top=5, votes_per_image=2, threads=1, **{more!r})
"""


def started(images: Path, out: Path, more: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A scan in a process group of its own, so that all of it can be killed."""
    script = SCRIPT.format(tests=str(ROOT / "tests"), images=str(images), out=str(out), more=more)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=True, stderr=subprocess.PIPE)


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)  # the scan alone: its decoders must end by themselves
    process.communicate()


def killed_again_and_again(images: Path, out: Path, more: dict[str, Any], seed: int) -> int:
    """Kills a scan at random moments until it is through; the number of kills."""
    generator, kills = np.random.default_rng(seed), 0
    while not (out / "manifest.json").exists():
        process = started(images, out, more)
        parts, before = out / "parts", len(list((out / "parts").glob("*"))) if (out / "parts").exists() else 0
        allowed = int(generator.integers(0, 12))
        while process.poll() is None:
            if kills < 20 and parts.exists() and len(list(parts.glob("*"))) >= before + allowed:
                time.sleep(float(generator.uniform(0, 0.02)))
                break
            time.sleep(0.001)
        if process.poll() is not None:
            _, errors = process.communicate()
            assert process.returncode == 0, errors.decode()
            break
        kill(process)
        kills += 1
    return kills


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    folder_of(tmp_path / "images", 300)
    damaged(tmp_path / "images")
    cs.scan(small_scope(), tmp_path / "images", tmp_path / "whole", **HOW)
    kills = killed_again_and_again(tmp_path / "images", tmp_path / "survey", {}, seed=1)
    assert kills == 20
    assert files_of(tmp_path / "survey") == files_of(tmp_path / "whole")


def test_one_kill(images: Path, whole: Path, tmp_path: Path) -> None:
    process = started(images, tmp_path / "survey", {})
    while process.poll() is None and not list((tmp_path / "survey" / "parts").glob("0000[2-9]*")):
        time.sleep(0.001)
    kill(process)
    cs.scan(small_scope(), images, tmp_path / "survey", **HOW)
    assert files_of(tmp_path / "survey") == files_of(whole)


# --- Ray


class Actors:
    """The processes of a Ray scan, so that they can be killed."""

    def __init__(self, ray: Any, patch: pytest.MonkeyPatch) -> None:
        self.ray, self.handles = ray, list[Any]()
        started = Cluster._started

        def watched(cluster: Cluster, *more: Any) -> Any:
            self.handles.append(started(cluster, *more))
            return self.handles[-1]

        patch.setattr(Cluster, "_started", watched)

    def pid(self, index: int) -> int:
        """The process that holds an actor; waits until it is up and between two shards."""
        return self.ray.get(self.handles[index].__ray_call__.remote(lambda _: os.getpid()))


@pytest.mark.filterwarnings("ignore")
def test_two_ray_workers_of_which_one_is_killed_give_the_same_bytes(
    ray_here: Any, images: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actors = Actors(ray_here, monkeypatch)
    victims: list[int] = []

    class Killer(Notes):
        """Kills a worker when the second shard is done."""

        def advance(self, task: int, steps: int, note: str) -> None:
            super().advance(task, steps, note)
            if len(self.notes) == 2:
                assert len(actors.handles) == 2
                victims.append(actors.pid(0))
                os.kill(victims[0], signal.SIGKILL)

    notes = Killer()
    with reporting(notes):
        cs.scan(small_scope(), images, tmp_path / "survey", **HOW, ray="auto", actors=2, decoders=1)
    assert victims and notes.done == COUNT and len(actors.handles) == 3
    assert files_of(tmp_path / "survey") == files_of(whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_twenty_kills_of_ray_workers_lose_nothing(ray_here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "images", 1200)
    damaged(tmp_path / "images")
    cs.scan(small_scope(), tmp_path / "images", tmp_path / "whole", **HOW)
    monkeypatch.setattr("convscope.cluster.TRIES", 100)
    actors, generator, victims = Actors(ray_here, monkeypatch), np.random.default_rng(7), set[int]()

    class Killer(Notes):
        """Kills a worker a random moment after every twelfth shard."""

        def advance(self, task: int, steps: int, note: str) -> None:
            super().advance(task, steps, note)
            if len(self.notes) % 12 == 0 and len(victims) < 20:
                for index in (-int(generator.integers(1, 3)), -1, -2):
                    try:
                        pid = actors.pid(index)
                    except ray_here.exceptions.RayActorError:  # it was killed a moment ago
                        continue
                    if pid not in victims:
                        victims.add(pid)
                        threading.Timer(float(generator.uniform(0, 0.2)), os.kill, (pid, signal.SIGKILL)).start()
                        break

    with reporting(Killer()):
        cs.scan(small_scope(), tmp_path / "images", tmp_path / "survey", **HOW, ray="auto", actors=2, decoders=1)
    assert len(victims) == 20 and len(actors.handles) == 22
    assert files_of(tmp_path / "survey") == files_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_shard_that_ends_every_process_ends_the_scan_with_a_line(
    ray_here: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly:
        """Dies of every shard."""

        def __init__(self, *_: Any) -> None: ...

        def shard(self, *_: Any) -> None:
            os._exit(1)

    monkeypatch.setattr(on_ray, "Actor", Deadly)
    monkeypatch.setattr("convscope.cluster.TRIES", 1)
    with pytest.raises(BadInput, match="ended 1 processes"):
        cs.scan(small_scope(), images, tmp_path / "survey", **HOW, ray="auto", actors=1)
