"""Networks that rest on how values lie in memory, as ``x.view(-1, 400)`` of PyTorch's tutorials: images in the faster order broke them.

Also tried: squeeze and excitation, a shuffle of channels and attention by ``view``, heads of tokens, two images in one row of channels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
import hand_built
from convscope.scope import Inputs, Scope
from hand_built import built, draws

Layers = dict[str, Callable[[], nn.Module]]
CONVOLUTIONS: Layers = {"one": lambda: nn.Conv2d(3, 6, 5), "two": lambda: nn.Conv2d(6, 16, 5)}
TUTORIAL: Layers = {**CONVOLUTIONS, "pool": lambda: nn.MaxPool2d(2), "head": lambda: nn.Linear(400, 10)}
DIGITS: Layers = TUTORIAL | {"one": lambda: nn.Conv2d(1, 6, 5)}
WIDE: Layers = {
    "one": lambda: nn.Conv2d(3, 128, 3, padding=1),
    "two": lambda: nn.Conv2d(128, 256, 3, padding=1),
    "pool": nn.Identity,
    "head": lambda: nn.Linear(256 * 1024, 4),
}
"""Large enough for Winograd's convolution, whose result lies in the faster order whatever its input does."""


def maps(net: Any, images: Tensor) -> Tensor:
    return net.pool(F.relu(net.two(net.pool(F.relu(net.one(images))))))


def in_order(values: Tensor) -> Tensor:
    assert values.is_contiguous()
    return values.flatten(1)


IN_ORDER: dict[str, tuple[Layers, Callable[[Tensor], Tensor]]] = {
    "tutorial": (TUTORIAL, lambda values: values.view(-1, 400)),
    "digits": (DIGITS, lambda values: values.view(values.size(0), -1)),
    "strides": (TUTORIAL, lambda values: values.as_strided((len(values), 400), (400, 1))),
    "all that is there": (TUTORIAL, lambda values: values.view(-1).view(len(values), 400)),
    "asserted": (TUTORIAL, in_order),
    "large kernels": (WIDE, lambda values: values.view(len(values), -1)),
}


def scopes(kind: str) -> tuple[Scope, Scope]:
    """On a network of this kind, and on its twin that flattens its maps in whatever order they lie."""
    layers, flat = IN_ORDER[kind]
    models = [built(lambda net, x, last=last: net.head(last(maps(net, x))), **layers) for last in (flat, lambda values: values.flatten(1))]
    one, twin = (Scope(model, Inputs(size=32), precision="float32", name="views") for model in models)
    return one, twin


def gradient(scope: Scope, images: Tensor) -> Tensor:
    leaf = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    with scope.session(lean=True):
        scope.run(leaf, "output")["output"][:, 3].sum().backward()
    assert leaf.grad is not None
    return leaf.grad


QUICK: dict[str, Any] = {"recipe": "fourier", "size": 32, "steps": 3}
ASKED: dict[str, Callable[[Scope, Tensor], Any]] = {
    "gradient": lambda scope, images: gradient(scope, images),
    "inversion": lambda scope, images: cs.inversion(scope, "output", images, steps=2).images,
    "occlusion": lambda scope, images: cs.occlusion(scope, images, patch=8, stride=8).map,
    "observe": lambda scope, images: scope.observe(images, ["two", "output"], lambda _, value: value.clone())["output"],
    "deconvnet": lambda scope, images: cs.deconvnet(scope, "two", [1], images).projection,
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kind", IN_ORDER)
def test_values_are_those_of_the_twin(kind: str, asked: str) -> None:
    one, twin = scopes(kind)
    images = draws(2, one.inputs.channel_count, 32, 32)
    before = hand_built.state_of(one.model)
    found, expected = (np.asarray(ASKED[asked](scope, images)) for scope in (one, twin))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert hand_built.state_of(one.model) == before


@pytest.mark.parametrize("kind", IN_ORDER)
def test_images_are_made(kind: str) -> None:
    """Against the network itself: of nearly even images max pooling picks other pixels after other rounding, so twins drift apart."""
    one, _ = scopes(kind)
    made = cs.feature_visualization(one, "output", [0, 3], **QUICK)
    with torch.no_grad():
        expected = one.model.eval()(torch.from_numpy(made.images.copy()))[[0, 1], [0, 3]]
    np.testing.assert_allclose(made.scores, expected.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["tutorial", "digits"])
def test_scans(kind: str, tmp_path: Path) -> None:
    one, _ = scopes(kind)
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray((draws(40, 40, 3, seed=number).numpy() * 255).astype(np.uint8)).save(tmp_path / "images" / f"{number}.png")
    survey = cs.scan(one, tmp_path / "images", tmp_path / "survey", layers=["two"])
    seen = one.activations(tmp_path / "images", ["two", "output"])
    np.testing.assert_allclose(survey.maximum("output"), seen["output"].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(survey.maximum("two"), seen["two"].amax((2, 3)).numpy(), rtol=1e-4, atol=1e-5)


def test_bfloat16() -> None:
    layers, flat = IN_ORDER["tutorial"]
    scope = Scope(built(lambda net, x: net.head(flat(maps(net, x))), **layers), Inputs(size=32), precision="bfloat16")
    assert cs.feature_visualization(scope, "output", [0], **QUICK).images.shape == (1, 3, 32, 32)


def test_other_networks_keep_the_faster_order() -> None:
    def shuffled(net: Any, images: Tensor) -> Tensor:
        values = net.one(images)
        return values.view(len(values), 2, 3, *values.shape[2:]).transpose(1, 2).reshape(values.shape)

    scope, orders = Scope(built(shuffled, **CONVOLUTIONS), Inputs(size=32)), list[bool]()
    scope.layers["one"].module.register_forward_pre_hook(
        lambda _, given: orders.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    scope.observe(draws(2, 3, 32, 32), ["output"], lambda _, value: value)
    assert orders[-1]
