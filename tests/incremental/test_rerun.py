"""Incremental inference equals the network's own on every kind of operation, at any size, place and number of changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.incremental.replay import Replay
from convscope.incremental.rerun import NotRepeatable, Rerun, rerun
from convscope.scope import Inputs, Scope
from hand_built import Residual, draws, seeded, state_of, torchvision_network
from networks import CONVOLUTIONAL, QUICK

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
Build = Callable[[], nn.Module]


class Net(nn.Module):
    """Parts, and a function of them and the picture."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.rule = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, images: Tensor) -> Tensor:
        return self.rule(self, images)


def chain(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(*parts)


def first(channels: int = 6, **more: object) -> nn.Conv2d:
    return nn.Conv2d(3, channels, 3, **{"padding": 1, **more})  # type: ignore[arg-type]


def two_readers(net: Net, images: Tensor) -> Tensor:
    normed = net.norm(net.conv(images))  # type: ignore[operator]
    return net.after(F.relu(normed)) * normed  # type: ignore[operator]


def read_before_and_after_norm(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    return net.after(torch.cat([net.norm(raw), raw], 1))  # type: ignore[operator]


def relu_over_a_view(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    half = raw[:, :3]
    return net.after(half) + F.relu_(raw)[:, :3].mean((2, 3), keepdim=True)  # type: ignore[operator]


def relu_read_twice(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    return net.after(F.relu(raw)) + raw  # type: ignore[operator]


def shuffled(net: Net, images: Tensor) -> Tensor:
    left, right = net.conv(images).chunk(2, 1)  # type: ignore[operator]
    joined = torch.cat([left, net.middle(right)], 1)  # type: ignore[operator]
    batch, channels, height, width = joined.shape
    joined = joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
    return net.after(joined.view(batch, channels, height, width))  # type: ignore[operator]


def next_block(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    rows = net.norm(net.middle(raw).permute(0, 2, 3, 1))  # type: ignore[operator]
    return net.after(raw + net.scale * net.project(F.gelu(net.expand(rows))).permute(0, 3, 1, 2))  # type: ignore[operator]


def excited(net: Net, images: Tensor) -> Tensor:
    raw = F.silu(net.conv(images))  # type: ignore[operator]
    gate = torch.sigmoid(net.middle(F.adaptive_avg_pool2d(raw, 1)))  # type: ignore[operator]
    return net.after(raw * gate)  # type: ignore[operator]


def own_map(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    height, width = raw.shape[2:]
    return net.after(F.relu(raw + torch.linspace(-1, 1, height * width, dtype=raw.dtype).view(1, 1, height, width)))  # type: ignore[operator]


def own_column(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    return net.after(F.relu(raw * torch.linspace(-1, 1, raw.shape[2], dtype=raw.dtype)[:, None]))  # type: ignore[operator]


def coordinates(net: Net, images: Tensor) -> Tensor:
    batch, _, height, width = images.shape
    rows = torch.linspace(-1, 1, height, dtype=images.dtype).view(1, 1, height, 1).expand(batch, 1, height, width)
    columns = torch.linspace(-1, 1, width, dtype=images.dtype).view(1, 1, 1, width).expand(batch, 1, height, width)
    return net.after(F.relu(net.conv(torch.cat([images, rows, columns], 1))))  # type: ignore[operator]


def two_strides(net: Net, images: Tensor) -> Tensor:
    return net.after(F.relu(net.conv(images) + net.middle(images)))  # type: ignore[operator]


def next_net() -> Net:
    net = Net(
        next_block,
        conv=nn.Conv2d(3, 6, 4, stride=4),
        middle=nn.Conv2d(6, 6, 7, padding=3, groups=6),
        norm=nn.LayerNorm(6),
        expand=nn.Linear(6, 12),
        project=nn.Linear(12, 6),
        after=nn.Conv2d(6, 4, 2, stride=2),
    )
    net.scale = nn.Parameter(torch.full((6, 1, 1), 0.7))
    return net


NETS: dict[str, Build] = {
    "plain": lambda: chain(first(), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.ReLU()),
    "dilated": lambda: chain(first(dilation=2, padding=2), nn.ReLU(), nn.Conv2d(6, 4, 3, dilation=(3, 1), padding=(1, 2))),
    "grouped": lambda: chain(first(), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)),
    "depthwise": lambda: chain(
        first(), nn.ReLU6(), nn.Conv2d(6, 12, 5, groups=6, padding=2, stride=2), nn.Hardswish(), nn.Conv2d(12, 4, 1)
    ),
    "asymmetric": lambda: chain(nn.Conv2d(3, 6, (1, 7), (2, 1), (0, 3)), nn.ReLU(), nn.Conv2d(6, 4, (5, 2), (1, 3), (2, 1))),
    "stride beyond the kernel": lambda: chain(nn.Conv2d(3, 6, 2, stride=3), nn.ReLU(), nn.Conv2d(6, 4, 1, stride=2)),
    "1x1 with stride": lambda: chain(first(), nn.ReLU(), nn.Conv2d(6, 4, 1, stride=2), nn.Conv2d(4, 4, 3, padding=1)),
    "padding larger than the kernel": lambda: chain(first(padding=4), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=2)),
    "ceil max": lambda: chain(first(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(6, 4, 3), nn.MaxPool2d(2, 2, ceil_mode=True)),
    "overlapping max of negatives": lambda: chain(first(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 4, 3, padding=1), nn.MaxPool2d(3, 1, 1)),
    "dilated max": lambda: chain(first(), nn.MaxPool2d(3, 2, 1, dilation=2), nn.Conv2d(6, 4, 3)),
    "average": lambda: chain(first(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(6, 4, 3), nn.AvgPool2d((2, 1))),
    "average without its padding": lambda: chain(first(), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(6, 4, 3)),
    "ceil average": lambda: chain(first(), nn.AvgPool2d(3, 2, ceil_mode=True), nn.Conv2d(6, 4, 3)),
    "average of another divisor": lambda: chain(first(), nn.AvgPool2d(2, divisor_override=3), nn.Conv2d(6, 4, 3)),
    "adaptive average": lambda: chain(first(), nn.AdaptiveAvgPool2d((4, 6)), nn.Conv2d(6, 4, 3)),
    "adaptive average of its own size": lambda: chain(first(stride=4), nn.AdaptiveAvgPool2d((6, 9)), nn.Conv2d(6, 4, 3)),
    "norm multiplied in": lambda: chain(first(bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)),
    "norm with two readers": lambda: Net(two_readers, conv=first(), norm=nn.BatchNorm2d(6), after=nn.Conv2d(6, 6, 3, padding=1)),
    "convolution and norm read": lambda: Net(
        read_before_and_after_norm, conv=first(), norm=nn.BatchNorm2d(6), after=nn.Conv2d(12, 4, 3, padding=1)
    ),
    "norm before convolution": lambda: chain(nn.BatchNorm2d(3), first(), nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6)),
    "residual": Residual,
    "residual of unlike windows": lambda: Net(
        two_strides, conv=nn.Conv2d(3, 6, 7, 2, 3), middle=nn.Conv2d(3, 6, 1, 2), after=nn.Conv2d(6, 4, 3)
    ),
    "concatenation": lambda: Net(
        lambda net, images: net.after(torch.cat([net.conv(images), F.max_pool2d(images, 3, 1, 1), net.middle(images)], 1)),
        conv=first(),
        middle=nn.Conv2d(3, 5, 5, padding=2),
        after=nn.Conv2d(14, 4, 3, stride=2),
    ),
    "squeeze and excitation": lambda: Net(excited, conv=first(), middle=nn.Conv2d(6, 6, 1), after=nn.Conv2d(6, 4, 3)),
    "relu in place over a view": lambda: Net(relu_over_a_view, conv=first(), after=nn.Conv2d(3, 3, 3, padding=1)),
    "functional relu, input read again": lambda: Net(relu_read_twice, conv=first(), after=nn.Conv2d(6, 6, 3, padding=1)),
    "constant padding": lambda: chain(
        nn.ConstantPad2d((2, 1, 0, 3), 0.7), nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ZeroPad2d(1), nn.Conv2d(6, 4, 3)
    ),
    "padding at the end only": lambda: chain(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 3)),
    "cropping by padding": lambda: chain(first(), nn.ZeroPad2d((-2, -1, -1, -3)), nn.Conv2d(6, 4, 3)),
    "padding of channels, too": lambda: Net(
        lambda net, images: net.after(F.pad(net.conv(images), (1, 2, 2, 1, 1, 1), value=0.3)), conv=first(), after=nn.Conv2d(8, 4, 3)
    ),
    "padding of channels": lambda: Net(
        lambda net, images: F.relu(net.conv(images)[:, :, ::2, ::2] + F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))), conv=first()
    ),
    "reflected padding": lambda: chain(nn.ReflectionPad2d(2), nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)),
    "same": lambda: chain(nn.Conv2d(3, 6, 4, padding="same"), nn.ReLU(), nn.Conv2d(6, 4, 2, padding="same")),
    "cropping at the end": lambda: Net(
        lambda net, images: net.after(net.conv(images)[:, :, :-1, :-2]), conv=first(), after=nn.Conv2d(6, 4, 3)
    ),
    "cropping in front": lambda: Net(lambda net, images: net.after(net.conv(images)[:, :, 1:, 2:]), conv=first(), after=nn.Conv2d(6, 4, 3)),
    "shuffle": lambda: Net(shuffled, conv=first(8), middle=nn.Conv2d(4, 4, 3, padding=1, groups=4), after=nn.Conv2d(8, 4, 3, 2, 1)),
    "permuted block": next_net,
    "a map of its own, added": lambda: Net(own_map, conv=first(), after=nn.Conv2d(6, 4, 3)),
    "a column of its own, multiplied": lambda: Net(own_column, conv=first(), after=nn.Conv2d(6, 4, 3)),
    "coordinates as channels": lambda: Net(coordinates, conv=nn.Conv2d(5, 6, 3, padding=1), after=nn.Conv2d(6, 4, 3)),
    "softmax over channels": lambda: Net(
        lambda net, images: net.after(net.conv(images).softmax(1)), conv=first(), after=nn.Conv2d(6, 4, 3)
    ),
    "softmax over positions": lambda: Net(
        lambda net, images: net.after(net.conv(images).softmax(3)), conv=first(), after=nn.Conv2d(6, 4, 3)
    ),
    "mean over channels": lambda: Net(
        lambda net, images: net.after(net.conv(images).mean(1, keepdim=True) * images), conv=first(), after=nn.Conv2d(3, 4, 3)
    ),
    "transposed": lambda: chain(first(stride=2), nn.ReLU(), nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.Conv2d(4, 4, 3)),
    "bilinear": lambda: chain(first(stride=2), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(6, 4, 3)),
    "pixel shuffle": lambda: chain(first(8), nn.ELU(), nn.PixelShuffle(2), nn.Conv2d(2, 4, 3), nn.PixelUnshuffle(2), nn.CELU()),
    "fused multiply and add": lambda: Net(
        lambda net, images: net.after(torch.addcmul(images, net.conv(images), images.sigmoid())), conv=first(3), after=nn.Conv2d(3, 4, 3)
    ),
    "enlarged": lambda: chain(first(stride=2), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 3)),
    "instance norm with kept statistics": lambda: chain(
        first(), nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.ReLU(), nn.Conv2d(6, 4, 3)
    ),
    "group norm": lambda: chain(first(), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.GroupNorm(2, 6), nn.Conv2d(6, 4, 3)),
    "local response": lambda: chain(first(), nn.ReLU(), nn.LocalResponseNorm(3), nn.Conv2d(6, 4, 3)),
    "leaky and learned slopes": lambda: chain(first(), nn.PReLU(6), nn.Conv2d(6, 6, 3), nn.LeakyReLU(0.1), nn.Conv2d(6, 4, 3), nn.ELU()),
    "classifier": lambda: chain(
        first(),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(8, 5),
    ),
    "dense on a map": lambda: chain(first(2, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 9, 7), nn.ReLU(), nn.Linear(7, 5)),
}
SIZE = (23, 34)  # neither side divides evenly


def boxes_of(count: int, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Boxes of any size and place: single pixels, whole rows and columns, the corners and the whole picture among them."""
    sides = [np.where(generator.random(count) < 0.2, side, generator.integers(1, side // 2 + 1, count)) for side in size]
    sides = [np.where(generator.random(count) < 0.15, 1, side) for side in sides]
    starts = [generator.integers(0, length - side + 1) for length, side in zip(size, sides, strict=True)]
    starts = [
        np.select([(edge := generator.random(count)) < 0.2, edge < 0.4], [0, length - side], start)
        for length, side, start in zip(size, sides, starts, strict=True)
    ]
    return np.stack([starts[0], starts[1], starts[0] + sides[0], starts[1] + sides[1]], 1)


def replaced(picture: Tensor, source: Tensor, boxes: np.ndarray) -> Tensor:
    """The picture with each box replaced by what the source has there, (box 3 h w)."""
    pictures = picture.repeat(len(boxes), 1, 1, 1)
    for one, (y0, x0, y1, x1) in zip(pictures, boxes, strict=True):
        one[:, y0:y1, x0:x1] = source[0, :, y0:y1, x0:x1]
    return pictures


def wide(build: Build, seed: int = 0) -> nn.Module:
    return seeded(build, seed).double().eval()


def plain(model: nn.Module, pictures: Tensor) -> Tensor:
    """What the network makes of pictures, by itself."""
    mean, std = (torch.tensor(values, dtype=pictures.dtype).view(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return model((pictures - mean) / std)


def ready(model: nn.Module, size: tuple[int, int], *, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Rerun, Tensor, Tensor]:
    """The network on a random picture, the picture, and another one to take changes from."""
    picture, source = (draws(1, 3, *size, seed=2 * seed + number, dtype=dtype) for number in (0, 1))
    return rerun(Scope(model, Inputs(size=size, mean=MEAN, std=STD)), picture, "output"), picture, source


def fed(source: Tensor) -> Tensor:
    return Inputs(mean=MEAN, std=STD).normalize(source)


def run(again: Rerun, boxes: np.ndarray, source: Tensor) -> Tensor:
    """All boxes in one batch."""
    return again.run(again.planner.batch(boxes), fed(source))


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    assert found.shape == expected.shape and torch.isfinite(found).all()
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", NETS)
def test_equal_to_the_network_itself(name: str) -> None:
    model = wide(NETS[name])
    generator = np.random.default_rng(len(name))
    again, picture, source = ready(model, SIZE)
    for count in (1, 9, 40):
        boxes = boxes_of(count, SIZE, generator)
        expected = plain(model, replaced(picture, source, boxes))
        assert off(run(again, boxes, source), expected) < 1e-10
        for batch in again.planner.batches(boxes, 4):
            assert off(again.run(batch, fed(source)), expected[batch.members]) < 1e-10
    assert off(again.base, plain(model, picture)) < 1e-10, "a run changed what is kept"


@pytest.mark.parametrize(
    "name",
    "plain,ceil max,norm multiplied in,shuffle,permuted block,concatenation,classifier,softmax over channels,fused multiply and add".split(
        ","
    ),
)
def test_most_of_it_is_done_in_windows(name: str) -> None:
    """Equality alone would hold if everything fell back to whole maps."""
    again, _, _ = ready(wide(NETS[name]), SIZE)
    batch = again.planner.batch(np.array([[8, 12, 12, 16]]))
    maps = [index for index in batch.plan if min(again.nodes[index].size or (1, 1)) > 5]
    assert all(batch.plan[index] is not None for index in maps)
    assert batch.cost < 0.6


@pytest.mark.parametrize(
    "name", ["plain", "ceil max", "stride beyond the kernel", "residual of unlike windows", "shuffle", "permuted block"]
)
def test_equal_boxes_and_extreme_ones(name: str) -> None:
    model = wide(NETS[name])
    again, picture, source = ready(model, SIZE, seed=3)
    height, width = SIZE
    pixels = [(y, x, y + 1, x + 1) for y in range(height) for x in (0, 17, width - 1)]
    for boxes in (
        [(5, 7, 12, 15)] * 6,
        [(0, 0, *SIZE)],
        [(0, 0, *SIZE)] * 3,
        [(0, 0, 1, 1), (0, 0, *SIZE), (22, 33, 23, 34)],
        [(0, 0, height, 1), (0, width - 1, height, width), (0, 0, 1, width), (height - 1, 0, height, width)],
        pixels,
    ):
        array = np.array(boxes)
        assert off(run(again, array, source), plain(model, replaced(picture, source, array))) < 1e-10


def random_net(generator: np.random.Generator, size: tuple[int, int]) -> nn.Module:
    """A chain of 2 to 6 operations with random geometry that leaves something of a picture of this size."""

    def pick(*choices: int) -> int:
        return int(generator.choice(choices))

    def pair(*choices: int) -> tuple[int, int]:
        return pick(*choices), pick(*choices)

    while True:
        channels, parts = 3, []
        for _ in range(pick(2, 3, 4, 5, 6)):
            kind = generator.choice(["conv", "conv", "max", "average", "relu", "norm", "pad", "residual", "branches"])
            if kind == "conv":
                groups = pick(1, 1, channels)
                kernel, dilation = pair(1, 2, 3, 5), pair(1, 1, 2)
                more = channels * pick(1, 2) if groups > 1 else pick(4, 6)
                parts.append(nn.Conv2d(channels, more, kernel, pair(1, 1, 2, 3), pair(0, 1, 2), dilation, groups))
                channels = more
            elif kind in ("max", "average"):
                kernel, ceil = pair(2, 3), bool(generator.random() < 0.4)
                padding = tuple(pick(0, side // 2) for side in kernel)
                pool = nn.MaxPool2d if kind == "max" else nn.AvgPool2d
                more = {} if kind == "max" else {"count_include_pad": bool(generator.random() < 0.5)}
                parts.append(pool(kernel, pair(1, 2, 3), padding, ceil_mode=ceil, **more))
            elif kind == "pad":
                parts.append(nn.ConstantPad2d(tuple(pick(-1, 0, 1, 2) for _ in range(4)), 0.4))  # type: ignore[arg-type]
            elif kind == "residual":
                body = chain(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
                parts.append(Net(lambda net, values: net.body(values) + values, body=body))  # type: ignore[operator]
            elif kind == "branches":
                left, right = nn.Conv2d(channels, 2, (1, 3), padding=(0, 1)), nn.MaxPool2d(3, 1, 1)
                parts.append(Net(lambda net, values: torch.cat([net.left(values), net.right(values)], 1), left=left, right=right))  # type: ignore[operator]
                channels += 2
            else:
                parts.append(nn.ReLU(inplace=bool(generator.random() < 0.5)) if kind == "relu" else nn.BatchNorm2d(channels))
        model = chain(nn.Identity(), *parts) if generator.random() < 0.5 else chain(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        try:
            with torch.no_grad():
                if model.eval()(torch.zeros(1, 3, *size)).numel() and any(isinstance(part, nn.Conv2d) for part in model.modules()):
                    return model
        except RuntimeError:
            continue  # nothing left of the picture


@pytest.mark.parametrize("seed", range(60))
def test_random_networks(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = (int(generator.integers(9, 40)), int(generator.integers(9, 40)))
    model = wide(lambda: random_net(generator, size), seed)
    again, picture, source = ready(model, size, seed=seed)
    boxes = boxes_of(int(generator.integers(1, 20)), size, generator)
    assert off(run(again, boxes, source), plain(model, replaced(picture, source, boxes))) < 1e-10, model


@pytest.mark.parametrize("seed", range(40))
def test_spans_are_what_changes_and_nothing_more(seed: int) -> None:
    """With positive weights a change cannot cancel: the rows and columns that change are counted."""
    generator = np.random.default_rng(1000 + seed)
    size = (int(generator.integers(12, 30)), int(generator.integers(12, 30)))

    def build() -> nn.Module:
        def pair(*choices: int) -> tuple[int, int]:
            return int(generator.choice(choices)), int(generator.choice(choices))

        # kernels at least as large as the stride before dilation leaves gaps, so that what changes is an interval
        kernels = [pair(2, 3), pair(2, 3)]
        parts = [
            nn.Conv2d(3 if not parts else 2, 2, kernel, pair(1, 2), pair(0, 1)) for parts, kernel in zip([[], [1]], kernels, strict=True)
        ]
        return chain(parts[0], nn.AvgPool2d(2, 2, 1), parts[1])

    model = wide(build, seed)
    for parameter in model.parameters():
        parameter.data.abs_().add_(0.1)
    again, picture, _ = ready(model, size, seed=seed)
    boxes = boxes_of(12, size, generator)
    changed = plain(model, replaced(picture, picture + 1, boxes)) != plain(model, picture)
    span = again.planner.spans(boxes)[again.last]
    assert span is not None
    for number in range(len(boxes)):
        hit = [np.flatnonzero(changed[number].any(0).any(1 - axis).numpy()).tolist() for axis in (0, 1)]
        low = [max(0, int(span[axis][0][number])) for axis in (0, 1)]
        high = [min(changed.shape[2 + axis] - 1, int(span[axis][1][number])) for axis in (0, 1)]
        reached = [list(range(low[axis], high[axis] + 1)) for axis in (0, 1)]
        assert hit == reached or hit == [[], []]  # a change may vanish between the positions of a stride
        assert again.planner.least(boxes[number : number + 1])[0] <= again.planner.batch(boxes[number : number + 1]).cost + 1e-12


# the networks of torchvision


def unlike(name: str) -> nn.Module:
    """A network of torchvision with random weights; its batch norms near what they see, so that rounding is not blown up layer by layer."""
    model = torchvision_network(name).eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(draws(4, 3, 96, 96, seed=5) * 4 - 2)
    generator = torch.Generator().manual_seed(1)
    for norm in norms:
        norm.eval()
        shift, spread, gain = torch.rand(3, norm.num_features, generator=generator) - 0.5
        norm.running_var.clamp_(min=0.1 * float(norm.running_var.mean()))  # type: ignore[union-attr, operator]
        norm.running_mean += 0.6 * shift * norm.running_var.sqrt()  # type: ignore[union-attr]
        norm.running_var *= 1 + 0.5 * spread  # type: ignore[operator]
        norm.weight.data *= 1 + 0.5 * gain
    return model


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CONVOLUTIONAL])
def test_torchvision(name: str) -> None:
    size = (80, 96) if name in ("inception_v3", "googlenet", "alexnet") else (64, 80)
    model = unlike(name)
    before = state_of(model)
    generator = np.random.default_rng(7)
    boxes = np.concatenate([boxes_of(3, size, generator), [[20, 30, 36, 46], [0, 0, 7, 9], [size[0] - 8, size[1] - 8, *size]]])
    again, picture, source = ready(model, size, dtype=torch.float32)
    pictures = replaced(picture, source, boxes)
    found = run(again, boxes, source)
    assert state_of(model) == before
    usual = plain(model, pictures), in_channels_last(model, pictures)
    del again
    model = model.double()
    exact = plain(model, pictures.double())
    assert exact.std(0).max() > 1e-4 * exact.abs().max(), "the changes change nothing: the test's own weights are no good"
    assert off(found.double(), exact) < max(1e-5, 5 * max(off(values.double(), exact) for values in usual))
    # random weights blow rounding up in some deep networks, which then differ as much from themselves in another memory layout
    wide, picture, source = ready(model, size)
    pictures = replaced(picture, source, boxes)
    found, exact = run(wide, boxes, source), plain(model, pictures)
    assert off(found, exact) < max(1e-10, 5 * off(in_channels_last(model, pictures), exact))


def in_channels_last(model: nn.Module, pictures: Tensor) -> Tensor:
    """What a network makes of pictures in another memory layout; its weights are put back as they were."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    made = plain(model, pictures.contiguous(memory_format=torch.channels_last))
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return made


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18", "squeezenet1_0", "mobilenet_v2", "densenet121", "convnext_tiny"])
def test_bfloat16_stays_close(name: str) -> None:
    model, size = unlike(name), (64, 80)
    scope = Scope(model, Inputs(size=size, mean=MEAN, std=STD))
    picture, source = draws(1, 3, *size), draws(1, 3, *size, seed=1)
    boxes = boxes_of(12, size, np.random.default_rng(3))
    exact = run(rerun(scope, picture, "output"), boxes, source)
    rough = run(rerun(scope, picture, "output", precision="bfloat16"), boxes, source)
    assert rough.dtype == torch.float32  # what comes after the last weights is wide
    with torch.no_grad(), scope.session("bfloat16"):
        usual = scope.run(replaced(picture, source, boxes), "output")["output"]
    assert 0 < off(rough.float(), exact) < max(0.01, 2 * off(usual, exact)), "rougher than full inference in bfloat16"
    near = picture + 0.01 * (source - picture)
    exactly, roughly = (run(rerun(scope, picture, "output", precision=precision), boxes, near) for precision in ("float32", "bfloat16"))
    ratio = float((roughly - exactly).square().mean().sqrt() / (rough - exact).square().mean().sqrt())  # steadier than maxima
    assert ratio < 0.05, "of a change a hundred times as small, a hundredth is rounded away: what is rounded is the change, not the value"
    assert scope.model is model and all(parameter.dtype == torch.float32 for parameter in model.parameters())


def centred(patch: int) -> np.ndarray:
    start = (224 - patch) // 2
    return np.array([[start, start, start + patch, start + patch]])


WHOLE_MAP = np.array([(y, x, y + 16, x + 16) for y in range(0, 209, 8) for x in range(0, 209, 8)])


@pytest.mark.parametrize(
    ("name", "whole", "centre"),
    [
        ("vgg16", 8.88, {4: 9.53, 8: 9.16, 16: 6.54, 32: 5.25}),
        ("vgg19", 7.17, {4: 6.67, 8: 5.69, 16: 5.48, 32: 4.23}),
        ("alexnet", 3.48, {4: 2.86, 8: 2.86, 16: 2.74, 32: 1.99}),
        ("resnet18", 2.80, {4: 2.54, 8: 2.52, 16: 2.19, 32: 2.07}),
        ("resnet50", 2.77, {4: 2.30, 8: 2.22, 16: 2.20, 32: 1.94}),
    ],
)
def test_what_can_be_saved_is_what_others_counted(name: str, whole: float, centre: dict[int, float]) -> None:
    again = rerun(Scope(torchvision_network(name), Inputs(size=224)), draws(1, 3, 224, 224), "output")
    assert 1 / again.planner.least(WHOLE_MAP).mean() == pytest.approx(whole, abs=0.02)
    assert {patch: round(float(1 / again.planner.least(centred(patch))[0]), 2) for patch in centre} == pytest.approx(centre, abs=0.02)


# batches


@pytest.mark.parametrize("name", ["plain", "classifier", "dense on a map", "residual", "squeeze and excitation", "shuffle"])
@pytest.mark.parametrize("full", [1, 3, 50])
def test_batches_hold_every_box_once_and_no_more_memory_than_promised(name: str, full: int) -> None:
    again, _, source = ready(wide(NETS[name]), SIZE)
    boxes = boxes_of(90, SIZE, np.random.default_rng(full))
    parts = again.planner.batches(boxes, full)
    assert sorted(np.concatenate([batch.members for batch in parts]).tolist()) == list(range(90))
    assert all((boxes[batch.members] == batch.boxes).all() for batch in parts)
    sizes = {index: int(np.prod(node.shape)) for index, node in again.nodes.items()}
    at_an_operation = max(sizes[index] + sum(sizes[edge.node] for edge in node.edges) for index, node in again.nodes.items())
    for batch in parts:
        made: list[int] = []
        step = again._step

        def watched(*arguments: object, step=step, made=made) -> object:
            value = step(*arguments)
            made.append((value if isinstance(value, Tensor) else value.value).numel())
            return value

        again._step = watched  # type: ignore[method-assign]
        again.run(batch, fed(source))
        again._step = step  # type: ignore[method-assign]
        assert max(made) <= full * at_an_operation or len(batch.boxes) == 1


def test_batches_bring_the_cost_near_the_least() -> None:
    again, _, _ = ready(torchvision_network("resnet18").eval(), (112, 112), dtype=torch.float32)
    boxes = np.array([(y, x, min(y + 16, 112), min(x + 16, 112)) for y in range(0, 105, 8) for x in range(0, 105, 8)])
    sorted_out = sum(batch.cost * len(batch.boxes) for batch in again.planner.batches(boxes, 64)) / len(boxes)
    assert again.planner.least(boxes).mean() <= sorted_out <= again.planner.batch(boxes).cost


# what cannot be repeated


def decides(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    return raw if raw.mean() > 0 else -raw


def changed_through_a_view(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    raw[:, :2].mul_(0.5)
    return net.after(raw)  # type: ignore[operator]


def one_by_one(net: Net, images: Tensor) -> Tensor:
    return torch.stack([net.conv(image[None])[0] for image in images])  # type: ignore[operator]


def the_first_alone(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    return raw - raw[:1]


def compared(net: Net, images: Tensor) -> Tensor:
    raw = net.conv(images)  # type: ignore[operator]
    return raw / (1 + raw.abs().amax(0, keepdim=True))


REFUSED: dict[str, tuple[Build, str]] = {
    "a decision on values": (lambda: Net(decides, conv=first()), "decides on values"),
    "a value changed through a view": (lambda: Net(changed_through_a_view, conv=first(), after=nn.Conv2d(6, 4, 3)), "overwritten"),
    "circular padding": (lambda: chain(nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), nn.Conv2d(6, 4, 3)), "overwritten"),
    "statistics of the picture": (lambda: chain(first(), nn.InstanceNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3)), "statistics"),
    "statistics of the batch": (
        lambda: chain(first(), Net(lambda net, values: F.batch_norm(values, None, None, training=True))),
        "statistics",
    ),
    "dropout that stays on": (lambda: chain(first(), Net(lambda net, values: F.dropout(values, 0.5, training=True))), "draws"),
    "a loop over the batch": (lambda: Net(one_by_one, conv=first()), "batch"),
    "the first of the batch": (lambda: Net(the_first_alone, conv=first()), "batch"),
    "the largest of the batch": (lambda: Net(compared, conv=first()), "batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_repeated_for_a_batch_is_refused(name: str) -> None:
    """What these networks computed for one picture alone says nothing of what they would for several: better slow than wrong."""
    build, words = REFUSED[name]
    model = wide(build)
    scope = Scope(model, Inputs(size=SIZE, mean=MEAN, std=STD))
    if name not in ("a value changed through a view", "circular padding"):  # these are told by their images alone, not by their record
        with pytest.raises(NotRepeatable, match=words):
            Replay(scope.graph, scope.layers["output"].node or 0)
    with pytest.raises(NotRepeatable):
        ready(model, SIZE)


def test_inner_layers_and_pictures_of_another_size() -> None:
    model = wide(NETS["classifier"])
    scope = Scope(model, Inputs(size=SIZE, mean=MEAN, std=STD))
    size = (29, 18)
    picture, source = draws(1, 3, *size, dtype=torch.float64), draws(1, 3, *size, seed=1, dtype=torch.float64)
    boxes = boxes_of(9, size, np.random.default_rng(0))
    for layer in ("0", "1", "3", "4", "output"):
        want = scope.run(replaced(picture, source, boxes), layer)[layer]
        assert off(run(rerun(scope, picture, layer), boxes, source), want) < 1e-10
    with pytest.raises(Exception, match="no layer 'x'"):
        rerun(scope, picture, "x")
