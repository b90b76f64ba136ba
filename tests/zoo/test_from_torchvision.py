from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import regnet

from convscope.errors import BadInput, BadWeights
from convscope.scope.inputs import Inputs
from convscope.scope.network import weights_hash
from convscope.zoo.by_name import FORMS, load_network
from convscope.zoo.from_torchvision import _OLD_DENSENET, build, names, preset

CONVOLUTIONAL = [name for name in names() if not name.startswith(("vit_", "swin_"))]


@pytest.fixture
def regnets_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constructors of regnets compute their sizes with tensors, which the meta device cannot."""
    original = regnet.BlockParams.from_init_params

    def on_cpu(**options: Any) -> regnet.BlockParams:
        with torch.device("cpu"):
            return original(**options)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", on_cpu)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_every_network_builds_as_published(name: str, regnets_on_meta: None) -> None:
    with torch.device("meta"):
        network = build(name)
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    in_training_heads = {"inception_v3": 3326696}.get(name, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == published - in_training_heads
    assert len(preset(name).classes or ()) == 1000


@pytest.mark.parametrize("name", ["vit_h_14", "vit_b_16", "swin_t"])
def test_transformers_are_built_for_the_size_of_their_weights(name: str) -> None:
    with torch.device("meta"):
        network = build(name)
    assert sum(p.numel() for p in network.parameters()) == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert preset(name).size == {"vit_h_14": 518}.get(name, 224)


@pytest.mark.parametrize("name", names())
def test_sizes_and_crops_are_torchvisions(name: str) -> None:
    theirs, inputs = torchvision.models.get_model_weights(name).DEFAULT.transforms(), preset(name)
    assert isinstance(inputs.size, int)
    assert inputs.crop is not None
    assert (inputs.size, round(inputs.size / inputs.crop)) == (theirs.crop_size[0], theirs.resize_size[0])


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet50", "inception_v3", "efficientnet_b0", "efficientnet_b1", "convnext_tiny"])
@pytest.mark.parametrize("upright", [False, True])
def test_pictures_enter_exactly_as_in_torchvision(name: str, upright: bool, photo: Image.Image) -> None:
    photo = photo.transpose(Image.Transpose.ROTATE_90) if upright else photo
    inputs = preset(name)
    theirs = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    assert torch.equal(inputs.normalize(inputs(photo)), theirs(photo))


def test_random_weights_are_the_same_every_time_and_draw_from_nothing_global() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        one = load_network("squeezenet1_1", None)
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(2)
        two = load_network("squeezenet1_1", None)
    assert weights_hash(one.model) == weights_hash(two.model)
    assert (one.name, one.weights) == ("squeezenet1_1", None)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_training_heads_in_the_weights(name: str, tmp_path: Path) -> None:
    full = torchvision.models.get_model(name, weights=None, aux_logits=True, init_weights=False, num_classes=10)
    torch.save(full.state_dict(), tmp_path / "w.pth")
    loaded = load_network(name, tmp_path / "w.pth")
    assert loaded.model.transform_input  # pyright: ignore
    assert loaded.model.state_dict().keys() == {key for key in full.state_dict() if "aux" not in key.lower()}


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5"])
def test_another_number_of_classes(name: str, tmp_path: Path) -> None:
    trained = torchvision.models.get_model(name, weights=None, num_classes=3)
    torch.save({"model": trained.state_dict()}, tmp_path / "w.pth")
    loaded = load_network(name, tmp_path / "w.pth")
    assert weights_hash(loaded.model) == weights_hash(trained)
    assert loaded.inputs.classes is None
    assert loaded.inputs.mean == preset(name).mean
    save_file(trained.state_dict(), tmp_path / "w.safetensors", metadata={"classes": json.dumps(["a", "b", "c"])})
    assert load_network(name, str(tmp_path / "w.safetensors")).inputs.classes == ("a", "b", "c")
    save_file(trained.state_dict(), tmp_path / "w.safetensors", metadata={"classes": json.dumps(["a", "b"])})
    with pytest.raises(BadWeights, match="2 class names in the metadata, but 3 classes"):
        load_network(name, tmp_path / "w.safetensors")


def test_old_names_of_densenet() -> None:
    with torch.device("meta"):
        now = list(build("densenet121").state_dict())
    published = [re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key) for key in now]
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    assert [_OLD_DENSENET.sub(r"\1\2", key) for key in published] == now


@pytest.fixture
def published(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Published weights of squeezenet1_1 on a server of our own; the cache is empty."""
    trained = build("squeezenet1_1")
    address, folder = server
    torch.save(trained.state_dict(), folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()[:8]
    (folder / "w.pth").rename(folder / f"squeezenet1_1-{digest}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    point_at(monkeypatch, f"{address}/squeezenet1_1-{digest}.pth")
    return trained


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.value, "url", url)


def line_of_failure() -> str:
    with pytest.raises(BadWeights) as caught:
        load_network("squeezenet1_1")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_download_once_and_quietly(
    published: nn.Module, server: tuple[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = load_network("squeezenet1_1")
    assert weights_hash(first.model) == weights_hash(published)
    assert (first.weights, len(first.inputs.classes or ())) == ("pretrained", 1000)
    for served in server[1].iterdir():
        served.unlink()
    assert weights_hash(load_network("squeezenet1_1").model) == weights_hash(first.model), "not taken from the cache"
    assert len(list((tmp_path / "home/hub/checkpoints").iterdir())) == 1
    assert capfd.readouterr() == ("", "")


def test_download_of_something_else(published: nn.Module, server: tuple[str, Path], tmp_path: Path) -> None:
    for served in server[1].iterdir():
        served.write_bytes(served.read_bytes()[:-1] + b"x")
    line = line_of_failure()
    assert "the pretrained weights of squeezenet1_1 could not be downloaded (http://127.0.0.1" in line
    assert "invalid hash value" in line
    assert "--weights FILE or weights='file.safetensors'" in line
    assert list((tmp_path / "home/hub/checkpoints").iterdir()) == []


def test_download_from_nowhere(published: nn.Module, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point_at(monkeypatch, f"{server[0]}/absent-12345678.pth")
    assert "HTTP Error 404" in line_of_failure()
    point_at(monkeypatch, "http://127.0.0.1:9/w-12345678.pth")
    assert "Connection refused" in line_of_failure()
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    assert "Not a directory" in line_of_failure()


def test_damaged_cache(published: nn.Module, tmp_path: Path) -> None:
    load_network("squeezenet1_1")
    (cached,) = (tmp_path / "home/hub/checkpoints").iterdir()
    cached.write_bytes(cached.read_bytes()[:1000])
    assert "delete this file and the pretrained weights of squeezenet1_1 are downloaded again" in line_of_failure()


def test_unknown_names_list_near_ones(tmp_path: Path) -> None:
    for wrong, remark in {
        "vgg16bn": "near names: vgg16_bn, ",
        "squeezenet": "squeezenet1_0",
        "ResNet50": "near names: resnet50, ",
        "model.safetensors": "names a file of weights; say which network",
        "": f"; a name is {FORMS}",
        "fasterrcnn_resnet50_fpn": "unknown network",
    }.items():
        with pytest.raises(BadInput) as caught:
            load_network(wrong)
        assert remark in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match=r"got SqueezeNet; a network that exists already goes into convscope.Scope\(model, inputs\)"):
        load_network(build("squeezenet1_1"))  # pyright: ignore
    with pytest.raises(BadInput, match="weights: expected 'pretrained', 'random', the path of a weights file, or None, got dict"):
        load_network("squeezenet1_1", {})  # pyright: ignore


def test_real_weights_see_real_photographs(shared: Callable[[str], Path]) -> None:
    weights, photos = shared("weights/squeezenet1_0-imagenet.safetensors"), shared("images/imagenet-sample")
    loaded = load_network("squeezenet1_0", weights)
    assert isinstance(loaded.inputs, Inputs)
    paths = sorted(photos.iterdir())
    indices = torch.arange(0, 1000, 125)
    images = loaded.inputs.normalize(loaded.inputs.batch([paths[index] for index in indices]))
    with torch.no_grad():
        first_five = loaded.model.eval()(images).topk(5).indices
    assert (first_five == indices[:, None]).sum() >= 5
