"""Results and surveys as data frames: rows along the declared axes, names beside numbers, values where the arrays have them."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import convscope as cs
import hand_built
from convscope.errors import BadInput, LayerNotFound, NotInstalled
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows, columns_of, records
from made import drawn, made
from promises import promises_in, scope_on

TECHNIQUES, READERS = promises_in("techniques"), promises_in("analyses")
NO_TABLE = {"activation_grid", "weight_grid", "style_transfer"}
"""Results that are maps and images."""


@dataclass(frozen=True, eq=False)
class Tabled(Result):
    """A result with every kind of column."""

    tabled: ClassVar[Rows] = Rows("unit top", unit="unit:units", label="unit:labels", rank="top", image="unit top:names")

    values: Array = axes("unit top")
    place: Array = axes("unit top yx")
    spread: Array = axes("unit end")
    total: Array = axes("unit")
    group_index: Array = axes("top")
    images: Array = axes("unit top c h w", "image")
    groups: tuple[str, ...] = ("first", "second", "third")
    units: tuple[int, ...] = (7, 9)
    labels: tuple[str, ...] = ()
    names: tuple[tuple[str, ...], ...] = (("x", "y", "z"), ("v",))
    layer: str = "features.3"


def plain() -> Tabled:
    return Tabled(
        values=np.arange(6.0).reshape(2, 3),
        place=np.arange(12).reshape(2, 3, 2),
        spread=np.array([[0.1, 0.2, 0.3], [0.4, 0.5, np.nan]]),
        total=np.array([10, 20]),
        group_index=np.array([2, 0, 0]),
        images=np.zeros((2, 3, 3, 4, 4)),
    )


def test_every_kind_of_column() -> None:
    found = plain().to_frame()
    assert found.columns.tolist() == [
        *("group", "layer", "unit", "rank", "image", "values", "place_y", "place_x", "spread", "spread_low", "spread_high", "total")
    ]
    assert found["unit"].tolist() == [7, 7, 7, 9] and found["unit"].dtype.kind == "i"
    assert found["rank"].tolist() == [0, 1, 2, 0], "the second unit has one image"
    assert found["image"].tolist() == ["x", "y", "z", "v"] and found["group"].tolist() == ["third", "first", "first", "third"]
    assert found["values"].tolist() == [0, 1, 2, 3] and found["place_x"].tolist() == [1, 3, 5, 7]
    assert found["total"].tolist() == [10, 10, 10, 20] and found["spread_low"].tolist() == [0.2, 0.2, 0.2, 0.5]
    assert set(found["layer"]) == {"features.3"}


def test_records_are_json() -> None:
    rows = records(columns_of(plain()))
    assert json.loads(json.dumps(rows, allow_nan=False))[3]["spread_high"] is None
    assert rows[0]["unit"] == 7 and rows[0]["values"] == 0.0 and isinstance(rows[0]["total"], int)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    return made(tmp_path_factory.mktemp("survey") / "s", {"layer": drawn(30, 9, 4, 4)}, ["ant", "bee", None] * 10)


def check(result: Result) -> None:
    """A table has as many rows as its axes say (fewer where images are missing), and a column of every array that fits."""
    if result.technique in NO_TABLE:
        with pytest.raises(BadInput, match=f"{result.technique} is no table; its arrays are "):
            result.to_frame()
        return
    columns = columns_of(result)
    lengths = {name: length for field in result.arrays() for name, length in zip(field.axes, field.array.shape, strict=True)}
    (count,) = {len(values) for values in columns.values()}
    most = math.prod(lengths[axis] for axis in result.tabled.axes)
    assert 0 < count <= most and (count == most or result.technique in ("exemplars", "top_patches"))
    assert len(result.to_frame()) == count
    fitting = [field for field in result.arrays() if field.axes == result.tabled.axes and not field.name.endswith("_index")]
    for field in fitting:
        column = (
            field.name
            if field.name in columns
            else next(name for name, own in result.tabled.named.items() if str(own).endswith(field.name))
        )
        if count == most:
            assert np.array_equal(columns[column].astype(field.array.dtype), field.array.ravel(), equal_nan=field.array.dtype.kind == "f")
    json.dumps(records(columns), allow_nan=False)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_tables_of_techniques(name: str) -> None:
    check(TECHNIQUES[name].call(scope_on(hand_built.small())))


@pytest.mark.parametrize("name", READERS)
def test_tables_of_readers(name: str, survey: cs.Survey) -> None:
    check(READERS[name].call(survey))


def test_a_loaded_result_has_its_table(survey: cs.Survey, tmp_path: Path) -> None:
    health = cs.filter_health(survey)
    found = cs.load(health.save(tmp_path / "health", figure=False)).to_frame()
    assert found["layer"].tolist() == ["layer"] * 9 and found["unit"].tolist() == list(range(9))
    assert found["maximum"].tolist() == health.maximum.tolist()


def test_columns_of_exemplars(survey: cs.Survey) -> None:
    found = cs.exemplars(survey, "layer", [4, 2], top=3, crops=False)
    frame = found.to_frame()
    assert frame["unit"].tolist() == [4, 4, 4, 2, 2, 2] and frame["rank"].tolist() == [0, 1, 2] * 2
    assert frame["image"].tolist() == [name for names in found.names for name in names]
    assert frame["label"].tolist() == [label for labels in found.image_labels for label in labels]
    assert frame["boxes_x1"].tolist() == found.boxes[..., 3].ravel().tolist()


def test_surveys(survey: cs.Survey) -> None:
    images, channels, values = survey.to_frame(), survey.to_frame("channels", layer="layer"), survey.to_frame("values", layer="layer")
    assert images["label"].tolist()[:2] == ["ant", "bee"] and len(images) == 30
    assert len(channels) == 9 and len(values) == 30 * 9
    matrix = values.pivot(index="image", columns="channel", values="maximum").to_numpy()
    assert np.array_equal(matrix, survey.maximum("layer"))
    assert len(survey.to_frame("channels")) > 9, "of the output as well"
    with pytest.raises(BadInput, match=r"table must be one of images, skipped, .*got 'image'"):
        survey.to_frame("image")
    with pytest.raises(BadInput, match="the table images is not of units"):
        survey.to_frame(layer="layer")
    with pytest.raises(LayerNotFound):
        survey.to_frame("top", layer="layers")


def test_without_pandas(survey: cs.Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for call in (cs.filter_health(survey).to_frame, survey.to_frame):
        with pytest.raises(NotInstalled, match=r"a data frame needs pandas: pip install 'convscope\[pandas\]'"):
            call()
