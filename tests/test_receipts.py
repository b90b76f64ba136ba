import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from convscope.errors import BadImage, BadInput, StoreConflict
from convscope.files import atomic_write
from convscope.receipts import png_bytes, published_bytes, read_receipt, write_png

PICTURE = np.linspace(0, 1, 3 * 4 * 5).reshape(3, 4, 5).astype(np.float32)


def test_pixels_and_receipt_come_back(tmp_path: Path):
    receipt: dict[str, Any] = {"layer": "features.3", "naïve": '犬 🐕 \n"', "units": [1, 2], "nested": {"lr": 0.05, "none": None}}
    path = write_png(tmp_path / "a.png", PICTURE, receipt)
    assert read_receipt(path) == receipt
    with Pillow.open(path) as picture:
        np.testing.assert_array_equal(np.array(picture), np.rint(PICTURE.astype(float) * 255).astype(np.uint8).transpose(1, 2, 0))
        assert picture.info["convscope"].startswith("{")


def test_bytes_images_are_written_as_they_are(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    with Pillow.open(io.BytesIO(png_bytes(image, {}))) as picture:
        np.testing.assert_array_equal(np.array(picture), image)


def test_receipts_take_what_manifests_hold(tmp_path: Path):
    receipt = {"units": (1, 2), "lr": np.float32(0.5), "n": np.int64(3), "path": Path("a/b"), "worst": float("inf"), "array": np.arange(2)}
    path = write_png(tmp_path / "a.png", PICTURE, receipt)
    assert read_receipt(path) == {"units": [1, 2], "lr": 0.5, "n": 3, "path": str(Path("a/b")), "worst": "inf", "array": [0, 1]}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PICTURE * 255, r"lies in \[0,1\], got 0 to 255"),
        (PICTURE - 0.1, r"lies in \[0,1\]"),
        (np.full((3, 2, 2), np.nan), r"lies in \[0,1\]"),
        (PICTURE[0], r"got shape \(4, 5\)"),
        (PICTURE.transpose(1, 2, 0), r"got shape \(4, 5, 3\)"),
        (np.zeros((3, 4, 5), dtype=np.int64), "int64"),
    ],
)
def test_other_images_are_refused(tmp_path: Path, image: np.ndarray, message: str):
    with pytest.raises(BadInput, match=message):
        write_png(tmp_path / "a.png", image, {})
    assert list(tmp_path.iterdir()) == []


def test_pictures_without_receipt_and_other_files_are_told_apart(tmp_path: Path):
    Pillow.new("RGB", (2, 2)).save(tmp_path / "plain.png")
    with pytest.raises(StoreConflict, match="carries no receipt"):
        read_receipt(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(BadImage, match="is not a PNG file"):
        read_receipt(tmp_path / "text.png")
    with pytest.raises(BadImage, match=r"missing\.png: cannot be read"):
        read_receipt(tmp_path / "missing.png")


def test_cut_and_flipped_files_are_damaged(tmp_path: Path):
    data = png_bytes(PICTURE, {"layer": "conv1"})
    (tmp_path / "cut.png").write_bytes(data[:60])
    with pytest.raises(BadImage, match=r"is damaged|is cut off"):
        read_receipt(tmp_path / "cut.png")
    plain = io.BytesIO()
    Pillow.fromarray(np.zeros((9, 9, 3), np.uint8)).save(plain, "PNG")
    (tmp_path / "end.png").write_bytes(plain.getvalue()[:-12])  # without its last part, which is empty
    with pytest.raises(BadImage, match=r"end\.png: is cut off"):
        read_receipt(tmp_path / "end.png")
    place = data.index(b"conv1")
    (tmp_path / "flipped.png").write_bytes(data[:place] + b"konv1" + data[place + 5 :])
    with pytest.raises(BadImage, match="is damaged"):
        read_receipt(tmp_path / "flipped.png")


@pytest.mark.parametrize("text", ["not json", "[1, 2]"])
def test_a_receipt_that_is_no_table_is_damaged(tmp_path: Path, text: str):
    chunks = PngInfo()
    chunks.add_itxt("convscope", text)
    Pillow.new("RGB", (2, 2)).save(tmp_path / "a.png", pnginfo=chunks)
    with pytest.raises(StoreConflict, match="its receipt is damaged"):
        read_receipt(tmp_path / "a.png")


def test_receipts_compressed_by_another_program_are_read_but_bombs_are_not(tmp_path: Path):
    for text, fine in ((b'{"a": 1}', True), (b" " * (65 * 2**20), False)):
        body = b"convscope\0\1\0\0\0" + zlib.compress(text)
        chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
        data = png_bytes(PICTURE, {})
        (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
        if fine:
            assert read_receipt(tmp_path / "a.png") == {"a": 1}
        else:
            with pytest.raises(StoreConflict, match="64 MiB"):
                read_receipt(tmp_path / "a.png")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = atomic_write(tmp_path / "a.bin", b"old")

    def fail(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".avif", ".webp"])
def test_published_images_carry_their_receipt(tmp_path: Path, suffix: str) -> None:
    image = np.random.default_rng(0).random((3, 40, 48), np.float32)
    receipt = {"unit": 3, "name": '</convscope:receipt>\u2028<&"', "score": 0.1, "long": "x" * 5000}
    data = published_bytes(image, receipt, suffix)
    (tmp_path / f"a{suffix}").write_bytes(data)
    assert read_receipt(tmp_path / f"a{suffix}") == receipt
    assert data == published_bytes(image, receipt, suffix)
    with Pillow.open(tmp_path / f"a{suffix}") as opened:
        assert opened.size == (48, 40)
    (tmp_path / f"b{suffix}").write_bytes(published_bytes(image, None, suffix))
    with pytest.raises(StoreConflict, match="no receipt"):
        read_receipt(tmp_path / f"b{suffix}")
    # also tried: text that is no base64, a receipt that is a list
    place = data.index(b"<convscope:receipt>") + 40
    (tmp_path / f"c{suffix}").write_bytes(data[:place] + b"AAAA" + data[place + 4 :])
    with pytest.raises(StoreConflict, match="damaged"):
        read_receipt(tmp_path / f"c{suffix}")


def test_a_receipt_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:

    packed = base64.b64encode(zlib.compress(b" " * (65 * 2**20), 9))
    (tmp_path / "a.webp").write_bytes(b"RIFF\0\0\0\0WEBP<convscope:receipt>" + packed + b"</convscope:receipt>")
    with pytest.raises(StoreConflict, match="larger than 64 MiB"):
        read_receipt(tmp_path / "a.webp")
