"""A survey read back: what every image does to every channel of every layer, by name, as arrays, or by SQL."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from convscope.errors import BadInput, LayerNotFound, StoreConflict
from convscope.names import OUTPUT, Units, near_names, unit_numbers
from convscope.preprocessing import Preprocessing
from convscope.survey.files import Files, open_folder
from convscope.survey.originals import preprocessing_of, read_original


@dataclass(frozen=True, eq=False)
class SurveyLayer:
    """A layer as it was scanned.

    Attributes:
        name: Its name.
        kind: The module's class.
        channels: How many channels it has.
        height, width: Size of its map, 1 x 1 for the output.
        rectified: Whether its values are those after its ReLU.
        rows: First pixel row that each row of the map sees and one beyond the last, cut to the picture, (y 2).
        columns: The same for columns, (x 2).
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    rectified: bool
    rows: np.ndarray
    columns: np.ndarray


class Survey:
    """What a scan wrote, opened for reading. Tables are read when they are asked for.

    Attributes:
        path: The folder.
        manifest: The network, its inputs, parameters and versions.
        layers: The scanned layers by name, in call order; the last is "output".
        labels: The labels found, sorted.
    """

    subject: ClassVar[str] = "survey"

    def __init__(self, files: Files, manifest: Mapping[str, Any]) -> None:
        self.path = files.name
        self.manifest = manifest
        self.labels: tuple[str, ...] = tuple(manifest["labels"])
        self._files = files
        self._tables: dict[str, pa.Table] = {}

    def provenance(self) -> Mapping[str, Any]:
        """What a receipt keeps of the survey and of the network that it is by."""
        return {
            "libraries": ("pyarrow", "duckdb", "scipy", "scikit-learn"),
            "survey": {"path": self.path, "images": self.manifest["images"], "skipped": self.manifest["skipped"]},
            "network": self.manifest["network"],
        }

    def describe(self) -> str:
        """Its path: what a receipt says of a further survey."""
        return self.path

    def entered(self) -> AbstractContextManager[Any]:
        """The state in which techniques read it: the one that is."""
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
        return {
            row["layer"]: SurveyLayer(row["layer"], *(row[key] for key in plain), span(row, "y"), span(row, "x"))  # type: ignore[arg-type]
            for row in rows
        }

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Size of the network's input, and how pictures are brought to it."""
        return preprocessing_of(self.manifest)

    @cached_property
    def images(self) -> pa.Table:
        """The images that were read, a row each."""
        return self._files.table("images")

    @cached_property
    def skipped(self) -> pa.Table:
        """The images that were not, with the reason."""
        return self._files.table("skipped")

    @cached_property
    def ids(self) -> np.ndarray:
        """The number of each image, ascending, (n): rows of arrays are in this order."""
        ids = self.images["image"].to_numpy()
        if (np.diff(ids) <= 0).any():
            raise StoreConflict(f"{self.path}: images.parquet is damaged (numbers of images do not ascend)")
        return ids

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each image."""
        return tuple(self.images["name"].to_pylist())

    @cached_property
    def truth(self) -> np.ndarray:
        """The label of each image as a place in `labels`, -1 for none, (n)."""
        places = {label: place for place, label in enumerate(self.labels)}
        return np.array([places.get(label, -1) for label in self.images["label"].to_pylist()], np.int64)

    def layer(self, name: str) -> SurveyLayer:
        """A layer by name.

        Raises:
            LayerNotFound: It was not scanned; near names are listed.
        """
        if name not in self.layers:
            near = near_names(str(name), self.layers) or list(self.layers)[-4:]
            raise LayerNotFound(f"no layer {name!r} in this survey; near names: {', '.join(near)}")
        return self.layers[name]

    def units(self, layer: str, asked: Units) -> list[int]:
        """The channel numbers meant by a number, a list, a slice or None (all); class names are understood on "output".

        Raises:
            UnitNotFound: The layer has no such channel, or none is asked for.
        """
        return unit_numbers(asked, layer, self.layer(layer).channels, self._classes if layer == OUTPUT else ())

    def unit_labels(self, layer: str, units: Sequence[int]) -> tuple[str, ...]:
        """Names for channels: class names on the output, "" elsewhere."""
        classes = self.manifest["inputs"]["classes"]
        if layer != OUTPUT or not classes:
            return ("",) * len(units)
        return tuple(str(classes[unit]) for unit in units)

    def maximum(self, layer: str) -> np.ndarray:
        """The maximum over positions, (images channels) float32."""
        return self._matrix(layer, {"maximum": np.float32})[0]

    def mean(self, layer: str) -> np.ndarray:
        """The mean over positions, (images channels) float32."""
        return self._matrix(layer, {"mean": np.float32})[0]

    def positions(self, layer: str) -> np.ndarray:
        """Where the maximum is, (images channels 2): y, x on the layer's map, the first of equals in reading order."""
        return np.stack(self._matrix(layer, {"y": np.int32, "x": np.int32}), -1)

    def channels(self, layer: str) -> pa.Table:
        """What each channel does over all images, a row each."""
        return self._rows("channels", layer)

    def classes(self, layer: str) -> pa.Table:
        """What each channel does for each label, a row each."""
        return self._rows("classes", layer)

    def top(self, layer: str, label: str | None = None) -> pa.Table:
        """The images that excite each channel most, over all images or those of one label."""
        table = self._rows("top", layer)
        return table.filter(pc.field("label").is_null() if label is None else pc.field("label") == self.known_label(label))

    def query(self, sql: str) -> pa.Table:
        """The answer of DuckDB to a query over the survey.

        Views: images, skipped, layers, channels, classes, top; rows, a row per image and layer with a list over channels; values, the
        same with a row per image, layer and channel.

        Raises:
            BadInput: The query is wrong.
        """
        return self._files.query(sql)

    def picture(self, image: int) -> np.ndarray:
        """An image exactly as the network was fed it, before normalization: (3 h w) float32 in [0,1].

        Raises:
            BadInput: The survey has no image of that number.
            BadImage: The file is not there any more, or cannot be read.
        """
        return read_original(self.images["path"][self.row(image)].as_py(), self.preprocessing)

    def fields(self, layer: str, positions: np.ndarray, middle: float = 1.0) -> np.ndarray:
        """What positions of a map see: (... 2) y x to (... 4) y0 x0 y1 x1 in pixels of :meth:`picture`, end exclusive, cut to it.

        Args:
            layer: Layer name.
            positions: (... 2): y, x.
            middle: Share of the field's sides that is wanted, around its middle.
        """
        known, (y, x) = self.layer(layer), np.moveaxis(np.asarray(positions, np.int64), -1, 0)
        if ((y < 0) | (y >= known.height) | (x < 0) | (x >= known.width)).any():
            raise BadInput(f"layer {layer} has a map of {known.height} x {known.width}, got positions outside it")
        height, width = self.preprocessing.height, self.preprocessing.width
        rows, columns = (
            (known.rows if middle == 1 else middles(known.rows, height, middle))[y],
            (known.columns if middle == 1 else middles(known.columns, width, middle))[x],
        )
        return np.stack([rows[..., 0], columns[..., 0], rows[..., 1], columns[..., 1]], -1)

    def row(self, image: int) -> int:
        """The row of an image in arrays.

        Raises:
            BadInput: The survey has no image of that number.
        """
        place = int(np.searchsorted(self.ids, image))
        if place == len(self.ids) or self.ids[place] != image:
            raise BadInput(f"survey {self.path} has no image {image}")
        return place

    def in_split(self, split: str) -> np.ndarray:
        """Whether each image is of a split, (n).

        Raises:
            BadInput: No image is.
        """
        splits = self.images["split"].to_pylist()
        if split not in splits:
            known = sorted({each for each in splits if each is not None})
            raise BadInput(f"survey {self.path} has no image of split {split!r}: {', '.join(known) or 'its images have no split'}")
        return np.array([each == split for each in splits])

    def chosen_labels(self, asked: Sequence[str] | None) -> tuple[str, ...]:
        """The labels asked for, each once, in the order of `labels`; None: all.

        Raises:
            BadInput: No image has one of them, or none is asked for.
        """
        if asked is None:
            return self.labels
        wanted = {self.known_label(label) for label in ([asked] if isinstance(asked, str) else asked)}
        if not wanted:
            raise BadInput("classes: expected at least one label, got none")
        return tuple(label for label in self.labels if label in wanted)

    def known_label(self, label: str) -> str:
        """The label itself.

        Raises:
            BadInput: No image has it.
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
        return self._tables[table].filter(pc.field("layer") == self.layer(layer).name)

    def _matrix(self, layer: str, columns: Mapping[str, Any]) -> list[np.ndarray]:
        """Columns of values/ as arrays (images channels), in the order of `ids`."""
        channels = self.layer(layer).channels
        if self.manifest["summary_only"]:
            raise BadInput(f"survey {self.path} holds summaries only, so not what each image does; scan without --summary-only for that")
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
    """Opens what :func:`~convscope.scan` wrote.

    Args:
        path: The survey's folder; a local path, or any URL that fsspec knows, such as ``s3://bucket/survey``.

    Returns:
        The survey. Nothing but its manifest is read yet.

    Raises:
        StoreConflict: There is no such folder, the scan is not finished, or the folder holds something else.
        BadInput: An unknown kind of URL.
    """
    text = os.fspath(path)
    files = open_folder(str(Path(text)) if "://" not in text and "::" not in text else text)
    return Survey(files, files.read_manifest())


def middles(fields: np.ndarray, length: int, share: float) -> np.ndarray:
    """The middle of each field along an axis, (k 2): first pixel and one beyond the last, cut to the picture.

    Args:
        fields: What each position of the axis sees, cut to the picture, (k 2).
        length: Pixels of the picture.
        share: Of a field's length before it is cut.
    """
    places = np.arange(len(fields))

    def uncut(ends: np.ndarray, known: np.ndarray) -> np.ndarray | None:
        """Where all fields begin, or end, by those that the border has not cut: they lie on a line."""
        if known.sum() < 2:
            return None
        return ends[known][0] + (places - places[known][0]) * np.diff(ends[known])[0] / np.diff(places[known])[0]

    first, last = uncut(fields[:, 0], fields[:, 0] > 0), uncut(fields[:, 1], fields[:, 1] < length)
    if first is None or last is None:  # every position sees to the border
        first, last = (places + 0.5) * length / len(places) - length / 2, (places + 0.5) * length / len(places) + length / 2
    side = max(1, round(share * float(last[0] - first[0])))
    begin = np.floor((first + last - side) / 2 + 0.5).astype(np.int64)
    return np.stack([begin.clip(0, length - 1), (begin + side).clip(1, length)], 1)
