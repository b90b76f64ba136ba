"""Where convolutions can be read after their ReLU, and how kernels are read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hand_built
from convscope.errors import BadInput, LayerNotFound
from convscope.scope import Inputs, Scope


def after_relu(model: nn.Module, size: int = 24) -> list[str]:
    return Scope(model, Inputs(size=size)).layers.after_relu()


class Block(nn.Module):
    """A convolution with a functional ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images)), inplace=True)


def test_modules() -> None:
    assert after_relu(hand_built.small()) == ["2", "5"], "through the batch norm"
    assert after_relu(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.SiLU(), nn.Conv2d(4, 2, 1))) == ["2", "3"]


def test_a_sum_on_the_way_and_a_convolution_without_relu() -> None:
    assert after_relu(hand_built.seeded(hand_built.Residual)) == ["relu:0", "relu:1", "last"]


def test_a_functional_relu_is_read_where_its_block_ends() -> None:
    assert after_relu(nn.Sequential(Block(), nn.Conv2d(4, 2, 1))) == ["0", "1"]
    assert after_relu(hand_built.seeded(hand_built.Functional)) == ["norm", "head"], "no layer shows it: the value before"


@pytest.mark.parametrize(
    ("name", "count", "first"), [("resnet18", 17, "relu"), ("googlenet", 57, "conv1"), ("mobilenet_v2", 52, "features.0.2")]
)
def test_networks(name: str, count: int, first: str) -> None:
    scope = Scope(hand_built.torchvision_network(name), Inputs(size=64))
    found = scope.layers.after_relu()
    assert (len(found), found[0]) == (count, first) and len(set(found)) == count
    assert [scope.layers[each].position for each in found] == sorted(scope.layers[each].position for each in found)
    values = scope.activations(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), found)
    negative = [layer for layer in found if values[layer].min() < 0]
    assert all("BatchNorm" in scope.layers[layer].kind for layer in negative), "only linear bottlenecks have no ReLU"
    assert bool(negative) == (name == "mobilenet_v2")


@pytest.mark.parametrize(
    ("name", "last"), [("squeezenet1_1", "features.12"), ("googlenet", "inception5b"), ("resnet18", "layer4.1.relu:1")]
)
def test_the_last_maps_are_those_of_a_whole_layer(name: str, last: str) -> None:
    assert Scope(hand_built.torchvision_network(name), Inputs(size=64)).layers.last_maps() == last


def test_of_some_layers_those_that_make_up_the_last_maps() -> None:
    layers = Scope(hand_built.torchvision_network("squeezenet1_1"), Inputs(size=64)).layers
    halves = ["features.12.expand1x1_activation", "features.12.expand3x3_activation"]
    assert layers.last_with_maps(["features.1", *halves, "features.12", "classifier.2"]) == ["features.12"]
    assert layers.last_with_maps(["features.1", *halves, "classifier.2"]) == halves
    assert layers.last_with_maps(["features.1", "features.9.squeeze_activation", "classifier.2"]) == ["features.9.squeeze_activation"]
    assert layers.last_with_maps([]) == []
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4), nn.ReLU(), nn.Linear(4, 2))
    assert Scope(flat, Inputs(size=8)).layers.last_with_maps(["2"]) == []


def test_kernels() -> None:
    model = hand_built.small()
    scope = Scope(model, Inputs(size=24))
    weights = scope.weights_of("4")
    assert torch.equal(weights, model[4].weight) and weights.data_ptr() != model[4].weight.data_ptr() and not weights.requires_grad
    assert Scope(hand_built.small().to(torch.bfloat16), Inputs(size=24)).weights_of("0").dtype == torch.float32
    with pytest.raises(BadInput, match="layer 2 is a ReLU, which has no kernels to show; convolutions near it: 0, 4"):
        scope.weights_of("2")
    with pytest.raises(BadInput, match="convolutions in it: 0, 4"):
        scope.weights_of("output")
    with pytest.raises(BadInput, match="no convolution"):
        Scope(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), Inputs(size=8)).weights_of("1")
    with pytest.raises(LayerNotFound):
        scope.weights_of("conv9")
