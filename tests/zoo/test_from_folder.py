from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import convscope
from convscope.errors import BadInput, BadWeights, NotInstalled
from convscope.zoo.by_name import load_network

transformers: Any = pytest.importorskip("transformers", reason="transformers is an optional dependency")
timm: Any = pytest.importorskip("timm", reason="timm is an optional dependency")
pytestmark = pytest.mark.filterwarnings("default")  # transformers' own

NAMED = {"id2label": {0: "ant", 1: "bee", 2: "cat"}, "label2id": {"ant": 0, "bee": 1, "cat": 2}}
CASES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "resnet": lambda: (
        transformers.ResNetForImageClassification(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **NAMED)
        ),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.8),
    ),
    "vit": lambda: (
        transformers.ViTForImageClassification(
            transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=64, **NAMED)
        ),
        transformers.ViTImageProcessor(size=64),
    ),
    "mobilenet_v2": lambda: (
        transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(depth_multiplier=0.35, **NAMED)),
        transformers.MobileNetV2ImageProcessor(size=80, crop_size={"height": 64, "width": 64}, image_mean=[0.1, 0.2, 0.3]),
    ),
    "mobilevit": lambda: (  # takes BGR
        transformers.MobileViTForImageClassification(
            transformers.MobileViTConfig(hidden_sizes=[16] * 3, neck_hidden_sizes=[8] * 7, num_attention_heads=2, image_size=64, **NAMED)
        ),
        transformers.MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
    ),
    "efficientnet": lambda: (  # divides by the deviation twice
        transformers.EfficientNetForImageClassification(
            transformers.EfficientNetConfig(width_coefficient=0.2, depth_coefficient=0.3, hidden_dim=256, **NAMED)
        ),
        transformers.EfficientNetImageProcessor(size={"height": 64, "width": 64}, rescale_factor=1 / 127.5, rescale_offset=True),
    ),
}


def saved(folder: Path, kind: str) -> tuple[Any, Any]:
    """A folder with a small classifier of transformers, its weights drawn so that its logits differ; and that classifier."""
    torch.manual_seed(3)
    model, processor = CASES[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.5 if parameter.ndim > 1 else 0.1) + (parameter.ndim == 1))
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def edit(folder: Path, file: str = "config.json", **changes: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def line_of(folder: Path, weights: str | None = "pretrained") -> str:
    with pytest.raises((BadInput, BadWeights)) as caught:
        load_network(f"hf:{folder}", weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def forked() -> Any:
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("kind", CASES)
def test_images_and_logits_are_those_of_transformers(kind: str, tmp_path: Path, photo: Image.Image) -> None:
    """Slow twin: transformers' own preprocessing and classifier."""
    model, processor = saved(tmp_path, kind)
    photo = photo.resize(
        (480, 320)
    )  # so that the border that is cut off has whole pixels: transformers rounds it down, torchvision does not
    scope = convscope.open(f"hf:{tmp_path}", device="cpu", fast=False)
    theirs = processor(photo, return_tensors="pt")["pixel_values"]
    ours = scope.inputs.normalize(scope.inputs(photo))[None]
    ours = ours.flip(1) if kind == "mobilevit" else ours
    assert ours.shape == theirs.shape and (ours - theirs).abs().mean() < 0.01 * (theirs.max() - theirs.min())
    with torch.no_grad():
        expected = model(ours).logits
    assert expected.std() > 0
    assert torch.allclose(scope.activations([photo], ["output"])["output"], expected, rtol=1e-4, atol=1e-6)
    assert scope.class_names == ("ant", "bee", "cat")


def test_preprocessing_that_cannot_be_said_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Squashed to 256x256, then cut to 64: Inputs keep the aspect ratio where they crop. Also tried: no resizing at all."""
    saved(tmp_path, "resnet")
    processor = transformers.DeiTImageProcessor(size={"height": 256, "width": 256}, crop_size={"height": 64, "width": 64})
    processor.save_pretrained(tmp_path)
    load_network(f"hf:{tmp_path}")
    assert "transformers shows the network another part of an image; here images are resized and cropped to 64x64" in caplog.text


def test_a_folder_of_timm(tmp_path: Path, photo: Image.Image) -> None:
    torch.manual_seed(0)
    made = timm.create_model("mobilenetv3_small_050", num_classes=3).eval()
    timm.models.save_for_hf(made, tmp_path, model_config={"label_names": ["ant", "bee", "cat"]})
    edit(tmp_path, model_args={"checkpoint_path": "/etc/passwd", "pretrained": True, "act_layer": "gelu", "global_pool": "max"})
    loaded = load_network(f"hf:{tmp_path}")
    images = loaded.inputs.normalize(loaded.inputs(photo))[None]
    with torch.no_grad():
        assert torch.equal(loaded.model.eval()(images), made(images))
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(made))(photo)
    assert torch.allclose(images[0], theirs, atol=1e-6)
    assert loaded.inputs.classes == ("ant", "bee", "cat")
    edit(tmp_path, architecture="mobilenetv3_small_05")
    assert "timm has no network 'mobilenetv3_small_05'; near names: mobilenetv3_small_050" in line_of(tmp_path)
    edit(tmp_path, architecture="mobilenetv3_small_050", num_classes=4)
    assert "do not fit" in line_of(tmp_path)


def test_nothing_in_a_folder_is_run(tmp_path: Path) -> None:
    """Also tried: an adapter_config.json, "_attn_implementation", "use_kernels", "timm_backbone" in config.json."""
    model, _ = saved(tmp_path, "resnet")
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil:\n    pass\n")
    code = {"AutoConfig": "evil.Evil", "AutoModelForImageClassification": "evil.Evil", "AutoImageProcessor": "evil.Evil"}
    edit(tmp_path, auto_map=code, attn_implementation="someone/kernels", quantization_config={"quant_method": "gptq"})
    edit(tmp_path, "preprocessor_config.json", auto_map=code)
    loaded = load_network(f"hf:{tmp_path}")
    assert isinstance(loaded.model, nn.Module) and not mark.exists() and "evil" not in sys.modules
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.state_dict().values(), model.state_dict().values(), strict=True))
    edit(tmp_path, "preprocessor_config.json", image_processor_type="Trainer")
    assert "transformers has no preprocessing 'Trainer'" in line_of(tmp_path)
    edit(tmp_path, architectures=["Trainer"])
    assert "Trainer is no image classifier of the type resnet, which has ResNetForImageClassification" in line_of(tmp_path)
    edit(tmp_path, model_type="llama")
    assert "transformers has no image classifier of the type 'llama'" in line_of(tmp_path)
    edit(tmp_path, model_type=["resnet"])
    assert "transformers has no image classifier of the type" in line_of(tmp_path)


def test_folders_that_make_no_classifier(tmp_path: Path) -> None:
    assert f"{tmp_path}/config.json: No such file or directory; expected a folder" in line_of(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    assert "config.json: expected an object, got list" in line_of(tmp_path, None)
    (tmp_path / "config.json").write_text("{")
    assert "expected a folder of a classifier" in line_of(tmp_path, None)
    saved(tmp_path, "resnet")
    edit(tmp_path, embedding_size="large")
    assert "config.json makes no classifier (" in line_of(tmp_path)
    edit(tmp_path, embedding_size=12)
    assert "of another shape (resnet.embedder" in line_of(tmp_path)
    edit(tmp_path, embedding_size=8, depths=[1, 2])
    assert "missing (resnet.encoder.stages.1" in line_of(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert f"{tmp_path} holds neither model.safetensors nor pytorch_model.bin" in line_of(tmp_path)
    assert load_network(f"hf:{tmp_path}", None).inputs.size == 64
    (tmp_path / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json: No such file" in line_of(tmp_path, None)


def test_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NotInstalled, match=r"needs transformers: pip install 'convscope\[transformers\]'"):
        load_network(f"hf:{tmp_path}", None)
