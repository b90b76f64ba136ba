"""Passes that leave out what the wanted values do not need: fewer and smaller operations, the same values and derivatives."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.fast.fused import FusedConvolution
from convscope.fast.lean import lean_pass
from convscope.optimize.objectives import Objective, class_evidence, deepdream, neuron, unit
from convscope.scope import Inputs, Scope
from hand_built import draws, seeded, state_of, unsettle


class Shared(nn.Module):
    """A convolution used twice with different batch norms, one whose own value is read elsewhere, and one that is plain."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(4))
        self.read, self.plain = nn.Conv2d(3, 3, 3, bias=False), nn.Conv2d(3, 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        values = self.norms[1](self.twice(self.norms[0](self.twice(images)).relu())).relu()
        read = self.read(values)
        return self.norms[3](self.plain((self.norms[2](read) + read).relu())).mean((2, 3))


def normed() -> Scope:
    model = seeded(Shared).double()
    for number, norm in enumerate(model.norms):
        norm.running_mean.copy_(0.3 * draws(3, seed=number).double() - 0.1)
        norm.running_var.copy_(0.5 + draws(3, seed=10 + number).double())
        norm.weight.data.copy_(0.5 + draws(3, seed=20 + number).double())
        norm.bias.data.copy_(draws(3, seed=30 + number).double() - 0.5)
    return Scope(model, Inputs(12), name="shared")


@pytest.mark.parametrize("layer", ["output", "plain", "norms.3", "read", "norms.1"])
def test_a_lean_pass_changes_no_value_and_no_derivative(layer: str) -> None:
    scope, images = normed(), draws(2, 3, 12, 12).double()
    plain = images.clone().requires_grad_()
    before = scope.run(plain, layer)[layer]
    (gradient,) = torch.autograd.grad(before.square().sum(), plain)
    with scope.session(lean=True):
        after = scope.run(plain, layer)[layer]
        (again,) = torch.autograd.grad(after.square().sum(), plain)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(again, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layers", [["output"], ["norms.0", "twice:1", "read", "output"], ["norms.1", "plain", "norms.3"]])
def test_what_is_observed_in_a_lean_session_is_the_same(layers: list[str]) -> None:
    scope, images = normed(), draws(2, 3, 12, 12).double()

    def observed() -> dict[str, Tensor]:
        return scope.observe(images, layers, lambda _, value: value.clone())

    before = observed()
    with scope.session(lean=True):
        after = observed()
    for layer in layers:
        torch.testing.assert_close(after[layer], before[layer], rtol=1e-12, atol=1e-13)


def test_batch_norms_are_spared_until_the_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    scope, images = normed(), draws(1, 3, 12, 12).double()
    assert scope.layers
    calls: list[object] = []
    native = torch.batch_norm
    monkeypatch.setattr(torch, "batch_norm", lambda *arguments: (calls.append(arguments), native(*arguments))[1])

    def counted(lean: bool, layer: str) -> int:
        calls.clear()
        with scope.session(lean=lean):
            scope.run(images, layer)
        return len(calls)

    assert counted(True, "output") == 3  # all but the last, whose convolution is its own and read by nobody else
    assert counted(True, "plain") == 3
    assert counted(False, "output") == 4


def test_a_lean_pass_leaves_the_network_alone() -> None:
    scope = normed()
    unsettle(scope.model)
    before = state_of(scope.model)
    with scope.session(lean=True):
        scope.run(draws(1, 3, 12, 12).double(), "output")
    assert state_of(scope.model) == before


def test_passes_for_other_units_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds kernels of its own: half a gigabyte for VGG-16."""
    made: weakref.WeakSet[lean_pass] = weakref.WeakSet()

    def noted(*given: Any, **options: Any) -> lean_pass:
        one = lean_pass(*given, **options)
        made.add(one)
        return one

    monkeypatch.setattr("convscope.scope.scope.lean_pass", noted)
    scope = Scope(seeded(torchvision.models.squeezenet1_1), Inputs(64))
    alive: list[int] = []
    with scope.session(lean=True):
        for number in range(4):
            scope.run(draws(1, 3, 64, 64), "features.3", units={"features.3": [number]})
            alive.append(len(made))
    assert alive == [1, 1, 1, 1]


def compared(scope: Scope, objective: Objective, images: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and derivatives of a lean pass, after holding them against those of a plain one."""
    found: list[tuple[Tensor, Tensor]] = []
    for lean in (False, True):
        pictures = images.clone().requires_grad_()
        with scope.session(lean=lean):
            scores = objective(scope, pictures)
        found.append((scores.detach(), torch.autograd.grad(scores.sum(), pictures)[0]))
    (plain, slope), (lean_one, lean_slope) = found
    torch.testing.assert_close(lean_one, plain, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(lean_slope, slope, rtol=1e-10, atol=1e-12 * float(slope.abs().max()))
    assert slope.abs().max() > 0
    return found[1]


NETWORKS = {
    "vgg11_bn": ["features.0", "features.4", "features.5", "features.6", "features.7", "features.15", "output"],
    "alexnet": ["features.1", "features.2", "features.3", "features.10"],
    "squeezenet1_1": ["features.0", "features.2", "features.6", "output"],
    "resnet18": ["conv1", "bn1", "relu", "maxpool", "layer2.0.conv1", "layer2.0.bn1", "layer2.0.downsample.1", "layer3"],
    "densenet121": ["features.relu0", "features.denseblock1.denselayer2.conv1", "features.transition1.conv"],
    "mobilenet_v2": ["features.1.conv.0.0", "features.2.conv.0.2", "features.3"],
    "convnext_tiny": ["features.0.0", "features.1.0", "features.2.1"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_keep_their_values(name: str) -> None:
    scope = Scope(seeded(lambda: torchvision.models.get_model(name, weights=None)).double(), Inputs(96), name=name)
    images = draws(2, 3, 96, 80).double()
    for layer in NETWORKS[name]:
        compared(scope, unit(layer, [3, 20]), images)


class Ways(nn.Module):
    """Convolution, ReLU, pooling; a wide convolution; and a branch that reads a rectified map before its pooling."""

    def __init__(self, branch: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.branch = branch

    def forward(self, images: Tensor) -> Tensor:
        rectified = torch.relu(self.first(images))
        values = self.pool(rectified) if images.shape[-1] < 40 else F.avg_pool2d(rectified, 2)
        wide = self.second(values).relu()
        return wide.mean((2, 3)) + (rectified.mean((1, 2, 3))[:, None] if self.branch else 0)


class Counting(torch.overrides.TorchFunctionMode):
    """Counts the filters of convolutions and the widths of what ReLUs are applied to."""

    def __init__(self) -> None:
        super().__init__()
        self.filters: list[int] = []
        self.widths: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            self.filters.append(len(args[1]))
        if func in (torch.relu, F.relu, Tensor.relu):
            self.widths.append(args[0].shape[-1])
        return func(*args, **(kwargs or {}))


def counted(scope: Scope, objective: Objective, images: Tensor) -> Counting:
    assert scope.layers
    with scope.session(lean=True), Counting() as seen:
        objective(scope, images)
    return seen


def test_only_wanted_filters_are_run_and_only_pooled_values_rectified() -> None:
    scope, images = Scope(seeded(Ways).double(), Inputs(24)), draws(2, 3, 24, 24).double()
    seen = counted(scope, unit("second", [60, 7]), images)
    assert (seen.filters, seen.widths) == ([8, 16], [12]), "2 of 64 filters, in a block of 16; the ReLU after the pooling"
    assert counted(scope, unit("second", [60, 7]) + unit("second", [1, 2]), images).filters == [8, 16]
    assert counted(scope, unit("second", [60, 7]) - deepdream("second"), images).filters == [8, 64]
    assert counted(scope, unit("pool", [1, 7]), images).widths == [12]
    assert counted(scope, unit("second", list(range(2))) + unit("output", [0, 0]), images).filters == [8, 64], "others are needed later on"


def test_a_map_that_others_read_is_rectified_before_its_pooling() -> None:
    scope = Scope(seeded(lambda: Ways(branch=True)).double(), Inputs(24))
    images = draws(2, 3, 24, 24).double()
    assert counted(scope, unit("output", [0, 5]), images).widths == [24, 12]
    compared(scope, unit("output", [0, 5]), images)


def test_a_network_that_goes_another_way_than_recorded_keeps_its_values() -> None:
    scope = Scope(seeded(Ways).double(), Inputs(24))
    assert scope.layers  # recorded with max pooling; 48 pixels are pooled by their mean
    compared(scope, unit("second", [60, 7]), draws(2, 3, 48, 48).double() - 0.5)


class Elsewhere(nn.Module):
    """At the recorded size, a convolution, its ReLU and a pooling; at others, the ReLU's output goes to another function."""

    def __init__(self, other: Any) -> None:
        super().__init__()
        self.first, self.second, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, stride=2, padding=1), other

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] < 40:
            return self.second(F.max_pool2d(self.first(images).relu(), 2))
        return self.other(self, images)


OTHER_WAYS: dict[str, Any] = {
    "a convolution": lambda net, images: net.second(net.first(images).relu()),
    "a list": lambda net, images: torch.cat([net.first(images).relu(), images], 1),
    "a keyword": lambda net, images: F.softmax(input=net.first(images).relu(), dim=1),
    "without ReLU": lambda net, images: net.second(net.first(images)),
    "another ReLU": lambda net, images: net.second(net.first(images).relu().neg().relu() + net.first(images).relu().relu()),
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_a_postponed_relu_is_made_up_for_wherever_it_is_read(way: str) -> None:
    scope = Scope(seeded(lambda: Elsewhere(OTHER_WAYS[way])).double(), Inputs(24))
    images = draws(1, 3, 48, 48).double() - 0.5
    assert scope.layers
    plain = scope.run(images, "output")["output"]
    with scope.session(lean=True):
        torch.testing.assert_close(scope.run(images, "output")["output"], plain, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("activation", [nn.ELU(), nn.GELU(), nn.Sigmoid(), nn.Mish(inplace=True), nn.Softplus(), nn.LeakyReLU(0.1)])
def test_only_wanted_filters_are_run_before_any_activation(activation: nn.Module) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), activation)).double()
    scope, images = Scope(model, Inputs(24)), draws(2, 3, 24, 24).double()
    assert counted(scope, unit("2", [60, 7]), images).filters == [16]
    compared(scope, unit("2", [60, 7]), images)


def test_an_activation_with_slopes_for_each_channel_needs_all_filters() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 64, 3), nn.PReLU(64))).double()
    scope, images = Scope(model, Inputs(24)), draws(2, 3, 24, 24).double()
    assert counted(scope, unit("1", [60, 7]), images).filters == [64]
    compared(scope, unit("1", [60, 7]), images)


class Rectified(nn.Module):
    """Convolutions with a batch norm, without, grouped, and one that is rectified for pictures of the recorded size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=4, stride=2, bias=False), nn.BatchNorm2d(16)
        self.third, self.last = nn.Conv2d(16, 16, (3, 1), padding=(1, 0), dilation=(2, 1)), nn.Conv2d(16, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        values = F.relu(self.norm(self.second(self.first(images).relu())), inplace=True)
        values = self.third(values)
        values = values.relu() if images.shape[-1] < 40 else values.abs()
        return self.last(values).mean((2, 3))


def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[FusedConvolution]:
    """The convolutions that were run as one operation, call by call."""
    called: list[FusedConvolution] = []
    native = FusedConvolution.__call__
    monkeypatch.setattr(FusedConvolution, "__call__", lambda self, *given: (called.append(self), native(self, *given))[1])
    return called


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("side", [24, 48], ids=["as recorded", "another way"])
def test_convolutions_that_rectify_keep_values_and_derivatives(precision: str, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    called = fused_calls(monkeypatch)
    scope, exact = (Scope(seeded(Rectified), Inputs(24), precision=precision), Scope(seeded(Rectified).double(), Inputs(24)))
    assert scope.layers and exact.layers

    def run(one: Scope, *, lean: bool) -> list[Tensor]:
        pictures = draws(2, 3, side, side).to(one.dtype).requires_grad_()
        with one.session(lean=lean):
            scores = one.run(pictures, "last")["last"].square().mean((2, 3))
        return [scores.detach(), torch.autograd.grad(scores.sum(), pictures)[0]]

    for found, plain, truth in zip(run(scope, lean=True), run(scope, lean=False), run(exact, lean=False), strict=True):
        assert found.dtype == plain.dtype
        rounding = (plain - truth).norm() / truth.norm()
        assert (found - truth).norm() / truth.norm() < 1.5 * rounding + 1e-6
    fused = [len(one.kernels) for one in called if one.clip]
    if precision == "float32":
        assert fused == [16, 16], "the first convolution has its own way back"
    elif torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert fused == [16, 16, 16]


class Clipped(nn.Module):
    """Convolutions clipped as functions and modules can say it; one has other bounds for pictures of another size than the recorded one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16, bias=False), nn.BatchNorm2d(16)
        self.third, self.fourth, self.last = nn.Conv2d(16, 24, 1), nn.Conv2d(24, 16, 1, stride=2), nn.Conv2d(16, 8, 1)
        self.six, self.other = nn.ReLU6(), nn.Hardtanh(-0.2, 0.3, inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        values = F.relu6(self.norm(self.second(self.six(self.first(images)))))
        values = F.hardtanh(self.third(values), -0.1, 0.5 if images.shape[-1] < 40 else 0.05)
        return self.last(self.other(self.fourth(values))).mean((2, 3))


@pytest.mark.parametrize(("side", "expected"), [(24, [(0, 6), (-0.1, 0.5), (-0.2, 0.3)]), (48, None)], ids=["as recorded", "another way"])
def test_convolutions_that_clip_keep_values_and_derivatives(
    side: int, expected: list[tuple[float, float]] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = fused_calls(monkeypatch)
    scope = Scope(seeded(Clipped).double().float(), Inputs(24), precision="float32")
    assert scope.layers

    def run(*, lean: bool) -> list[Tensor]:
        pictures = (60 * draws(2, 3, side, side)).requires_grad_()
        with scope.session(lean=lean):
            scores = scope.run(pictures, "last")["last"].square().mean((2, 3))
        return [scores.detach(), torch.autograd.grad(scores.sum(), pictures)[0]]

    for found, plain in zip(run(lean=True), run(lean=False), strict=True):
        assert found.abs().max() > 0
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-7)
    if expected is not None:
        assert [one.clip for one in called if one.clip] == expected, "the first convolution has its own way back"


class Separable(nn.Module):
    """Depthwise and pointwise convolutions; what is done between them is as `way` says."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.point, self.last = nn.Conv2d(3, 16, 3, bias=False), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)
        self.norm = nn.BatchNorm2d(16)
        self.deep, self.wide = nn.Conv2d(16, 16, 3, stride=2, groups=16, bias=False), nn.Conv2d(16, 16, 5, groups=16, padding=2)
        self.rows = nn.Linear(16, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        large = pictures.shape[-1] > 25
        values = self.point(self.first(pictures))
        if large and self.way == "clipped after a change":
            values.neg_()
        elif large and self.way == "padded before clipping":
            values = F.pad(values, (1, 0, 0, 1))
        elif large and self.way == "asked without a derivative":
            with torch.no_grad():
                values.mean()
        values = F.pad(values.clamp(0, 0.3), (0, 1, 0, 1))
        values = self.wide(self.norm(self.deep(values)).relu()).relu()
        if self.way == "rows":
            return self.rows(self.point(values).view(len(values), 16, -1).mT)
        return self.last(values)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("side", [24, 25, 40])
@pytest.mark.parametrize("way", ["rows", "plain", "clipped after a change", "padded before clipping", "asked without a derivative"])
def test_separable_convolutions_keep_values_and_derivatives(way: str, side: int, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = fused_calls(monkeypatch)
    build = partial(Separable, way)
    scope, exact = Scope(seeded(build), Inputs(25), precision=precision), Scope(seeded(build).double(), Inputs(25))
    assert scope.layers and exact.layers

    def run(one: Scope, *, lean: bool) -> list[Tensor]:
        pictures = draws(2, 3, side, side).to(one.dtype).requires_grad_()
        found: list[Tensor] = []
        with one.session(lean=lean):
            for _ in range(2):  # the second time with what was prepared
                scores = one.run(pictures, "output")["output"].square().flatten(1).mean(1)
                found += [scores.detach(), torch.autograd.grad(scores.sum(), pictures)[0]]
        return found

    for found, plain, truth in zip(run(scope, lean=True), run(scope, lean=False), run(exact, lean=False), strict=True):
        rounding = (plain - truth).norm() / truth.norm()
        assert (found - truth).norm() / truth.norm() < 3 * rounding + 1e-6
    assert called


class Convolutions(TorchDispatchMode):
    """Counts convolutions by themselves."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


def test_no_convolution_is_run_twice() -> None:
    scope, pictures = Scope(seeded(Rectified), Inputs(24)), draws(2, 3, 24, 24).requires_grad_()
    assert scope.layers
    with scope.session(lean=True), Convolutions() as seen:
        scope.run(pictures, "last")
    assert seen.count == 1, "the first; the others rectify, and the last is pointwise"


def test_a_convolution_whose_own_value_is_wanted_does_not_rectify() -> None:
    scope, images = Scope(seeded(Rectified), Inputs(24)), draws(2, 3, 24, 24)
    names = ["first", "norm", "second", "third"]
    plain = scope.run(images, names)
    with scope.session(lean=True):
        found = scope.run(images, names)
    for name in names:
        assert plain[name].min() < 0
        torch.testing.assert_close(found[name], plain[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "objective",
    [
        unit("second", [60, 7]) - 0.3 * unit("second", [7, 12]),
        2.0 * neuron("second", [60, 7], 3, 4),
        unit("second", 5, reduce="center"),
        unit("second", [60, 7]) + unit("first", [3, 4]),
        unit("second", [60, 7]) - 0.1 * deepdream("second"),
        unit("output", [60, 7]) + class_evidence([60, 7]),
    ],
    ids=["two sets", "position", "centre", "two layers", "also as a whole", "classes"],
)
def test_objectives_keep_their_values(objective: Objective) -> None:
    compared(Scope(seeded(Ways).double(), Inputs(24)), objective, draws(2, 3, 24, 24).double())


def test_units_come_in_the_order_asked_for() -> None:
    scope, images = Scope(seeded(Ways).double(), Inputs(24)), draws(2, 3, 24, 24).double()
    whole = scope.run(images, "second")["second"]
    for lean in (False, True):
        with scope.session(lean=lean):
            torch.testing.assert_close(scope.run(images, "second", units={"second": [9, 2, 40]})["second"], whole[:, [9, 2, 40]])


def test_an_objective_on_a_whole_layer_must_not_name_units() -> None:
    scope, images = Scope(seeded(Ways).double(), Inputs(24)), draws(1, 3, 24, 24).double()
    wrong = Objective(frozenset(["second"]), lambda values, _: values["second"].mean((1, 2, 3)), {"second": frozenset([1])})
    with pytest.raises(KeyError, match="must not name units"):
        wrong(scope, images)
