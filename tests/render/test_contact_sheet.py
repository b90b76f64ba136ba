import numpy as np
import pytest

from convscope.render import colors
from convscope.render.contact_sheet import best_columns, contact_sheet, sheet_layout, to_bytes
from convscope.render.panels import Image


def noise(count: int, height: int, width: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).random((count, 3, height, width)))


@pytest.mark.parametrize("labels", [False, True])
def test_a_tile_is_its_picture_pixel_for_pixel(labels: bool):
    pictures = noise(5, 200, 224)
    tiles = [Image(picture, f"unit {index}" * labels, "0.5" * labels) for index, picture in enumerate(pictures)]
    sheet, layout = contact_sheet(tiles, title="Sheet"), sheet_layout(tiles, title="Sheet")
    assert sheet.dtype == np.uint8
    assert sheet.shape == (layout.size[1], layout.size[0], 3)
    for picture, (y0, x0, y1, x1) in zip(pictures, layout.boxes, strict=True):
        np.testing.assert_array_equal(sheet[y0:y1, x0:x1], to_bytes(picture))


def test_tiny_pictures_are_repeated_a_whole_number_of_times():
    picture = noise(1, 50, 50)[0]
    tiles = [Image(picture)]
    y0, x0, y1, x1 = sheet_layout(tiles).boxes[0]
    assert (y1 - y0, x1 - x0) == (200, 200)
    np.testing.assert_array_equal(contact_sheet(tiles)[y0:y1, x0:x1], np.kron(to_bytes(picture), np.ones((4, 4, 1), np.uint8)))


def test_a_mark_is_visible_and_stays_on_its_tile():
    white = np.ones((3, 128, 128))
    plain = [Image(white, "unit 1"), Image(white, "unit 2")]
    marked = [Image(white, "unit 1"), Image(white, "unit 2", marked="stuck: zero gradient")]
    before, after = contact_sheet(plain), contact_sheet(marked)
    y0, x0, y1, x1 = sheet_layout(marked).boxes[1]
    red = np.all(after == [int(colors.WARN[place : place + 2], 16) for place in (1, 3, 5)], axis=-1)
    assert red[y0:y1, x0:x1].mean() > 0.1
    assert red[y0, x0:x1].all()
    assert red[y0:y1, x1 - 1].all()
    outside = np.ones(red.shape, bool)
    outside[y0:y1, x0:x1] = False
    np.testing.assert_array_equal(before[outside], after[outside])


def test_titles_are_drawn_above_their_tile():
    tiles = [Image(np.ones((3, 192, 192)), "unit 7"), Image(np.ones((3, 192, 192)))]
    sheet, layout = contact_sheet(tiles), sheet_layout(tiles)
    (y0, x0, _, x1), (_, second, _, end) = layout.boxes
    assert (sheet[:y0, x0:x1] < 128).any()
    assert (sheet[:, second:end] == 255).all()


def test_titles_never_exceed_the_tile():
    tiles = [Image(np.ones((3, 192, 192)), "great white shark, white shark, man-eater, man-eating shark, Carcharodon") for _ in range(2)]
    sheet, layout = contact_sheet(tiles, columns=2), sheet_layout(tiles, columns=2)
    assert (sheet[:, layout.boxes[0, 3] : layout.boxes[1, 1]] == 255).all()
    assert all(len(lines) == 2 for lines in layout.titles)


@pytest.mark.parametrize(("count", "size"), [(12, 224), (64, 64), (512, 224), (1000, 224)])
def test_sheets_are_about_four_to_three_and_not_huge(count: int, size: int):
    width, height = sheet_layout([Image(np.zeros((3, size, size)), "unit 1", "0.1")] * count).size
    assert 1.0 < width / height < 1.7
    assert width * height < 40e6


def test_every_picture_has_its_own_place():
    boxes = sheet_layout([Image(np.zeros((3, 20 + index, 40)), "t") for index in range(7)]).boxes
    taken = np.zeros((boxes[:, 2].max(), boxes[:, 3].max()), int)
    for y0, x0, y1, x1 in boxes:
        taken[y0:y1, x0:x1] += 1
    assert taken.max() == 1


def test_best_columns_avoids_empty_places():
    assert best_columns(3, 0.8) == 3
    assert best_columns(12, 1.0) == 4
    assert best_columns(1, 1.0) == best_columns(0, 1.0) == 1


def test_side_sets_the_longer_side():
    boxes = sheet_layout([Image(np.zeros((3, 50, 100)))], side=40).boxes
    assert boxes.tolist() == [[0, 0, 20, 40]]


def test_no_tiles_and_empty_pictures_do_not_fail():
    assert contact_sheet([]).ndim == 3
    assert contact_sheet([Image(np.zeros((3, 0, 4)))]).ndim == 3


def test_to_bytes_clips_and_rounds():
    values = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, np.nan]).reshape(1, 1, 6).repeat(3, 0)
    assert to_bytes(values)[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0]
