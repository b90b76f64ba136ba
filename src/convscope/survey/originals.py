"""The images that a survey was made from, read again and preprocessed as the scan did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convscope.errors import BadImage, ConvscopeError
from convscope.image_files import read_bytes
from convscope.preprocessing import Preprocessing, to_values


def preprocessing_of(manifest: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing that a survey's manifest describes."""
    inputs = manifest["inputs"]
    height, width = inputs["size"]
    draft, grey = bool(manifest.get("parameters", {}).get("draft", False)), len(inputs["mean"]) == 1
    return Preprocessing((height, width), inputs["interpolation"], inputs["crop"], draft, 1 if grey else 3)


def read_original(path: str, preprocessing: Preprocessing) -> np.ndarray:
    """An image as the network was fed it, (3 h w) float32 in [0,1], grey if it was; `path` is TAR::MEMBER inside a tar shard.

    Raises:
        BadImage: It has been moved or removed since, or cannot be read.
    """
    try:
        values = to_values(preprocessing.pixels(read_bytes(path), path))
        return values if len(values) == 3 else np.repeat(values, 3, 0)
    except BadImage as error:
        if error.reason.startswith("no such file"):
            raise BadImage(f"{error.reason}; the survey remembers it, but it has been moved or removed since", path) from None
        raise
    except ConvscopeError as error:
        raise BadImage(f"cannot be read ({error.message})", path) from None
