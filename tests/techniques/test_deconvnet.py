"""Deconvnet: a slow twin, identities, Captum, networks of all kinds, refusals, the figure."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import convscope
import hand_built
import promises
from convscope import render
from convscope.errors import BadInput, LayerNotFound, UnitNotFound
from convscope.render.panels import Group, Image
from convscope.results.deconvnet import on_grey
from convscope.scope import Inputs, Scope
from convscope.scope.edits import RULES
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: convscope.deconvnet(s, "5", [0, 1], promises.IMAGES[:2]),
    "result.view().subtitle",
    forwards=2,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def rectified(r: Tensor, f: Tensor, rule: str) -> Tensor:
    """METHODS: gradient R 1[f>0], deconvnet R 1[R>0], guided R 1[f>0] 1[R>0]."""
    return {"gradient": r * (f > 0), "deconvnet": r * (r > 0), "guided": r * (f > 0) * (r > 0)}[rule]


class Everything(nn.Module):
    """Stride, dilation, groups, left-over columns, overlapping pooling, batch norm, a shared ReLU, a sum, a concatenation, averages."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.inner = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=2)
        self.left = nn.Conv2d(6, 4, 1)
        self.right = nn.Conv2d(6, 5, 3, padding=1, bias=False)
        self.average = nn.AvgPool2d(2)
        self.drop = nn.Dropout()
        self.last = nn.Conv2d(9, 7, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.pool(self.relu(self.norm(self.first(images))))
        summed = self.relu(pooled + self.inner(pooled))
        joined = torch.cat([self.left(summed), F.relu(self.right(summed))], 1)
        return self.relu(self.last(self.drop(self.average(joined))))


def conv_back(r: Tensor, conv: nn.Conv2d, size: torch.Size) -> Tensor:
    left_over = [
        length - ((out - 1) * s - 2 * p + d * (k - 1) + 1)
        for length, out, s, p, d, k in zip(size[2:], r.shape[2:], conv.stride, conv.padding, conv.dilation, conv.kernel_size, strict=True)
    ]
    weight = conv.weight.detach()
    return F.conv_transpose2d(r, weight, None, conv.stride, conv.padding, tuple(left_over), conv.groups, conv.dilation)


def max_pool_back(r: Tensor, pool: nn.MaxPool2d, values: Tensor) -> Tensor:
    where = F.max_pool2d(values, pool.kernel_size, pool.stride, pool.padding, return_indices=True)[1]
    return torch.zeros_like(values).flatten(2).scatter_add(2, where.flatten(2), r.flatten(2)).view_as(values)


def average_back(r: Tensor, k: int, size: torch.Size) -> Tensor:
    spread = r.repeat_interleave(k, 2).repeat_interleave(k, 3) / k**2
    return F.pad(spread, (0, size[3] - spread.shape[3], 0, size[2] - spread.shape[2]))


def slowly(net: Everything, x: Tensor, unit: int, rule: str, *, one: bool) -> tuple[Tensor, tuple[int, int], float]:
    """One image through `Everything` and one unit back, operation by operation."""
    with torch.no_grad():
        first = net.first(x)
        scale = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
        normed = (first - net.norm.running_mean[:, None, None]) * scale[:, None, None] + net.norm.bias[:, None, None]
        opened = normed.clamp(min=0)
        pooled = F.max_pool2d(opened, 3, 2, 1)
        before = pooled + net.inner(pooled)
        summed = before.clamp(min=0)
        left, right = net.left(summed), net.right(summed)
        joined = torch.cat([left, right.clamp(min=0)], 1)
        averaged = F.avg_pool2d(joined, 2)
        out = net.last(averaged)
        final = out.clamp(min=0)
        best = max((float(final[0, unit, y, x_]), -y, -x_) for y in range(final.shape[2]) for x_ in range(final.shape[3]))
        value, y, x_ = best[0], -best[1], -best[2]
        r = torch.zeros_like(final)
        r[0, unit, y, x_] = 1.0 if one else value
        r = conv_back(rectified(r, out, rule), net.last, averaged.shape)
        r = average_back(r, 2, joined.shape)
        r = conv_back(r[:, :4], net.left, summed.shape) + conv_back(rectified(r[:, 4:], right, rule), net.right, summed.shape)
        r = rectified(r, before, rule)
        r = r + conv_back(r, net.inner, pooled.shape)
        r = rectified(max_pool_back(r, net.pool, opened), normed, rule)
        r = conv_back(r * scale[:, None, None], net.first, x.shape)
    return r, (y, x_), value


@pytest.fixture(scope="module")
def everything() -> Scope:
    return Scope(hand_built.seeded(Everything).double(), Inputs(size=(37, 42), mean=MEAN, std=STD), name="everything")


@pytest.mark.parametrize("start", ["activation", "one"])
@pytest.mark.parametrize("rule", RULES)
def test_against_a_slow_twin(everything: Scope, rule: str, start: str) -> None:
    images = draws(2, 3, 37, 42, dtype=torch.float64)
    made = convscope.deconvnet(everything, "output", None, images, rule=rule, start=start)
    assert made.projection.shape == (2, 7, 3, 37, 42) and made.projection.dtype == np.float64
    found = 0
    net = everything.model.eval()
    for image in range(2):
        x = everything.inputs.normalize(images[image : image + 1])
        for unit in range(7):
            expected, place, value = slowly(net, x, unit, rule, one=start == "one")
            np.testing.assert_allclose(made.projection[image, unit], expected[0], rtol=1e-10, atol=1e-12 * float(expected.abs().max()))
            assert tuple(made.positions[image, unit]) == place
            np.testing.assert_allclose(made.values[image, unit], value, rtol=1e-12)
            found += bool(expected.abs().max() > 0)
    assert found >= 6, "the comparison must not be of zeros"


def test_the_rules_differ_and_guided_is_both(everything: Scope) -> None:
    image = draws(1, 3, 37, 42, dtype=torch.float64)
    made = [convscope.deconvnet(everything, "output", None, image, rule=rule).projection for rule in RULES]
    for a in range(3):
        for b in range(a):
            assert np.abs(made[a] - made[b]).max() > 1e-3 * np.abs(made[a]).max()


def test_a_single_filter_comes_back_as_itself() -> None:
    scope = Scope(hand_built.linear_conv(torch.float64), Inputs(size=(12, 14)))
    weight = scope.model[0].weight.detach()
    made = convscope.deconvnet(scope, "0", [2, 0], draws(1, 3, 12, 14, dtype=torch.float64), position=(4, 6))
    assert made.boxes[0].tolist() == [[4, 6, 7, 9]] * 2
    for row, unit in enumerate((2, 0)):
        expected = np.zeros((3, 12, 14))
        expected[:, 4:7, 6:9] = made.values[0, row] * weight[unit]
        np.testing.assert_allclose(made.projection[0, row], expected, rtol=1e-14)


# identities


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.MaxPool2d(3, 2), nn.Conv2d(6, 4, 2, padding=1), nn.AvgPool2d(2, 1))


def test_a_without_relu_all_rules_are_the_gradient() -> None:
    model = hand_built.seeded(linear).double().eval()
    scope, image = Scope(model, Inputs(size=31)), draws(1, 3, 31, 31, dtype=torch.float64)
    made = [convscope.deconvnet(scope, "output", [1], image, rule=rule, start="one") for rule in RULES]
    y, x = made[0].positions[0, 0]
    picture = image.clone().requires_grad_()
    model(picture)[0, 1, y, x].backward()
    for each in made:
        assert np.abs(each.projection[0, 0] - picture.grad[0].numpy()).max() == 0.0


def test_b_without_pooling_the_picture_does_not_matter() -> None:
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 3)
    scope = Scope(hand_built.seeded(lambda: nn.Sequential(*layers)).double(), Inputs(size=16))
    images = draws(2, 3, 16, 16, dtype=torch.float64)
    for rule in RULES:
        made = convscope.deconvnet(scope, "4", [0, 3], images, rule=rule, start="one", position=(2, 1)).projection
        assert (made[0] == made[1]).all() == (rule == "deconvnet")


@pytest.fixture
def positive() -> Scope:
    """All weights and biases positive, so that every ReLU is open."""
    model = hand_built.seeded(Everything).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        model.norm.running_mean.zero_()
    return Scope(model, Inputs(size=(37, 42)))


def test_c_f_with_positive_weights(positive: Scope) -> None:
    image = draws(1, 3, 37, 42, dtype=torch.float64)
    deconvnet, guided, gradient = (convscope.deconvnet(positive, "output", None, image, rule=rule).projection for rule in RULES)
    assert (deconvnet == guided).all() and (deconvnet == gradient).all() and deconvnet.max() > 0
    assert (deconvnet >= 0).all()


def test_f_positive_weights_but_closed_relus(positive: Scope) -> None:
    with torch.no_grad():
        positive.model.norm.bias -= 3
        positive.model.right.weight.neg_()
        positive.model.right.weight.neg_()
    image = draws(1, 3, 37, 42, dtype=torch.float64)
    deconvnet, gradient = (convscope.deconvnet(positive, "output", None, image, rule=rule).projection for rule in ("deconvnet", "gradient"))
    assert (deconvnet >= 0).all() and (deconvnet != gradient).any()


def test_d_at_the_input_of_a_single_relu() -> None:
    model = hand_built.seeded(lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 5))).double()
    scope = Scope(model, Inputs(size=16, mean=(0.5, 0.5, 0.5)))
    image = draws(1, 3, 16, 16, dtype=torch.float64)
    deconvnet, guided, gradient = (
        convscope.deconvnet(scope, "1", None, image, rule=rule, start="one", position=(5, 5)).projection[0] for rule in RULES
    )
    r = np.zeros((4, 3, 16, 16))
    r[:, :, 5:10, 5:10] = model[1].weight.detach()
    f = image[0].numpy() - 0.5
    assert (guided == (f > 0) * deconvnet).all() and (guided == (r > 0) * gradient).all() and guided.any()
    assert (deconvnet == r * (r > 0)).all() and (gradient == r * (f > 0)).all()


@pytest.mark.parametrize("rule", RULES)
def test_e_positive_homogeneity(everything: Scope, rule: str) -> None:
    image = draws(1, 3, 37, 42, dtype=torch.float64)
    activation, one = (convscope.deconvnet(everything, "last", None, image, rule=rule, start=value) for value in ("activation", "one"))
    positive = activation.values[0] > 0
    assert positive.sum() >= 3
    expected = one.projection[0] * activation.values[0][:, None, None, None]
    np.testing.assert_allclose(activation.projection[0][positive], expected[positive], rtol=1e-12, atol=1e-18)


# Captum


def by_captum(model: nn.Module, x: Tensor, targets: list[Any], rule: str) -> np.ndarray:
    """The projections of output cells by Captum, (target rgb h w)."""
    attr = pytest.importorskip("captum.attr", reason="Captum is in the extra `bench`")
    method = {"deconvnet": attr.Deconvolution, "guided": attr.GuidedBackprop, "gradient": attr.Saliency}[rule](model)
    options = {"abs": False} if rule == "gradient" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.stack([method.attribute(x.clone().requires_grad_(), target=target, **options)[0].detach().numpy() for target in targets])


def compare_with_captum(scope: Scope, model: nn.Module, layer: str, image: Tensor, units: list[int], rule: str, tolerance: float) -> None:
    made = convscope.deconvnet(scope, layer, units, image, rule=rule, start="one")
    targets = [
        (unit, *map(int, place)) if scope.layers[layer].spatial else unit for unit, place in zip(units, made.positions[0], strict=True)
    ]
    expected = by_captum(model, scope.inputs.normalize(image.to(scope.dtype)), targets, rule)
    scale = np.abs(expected).max((1, 2, 3))
    assert (scale > 0).all()
    assert (np.abs(made.projection[0] - expected).max((1, 2, 3)) <= tolerance * scale).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "depth"), [("vgg11", 16), ("alexnet", 11), ("squeezenet1_1", 11)])
def test_against_captum(name: str, depth: int, rule: str) -> None:
    model = hand_built.torchvision_network(name).features[: depth + 1].double().eval()
    scope = Scope(model, Inputs(size=67, mean=MEAN, std=STD))
    image = draws(1, 3, 67, 67, dtype=torch.float64)
    values = scope.activations(image, "output")["output"][0].flatten(1).amax(1)
    compare_with_captum(scope, model, "output", image, values.topk(3).indices.tolist(), rule, 1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_against_captum_on_trained_weights(squeezenet: Scope, shared: Callable[[str], Path], rule: str) -> None:
    image = squeezenet.inputs(shared("images/imagenet-sample/n01443537_goldfish.jpg"))[None]
    scope = Scope(copy.deepcopy(squeezenet.model).double().eval(), squeezenet.inputs)
    compare_with_captum(scope, scope.model.features, "features", image, [185, 348], rule, 1e-9)
    if rule == "deconvnet":  # behind the average R is the same everywhere, and the last ReLUs let none of it through
        assert not convscope.deconvnet(scope, "output", [1, 779], image).projection.any()
        assert not by_captum(scope.model, scope.inputs.normalize(image.double()), [1, 779], rule).any()


# torchvision's networks, held against another mechanism


class Ruled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rule: str) -> Tensor:
        ctx.save_for_backward(values)
        ctx.rule = rule
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return rectified(grads[0], ctx.saved_tensors[0], ctx.rule), None


@contextmanager
def patched_relu(rule: str) -> Generator[None]:
    """F.relu replaced where modules and torchvision's functional code look it up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "relu", lambda input, inplace=False: Ruled.apply(input, rule))
        patch.setattr(torch.nn.functional, "relu", F.relu)
        yield


NETWORKS = {
    "resnet18": ("layer3.0", 64),
    "googlenet": ("inception4a", 64),
    "densenet121": ("features.denseblock3", 64),
    "inception_v3": ("Mixed_5c", 96),
}


@pytest.fixture(scope="module", params=NETWORKS)
def known(request: pytest.FixtureRequest) -> tuple[Scope, str, Tensor]:
    layer, size = NETWORKS[request.param]
    model = hand_built.torchvision_network(request.param).double()
    return Scope(model, Inputs(size=size, mean=MEAN, std=STD)), layer, draws(1, 3, size, size, dtype=torch.float64)


@pytest.mark.parametrize("rule", RULES)
def test_known_networks(known: tuple[Scope, str, Tensor], rule: str) -> None:
    scope, layer, image = known
    made = convscope.deconvnet(scope, layer, slice(0, 8), image, rule=rule)
    x = scope.inputs.normalize(image).requires_grad_()
    kept: dict[str, Tensor] = {}
    handle = scope.model.eval().get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: kept.update(value=output))
    with patched_relu(rule):
        scope.model(x)
    handle.remove()
    value = kept["value"]
    for unit in range(8):
        y, x_ = made.positions[0, unit]
        assert value[0, unit, y, x_] == value[0, unit].max()
        (expected,) = torch.autograd.grad(value[0, unit, y, x_] * made.values[0, unit], x, retain_graph=True)
        np.testing.assert_allclose(made.projection[0, unit], expected[0], rtol=1e-9, atol=1e-12 * float(expected.abs().max()))
    assert np.abs(made.projection).max() > 0


@pytest.mark.parametrize("layer", ["conv1", "layer1", "layer2.0"])
@pytest.mark.parametrize("rule", RULES)
def test_g_the_projection_stays_in_its_box(rule: str, layer: str) -> None:
    scope = Scope(hand_built.torchvision_network("resnet18"), Inputs(size=160))
    made = convscope.deconvnet(scope, layer, [0, 1, 2], draws(2, 3, 160, 160), rule=rule)
    for image, unit in np.ndindex(made.values.shape):
        y0, x0, y1, x1 = made.boxes[image, unit]
        assert 0 <= y0 < y1 <= 160 and 0 <= x0 < x1 <= 160 and (y1 - y0) * (x1 - x0) < 160**2
        outside = made.projection[image, unit].copy()
        outside[:, y0:y1, x0:x1] = 0
        assert (outside == 0).all()
    inside = {"conv1": (7, 7), "layer1": (43, 43), "layer2.0": (67, 67)}[layer]
    assert (made.boxes[..., 2:] - made.boxes[..., :2] <= inside).all()


# where, how many, in what batches


def test_position_and_ties(scope: Scope) -> None:
    with torch.no_grad():
        scope.model[4].weight.zero_()
    made = convscope.deconvnet(scope, "4", [0, 1], draws(1, 3, 24, 24))
    assert made.positions.tolist() == [[[0, 0], [0, 0]]], "the first of equals in reading order"
    made = convscope.deconvnet(scope, "3", [5, 1], draws(2, 3, 24, 24), position=(7, 2))
    value = scope.activations(draws(2, 3, 24, 24), "3")["3"]
    assert (made.positions == [7, 2]).all() and (made.values == value[:, [5, 1], 7, 2].numpy()).all()


def test_a_vector_has_no_place(scope: Scope) -> None:
    made = convscope.deconvnet(scope, "output", [4, 0], draws(2, 3, 24, 24))
    value = scope.activations(draws(2, 3, 24, 24), "output")["output"]
    assert (made.values == value[:, [4, 0]].numpy()).all()
    assert (made.positions == 0).all() and (made.boxes == [0, 0, 24, 24]).all()


def test_pictures_of_another_size(scope: Scope) -> None:
    made = convscope.deconvnet(scope, "4", [0, 3], draws(1, 3, 40, 64), position=(15, 31))
    assert made.boxes.tolist() == [[[27, 59, 35, 64]] * 2]
    assert made.projection.shape == (1, 2, 3, 40, 64) and made.projection[..., 27:35, 59:64].any()
    assert not made.projection[..., :27, :].any() and not made.projection[..., :59].any()


def test_a_unit_that_sees_only_padding() -> None:
    scope = Scope(hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 2, 1, padding=1))), Inputs(size=16))
    made = convscope.deconvnet(scope, "0", None, draws(1, 3, 16, 16), position=(0, 3))
    y0, x0, y1, x1 = made.boxes[0, 0]
    assert (y1 - y0) * (x1 - x0) == 0 and not made.projection.any()
    assert [tile.marked for tile in tiles(made.view())] == ["projection is zero"] * 2
    render.png(made.view())


def test_batches_do_not_matter(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    images = draws(3, 3, 24, 24)
    whole = convscope.deconvnet(scope, "5", None, images)
    alone = [convscope.deconvnet(scope, "5", unit, image) for image in images for unit in range(8)]
    for fitting in (1, 3, 17):
        monkeypatch.setattr(scope, "fitting", lambda _pixels, fitting=fitting: fitting)
        made = convscope.deconvnet(scope, "5", None, images)
        np.testing.assert_allclose(made.projection, whole.projection, rtol=1e-4, atol=1e-5)
        assert (made.positions == whole.positions).all() and (made.boxes == whole.boxes).all()
    for index, one in enumerate(alone):
        np.testing.assert_allclose(one.projection[0, 0], whole.projection[divmod(index, 8)], rtol=1e-4, atol=1e-5)


def test_units_share_the_forward(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    _ = scope.layers
    before = scope.forwards
    convscope.deconvnet(scope, "5", None, draws(1, 3, 24, 24))
    assert scope.forwards - before == 1
    monkeypatch.setattr(scope, "fitting", lambda _pixels: 2)
    convscope.deconvnet(scope, "5", None, draws(3, 3, 24, 24))
    assert scope.forwards - before == 1 + 3, "four ways back on each"


def test_memory_that_runs_out(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    images = draws(2, 3, 24, 24)
    whole = convscope.deconvnet(scope, "5", None, images)
    real = torch.autograd.grad

    def scarce(value: Tensor, pictures: Tensor, seeds: Tensor, **options: Any) -> Any:
        if len(seeds) * seeds.shape[1] > 1:  # only one way back on one image fits
            raise RuntimeError("not enough memory: you tried to allocate a lot")
        return real(value, pictures, seeds, **options)

    monkeypatch.setattr(torch.autograd, "grad", scarce)
    made = convscope.deconvnet(scope, "5", None, images)
    np.testing.assert_allclose(made.projection, whole.projection, rtol=1e-4, atol=1e-5)


def test_the_same_question_gives_the_same_bits(scope: Scope) -> None:
    images = draws(2, 3, 24, 24)
    made, again = (convscope.deconvnet(scope, "5", None, images) for _ in range(2))
    assert (made.projection == again.projection).all()


def test_a_unit_that_is_not_active(scope: Scope) -> None:
    with torch.no_grad():
        scope.model[4].bias[2] = -100.0
    made = convscope.deconvnet(scope, "5", [2, 3], draws(1, 3, 24, 24))
    assert made.values[0, 0] == 0 and not made.projection[0, 0].any()


def test_the_network_is_left_as_it_was(small: nn.Module) -> None:
    model = nn.Sequential(small, raises := hand_built.Raises(), nn.GELU())
    hand_built.unsettle(model)
    scope = Scope(model, Inputs(size=24))
    _ = scope.layers
    before = hand_built.state_of(model)
    for rule in RULES:
        convscope.deconvnet(scope, "0.5", [0, 1], draws(2, 3, 24, 24), rule=rule)
    with pytest.raises(BadInput, match="gelu"):
        convscope.deconvnet(scope, "output", [0], draws(2, 3, 24, 24))
    raises.fail = RuntimeError("in mid-forward")
    with pytest.raises(RuntimeError, match="in mid-forward"):
        convscope.deconvnet(scope, "1", [0], draws(2, 3, 24, 24))
    raises.fail = None
    assert hand_built.state_of(model) == before


# refusals


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.gate = nn.Conv2d(4, 4, 1)
        self.after = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        values = F.relu(self.conv(images))
        return self.after(values * self.gate(values.mean((2, 3), keepdim=True)).sigmoid())


def test_gates_are_refused_only_on_the_way() -> None:
    scope = Scope(hand_built.seeded(Gated), Inputs(size=12))
    image = draws(1, 3, 12, 12)
    for rule in ("deconvnet", "guided"):
        assert convscope.deconvnet(scope, "gate", [0], image, rule=rule).projection.any()
        with pytest.raises(
            BadInput, match=r"rule '\w+' is about ReLUs, but before the layer the network calls sigmoid; use rule='gradient'"
        ):
            convscope.deconvnet(scope, "after", [0], image, rule=rule)
    assert convscope.deconvnet(scope, "after", [0], image, rule="gradient").projection.any()


@pytest.mark.parametrize(
    ("name", "layer", "called"), [("mobilenet_v3_small", "features.1", "hardswish"), ("convnext_tiny", "features.1", "gelu")]
)
def test_networks_that_are_refused(name: str, layer: str, called: str) -> None:
    scope = Scope(hand_built.torchvision_network(name), Inputs(size=32))
    with pytest.raises(BadInput, match=f"the network calls {called};"):
        convscope.deconvnet(scope, layer, [0], draws(1, 3, 32, 32))
    assert convscope.deconvnet(scope, layer, [0], draws(1, 3, 32, 32), rule="gradient").projection.any()


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"layer": "9"}, LayerNotFound, "no layer '9'"),
        ({"units": [8]}, UnitNotFound, "units 0 to 7, got 8"),
        ({"rule": "relu"}, BadInput, "rule must be deconvnet, guided or gradient, got 'relu'"),
        ({"start": "two"}, BadInput, "start must be activation or one, got 'two'"),
        ({"position": (12, 0)}, BadInput, r"layer 5 has positions \(0, 0\) to \(11, 11\), got \(12, 0\)"),
        ({"position": (0, -1)}, BadInput, r"got \(0, -1\)"),
        ({"position": 3}, BadInput, r"position must be \(y, x\), got 3"),
        ({"images": []}, BadInput, "an empty list"),
        ({"images": torch.ones(2, 3, 24, 24) * 3}, BadInput, "divide by 255"),
        ({"images": [torch.ones(3, 24, 24), torch.ones(3, 25, 24)]}, BadInput, "different sizes"),
    ],
)
def test_wrong_questions(scope: Scope, wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    asked = {"images": draws(1, 3, 24, 24), "layer": "5", "units": [0]} | wrong
    with pytest.raises(error, match=words):
        convscope.deconvnet(scope, asked.pop("layer"), asked.pop("units"), asked.pop("images"), **asked)


def test_layers_without_a_map() -> None:
    model = hand_built.seeded(lambda: torchvision.models.VisionTransformer(32, 16, 1, 1, 8, 8, num_classes=4))
    scope = Scope(model, Inputs(size=32))
    with pytest.raises(BadInput, match=r"layer encoder.ln holds tokens"):
        convscope.deconvnet(scope, "encoder.ln", [0], draws(1, 3, 32, 32), rule="gradient")


# kept and shown


@pytest.fixture
def made(scope: Scope) -> convscope.Deconvnet:
    return convscope.deconvnet(scope, "5", [3, 0, 6], draws(2, 3, 24, 24), rule="guided")


def test_round_trip_through_the_store(made: convscope.Deconvnet, tmp_path: Path) -> None:
    back = convscope.load(made.save(tmp_path / "made"))
    assert type(back) is convscope.Deconvnet
    for field, other in zip(made.arrays(), back.arrays(), strict=True):
        assert field.array.dtype == other.array.dtype and (field.array == other.array).all()
    assert back.extras() == made.extras() and back.manifest == made.manifest
    assert back.manifest["parameters"]["rule"] == "guided"
    assert (tmp_path / "made" / "figure.png").stat().st_size > 1000


def test_the_summary_names_values_and_places(made: convscope.Deconvnet) -> None:
    first, _, last = made.summary().splitlines()
    y, x = made.positions[0, 0]
    assert first.startswith(f"image 0: 3 ({made.values[0, 0]:.3g} at {y}, {x}), 0 (")
    assert last == "Feature illustration, not class evidence."


def tiles(shown: render.View) -> list[Image]:
    return [panel for panel in shown.flat() if isinstance(panel, Image) and panel.title.startswith("unit")]


def test_the_figure(made: convscope.Deconvnet) -> None:
    shown = made.view()
    assert "Feature illustration, not class evidence." in shown.note and "rule guided" in shown.subtitle
    assert [tile.title for tile in tiles(shown)] == ["unit 3", "unit 0", "unit 6"] * 2
    assert [panel.title for panel in shown.panels if isinstance(panel, Group)] == ["image 0", "image 1"]
    y0, x0, y1, x1 = made.boxes[1, 2]
    inside = made.projection[1, 2, :, y0:y1, x0:x1]
    pixels = tiles(shown)[5].pixels
    zoom = pixels.shape[1] // (y1 - y0)
    half = pixels[:, ::zoom, : (x1 - x0) * zoom : zoom]
    scale = np.quantile(np.abs(inside), 0.995)
    assert scale < np.abs(inside).max() and "99.5 % quantile" in shown.note
    np.testing.assert_allclose(half, np.clip(0.5 + 0.5 * inside / scale, 0, 1), atol=1e-6)
    np.testing.assert_allclose(pixels[:, ::zoom, -(x1 - x0) * zoom :: zoom], made.images[1, :, y0:y1, x0:x1], atol=1e-6)
    assert f"scale ±{scale:.3g}" in tiles(shown)[5].caption


def test_a_projection_on_grey() -> None:
    values = np.zeros((3, 10, 10))
    values[0, :, 0] = np.linspace(-1, 1, 10)
    values[1, 0, 0] = 50  # a single outlier leaves the others as they are
    tile, scale = on_grey(values)
    assert scale == np.quantile(np.abs(values), 0.995) <= 1 and tile[1, 0, 0] == 1 and tile[2, 5, 5] == 0.5
    np.testing.assert_allclose(tile[0, :, 0], np.clip(0.5 + 0.5 * np.linspace(-1, 1, 10) / scale, 0, 1))
    single = np.zeros((3, 20, 20))
    single[2, 3, 4] = -2  # fewer values than the quantile leaves out
    assert on_grey(single)[1] == 2 and on_grey(single)[0][2, 3, 4] == 0
    single[:, 10:] = np.nan  # no pixel: grey, and not counted
    assert on_grey(single)[1] == 2 and (on_grey(single)[0][:, 10:] == 0.5).all()
    for nothing in (np.zeros((3, 4, 4)), np.full((3, 4, 4), np.nan), np.zeros((3, 0, 0))):
        tile, scale = on_grey(nothing)
        assert scale == 0 and (tile == 0.5).all()


def test_the_figure_of_what_is_not_active(scope: Scope) -> None:
    with torch.no_grad():
        scope.model[4].bias[:] = -100.0
    shown = convscope.deconvnet(scope, "5", [2, 3], draws(1, 3, 24, 24)).view()
    assert [tile.marked for tile in tiles(shown)] == ["not active here"] * 2
    assert render.draw(shown).axes == []


def test_the_figure_of_many_and_of_classes(scope: Scope) -> None:
    many = convscope.deconvnet(scope, "5", None, draws(30, 3, 24, 24))
    assert len(tiles(many.view())) == 96 and "Shown are 96 of 240 tiles." in many.view().note
    classes = Scope(scope.model, Inputs(size=24, classes=list("abcde")))
    shown = convscope.deconvnet(classes, "output", ["b"], draws(1, 3, 24, 24)).view()
    assert tiles(shown)[0].title == "unit 1 b" and " at " not in tiles(shown)[0].caption


def test_a_trained_unit_shows_what_it_saw(squeezenet: Scope, shared: Callable[[str], Path]) -> None:
    """The goldfish's eye: what comes back from unit 185 is mostly in the part of its box that holds the eye."""
    made = convscope.deconvnet(squeezenet, "features.12", 185, shared("images/imagenet-sample/n01443537_goldfish.jpg"))
    y0, x0, y1, x1 = made.boxes[0, 0]
    assert 0 < y0 < 128 < y1 and x0 < 190 < x1
    energy = np.square(made.projection[0, 0]).sum(0)
    assert energy[125:180, 155:215].sum() > 0.7 * energy.sum() and 0.25 * (y1 - y0) * (x1 - x0) > 55 * 60
