"""The graph: intervals against enumeration and gradients, MACs against published counts, receptive fields against published values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.graph.geometry import Repeat, Transposed, Whole, Window
from convscope.scope import Inputs, Scope
from convscope.scope.edits import replaced_functions
from hand_built import torchvision_network
from networks import CONVOLUTIONAL, QUICK


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_window_rules_equal_enumeration(kernel: int, stride: int, padding: int, dilation: int) -> None:
    rule, length = Window(kernel, stride, padding, dilation), 23
    outputs = (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    reads = [[o * stride - padding + t * dilation for t in range(kernel)] for o in range(outputs)]
    for a in range(outputs):
        for b in range(a, min(outputs, a + 4)):
            seen = [i for o in range(a, b + 1) for i in reads[o]]
            assert rule.reads(a, b) == (min(seen), max(seen))
    span = [(min(seen), max(seen)) for seen in reads]
    for a in range(length):
        for b in range(a, min(length, a + 5)):
            low, high = rule.reaches(a, b)
            hit = [o for o in range(outputs) if span[o][0] <= b and span[o][1] >= a]
            assert list(range(max(0, low), min(outputs - 1, high) + 1)) == hit


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (4, 2, 1), (2, 2, 0), (5, 3, 2)])
def test_transposed_rule_equals_enumeration(kernel: int, stride: int, padding: int) -> None:
    rule, length = Transposed(kernel, stride, padding, 1), 9
    outputs = (length - 1) * stride - 2 * padding + kernel
    for o in range(outputs):
        seen = [i for i in range(length) if 0 <= o + padding - i * stride < kernel]
        low, high = rule.reads(o, o)
        assert list(range(max(0, low), min(length - 1, high) + 1)) == seen


def test_repeat_rule() -> None:
    assert Repeat(2).reads(5, 8) == (2, 4)
    assert Repeat(2).reaches(2, 4) == (4, 9)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [(3, 1, 2, 2), (3, 1, 4, 2), (3, 2, 3, 3), (4, 3, 5, 4), (2, 1, 5, 3)]
)
@pytest.mark.parametrize("length", [2, 5, 11])
def test_dilated_windows_leave_gaps_at_the_border(kernel: int, stride: int, padding: int, dilation: int, length: int) -> None:
    rule = Window(kernel, stride, padding, dilation)
    outputs = (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    taps = [[i for t in range(kernel) if 0 <= (i := o * stride - padding + t * dilation) < length] for o in range(outputs)]
    for a in range(outputs):
        for b in range(a, outputs):
            seen = [i for o in range(a, b + 1) for i in taps[o]]
            first, last = (int(end[0]) for end in rule.reads_inside(np.array([a]), np.array([b]), length))
            if padding < rule.span:
                assert (first, last) == ((min(seen), max(seen)) if seen else (first, last)) and (seen or first > last)
            else:  # windows wholly in the padding: never too small
                assert not seen or first <= min(seen) <= max(seen) <= last


UPSAMPLINGS: dict[str, tuple[nn.Module, int]] = {
    "nearest": (nn.Upsample(scale_factor=2), 5),
    "nearest exact": (nn.Upsample(scale_factor=2, mode="nearest-exact"), 5),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), 7),
    "bilinear by 4 and 2": (nn.Upsample(size=(48, 24), mode="bilinear"), 7),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), 11),
    "shuffle": (nn.PixelShuffle(2), 5),
    "unshuffle": (nn.PixelUnshuffle(2), 13),
    "transposed": (nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1), 7),
    "transposed with holes": (nn.ConvTranspose2d(4, 4, 1, 2), 5),
    "dilated": (nn.Conv2d(4, 4, 3, padding=4, dilation=4), 23),
}


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_upsampling_has_true_receptive_fields(name: str) -> None:
    """A convolution of stride 2, upsampling, a convolution: the field, and the hull of the gradient's support.

    Also tried: shuffles by 3 and 4 and one after the other, sizes that are doubles, areas, slices of every second pixel side by side, 25
    kinds of padding, folding, flipping and sampling: none is taken for less than it reads, those that follow no step for the whole image.
    """
    resize, size = UPSAMPLINGS[name]
    channels = {"shuffle": 1, "unshuffle": 16}.get(name, 4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), resize, nn.Conv2d(channels, 2, 3, padding=1)).double()
    for parameter in model.parameters():
        parameter.data.abs_().add_(0.1)
    scope = Scope(model, Inputs(size=24))
    node = scope.layers["2"].node
    assert node is not None and scope.graph.field(node, 0).size == size
    image = torch.rand(1, 3, 24, 24, dtype=torch.float64).requires_grad_()
    value, fields = scope.run(image, "2")["2"][0].sum(0), [scope.graph.field(node, axis, clipped=True) for axis in (0, 1)]
    for y, x in [(0, 0), (2, 1), (value.shape[0] // 2, value.shape[1] // 2 + 1), (value.shape[0] - 1, value.shape[1] - 1)]:
        (gradient,) = torch.autograd.grad(value[y, x], image, retain_graph=True)
        hit = torch.nonzero(gradient[0].abs().sum(0))
        found = [hit.amin(0).tolist(), hit.amax(0).tolist()]
        assert found == [[fields[0].first[y], fields[1].first[x]], [fields[0].last[y], fields[1].last[x]]]


@pytest.mark.parametrize(
    "resize",
    [
        nn.Upsample(size=(17, 24)),
        nn.Upsample(scale_factor=2.05),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=2.05, mode="bilinear"),
        nn.Upsample(scale_factor=0.5, mode="bilinear"),
    ],
    ids=["17 of 12", "nearest 2.05", "corners", "bilinear 2.05", "downsampling"],
)
def test_other_resampling_is_never_taken_for_repetition(resize: nn.Module) -> None:
    scope = Scope(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), resize, nn.Conv2d(4, 2, 3)), Inputs(size=24))
    assert scope.graph.field(scope.layers["2"].node, 0).whole  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", [Repeat(2), Repeat(3, 1, 1, 1), Repeat(2, 1, 2, 1)])
def test_what_upsampling_reaches_is_what_reads_it(rule: Repeat) -> None:
    for a in range(5, 9):
        low, high = rule.reaches(a, a + 1)
        readers = [o for o in range(-9, 60) if rule.reads(o, o)[0] <= a + 1 and rule.reads(o, o)[1] >= a]
        assert (low, high) == (readers[0], readers[-1])


REFERENCE = [
    ("alexnet", "features.12", 195, 32, -66),
    ("vgg16", "features.28", 196, 16, -90),
    ("vgg16", "features.30", 212, 32, -90),
    ("vgg19", "features.28", 156, 16, -70),
    ("vgg19", "features.36", 268, 32, -118),
    ("resnet18", "layer4", 435, 32, -217),
    ("resnet50", "layer4", 427, 32, -213),
    ("resnet101", "layer4", 971, 32, -485),
    ("resnet152", "layer4", 1451, 32, -725),
]


@pytest.mark.parametrize(("name", "layer", "size", "jump", "start"), REFERENCE)
def test_published_receptive_fields(name: str, layer: str, size: int, jump: int, start: int) -> None:
    scope = Scope(torchvision_network(name), Inputs(size=64), name=name)
    for axis in (0, 1):
        field = scope.graph.field(scope.layers[layer].node, axis)  # type: ignore[arg-type]
        assert (field.size, int(field.first[0]), field.whole) == (size, start, False)
        assert field.jump == jump


@pytest.mark.parametrize(
    ("name", "giga"),
    [("vgg16", 15.47), ("vgg19", 19.63), ("alexnet", 0.714), ("resnet18", 1.814), ("resnet50", 4.089), ("convnext_tiny", 4.456)],
)
def test_published_macs(name: str, giga: float) -> None:
    scope = Scope(torchvision_network(name), Inputs(size=224), name=name)
    assert scope.layers["output"].macs / 1e9 == pytest.approx(giga, abs=0.006)


def identity(values: Tensor, *_: object, **__: object) -> Tensor:
    return values


def average(
    values: Tensor, kernel: int, stride: int | None = None, padding: int = 0, _dilation: int = 1, ceil_mode: bool = False, **__: object
):
    return F.avg_pool2d(values, kernel, stride, padding, ceil_mode)


def positive_copy(name: str) -> nn.Module:
    """The network in float64 with weights U(0.1, 1.1) over their fan-in, and norms that only scale: its gradient cannot cancel."""
    model = torchvision_network(name).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.1
        parameter.data.copy_(drawn / max(1, parameter[0].numel() if parameter.ndim > 1 else 1))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    return model


ACTIVATIONS = (F.relu, torch.relu, torch.relu_, F.relu6, F.hardswish, F.silu, F.gelu, F.layer_norm, F.hardtanh)
FLAT = dict.fromkeys(ACTIVATIONS, identity) | {F.max_pool2d: average, torch.max_pool2d: average}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CONVOLUTIONAL])
def test_hull_of_gradient_support_is_the_receptive_field(name: str) -> None:
    side = 96 if name in QUICK else 80
    scope = Scope(positive_copy(name), Inputs(size=(side, side + 16)), name=name)
    maps = [layer for layer in scope.layers.values() if len(layer.spatial) == 2 and min(layer.spatial) > 1 and layer.node is not None]
    chosen = [layer for layer in maps if not any(scope.graph.field(layer.node, axis).whole for axis in (0, 1))]  # type: ignore[arg-type]
    assert chosen, "every layer sees the whole picture?"
    for layer in dict.fromkeys((chosen[len(chosen) // 3], chosen[2 * len(chosen) // 3], chosen[-1])):
        rows, columns = (scope.graph.field(layer.node, axis, clipped=True) for axis in (0, 1))  # type: ignore[arg-type]
        for y, x in {(0, 0), (layer.spatial[0] // 2, layer.spatial[1] // 2), (layer.spatial[0] - 1, layer.spatial[1] - 1)}:
            picture = torch.rand(1, 3, side, side + 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
            with replaced_functions(FLAT):
                value = layer.channels_first(scope.run(picture, layer.name)[layer.name])
            (gradient,) = torch.autograd.grad(value[0, :, y, x].sum(), picture)
            hit = torch.nonzero(gradient[0].abs().sum(0))
            if rows.first[y] > rows.last[y] or columns.first[x] > columns.last[x]:
                assert not len(hit), "sees only padding"
                continue
            expected = [rows.first[y], columns.first[x], rows.last[y], columns.last[x]]
            assert [*hit.amin(0).tolist(), *hit.amax(0).tolist()] == expected, f"{layer.name} at {(y, x)}"


def test_pixels_outside_the_field_do_not_matter() -> None:
    scope = Scope(torchvision_network("squeezenet1_0").double(), Inputs(size=96))
    layer = scope.layers["features.5"]
    rows, columns = (scope.graph.field(layer.node, axis) for axis in (0, 1))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(2)
    one = torch.rand(1, 3, 96, 96, dtype=torch.float64, generator=generator)
    other = torch.rand(1, 3, 96, 96, dtype=torch.float64, generator=generator)
    y = x = layer.spatial[0] // 2
    box = slice(max(0, rows.first[y]), rows.last[y] + 1), slice(max(0, columns.first[x]), columns.last[x] + 1)
    other[..., box[0], box[1]] = one[..., box[0], box[1]]
    first, second = (scope.activations(picture, layer.name)[layer.name][0, :, y, x] for picture in (one, other))
    assert torch.equal(first, second)


class Everything(nn.Module):
    """Operations that networks of torchvision do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1)
        self.norm = nn.InstanceNorm2d(4)
        self.end = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        up = self.up(self.down(images))
        repeated = self.end(F.interpolate(self.down(images), scale_factor=2))
        return self.norm(up + repeated).roll(3, dims=2)


def test_transposed_repeated_and_unknown_operations() -> None:
    scope = Scope(Everything(), Inputs(size=24))
    up = [scope.graph.field(scope.layers["up"].node, axis) for axis in (0, 1)]  # type: ignore[arg-type]
    assert not up[0].whole
    assert up[0].jump == pytest.approx(1, abs=0.1)
    picture = torch.rand(1, 3, 24, 24).requires_grad_()
    for position in range(scope.layers["up"].spatial[0]):
        value = scope.run(picture, "up")["up"][0, :, position, 12].sum()
        (gradient,) = torch.autograd.grad(value, picture)
        hit = torch.nonzero(gradient[0].abs().sum((0, 2)))
        assert up[0].first[position] <= hit.min()
        assert hit.max() <= up[0].last[position]
    assert scope.graph.field(scope.layers["norm"].node, 0).whole, "instance norm sums over the map"  # type: ignore[arg-type]


class SharedMemory(nn.Module):
    """Writes into a view of a value that is used later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.after = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        value = self.conv(images)
        value[:, :2].flip(2).sum()
        value[:, :2].mul_(images.mean())
        return self.after(value)


def test_writing_into_a_view_is_never_taken_for_harmless() -> None:
    scope = Scope(SharedMemory(), Inputs(size=16))
    assert scope.graph.field(scope.layers["after"].node, 0).whole  # type: ignore[arg-type]
    assert not scope.graph.field(scope.layers["conv"].node, 0).whole  # type: ignore[arg-type]


def test_squeeze_and_excitation_sees_everything() -> None:
    scope = Scope(torchvision_network("mobilenet_v3_small"), Inputs(size=64))
    assert scope.graph.field(scope.layers["features.1"].node, 0).whole  # type: ignore[arg-type]
    assert not scope.graph.field(scope.layers["features.0"].node, 0).whole  # type: ignore[arg-type]
    assert any(isinstance(edge.y, Whole) for node in scope.graph.nodes for edge in node.edges)
