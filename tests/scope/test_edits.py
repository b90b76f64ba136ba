"""Edits of a network's operations, and that they end with their block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import BadInput
from convscope.graph.operations import DIPS, RELUS
from convscope.scope import Inputs, Scope
from convscope.scope.edits import average_pooling, redirected_relu, replaced_value
from hand_built import built, draws

SPELLINGS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu by name": lambda values: F.relu(input=values),
    "F.relu in place": lambda values: F.relu(values, inplace=True),
    "torch.relu": torch.relu,
    "Tensor.relu": Tensor.relu,
    "torch.relu_": torch.relu_,
    "method": lambda values: values.relu_(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_redirected(spelling: str) -> None:
    relu = SPELLINGS[spelling]
    numbers = torch.tensor([[-1.0, -2.0, -3.0], [1.0, -2.0, 3.0]], requires_grad=True)
    with redirected_relu():
        out = relu(numbers * 1.0)
        (-out.sum()).backward()
    assert torch.equal(out, numbers.detach().clamp(min=0))
    # the first sample is blocked altogether, so it is pushed upward; the second is not, so its zero stays
    assert torch.equal(numbers.grad, torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 0.0, -1.0]]))


@pytest.mark.parametrize(
    "clip",
    [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, nn.Hardtanh(0, 6), lambda values: F.hardtanh(values, 0.0, 6.0), nn.Hardtanh(-2, 2)],
)
def test_relus_with_an_upper_bound_are_redirected(clip: Callable[[Tensor], Tensor]) -> None:
    # also tried: torch's clamp, which is left as it is, since images are clamped too; EfficientNet-Lite0, where 13 of 16 units were stuck
    numbers = torch.tensor([[-3.0, -4.0, -5.0], [7.0, 8.0, 9.0], [1.0, -4.0, 9.0]], requires_grad=True)
    weights = torch.tensor([[1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    with redirected_relu():
        out = clip(numbers * 1.0)
        (-(weights * out).sum()).backward()
    assert torch.equal(out, clip(numbers.detach().clone()))
    # all too low: what raises them passes; all too high: what lowers them; where one value is between, only its gradient passes
    assert torch.equal(numbers.grad, torch.tensor([[-1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]))


@pytest.mark.parametrize(
    "bent",
    [nn.SiLU(), nn.SiLU(inplace=True), F.silu, nn.GELU(), nn.GELU("tanh"), lambda values: F.gelu(values, approximate="tanh"),
     nn.Hardswish(), nn.Hardswish(inplace=True), nn.Mish(), F.mish],
)  # fmt: skip
def test_activations_that_fall_before_they_rise_are_redirected(bent: Callable[[Tensor], Tensor]) -> None:
    # also tried: EfficientNet-Lite0 with SiLU for one ReLU6: a stuck unit's value went from -0.1 to 13, another's from -0.3 to 2
    numbers = torch.tensor([[-2.0, -4.0, -5.0], [2.0, -4.0, 0.5]], requires_grad=True)
    weights = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    plain = numbers.detach().clone().requires_grad_()
    (-(weights * bent(plain * 1.0)).sum()).backward()
    with redirected_relu():
        out = bent(numbers * 1.0)
        (-(weights * out).sum()).backward()
    assert torch.equal(out, bent(numbers.detach().clone()))
    assert torch.equal(numbers.grad[0], torch.tensor([-1.0, 0.0, -1.0]))  # all left of the least value: what raises them passes
    assert torch.equal(numbers.grad[1], plain.grad[1] * torch.tensor([1.0, 0.0, 1.0]))  # else only what is right of it, with its slope


def test_the_gates_of_squeeze_and_excitation_are_redirected() -> None:
    numbers = torch.tensor([[-4.0, -5.0], [4.0, 5.0], [0.0, -5.0]], requires_grad=True)
    with redirected_relu():
        out = nn.Hardsigmoid()(numbers * 1.0)
        (-(torch.tensor([1.0, -1.0]) * out).sum()).backward()
    assert torch.equal(out, F.hardsigmoid(numbers.detach()))
    torch.testing.assert_close(numbers.grad, torch.tensor([[-1.0, 0.0], [0.0, 1.0], [-1 / 6, 0.0]]))


@pytest.mark.parametrize("name", DIPS)
def test_where_bent_activations_are_least(name: str) -> None:
    inputs = torch.linspace(-3, 0, 300_001, dtype=torch.float64)
    assert abs(float(inputs[getattr(F, name)(inputs).argmin()]) - DIPS[name]) < 1e-4


def test_only_what_pushes_upward_passes() -> None:
    numbers = torch.full((1, 2), -1.0, requires_grad=True)
    with redirected_relu():
        (F.relu(numbers) * torch.tensor([1.0, -1.0])).sum().backward()
    assert torch.equal(numbers.grad, torch.tensor([[0.0, -1.0]]))


def test_a_sample_is_judged_by_itself() -> None:
    numbers = draws(2, 3, 4, 4).sub(0.5)
    numbers[0] = -1
    plain = numbers.clone().requires_grad_()
    (-F.relu(plain).sum()).backward()
    numbers.requires_grad_()
    with redirected_relu():
        (-F.relu(numbers).sum()).backward()
    assert (numbers.grad[0] == -1).all() and torch.equal(numbers.grad[1], plain.grad[1])


def test_the_edit_ends_with_its_block() -> None:
    with pytest.raises(RuntimeError, match="inside"), redirected_relu():
        raise RuntimeError("inside")
    numbers = torch.full((1, 2), -1.0, requires_grad=True)
    (-F.relu(numbers).sum()).backward()
    assert (numbers.grad == 0).all()
    assert {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_} == RELUS


class Pools(nn.Module):
    """Max pooling in every spelling: module, function, ceil mode with padding, adaptive."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)

    def forward(self, values: Tensor) -> Tensor:
        values = F.max_pool2d(self.module(values), 2, stride=1)
        return F.adaptive_max_pool2d(torch.max_pool2d(values, 2), 2)


def test_average_pooling_takes_means_and_goes_away() -> None:
    network, values = Pools(), draws(2, 3, 21, 18)
    before = network(values)
    with average_pooling():
        averaged = network(values)
    slow = F.avg_pool2d(values, 3, 2, 1, ceil_mode=True, count_include_pad=False)
    slow = F.adaptive_avg_pool2d(F.avg_pool2d(F.avg_pool2d(slow, 2, 1), 2), 2)
    torch.testing.assert_close(averaged, slow, rtol=0, atol=0)
    assert averaged.shape == before.shape
    assert torch.equal(network(values), before)
    with average_pooling():  # border windows hold fewer pixels: a constant stays one
        torch.testing.assert_close(network(torch.ones(1, 1, 21, 18)), torch.ones(1, 1, 2, 2))


def test_average_pooling_refuses_what_has_no_mean() -> None:
    values = draws(1, 3, 9, 9)
    for call in (lambda: F.max_pool2d(values, 3, dilation=2), lambda: F.max_pool2d(values, 3, return_indices=True)):
        with average_pooling(), pytest.raises(BadInput, match="average pooling cannot"):
            call()


@pytest.mark.parametrize("call", [0, 1, 2])
def test_a_value_is_replaced_in_its_own_call_alone(call: int) -> None:
    model = built(lambda net, x: net.act(net.act(net.act(net.conv(x)) + 1) * 3), conv=lambda: nn.Conv2d(3, 4, 3), act=nn.ReLU)
    scope, images = Scope(model, Inputs(size=12), precision="float32"), draws(2, 3, 12, 12)
    value = torch.rand(2, 4, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    expected = [lambda: (value + 1) * 3, lambda: value * 3, lambda: value][call]()
    layer = scope.layers[f"act:{call}"]
    edit = replaced_value(layer, value)
    for _ in range(2):
        assert torch.equal(scope.run(images, "output", edit=edit)["output"], expected)
