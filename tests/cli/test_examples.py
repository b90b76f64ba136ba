"""Every command's examples run as its help shows them, on the bundled network and its generated images."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from cyclopts import CoercionError

from convscope.cli import OTHERS, build, main
from convscope.cli.docstrings import PREPARED, help_of, techniques
from convscope.errors import ConvscopeError, StoreConflict

FIRST = {"scan": 1, "feature-visualization": 0, "class-maps": 0, "detector": 0}
"""The examples, by command and place, that make what other examples read."""

SLOW = {"demo", "export"}
HOMES = {name: home for name, home in (techniques() | OTHERS).items() if name not in ("textures", "serve")} | {
    "textures sample": "cli.textures:sample"
}
LINES = [(name, line) for name, home in HOMES.items() for line in help_of(home).examples if line not in PREPARED]

MADE = {(name, help_of(HOMES[name]).examples[place]) for name, place in FIRST.items()}

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
"""


AS_JSON = {name: next((line for own, line in LINES if own == name and (name, line) not in MADE), "") for name in HOMES}
"""For each command, the example that is run with --json."""


def run(line: str, *more: str) -> None:
    program, *words = shlex.split(line)
    assert program == "convscope" and main([*words, *more]) == 0, line


ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "docs" / "techniques").glob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_of_pages_can_be_read(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ *(convscope [a-z]+(?:-[a-z]+)* .*)$", "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)), re.M):
        _, *words = shlex.split(line.partition(" | ")[0], comments=True)
        try:
            build().parse_args(words, print_error=False, exit_on_error=False)
        except CoercionError as error:  # the folder of a result, which is not there
            assert isinstance(error.__cause__, ConvscopeError) and "there is no such" in str(error.__cause__), line
        except StoreConflict as error:
            assert "there is no such" in str(error), line


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that examples read."""
    folder = tmp_path_factory.mktemp("workshop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in PREPARED:
            run(line)
        Path("my_model.py").write_text(MODEL)
        images = [f"data/images/{name}/{number:04}.png,{name}" for name in ("chains", "dots") for number in range(4)]
        Path("labels.csv").write_text("\n".join(["path,label", *images]))
        for name, place in FIRST.items():
            run(help_of(HOMES[name]).examples[place])
    return folder


@pytest.mark.parametrize("name", HOMES)
def test_every_command_has_examples_of_itself(name: str) -> None:
    examples = help_of(HOMES[name]).examples
    assert examples and all(line.startswith(f"convscope {name} ") or line == f"convscope {name}" for line in examples)


@pytest.mark.parametrize(
    ("name", "line"), [pytest.param(*case, id=case[1], marks=[pytest.mark.slow] * (case[0] in SLOW)) for case in LINES]
)
def test_example(workshop: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(workshop)
    if (name, line) in MADE:  # the workshop has run it
        return
    run(line, *["--json"] * (line == AS_JSON[name] and "--csv" not in line))
    if line == AS_JSON[name]:
        answer = json.loads(capsys.readouterr().out)
        if isinstance(answer, list):
            assert name in ("layers", "query") and all(isinstance(row, dict) for row in answer)
        else:
            assert answer["files"] if name != "redo" else answer["equal"] is True
            assert all(Path(file["path"]).exists() for file in answer.get("files", []))
            assert "summary" in answer or name in ("demo", "textures sample")


@pytest.mark.parametrize("name", sorted(techniques() | OTHERS))
def test_every_command_has_json_and_every_figure_a_format(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in [[name, each] for each in ("sample", "train")] if name == "textures" else [[name]]:
        assert main([*words, "--help"]) == 0
        told = capsys.readouterr().out
        assert "--json" in told
        assert ("--format" in told) == (name in techniques() and name not in ("scan", "feature-visualization"))
