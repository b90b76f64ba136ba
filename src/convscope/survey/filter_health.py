"""Channels that do nothing, always the same, or the same as another: each notion by itself, since they are not the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.result import Result, axes
from convscope.survey.provenance import reader
from convscope.survey.survey import OUTPUT, Survey

DUST = 1e-9
"""What is below this share of the layer's largest activation counts as zero: weights that decay leaves behind at 1e-14, say."""
STEADY = 1e-6
"""A channel is constant if its standard deviations over images are below this share of its largest magnitude."""
TOP, SHARE = 0.98, "q95"
"""A channel is saturated if 5 % of its activations reach this share of its largest."""


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

    channels: np.ndarray = axes("filter")
    place: np.ndarray = axes("filter")
    maximum: np.ndarray = axes("filter", unit="activation")
    apoz: np.ndarray = axes("filter", "series", unit="share of positions")
    bound: np.ndarray = axes("filter", unit="activation")
    dead: np.ndarray = axes("filter")
    structural: np.ndarray = axes("filter")
    constant: np.ndarray = axes("filter")
    saturated: np.ndarray = axes("filter")
    twin: np.ndarray = axes("filter")
    likeness: np.ndarray = axes("filter")
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


@reader
def filter_health(survey: Survey, layer: str | None = None, *, duplicate: float = 0.999) -> FilterHealth:
    """Channels that do nothing, always the same, or the same as another.

    Dead on this data is a statement about n images: by the rule of three, such a channel is alive on less than 3 / n of images like
    these, with 95 % confidence. Structurally dead is a statement about the weights and needs no data.

    Args:
        survey: The survey.
        layer: Layer name; None: all layers but the output.
        duplicate: Channels count as duplicates if both their means and their maxima over images correlate at least so much.

    Returns:
        A row for each channel; `.of(layer)` has the findings of one layer.

    Raises:
        LayerNotFound: Unknown layer.

    Source:
        Average percentage of zeros: Hu et al. 2016 (arXiv 1607.03250). Structurally dead by interval bounds, e.g. of a collapsed batch
        norm: Mehta et al. 2019 (arXiv 1811.12495).

    Example:
        >>> import convscope as cs
        >>> health = cs.filter_health(cs.read_survey("surveys/photos"))  # doctest: +SKIP
        >>> health.of("features.12")["dead"]  # doctest: +SKIP
        [14, 301]
    """
    names = [name for name in survey.layers if name != OUTPUT] if layer is None else [survey.layer(layer).name]
    paired = not survey.manifest["summary_only"] and len(survey) >= 3
    parts = [_of_layer(survey, name, duplicate if paired else None) for name in names]
    sizes = [len(part["channels"]) for part in parts]
    columns: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return FilterHealth(
        **columns,
        place=np.repeat(np.arange(len(names)), sizes),
        layers=tuple(names),
        rectified=tuple(survey.layer(name).rectified for name in names),
        images=len(survey),
        paired=paired,
    )


def _of_layer(survey: Survey, layer: str, duplicate: float | None) -> dict[str, np.ndarray]:
    table = survey.channels(layer)
    known: dict[str, Any] = {
        name: table[name].to_numpy().astype(np.float64) for name in ("maximum", "positive", "bound", "sd", "peak_sd", SHARE)
    }
    rectified, maximum = survey.layer(layer).rectified, known["maximum"]
    zero = DUST * max(float(maximum.max()), 0.0)
    dead = (maximum <= zero) & rectified
    largest = np.maximum(np.abs(maximum), np.abs(table["q01"].to_numpy()))
    constant = ~dead & (np.maximum(known["sd"], known["peak_sd"]) <= STEADY * largest)
    twin, likeness = np.full(len(maximum), -1), np.full(len(maximum), np.nan)
    if duplicate is not None:
        twin, likeness = duplicates(survey.mean(layer), survey.maximum(layer), duplicate)
    return {
        "channels": table["channel"].to_numpy(),
        "maximum": table["maximum"].to_numpy(),
        "apoz": 1 - known["positive"],
        "bound": known["bound"],
        "dead": dead.astype(np.uint8),
        "structural": ((known["bound"] <= zero) & rectified).astype(np.uint8),
        "constant": constant.astype(np.uint8),
        "saturated": (~dead & ~constant & (maximum > 0) & (known[SHARE] >= TOP * maximum)).astype(np.uint8),
        "twin": twin,
        "likeness": likeness,
    }


def duplicates(means: np.ndarray, maxima: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """For each column, the first earlier one that it is correlated with by at least `least` in both (n c), or -1; and how much."""
    likeness = np.minimum(_correlation(means), _correlation(maxima))
    likeness[np.triu_indices(len(likeness))] = -np.inf  # only earlier ones, so that the first of a group has no twin
    found = np.nan_to_num(likeness, nan=-np.inf) >= least
    twin = np.where(found.any(1), found.argmax(1), -1)
    return twin, np.where(twin >= 0, likeness[np.arange(len(twin)), np.maximum(twin, 0)], np.nan)


def _correlation(values: np.ndarray) -> np.ndarray:
    """Pearson's r between columns of (n c); NaN with a column that never varies."""
    centred = values - values.mean(0, dtype=np.float64)
    length = np.sqrt((centred**2).sum(0))
    varies = length > STEADY * np.abs(values).max(0) * np.sqrt(len(values))
    centred = np.where(varies, centred / np.where(varies, length, 1), np.nan)
    return centred.T @ centred
