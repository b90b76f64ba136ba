"""A survey opened for reading: arrays, tables, SQL, pictures, and what is said when something is not there."""

from __future__ import annotations

import io
import json
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import convscope as cs
from convscope.errors import BadImage, BadInput, ConvscopeError, LayerNotFound, StoreConflict, UnitNotFound
from convscope.preprocessing import Preprocessing
from convscope.survey.files import _interruptible
from convscope.survey.originals import read_original
from made import SIDE, drawn, made

MAPS = {"first": drawn(11, 6, 4, 5), "second": drawn(11, 3, 2, 2, seed=1)}
LABELS = ["b", "a", None, "b", "a", "c", "c", "b", None, "a", "b"]
IDS = [0, 1, 2, 4, 5, 6, 9, 10, 11, 12, 13]  # what was skipped leaves its number unused


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    output = np.random.default_rng(3).normal(size=(11, 3))
    return made(tmp_path_factory.mktemp("survey") / "s", MAPS, LABELS, output=output, ids=IDS, shards=3, classes=["ant", "bee", "cat"])


def test_what_a_survey_says_of_itself(survey: cs.Survey) -> None:
    assert repr(survey).endswith("s': made, 11 images of 3 labels, 3 layers)")
    assert len(survey) == 11 and survey.labels == ("a", "b", "c") and list(survey.layers) == ["first", "second", "output"]
    assert survey.ids.tolist() == IDS and survey.names[3] == "b/4.png"
    assert survey.truth.tolist() == [1, 0, -1, 1, 0, 2, 2, 1, -1, 0, 1]
    assert survey.layer("first").channels == 6 and survey.layer("first").rectified and not survey.layer("output").rectified
    assert survey.skipped.to_pylist()[0]["reason"] == "not an image file"


@pytest.mark.parametrize("layer", MAPS)
def test_arrays_are_the_maps_reduced(survey: cs.Survey, layer: str) -> None:
    maps = MAPS[layer]
    maximum, mean, positions = survey.maximum(layer), survey.mean(layer), survey.positions(layer)
    assert maximum.dtype == mean.dtype == np.float32
    np.testing.assert_array_equal(maximum, maps.max((2, 3)))
    np.testing.assert_allclose(mean, maps.mean((2, 3)), rtol=1e-6)
    for image, channel in np.ndindex(*maximum.shape):
        y, x = positions[image, channel]
        assert (y * maps.shape[3] + x) == maps[image, channel].argmax()


def test_shards_and_row_groups_in_any_order_give_the_same(survey: cs.Survey, tmp_path: Path) -> None:
    shutil.copytree(survey.path, tmp_path / "s")
    shards = sorted((tmp_path / "s" / "values").iterdir())
    tables = [pq.read_table(path) for path in shards]
    for path in shards:
        path.unlink()
    rows = pa.concat_tables(tables)
    pq.write_table(rows.take(np.random.default_rng(0).permutation(rows.num_rows)), shards[0], row_group_size=5)
    other = cs.read_survey(tmp_path / "s")
    for name in ("maximum", "mean", "positions"):
        np.testing.assert_array_equal(getattr(other, name)("first"), getattr(survey, name)("first"))


def test_tables(survey: cs.Survey) -> None:
    assert survey.channels("second")["channel"].to_pylist() == [0, 1, 2]
    assert survey.classes("second").num_rows == 9
    assert set(survey.top("first")["label"].to_pylist()) == {None}
    assert survey.top("first", "c").num_rows == 6 * 2


def test_units(survey: cs.Survey) -> None:
    assert survey.units("first", None) == list(range(6)) and survey.units("first", slice(4, None)) == [4, 5]
    assert survey.units("first", 2) == [2] and survey.units("output", ["cat", 0]) == [2, 0] and survey.units("output", "bee") == [1]
    assert survey.unit_names("output", [2]) == ("cat",) and survey.unit_names("first", [2]) == ("",)


def test_fields(survey: cs.Survey) -> None:
    rows, columns = survey.layer("first").field_rows, survey.layer("first").field_columns
    boxes = survey.receptive_fields("first", np.array([[[0, 0]], [[3, 4]]]))
    assert boxes[0, 0].tolist() == [rows[0, 0], columns[0, 0], rows[0, 1], columns[0, 1]]
    assert boxes[1, 0].tolist() == [rows[3, 0], columns[4, 0], rows[3, 1], columns[4, 1]]
    assert survey.receptive_fields("output", np.array([0, 0])).tolist() == [0, 0, SIDE, SIDE]
    with pytest.raises(BadInput, match="a map of 4 x 5, got positions outside"):
        survey.receptive_fields("first", np.array([4, 0]))


# --- SQL


def test_long_and_list_form(survey: cs.Survey) -> None:
    long = survey.query("select * from values where layer = 'first' order by image, channel")
    np.testing.assert_array_equal(long["maximum"].to_numpy().reshape(11, 6), survey.maximum("first"))
    np.testing.assert_array_equal(long["y"].to_numpy().reshape(11, 6), survey.positions("first")[..., 0])
    assert long["channel"].to_pylist()[:7] == [0, 1, 2, 3, 4, 5, 0]
    assert survey.query("select len(mean) as n from rows where layer = 'second'")["n"].to_pylist() == [3] * 11


def test_every_view(survey: cs.Survey) -> None:
    counts = {"images": 11, "skipped": 1, "layers": 3, "channels": 12, "classes": 36, "rows": 33, "values": 132}
    for view, count in counts.items():
        assert survey.query(f"select count(*) as n from {view}")["n"].to_pylist() == [count], view
    joined = survey.query("select t.value, v.maximum from top t join values v using (image, layer, channel)")
    assert joined.num_rows == survey.query("select * from top").num_rows
    assert joined["value"].to_pylist() == joined["maximum"].to_pylist()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("select", "query: Parser Error"),
        ("select * from picture", "Table with name picture does not exist"),
        ("select label from layers", 'Referenced column "label" not found'),
    ],
)
def test_wrong_queries_are_one_line(survey: cs.Survey, sql: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as raised:
        survey.query(sql)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{folder}/images.parquet'",
        "select 1; drop view images",
        "attach '{folder}/new.db'",
        "install httpfs",
        "create table t as select 1",
        "set enable_external_access = true",
        "select * from read_csv('/etc/hostname')",
        "select * from read_text('/etc/hostname')",
        "select * from glob('/etc/*')",
        "select * from read_parquet('{outside}')",
        # further
        "select * from read_blob('{folder}/../outside.parquet')",
        "select * from parquet_metadata('{outside}')",
        "select * from sniff_csv('/etc/hostname')",
        "select * from duckdb_secrets()",
        "select * from query('copy images to ''{outside}''')",
        "select * from 'https://example.org/a.csv'",
        "select * from duckdb_extensions()",
        "call pragma_version()",
        "export database '{folder}/copy'",
        "",
    ],
)
def test_a_query_reads_the_survey_and_nothing_else(tmp_path: Path, sql: str) -> None:
    survey = made(tmp_path / "s", {"layer": drawn(4, 3, 2, 2)}, [None] * 4)
    outside = tmp_path / "outside.parquet"
    outside.write_bytes((tmp_path / "s" / "images.parquet").read_bytes())
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    with pytest.raises(BadInput, match="query: ") as raised:
        survey.query(sql.format(folder=survey.path, outside=outside))
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before


@pytest.mark.parametrize("name", ["run*", "run [1]", "a?", "it's", "{a,b}", "a\nb", "con::x"])
def test_a_survey_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """What DuckDB would take for a pattern is a name; a neighbour that fits the pattern is not read."""
    made(tmp_path / "a1", {"layer": drawn(4, 3, 2, 2)}, [None] * 4)
    for neighbour in ("run 1", "run1"):
        shutil.copytree(tmp_path / "a1", tmp_path / neighbour)
    survey = made(tmp_path / name, {"layer": drawn(5, 3, 2, 2)}, [None] * 5)
    assert survey.query("select count(distinct image) as n from values join images using (image)")["n"].to_pylist() == [5]


@contextmanager
def interrupted(after: float, then: float = 0.5) -> Iterator[None]:
    """Ctrl-C after some seconds, and again every half second: one that comes in a destructor is lost."""
    ended = threading.Event()

    def interrupt() -> None:
        wait = after
        while not ended.wait(wait):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            wait = then

    def stop(*_: object) -> None:
        if not ended.is_set():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    sender = threading.Thread(target=interrupt)
    sender.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        ended.set()
        sender.join()
        signal.signal(signal.SIGINT, before)


def test_a_query_without_end_ends_with_ctrl_c(survey: cs.Survey) -> None:
    """Most threads of DuckDB never look for signals: before, a query mostly went on."""
    endless = "with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t"
    for sql in (endless, "select sum(range) from range(1000000000000)"):
        with interrupted(0.5):
            survey.query(sql)
    assert survey.query("select 1 as a").num_rows == 1


def test_ctrl_c_before_a_query_has_begun_ends_it() -> None:
    """DuckDB forgets an interrupt that comes too early; also tried: at once, while it is bound, while its result is read."""
    with duckdb.connect() as connection:
        begun = time.monotonic()

        def late() -> pa.Table:
            time.sleep(0.3)
            return connection.sql("select sum(range) from range(30000000000)").to_arrow_table()

        with interrupted(0.1, 60):
            _interruptible(connection, late)
        assert time.monotonic() - begun < 5


def test_columns_of_one_name_are_numbered(survey: cs.Survey) -> None:
    assert survey.query("select 1 as a, 2 as a, 3 as a_2, 4 as a").to_pylist() == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]


# --- pictures


@pytest.mark.parametrize("crop", [1.0, 0.875, None])
def test_pictures_are_what_the_network_was_fed(tmp_path: Path, crop: float | None) -> None:
    survey = made(tmp_path / "s", MAPS, LABELS, ids=IDS, crop=crop)
    inputs = cs.Inputs(size=SIDE, crop=crop)
    for image in (0, 4, 13):
        picture = survey.read_image(image)
        assert picture.dtype == np.float32
        np.testing.assert_array_equal(picture, inputs(tmp_path / "s" / "pictures" / f"{image}.png").numpy())


def test_photographs_are_what_the_network_was_fed(shared: Callable[[str], Path]) -> None:
    inputs = cs.Inputs(size=(96, 128), crop=0.875, interpolation="bicubic")
    how = Preprocessing((96, 128), "bicubic", 0.875)
    for path in sorted(shared("images/imagenet-sample").glob("*.jpg"))[:4]:
        np.testing.assert_array_equal(read_original(str(path), how), inputs(path).numpy())


def test_draft_decoding_is_close_to_full(shared: Callable[[str], Path]) -> None:
    path = str(shared("images/imagenet-sample") / "n01443537_goldfish.jpg")
    full, draft = (read_original(path, Preprocessing((48, 48), "bilinear", 1.0, each)) for each in (False, True))
    assert 0 < np.abs(full - draft).mean() < 0.02


def test_pictures_in_tar_shards_and_in_memory(survey: cs.Survey, tmp_path: Path) -> None:
    path = survey.images["path"][3].as_py()
    with tarfile.open(tmp_path / "odd [1].tar", "w") as archive:
        for name in ("a/x.png", "a/y.png"):
            archive.add(path if name.endswith("y.png") else survey.images["path"][0].as_py(), name)
    np.testing.assert_array_equal(read_original(f"{tmp_path}/odd [1].tar::a/y.png", survey.preprocessing), survey.read_image(4))
    with pytest.raises(BadImage, match="the tar shard has no such member"):
        read_original(f"{tmp_path}/odd [1].tar::a/z.png", survey.preprocessing)
    fsspec.filesystem("memory").pipe("/framed/y.png", Path(path).read_bytes())
    np.testing.assert_array_equal(read_original("memory://framed/y.png", survey.preprocessing), survey.read_image(4))


def test_pictures_that_are_gone(survey: cs.Survey, tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="no such file; the survey remembers it"):
        read_original(str(tmp_path / "nothing.png"), survey.preprocessing)
    with pytest.raises(BadImage, match="no such file"):
        read_original(f"{tmp_path}/nothing.tar::x.png", survey.preprocessing)
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3)).save(buffer, "PNG")
    (tmp_path / "tiny.png").write_bytes(buffer.getvalue())
    with pytest.raises(BadImage, match=r"tiny\.png: 3x3 pixels, too small"):
        read_original(str(tmp_path / "tiny.png"), survey.preprocessing)
    with pytest.raises(BadInput, match="has no image 3"):
        survey.read_image(3)


# --- elsewhere, and not there


def test_a_survey_on_another_file_system(survey: cs.Survey) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(survey.path, "/elsewhere/s", recursive=True)
    other = cs.read_survey("memory://elsewhere/s")
    np.testing.assert_array_equal(other.maximum("first"), survey.maximum("first"))
    assert other.query("select count(*) as n from values") == survey.query("select count(*) as n from values")


def test_summaries_only(tmp_path: Path) -> None:
    survey = made(tmp_path / "s", MAPS, LABELS, summary_only=True)
    assert repr(survey).endswith("summaries only)")
    assert survey.query("select count(*) as n from top").num_rows == 1 and survey.channels("first").num_rows == 6
    with pytest.raises(BadInput, match="holds summaries only, no per-image values"):
        survey.mean("first")
    with pytest.raises(BadInput, match="summaries only: no views rows and values"):
        survey.query("select * from values")


def broken(survey: cs.Survey, folder: Path, how: str) -> Path:
    shutil.copytree(survey.path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    if how in ("schema", "technique"):
        (folder / "manifest.json").write_text(json.dumps(manifest | {how: 7 if how == "schema" else "spectrum"}))
    elif how == "unfinished":
        (folder / "manifest.json").unlink()
    elif how == "json":
        (folder / "manifest.json").write_text("{")
    return folder


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("schema", "a survey of layout 7; this convscope reads layout 3: scan again"),
        ("technique", "is no survey, but a result of spectrum"),
        ("unfinished", r"holds no finished survey \(manifest.json is missing; run the scan again to resume it\)"),
        ("json", "manifest.json cannot be read"),
    ],
)
def test_what_is_no_survey(survey: cs.Survey, tmp_path: Path, how: str, words: str) -> None:
    with pytest.raises(StoreConflict, match=words):
        cs.read_survey(broken(survey, tmp_path / "s", how))


def test_no_folder_and_no_file_system(tmp_path: Path) -> None:
    with pytest.raises(StoreConflict, match="there is no such folder"):
        cs.read_survey(tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"^nonsense://x: nonsense URLs are not read"):
        cs.read_survey("nonsense://x")


def test_damage_is_noticed(survey: cs.Survey, tmp_path: Path) -> None:
    folder = broken(survey, tmp_path / "s", "not")
    shards = sorted((folder / "values").iterdir())
    kept = shards[1].read_bytes()
    shards[1].unlink()
    with pytest.raises(StoreConflict, match="4 images are missing or double"):
        cs.read_survey(folder).maximum("first")
    shards[1].write_bytes(kept)
    (folder / "values" / "00009.parquet").write_bytes(kept)
    with pytest.raises(StoreConflict, match="4 images are missing or double"):
        cs.read_survey(folder).maximum("first")
    shards[1].write_bytes(kept[:100])
    with pytest.raises(StoreConflict, match="values/ is damaged"):
        cs.read_survey(folder).maximum("first")
    (folder / "channels.parquet").unlink()
    with pytest.raises(StoreConflict, match=r"channels\.parquet is missing"):
        cs.read_survey(folder).channels("first")


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda s: s.maximum("frist"), LayerNotFound, "no layer 'frist' in this survey; near names: first"),
        (lambda s: s.units("first", 6), UnitNotFound, "layer first has units 0 to 5, got 6"),
        (lambda s: s.units("first", []), UnitNotFound, "is empty"),
        (lambda s: s.units("first", "ant"), UnitNotFound, "got 'ant'"),
        (lambda s: s.units("output", "dog"), BadInput, "class 'dog' is unknown"),
        (lambda s: s.top("first", "d"), BadInput, "has no label 'd': it has a, b, c"),
        (
            lambda s: cs.exemplars("s", "first", 0),
            BadInput,
            r"survey must be a survey, as convscope.read_survey\(folder\) gives it, got str",
        ),
    ],
)
def test_wrong_questions(survey: cs.Survey, ask: Callable[[cs.Survey], object], error: type[ConvscopeError], words: str) -> None:
    with pytest.raises(error, match=words):
        ask(survey)


def number(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    """A table whose column holds another value in the first row."""

    def changed(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        field = table.schema.field(name)
        return table.set_column(table.column_names.index(name), field, pa.array([value, *values[1:]], field.type))

    return changed


def no_text(table: pa.Table) -> pa.Table:
    """Labels that are no UTF-8."""
    place = table.column_names.index("label")
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\x94")])
    return table.set_column(place, table.schema.field("label"), pa.chunked_array([bad, table["label"].combine_chunks()[1:]]))


@pytest.mark.parametrize(
    ("table", "how", "ask", "words"),
    [
        ("layers", number("channels", 2**31 - 1), lambda s: s.layers, "channels, map and receptive fields"),
        ("top", number("rank", 2**31 - 1), lambda s: s.top("first"), "has ranks beyond the"),
        ("top", number("rank", -1), lambda s: s.top("first"), "has ranks beyond the"),
        ("images", no_text, lambda s: s.truth, "images.parquet is damaged"),
        ("classes", number("label", None), lambda s: cs.class_maps(s, "first"), "column label has missing values"),
        ("channels", number("mean", None), lambda s: s.channels("first"), "column mean has missing values"),
    ],
    ids=["channels", "rank", "rank below zero", "text", "no label", "no mean"],
)
def test_numbers_and_text_that_cannot_be(
    survey: cs.Survey, tmp_path: Path, table: str, how: Callable[[pa.Table], pa.Table], ask: Callable[[cs.Survey], object], words: str
) -> None:
    folder = broken(survey, tmp_path / "s", "not")
    file = folder / f"{table}.parquet"
    pq.write_table(how(pq.read_table(file)), file)
    with pytest.raises(StoreConflict, match=words):
        ask(cs.read_survey(folder))
