"""Folders of pictures: resumed runs equal uninterrupted ones, other questions are refused, receipts make pictures again."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope
import hand_built
import networks
from convscope.errors import BadInput, BadWeights, StoreConflict
from convscope.optimize import objectives
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
    """Also tried: float64, bfloat16, one channel and six, copies, films, a penalty, a negative seed."""
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


def test_redoing_changes_nothing_of_the_scope(scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(scope, tmp_path, [0])
    before = dict(vars(scope))
    monkeypatch.setattr(
        Scope, "__setattr__", lambda self, name, value: object.__setattr__(self, name, value) if self is not scope else pytest.fail(name)
    )
    assert convscope.redo(path_of(made, 0), scope=scope).equal
    assert {key: value for key, value in vars(scope).items() if key in before and value is not before[key]} == {}


def test_redone_pixels_are_rounded_as_the_written_ones(scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values whose products with 255 round differently in float32 and in float64."""
    values = ((np.arange(255) + 0.5) / 255).astype(np.float32)
    values = np.concatenate([values, np.nextafter(values, np.float32(0)), np.nextafter(values, np.float32(1))])
    assert (np.round(values * 255) != np.rint(values.astype(np.float64) * 255)).any()
    image = np.tile(np.resize(values, (28, 28)), (3, 1, 1))
    made = make(scope, tmp_path, [0])
    receipt = read_receipt(path_of(made, 0))
    write_png(path_of(made, 0), image, receipt | {"recipe": receipt["recipe"] | {"size": 28, "stages": 1}})
    redo_module = importlib.import_module("convscope.galleries.redo")
    monkeypatch.setattr(redo_module, "feature_visualization", lambda *_, **__: SimpleNamespace(manifest={}, images=image[None]))
    assert convscope.redo(path_of(made, 0), scope=scope).verdict == "bit-equal"


# --- inputs, objectives, copies


def on_inputs(scope: Scope, **more: object) -> Scope:
    return Scope(scope.model, Inputs(**({"size": 16} | more)), precision="float32", name="small")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"mean": (0.1, 0.2, 0.3)}, {"std": (0.5, 0.5, 0.5)}, {"size": 18}, {"interpolation": "nearest"}, {"crop": None}],
    ids=str,
)
def test_other_inputs_are_refused(scope: Scope, tmp_path: Path, change: dict[str, object]) -> None:
    """Also tried: another crop, bicubic, `fast` off, other steps and copies. Names of classes matter to units that carry them alone."""
    made = make(scope, tmp_path, [0])
    before = files(tmp_path)
    with pytest.raises(StoreConflict, match=r"unit_0000\.png was made with another preprocessing"):
        make(on_inputs(scope, **change), tmp_path, [0, 1])
    assert files(tmp_path) == before
    assert make(on_inputs(scope), tmp_path, [0]).made == ()
    if change.keys() & {"mean", "std", "size"}:
        with pytest.raises(BadInput, match=rf"made with other inputs \({next(iter(change))}"):
            convscope.redo(path_of(made, 0), scope=on_inputs(scope, **change))


def test_another_part_of_the_output_or_other_names_are_another_question(tmp_path: Path) -> None:
    """Networks that return several parts: a picture of one of them is none of another. Class names stand in the receipts."""
    model = networks.UNUSUAL["dict_output"]()

    def scope_of(output: str | None, names: str = "") -> Scope:
        return Scope(model, Inputs(size=16, classes=list(names) or None), precision="float32", name="dict", output=output)

    def ask(output: str | None, names: str = "") -> Gallery:
        return convscope.gallery(scope_of(output, names), "output", [0], tmp_path, **NUMBERS)  # type: ignore[arg-type]

    ask("features")
    before = files(tmp_path)
    assert ask("features").made == ()
    for output in (None, "logits"):
        with pytest.raises(StoreConflict, match="made with another output"):
            ask(output)
    assert files(tmp_path) == before
    (tmp_path / "unit_0000.png").unlink()
    ask("logits", "abcde")
    assert ask("logits", "abcde").made == ()
    for names in ("", "vwxyz"):
        with pytest.raises(StoreConflict, match="made with another class name"):
            ask("logits", names)
    assert convscope.redo(tmp_path / "unit_0000.png", scope=scope_of("logits")).equal


def per_unit(unit: int) -> objectives.Objective:
    return objectives.neuron("2", unit, 2, 3) - 0.1 * objectives.norm()


QUESTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "objective": {"objective": per_unit},
    "another objective": {"objective": lambda unit: objectives.neuron("2", unit, 2, 4)},
    "a direction": {"objective": lambda unit: objectives.direction("2", torch.eye(8)[unit] + 0.1)},
    "penalty": {"penalty": 1e-3 * objectives.total_variation()},
    "another penalty": {"penalty": 1e-2 * objectives.total_variation()},
    "copies": {"copies": 2},
    "diversity": {"copies": 2, "diversity": 0.5},
}


@pytest.mark.parametrize("asked", QUESTIONS)
def test_only_the_same_question_is_resumed(scope: Scope, tmp_path: Path, asked: str) -> None:
    make(scope, tmp_path, [0, 2], **QUESTIONS[asked])
    before = files(tmp_path)
    for other, more in QUESTIONS.items():
        if other == asked:
            assert make(scope, tmp_path, [0, 2], **more).made == ()
        else:
            with pytest.raises(StoreConflict, match=r"made with another (objective|penalty|copies|diversity)"):
                make(scope, tmp_path, [0, 2], **more)
    assert files(tmp_path) == before


@pytest.mark.parametrize("asked", QUESTIONS)
@pytest.mark.parametrize("written", [1, 3])
def test_every_question_resumed_equals_uninterrupted(
    scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, written: int
) -> None:
    more = QUESTIONS[asked]
    make(scope, tmp_path / "whole", [0, 2, 5, 7], **more)
    with monkeypatch.context() as patch:
        patch.setattr(gallery_module, "write_png", failing_after(written, write_png, OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            make(scope, tmp_path / "resumed", [0, 2, 5, 7], **more)
    make(scope, tmp_path / "resumed", [0, 2, 5, 7], **more)
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")


@pytest.mark.parametrize("asked", QUESTIONS)
def test_every_question_is_redone_from_its_receipt(scope: Scope, tmp_path: Path, asked: str) -> None:
    made = make(scope, tmp_path, [0, 2, 7], **QUESTIONS[asked])
    for image in made:
        assert " at 0x" not in json.dumps(dict(image.receipt))
        redone = convscope.redo(image.path, scope=scope)
        assert redone.equal, f"{image.path.name}: {redone.verdict}"


def test_copies_in_a_gallery(scope: Scope, tmp_path: Path) -> None:
    made = make(scope, tmp_path, [0, 2], copies=2, diversity=0.5)
    names = ["unit_0000.png", "unit_0000_copy1.png", "unit_0002.png", "unit_0002_copy1.png"]
    assert [image.path.name for image in made] == sorted(files(tmp_path)) == names
    assert [(image.unit, image.copy, image.maximized) for image in made][3] == (2, 1, 'unit("2", 2) + 0.5*|unit("2", 2)|*diversity("2")')
    whole = convscope.feature_visualization(scope, "2", [0], copies=2, diversity=0.5, **NUMBERS)  # type: ignore[arg-type]
    single = make(scope, tmp_path / "one", [0], copies=2, diversity=0.5)
    for copy in (0, 1):
        expected = np.rint(whole.images[copy].astype(np.float64) * 255).astype(np.float32) / 255
        np.testing.assert_array_equal(single.images[copy].image, expected)
    assert write_sheet(made, "copies").exists()


def test_an_objective_without_unit(scope: Scope, tmp_path: Path) -> None:
    made = make(scope, tmp_path, None, objective=objectives.deepdream("2"))
    assert [(image.unit, image.path.name, image.status) for image in made] == [(None, "objective.png", "converged")]
    assert make(scope, tmp_path, None, objective=objectives.deepdream("2")).made == ()
    with pytest.raises(StoreConflict, match="another objective"):
        make(scope, tmp_path, None, objective=objectives.deepdream("0"))
    assert convscope.redo(made.images[0].path, scope=scope).equal
    assert write_sheet(made, "deepdream").exists()


def test_an_objective_without_name_is_not_resumed_and_redone_only_with_it(scope: Scope, tmp_path: Path) -> None:
    def objective(unit: int) -> objectives.Objective:
        return objectives.Objective(frozenset(["2"]), lambda values, _: values["2"][:, unit].flatten(1).mean(1))

    made = make(scope, tmp_path, [0], objective=objective)
    with pytest.raises(StoreConflict, match="made with an objective that has no name") as caught:
        make(scope, tmp_path, [0], objective=objective)
    assert "\n" not in str(caught.value)
    with pytest.raises(
        BadInput, match=r"its objective cannot be made again: the objective has no name .*; give it as `objective`"
    ) as error:
        convscope.redo(path_of(made, 0), scope=scope)
    assert "\n" not in str(error.value)
    assert convscope.redo(path_of(made, 0), scope=scope, objective=objective).equal


# --- read


def test_read(scope: Scope, tmp_path: Path) -> None:
    made = make(scope, tmp_path, [4, 0, 5], copies=2)
    write_sheet(made, "small")
    (tmp_path / "notes.txt").write_text("unit_0001.png")
    read = convscope.read_gallery(tmp_path)
    assert [(image.unit, image.copy) for image in read] == [(0, 0), (0, 1), (4, 0), (4, 1), (5, 0), (5, 1)] and len(read) == 6
    assert [image.status for image in read][4:] == ["stuck", "stuck"] and read.made == ()
    image = read.find(4, 1)
    assert image is not None and image.path == path_of(made, 4, 1) and image.score == image.receipt["score"]
    assert image.image.shape == (3, 14, 14) and image.image.dtype == np.float32 and 0 <= image.image.min() <= image.image.max() <= 1
    assert read.find(9) is None and read.find(4, 2) is None


def test_what_is_no_gallery(scope: Scope, tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "gone", "there is no such folder"), (tmp_path, "holds no gallery")):
        with pytest.raises(StoreConflict, match=words):
            convscope.read_gallery(folder)
    made = make(scope, tmp_path / "pictures", [0, 4])
    with pytest.raises(StoreConflict, match=r"is a gallery, a folder of images; read it with convscope\.read_gallery\(folder\)"):
        convscope.load(tmp_path / "pictures")
    path_of(made, 4).rename(tmp_path / "pictures" / "unit_0003.png")
    renamed = convscope.read_gallery(tmp_path / "pictures").find(3)
    with pytest.raises(StoreConflict, match=r"its receipt is that of unit_0004\.png"):
        _ = renamed and renamed.receipt


def test_reading_needs_no_torch(scope: Scope, tmp_path: Path) -> None:
    make(scope, tmp_path, [0])
    script = (
        f"import convscope, sys; image = convscope.read_gallery({str(tmp_path)!r}).images[0]; image.image, image.receipt; "
        "assert image.status == 'converged'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# --- a receipt chooses neither code nor files


def changed(path: Path, **network: object) -> Path:
    """The same image with another network in its receipt."""
    receipt = read_receipt(path)
    receipt["network"] |= network
    return write_png(path, np.asarray(Image.open(path)), receipt)


@pytest.mark.parametrize("name", ["{folder}/evil.py:build", "{folder}/evil.py", "timm:hf-hub:who/what", "timm:../evil", "a b", "", None, 7])
def test_a_receipt_opens_no_code(scope: Scope, tmp_path: Path, name: object) -> None:
    """Also tried: hf:FOLDER, local-dir:, URLs, a line end behind a name, a wide letter, lists, code as objective or recipe."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef build(): ...\n")
    name = name.format(folder=tmp_path) if isinstance(name, str) else name
    path = changed(path_of(make(scope, tmp_path / "pictures", [0]), 0), name=name, weights="pretrained")
    with pytest.raises(BadInput, match="which a receipt cannot open; give it as `scope`") as caught:
        convscope.redo(path)
    assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()
    assert convscope.redo(path, scope=scope).equal


def test_a_receipt_reads_no_weights(scope: Scope, tmp_path: Path) -> None:
    """Also tried: URLs, a hub's name, a path upwards, a list, a table, a number."""
    path = changed(path_of(make(scope, tmp_path, [0]), 0), name="squeezenet1_0", weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(BadInput, match=r"w\.safetensors, which a receipt cannot read; give the file as `weights`"):
        convscope.redo(path)


def test_redone_by_the_name_of_a_bundled_network(tmp_path: Path) -> None:
    numbers = {"size": 32, "steps": 2, "crop_size": 24}
    made = convscope.gallery(convscope.open("textures"), "output", [0, 3], tmp_path, **numbers)  # type: ignore[arg-type]
    assert convscope.redo(path_of(made, 3)).equal


@pytest.mark.parametrize("missing", ["network", "parameters", "recipe", "precision", "unit", "copy", "fast", "layer", "seed"])
def test_a_damaged_receipt(scope: Scope, tmp_path: Path, missing: str) -> None:
    path = path_of(make(scope, tmp_path, [0]), 0)
    receipt = read_receipt(path)
    del (receipt["parameters"] if missing in ("layer", "seed") else receipt)[missing]
    write_png(path, np.asarray(Image.open(path)), receipt)
    with pytest.raises(StoreConflict, match="its receipt is damaged"):
        convscope.redo(path, scope=scope)


def test_a_sheet_says_recipe_seed_and_changes_and_marks(scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("convscope.results.gallery")
    seen: list[tuple[list[tuple[str, str | None]], str]] = []

    def record(tiles: list[Any], *, title: str, side: int) -> np.ndarray:
        seen.append(([(tile.caption, tile.marked) for tile in tiles], title))
        return np.zeros((side, side, 3), np.uint8)

    monkeypatch.setattr(module, "contact_sheet", record)
    made = make(scope, tmp_path, [0, 5], seed=3)
    rescued = dataclasses.replace(made.images[0])
    rescued.__dict__["receipt"] = made.images[0].receipt | {"status": "rescued"}
    write_sheet(Gallery(made.folder, (rescued, made.images[1])), "small, 2")
    (captions, title) = seen[0]
    assert title == "small, 2 · recipe multiscale, size 12, stages 2, steps 6 · seed 3 · below: activation"
    assert captions[0][0].endswith(" · rescued") and captions[0][1] is None and captions[1][1] == "stuck"
    assert "recipe multiscale, size 12, stages 2, steps 6" in convscope.feature_visualization(scope, "2", 0, **NUMBERS).view().subtitle


# --- films, and images that end early


def test_a_film_beside_each_image(scope: Scope, tmp_path: Path) -> None:
    plain = make(scope, tmp_path / "plain", [0, 5], copies=2)
    made = make(scope, tmp_path / "filmed", [0, 5], copies=2, film=True)
    filmed = files(made.folder)
    assert {name: filmed[name] for name in files(plain.folder)} == files(plain.folder), "the images are the same, byte by byte"
    assert sorted(filmed.keys() - files(plain.folder).keys()) == [image.path.with_suffix(".webp").name for image in made]
    with Image.open(made.images[0].film) as shot:
        assert shot.n_frames == 13 and shot.size == (14, 14), "2 stages of 6 steps, and the image"
        first = np.asarray(shot.convert("RGB"), np.int64)
        shot.seek(12)
        last = np.asarray(shot.convert("RGB"), np.int64)
    final = np.asarray(Image.open(made.images[0].path), np.int64)
    assert 2 * np.abs(last - final).mean() < np.abs(first - final).mean(), "it begins with noise and ends with the image"
    assert make(scope, tmp_path / "filmed", [0, 5], copies=2, film=True).made == ()


def test_a_film_of_images_that_are_there(scope: Scope, tmp_path: Path) -> None:
    make(scope, tmp_path / "whole", [0, 3], film=True)
    made = make(scope, tmp_path / "later", [0, 3])
    before = {name: data for name, data in files(made.folder).items() if name.endswith(".png")}
    make(scope, tmp_path / "later", [0, 3], film=True)
    assert files(tmp_path / "later") == files(tmp_path / "whole")
    assert before.items() <= files(tmp_path / "later").items()


def test_frames_are_those_of_the_last_attempt(tmp_path: Path) -> None:
    """A unit that is silent at the start is tried again through redirected ReLUs: its film is that of the attempt that is kept."""
    model = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()))
    with torch.no_grad():
        model[0].bias.fill_(-1.0)
    scope = Scope(model, Inputs(size=16), precision="float32", name="small")
    made = convscope.gallery(scope, "1", None, tmp_path, film=True, recipe="fourier", steps=32, size=16)
    assert {image.status for image in made} <= {"rescued", "stuck"}
    for image in made:
        with Image.open(image.film) as shot:
            assert shot.n_frames <= 33


@pytest.mark.parametrize("more", [{}, {"copies": 2, "diversity": 0.5}], ids=["alone", "in-groups"])
def test_patience(scope: Scope, tmp_path: Path, more: dict[str, object]) -> None:
    quick = {"recipe": "fourier", "stages": 1, "steps": 64, "size": 16, "learning_rate": 0.2} | more
    whole = make(scope, tmp_path / "whole", [0, 3, 7], **quick)
    made = make(scope, tmp_path / "patient", [0, 3, 7], patience=4, **quick)
    taken = [image.receipt["steps_taken"] for image in made]
    assert min(taken) < 64 and all(steps % 4 == 0 and steps >= 8 for steps in taken)
    assert made.saved is not None and made.saved.left_out == sum(64 - steps for steps in taken) and made.saved.seconds > 0
    assert str(made.saved).startswith(f"{made.saved.left_out:,} of {64 * len(taken):,} steps left out (")
    assert whole.saved is None and "steps_taken" not in whole.images[0].receipt and "patience" not in whole.images[0].receipt["recipe"]
    for image in made:
        assert image.receipt["recipe"]["patience"] == 4
        redone = convscope.redo(image.path, scope=scope)
        assert redone.equal, redone.verdict
    with pytest.raises(StoreConflict, match="made with another recipe"):
        make(scope, tmp_path / "patient", [0, 3, 7], **quick)


def test_an_image_that_ends_early_is_as_it_was_then(scope: Scope, tmp_path: Path) -> None:
    """Slow twin: the same optimization with so few steps; nothing in `fourier` depends on how many there are."""
    quick = {"recipe": "fourier", "stages": 1, "size": 16, "learning_rate": 0.2}
    made = make(scope, tmp_path / "patient", [0, 3, 7], patience=4, steps=64, **quick)
    for image in made:
        steps, unit = image.receipt["steps_taken"], image.unit
        twin = convscope.feature_visualization(scope, "2", [0, 3, 7], **(NUMBERS | quick | {"steps": steps}))  # type: ignore[arg-type]
        apart = np.abs(image.image - twin.images[[0, 3, 7].index(unit or 0)]).max()
        assert apart < 1.5 / 255, (unit, steps, apart)


def test_without_patience_nothing_ends(scope: Scope, tmp_path: Path) -> None:
    plain = make(scope, tmp_path / "plain", [0, 1])
    zero = make(scope, tmp_path / "zero", [0, 1], patience=0)
    assert files(plain.folder) == files(zero.folder)
    with pytest.raises(BadInput, match="patience must be at least 0, got -1"):
        make(scope, tmp_path / "wrong", [0], patience=-1)
