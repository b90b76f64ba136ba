"""The first convolution's way back to the picture against torch's own."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.fast.stem import Stem
from convscope.optimize.objectives import unit
from convscope.scope import Inputs, Scope
from convscope.scope.edits import average_pooling
from hand_built import draws, seeded

Shape = tuple[int, int]
STEMS: dict[str, tuple[Shape, int, Shape, Shape]] = {  # kernel, stride, padding, picture
    "vgg": ((3, 3), 1, (1, 1), (20, 23)),
    "unpadded": ((3, 3), 1, (0, 0), (9, 10)),
    "resnet": ((7, 7), 2, (3, 3), (31, 32)),
    "squeezenet": ((7, 7), 2, (0, 0), (32, 37)),
    "alexnet": ((11, 11), 4, (2, 2), (63, 64)),
    "mobilenet": ((3, 3), 2, (1, 1), (33, 32)),
    "convnext": ((4, 4), 4, (0, 0), (35, 34)),
    "patches": ((16, 16), 16, (0, 0), (50, 80)),
    "pointwise": ((1, 1), 1, (0, 0), (5, 6)),
    "gaps between windows": ((2, 2), 3, (0, 0), (11, 13)),
    "kernel that is no square": ((3, 5), 2, (1, 0), (17, 18)),
    "more padding than kernel": ((3, 3), 1, (4, 3), (9, 10)),
    "stride of three": ((5, 3), 3, (2, 5), (19, 20)),
}


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_derivatives_are_torchs(name: str, biased: bool) -> None:
    kernel, stride, padding, size = STEMS[name]
    kernels, bias = draws(6, 3, *kernel, seed=1).double() - 0.5, draws(6, seed=2).double() if biased else None
    stem = Stem.of(kernels, bias, [stride, stride], padding, [1, 1], 1)
    assert stem is not None
    pictures = draws(2, 3, *size, seed=3).double().requires_grad_()
    plain, ours = F.conv2d(pictures, kernels, bias, stride, padding), stem(pictures)
    assert torch.equal(ours, plain)
    seed = draws(*plain.shape, seed=4).double() - 0.5
    (expected,), (found,) = torch.autograd.grad(plain, pictures, seed), torch.autograd.grad(ours, pictures, seed)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_the_way_back_can_be_differentiated_and_taken_for_many_seeds_at_once() -> None:
    stem = Stem.of(draws(4, 3, 3, 3).double() - 0.5, None, [1, 1], [1, 1], [1, 1], 1)
    assert stem is not None
    pictures = draws(1, 3, 6, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(stem, (pictures,)) and torch.autograd.gradgradcheck(stem, (pictures,))
    value = stem(pictures)
    seeds = draws(3, *value.shape).double()
    (together,) = torch.autograd.grad(value, pictures, seeds, is_grads_batched=True, retain_graph=True)
    for seed, found in zip(seeds, together, strict=True):
        torch.testing.assert_close(found, torch.autograd.grad(value, pictures, seed, retain_graph=True)[0])


@pytest.mark.parametrize(
    ("kernels", "stride", "padding", "dilation", "groups"),
    [
        (draws(4, 8, 3, 3), [1, 1], [1, 1], [1, 1], 1),
        (draws(3, 1, 3, 3), [1, 1], [1, 1], [1, 1], 3),
        (draws(4, 3, 3, 3), [1, 2], [1, 1], [1, 1], 1),
        (draws(4, 3, 3, 3), [1, 1], [1, 1], [2, 2], 1),
        (draws(4, 3, 3, 3), [1, 1], "same", [1, 1], 1),
        (draws(4, 3, 3, 3).requires_grad_(), [1, 1], [1, 1], [1, 1], 1),
    ],
    ids=["many channels", "grouped", "two strides", "dilated", "padding by name", "trained"],
)
def test_other_convolutions_are_left_to_torch(
    kernels: Tensor, stride: list[int], padding: list[int] | str, dilation: list[int], groups: int
) -> None:
    assert Stem.of(kernels, None, stride, padding, dilation, groups) is None


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "squeezenet1_0", "mobilenet_v2", "densenet121"])
def test_real_networks_take_that_way_in_lean_sessions_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = Scope(seeded(lambda: torchvision.models.get_model(name, weights=None)).double(), Inputs(96), name=name)
    asked: list[Shape] = []
    back = Stem.backward
    monkeypatch.setattr(
        Stem, "backward", lambda stem, gradient, height, width: (asked.append((height, width)), back(stem, gradient, height, width))[1]
    )
    slopes: list[Tensor] = []
    for lean in (False, True):
        pictures = draws(2, 3, 96, 90).double().requires_grad_()
        with scope.session(lean=lean):
            score = unit("output", [3, 20])(scope, pictures)
        slopes.append(torch.autograd.grad(score.sum(), pictures)[0])
        assert len(asked) == lean
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-9, atol=1e-11 * float(slopes[0].abs().max()))


class Twice(nn.Module):
    """A first convolution whose kernels are used again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(F.max_pool2d(self.conv(images).relu(), 2)).mean((2, 3))


@pytest.mark.parametrize("kind", [Twice, lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3))])
def test_average_pooling_in_a_lean_session(kind: type[nn.Module]) -> None:
    scope, images = Scope(seeded(kind).double(), Inputs(16)), draws(2, 3, 16, 14).double() - 0.5
    layer = list(scope.layers)[-1]
    found: list[Tensor] = []
    for lean in (False, True):
        pictures = images.clone().requires_grad_()
        with scope.session(lean=lean):
            value = scope.run(pictures, [layer], edit=average_pooling(), channels_first=True)[layer]
        found += [value.detach(), torch.autograd.grad(value.square().sum(), pictures)[0]]
    torch.testing.assert_close(found[2:], found[:2], rtol=1e-12, atol=1e-13)
    with scope.session(lean=True):
        assert not torch.allclose(scope.run(images, [layer], channels_first=True)[layer], found[0])
