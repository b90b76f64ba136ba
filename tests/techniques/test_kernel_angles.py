"""Kernel angles: a slow twin in float64 by scalar products and arc cosines, patches that do not overlap, groups, padding, deeper layers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
import hand_built
import promises
from convscope import render
from convscope.errors import BadInput, LayerNotFound, UnitNotFound
from convscope.scope import Inputs, Scope
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: cs.kernel_angles(s, "4", [1, 3], promises.IMAGES, top=3), "result.median.tolist()", forwards=len(promises.IMAGES)
)


def scope_of(*modules: nn.Module, size: int = 14) -> Scope:
    return Scope(hand_built.seeded(lambda: nn.Sequential(*modules)), Inputs(size=size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)))


def patches_slowly(convolution: nn.Conv2d, reads: torch.Tensor, unit: int) -> dict[tuple[int, int], tuple[float, float]]:
    """{(y, x): (angle in degrees, value)} of one input (c h w), one number at a time; patches that reach into the padding are left out."""
    kernel = convolution.weight.detach().double()[unit].tolist()
    bias = 0.0 if convolution.bias is None else float(convolution.bias.detach()[unit])
    first = unit // (convolution.out_channels // convolution.groups) * len(kernel)
    (sy, sx), (py, px), (dy, dx) = convolution.stride, convolution.padding, convolution.dilation  # type: ignore[misc]
    values, found = reads.double().tolist(), {}
    height, width = len(values[0]), len(values[0][0])
    for y in range((height + 2 * py) // sy + 1):
        for x in range((width + 2 * px) // sx + 1):
            top, left = y * sy - py, x * sx - px
            bottom, right = top + dy * (len(kernel[0]) - 1), left + dx * (len(kernel[0][0]) - 1)
            if top < 0 or left < 0 or bottom >= height or right >= width:
                continue
            pairs = [
                (w, values[first + c][top + dy * i][left + dx * j])
                for c, plane in enumerate(kernel)
                for i, row in enumerate(plane)
                for j, w in enumerate(row)
            ]
            product = math.fsum(w * v for w, v in pairs)
            length = math.sqrt(math.fsum(w * w for w, _ in pairs)) * math.sqrt(math.fsum(v * v for _, v in pairs))
            if length > 0:
                found[y, x] = math.degrees(math.acos(max(-1.0, min(1.0, product / length)))), product + bias
    return found


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(3, 4, 3),
    "padded": lambda: nn.Conv2d(3, 4, (3, 5), padding=(1, 3)),
    "strided": lambda: nn.Conv2d(3, 4, 4, stride=(3, 2), padding=1, bias=False),
    "dilated": lambda: nn.Conv2d(3, 4, 3, dilation=(2, 1), padding=2),
    "grouped": lambda: nn.Conv2d(3, 6, 3, groups=3),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_against_a_slow_twin(kind: str) -> None:
    scope = scope_of(CONVOLUTIONS[kind]())
    (convolution,) = scope.model.children()
    images, units, top = draws(2, 3, 14, 14), [3, 0], 2
    made = cs.kernel_angles(scope, "0", units, images, top=top)
    assert made.angles.shape == (2, top + 2) and made.reads == "the image"
    for row, unit in enumerate(units):
        slow = {
            (number, *at): patch
            for number, image in enumerate(images)
            for at, patch in patches_slowly(convolution, scope.inputs.normalize(image[None])[0], unit).items()  # type: ignore[arg-type]
        }
        places = [(int(image), *map(int, at)) for image, at in zip(made.images[row], made.positions[row], strict=True)]
        for place, key in enumerate(places):
            np.testing.assert_allclose([made.angles[row, place], made.values[row, place]], slow[key], atol=1e-4, rtol=1e-6)
        assert made.histogram[row].sum() == len(slow)
        bins = np.histogram([angle for angle, _ in slow.values()], 180, (0, 180))[0]
        assert np.abs(made.histogram[row] - bins).sum() <= 2, "a rounding may cross a bin"
        assert made.angles[row, 0] == pytest.approx(min(angle for angle, _ in slow.values()), abs=1e-4)
        assert made.values[row, -2] == pytest.approx(max(value for _, value in slow.values()), rel=1e-6)
        assert made.angles[row, -1] == pytest.approx(max(angle for angle, _ in slow.values()), abs=1e-4)
        pairs = np.array([(math.cos(math.radians(angle)), value) for angle, value in slow.values()])
        assert made.correlation[row] == pytest.approx(np.corrcoef(pairs.T)[0, 1], abs=1e-6)


def test_the_nearest_that_do_not_overlap() -> None:
    scope = scope_of(nn.Conv2d(3, 2, 3, padding=1))
    (convolution,) = scope.model.children()
    images = draws(2, 3, 14, 14, seed=5)
    made = cs.kernel_angles(scope, "0", 1, images, top=5)
    expected: list[tuple[float, int, int, int]] = []
    for number, image in enumerate(images):
        left = patches_slowly(convolution, scope.inputs.normalize(image[None])[0], 1)  # type: ignore[arg-type]
        while left:
            y, x = min(left, key=lambda at: left[at][0])
            expected.append((left[y, x][0], number, y, x))
            left = {at: patch for at, patch in left.items() if abs(at[0] - y) >= 3 or abs(at[1] - x) >= 3}
    found = [(int(image), *map(int, at)) for image, at in zip(made.images[0, :5], made.positions[0, :5], strict=True)]
    assert found == [place[1:] for place in sorted(expected)[:5]]
    for place, (number, y, x) in enumerate(found):
        window = np.asarray(images[number, :, y - 1 : y + 2, x - 1 : x + 2])
        np.testing.assert_array_equal(made.patches[0, place], window)


def test_a_patch_that_is_the_kernel_has_no_angle_and_its_negative_the_largest() -> None:
    scope = scope_of(nn.Conv2d(3, 1, 3, bias=False), size=9)
    kernel = next(scope.model.parameters()).detach()[0]
    patch = scope.inputs.denormalize(kernel[None] * 0.3)[0]
    against = scope.inputs.denormalize(kernel[None] * -0.2)[0]
    assert patch.min() >= 0 and patch.max() <= 1
    image = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0))
    image[:, 1:4, 2:5], image[:, 5:8, 4:7] = patch, against
    made = cs.kernel_angles(scope, "0", 0, image, top=1)
    assert made.angles[0, 0] == pytest.approx(0, abs=0.05) and made.positions[0, 0].tolist() == [1, 2]
    assert made.angles[0, -1] == pytest.approx(180, abs=0.05) and made.positions[0, -1].tolist() == [5, 4]


def test_deeper_layers_read_the_layer_before(scope: Scope, small: nn.Module) -> None:
    images = draws(2, 3, 24, 24)
    made = cs.kernel_angles(scope, "4", [2], images, top=1)
    reads = scope.activations(images, made.reads)[made.reads]
    slow = [patches_slowly(small[4], value, 2) for value in reads]  # type: ignore[index]
    assert made.reads == "3" and made.angles[0, 0] == pytest.approx(min(a for one in slow for a, _ in one.values()), abs=1e-3)
    field = cs.receptive_field(scope, "4")
    image, (y, x) = int(made.images[0, 0]), made.positions[0, 0]
    y0, x0, y1, x1 = field.box(int(y), int(x), clipped=False)
    assert made.patches.shape[-2:] == (y1 - y0, x1 - x0)
    top, left, bottom, right = (max(y0, 0), max(x0, 0), min(y1, 24), min(x1, 24))
    inside = made.patches[0, 0][:, top - y0 : bottom - y0, left - x0 : right - x0]
    np.testing.assert_array_equal(inside, np.asarray(images[image, :, top:bottom, left:right]))
    assert render.png(made.view())


def test_store_model_and_repetition(scope: Scope, small: nn.Module, tmp_path: Path) -> None:
    hand_built.unsettle(small)
    before = hand_built.state_of(small)
    images = draws(2, 3, 24, 24)
    made = cs.kernel_angles(scope, "0", [0, 5], images)
    assert (cs.kernel_angles(scope, "0", [0, 5], images).angles == made.angles).all() and hand_built.state_of(small) == before
    loaded = cs.load(made.save(tmp_path / "angles"))
    assert isinstance(loaded, cs.KernelAngles) and loaded.summary() == made.summary() and (loaded.median == made.median).all()
    assert render.png(loaded.view()) == render.png(made.view())


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"layer": "9"}, LayerNotFound, "no layer '9'"),
        ({"layer": "2"}, BadInput, "has no kernels to show; convolutions near it: 0, 4"),
        ({"units": 6}, UnitNotFound, "units 0 to 5, got 6"),
        ({"top": 0}, BadInput, "top must be a whole number of at least 1, got 0"),
        ({"images": torch.full((1, 3, 24, 24), 0.5)}, BadInput, "unit 0: no patch to compare"),
    ],
)
def test_wrong_questions(wrong: dict[str, object], error: type[Exception], words: str) -> None:
    scope = Scope(hand_built.small(), Inputs(size=24, mean=0.5, std=0.2))
    asked = {"layer": "0", "units": 0, "images": draws(1, 3, 24, 24)} | wrong
    with pytest.raises(error, match=words) as caught:
        cs.kernel_angles(scope, **asked)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
