"""Top patches against the steps done by hand: exemplars, then deconvnet of each image alone from the exemplar's position."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import convscope as cs
import hand_built
import promises
import scanned
from convscope.cli import main
from convscope.errors import BadImage, BadInput, BadWeights, LayerNotFound, UnitNotFound
from convscope.render.panels import Group, Image
from convscope.results.deconvnet import on_grey

PROMISE = promises.Promise(
    lambda s: cs.top_patches(s, promises.survey(s), "5", [0, 3], top=2),
    "result.evidence_map(1, 1)",
    forwards=1,
)

SIDE = scanned.SIDE


@pytest.fixture(scope="module")
def scope() -> cs.Scope:
    return scanned.small_scope()


@pytest.fixture(scope="module")
def survey(scope: cs.Scope, tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    folder = tmp_path_factory.mktemp("top")
    return cs.scan(scope, scanned.folder_of(folder / "images", 14), folder / "survey", layers=scanned.LAYERS)


@pytest.mark.parametrize(
    ("layer", "units", "more"),
    [
        ("5", [6, 0, 3], {}),
        ("5", None, {"top": 3, "rule": "guided"}),
        ("2", [1, 4], {"top": 12, "rule": "gradient", "label": "bee"}),  # more than the scan keeps, fewer than there are: 12 of 5
        ("5", [2], {"middle": 0.5}),
        ("output", ["class 1", 4], {"top": 2, "rule": "gradient"}),
    ],
    ids=["plain", "all", "label", "middle", "classes"],
)
def test_equal_to_the_steps_by_hand(scope: cs.Scope, survey: cs.Survey, layer: str, units: list[int] | None, more: dict) -> None:
    made = cs.top_patches(scope, survey, layer, units, **more)
    rule = more.get("rule", "deconvnet")
    best = cs.exemplars(survey, layer, units, **{key: value for key, value in more.items() if key != "rule"})
    for name in ("values", "images", "positions", "boxes", "crops"):
        np.testing.assert_array_equal(getattr(made, name), getattr(best, name))
    assert made.units == best.units and made.names == best.names and made.missing == made.changed == ()
    active = 0
    for row, unit in enumerate(best.units):
        for rank, image in enumerate(best.images[row]):
            tile = made.projection[row, rank]
            if image < 0:
                assert np.isnan(tile).all()
                continue
            pixels = torch.from_numpy(survey.read_image(int(image)))
            alone = cs.deconvnet(scope, layer, unit, pixels, rule=rule, position=tuple(best.positions[row, rank].tolist()))
            y0, x0, y1, x1 = best.boxes[row, rank]
            inside = alone.projection[0, 0, :, y0:y1, x0:x1]
            shown = tile[:, ~np.isnan(tile[0]).all(1)][:, :, ~np.isnan(tile[0]).all(0)]
            np.testing.assert_allclose(shown, inside, rtol=0, atol=1e-5 * max(np.abs(inside).max(), 1e-9))
            assert (np.isnan(tile).sum() == 0) == (tile.shape[1:] == inside.shape[1:])  # no pixel exactly beyond the border
            active += bool(np.abs(inside).max() > 0)
    assert active > 1


def test_each_image_is_read_and_runs_but_once_a_unit(scope: cs.Scope, survey: cs.Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    own = cs.Survey.read_image
    monkeypatch.setattr(cs.Survey, "read_image", lambda self, image: read.append(image) or own(self, image))
    monkeypatch.setattr(cs.Scope, "fitting", lambda self, pixels: 7)
    before = scope.forwards
    made = cs.top_patches(scope, survey, "5", None, top=9)
    assert scope.forwards - before == -(-made.images.size // 7)
    assert sorted(set(read)) == sorted(set(made.images.ravel().tolist())) and len(read) == len(set(read))


def test_files_that_are_gone_or_changed(scope: cs.Scope, tmp_path: Path) -> None:
    survey = cs.scan(scope, scanned.folder_of(tmp_path / "images", 6), tmp_path / "survey", layers=["5"])
    whole = cs.top_patches(scope, survey, "5", [0, 3], top=6)
    first, second = (Path(path) for path in survey.images["path"].to_pylist()[:2])
    first.unlink()
    Pillow.new("RGB", (SIDE, SIDE), "white").save(second)
    made = cs.top_patches(scope, survey, "5", [0, 3], top=6)
    names = survey.names[:2]
    assert made.missing == names[:1] and made.changed == names[1:]
    others = ~np.isin(made.images, survey.ids[:2])
    np.testing.assert_allclose(made.projection[others], whole.projection[others], rtol=1e-4, atol=1e-6)
    assert np.isnan(made.projection[made.images == survey.ids[0]]).all() and (made.crops[made.images == survey.ids[0]] == 1).all()
    tiles = [panel for panel in made.view().flat() if isinstance(panel, Image)]
    marks = [tile.marked for tile in tiles]
    assert marks.count("cannot be read") == 2 and marks.count("changed since the scan") == 2
    assert "1 image file cannot be read, e.g. ant/000.png." in made.summary() and "1 image file changed since the scan" in made.view().note
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(BadImage, match=r"none of the 6 images can be read; the first: .*moved or removed"):
        cs.top_patches(scope, survey, "5", [0, 3], top=6)


def test_another_network_is_refused(survey: cs.Survey) -> None:
    other = scanned.small_scope()
    with torch.no_grad():
        other.model[0].weight[0, 0, 0, 0] += 1
    with pytest.raises(BadWeights, match="made with weights"):
        cs.top_patches(other, survey, "5", 0)
    with pytest.raises(BadInput, match="made with other inputs"):
        cs.top_patches(scanned.small_scope(side=32), survey, "5", 0)
    plain = cs.Scope(hand_built.small(), cs.Inputs(size=SIDE))
    with pytest.raises(BadInput, match=r"made with other inputs \(mean \[0.4, 0.5, 0.6\]"):
        cs.top_patches(plain, survey, "5", 0)


def test_bad_questions(scope: cs.Scope, survey: cs.Survey, tmp_path: Path) -> None:
    for layer, units, more, error, words in (
        ("4", 0, {}, LayerNotFound, "no layer '4' in this survey"),
        ("5", 8, {}, UnitNotFound, "has units 0 to 7"),
        ("5", 0, {"top": 0}, BadInput, "top must be at least 1"),
        ("5", 0, {"rule": "lrp"}, BadInput, "rule must be deconvnet, guided or gradient"),
        ("5", 0, {"label": "dog"}, BadInput, "no label 'dog'"),
        ("5", 0, {"middle": 2}, BadInput, "middle must be above 0"),
    ):
        with pytest.raises(error, match=words):
            cs.top_patches(scope, survey, layer, units, **more)
    with pytest.raises(BadInput, match="scope must be a scope"):
        cs.top_patches(survey, scope, "5", 0)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="survey must be a survey"):
        cs.top_patches(scope, str(tmp_path), "5", 0)  # type: ignore[arg-type]


def test_the_figure(scope: cs.Scope, survey: cs.Survey) -> None:
    made = cs.top_patches(scope, survey, "5", [6, 0], top=9)
    view = made.view()
    pairs = [panel for panel in view.panels if isinstance(panel, Group)]
    assert [group.title for pair in pairs for group in pair.panels if isinstance(group, Group)] == [
        "unit 6: projections",
        "unit 6: images",
        "unit 0: projections",
        "unit 0: images",
    ]
    left, right = (group for group in pairs[0].panels if isinstance(group, Group))
    assert left.columns == right.columns == 3 and len(left.panels) == len(right.panels) == 9
    for rank, (projected, image) in enumerate(zip(left.panels, right.panels, strict=True)):
        assert isinstance(projected, Image) and isinstance(image, Image)
        np.testing.assert_array_equal(projected.pixels, on_grey(made.projection[0, rank])[0])
        beyond = np.isnan(made.projection[0, rank])
        assert (image.pixels[beyond] == 0.5).all() and (image.pixels[~beyond] == made.crops[0, rank][~beyond]).all()
        assert image.caption == made.image_labels[0][rank]
    assert "99.5 % quantile" in view.note and "not class evidence" in view.note
    seen = cs.top_patches(scope, survey, "5", [6], top=4, evidence=True)
    grids = [panel for panel in seen.view().panels[0].panels if isinstance(panel, Group)]  # type: ignore[union-attr]
    assert [grid.columns for grid in grids] == [2, 2, 2] and grids[2].title == "unit 6: evidence"
    total = np.abs(np.nan_to_num(seen.projection[0, 1])).sum(0)
    np.testing.assert_allclose(seen.evidence_map(0, 1), total / total.max())
    assert all(isinstance(tile, Image) and tile.heat is not None and tile.heat.values.max() == 1 for tile in grids[2].panels)


NETWORK = """
import convscope as cs
import hand_built

def build():
    return hand_built.small(), cs.Inputs(size=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
"""


def test_the_command_opens_the_survey_s_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of one's own must be given; a survey of a published one names it (the docstring's examples run that)."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK)
    scanned.folder_of(tmp_path / "images", 5)
    assert main(["scan", "net.py:build", "images", "--out", "survey"]) == 0
    assert main(["top-patches", "survey", "5", "--units", "0,3", "--top", "2"]) == 2
    assert "made with the network net.py:build, which a receipt cannot open" in capsys.readouterr().err
    assert main(["top-patches", "survey", "5", "--units", "0,3", "--top", "2", "--network", "net.py:build"]) == 0
    made = cs.load("out/top-patches/survey-5")
    assert (
        isinstance(made, cs.TopPatches)
        and made.projection.shape[:2] == (2, 2)
        and "wrote out/top-patches/survey-5" in capsys.readouterr().out
    )
    assert main(["top-patches", "survey", "images/ant/000.png", "--units", "0", "--network", "net.py:build"]) == 2
    assert "not a layer: convscope top-patches SURVEY LAYER --units UNITS" in capsys.readouterr().err
