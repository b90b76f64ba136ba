"""Fuzzing of what reads files: weights, images, surveys, receipts and results.

Each reader gets files made of valid ones by small and hostile changes, and may raise convscope's own errors and nothing else. It may not
write outside its folder, start a process or open a connection, and ends within :data:`SLOW` seconds; the long run also bounds memory::

    nice -n 15 python tests/fuzz_readers.py images --minutes 10

`tests/test_fuzz.py` does a short run of each, the same at every call.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyStrategyDefinition
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import convscope as cs
import hand_built
import made
from convscope.errors import BadImage, ConvscopeError
from convscope.image_files import find_images, read_bytes
from convscope.preprocessing import Preprocessing
from convscope.receipts import png_bytes, read_receipt
from convscope.survey.schema import SCHEMAS
from convscope.text import visible
from convscope.zoo.weights import load_weights

MEMORY = 2 * 2**30
"""Bytes that a reader may take, beyond what the process has when the run begins."""
SLOW, STUCK = 20.0, 300.0
"""Seconds of computation, and of waiting, after which a reader counts as endless."""
UNHURRIED: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
"""Settings of hypothesis: inputs are made, and neither stored nor shrunk."""
Draw = Callable[[st.SearchStrategy[Any]], Any]

NUMBERS = [0, -1, 1, 2, 7, 255, 2**16, 200_000, 2**31 - 1, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320]
OTHERS: list[Any] = [
    None,
    True,
    False,
    "",
    "a",
    "nan",
    "../../x",
    "/dev/zero",
    "\x1b[31m",
    "\ud800",
    "::",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
]


_PLACES = st.integers(0, 2**20)


class Escaped(Exception):
    """A reader did what no file may make it do."""


# --- changes


def bytes_changed(draw: Draw, data: bytes) -> bytes:
    """Bytes with up to four parts changed, cut, repeated, or replaced by numbers that programs trip over."""
    for _ in range(draw(st.integers(0, 4))):
        if not data:
            return data
        at = draw(_PLACES) % len(data)
        match draw(st.integers(0, 6)):
            case 0:
                data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[at + draw(st.integers(1, 64)) :]
            case 2:
                data = data[:at] + draw(st.binary(min_size=1, max_size=32)) + data[at:]
            case 3:
                length = draw(st.integers(1, 256))
                data = data[: at + length] + data[at:]
            case 4:
                data = data[:at]
            case 5:
                form = draw(st.sampled_from([">I", "<I", "<Q", ">H", "<H"]))
                value = draw(st.sampled_from([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**62]))
                value %= 2 ** (8 * struct.calcsize(form))
                data = data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]
            case _:
                other = draw(_PLACES) % len(data)
                data = data[:at] + data[other : other + 64] + data[at + 64 :]
    return data


def json_changed(draw: Draw, value: Any) -> Any:
    """JSON with one to three values somewhere inside replaced, removed or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        here = value
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(here[key], (dict, list)) and here[key] and draw(st.integers(0, 3)):
                here = here[key]
                continue
            match draw(st.integers(0, 9)):
                case 0:
                    del here[key]
                case 1 if isinstance(here, list):
                    here.insert(key, here[key])
                case 1:
                    here[f"{key}x"] = here.pop(key)
                case 2 if isinstance(here[key], (int, float)) and not isinstance(here[key], bool):
                    here[key] = here[key] * draw(st.sampled_from([-1, 2, 10, 1000]))
                case 3:
                    here[key] = deep(draw(st.sampled_from([50, 99, 500, 5000])))
                case _:
                    here[key] = draw(st.sampled_from([*NUMBERS, *OTHERS]))
            break
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def dumped(value: Any) -> str:
    """JSON of any depth; NaN and halves of characters as JSON programs write them."""
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):  # too deep, or a value that was put into itself
        return "[" * 5000 + "1" + "]" * 5000


# --- weights


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5))


def weights(draw: Draw, folder: Path) -> None:
    """Files of weights: PyTorch's zip, its pickle changed inside, its older format, safetensors."""
    state = network().state_dict()
    wrapped: list[Any] = [state, {"state_dict": state, "state_dict_ema": state, "epoch": 1}, {"model": {"a": state}, "o": [state]}]
    content = draw(st.sampled_from(wrapped))
    kind = draw(st.sampled_from(["zip", "pickle inside", "older", "safetensors", "header"]))
    path = folder / ("w.safetensors" if kind in ("safetensors", "header") else "w.pth")
    if kind in ("zip", "pickle inside", "older"):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=kind != "older")
        data = buffer.getvalue()
        if kind == "pickle inside":
            packed = io.BytesIO()
            with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
                for entry in old.infolist():
                    inside = old.read(entry)
                    new.writestr(entry.filename, bytes_changed(draw, inside) if entry.filename.endswith("data.pkl") else inside)
            data = packed.getvalue()
        else:
            data = bytes_changed(draw, data)
    else:
        save_file(state, path, {"classes": '["a", "b", "c", "d", "e"]'})
        data = path.read_bytes()
        if kind == "header":
            (length,) = struct.unpack("<Q", data[:8])
            header = dumped(json_changed(draw, json.loads(data[8 : 8 + length]))).encode("utf-8", "replace")
            data = struct.pack("<Q", len(header)) + header + data[8 + length :]
        else:
            data = bytes_changed(draw, data)
    path.write_bytes(data)
    load_weights(network(), f"{path}{draw(st.sampled_from(['', '', '::ema', '::model/a', '::0']))}")


# --- images


def _seeds() -> list[tuple[str, bytes]]:
    """Small images of every format and mode, as (suffix, bytes)."""
    values = np.random.default_rng(0).integers(0, 256, (19, 23, 4), np.uint8)
    rgba = Image.fromarray(values)
    saved: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("jpg", rgba.convert("RGB"), {}),
        ("jpg", rgba.convert("CMYK"), {"progressive": True}),
        ("png", rgba, {}),
        ("png", rgba.convert("P"), {"transparency": 3}),
        ("png", Image.fromarray(values[..., 0].astype(np.uint16) * 257), {}),
        ("tif", rgba.convert("RGB"), {"compression": "tiff_lzw"}),
        ("tif", rgba.convert("L"), {"compression": "tiff_adobe_deflate"}),
        ("tif", Image.fromarray(values[..., 0].astype(np.int32)), {}),
        ("webp", rgba, {}),
        ("webp", rgba, {"lossless": True, "save_all": True, "append_images": [rgba.rotate(90)]}),
        ("gif", rgba.convert("P"), {"save_all": True, "append_images": [rgba.convert("L").convert("P")]}),
        ("bmp", rgba.convert("RGB"), {}),
        ("bmp", rgba.convert("P"), {}),
        ("ppm", rgba.convert("RGB"), {}),
        ("pgm", rgba.convert("L"), {}),
    ]
    exif = Image.Exif()
    exif[0x0112] = 6
    saved += [("jpg", rgba.convert("RGB"), {"exif": exif}), ("png", rgba, {"exif": exif, "pnginfo": None})]
    found: list[tuple[str, bytes]] = []
    for suffix, image, options in saved:
        buffer = io.BytesIO()
        image.save(buffer, format={"jpg": "JPEG", "tif": "TIFF", "pgm": "PPM"}.get(suffix, suffix.upper()), **options)
        found.append((suffix, buffer.getvalue()))
    return [*found, ("ppm", b"P3 9 9 255 " + b"1 " * 243), ("bmp", _rle())]


def _rle() -> bytes:
    """A run-length coded BMP, whose decoder is written in Python."""
    body = b"".join(b"\x10\x01\x00\x00" for _ in range(16)) + b"\x00\x01"
    palette = bytes(1024)
    head = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + len(body), 0, 0, 14 + 40 + 1024) + head + palette + body


SEEDS = _seeds()


def images(draw: Draw, folder: Path) -> None:
    """Image files, with PNG's checksums put right in half of them, alone and in a tar shard and a list."""
    suffix, data = draw(st.sampled_from(SEEDS))
    data = bytes_changed(draw, data)
    if suffix == "png" and draw(st.booleans()):
        data = _with_checksums(data)
    path = folder / f"a.{suffix}"
    path.write_bytes(data)
    how = draw(st.sampled_from(["file", "file", "file", "tar", "list", "json in tar"]))
    if how == "list":
        (folder / "list.csv").write_bytes(bytes_changed(draw, b"path,label,split\na.png,x,train\n/dev/zero,y,\nhttp://,z,val\n"))
        _ = list(find_images(folder / "list.csv"))
    elif how != "file":
        told = dumped(json_changed(draw, {"label": "x", "split": "train"})).encode("utf-8", "replace")
        with tarfile.open(folder / "a.tar", "w") as tar:
            for name, inside in ((f"a.{suffix}", data), ("a.json", told), ("a.cls", b"3")):
                info = tarfile.TarInfo(name)
                info.size = len(inside)
                tar.addfile(info, io.BytesIO(inside))
        if how == "tar":
            (folder / "a.tar").write_bytes(bytes_changed(draw, (folder / "a.tar").read_bytes()))
        for source in find_images(folder / "a.tar"):
            with contextlib.suppress(BadImage):
                Preprocessing(16).pixels(source.read(), source.name)
    preprocessing = Preprocessing(16, crop=draw(st.sampled_from([None, 1.0, 0.8])), draft=draw(st.booleans()))
    assert preprocessing.pixels(read_bytes(path), str(path)).shape == (16, 16, 3)


def _with_checksums(data: bytes) -> bytes:
    out, at = data[:8], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out


# --- surveys


def surveys(draw: Draw, folder: Path) -> None:
    """Surveys with a changed manifest, a changed table (its bytes, or values in its columns), read as the analyses do."""
    maps = {"0": np.random.default_rng(1).random((6, 3, 4, 4)), "2": np.random.default_rng(2).random((6, 2, 2, 2))}
    survey = folder / "survey"
    made.made(survey, maps, ["a", "a", "b", "b", None, "a"], output=np.eye(6, 2), classes=["x", "y"], splits=["train", "val"] * 3)
    what = draw(st.sampled_from(["manifest", "manifest", "manifest bytes", "table", "table", "table bytes"]))
    file = survey / "manifest.json"
    if what == "manifest":
        file.write_bytes(dumped(json_changed(draw, json.loads(file.read_text()))).encode("utf-8", "replace"))
    elif what == "manifest bytes":
        file.write_bytes(bytes_changed(draw, file.read_bytes()))
    else:
        name = draw(st.sampled_from(["images", "layers", "channels", "classes", "top", "values/00000", "skipped"]))
        file = survey / f"{name}.parquet"
        if what == "table bytes":
            file.write_bytes(bytes_changed(draw, file.read_bytes()))
        else:
            pq.write_table(_table_changed(draw, pq.read_table(file), SCHEMAS[name.split("/")[0]]), file)
    opened = cs.read_survey(survey)
    steps: list[Callable[[], Any]] = [
        lambda: repr(opened),
        lambda: (opened.ids, opened.names, opened.truth, opened.skipped),
        lambda: [(opened.maximum(layer), opened.positions(layer), opened.unit_names(layer, [0])) for layer in opened.layers],
        lambda: [opened.receptive_fields(layer, opened.positions(layer), 0.5) for layer in opened.layers],
        lambda: cs.exemplars(opened, "2", [0]).view(),
        lambda: cs.class_maps(opened, "0").summary(),
        lambda: cs.class_profile(opened, "0", 0).view(),
        lambda: cs.filter_health(opened).summary(),
        lambda: cs.detector(opened, "0").view(),
        lambda: cs.activation_sums(opened, "0").view(),
        lambda: opened.query("select count(*) from images join top using (image)"),
        lambda: opened.read_image(0),
    ]
    for step in draw(st.permutations(steps))[:4]:
        with contextlib.suppress(ConvscopeError):
            step()


def _table_changed(draw: Draw, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with a value, a column or its rows changed."""
    rows = table.to_pylist()
    match draw(st.integers(0, 4)):
        case 0:
            return table.drop_columns([draw(st.sampled_from(table.column_names))])
        case 1 if rows:
            start = draw(st.integers(0, len(rows) - 1))
            rows = draw(st.sampled_from([rows[start:], rows[:start], rows + rows[start:], rows[::-1]]))
        case _:
            for _ in range(draw(st.integers(1, 3)) if rows else 0):
                row, column = draw(st.sampled_from(rows)), draw(st.sampled_from(table.column_names))
                kind = schema.field(column).type
                number = draw(st.sampled_from([0, -1, 1, 7, 10**6, 2**31 - 1, None]))
                row[column] = _hostile(draw, kind, number)
    return pa.Table.from_pylist(rows, schema)


def _hostile(draw: Draw, kind: pa.DataType, number: int | None) -> Any:
    if pa.types.is_list(kind):
        return draw(st.sampled_from([None, [], [_hostile(draw, kind.value_type, number)] * 3]))
    if pa.types.is_string(kind):
        return draw(st.sampled_from([None, "", "0", "output", "/dev/zero", "/etc/passwd", "http://[", "a\x1b", "x.tar::y"]))
    if pa.types.is_boolean(kind):
        return draw(st.sampled_from([None, True, False]))
    if pa.types.is_floating(kind):
        return draw(st.sampled_from([None, float("nan"), float("inf"), -1e30, 0.0]))
    return number


# --- receipts and results


def receipts(draw: Draw, folder: Path) -> None:
    """Images with changed receipts, redone, read as galleries and resumed; saved results."""
    scope = cs.Scope(hand_built.small(), cs.Inputs(size=16), precision="float32", name="small")
    how = draw(st.sampled_from(["receipt", "receipt", "receipt", "bytes", "result", "result bytes"]))
    if how.startswith("result"):
        _result(draw, folder, how)
        return
    options: dict[str, Any] = {"size": 16, "steps": 1, "crop_size": 12}
    gallery = cs.gallery(scope, "4", [0, 1], folder / "gallery", **options)
    path = gallery.images[0].path
    if how == "receipt":
        pixels = np.asarray(Image.open(path))
        receipt = json_changed(draw, read_receipt(path))
        try:
            path.write_bytes(png_bytes(pixels, receipt))
        except (RecursionError, UnicodeEncodeError, ValueError):
            return
    else:
        path.write_bytes(_with_checksums(bytes_changed(draw, path.read_bytes())))
    steps: list[Callable[[], Any]] = [
        lambda: cs.redo(path, scope=scope),
        lambda: [(image.status, image.score, image.unit_name, image.maximized) for image in cs.read_gallery(folder / "gallery")],
        lambda: cs.gallery(scope, "4", [0, 1], folder / "gallery", **options),
        lambda: cs.read_gallery(folder / "gallery").images[0].image,
    ]
    for step in steps:
        with contextlib.suppress(ConvscopeError):
            step()


def _result(draw: Draw, folder: Path, how: str) -> None:
    scope = cs.Scope(hand_built.small(), cs.Inputs(size=16), precision="float32", name="small")
    result = cs.activation_grid(scope, hand_built.draws(1, 3, 16, 16), "2")
    where = result.save(folder / "result", figure=False)
    file = where / draw(st.sampled_from(["manifest.json", "manifest.json", "arrays.safetensors"]))
    if how == "result" and file.suffix == ".json":
        file.write_bytes(dumped(json_changed(draw, json.loads(file.read_text()))).encode("utf-8", "replace"))
    else:
        file.write_bytes(bytes_changed(draw, file.read_bytes()))
    loaded = cs.load(where)
    with contextlib.suppress(ConvscopeError):
        repr(loaded)


READERS: dict[str, Callable[[Draw, Path], None]] = {"weights": weights, "images": images, "surveys": surveys, "receipts": receipts}

# --- what no reader may do

_inside: list[Path] = []
_WRITING = {
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.truncate": (0,),
}


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _inside:
        return
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo"):
        raise Escaped(f"{event} {arguments!r:.200}")
    written: list[Any] = []
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written = [arguments[0]]
    elif event in _WRITING:
        written = [arguments[place] for place in _WRITING[event]]
    for path in written:
        if isinstance(path, int):
            continue
        name = Path(os.path.realpath(os.fsdecode(path)))
        if not name.is_relative_to(_inside[0]) and "__pycache__" not in name.parts and not name.is_relative_to("/dev"):
            raise Escaped(f"{event} {name}")


@contextlib.contextmanager
def watched(folder: Path) -> Generator[None]:
    """Within the block, writing outside the folder, starting a process and opening a connection are failures, and so is not ending."""

    def late(*_: object) -> None:
        raise Escaped(f"still running after {SLOW:.0f} s of computation or {STUCK:.0f} s in all")

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, SLOW), signal.SIGALRM: (signal.ITIMER_REAL, STUCK)}
    before = {number: signal.signal(number, late) for number in timers}
    _inside.append(folder)
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        _inside.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


sys.addaudithook(_watch)


def attempt(reader: str, draw: Draw) -> str:
    """Gives a reader one changed file; what came of it: "read", or the name of the error that it may raise."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name).resolve()
        try:
            with watched(folder):
                READERS[reader](draw, folder)
        except ConvscopeError as error:
            shown = str(error)
            assert shown == visible(shown), repr(shown)  # one line, nothing that a terminal obeys
            return type(error).__name__
    return "read"


def run(reader: str, minutes: float) -> int:
    """Fuzzes a reader for some minutes of computation; the number of different failures, which are printed."""
    logging.getLogger("convscope").setLevel(logging.ERROR)
    usage = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (usage + MEMORY, usage + MEMORY))
    begun, outcomes, failures = time.process_time(), Counter[str](), dict[str, str]()

    def one(data: st.DataObject) -> None:
        try:
            outcomes[attempt(reader, lambda strategy: data.draw(strategy))] += 1
        except (Exception, Escaped) as error:
            if type(error).__module__.startswith("hypothesis"):
                raise
            place = traceback.extract_tb(error.__traceback__)
            own = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in place if "convscope" in frame.filename][-1:]
            key = f"{type(error).__name__} at {' '.join(own)}"
            if key not in failures:
                failures[key] = "".join(traceback.format_exception(error))
                sys.stdout.write(f"--- {key}\n{failures[key]}\n")
                sys.stdout.flush()
            outcomes[key] += 1

    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))  # what was found until then is said
    number = int(time.time())
    while time.process_time() - begun < 60 * minutes and not ended:
        number += 1
        # draws depend on the bytes of earlier files, which hold times: hypothesis then gives up these examples, and the next follow
        with contextlib.suppress(FlakyStrategyDefinition):
            seed(number)(settings(max_examples=100, **UNHURRIED)(given(st.data())(one)))()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    spent = (time.process_time() - begun) / 60
    sys.stdout.write(
        f"{reader}: {outcomes.total()} inputs in {spent:.1f} min of computation, peak {peak:.2f} GB, {len(failures)} failures\n"
    )
    sys.stdout.write(f"{dict(outcomes.most_common())}\n")
    return len(failures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=list(READERS))
    parser.add_argument("--minutes", type=float, default=10)
    asked = parser.parse_args()
    sys.exit(1 if run(asked.reader, asked.minutes) else 0)
