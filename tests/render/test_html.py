"""Views as HTML: well formed, complete, escaped, nothing from elsewhere, small."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from typing import get_args

import numpy as np
import pytest
from PIL import Image as Pillow

from convscope import render
from convscope.render import colors
from convscope.render.contact_sheet import to_bytes
from convscope.render.html import STYLE, data_uri, encode, html, index
from convscope.render.mosaic import mosaic_body
from convscope.render.panels import (
    Bars,
    Counts,
    Curves,
    Dots,
    Group,
    Heat,
    Image,
    Interval,
    Intervals,
    Line,
    Mosaic,
    Panel,
    Signed,
    Strip,
    Table,
    Text,
    View,
)
from render_stand_ins import feature_visualization, hypothesis, pattern, spectrum

HOSTILE = "</script><b onclick='x'>\"&\u2028\u2029\x00\udc80 $a$"
RANDOM = np.random.default_rng(0)
EVERY: dict[type, Panel] = {
    Image: Image(
        pattern(3),
        "an image",
        "a caption",
        "stuck",
        Heat(np.eye(4), unit="activation"),
        ((4, 8, 30, 40), (-9, -9, 9, 9), (99, 0, 120, 9)),
        (("#2563a8", "a class"), ("#c2410c", "another")),
    ),
    Heat: Heat(RANDOM.random((5, 7)), "a map", "its caption", "logit"),
    Signed: Signed(RANDOM.normal(size=(5, 7)), "a signed map", x_label="step"),
    Mosaic: Mosaic(
        RANDOM.normal(size=(10, 3, 3)), 4, np.tile([-2.0, 2.0], (10, 1)), 18, "signed", "mosaic", "words", "weight", (3,), ("0", "4", "8")
    ),
    Bars: Bars(np.arange(20.0), "bars", "channel", "activation", ((7, "7 goldfish"), (19, "19")), second=np.ones(20), legend=("a", "b")),
    Strip: Strip(
        (Dots("concept", RANDOM.random(9), (2,)), Dots("background", RANDOM.random(30))), "dots", "activation", "(stroke: median)"
    ),
    Intervals: Intervals(
        ("a class", "another"), (Interval("own units", np.array([[1.0, 0, 2], [3, np.nan, np.nan]]), 1),), "intervals", "points", zero=True
    ),
    Curves: Curves((Line("one", np.arange(5), np.arange(5) ** 2), Line("two", np.arange(5), np.arange(5), 1, True)), "curves", "x", "y"),
    Counts: Counts(np.array([[8, 2], [0, 0]]), ("gun", "knife"), ("gun", "none"), "counts", "is \\ taken for", (0, -1)),
    Text: Text("first\n\nsecond", "a text"),
    Table: Table(("name", "value"), (("a", "1.5"), ("b", "12 %")), "a table"),
    Group: Group((Heat(np.eye(3), rows=("a", "b", "c"), x_label="image"), Text("x")), 2, "a group"),
}


class Page(HTMLParser):
    """The elements of a page, each with its attributes; fails where tags do not match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> repeats an attribute"
        self.found.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        """The attributes of each element with this tag, and this class if given."""
        return [attributes for name, attributes in self.found if name == tag and (not kind or kind in attributes.get("class", "").split())]


def page(*panels: Panel, columns: int | None = 1, **more: str) -> Page:
    return Page(html(View(more.pop("title", "Title"), panels, columns, **more), {}, style=False))


def decoded(source: str) -> np.ndarray:
    head, _, code = source.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(code))))


@pytest.mark.parametrize("kind", get_args(Panel), ids=lambda kind: kind.__name__)
def test_every_kind_of_panel_is_shown_with_its_words(kind: type) -> None:
    panel = EVERY[kind]
    shown = page(panel)
    assert len(shown.found) > 3
    words = "\n".join(shown.words)
    fields = (getattr(panel, name, "") for name in ("title", "caption", "unit", "x_label", "y_label", "legend", "corner"))
    for field in fields:
        for word in [field] if isinstance(field, str) else field:
            assert (word if isinstance(word, str) else word[1]) in words


def test_a_page_of_everything_is_well_formed_and_loads_nothing() -> None:
    source = html(View("Title", tuple(EVERY.values()), 2, "subtitle", "note"), {"parameters": {"seed": 0}})
    whole = Page(source)
    for outside in ("http", "url(", "@import", "<script", "<link", "<iframe", "style="):
        assert outside not in source.replace("<style", "")
    assert all(image["src"].startswith("data:image/") for image in whole.all("img"))
    assert [tag for tag, _ in whole.found[:2]] == ["style", "article"]
    assert not whole.all("script") and "xlink" not in source


def test_whatever_a_name_holds_stays_text() -> None:
    names = (HOSTILE, HOSTILE)
    panels = (
        Image(pattern(1), HOSTILE, HOSTILE, HOSTILE, Heat(np.eye(2), unit=HOSTILE)),
        Heat(np.eye(2), HOSTILE, HOSTILE, HOSTILE, x_label=HOSTILE, rows=names),
        Mosaic(np.zeros((2, 3, 3)), 2, np.ones((2, 2)), 9, "heat", HOSTILE, HOSTILE, HOSTILE, (), names[:1], names),
        Bars(np.arange(2.0), HOSTILE, HOSTILE, HOSTILE, ((0, HOSTILE),), names, np.ones(2), names),
        Strip((Dots(HOSTILE, np.arange(3.0)),), HOSTILE, HOSTILE, HOSTILE),
        Curves((Line(HOSTILE, np.arange(2), np.arange(2)),), HOSTILE, HOSTILE, HOSTILE, level=(0.5, HOSTILE)),
        Counts(np.ones((2, 2), int), names, names, HOSTILE, HOSTILE),
        Text(HOSTILE, HOSTILE),
        Table(names, (names,), HOSTILE),
    )
    source = html(View(HOSTILE, (Group(panels, 1, HOSTILE),), 1, HOSTILE, HOSTILE), {HOSTILE: {HOSTILE: [HOSTILE]}}, style=False)
    whole = Page(source)
    source.encode("utf-8")
    assert not whole.all("script") and not whole.all("b", "x") and "onclick='" not in source
    assert not {"\u2028", "\u2029", "\x00", "\udc80"} & set(source)
    assert all(not key.startswith("on") for _, attributes in whole.found for key in attributes)
    clean = HOSTILE.replace("\x00", "\ufffd").replace("\udc80", "\ufffd")
    assert whole.words.count(clean) > 20
    assert any(clean in image["alt"] for image in whole.all("img"))


def test_images_are_tiles_with_alternative_texts() -> None:
    shown = Page(html(feature_visualization(6).view(), {}))
    images = shown.all("img")
    assert len(images) == 6 and all(image["alt"] and image["width"] == image["height"] == "192" for image in images)
    assert images[0]["alt"] == "unit 10: -1"
    assert images[4]["alt"].endswith("(stuck: zero gradient at every start)")
    assert len(shown.all("div", "cs-marked")) == 1 and "stuck: zero gradient at every start" in shown.words
    without = page(Group((Image(pattern(0)), Image(pattern(1))), title="two images"))
    assert [image["alt"] for image in without.all("img")] == ["two images 1", "two images 2"]


def test_a_caller_may_put_images_into_files() -> None:
    given: list[tuple[np.ndarray, str]] = []

    def images(pixels: np.ndarray, alt: str) -> str:
        given.append((pixels, alt))
        return f"images/{len(given)}.webp?a&b"

    source = html(View("", (EVERY[Image], EVERY[Heat], EVERY[Mosaic])), {}, images=images, style=False)
    found = Page(source).all("img")
    assert [image["src"] for image in found] == [f"images/{number}.webp?a&b" for number in (1, 2, 3)]
    assert all(image["loading"] == "lazy" for image in found) and "data:" not in source
    assert [image["alt"] for image in found] == [alt for _, alt in given]
    assert all(pixels.dtype == np.uint8 and pixels.shape[2] in (3, 4) for pixels, _ in given)


def test_maps_are_exact_and_have_their_colour_scale() -> None:
    panel = EVERY[Heat]
    assert isinstance(panel, Heat)
    shown = page(panel)
    (image,) = shown.all("img")
    np.testing.assert_array_equal(decoded(image["src"]), to_bytes(colors.colorize(panel)))
    assert "cs-pixels" in image["class"] and "logit" in image["alt"] and "5 x 7" in image["alt"]
    (scale,) = shown.all("div", "cs-scale")
    assert scale["aria-label"] == f"colour scale from 0 to {panel.values.max():.3g}, logit"
    tiled = page(Group((Heat(np.eye(3), "a", limits=(0, 2)), Heat(np.eye(4), "b", limits=(0, 2)))))
    assert len(tiled.all("img")) == 2 and len(tiled.all("div", "cs-scale")) == 1
    apart = page(Group((Image(pattern(0), heat=Heat(np.eye(2))), Image(pattern(0), heat=Heat(3 * np.eye(2))))))
    assert "max" in apart.words and len(apart.all("div", "cs-scale")) == 1


def test_the_colour_scales_of_the_style_sheet_are_those_of_the_maps() -> None:
    for name in ("heat", "signed"):
        (stops,) = re.findall(rf"\.cs-{name} {{ background: linear-gradient\(90deg, (.*?)\)", STYLE)
        shown = np.array([[int(stop[place : place + 2], 16) for place in (1, 3, 5)] for stop in stops.split(", ")])
        np.testing.assert_allclose(shown / 255, colors.table(name, len(shown)), atol=0.02)
    for place, color in enumerate(colors.CLASSES):
        assert f"--cs-{place}: {color};" in STYLE


def test_a_mosaic_is_one_image_transparent_between_tiles() -> None:
    panel = EVERY[Mosaic]
    assert isinstance(panel, Mosaic)
    shown = page(panel)
    (image,) = shown.all("img")
    pixels = decoded(image["src"])
    np.testing.assert_array_equal(pixels, mosaic_body(panel))
    assert pixels.shape == (3 * 18 + 2 * 2, 4 * 18 + 3 * 2, 4)
    assert (
        (pixels[:18, 18:20, 3] == 0).all()
        and (pixels[18:20, :18, 3] == 0).all()
        and (pixels[:18, :18, 3] == 255).all()
        and (pixels[-18:, -38:, 3] == 0).all()
    )
    assert {"0", "4", "8", "weight"} <= set(shown.words) and image["alt"] == "mosaic: 10 tiles in 4 columns, 1 crossed out"


def chart(panel: Panel) -> tuple[Page, list[dict[str, str]], np.ndarray, np.ndarray]:
    """A chart, its paths, and the ticks of its vertical axis: rows (of 400) and values."""
    source = html(View("", (panel,)), {}, style=False)
    (axis,) = re.findall(r'<div class="cs-y" .*?<svg>(.*?)</svg>', source)
    ticks = [(float(row) * 4, float(value)) for row, value in re.findall(r'y="([\d.]+)%">([^<]+)<', axis)]
    shown = Page(source)
    return shown, shown.all("path"), np.array([row for row, _ in ticks]), np.array([value for _, value in ticks])


def at(rows: np.ndarray, ticks: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values that lie at rows of a chart, by its ticks."""
    slope, start = np.polyfit(ticks, values, 1)
    return start + slope * rows


@pytest.mark.parametrize("count", [5, 200, 1000])
def test_bars_end_at_their_values(count: int) -> None:
    values = np.random.default_rng(1).normal(size=count)
    values[2] = np.nan
    shown, paths, ticks, numbers = chart(Bars(values, "t", "channel", "mean", ((4, "4 cat"), (2, "2 dog"), (0, "0")), baseline=0.25))
    (drawn,) = [path["d"] for path in paths if path["class"] == "cs-bars"]
    (strong,) = [path["d"] for path in paths if path["class"] == "cs-bars cs-strong"]
    bars = np.array([[float(number) for number in bar] for bar in re.findall(r"M(\d+) (-?\d+)V(-?\d+)", drawn)])
    assert len(bars) >= min(count - 1, count * 0.98) and 2 not in bars[:, 0]
    low, high = at(bars[:, 1], ticks, numbers), at(bars[:, 2], ticks, numbers)
    expected = values[bars[:, 0].astype(int)]
    step = (np.nanmax(values) - np.nanmin(values)) / 200
    np.testing.assert_allclose(low, np.minimum(expected, 0.25), atol=step)
    np.testing.assert_allclose(high, np.maximum(expected, 0.25), atol=step)
    assert re.findall(r"M(\d+)", strong) == ["0", "4"]
    (label,) = [each["aria-label"] for each in shown.all("svg") if "aria-label" in each]
    assert f"{count} values" in label and f"4 cat: {values[4]:.3g}" in label and "dog" not in label
    assert {"0", "4 cat", "mean", "channel"} <= set(shown.words) and "2 dog" not in shown.words


def test_labels_of_bars_never_overlap_and_the_first_ones_stay() -> None:
    shown = page(Bars(np.ones(500), spikes=tuple((250 + place, str(250 + place)) for place in range(20))))
    (above,) = shown.all("svg", "cs-above")
    assert "cs-n3" in above["class"], "three tiers"
    assert {"250", "251", "252"} <= set(shown.words) and "253" not in shown.words


def test_charts_of_many_bars_stay_small_and_lose_no_spike() -> None:
    values = np.abs(np.random.default_rng(2).normal(size=1000))
    assert len(html(View("", (Bars(values),)), {}, style=False)) < 16_000
    many = np.zeros(16384)
    many[7001] = 3.0
    source = html(View("", (Bars(many, spikes=((7001, "7001"),)),)), {}, style=False)
    (bar,) = re.findall(r'd="M(\d+) \d+V\d+" class="cs-bars"', source)
    assert len(source) < 4000 and int(bar) == 7001 // 17
    noisy = np.random.default_rng(3).normal(size=50_000)
    assert len(html(View("", (Curves((Line("a", np.arange(50_000), noisy),)),)), {}, style=False)) < 60_000
    assert len(STYLE) < 13_000


def test_curves_go_through_their_points() -> None:
    x = np.linspace(0, 1, 21)
    shown, paths, ticks, numbers = chart(
        Curves((Line("a", x, x**2, 3), Line("b", x, x, 1, True)), "t", "x", "y", (0, 1, 0, 1), True, (0.3, "t = 0.3"))
    )
    (first,) = [path["d"] for path in paths if path["class"] == "cs-line cs-3"]
    points = np.array([[float(number) for number in point.split()] for point in first[1:].split("L")])
    np.testing.assert_allclose(points[:, 0] / 1000, x, atol=1e-3)
    np.testing.assert_allclose(at(points[:, 1], ticks, numbers), x**2, atol=5e-3)
    assert [path["class"] for path in paths].count("cs-level") == 2, "chance and the level"
    assert len(shown.all("span", "cs-key")) == 2 and {"a", "b", "t = 0.3"} <= set(shown.words)
    assert any("cs-dashed" in path["class"] for path in paths)


def test_a_curve_keeps_its_extremes() -> None:
    y = np.zeros(10_001)
    y[5003] = 1.0
    _, paths, ticks, numbers = chart(Curves((Line("a", np.arange(len(y)), y),)))
    (line,) = [path["d"] for path in paths if "cs-line" in path["class"]]
    rows = np.array([float(point.split()[1]) for point in line[1:].split("L")])
    np.testing.assert_allclose(at(rows, ticks, numbers).max(), 1.0, atol=0.01)


def test_dots_are_counted_and_marked() -> None:
    (strip,) = [panel for panel in hypothesis().view().flat() if isinstance(panel, Strip)]
    paths = page(strip).all("path")
    counts = {path["class"]: path["d"].count("h0") for path in paths if "cs-dots" in path["class"]}
    assert counts == {"cs-dots cs-plain": 24 + 60 - 2, "cs-dots cs-strong": 2}
    (medians,) = [path["d"] for path in paths if path["class"] == "cs-median"]
    assert medians.count("M") == 2


def test_counts_are_a_table_with_shares() -> None:
    shown = page(EVERY[Counts])
    cells = shown.all("td")
    assert [cell["class"] for cell in cells] == ["cs-n8 cs-right", "cs-n2", "cs-n0", "cs-n0"]
    assert {"8", "80 %", "2", "20 %", "0"} <= set(shown.words) and "0 %" not in shown.words


def test_columns_of_numbers_are_aligned_right() -> None:
    shown = page(EVERY[Table])
    assert [cell.get("class") for cell in shown.all("td")] == [None, "cs-number"] * 2
    assert shown.all("caption") and len(shown.all("th")) == 2


def test_boxes_are_drawn_in_the_pixels_of_the_image() -> None:
    (svg,) = page(EVERY[Image]).all("svg", "cs-boxes")
    halo, frame = page(EVERY[Image]).all("path")
    assert svg["viewbox"] == "0 0 64 64"
    assert halo["d"] == frame["d"] == "M8 4H40V30H8zM0 0H9V9H0z", "cut at the border; what lies outside is not drawn"


def test_every_class_has_a_style_and_every_style_a_class() -> None:
    views = [View("T", tuple(EVERY.values()), 2, "s", "n"), *(make().view() for make in (feature_visualization, spectrum, hypothesis))]
    limits = np.ones((40, 2))
    more: tuple[Panel, ...] = (
        Text("x", large=True),
        Heat(np.ones((3, 700)), rows=("a", "b", "c")),
        Mosaic(np.ones((40, 3, 3)), 40, limits),
        Mosaic(np.ones((4, 3, 3)), 2, limits[:4], scale="grey", column_names=("+0", "+1")),
        Bars(np.ones(3), names=("a long name of a bar",) * 3),
        Bars(np.ones(300), spikes=((0, "first"), (299, "299th")), marked=(299,)),
        Bars(np.ones(900)),
        Curves((Line("", np.ones(1), np.ones(1)),), level=(1, "l")),
        Intervals(("a row",) * 30, (Interval("s", np.ones((30, 3))),)),
        Image(pattern(3), "framed", frame=9),
    )
    views.append(View("", more))
    sources = [*(html(view, {"a": 1}) for view in views), index(views[0], {"a sheet": "a.png"}, {})]
    used = {name for source in sources for _, given in Page(source).found for name in given.get("class", "").split()}
    defined = set(re.findall(r"\.(cs-[a-z0-9-]+|convscope)", STYLE))
    numbered = re.compile(r"cs-(n|side|)\d+$")
    assert {name for name in used if name not in defined} <= {"cs-table", "cs-halo"}
    assert {name for name in defined - used if not numbered.match(name)} == set()
    assert {f"cs-n{number}" for number in range(17)} <= defined and {f"cs-side{side}" for side in range(64, 353, 32)} <= defined
    assert {f"cs-{place}" for place in range(len(colors.CLASSES))} <= defined


def test_the_style_sheet_touches_nothing_but_views() -> None:
    plain = re.sub(r"/\*.*?\*/", "", STYLE, flags=re.DOTALL)
    depth, outer = 0, ""
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        outer += sign if depth == 0 else ""
    selectors = [selector.strip() for selector in re.split(r"[},]", outer) if selector.strip()]
    assert depth == 0 and len(selectors) > 4
    assert all(selector.endswith(".convscope") for selector in selectors)


def test_panels_lie_in_columns() -> None:
    texts = tuple(Text(str(number)) for number in range(4))
    assert page(*texts, columns=4).all("div", "cs-n4") and page(*texts).all("div", "cs-stack")
    tiles = page(*(Image(pattern(number)) for number in range(9)), columns=9)
    assert tiles.all("div", "cs-tiles")[0]["class"].split()[-1] == "cs-n9"
    assert "cs-n" not in page(*(Image(pattern(number)) for number in range(9)), columns=None).all("div", "cs-tiles")[0]["class"]


def test_empty_panels_and_values_that_are_not_finite_are_shown() -> None:
    nothing = np.array([])
    panels = (
        Bars(nothing),
        Bars(np.array([np.nan, 1.0]), spikes=((0, "0"), (1, "1"))),
        Bars(np.full(3, np.inf)),
        Strip((Dots("none", nothing), Dots("nan", np.array([np.nan])))),
        Curves(()),
        Curves((Line("a", nothing, nothing), Line("b", np.array([1.0, np.nan]), np.array([1.0, 2.0])))),
        Heat(np.full((2, 2), np.nan)),
        Heat(np.zeros((0, 3))),
        Image(np.zeros((3, 0, 4))),
        Mosaic(np.full((2, 2, 2), np.nan), 2, np.zeros((2, 2))),
        Table(("a",), ()),
        Table((), ()),
        Group(()),
        Text(""),
    )
    source = html(View("", panels), {}, style=False)
    Page(source)
    assert "nan" not in re.sub(r'="[^"]*"|>[^<]*<', "", source.lower()) and "NaN" not in " ".join(re.findall(r' d="([^"]*)"', source))


def test_parameters_are_folded_with_dotted_names() -> None:
    result = feature_visualization(1)
    shown = Page(render.html(result.view(), result.manifest | {"layers": ["a", 1]}))
    assert shown.all("details") and {"Parameters", "parameters.recipe", "crops", "a, 1"} <= set(shown.words)
    assert not page().all("details")


def test_the_style_is_carried_once_if_asked_for() -> None:
    view = View("T", (Text("x"),))
    assert html(view, {}).count(STYLE) == 1 and "<style" not in html(view, {}, style=False)
    assert "</" not in STYLE
    assert hypothesis()._repr_html_() == html(hypothesis().view(), hypothesis().manifest)


def test_an_index_links_to_further_figures() -> None:
    source = index(View("<T>", (Text("x"),)), {"features.12": "features.12.png", "a<b": "a b#.png"}, {"seed": 1})
    assert source.startswith("<!doctype html>\n<html") and source.count("<article") == 1 and "<T>" not in source
    shown = Page(source.removeprefix("<!doctype html>\n"))
    assert [given["href"] for given in shown.all("a")] == ["features.12.png", "a%20b%23.png"]
    assert [given["src"] for given in shown.all("img")] == ["features.12.png", "a%20b%23.png"]
    assert {"features.12", "a<b", "seed"} <= set(shown.words)


def test_photographs_are_compressed_and_maps_are_exact() -> None:
    photograph = (RANDOM.random((64, 64, 3)) * 255).astype(np.uint8)
    few = photograph // 64 * 64
    np.testing.assert_array_equal(decoded(data_uri(few, "")), few)
    np.testing.assert_array_equal(decoded(data_uri(photograph, "")), photograph, "small images are exact, too")
    smooth = np.asarray(Pillow.fromarray(photograph[:24, :24]).resize((256, 256), Pillow.Resampling.BICUBIC))
    assert len(encode(smooth)) < smooth.size / 8
    assert np.abs(decoded(data_uri(smooth, "")).astype(int) - smooth).mean() < 6


def test_large_images_are_sent_at_twice_the_size_shown_at_most() -> None:
    (image,) = page(Group((Image(np.zeros((3, 1000, 800))),), side=100)).all("img")
    assert (image["width"], image["height"]) == ("80", "100")
    assert decoded(image["src"]).shape == (200, 160, 3)
    many = page(Group(tuple(Image(np.zeros((3, 300, 300))) for _ in range(101)), side=100)).all("img")
    assert decoded(many[0]["src"]).shape == (100, 100, 3)
