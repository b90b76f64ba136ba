"""Views and panels: what is shown of a result, as plain values, before anything is drawn.

A :class:`View` is made of panels: images, heat maps, mosaics, charts, tables, text. Results build it from their arrays. Panels hold
values in physical units; scaling is left to the drawing, which prints the scale.

Each panel is drawn twice: as a matplotlib figure or PNG, and as HTML. A new kind of panel touches these files:

1. ``panels.py``: its dataclass, and its name in :data:`Panel`;
2. ``layout.py``: its size in pixels (``_block``), and its name in ``Leaf``;
3. ``draw.py``: a case in ``_draw``; what draws a chart into matplotlib axes is in ``plots.py``;
4. ``html.py``: a case in ``_panel``; what makes an SVG chart is in ``charts.py``, and classes are in ``style.css``;
5. ``tests/render/test_html.py``: an example in ``EVERY``, which fails until there is one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, eq=False)
class Image:
    """An image.

    Attributes:
        pixels: (rgb h w) in [0,1].
        title: Above the image, e.g. ``"unit 12"``.
        caption: Below the image, e.g. a score.
        marked: A warning drawn over the image with a red frame, e.g. ``"stuck: zero gradient"``; None draws nothing.
        heat: A map of any size laid over the whole image, enlarged bilinearly: the image turns grey where it is low (of a
            :class:`Signed` map, near zero).
        boxes: Frames drawn on the image: y0 x0 y1 x1 in its pixels, end exclusive; what lies outside is cut.
        legend: What colours of the image stand for, (``"#rrggbb"``, name), listed below it.
        frame: Number of the colour of a frame around the image, for images of one group; None draws nothing.
    """

    pixels: np.ndarray
    title: str = ""
    caption: str = ""
    marked: str | None = None
    heat: Heat | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    frame: int | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[0] != 3:
            raise ValueError(f"an image is (rgb h w), got shape {self.pixels.shape}")


@dataclass(frozen=True, eq=False)
class Heat:
    """A heat map: sequential colour scale that starts at zero (or below, where values are negative).

    Attributes:
        values: (h w), any range; NaN is drawn grey.
        title: Above the map.
        caption: Below the map.
        unit: What the numbers are, printed at the colour bar.
        limits: The values at both ends of the colour scale; None takes them from the values.
        x_label: Name of the horizontal axis; with it, the axis shows its ticks.
        rows: A name for each row; with them the map is a matrix and is stretched to full width.
        x_step: How many numbers of the horizontal axis a column stands for.
        place: Laid over an image, the part of it that the cells divide evenly: y0 x0 y1 x1 in its pixels; () for all of it. The border
            cells reach to the image's edges.
    """

    values: np.ndarray
    title: str = ""
    caption: str = ""
    unit: str = ""
    limits: tuple[float, float] | None = None
    x_label: str = ""
    rows: tuple[str, ...] = ()
    x_step: int = 1
    place: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"a map is (h w), got shape {self.values.shape}")

    def range(self) -> tuple[float, float]:
        """The values at both ends of the colour scale; an all-zero map gets (0, 1)."""
        if self.limits is not None:
            return self.limits
        low, high = finite_range(self.values)
        low = min(low, 0.0)
        return low, (high if high > low else low + 1.0)


@dataclass(frozen=True, eq=False)
class Signed(Heat):
    """A signed heat map: diverging colour scale with zero in the middle; attributes as :class:`Heat`."""

    def range(self) -> tuple[float, float]:
        """The values at both ends of the colour scale: minus and plus the largest magnitude."""
        low, high = self.limits if self.limits is not None else finite_range(self.values)
        reach = max(-low, high, 0.0) or 1.0
        return -reach, reach


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A mosaic: many small maps or images of one size in a grid, as one image. Tile t in row t // columns, column t % columns.

    Attributes:
        tiles: (tile h w) maps, or (tile rgb h w) images in [0,1].
        columns: Tiles in a row; cells after the last tile stay empty.
        limits: (tile 2) the values at both ends of each map's colour scale; None for images.
        side: The longer side of a tile as shown, in pixels.
        scale: "heat", "signed" (zero in the middle) or "grey".
        title: Above the mosaic.
        caption: Below the mosaic.
        unit: What the numbers are, printed at the colour bar.
        crossed: Tiles that are crossed out.
        row_names: A name for each row, written at its left.
        column_names: A name for each column, written above it.
        gap: Pixels between tiles.
        together: Columns per block; blocks stand apart.
    """

    tiles: np.ndarray
    columns: int
    limits: np.ndarray | None = None
    side: int = 48
    scale: Literal["heat", "signed", "grey"] = "heat"
    title: str = ""
    caption: str = ""
    unit: str = ""
    crossed: tuple[int, ...] = ()
    row_names: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()
    gap: int = 2
    together: int = 1

    def __post_init__(self) -> None:
        if self.tiles.ndim not in (3, 4) or (self.tiles.ndim == 4) != (self.limits is None):
            raise ValueError(f"tiles are (tile h w) with limits or (tile rgb h w) without, got shape {self.tiles.shape}")


@dataclass(frozen=True, eq=False)
class Bars:
    """A bar chart.

    Attributes:
        values: (c,), any range.
        title: Above the plot.
        x_label: What is counted along the bars.
        y_label: What the values are, with their unit.
        spikes: (index, label) of bars to emphasize and label; labels without room are left out, the last ones first.
        names: A name for each bar, shown below it where there are few.
        second: (c,) further values drawn as dots over the bars.
        legend: Names of the bars and of the second series.
        baseline: The value bars start from.
        first: The number of the first bar.
        limits: The values at both ends of the vertical axis; None takes them from the values.
        marked: The spikes that were asked about, in a colour of their own.
    """

    values: np.ndarray
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    spikes: tuple[tuple[int, str], ...] = ()
    names: tuple[str, ...] = ()
    second: np.ndarray | None = None
    legend: tuple[str, ...] = ()
    baseline: float = 0.0
    first: int = 0
    limits: tuple[float, float] | None = None
    marked: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim != 1:
            raise ValueError(f"bars are (c,), got shape {self.values.shape}")


@dataclass(frozen=True, eq=False)
class Dots:
    """One group of a :class:`Strip`: its name, its values (n,), and the indices drawn emphasized."""

    name: str
    values: np.ndarray
    marked: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Strip:
    """A strip plot: a row of dots for each group of values, with its median."""

    groups: tuple[Dots, ...]
    title: str = ""
    x_label: str = ""
    legend: str = ""


@dataclass(frozen=True, eq=False)
class Interval:
    """One series of :class:`Intervals`: its name, (row 3) value, low and high of each row, and its colour as a number.

    Without low and high (NaN), a dot alone; without a value, nothing.
    """

    name: str
    values: np.ndarray
    color: int = 0


@dataclass(frozen=True, eq=False)
class Intervals:
    """A forest plot: in each named row a dot with its interval for every series, one below the other, with a legend.

    Attributes:
        rows: A name for each row.
        series: The series.
        title: Above the plot.
        x_label: What the values are, with their unit.
        limits: Ends of the axis; None takes them from the values.
        zero: Whether to draw a line at zero.
    """

    rows: tuple[str, ...]
    series: tuple[Interval, ...]
    title: str = ""
    x_label: str = ""
    limits: tuple[float, float] | None = None
    zero: bool = False

    def __post_init__(self) -> None:
        for each in self.series:
            if each.values.shape != (len(self.rows), 3):
                raise ValueError(f"a series of intervals is (row 3) of {len(self.rows)} rows, got shape {each.values.shape}")

    def range(self) -> tuple[float, float]:
        """Ends of the axis, with a margin."""
        if self.limits is not None:
            return self.limits
        low, high = finite_range(np.concatenate([np.zeros(int(self.zero)), *(each.values.ravel() for each in self.series)]))
        margin = 0.04 * (high - low) or 0.5
        return low - margin, high + margin


@dataclass(frozen=True, eq=False)
class Line:
    """One line of :class:`Curves`: its name, its points x and y (n,), and its colour as a number."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: int = 0
    dashed: bool = False


@dataclass(frozen=True, eq=False)
class Curves:
    """A line chart with a legend; lines that share name and colour are named once.

    Attributes:
        lines: The lines, drawn in order.
        title: Above the plot.
        x_label: Name of the horizontal axis.
        y_label: What the values are, with their unit.
        limits: x0 x1 y0 y1 of the axes, for shares in [0,1]; None takes them from the lines.
        diagonal: Whether to draw the chance level y = x.
        level: A dashed horizontal line (value, name), e.g. a threshold; None draws none.
        width: Width of the figure, in pixels.
    """

    lines: tuple[Line, ...]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    limits: tuple[float, float, float, float] | None = None
    diagonal: bool = False
    level: tuple[float, str] | None = None
    width: int = 420


@dataclass(frozen=True, eq=False)
class Counts:
    """A confusion matrix: counts, each cell shaded by its share of the row.

    Attributes:
        values: (row column) whole numbers.
        rows: A name for each row.
        columns: A name for each column.
        title: Above the table.
        corner: What rows and columns are, e.g. ``"truth \\ taken for"``.
        right: For each row the column of the correct answer, drawn with a frame; -1 for none.
    """

    values: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    title: str = ""
    corner: str = ""
    right: tuple[int, ...] = ()


@dataclass(frozen=True)
class Text:
    """A paragraph; a blank or given line break is kept, longer lines are wrapped. `large` is for the main finding."""

    text: str
    title: str = ""
    large: bool = False


@dataclass(frozen=True)
class Table:
    """A table: rows of words and numbers under a header; cells that look like numbers are aligned right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True, eq=False)
class Group:
    """A group of panels, in rows of `columns`.

    A group of nothing but images, or of nothing but maps on one scale, is a contact sheet; one map alone is if it has a `side`.

    Attributes:
        panels: The panels, in reading order.
        columns: Panels in a row; None chooses so that the whole is about 4:3.
        title: Above the group.
        side: For a contact sheet, the longer side of the largest image as shown, in pixels; None chooses.
    """

    panels: tuple[Panel, ...]
    columns: int | None = None
    title: str = ""
    side: int | None = None


Panel = Image | Heat | Signed | Mosaic | Bars | Strip | Intervals | Curves | Counts | Text | Table | Group


@dataclass(frozen=True, eq=False)
class View:
    """All that is shown of a result.

    Attributes:
        title: The first line.
        panels: The panels, in reading order.
        columns: Panels in a row; None chooses so that the whole is about 4:3.
        subtitle: Below the title: network, layer, parameters.
        note: Below everything: how to read it, what was left out.
    """

    title: str
    panels: tuple[Panel, ...]
    columns: int | None = 1
    subtitle: str = ""
    note: str = ""

    def flat(self) -> tuple[Panel, ...]:
        """All panels in reading order, groups dissolved."""
        return _flat(self.panels)


def _flat(panels: tuple[Panel, ...]) -> tuple[Panel, ...]:
    found: list[Panel] = []
    for panel in panels:
        found.extend(_flat(panel.panels) if isinstance(panel, Group) else (panel,))
    return tuple(found)


def finite_range(values: np.ndarray) -> tuple[float, float]:
    """The smallest and largest finite value; (0, 0) where there is none."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def shared_range(panels: tuple[Heat, ...]) -> tuple[Heat, ...]:
    """The same maps on one scale that holds all of them."""
    if not panels:
        return ()
    ranges = [panel.range() for panel in panels]
    limits = (min(low for low, _ in ranges), max(high for _, high in ranges))
    return tuple(dataclasses.replace(panel, limits=limits) for panel in panels)


def number(value: float) -> str:
    """A number in three significant digits, as a reader would write it."""
    value = float(value)
    if not np.isfinite(value):
        return "n/a" if np.isnan(value) else f"{value}"
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"
