"""Finds dead, constant, saturated and duplicate channels, from a survey's statistics and the bounds of the weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.names import OUTPUT
from convscope.results.filter_health import FilterHealth
from convscope.results.provenance import technique
from convscope.survey.survey import Survey

DUST = 1e-9
"""Activations below this share of the layer's largest count as zero: weight decay may leave 1e-14, say."""


STEADY = 1e-6
"""A channel is constant if its standard deviations over images are below this share of its largest magnitude."""


TOP, SHARE = 0.98, "q95"
"""A channel is saturated if 5 % of its activations reach this share of its largest."""


@technique
def filter_health(survey: Survey, layer: str | None = None, *, duplicate: float = 0.999) -> FilterHealth:
    """Finds dead, constant, saturated and duplicate channels.

    Dead: never above zero on these n images; by the rule of three, a dead unit is active on less than 3 / n of such images, with 95 %
    confidence. Structurally dead: cannot be above zero for any image, by interval bounds of the weights.

    Args:
        survey: The survey.
        layer: Layer name; None: all layers but the output.
        duplicate: Two units are duplicates if their means and their maxima over images both correlate at least this much.

    Returns:
        A row for each unit; `.of(layer)` has the findings of one layer.

    Raises:
        LayerNotFound: Unknown layer.

    Source:
        Average percentage of zeros: Hu et al. 2016 (arXiv 1607.03250). Channels collapsed in training: Mehta et al. 2019 (arXiv
        1811.12495).

    Example:
        >>> import convscope as cs
        >>> health = cs.filter_health(cs.read_survey("surveys/photos"))  # doctest: +SKIP
        >>> health.of("features.12")["dead"]  # doctest: +SKIP
        [14, 301]

    Command line:
        convscope filter-health survey
        convscope filter-health survey --layer features.27
    """
    names = [name for name in survey.layers if name != OUTPUT] if layer is None else [survey.layer(layer).name]
    paired = not survey.manifest["summary_only"] and len(survey) >= 3
    parts = [_of_layer(survey, name, duplicate if paired else None) for name in names]
    sizes = [len(part["units"]) for part in parts]
    columns: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return FilterHealth(
        **columns,
        layer_index=np.repeat(np.arange(len(names)), sizes),
        layers=tuple(names),
        rectified=tuple(survey.layer(name).rectified for name in names),
        images=len(survey),
        paired=paired,
    )


def _of_layer(survey: Survey, layer: str, duplicate: float | None) -> dict[str, np.ndarray]:
    """Array fields of the result for one layer; `duplicate` None: duplicates are not searched."""
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
        "units": table["channel"].to_numpy(),
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
    """The first earlier column that each column duplicates, or -1, and their correlation: at least `least` in both arrays (n c)."""
    likeness = np.minimum(_correlation(means), _correlation(maxima))
    likeness[np.triu_indices(len(likeness))] = -np.inf  # only earlier ones, so that the first of a group has no twin
    found = np.nan_to_num(likeness, nan=-np.inf) >= least
    twin = np.where(found.any(1), found.argmax(1), -1)
    return twin, np.where(twin >= 0, likeness[np.arange(len(twin)), np.maximum(twin, 0)], np.nan)


def _correlation(values: np.ndarray) -> np.ndarray:
    """Pearson correlation between columns of (n c); NaN for a constant column."""
    centred = values - values.mean(0, dtype=np.float64)
    length = np.sqrt((centred**2).sum(0))
    varies = length > STEADY * np.abs(values).max(0) * np.sqrt(len(values))
    centred = np.where(varies, centred / np.where(varies, length, 1), np.nan)
    return centred.T @ centred
