"""The pictures that a survey was made from: files, members of tar shards, on any file system."""

from __future__ import annotations

import functools
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

import fsspec
from PIL import Image as PILImage

from convscope.errors import BadImage
from convscope.pictures import decode

MEMBER = "::"
"""Between the path of a tar shard and the name of a picture in it."""


@dataclass(frozen=True)
class Frame:
    """How pictures were brought to the size of the network, as the manifest has it."""

    height: int
    width: int
    interpolation: str
    crop: float | None

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> Frame:
        """From the `inputs` of a manifest."""
        size = inputs["size"]
        height, width = (size, size) if isinstance(size, int) else size
        return cls(int(height), int(width), inputs["interpolation"], inputs["crop"])


def read_original(path: str) -> PILImage.Image:
    """A picture in 8-bit RGB by its path in a survey, TAR::MEMBER inside a tar shard.

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
                data = opened.read(size)
        else:
            with _open(path) as opened:
                data = opened.read()
    except FileNotFoundError:
        raise BadImage(f"{path}: no such file; the survey remembers it, but it has been moved or removed since") from None
    except KeyError:
        raise BadImage(f"{path}: the shard has no such member any more") from None
    except (OSError, tarfile.TarError, ValueError, ImportError) as error:
        raise BadImage(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    return decode(io.BytesIO(data), path)


def _open(path: str) -> IO[bytes]:
    system, plain = fsspec.core.url_to_fs(path)  # not fsspec.open, which takes brackets in names for patterns
    return cast("IO[bytes]", system.open(plain, "rb"))


@functools.lru_cache(maxsize=64)
def _members(shard: str) -> dict[str, tuple[int, int]]:
    """Where each file of an uncompressed tar lies: {name: (offset, size)}."""
    with _open(shard) as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
        return {member.name: (member.offset_data, member.size) for member in archive if member.isfile()}
