"""The statistics of each shard as Parquet files in `parts/`, kept until all shards are done and the tables are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from convscope.scanner.files import OutputFolder
from convscope.scanner.histograms import SIDE
from convscope.scanner.statistics_over_images import GroupStatistics, LayerStatistics, Moments, TopImages
from convscope.survey.schema import SCHEMAS

PARTS = "parts"
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
    "histogram_index": pa.int32(),  # into the flattened (c bins); of bins that are not empty
    "histogram_count": pa.int64(),
}
SCHEMA = pa.schema([("label", pa.string()), ("images", pa.int64()), *((name, pa.list_(kind)) for name, kind in _LISTS.items())])
"""A row for each group of images, a row group for each layer."""
IMAGES = pa.schema([*SCHEMAS["images"], pa.field("reason", pa.string())])
"""The images of a shard, read (`reason` null) or skipped."""


def part_name(shard: int) -> str:
    """The file of a shard's statistics; it is written last, so it exists if the shard is done."""
    return f"{PARTS}/{shard:05d}.parquet"


def images_name(shard: int) -> str:
    """The file of a shard's list of images."""
    return f"{PARTS}/{shard:05d}-images.parquet"


def names_of(shard: int) -> tuple[str, str]:
    """Both files of a shard."""
    return images_name(shard), part_name(shard)


def finished(folder: OutputFolder, shards: int) -> list[bool]:
    """Whether each shard is done."""
    there = folder.names(PARTS)
    return [part_name(shard).rpartition("/")[2] in there for shard in range(shards)]


def to_table(statistics: LayerStatistics) -> pa.Table:
    """The statistics of a layer as a row group."""
    rows: list[dict[str, Any]] = []
    for label, group in statistics.groups.items():
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
    used = np.flatnonzero(statistics.histogram)
    rows[0] |= {
        "positive": statistics.positive,
        "histogram_index": used.astype(np.int32),
        "histogram_count": statistics.histogram.ravel()[used],
    }
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in SCHEMA]
    return pa.table(columns, schema=SCHEMA)


def from_table(table: pa.Table) -> LayerStatistics:
    """The inverse of :func:`to_table`."""
    columns = {name: table[name].combine_chunks() for name in table.column_names}

    def at(name: str, row: int) -> np.ndarray:
        return columns[name][row].values.to_numpy()

    groups: dict[str | None, GroupStatistics] = {}
    for row, label in enumerate(columns["label"].to_pylist()):
        images, mean = columns["images"][row].as_py(), at("mean", row)
        value, image, position = (at(f"top_{name}", row).reshape(-1, len(mean)) for name in ("value", "image", "position"))
        peak = Moments(images, at("peak", row), at("peak_squares", row))
        top = TopImages(value, image, position)
        groups[label] = GroupStatistics(Moments(images, mean, at("mean_squares", row)), peak, at("votes", row), top)
    positive = at("positive", 0)
    histogram = np.zeros(len(positive) * (2 * SIDE + 1), np.int64)
    histogram[at("histogram_index", 0)] = at("histogram_count", 0)
    return LayerStatistics(groups, positive, histogram.reshape(len(positive), -1))


def merged_statistics(folder: OutputFolder, shards: int, layer: int, top: int) -> LayerStatistics:
    """The statistics of a layer over all shards, merged in order.

    Args:
        folder: The survey's folder.
        shards: Number of shards.
        layer: The layer's index in the plan.
        top: Number of top images.
    """

    def part(shard: int) -> LayerStatistics:
        with folder.open(part_name(shard)) as file:
            return from_table(pq.ParquetFile(file).read_row_group(layer))

    whole = part(0)
    for shard in range(1, shards):
        whole = whole.merge(part(shard), top)
    return whole


def all_images(folder: OutputFolder, shards: int) -> Iterator[pa.Table]:
    """The list of images of each shard, in order."""
    for shard in range(shards):
        with folder.open(images_name(shard)) as file:
            yield pq.read_table(file)
