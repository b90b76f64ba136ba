"""Views as HTML: images as ``img``, charts as inline SVG, tables as ``table``; no script, nothing loaded from elsewhere.

One function for each kind of panel. Looks are classes (:data:`STYLE`, the file ``style.css``), which follow the page from light to
dark and down to a width of 360 pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image as Pillow

from convscope.render import charts, colors, layout
from convscope.render.contact_sheet import shown_sizes, to_bytes
from convscope.render.layout import Sheet
from convscope.render.markup import Markup, element, joined
from convscope.render.mosaic import mosaic_body, tile_centres
from convscope.render.overlay import laid_over
from convscope.render.panels import (
    Bars,
    Counts,
    Curves,
    Group,
    Heat,
    Image,
    Intervals,
    Mosaic,
    Panel,
    Signed,
    Strip,
    Table,
    Text,
    View,
    number,
)

STYLE = files("convscope.render").joinpath("style.css").read_text(encoding="utf-8")
"""The style sheet of all views: once in a page; every rule begins with ``.convscope``."""

Images = Callable[[np.ndarray, str], str]
"""Gives the address of an image, from its pixels (h w 3) or, with transparency, (h w 4) uint8, and its alternative text."""

_MAP_SIDE, _MANY = 340, 100
_BROAD = 640
"""A mosaic that is broader is never shrunk below this, but scrolled: its tiles would become too small to be seen."""


def html(view: View, manifest: Mapping[str, Any], *, images: Images | None = None, style: bool = True) -> str:
    """A view as an HTML fragment, with the parameters folded below it.

    Args:
        view: What is shown.
        manifest: How the result came about; nested entries get dotted names.
        images: Gives the address of each image, e.g. of a file that it writes with :func:`encode`; None puts the images inside
            (:func:`data_uri`).
        style: Whether the fragment carries :data:`STYLE`. A page with several fragments holds it once instead.

    Returns:
        One ``article`` element, with a ``style`` element before it if asked for. Without line separators U+2028 and U+2029, and UTF-8
        can hold it whatever names it shows.
    """
    head = [element("h2", view.title)] if view.title else []
    head += [element("p", view.subtitle, class_="cs-subtitle")] if view.subtitle else []
    body = _group(Group(view.panels, view.columns), images or data_uri, view.title)
    note = [element("p", view.note, class_="cs-note")] if view.note else []
    article = element("article", *head, body, *note, _parameters(manifest), class_="convscope")
    return str(joined(element("style", Markup(STYLE)), article) if style else article)


def index(view: View, sheets: Mapping[str, str], manifest: Mapping[str, Any]) -> str:
    """A page of its own that shows a view and, small and linked, further figures.

    Args:
        view: What is shown first.
        sheets: The further figures: name to file, beside the page.
        manifest: As of :func:`html`.
    """
    tiles: list[Markup] = []
    for name, file in sheets.items():
        small = element("img", src=quote(file), alt="", loading="lazy", width=224, class_="cs-small")
        tiles.append(element("li", element("a", small, name, href=quote(file))))
    links = element("section", element("h3", "Each in a figure of its own"), element("ul", *tiles, class_="cs-index"))
    head = element("meta", charset="utf-8"), element("meta", name_="viewport", content="width=device-width")
    scheme = element("meta", name_="color-scheme", content="light dark")
    body = element("div", Markup(html(view, manifest)), element("div", links, class_="convscope"))
    page = element("html", element("head", *head, scheme, element("title", view.title)), element("body", body), lang="en")
    return f"<!doctype html>\n{page}\n"


def encode(pixels: np.ndarray) -> bytes:
    """Pixels (h w 3 or 4) uint8 as WebP: of quality 92, but exact where they are few (96 x 96), have few colours or transparency.

    So maps and mosaics are exact, and photographs and images that were optimized from noise take a fifth of a PNG.
    """
    image = Pillow.fromarray(pixels)
    exact = pixels.shape[2] == 4 or image.width * image.height <= 96**2 or image.getcolors(512) is not None
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", lossless=exact, quality=60 if exact else 92, exact=exact)
    return buffer.getvalue()


def data_uri(pixels: np.ndarray, alt: str) -> str:  # noqa: ARG001
    """An image as an address that holds it; arguments as of :data:`Images`."""
    return f"data:image/webp;base64,{base64.b64encode(encode(pixels)).decode('ascii')}"


def _panel(panel: Panel, images: Images, within: str) -> Markup:
    """Any panel; `within` is the title of what it stands in, for alternative texts."""
    match panel:
        case Group():
            return _group(panel, images, panel.title or within)
        case Image():
            return _sheet(layout.images_sheet((panel,), 1, None), images, within)
        case Heat():
            return _heat(panel, images)
        case Mosaic():
            return _mosaic(panel, images)
        case Bars():
            return _figure(panel.title, charts.bars(panel))
        case Strip():
            return _figure(panel.title, charts.strip(panel))
        case Intervals():
            return _figure(panel.title, charts.intervals(panel))
        case Curves():
            return _figure(panel.title, charts.curves(panel))
        case Counts():
            return counts_table(panel)
        case Table():
            return _table(panel)
        case Text():
            return _text(panel)


def _group(group: Group, images: Images, within: str) -> Markup:
    """Panels in rows of `columns`, fewer where the page is narrow; a contact sheet if they are nothing but images."""
    title = element("h3", group.title) if group.title else ""
    sheet = layout.as_sheet(group)
    if sheet is not None:
        return element("section", title, _sheet(sheet, images, within))
    panels = [_panel(panel, images, within) for panel in group.panels]
    columns = f"cs-grid cs-n{_columns(group.columns)}" if group.columns != 1 else "cs-stack"
    return element("section", title, element("div", *panels, class_=columns))


def _sheet(sheet: Sheet, images: Images, within: str) -> Markup:
    """Images with title, caption and mark, each an ``img`` of its own, and the colour scale that they share."""
    sizes = shown_sizes(sheet.tiles, sheet.side)
    side = max((width for _, width in sizes), default=64)
    tiles = (
        _tile(tile, size, images, f"{within} {place}".strip(), len(sheet.tiles) <= _MANY)
        for place, (tile, size) in enumerate(zip(sheet.tiles, sizes, strict=True), 1)
    )
    kind = f"cs-tiles cs-side{min(max(-(-side // 32) * 32, 64), 352)}" + (f" cs-n{_columns(sheet.columns)}" if sheet.columns else "")
    scale = _scale(sheet.bar, own=sheet.own) if sheet.bar is not None else ""
    return element("div", element("div", *tiles, class_=kind), scale)


def _tile(tile: Image, size: tuple[int, int], images: Images, within: str, sharp: bool) -> Markup:
    """An image; `sharp` encodes it with up to two pixels for each one shown, for screens of high resolution."""
    height, width = size
    words = tile.title or tile.caption
    alt = f"{words}: {tile.caption}" if tile.title and tile.caption else words or within or "image"
    if tile.heat is not None:
        alt += f"; laid over it: {tile.heat.unit or 'a map'}"
    alt += f"; {len(tile.boxes)} boxes drawn on it" if len(tile.boxes) > 1 else "; a box drawn on it" if tile.boxes else ""
    alt += f" ({tile.marked})" if tile.marked else ""
    parts = [_img(_pixels(tile, width, height, 2 if sharp else 1), alt, images, width, height)]
    if tile.boxes:
        parts.append(_boxes(tile))
    if tile.marked is not None:
        parts.append(element("span", tile.marked, class_="cs-mark"))
    above = element("figcaption", tile.title, class_="cs-tile-title") if tile.title else ""
    # a figure has one figcaption
    kind = "p" if tile.title or tile.legend else "figcaption"
    below = element(kind, tile.caption, class_="cs-caption") if tile.caption else ""
    below = element("div", below, _legend(tile), class_="cs-below") if tile.legend else below
    kind = "cs-image cs-marked" if tile.marked is not None else "cs-image"
    kind += f" cs-framed cs-{tile.frame % len(colors.CLASSES)}" if tile.frame is not None else ""
    framed = element("div", *parts, class_=kind)
    return element("figure", above, framed, below, class_="cs-tile")


def _legend(tile: Image) -> Markup:
    """What the colours of an image stand for; their squares are images, since the page's own colours change from light to dark."""
    names: list[Markup] = []
    for paint, name in tile.legend:
        square = element(
            "svg", element("rect", width=11, height=11, fill=paint), viewBox="0 0 11 11", width=11, height=11, aria_hidden="true"
        )
        names.append(element("li", square, " ", name))
    return element("ul", *names, class_="cs-swatches")


def _pixels(tile: Image, width: int, height: int, most: int) -> np.ndarray:
    """The pixels of a tile (h w 3) uint8: its own, shrunk to at most `most` times the size shown, with its map laid over."""
    if 0 in tile.pixels.shape:
        return np.full((1, 1, 3), 211, np.uint8)
    image = Pillow.fromarray(to_bytes(tile.pixels))
    if image.width > most * width:
        image = image.resize((most * width, most * height), Pillow.Resampling.LANCZOS)
    if tile.heat is not None:
        if image.width < width:  # the map is smooth also where the image has few pixels
            image = image.resize((width, height), Pillow.Resampling.NEAREST if _squares(image.width, width) else Pillow.Resampling.LANCZOS)
        image = laid_over(image, tile.heat, tile.pixels.shape[1:])
    return np.asarray(image)


def _squares(own: int, shown: int) -> bool:
    """Whether an image is enlarged so much that its pixels are shown as squares."""
    return 1.5 * own < shown


def _boxes(tile: Image) -> Markup:
    """Frames in the image's own pixels, dark on light, so that they are seen on any image."""
    height, width = tile.pixels.shape[1:]
    path = ""
    for top, left, bottom, right in tile.boxes:
        y0, y1, x0, x1 = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
        if y0 < y1 and x0 < x1:
            path += f"M{x0:g} {y0:g}H{x1:g}V{y1:g}H{x0:g}z"
    lines = (element("path", d=path, class_=kind) for kind in ("cs-halo", "cs-frame"))
    return element("svg", *lines, class_="cs-boxes", viewBox=f"0 0 {width} {height}", preserveAspectRatio="none", aria_hidden="true")


def _heat(panel: Heat, images: Images) -> Markup:
    """A map with its colour scale; with names or numbers along its axes where it has any."""
    rows, columns = panel.values.shape
    pixels = to_bytes(colors.colorize(panel)) if panel.values.size else np.full((1, 1, 3), 211, np.uint8)
    low, high = panel.range()
    alt = f"{panel.title or 'map'}: {panel.unit or 'values'}, {rows} x {columns}, colour scale from {number(low)} to {number(high)}"
    if panel.rows:
        height = min(max(rows * 18, 120), 720)
        centres = (np.arange(rows) + 0.5) / rows
        # as high as shown: the browser may then shrink the columns smoothly without blurring the rows
        shown = _img(np.repeat(pixels, -(-height // rows), axis=0), alt, images, max(columns, 640), height, fill=True)
        body = charts.framed(shown, _columns_axis(panel), charts.Axis(charts.thinned(panel.rows, centres, height, 17)))
        return _figure(panel.title, element("div", body, class_=charts.breadth(columns)), panel.caption, _scale(panel))
    zoom = _MAP_SIDE / max(rows, columns, 1)
    shown = _img(pixels, alt, images, max(round(columns * zoom), 1), max(round(rows * zoom), 1))
    if panel.x_label:
        marks = tuple(((value + 0.5) / rows, f"{value:.0f}") for value in layout.ticks(0, rows - 1, 5, whole=True))
        shown = charts.framed(shown, _columns_axis(panel), charts.Axis(marks))
    return _figure(panel.title, shown, panel.caption, _scale(panel), kind="cs-map")


def _columns_axis(panel: Heat) -> charts.Axis:
    """The horizontal axis of a map, with numbers if it has a label."""
    if not panel.x_label:
        return charts.Axis()
    count = panel.values.shape[1] * panel.x_step
    found = layout.ticks(0, count - 1, 6, whole=True)
    return charts.Axis(tuple(((value + 0.5) / count, f"{value:.0f}") for value in found), panel.x_label)


def _mosaic(panel: Mosaic, images: Images) -> Markup:
    """Tiles as one image, with the names of rows at its left and of columns above it."""
    body = mosaic_body(panel)
    down, across = body.shape[:2]
    alt = f"{panel.title or 'mosaic'}: {len(panel.tiles)} tiles in {min(panel.columns, len(panel.tiles))} columns"
    alt += f", {len(panel.crossed)} crossed out" if panel.crossed else ""
    rows, columns = tile_centres(panel)
    narrow = min(across, charts.NARROW if across < _BROAD else _BROAD - 40) / across
    left = charts.thinned(panel.row_names, rows / down, down * narrow, 15)
    letters = max(map(len, panel.column_names), default=0)
    above = charts.thinned(panel.column_names, columns / across, across * narrow, letters * charts.LETTER + 6)
    framed = charts.framed(_img(body, alt, images, across, down), y=charts.Axis(left), above=charts.names_above(above))
    scrolled = element("div", framed, class_="cs-scroll" + " cs-broad" * (across >= _BROAD))
    return _figure(panel.title, scrolled, panel.caption, _mosaic_scale(panel), kind="cs-mosaic")


def _mosaic_scale(panel: Mosaic) -> str:
    if panel.limits is None or not len(panel.limits):
        return ""
    low, high = float(panel.limits[:, 0].min()), float(panel.limits[:, 1].max())
    kind = Signed if panel.scale == "signed" else Heat
    bar = kind(np.zeros((0, 0)), unit=panel.unit, limits=(low, high if high > low else low + 1))
    return _scale(bar, own=bool((panel.limits != panel.limits[0]).any()), grey=panel.scale == "grey")


def _scale(panel: Heat, *, own: bool = False, grey: bool = False) -> Markup:
    """The colour scale of a map with its unit; with `own`, each map has its own ends, so that they are words instead of numbers."""
    marks = layout.scale_marks(panel, own=own)
    kind = "grey" if grey else "signed" if isinstance(panel, Signed) else "heat"
    low, high = panel.range()
    ends = (marks[0][1], marks[-1][1]) if own else (number(low), number(high))
    names = element("svg", *(element("text", name, x=f"{100 * share:.4g}%", y=13, class_=_side(share)) for share, name in marks))
    unit = element("span", panel.unit, class_="cs-unit") if panel.unit else ""
    alt = f"colour scale from {ends[0]} to {ends[1]}" + (f", {panel.unit}" if panel.unit else "")
    ramp = element("span", class_=f"cs-ramp cs-{kind}")
    return element("div", ramp, names, unit, class_="cs-scale", role="img", aria_label=alt)


def _side(share: float) -> str:
    """How a text at this share of a line lies, so that it stays within."""
    return "cs-start" if share < 0.04 else "cs-end" if share > 0.96 else ""


def counts_table(panel: Counts, links: Mapping[tuple[int, int], str] | None = None) -> Markup:
    """Counts as a table, each cell shaded by its share of the row; `links` {(row, column): address} makes links of some."""
    totals = panel.values.sum(1)
    head = element("tr", element("th", panel.corner), *(element("th", name, scope="col") for name in panel.columns))
    rows: list[Markup] = []
    for row, name in enumerate(panel.rows):
        cells = [element("th", name, scope="row")]
        for column, value in enumerate(panel.values[row]):
            share = float(value / totals[row]) if totals[row] else 0.0
            right = " cs-right" if row < len(panel.right) and panel.right[row] == column else ""
            words = joined(str(value), element("small", f"{100 * share:.0f} %")) if totals[row] else joined("0")
            if links and (row, column) in links:
                words = element("a", words, href=links[row, column])
            cells.append(element("td", words, class_=f"cs-n{round(10 * share)}{right}"))
        rows.append(element("tr", *cells))
    table = element("table", _caption(panel.title), element("thead", head), element("tbody", *rows), class_="cs-counts")
    return element("div", table, class_="cs-scroll")


def _table(panel: Table) -> Markup:
    """A table whose columns of numbers are aligned right."""
    kinds = ["cs-number" if numeric else None for numeric in layout.numeric_columns(panel)]
    head = (element("th", name, scope="col", class_=kind) for name, kind in zip(panel.header, kinds, strict=True))
    rows = (element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in panel.rows)
    parts = _caption(panel.title), element("thead", element("tr", *head)), element("tbody", *rows)
    return element("div", element("table", *parts, class_="cs-table"), class_="cs-scroll")


def _text(panel: Text) -> Markup:
    title = element("h4", panel.title) if panel.title else ""
    return element("div", title, element("p", panel.text, class_="cs-large" if panel.large else "cs-text"))


def _figure(title: str, body: str, caption: str = "", scale: str = "", *, kind: str | None = None) -> Markup:
    head = element("figcaption", title) if title else ""
    below = element("p", caption, class_="cs-caption") if caption else ""
    return element("figure", head, body, scale, below, class_=kind)


def _caption(title: str) -> Markup:
    return element("caption", title) if title else Markup()


def _columns(columns: int | None) -> int:
    """The number of the class for so many columns."""
    return min(columns or 3, 16)


def _img(pixels: np.ndarray, alt: str, images: Images, width: int, height: int, *, fill: bool = False) -> Markup:
    """An image at its size in CSS pixels; much larger than its own pixels, it shows them as squares. `fill` stretches it to full width."""
    source = images(pixels, alt)
    kind = f"cs-fill cs-n{min(max(round(height / 40) - 2, 1), 16)}" * fill + " cs-pixels" * _squares(pixels.shape[1], width)
    loading = "" if source.startswith("data:") else "lazy"
    return element("img", src=source, alt=alt, width=width, height=height, class_=kind.strip(), loading=loading)


def _parameters(manifest: Mapping[str, Any]) -> Markup:
    """The manifest as a table, folded."""
    rows = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in _entries(manifest)]
    if not rows:
        return Markup()
    table = element("div", element("table", element("tbody", *rows), class_="cs-parameters"), class_="cs-scroll")
    return element("details", element("summary", "Parameters"), table)


def _entries(manifest: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The entries with dotted names."""
    for key, value in manifest.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _entries(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(map(str, value))
        else:
            yield name, str(value)
