"""The project file: written, read, and what commands take from it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from convscope.cli import main
from convscope.cli.project import FILE, Project, read_project, with_network, write_project
from convscope.errors import BadInput
from convscope.results.provenance import PROJECT
from convscope.zoo.textures.generator import write_folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_folder(folder, 1, 0)
    return folder / "images" / "heart"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def manifest_of(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "manifest.json").read_text())["manifest"]


def taken(folder: str) -> tuple[object, object]:
    """What a result says of the project file, and of its network's name."""
    manifest = manifest_of(folder)
    return manifest.get("project"), manifest["network"]["name"]


def test_what_is_written_is_read(folder: Path) -> None:
    # also tried: every other control character, a line end, a lone surrogate (refused)
    for text in ("w.safetensors", 'a "quoted" \\ name', "tab\tand\x7f\x01", "日本 é 🙂"):
        project = Project("squeezenet1_0", text, "photos", "cpu", "float32")
        write_project(project)
        assert read_project() == project and tomllib.loads(Path(FILE).read_text())["weights"] == text
    write_project(Project("textures"))
    assert read_project() == Project("textures") and [path.name for path in folder.iterdir()] == [FILE]
    with pytest.raises(BadInput, match="not valid Unicode"):
        write_project(Project("textures", "\udc80"))
    assert read_project() == Project("textures")


@pytest.mark.parametrize(
    ("arguments", "inserted"),
    [
        (["spectrum", "features.6", "a.png"], True),
        (["spectrum", "vgg16", "features.6"], False),
        (["spectrum", "timm:resnet50d", "layer1"], False),
        (["spectrum", "my.py:build", "layer1"], False),
        (["spectrum", "hf:folder", "layer1"], False),
        (["spectrum", "efficientnet_lite0", "layer1"], False),
        (["layers"], True),
        (["layers", "--kind", "Conv2d"], True),
        (["spectrum", "--reduce", "max", "features.6", "a.png"], True),
        (["spectrum", "--reduce", "max", "alexnet", "features.6", "a.png"], False),
        (["spectrum", "features.6", "alexnet"], True),  # a folder of images called so
    ],
)
def test_where_the_network_is_left_out(arguments: list[str], inserted: bool) -> None:
    command, *rest = arguments
    assert with_network(arguments, Project("textures")) == ([command, "textures", *rest] if inserted else arguments)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network", "not a TOML file"),
        ("network = [1", "not a TOML file"),
        ("weights = 'w.pth'", "names no network"),
        ("network = 'textures'\nwieghts = 'w.pth'", "unknown entry 'wieghts'; near names: weights"),
        ("network = 3", "network must be text, got '3'"),
        ("network = ''", "network must be text"),
        ("[network]\nname = 'textures'", "network must be text"),
        ("network = 'my.py:build'", "my.py:build is code, which is run only where a command names it"),
        ("network = 'my.py'", "is code"),
        ("#" * 70000, "more than"),
    ],
)
def test_a_damaged_file_is_one_line(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(FILE).write_text(text)
    with pytest.raises(BadInput, match=words) as caught:
        read_project()
    assert "\n" not in str(caught.value)
    assert main(["spectrum", "features.6", "a.png"]) == 2 and words in capsys.readouterr().err
    assert main(["query", "--help"]) == 0, "a command that needs no network does not read it"


def test_commands_take_what_is_not_given(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["use", "textures", "--images", str(images), "--device", "cpu", "--weights", "random"]) == 0
    assert "(1 file)" in capsys.readouterr().out
    assert main(["spectrum", "features.6", "--out", "all"]) == 0
    whole = {"network": "textures", "weights": "random", "device": "cpu", "images": str(images)}
    assert taken("all") == (whole, "textures")
    assert capsys.readouterr().err.startswith(f"{FILE}: network textures, weights random, images {images}, device cpu\n")
    assert manifest_of("all")["network"]["weights"] is None, "random, as the file says"
    photo = str(next(images.iterdir()))
    assert main(["spectrum", "features.6", photo, "--weights", "pretrained", "--out", "own"]) == 0
    assert taken("own") == ({"network": "textures", "device": "cpu"}, "textures")
    assert manifest_of("own")["network"]["weights"] == "pretrained"
    assert main(["spectrum", "textures", "features.6", photo, "--weights", "pretrained", "--device", "cpu", "--out", "none"]) == 0
    assert taken("none") == (None, "textures")
    capsys.readouterr()
    assert main(["layers", "squeezenet1_1"]) == 0
    assert "fire" in capsys.readouterr().out.lower() and dict(PROJECT.get()) == {}
    assert main(["spectrum", "--help"]) == 0
    assert "[convscope.toml: random]" in " ".join(capsys.readouterr().out.split())


def test_use_checks_before_it_writes(capsys: pytest.CaptureFixture[str], images: Path) -> None:
    write_project(Project("textures", device="cpu"))
    for wrong, words in (
        (["my.py:build"], "is code"),
        (["squeeznet1_0"], "unknown network"),
        (["textures", "--weights", "gone.pth"], "gone.pth"),
        (["textures", "--images", "gone"], "gone"),
    ):
        assert main(["use", *wrong]) == 2
        assert words in capsys.readouterr().err and read_project() == Project("textures", device="cpu")
    assert main(["use", "textures"]) == 0 and read_project() == Project("textures"), "written anew, not added to"
    assert "replaced" in capsys.readouterr().out


def test_layers_may_stand_before_the_images(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "textures", "features.6,features.20", str(images), "--out", "survey"]) == 0
    assert json.loads(Path("survey/manifest.json").read_text())["layers"] == ["features.6", "features.20", "output"]
    assert main(["activation-grid", "textures", "features.6", str(images), "--out", "grid"]) == 0
    assert manifest_of("grid")["parameters"]["layers"] == ["features.6"]
    assert main(["scan", "textures", "features.99", str(images), "--out", "other"]) == 2
    assert "no layer 'features.99'" in capsys.readouterr().err
    assert main(["activation-grid", "textures", "gone.png", str(images), "--out", "skips"]) == 0, "a file that is missing, not a layer"
