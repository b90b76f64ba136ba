"""Folders of pictures: resumed runs equal uninterrupted ones, other questions are refused, receipts make pictures again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope
import hand_built
from convscope.errors import BadInput, BadWeights, StoreConflict
from convscope.receipts import read_receipt, write_png
from convscope.results.gallery import Gallery, write_sheet
from convscope.scope import Inputs, Scope

gallery_module = importlib.import_module("convscope.galleries.gallery")
technique_module = importlib.import_module("convscope.techniques.feature_visualization")
NUMBERS = {"recipe": "multiscale", "size": 12, "stages": 2, "steps": 6}


@pytest.fixture
def scope() -> Scope:
    """A convolution of 8 units with a ReLU; unit 5 is dead."""
    model = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)))
    with torch.no_grad():
        model[1].bias[5] = -1e6
    return Scope(model, Inputs(size=16), precision="float32", name="small")


@pytest.fixture(autouse=True)
def groups_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(technique_module, "AT_ONCE", 3)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("unit_*.png"))}


def path_of(made: Gallery, unit: int, copy: int = 0) -> Path:
    image = made.find(unit, copy)
    assert image is not None
    return image.path


def make(scope: Scope, folder: Path, units: object = None, **more: object) -> Gallery:
    return convscope.gallery(scope, "2", units, folder, **(NUMBERS | more))  # type: ignore[arg-type]


def test_a_picture_per_unit(scope: Scope, tmp_path: Path) -> None:
    made = make(scope, tmp_path / "new" / "folder", [4, 0, 5, 7])
    assert sorted(files(made.folder)) == ["unit_0000.png", "unit_0004.png", "unit_0005.png", "unit_0007.png"]
    assert [path.name for path in made.made] == [f"unit_000{unit}.png" for unit in (4, 0, 5, 7)]
    assert [(image.unit, image.copy, image.status == "stuck") for image in made] == [
        (4, 0, False),
        (0, 0, False),
        (5, 0, True),
        (7, 0, False),
    ]
    plain = convscope.feature_visualization(scope, "2", [4, 0, 5], **NUMBERS)  # type: ignore[arg-type]
    expected = np.round(plain.images[1].transpose(1, 2, 0) * 255).astype(np.uint8)
    assert (np.asarray(Image.open(path_of(made, 0))) == expected).all()
    receipt = read_receipt(path_of(made, 0))
    assert (
        receipt["unit"] == 0
        and receipt["group"] == [4, 0, 5]
        and receipt["status"] == plain.status[1]
        and receipt["score"] == float(plain.scores[1])
    )
    assert receipt["recipe"]["steps"] == 6 and receipt["network"]["name"] == "small"
    assert "no gradient" in read_receipt(path_of(made, 5))["reason"]


def test_a_second_call_makes_nothing(scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(scope, tmp_path)
    before = files(tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    monkeypatch.setattr(gallery_module, "feature_visualization", lambda *_, **__: pytest.fail("made a picture again"))
    again = make(scope, tmp_path)
    assert again.made == () and [image.unit for image in again] == list(range(8)) and again.images[5].status == "stuck"
    assert files(tmp_path) == before and stamps == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def failing_after(calls: int, function: Callable[..., object], error: BaseException) -> Callable[..., object]:
    count = [0]

    def run(*arguments: object, **options: object) -> object:
        count[0] += 1
        if count[0] > calls:
            raise error
        return function(*arguments, **options)

    return run


@pytest.mark.parametrize("error", [RuntimeError("power cut"), KeyboardInterrupt()])
@pytest.mark.parametrize("recipe", ["multiscale", "crops"])
def test_interrupted_between_groups_and_resumed(
    scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, recipe: str
) -> None:
    more = {"recipe": recipe} if recipe == "multiscale" else {"recipe": recipe, "stages": 1, "crop_size": 10}
    make(scope, tmp_path / "whole", **more)
    with monkeypatch.context() as patch:
        patch.setattr(gallery_module, "feature_visualization", failing_after(1, gallery_module.feature_visualization, error))
        with pytest.raises(type(error)):
            make(scope, tmp_path / "resumed", **more)
    assert sorted(files(tmp_path / "resumed")) == ["unit_0000.png", "unit_0001.png", "unit_0002.png"]
    resumed = make(scope, tmp_path / "resumed", **more)
    assert [path.name for path in resumed.made] == [f"unit_000{unit}.png" for unit in (3, 4, 5, 6, 7)]
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")


@pytest.mark.parametrize("written", [1, 2, 4, 5, 7])
def test_interrupted_inside_a_group_and_resumed(scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    make(scope, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(gallery_module, "write_png", failing_after(written, write_png, OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            make(scope, tmp_path / "resumed")
    assert len(files(tmp_path / "resumed")) == written
    assert len(make(scope, tmp_path / "resumed").made) == 8 - written
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")


@pytest.mark.parametrize("change", [{"steps": 7}, {"seed": 1}, {"recipe": "multiscale-sigmoid"}, {"blur": 3}], ids=str)
def test_other_parameters_are_refused(scope: Scope, tmp_path: Path, change: dict[str, object]) -> None:
    make(scope, tmp_path, [0, 1])
    before = files(tmp_path)
    with pytest.raises(StoreConflict, match=r"unit_0000\.png was made with another (recipe|seed)"):
        make(scope, tmp_path, [0, 1, 2], **change)
    assert files(tmp_path) == before


def test_other_weights_and_layers_are_refused(scope: Scope, tmp_path: Path) -> None:
    make(scope, tmp_path, [0])
    with pytest.raises(StoreConflict, match="another layer"):
        convscope.gallery(scope, "0", [0], tmp_path, **NUMBERS)  # type: ignore[arg-type]
    with torch.no_grad():
        scope.model[0].bias[0] += 1
    other = Scope(scope.model, scope.inputs, precision="float32", name="small")
    with pytest.raises(StoreConflict, match="another weights_hash"):
        make(other, tmp_path, [0])


def test_a_picture_without_receipt_is_refused(scope: Scope, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "unit_0000.png")
    with pytest.raises(StoreConflict, match="carries no receipt"):
        make(scope, tmp_path, [0])


@pytest.mark.parametrize("wrong", [{"recipe": "cropz"}, {"stepz": 1}, {"units": [9]}, {"size": 2}], ids=str)
def test_a_wrong_question_writes_nothing(scope: Scope, tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        make(scope, tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_the_sheet(scope: Scope, tmp_path: Path) -> None:
    made = make(scope, tmp_path, [0, 5])
    sheet = write_sheet(made, "small, 2")
    with Image.open(sheet) as opened:
        assert sheet.name == "sheet.png" and opened.width > 300
    assert read_receipt(sheet)["title"] == "small, 2"
    assert make(scope, tmp_path, [0, 5]).made == ()


# --- made again from the receipt


@pytest.mark.parametrize("unit", range(8))
def test_redone_bit_by_bit(scope: Scope, tmp_path: Path, unit: int) -> None:
    made = make(scope, tmp_path)
    redone = convscope.redo(path_of(made, unit), scope=scope)
    assert redone.equal and redone.largest == 0 and redone.verdict == "bit-equal", redone.verdict
    assert redone.image.shape == (3, 14, 14)


def test_redoing_leaves_the_scope_as_it_was(scope: Scope, tmp_path: Path) -> None:
    made = make(scope, tmp_path, [0])
    scope.precision = "auto"
    assert convscope.redo(path_of(made, 0), scope=scope).equal
    assert scope.precision == "auto"


def test_a_changed_picture_is_noticed(scope: Scope, tmp_path: Path) -> None:
    made = make(scope, tmp_path, [0])
    image = np.asarray(Image.open(path_of(made, 0))).copy()
    image[3, 4, 1] ^= 8
    write_png(path_of(made, 0), image, read_receipt(path_of(made, 0)))
    redone = convscope.redo(path_of(made, 0), scope=scope)
    assert not redone.equal and redone.largest == 8 and redone.verdict.startswith("not bit-equal: largest difference 8/255")


def test_other_weights_cannot_redo(scope: Scope, tmp_path: Path) -> None:
    made = make(scope, tmp_path, [0])
    other = Scope(hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), 1), Inputs(size=16))
    with pytest.raises(BadWeights, match=f"made with weights {scope.weights_hash}"):
        convscope.redo(path_of(made, 0), scope=other)


def test_what_cannot_be_redone(scope: Scope, tmp_path: Path) -> None:
    made = make(scope, tmp_path / "pictures", [0])
    with pytest.raises(StoreConflict, match="carries no receipt"):
        Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
        convscope.redo(tmp_path / "plain.png", scope=scope)
    with pytest.raises(BadInput, match="only single feature visualizations can be redone"):
        write_png(tmp_path / "other.png", np.zeros((9, 9, 3), np.uint8), {"technique": "spectrum", "network": {}})
        convscope.redo(tmp_path / "other.png", scope=scope)
    with pytest.raises(BadInput, match="only single feature visualizations can be redone"):
        convscope.redo(write_sheet(made, "a sheet"), scope=scope)
