"""Every convolutional network of torchvision: what the waist says of it is what plain hooks see, and it is left as it was."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from convscope.scope import Inputs, Scope
from hand_built import draws, state_of, torchvision_network, unsettle
from networks import CONVOLUTIONAL

SIDES = {"inception_v3": 80, "alexnet": 64, "squeezenet1_0": 48, "squeezenet1_1": 48}
GIANTS = frozenset(
    [
        "convnext_base",
        "convnext_large",
        "efficientnet_b7",
        "efficientnet_v2_l",
        "regnet_x_32gf",
        "regnet_y_16gf",
        "regnet_y_32gf",
        "regnet_y_128gf",
        "resnext101_64x4d",
        "resnext101_32x8d",
        "vgg13",
        "vgg13_bn",
        "vgg16",
        "vgg16_bn",
        "vgg19",
        "vgg19_bn",
        "wide_resnet101_2",
        "densenet161",
        "densenet201",
        "efficientnet_b5",
        "efficientnet_b6",
        "regnet_x_16gf",
        "resnet152",
    ]
)
QUICK = [name for name in CONVOLUTIONAL if name not in GIANTS]


def reference(model: nn.Module, images: Tensor) -> tuple[list[str], list[str], dict[str, Tensor], list[str]]:
    """By plain hooks: layers in the order in which they return, modules in the order in which they begin, convolutions, their values.

    Names carry the number of the call.
    """
    names = {module: name or "output" for name, module in model.named_modules()}
    returned: list[str] = []
    begun: list[str] = []
    values: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()
    starts: Counter[str] = Counter()

    def begin(module: nn.Module, _arguments: object) -> None:
        begun.append(f"{names[module]}:{starts[names[module]]}")
        starts[names[module]] += 1

    def keep(module: nn.Module, _arguments: object, output: object) -> None:
        name = f"{names[module]}:{calls[names[module]]}"
        calls[names[module]] += 1
        if isinstance(output, Tensor):
            returned.append(name)
            if isinstance(module, nn.Conv2d):
                values[name] = output.clone()

    model.eval()
    handles = [module.register_forward_pre_hook(begin) for module in names]
    handles += [module.register_forward_hook(keep) for module in names]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()

    def plain(name: str) -> str:
        return name if calls[name.rpartition(":")[0]] > 1 else name.rpartition(":")[0]

    return [plain(name) for name in returned], begun, {plain(name): value for name, value in values.items()}, [*map(plain, values)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CONVOLUTIONAL])
def test_network(name: str) -> None:
    side = SIDES.get(name, 32)
    inputs = Inputs(size=side, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    model = torchvision_network(name)
    images = draws(2, 3, side, side, seed=1)
    order, begun, expected, convolutions = reference(model, inputs.normalize(images))
    unsettle(model)
    before = state_of(model)

    scope = Scope(model, inputs, precision="float32")
    assert list(scope.layers) == order, "layers are not in call order"
    assert list(scope.layers.of_kind("Conv2d")) == convolutions
    assert all(scope.layers[layer].shape == tuple(value.shape[1:]) for layer, value in expected.items())

    scope.forwards = 0
    found = scope.activations(images, convolutions)
    assert list(found) == convolutions
    assert scope.forwards == 1
    for layer, value in expected.items():
        assert torch.isfinite(value).all() and value.std() > 0, f"the test's own weights are no good at {layer}"
        assert torch.equal(found[layer], value), layer

    middle = convolutions[len(convolutions) // 2]
    called: list[str] = []
    count: Counter[str] = Counter()
    names = {module: path or "output" for path, module in model.named_modules()}

    def begin(module: nn.Module, _arguments: object) -> None:
        called.append(f"{names[module]}:{count[names[module]]}")
        count[names[module]] += 1

    handles = [module.register_forward_pre_hook(begin) for module in names]
    assert torch.equal(scope.activations(images, middle)[middle], expected[middle])
    for handle in handles:
        handle.remove()
    layer = scope.layers[middle]
    last = f"{names[layer.module]}:{layer.call}"
    assert called == begun[: begun.index(last) + 1], "modules ran that the layer does not need, or in another order"
    assert scope.forwards == 2
    assert state_of(model) == before


def test_the_quick_ones_cover_every_family() -> None:
    def family(name: str) -> str:
        return name.rstrip("0123456789").split("_")[0].rstrip("0123456789") or name

    assert {family(name) for name in CONVOLUTIONAL} == {family(name) for name in QUICK}
