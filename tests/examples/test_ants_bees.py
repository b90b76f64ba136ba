"""The study of ants and bees runs from photographs to tables, on a few of them; its parts never overlap; renderings are what they claim."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ants_bees"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a file of the example, and forgets it afterwards."""
    import importlib

    names = {path.stem for path in EXAMPLE.glob("*.py")}
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield importlib.import_module
    for name in names & set(sys.modules):
        del sys.modules[name]


def test_no_photograph_plays_two_parts(example: Callable[[str], ModuleType], shared: Callable[[str], Path]) -> None:
    found = example("photographs").parts(shared("images/ants-bees"), shared("images/imagenet-sample"))
    paths = [each.path for each in found]
    assert len(set(paths)) == len(paths)
    counts = {part: sum(each.part == part for each in found) for part in ("fit", "tune", "target", "val")}
    assert counts == {"fit": 242, "tune": 121, "target": 121, "val": 303}
    assert all(("val" in each.path.parts) == (each.part == "val") for each in found if each.label != "other")
    again = example("photographs").parts(shared("images/ants-bees"), shared("images/imagenet-sample"))
    assert again == found


def test_rendering_is_inverted_translucent_pale_and_grey(example: Callable[[str], ModuleType]) -> None:
    render = example("xray").xray_like
    half = np.zeros((96, 96, 3), np.uint8)
    half[:, 48:] = (255, 200, 200)
    made = np.asarray(render(Image.fromarray(half), "half"), np.float64)
    assert (made[..., 0] == made[..., 1]).all() and (made[..., 0] == made[..., 2]).all()
    left, right = made[:, :44, 0], made[:, 52:, 0]
    assert left.mean() > right.mean() + 30  # dark lets rays through
    assert made.min() > 255 * 0.25 and made.max() < 255 * 0.85
    assert left.std() > 5  # what lies in the way is seen through an even half
    assert (np.asarray(render(Image.fromarray(half), "half")) == made).all()
    assert (np.asarray(render(Image.fromarray(half), "other")) != made).any()


@pytest.mark.slow
def test_the_study_runs_from_photographs_to_tables(shared: Callable[[str], Path], tmp_path: Path) -> None:
    options = {
        "--images": shared("images/ants-bees"),
        "--others": shared("images/imagenet-sample"),
        "--weights": shared("weights/squeezenet1_0-imagenet.safetensors"),
        "--out": tmp_path / "out",
        "--steps": 1,
        "--limit": 3,
    }
    command = [sys.executable, str(EXAMPLE / "study.py"), *(str(word) for pair in options.items() for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out/report/results.json").read_text())
    assert list(results) == ["model1", "control", "model2", "model3"]
    for each in results.values():
        assert each["counts"] == [[3, 3, 3], [3, 3, 3]]
        assert np.array(each["confusion"]).sum((2, 3)).tolist() == [[9] * 4] * 2
        assert not set(each["maps"]["ants"]) & set(each["maps"]["bees"])
    assert (tmp_path / "out/report/tables.md").read_text() == done.stdout.partition("| model |")[1] + done.stdout.partition("| model |")[2]
    hashes = {(tmp_path / f"out/weights/{model}.safetensors").read_bytes() for model in results}
    assert len(hashes) == 4
    with (tmp_path / "out/lists/train.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"fit", "tune"}
