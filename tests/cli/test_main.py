"""The command line, in process: help, results, and for a user's mistake exit code 2, one line, and nothing written."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

import convscope
from convscope.cli import OTHERS, build, main
from convscope.cli.docstrings import help_of, techniques
from convscope.receipts import read_receipt
from convscope.scope import Scope

NETWORK = """
import torch
from torch import nn
from convscope import Inputs

def build():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model, Inputs(size=16, classes=["ant", "bee", "cat", "dog"])
"""
QUICK = ["--set", "size=16", "--set", "steps=2", "--set", "crop_size=12"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a network, two folders of pictures and some files that are none."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK)
    for index, name in enumerate(("red", "green")):
        Path(name).mkdir()
        for number in range(3):
            values = np.random.default_rng([index, number]).integers(0, 90, (20, 20, 3), dtype=np.uint8)
            values[..., index] += 150
            Image.fromarray(values).save(Path(name) / f"{name}{number}.png")
    Path("text.png").write_text("not a picture\nat all")
    Path("cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"0" * 40)
    Path("empty").mkdir()
    Image.new("RGB", (3, 3)).save("tiny.png")
    Image.new("RGB", (30, 30)).save("plain.png")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def table_of(out: str) -> list[str]:
    """The lines of `convscope layers` without the sentences below."""
    return [line for line in out.splitlines() if not line.startswith("* ") and "are left out" not in line]


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def plain(text: str) -> str:
    """Help without boxes and line breaks."""
    return " ".join(re.sub(r"[│╭╰╮╯─]", " ", re.sub(r"\x1b\[[0-9;]*m", "", text)).split())


# --- help


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--help")
    assert code == 0 and err == ""
    text = plain(out)
    assert text.startswith("Usage: convscope COMMAND A microscope for convolutional networks.")
    for name, home in (techniques() | OTHERS).items():
        line = help_of(home).description.splitlines()[0]
        assert f"{name} {line}" in text, name
    assert "Start with: convscope demo convscope layers textures" in text
    assert run(capsys) == (0, out, "")


@pytest.mark.parametrize("command", [*techniques(), *OTHERS])
def test_help_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, command, "--help")
    lines = out[: out.find("\nExamples:")].splitlines()
    assert max(map(len, lines)) <= 80
    assert not any(re.search(r"│ +-\w", line) and line.rstrip(" │").endswith("…") for line in lines)


def test_names_of_layers_are_never_wrapped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # also tried: convnext_atto of timm
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, "layers", "squeezenet1_0")
    rows = table_of(out)
    words = [line.split()[0] for line in rows[2:]]
    assert "features.12.expand3x3_activation" in words and len(words) == len(set(words))
    assert max(len(line.rstrip()) for line in rows) <= 80


@pytest.mark.parametrize("command", [*techniques(), *OTHERS])
def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = run(capsys, command, "--help")
    text = plain(out)
    assert code == 0 and err == "" and text.startswith(f"Usage: convscope {command} ")
    assert ":class:" not in text and ":func:" not in text and "`" not in text
    if command != "textures":
        assert f"Examples: convscope {command} " in text


def test_help_of_feature_visualization(capsys: pytest.CaptureFixture[str]) -> None:
    text = plain(run(capsys, "feature-visualization", "--help")[1])
    assert text.startswith("Usage: convscope feature-visualization [OPTIONS] NETWORK LAYER ")
    for words in (
        "--units UNITS ",
        'Written 0,3,8-11, names, or "all".',
        "--set NAME=VALUE ",
        "[choices: auto, float32, bfloat16] [default: auto]",
    ):
        assert words in text


def test_help_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "textures")
    assert code == 0 and err == "" and "sample Writes a labelled folder" in plain(out)
    assert "Examples: convscope textures sample" in plain(run(capsys, "textures", "sample", "--help")[1])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_options_and_choices(shell: Literal["bash", "zsh", "fish"]) -> None:
    script = build().generate_completion(shell=shell)
    for word in ("detector-evaluation", "--votes-per-image", "guided", "textures"):
        assert word in script or word.removeprefix("--") in script


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"convscope {convscope.__version__}\n", "")


# --- results


def test_layers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "layers", "net.py:build")
    assert code == 0 and err == ""
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["net.py:build", "at", "16x16"] and rows[1][:4] == ["name", "kind", "channels", "size"]
    assert [row[0] for row in rows[2:-1]] == ["0", "1", "2", "3", "4", "output"] and rows[-1][0] == "*"
    assert rows[2][:4] == ["0", "Conv2d", "6", "14x14"]
    code, out, _ = run(capsys, "layers", "net.py:build", "--kind", "Conv2d")
    assert code == 0 and [line.split()[0] for line in out.splitlines()[2:]] == ["0", "2"]
    code, out, _ = run(capsys, "layers", "net.py:build", "--kind", "Conv")
    assert code == 2 and out == ""


def test_layers_that_return_their_input_are_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    _, short, _ = run(capsys, "layers", "squeezenet1_0")
    _, long, _ = run(capsys, "layers", "squeezenet1_0", "--all")
    assert "classifier.0 " not in short and "classifier.0 " in long
    assert short.splitlines()[-1] == "1 of 68 layers return their input (Dropout) and are left out: --all shows them"
    assert len(long.splitlines()) == len(short.splitlines()) and "left out" not in long
    assert run(capsys, "layers", "squeezenet1_0", "--json") == run(capsys, "layers", "squeezenet1_0", "--json", "--all")


def test_layers_at_80_columns(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def header(columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, _ = run(capsys, "layers", "textures")
        assert code == 0 and max(map(len, table_of(out))) <= columns
        return out.splitlines()[1].split()

    assert header(120) == ["name", "kind", "channels", "size", "stride", "field", "parameters", "MACs"]
    assert header(80)[-1] == "parameters" and header(70)[-1] == "field"


def test_feature_visualization(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["feature-visualization", "net.py:build", "output", "--units", "ant,2-3", "--out", "new/pictures", *QUICK]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert out.splitlines()[0].startswith("3 images: ") and "sheet.png" in out
    folder = place / "new" / "pictures"
    assert sorted(path.name for path in folder.iterdir()) == ["sheet.png", "unit_0000.png", "unit_0002.png", "unit_0003.png"]
    receipt = read_receipt(folder / "unit_0000.png")
    assert receipt["unit_name"] == "ant" and receipt["recipe"]["steps"] == 2 and receipt["network"]["name"] == "net.py:build"
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("unit_*")}
    code, out, _ = run(capsys, *words)
    assert code == 0 and "(3 were there already)" in out
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.glob("unit_*")}
    code, out, err = run(capsys, *words, "--seed", "1")
    assert code == 2 and err.count("\n") == 1 and "was made with another seed; choose another folder, or delete it" in err
    code, out, err = run(capsys, "redo", str(folder / "unit_0002.png"))
    assert code == 2 and err.count("\n") == 1 and "made with the network net.py:build, which a receipt cannot open" in err
    code, out, err = run(capsys, "redo", str(folder / "unit_0002.png"), "--network", "net.py:build")
    assert code == 0 and "unit_0002.png: bit-equal" in out
    code, out, err = run(capsys, "redo", str(folder / "sheet.png"))
    assert code == 2 and err.count("\n") == 1 and "only single feature visualizations can be redone" in err


def test_spectrum_and_hypothesis(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "spectrum", "net.py:build", "1", "red", "plain.png", "--out", "seen")
    assert code == 0 and [line.split(":")[0] for line in out.splitlines()[:4]] == ["red0", "red1", "red2", "plain"]
    loaded = convscope.load(place / "seen")
    assert loaded.values.shape == (4, 6) and (place / "seen" / "figure.png").exists()
    words = ["red", "--against", "green", "--permutations", "99"]
    code, out, _ = run(capsys, "hypothesis", "net.py:build", "1", "3", *words, "--out", "tested")
    assert code == 0 and out.startswith("unit 3 of 1: ")
    assert convscope.load(place / "tested").unit == 3
    code, out, _ = run(capsys, "hypothesis", "net.py:build", "output", "bee", *words, "--out", "classes")
    assert code == 0 and out.startswith("unit 1 (bee) of output: ")


def test_default_folders_are_numbered(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("net.py-build-1-plain", "net.py-build-1-plain-2"):
        code, out, _ = run(capsys, "spectrum", "net.py:build", "1", "plain.png")
        assert code == 0 and f"out/spectrum/{folder}/figure.png" in out
        assert (place / "out" / "spectrum" / folder / "manifest.json").exists()


# --- a user's mistakes


FV = ("feature-visualization", "net.py:build")
MISTAKES = {
    "no such command": (("spectrums",), 'Unknown command "spectrums". Did you mean "spectrum"?'),
    "no such option": (("spectrum", "net.py:build", "1", "plain.png", "--colour", "red"), "Unknown option: --colour"),
    "option spelled wrong": (("spectrum", "net.py:build", "1", "plain.png", "--reduc", "max"), "Did you mean --reduce?"),
    "no arguments": (("spectrum",), "NETWORK requires an argument"),
    "no layer": (("spectrum", "net.py:build"), "LAYER requires an argument"),
    "seed that is no number": ((*FV, "0", "--seed", "x"), 'Invalid value for --seed: unable to convert "x" into int'),
    "no such network": (("layers", "resnet51"), "unknown network 'resnet51'; near names: resnet50"),
    "no such kind": (
        ("layers", "net.py:build", "--kind", "Conv"),
        "net.py:build has no layer of kind Conv; there are: Conv2d, ReLU, AdaptiveAvgPool2d, Flatten, Sequential",
    ),
    "no such file": (("layers", "gone.py:build"), "gone.py"),
    "no such function": (("layers", "net.py:make"), "make"),
    "no such layer": ((*FV, "1x"), "no layer '1x' in this network"),
    "no such unit": ((*FV, "1", "--units", "6"), "layer 1 has units 0 to 5, got 6"),
    "no such range": ((*FV, "1", "--units", "4-9"), "layer 1 has units 0 to 5, got 6"),
    "backwards": ((*FV, "1", "--units", "4-2"), "--units: 4-2 counts backwards"),
    "no units": ((*FV, "1", "--units", ","), "no unit of layer 1 asked for"),
    "words as units": ((*FV, "1", "--units", "ant"), "layer 1 has units 0 to 5, got 'ant'"),
    "far too many units": ((*FV, "1", "--units", "0-999999999999"), "0-999999999999: no layer has so many units"),
    "no such class": ((*FV, "output", "--units", "ants"), "class 'ants' is unknown"),
    "no such recipe": ((*FV, "1", "--recipe", "cropz"), 'Invalid value "cropz" for --recipe. Choose from: "crops"'),
    "no such number": ((*FV, "1", "--set", "stepz=3"), "no parameter 'stepz'; near names: steps"),
    "no number": ((*FV, "1", "--set", "steps=many"), "steps must be int, got 'many'"),
    "no value": ((*FV, "1", "--set", "steps"), "steps: expected NAME=VALUE"),
    "no such precision": ((*FV, "1", "--precision", "half"), '"half" for --precision. Choose from: "auto", "float32", "bfloat16"'),
    "no such device": ((*FV, "1", "--device", "gpu"), "unknown device 'gpu'"),
    "device of another kind": ((*FV, "1", "--device", "mps"), "device 'mps' is not supported: convscope runs on cpu and cuda; use cpu"),
    "no such weights": ((*FV, "1", "--weights", "gone.pth"), "gone.pth"),
    "text for a picture": (("spectrum", "net.py:build", "1", "text.png"), "text.png: not an image file"),
    "cut picture": (("spectrum", "net.py:build", "1", "cut.jpg"), "cut.jpg: "),
    "tiny picture": (("spectrum", "net.py:build", "1", "tiny.png"), "tiny.png: 3x3 pixels, too small"),
    "no picture": (("spectrum", "net.py:build", "1", "gone.png"), "gone.png: no such file"),
    "picture for a layer": (("spectrum", "net.py:build", "plain.png", "1"), "not a layer: convscope spectrum NETWORK LAYER IMAGES"),
    "no picture for a layer": (("inversion", "net.py:build", "gone.png", "1"), "gone.png is the name of an image, not a layer"),
    "folder for a layer": (("feature-visualization", "net.py:build", "red"), "red is a file or folder, not a layer"),
    "layer for a picture": (("activation-grid", "net.py:build", "1"), "not an image: convscope activation-grid NETWORK IMAGES"),
    "layers for a style": (
        ("style-transfer", "net.py:build", "plain.png", "--style", "0,1"),
        "0,1 is the name of a layer, not an image: convscope style-transfer NETWORK CONTENT --style STYLE",
    ),
    "empty folder": (("spectrum", "net.py:build", "1", "empty"), "empty: no image files in this folder"),
    "no such pictures": (("spectrum", "net.py:build", "1", "plain.png", "--pictures", "gone"), "gone is not a folder"),
    "no such reduce": (("spectrum", "net.py:build", "1", "plain.png", "--reduce", "sum"), '"sum" for --reduce. Choose from: "mean", "max"'),
    "one image": (("hypothesis", "net.py:build", "1", "0", "plain.png", "--against", "red"), "at least 2 images on each side"),
    "unit of a test": (("hypothesis", "net.py:build", "1", "6", "red", "--against", "green"), "units 0 to 5, got 6"),
    "word as unit of a test": (("hypothesis", "net.py:build", "1", "x", "red", "--against", "green"), "units 0 to 5, got 'x'"),
    "no receipt": (("redo", "plain.png"), "plain.png: carries no receipt"),
    "redo nothing": (("redo", "gone.png"), "gone.png"),
    "folder that cannot be made": (
        ("spectrum", "net.py:build", "1", "plain.png", "--out", "text.png/seen"),
        "text.png is a file, not a folder",
    ),
    "full folder": (("textures", "sample", "--out", "red"), "red is not empty; choose another folder"),
    "no classes": (("textures", "sample", "--out", "new", "--per-class", "0"), "--per-class must be at least 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    words, message = MISTAKES[mistake]
    before = everything(place)
    code, out, err = run(capsys, *words)
    assert code == 2
    assert err.endswith("\n") and err.count("\n") == 1 and err.startswith("error: "), err
    assert message in err
    assert out == ""
    assert everything(place) == before


def test_an_empty_folder_with_many_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "spectrum", "net.py:build", "1", "red", "empty", "--out", "seen")
    assert code == 2 and err.count("\n") == 1 and "empty: no image files" in err


def test_a_folder_that_also_holds_other_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "red" / "notes.txt").write_text("not a picture")
    assert run(capsys, "spectrum", "net.py:build", "1", "red", "--out", "one")[0] == 0
    code, _, err = run(capsys, "spectrum", "net.py:build", "1", "red", "green", "--out", "two")
    assert code == 0, err


def test_a_bug_is_not_hidden(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scope, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["spectrum", "net.py:build", "1", "plain.png"])


# --- interruption


def test_interrupted_and_resumed(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = importlib.import_module("convscope.galleries.gallery")
    monkeypatch.setattr(importlib.import_module("convscope.techniques.feature_visualization"), "AT_ONCE", 2)
    real, calls = gallery.feature_visualization, []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(gallery, "feature_visualization", interrupted)
    words = [*FV, "1", "--out", "pictures", *QUICK]
    code, out, err = run(capsys, *words)
    assert code == 130 and out == ""
    assert err.strip().endswith("interrupted; what is finished is kept: run the same command again to go on from there")
    assert "Traceback" not in err
    assert sorted(path.name for path in (place / "pictures").iterdir()) == [f"unit_000{unit}.png" for unit in range(4)]
    code, out, _ = run(capsys, *words)
    assert code == 0 and "(4 were there already)" in out
    assert len(list((place / "pictures").glob("unit_*.png"))) == 6


@pytest.mark.parametrize("command", ["spectrum", "layers"])
def test_interrupted_anywhere(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = everything(place)
    monkeypatch.setattr("convscope.zoo.by_name.load_network", interrupt)
    code, _, err = run(capsys, command, "net.py:build", *(["1", "plain.png"] if command == "spectrum" else []))
    assert code == 130 and "interrupted" in err and everything(place) == before


# --- as a program


def test_as_a_program(place: Path) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "convscope", *words], capture_output=True, text=True, timeout=120, check=False)

    wrong = call("spectrum", "net.py:build", "nothing", "plain.png")
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert wrong.stderr.startswith("error: no layer 'nothing'") and wrong.stderr.count("\n") == 1


def test_torch_is_not_left_changed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    run(capsys, *FV, "1", "--units", "0", "--out", "pictures", *QUICK)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1:] == (torch.get_num_threads(), torch.is_grad_enabled())


def test_words_are_read_where_pydantic_is_loaded(tmp_path: Path) -> None:
    # cyclopts then checks values; also tried: --patch 32x32, --objective neuron:2,3, --outputs a=1 --outputs b=2, --maps a=1,2
    call = ["feature-visualization", "textures", "features.27", "--units", "0-1", "--set", "steps=1", "--out", str(tmp_path / "out")]
    program = f"import sys, pydantic; from convscope.cli import main; sys.exit(main({call}))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("unit*.png")) == ["unit_0000.png", "unit_0001.png"]


def test_layers_by_number_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "deep.py").write_text(
        NETWORK.replace("return model,", "return nn.Sequential(nn.ModuleDict({'features': model})['features']),")
    )
    code, out, err = run(capsys, "spectrum", "deep.py:build", "2", "plain.png", "--units", "3")
    assert code == 0 and "layer 2 is 0.2" in err and "unit 3: number " in out
    code, _, err = run(
        capsys, "feature-visualization", "deep.py:build", "2", "--units", "1", "--objective", "neuron:3,4", *QUICK, "--out", "g"
    )
    assert code == 0 and read_receipt(place / "g" / "unit_0001.png")["parameters"]["layer"] == "0.2"
    code, _, err = run(capsys, "spectrum", "deep.py:build", "0.2", "plain.png", "--units", "all")
    assert code == 2 and err.startswith('error: Invalid value for --units: which units? "all" says nothing here')
    code, _, err = run(capsys, "feature-visualization", "net.py:build", "2", "--units", "1", "--set", "lr=0.2", "--out", "none")
    assert (
        code == 2 and err.startswith("error: a recipe has no parameter 'lr': it is called learning_rate here") and not Path("none").exists()
    )


PARTS = NETWORK.replace("return model, Inputs(", "return Parts(model), Inputs(") + (
    """
class Parts(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        logits = self.model(images)
        return {"logits": logits[:, :2], "kinds": logits}
"""
)


def test_the_part_that_is_the_output_is_known_later(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("parts.py").write_text(PARTS)
    layer, network = "model.2", ["--network", "parts.py:build"]
    code, _, err = run(capsys, "scan", "parts.py:build", "red", "--output-part", "kinds", "--layers", layer, "--out", "survey")
    assert code == 0, err
    code, _, err = run(capsys, "top-patches", "survey", layer, "--units", "0", "--top", "2", *network, "--out", "patches")
    assert code == 0, err
    words = ["parts.py:build", "output", "--units", "3", "--output-part", "kinds", "--out", "images", *QUICK]
    assert run(capsys, "feature-visualization", *words)[0] == 0
    code, out, err = run(capsys, "redo", "images/unit_0003.png", *network)
    assert code == 0 and "bit-equal" in out, err
    few = ["--layers", layer, "--units", "0", "--classes", "3", "--no-projections", "--pictures", "images", "patches"]
    code, _, err = run(capsys, "atlas", "parts.py:build", "red", "--output-part", "kinds", *few, *QUICK, "--out", "site")
    assert code == 0 and Path("site", "class", "3.html").exists(), err


def test_json_of_a_technique(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "spectrum", "net.py:build", "1", "red", "text.png", "--out", "here", "--format", "svg", "--json")
    answer = json.loads(out)
    assert code == 0 and "1 image skipped" in answer["summary"]
    assert {row["image"] for row in answer["rows"]} == {"red0", "red1", "red2"} and len(answer["rows"]) == 18
    found = convscope.load("here")
    assert isinstance(found, convscope.Spectrum) and [row["values"] for row in answer["rows"]] == found.values.ravel().tolist()
    assert answer["summary"] == found.summary() and answer["passed"] is True
    assert answer["files"][0] == {"path": "here/figure.svg", "what": "the figure"} and Path("here/figure.svg").exists()


def test_json_of_layers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "layers", "net.py:build", "--json")
    rows = json.loads(out)
    assert code == 0 and [row["name"] for row in rows] == ["0", "1", "2", "3", "4", "output"]
    wanted = {"name": "0", "kind": "Conv2d", "channels": 6, "height": 14, "width": 14, "stride_y": 1.0, "field_x": 3.0, "parameters": 168}
    assert wanted.items() <= rows[0].items() and rows[0]["macs"] == 6 * 3 * 9 * 14 * 14
    assert rows[5]["height"] is None and rows[5]["field_y"] is None and rows[5]["whole_field"] is True
    frame = convscope.open("net.py:build").layers.to_frame()
    assert frame["name"].tolist() == [row["name"] for row in rows] and frame["channels"].dtype.kind == "i"


def test_json_of_a_mistake(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "spectrum", "net.py:build", "9", "red", "--json")
    assert (code, out) == (2, "") and err.startswith("error: ")
