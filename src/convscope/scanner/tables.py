"""Writes the tables of a survey from its finished shards, layer by layer, so that memory holds the statistics of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from convscope.graph.bounds import Bounds
from convscope.scanner import parts
from convscope.scanner.files import OutputFolder
from convscope.scanner.histograms import quantiles, to_lists
from convscope.scanner.measure import map_size
from convscope.scanner.plan import Plan
from convscope.scanner.statistics_over_images import GroupStatistics, LayerStatistics
from convscope.scope import Scope
from convscope.scope.layers import Layer
from convscope.survey.schema import SCHEMAS

_REPEATING = {
    "images": ("label", "split", "domain", "shard"),
    "channels": ("layer", "bins.list.element", "counts.list.element"),
    "classes": ("layer", "channel", "label", "images", "votes"),
    "top": ("layer", "channel", "label", "rank", "y", "x"),
}


def write_tables(scope: Scope, plan: Plan, folder: OutputFolder) -> tuple[int, int, list[str]]:
    """Writes every table but `values/`.

    Returns:
        Number of images read, number of images skipped, and the labels, sorted.
    """
    read, skipped, labels = _write_images(folder, plan)
    with folder.writing_table("layers.parquet", SCHEMAS["layers"]) as write:
        write(_layers(scope, plan.layers))
    bounds = scope.bounds(plan.layers)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(folder.writing_table(f"{name}.parquet", SCHEMAS[name], _REPEATING[name]))
            for name in ("channels", "classes", "top")
        }
        for index, name in enumerate(plan.layers):
            statistics = parts.merged_statistics(folder, plan.shards, index, plan.top)
            height, width = map_size(scope.layers[name])
            writers["channels"](_channels(name, statistics, height * width, bounds[name]))
            sizes = {label: group.images for label, group in statistics.groups.items() if label is not None}
            listed = sorted(label for label, images in sizes.items() if plan.summary_only or images > 1)
            writers["classes"](_classes(name, statistics, listed))
            writers["top"](_top(name, statistics, listed, width))
    return read, skipped, labels


def _write_images(folder: OutputFolder, plan: Plan) -> tuple[int, int, list[str]]:
    """Writes the lists of images, a row group for each shard, so that a long list is never in memory as a whole."""
    read = skipped = 0
    labels: set[str] = set()
    with (
        folder.writing_table("images.parquet", SCHEMAS["images"], _REPEATING["images"]) as write_read,
        folder.writing_table("skipped.parquet", SCHEMAS["skipped"]) as write_skipped,
    ):
        for table in parts.all_images(folder, plan.shards):
            kept, left_out = table.filter(pc.field("reason").is_null()), table.filter(pc.field("reason").is_valid())
            write_read(kept.select(SCHEMAS["images"].names).cast(SCHEMAS["images"]))
            write_skipped(left_out.select(SCHEMAS["skipped"].names).cast(SCHEMAS["skipped"]))
            read, skipped = read + kept.num_rows, skipped + left_out.num_rows
            labels.update(label for label in kept["label"].unique().to_pylist() if label is not None)
    return read, skipped, sorted(labels)


def _layers(scope: Scope, names: Sequence[str]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for position, name in enumerate(names):
        layer = scope.layers[name]
        height, width = map_size(layer)
        (y0, y1), (x0, x1) = (_field(scope, layer, axis, length) for axis, length in ((0, height), (1, width)))
        rows.append(
            {
                "layer": name,
                "position": position,
                "kind": layer.kind,
                "channels": layer.channels,
                "height": height,
                "width": width,
                "rectified": _is_rectified(scope, layer),
                "field_y0": y0,
                "field_y1": y1,
                "field_x0": x0,
                "field_x1": x1,
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMAS["layers"])


def _is_rectified(scope: Scope, layer: Layer) -> bool:
    """Whether a layer's value is the output of an activation function."""
    return layer.node is not None and not layer.of_input and scope.graph.nodes[layer.node].role == "activation"


def _field(scope: Scope, layer: Layer, axis: int, length: int) -> tuple[list[int], list[int]]:
    """Receptive field of each position along an axis: first pixel and one beyond the last; 0, 0 if it sees only padding."""
    pixels = (scope.inputs.height, scope.inputs.width)[axis]
    if layer.node is None or len(layer.spatial) != 2:
        return [0] * length, [pixels] * length
    seen = scope.layers.field(layer, axis, clipped=True)
    empty = seen.first > seen.last
    return np.where(empty, 0, seen.first).tolist(), np.where(empty, 0, seen.last + 1).tolist()


def _channels(name: str, statistics: LayerStatistics, positions: int, bounds: Bounds | None) -> pa.Table:
    whole = statistics.groups[None]
    channels = len(statistics.positive)
    maximum = whole.top.value[0] if whole.images else np.full(channels, np.nan, np.float32)
    high = np.full(channels, np.nan) if bounds is None else bounds.high.numpy()
    columns = {
        "layer": [name] * channels,
        "channel": np.arange(channels, dtype=np.int32),
        "images": np.full(channels, whole.images),
        "positions": np.full(channels, whole.images * positions),
        **_moments(whole),
        "maximum": maximum,
        "positive": statistics.positive / max(1, whole.images * positions),
        "bound": pa.array(_rounded_up(high), pa.float32(), mask=~np.isfinite(_rounded_up(high))),
        **quantiles(statistics.histogram),
        **to_lists(statistics.histogram),
    }
    return pa.table(columns, schema=SCHEMAS["channels"])


def _rounded_up(values: np.ndarray) -> np.ndarray:
    """float64 rounded up to float32."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    return np.where(single < values, np.nextafter(single, np.float32(np.inf)), single)


def _moments(group: GroupStatistics) -> dict[str, np.ndarray]:
    return {"mean": group.mean.mean, "sd": group.mean.sd, "peak_mean": group.peak.mean, "peak_sd": group.peak.sd}


def _classes(name: str, statistics: LayerStatistics, labels: Sequence[str]) -> pa.Table:
    """Rows by channel, then label."""
    groups = [statistics.groups[label] for label in labels]
    channels = len(statistics.positive)
    values = [{**_moments(group), "votes": group.votes} for group in groups]
    columns = {
        "layer": [name] * (channels * len(labels)),
        "channel": np.repeat(np.arange(channels, dtype=np.int32), len(labels)),
        "label": pa.chunked_array([pa.array(labels, pa.string())] * channels, pa.string()),
        "images": np.tile(np.array([group.images for group in groups], np.int64), channels),
    }
    for column in ("mean", "sd", "peak_mean", "peak_sd", "votes"):
        kind = np.int64 if column == "votes" else np.float64
        columns[column] = np.stack([row[column] for row in values], 1).ravel() if values else np.zeros(0, kind)
    return pa.table(columns, schema=SCHEMAS["classes"])


def _top(name: str, statistics: LayerStatistics, labels: Sequence[str], width: int) -> pa.Table:
    """Rows by channel, then label (none first), then rank."""
    channels = len(statistics.positive)
    groups: list[str | None] = [None, *labels]
    tops = [statistics.groups[label].top for label in groups]
    ranks = np.concatenate([np.arange(len(top.value), dtype=np.int32) for top in tops])
    value, image, position = (np.concatenate(arrays).T.ravel() for arrays in zip(*(top.arrays() for top in tops), strict=True))
    named = [label for label, top in zip(groups, tops, strict=True) for _ in range(len(top.value))]
    columns = {
        "layer": [name] * (channels * len(ranks)),
        "channel": np.repeat(np.arange(channels, dtype=np.int32), len(ranks)),
        "label": pa.chunked_array([pa.array(named, pa.string())] * channels, pa.string()),
        "rank": np.tile(ranks, channels),
        "image": image,
        "value": value,
        "y": position // width,
        "x": position % width,
    }
    return pa.table(columns, schema=SCHEMAS["top"])
