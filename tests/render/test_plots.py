import numpy as np
import pytest

from convscope.render import fonts
from convscope.render.draw import draw
from convscope.render.html import html
from convscope.render.panels import Bars, View
from convscope.render.plots import fit_labels, place_labels, spread


@pytest.mark.parametrize("seed", range(20))
def test_labels_never_overlap_nor_leave_the_line(seed: int):
    draws = np.random.default_rng(seed)
    count = int(draws.integers(1, 12))
    widths = draws.uniform(10, 60, count)
    centres = np.sort(draws.choice([draws.uniform(0, 800, count), draws.uniform(0, 20, count), draws.uniform(780, 800, count)]))
    placed = place_labels(centres, widths, 800)
    left, right = placed - widths / 2, placed + widths / 2
    assert left[0] >= -1e-9
    assert right[-1] <= 800 + 1e-9
    assert (left[1:] - right[:-1] >= 8 - 1e-9).all()


def test_labels_with_room_stay_where_they_belong():
    np.testing.assert_allclose(place_labels([100, 300, 500], [40, 40, 40], 800), [100, 300, 500])


def test_neighbours_are_pushed_to_both_sides():
    left, right = place_labels([400, 400], [40, 40], 800)
    assert left + right == 800
    assert right - left == 48


def test_labels_that_do_not_fit_fall_back_to_numbers_and_then_to_the_first():
    spikes = [(9, "9 goldfish"), (2, "2 great white shark")]
    assert fit_labels(spikes, 900) == [(2, "2 great white shark"), (9, "9 goldfish")]
    assert fit_labels(spikes, 60) == [(2, "2"), (9, "9")]
    assert fit_labels(spikes, fonts.width("9", fonts.SMALL) + 12) == [(9, "9")]
    assert fit_labels([], 100) == []


def test_equal_values_are_spread_and_lonely_ones_stay_in_the_middle():
    offsets = spread(np.array([1.0, 1.0, 1.0, 5.0, np.nan]))
    assert len(set(offsets[:3])) == 3
    assert offsets[3] == 0
    assert np.abs(offsets).max() <= 0.35


def test_an_axis_with_limits_ends_there_and_labels_stand_above():
    figure = draw(View("", (Bars(np.array([0.9, 0.2]), y_label="AUC", spikes=((0, "best"),), baseline=0.5, limits=(0.0, 1.0)),)))
    (axes,) = figure.axes
    assert axes.get_yticks().tolist() == [0, 0.25, 0.5, 0.75, 1] and axes.spines["left"].get_bounds() == (0, 1)
    low, high = axes.get_ylim()
    assert low == 0 and 1 < high < 1.5
    source = html(View("", (Bars(np.array([0.9, 0.2]), baseline=0.5, limits=(0.0, 1.0)),)), {})
    assert ">1<" in source and ">0<" in source and ">1.2<" not in source
