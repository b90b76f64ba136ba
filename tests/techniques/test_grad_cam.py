"""Grad-CAM against a plain hook in float64 and Captum, with occlusion beside it, on networks that share no batch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
import torchvision
from torch import Tensor, nn

import convscope as cs
import hand_built
import promises
from convscope.errors import BadInput
from convscope.scope import Inputs, Scope
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: cs.grad_cam(s, promises.IMAGES[:2], layer="5"), "(result.at_image_size(), result.view().note)", forwards=2
)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "squeezenet1_1": (lambda: torchvision.models.squeezenet1_1(weights=None), "features.12"),
    "resnet18": (lambda: torchvision.models.resnet18(weights=None), "layer4"),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(weights=None), "features.12"),
    "densenet121": (lambda: torchvision.models.densenet121(weights=None), "features.denseblock3"),
    "convnext_tiny": (lambda: torchvision.models.convnext_tiny(weights=None), "features.5"),
}


def twin(model: nn.Module, layer: str, images: Tensor, targets: list[int]) -> np.ndarray:
    """relu(sum_k mean(dy/dA_k) A_k) by a hook, one image at a time, in float64: (n y x)."""
    model = copy.deepcopy(model).double().eval()
    found: list[np.ndarray] = []
    for image, target in zip(images, targets, strict=True):
        kept: list[Tensor] = []
        handle = model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, value, kept=kept: kept.append(value))
        logit = model(image[None].double())[0, target]
        handle.remove()
        slope = torch.autograd.grad(logit, kept[0])[0][0]
        weights = slope.sum((1, 2)) / (slope.shape[1] * slope.shape[2])
        found.append(sum(weight * maps for weight, maps in zip(weights, kept[0][0], strict=True)).clamp(min=0).detach().numpy())
    return np.stack(found)


@pytest.mark.parametrize("name", NETWORKS)
def test_against_a_plain_hook(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name][0]()
    for module in model.modules():  # in-place ReLUs would overwrite what the hook keeps
        if hasattr(module, "inplace"):
            module.inplace = False
    images = draws(2, 3, 64, 64)
    found = cs.grad_cam(Scope(model, Inputs(size=64), precision="float32"), images, layer=NETWORKS[name][1])
    known = twin(model, NETWORKS[name][1], images, list(found.targets))
    np.testing.assert_allclose(found.map, known, atol=2e-5 * max(known.max(), 1e-12))


@pytest.mark.parametrize("name", NETWORKS)
def test_against_captum(name: str) -> None:
    captum = pytest.importorskip("captum.attr", reason="Captum is in the extra `bench`")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name][0]().double().eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    images = draws(2, 3, 64, 64).double()
    found = cs.grad_cam(Scope(model, Inputs(size=64)), images, 3, layer=NETWORKS[name][1])
    layer = model.get_submodule(NETWORKS[name][1])
    known = captum.LayerGradCam(model, layer).attribute(images, 3, relu_attributions=True)[:, 0].detach().numpy()
    np.testing.assert_allclose(found.map, known, atol=1e-6 * known.max())


def test_targets_names_and_sign() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24, classes=[f"class {index}" for index in range(5)]), precision="float32")
    images = draws(3, 3, 24, 24)
    named, numbered = cs.grad_cam(scope, images, "class 2"), cs.grad_cam(scope, images, 2)
    assert named.targets == (2, 2, 2) and named.target_names[0] == "class 2" and (named.map == numbered.map).all()
    logits = scope.activations(images, "output")["output"]
    assert cs.grad_cam(scope, images).targets == tuple(logits.argmax(1).tolist())
    signed = cs.grad_cam(scope, images, 2, relu=False)
    assert signed.map.min() < 0 and (np.maximum(signed.map, 0) == named.map).all()
    assert named.layer == "5" and named.at_image_size().shape == (3, 24, 24) and np.isnan(named.agreement()).all()


def test_beside_occlusion() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24), precision="float32")
    images = draws(1, 3, 24, 24)
    found = cs.grad_cam(scope, images, 1, occlusion=True)
    drop = cs.occlusion(scope, images, 1).drop
    assert (found.drop == drop).all()
    known = scipy.stats.spearmanr(found.at_image_size().ravel(), drop.ravel()).statistic
    assert found.agreement() == pytest.approx([known]) and "rank agreement" in found.summary() and found.figure()


def test_the_summary_says_where_the_map_is_highest() -> None:
    found = cs.grad_cam(Scope(hand_built.small(), Inputs(size=24), precision="float32"), draws(1, 3, 24, 24), 1, relu=False)
    y, x = np.unravel_index(found.map[0].argmax(), found.map[0].shape)
    height, width = (24 / count for count in found.map.shape[1:])
    first, last = int(y * height), int((y + 1) * height) - 1
    expected = f"highest in rows {first}-{last}, columns {int(x * width)}-{int((x + 1) * width) - 1}"
    assert found.map.max() <= 0 or expected in found.summary()


def test_images_that_share_no_batch() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.maps(x)
            return self.head((maps - maps.mean(0)).relu().mean((2, 3)) + maps.mean((2, 3)))

    scope = Scope(Mixing(), Inputs(size=16))
    images = draws(3, 3, 16, 16)
    each = [cs.grad_cam(scope, image[None], 0, layer="maps").map[0] for image in images]
    assert (cs.grad_cam(scope, images, 0, layer="maps").map == np.stack(each)).all()


def test_refusals() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24))
    with pytest.raises(BadInput, match="has no maps"):
        cs.grad_cam(scope, draws(1, 3, 24, 24), layer="output")
    with pytest.raises(cs.ConvscopeError, match="class"):
        cs.grad_cam(scope, draws(1, 3, 24, 24), "heron")


def test_of_classes_that_tie_the_first_is_followed() -> None:
    """Class 0 is the image's red, class 1 its green, and both are half of it."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight[:], model[4].weight[:] = torch.eye(3)[:2, :, None, None], torch.eye(2)
    images = torch.zeros(1, 3, 8, 8)
    images[:, 0, :4], images[:, 1, 4:] = 1, 1
    found = cs.grad_cam(Scope(model, Inputs(size=8)), images, layer="1")
    assert found.targets == (0,) and found.map[0, :4].min() > 0 and not found.map[0, 4:].any()
