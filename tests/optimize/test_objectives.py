"""What is maximized: values by hand, arithmetic, and gradients by finite differences."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hand_built
from convscope.errors import BadInput
from convscope.optimize import objectives
from convscope.optimize.objective import Objective, grouped, relative
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


# --- names and descriptions

VECTOR = torch.arange(1.0, 9.0)
EVERY = [
    (objectives.unit("4", 3), 'unit("4", 3)'),
    (objectives.unit("4", 3, reduce="sum"), 'unit("4", 3, reduce="sum")'),
    (objectives.neuron("4", 3), 'neuron("4", 3)'),
    (objectives.neuron("4", 3, 1, 4), 'neuron("4", 3, 1, 4)'),
    (objectives.neuron("4", 3, x=4), 'neuron("4", 3, x=4)'),
    (objectives.direction("4", VECTOR, cosine_power=2), 'direction("4", <8 values>, cosine_power=2)'),
    (objectives.direction("4", VECTOR.double() / 3), 'direction("4", <8 values>)'),
    (objectives.direction("4", (VECTOR / 3).numpy()), 'direction("4", <8 values>)'),
    (objectives.direction("4", [0.1] * 8), f'direction("4", {[0.1] * 8})'),
    (objectives.class_evidence(2), "class_evidence(2)"),
    (objectives.deepdream("2"), 'deepdream("2")'),
    (objectives.diversity("2"), 'diversity("2")'),
    (objectives.norm(4, 0.3), "norm(4, 0.3)"),
    (objectives.natural_norm() + objectives.natural_variation(1.0), "natural_norm() + natural_variation(1.0)"),
    (objectives.power_norm(), "power_norm()"),
    (objectives.unit("4", 3) - 0.1 * objectives.total_variation(), 'unit("4", 3) - 0.1*total_variation()'),
    (-objectives.unit("4", 3) + 1, '-unit("4", 3) + 1'),
    (1 - objectives.unit("4", 3), '1 - unit("4", 3)'),
    (0.5 * (objectives.unit("4", 3) + objectives.deepdream("2")), '0.5*(unit("4", 3) + deepdream("2"))'),
    (
        objectives.unit("4", 3) + 2 * relative(objectives.diversity("2"), objectives.unit("4", 3)),
        'unit("4", 3) + 2*|unit("4", 3)|*diversity("2")',
    ),
    (objectives.norm() - (objectives.norm(4) - objectives.deepdream("2") * 2), 'norm() - (norm(4) - 2*deepdream("2"))'),
]


@pytest.mark.parametrize(("objective", "text"), EVERY, ids=[text for _, text in EVERY])
def test_made_again_from_its_description(double: Scope, objective: Objective, text: str) -> None:
    assert str(objective) == repr(objective) == text and objective.named
    described = json.loads(json.dumps(objective.describe(), allow_nan=False))
    again = objectives.from_description(described)
    assert again.describe() == objective.describe() and again.layers == objective.layers and again.units == objective.units
    images = draws(3, 3, 12, 12, dtype=torch.float64)
    assert torch.equal(again(double, images), objective(double, images))


def test_own_objectives() -> None:
    def brightness(_values: Mapping[str, Tensor], images: Tensor) -> Tensor:
        return images.flatten(1).mean(1)

    @objectives.named
    def warmth(amount: float, color: int = 0) -> Objective:
        return Objective(frozenset(), lambda _, images: amount * images[:, color].flatten(1).mean(1), independent=True)

    own, made = Objective(frozenset(), brightness), warmth(2.0)
    assert (str(own), str(made), str(made - own)) == ("brightness()", "warmth(2.0)", "warmth(2.0) - brightness()")
    assert own.named and made.independent and made.describe() == {"name": "warmth", "parameters": {"amount": 2.0, "color": 0}}
    for each in (own, made, made - 0.1 * own):
        with pytest.raises(BadInput, match="is none of convscope's own, so it cannot be made again") as caught:
            objectives.from_description(each.describe())
        assert "\n" not in str(caught.value)


def test_a_lambda_says_that_it_has_no_name() -> None:
    bare = Objective(frozenset(), lambda _, images: images.flatten(1).mean(1))
    mixed = objectives.unit("4", 3) - 0.1 * bare
    assert not bare.named and not mixed.named and str(mixed) == 'unit("4", 3) - 0.1*an objective without a name'
    for each in (bare, mixed):
        assert " at 0x" not in json.dumps(each.describe())
        with pytest.raises(BadInput, match=r"the objective has no name \(a lambda\)"):
            objectives.from_description(each.describe())


def test_a_long_vector_is_described_by_its_hash() -> None:
    described = objectives.direction("4", torch.ones(2**14 + 1)).describe()
    assert set(described["parameters"]["vector"]) == {"dtype", "shape", "sha256"} and len(json.dumps(described)) < 300
    assert described == objectives.direction("4", torch.ones(2**14 + 1)).describe()
    assert described != objectives.direction("4", torch.arange(2**14 + 1.0)).describe()
    with pytest.raises(BadInput, match=r"only a hash of a vector of \[16385\] values: pass the objective itself"):
        objectives.from_description(described)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({}, "expected the description of an objective"),
        ([1], "expected the description of an objective"),
        ({"name": "unit"}, "expected the description of an objective"),
        ({"name": "unit", "parameters": {"layer": "4"}}, "objective unit: .*missing"),
        ({"name": "unit", "parameters": {"layer": "4", "units": 1, "weights": 2}}, "objective unit: .*unexpected"),
        ({"name": "sum", "parameters": {}}, "description of the objective sum is damaged"),
        ({"name": "multiple", "parameters": {"factor": "x", "objective": {}}}, "description of the objective multiple is damaged"),
        ({"name": "direction", "parameters": {"layer": "4", "vector": {"dtype": "O", "shape": [1], "base64": "AAAA"}}}, "damaged"),
        ({"name": "os.system", "parameters": {"layer": "4"}}, "is none of convscope's own"),
    ],
    ids=str,
)
def test_damaged_descriptions(description: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        objectives.from_description(description)


def test_built_by_name(double: Scope) -> None:
    made = objectives.build("neuron", {"layer": "4", "units": 3, "y": 1, "x": 4})
    assert torch.equal(made(double, pictures()), objectives.neuron("4", 3, 1, 4)(double, pictures()))
    with pytest.raises(BadInput, match=r"no built-in objective 'channel'; there are: unit, neuron, direction"):
        objectives.build("channel", {})


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (lambda: objectives.neuron("4", 3, y=9, x=0), r"has a map of 6x6 here, so no position y=9, x=0"),
        (lambda: objectives.neuron("4", 3, y=-1), r"no position y=-1, x=3"),
        (lambda: objectives.neuron("output", 3), "layer output has no maps, so no position"),
        (lambda: objectives.direction("4", torch.ones(5)), "the vector has 5 values, but layer 4 has 8 units"),
        (lambda: objectives.direction("4", torch.ones(2, 4)), r"expected finite values \(c,\)"),
        (lambda: objectives.direction("4", [1.0, float("nan")]), r"expected finite values \(c,\)"),
    ],
)
def test_objectives_that_make_no_sense(double: Scope, objective: Callable[[], Objective], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        objective()(double, pictures())


def test_groups_do_not_see_each_other(double: Scope) -> None:
    """The score of a group has no gradient with respect to the images of another one, whatever the objective does."""
    alike = Objective(frozenset(["4"]), lambda values, _: values["4"].flatten(1).mean(1) * values["4"].mean())
    images = draws(6, 3, 12, 12, dtype=torch.float64).requires_grad_()
    for objective in (alike, objectives.diversity("4"), objectives.unit("4", 3) + alike):
        scores = grouped([objective] * 3, 2)(double, images)
        (gradient,) = torch.autograd.grad(scores[2:4].sum(), images)
        assert gradient[2:4].abs().amax((1, 2, 3)).min() > 0 and gradient[[0, 1, 4, 5]].abs().max() == 0
        assert torch.equal(scores[4:], objective(double, images[4:]))
    each = grouped([objectives.unit("4", 3), objectives.neuron("4", 1), objectives.deepdream("2")], 2)(double, images)
    torch.testing.assert_close(each[:2], objectives.unit("4", 3)(double, images[:2]))
    torch.testing.assert_close(each[2:4], objectives.neuron("4", 1)(double, images[2:4]))
    torch.testing.assert_close(each[4:], objectives.deepdream("2")(double, images[4:]))
    assert not grouped([objectives.unit("4", 3), objectives.unit("4", 5)], 1).units["4"] - {3, 5}
    with pytest.raises(BadInput, match=r"gave \(\), expected one score per image, \(2,\)"):
        grouped([Objective(frozenset(), lambda _, images: images.mean())] * 3, 2)(double, images)
