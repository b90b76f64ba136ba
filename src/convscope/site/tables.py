"""Small tables beside the survey in `data/`: how units are arranged and connected, and maps of the strongest units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ARRANGEMENT, CONNECTIONS, MAPS, STUDIES = "units.parquet", "connections.parquet", "maps.parquet", "occlusion.parquet"
ATTRIBUTION = "attribution.parquet"
_PLACE = pa.field("place", pa.list_(pa.float32()))  # where the map lies on the image: y0, x0, y1, x1 in pixels
_STRIP = [
    pa.field("layer", pa.string()),
    pa.field("unit", pa.int32()),
    pa.field("maximum", pa.float32()),
    pa.field("height", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("values", pa.binary()),  # (height width) uint8, 255 is the maximum
    _PLACE,
]
SCHEMAS: dict[str, pa.Schema] = {
    ARRANGEMENT: pa.schema(
        [
            pa.field("layer", pa.string()),
            pa.field("unit", pa.int32()),
            pa.field("place", pa.int32()),  # in the order of similarity (dendrogram of log mean activations)
            pa.field("x", pa.float32()),  # on the map of similarity (t-SNE), in [0,1]; null for units that never vary
            pa.field("y", pa.float32()),
        ]
    ),
    CONNECTIONS: pa.schema(
        [
            pa.field("from_layer", pa.string()),
            pa.field("from_unit", pa.int32()),
            pa.field("to_layer", pa.string()),
            pa.field("to_unit", pa.int32()),
            pa.field("weight", pa.float32()),  # of the kernel, norm folded in: its sum over positions with the sign, see docs
        ]
    ),
    MAPS: pa.schema(
        [
            pa.field("image", pa.int64()),
            pa.field("layer", pa.string()),
            pa.field("unit", pa.int32()),
            pa.field("rank", pa.int32()),
            pa.field("maximum", pa.float32()),
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("values", pa.binary()),  # (height width) uint8, 255 is the maximum
            _PLACE,
        ]
    ),
    ATTRIBUTION: pa.schema(
        [
            pa.field("class", pa.int32()),  # that the images are taken for
            pa.field("group", pa.string()),  # "right", "wrong", or "unknown" where labels are no classes
            pa.field("images", pa.int32()),
            pa.field("layer", pa.string()),
            pa.field("unit", pa.int32()),
            pa.field("value", pa.float32()),  # activation times derivative of the log-odds, summed over positions, mean over the images
        ]
    ),
    STUDIES: pa.schema(
        [
            pa.field("image", pa.int64()),
            pa.field("target", pa.int32()),  # the class whose score it is: the most probable one
            pa.field("patch", pa.int32()),  # side in pixels
            pa.field("base", pa.float32()),  # the score of the whole image: log-odds; of a single output, the output
            pa.field("lowest", pa.float32()),  # with the patch that costs most
            pa.field("then", pa.int32()),  # the most probable class with that patch
            pa.field("positions", pa.int32()),  # of the patch
            pa.field("own", pa.int32()),  # positions at which the class of its label is the most probable one
            pa.field("largest", pa.float32()),  # largest absolute drop of a pixel
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("values", pa.binary()),  # (height width) int8: drop of the score where a pixel is hidden, 127 is the largest
            pa.field("strip", pa.list_(pa.struct(_STRIP))),  # for each layer with maps, the unit of highest mean
        ]
    ),
}


def write_table(path: Path, name: str, columns: Mapping[str, object], key: str) -> None:
    """Writes a table by one rename; `key` says what it was made from."""
    schema = SCHEMAS[name].with_metadata({"key": key})
    temporary = path / f".{name}.tmp"
    with temporary.open("wb") as file:  # of a path with a colon pyarrow makes a URL
        pq.write_table(pa.table(dict(columns), schema=schema), file)
    temporary.replace(path / name)


def is_current(path: Path, name: str, key: str) -> bool:
    """Whether a table is there, with the columns of today and made from the same."""
    try:
        with (path / name).open("rb") as file:
            found = pq.read_schema(file)
    except (OSError, pa.ArrowException):
        return False
    return found.equals(SCHEMAS[name]) and (found.metadata or {}).get(b"key") == key.encode()


def read_table(site: Path, name: str) -> pa.Table | None:
    """A table of a site; None if it is not there, or has other columns than today's."""
    path = site / "data" / name
    if not path.exists():
        return None
    with path.open("rb") as file:
        return pq.read_table(file) if pq.read_schema(file).equals(SCHEMAS[name]) else None


def read_arrangement(site: Path) -> dict[str, np.ndarray]:
    """{layer: (unit 3)}: place, x, y."""
    table = read_table(site, ARRANGEMENT)
    found: dict[str, np.ndarray] = {}
    if table is None:
        return found
    layers = np.array(table["layer"].to_pylist())
    values = np.stack([table[name].to_numpy().astype(np.float64) for name in ("place", "x", "y")], 1)
    return {str(name): values[layers == name] for name in dict.fromkeys(layers.tolist())}


@dataclass(frozen=True)
class Connection:
    """A weight between two units.

    Attributes:
        layer, unit: The unit at the other end.
        weight: Signed.
    """

    layer: str
    unit: int
    weight: float


class Connections:
    """The strongest weights into and out of each unit.

    Attributes:
        to: {(layer, unit): connections from earlier units}, strongest first.
        out_of: {(layer, unit): connections to later units}, strongest first.
    """

    def __init__(self) -> None:
        self.to: dict[tuple[str, int], list[Connection]] = {}
        self.out_of: dict[tuple[str, int], list[Connection]] = {}
        self.layers_before: dict[str, list[str]] = {}

    @classmethod
    def read(cls, site: Path) -> Connections:
        """Those of a site; none if they are not there."""
        found, table = cls(), read_table(site, CONNECTIONS)
        for row in [] if table is None else table.to_pylist():
            source, target = (row["from_layer"], row["from_unit"]), (row["to_layer"], row["to_unit"])
            found.to.setdefault(target, []).append(Connection(*source, row["weight"]))
            found.out_of.setdefault(source, []).append(Connection(*target, row["weight"]))
        for several in (*found.to.values(), *found.out_of.values()):
            several.sort(key=lambda one: (-abs(one.weight), one.layer, one.unit))
        return found


@dataclass(frozen=True)
class StoredMap:
    """The activation map of a unit on an image.

    Attributes:
        layer, unit: The unit.
        maximum: Its largest value.
        values: (h w) uint8, 255 is the maximum.
        place: Where it lies on the image: y0, x0, y1, x1 in pixels.
    """

    layer: str
    unit: int
    maximum: float
    values: np.ndarray
    place: tuple[float, ...]


class Maps:
    """Maps of the strongest units on each image, {image: maps}."""

    def __init__(self) -> None:
        self.of: dict[int, list[StoredMap]] = {}

    @classmethod
    def read(cls, site: Path) -> Maps:
        """Those of a site; none if they are not there."""
        found, table = cls(), read_table(site, MAPS)
        for row in [] if table is None else table.to_pylist():
            found.of.setdefault(row["image"], []).append(_stored(row))
        return found


class Attributions:
    """The units behind each class's verdicts, {class: {group: (images, [(layer, unit, log-odds)])}}."""

    def __init__(self) -> None:
        self.of: dict[int, dict[str, tuple[int, list[tuple[str, int, float]]]]] = {}

    @classmethod
    def read(cls, site: Path) -> Attributions:
        """Those of a site; none if they are not there."""
        found, table = cls(), read_table(site, ATTRIBUTION)
        for row in [] if table is None else table.to_pylist():
            groups = found.of.setdefault(row["class"], {})
            groups.setdefault(row["group"], (row["images"], []))[1].append((row["layer"], row["unit"], row["value"]))
        return found


@dataclass(frozen=True)
class Study:
    """What was found by occlusion of an image, and the strip of its layers.

    Attributes:
        row: Its row of the table.
        drop: (h w) int8, 127 is the largest absolute drop.
        strip: The unit of highest mean of each layer, in call order.
    """

    row: Mapping[str, Any]
    drop: np.ndarray
    strip: tuple[StoredMap, ...]


class Studies:
    """The images that occlusion maps were computed of, {image: study}, and the rows of their table in its order."""

    def __init__(self) -> None:
        self.of: dict[int, Study] = {}
        self.rows: list[dict[str, Any]] = []

    @classmethod
    def read(cls, site: Path) -> Studies:
        """Those of a site; none if they are not there."""
        found, table = cls(), read_table(site, STUDIES)
        for row in [] if table is None else table.to_pylist():
            found.add(row)
        return found

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row of the table."""
        self.rows.append(row)
        drop = np.frombuffer(row["values"], np.int8).reshape(row["height"], row["width"])
        self.of[row["image"]] = Study(row, drop, tuple(map(_stored, row["strip"])))


def _stored(row: Mapping[str, Any]) -> StoredMap:
    values = np.frombuffer(row["values"], np.uint8).reshape(row["height"], row["width"])
    return StoredMap(row["layer"], row["unit"], row["maximum"], values, tuple(row["place"]))
