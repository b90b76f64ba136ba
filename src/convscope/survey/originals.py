"""The pictures that a survey was made from: files, members of tar shards, on any file system."""

from __future__ import annotations

import functools
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

import fsspec
import numpy as np

from convscope.errors import BadImage
from convscope.preprocessing import covering, decode, fit

MEMBER = "::"
"""Between the path of a tar shard and the name of a picture in it."""


@dataclass(frozen=True)
class Frame:
    """How pictures were brought to the size of the network, as the manifest has it.

    Attributes:
        size: (height, width).
        interpolation, crop: How they were resized and cropped; as :class:`~convscope.Inputs`.
        draft: Whether large JPEGs were decoded at a fraction of their size.
    """

    size: tuple[int, int]
    interpolation: str
    crop: float | None
    draft: bool

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Frame:
        """From the manifest of a survey."""
        inputs = manifest["inputs"]
        size = inputs["size"]
        height, width = (size, size) if isinstance(size, int) else size
        draft = bool(manifest.get("parameters", {}).get("draft", False))
        return cls((int(height), int(width)), inputs["interpolation"], inputs["crop"], draft)


def read_framed(path: str, frame: Frame) -> np.ndarray:
    """A picture as the network was fed it, (3 h w) float32 in [0,1]; `path` is TAR::MEMBER inside a tar shard.

    Raises:
        BadImage: It is not there any more, or cannot be read.
    """
    draft = covering(frame.size, frame.crop) if frame.draft else None
    picture, _ = decode(io.BytesIO(read_bytes(path)), path, draft)
    fitted = fit(picture, frame.size, frame.interpolation, frame.crop)
    return np.ascontiguousarray(np.moveaxis(np.asarray(fitted, np.float32) / 255, -1, 0))


def read_bytes(path: str) -> bytes:
    """The bytes of a picture's file.

    Raises:
        BadImage: It is not there any more, or cannot be read.
    """
    shard, inside, member = path.rpartition(MEMBER)
    in_tar = bool(inside) and shard.lower().endswith(".tar")
    try:
        if in_tar:
            offset, size = _members(shard)[member]
            with _open(shard) as opened:
                opened.seek(offset)
                return opened.read(size)
        with _open(path) as opened:
            return opened.read()
    except FileNotFoundError:
        raise BadImage(f"{path}: no such file; the survey remembers it, but it has been moved or removed since") from None
    except KeyError:
        raise BadImage(f"{path}: the shard has no such member any more") from None
    except (OSError, tarfile.TarError, ValueError, ImportError) as error:
        raise BadImage(f"{path}: cannot be read ({' '.join(str(error).split())})") from None


def _open(path: str) -> IO[bytes]:
    system, plain = fsspec.core.url_to_fs(path)  # not fsspec.open, which takes brackets in names for patterns
    return cast("IO[bytes]", system.open(plain, "rb"))


@functools.lru_cache(maxsize=64)
def _members(shard: str) -> dict[str, tuple[int, int]]:
    """Where each file of an uncompressed tar lies: {name: (offset, size)}."""
    with _open(shard) as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
        return {member.name: (member.offset_data, member.size) for member in archive if member.isfile()}
