"""One shard: decoded pictures in, a file of values and a part of the statistics out."""

from __future__ import annotations

import io
import logging
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
from convscope.scanner.decoding import Decoded
from convscope.scanner.files import Place
from convscope.scanner.measure import Measured, map_size, measure, strongest
from convscope.scanner.moments import Part, grouped
from convscope.scanner.plan import Plan
from convscope.scanner.sketches import Counter
from convscope.scope import Scope
from convscope.survey.schema import SCHEMAS, VALUES

_log = logging.getLogger("convscope")
_REPEATING = ("layer", "y.list.element", "x.list.element")


@dataclass
class Collected:
    """What was measured of a shard so far: arrays with a row for each image, filled up to `count`."""

    maximum: np.ndarray
    mean: np.ndarray
    position: np.ndarray
    votes: np.ndarray
    positive: np.ndarray
    counter: Counter
    read: list[Decoded] = field(default_factory=list[Decoded])
    skipped: list[Decoded] = field(default_factory=list[Decoded])

    @property
    def count(self) -> int:
        """Number of images measured."""
        return len(self.read)


class ShardScanner:
    """Scans shards of one plan with one network, one after another.

    Args:
        scope: The network.
        plan: What to do.
        place: Where to.
    """

    def __init__(self, scope: Scope, plan: Plan, place: Place) -> None:
        self.scope, self.plan, self.place = scope, plan, place
        layers = [scope.layers[name] for name in plan.layers]
        self.channels = [layer.channels for layer in layers]
        self.sizes = [map_size(layer) for layer in layers]
        lowest = scope.bounds(plan.layers)
        self.signed = [known is None or bool((known.low < 0).any()) for known in lowest.values()]
        ends = np.cumsum(self.channels)
        self.slices = [slice(int(end) - count, int(end)) for end, count in zip(ends, self.channels, strict=True)]

    def scan(self, shard: int, decoded: Iterable[Decoded], advance: Callable[..., None], todo: int) -> tuple[int, int, str]:
        """Measures and writes a shard.

        Args:
            shard: Its number.
            decoded: Its pictures, in order.
            advance: Called with the number of images after each batch, and a note.
            todo: Images of the whole scan that are still to be done; > 0 asks for a forecast after two batches.

        Returns:
            Images read, images skipped, and the forecast ("" if none was asked for).
        """
        start, stop = self.plan.bounds(shard)
        held, note, began = self._empty(stop - start), "", time.monotonic()
        for number, (batch, pixels) in enumerate(self._batches(decoded, held)):
            measured = partial(self._measure, batch, pixels, held)
            for _ in self.scope.in_parts(len(batch), len(batch), measured):
                pass
            if number == 1 and todo > stop - start >= 2 * self.plan.batch_size:
                note = self._forecast(held, (time.monotonic() - began) / len(batch), todo)
            advance(len(batch), note)
            began = time.monotonic()
        self._write(shard, held)
        return held.count, len(held.skipped), note

    def _empty(self, images: int) -> Collected:
        width = sum(self.channels)
        return Collected(
            maximum=np.empty((images, width), np.float32),
            mean=np.empty((images, width), np.float32),
            position=np.empty((images, width), np.int32),
            votes=np.empty((images, width), bool),
            positive=np.zeros(width, np.int64),
            counter=Counter(self.channels, self.signed, self.scope.device),
        )

    def _batches(self, decoded: Iterable[Decoded], held: Collected) -> Iterator[tuple[list[Decoded], Tensor]]:
        """Batches of good pictures and their pixels on the device, one uploaded ahead; the others go to `skipped`."""

        def good() -> Iterator[Decoded]:
            for one in decoded:
                if one.pixels is not None:
                    yield one
                else:
                    _log.info("skipped: %s: %s", one.source.path, one.reason)
                    held.skipped.append(one)

        pictures, waiting = good(), None
        while batch := list(islice(pictures, self.plan.batch_size)):
            ready = batch, _upload([one.pixels for one in batch if one.pixels is not None], self.scope.device)
            if waiting is not None:
                yield waiting
            waiting = ready
        if waiting is not None:
            yield waiting

    def _measure(self, batch: list[Decoded], pixels: Tensor, held: Collected, part: slice) -> None:
        batch, pixels = batch[part], pixels[part]
        images = pixels.permute(0, 3, 1, 2).float().div(255)
        found = measure(self.scope, images, self.plan.layers, [one.source.number for one in batch])
        finite: np.ndarray = np.isfinite(found.maximum) & np.isfinite(found.mean)
        good = np.asarray(finite.all(1))
        for row in np.flatnonzero(~good):
            layer = next(name for name, part in zip(self.plan.layers, self.slices, strict=True) if not finite[row, part].all())
            held.skipped.append(Decoded(batch[row].source, reason=f"the network gives no finite number at layer {layer}"))
        self._keep(found, good, held)
        held.read += [Decoded(one.source, None, one.height, one.width) for one, kept in zip(batch, good, strict=True) if kept]

    def _keep(self, found: Measured, good: np.ndarray, held: Collected) -> None:
        rows = slice(held.count, held.count + int(good.sum()))
        held.maximum[rows], held.mean[rows] = found.maximum[good], found.mean[good]
        held.position[rows] = found.position[good]
        held.positive += found.positive[good].sum(0, dtype=np.int64)
        for part in self.slices:
            held.votes[rows, part] = strongest(held.mean[rows, part], self.plan.votes_per_image)
        kept = found.samples if good.all() else [samples[torch.from_numpy(good).to(samples.device)] for samples in found.samples]
        held.counter.add(kept)

    def _write(self, shard: int, held: Collected) -> None:
        """Values first, the part last: it says that the shard is done."""
        if not self.plan.summary_only:
            with self.place.writing_table(f"{VALUES}/{shard:05d}.parquet", SCHEMAS["values"], _REPEATING) as write:
                for table in self._values(held):
                    write(table)
        with self.place.writing_table(parts.images_name(shard), parts.READ, ("label", "split", "domain", "shard")) as write:
            write(_images(shard, held))
        with self.place.writing_table(parts.part_name(shard), parts.SCHEMA, ("label",)) as write:
            for part in self._parts(held):
                write(parts.to_table(part))

    def _values(self, held: Collected) -> Iterator[pa.Table]:
        images = pa.array([one.source.number for one in held.read], pa.int64())
        for name, (_, width), part in zip(self.plan.layers, self.sizes, self.slices, strict=True):
            position = held.position[: held.count, part]
            lists = (held.maximum[: held.count, part], held.mean[: held.count, part], position // width, position % width)
            columns = [images, pa.array([name] * held.count, pa.string()), *map(_lists, lists)]
            yield pa.table(columns, schema=SCHEMAS["values"])

    def _parts(self, held: Collected) -> Iterator[Part]:
        """The statistics of each layer."""
        numbers = np.array([one.source.number for one in held.read], np.int64)
        labels = [one.source.label for one in held.read]
        for index, part in enumerate(self.slices):
            maximum, mean, position, votes = (array[: held.count, part] for array in (held.maximum, held.mean, held.position, held.votes))
            groups = grouped(maximum, mean, position, votes, numbers, labels, self.plan.top)
            yield Part(groups, held.positive[part], held.counter.taken(index).astype(np.int64))

    def _forecast(self, held: Collected, seconds: float, todo: int) -> str:
        """Time and disk that the whole scan will take, in words.

        Raises:
            BadInput: The disk is too small for it.
        """
        size = _packed(parts.SCHEMA, map(parts.to_table, self._parts(held))) * -(-todo // self.plan.shard_size)
        if not self.plan.summary_only:
            size += _packed(SCHEMAS["values"], self._values(held)) // max(1, held.count) * todo
        free = self.place.free()
        words = f"about {_duration(seconds * todo)}, {size / 2**20:,.0f} MB on disk"
        _log.info("forecast for %d images: %s", todo, words)
        if free is not None and size > free:
            less = "" if self.plan.summary_only else ", or summary_only=True, which keeps no row for each image"
            raise BadInput(
                f"{self.place.path}: the scan of {todo} images will take about {size / 2**30:.1f} GB but {free / 2**30:.1f} GB are free; "
                f"fewer layers{less}, take less"
            )
        return words


def _upload(pictures: list[np.ndarray], device: torch.device) -> Tensor:
    """uint8 (n h w 3) on the device; towards a GPU from pinned memory and without waiting."""
    batch = torch.from_numpy(np.stack(pictures))
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)


def _lists(values: np.ndarray) -> pa.Array:
    """(n c) as n lists of length c."""
    n, c = values.shape
    return pa.ListArray.from_arrays(np.arange(0, (n + 1) * c, c, dtype=np.int32), np.ascontiguousarray(values).ravel())


def _images(shard: int, held: Collected) -> pa.Table:
    """Rows of `parts.READ`, in the order of the images' numbers."""
    everything = sorted([*held.read, *held.skipped], key=lambda one: one.source.number)
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
    return pa.Table.from_pylist(rows, schema=parts.READ)


def _packed(schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Bytes that tables take as Parquet."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
    return buffer.tell()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
