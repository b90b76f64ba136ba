"""Class profile: how well each unit separates the images of each label from all others (AUC, effect size, corrected p-value)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from convscope.errors import BadInput
from convscope.names import Units
from convscope.results.class_profile import ClassProfile
from convscope.results.provenance import technique
from convscope.statistics import benjamini_hochberg, group_areas, holm
from convscope.survey.survey import Survey

CORRECTIONS = {"holm": holm, "bh": benjamini_hochberg}


@technique
def class_profile(
    survey: Survey, layer: str, units: Units = None, *, reduce: Literal["mean", "max"] = "mean", correction: Literal["holm", "bh"] = "holm"
) -> ClassProfile:
    """Which classes units respond to: AUC, effect size and corrected p-value of each unit and label.

    AUC = U / (n m), the Mann-Whitney statistic of a label's images against all other labelled images. p is exact for a label with one
    image, else the normal approximation with corrections for ties and continuity. It is corrected over all pairs of unit and label.

    Args:
        survey: The survey; its images need labels.
        layer: Layer name.
        units: Unit numbers, or class names on "output"; None: all of them.
        reduce: "mean" or "max" over positions; the maximum suits local features.
        correction: "holm" (bounds the chance of any false discovery) or "bh" (bounds the share of false discoveries).

    Returns:
        AUC, effect and p-values; `.responds(unit)` and `.best(label)`.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: Fewer than two labels, or a survey without per-image values.

    Source:
        Mann and Whitney 1947; Holm 1979; Benjamini and Hochberg 1995. Class selectivity: Morcos et al. 2018,
        arXiv 1803.06959; AUC is used because it is robust to outliers.

    Example:
        >>> import convscope as cs
        >>> profile = cs.class_profile(cs.read_survey("surveys/photos"), "features.12")  # doctest: +SKIP
        >>> profile.responds(213)  # doctest: +SKIP
        ('ants',)

    Command line:
        convscope class-profile survey features.27
        convscope class-profile survey features.27 --units 3,17 --reduce max
    """
    chosen = survey.units(layer, units)
    if len(survey.labels) < 2:
        found = f"only {survey.labels[0]}" if survey.labels else "none"
        raise BadInput(f"survey {survey.path}: a class profile needs images of at least two labels, found {found}")
    own = survey.truth >= 0
    values = (survey.mean(layer) if reduce == "mean" else survey.maximum(layer))[own][:, chosen].astype(np.float64)
    truth = survey.truth[own]
    auc, p = group_areas(values, truth, len(survey.labels))
    return ClassProfile(
        auc=auc.T,
        p=p.T,
        p_corrected=CORRECTIONS[correction](p.T),
        effect=_effect(values, truth, len(survey.labels)).T,
        counts=np.bincount(truth, minlength=len(survey.labels)),
        layer=layer,
        units=tuple(chosen),
        unit_names=survey.unit_names(layer, chosen),
        labels=survey.labels,
        reduce=reduce,
        correction=correction,
    )


def _effect(values: np.ndarray, truth: np.ndarray, count: int) -> np.ndarray:
    """Effect size, (label unit): difference of the label's mean and the others' mean, in standard deviations of the others."""
    centred = values - values.mean(0)
    sums, squares = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, truth, centred)
    np.add.at(squares, truth, centred**2)
    sizes = np.bincount(truth, minlength=count)[:, None]
    rest = len(values) - sizes
    mean = -sums / rest  # the centred values add up to 0
    deviation = np.sqrt(np.maximum((squares.sum(0) - squares - rest * mean**2) / np.maximum(rest - 1, 1), 0))
    gap = sums / sizes - mean
    return np.divide(gap, deviation, out=np.where(np.abs(gap) < 1e-12, 0.0, np.copysign(np.inf, gap)), where=deviation > 0)
