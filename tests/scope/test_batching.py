"""Which axis counts the images, and networks that must be run on one image at a time."""

from __future__ import annotations

import copy
import logging
import pickle
import random
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
import hand_built
import networks
from convscope.errors import BadInput
from convscope.scope import Inputs, Scope
from hand_built import built, draws

SIDE = 24


def conv(stride: int = 1) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(3, 16, 3, stride=stride)


def opened(model: nn.Module, **more: Any) -> Scope:
    return Scope(model, Inputs(size=SIDE), precision="float32", **more)


def generator_states() -> list[bytes]:
    numpy: Any = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().numpy().tobytes(), numpy[1].tobytes() + str(numpy[2:]).encode(), str(random.getstate()).encode()]


# --- the axis that counts images (also tried: channels-last images first, images last, a head of several tokens)


def test_tokens_before_images() -> None:
    def forward(net: Any, images: Tensor) -> Tensor:
        return net.head(net.encoder(net.conv(images).flatten(2).permute(2, 0, 1)).mean(0))

    model = built(forward, conv=conv(3), encoder=lambda: nn.TransformerEncoderLayer(16, 2, 32), head=lambda: nn.Linear(16, 5))
    scope, images = opened(model), draws(3, 3, SIDE, SIDE)
    layer = scope.layers["encoder"]
    assert layer.shape == (64, 16) and layer.channels == 16 and layer.spatial == (8, 8) and layer.batch_axis == 1
    with torch.no_grad():
        twin = model.encoder(model.conv(images).flatten(2).permute(2, 0, 1))
    found = scope.activations(images, ["encoder", "conv", "output"])
    rounding = {"rtol": 0, "atol": 1e-6}  # 4.8e-7 on a processor with AVX512, nothing on others
    torch.testing.assert_close(found["encoder"], twin.movedim(1, 0), **rounding)
    assert found["conv"].shape == (3, 16, 8, 8)
    assert not scope.one_at_a_time
    one = scope.run(images, "encoder", channels_first=True, units={"encoder": [3, 1]})["encoder"]
    torch.testing.assert_close(one, twin.permute(1, 2, 0)[:, [3, 1]].unflatten(2, (8, 8)), **rounding)
    leaf = images.clone().requires_grad_()
    scope.activations(leaf, "encoder")["encoder"][1].sum().backward()
    assert leaf.grad is not None and [bool(grad.any()) for grad in leaf.grad] == [False, True, False]


@pytest.mark.parametrize(
    ("order", "shape", "spatial"),
    [((2, 3, 0, 1), (22, 20, 16), (22, 20)), ((1, 2, 3, 0), (16, 22, 20), (22, 20)), ((2, 0, 3, 1), (22, 20, 16), (22, 20))],
)
def test_maps_with_images_elsewhere(order: tuple[int, ...], shape: tuple[int, ...], spatial: tuple[int, ...]) -> None:
    def forward(net: Any, images: Tensor) -> Tensor:
        return net.same(net.conv(images).permute(order)).mean([axis for axis in range(4) if order[axis] > 1])

    scope = Scope(built(forward, conv=conv(), same=nn.ReLU), Inputs(size=(24, 22)), precision="float32")
    layer, images = scope.layers["same"], draws(2, 3, 24, 22)
    assert layer.shape == shape and layer.spatial == spatial and layer.channels == 16
    maps = scope.run(images, ["conv", "same"], channels_first=True)
    assert torch.equal(maps["same"], maps["conv"].relu())
    assert scope.graph.field(layer.node or 0, 0).size == 3
    grid = cs.activation_grid(scope, images, "same")
    assert np.array_equal(grid.maps[0], maps["same"].numpy())


def test_a_layer_without_an_axis_of_images_is_refused_by_name() -> None:
    def forward(net: Any, images: Tensor) -> Tensor:
        windows = net.conv(images).unfold(2, 11, 11).flatten(2, 3).transpose(1, 2).flatten(0, 1)  # images and windows in one axis
        table = net.table(torch.ones(1, 4))
        return net.merged(windows).reshape(len(images), -1).mean(1, keepdim=True) + net.pooled(net.conv(images)).mean((2, 3)) + table

    model = built(forward, conv=conv(), merged=nn.ReLU, pooled=nn.ReLU, table=lambda: nn.Linear(4, 16))
    scope, images = opened(model), draws(2, 3, SIDE, SIDE)
    for name in ("merged", "table"):
        assert name in scope.layers and name in repr(scope.layers)
        with pytest.raises(BadInput, match=f"layer {name} .*no axis of its value counts the images"):
            scope.activations(images, name)
    assert not scope.one_at_a_time
    assert torch.equal(scope.activations(images, "output")["output"], model(images))
    assert scope.layers.after_relu() == ["pooled"] or "merged" not in scope.layers.after_relu()


# --- images that influence each other (also tried: softmax, cdist and ranks over the batch, medians, attention between images, minibatch
# deviation, batch norm as a function in training, a branch that the batch's mean decides). Not found: what begins at a larger batch.

MIXING: dict[str, Callable[[Any, Tensor], Any]] = {
    "mean": lambda net, x: net.head((v := net.conv(x).relu()).mean((2, 3)) - v.mean((0, 2, 3))),
    "first": lambda net, x: net.head((v := net.conv(x).mean((2, 3))) + v[:1]),
    "last": lambda net, x: net.head((v := net.conv(x).mean((2, 3))) - v[-1:]),
    "least contrast": lambda net, x: net.head((v := net.conv(x)).mean((2, 3)) / v.flatten(1).std(1).min()),
    "least brightness": lambda net, x: net.head(net.conv(x / x.flatten(1).mean(1).min()).mean((2, 3))),
    "least range": lambda net, x: net.head(net.conv(x / (x.amax((1, 2, 3)) - x.amin((1, 2, 3))).min()).mean((2, 3))),
    "sum so far": lambda net, x: net.head(net.conv(x).mean((2, 3)).cumsum(0)),
    "number": lambda net, x: net.head(net.conv(x).mean((2, 3)) / len(x)),
    "joined": lambda net, x: net.head(net.conv(x).mean((2, 3)).mean(0, keepdim=True)),
    "fixed": lambda net, x: net.head(net.conv(x).view(1, 16, -1).mean(2)),
    "other way": lambda net, x: net.head(v if len(v := net.conv(x).mean((2, 3))) > 1 else net.scale(v)),
    "largest": lambda net, x: net.head((v := net.conv(x).relu()).mean((2, 3)) / v.amax()),
    "range of pixels": lambda net, x: net.head(net.conv((x - x.min()) / (x.max() - x.min())).mean((2, 3))),
    "steps of one scale": lambda net, x: net.head(((v := net.conv(x).mean((2, 3))) / (s := v.abs().max() / 127)).round() * s),
    "least": lambda net, x: net.head(((v := net.conv(x)) - v.min()).sigmoid().mean((2, 3))),
    "loop": lambda net, x: torch.cat([net.head(net.conv(one[None]).mean((2, 3))) for one in x]),
}


@pytest.mark.parametrize("kind", MIXING)
def test_images_have_the_values_that_they_have_alone(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model = built(MIXING[kind], conv=conv(), scale=lambda: nn.Linear(16, 16), head=lambda: nn.Linear(16, 5))
    scope, images = opened(model, name=kind), draws(4, 3, SIDE, SIDE)
    with caplog.at_level(logging.WARNING, "convscope"):
        found = scope.activations(images, ["conv", "head", "output"])
        Scope(model, Inputs(size=SIDE)).activations(images, "output")
    assert [record.getMessage() for record in caplog.records] == [f"{kind}: images are run one at a time: {scope.one_at_a_time}"]
    with torch.no_grad():
        alone = torch.cat([model(one[None]) for one in images])
    assert torch.equal(found["output"], alone) and torch.equal(found["head"], alone) and found["conv"].shape == (4, 16, 22, 22)
    assert torch.equal(scope.activations(images[2:], "output", batch_size=1)["output"], alone[2:])
    seen = scope.observe(images, ["conv", "output"], lambda layer, value: (layer.name, value.clone()))
    assert seen["output"][0] == "output" and torch.allclose(seen["output"][1], alone, rtol=1e-5, atol=1e-6)
    leaf = images.clone().requires_grad_()
    (scope.activations(leaf, "output")["output"] * torch.arange(20.0).view(4, 5)).sum().backward()
    twin = images[2:3].clone().requires_grad_()
    (model(twin) * torch.arange(10.0, 15.0)).sum().backward()
    assert leaf.grad is not None and twin.grad is not None and torch.allclose(leaf.grad[2:3], twin.grad, rtol=1e-5, atol=1e-7)


def test_a_unit_s_image_does_not_depend_on_its_batch() -> None:
    for kind in ("mixing", "drawing"):
        scope = opened(networks.UNUSUAL[kind]())
        call = {"recipe": "fourier", "size": SIDE, "steps": 3}
        both = cs.feature_visualization(scope, "4", [0, 3], **call)  # type: ignore[arg-type]
        alone = cs.feature_visualization(scope, "4", [3], **call)  # type: ignore[arg-type]
        assert (both.images[1] == alone.images[0]).all()


def test_rounding_that_a_network_magnifies_is_no_influence() -> None:
    """As the gates of deep networks with random weights do: efficientnet_b7 and efficientnet_v2_l of torchvision, at 32 and 64 px."""

    def forward(net: Any, x: Tensor) -> Tensor:
        values = net.conv(x) * (1 + 2e-7 * len(x))
        return net.gate(1e5 * (values - values.mean((1, 2, 3), keepdim=True)))

    assert not opened(built(forward, conv=conv(), gate=nn.Sigmoid)).one_at_a_time


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_ordinary_networks_take_batches(name: str) -> None:
    scope = Scope(hand_built.torchvision_network(name), Inputs(size=64))
    assert not scope.one_at_a_time and all(layer.batch_axis == 0 for layer in scope.layers.values())
    before = scope.forwards
    scope.activations(draws(3, 3, 64, 64), "output")
    assert scope.forwards == before + 1


# --- draws (also tried: rrelu in training, torch.randn_like, gumbel_softmax, stochastic depth, alpha and feature dropout, dropout in
# attention, multinomial, shuffles, draws of 1e-6, generators of every kind with seeds of -2**63 and 2**63 - 1)

GLOBAL = np.random.default_rng(4)


class Holder:
    """An object that is no module."""

    def __init__(self) -> None:
        self.drawn = {"of": [random.Random(5)]}

    def __call__(self, values: Tensor) -> Tensor:
        return values * (1 + self.drawn["of"][0].random())


def closed(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    return lambda values: values * (1 + torch.rand(1, generator=generator, dtype=torch.float32, device="cpu"))


class Own(nn.Module):
    """Draws from a generator that it holds."""

    def __init__(self, make: Callable[[], Any], draw: Callable[[Any], float]) -> None:
        super().__init__()
        self.generator, self.draw = make(), draw

    def forward(self, values: Tensor) -> Tensor:
        return values * (1 + self.draw(self.generator))


class Keeping(nn.Identity):
    """Keeps functions and objects in a list."""

    def __init__(self, *kept: Any) -> None:
        super().__init__()
        self.kept = [*kept]


DRAWING: dict[str, Callable[[Any, Tensor], Any]] = {
    "dropout": lambda net, x: net.head(F.dropout(net.conv(x), 0.5, training=True).mean((2, 3))),
    "noise": lambda net, x: net.head(net.conv(x + torch.randn_like(x)).mean((2, 3))),
    "numpy": lambda net, x: net.head(net.conv(x).mean((2, 3)) * float(np.random.rand())),  # noqa: NPY002
    "python": lambda net, x: net.head(net.conv(x).mean((2, 3)) * random.random()),
    "own torch": lambda net, x: net.torch(net.head(net.conv(x).mean((2, 3)))),
    "own numpy": lambda net, x: net.numpy(net.head(net.conv(x).mean((2, 3)))),
    "a global": lambda net, x: net.head(net.conv(x).mean((2, 3)) * float(sum(GLOBAL.random() for _ in range(2)))),
    "a closure": lambda net, x: net.closed.kept[0](net.head(net.conv(x).mean((2, 3)))),
    "in an object": lambda net, x: net.closed.kept[1](net.head(net.conv(x).mean((2, 3)))),
}


def drawing(kind: str) -> nn.Module:
    return built(
        DRAWING[kind],
        conv=conv(),
        head=lambda: nn.Linear(16, 5),
        torch=lambda: Own(lambda: torch.Generator().manual_seed(3), lambda own: float(torch.rand(1, generator=own))),
        numpy=lambda: Own(lambda: np.random.default_rng(3), lambda own: float(own.random())),
        closed=lambda: Keeping(closed(torch.Generator().manual_seed(3)), Holder()),
    )


@pytest.mark.parametrize("kind", DRAWING)
def test_draws_come_from_the_seed(kind: str) -> None:
    model = drawing(kind)
    scope, images = opened(model), draws(3, 3, SIDE, SIDE)
    before = generator_states(), model.torch.generator.get_state(), model.numpy.generator.bit_generator.state, GLOBAL.bit_generator.state
    held = model.closed.kept[1].drawn["of"][0].getstate()
    assert scope.one_at_a_time == "it draws at random in evaluation mode"
    first = scope.activations(images, "output")["output"]
    assert generator_states() == before[0]
    assert torch.equal(model.torch.generator.get_state(), before[1]) and model.numpy.generator.bit_generator.state == before[2]
    assert GLOBAL.bit_generator.state == before[3] and model.closed.kept[1].drawn["of"][0].getstate() == held
    torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
    assert torch.equal(scope.activations(images, "output")["output"], first)
    assert torch.equal(opened(drawing(kind)).activations(images[1:2], "output")["output"], first[1:2])
    with scope.session(lean=True):
        leaf = images.clone().requires_grad_()
        assert torch.equal(scope.activations(leaf, "output")["output"], first)
    with scope.session(seed=1):
        assert not torch.equal(scope.activations(images, "output")["output"], first)


def test_a_technique_s_seed_is_that_of_the_draws() -> None:
    scope, images = opened(drawing("dropout")), draws(2, 3, SIDE, SIDE)
    call = {"recipe": "fourier", "size": SIDE, "steps": 3}
    one, same, other = (cs.feature_visualization(scope, "head", [0], seed=seed, **call) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert (one.images == same.images).all() and (one.scores == same.scores).all()
    shown = torch.tensor(one.images)
    with scope.session(seed=0):
        value = float(scope.activations(shown, "head")["head"][0, 0])
    with scope.session(seed=1):
        assert float(scope.activations(shown, "head")["head"][0, 0]) != value
    assert abs(value - float(one.scores[0])) < 1e-5 and float(other.scores[0]) != float(one.scores[0])
    hidden = cs.occlusion(scope, images[:1], 0, patch=6, stride=6, score="logit")
    boxed = images[:1].clone()
    y0, x0, y1, x1 = hidden.boxes[1, 2]
    boxed[..., y0:y1, x0:x1] = 0.5
    assert abs(float(scope.activations(boxed, "head")["head"][0, 0]) - float(hidden.map[0, 1, 2])) < 1e-5, "the same draws with and without"


def test_generators_are_put_back_after_an_exception() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        torch.rand(1)
        return net.stop(net.conv(x))

    failing = hand_built.Raises()
    scope = opened(built(forward, conv=conv(), stop=lambda: failing))
    _ = scope.layers
    before, failing.fail = generator_states(), KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        scope.activations(draws(1, 3, SIDE, SIDE), "output")
    assert generator_states() == before


def test_a_network_that_is_another_each_time_says_so() -> None:
    def counting(net: Any, x: Tensor) -> Tensor:
        net.count = getattr(net, "count", 0) + 1
        return net.conv(x) * net.count

    def of_the_system(net: Any, x: Tensor) -> Tensor:
        return net.conv(x) * (1 + secrets.SystemRandom().random()) * (1 + secrets.randbelow(1000))

    for forward in (counting, of_the_system):
        assert opened(built(forward, conv=conv())).one_at_a_time == "its values are others each time it runs"


# --- the network as it is now (also tried: half precision, a new head, a new parameter)


def test_a_cast_network_is_noticed() -> None:
    model, images = (
        nn.Sequential(hand_built.linear_conv()[0], nn.Flatten(), nn.Linear(4 * 22 * 22, 5)),
        draws(2, 3, 24, 24, dtype=torch.float64),
    )
    scope = opened(model)
    assert scope.activations(images, "output")["output"].dtype == torch.float32
    model.double()
    found = scope.activations(images, "output")["output"]
    assert found.dtype == torch.float64 and torch.equal(found, copy.deepcopy(model).eval()(images))


def test_a_swapped_layer_is_noticed() -> None:
    model, images = hand_built.small(), draws(2, 3, SIDE, SIDE)
    scope = opened(model)
    assert scope.layers["output"].channels == 5
    model[8] = hand_built.seeded(lambda: nn.Linear(8, 9))
    assert scope.layers["output"].channels == 9 and scope.layers["8"].module is model[8]
    assert torch.equal(scope.activations(images, "output")["output"], copy.deepcopy(model).eval()(images))
    model[5] = nn.Tanh()
    assert scope.layers["5"].kind == "Tanh"
    model[4].weight = nn.Parameter(model[4].weight.detach() * 2)
    before = scope.forwards
    assert torch.equal(scope.activations(images, "4")["4"], copy.deepcopy(model).eval()[:5](images)) and scope.forwards == before + 2
    with torch.no_grad():
        model[4].weight *= 2  # training goes on: the same tensor with other values
    assert scope.activations(images, "4")["4"].shape == (2, 8, 12, 12) and scope.forwards == before + 3


@pytest.mark.parametrize(
    ("layer", "setting", "value"), [("1", "eps", 0.5), ("3", "stride", 1), ("4", "dilation", (2, 2)), ("4", "padding", (0, 0))]
)
def test_a_changed_setting_is_noticed(layer: str, setting: str, value: Any) -> None:
    """As stride and dilation are changed for larger maps; also tried: a slope, ceil_mode, momentum (nothing changes), an upsampling."""
    model, images = hand_built.small(), draws(2, 3, SIDE, SIDE)
    scope = opened(model)
    known = scope.bounds(["5"]), repr(scope.layers)
    setattr(model.get_submodule(layer), setting, value)
    fresh = opened(model)
    assert (scope.bounds(["5"]).keys(), repr(scope.layers)) == (fresh.bounds(["5"]).keys(), repr(fresh.layers))
    assert str(scope.bounds(["5"])) == str(fresh.bounds(["5"])) and (str(scope.bounds(["5"])), repr(scope.layers)) != (
        str(known[0]),
        known[1],
    )
    leaf = images.clone().requires_grad_()
    with scope.session(lean=True):
        found = scope.run(leaf, "5")["5"]
    torch.testing.assert_close(found, copy.deepcopy(model).eval()[:6](images), rtol=1e-4, atol=1e-5)


def test_the_forwards_on_two_images_happen_once() -> None:
    runs: list[int] = []
    model = hand_built.small()
    model[0].register_forward_pre_hook(lambda _module, arguments: runs.append(len(arguments[0])))
    scope = opened(model)
    _ = scope.layers, scope.graph, scope.layers
    assert runs == [1, 2, 2]
    _ = Scope(model, Inputs(size=32)).layers, scope.at((16, 16)).layers, scope.at((SIDE, SIDE)).layers
    assert runs == [1, 2, 2, 1, 1]


def test_a_scope_pickles() -> None:
    scope, images = Scope(hand_built.small(), Inputs(size=SIDE), name="small"), draws(2, 3, SIDE, SIDE)
    expected = scope.activations(images, "output")["output"]
    for back in (pickle.loads(pickle.dumps(scope)), copy.deepcopy(scope)):
        assert back.name == "small" and torch.equal(back.activations(images, "output")["output"], expected)
