"""Decoding in worker processes: what a network is fed, in order; and files that are no pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
from convscope.image_files import Source
from convscope.preprocessing import Preprocessing, decode
from convscope.scanner import decoder_pool
from convscope.scanner.decoder_pool import decoders
from convscope.scanner.sources import find_sources

HOW = Preprocessing((24, 20), "bilinear", 0.875, draft=False)


def noisy(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(height: int, width: int) -> Image.Image:
    y, x = np.mgrid[:height, :width] / 97
    waves = np.stack([np.sin(x + y), np.sin(2 * x), np.cos(y - x)], -1)
    return Image.fromarray((127.5 + 120 * waves).astype(np.uint8))


@pytest.mark.parametrize("count", [0, 2])
def test_pictures_are_what_inputs_gives_and_come_in_order(tmp_path: Path, count: int) -> None:
    for index in range(12):
        noisy(30 + index, 40 - index, index).save(tmp_path / f"{index:02d}.{('png', 'jpg', 'webp')[index % 3]}")
    inputs = cs.Inputs(size=HOW.size, crop=HOW.crop)
    with decoders(count, HOW) as workers:
        found = list(workers.stream(find_sources(tmp_path).part(0, 12), 4))
    assert [one.source.number for one in found] == list(range(12))
    for one in found:
        assert one.pixels is not None and (one.height, one.width) == (30 + one.source.number, 40 - one.source.number)
        fed = torch.from_numpy(one.pixels.copy()).permute(2, 0, 1).float().div(255)
        assert torch.equal(fed, inputs(one.source.path))


def test_no_more_is_decoded_than_asked_for(tmp_path: Path) -> None:
    noisy(30, 30).save(tmp_path / "0.png")
    taken: list[int] = []

    def sources() -> object:
        for number in range(100):
            taken.append(number)
            yield Source("0.png", str(tmp_path / "0.png"), number=number)

    with decoders(1, HOW) as workers:
        stream = workers.stream(sources(), 5)  # type: ignore[arg-type]
        for _ in range(10):
            next(stream)
        assert len(taken) == 15


def test_a_crashed_decoder_costs_its_picture_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        noisy(30, 30, index).save(tmp_path / f"{index}.png")
    (tmp_path / "3.png").write_bytes(b"KILL")
    crash = "import convscope.scanner.decoder_process as d, os; f = d.answer\n"
    crash += "d.answer = lambda data, how: os._exit(9) if data == b'KILL' else f(data, how)\n"
    monkeypatch.setattr(decoder_pool, "_START", "import sys; sys.path[:] = {path!r}\n" + crash + "d.serve()")
    with decoders(2, HOW) as workers:
        found = list(workers.stream(find_sources(tmp_path).part(0, 6), 4))
    assert [one.pixels is None for one in found] == [False, False, False, True, False, False]
    assert found[3].reason == "the decoder crashed over it (exit code 9)"


def test_workers_end_with_the_block(tmp_path: Path) -> None:
    noisy(30, 30).save(tmp_path / "0.png")
    with decoders(1, HOW) as workers:
        list(workers.stream(find_sources(tmp_path).part(0, 1), 1))
        (worker,) = workers._workers
        assert worker.poll() is None
    assert worker.poll() is not None


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.jpg": (lambda path: path.write_bytes(b""), "empty file"),
    "text.png": (lambda path: path.write_text("not a picture"), "not an image file"),
    "tiny.png": (lambda path: Image.new("RGB", (3, 3)).save(path), "3x3 pixels, too small"),
    "link.jpg": (lambda path: path.symlink_to(path.parent / "nowhere.jpg"), "no such file (a link to nowhere)"),
    "pipe.png": (os.mkfifo, "not a regular file but a named pipe (FIFO)"),
    "float.tif": (lambda path: Image.fromarray(np.zeros((30, 30), np.float32)).save(path), "floating-point image"),
    "notes.txt": (lambda path: path.write_text("words"), "not an image file by its name"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_skipped_with_the_reason(tmp_path: Path, name: str) -> None:
    ODD[name][0](tmp_path / name)
    with decoders(0, HOW) as workers:
        (found,) = workers.stream([Source(name, str(tmp_path / name))], 1)
    assert found.pixels is None and found.reason.startswith(ODD[name][1])


def test_a_cut_picture_is_skipped(tmp_path: Path) -> None:
    noisy(60, 60).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    with decoders(0, HOW) as workers:
        (found,) = workers.stream([Source("cut.jpg", str(tmp_path / "cut.jpg"))], 1)
    assert "truncated" in found.reason


@pytest.mark.parametrize("turned", [1, 6])
def test_draft_decoding_is_smaller_near_the_same_and_knows_the_full_size(turned: int) -> None:
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turned
    smooth(800, 1200).save(data, "jpeg", quality=95, exif=exif)
    full, size = decode(data.getvalue(), "x")
    draft, same = decode(data.getvalue(), "x", (90, 90))
    assert size == same == ((800, 1200) if turned == 1 else (1200, 800))
    assert full.size == size[::-1] and draft.size[0] * 8 == full.size[0]
    small = Preprocessing((80, 80), "bilinear", 0.875, draft=True)
    assert small.decode(data.getvalue())[1] == size
    one = small.pixels(data.getvalue())
    other = Preprocessing((80, 80), "bilinear", 0.875, draft=False).pixels(data.getvalue())
    gap = np.abs(one.astype(int) - other.astype(int))
    assert 0 < gap.mean() < 1.5 and gap.max() < 30


def test_draft_does_not_touch_what_is_not_much_larger() -> None:
    data = io.BytesIO()
    noisy(150, 170).save(data, "jpeg")
    assert decode(data.getvalue(), "x", (90, 90))[0].tobytes() == decode(data.getvalue(), "x")[0].tobytes()
