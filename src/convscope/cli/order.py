"""Arguments in the wrong order: a layer's name where an image belongs, or an image where a layer belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from convscope.errors import BadInput
from convscope.preprocessing import SUFFIXES

IMAGES = ("images", "against", "content", "style", "image")
"""The arguments that hold image files and folders."""


class HasLayers(Protocol):
    """A network: knows its layers by name."""

    @property
    def layers(self) -> Mapping[str, Any]: ...


def check_order(usage: str, network: HasLayers, arguments: Mapping[str, Any]) -> None:
    """Says what comes where, if a layer and an image have changed places.

    Args:
        usage: The command with its arguments in order, e.g. "convscope inversion NETWORK LAYER IMAGES".
        network: The network asked about.
        arguments: What was given: "layer" a name or several, images as a path or several.

    Raises:
        BadInput: A file is given as the layer, or the name of a layer as an image.
    """
    for text in _several(arguments.get("layer")):
        if (Path(text).exists() or Path(text).suffix.lower() in SUFFIXES) and text not in network.layers:
            raise BadInput(f"{text} is {'a file or folder' if Path(text).exists() else 'the name of an image'}, not a layer: {usage}")
    for path in (path for key in IMAGES for path in _several(arguments.get(key))):
        if not Path(path).exists() and all(name.strip() in network.layers for name in str(path).split(",")):
            raise BadInput(f"{path} is the name of a layer, not an image: {usage}")


def _several(given: Any) -> Sequence[Any]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str | Path) else given
