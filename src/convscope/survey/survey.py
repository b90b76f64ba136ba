"""The reader of surveys: per-image statistics of every unit as arrays, tables, or by SQL."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from convscope.errors import BadInput, StoreConflict
from convscope.files import path_text
from convscope.names import OUTPUT, Units, near_names, no_layer, unit_numbers
from convscope.preprocessing import Preprocessing
from convscope.results.table import pandas
from convscope.survey.alone import class_rows, top_rows
from convscope.survey.files import Files, open_folder
from convscope.survey.originals import preprocessing_of, read_original
from convscope.text import one_line

if TYPE_CHECKING:
    from pandas import DataFrame

_TABLES = ("images", "skipped", "layers", "channels", "classes", "top", "values")
"""The tables that :meth:`Survey.to_frame` gives."""

MOST_CHANNELS = 2**20
"""Most channels of a layer: a damaged number would ask for more memory than there is."""


@dataclass(frozen=True, eq=False)
class SurveyLayer:
    """A scanned layer.

    Attributes:
        name: The layer's name.
        kind: The module's class.
        channels: Number of channels, that is of units.
        height, width: Size of its feature map, 1 x 1 for the output.
        rectified: Whether its values are those after a ReLU or another activation function.
        field_rows: Receptive field of each row of the map: first pixel row and one beyond the last, cut to the image, (y 2).
        field_columns: The same for columns, (x 2).
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    rectified: bool
    field_rows: np.ndarray
    field_columns: np.ndarray


class Survey:
    """A survey, opened for reading; tables are read when they are first used.

    Images have numbers, which are never those of rows: rows of all arrays are in the order of `ids`. A label belongs to an image; the
    class names of the units of "output" are `unit_names`.

    Attributes:
        path: The folder.
        manifest: The network, its inputs, parameters and versions; `convscope.survey.schema` lists its keys.
        layers: The scanned layers by name, in call order; the last is "output".
        labels: The labels of the images, sorted.
    """

    subject: ClassVar[str] = "survey"

    def __init__(self, files: Files, manifest: Mapping[str, Any]) -> None:
        self.path = files.name
        self.manifest = manifest
        self.labels: tuple[str, ...] = tuple(manifest["labels"])
        self._files = files
        self._tables: dict[str, pa.Table] = {}

    def provenance(self) -> Mapping[str, Any]:
        """What manifests record of the survey and its network."""
        return {
            "libraries": ("pyarrow", "duckdb", "scipy", "scikit-learn"),
            "survey": {"path": self.path, "images": self.manifest["images"], "skipped": self.manifest["skipped"]},
            "network": self.manifest["network"],
        }

    def describe(self) -> str:
        """Its path, which manifests record of a further survey."""
        return self.path

    def entered(self, seed: int | None = None) -> AbstractContextManager[Any]:  # noqa: ARG002
        """The context in which techniques run: none is needed."""
        return nullcontext()

    def __repr__(self) -> str:
        network = self.manifest.get("network", {}).get("name", "")
        kept = ", summaries only" if self.manifest["summary_only"] else ""
        count = f"{self.manifest['images']} images of {len(self.labels)} labels, {len(self.layers)} layers{kept}"
        return f"Survey({self.path!r}: {network}, {count})"

    def __len__(self) -> int:
        return self.images.num_rows

    @cached_property
    def layers(self) -> dict[str, SurveyLayer]:
        """The scanned layers by name, in call order."""

        def span(row: Mapping[str, Any], axis: str) -> np.ndarray:
            return np.stack([row[f"field_{axis}0"], row[f"field_{axis}1"]], 1)

        plain = ("kind", "channels", "height", "width", "rectified")
        rows = self._files.table("layers").sort_by("position").to_pylist()
        if [row["layer"] for row in rows] != self.manifest["layers"] or OUTPUT not in self.manifest["layers"]:
            raise StoreConflict(f"{self.path}: layers.parquet is damaged (its layers are not those of the manifest)")
        for row in rows:
            sides = (("y", row["height"], self.preprocessing.height), ("x", row["width"], self.preprocessing.width))
            fields = all(_are_fields(row[f"field_{axis}0"], row[f"field_{axis}1"], *ends) for axis, *ends in sides)
            if not fields or not 1 <= row["channels"] <= MOST_CHANNELS:
                raise StoreConflict(f"{self.path}: layers.parquet is damaged (layer {row['layer']}: channels, map and receptive fields)")
        classes = self.manifest["inputs"]["classes"]
        if classes and len(classes) != (outputs := next(row["channels"] for row in rows if row["layer"] == OUTPUT)):
            raise StoreConflict(f"{self.path}: {len(classes)} class names in the manifest, but {outputs} outputs in layers.parquet")
        return {
            row["layer"]: SurveyLayer(
                row["layer"], **{key: row[key] for key in plain}, field_rows=span(row, "y"), field_columns=span(row, "x")
            )
            for row in rows
        }

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Size of the network's input, and how images are resized to it."""
        return preprocessing_of(self.manifest)

    @cached_property
    def images(self) -> pa.Table:
        """The table of images that were read."""
        return self._files.table("images")

    @cached_property
    def skipped(self) -> pa.Table:
        """The table of images that were skipped, with the reason."""
        return self._files.table("skipped")

    @cached_property
    def ids(self) -> np.ndarray:
        """The number of each image, ascending, (n); rows of arrays are in this order."""
        ids = self.images["image"].to_numpy()
        if (np.diff(ids) <= 0).any():
            raise StoreConflict(f"{self.path}: images.parquet is damaged (numbers of images do not ascend)")
        if len(ids) != self.manifest["images"]:
            raise StoreConflict(f"{self.path}: images.parquet is damaged ({len(ids)} images, {self.manifest['images']} in the manifest)")
        return ids

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each image."""
        return tuple(self.images["name"].to_pylist())

    @cached_property
    def truth(self) -> np.ndarray:
        """The label of each image as an index into `labels`, -1 for none, (n)."""
        self._check_labels("images", self.images)
        indices = {label: index for index, label in enumerate(self.labels)}
        return np.array([indices.get(label, -1) for label in self.images["label"].to_pylist()], np.int64)

    def layer(self, name: str) -> SurveyLayer:
        """A layer by name.

        Raises:
            LayerNotFound: No such layer was scanned; near names are listed.
        """
        if name not in self.layers:
            raise no_layer(name, self.layers, "survey", "; another scan with --layers NAME has others")
        return self.layers[name]

    def units(self, layer: str, asked: Units) -> list[int]:
        """Unit numbers from a number, a list, a slice or None (all); on "output" also from class names.

        Raises:
            UnitNotFound: The layer has no such unit, or none is asked for.
        """
        return unit_numbers(asked, layer, self.layer(layer).channels, self._classes if layer == OUTPUT else ())

    def unit_names(self, layer: str, units: Sequence[int]) -> tuple[str, ...]:
        """Names of units: class names on "output", "" elsewhere."""
        classes = self.manifest["inputs"]["classes"]
        if layer != OUTPUT or not classes:
            return ("",) * len(units)
        return tuple(str(classes[unit]) for unit in units)

    def maximum(self, layer: str) -> np.ndarray:
        """Each unit's maximum over positions, (n unit) float32."""
        return self._matrix(layer, {"maximum": np.float32})[0]

    def mean(self, layer: str) -> np.ndarray:
        """Each unit's mean over positions, (n unit) float32."""
        return self._matrix(layer, {"mean": np.float32})[0]

    def positions(self, layer: str) -> np.ndarray:
        """Position of the maximum, (n unit 2): y, x on the layer's map; of equals the first in reading order."""
        return np.stack(self._matrix(layer, {"y": np.int32, "x": np.int32}), -1)

    def channels(self, layer: str) -> pa.Table:
        """The table of each channel's statistics over all images."""
        return self._rows("channels", layer)

    def classes(self, layer: str) -> pa.Table:
        """The table of each channel's statistics for each label."""
        found, labels = self._rows("classes", layer), sorted(self._alone)
        if not labels:
            return found
        rows, votes = [self._alone[label] for label in labels], int(self.manifest["votes_per_image"])
        more = class_rows(layer, labels, self.maximum(layer)[rows], self.mean(layer)[rows], votes)
        whole = pa.concat_tables([found, more])
        return whole if not found.num_rows else whole.sort_by([("channel", "ascending"), ("label", "ascending")])

    def top(self, layer: str, label: str | None = None) -> pa.Table:
        """The table of each channel's images with the largest activation, of all images or those with one label."""
        table = self._rows("top", layer)
        if label is None:
            return table.filter(pc.field("label").is_null())
        row = self._alone.get(self.known_label(label))
        if row is None:
            return table.filter(pc.field("label") == label)
        return top_rows(layer, label, int(self.ids[row]), self.maximum(layer)[row], self.positions(layer)[row])

    @cached_property
    def _alone(self) -> dict[str, int]:
        """{label: row of its image} of labels that have a single one, which the tables leave out where there are per-image values."""
        counts = np.bincount(self.truth[self.truth >= 0], minlength=len(self.labels))
        rows = {int(label): row for row, label in enumerate(self.truth) if label >= 0}
        one = () if self.manifest["summary_only"] else np.flatnonzero(counts == 1).tolist()
        return {self.labels[label]: rows[label] for label in one}

    def query(self, sql: str) -> pa.Table:
        """The result of an SQL query by DuckDB.

        Views: images, skipped, layers, channels, classes, top; `rows` with a row per image and layer and lists over channels; `values`
        with a row per image, layer and channel.

        Raises:
            BadInput: The query is wrong.
        """
        return self._files.query(sql)

    def to_frame(self, table: str = "images", *, layer: str | None = None) -> DataFrame:
        """A table of the survey as a pandas data frame.

        Args:
            table: "images" (a row for each image read), "skipped", "layers", "channels" (a row for each unit), "classes" (for each unit and
                label), "top" (the strongest images of each unit), or "values" (for each image and unit).
            layer: Of tables of units, the rows of one layer; None: of all.

        Raises:
            NotInstalled: pandas is not installed.
            LayerNotFound: Unknown layer.
            BadInput: No such table, or one that is not of units.
        """
        pandas()
        if table not in _TABLES:
            raise BadInput(f"table must be one of {', '.join(_TABLES)}, got {one_line(repr(table), 60)}")
        if layer is not None and table in ("images", "skipped", "layers"):
            raise BadInput(f"layer: the table {table} is not of units")
        rows = "" if layer is None else " where layer = '{}'".format(self.layer(layer).name.replace("'", "''"))
        return cast("DataFrame", self.query(f'select * from "{table}"{rows}').to_pandas())

    def read_image(self, image: int) -> np.ndarray:
        """An image exactly as the network got it, before normalization: (3 h w) float32 in [0,1].

        Raises:
            BadInput: The survey has no image of that number.
            BadImage: The file is missing or cannot be read.
        """
        return read_original(self.images["path"][self.row(image)].as_py(), self.preprocessing)

    def receptive_fields(self, layer: str, positions: np.ndarray, middle: float = 1.0) -> np.ndarray:
        """Receptive fields of positions: boxes (... 4) y0 x0 y1 x1 in pixels of :meth:`read_image`, end exclusive, cut to it.

        Args:
            layer: Layer name.
            positions: Positions on the layer's map, (... 2): y, x.
            middle: Share of the receptive field's sides, around its middle.

        Raises:
            BadInput: A position outside the map.
        """
        known, (y, x) = self.layer(layer), np.moveaxis(np.asarray(positions, np.int64), -1, 0)
        if ((y < 0) | (y >= known.height) | (x < 0) | (x >= known.width)).any():
            raise BadInput(f"layer {layer} has a map of {known.height} x {known.width}, got positions outside it")
        height, width = self.preprocessing.height, self.preprocessing.width
        rows, columns = (
            (known.field_rows if middle == 1 else middles(known.field_rows, height, middle))[y],
            (known.field_columns if middle == 1 else middles(known.field_columns, width, middle))[x],
        )
        return np.stack([rows[..., 0], columns[..., 0], rows[..., 1], columns[..., 1]], -1)

    def row(self, image: int) -> int:
        """The row of an image in all arrays, by its number.

        Raises:
            BadInput: The survey has no image of that number.
        """
        place = int(np.searchsorted(self.ids, image))
        if place == len(self.ids) or self.ids[place] != image:
            raise BadInput(f"survey {self.path} has no image {image}")
        return place

    def in_split(self, split: str) -> np.ndarray:
        """Whether each image is in a split, (n).

        Raises:
            BadInput: No image is in it.
        """
        splits = self.images["split"].to_pylist()
        if split not in splits:
            known = sorted({each for each in splits if each is not None})
            raise BadInput(f"survey {self.path} has no image of split {split!r}: {', '.join(known) or 'its images have no split'}")
        return np.array([each == split for each in splits])

    def chosen_labels(self, asked: Sequence[str] | None) -> tuple[str, ...]:
        """The given labels, each once, in the order of `labels`; None: all.

        Raises:
            BadInput: An unknown label, or an empty list.
        """
        if asked is None:
            return self.labels
        wanted = {self.known_label(label) for label in ([asked] if isinstance(asked, str) else asked)}
        if not wanted:
            raise BadInput("classes: expected at least one label, got none")
        return tuple(label for label in self.labels if label in wanted)

    def known_label(self, label: str) -> str:
        """Checks a label and returns it.

        Raises:
            BadInput: No image has it; near names are listed.
        """
        if label in self.labels:
            return label
        known = near_names(str(label), self.labels) or self.labels[:5]
        words = (
            f"it has {', '.join(known)}{', ...' if len(self.labels) > len(known) else ''}" if self.labels else "its images have no labels"
        )
        raise BadInput(f"survey {self.path} has no label {label!r}: {words}")

    @property
    def _classes(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.manifest["inputs"]["classes"] or ())

    def _rows(self, table: str, layer: str) -> pa.Table:
        if table not in self._tables:
            self._tables[table] = self._files.table(table)
        known = self.layer(layer)
        found = self._tables[table].filter(pc.field("layer") == known.name)
        channels = found["channel"].to_numpy()
        inside = ((channels >= 0) & (channels < known.channels)).all()
        if not inside or (table == "channels" and not np.array_equal(channels, np.arange(known.channels))):
            raise StoreConflict(f"{self.path}: {table}.parquet is damaged (layer {layer} has other channels in layers.parquet)")
        ranks = found["rank"].to_numpy() if table == "top" else np.zeros(0)
        if ((ranks < 0) | (ranks >= self.manifest["top"])).any():
            raise StoreConflict(f"{self.path}: top.parquet is damaged (layer {layer} has ranks beyond the {self.manifest['top']} kept)")
        self._check_labels(table, found)
        return found

    def _check_labels(self, name: str, table: pa.Table) -> None:
        """Raises StoreConflict if a table has a label that the manifest has not."""
        found = set(table["label"].unique().to_pylist()) if "label" in table.column_names else set()
        if unknown := sorted(found - {None, *self.labels}):
            raise StoreConflict(f"{self.path}: {name}.parquet is damaged (label {unknown[0]!r} is not in the manifest)")

    def _matrix(self, layer: str, columns: Mapping[str, Any]) -> list[np.ndarray]:
        """Columns of `values/` as arrays (n unit), rows in the order of `ids`."""
        channels = self.layer(layer).channels
        if self.manifest["summary_only"]:
            raise BadInput(f"survey {self.path} holds summaries only, no per-image values; scan without --summary-only for that")
        found = [np.empty((len(self.ids), channels), kind) for kind in columns.values()]
        seen = np.zeros(len(self.ids), np.int64)
        for batch in self._files.values(layer, list(columns)):
            images = batch["image"].to_numpy(zero_copy_only=False)
            places = np.minimum(np.searchsorted(self.ids, images), len(self.ids) - 1)
            lists = [batch[name] for name in columns]
            if (self.ids[places] != images).any() or any((np.diff(each.offsets) != channels).any() for each in lists):
                raise StoreConflict(f"{self.path}: values/ is damaged (layer {layer} does not fit images.parquet and layers.parquet)")
            np.add.at(seen, places, 1)
            for array, each in zip(found, lists, strict=True):
                array[places] = each.flatten().to_numpy(zero_copy_only=False).reshape(len(places), channels)
        if (seen != 1).any():
            raise StoreConflict(f"{self.path}: values/ is damaged (layer {layer}: {int((seen != 1).sum())} images are missing or double)")
        return found


def read_survey(path: str | os.PathLike[str]) -> Survey:
    """Opens a survey that :func:`~convscope.scan` wrote.

    Args:
        path: The survey's folder; a local path, or any URL that fsspec knows, such as ``s3://bucket/survey``.

    Returns:
        The survey; only its manifest has been read.

    Raises:
        StoreConflict: No such folder, an unfinished scan, another layout, or no survey.
        BadInput: No path, or an unknown kind of URL.
    """
    text = path_text(path)
    files = open_folder(str(Path(text)) if "://" not in text and "::" not in text else text)
    return Survey(files, files.read_manifest())


def _are_fields(first: Sequence[int], end: Sequence[int], count: int, length: int) -> bool:
    """Whether these are receptive fields of `count` >= 1 positions along an axis of `length` pixels, cut to the image."""
    return len(first) == len(end) == count >= 1 and all(0 <= low <= high <= length for low, high in zip(first, end, strict=True))


def middles(fields: np.ndarray, length: int, share: float) -> np.ndarray:
    """The middle part of each receptive field along an axis, (k 2): first pixel and one beyond the last, cut to the image.

    Args:
        fields: Receptive field of each position along the axis, cut to the image, (k 2).
        length: Length of the image in pixels.
        share: Share of a field's length before it was cut.
    """
    places = np.arange(len(fields))

    def uncut(ends: np.ndarray, known: np.ndarray) -> np.ndarray | None:
        """Begin or end of all fields before they were cut: those not cut by the border lie on a line."""
        if known.sum() < 2:
            return None
        return ends[known][0] + (places - places[known][0]) * np.diff(ends[known])[0] / np.diff(places[known])[0]

    first, last = uncut(fields[:, 0], fields[:, 0] > 0), uncut(fields[:, 1], fields[:, 1] < length)
    if first is None or last is None:  # every field reaches the border
        first, last = (places + 0.5) * length / len(places) - length / 2, (places + 0.5) * length / len(places) + length / 2
    side = max(1, round(share * float(last[0] - first[0])))
    begin = np.floor((first + last - side) / 2 + 0.5).astype(np.int64)
    return np.stack([begin.clip(0, length - 1), (begin + side).clip(1, length)], 1)
