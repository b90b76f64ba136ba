"""How pictures enter: the preprocessing that networks were trained with, every odd kind of file, and wrong ranges."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from convscope.errors import BadImage, BadInput, ConvscopeError
from convscope.scope import Inputs
from convscope.scope.inputs import image_names, read_image
from hand_built import draws


def photo(width: int = 61, height: int = 43, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


# --- parity with torchvision


@pytest.mark.parametrize("shape", [(61, 43), (43, 61), (50, 50), (200, 31), (32, 32)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "crop"), [(28, 0.875), (32, 1.0), (24, 24 / 26), (29, 29 / 32)])
def test_resize_and_crop_as_torchvision(shape: tuple[int, int], interpolation: str, size: int, crop: float) -> None:
    picture = photo(*shape)
    inputs = Inputs(size=size, crop=crop, interpolation=interpolation)  # type: ignore[arg-type]
    steps = [transforms.Resize(round(size / crop), InterpolationMode(interpolation)), transforms.CenterCrop(size), transforms.ToTensor()]
    assert torch.equal(inputs(picture), transforms.Compose(steps)(picture))


def test_squashing_as_torchvision() -> None:
    expected = transforms.ToTensor()(transforms.Resize((20, 30), InterpolationMode.BILINEAR)(photo()))
    assert torch.equal(Inputs(size=(20, 30), crop=None)(photo()), expected)


def test_non_square_input_keeps_the_aspect() -> None:
    made = Inputs(size=(20, 40))(photo(100, 100))
    assert made.shape == (3, 20, 40)
    expected = photo(100, 100).resize((40, 40), Image.Resampling.BILINEAR).crop((0, 10, 40, 30))
    assert torch.equal(made, transforms.ToTensor()(expected))


def test_normalize_as_torchvision_and_back() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    inputs, images = Inputs(mean=mean, std=std), draws(2, 3, 5, 7)
    assert torch.equal(inputs.normalize(images), transforms.Normalize(mean, std)(images))
    torch.testing.assert_close(inputs.denormalize(inputs.normalize(images)), images)


def test_all_forms_of_one_picture_are_equal(tmp_path: Path) -> None:
    picture, inputs = photo(), Inputs(size=24)
    picture.save(tmp_path / "a.png")
    made = inputs(picture)
    assert made.dtype == torch.float32 and made.shape == (3, 24, 24) and float(made.min()) >= 0 and float(made.max()) <= 1
    for other in (tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(picture)):
        assert torch.equal(inputs(other), made)
    assert torch.equal(inputs(made), made), "a tensor is taken as it is"
    assert torch.equal(inputs.batch([picture, made]), torch.stack([made, made]))
    assert torch.equal(inputs.batch(picture), made[None])
    assert torch.equal(inputs.batch(str(tmp_path)), made[None])


# --- odd pictures


def saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


def test_sixteen_bit_grey(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    read = pixels(read_image(saved(Image.fromarray(ramp), tmp_path / "a.png")))
    assert (read == np.arange(256).reshape(16, 16, 1)).all()
    assert (pixels(read_image(Image.fromarray((ramp // 257 * 257 + 100).astype(np.uint16)))).max(2)[0, 1] == 1).all()


def test_integers_out_of_range() -> None:
    with pytest.raises(BadImage, match=r"mode I with values -1 to 70000, expected 16 bit"):
        read_image(Image.fromarray(np.linspace(-1, 70000, 100).astype(np.int32).reshape(10, 10)))


def test_floating_point_picture() -> None:
    with pytest.raises(BadImage, match="floating-point image"):
        read_image(Image.fromarray(np.zeros((10, 10), np.float32)))


def test_grey_black_and_white(tmp_path: Path) -> None:
    grey = photo().convert("L")
    assert (pixels(read_image(saved(grey, tmp_path / "a.png"))) == pixels(grey)[..., None]).all()
    bits = photo().convert("1")
    assert (pixels(read_image(saved(bits, tmp_path / "b.png"))) == 255 * pixels(bits)[..., None]).all()


def test_cmyk(tmp_path: Path) -> None:
    picture = photo().convert("CMYK")
    read = read_image(saved(picture, tmp_path / "a.jpg", quality=100, subsampling=0))
    assert read.mode == "RGB" and np.abs(pixels(read) - pixels(picture.convert("RGB"))).mean() < 3


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    picture = photo(16, 16).convert("RGBA")
    alpha = np.tile(np.array([0, 128, 255, 64], np.uint8), 64).reshape(16, 16)
    picture.putalpha(Image.fromarray(alpha))
    read = pixels(read_image(saved(picture, tmp_path / "a.png")))
    share = alpha[..., None] / 255
    expected = pixels(photo(16, 16)) * share + 255 * (1 - share)
    assert np.abs(read - expected).max() <= 1
    assert (read[alpha == 0] == 255).all()


def test_grey_with_alpha(tmp_path: Path) -> None:
    picture = photo(16, 16).convert("LA")
    picture.putalpha(0)
    assert (pixels(read_image(saved(picture, tmp_path / "a.png"))) == 255).all()


def test_palette_with_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (12, 12), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.paste(1, (0, 0, 6, 12))
    read = pixels(read_image(saved(picture, tmp_path / "a.png", transparency=0)))
    assert (read[:, :6] == (0, 255, 0)).all() and (read[:, 6:] == 255).all()
    plain = pixels(read_image(saved(picture, tmp_path / "b.png")))
    assert (plain[:, 6:] == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_by_exif(tmp_path: Path, orientation: int) -> None:
    upright = photo(40, 24)
    turned = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (pixels(read_image(saved(turned, tmp_path / "a.png", exif=exif))) == pixels(upright)).all()


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    first = photo(16, 16).quantize(8)
    path = saved(first, tmp_path / "a.gif", save_all=True, append_images=[photo(16, 16, 1).quantize(8)])
    assert (pixels(read_image(path)) == pixels(first.convert("RGB"))).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7), (1, 5000)])
def test_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(BadImage, match=rf"a\.png: {size[0]}x{size[1]} pixels, too small"):
        read_image(saved(Image.new("RGB", size), tmp_path / "a.png"))


def test_very_long_pictures(tmp_path: Path) -> None:
    assert Inputs(size=24)(saved(Image.new("RGB", (3000, 8)), tmp_path / "a.png")).shape == (3, 24, 24)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """{what: (path, what the error says)}"""
    buffer = io.BytesIO()
    photo(300, 300).save(buffer, "JPEG")
    whole = buffer.getvalue()
    buffer = io.BytesIO()
    photo(300, 300).save(buffer, "PNG")
    damaged = bytearray(buffer.getvalue())
    damaged[len(damaged) // 2] ^= 255
    contents = {
        "cut.jpg": (whole[: len(whole) // 2], "cannot be decoded"),
        "head.jpg": (whole[:20], "not an image|cannot be decoded"),
        "text.png": (b"this is a text\nof two lines", "not an image file"),
        "empty.png": (b"", "empty file"),
        "damaged.png": (bytes(damaged), "cannot be decoded"),
    }
    made: dict[str, tuple[Path, str]] = {}
    for name, (data, words) in contents.items():
        (folder / name).write_bytes(data)
        made[name] = folder / name, words
    (folder / "folder.png").mkdir()
    return made | {"folder.png": (folder / "folder.png", "is a folder"), "absent.png": (folder / "absent.png", "no such file")}


@pytest.mark.parametrize("name", ["cut.jpg", "head.jpg", "text.png", "empty.png", "damaged.png", "folder.png", "absent.png"])
def test_bad_files(tmp_path: Path, name: str) -> None:
    path, words = bad_files(tmp_path)[name]
    with pytest.raises(BadImage, match=words) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# --- arrays and tensors that are something else


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.rand(3, 8, 8) * 255, "max 2.*; divide by 255"),
        (torch.rand(3, 8, 8) * 4 - 2, "normalized already"),
        (torch.full((3, 8, 8), float("nan")), "min nan"),
        (torch.full((3, 8, 8), float("inf")), "max inf"),
        (torch.rand(8, 8, 3), r"\(3 h w\) in \[0,1\], got torch.float32 \(8, 8, 3\)"),
        (torch.rand(1, 8, 8), r"got torch.float32 \(1, 8, 8\)"),
        (torch.rand(8, 8), r"\(8, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "pass an HWC uint8 numpy array"),
        (torch.zeros(3, 0, 8), r"\(3, 0, 8\)"),
        (np.zeros((8, 8, 3), np.float32), r"\(3 h w\) in \[0,1\], got torch.float32 \(8, 8, 3\)"),
        (np.zeros((3, 8, 8), np.uint8), r"expected an HWC uint8 array \(h w 3\), got uint8 \(3, 8, 8\)"),
        (np.zeros((8, 8), np.uint8), r"got uint8 \(8, 8\)"),
        (17, "got int"),
        (None, "got NoneType"),
    ],
)
def test_wrong_kinds_and_ranges(image: object, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        Inputs(size=24)(image)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_rounding_at_the_ends_is_let_through() -> None:
    image = torch.tensor([-1e-7, 1 + 1e-7]).repeat(3, 8, 4)
    assert torch.equal(Inputs()(image), image)
    assert Inputs()(image.double()).dtype == torch.float64 and Inputs()(image.half().clamp(0, 1)).dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "an empty list"),
        (None, "images: expected a path, a PIL image, a tensor"),
        (3, "got int"),
        ([torch.rand(3, 8, 8), torch.rand(3, 9, 8)], "different sizes in one batch"),
        (torch.rand(2, 4, 8, 8), r"\(n 3 h w\) in \[0,1\], got torch.float32 \(2, 4, 8, 8\)"),
        (torch.rand(0, 3, 8, 8), r"\(0, 3, 8, 8\)"),
        ([[torch.rand(3, 8, 8)]], "got list"),
    ],
)
def test_wrong_batches(images: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Inputs(size=24).batch(images)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": (24, -1)},
        {"mean": (0, 0), "channels": 3},
        {"std": (1, 1), "mean": (0, 0, 0)},
        {"channels": 0},
        {"channels": 2.5},
        {"channels": True},
        {"rgb": (0, 1)},
        {"rgb": (0, 1, 3)},
        {"rgb": (3, 2, 6), "channels": 6},
        {"std": (1, 1, 0)},
        {"interpolation": "cubic"},
        {"crop": 0},
        {"crop": 1.5},
    ],
)
def test_wrong_inputs(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=rf"Inputs\.{next(iter(wrong))}: expected .*; got"):
        Inputs(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [(0.1, 0.2, float("nan")), float("inf"), "rgb", None, ("a", "b", "c")])
@pytest.mark.parametrize("name", ["mean", "std"])
def test_means_and_deviations_are_three_numbers(name: str, value: object) -> None:
    with pytest.raises(BadInput, match=rf"^Inputs\.{name}: expected three numbers.* \(R, G, B\), or one for all, .*; got") as error:
        Inputs(**{name: value})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(24, 32), [24, 32], (np.int64(24), np.int64(32))])
def test_sizes_may_be_pairs(size: object) -> None:
    inputs = Inputs(size=size)  # type: ignore[arg-type]
    assert (inputs.height, inputs.width) == (24, 32) and inputs.manifest()["size"] == [24, 32]
    assert inputs(photo()).shape == (3, 24, 32)


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_the_repr_is_short(count: int) -> None:
    shown = repr(Inputs(size=(24, 32), classes=[f"class {index}" for index in range(count)]))
    assert len(shown) < 160 and f"classes={count} names" in shown and "size=(24, 32)" in shown and "crop=1.0" in shown
    assert "classes=None" in repr(Inputs())


# --- folders


def test_folders_are_read_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.webp"):
        photo(seed=ord(name[0])).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    assert [Path(str(path)).name for path in Inputs().sources(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]
    assert Inputs(size=24).batch(tmp_path).shape == (3, 3, 24, 24)
    assert image_names(Inputs().sources(tmp_path)) == ("a", "b", "c")
    assert image_names([torch.rand(3, 8, 8)] * 2 + [tmp_path / "x" / "a.png", tmp_path / "y" / "a.png"]) == (
        "image 0",
        "image 1",
        "x/a",
        "y/a",
    )


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no image files") as caught:
        Inputs().batch(tmp_path)
    assert isinstance(caught.value, ConvscopeError)


def test_folders_are_read_to_the_bottom(tmp_path: Path) -> None:
    for name in ("b.png", "cats/a.png", "cats/old/c.png", ".hidden/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        photo().save(tmp_path / name)
    assert image_names(Inputs().sources(tmp_path)) == ("b", "a", "c")
    assert image_names(Inputs().sources([tmp_path / "cats", tmp_path / "b.png", draws(3, 8, 8)])) == ("a", "c", "b", "image 3")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.png", "b.png"], ("a", "b")),
        (["x/a.png", "y/a.png", "y/b.png"], ("x/a", "y/a", "b")),
        (["a.png", "y/a.png"], ("a", "y/a")),
        (["train/cats/1.png", "val/cats/1.png", "val/dogs/1.png"], ("train/cats/1", "val/cats/1", "dogs/1")),
        (["/x/a.png", "/y/a.png"], ("x/a", "y/a")),
        (["x/a.png", "x/a.jpg", "x/b.jpg"], ("x/a.png", "x/a.jpg", "b")),
        (["x/a.png", "x/a.png"], ("x/a", "x/a")),
        (["p/x/a.png", "p/x/a.png", "q/x/a.png"], ("p/x/a", "p/x/a", "q/x/a")),
        (["one.tar::a/1.png", "two.tar::a/1.png", "two.tar::b/1.png"], ("one.tar/a/1", "two.tar/a/1", "b/1")),
    ],
)
def test_names_tell_images_apart(paths: list[str], names: tuple[str, ...]) -> None:
    assert image_names(paths) == names


@pytest.mark.parametrize("name", ["a::b.jpg", "[a].jpg", "a*b.png", "a?b.webp", "x.tar::a.png"])
def test_files_with_odd_names_are_files(tmp_path: Path, name: str) -> None:
    photo().save(tmp_path / name)
    assert torch.equal(Inputs(size=24).batch(tmp_path / name)[0], Inputs(size=24)(photo())) or name.endswith(("jpg", "webp"))
    assert len(Inputs().reader(tmp_path / name)) == 1 and len(Inputs().reader(tmp_path)) == 1


def test_avif_in_a_folder(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow cannot read AVIF")
    for name in ("a.avif", "b.AVIF", "c.png"):
        photo().save(tmp_path / name)
    assert Inputs(size=24).batch(tmp_path).shape == (3, 3, 24, 24)


# --- several images, read one after another


def test_a_reader_takes_all_kinds(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    inputs, tensor = Inputs(size=24), draws(3, 24, 24)
    reader = inputs.reader([tmp_path / "a.png", photo(), np.asarray(photo()), tensor, tmp_path / "gone.png"])
    batch = reader.batch()
    assert torch.equal(batch, torch.stack([inputs(photo())] * 3 + [tensor])) and len(reader) == 5
    assert reader.names == ("a", "image 1", "image 2", "image 3") and reader.skipped == ((str(tmp_path / "gone.png"), "no such file"),)
    assert reader.of_read("abcde") == ("a", "b", "c", "d")
    assert torch.equal(reader.batch(), batch) and len(reader.skipped) == 1, "reading again starts again"


def test_a_reader_groups_images_of_one_size() -> None:
    images = [draws(3, side, 9) for side in (8, 8, 8, 9, 8, 8)]
    groups = list(Inputs().reader(images).batches(2))
    assert [tuple(group.shape[:3]) for group in groups] == [(2, 3, 8), (1, 3, 8), (1, 3, 9), (2, 3, 8)]
    assert all(torch.equal(one, other) for one, other in zip([image for group in groups for image in group], images, strict=True))


def test_a_batch_is_taken_as_it_is() -> None:
    batch = draws(3, 3, 8, 8)
    reader = Inputs().reader(batch)
    assert reader.batch() is batch and reader.names == ("image 0", "image 1", "image 2")


@pytest.mark.parametrize("images", [torch.rand(0, 3, 8, 8), [], torch.rand(2, 4, 8, 8), [torch.rand(3, 8, 8), 7], 3])
def test_what_is_no_image_is_not_skipped(images: object) -> None:
    with pytest.raises(BadInput):
        Inputs(size=24).reader(images).batch()  # type: ignore[arg-type]


def test_float_arrays_are_taken_uncropped_as_they_are() -> None:
    array = np.random.default_rng(0).random((3, 31, 47))
    for image in (array, torch.from_numpy(array)):
        assert torch.equal(Inputs(size=24).uncropped(image, 16), torch.from_numpy(array))
    with pytest.raises(BadInput, match="divide by 255"):
        Inputs(size=24).uncropped(255 * array, 16)


@pytest.mark.parametrize("longer", [7, 0, -8, 24.0, "24", None, True])
def test_uncropped_sizes_that_are_none(longer: Any) -> None:
    with pytest.raises(BadInput, match="size must be a whole number of at least 8 pixels"):
        Inputs(size=24).uncropped(photo(), longer)


def test_whole_images_are_read_uncropped() -> None:
    inputs = Inputs(size=24)
    (made,) = inputs.reader(photo(), 40)
    assert torch.equal(made, inputs.uncropped(photo(), 40)) and made.shape == (3, 28, 40)


def test_an_image_is_whole_cropped_or_stretched() -> None:
    values = np.arange(60 * 90 * 3, dtype=np.int64).reshape(60, 90, 3) % 251
    image = Image.fromarray(values.astype(np.uint8))
    inputs = Inputs(size=30, crop=0.75)
    whole, cropped, stretched = (inputs.resized(24, way) for way in ("whole", "crop", "stretch"))
    resized = np.asarray(image.resize((24, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(whole(image).numpy(), resized, atol=1e-6)
    np.testing.assert_allclose(
        stretched(image).numpy(), np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255, atol=1e-6
    )
    middle = image.resize((48, 32), Image.Resampling.BILINEAR).crop((12, 4, 36, 28))
    np.testing.assert_allclose(cropped(image).numpy(), np.asarray(middle).transpose(2, 0, 1) / 255, atol=1e-6)
    assert [one.read(image)[1] for one in (whole, stretched)] == [0, 0]
    assert cropped.read(image)[1] == pytest.approx(1 - 24 * 24 / (48 * 32))
    assert inputs.resized() == inputs and inputs.resized(resize="crop") == inputs and inputs.resized(size=24).crop == 0.75
    assert whole.manifest()["whole"] is True and "whole" not in cropped.manifest() and "whole=True" in repr(whole)
    assert whole.resized(resize="stretch").manifest() == stretched.manifest()
    reader = cropped.reader([image, torch.zeros(3, 24, 24)])
    assert len(list(reader)) == 2 and reader.cut == (pytest.approx(0.625), 0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"size": 4}, "size must be a whole number of at least 8 pixels, got 4"),
        ({"size": 24.0}, "at least 8 pixels"),
        ({"resize": "pad"}, "resize must be whole, crop or stretch, got 'pad'"),
    ],
    ids=str,
)
def test_sizes_and_ways_that_are_none(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Inputs().resized(**asked)


def test_means_of_pixels_up_to_255_are_refused_with_the_right_ones() -> None:
    """Also tried: one number for all colours, grey images; 13 bands, whose values may be anything, are taken."""
    with pytest.raises(
        BadInput, match=r"is for values of 0 to 255, .*: mean=\(0\.4824, 0\.4588, 0\.4078\), std=\(0\.0039, 0\.0039, 0\.0039\)"
    ):
        Inputs(mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0))
    for more in ({"mean": 127.5}, {"mean": (33.3,), "std": (78.6,)}):
        with pytest.raises(BadInput, match="from 0 to 1"):
            Inputs(**more)
    assert Inputs(mean=(0.5, 1.0, 0.0), std=1 / 255).means == (0.5, 1.0, 0.0)
    assert Inputs(mean=(1200.0,) * 13, std=(300.0,) * 13).channel_count == 13


def test_classes_are_a_list() -> None:
    with pytest.raises(BadInput, match="expected a list of names, got the text 'cats, dogs'"):
        Inputs(classes="cats, dogs")
