"""Exemplars: the images of a data set with the largest activation of each unit, cropped to its receptive field."""

from __future__ import annotations

import numpy as np

from convscope.errors import BadImage, BadInput
from convscope.names import Units
from convscope.progress import task
from convscope.results.exemplars import Exemplars
from convscope.results.provenance import technique
from convscope.survey.survey import Survey

FILL = 1.0
"""Value outside the image in crops that reach over its border: white."""


MOST = 2 * 2**30
"""Largest size of all crops, in bytes."""


_CELLS = 3
"""Positions of a map whose part of the image is shown of units that see all of it: the strongest one with a neighbour at each side."""


_MOST_TOP = 10_000
"""Results have a row for each, there or not."""


@technique
def exemplars(
    survey: Survey, layer: str, units: Units, *, top: int = 9, label: str | None = None, middle: float | None = None, crops: bool = True
) -> Exemplars:
    """The images of a data set with the largest activation of each unit, cropped to its receptive field.

    An image counts once, by the maximum of the unit's map. Larger values come first, then smaller image numbers; of equal maxima in an
    image, the first in reading order counts.

    Args:
        survey: The survey.
        layer: Layer name.
        units: Unit numbers, or class names on "output"; None: all of them.
        top: Number of images per unit.
        label: Only images with this label.
        middle: Share of the receptive field's height and width that is shown, around its middle. Receptive fields of deep units may cover
            the whole image, but its middle has the most weight (Luo et al. 2016, arXiv 1701.04128): try 0.5. None: all of it; where
            every position of a map sees the whole image, as tokens do, the position's own part of the image and its neighbours.
        crops: Whether to read the images and crop them.

    Returns:
        Values, images, positions, boxes and crops.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: Unknown label; `top` larger than the scan's, with a survey without per-image values; or too many crops for memory.

    Source:
        Zeiler and Fergus 2014 (arXiv 1311.2901): top 9, one position per image; crop = receptive field of the position.

    Example:
        >>> import convscope as cs
        >>> survey = cs.read_survey("surveys/photos")  # doctest: +SKIP
        >>> cs.exemplars(survey, "features.12", [3, 17]).images.shape  # doctest: +SKIP
        (2, 9)

    Command line:
        convscope exemplars survey features.27 --units 0-7 --top 4
        convscope exemplars survey output --units chains --label chains
    """
    chosen = survey.units(layer, units)
    if not 1 <= top <= _MOST_TOP:
        raise BadInput(f"top must be at least 1 and at most {_MOST_TOP}, got {top}")
    if middle is None:
        middle = _telling(survey, layer)
    if not 0 < middle <= 1:
        raise BadInput(f"middle must be above 0 and at most 1, got {middle}")
    values, images, positions = _strongest(survey, layer, chosen, top, label)
    there = images >= 0
    boxes = np.where(there[..., None], survey.receptive_fields(layer, np.where(there[..., None], positions, 0), middle), 0)
    cut, missing = _crops(survey, images, boxes) if crops else (np.zeros((len(chosen), 0, 3, 0, 0), np.float32), ())
    rows = [[survey.row(int(image)) for image in line if image >= 0] for line in images]
    labels = [survey.labels[place] if place >= 0 else "" for place in survey.truth]
    return Exemplars(
        values=values,
        images=images,
        positions=positions,
        boxes=boxes,
        crops=cut,
        layer=layer,
        units=tuple(chosen),
        unit_names=survey.unit_names(layer, chosen),
        label=label or "",
        names=tuple(tuple(survey.names[row] for row in line) for line in rows),
        image_labels=tuple(tuple(labels[row] for row in line) for line in rows),
        missing=missing,
        height=survey.preprocessing.height,
        width=survey.preprocessing.width,
        of=len(survey) if label is None else int((survey.truth == survey.labels.index(label)).sum()),
        middle=middle,
    )


def _telling(survey: Survey, layer: str) -> float:
    """The share of receptive fields that is shown if none is asked for."""
    known, size = survey.layer(layer), survey.preprocessing
    whole = all((fields == (0, length)).all() for fields, length in ((known.field_rows, size.height), (known.field_columns, size.width)))
    return min(1.0, _CELLS / min(known.height, known.width)) if whole else 1.0


def _strongest(survey: Survey, layer: str, units: list[int], top: int, label: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, images and positions, (unit top ...): from the survey's table of top images if that is long enough, else from all images."""
    kept = survey.manifest["top"]
    if top <= kept:
        table = survey.top(layer, label)
        column = {name: table[name].to_numpy() for name in ("channel", "rank", "value", "image", "y", "x")}
        asked = (column["rank"] < top) & np.isin(column["channel"], units)  # what the file says of others takes no memory
        column = {name: values[asked] for name, values in column.items()}
        every, rows = np.unique(units, return_inverse=True)
        shape = len(every), top
        values, images, positions = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int64), np.full((*shape, 2), -1, np.int32)
        place = np.searchsorted(every, column["channel"]), column["rank"]
        values[place], images[place], positions[place] = column["value"], column["image"], np.stack([column["y"], column["x"]], -1)
        return values[rows], images[rows], positions[rows]
    if survey.manifest["summary_only"]:
        raise BadInput(f"survey {survey.path} holds summaries only, with the {kept} strongest images of each unit; got top={top}")
    own = np.arange(len(survey)) if label is None else np.flatnonzero(survey.truth == survey.labels.index(survey.known_label(label)))
    peaks = survey.maximum(layer)[own][:, units]
    order = np.argsort(-peaks, axis=0, kind="stable")[:top].T
    places = survey.positions(layer)[own][order, np.array(units)[:, None]]
    short = ((0, 0), (0, top - order.shape[1]))
    values = np.pad(np.take_along_axis(peaks.T, order, 1), short, constant_values=np.nan)
    return (
        values,
        np.pad(survey.ids[own][order], short, constant_values=-1),
        np.pad(places, (*short, (0, 0)), constant_values=-1),
    )


def _crops(survey: Survey, images: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Crops of the boxes, (unit top rgb h w), and the names of images that could not be read."""
    size = crop_size(images, boxes)
    cut = np.full((*images.shape, 3, *size), FILL, np.float32)
    missing: list[str] = []
    numbers = np.unique(images[images >= 0])
    with task("reading images", len(numbers)) as advance:
        for image in numbers:
            try:
                pixels = survey.read_image(int(image))
            except BadImage:
                missing.append(survey.names[survey.row(int(image))])
                continue
            finally:
                advance()
            for unit, place in np.argwhere(images == image):
                put_crop(cut[unit, place], pixels, boxes[unit, place])
    return cut, tuple(missing)


def crop_size(images: np.ndarray, boxes: np.ndarray, each: int = 1) -> tuple[int, int]:
    """Height and width of a tile that holds any of the boxes (unit top 4).

    Args:
        images: The images' numbers, (unit top).
        boxes: y0 x0 y1 x1.
        each: How many such tiles there will be for each box.

    Raises:
        BadInput: All of them would take too much memory.
    """
    height, width = (int(length) for length in (boxes[..., 2:] - boxes[..., :2]).reshape(-1, 2).max(0))
    needed = each * images.size * 3 * height * width * 4
    if needed > MOST:
        less = "ask for fewer units, or for crops=False" if each == 1 else "ask for fewer units"
        raise BadInput(f"{images.size} crops of {height} x {width} pixels take {needed / 2**30:.1f} GB; {less}")
    return height, width


def put_crop(tile: np.ndarray, pixels: np.ndarray, box: np.ndarray) -> None:
    """Puts what is inside a box (y0 x0 y1 x1) of an image (rgb h w) into a tile of the size of whole receptive fields.

    A receptive field that the upper or left border of the image cuts lacks its beginning, one that the others cut lacks its end.
    """
    y0, x0, y1, x1 = (int(edge) for edge in box)
    top, left = tile.shape[-2] - (y1 - y0) if y0 == 0 else 0, tile.shape[-1] - (x1 - x0) if x0 == 0 else 0
    tile[:, top : top + y1 - y0, left : left + x1 - x0] = pixels[:, y0:y1, x0:x1]
