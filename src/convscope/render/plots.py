"""Charts drawn into matplotlib axes: bar charts, strip plots, line charts, confusion matrices, and the names along a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convscope.render import colors, fonts
from convscope.render.layout import legend_names, legend_rows
from convscope.render.panels import Bars, Counts, Curves, Heat, Intervals, Strip, finite_range, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TIER, _LEADER = 20, 18
"""Room above the bars for labels, and for the lines that lead to them, in pixels."""


def bars(axes: Axes, panel: Bars, width: float, height: float) -> None:
    """Draws bars, emphasized spikes and their labels into axes of `width` x `height` pixels."""
    values = np.asarray(panel.values, dtype=np.float64)
    places = panel.first + np.arange(len(values))
    room = width / max(len(values), 1)
    # never thinner than a pixel: a single spike among thousands of channels must stay visible
    stroke = fonts.points(min(max(room * 0.8, 1.25), 26))
    axes.vlines(places, panel.baseline, values, colors=colors.PLAIN, linewidths=stroke, capstyle="butt")
    spikes = [(index, label) for index, label in panel.spikes if np.isfinite(values[index])]
    chosen = np.array([index for index, _ in spikes], dtype=np.int64)
    strong = [_spike_color(panel, index) for index in chosen]
    axes.vlines(places[chosen], panel.baseline, values[chosen], colors=strong, linewidths=max(stroke, fonts.points(2.5)), capstyle="butt")
    if panel.second is not None:
        axes.plot(places, panel.second, linestyle="none", marker="o", markersize=fonts.points(5), color=colors.STRONG)
    _legend(axes, panel)
    _limits(axes, panel, values, height, labelled=bool(spikes))
    axes.axhline(panel.baseline, color=colors.RULE, linewidth=0.8, zorder=0)
    _number_axes(axes, panel.x_label, panel.y_label)
    if panel.limits:  # the axis ends there; what is above is room for labels
        axes.set_yticks(np.linspace(*panel.limits, 5))
        axes.spines["left"].set_bounds(*panel.limits)
    _name_bars(axes, panel, room)
    _labels(axes, panel, values, spikes, width, height)


def strip(axes: Axes, panel: Strip) -> None:
    """Draws a row of dots per group, marked ones emphasized, with the median as a vertical stroke."""
    for row, group in enumerate(panel.groups):
        values = np.asarray(group.values, dtype=np.float64)
        marked = np.isin(np.arange(len(values)), group.marked)
        offset = row - spread(values)
        for chosen, color in ((~marked, colors.PLAIN), (marked, colors.STRONG)):
            size = fonts.points(7) ** 2 * (1.6 if color == colors.STRONG else 1)
            axes.scatter(values[chosen], offset[chosen], s=size, color=color, alpha=0.75, linewidths=0, clip_on=False)
        finite = values[np.isfinite(values)]
        if finite.size:
            axes.vlines(np.median(finite), row - 0.36, row + 0.36, colors=colors.INK, linewidths=2)
    axes.set_ylim(len(panel.groups) - 0.5, -0.5)
    axes.set_yticks(range(len(panel.groups)), [fonts.legible(group.name).replace("$", r"\$") for group in panel.groups])
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    label = f"{panel.x_label}   {panel.legend}".strip()
    axes.set_xlabel(label, fontsize=fonts.points(fonts.SMALL), color=colors.FAINT, family="DejaVu Sans", parse_math=False)


def intervals(axes: Axes, panel: Intervals, room: float) -> None:
    """Draws a dot with its interval for each row and series; row names have `room` pixels."""
    count = len(panel.series)
    for place, each in enumerate(panel.series):
        values, low, high = np.asarray(each.values, dtype=np.float64).T
        rows = np.arange(len(panel.rows)) + (place + 0.5) / count * 0.7 - 0.35
        style: dict[str, Any] = {"color": _class_color(each.color), "clip_on": False}
        known = np.isfinite(low) & np.isfinite(high)
        axes.hlines(rows[known], low[known], high[known], linewidth=fonts.points(2.5), alpha=0.7, **style)
        axes.plot(values, rows, linestyle="none", marker="o", markersize=fonts.points(7), label=_plain(each.name), **style)
    for row in range(1, len(panel.rows)):
        axes.axhline(row - 0.5, color=colors.RULE, linewidth=0.6, zorder=0)
    if panel.zero:
        axes.axvline(0, color=colors.INK, linewidth=1, zorder=0)
    axes.set_xlim(*panel.range())
    axes.set_ylim(len(panel.rows) - 0.5, -0.5)
    shown = [_plain(fonts.shorten(fonts.legible(name), fonts.SMALL, int(room) - 12)) for name in panel.rows]
    axes.set_yticks(range(len(panel.rows)), shown)
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    axes.set_xlabel(panel.x_label, fontsize=fonts.points(fonts.SMALL), color=colors.FAINT, family="DejaVu Sans", parse_math=False)
    legend: dict[str, Any] = {"frameon": False, "fontsize": fonts.points(fonts.SMALL), "borderaxespad": 0.2, "handletextpad": 0.3}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=count, columnspacing=1.2, **legend)


def _plain(text: str) -> str:
    """A name as matplotlib prints it as it is: a dollar sign would begin a formula."""
    return fonts.legible(text).replace("$", r"\$")


def curves(axes: Axes, panel: Curves) -> None:
    """Draws lines, the chance level, a threshold, and a legend above."""
    from matplotlib.lines import Line2D

    if panel.diagonal:
        axes.plot([0, 1], [0, 1], color=colors.LEADER, linewidth=1, linestyle=(0, (4, 3)))
    for line in panel.lines:
        dashes, marker = ((0, (4, 2)) if line.dashed else "-"), ("o" if len(line.x) == 1 else None)
        axes.plot(line.x, line.y, color=_class_color(line.color), linewidth=1.4, linestyle=dashes, marker=marker, markersize=4)
    if panel.level is not None:
        axes.axhline(panel.level[0], color=colors.INK, linewidth=1, linestyle=(0, (4, 3)))
        style: dict[str, Any] = {"fontsize": fonts.points(fonts.SMALL), "color": colors.INK, "family": "DejaVu Sans", "parse_math": False}
        style |= {"bbox": {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1}}
        at = axes.get_yaxis_transform()
        axes.text(0.995, panel.level[0], panel.level[1], ha="right", va="bottom", transform=at, **style)
    _number_axes(axes, panel.x_label, panel.y_label, whole=panel.limits is None)
    if panel.limits is not None:
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlim(*panel.limits[:2])
        axes.set_ylim(*panel.limits[2:])
    named = legend_names(panel)
    if named:
        marks = [
            Line2D([], [], color=_class_color(line.color), linewidth=3, linestyle=(0, (2, 1)) if line.dashed else "-")
            for line in named.values()
        ]
        names = [fonts.legible(name).replace("$", r"\$") for name in named]
        columns = -(-len(names) // legend_rows(panel))
        style = {"frameon": False, "fontsize": fonts.points(fonts.SMALL), "borderaxespad": 0.2, "handlelength": 1.4}
        axes.legend(marks, names, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, **style)


def counts(axes: Axes, panel: Counts) -> None:
    """Draws a cell for each count, its share of the row below it."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    totals = panel.values.sum(1, keepdims=True)
    shares = np.divide(panel.values, totals, out=np.zeros(panel.values.shape), where=totals > 0)
    axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("counts", ["#ffffff", colors.PLAIN]), vmin=0, vmax=1, aspect="auto")
    style: dict[str, Any] = {"ha": "center", "va": "center", "family": "DejaVu Sans", "fontsize": fonts.points(fonts.SMALL)}
    for (row, column), value in np.ndenumerate(panel.values):
        ink = "white" if shares[row, column] > 0.6 else colors.INK
        text = f"{value}\n{100 * shares[row, column]:.0f} %" if totals[row] else "0"
        axes.text(column, row, text, color=ink, **style)
    for row, column in enumerate(panel.right):
        if column >= 0:
            axes.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor=colors.STRONG, linewidth=1.6))
    room = axes.get_window_extent().width / panel.values.shape[1]
    for names, set_ticks, limit in ((panel.columns, axes.set_xticks, int(room) - 6), (panel.rows, axes.set_yticks, 205)):
        shown = [fonts.shorten(fonts.legible(name), fonts.SMALL, limit).replace("$", r"\$") for name in names]
        set_ticks(range(len(names)), shown)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _class_color(place: int) -> str:
    return colors.CLASSES[place % len(colors.CLASSES)]


def spread(values: np.ndarray, bins: int = 50) -> np.ndarray:
    """Vertical offsets in [-0.3, 0.3] that keep equal values from hiding each other: within a bin, dots fan out from the middle.

    Args:
        values: (n,); NaN counts as one bin.
        bins: How finely the range of values is divided.
    """
    low, high = finite_range(values)
    bin_of = np.nan_to_num((values - low) / ((high - low) or 1.0) * bins, nan=-1.0, posinf=bins, neginf=0).astype(np.int64)
    offsets = np.zeros(len(values))
    most = max(np.bincount(bin_of + 1).max(initial=1), 6)
    for number_of in np.unique(bin_of):
        members = np.flatnonzero(bin_of == number_of)
        rank = np.arange(len(members))
        offsets[members] = (rank + 1) // 2 * np.where(rank % 2, 1, -1) * 0.6 / most
    return offsets


def fit_labels(spikes: Sequence[tuple[int, str]], room: float, gap: float = 12) -> list[tuple[int, str]]:
    """The labels that fit beside each other into a line of `room` pixels, in order of their index.

    Where there is too little room for all, only their first words (the numbers) stay, and of these as many of the first as fit.
    """
    texts = [fonts.shorten(fonts.legible(label), fonts.SMALL, 230) for _, label in spikes]
    if sum(fonts.width(text, fonts.SMALL) + gap for text in texts) <= room:
        return sorted((index, text) for (index, _), text in zip(spikes, texts, strict=True))
    kept: list[tuple[int, str]] = []
    for index, label in spikes:
        text = fonts.legible(label).split(" ")[0]
        needed = fonts.width(text, fonts.SMALL) + gap
        if needed > room:
            break
        kept.append((index, text))
        room -= needed
    return sorted(kept)


def place_labels(centres: Sequence[float], widths: Sequence[float], room: float, gap: float = 8) -> np.ndarray:
    """Centres for labels in one line: in the given order, without overlap, inside [0, room], near where they belong.

    Args:
        centres: Where each label belongs, ascending.
        widths: How wide each label is; together with the gaps at most `room`.
        room: The length of the line.
        gap: Free space between neighbours.
    """
    widths_ = np.asarray(widths, dtype=np.float64)
    apart = (widths_[1:] + widths_[:-1]) / 2 + gap
    rightward, leftward = np.array(centres, dtype=np.float64), np.array(centres, dtype=np.float64)
    for each, order in ((rightward, "right left"), (leftward, "left right")):
        for direction in order.split():
            _push(each, apart, widths_, room, direction)
    # both are free of overlap, and so is their mean, which favours neither side
    return (rightward + leftward) / 2


def _push(centres: np.ndarray, apart: np.ndarray, widths: np.ndarray, room: float, direction: str) -> None:
    last = len(centres) - 1
    if direction == "right":
        centres[0] = max(centres[0], widths[0] / 2)
        for index in range(1, last + 1):
            centres[index] = max(centres[index], centres[index - 1] + apart[index - 1])
    else:
        centres[last] = min(centres[last], room - widths[last] / 2)
        for index in range(last - 1, -1, -1):
            centres[index] = min(centres[index], centres[index + 1] - apart[index])


def _spike_color(panel: Bars, index: int) -> str:
    return colors.ASKED if index in panel.marked else colors.STRONG


def _labels(axes: Axes, panel: Bars, values: np.ndarray, spikes: list[tuple[int, str]], width: float, height: float) -> None:
    """Writes the spikes' labels in one line above the bars, with lines that lead to them."""
    kept = fit_labels(spikes, width)
    if not kept:
        return
    low, high = axes.get_ylim()
    belongs = [(index + 0.5) / len(values) * width for index, _ in kept]
    centres = place_labels(belongs, [fonts.width(text, fonts.SMALL) for _, text in kept], width)
    for (index, text), own, centre in zip(kept, belongs, centres, strict=True):
        top = (max(values[index], 0.0) - low) / (high - low)
        x = [own / width, own / width, centre / width]
        y = [top + 2 / height, 1 - (_TIER + _LEADER - 6) / height, 1 - _TIER / height]
        axes.plot(x, y, color=colors.LEADER, linewidth=0.7, linestyle=(0, (3, 2)), transform=axes.transAxes)
        style: dict[str, Any] = {"ha": "center", "va": "top", "family": "DejaVu Sans", "parse_math": False}
        style |= {"fontsize": fonts.points(fonts.SMALL), "color": _spike_color(panel, index)}
        axes.text(centre / width, 1.0, text, transform=axes.transAxes, **style)


def _limits(axes: Axes, panel: Bars, values: np.ndarray, height: float, *, labelled: bool) -> None:
    shown = values if panel.second is None else np.concatenate([values, np.asarray(panel.second, dtype=np.float64)])
    low, high = panel.limits or finite_range(np.append(shown, panel.baseline))
    if high <= low:
        high = low + 1.0
    share = 1 - ((_TIER + _LEADER) if labelled else 0 if panel.limits else 12) / height
    bottom = low if low == panel.baseline or panel.limits else low - 0.04 * (high - low)
    axes.set_ylim(bottom, bottom + (high - bottom) / share)
    axes.set_xlim(panel.first - 0.5, panel.first + max(len(values), 1) - 0.5)


def _number_axes(axes: Axes, x_label: str, y_label: str, *, whole: bool = True) -> None:
    from matplotlib.ticker import MaxNLocator

    style: dict[str, Any] = {"fontsize": fonts.points(fonts.SMALL), "color": colors.FAINT, "family": "DejaVu Sans", "parse_math": False}
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=whole, nbins=10 if whole else 5, min_n_ticks=1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}" if whole else number(value))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.set_xlabel(x_label, **style)
    label = axes.set_ylabel(fonts.shorten(fonts.legible(y_label), fonts.SMALL, 210), **style)
    label.set_rotation(90)


def _name_bars(axes: Axes, panel: Bars, room: float) -> None:
    if len(panel.names) != len(panel.values) or not panel.names or room < 44:
        return
    names = [fonts.shorten(fonts.legible(name), fonts.SMALL, int(room) - 6).replace("$", r"\$") for name in panel.names]
    axes.set_xticks(range(panel.first, panel.first + len(names)), names)


def _legend(axes: Axes, panel: Bars) -> None:
    if panel.second is None or len(panel.legend) != 2:
        return
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=colors.PLAIN, linewidth=5), Line2D([], [], color=colors.STRONG, linestyle="none", marker="o")]
    names = [fonts.legible(name).replace("$", r"\$") for name in panel.legend]
    axes.legend(marks, names, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=fonts.points(fonts.SMALL))


def name_matrix(axes: Axes, panel: Heat, height: float) -> None:
    """Names the rows and the horizontal axis of a map; without either, the axes show no numbers."""
    from matplotlib.ticker import MaxNLocator

    if panel.rows:
        step = max(int(np.ceil(len(panel.rows) * 17 / height)), 1)
        shown = range(0, len(panel.rows), step)
        names = [fonts.shorten(fonts.legible(panel.rows[row]), fonts.SMALL, 205).replace("$", r"\$") for row in shown]
        axes.set_yticks(list(shown), names)
        axes.tick_params(axis="y", length=0)
    elif not panel.x_label:
        axes.set_yticks([])
    if panel.x_label:
        style: dict[str, Any] = {"fontsize": fonts.points(fonts.SMALL), "color": colors.FAINT, "family": "DejaVu Sans", "parse_math": False}
        axes.set_xlabel(panel.x_label, **style)
        axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    else:
        axes.set_xticks([])
    axes.spines[:].set_visible(False)
