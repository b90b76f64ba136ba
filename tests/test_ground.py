"""Seeds, progress, errors and results: the ground floor."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from convscope import errors
from convscope.names import near_hint, near_names
from convscope.progress import reporting, task
from convscope.results.base import Result, axes, to_array
from convscope.seeding import derive_seed


def test_seeds_depend_on_every_part_of_the_name() -> None:
    known = derive_seed(0, "feature_visualization", "features.12", 7)
    assert known == derive_seed(0, "feature_visualization", "features.12", 7) and 0 <= known < 2**63
    others = [(1, "a", 2), (0, "a", 2), (0, "a", "2"), (0, "a2"), (0, "a", 3), (0, 2, "a"), (0, "a", 2, 0)]
    assert len({derive_seed(*name) for name in others}) == len(others)
    torch.Generator().manual_seed(known)


class Recorder:
    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def begin(self, description: str, total: int) -> int:
        self.said.append(("begin", description, total))
        return 7

    def advance(self, task: int, steps: int, note: str) -> None:
        self.said.append(("advance", task, steps, note))

    def end(self, task: int) -> None:
        self.said.append(("end", task))


def test_progress_is_silent_by_default() -> None:
    with task("work", 3) as advance:
        advance()
        advance(2, "note")
        advance(steps=1, note="note")


def test_progress_reports_the_outermost_task() -> None:
    recorder = Recorder()
    with reporting(recorder), task("outer", 3) as advance:
        advance(2)
        with task("inner", 9) as inner:
            inner(5)
        advance(steps=1, note="0.5")
    assert recorder.said == [("begin", "outer", 3), ("advance", 7, 2, ""), ("advance", 7, 1, "0.5"), ("end", 7)]
    with task("after", 1) as advance:
        advance()
    assert len(recorder.said) == 4


def test_progress_ends_after_an_exception() -> None:
    recorder = Recorder()
    with reporting(recorder):
        with pytest.raises(KeyboardInterrupt), task("outer", 3):
            raise KeyboardInterrupt
        with task("next", 1):
            pass
    assert [word for word, *_ in recorder.said] == ["begin", "end", "begin", "end"]


def test_every_error_is_one_of_ours() -> None:
    names = "LayerNotFound AmbiguousLayer NotReached BadInput UnitNotFound BadImage BadWeights StoreConflict".split()
    for name in names:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.ConvscopeError)
        assert str(kind("what was wrong")) == "what was wrong"
    assert issubclass(errors.BadInput, ValueError) and issubclass(errors.UnitNotFound, errors.BadInput)


def test_errors_carry_the_question_and_inner_ones_win() -> None:
    with (
        pytest.raises(errors.BadInput) as caught,
        errors.asking(technique="spectrum", layer="outer", unit=None),
        errors.asking(layer="a.b"),
    ):
        raise errors.BadInput("a.b is wrong")
    assert caught.value.question == {"technique": "spectrum", "layer": "a.b"}
    assert str(caught.value) == "a.b is wrong [technique=spectrum]", "what the message says already is not repeated"
    with pytest.raises(RuntimeError), errors.asking(layer="a"):
        raise RuntimeError("not ours")


@dataclasses.dataclass(frozen=True, eq=False)
class TwoFields(Result):
    maps: np.ndarray = axes("n h w", "heat")
    scores: np.ndarray = axes("n", unit="activation")
    note: str = ""


def test_a_result_is_the_border_to_numpy() -> None:
    maps = torch.rand(2, 3, 4, dtype=torch.bfloat16, requires_grad=True)
    made = TwoFields(maps=maps, scores=[1, 2], note="x", manifest={"seed": 0})  # type: ignore[arg-type]
    assert made.maps.dtype == np.float32 and (made.maps == maps.detach().float().numpy()).all()
    assert TwoFields.technique == "two_fields" and made.extras() == {"note": "x"}
    assert [(field.name, field.axes, field.kind, field.unit) for field in made.arrays()] == [
        ("maps", ("n", "h", "w"), "heat", ""),
        ("scores", ("n",), "values", "activation"),
    ]
    assert repr(made) == "TwoFields(maps(n h w)=[2, 3, 4], scores(n)=[2])"
    with pytest.raises(ValueError, match="read-only"):
        made.maps[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.note = "y"  # type: ignore[misc]
    other = made.with_manifest({"seed": 1})
    assert other.maps is made.maps and other.manifest == {"seed": 1} and made.manifest == {"seed": 0}


def test_a_result_does_not_follow_its_source() -> None:
    source = np.zeros(2)
    assert to_array(source).flags.writeable is False and source.flags.writeable
    made = to_array(source)
    source[0] = 1
    assert made[0] == 0
    tensor = torch.zeros(2)
    made = to_array(tensor)
    tensor[0] = 1
    assert made[0] == 0
    assert to_array(np.zeros(2, np.float16)).dtype == np.float32 and to_array(torch.zeros(2, dtype=torch.float64)).dtype == np.float64


def test_axes_must_agree() -> None:
    with pytest.raises(TypeError, match=r"declared \(n h w\) but has shape \(2, 3\)"):
        TwoFields(maps=np.zeros((2, 3)), scores=np.zeros(2))
    with pytest.raises(TypeError, match="axis 'n' is 2 in maps but 3 in scores"):
        TwoFields(maps=np.zeros((2, 3, 4)), scores=np.zeros(3))


def test_a_display_that_fails_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    made = TwoFields(maps=np.zeros((2, 3, 4)), scores=np.zeros(2))

    def broken(_result: Result) -> bytes:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("convscope.render.png", broken)
    monkeypatch.setattr("convscope.render.html", broken)
    with pytest.warns(RuntimeWarning, match="two_fields: cannot be shown"):
        assert made._repr_png_() is None and made._repr_html_() is None
    assert repr(made).startswith("TwoFields")


def test_near_names() -> None:
    known = ["abc", "xyz", "Red fox", "red panda", "xabcx"]
    assert near_names("abc", known) == ["abc", "xabcx"]
    assert near_names("red", ["reed", "infrared lamp"]) == ["infrared lamp", "reed"], "those that contain it first"
    assert near_names("RED", known) == ["Red fox", "red panda"], "upper and lower case are the same"
    assert near_names("xzy", known) == ["xyz"] and near_names("a", known, count=2) == ["abc", "red panda"]
    assert near_names("qqq", known) == near_names("", known) == []
    assert near_hint("xzy", known) == "; near names: xyz" and near_hint("qqq", known) == ""
