"""Galleries: folders of feature visualizations, a PNG per unit and copy, each with its receipt. Reading needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convscope.errors import StoreConflict
from convscope.files import check_form, local_path
from convscope.image_files import read_bytes
from convscope.preprocessing import decode, to_values
from convscope.receipts import read_receipt, write_png
from convscope.render.contact_sheet import contact_sheet
from convscope.render.panels import Image
from convscope.results import words
from convscope.results.feature_visualization import FLAT
from convscope.text import printable

SHEET = "sheet.png"
"""File name of a gallery's contact sheet."""

_FILE = re.compile(r"(?:unit_(\d{4,})|objective)(?:_copy([1-9]\d*))?\.png")
_MARGIN = 16
"""White pixels around a contact sheet."""


_TABLE = {"type": "object"}
_TEXT = {"type": "string"}
_RECEIPT = {
    "properties": {
        "unit": {"type": ["integer", "null"]},
        "copy": {"type": "integer"},
        "unit_name": _TEXT,
        "status": _TEXT,
        "score": {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]},
        "maximized": _TEXT,
        "parameters": _TABLE,
        "network": _TABLE,
        "recipe": _TABLE,
        "changed": _TABLE,
        "network_sees": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "number"}, {"type": "string"}], "minItems": 3},
        "group": {"type": "array", "items": {"type": ["integer", "null"]}},
        "objective": {"type": ["array", "null"]},
    }
}
"""What is read of a receipt. Numbers that are not finite are text in it."""


@dataclass(frozen=True)
class GalleryImage:
    """One image of a gallery. Its file is read when a property asks for it.

    Attributes:
        unit: The unit's number; None for an objective that is not of one unit.
        copy: The copy's number, from 0.
        path: The PNG.
    """

    unit: int | None
    copy: int
    path: Path

    @property
    def film(self) -> Path:
        """The animated WebP of its optimization, which is there if it was asked for."""
        return self.path.with_suffix(".webp")

    @cached_property
    def receipt(self) -> Mapping[str, Any]:
        """How the image was made: see :func:`convscope.receipts.read_receipt`.

        Raises:
            BadImage: The file cannot be read, or is no intact PNG.
            StoreConflict: It carries no receipt, or that of another unit.
        """
        receipt = read_receipt(self.path)
        try:
            check_form(receipt, _RECEIPT)
        except ValueError as error:
            raise StoreConflict(f"{self.path}: its receipt is damaged ({error})") from None
        unit, copy = receipt.get("unit"), receipt.get("copy", 0)
        if (unit, copy) != (self.unit, self.copy):
            raise StoreConflict(f"{self.path}: its receipt is that of {image_name(unit, copy) if isinstance(unit, int) else unit}")
        return receipt

    @property
    def status(self) -> str:
        """ "converged", "rescued" or "stuck": see :class:`convscope.FeatureVisualization`."""
        return str(self.receipt.get("status", ""))

    @property
    def flat(self) -> bool:
        """Whether it is nearly of one colour: no pattern was found that excites the unit more."""
        return FLAT in str(self.receipt.get("reason", ""))

    @property
    def unit_name(self) -> str:
        """The class name on the output layer, "" elsewhere."""
        return str(self.receipt.get("unit_name", ""))

    @property
    def score(self) -> float:
        """The objective at the final image."""
        return float(self.receipt.get("score", "nan"))

    @property
    def verdict(self) -> str:
        """On the layer "output", the probability of its class, or "network: scales 62 %" where the network takes it for another."""
        seen = self.receipt.get("network_sees")
        return words.verdict(self.unit, int(seen[0]), float(seen[1]), str(seen[2])) if seen else ""

    @property
    def maximized(self) -> str:
        """The objective as text, penalties included."""
        return str(self.receipt.get("maximized", ""))

    @property
    def image(self) -> np.ndarray:
        """The image, (rgb h w) float32 in [0,1].

        Raises:
            BadImage: The file cannot be read.
        """
        return to_values(decode(read_bytes(self.path), printable(self.path))[0])


@dataclass(frozen=True)
class Saved:
    """What patience saved.

    Attributes:
        left_out: Steps that were not taken.
        steps: All steps of the images made, if none had ended early.
        seconds: Time of the steps left out, if they had taken as long as the others did.
    """

    left_out: int
    steps: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.left_out:,} of {self.steps:,} steps left out ({self.left_out / self.steps:.0%}), about {self.seconds:.0f} s saved"


@dataclass(frozen=True)
class Gallery:
    """A folder of feature visualizations.

    Attributes:
        folder: Where it is.
        images: Its images, by unit and copy.
        made: Files that the call of :func:`convscope.gallery` wrote that returned it; the others were there already.
        saved: What patience saved in that call; None without patience.
    """

    folder: Path
    images: tuple[GalleryImage, ...]
    made: tuple[Path, ...] = ()
    saved: Saved | None = None

    def __iter__(self) -> Iterator[GalleryImage]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def find(self, unit: int | None, copy: int = 0) -> GalleryImage | None:
        """The image of a unit, or None."""
        return next((image for image in self.images if (image.unit, image.copy) == (unit, copy)), None)


def image_name(unit: int | None, copy: int = 0) -> str:
    """File name of a unit's image in a gallery; None: an objective that is not of one unit."""
    return ("objective" if unit is None else f"unit_{unit:04d}") + (f"_copy{copy}" if copy else "") + ".png"


def read_gallery(folder: str | Path) -> Gallery:
    """Reads a folder that :func:`convscope.gallery` or the command feature-visualization wrote. Needs neither network nor torch.

    Args:
        folder: The folder.

    Returns:
        The gallery, which lists its images; their pixels and receipts are read when asked for.

    Raises:
        StoreConflict: There is no such folder, or it holds no image of a gallery.
    """
    folder = local_path(folder)
    if not folder.is_dir():
        raise StoreConflict(f"{folder}: there is no such folder")
    images = [
        GalleryImage(None if match[1] is None else int(match[1]), int(match[2] or 0), path)
        for path in folder.iterdir()
        if (match := _FILE.fullmatch(path.name))
    ]
    if not images:
        raise StoreConflict(f"{folder}: holds no gallery (looked for {image_name(12)} and the like)")
    order = sorted(images, key=lambda image: (-1 if image.unit is None else image.unit, image.copy))
    return Gallery(folder, tuple(order))


def is_gallery(folder: str | Path) -> bool:
    """Whether a folder holds images of a gallery."""
    return Path(folder).is_dir() and any(_FILE.fullmatch(path.name) for path in Path(folder).iterdir())


def write_sheet(gallery: Gallery, title: str) -> Path:
    """Writes all images of a gallery on one contact sheet, `sheet.png` in its folder.

    The title goes on with recipe, changed parameters and seed; what is rescued is said, what is stuck is marked.
    """
    tiles: list[Image] = []
    for image in gallery:
        name = f"{'objective' if image.unit is None else image.unit} {image.unit_name}".strip()
        name += f", copy {image.copy}" if image.copy else ""
        said = ["rescued" if image.status == "rescued" else "", "flat" if image.flat else ""]
        caption = " · ".join(filter(None, [f"{image.score:.3g}", image.verdict, *said]))
        tiles.append(Image(image.image, name, caption, "stuck" if image.status == "stuck" else None))
    receipt = gallery.images[0].receipt if gallery.images else {}
    seed = receipt.get("parameters", {}).get("seed")
    below = "below: activation, and what the network takes it for" if receipt.get("network_sees") else "below: activation"
    said = " · ".join(filter(None, [title, words.recipe(receipt), "" if seed is None else f"seed {seed}", below]))
    sheet = np.pad(contact_sheet(tiles, title=said, side=160), ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=255)
    made = {"technique": "contact_sheet", "title": title, "recipe": receipt.get("recipe", {}).get("name", ""), "seed": seed}
    return write_png(gallery.folder / SHEET, sheet, made)
