"""Views as matplotlib figures and PNG, without pyplot or any global state of matplotlib."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from PIL import Image as Pillow

from convscope.render import colors, fonts, layout, plots
from convscope.render.contact_sheet import contact_sheet
from convscope.render.layout import Placed, Sheet, Words
from convscope.render.mosaic import margins, mosaic
from convscope.render.panels import Bars, Counts, Curves, Heat, Intervals, Mosaic, Signed, Strip, Table, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Format: TypeAlias = Literal["png", "svg", "pdf", "webp"]
"""File formats of figures. Each holds what made it: PNG and WebP as a receipt, SVG as Description, PDF as Subject."""


def draw(view: View) -> Figure:
    """The view as a matplotlib figure, sized so that everything is legible at 100 %."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from convscope.render.shown_figure import ShownFigure

    block = layout.arrange(view)
    figure = ShownFigure(figsize=(block.width / fonts.DPI, block.height / fonts.DPI), dpi=fonts.DPI, facecolor="white")
    FigureCanvasAgg(figure)
    page = Page(figure, block.width, block.height)
    for item in block.items:
        _draw(page, item)
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """The figure as an image (h w 3) uint8, one pixel per pixel of the layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def encode(figure: Figure) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    Pillow.fromarray(pixels(figure)).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def encode_lines(figure: Figure, form: Literal["svg", "pdf"], description: str) -> bytes:
    """The figure as SVG or PDF: text and lines stay sharp at any size, images keep their pixels.

    Args:
        figure: The figure.
        form: Which.
        description: What its metadata say of it: SVG's Description, PDF's Subject.
    """
    import matplotlib

    about = {"svg": {"Description": description, "Date": None}, "pdf": {"Subject": description, "CreationDate": None}}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "convscope", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=form, dpi=fonts.DPI, metadata=about[form])
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Page:
    """A figure addressed in pixels from its top left corner."""

    figure: Figure
    width: int
    height: int

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes in a box, with a light frame and small numbers."""
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.tick_params(labelsize=fonts.points(fonts.SMALL), labelfontfamily="DejaVu Sans", color=colors.RULE, labelcolor=colors.INK)
        axes.set_facecolor("white")  # whatever style the session has set
        axes.grid(False)
        axes.spines[:].set_color(colors.RULE)
        return axes

    def text(self, x: float, y: float, text: str, size: int, **style: Any) -> None:
        """A line of text whose upper left corner is (x, y)."""
        style = {"ha": "left", "va": "top", "color": colors.INK, **style}
        at = (x / self.width, 1 - y / self.height)
        # file and class names may hold dollar signs, which matplotlib would take for formulas
        self.figure.text(*at, fonts.legible(text), fontsize=fonts.points(size), family="DejaVu Sans", parse_math=False, **style)


def _draw(page: Page, item: Placed) -> None:
    match item.leaf:
        case Words() as words:
            for index, line in enumerate(words.lines):
                y = item.y + index * fonts.line(words.size)
                page.text(item.x, y, line, words.size, weight="bold" if words.bold else "normal", color=words.color)
        case Sheet() as sheet:
            _sheet(page, item, sheet)
        case Heat() as panel:
            _heat(page, item, panel)
        case Mosaic() as tiles:
            _mosaic(page, item, tiles)
        case Table() as table:
            _table(page, item, table)
        case Bars() as bars:
            y = _title(page, item, bars.title, always=True)
            left = layout.PLOT_LEFT
            box = (item.x + left, y, item.width - left - 12, layout.PLOT_BODY)
            plots.bars(page.axes(*box), bars, box[2], box[3])
        case Curves() as curves:
            y = _title(page, item, curves.title, always=True) + layout.legend_rows(curves) * layout.LEGEND
            left = layout.PLOT_LEFT
            plots.curves(page.axes(item.x + left, y, curves.width - left - 12, layout.CURVE_BODY), curves)
        case Intervals() as intervals:
            y = _title(page, item, intervals.title) + layout.LEGEND
            left, height = layout.interval_rooms(intervals)
            plots.intervals(page.axes(item.x + left, y, item.width - left - 12, height * len(intervals.rows)), intervals, left)
        case Counts() as counts:
            y = _title(page, item, counts.title)
            left, head = layout.counts_room(counts)
            size = counts.values.shape[1] * layout.CELL[0], counts.values.shape[0] * layout.CELL[1]
            page.text(item.x, y, counts.corner, fonts.SMALL, color=colors.FAINT)
            plots.counts(page.axes(item.x + left, y + head, *size), counts)
        case Strip() as strip:
            y = _title(page, item, strip.title, always=True)
            left = max(fonts.width(fonts.legible(group.name), fonts.SMALL) for group in strip.groups) + 20
            height = item.height - layout.HEADING - layout.PLOT_BOTTOM
            plots.strip(page.axes(item.x + left, y, item.width - left - 12, height), strip)


def _title(page: Page, item: Placed, title: str, *, always: bool = False) -> int:
    """Writes a panel's title and returns where its body begins."""
    if title:
        page.text(item.x, item.y, fonts.shorten(title, fonts.HEAD, item.width, True), fonts.HEAD, weight="bold")
    return item.y + (layout.HEADING if title or always else 0)


def _sheet(page: Page, item: Placed, sheet: Sheet) -> None:
    image = contact_sheet(sheet.tiles, columns=sheet.columns, side=sheet.side)
    _raster(page, item, image)
    height, width = image.shape[:2]
    if sheet.bar is not None:
        _color_bar(page, sheet.bar, item.x + width + 20, item.y, min(max(height, 130), 320), own=sheet.own)


def _mosaic(page: Page, item: Placed, panel: Mosaic) -> None:
    image = mosaic(panel)
    _raster(page, item, image)
    if panel.limits is not None and len(panel.limits):
        low, high = (float(value) for value in (panel.limits[:, 0].min(), panel.limits[:, 1].max()))
        bar = (Signed if panel.scale == "signed" else Heat)(
            np.zeros((0, 0)), unit=panel.unit, limits=(low, high if high > low else low + 1)
        )
        top = item.y + margins(panel)[1]
        grey, own = panel.scale == "grey", bool((panel.limits != panel.limits[0]).any())
        _color_bar(page, bar, item.x + image.shape[1] + 20, top, min(max(image.shape[0], 110), 320), own=own, grey=grey)


def _raster(page: Page, item: Placed, image: np.ndarray) -> None:
    from convscope.render.raster import Raster

    height, width = image.shape[:2]
    bottom, top = 1 - (item.y + height) / page.height, 1 - item.y / page.height
    page.figure.add_artist(Raster(image, (item.x / page.width, bottom, (item.x + width) / page.width, top)))


def _heat(page: Page, item: Placed, panel: Heat) -> None:
    y = _title(page, item, panel.title)
    left = layout.row_room(panel) if panel.rows else layout.PLOT_LEFT if panel.x_label else 0
    below = (layout.PLOT_BOTTOM if panel.x_label else 0) + (fonts.line(fonts.SMALL) + 4 if panel.caption else 0)
    width, height = item.width - left - layout.BAR_ROOM, item.y + item.height - below - y
    axes = page.axes(item.x + left, y, width, height)
    low, high = panel.range()
    values = np.ma.masked_invalid(np.asarray(panel.values, dtype=np.float64))
    if values.size:
        rows, columns = values.shape
        extent = (-0.5, columns * panel.x_step - 0.5, rows - 0.5, -0.5)
        aspect = "auto" if panel.rows else "equal"
        sharp = "nearest" if panel.rows and 3 * rows < height else None  # a matrix of few rows would bleed from row to row
        style: dict[str, Any] = {"vmin": low, "vmax": high, "aspect": aspect, "extent": extent, "interpolation": sharp}
        axes.imshow(values, cmap=colors.scale(isinstance(panel, Signed)), **style)
    plots.name_matrix(axes, panel, height)
    if panel.caption:
        page.text(item.x + left, y + height + 4, panel.caption, fonts.SMALL, color=colors.FAINT)
    _color_bar(page, panel, item.x + left + width + 14, y, min(height, 320))


def _color_bar(page: Page, panel: Heat, x: float, y: float, height: float, *, own: bool = False, grey: bool = False) -> None:
    """The scale of a map with its unit; with `own`, each map has its own ends, so that they are words instead of numbers."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = panel.range()
    axes = page.axes(x, y + 6, 14, height - 12)
    mapped = ScalarMappable(Normalize(low, high), "gray" if grey else colors.scale(isinstance(panel, Signed)))
    bar = page.figure.colorbar(mapped, cax=axes)
    marks = layout.scale_marks(panel, own=own)
    bar.set_ticks([low + share * (high - low) for share, _ in marks], labels=[name for _, name in marks])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    if low < 0 < high:
        bar.ax.axhline(0, color=colors.INK, linewidth=1)
    if panel.unit:
        room = fonts.shorten(fonts.legible(panel.unit), fonts.SMALL, round(height))
        page.text(
            x + 30 + max((fonts.width(name, fonts.SMALL) for _, name in marks), default=0),
            y + height / 2,
            room,
            fonts.SMALL,
            rotation=90,
            va="center",
            color=colors.FAINT,
        )


def _table(page: Page, item: Placed, table: Table) -> None:
    from matplotlib.lines import Line2D

    y = _title(page, item, table.title)
    widths = layout.column_widths(table)
    right = layout.numeric_columns(table)
    for index, row in enumerate([table.header, *table.rows]):
        x = item.x
        for cell, room, aligned in zip(row, widths, right, strict=True):
            text = fonts.shorten(fonts.legible(cell), fonts.SMALL, room - 10)
            style = {"ha": "right"} if aligned else {}
            ink = colors.INK if index else colors.FAINT
            page.text(x + room - 20 if aligned else x, y + index * layout.ROW + (5 if index else 1), text, fonts.SMALL, color=ink, **style)
            x += room
    rule = 1 - (y + layout.ROW - 1) / page.height
    ends = (item.x / page.width, (item.x + sum(widths) - 10) / page.width)
    page.figure.add_artist(Line2D(ends, (rule, rule), color=colors.RULE, linewidth=1))
