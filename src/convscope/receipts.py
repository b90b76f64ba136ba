"""Receipts: image files that hold, as JSON, how the image was made: PNG in the ``iTXt`` chunk ``convscope``, AVIF and WebP in their XMP.

Also how the images of a site and films are encoded (`LOSSY`, `FILM`).
"""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convscope.errors import BadImage, BadInput, StoreConflict
from convscope.files import atomic_write, jsonable, local_path, parse_json, read_file
from convscope.text import one_line

KEY = "convscope"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_BYTES = 2**29
"""Largest file whose receipt is read."""
_LARGEST = 64 * 2**20
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:convscope="urn:convscope:1">'
    "<convscope:receipt>%s</convscope:receipt></rdf:Description></rdf:RDF></x:xmpmeta>"
)
"""The receipt in it is JSON, packed by zlib and written in base64: thousands of small images would otherwise be half receipts."""
_IN_XMP = re.compile(rb"<convscope:receipt>([A-Za-z0-9+/=]*)</convscope:receipt>")
LOSSY: dict[str, dict[str, Any]] = {
    ".avif": {"format": "AVIF", "quality": 50, "speed": 8, "max_threads": 1},
    ".webp": {"format": "WEBP", "quality": 60, "method": 4},
}
"""How images that are published are encoded; AVIF of quality 50 looks like WebP of quality 60 and takes two thirds of the bytes."""


def write_png(path: str | Path, image: np.ndarray, receipt: Mapping[str, Any]) -> Path:
    """Writes a PNG file with a receipt, all or nothing, and returns the path.

    Args:
        path: The file; it is replaced if it exists. Its folder must exist.
        image: (rgb h w) float in [0,1], or (h w 3) uint8.
        receipt: How the image was made; anything JSON can hold, tuples become lists.

    Raises:
        BadInput: The image has another shape, type or range.
    """
    return atomic_write(path, png_bytes(image, receipt))


def png_bytes(image: np.ndarray, receipt: Mapping[str, Any]) -> bytes:
    """The bytes of a PNG file with a receipt; arguments as :func:`write_png`."""
    from PIL import Image as Pillow
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_itxt(KEY, json.dumps(jsonable(receipt), ensure_ascii=False, allow_nan=False), zip=False)
    buffer = io.BytesIO()
    Pillow.fromarray(to_bytes(image)).save(buffer, format="PNG", pnginfo=chunks, compress_level=4)
    return buffer.getvalue()


def published_suffix() -> str:
    """The suffix of images that a site publishes: ".avif", or ".webp" where Pillow was built without AVIF."""
    from PIL import features

    return ".avif" if features.check("avif") else ".webp"


def published_bytes(image: np.ndarray, receipt: Mapping[str, Any] | None, suffix: str, *, lossless: bool = False) -> bytes:
    """The bytes of a small lossy image: AVIF or WebP, with a receipt in its XMP.

    Args:
        image: As for :func:`write_png`.
        receipt: How the image was made; None: no receipt.
        suffix: ".avif" or ".webp".
        lossless: Keep every pixel, in more bytes; of WebP alone.
    """
    from PIL import Image as Pillow

    more: dict[str, Any] = {}
    if receipt is not None:
        text = json.dumps(jsonable(receipt), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        more["xmp"] = (_XMP % base64.b64encode(zlib.compress(text.encode(), 9)).decode()).encode()
    buffer = io.BytesIO()
    Pillow.fromarray(to_bytes(image)).save(buffer, **(LOSSY[suffix] | ({"lossless": True, "quality": 80} if lossless else {})), **more)
    return buffer.getvalue()


FILM: dict[str, Any] = {"format": "WEBP", "quality": 60, "method": 4, "loop": 0}
"""How films are encoded."""
_FRAME, _LAST = 90, 2000
"""Milliseconds that a frame is shown, and the last one."""


def film_bytes(frames: Sequence[np.ndarray]) -> bytes:
    """The bytes of an animated WebP.

    Args:
        frames: Each (rgb h w) uint8; smaller ones are enlarged to the last one's size.
    """
    from PIL import Image as Pillow

    pages = [Pillow.fromarray(np.ascontiguousarray(np.moveaxis(frame, 0, -1))) for frame in frames]
    pages = [page if page.size == pages[-1].size else page.resize(pages[-1].size, Pillow.Resampling.BICUBIC) for page in pages]
    buffer = io.BytesIO()
    pages[0].save(buffer, save_all=True, append_images=pages[1:], duration=[*[_FRAME] * (len(pages) - 1), _LAST], **FILM)
    return buffer.getvalue()


def read_receipt(path: str | Path) -> dict[str, Any]:
    """The receipt of a PNG, AVIF or WebP file; reads no pixels.

    Raises:
        BadInput: `path` is no path.
        BadImage: The file cannot be read, or is no intact PNG.
        StoreConflict: It carries no receipt, or one that cannot be read.
    """
    path = local_path(path)
    try:
        data = read_file(path, MOST_BYTES)
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({one_line(error)})") from error
    try:
        found = _packed(data) if data[4:12] == b"ftypavif" or data[8:12] == b"WEBP" else _chunk_text(path, data)
        receipt = None if found is None else parse_json(found)
    except (ValueError, zlib.error) as error:
        raise StoreConflict(f"{path}: its receipt is damaged ({error})") from error
    if receipt is None:
        raise StoreConflict(f"{path}: carries no receipt; only images written by convscope do, and some programs drop it when they save")
    if not isinstance(receipt, dict):
        raise StoreConflict(f"{path}: its receipt is damaged (no table of parameters)")
    return receipt


def to_bytes(image: np.ndarray) -> np.ndarray:
    """The 8-bit pixels (h w 3) of an image in either form that :func:`write_png` accepts.

    Raises:
        BadInput: The image has another shape, type or range.
    """
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return np.asarray(image, order="C")
    if not np.issubdtype(image.dtype, np.floating) or image.ndim != 3 or image.shape[0] != 3:
        raise BadInput(f"an image is (rgb h w) float in [0,1] or (h w 3) uint8, got shape {image.shape} of {image.dtype}")
    low, high = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN is refused too
        raise BadInput(f"a float image lies in [0,1], got {low:.4g} to {high:.4g}")
    return np.ascontiguousarray(np.moveaxis(np.rint(image.astype(np.float64) * 255).astype(np.uint8), 0, -1))


def _chunks(path: Path, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of every chunk of a PNG file, checked against its checksum."""
    if not data.startswith(_SIGNATURE):
        raise BadImage(f"{path}: is not a PNG file")
    start = len(_SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        kind, body = data[start + 4 : start + 8], data[start + 8 : start + 8 + length]
        check = data[start + 8 + length : start + 12 + length]
        if len(check) < 4 or struct.unpack(">I", check)[0] != zlib.crc32(kind + body):
            raise BadImage(f"{path}: is damaged (chunk at byte {start})")
        yield kind, body
        if kind == b"IEND":
            return
        start += 12 + length
    raise BadImage(f"{path}: is cut off")


def _chunk_text(path: Path, data: bytes) -> str | None:
    """The receipt of a PNG; None if it has none."""
    return next((_text(body) for kind, body in _chunks(path, data) if kind == b"iTXt" and body.startswith(KEY.encode() + b"\0")), None)


def _packed(data: bytes) -> str | None:
    """The receipt in the XMP of an AVIF or WebP; None if it has none."""
    found = _IN_XMP.search(data)
    return None if found is None else _unpacked(base64.b64decode(found[1])).decode("utf-8")


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(packed, _LARGEST)
    if unpacker.unconsumed_tail:
        raise ValueError("larger than 64 MiB")
    if not unpacker.eof:
        raise ValueError("cut off")
    return text


def _text(body: bytes) -> str:
    """The text of an iTXt chunk: keyword, 0, compressed?, method, language, 0, translated keyword, 0, text."""
    head, _, rest = body.partition(b"\0")
    if len(head) == len(body) or len(rest) < 2:
        raise ValueError("cut off")
    text = rest[2:].split(b"\0", 2)[-1]
    return (_unpacked(text) if rest[0] else text).decode("utf-8")
