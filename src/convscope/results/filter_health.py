"""Filter health: how many channels of each layer have which finding, which ones, and how often channels are silent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Bars, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes


@dataclass(frozen=True, eq=False)
class FilterHealth(Result):
    """A row for each channel of each layer. Flags are 0 or 1.

    Attributes:
        channels: The channel's number in its layer, (filter).
        place: Its layer as a place in `layers`, (filter).
        maximum: Largest activation over images and positions, (filter).
        apoz: Average percentage of zeros: share of activations that are not above zero, in [0,1], (filter).
        bound: What no input can make it exceed, (filter); NaN if not known.
        dead: Never above zero on this data (only behind a ReLU), (filter). Zero: less than a billionth of the layer's largest.
        structural: Cannot be above that on any data, (filter).
        constant: The same mean and maximum on every image, but not dead, (filter).
        saturated: At least 5 % of the activations are within 2 % of the largest, and it is not constant, (filter).
        twin: The lowest channel of the layer that it duplicates, -1 for none, (filter).
        likeness: Correlation with that channel over images, the lower one of means and of maxima, (filter); NaN for none.
        layers: The layers' names.
        rectified: Whether each layer's values are those after its ReLU.
        images: How many images were looked at.
        paired: Whether duplicates were looked for (not in a survey of summaries, nor among fewer than 3 images).
    """

    channels: Array = axes("filter")
    place: Array = axes("filter")
    maximum: Array = axes("filter", unit="activation")
    apoz: Array = axes("filter", "series", unit="share of positions")
    bound: Array = axes("filter", unit="activation")
    dead: Array = axes("filter")
    structural: Array = axes("filter")
    constant: Array = axes("filter")
    saturated: Array = axes("filter")
    twin: Array = axes("filter")
    likeness: Array = axes("filter")
    layers: tuple[str, ...] = ()
    rectified: tuple[bool, ...] = ()
    images: int = 0
    paired: bool = True

    @property
    def alive_below(self) -> float:
        """A channel that is dead on all n images is alive on fewer than this share of such images, with 95 % confidence: 3 / n."""
        return min(3 / max(self.images, 1), 1.0)

    def of(self, layer: str) -> dict[str, list[int]]:
        """{finding: channels} of one layer: dead, structural, constant, saturated, duplicate."""
        own = self.place == self.layers.index(layer)
        flags = {name: getattr(self, name)[own] > 0 for name in ("dead", "structural", "constant", "saturated")}
        flags["duplicate"] = self.twin[own] >= 0
        return {name: [int(channel) for channel in self.channels[own][flag]] for name, flag in flags.items()}

    def summary(self) -> str:
        """A line for each layer with a finding, and what "dead" means on so many images."""
        lines: list[str] = []
        for layer in self.layers:
            found = {name: len(channels) for name, channels in self.of(layer).items() if channels}
            if found:
                count = int((self.place == self.layers.index(layer)).sum())
                lines.append(f"{layer} ({count} channels): {', '.join(f'{number} {name}' for name, number in found.items())}")
        dead = int(self.dead.sum())
        clean = len(self.layers) - len(lines)
        if clean:
            lines.append(f"{clean} of {len(self.layers)} layers have nothing to report")
        lines.append(f"{dead} of {len(self.dead)} channels dead on {self.images} images: alive on less than {self.alive_below:.2%} (95 %)")
        if not self.paired:
            lines.append("duplicates were not looked for: that takes what each of at least 3 images does, and this survey lacks it")
        return "\n".join(lines)

    def view(self) -> View:
        """A table of all layers, the channels concerned, and for few layers the share of zeros of every channel."""
        panels: list[Panel] = [_counts(self)]
        concerned = _concerned(self)
        if concerned.rows:
            panels.append(concerned)
        if len(self.layers) <= _MOST_PLOTS:
            for place, layer in enumerate(self.layers):
                own = self.place == place
                dead = tuple((int(channel), str(channel)) for channel in np.flatnonzero(self.dead[own])[:_LISTED])
                panels.append(Bars(100 * self.apoz[own], f"{layer}: share of zeros", "channel", "% of positions", dead))
        bound = min(300 / max(self.images, 1), 100)
        note = f"Dead: never above zero on these {self.images} images, so alive on less than {bound:.2g} % of such images (95 %, rule of "
        note += "three). Structural: cannot be above zero on any image. Constant: the same on every image. Saturated: at least 5 % of all "
        note += (
            "activations within 2 % of the largest. Duplicate: means and maxima over images correlate with those of an earlier channel. "
        )
        note += "Zeros: average percentage of zeros."
        if not self.paired:
            note += " Duplicates were not looked for: this survey lacks what each image does."
        count = f"{len(self.channels)} channels of {len(self.layers)} layer{'s' if len(self.layers) > 1 else ''}"
        parts = words.provenance(self), count
        return View("Filter health", tuple(panels), subtitle=" · ".join(part for part in parts if part), note=note)


_FINDINGS = ("dead", "structural", "constant", "saturated")


_MOST_LAYERS, _MOST_PLOTS, _LISTED = 60, 4, 10


def _flags(result: FilterHealth) -> dict[str, np.ndarray]:
    return {name: getattr(result, name) > 0 for name in _FINDINGS} | {"duplicate": result.twin >= 0}


def _counts(result: FilterHealth) -> Table:
    flags = _flags(result)
    rows: list[tuple[str, ...]] = []
    for place, layer in list(enumerate(result.layers))[:_MOST_LAYERS]:
        own = result.place == place
        found = [str(int(flag[own].sum())) if flag[own].any() else "-" for flag in flags.values()]
        if not result.rectified[place]:
            found[:2] = ["n/a", "n/a"]
        zeros = f"{100 * np.median(result.apoz[own]):.0f} %" if result.rectified[place] else "n/a"
        rows.append((layer, str(int(own.sum())), *found, zeros))
    more = f"first {_MOST_LAYERS} of {len(result.layers)} layers" if len(result.layers) > _MOST_LAYERS else ""
    return Table(("layer", "channels", *flags, "zeros, median"), tuple(rows), more)


def _concerned(result: FilterHealth) -> Table:
    rows: list[tuple[str, ...]] = []
    for place, layer in enumerate(result.layers):
        own = result.place == place
        for name, flag in _flags(result).items():
            channels = result.channels[own & flag]
            if not len(channels):
                continue
            twins = zip(channels, result.twin[own & flag], result.likeness[own & flag], strict=True)
            listed = [f"{channel} = {twin} (r {number(r)})" if name == "duplicate" else str(channel) for channel, twin, r in twins]
            rows.append((layer, name, ", ".join(listed[:_LISTED]) + (f", ... ({len(listed)})" if len(listed) > _LISTED else "")))
    return Table(("layer", "finding", "channels"), tuple(rows[:_MOST_LAYERS]), "which channels")
