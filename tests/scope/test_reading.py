"""Scopes that read images whole, cropped or stretched: receipts hold it, figures say what was cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
import hand_built
from convscope.cli import main
from convscope.errors import BadInput
from convscope.scope import Inputs, Scope


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def scope() -> Scope:
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    return Scope(hand_built.seeded(lambda: torch.nn.Sequential(*layers)), Inputs(size=24), name="small")


def test_what_was_cut_off_is_said(scope: Scope, photo: Path) -> None:
    cut = cs.spectrum(scope, "1", photo)
    assert (
        cut.cut == (pytest.approx(1 - 24 / 38, abs=1e-3),) and "Edges are cut off: of the image only the middle was used" in cut.view().note
    )
    assert "without up to 37 % of the area" in cut.summary()
    for way in ("whole", "stretch"):
        kept = cs.spectrum(scope.reading(resize=way), "1", photo)
        assert kept.cut == (0,) and "Edges" not in kept.view().note and "Edges" not in kept.summary()
    field = cs.receptive_field(scope, "1", image=photo)
    assert field.cut == cut.cut and "Edges are cut off" in field.view().note and not cs.receptive_field(scope, "1").cut
    tested = cs.hypothesis(scope, "1", 0, [photo, photo], [torch.rand(3, 24, 24)] * 2)
    assert tested.cut == (*cut.cut, *cut.cut, 0, 0) and "Edges are cut off: of 2 of 4 images" in tested.view().note
    assert cs.spectrum(scope, "1", torch.rand(1, 3, 24, 24)).cut == (0,)


def test_receipts_hold_size_and_way(scope: Scope, photo: Path) -> None:
    whole = scope.reading(32, "whole")
    made = cs.activation_grid(whole, photo, ["1"])
    assert made.images.shape == (1, 3, 20, 32) and made.maps[0].shape == (1, 4, 18, 30)
    inputs = made.manifest["network"]["inputs"]
    assert inputs["size"] == [32, 32] and inputs["whole"] is True
    stretched = cs.activation_grid(scope.reading(32, "stretch"), photo, ["1"]).manifest["network"]["inputs"]
    assert stretched["size"] == [32, 32] and stretched["crop"] is None and "whole" not in stretched
    assert scope.inputs.size == 24 and not scope.inputs.whole, "the scope itself is as it was"


TAKE_IMAGES = {
    "spectrum": lambda s, p: cs.spectrum(s, "1", p),
    "activation_grid": lambda s, p: cs.activation_grid(s, p, ["1"]),
    "map_overlay": lambda s, p: cs.map_overlay(s, "1", p, top=2),
    "deconvnet": lambda s, p: cs.deconvnet(s, "1", [0], p),
    "occlusion": lambda s, p: cs.occlusion(s, p, 1, patch=8, stride=8),
    "grad_cam": lambda s, p: cs.grad_cam(s, p, 1, layer="1"),
    "kernel_angles": lambda s, p: cs.kernel_angles(s, "0", [0], p, top=1),
    "knockout": lambda s, p: cs.knockout(s, "1", [0], [p]),
    "receptive_field": lambda s, p: cs.receptive_field(s, "1", image=p),
}


@pytest.mark.parametrize("name", TAKE_IMAGES)
def test_every_technique_reads_whole_images(name: str, scope: Scope, photo: Path) -> None:
    seen = TAKE_IMAGES[name](scope.reading(32, "whole"), photo)
    if name == "receptive_field":  # its layers are those at the image's own size
        assert seen.effective.shape == (20, 32) and (seen.height, seen.width) == (20, 32)
        return
    assert seen.manifest["network"]["inputs"]["whole"] is True
    resized = Image.open(photo).resize((32, 20), Image.Resampling.BILINEAR)
    given = torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).astype(np.float32) / 255)
    for one, other in zip(seen.arrays(), TAKE_IMAGES[name](scope, given).arrays(), strict=True):
        np.testing.assert_allclose(one.array, other.array, rtol=1e-4, atol=1e-5, err_msg=one.name)


def test_on_the_command_line(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["spectrum", "textures", "features.20", str(photo), "--size", "96", "--resize", "whole", "--out", "seen"]) == 0
    assert "Edges" not in capsys.readouterr().out
    inputs = cs.load("seen").manifest["network"]["inputs"]
    assert inputs["size"] == [96, 96] and inputs["whole"] is True
    assert main(["spectrum", "textures", "features.20", str(photo), "--out", "cut"]) == 0
    assert "Edges are cut off" in capsys.readouterr().out
    assert main(["weight-grid", "textures", "features.0", "--size", "96"]) == 2
    assert main(["inversion", "textures", "features.6", str(photo), "--size", "32", "--steps", "2", "--out", "inverted"]) == 0
    assert cs.load("inverted").images.shape[-2:] == (20, 32)


def test_a_scan_takes_no_whole_images(scope: Scope, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a scan needs inputs of one size"):
        cs.scan(scope.reading(resize="whole"), photo.parent, tmp_path / "survey")
