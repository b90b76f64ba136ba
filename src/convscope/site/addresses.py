"""Addresses of the files of a site, relative to its root. Names become file names reversibly, and safely on every disk."""

from __future__ import annotations

import re

from convscope.names import OUTPUT

_PLAIN = re.compile(rb"[a-z0-9._-]")
_ESCAPED = re.compile(r"~([0-9a-f]{2})")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")
_EMPTY = "~"


def encode(name: str) -> str:
    """A name as a file name: lower-case letters, digits, `.`, `_` and `-` stay, every other byte of its UTF-8 becomes `~` and two digits.

    So names that differ in upper and lower case alone stay apart on a disk that does not tell them apart, nothing leads out of its
    folder, and names that Windows reserves (`con`, `nul.txt`) or trims (a dot at the end) are avoided.
    """
    data = name.encode("utf-8", "surrogatepass")
    text = "".join(chr(byte) if _PLAIN.fullmatch(bytes([byte])) else f"~{byte:02x}" for byte in data)
    if _RESERVED.match(text) or text.startswith((".", "-")):
        text = f"~{ord(text[0]):02x}{text[1:]}"
    if text.endswith("."):
        text = f"{text[:-1]}~2e"
    return text or _EMPTY


def decode(text: str) -> str:
    """The name that :func:`encode` made a file name of."""
    if text == _EMPTY:
        return ""
    data = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1")
    return data.decode("utf-8", "surrogatepass")


def unit_folder(layer: str) -> str:
    """The folder of a layer's units."""
    return f"unit/{encode(layer)}"


def unit_page(layer: str, unit: int) -> str:
    """The page of a unit; units of "output" are classes."""
    return class_page(unit) if layer == OUTPUT else f"{unit_folder(layer)}/{unit}.html"


def unit_image(layer: str, unit: int, copy: int, suffix: str) -> str:
    """The image of a unit by feature visualization."""
    return f"{unit_folder(layer)}/{unit}{f'-{copy}' if copy else ''}{suffix}"


def unit_projections(layer: str, unit: int, suffix: str) -> str:
    """The projections of a unit, side by side."""
    return f"{unit_folder(layer)}/{unit}-projections{suffix}"


def layer_page(layer: str) -> str:
    """The page of a layer."""
    return f"layer/{encode(layer)}.html"


def layer_data(layer: str) -> str:
    """What the layer page sorts and filters by."""
    return f"layer/{encode(layer)}.js"


def layer_sheet(layer: str, sheet: int, suffix: str) -> str:
    """A sheet of 8 x 8 thumbnails."""
    return f"sheet/{encode(layer)}/{sheet}{suffix}"


def layer_weights(layer: str) -> str:
    """The weights of a layer that reads the image."""
    return f"sheet/{encode(layer)}/weights.png"


def class_page(unit: int) -> str:
    """The page of an output unit."""
    return f"class/{unit}.html"


def label_page(label: int) -> str:
    """The page of a label of images that is no class of the network, by its place among the labels."""
    return f"class/label-{label}.html"


def image_page(image: int) -> str:
    """The page of an image, by its number in the survey."""
    return f"image/{image}.html"


def image_file(image: int) -> str:
    """An image as the network was fed it."""
    return f"image/{image}.webp"


def root_of(address: str) -> str:
    """The way from a page to the root of the site: "" or "../../"."""
    return "../" * address.count("/")
