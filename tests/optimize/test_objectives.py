"""What is maximized: values by hand, arithmetic, and gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hand_built
from convscope.errors import BadInput
from convscope.optimize import objectives
from convscope.optimize.objectives import Objective
from convscope.scope import Inputs, Scope
from hand_built import draws


@pytest.fixture
def double() -> Scope:
    """The small network in double precision, smooth nearly everywhere."""
    return Scope(hand_built.small().double(), Inputs(size=12, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), precision="float32")


def pictures(count: int = 2) -> torch.Tensor:
    return draws(count, 3, 12, 12, dtype=torch.float64)


def test_a_unit(double: Scope) -> None:
    values = double.activations(pictures(), "4")["4"]
    for reduce, expected in (("mean", values[:, 3].mean((1, 2))), ("sum", values[:, 3].sum((1, 2))), ("center", values[:, 3, 3, 3])):
        torch.testing.assert_close(objectives.unit("4", 3, reduce=reduce)(double, pictures()), expected)
    each = objectives.unit("4", [3, 5])(double, pictures())
    torch.testing.assert_close(each, torch.stack([values[0, 3].mean(), values[1, 5].mean()]))
    logits = double.activations(pictures(), "output")["output"]
    assert torch.equal(objectives.unit("output", 2)(double, pictures()), logits[:, 2])
    with pytest.raises(BadInput, match="reduce must be mean, sum or center, got 'max'"):
        objectives.unit("4", 3, reduce="max")


def test_a_neuron_is_y_down_x_right(double: Scope) -> None:
    values = double.activations(pictures(), "4")["4"]
    assert torch.equal(objectives.neuron("4", 3, y=1, x=4)(double, pictures()), values[:, 3, 1, 4])


def test_a_direction(double: Scope) -> None:
    values, along = double.activations(pictures(), "4")["4"], draws(8, seed=3, dtype=torch.float64)
    dot = (values * along.view(1, 8, 1, 1)).sum(1)
    torch.testing.assert_close(objectives.direction("4", along)(double, pictures()), dot.mean((1, 2)))
    cosine = dot / (values.square().sum(1).sqrt() * along.square().sum().sqrt() + 1e-6)
    expected = (dot * cosine.clamp(min=0.1) ** 2).mean((1, 2))
    torch.testing.assert_close(objectives.direction("4", along, cosine_power=2)(double, pictures()), expected)
    one = torch.eye(8, dtype=torch.float64)[3]
    torch.testing.assert_close(objectives.direction("4", one)(double, pictures()), objectives.unit("4", 3)(double, pictures()))


def test_evidence_is_log_odds(double: Scope) -> None:
    logits = double.activations(pictures(), "output")["output"]
    share = logits.softmax(1)[:, 2]
    torch.testing.assert_close(objectives.class_evidence(2)(double, pictures()), (share / (1 - share)).log())
    each = objectives.class_evidence([2, 0])(double, pictures())
    share = torch.stack([logits.softmax(1)[0, 2], logits.softmax(1)[1, 0]])
    torch.testing.assert_close(each, (share / (1 - share)).log())


def test_deepdream(double: Scope) -> None:
    values = double.activations(pictures(), "4")["4"]
    torch.testing.assert_close(objectives.deepdream("4")(double, pictures()), (values**2).mean((1, 2, 3)))


def test_penalties_by_hand(double: Scope) -> None:
    images = pictures(1)
    slow = sum(
        abs(float(images[0, c, y, x] - images[0, c, y + dy, x + dx]))
        for c in range(3)
        for y in range(12)
        for x in range(12)
        for dy, dx in ((0, 1), (1, 0))
        if y + dy < 12 and x + dx < 12
    )
    assert float(objectives.total_variation()(double, images)) == pytest.approx(slow)
    assert float(objectives.norm(3, 0.25)(double, images)) == pytest.approx(float((images - 0.25).abs().pow(3).mean()))
    before = double.forwards
    objectives.norm()(double, images)
    assert double.forwards == before, "a penalty on pixels runs no network"


def test_diversity(double: Scope) -> None:
    diverse = objectives.diversity("4")
    one = pictures(1)
    assert torch.allclose(diverse(double, torch.cat([one, one, one])), -torch.ones(3, dtype=torch.float64))
    values = double.activations(pictures(3), "4")["4"].flatten(2)
    grams = [value @ value.T / (value @ value.T).norm() for value in values]
    expected = [-sum(float((grams[a] * grams[b]).sum()) for b in range(3) if b != a) / 2 for a in range(3)]
    assert diverse(double, pictures(3)).tolist() == pytest.approx(expected)
    assert float(diverse(double, one)) == 0


def test_arithmetic(double: Scope) -> None:
    images = pictures()
    a, b = objectives.unit("4", 3), objectives.total_variation()
    first, second = a(double, images), b(double, images)
    for made, expected in (
        (a + b, first + second),
        (a - b, first - second),
        (a - 0.1 * b, first - 0.1 * second),
        (b * 2, second * 2),
        (-a, -first),
        (a + 1, first + 1),
        (1 + a, first + 1),
        (a - 1, first - 1),
        (1 - a, 1 - first),
        (sum([a, b]), first + second),
        (objectives.unit("4", 3) + objectives.unit("2", 1), first + objectives.unit("2", 1)(double, images)),
    ):
        assert isinstance(made, Objective)
        torch.testing.assert_close(made(double, images), expected)
    assert (a + objectives.deepdream("2") - b).layers == {"4", "2"}


def test_one_pass_for_many_layers(double: Scope) -> None:
    _ = double.layers
    before = double.forwards
    (objectives.unit("4", 3) + objectives.unit("2", 1) - objectives.deepdream("1"))(double, pictures())
    assert double.forwards == before + 1


def smooth_scope() -> Scope:
    model = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(20, 4)))
    return Scope(model.double(), Inputs(size=6), precision="float32")


@pytest.mark.parametrize(
    "objective",
    [
        objectives.unit("2", 1),
        objectives.unit("2", [1, 0], reduce="sum"),
        objectives.unit("output", 3),
        objectives.neuron("2", 1, 0, 1),
        objectives.direction("2", torch.arange(1.0, 6.0), cosine_power=2),
        objectives.class_evidence(1),
        objectives.deepdream("2"),
        objectives.total_variation(),
        objectives.norm(),
        objectives.norm(4, 0.3),
        objectives.diversity("2"),
    ],
    ids=["mean", "sum", "logit", "neuron", "direction", "evidence", "deepdream", "tv", "norm2", "norm4", "diversity"],
)
def test_gradients_by_finite_differences(objective: Objective) -> None:
    scope, images = smooth_scope(), draws(2, 3, 6, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: objective(scope, values), images, eps=1e-6, atol=1e-6)


def test_channels_last_layers_count_units_on_their_own_axis() -> None:
    model = hand_built.torchvision_network("convnext_tiny")
    scope, images = Scope(model, Inputs(size=32)), draws(1, 3, 32, 32)
    value = scope.activations(images, "features.1.0.block.3")["features.1.0.block.3"]
    torch.testing.assert_close(objectives.unit("features.1.0.block.3", 7)(scope, images), value[..., 7].mean((1, 2)))
