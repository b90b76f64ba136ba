"""Vector-Jacobian products from a layer to the image, and the ReLU rules of deconvnet and guided backpropagation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hand_built
from convscope.errors import BadInput, LayerNotFound
from convscope.scope import Inputs, Scope
from convscope.scope.edits import RULES, relu_rule
from hand_built import draws

NUMBERS = torch.tensor([-2.0, -0.5, 0.5, 2.0, 7.0])
BACK = torch.tensor([3.0, -4.0, 5.0, -6.0, 7.0])
PASSED = {"gradient": [0.0, 0.0, 5.0, -6.0, 7.0], "deconvnet": [3.0, 0.0, 5.0, 0.0, 7.0], "guided": [0.0, 0.0, 5.0, 0.0, 7.0]}
"""What comes out of a ReLU when `BACK` comes back to it."""


def used(relu: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    """An operation in place whose result is not looked at."""

    def call(values: Tensor) -> Tensor:
        relu(values)
        return values

    return call


SPELLINGS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu by name": lambda values: F.relu(input=values),
    "F.relu in place": used(lambda values: F.relu(values, inplace=True)),
    "F.relu in place by position": used(lambda values: F.relu(values, True)),
    "F.relu_": used(F.relu_),
    "torch.relu": torch.relu,
    "torch.relu_": used(torch.relu_),
    "Tensor.relu": Tensor.relu,
    "Tensor.relu_": used(Tensor.relu_),
    "clamp": lambda values: values.clamp(min=0),
    "clamp by position": lambda values: torch.clamp(values, 0),
    "clamp_": used(lambda values: values.clamp_(0.0)),
    "clip": lambda values: torch.clip(values, min=0.0),
    "clamp_min": lambda values: values.clamp_min(0),
    "clamp_min_": used(lambda values: torch.clamp_min_(values, 0)),
}


def passed(relu: Callable[[Tensor], Tensor], rule: str) -> list[float]:
    numbers = NUMBERS.clone().requires_grad_()
    with relu_rule(rule):
        out = relu(numbers * 1.0)
        assert torch.equal(out, relu(NUMBERS.clone())), "on the way forward nothing changes"
    out.backward(BACK)
    return numbers.grad.tolist()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_relu(spelling: str, rule: str) -> None:
    assert passed(SPELLINGS[spelling], rule) == PASSED[rule]


@pytest.mark.parametrize("spelling", ["module", "in place", "F.relu6", "hardtanh", "hardtanh by name", "hardtanh_", "clamp"])
def test_with_an_upper_bound(spelling: str) -> None:
    relu6 = {
        "module": nn.ReLU6(),
        "in place": nn.ReLU6(inplace=True),
        "F.relu6": F.relu6,
        "hardtanh": lambda values: F.hardtanh(values, 0, 6),
        "hardtanh by name": nn.Hardtanh(0.0, 6.0),
        "hardtanh_": used(lambda values: F.hardtanh_(values, 0.0, 6.0)),
        "clamp": lambda values: values.clamp(0, 6),
    }[spelling]
    assert passed(relu6, "gradient") == [0.0, 0.0, 5.0, -6.0, 0.0]
    assert passed(relu6, "deconvnet") == [3.0, 0.0, 5.0, 0.0, 7.0]
    assert passed(relu6, "guided") == [0.0, 0.0, 5.0, 0.0, 0.0], "closed at the upper bound"


@pytest.mark.parametrize("rule", RULES)
def test_other_clamps_are_no_relus(rule: str) -> None:
    assert passed(lambda values: values.clamp(max=3), rule) == [3.0, -4.0, 5.0, -6.0, 0.0]
    assert passed(lambda values: values.clamp(min=-1), rule) == [0.0, -4.0, 5.0, -6.0, 7.0]
    assert passed(lambda values: values.clamp(min=torch.zeros(5)), rule) == PASSED["gradient"]


UNDEFINED = {
    "gelu": nn.GELU(),
    "silu": F.silu,
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(inplace=True),
    "hardsigmoid": nn.Hardsigmoid(),
    "sigmoid": nn.Sigmoid(),
    "sigmoid as a method": lambda values: values * values.sigmoid(),
    "tanh": torch.tanh,
    "leaky_relu": nn.LeakyReLU(0.1, inplace=True),
    "elu": nn.ELU(),
    "selu": F.selu,
    "celu": F.celu,
    "prelu": nn.PReLU().requires_grad_(False),
    "softplus": F.softplus,
    "hardtanh": nn.Hardtanh(),
    "threshold": nn.Threshold(0.1, 0.0),
    "softmax": nn.Softmax(1),
    "log_softmax": lambda values: values.log_softmax(1),
    "glu": nn.GLU(1),
    "multi_head_attention_forward": lambda values: nn.MultiheadAttention(4, 1).requires_grad_(False)(
        *[values.flatten(2).permute(2, 0, 1)] * 3
    )[0],
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_what_the_rules_do_not_cover_is_refused(name: str) -> None:
    called = UNDEFINED[name]
    values = draws(1, 4, 3, 3).requires_grad_()
    for rule in ("deconvnet", "guided"):
        with (
            pytest.raises(BadInput, match=f"rule '{rule}' is about ReLUs, but before the layer the network calls {name.split()[0]};"),
            relu_rule(rule),
        ):
            called(values * 1)
    with relu_rule("gradient"):
        called(values * 1)
    with relu_rule("deconvnet"):
        called(values.detach().clone())  # what does not depend on the picture does not concern the rule


def test_unknown_rules() -> None:
    with pytest.raises(BadInput, match="rule must be one of deconvnet, guided, gradient, got 'relu'"):
        relu_rule("relu")


def derivative(scope: Scope, images: Tensor, layer: str, cotangent: Tensor, edit: AbstractContextManager[object] | None = None) -> Tensor:
    """The vector-Jacobian product for one cotangent."""
    return scope.vector_jacobian(images, layer, edit=edit)[1](cotangent[None])[0]


def test_the_way_back_is_the_derivative(scope: Scope, small: nn.Module) -> None:
    images, cotangents = draws(3, 3, 24, 24), draws(3, 8, 12, 12, seed=1).sub(0.5)
    pictures = images.clone().requires_grad_()
    (scope.run(pictures, "4")["4"] * cotangents).sum().backward()
    torch.testing.assert_close(derivative(scope, images, "4", cotangents), pictures.grad, rtol=1e-5, atol=1e-7)
    before = scope.forwards
    value, pull = scope.vector_jacobian(images, "4")
    assert not value.requires_grad and torch.equal(value, scope.activations(images, "4")["4"])
    many = pull(torch.stack([cotangents, -2 * cotangents]))
    torch.testing.assert_close(many, torch.stack([pictures.grad, -2 * pictures.grad]), rtol=1e-5, atol=1e-6)
    assert torch.equal(pull(cotangents[None]), pull(cotangents[None])), "as often as one likes"
    assert scope.forwards == before + 2
    assert not any(parameter.grad is not None for parameter in small.parameters())


def test_ambient_modes_do_not_reach_in(scope: Scope) -> None:
    images, cotangents = draws(1, 3, 24, 24), draws(1, 8, 12, 12)
    expected = derivative(scope, images, "4", cotangents)
    with torch.no_grad():
        assert torch.equal(derivative(scope, images, "4", cotangents), expected)
    with torch.inference_mode():
        assert torch.equal(derivative(scope, images, "4", cotangents), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(derivative(scope, images, "4", cotangents), expected)


class Stubborn(torch.autograd.Function):
    """Twice its input; its derivative looks at a number, which cannot be done for many cotangents at once."""

    @staticmethod
    def forward(ctx, values):  # type: ignore[no-untyped-def]
        return values * 2

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient * (2 if gradient.sum().item() < 1e9 else 0)


class Own(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return Stubborn.apply(values)


def test_derivatives_that_cannot_be_batched() -> None:
    scope = Scope(nn.Sequential(hand_built.linear_conv(), Own()), Inputs(size=8))
    images = draws(2, 3, 8, 8)
    cotangents = draws(3, 2, 4, 6, 6)
    _, pull = scope.vector_jacobian(images, "1")
    _, plain = scope.vector_jacobian(images, "0")
    torch.testing.assert_close(pull(cotangents), 2 * plain(cotangents))


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(torch.ones(len(images), 2)) + images.mean()


def test_no_way_back() -> None:
    scope = Scope(Constant(), Inputs(size=8))
    with pytest.raises(BadInput, match="layer inner: its value does not depend differentiably on the image"):
        derivative(scope, draws(1, 3, 8, 8), "inner", torch.ones(1, 2))
    with pytest.raises(LayerNotFound):
        derivative(scope, draws(1, 3, 8, 8), "outer", torch.ones(1, 2))


class InPlace(nn.Module):
    """Works on its input and on its values in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        images.mul_(2.0)
        values = self.conv(images)
        F.relu_(values)
        return values


@pytest.mark.parametrize("rule", RULES)
def test_networks_that_work_in_place(rule: str) -> None:
    model = hand_built.seeded(InPlace).double()
    scope = Scope(model, Inputs(size=8))
    images, cotangents = draws(2, 3, 8, 8, dtype=torch.float64), draws(2, 4, 6, 6, seed=1, dtype=torch.float64) - 0.5
    f = model.conv(images * 2).detach()
    r = {"gradient": cotangents * (f > 0), "deconvnet": cotangents.clamp(min=0), "guided": cotangents.clamp(min=0) * (f > 0)}[rule]
    expected = 2 * F.conv_transpose2d(r, model.conv.weight.detach())
    torch.testing.assert_close(derivative(scope, images, "output", cotangents, edit=relu_rule(rule)), expected)
    raw = derivative(scope, images, "conv", cotangents, edit=relu_rule(rule))
    torch.testing.assert_close(
        raw, 2 * F.conv_transpose2d(cotangents, model.conv.weight.detach()), msg="the value before it is overwritten"
    )
