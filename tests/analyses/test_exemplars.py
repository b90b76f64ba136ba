"""Exemplars against a plain sort of all images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import convscope as cs
import promises
from convscope.errors import BadInput
from convscope.survey.survey import middles
from made import SIDE, drawn, made

PROMISE = promises.Promise(lambda s: cs.exemplars(s, "layer", [0, 3]), "result.view().subtitle")

COUNT, CHANNELS = 26, 7
MAPS = drawn(COUNT, CHANNELS, 5, 6)  # coarse: equal maxima within and between images
MAPS[:, 4] = 0
LABELS = (["ant", "bee", "cat", None] * 7)[:COUNT]
IDS = [3 * number for number in range(COUNT)]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    return made(tmp_path_factory.mktemp("survey") / "s", {"layer": MAPS}, LABELS, ids=IDS, shards=4)


def slow(channel: int, top: int, label: str | None) -> list[tuple[float, int, int, int]]:
    """(value, image, y, x) of the strongest images, by sorting all of them."""
    found: list[tuple[float, int, int, int]] = []
    for row in range(COUNT):
        if label is None or LABELS[row] == label:
            flat = MAPS[row, channel].ravel().tolist()
            place = flat.index(max(flat))
            found.append((max(flat), IDS[row], place // 6, place % 6))
    return sorted(found, key=lambda each: (-each[0], each[1]))[:top]


def test_what_a_damaged_survey_says_of_its_top_takes_no_memory(survey: cs.Survey, tmp_path: Path) -> None:
    shutil.copytree(survey.path, tmp_path / "s")
    file = tmp_path / "s" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"top": 2**40}))
    found, whole = (cs.exemplars(each, "layer", [5, 0, 5], top=4) for each in (cs.read_survey(tmp_path / "s"), survey))
    assert np.array_equal(found.images, whole.images) and np.array_equal(found.values, whole.values, equal_nan=True)


@pytest.mark.parametrize("label", [None, "bee"])
@pytest.mark.parametrize("top", [1, 5, 9, 12, 40])  # 9 are kept by the survey, more are found among all images
def test_exemplars_are_a_global_sort(survey: cs.Survey, top: int, label: str | None) -> None:
    made = cs.exemplars(survey, "layer", [5, 0, 4], top=top, label=label)
    assert made.units == (5, 0, 4) and made.images.shape == (3, top)
    for row, unit in enumerate(made.units):
        expected = slow(unit, top, label)
        count = len(expected)
        assert made.images[row, :count].tolist() == [each[1] for each in expected]
        np.testing.assert_array_equal(made.values[row, :count], np.float32([each[0] for each in expected]))
        assert made.positions[row, :count].tolist() == [list(each[2:]) for each in expected]
        assert (made.images[row, count:] == -1).all() and np.isnan(made.values[row, count:]).all()
        assert made.names[row] == tuple(f"{LABELS[IDS.index(each[1])]}/{each[1]}.png" for each in expected)
    assert made.of == (COUNT if label is None else LABELS.count("bee"))


def test_crops_are_what_the_unit_sees(survey: cs.Survey) -> None:
    from convscope.render.panels import Image

    made = cs.exemplars(survey, "layer", None, top=9)
    tiles = [panel.pixels for panel in made.view().flat() if isinstance(panel, Image)]
    cut = 0
    for unit, place in np.ndindex(*made.images.shape):
        y0, x0, y1, x1 = made.boxes[unit, place]
        seen = survey.read_image(int(made.images[unit, place]))[:, y0:y1, x0:x1]
        crop = made.crops[unit, place]
        lower = crop.shape[1] - seen.shape[1] if y0 == 0 else 0
        right = crop.shape[2] - seen.shape[2] if x0 == 0 else 0
        inside = np.s_[:, lower : lower + seen.shape[1], right : right + seen.shape[2]]
        np.testing.assert_array_equal(crop[inside], seen)
        around = crop.copy()
        around[inside] = 1
        assert (around == 1).all()
        shown = tiles.pop(0).copy()
        np.testing.assert_array_equal(shown[inside], seen)
        shown[inside] = 0.5
        assert (shown == 0.5).all(), "grey beyond the border, white would look like the page"
        cut += seen.shape != crop.shape
    assert cut, "some fields are cut by the border"
    assert made.crops.shape[-2:] == (9, 9) and made.height == made.width == SIDE


def test_crops_of_a_unit_that_sees_everything(survey: cs.Survey) -> None:
    made = cs.exemplars(survey, "output", 0, top=2)
    np.testing.assert_array_equal(made.crops[0, 1], survey.read_image(int(made.images[0, 1])))


@pytest.mark.parametrize("middle", [0.25, 0.5, 0.9])
def test_the_middle_of_a_field_has_its_share_and_its_centre(middle: float) -> None:
    length, stride, side = 60, 7, 31
    begin = np.arange(-14, 50, stride)
    cut = np.stack([begin.clip(0), (begin + side).clip(max=length)], 1)
    found = middles(cut, length, middle)
    for start, (first, last) in zip(begin, found, strict=True):
        slow = [pixel for pixel in range(length) if abs(pixel + 0.5 - (start + side / 2)) <= round(middle * side) / 2]
        if slow:
            assert abs(first - slow[0]) <= 1 and abs(last - 1 - slow[-1]) <= 1
        assert 0 <= first < last <= length
    assert (found[4:6, 1] - found[4:6, 0] == round(middle * side)).all()


def test_the_middle_where_every_position_sees_to_the_border(survey: cs.Survey) -> None:
    assert middles(np.array([[0, 60]] * 3), 60, 0.5).tolist() == [[0, 25], [15, 45], [35, 60]]
    made = cs.exemplars(survey, "output", 0, top=2, middle=0.5)
    np.testing.assert_array_equal(made.crops[0, 1], survey.read_image(int(made.images[0, 1]))[:, 6:18, 6:18])
    assert made.middle == 0.5 and "middle 50%" in made.view().note


def test_without_crops_no_picture_is_read(tmp_path: Path) -> None:
    survey = made(tmp_path / "s", {"layer": MAPS}, LABELS)
    for path in (tmp_path / "s" / "pictures").iterdir():
        path.unlink()
    plain = cs.exemplars(survey, "layer", 1, crops=False)
    assert plain.crops.size == 0 and plain.missing == ()
    assert [panel.header for panel in cs_tables(plain)] == [("image", "label", "activation", "at")]
    gone = cs.exemplars(survey, "layer", 1)
    assert len(gone.missing) == 9 and (gone.crops == 1).all()
    assert gone.summary().endswith(f"9 image files not found, e.g. {gone.missing[0]}")


def cs_tables(result: cs.Exemplars) -> list[object]:
    from convscope.render.panels import Table

    return [panel for panel in result.view().flat() if isinstance(panel, Table)]


def test_a_dead_unit_is_said_to_be_dead(survey: cs.Survey) -> None:
    from convscope.render.panels import Image

    result = cs.exemplars(survey, "layer", [4, 0])
    assert result.summary().splitlines()[0].endswith("(not active)") and "not active" not in result.summary().splitlines()[1]
    tiles = [panel for panel in result.view().flat() if isinstance(panel, Image)]
    assert [tile.marked for tile in tiles] == ["not active"] * 9 + [None] * 9
    seen = (result.crops[1, 0] != 1).any(0)
    assert seen.any()
    np.testing.assert_array_equal(tiles[9].pixels[:, seen], result.crops[1, 0][:, seen])
    assert tiles[9].caption.split(" · ")[1] == (result.image_labels[1][0] or str(result.images[1, 0]))


def test_summaries_have_what_they_keep(tmp_path: Path) -> None:
    survey = made(tmp_path / "s", {"layer": MAPS}, LABELS, summary_only=True, top=4)
    assert cs.exemplars(survey, "layer", 2, top=4).images[0].tolist() == [each[1] // 3 for each in slow(2, 4, None)]
    with pytest.raises(BadInput, match="summaries only, with the 4 strongest images of each unit; got top=5"):
        cs.exemplars(survey, "layer", 2, top=5)


def test_wrong_questions(survey: cs.Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="has no label 'dog': it has"):
        cs.exemplars(survey, "layer", 0, label="dog", top=20)
    with pytest.raises(BadInput, match="top must be at least 1"):
        cs.exemplars(survey, "layer", 0, top=0)
    for middle in (0.0, 1.5, float("nan")):
        with pytest.raises(BadInput, match="middle must be above 0 and at most 1"):
            cs.exemplars(survey, "layer", 0, middle=middle)
    monkeypatch.setattr("convscope.analyses.exemplars.MOST", 1000)
    with pytest.raises(BadInput, match=r"9 crops of 9 x 9 pixels take 0\.0 GB; ask for fewer units"):
        cs.exemplars(survey, "layer", 0)
