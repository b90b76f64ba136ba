"""Preprocessing: formats, bounds and conversions, against plain conversions of the whole image."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from convscope import preprocessing
from convscope.errors import BadImage, BadInput
from convscope.image_files import FORMATS, SUFFIXES
from convscope.preprocessing import Preprocessing, decode, to_rgb, to_values


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True))


# --- one value for everyone


@pytest.mark.parametrize("crop", [None, 1.0, 0.875])
def test_bytes_and_images_give_the_same_pixels(crop: float | None) -> None:
    how, image = Preprocessing((20, 30), "bicubic", crop), noise(47, 61, 3)
    made = how.pixels(encoded(image, "png"), "a.png")
    assert made.dtype == np.uint8 and made.shape == (20, 30, 3)
    assert (made == how.pixels(image)).all() and (made == how.fit(image)).all()
    values = to_values(made)
    assert values.dtype == np.float32 and values.shape == (3, 20, 30) and values.flags.c_contiguous
    assert (values == made.transpose(2, 0, 1).astype(np.float32) / np.float32(255)).all()


@pytest.mark.parametrize("size", [24, (24, 24), [24, 24], np.int64(24)])
def test_sizes(size: object) -> None:
    how = Preprocessing(size)  # type: ignore[arg-type]
    assert (how.height, how.width) == (24, 24) and how.pixels(noise(30, 30, 3)).shape == (24, 24, 3)


@pytest.mark.parametrize("size", [0, -3, 2.5, "24", None, True, (24,), (1, 2, 3), (24, 0), ((1, 2), 3)])
def test_wrong_sizes(size: object) -> None:
    with pytest.raises(BadInput, match=r"Inputs\.size: expected pixels, one number or \(height, width\), each from 1 to 8192; got"):
        Preprocessing(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("crop", [0, 1.01, float("nan"), "1", True, -0.5])
def test_wrong_crops(crop: object) -> None:
    with pytest.raises(BadInput, match=r"Inputs\.crop: expected a share in \(0, 1\], or None; got"):
        Preprocessing(24, crop=crop)  # type: ignore[arg-type]


# --- formats


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_that_is_promised_can_be_decoded(tmp_path: Path, suffix: str) -> None:
    grey = suffix == ".pgm"
    image = noise(40, 30).convert("L") if grey else noise(40, 30, 3)
    image.save(tmp_path / f"a{suffix}", FORMATS[suffix])
    read, size = decode((tmp_path / f"a{suffix}").read_bytes())
    assert read.mode == "RGB" and read.size == (30, 40) and size == (40, 30)


def test_avif_is_promised_where_pillow_has_it() -> None:
    assert (".avif" in SUFFIXES) == features.check("avif")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n0 0 50 50 rectfill\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("kind", ["eps", "ICO", "TGA", "PDF", "DDS", "JPEG2000", "PCX"])
def test_other_formats_are_refused_whatever_they_are_called(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also tried: EPS under every promised suffix and with a DOS header, WMF, PSD, FLI, XPM, SVG, in folders and alone."""
    import subprocess

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    data = EPS if kind == "eps" else encoded(noise(32, 32, 3), kind)
    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(BadImage, match=r"^photo.jpg: not an image file$"):
        decode(data, "photo.jpg")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_promised_format_under_another_promised_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.bmp").write_bytes(encoded(noise(32, 32, 3), kind))
    assert decode((tmp_path / "a.bmp").read_bytes())[0].size == (32, 32)


# --- bounds


def declared(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that declares a size, with almost no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(13400, 13400), (100_000, 2000), (8, 2**27)])
@pytest.mark.parametrize("unlimited", [False, True])
def test_too_many_pixels_are_refused_before_decoding(width: int, height: int, unlimited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if unlimited:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BadImage, match=r"a.png: .*too large to decode \(at most 178 million pixels\)"):
        decode(declared(width, height), "a.png")


# Also tried: files of 13,000 x 13,000 of 16 bits, of 30,000 x 5,000 in fax code, of 8 x 20 million, interlaced; text and colour profiles
# that unpack to 300 MB; headers of PPM, BMP and WebP that promise more.


def test_the_bound_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "MOST_PIXELS", 30 * 40)
    assert decode(encoded(noise(30, 40, 3), "png"))[1] == (30, 40)
    for wrong in (noise(30, 41, 3), noise(31, 40), noise(35, 35, 4)):
        with pytest.raises(BadImage, match="too large"):
            decode(encoded(wrong, "png"))
        with pytest.raises(BadImage, match="too large"):
            to_rgb(wrong)


# --- conversions in strips


def plainly(image: Image.Image) -> np.ndarray:
    """RGB by converting the whole image at once."""
    if image.mode.startswith("I"):
        return np.repeat(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8)[..., None], 3, 2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return np.asarray(image.convert("RGB"))


def odd_images() -> dict[str, Image.Image]:
    rgb, alpha = noise(37, 23, 3), noise(37, 23, seed=1)
    grey = rgb.convert("LA")
    grey.putalpha(alpha)
    rgba = rgb.convert("RGBA")
    rgba.putalpha(alpha)
    made = {
        "16 bit": noise(37, 23, dtype=np.uint16),
        "RGBA": rgba,
        "LA": grey,
        "RGB": rgb,
        "CMYK": rgb.convert("CMYK"),
        "1": rgb.convert("1"),
    }
    for name, mode, key in (
        ("palette", "P", 7),
        ("palette of alphas", "P", bytes(range(256))),
        ("colour key", "RGB", (1, 2, 3)),
        ("grey key", "L", 9),
    ):
        made[name] = Image.open(io.BytesIO(encoded(rgb.convert(mode), "png", transparency=key)))
    return made


@pytest.mark.parametrize("name", odd_images())
@pytest.mark.parametrize("strip", [1, 23, 70, 10**6])
def test_strips_are_the_whole_image(name: str, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "_STRIP", strip)
    image = odd_images()[name]
    before = image.copy()
    assert (np.asarray(to_rgb(image)) == plainly(before)).all()
    assert (image.mode, image.info, image.tobytes()) == (before.mode, before.info, before.tobytes()), "the caller's image is as it was"


def test_a_large_16_bit_image_needs_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "_STRIP", 2**14)
    data = encoded(Image.fromarray(np.zeros((2000, 2000), np.uint16)), "png")
    decode(data)
    tracemalloc.start()
    decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2000 * 2000, f"{peak / 2000 / 2000:.1f} bytes a pixel"


@pytest.mark.parametrize("wrong", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"not an image at all", b"\xff\xd8\xff\xe0"])
def test_bytes_that_are_no_image(wrong: bytes) -> None:
    with pytest.raises(BadImage, match=r"a\.png: (not an image file|cannot be decoded)") as error:
        decode(wrong, "a.png")
    assert "\n" not in str(error.value) and str(error.value) == f"a.png: {error.value.reason}"


def test_a_pil_image_that_cannot_be_loaded() -> None:
    cut = Image.open(io.BytesIO(encoded(noise(300, 300, 3), "jpeg")[:2000]))
    with pytest.raises(BadImage, match=r"PIL image: cannot be decoded .*truncated"):
        to_rgb(cut, "PIL image")
