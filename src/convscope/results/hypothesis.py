"""Result of `hypothesis`: how well a unit separates concept images from background images, and which units do it better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Bars, Dots, Group, Strip, Table, Text, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

_BETTER, _NAMED = 10, 7
_BETTER_IN_SUMMARY, _AGAINST_IN_SUMMARY = 5, 8


@dataclass(frozen=True, eq=False)
class Hypothesis(ImageResult):
    """The named unit and every other unit of the layer, measured on the same images.

    Attributes:
        concept: Spectra of the images that show the concept, (n c).
        background: Spectra of the images that do not, (m c).
        auc: Probability that a unit is higher on a concept image than on a background image, ties half, (c).
        effect: (mean of concept - mean of background) / standard deviation of background, (c); 0 where a unit never varies.
        p: One-sided permutation p-value of the AUC, (c).
        p_corrected: The same corrected over the layer's units (family-wise, by the maximum over units), (c).
        ranks: Rank of the named unit in each concept image's spectrum, 1 = highest, (n).
        layer: The layer's name.
        unit: The unit that the hypothesis is about.
        rank: Its rank by AUC in the layer, 1 = best.
        better: Units with a higher AUC, best first.
        against: Names of the images that speak against it: concept images below the best threshold, background images above it.
        concept_names, background_names: Names of the images.
        unit_names: Class names on the output layer, else empty.
        permutations: How many permutations the p-values come from.
        verdict: The finding in a line.
    """

    tabled: ClassVar[Rows] = Rows("c", unit="c", unit_name="c:unit_names")

    concept: Array = axes("n c", "series", unit="activation")
    background: Array = axes("m c", "series", unit="activation")
    auc: Array = axes("c")
    effect: Array = axes("c")
    p: Array = axes("c")
    p_corrected: Array = axes("c")
    ranks: Array = axes("n")
    layer: str = ""
    unit: int = 0
    rank: int = 0
    better: tuple[int, ...] = ()
    against: tuple[str, ...] = ()
    concept_names: tuple[str, ...] = ()
    background_names: tuple[str, ...] = ()
    unit_names: tuple[str, ...] = ()
    permutations: int = 0
    verdict: str = ""

    def summary(self) -> str:
        """The finding, the units with a higher AUC, and the images against."""
        lines = [self.verdict]
        if self.better:
            named = [f"{words.unit_name(unit, self.unit_names)} (AUC {self.auc[unit]:.3f})" for unit in self.better]
            lines.append(f"units that answer better: {words.listed(named, _BETTER_IN_SUMMARY)}")
        if self.against:
            lines.append(f"images against: {words.listed(self.against, _AGAINST_IN_SUMMARY)}")
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """The finding, the unit's activations on both groups of images, AUC of all units, better units and images against."""
        name = words.unit_name(self.unit, self.unit_names)
        panels = (
            Text(self.verdict, large=True),
            Group((_strip(self), _numbers(self)), 2),
            _ranking(self),
            Group((_better(self), _against(self)), 2),
        )
        note = words.note(
            "AUC: probability that the unit is higher on a concept image than on a background image; 0.5 is chance.",
            "Effect: difference of the means in standard deviations of the background. p: permutation test, corrected for all units.",
        )
        return View(f"Hypothesis: unit {name}", panels, subtitle=words.subtitle(self), note=self.with_skipped(note))


def _strip(result: Hypothesis) -> Strip:
    """The unit's activation on every image, in two rows."""
    groups = (("concept", result.concept, result.concept_names), ("background", result.background, result.background_names))
    rows: list[Dots] = []
    for group, spectra, names in groups:
        against = tuple(index for index, name in enumerate(names) if name in result.against)
        rows.append(Dots(f"{group} ({len(spectra)})", spectra[:, result.unit], against))
    return Strip(
        tuple(rows),
        title=f"activation of unit {words.unit_name(result.unit, result.unit_names)} on every image",
        x_label=f"{result.manifest.get('parameters', {}).get('reduce', 'mean')} activation",
        legend="(stroke: median; orange: speaks against)" if result.against else "(stroke: median)",
    )


def _numbers(result: Hypothesis) -> Table:
    unit = result.unit
    rows = (
        ("AUC", number(result.auc[unit])),
        ("rank by AUC", f"{standing(result.auc, result.unit)} of {len(result.auc)}"),
        ("effect", number(result.effect[unit])),
        ("p", number(result.p[unit])),
        ("p corrected", number(result.p_corrected[unit])),
        ("concept images", str(len(result.concept))),
        ("background images", str(len(result.background))),
    )
    return Table(("", "value"), rows, f"unit {words.unit_name(unit, result.unit_names)}")


def standing(auc: np.ndarray, unit: int) -> str:
    """A unit's rank by AUC, 1 = best: "3", or where others have the same AUC "1 to 106, tied"."""
    first, last = 1 + int((auc > auc[unit]).sum()), int((auc >= auc[unit]).sum())
    return f"{first} to {last}, tied" if last > first else str(first)


def _ranking(result: Hypothesis) -> Bars:
    """All units from the best AUC to the worst, the named one and the better ones labelled."""
    order = np.argsort(-np.nan_to_num(result.auc, nan=-np.inf), kind="stable")
    position = {int(unit): index for index, unit in enumerate(order)}
    named = (position[result.unit], f"{words.unit_name(result.unit, result.unit_names)} (asked about)")
    better = ((position[unit], words.unit_name(unit, result.unit_names)) for unit in result.better[:_NAMED])
    title = f"AUC of all {len(order)} units, best first: unit {result.unit} is number {standing(result.auc, result.unit)}"
    return Bars(result.auc[order], title, "units in order of AUC", "AUC", (named, *better), baseline=0.5, first=1, limits=(0.0, 1.0))


def _better(result: Hypothesis) -> Text | Table:
    if not result.better:
        return Text("None: no unit of this layer tells the concept from the background better.", "better units")
    rows = [
        (words.unit_name(unit, result.unit_names), number(result.auc[unit]), number(result.effect[unit]), number(result.p_corrected[unit]))
        for unit in result.better[:_BETTER]
    ]
    return Table(("unit", "AUC", "effect", "p corrected"), tuple(rows), _title("better units", len(result.better)))


def _against(result: Hypothesis) -> Text | Table:
    """Images on the wrong side of the best threshold, the furthest first, each with the unit's rank in its spectrum."""
    if not result.against:
        return Text("None: the unit tells all these images apart.", "images against")
    groups = (("concept", result.concept_names, result.concept), ("background", result.background_names, result.background))
    found = {name: (group, spectra[index]) for group, names, spectra in groups for index, name in enumerate(names)}
    rows: list[tuple[str, ...]] = []
    for name in result.against[:_BETTER]:
        group, spectrum = found[name]
        rank = 1 + int((spectrum > spectrum[result.unit]).sum())
        rows.append((name, group, number(spectrum[result.unit]), f"{rank} of {len(spectrum)}"))
    return Table(("image", "group", "activation", "rank of the unit"), tuple(rows), _title("images against", len(result.against)))


def _title(title: str, count: int) -> str:
    return f"{title} ({words.first(_BETTER, count)})" if count > _BETTER else title
