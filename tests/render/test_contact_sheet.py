import numpy as np
import pytest
from PIL import Image as Pillow

from convscope.render import colors
from convscope.render.contact_sheet import best_columns, contact_sheet, sheet_layout, to_bytes
from convscope.render.overlay import laid_over
from convscope.render.panels import Image, Signed


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


def test_a_legend_stands_below_its_tile_beside_its_colours():
    tiles = [Image(np.ones((3, 192, 192)), "unit", "words", legend=(("#0000ff", "one"), ("#00ff00", "two"))), Image(np.ones((3, 192, 192)))]
    sheet, layout = contact_sheet(tiles), sheet_layout(tiles)
    (_, x0, y1, _), _ = layout.boxes
    places = [np.argwhere((sheet == paint).all(-1)) for paint in ([0, 0, 255], [0, 255, 0])]
    assert all(len(place) == 121 and (place[:, 0] > y1).all() and place[:, 1].min() == x0 for place in places)
    assert places[0][:, 0].max() < places[1][:, 0].min() <= places[1][:, 0].max() < layout.size[1] == len(sheet)
    assert layout.legends == (("one", "two"), ())


def test_a_signed_map_colours_both_signs_and_leaves_the_image_where_it_is_zero():
    grey = to_bytes(np.full((3, 40, 40), 0.4))
    values = np.repeat(np.repeat(np.array([[-1.0, 0.0], [0.0, 0.5]]), 20, 0), 20, 1)  # as many values as pixels: nothing is smoothed
    made = np.asarray(laid_over(Pillow.fromarray(grey), Signed(values), grey.shape[:2]), int)
    assert (np.ptp(made[20:, :20], axis=-1) == 0).all() and abs(int(made[30, 10, 0]) - 102) <= 1, "zero: the image itself"
    assert made[5, 5, 2] > made[5, 5, 0] + 60, "negative: blue"
    assert made[35, 35, 0] > made[35, 35, 2] + 30, "positive: red"
    further = np.asarray(laid_over(Pillow.fromarray(grey), Signed(values, limits=(-2.0, 2.0)), grey.shape[:2]), int)
    assert made[5, 5, 2] - made[5, 5, 0] > further[5, 5, 2] - further[5, 5, 0] > 0, "the scale's own ends"
