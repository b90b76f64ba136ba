from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from convscope import render
from convscope.render.panels import Bars, Group, Heat, Image, Panel, Signed, Table
from convscope.results import words
from convscope.results.base import Result, axes


@dataclass(frozen=True, eq=False, repr=False)
class EveryKind(Result):
    images: np.ndarray = axes("unit rgb h w", "image")
    drop: np.ndarray = axes("n h w", "heat", unit="logit")
    grad: np.ndarray = axes("h w", "signed", unit="logit per pixel")
    history: np.ndarray = axes("unit step", "series", unit="logit")
    many: np.ndarray = axes("m c", "series")
    scores: np.ndarray = axes("unit", unit="logit")
    boxes: np.ndarray = axes("y four", "boxes")
    base: np.ndarray = axes("", unit="logit")
    units: tuple[int, ...]
    names: tuple[str, ...]


def every_kind(**changes: Any) -> EveryKind:
    draws = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "images": draws.random((2, 3, 8, 8)),
        "drop": np.stack([np.eye(4), 3 * np.eye(4)]),
        "grad": draws.normal(size=(5, 5)),
        "history": draws.random((2, 6)),
        "many": draws.random((9, 2500)),
        "scores": np.array([0.5, 2.25]),
        "boxes": np.arange(8).reshape(2, 4),
        "base": np.array(1.5),
        "units": (7, 41),
        "names": ("cat.jpg", "dog.jpg"),
        "manifest": {"network": "vgg", "parameters": {"seed": 3}},
    }
    return EveryKind(**{**fields, **changes})


def of_kind(panels: tuple[Panel, ...], kind: type[Any]) -> list[Any]:
    return [panel for panel in panels if type(panel) is kind]


def test_every_kind_is_shown_as_it_wants_to_be_seen():
    result = every_kind()
    view = result.view()
    flat = view.flat()
    assert (view.title, view.subtitle) == ("Every kind", "vgg · seed 3")
    images = of_kind(flat, Image)
    assert [tile.title for tile in images] == ["unit 7", "unit 41"]
    np.testing.assert_array_equal(images[1].pixels, result.images[1])
    heats = [panel for panel in of_kind(flat, Heat) if not panel.rows]
    assert [(panel.title, panel.unit, panel.range()) for panel in heats] == [("cat.jpg", "logit", (0, 3)), ("dog.jpg", "logit", (0, 3))]
    assert of_kind(flat, Signed)[0].unit == "logit per pixel"
    assert [(bars.title, bars.y_label) for bars in of_kind(flat, Bars)] == [("unit 7", "history (logit)"), ("unit 41", "history (logit)")]


def test_many_series_become_one_matrix_that_keeps_its_peaks():
    many = np.zeros((9, 2500))
    many[4, 2499] = 5.0
    (matrix,) = [panel for panel in of_kind(every_kind(many=many).view().flat(), Heat) if panel.rows]
    assert matrix.values.shape == (9, 834)
    assert matrix.values[4, 833] == 5.0
    assert matrix.x_step == 3
    assert "3 neighbours" in matrix.x_label


def test_numbers_fall_into_tables():
    tables = of_kind(every_kind().view().flat(), Table)
    assert tables[0].header == ("unit", "scores (logit)")
    assert tables[0].rows == (("unit 7", "0.5"), ("unit 41", "2.25"))
    assert tables[1].rows[0] == ("boxes", "y four", "2 x 4", "0", "3.5", "7")
    assert tables[1].rows[1] == ("base (logit)", "", "one number", "1.5", "1.5", "1.5")
    assert ("names", "cat.jpg, dog.jpg") in tables[2].rows


def test_two_leading_axes_are_a_row_per_first_index():
    @dataclass(frozen=True, eq=False, repr=False)
    class Projection(Result):
        projection: np.ndarray = axes("n unit rgb h w", "image")

    (group,) = Projection(np.zeros((2, 3, 3, 4, 4))).view().panels
    assert isinstance(group, Group)
    assert group.columns == 3
    assert [panel.title for panel in group.panels if isinstance(panel, Image)][:4] == [
        "n 0, unit 0",
        "n 0, unit 1",
        "n 0, unit 2",
        "n 1, unit 0",
    ]


def test_empty_and_infinite_arrays_are_told_not_drawn():
    view = every_kind(images=np.zeros((0, 3, 8, 8)), history=np.zeros((0, 6)), scores=np.zeros(0), units=(), base=np.array(np.inf)).view()
    assert "images is empty" in view.note
    assert not of_kind(view.flat(), Image)
    render.png(every_kind(base=np.array(np.nan), grad=np.full((3, 3), np.nan)).view())


def test_long_tables_and_sheets_say_what_they_leave_out():
    @dataclass(frozen=True, eq=False, repr=False)
    class Long(Result):
        tiny: np.ndarray = axes("unit rgb h w", "image")
        scores: np.ndarray = axes("unit")

    view = Long(np.zeros((1200, 3, 1, 1)), np.zeros(1200)).view()
    assert "the first 1000 of 1200 are shown" in view.note
    assert of_kind(view.flat(), Table)[0].title == "first 20 of 1200"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("examples/ants_bees/networks.py:binary", "networks.py:binary"),
        ("/home/someone/a.py", "a.py"),
        ("D:\\nets\\mine.py:build", "mine.py:build"),
        ("mine.py:build", "mine.py:build"),
        ("timm:hf-hub:timm/resnet18.a1", "timm:hf-hub:timm/resnet18.a1"),
        ("squeezenet1_0", "squeezenet1_0"),
    ],
)
def test_of_a_network_from_a_file_the_subtitle_names_the_file(name: str, shown: str) -> None:
    assert words.provenance(every_kind(manifest={"network": {"name": name}})) == shown
