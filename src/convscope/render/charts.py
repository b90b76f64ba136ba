"""Charts as inline SVG: bars, dots and curves inside labelled axes that keep their text size at any width.

The body of a chart is one SVG that is stretched to the width of the page, with one path for each series; ticks, names and labels lie
around it in SVGs of their own, placed by percentages, so that they are never stretched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from convscope.render import colors, layout
from convscope.render.layout import ticks
from convscope.render.markup import Markup, element, joined
from convscope.render.panels import Bars, Curves, Intervals, Line, Strip, finite_range, number
from convscope.render.plots import spread

_WIDTH, _HEIGHT = 1000, 400
"""The grid that points are rounded to."""
NARROW, LETTER = 270, 7
"""The narrowest body of a chart and the width of a letter, in CSS pixels: labels that do not overlap there overlap nowhere."""
_TIER, _TIERS = 16, 3
_FEW, _MANY, _DENSE, _MOST = 64, 240, 640, 2000
"""So many bars need less than the full width; so many are as wide as there is room; so many are that on a wide page only, otherwise
they are as wide as a line; beyond so many, neighbours share a bar."""


@dataclass(frozen=True)
class Axis:
    """An axis: its marks (share of its length in [0,1] from left or top, text), its label, and whether the texts are slanted."""

    marks: tuple[tuple[float, str], ...] = ()
    label: str = ""
    slanted: bool = False


def framed(body: Markup, x: Axis | None = None, y: Axis | None = None, *, above: Markup | None = None) -> Markup:
    """A chart or an image with its axes.

    Args:
        body: What is framed: an SVG or an ``img``.
        x: The axis below.
        y: The axis at the left; its label stands above, horizontally.
        above: Labels right above the body.
    """
    x, y = x or Axis(), y or Axis()
    widest = max((name for _, name in y.marks), key=len, default="")
    parts = [element("p", y.label, class_="cs-y-label")] if y.label else []
    parts += [above] if above is not None else []
    if y.marks:
        names = (element("text", name, x="100%", y=_percent(share)) for share, name in y.marks)
        hidden = element("span", widest, class_="cs-room")
        parts.append(element("div", hidden, element("svg", *names), class_="cs-y", aria_hidden="true"))
    parts.append(element("div", body, class_="cs-body"))
    if x.marks:
        kind = "cs-x cs-slanted" if x.slanted else "cs-x"
        # a nested svg is moved by a percentage, and the text in it may then be turned
        names = (element("svg", element("text", name), x=_percent(share)) for share, name in x.marks)
        parts.append(element("svg", *names, class_=kind, aria_hidden="true"))
    parts += [element("p", x.label, class_="cs-x-label")] if x.label else []
    return element("div", *parts, class_="cs-plot")


def bars(panel: Bars) -> Markup:
    """A bar chart: one path for all bars, one for the emphasized ones, labels above."""
    values = np.asarray(panel.values, dtype=np.float64)
    second = np.zeros(0) if panel.second is None else np.asarray(panel.second, dtype=np.float64)
    low, high = finite_range(np.concatenate([values, second, [panel.baseline]]))
    bottom, top = panel.limits or _widened(low, high, below=low < panel.baseline)
    count = max(len(values), 1)
    step = -(-count // (_MOST // 2)) if count > _MOST else 1
    spikes = [(index, label) for index, label in panel.spikes if np.isfinite(values[index])]
    drawn = [
        _grid_lines(bottom, top, (-0.5, -0.5 + count / step)),
        element("path", d=f"M-0.5 {_rows([panel.baseline], bottom, top)[0]:.0f}h{_short(count / step)}", class_="cs-baseline"),
        element("path", d=_columns(values, panel.baseline, bottom, top, step), class_="cs-bars"),
        element("path", d=_columns(values, panel.baseline, bottom, top, step, [index for index, _ in spikes]), class_="cs-bars cs-strong"),
    ]
    asked = [index for index, _ in spikes if index in panel.marked]
    if asked:
        drawn.append(element("path", d=_columns(values, panel.baseline, bottom, top, step, asked), class_="cs-bars cs-strong cs-asked"))
    if len(second):
        at = [(index / step, value) for index, value in enumerate(second) if np.isfinite(value)]
        drawn.append(element("path", d=_dots([x for x, _ in at], _rows([y for _, y in at], bottom, top)), class_="cs-dots cs-strong"))
    kept, tiers = _fitting([((index + 0.5) / count, _short_label(label), values[index]) for index, label in spikes])
    drawn.append(element("path", d=_leaders(kept, count / step, bottom, top), class_="cs-leader"))
    words = f"Bars: {panel.title or panel.y_label}. {panel.y_label or 'value'} by {panel.x_label or 'number'}, {len(values)} values "
    words += f"from {number(finite_range(values)[0])} to {number(finite_range(values)[1])}."
    words += " Labelled: " + ", ".join(f"{label}: {number(values[index])}" for index, label in spikes[:12]) + "." if spikes else ""
    kind = "cs-bar-chart" + (" cs-wide-bars" if count <= _MANY else " cs-dense-bars" if count <= _DENSE else "")
    body = _body(drawn, f"-0.5 0 {_short(count / step)} {_HEIGHT}", words, kind)
    above = _labels(kept, tiers, {(index + 0.5) / count for index in asked}) if kept else None
    key = _legend([("cs-plain", panel.legend[0]), ("cs-strong cs-dot", panel.legend[1])]) if len(second) and len(panel.legend) == 2 else ""
    plot = framed(body, _numbers(panel, count), Axis(_marks(bottom, top), panel.y_label), above=above)
    return joined(key, element("div", plot, _named(spikes, values, asked), class_=breadth(count)))


def strip(panel: Strip) -> Markup:
    """A strip plot: a row of dots for each group, with its median as a stroke."""
    groups = [np.asarray(group.values, dtype=np.float64) for group in panel.groups]
    low, high = _widened(*finite_range(np.concatenate([np.zeros(0), *groups])), below=True)
    plain: list[str] = []
    strong: list[str] = []
    medians: list[str] = []
    words: list[str] = []
    for row, (group, values) in enumerate(zip(panel.groups, groups, strict=True)):
        x = (values - low) / (high - low) * _WIDTH
        y = (row + 0.5 - spread(values)) * 100
        marked = np.isin(np.arange(len(values)), group.marked)
        for paths, chosen in ((plain, ~marked & np.isfinite(x)), (strong, marked & np.isfinite(x))):
            paths.append(_dots(x[chosen], y[chosen]))
        if np.isfinite(x).any():
            middle = float(np.nanmedian(values[np.isfinite(values)]))
            medians.append(f"M{round((middle - low) / (high - low) * _WIDTH)} {row * 100 + 12}v76")
            words.append(f"{group.name}: {len(values)} values, median {number(middle)}, up to {number(np.nanmax(values))}")
    drawn = [
        element("path", d="".join(plain), class_="cs-dots cs-plain"),
        element("path", d="".join(strong), class_="cs-dots cs-strong"),
        element("path", d="".join(medians), class_="cs-median"),
    ]
    said = f"Dots: {panel.title}. {'; '.join(words)}."
    body = _body(drawn, f"0 0 {_WIDTH} {100 * len(groups)}", said, f"cs-strip cs-n{min(len(groups), 16)}")
    names = tuple(((row + 0.5) / len(groups), _cut(group.name, 20)) for row, group in enumerate(panel.groups))
    x_axis = Axis(tuple((1 - share, name) for share, name in _marks(low, high, 6)), f"{panel.x_label}   {panel.legend}".strip())
    return element("div", framed(body, x_axis, Axis(names)), class_="cs-medium")


def intervals(panel: Intervals) -> Markup:
    """A forest plot: a path of intervals and one of dots for each series, with a legend."""
    low, high = panel.range()
    count, height = len(panel.series), 100 * len(panel.rows)

    def across(values: np.ndarray) -> np.ndarray:
        return np.clip((values - low) / (high - low), 0, 1) * _WIDTH

    marks = _marks(low, high, 6)
    lines = "".join(f"M{_short((1 - share) * _WIDTH)} 0V{height}" for share, _ in marks)
    drawn = [element("path", d=lines, class_="cs-grid-lines")]
    if panel.zero:
        drawn.append(element("path", d=f"M{_short(float(across(np.zeros(1))[0]))} 0V{height}", class_="cs-baseline"))
    said: list[str] = []
    for place, each in enumerate(panel.series):
        values, lows, highs = np.asarray(each.values, dtype=np.float64).T
        rows = (np.arange(len(panel.rows)) + 0.15 + (place + 0.5) / count * 0.7) * 100
        known = np.isfinite(lows) & np.isfinite(highs)
        ends = zip(across(lows[known]), across(highs[known]), rows[known], strict=True)
        bars = "".join(f"M{_short(left)} {_short(row)}H{_short(right)}" for left, right, row in ends)
        there = np.isfinite(values)
        kind = f"cs-{each.color % len(colors.CLASSES)}"
        drawn.append(element("path", d=bars, class_=f"cs-interval {kind}"))
        drawn.append(element("path", d=_dots(across(values[there]), rows[there]), class_=f"cs-dots {kind}"))
        found = [f"{name} {number(value)}" for name, value in zip(panel.rows, values, strict=True) if np.isfinite(value)]
        said.append(f"{each.name}: {', '.join(found[:12])}{', ...' if len(found) > 12 else ''}")
    words = f"Intervals: {panel.title or panel.x_label}. {'; '.join(said)}."
    tall = "cs-tall" if len(panel.rows) > 24 else f"cs-n{min(len(panel.rows), 16)}"
    body = _body(drawn, f"0 0 {_WIDTH} {height}", words, f"cs-intervals {tall}")
    names = tuple(((row + 0.5) / len(panel.rows), _cut(name, 34)) for row, name in enumerate(panel.rows))
    key = _legend([(f"cs-line cs-{each.color % len(colors.CLASSES)}", each.name) for each in panel.series])
    plot = framed(body, Axis(tuple((1 - share, name) for share, name in marks), panel.x_label), Axis(names))
    return element("div", key, plot, class_="cs-medium")


def curves(panel: Curves) -> Markup:
    """A line chart with a legend; the chance level and a threshold are dashed."""
    x0, x1, y0, y1 = panel.limits or _limits(panel)
    drawn = [_grid_lines(y0, y1, (0, _WIDTH))]
    if panel.diagonal:
        drawn.append(element("path", d=_line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), (x0, x1, y0, y1)), class_="cs-level"))
    for line in panel.lines:
        points = _line(np.asarray(line.x, np.float64), np.asarray(line.y, np.float64), (x0, x1, y0, y1))
        drawn.append(element("path", d=points, class_=_line_class(line)))
    over: list[Markup] = []
    if panel.level is not None:
        value, name = panel.level
        row = _rows([value], y0, y1)[0]
        drawn.append(element("path", d=f"M0 {row:.0f}H{_WIDTH}", class_="cs-level"))
        over = [element("svg", element("text", name, x="99%", y=_percent(row / _HEIGHT), dy="-5"), class_="cs-over", aria_hidden="true")]
    words = f"Curves: {panel.title}. {panel.y_label} by {panel.x_label}: {', '.join(layout.legend_names(panel)) or 'one line'}."
    words += f" Dashed level: {panel.level[1]}." if panel.level is not None else ""
    words += f" {number(y0)} to {number(y1)} over {number(x0)} to {number(x1)}." if panel.limits is None else ""
    body = joined(_body(drawn, f"0 0 {_WIDTH} {_HEIGHT}", words, "cs-curves"), *over)
    across = tuple((1 - share, name) for share, name in _marks(x0, x1, 5, whole=panel.limits is None))
    key = _legend([(_line_class(line), name) for name, line in layout.legend_names(panel).items()])
    return element("div", key, framed(body, Axis(across, panel.x_label), Axis(_marks(y0, y1), panel.y_label)), class_="cs-medium")


def breadth(count: int) -> str:
    """The class of a chart of so many columns: few need less than the full width."""
    return "cs-narrow" if count <= 12 else "cs-medium" if count <= _FEW else ""


def thinned(names: Sequence[str], centres: np.ndarray, room: float, needed: float) -> tuple[tuple[float, str], ...]:
    """As many names as find room along an axis, at equal distances, as marks of an :class:`Axis`.

    Args:
        names: A name for each place, or none.
        centres: (n,) where each belongs, as a share of the axis in [0,1].
        room: Length of the axis in CSS pixels where it is shortest.
        needed: What a name takes of it.
    """
    every = max(int(np.ceil(len(names) * needed / max(room, 1))), 1)
    return tuple((float(centres[place]), _cut(name, 20)) for place, name in enumerate(names) if place % every == 0)


def names_above(marks: Sequence[tuple[float, str]]) -> Markup | None:
    """Names along the upper edge of what is framed; None without any."""
    texts = (element("text", name, x=_percent(share), y=_TIER - 4) for share, name in marks)
    return element("svg", *texts, class_="cs-above cs-n1 cs-plain-text", aria_hidden="true") if marks else None


def _numbers(panel: Bars, count: int) -> Axis:
    """The horizontal axis of bars: their names where there are few, otherwise numbers."""
    if panel.names and len(panel.names) == len(panel.values) and count <= 24:
        wide = max(map(len, panel.names)) * LETTER + 8 > NARROW / count
        return Axis(tuple(((place + 0.5) / count, _cut(name, 16)) for place, name in enumerate(panel.names)), panel.x_label, slanted=wide)
    found = ticks(panel.first, panel.first + count - 1, 6, whole=True)
    return Axis(tuple(((value - panel.first + 0.5) / count, f"{value:.0f}") for value in found), panel.x_label)


def _body(drawn: Iterable[Markup], box: str, words: str, kind: str) -> Markup:
    return element("svg", *drawn, class_=kind, viewBox=box, preserveAspectRatio="none", role="img", aria_label=words)


def _columns(values: np.ndarray, baseline: float, bottom: float, top: float, step: int, only: Sequence[int] | None = None) -> str:
    """A vertical stroke for each value, from the baseline; with `step` above 1, for the extremes of so many neighbours."""
    padded = np.full(-(-len(values) // step) * step, np.nan)
    padded[: len(values)] = values
    places = np.arange(len(padded))
    if only is not None:
        padded = np.where(np.isin(places, only), padded, np.nan)
    padded = np.where(np.isfinite(padded), padded, baseline).reshape(-1, step)
    ends = np.stack([np.minimum(padded.min(1), baseline), np.maximum(padded.max(1), baseline)])
    lows, highs = (np.rint(_rows(end, bottom, top)).astype(int) for end in ends)
    return "".join(f"M{place} {low}V{high}" for place, (low, high) in enumerate(zip(lows, highs, strict=True)) if low != high)


def _line(x: np.ndarray, y: np.ndarray, limits: tuple[float, float, float, float]) -> str:
    """A path through points, rounded to the grid; of the points in one column the first, lowest, highest and last are kept."""
    x0, x1, y0, y1 = limits
    finite = np.isfinite(x) & np.isfinite(y)
    columns = np.rint((x[finite] - x0) / (x1 - x0) * _WIDTH).astype(int)
    rows = np.rint(_rows(y[finite], y0, y1)).astype(int)
    if not len(columns):
        return ""
    kept: list[tuple[int, int]] = []
    for part in np.split(np.arange(len(columns)), np.flatnonzero(np.diff(columns)) + 1):
        ends = sorted({part[0], part[np.argmin(rows[part])], part[np.argmax(rows[part])], part[-1]})
        kept.extend((int(columns[index]), int(rows[index])) for index in ends)
    points = [point for place, point in enumerate(kept) if not place or point != kept[place - 1]]
    return "M" + "L".join(f"{column} {row}" for column, row in points) + ("h0" if len(points) == 1 else "")


def _dots(x: Iterable[float], y: Iterable[float]) -> str:
    """Strokes of no length: with round caps, dots that are not stretched."""
    return "".join(f"M{_short(column)} {row:.0f}h0" for column, row in zip(x, y, strict=True))


def _rows(values: Sequence[float] | np.ndarray, bottom: float, top: float) -> np.ndarray:
    """Values as rows of the grid, from the top."""
    return (top - np.asarray(values, np.float64)) / (top - bottom) * _HEIGHT


def _grid_lines(bottom: float, top: float, ends: tuple[float, float]) -> Markup:
    rows = _rows(ticks(bottom, top, 5), bottom, top)
    return element("path", d="".join(f"M{_short(ends[0])} {row:.0f}H{_short(ends[1])}" for row in rows), class_="cs-grid-lines")


def _marks(bottom: float, top: float, most: int = 5, *, whole: bool = False) -> tuple[tuple[float, str], ...]:
    return tuple(((top - value) / (top - bottom), number(value)) for value in ticks(bottom, top, most, whole=whole))


def _widened(low: float, high: float, *, below: bool) -> tuple[float, float]:
    """A range with a margin above, and below where asked for; an empty one gets a length."""
    if high <= low:
        low, high = (low - 0.5, high + 0.5) if below else (low, low + 1.0)
    margin = 0.04 * (high - low)
    return low - margin * below, high + margin


def _limits(panel: Curves) -> tuple[float, float, float, float]:
    x = np.concatenate([np.zeros(0), *(np.asarray(line.x, np.float64) for line in panel.lines)])
    y = np.concatenate([np.zeros(0), *(np.asarray(line.y, np.float64) for line in panel.lines)])
    y = y if panel.level is None else np.append(y, panel.level[0])
    return *_widened(*finite_range(x), below=True), *_widened(*finite_range(y), below=True)


def _line_class(line: Line) -> str:
    return f"cs-line cs-{line.color % len(colors.CLASSES)}" + (" cs-dashed" if line.dashed else "")


def _legend(names: Sequence[tuple[str, str]]) -> Markup:
    """Names with their colours."""
    keys = (element("li", element("span", class_=f"cs-key {kind}"), name) for kind, name in names)
    return element("ul", *keys, class_="cs-legend") if names else Markup()


def _short_label(label: str) -> str:
    """What of a label stands in the chart: its number where it begins with one."""
    first = label.split(" ")[0] if label.strip() else ""
    return label if len(label) <= 6 else first if first.isdigit() else _cut(label, 14)


def _fitting(labels: Sequence[tuple[float, str, float]]) -> tuple[list[tuple[float, str, float, int]], int]:
    """The labels (share, text, value) that find room without overlap, each with its tier; the first ones stay. And how many tiers."""
    taken: list[list[tuple[float, float]]] = [[] for _ in range(_TIERS)]
    kept: list[tuple[float, str, float, int]] = []
    for share, words, value in labels:
        width = len(words) * LETTER + 6
        left = min(max(share * NARROW - width / 2, 0), NARROW - width)
        for tier, others in enumerate(taken):
            if all(left + width <= start or end <= left for start, end in others):
                others.append((left, left + width))
                kept.append((share, words, value, tier))
                break
    return kept, max((tier for *_, tier in kept), default=-1) + 1


def _labels(kept: Sequence[tuple[float, str, float, int]], tiers: int, asked: Collection[float]) -> Markup:
    """Labels at their shares; those at the shares `asked` in a colour of their own."""

    def side(share: float, words: str) -> str:
        half = (len(words) * LETTER + 6) / 2 / NARROW
        own = ["cs-asked"] if share in asked else []
        return " ".join(own + (["cs-start"] if share < half else ["cs-end"] if share > 1 - half else []))

    texts = (
        element("text", words, x=_percent(share), y=(tiers - tier) * _TIER - 4, class_=side(share, words)) for share, words, _, tier in kept
    )
    return element("svg", *texts, class_=f"cs-above cs-n{tiers}", aria_hidden="true")


def _leaders(kept: Sequence[tuple[float, str, float, int]], count: float, bottom: float, top: float) -> str:
    """Lines from the labels down to their bars."""
    rows = _rows([value for _, _, value, _ in kept], bottom, top)
    return "".join(f"M{_short(share * count - 0.5)} 0V{row:.0f}" for (share, *_), row in zip(kept, rows, strict=True))


def _named(spikes: Sequence[tuple[int, str]], values: np.ndarray, asked: Collection[int]) -> Markup:
    """The labels in full with their values, where the chart shows them shortened."""
    if all(_short_label(label) == label for _, label in spikes):
        return Markup()
    names = (element("b", label, class_="cs-asked" if index in asked else "") for index, label in spikes)
    items = (element("li", name, f" {number(values[index])}") for name, (index, _) in zip(names, spikes, strict=True))
    return element("ul", *items, class_="cs-named")


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


def _percent(share: float) -> str:
    return f"{_short(100 * share)}%"


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
