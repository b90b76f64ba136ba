"""A shard's statistics as files: what is left of it in `parts/` until the last shard is done and the tables are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from convscope.scanner.files import Place
from convscope.scanner.moments import Group, Moments, Part, Top
from convscope.scanner.sketches import SIDE
from convscope.survey.schema import SCHEMAS

FOLDER = "parts"
_LISTS = {
    "mean": pa.float64(),
    "mean_squares": pa.float64(),
    "peak": pa.float64(),
    "peak_squares": pa.float64(),
    "votes": pa.int64(),
    "top_value": pa.float32(),
    "top_image": pa.int64(),
    "top_position": pa.int32(),
    "positive": pa.int64(),  # these three in the row of all images only
    "sketch_place": pa.int32(),
    "sketch_count": pa.int64(),
}
SCHEMA = pa.schema([("label", pa.string()), ("images", pa.int64()), *((name, pa.list_(kind)) for name, kind in _LISTS.items())])
"""A row for each group, a row group for each layer."""
READ = pa.schema([*SCHEMAS["images"], pa.field("reason", pa.string())])
"""A shard's images, read (`reason` null) or skipped."""


def part_name(shard: int) -> str:
    """The file that says, by being there, that a shard is done."""
    return f"{FOLDER}/{shard:05d}.parquet"


def images_name(shard: int) -> str:
    """The file of a shard's images."""
    return f"{FOLDER}/{shard:05d}-images.parquet"


def finished(place: Place, shards: int) -> list[bool]:
    """For every shard, whether it is done."""
    there = place.names(FOLDER)
    return [part_name(shard).rpartition("/")[2] in there for shard in range(shards)]


def to_table(part: Part) -> pa.Table:
    """A layer's part as a row group."""
    rows: list[dict[str, Any]] = []
    for label, group in part.groups.items():
        rows.append(
            {
                "label": label,
                "images": group.images,
                "mean": group.mean.mean,
                "mean_squares": group.mean.squares,
                "peak": group.peak.mean,
                "peak_squares": group.peak.squares,
                "votes": group.votes,
                "top_value": group.top.value.ravel(),
                "top_image": group.top.image.ravel(),
                "top_position": group.top.position.ravel(),
            }
        )
    places = np.flatnonzero(part.sketch)
    rows[0] |= {"positive": part.positive, "sketch_place": places.astype(np.int32), "sketch_count": part.sketch.ravel()[places]}
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in SCHEMA]
    return pa.table(columns, schema=SCHEMA)


def from_table(table: pa.Table) -> Part:
    """The part that :func:`to_table` wrote."""
    columns = {name: table[name].combine_chunks() for name in table.column_names}

    def at(name: str, row: int) -> np.ndarray:
        return columns[name][row].values.to_numpy()

    groups: dict[str | None, Group] = {}
    for row, label in enumerate(columns["label"].to_pylist()):
        images, mean = columns["images"][row].as_py(), at("mean", row)
        value, image, position = (at(f"top_{name}", row).reshape(-1, len(mean)) for name in ("value", "image", "position"))
        peak = Moments(images, at("peak", row), at("peak_squares", row))
        groups[label] = Group(Moments(images, mean, at("mean_squares", row)), peak, at("votes", row), Top(value, image, position))
    positive = at("positive", 0)
    sketch = np.zeros(len(positive) * (2 * SIDE + 1), np.int64)
    sketch[at("sketch_place", 0)] = at("sketch_count", 0)
    return Part(groups, positive, sketch.reshape(len(positive), -1))


def merged(place: Place, shards: int, layer: int, top: int) -> Part:
    """A layer's statistics over all shards, merged in their order."""

    def part(shard: int) -> Part:
        with place.open(part_name(shard)) as file:
            return from_table(pq.ParquetFile(file).read_row_group(layer))

    whole = part(0)
    for shard in range(1, shards):
        whole = whole.merge(part(shard), top)
    return whole


def all_images(place: Place, shards: int) -> Iterator[pa.Table]:
    """The images of every shard, in order."""
    for shard in range(shards):
        with place.open(images_name(shard)) as file:
            yield pq.read_table(file)
