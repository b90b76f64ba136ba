"""The layout of a figure: where each panel goes, in whole pixels. Sizes follow from the contents, so nothing overlaps or is cut."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

from convscope.render import colors, fonts
from convscope.render.contact_sheet import best_columns, sheet_layout
from convscope.render.mosaic import mosaic_size
from convscope.render.panels import (
    Bars,
    Counts,
    Curves,
    Group,
    Heat,
    Image,
    Intervals,
    Line,
    Mosaic,
    Panel,
    Signed,
    Strip,
    Table,
    Text,
    View,
    number,
)

MARGIN, GAP, HEADING, ROW = 28, 26, 28, 23
BAR_ROOM = 118
"""Width of a colour bar with its numbers and unit."""
PLOT_LEFT, PLOT_BOTTOM, PLOT_BODY = 92, 52, 190
"""Room of a plot for its numbers and names, and the height of its body."""
CURVE_BODY, LEGEND, CELL = 260, 24, (96, 46)
"""Height of the body of a plot of curves, room for its legend, and the size of a cell of counts."""
INTERVALS = 560
"""Width of the body of a plot of intervals."""
_PAGE = 620
_NUMERIC = re.compile(r"^[-+<>≤≥ ]*[\d.]+(e[-+]?\d+)?( ?%)?( of \d+)?$|^n/a$|^$")


@dataclass(frozen=True, eq=False)
class Sheet:
    """Tiles drawn together as one image, with the colour bar they share; `own` if each has limits of its own."""

    tiles: tuple[Image, ...]
    columns: int | None
    side: int | None = None
    bar: Heat | None = None
    own: bool = False


@dataclass(frozen=True)
class Words:
    """Lines of text that are already wrapped."""

    lines: tuple[str, ...]
    size: int
    bold: bool = False
    color: str = colors.INK


Leaf = Heat | Mosaic | Bars | Strip | Intervals | Curves | Counts | Table | Sheet | Words


@dataclass(frozen=True, eq=False)
class Placed:
    """A leaf and its box, in pixels from the top left corner."""

    leaf: Leaf
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Block:
    """Placed leaves and the size of the whole."""

    width: int
    height: int
    items: tuple[Placed, ...] = ()


def arrange(view: View) -> Block:
    """Places everything a view shows, title and note included."""
    body = _block(Group(view.panels, view.columns), None)
    room = max(body.width, _PAGE)
    parts: list[Block] = []
    if view.title:
        parts.append(_words(view.title, fonts.TITLE, room, bold=True))
    if view.subtitle:
        parts.append(_words(view.subtitle, fonts.BODY, room, color=colors.FAINT))
    parts.append(Block(0, 14))
    parts.append(body)
    if view.note:
        parts.append(Block(0, 10))
        parts.append(_words(view.note, fonts.SMALL, room, color=colors.FAINT))
    page = _stack(parts)
    return Block(page.width + 2 * MARGIN, page.height + 2 * MARGIN, _moved(page, MARGIN, MARGIN))


def _block(panel: Panel, width: int | None) -> Block:
    """A panel in its natural size, or stretched to `width` where it can be."""
    match panel:
        case Group():
            return _titled(panel.title, _group(panel, width))
        case Image():
            return _sheet(images_sheet((panel,), 1, None))
        case Text():
            size = fonts.LARGE if panel.large else fonts.BODY
            return _titled(panel.title, _words(panel.text, size, max(width or 0, _PAGE), bold=panel.large))
        case Bars():
            natural = 400 if len(panel.values) <= 12 else 700 if len(panel.values) <= 64 else 1000
            return _leaf(panel, max(natural, width or 0), HEADING + PLOT_BODY + PLOT_BOTTOM)
        case Strip():
            return _leaf(panel, 560, HEADING + 64 * len(panel.groups) + 24 + PLOT_BOTTOM)
        case Intervals():
            room, height = interval_rooms(panel)
            legend = sum(fonts.width(fonts.legible(each.name), fonts.SMALL) + 44 for each in panel.series)
            width, height = room + max(INTERVALS, legend), height * len(panel.rows)
            return _leaf(panel, width, HEADING * bool(panel.title) + LEGEND + height + PLOT_BOTTOM)
        case Curves():
            return _leaf(panel, panel.width, HEADING + legend_rows(panel) * LEGEND + CURVE_BODY + PLOT_BOTTOM)
        case Counts():
            names, head = counts_room(panel)
            rows, columns = panel.values.shape
            return _leaf(panel, names + columns * CELL[0], (HEADING if panel.title else 0) + head + rows * CELL[1] + 4)
        case Table():
            return _leaf(panel, sum(column_widths(panel)), (HEADING if panel.title else 0) + ROW * (len(panel.rows) + 1) + 8)
        case Mosaic():
            room, height = mosaic_size(panel)
            return _titled(panel.title, _leaf(panel, room + (BAR_ROOM if panel.limits is not None else 0), max(height, 110)))
        case Heat():
            return _leaf(panel, *_heat_size(panel, width))


def column_widths(table: Table) -> list[int]:
    """The width of each column of a table, in pixels."""
    cells = [table.header, *table.rows]
    widths = [
        min(max(fonts.width(fonts.legible(row[column]), fonts.SMALL) for row in cells) + 26, 330) for column in range(len(table.header))
    ]
    missing = fonts.width(table.title, fonts.HEAD, True) - sum(widths)
    return [*widths[:-1], widths[-1] + max(missing, 0)] if widths else []


def legend_names(panel: Curves) -> dict[str, Line]:
    """The lines that a legend names, each name once, in the order of their colours."""
    named = {line.name: line for line in panel.lines if line.name}
    return dict(sorted(named.items(), key=lambda item: (item[1].dashed, item[1].color)))


def legend_rows(panel: Curves) -> int:
    """How many rows the legend takes at two names a row, or one for each of long ones."""
    names = [fonts.legible(name) for name in legend_names(panel)]
    if not names:
        return 0
    room = panel.width - PLOT_LEFT
    per_row = max(min(room // (max(fonts.width(name, fonts.SMALL) for name in names) + 44), len(names)), 1)
    return math.ceil(len(names) / per_row)


def counts_room(panel: Counts) -> tuple[int, int]:
    """Width of the row names and height of the column names."""
    names = [*panel.rows, panel.corner]
    return min(max(fonts.width(fonts.legible(name), fonts.SMALL) for name in names) + 14, 220), fonts.line(fonts.SMALL) + 8


def interval_rooms(panel: Intervals) -> tuple[int, int]:
    """The width that the row names of a plot of intervals take, and the height of a row."""
    widest = max((fonts.width(fonts.legible(name), fonts.SMALL) for name in panel.rows), default=0)
    return min(widest + 16, 340), max(14 * len(panel.series) + 8, 24)


def row_room(panel: Heat) -> int:
    """The width that the row names of a matrix take."""
    return min(max((fonts.width(fonts.legible(name), fonts.SMALL) for name in panel.rows), default=0) + 12, 220) if panel.rows else 0


def numeric_columns(table: Table) -> list[bool]:
    """Whether all cells of a column look like numbers, for each column of a table."""
    return [bool(table.rows) and all(_NUMERIC.match(row[column]) for row in table.rows) for column in range(len(table.header))]


def scale_marks(panel: Heat, *, own: bool) -> tuple[tuple[float, str], ...]:
    """What stands along a map's colour scale: (share of its length from the lower end, text), round numbers with zero among them.

    Args:
        panel: A map on the scale.
        own: Whether each of several maps has its own ends, so that they are words instead of numbers.
    """
    low, high = panel.range()
    if own:
        return ((0.0, "-max"), (0.5, "0"), (1.0, "max")) if isinstance(panel, Signed) else ((0.0, "0" if low == 0 else "min"), (1.0, "max"))
    return tuple(((value - low) / (high - low), number(value)) for value in ticks(low, high, 4))


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers inside a range, about `most` at most; zero is among them where the range holds it."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=1).tick_values(low, high)
    slack = (high - low) * 1e-9
    return [float(value) + 0.0 for value in found if low - slack <= value <= high + slack]


def _heat_size(panel: Heat, width: int | None) -> tuple[int, int]:
    rows, columns = (max(length, 1) for length in panel.values.shape)
    around = (HEADING if panel.title else 0) + (PLOT_BOTTOM if panel.x_label else 0) + (fonts.line(fonts.SMALL) + 4 if panel.caption else 0)
    if panel.rows:
        return max(width or 0, 1000), min(max(rows * 18, 120), 720) + around
    zoom = 340 / max(rows, columns)
    room = BAR_ROOM + (PLOT_LEFT if panel.x_label else 0)
    return max(round(columns * zoom), 24) + room, max(round(rows * zoom), 120) + around


def _sheet(sheet: Sheet) -> Block:
    width, height = sheet_layout(sheet.tiles, columns=sheet.columns, side=sheet.side).size
    if sheet.bar is not None:
        width, height = width + BAR_ROOM + 8, max(height, 150)
    return _leaf(sheet, width, height)


def as_sheet(group: Group) -> Sheet | None:
    """The group as one contact sheet, if it is nothing but images or nothing but maps on one scale."""
    images = tuple(panel for panel in group.panels if isinstance(panel, Image))
    if images and len(images) == len(group.panels):
        return images_sheet(images, group.columns, group.side)
    maps = tuple(panel for panel in group.panels if isinstance(panel, Heat) and not panel.rows and not panel.x_label)
    if len(maps) < (1 if group.side else 2) or len(maps) != len(group.panels) or any(_scale(panel) != _scale(maps[0]) for panel in maps):
        return None
    tiles = tuple(Image(colors.colorize(panel), panel.title, panel.caption) for panel in maps)
    return Sheet(tiles, group.columns, group.side, dataclasses.replace(maps[0], title="", caption=""))


def images_sheet(images: tuple[Image, ...], columns: int | None, side: int | None) -> Sheet:
    heats = [image.heat for image in images if image.heat is not None]
    own = any(_scale(heat) != _scale(heats[0]) for heat in heats)
    return Sheet(images, columns, side, heats[0] if heats else None, own)


def _scale(panel: Heat) -> tuple[type[Heat], tuple[float, float], str]:
    return type(panel), panel.range(), panel.unit


def _group(group: Group, width: int | None) -> Block:
    sheet = as_sheet(group)
    if sheet is not None:
        return _sheet(sheet)
    blocks = [_block(panel, width if group.columns == 1 else None) for panel in group.panels]
    if not blocks:
        return Block(0, 0)
    aspect = max(block.width for block in blocks) / max(max(block.height for block in blocks), 1)
    columns = group.columns or best_columns(len(blocks), max(aspect, 0.01))
    widths = [max((block.width for block in blocks[column::columns]), default=0) for column in range(min(columns, len(blocks)))]
    blocks = [_block(panel, widths[index % columns]) for index, panel in enumerate(group.panels)]
    items: list[Placed] = []
    y = 0
    for row in range(math.ceil(len(blocks) / columns)):
        members = blocks[row * columns : (row + 1) * columns]
        x = 0
        for block, room in zip(members, widths, strict=False):
            items.extend(_moved(block, x, y))
            x += room + GAP
        y += max(block.height for block in members) + GAP
    return Block(sum(widths) + GAP * (len(widths) - 1), y - GAP, tuple(items))


def _titled(title: str, block: Block) -> Block:
    if not title:
        return block
    head = _words(title, fonts.HEAD, max(block.width, 300), bold=True)
    return _stack([head, Block(0, 6), block])


def _words(text: str, size: int, width: int, *, bold: bool = False, color: str = colors.INK) -> Block:
    lines = tuple(fonts.wrap(text, size, width, bold=bold))
    longest = max(fonts.width(each, size, bold) for each in lines)
    return _leaf(Words(lines, size, bold, color), longest, len(lines) * fonts.line(size))


def _leaf(leaf: Leaf, width: int, height: int) -> Block:
    return Block(width, height, (Placed(leaf, 0, 0, width, height),))


def _stack(blocks: list[Block]) -> Block:
    items: list[Placed] = []
    y = 0
    for block in blocks:
        items.extend(_moved(block, 0, y))
        y += block.height
    return Block(max(block.width for block in blocks), y, tuple(items))


def _moved(block: Block, x: int, y: int) -> tuple[Placed, ...]:
    return tuple(dataclasses.replace(item, x=item.x + x, y=item.y + y) for item in block.items)
