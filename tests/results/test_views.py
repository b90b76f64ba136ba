"""The views of single techniques."""

import dataclasses
from pathlib import Path

import numpy as np

from convscope import render
from convscope.render import colors
from convscope.render.contact_sheet import contact_sheet, sheet_layout
from convscope.render.panels import Bars, Heat, Image, Strip, Table, Text
from convscope.results.folder import load, save
from render_stand_ins import feature_visualization, hypothesis, spectrum


def test_feature_visualization_shows_unit_label_score_and_why_it_is_stuck():
    result = feature_visualization(6)
    view = result.view()
    tiles = [panel for panel in view.panels if isinstance(panel, Image)]
    assert [tile.title for tile in tiles[:3]] == ["unit 10", "11 great white shark, man-eater", "unit 12"]
    assert [tile.caption for tile in tiles[:3]] == ["-1", "0.25", "1.5 · rescued"]
    assert [tile.marked for tile in tiles] == [None, None, None, None, "stuck: zero gradient at every start", None]
    np.testing.assert_array_equal(tiles[2].pixels, result.images[2])
    assert "1 stuck (14)" in view.note
    assert view.subtitle == "squeezenet1_0 · layer features.12 · seed 0"


def test_a_stuck_unit_is_red_in_the_picture_of_the_whole_result():
    tiles = [panel for panel in feature_visualization(6).view().panels if isinstance(panel, Image)]
    y0, x0, y1, x1 = sheet_layout(tiles).boxes[4]
    warning = [int(colors.WARN[place : place + 2], 16) for place in (1, 3, 5)]
    assert (contact_sheet(tiles)[y0, x0:x1] == warning).all()
    assert not (contact_sheet(tiles)[y0:y1, : x0 - 20] == warning).all(axis=-1).any()


def test_a_spectrum_has_the_mean_first_then_a_plot_per_image():
    result = spectrum(3)
    bars = [panel for panel in result.view().flat() if isinstance(panel, Bars)]
    assert [panel.title for panel in bars] == ["mean of 3 images", "photo_0.jpg", "photo_1.jpg", "photo_2.jpg"]
    np.testing.assert_allclose(bars[0].values, result.values.mean(axis=0))
    assert {index for index, _ in bars[0].spikes} == {7, 8, 9, 256}
    assert bars[0].spikes[0] == (7, "7")
    assert bars[0].y_label == "mean activation"


def test_a_spectrum_of_one_image_needs_no_mean():
    flat = spectrum(1, labels=True).view().flat()
    (bars,) = [panel for panel in flat if isinstance(panel, Bars)]
    assert bars.title == "photo_0.jpg"
    assert bars.spikes[0] == (7, "7 class name 7")


def test_a_spectrum_table_holds_value_maximum_and_active_share():
    result = spectrum(2)
    table = next(panel for panel in result.view().flat() if isinstance(panel, Table))
    mean = result.values[:, 7].mean()
    assert table.rows[0] == ("7", "1", f"{mean:.3g}", f"{result.maxima[:, 7].mean():.3g}", f"{100 * result.active[:, 7].mean():.0f} %")


def test_spikes_come_with_their_pictures():
    result = spectrum(1, 64, pictures=True)
    tiles = [panel for panel in result.view().flat() if isinstance(panel, Image)]
    assert {tile.title for tile in tiles} == {"7", "8", "9", "32"}
    np.testing.assert_array_equal(tiles[0].pixels, result.pictures[result.pictured.index(7)])


def test_many_images_become_a_matrix_below_the_mean():
    result = spectrum(12, 100)
    flat = result.view().flat()
    assert [panel.title for panel in flat if isinstance(panel, Bars)] == ["mean of 12 images"]
    (matrix,) = [panel for panel in flat if isinstance(panel, Heat)]
    np.testing.assert_array_equal(matrix.values, result.values)
    assert matrix.rows == result.names


def test_a_hypothesis_shows_both_groups_ranking_and_contrary_images():
    result = hypothesis()
    flat = result.view().flat()
    (strip,) = [panel for panel in flat if isinstance(panel, Strip)]
    np.testing.assert_array_equal(strip.groups[0].values, result.concept[:, 50])
    np.testing.assert_array_equal(strip.groups[1].values, result.background[:, 50])
    assert strip.groups[0].marked == (2, 11)
    (bars,) = [panel for panel in flat if isinstance(panel, Bars)]
    assert (np.diff(bars.values) <= 0).all()
    assert dict(bars.spikes)[result.rank - 1] == "50 (asked about)"
    assert bars.values[result.rank - 1] == result.auc[50] and bars.limits == (0, 1)
    numbers, better, against = (panel for panel in flat if isinstance(panel, Table))
    assert numbers.rows[0] == ("AUC", f"{result.auc[50]:.3g}")
    assert numbers.rows[1] == ("rank by AUC", f"{result.rank} of 256")
    assert [row[0] for row in better.rows] == ["3", "200", "17"]
    assert [row[0] for row in against.rows] == ["bird_2.jpg", "bird_11.jpg"]
    assert next(panel for panel in flat if isinstance(panel, Text)).text == result.verdict


def test_background_images_against_a_hypothesis_are_shown_too():
    result = dataclasses.replace(hypothesis(), against=("other_5.jpg", "bird_2.jpg"))
    flat = result.view().flat()
    (strip,) = [panel for panel in flat if isinstance(panel, Strip)]
    assert (strip.groups[0].marked, strip.groups[1].marked) == ((2,), (5,))
    against = [panel for panel in flat if isinstance(panel, Table)][-1]
    assert [row[:2] for row in against.rows] == [("other_5.jpg", "background"), ("bird_2.jpg", "concept")]
    rank = 1 + int((result.background[5] > result.background[5, 50]).sum())
    assert against.rows[0][3] == f"{rank} of 256"


def test_a_hypothesis_without_better_units_says_so():
    texts = [panel.text for panel in hypothesis(better=()).view().flat() if isinstance(panel, Text)]
    assert any(text.startswith("None: no unit") for text in texts)


def test_stored_results_are_shown_like_fresh_ones(tmp_path: Path):
    for index, result in enumerate((feature_visualization(2), spectrum(2, 64, pictures=True), hypothesis(better=()))):
        assert render.png(load(save(result, tmp_path / str(index))).view()) == render.png(result.view())
