"""Images of other than three channels: grey ones, and stacks of 4, 6 or 13 channels as satellites and microscopes make them.

Also tried: every technique with 1, 2, 4, 6 and 13 channels, saved, loaded and shown; on the command line RGBA, CMYK, 16 bit and .npy files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as transforms
from PIL import Image
from torch import Tensor, nn

import convscope as cs
import hand_built
from convscope.errors import BadInput
from convscope.optimize.parameterizations import PARAMETERIZATIONS
from convscope.preprocessing import Preprocessing
from convscope.results import channels
from convscope.results.base import Result
from convscope.scope import Inputs, Scope

SIDE = 24


def photo(width: int = 40, height: int = 31) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


def scope_of(count: int, **inputs: Any) -> Scope:
    return Scope(hand_built.small(count), Inputs(size=SIDE, **inputs), precision="float32")


# --- how many channels there are


@pytest.mark.parametrize(
    ("inputs", "count"),
    [
        ({}, 3),
        ({"mean": 0.5}, 3),
        ({"mean": 0.5, "std": 0.25}, 3),
        ({"mean": (0.13,), "std": (0.31,)}, 1),
        ({"mean": [0.1] * 6}, 6),
        ({"std": np.full(4, 0.5)}, 4),
        ({"channels": 13}, 13),
        ({"channels": 1, "mean": 0.5}, 1),
    ],
)
def test_channels_follow_from_what_is_said(inputs: dict[str, Any], count: int) -> None:
    made = Inputs(**inputs)
    assert made.channel_count == count == len(made.means) == len(made.stds) == len(made.manifest()["mean"])
    assert all(one == (np.ravel(inputs.get("mean", 0.0))[0]) for one in made.means)
    assert replace(made, size=32).channel_count == count


class Rearranged(nn.Module):
    """Space to depth before the first convolution, as in TResNet: it reads 48 channels, the network 3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(48, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.stem(nn.functional.pixel_unshuffle(images, 4))


def test_channels_follow_from_the_network_where_it_is_clear() -> None:
    for count in (1, 2, 4, 6, 13):
        assert scope_of(count).inputs.channel_count == count
        assert scope_of(count, mean=0.5).inputs.means == (0.5,) * count
    assert Scope(Rearranged(), Inputs(size=24)).inputs.channel_count == 3
    assert Scope(Rearranged(), Inputs(size=24)).layers["stem"].shape == (4, 4, 4)
    given = Inputs(size=24, mean=(0.4, 0.5, 0.6))
    assert Scope(hand_built.small(), given).inputs is given
    assert Scope(hand_built.Residual(), Inputs(size=24)).inputs.channel_count == 3, "a convolution that is registered first reads 4"


# --- how images are read


def test_files_become_grey(tmp_path: Path) -> None:
    photo().save(tmp_path / "photo.png")
    inputs = Inputs(size=SIDE, mean=(0.13,), std=(0.31,))
    expected = transforms.functional.to_dtype(
        transforms.functional.pil_to_tensor(Image.fromarray(Inputs(size=SIDE).preprocessing.fit(photo())).convert("L")),
        torch.float32,
        scale=True,
    )
    for image in (tmp_path / "photo.png", photo(), np.asarray(photo())):
        torch.testing.assert_close(inputs(image), expected, rtol=0, atol=1e-7)
    assert inputs.uncropped(photo(), 20).shape == (1, 16, 20)
    assert torch.equal(inputs.normalize(expected[None]), (expected[None] - 0.13) / 0.31)


def test_grey_arrays_of_digits() -> None:
    digit = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    inputs = Inputs(size=28, channels=1)
    for form in (digit, digit[..., None], Image.fromarray(digit)):
        assert torch.equal(inputs(form), torch.from_numpy(digit / np.float32(255))[None])
    assert torch.equal(inputs(digit[None] / np.float32(255)), inputs(digit))
    assert inputs.batch([digit, digit]).shape == (2, 1, 28, 28)


@pytest.mark.parametrize("count", [2, 4, 6, 13])
def test_stacks(count: int) -> None:
    inputs = Inputs(size=SIDE, channels=count)
    floats = np.random.default_rng(0).random((3, count, 30, 20))
    assert torch.equal(inputs.batch(floats), torch.from_numpy(floats)) and inputs.batch(floats.astype(np.float32)).dtype == torch.float32
    assert torch.equal(inputs(floats[0]), torch.from_numpy(floats[0]))
    assert inputs.batch(list(floats)).shape == (3, count, 30, 20)
    eight = np.random.default_rng(1).integers(0, 256, (31, 40, count), dtype=np.uint8)
    read = inputs(eight)
    for channel in range(count):
        alone = Preprocessing(SIDE).fit(Image.fromarray(eight[..., channel]).convert("RGB"))[..., 0]
        assert np.array_equal(read[channel].numpy(), alone / np.float32(255))


def test_files_are_no_stacks(tmp_path: Path) -> None:
    photo().save(tmp_path / "photo.png")
    scope = scope_of(6, channels=6)
    asked: list[Callable[[], object]] = [
        lambda: scope.activations(tmp_path / "photo.png", "5"),
        lambda: scope.activations([photo(), photo()], "5"),
        lambda: cs.spectrum(scope, "5", tmp_path),
        lambda: cs.style_similarity(scope, [tmp_path / "photo.png"] * 2),
        lambda: cs.scan(scope, tmp_path, tmp_path / "survey"),
    ]
    for ask in asked:
        with pytest.raises(BadInput, match="takes 6 channels, and image files have three: pass arrays") as error:
            ask()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.rand(3, 24, 24), r"\(6 h w\) in \[0,1\], got torch.float32 \(3, 24, 24\)"),
        (torch.rand(2, 3, 24, 24), r"\(n 6 h w\)"),
        (np.zeros((24, 24, 3), np.uint8), r"\(h w 6\), got uint8 \(24, 24, 3\)"),
        (np.zeros((24, 24, 6), np.uint16), r"got uint16 \(24, 24, 6\)"),
        (np.zeros((4, 24, 6), np.uint8), "too small"),
        (np.full((6, 24, 24), 5000.0), "divide by"),
    ],
)
def test_what_does_not_fit(image: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Inputs(size=SIDE, channels=6).batch(image)


def test_a_grey_scan_measures_what_techniques_see(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        photo(30 + number).save(folder / f"{number}.png")
    scope = scope_of(1, mean=(0.13,), std=(0.31,))
    survey = cs.scan(scope, folder, tmp_path / "survey", layers=["5"])
    seen = scope.activations(folder, ["5", "output"])
    np.testing.assert_allclose(survey.maximum("5"), seen["5"].amax((2, 3)).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(survey.maximum("output"), seen["output"].numpy(), rtol=1e-4, atol=1e-5)


# --- how images are made and shown


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("count", [1, 3, 6])
def test_images_are_written_with_their_channels(name: str, count: int) -> None:
    form = PARAMETERIZATIONS[name](Inputs(size=SIDE, channels=count), (0.0, 0.5))
    parameters = form.start(10, 12, [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    assert form.image(parameters, 10, 12).shape == (2, count, 10, 12)


def test_the_first_channel_of_an_image_without_colours_is_its_own() -> None:
    """Of other than RGB images no channel depends on another one's parameters."""
    form = PARAMETERIZATIONS["fourier"](Inputs(channels=4), (0.0, 0.5))
    parameters = form.start(8, 8, [torch.Generator().manual_seed(0)])
    changed = parameters.clone()
    changed[:, 2] += 1
    same = (form.image(parameters, 8, 8) == form.image(changed, 8, 8)).flatten(2).all(2)[0]
    assert same.tolist() == [True, True, False, True]


def result_of(rgb: object) -> Result:
    return Result(manifest={"network": {"inputs": {"rgb": rgb}}})


def test_what_is_shown() -> None:
    stack = np.random.default_rng(0).random((6, 4, 5))
    named = result_of([3, 2, 1])
    assert np.array_equal(channels.shown(named, stack), stack[[3, 2, 1]]) and np.array_equal(
        channels.backdrop(named, stack), stack[[3, 2, 1]]
    )
    plain = result_of(None)
    grid = channels.shown(plain, stack)
    assert grid.shape == (3, 9, 17)
    for number in range(6):
        y, x = 5 * (number // 3), 6 * (number % 3)
        assert np.array_equal(grid[:, y : y + 4, x : x + 5], np.repeat(stack[None, number], 3, 0))
    assert (grid[:, 4] == 1).all() and (grid[:, :, 5] == 1).all()
    assert np.allclose(channels.backdrop(plain, stack), stack.mean(0))
    for one in (stack[:1], stack[:3]):
        assert np.array_equal(channels.shown(plain, one), np.broadcast_to(one, (3, 4, 5)))
    assert channels.note(plain, 3) == channels.note(plain, 1) == ""
    assert channels.note(named, 6) == "Red, green and blue: channels 3, 2 and 1 of 6."


@pytest.mark.parametrize("rgb", ["321", [3, 2], [3, 2, 9], [True, 1, 2], {"0": 1}, [3.5, 2, 1], 7])
def test_what_a_file_says_wrongly_of_colours_is_not_followed(rgb: object) -> None:
    assert channels.shown(result_of(rgb), np.zeros((6, 4, 5))).shape == (3, 9, 17)


def test_fills() -> None:
    scope = scope_of(6, channels=6, mean=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    image = hand_built.draws(1, 6, SIDE, SIDE)
    for fill in (
        "gray",
        "median",
        "mean",
        "blur",
        "article",
        0.25,
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        hand_built.draws(6, SIDE, SIDE, seed=1),
    ):
        assert cs.occlusion(scope, image, patch=12, stride=12, fill=fill, method="full").map.shape == (1, 2, 2)
    for fill, words in (("#ff0000", "have 6 channels; give a grey value"), ((1, 0, 0), "a colour is 6 numbers, one for each channel")):
        with pytest.raises(BadInput, match=words):
            cs.occlusion(scope, image, patch=12, stride=12, fill=fill)


def test_filters_of_named_channels(tmp_path: Path) -> None:
    for scope in (scope_of(6, channels=6, rgb=(5, 0, 2)), scope_of(1)):
        grid = cs.weight_grid(scope, "0")
        assert grid.weights.shape[1] == scope.inputs.channel_count
        grid.save(tmp_path / scope.inputs.manifest()["mean"].__repr__())
    with pytest.raises(BadInput, match='read 6 channels, so they are no RGB images; use mode="channels"'):
        cs.weight_grid(scope_of(6), "0")


@pytest.mark.parametrize(("count", "rgb"), [(1, None), (6, None), (6, (3, 2, 1))])
def test_a_gallery_shows_what_can_be_shown_and_is_redone(tmp_path: Path, count: int, rgb: tuple[int, int, int] | None) -> None:
    scope = scope_of(count, channels=count, rgb=rgb)
    cs.gallery(scope, "5", [1], tmp_path, recipe="multiscale", size=16, stages=1, steps=2)
    with Image.open(tmp_path / "unit_0001.png") as image:
        assert image.size == ((50, 33) if count == 6 and rgb is None else (16, 16))
    assert cs.redo(tmp_path / "unit_0001.png", scope=scope).equal
