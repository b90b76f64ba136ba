from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from convscope.errors import BadInput, BadWeights
from convscope.scope.network import weights_hash
from convscope.zoo.by_name import load_network
from convscope.zoo.from_timm import _inputs


@pytest.fixture(scope="module")
def timm() -> Any:
    return pytest.importorskip("timm", reason="timm is an optional dependency")


def line_of(name: str) -> str:
    with pytest.raises((BadInput, BadWeights)) as caught:
        load_network(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "edgenext_xx_small", "resnetv2_50x1_bit.goog_in21k"])
def test_pictures_enter_as_in_timm(name: str, timm: Any, photo: Image.Image) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    inputs = _inputs(model, name)
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    assert torch.allclose(inputs.normalize(inputs(photo)), theirs(photo), atol=1e-6)
    if inputs.classes is not None:
        assert (len(inputs.classes), inputs.classes[0]) == (1000, "tench")


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_a_crop_mode_that_squashes(share: float, timm: Any, photo: Image.Image, caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18", pretrained_cfg_overlay={"crop_mode": "squash", "crop_pct": share})
    inputs = _inputs(model, "resnet18")
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    assert inputs.crop is None
    assert torch.allclose(inputs.normalize(inputs(photo)), theirs(photo), atol=1e-6) == (share == 1)
    assert ("images are squashed to 224x224 instead" in caplog.text) == (share < 1)


def test_random_and_local_weights(timm: Any, tmp_path: Path) -> None:
    random = load_network("timm:mobilenetv3_small_050", None)
    assert weights_hash(random.model) == weights_hash(load_network("timm:mobilenetv3_small_050", None).model)
    assert random.name == "timm:mobilenetv3_small_050"
    trained = timm.create_model("mobilenetv3_small_050", num_classes=7)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    loaded = load_network("timm:mobilenetv3_small_050", tmp_path / "w.pth")
    assert weights_hash(loaded.model) == weights_hash(trained)
    assert loaded.inputs.classes is None


def test_weights_that_cannot_be_downloaded(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(Exception):
        """Like the errors of the hub's client, which are no OSError."""

    def create(name: str, pretrained: bool) -> None:
        assert pretrained
        raise Unreachable("no connection\nto the hub")

    monkeypatch.setattr(timm, "create_model", create)
    assert line_of("timm:resnet18") == (
        "the pretrained weights of timm:resnet18 could not be downloaded (no connection to the hub); "
        "give a local file (--weights FILE or weights='file.safetensors'), or weights=None for random weights"
    )


def test_weights_that_nobody_publishes(timm: Any) -> None:
    name = next(n for n in ("resnet61q", "vgg16_untrained", *timm.list_models()) if timm.is_model(n) and not timm.is_model_pretrained(n))
    assert line_of(f"timm:{name}") == (
        f"timm publishes no weights for timm:{name}; give a file of your own, or weights=None for random weights"
    )


def test_unknown_names(timm: Any) -> None:
    assert line_of("timm:resnet50dd").startswith("timm has no network 'resnet50dd'; near names: resnet50d, ")
    assert line_of("timm:resnet50.nope").startswith("timm has no weights 'resnet50.nope' for resnet50; near names: resnet50.")
    assert line_of("timm:").startswith("timm has no network ''")
    assert "; timm has it: timm:resnet50d;" in line_of("resnet50d")


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert line_of("timm:resnet18") == "networks named timm:NAME need timm: pip install 'convscope[timm]'"
    assert "near names: resnet50" in line_of("resnet50d")
