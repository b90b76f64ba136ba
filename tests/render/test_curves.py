"""Curves and counts: what is drawn of them, and that the page has room for it."""

from __future__ import annotations

import numpy as np

from convscope.render import layout
from convscope.render.draw import draw, pixels
from convscope.render.panels import Counts, Curves, Line, View


def curves(count: int = 3, **more: object) -> Curves:
    x = np.linspace(0, 1, 20)
    return Curves(tuple(Line(f"line {color}", x, x**color, color) for color in range(count)), "title", "x", "y", **more)  # type: ignore[arg-type]


def test_curves_are_drawn_with_their_level_and_chance() -> None:
    figure = draw(View("", (curves(level=(0.3, "t = 0.3"), diagonal=True, limits=(0, 1, 0, 1)),)))
    (axes,) = figure.axes
    assert len(axes.lines) == 1 + 3 + 1, "chance, the lines, the level"
    np.testing.assert_array_equal(axes.lines[3].get_ydata(), np.linspace(0, 1, 20) ** 2)
    assert axes.texts[0].get_text() == "t = 0.3" and axes.get_xlim() == (0, 1)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["line 0", "line 1", "line 2"]
    assert len({line.get_color() for line in axes.lines[1:4]}) == 3


def test_the_legend_names_each_line_once_and_takes_room() -> None:
    twice = Curves((Line("a", np.arange(2), np.arange(2)), Line("a", np.arange(2), np.arange(2)), Line("", np.arange(2), np.arange(2), 1)))
    assert list(layout.legend_names(twice)) == ["a"] and layout.legend_rows(twice) == 1
    many = curves(8)
    assert layout.legend_rows(many) > 1
    assert layout.arrange(View("", (many,))).height > layout.arrange(View("", (twice,))).height
    unnamed = Curves((Line("", np.arange(2), np.arange(2)),))
    assert layout.legend_rows(unnamed) == 0 and pixels(draw(View("", (unnamed,)))).min() < 255


def test_counts_have_a_cell_each_shaded_by_the_share_of_the_row() -> None:
    values = np.array([[8, 2, 0], [0, 0, 0]])
    figure = draw(View("", (Counts(values, ("gun", "$knife"), ("gun", "knife", "none"), "confusion", "is", (0, -1)),)))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["8\n80 %", "2\n20 %", "0\n0 %", "0", "0", "0"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2, 0], [0, 0, 0]])
    assert len(axes.patches) == 1, "the right cell of the first row is framed"
    picture = pixels(figure)
    assert picture.shape[0] > 2 * layout.CELL[1] and picture.shape[1] > 3 * layout.CELL[0]
