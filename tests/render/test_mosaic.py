"""Mosaics of many small maps, maps over pictures, and boxes on pictures."""

import numpy as np
import pytest
from PIL import Image as Pillow

from convscope.render import colors
from convscope.render.contact_sheet import contact_sheet
from convscope.render.draw import draw, encode
from convscope.render.layout import arrange
from convscope.render.mosaic import margins, mosaic, mosaic_size
from convscope.render.overlay import _cells, enlarged, laid_over
from convscope.render.panels import Group, Heat, Image, Mosaic, View, number
from convscope.results.map_overlay import enlarged as enlarged_map

LIMITS = np.tile([0.0, 1.0], (5, 1))


def test_tiles_lie_row_by_row_and_unused_places_are_white():
    tiles = np.arange(5)[:, None, None] * np.ones((1, 2, 3)) / 4
    sheet = mosaic(Mosaic(tiles, 3, LIMITS, side=6, scale="grey", gap=1))
    assert sheet.shape == (4 + 1 + 4, 6 * 3 + 2, 3)
    for tile in range(5):
        y, x = tile // 3 * 5, tile % 3 * 7
        assert (sheet[y : y + 4, x : x + 6] == round(255 * tile / 4)).all()
    assert (sheet[5:, 14:] == 255).all() and (sheet[4] == 255).all()


def test_pictures_keep_their_colours_and_nan_is_grey():
    picture = np.zeros((1, 3, 2, 2))
    picture[0, 0, 0, 1] = 1
    sheet = mosaic(Mosaic(picture, 1, side=2))
    assert sheet[0, 1].tolist() == [255, 0, 0] and sheet[1, 1].tolist() == [0, 0, 0]
    assert (mosaic(Mosaic(np.full((1, 2, 2), np.nan), 1, LIMITS[:1], side=2)) == 153).all()


def test_each_tile_has_its_own_limits():
    tiles = np.stack([np.full((2, 2), 3.0), np.full((2, 2), 3.0)])
    sheet = mosaic(Mosaic(tiles, 2, np.array([[0.0, 3.0], [3.0, 6.0]]), side=2, gap=0))
    table = np.rint(colors.table("heat", 256) * 255)
    assert (sheet[:, :2] == table[-1]).all() and (sheet[:, 2:] == table[0]).all()


def test_names_marks_and_caption_find_room():
    panel = Mosaic(np.zeros((5, 4, 4)), 2, LIMITS, 20, crossed=(3,), row_names=("0", "2", "4"), column_names=("+0", "+1"), caption="words")
    left, top = margins(panel)
    plain = mosaic(Mosaic(np.zeros((5, 4, 4)), 2, LIMITS, 20))
    named = mosaic(panel)
    assert named.shape[1::-1] == mosaic_size(panel) and left > 0 and top > 0
    body = named[top : top + plain.shape[0], left : left + plain.shape[1]]
    changed = (body != plain).any(2)
    assert changed[22:42, 22:42].any() and not changed[:20].any(), "only tile 3 is crossed out"
    assert (named[:, :left] != 255).any() and (named[:top] != 255).any()


def test_columns_that_belong_together_stand_apart():
    near, apart = (mosaic(Mosaic(np.zeros((4, 2, 2)), 4, LIMITS[:4], 2, together=together)) for together in (1, 2))
    assert apart.shape[1] > near.shape[1] and (apart[:, 8] == 255).all()


def test_a_mosaic_in_a_figure():
    panel = Mosaic(np.random.default_rng(0).normal(size=(5, 4, 4)), 2, LIMITS, 20, "signed", "title", "caption", "weight")
    block = arrange(View("", (Group((panel, panel), 2),)))
    assert all(item.x + item.width <= block.width and item.y + item.height <= block.height for item in block.items)
    assert encode(draw(View("", (panel,))))[:4] == b"\x89PNG"
    for wrong in (
        lambda: Mosaic(np.zeros((2, 3)), 1),
        lambda: Mosaic(np.zeros((2, 3, 4)), 1),
        lambda: Mosaic(np.zeros((2, 3, 4, 4)), 1, LIMITS),
    ):
        with pytest.raises(ValueError, match="tiles are"):
            wrong()


def test_a_map_over_a_picture():
    picture = Pillow.fromarray(np.full((6, 8, 3), (200, 40, 40), np.uint8))
    values = np.zeros((3, 4))
    values[:, 3] = 2.0
    over = np.asarray(laid_over(picture, Heat(values, limits=(0, 2)), (6, 8))).astype(int)
    assert np.ptp(over[:, 0], axis=1).max() == 0, "grey where the map is zero"
    grey = over[0, 0, 0] / 255
    expected = 255 * (0.2 * grey + 0.8 * colors.table("heat", 256)[-1])
    np.testing.assert_allclose(over[:, -1], np.tile(expected, (6, 1)), atol=1.01)
    assert (enlarged(np.array([[np.nan, 1.0]]), (2, 1)) == [[0, 1]]).all()


def test_a_map_lies_in_its_place():
    """Against a plain twin: each pixel between the centres of cells that divide the place, the border cells beyond."""
    values, (height, width), place = np.random.default_rng(2).random((3, 5)), (30, 40), (-4.0, 6.0, 20.0, 36.0)
    heat = Heat(values, place=place)
    found = enlarged(values, (2 * width, 2 * height), _cells(heat, (height, width)))
    rows = np.clip(((np.arange(2 * height) + 0.5) / 2 - place[0]) / (place[2] - place[0]) * 3 - 0.5, 0, 2)
    columns = np.clip(((np.arange(2 * width) + 0.5) / 2 - place[1]) / (place[3] - place[1]) * 5 - 0.5, 0, 4)
    across = np.stack([np.interp(columns, np.arange(5), row) for row in values])
    expected = np.stack([np.interp(rows, np.arange(3), column) for column in across.T], 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(enlarged_map(values[None].astype(np.float32), height, width, place)[0], expected[::2, ::2], atol=0.1)


def test_a_sheet_of_overlays_has_a_bar():
    tile = Image(np.ones((3, 40, 40)), heat=Heat(np.eye(2), unit="activation"))
    plain, laid = arrange(View("", (Image(np.ones((3, 40, 40))),))), arrange(View("", (tile,)))
    assert laid.items[0].leaf.bar is not None and plain.items[0].leaf.bar is None
    other = Image(np.ones((3, 40, 40)), heat=Heat(3 * np.eye(2), unit="activation"))
    (mixed,) = arrange(View("", (Group((tile, other)),))).items
    assert mixed.leaf.own and encode(draw(View("", (Group((tile, other)),))))[:4] == b"\x89PNG"


def test_boxes_are_frames_in_the_pictures_own_pixels():
    tile = Image(np.zeros((3, 100, 200)), boxes=((20, 40, 60, 80), (-50, 150, 400, 900), (200, 300, 250, 350)))
    sheet = contact_sheet([tile], side=400)
    assert sheet.shape == (200, 400, 3)
    strong = tuple(int(colors.STRONG[index : index + 2], 16) for index in (1, 3, 5))
    framed = (sheet == strong).all(2)
    assert framed[40, 80:160].all() and framed[119, 80:160].all() and framed[40:120, 80].all() and framed[40:120, 159].all()
    assert not framed[60:100, 100:140].any()
    assert framed[0, 300:400].all() and framed[199, 300:400].all(), "cut at the border; what lies outside is not drawn"


def test_numbers_of_four_digits_are_written_out():
    assert [number(value) for value in (1063.4, -1234.5, 999.9, 123456.7, 1.5e6, 0.01234)] == [
        "1063",
        "-1234",
        "1000",
        "123457",
        "1.5e+06",
        "0.0123",
    ]
