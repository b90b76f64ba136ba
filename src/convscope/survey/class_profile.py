"""Which classes a channel responds to: how well it tells each label's images from all others, and whether that could be chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.errors import BadInput
from convscope.result import Result, axes
from convscope.statistics import benjamini_hochberg, group_areas, holm
from convscope.survey.provenance import reader
from convscope.survey.survey import Survey, Units

CHANCE = 0.05
"""Corrected p below this counts as a response."""
REDUCES = ("mean", "max")
CORRECTIONS = {"holm": holm, "bh": benjamini_hochberg}


@dataclass(frozen=True, eq=False)
class ClassProfile(Result):
    """Every unit against every label.

    Attributes:
        auc: Probability that the unit is higher on an image of the label than on another image, ties half, (unit label).
        p: One-sided p-value of that, (unit label).
        p_corrected: The same corrected over all units and labels here, (unit label).
        effect: (mean over the label's images - mean over the others) / standard deviation of the others, (unit label); 0 where a unit
            never varies.
        counts: Images of each label, (label).
        layer: The layer's name.
        units: The units' numbers.
        labels: Class names of the units on "output", else "".
        classes: The labels of the images.
        reduce: What was compared: "mean" or "max" over positions.
        correction: "holm" (no false discovery at all) or "bh" (a bounded share of them).
    """

    auc: np.ndarray = axes("unit label", "values")
    p: np.ndarray = axes("unit label")
    p_corrected: np.ndarray = axes("unit label")
    effect: np.ndarray = axes("unit label")
    counts: np.ndarray = axes("label")
    layer: str = ""
    units: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    reduce: str = "mean"
    correction: str = "holm"

    def responds(self, unit: int) -> tuple[str, ...]:
        """The labels that a unit responds to beyond chance, best first."""
        row = self.units.index(unit)
        return tuple(
            self.classes[place] for place in self._ranked(self.auc[row], self.effect[row]) if self.p_corrected[row, place] < CHANCE
        )

    def best(self, label: str, count: int = 5) -> tuple[int, ...]:
        """The units that tell a label best from the rest; of equal AUC, those with the larger effect."""
        column = self.classes.index(label)
        return tuple(self.units[place] for place in self._ranked(self.auc[:, column], self.effect[:, column])[:count])

    @staticmethod
    def _ranked(auc: np.ndarray, effect: np.ndarray) -> np.ndarray:
        return np.lexsort((np.arange(len(auc)), -effect, -auc))

    def summary(self) -> str:
        """Each unit's best labels; with many units, each label's best units."""
        if len(self.units) <= 12:
            return "\n".join(self._line(row) for row in range(len(self.units)))
        lines: list[str] = []
        for column, label in list(enumerate(self.classes))[:12]:
            rows = self._ranked(self.auc[:, column], self.effect[:, column])[:4]
            named = ", ".join(f"{self._name(row)} (AUC {self.auc[row, column]:.3f})" for row in rows)
            images = f"{self.counts[column]} image{'s' if self.counts[column] != 1 else ''}"
            lines.append(f"{label} ({images}): best units {named}")
        more = len(self.classes) - len(lines)
        responding = int((self.p_corrected < CHANCE).any(1).sum())
        lines += [f"... and {more} more labels"] * (more > 0)
        lines.append(f"{responding} of {len(self.units)} units respond to a label beyond chance")
        if not responding and self.counts.min() == 1:
            lines.append("(a label with one image cannot: its p is at least one over the number of images, before it is corrected)")
        return "\n".join(lines)

    def _name(self, row: int) -> str:
        return f"{self.units[row]} {self.labels[row]}".strip()

    def _line(self, row: int) -> str:
        order = self._ranked(self.auc[row], self.effect[row])[:4]
        named = ", ".join(f"{self.classes[at]} (AUC {self.auc[row, at]:.3f}, p {self.p_corrected[row, at]:.2g})" for at in order)
        return f"unit {self._name(row)}: {named}"


@reader
def class_profile(survey: Survey, layer: str, units: Units = None, *, reduce: str = "mean", correction: str = "holm") -> ClassProfile:
    """Which classes units respond to.

    AUC = U / (n m), Mann-Whitney, of a label's images against all other labelled images. p is exact where a label has one image, else
    the normal approximation with corrections for ties and continuity; it is corrected over all pairs of unit and label asked about.

    Args:
        survey: The survey; its images need labels.
        layer: Layer name.
        units: An int, a list, a slice, or None for all; class names are understood on "output".
        reduce: "mean" or "max" over positions; for local features the maximum says more.
        correction: "holm" or "bh".

    Returns:
        AUC, effect and p-values; `.responds(unit)` and `.best(label)`.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: Fewer than two labels; unknown reduce or correction; summaries only.

    Source:
        Mann and Whitney 1947; Holm 1979; Benjamini and Hochberg 1995. The question is that of class selectivity (Morcos et al. 2018,
        arXiv 1803.06959), with a measure that outliers do not rule.

    Example:
        >>> import convscope as cs
        >>> profile = cs.class_profile(cs.read_survey("surveys/photos"), "features.12")  # doctest: +SKIP
        >>> profile.responds(213)  # doctest: +SKIP
        ('ants',)
    """
    for name, value, allowed in (("reduce", reduce, REDUCES), ("correction", correction, tuple(CORRECTIONS))):
        if value not in allowed:
            raise BadInput(f"{name} must be {' or '.join(allowed)}, got {value!r}")
    chosen = survey.units(layer, units)
    if len(survey.labels) < 2:
        found = f"only {survey.labels[0]}" if survey.labels else "none"
        raise BadInput(f"survey {survey.path}: responding to a class takes images of at least two labels, found {found}")
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
        labels=survey.unit_labels(layer, chosen),
        classes=survey.labels,
        reduce=reduce,
        correction=correction,
    )


def _effect(values: np.ndarray, truth: np.ndarray, count: int) -> np.ndarray:
    """(label unit): the gap between a label's mean and the others', in standard deviations of the others."""
    centred = values - values.mean(0)
    sums, squares = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, truth, centred)
    np.add.at(squares, truth, centred**2)
    sizes = np.bincount(truth, minlength=count)[:, None]
    rest = len(values) - sizes
    mean = -sums / rest  # the centred values add up to nothing
    deviation = np.sqrt(np.maximum((squares.sum(0) - squares - rest * mean**2) / np.maximum(rest - 1, 1), 0))
    gap = sums / sizes - mean
    return np.divide(gap, deviation, out=np.where(np.abs(gap) < 1e-12, 0.0, np.copysign(np.inf, gap)), where=deviation > 0)
