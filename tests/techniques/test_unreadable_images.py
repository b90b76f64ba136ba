"""Images that cannot be read: every technique skips and lists them, and shows the same as without them; scans see the same files."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convscope as cs
import scanned
from convscope.errors import BadImage, BadInput
from convscope.results.base import ImageResult
from convscope.scope import Scope

TECHNIQUES: dict[str, Callable[[Scope, object], ImageResult]] = {
    "spectrum": lambda scope, images: cs.spectrum(scope, "5", images),
    "activation_grid": lambda scope, images: cs.activation_grid(scope, images),
    "map_overlay": lambda scope, images: cs.map_overlay(scope, "5", images, top=2),
    "occlusion": lambda scope, images: cs.occlusion(scope, images, patch=12, stride=12),
    "deconvnet": lambda scope, images: cs.deconvnet(scope, "5", [0, 1], images),
    "inversion": lambda scope, images: cs.inversion(scope, "2", images, steps=2),
    "inversion of whole images": lambda scope, images: cs.inversion(scope, "2", images, steps=2, size=20),
    "style_similarity": lambda scope, images: cs.style_similarity(scope, images, layers=["2", "5"], size=24),
    "style_transfer's contents": lambda scope, images: cs.style_transfer(scope, images, grey(), size=24, steps=1, **STYLE),
    "style_transfer's styles": lambda scope, images: cs.style_transfer(scope, grey(), images, size=24, steps=1, **STYLE),
    "grad_cam": lambda scope, images: cs.grad_cam(scope, images, 0),
    "integrated_gradients": lambda scope, images: cs.integrated_gradients(scope, images, 0, steps=2),
    "knockout": lambda scope, images: cs.knockout(scope, "5", [0, 1], images),
    "unit_attribution": lambda scope, images: cs.unit_attribution(scope, images, 0),
    "hypothesis": lambda scope, images: cs.hypothesis(scope, "5", 0, images, [grey()] * 3, permutations=9),
    "hypothesis's background": lambda scope, images: cs.hypothesis(scope, "5", 0, [grey()] * 3, images, permutations=9),
}
STYLE = {"content_layer": "5", "style_layers": ["2"]}


def grey() -> Image.Image:
    return Image.new("RGB", (24, 24), (90, 120, 150))


def photos(folder: Path, count: int = 3) -> Path:
    """Good images, one of them in a subfolder."""
    for index in range(count):
        path = folder / ("cats/0.png" if index == 0 else f"{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    return folder


def spoiled(folder: Path) -> dict[str, str]:
    """Adds unreadable files; {name: the reason begins with}."""
    good = (folder / "1.png").read_bytes()
    for name, data in (
        ("0text.png", b"no image"),
        ("2empty.jpg", b""),
        ("cats/cut.png", good[: len(good) // 2]),
        ("notes.txt", b"remember"),
    ):
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.png")
    (folder / "again").symlink_to(".")
    return {
        "again": "a link to the folder itself",
        "0text.png": "not an image file",
        "2empty.jpg": "empty file",
        "cats/cut.png": "cannot be decoded",
        "pipe.png": "not a regular file but a named pipe",
    }


@pytest.mark.parametrize("name", TECHNIQUES)
def test_unreadable_images_are_skipped_and_listed(scope: Scope, tmp_path: Path, name: str) -> None:
    run = TECHNIQUES[name]
    clean = run(scope, photos(tmp_path / "photos"))
    assert clean.skipped == () and "skipped" not in clean.summary()
    reasons = spoiled(tmp_path / "photos")
    made = run(scope, tmp_path / "photos")
    assert dict(made.skipped).keys() == reasons.keys() and all(why.startswith(reasons[file]) for file, why in made.skipped)
    for one, other in zip(made.arrays(), clean.arrays(), strict=True):
        np.testing.assert_array_equal(one.array, other.array)
    assert {**made.extras(), "skipped": ()}.items() >= {
        key: value for key, value in clean.extras().items() if key.endswith("names")
    }.items()
    for text in (made.summary(), made.view().note):
        assert "5 images skipped: " in text and "0text.png (not an image file)" in text
    assert cs.load(made.save(tmp_path / "saved", figure=False)).skipped == made.skipped  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", TECHNIQUES)
def test_no_readable_image_is_an_error(scope: Scope, tmp_path: Path, name: str) -> None:
    (tmp_path / "photos").mkdir()
    for file in ("a.png", "b.png", "c.jpg"):
        (tmp_path / "photos" / file).write_text("no image")
    with pytest.raises(BadImage, match=r"none of the 3 images can be read; the first: .*a\.png: not an image file"):
        TECHNIQUES[name](scope, tmp_path / "photos")
    with pytest.raises(BadImage, match=r"none of the 2 images can be read; the first: .*nowhere\.png: no such file"):
        TECHNIQUES[name](scope, [tmp_path / "nowhere.png", tmp_path / "photos" / "a.png"])


@pytest.mark.parametrize("name", [name for name in TECHNIQUES if not name.startswith(("hypothesis", "style_similarity"))])
@pytest.mark.parametrize("file", ["text.png", "nowhere.png", "empty.png"])
def test_a_single_unreadable_image_is_an_error(scope: Scope, tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    reason = {"text.png": "not an image file", "nowhere.png": "no such file", "empty.png": "empty file"}[file]
    with pytest.raises(BadImage, match=rf"{file}: {reason}") as error:
        TECHNIQUES[name](scope, tmp_path / file)
    assert "none of" not in str(error.value)


def test_too_few_readable_images(scope: Scope, tmp_path: Path) -> None:
    photos(tmp_path, 2)
    (tmp_path / "1.png").write_text("no image")
    with pytest.raises(BadInput, match="at least 2 readable images on each side, got 1 and 3"):
        TECHNIQUES["hypothesis"](scope, tmp_path)
    with pytest.raises(BadInput, match="at least two images that can be read, got 1 of 2"):
        TECHNIQUES["style_similarity"](scope, tmp_path)


def test_groups_of_which_one_is_left(scope: Scope, tmp_path: Path) -> None:
    photos(tmp_path, 3)
    (tmp_path / "bad.png").write_text("no image")
    files = [tmp_path / "1.png", tmp_path / "2.png", tmp_path / "bad.png"]
    made = cs.style_similarity(scope, files, layers=["2"], groups=["a", "a", "b"], size=24)
    assert made.groups == ("a", "a") and np.isnan(made.auc).all()


# --- the same files for techniques and scans


def same_images(folder: Path, images: object, scope: Scope) -> None:
    survey = cs.scan(scope, images, folder / "survey")  # type: ignore[arg-type]
    made = cs.spectrum(scope, "5", images)  # type: ignore[arg-type]
    assert len(made.names) == len(survey.names) > 0
    assert sorted(Path(name).stem for name in survey.names) == sorted(name.rpartition("/")[2] for name in made.names)
    np.testing.assert_allclose(made.values, survey.mean("5"), rtol=1e-4, atol=1e-5)
    for row, image in enumerate(survey.ids):
        assert survey.read_image(int(image)).shape == (3, 24, 24), row
    for name, reason in made.skipped:
        assert (name, reason) in {(Path(row["name"]).as_posix(), row["reason"]) for row in survey.skipped.to_pylist()}


@pytest.mark.parametrize("kind", ["folder", "list", "tar", "pattern", "files", "folders", "odd names"])
def test_techniques_and_scans_see_the_same_images(tmp_path: Path, kind: str) -> None:
    scope, root = scanned.small_scope(), photos(tmp_path / "photos", 4)
    images: object = root
    if kind == "folder":
        spoiled(root)
    elif kind == "list":
        images = tmp_path / "list.csv"
        (tmp_path / "list.csv").write_text("path,label\nphotos/2.png,a\nphotos/cats/0.png,b\nphotos/nowhere.png,b\n")
    elif kind == "tar":
        images = tmp_path / "all.tar"
        with tarfile.open(images, "w") as tar:
            tar.add(root, "all")
    elif kind == "pattern":
        images = str(root / "*.png")
    elif kind == "files":
        images = [root / "3.png", str(root / "cats" / "0.png")]
    elif kind == "folders":
        shutil.copytree(root, tmp_path / "more")
        images = [root / "cats", tmp_path / "more"]
    else:
        (root / "1.png").rename(root / os.fsdecode(b"K\xf6ln.png"))
        (root / "cats").rename(root / os.fsdecode(b"c\xe4ts"))
    same_images(tmp_path, images, scope)


def test_odd_names_can_be_shown_and_saved(scope: Scope, tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    path = tmp_path / "photos" / os.fsdecode(b"K\xf6ln.png")
    (tmp_path / "photos" / "1.png").rename(path)
    for images in (tmp_path / "photos", [path], path):
        made = cs.spectrum(scope, "5", images)
        assert "K\\xf6ln" in made.names
        made.save(tmp_path / f"saved{len(made.names)}{isinstance(images, list)}")
