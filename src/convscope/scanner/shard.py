"""Scans one shard: measures its decoded images and writes their values, their list and their statistics."""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.scanner import parts
from convscope.scanner.decoder_pool import Decoded
from convscope.scanner.files import OutputFolder
from convscope.scanner.histograms import HistogramCounter
from convscope.scanner.measure import Measured, map_size, measure
from convscope.scanner.plan import Plan
from convscope.scanner.statistics_over_images import LayerStatistics, group_statistics
from convscope.scope import Scope
from convscope.survey.schema import SCHEMAS, VALUES
from convscope.survey.votes import votes_for

_log = logging.getLogger("convscope")
_REPEATING = ("layer", "y.list.element", "x.list.element")


@dataclass
class ShardMeasurements:
    """What was measured of a shard so far: arrays with a row per image, filled up to row `count`."""

    maximum: np.ndarray
    mean: np.ndarray
    position: np.ndarray
    votes: np.ndarray
    positive: np.ndarray
    counter: HistogramCounter
    read: list[Decoded] = field(default_factory=list[Decoded])
    skipped: list[Decoded] = field(default_factory=list[Decoded])

    @property
    def count(self) -> int:
        """Number of images measured so far."""
        return len(self.read)


class ShardScanner:
    """Scans the shards of a plan, one after another.

    Args:
        scope: The network.
        plan: The plan of the scan.
        folder: Where shards are written.
    """

    def __init__(self, scope: Scope, plan: Plan, folder: OutputFolder) -> None:
        self.scope, self.plan, self.folder = scope, plan, folder
        layers = [scope.layers[name] for name in plan.layers]
        self.channels = [layer.channels for layer in layers]
        self.sizes = [map_size(layer) for layer in layers]
        lowest = scope.bounds(plan.layers)
        self.signed = [known is None or bool((known.low < 0).any()) for known in lowest.values()]
        ends = np.cumsum(self.channels)
        self.slices = [slice(int(end) - count, int(end)) for end, count in zip(ends, self.channels, strict=True)]

    def scan(self, shard: int, decoded: Iterable[Decoded], advance: Callable[..., None], remaining: int) -> str:
        """Measures and writes a shard.

        Args:
            shard: Its number.
            decoded: Its images, decoded, in order.
            advance: Called with the number of images after each batch, and the forecast.
            remaining: Images of the whole scan that are still to be scanned; > 0 asks for a forecast after two batches.

        Returns:
            The forecast of the whole scan, "" without one.
        """
        start, stop = self.plan.bounds(shard)
        data, note, began = self._empty(stop - start), "", time.monotonic()
        for number, (batch, pixels) in enumerate(self._batches(decoded, data)):
            for _ in self.scope.in_parts(len(batch), len(batch), partial(self._measure, batch, pixels, data)):
                pass
            if number == 1 and remaining > stop - start >= 2 * self.plan.batch_size:
                note = self._forecast(data, (time.monotonic() - began) / len(batch), remaining)
            advance(len(batch), note)
            began = time.monotonic()
        self._write(shard, data)
        return note

    def _empty(self, images: int) -> ShardMeasurements:
        width = sum(self.channels)
        return ShardMeasurements(
            maximum=np.empty((images, width), np.float32),
            mean=np.empty((images, width), np.float32),
            position=np.empty((images, width), np.int32),
            votes=np.empty((images, width), bool),
            positive=np.zeros(width, np.int64),
            counter=HistogramCounter(self.channels, self.signed, self.scope.device),
        )

    def _batches(self, decoded: Iterable[Decoded], data: ShardMeasurements) -> Iterator[tuple[list[Decoded], Tensor]]:
        """Batches of decoded images and their pixels on the device, one uploaded ahead; unreadable images go to `skipped`."""

        def good() -> Iterator[Decoded]:
            for one in decoded:
                if one.pixels is not None:
                    yield one
                else:
                    _log.info("skipped: %s: %s", one.source.path, one.reason)
                    data.skipped.append(one)

        readable, waiting = good(), None
        while batch := list(islice(readable, self.plan.batch_size)):
            ready = batch, _upload([one.pixels for one in batch if one.pixels is not None], self.scope.device)
            if waiting is not None:
                yield waiting
            waiting = ready
        if waiting is not None:
            yield waiting

    def _measure(self, batch: list[Decoded], pixels: Tensor, data: ShardMeasurements, part: slice) -> None:
        """Measures a part of a batch; images with values that are not finite go to `skipped`."""
        batch, pixels = batch[part], pixels[part]
        images = pixels.permute(0, 3, 1, 2).float().div(255)
        measured = measure(self.scope, images, self.plan.layers, [one.source.number for one in batch])
        finite: np.ndarray = np.isfinite(measured.maximum) & np.isfinite(measured.mean)
        good = np.asarray(finite.all(1))
        for row in np.flatnonzero(~good):
            layer = next(name for name, part in zip(self.plan.layers, self.slices, strict=True) if not finite[row, part].all())
            data.skipped.append(Decoded(batch[row].source, reason=f"the network gives no finite number at layer {layer}"))
        self._keep(measured, good, data)
        data.read += [Decoded(one.source, None, one.height, one.width) for one, kept in zip(batch, good, strict=True) if kept]

    def _keep(self, measured: Measured, good: np.ndarray, data: ShardMeasurements) -> None:
        """Adds the measurements of the images of a batch whose values are finite."""
        rows = slice(data.count, data.count + int(good.sum()))
        data.maximum[rows], data.mean[rows] = measured.maximum[good], measured.mean[good]
        data.position[rows] = measured.position[good]
        data.positive += measured.positive[good].sum(0, dtype=np.int64)
        for part in self.slices:
            data.votes[rows, part] = votes_for(data.mean[rows, part], self.plan.votes_per_image)
        kept = measured.samples if good.all() else [samples[torch.from_numpy(good).to(samples.device)] for samples in measured.samples]
        data.counter.add(kept)

    def _write(self, shard: int, data: ShardMeasurements) -> None:
        """Writes the shard; its statistics last, as they mark the shard as done.

        Raises:
            StoreConflict: The folder has been removed, or given to another scan.
        """
        self.plan.check_still_in(self.folder)
        if not self.plan.summary_only:
            with self.folder.writing_table(f"{VALUES}/{shard:05d}.parquet", SCHEMAS["values"], _REPEATING) as write:
                for table in self._values(data):
                    write(table)
        with self.folder.writing_table(parts.images_name(shard), parts.IMAGES, ("label", "split", "domain", "shard")) as write:
            write(_images(shard, data))
        with self.folder.writing_table(parts.part_name(shard), parts.SCHEMA, ("label",)) as write:
            for part in self._statistics(data):
                write(parts.to_table(part))
        self.plan.check_still_in(self.folder)

    def _values(self, data: ShardMeasurements) -> Iterator[pa.Table]:
        images = pa.array([one.source.number for one in data.read], pa.int64())
        for name, (_, width), part in zip(self.plan.layers, self.sizes, self.slices, strict=True):
            position = data.position[: data.count, part]
            lists = (data.maximum[: data.count, part], data.mean[: data.count, part], position // width, position % width)
            columns = [images, pa.array([name] * data.count, pa.string()), *map(_lists, lists)]
            yield pa.table(columns, schema=SCHEMAS["values"])

    def _statistics(self, data: ShardMeasurements) -> Iterator[LayerStatistics]:
        """The statistics of each layer."""
        numbers = np.array([one.source.number for one in data.read], np.int64)
        labels = [one.source.label for one in data.read]
        for index, part in enumerate(self.slices):
            maximum, mean, position, votes = (array[: data.count, part] for array in (data.maximum, data.mean, data.position, data.votes))
            groups = group_statistics(maximum, mean, position, votes, numbers, labels, self.plan.top)
            yield LayerStatistics(groups, data.positive[part], data.counter.layer_counts(index).astype(np.int64))

    def _forecast(self, data: ShardMeasurements, seconds: float, remaining: int) -> str:
        """Estimated time and disk space of the whole scan, as text.

        Raises:
            BadInput: The disk is too small.
        """
        size = _packed(parts.SCHEMA, map(parts.to_table, self._statistics(data))) * -(-remaining // self.plan.shard_size)
        if not self.plan.summary_only:
            size += _packed(SCHEMAS["values"], self._values(data)) // max(1, data.count) * remaining
        free = self.folder.free()
        words = f"about {_duration(seconds * remaining)}, {_bytes(size)} on disk"
        _log.info("forecast for %d images: %s", remaining, words)
        if free is not None and size > free:
            less = "" if self.plan.summary_only else ", or summary_only=True, which keeps no row for each image"
            raise BadInput(
                f"{self.folder.path}: the scan of {remaining} images will take about {_bytes(size)}, but {_bytes(free)} are free; "
                f"scan fewer layers{less}"
            )
        return words


def _upload(images: list[np.ndarray], device: torch.device) -> Tensor:
    """Images as uint8 (n h w 3) on the device; copied to a GPU asynchronously from pinned memory."""
    batch = torch.from_numpy(np.stack(images))
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)


def _lists(values: np.ndarray) -> pa.Array:
    """(n c) as n lists of length c."""
    n, c = values.shape
    return pa.ListArray.from_arrays(np.arange(0, (n + 1) * c, c, dtype=np.int32), np.ascontiguousarray(values).ravel())


def _images(shard: int, data: ShardMeasurements) -> pa.Table:
    """The list of a shard's images, read and skipped, by image number."""
    everything = sorted([*data.read, *data.skipped], key=lambda one: one.source.number)
    rows = [
        {
            "image": one.source.number,
            **{name: getattr(one.source, name) for name in ("name", "path", "label", "split", "domain")},
            "height": one.height,
            "width": one.width,
            "shard": shard,
            "reason": one.reason or None,
        }
        for one in everything
    ]
    return pa.Table.from_pylist(rows, schema=parts.IMAGES)


def _packed(schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Size of tables as Parquet, in bytes."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
    return buffer.tell()


def _bytes(count: float) -> str:
    """A number of bytes in a unit that makes it at least 1: "640 kB", "3.2 GB"."""
    power = min(4, int(math.log(max(1.0, count), 1024)))
    number = count / 1024**power
    return f"{number:{',.0f' if power == 0 or number >= 10 else '.1f'}} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
