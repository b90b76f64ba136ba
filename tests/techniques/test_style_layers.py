"""The layers at which styles are compared, found by depth."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

import hand_built
from convscope.errors import BadInput
from convscope.scope import Inputs, Scope
from convscope.techniques.style_layers import layer_after, style_depths, trunk

RELUS = {
    "vgg16": ["features.1", "features.6", "features.11", "features.18", "features.25"],
    "vgg19": ["features.1", "features.6", "features.11", "features.20", "features.29"],
    "vgg16_bn": ["features.2", "features.9", "features.16", "features.26", "features.36"],
    "squeezenet1_0": ["features.1", "features.3", "features.7", "features.9", "features.12"],
    "resnet18": ["relu", "layer1.0", "layer2.0", "layer3.0", "layer4.0"],
    "resnet50": ["relu", "layer1.0", "layer2.0", "layer3.0", "layer4.0"],
}
CONTENT = {
    "vgg16": ["features.8", "features.20"],
    "vgg19": ["features.8", "features.22"],
    "vgg16_bn": ["features.12", "features.29"],
    "squeezenet1_0": ["features.4", "features.10"],
    "resnet18": ["layer1.1", "layer3.1"],
    "resnet50": ["layer1.1", "layer3.1"],
}
"""relu2_2 and relu4_2 of VGG, and what corresponds to them."""


def network(name: str) -> nn.Module:
    """A network of torchvision; VGG without its large matrices."""
    if not name.startswith("vgg"):
        return hand_built.torchvision_network(name)
    with hand_built.Uninitialized():
        convolutions = make_layers(cfgs["D" if "16" in name else "E"], batch_norm=name.endswith("bn"))
    return nn.Sequential(
        OrderedDict(features=convolutions, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), last=nn.Linear(512, 10))
    ).apply(zero)


def zero(module: nn.Module) -> None:
    """What was not initialized may hold anything."""
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)


@pytest.mark.parametrize("name", RELUS)
def test_depths(name: str) -> None:
    layers = Scope(network(name), Inputs(size=64)).layers
    assert style_depths(layers) == RELUS[name]
    assert [layer_after(layers, style_depths(layers), depth) for depth in (2, 4)] == CONTENT[name]


def test_small_networks() -> None:
    layers = Scope(hand_built.small(), Inputs(size=24)).layers
    assert style_depths(layers) == ["2", "5"] and layer_after(layers, ["2", "5"], 4) == "5"
    assert [layer.name for layer in trunk(layers)] == ["2", "5"]
    flat = Scope(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), Inputs(size=8))
    with pytest.raises(BadInput, match="has rectified maps"):
        style_depths(flat.layers)
