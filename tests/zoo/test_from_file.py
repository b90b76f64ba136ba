from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import convscope
from convscope.errors import BadInput, BadWeights
from convscope.scope.network import weights_hash
from convscope.zoo.by_name import load_network

Write = Callable[..., Path]
HEAD = "import torch\nfrom torch import nn\nimport convscope\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a user's file."""

    def to(text: str, name: str = "mine.py", head: str = HEAD) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + text)
        return path

    return to


def line_of(name: str) -> str:
    with pytest.raises(BadInput) as caught:
        load_network(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_module_with_inputs(write: Write) -> None:
    path = write("def build():\n    return nn.Conv2d(3, 4, 3), convscope.Inputs(size=32, mean=(0.5,) * 3)\n")
    loaded = load_network(f"{path}:build")
    assert isinstance(loaded.model, nn.Conv2d)
    assert (loaded.inputs.size, loaded.inputs.mean, loaded.name) == (32, (0.5,) * 3, f"{path}:build")
    assert weights_hash(loaded.model) == weights_hash(load_network(f"{path}:build").model), "random weights differ between calls"


def test_a_module_alone_is_taken_as_unnormalized_and_said_so(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("class Net(nn.Conv2d):\n    def __init__(self):\n        super().__init__(3, 4, 3)\n")
    with caplog.at_level(logging.WARNING):
        assert load_network(f"{path}:Net").inputs == convscope.Inputs()
    assert "assuming RGB in [0,1], 224 px, no normalization; to say otherwise: return (model, convscope.Inputs(224, " in caplog.text


def test_random_weights_are_said(write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # also tried: a Scope, a lazy layer, a function that may be called only once, torchvision's resnet18 with a new head on loaded weights
    inputs = ", convscope.Inputs(size=32)\n"
    path = write("def build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(3600, 2))" + inputs)
    with caplog.at_level(logging.WARNING):
        load_network(f"{path}:build")
    assert "mine.py:build: its weights are random, others at each seed; give those of your training by --weights" in caplog.text
    own = tmp_path / "own.pth"
    torch.save(load_network(f"{path}:build").model.state_dict(), own)
    half = write(
        "def build():\n    body = nn.Conv2d(3, 64, 3)\n"
        "    body.load_state_dict(dict(weight=torch.ones(64, 3, 3, 3), bias=torch.ones(64)))\n"
        f"    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)){inputs}",
        "half.py",
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load_network(f"{half}:build")
        assert "half.py:build: weights are random: 3.weight, 3.bias, others" in caplog.text
        caplog.clear()
        load_network(f"{path}:build", own)
        load_network(f"{path}:build", None)  # asked for
        kept = f"    net.load_state_dict(torch.load({str(tmp_path / 'c.pth')!r}))\n    return net{inputs}"
        loads = write("def build():\n    net = nn.Conv2d(3, 4, 3)\n" + kept, "loads.py")
        torch.save(nn.Conv2d(3, 4, 3).state_dict(), tmp_path / "c.pth")
        load_network(f"{loads}:build")
    assert caplog.text == ""


def test_a_scope(write: Write) -> None:
    path = write("def build():\n    return convscope.Scope(nn.Conv2d(3, 4, 3), convscope.Inputs(size=40), precision='float32')\n")
    scope = convscope.open(f"{path}:build")
    assert (scope.inputs.size, scope.precision, scope.name, scope.weights) == (40, "float32", f"{path}:build", "pretrained")
    assert convscope.open(f"{path}:build", precision="bfloat16").precision == "bfloat16"


def test_a_finished_network_instead_of_a_function(write: Write) -> None:
    path = write("net = nn.Conv2d(3, 4, 3)\nboth = net, convscope.Inputs(size=16)\nnumber = 3\n")
    assert load_network(f"{path}:both").inputs.size == 16
    assert line_of(f"{path}:number") == f"{path}: number is of type int, not a function"


def test_weights_of_a_file_go_into_a_users_network(write: Write, tmp_path: Path) -> None:
    path = write("def build():\n    return nn.Conv2d(3, 4, 3), convscope.Inputs()\n")
    state = {key: torch.ones_like(value) for key, value in nn.Conv2d(3, 4, 3).state_dict().items()}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
    loaded = load_network(f"{path}:build", tmp_path / "w.pth")
    assert float(loaded.model.weight.min().item()) == 1.0  # pyright: ignore
    assert loaded.weights == str(tmp_path / "w.pth")
    torch.save({"weight": state["weight"]}, tmp_path / "w.pth")
    with pytest.raises(BadWeights, match=r"mine.py:build: 1 of 2 missing \(bias \(4\)\)"):
        load_network(f"{path}:build", tmp_path / "w.pth")


def test_files_next_to_it_can_be_imported_even_under_a_common_name(write: Write, tmp_path: Path) -> None:
    returned = "    return nn.Conv2d(3, {}, 3), convscope.Inputs()\n"
    for folder, channels in (("a", 4), ("b", 5)):
        write(f"WIDTH = {channels}\n", f"{folder}/blocks_of_mine.py", head="")
        write("import blocks_of_mine\ndef build():\n" + returned.format("blocks_of_mine.WIDTH"), f"{folder}/net.py")
        write("", f"{folder}/sub_of_mine/__init__.py", head="")
        write(f"late = {channels}\n", f"{folder}/sub_of_mine/deep.py", head="")
        write("def build():\n    from sub_of_mine.deep import late\n" + returned.format("late"), f"{folder}/later.py")
    before = list(sys.path)
    try:
        for folder, channels in (("a", 4), ("b", 5), ("a", 4)):
            assert load_network(f"{tmp_path / folder}/net.py:build").model.out_channels == channels  # pyright: ignore
            assert load_network(f"{tmp_path / folder}/later.py:build").model.out_channels == channels  # pyright: ignore
            assert sys.path == before
            assert Path(str(sys.modules["blocks_of_mine"].__file__)).parent.name == "a", "the module loaded first was not put back"
    finally:
        for name in ("blocks_of_mine", "sub_of_mine", "sub_of_mine.deep"):
            sys.modules.pop(name, None)


def test_a_changed_file_is_run_again(write: Write) -> None:
    text = "def build():\n    return nn.Conv2d(3, {}, 3), convscope.Inputs()\n"
    assert load_network(f"{write(text.format(4))}:build").model.out_channels == 4  # pyright: ignore
    assert load_network(f"{write(text.format(55))}:build").model.out_channels == 55  # pyright: ignore


def test_errors_inside_name_the_users_line(write: Write) -> None:
    path = write("def build():\n    model = nn.Linear(3, 4)\n    return model.nothing\n")
    assert line_of(f"{path}:build") == f"{path}:6: AttributeError: 'Linear' object has no attribute 'nothing'"
    path = write("x = 1 / 0\n")
    assert line_of(f"{path}:build") == f"{path}:4: ZeroDivisionError: division by zero"
    path = write("def build(:\n")
    assert line_of(f"{path}:build") == f"{path}:4: SyntaxError: invalid syntax"
    path = write("def build():\n    return nn.Conv2d(3, 4)\n")
    assert line_of(f"{path}:build").startswith(f"{path}:5: TypeError: Conv2d.__init__() missing 1 required positional argument")
    path = write("def build():\n    raise ValueError('several\\nlines')\n")
    assert line_of(f"{path}:build") == f"{path}:5: ValueError: several lines"
    path = write("def build():\n    return nn.Conv2d(3, 4, 3), convscope.Inputs(size=0)\n")
    assert line_of(f"{path}:build") == f"{path}:5: Inputs.size: expected pixels, one number or (height, width), each from 1 to 8192; got 0"
    path = write("import sys\nsys.exit(3)\n")
    assert line_of(f"{path}:build") == f"{path}:5: SystemExit: 3"
    path = write("import absent_library\n")
    assert line_of(f"{path}:build") == f"{path}:4: ModuleNotFoundError: No module named 'absent_library'"
    write("raise KeyError\n", "broken_sibling.py", head="")
    path = write("import broken_sibling\n")
    assert line_of(f"{path}:build") == f"{path.parent}/broken_sibling.py:1: KeyError"


def test_what_is_not_there(write: Write) -> None:
    path = write("def build():\n    return 3\ndef build_wide(width):\n    return 4\nclass Net(nn.Module):\n    pass\n")
    assert line_of(f"{path}:biuld") == f"{path} has no function 'biuld'; near names: build"
    assert line_of(f"{path}:xyz") == f"{path} has no function 'xyz'; it has build, build_wide, Net"
    assert line_of(str(path)) == f"{path}: say which function is meant: {path}:NAME, with NAME one of build, build_wide, Net"
    assert line_of(f"{path.parent}/mien.py:build") == f"{path.parent}/mien.py: no such file; near names: mine.py"
    assert line_of("/nowhere/at/all.py:build") == "/nowhere/at/all.py: no such file"
    assert line_of(f"{path}:build").endswith("returned int; expected an nn.Module, (nn.Module, convscope.Inputs) or a convscope.Scope")
    assert line_of(f"{path}:build_wide").startswith(f"{path}:6: build_wide is called without arguments, but has a missing")
    path = write("def build():\n    return nn.Conv2d(3, 4, 3), {}\n")
    assert "build returned (Conv2d, dict); expected" in line_of(f"{path}:build")
