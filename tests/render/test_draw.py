import io

import numpy as np
import pytest
from matplotlib.text import Text as Label
from PIL import Image as Pillow

from convscope.render.contact_sheet import contact_sheet
from convscope.render.draw import draw, encode, pixels
from convscope.render.layout import MARGIN, arrange, scale_marks
from convscope.render.panels import Bars, Dots, Group, Heat, Image, Signed, Strip, Table, Text, View, shared_range


def words(view: View) -> list[str]:
    figure = draw(view)
    figure.canvas.draw()
    return [label.get_text() for label in figure.findobj(Label) if label.get_text()]


def test_the_sheet_in_a_figure_is_pixel_for_pixel_the_contact_sheet():
    tiles = tuple(Image(np.random.default_rng(index).random((3, 201, 199)), f"unit {index}") for index in range(3))
    picture, sheet = pixels(draw(View("Title", tiles, columns=2))), contact_sheet(tiles, columns=2)
    height, width = sheet.shape[:2]
    top = picture.shape[0] - MARGIN - height
    np.testing.assert_array_equal(picture[top : top + height, MARGIN : MARGIN + width], sheet)


def test_a_figure_saved_at_another_resolution_keeps_its_sheet():
    figure = draw(View("", (Image(np.zeros((3, 200, 200))),)))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    with Pillow.open(buffer) as picture:
        assert (np.array(picture.convert("L")) == 0).sum() == pytest.approx(100 * 100, rel=0.03)


@pytest.mark.parametrize(("kind", "ends"), [(Heat, ["0", "2", "4", "6"]), (Signed, ["-5", "0", "5"])])
def test_the_colour_bar_has_round_numbers_zero_and_its_unit(kind: type[Heat], ends: list[str]):
    found = words(View("", (kind(np.array([[1.0, 7.0]]), "drop", unit="logit"),)))
    assert set(ends) <= set(found)
    assert {"logit", "drop"} <= set(found)


@pytest.mark.parametrize(
    ("limits", "kind", "expected"),
    [
        ((-1.31, 0.0988), Heat, {-1.0: "-1", -0.5: "-0.5", 0.0: "0"}),
        ((-39.8, 39.8), Signed, {-20.0: "-20", 0.0: "0", 20.0: "20"}),
        ((0, 0.549), Heat, {0.0: "0", 0.2: "0.2", 0.4: "0.4"}),
        ((3.1e-8, 5.2e-8), Heat, {4e-8: "4e-08", 5e-8: "5e-08"}),
    ],
    ids=["mostly below zero", "signed", "a probability", "tiny"],
)
def test_marks_along_a_scale_are_round_and_at_their_places(
    limits: tuple[float, float], kind: type[Heat], expected: dict[float, str]
) -> None:
    marks = scale_marks(kind(np.zeros((1, 1)), limits=limits), own=False)
    low, high = limits
    assert [name for _, name in marks] == list(expected.values())
    np.testing.assert_allclose([low + share * (high - low) for share, _ in marks], list(expected), atol=1e-9 * (high - low))
    assert scale_marks(Signed(np.zeros((1, 1)), limits=limits), own=True) == ((0.0, "-max"), (0.5, "0"), (1.0, "max"))


def test_zero_is_drawn_across_a_colour_bar_that_crosses_it() -> None:
    def lines(panel: Heat) -> int:
        figure = draw(View("", (panel,)))
        return sum(len(axes.get_lines()) for axes in figure.axes)

    crossing = Signed(np.array([[-2.0, 7.0]]))
    assert lines(crossing) == lines(Heat(np.array([[0.0, 7.0]]))) + 1


def test_maps_on_one_scale_share_a_sheet_and_one_colour_bar():
    maps = shared_range((Heat(np.eye(8), "a", unit="logit"), Heat(2 * np.eye(8), "b", unit="logit")))
    assert words(View("", (Group(maps),))).count("logit") == 1
    apart = (Heat(np.eye(8), "a", unit="logit"), Heat(2 * np.eye(8), "b", unit="logit"))
    assert words(View("", (Group(apart),))).count("logit") == 2


def test_spikes_are_labelled_and_the_highest_bar_stays_below_the_labels():
    view = View("", (Bars(np.arange(50.0), "spectrum", "channel", "mean", ((49, "49 tabby"), (3, "3"))),))
    figure = draw(view)
    axes = figure.axes[0]
    assert {label.get_text() for label in axes.texts} == {"49 tabby", "3"}
    assert axes.get_ylim()[1] * 0.85 > 49
    assert axes.get_ylabel() == "mean"


def test_a_single_spike_among_thousands_of_channels_is_visible():
    values = np.zeros(4096)
    values[2000] = 1.0
    picture = pixels(draw(View("", (Bars(values),)))).astype(int)
    column = (picture[..., 2] - picture[..., 0] > 40).sum(axis=0)
    assert column.max() > 150


def test_bars_without_values_or_with_nan_draw():
    view = View(
        "", (Bars(np.array([])), Bars(np.array([np.nan, 1.0]), spikes=((0, "0"), (1, "1"))), Bars(np.zeros(3), names=("a", "b$", "c$")))
    )
    assert {"1", "a", r"b\$"} <= set(words(view))


def test_names_with_dollar_signs_and_foreign_letters_are_printed_as_they_are():
    view = View(
        "cost $a$ 犬", (Strip((Dots("$x$", np.arange(3.0)), Dots("none", np.array([])))), Table(("file",), (("$b$_^",),)), Text("$c$"))
    )
    found = words(view)
    assert {"cost $a$ ?", "$b$_^", "$c$"} <= set(found)
    pixels(draw(view))


def test_everything_lies_on_the_page_and_nothing_overlaps():
    panels = (Text("word " * 80), Table(("a", "b"), (("1", "2"),)), Bars(np.arange(9.0)), Heat(np.eye(4), "m"), Image(np.zeros((3, 9, 9))))
    page = arrange(View("Title", panels, columns=2, subtitle="sub", note="note " * 60))
    boxes = [(item.x, item.y, item.x + item.width, item.y + item.height) for item in page.items]
    assert all(x0 >= 0 and y0 >= 0 and x1 <= page.width and y1 <= page.height for x0, y0, x1, y1 in boxes)
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        for other in boxes[index + 1 :]:
            assert x1 <= other[0] or other[2] <= x0 or y1 <= other[1] or other[3] <= y0


def test_encode_writes_a_png_of_the_layouts_size():
    view = View("Title", (Text("hello"),))
    page = arrange(view)
    with Pillow.open(io.BytesIO(encode(draw(view)))) as picture:
        assert picture.format == "PNG"
        assert picture.size == (page.width, page.height)


def test_a_sessions_dark_style_changes_nothing():
    import matplotlib

    view = View("Title", (Bars(np.arange(5.0), spikes=((4, "4"),)), Heat(np.eye(3), unit="logit"), Table(("a",), (("1",),))))
    plain = pixels(draw(view))
    with matplotlib.rc_context(
        {"axes.facecolor": "black", "axes.grid": True, "text.color": "white", "font.size": 30, "xtick.color": "white"}
    ):
        np.testing.assert_array_equal(pixels(draw(view)), plain)
