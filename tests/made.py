"""Small surveys with known answers, written by the schema with pyarrow alone: a plain second writer to hold readers against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from convscope.survey import Survey, read_survey
from convscope.survey.schema import SCHEMAS, VERSION

SIDE = 24
QUANTILES = {"q01": 0.01, "q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99, "q995": 0.995}


def made(
    folder: Path,
    maps: Mapping[str, np.ndarray],
    labels: Sequence[str | None],
    *,
    output: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    ids: Sequence[int] | None = None,
    splits: Sequence[str | None] | None = None,
    top: int = 9,
    votes_per_image: int = 25,
    shards: int = 2,
    summary_only: bool = False,
    rectified: Mapping[str, bool] | None = None,
    bounds: Mapping[tuple[str, int], float] | None = None,
    weights: str = "abc",
    crop: float | None = 1.0,
) -> Survey:
    """A survey of activations (n c h w) given for each layer; its pictures are noise of odd sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(labels)
    numbers = list(range(count)) if ids is None else list(ids)
    layers = dict(maps)
    layers["output"] = (np.zeros((count, 2)) if output is None else np.asarray(output))[:, :, None, None]
    layers = {name: np.asarray(values, np.float32) for name, values in layers.items()}
    found = sorted({label for label in labels if label is not None})
    write = Writer(folder, labels, found, numbers)
    write("images", image_rows(folder, labels, numbers, splits, shards))
    write("skipped", [{"image": 10**6, "name": "bad.jpg", "path": str(folder / "bad.jpg"), "reason": "not an image file"}])
    write("layers", [layer_row(name, place, values, rectified or {}) for place, (name, values) in enumerate(layers.items())])
    write("channels", [row for name, values in layers.items() for row in channel_rows(name, values, bounds or {})])
    listed = [label for label in found if summary_only or list(labels).count(label) > 1]
    write("classes", [row for name, values in layers.items() for row in class_rows(name, values, labels, listed, votes_per_image)])
    write("top", [row for name, values in layers.items() for row in top_rows(name, values, labels, listed, numbers, top)])
    if not summary_only:
        (folder / "values").mkdir(exist_ok=True)
        for shard, rows in enumerate(np.array_split(np.arange(count), shards)):
            table = [value_row(name, values, row, numbers[row]) for name, values in layers.items() for row in rows]
            with pq.ParquetWriter(folder / "values" / f"{shard:05}.parquet", SCHEMAS["values"]) as file:
                for name in layers:
                    file.write_table(pa.Table.from_pylist([row for row in table if row["layer"] == name], SCHEMAS["values"]))
    size = [SIDE, SIDE]
    inputs = {"size": size, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "crop": crop, "classes": classes}
    manifest: dict[str, Any] = {
        "schema": VERSION,
        "technique": "scan",
        "images": count,
        "skipped": 1,
        "shards": shards,
        "summary_only": summary_only,
        "top": top,
        "votes_per_image": votes_per_image,
        "layers": list(layers),
        "labels": found,
        "inputs": inputs,
        "network": {"name": "made", "weights": None, "weights_hash": weights, "inputs": {"size": size}},
        "parameters": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return read_survey(folder)


class Writer:
    """Writes one table after the other."""

    def __init__(self, folder: Path, labels: Sequence[str | None], found: list[str], numbers: list[int]) -> None:
        self.folder = folder

    def __call__(self, name: str, rows: list[dict[str, Any]]) -> None:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMAS[name]), self.folder / f"{name}.parquet")


def image_rows(
    folder: Path, labels: Sequence[str | None], numbers: list[int], splits: Sequence[str | None] | None, shards: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    shard_of = {row: shard for shard, part in enumerate(np.array_split(np.arange(len(labels)), shards)) for row in part}
    for row, (number, label) in enumerate(zip(numbers, labels, strict=True)):
        size = (30 + number % 7, 40 - number % 5)
        path = folder / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng([7, number]).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        split = None if splits is None else splits[row]
        where = {"image": number, "name": f"{label}/{number}.png", "path": str(path), "label": label, "split": split, "domain": None}
        rows.append(where | {"height": size[0], "width": size[1], "shard": shard_of[row]})
    return rows


def layer_row(name: str, place: int, values: np.ndarray, rectified: Mapping[str, bool]) -> dict[str, Any]:
    """Fields of 9 pixels around even steps, cut to the picture; the output sees all of it."""
    _, channels, height, width = values.shape
    row = {"layer": name, "position": place, "kind": "Conv2d", "channels": channels, "height": height, "width": width}
    row |= {"rectified": rectified.get(name, name != "output")}
    for axis, length in (("y", height), ("x", width)):
        centre = (np.arange(length) + 0.5) * SIDE / length
        reach = SIDE if length == 1 else 4
        row[f"field_{axis}0"] = [int(max(at - reach, 0)) for at in centre]
        row[f"field_{axis}1"] = [int(min(at + reach + 1, SIDE)) for at in centre]
    return row


def channel_rows(name: str, values: np.ndarray, bounds: Mapping[tuple[str, int], float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for channel in range(values.shape[1]):
        each = values[:, channel].reshape(len(values), -1).astype(np.float64)
        mean, peak = each.mean(1), each.max(1)
        row = {"layer": name, "channel": channel, "images": len(each), "positions": each.size}
        row |= {"mean": mean.mean(), "sd": mean.std(), "peak_mean": peak.mean(), "peak_sd": peak.std(), "maximum": each.max()}
        row |= {"positive": (each > 0).mean(), "bound": bounds.get((name, channel)), "bins": [0], "counts": [each.size]}
        rows.append(row | {key: float(np.quantile(each, share)) for key, share in QUANTILES.items()})
    return rows


def class_rows(name: str, values: np.ndarray, labels: Sequence[str | None], found: list[str], votes_per_image: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    means = values.astype(np.float64).mean((2, 3)).astype(np.float32)
    strongest = np.argsort(-means, axis=1, kind="stable")[:, :votes_per_image]
    for channel in range(values.shape[1]):
        for label in found:
            own = [row for row, each in enumerate(labels) if each == label]
            mean, peak = values[own, channel].astype(np.float64).mean((1, 2)), values[own, channel].astype(np.float64).max((1, 2))
            row = {"layer": name, "channel": channel, "label": label, "images": len(own), "mean": mean.mean(), "sd": mean.std()}
            row |= {"peak_mean": peak.mean(), "peak_sd": peak.std(), "votes": sum(channel in strongest[each] for each in own)}
            rows.append(row)
    return rows


def top_rows(
    name: str, values: np.ndarray, labels: Sequence[str | None], found: list[str], numbers: list[int], top: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for channel in range(values.shape[1]):
        for label in [None, *found]:
            own = [row for row, each in enumerate(labels) if label is None or each == label]
            own.sort(key=lambda row: (-values[row, channel].max(), numbers[row]))
            for rank, row in enumerate(own[:top]):
                where = {"layer": name, "channel": channel, "label": label, "rank": rank, "image": numbers[row]}
                rows.append(where | peak(values[row, channel]))
    return rows


def peak(one: np.ndarray) -> dict[str, Any]:
    y, x = divmod(int(one.argmax()), one.shape[1])
    return {"value": float(one.max()), "y": y, "x": x}


def value_row(name: str, values: np.ndarray, row: int, number: int) -> dict[str, Any]:
    peaks = [peak(each) for each in values[row]]
    mean = values[row].astype(np.float64).mean((1, 2)).astype(np.float32)
    columns = {"maximum": [each["value"] for each in peaks], "mean": mean, "y": [each["y"] for each in peaks]}
    return {"image": number, "layer": name} | columns | {"x": [each["x"] for each in peaks]}


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    """Rectified normal draws, coarse, so that ties happen."""
    return np.maximum(np.round(np.random.default_rng(seed).normal(size=shape), 1), 0).astype(np.float32)
