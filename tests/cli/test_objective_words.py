"""Objectives and penalties as words: images, receipts, and the same image again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convscope.cli import main, objectives
from convscope.errors import BadInput
from convscope.receipts import read_receipt

OWN = """
from convscope import objectives

def corner(unit):
    return objectives.neuron("features.6", unit, 1, 1)

ready = objectives.deepdream("features.6")

def wrong(unit):
    return unit / 0
"""
QUICK = ["--set", "size=32", "--set", "steps=2", "--set", "crop_size=24"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    np.save("vector.npy", np.eye(48, dtype=np.float32)[3])
    np.save("short.npy", np.ones(3))
    np.save("objects.npy", np.array([{}], object))
    Path("text.npy").write_text("no array")
    return tmp_path


def run(*words: str) -> int:
    return main(["feature-visualization", "textures", "features.6", *words, *QUICK])


@pytest.mark.parametrize(
    ("words", "name", "image"),
    [
        (["--units", "0-1", "--objective", "neuron"], "neuron", "unit_0001.png"),
        (["--units", "0-1", "--objective", "neuron:2,3"], "neuron", "unit_0001.png"),
        (["--objective", "direction:vector.npy"], "direction", "objective.png"),
        (["--objective", "deepdream"], "deepdream", "objective.png"),
        (["--units", "0-1", "--copies", "2", "--diversity", "0.5"], None, "unit_0001_copy1.png"),
        (["--units", "0", "--penalty", "total-variation*1e-4"], None, "unit_0000.png"),
        (["--objective", "own.py:ready"], "deepdream", "objective.png"),
    ],
)
def test_receipts_hold_the_objective_and_redo_is_bit_equal(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], name: str | None, image: str
) -> None:
    assert run(*words, "--out", "images") == 0
    receipt = read_receipt(place / "images" / image)
    assert name is None or receipt["objective"][-1]["name"] == name
    assert main(["redo", f"images/{image}"]) == 0
    assert "bit-equal" in capsys.readouterr().out


def test_a_position_is_kept(place: Path) -> None:
    assert run("--units", "0", "--objective", "neuron:2,3", "--out", "images") == 0
    parameters = read_receipt(place / "images" / "unit_0000.png")["objective"][0]["parameters"]
    assert (parameters["layer"], parameters["y"], parameters["x"]) == ("features.6", 2, 3)


def test_an_objective_of_your_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--units", "0-1", "--objective", "own.py:corner", "--out", "images"]
    assert run(*words) == 0 and run(*words) == 0
    assert "(2 were there already)" in capsys.readouterr().out
    assert main(["redo", "images/unit_0001.png"]) == 2
    assert "--objective" in capsys.readouterr().err
    assert main(["redo", "images/unit_0001.png", "--objective", "own.py:corner"]) == 0
    assert "bit-equal" in capsys.readouterr().out
    Path("own.py").write_text(OWN.replace("1, 1", "2, 2"))
    assert run(*words) == 2
    assert "was made with another objective" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective", "neurons"], "'neurons' is no objective: expected neuron, neuron:Y,X, direction:VECTOR.npy, deepdream"),
        (["--objective", "neuron:3"], "'3' is not a position: expected y,x"),
        (["--objective", "neuron:99,0", "--units", "0"], "no position y=99, x=0"),
        (["--objective", "neuron", "--units", "99"], "layer features.6 has units 0 to 47, got 99"),
        (["--objective", "direction:gone.npy"], "gone.npy: no such file"),
        (["--objective", "direction:text.npy"], "text.npy: not a NumPy array"),
        (["--objective", "direction:objects.npy"], "objects.npy: not a NumPy array"),
        (["--objective", "direction:short.npy"], "the vector has 3 values, but layer features.6 has 48 units"),
        (["--objective", "deepdream", "--units", "0"], "makes images of its own"),
        (["--objective", "gone.py:corner"], "gone.py: no such file"),
        (["--objective", "own.py:corners"], "has no function 'corners'; near names: corner"),
        (["--objective", "own.py:wrong", "--units", "0"], "own.py:10: ZeroDivisionError"),
        (["--penalty", "variation*2"], "'variation*2' is no penalty"),
        (["--penalty", "norm*x"], "the weight 'x' is not a number"),
        (["--copies", "0"], "copies must be a whole number from 1 to 1000, got 0"),
        (["--diversity", "1"], "needs copies=2 or more"),
    ],
)
def test_a_mistake_is_one_line(place: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert run(*words, "--out", "images") == 2
    err = capsys.readouterr().err
    assert message in err and err.splitlines()[-1].startswith("error: ") and "Traceback" not in err


def test_penalties() -> None:
    assert str(objectives.penalty("norm")) == "norm()"
    with pytest.raises(BadInput, match="is no penalty"):
        objectives.penalty("unit*2")
