"""A guess about a unit put to the test: how well the unit tells concept from background, and which units do it better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Bars, Dots, Group, Strip, Table, Text, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes


@dataclass(frozen=True, eq=False)
class Hypothesis(ImageResult):
    """The guess and every other unit of the layer, measured on the same images.

    Attributes:
        concept: Spectra of the images that show the thing, (n c).
        background: Spectra of the images that do not, (m c).
        auc: Probability that a unit is higher on a concept image than on a background image, ties half, (c).
        effect: (mean of concept - mean of background) / standard deviation of background, (c); 0 where a unit never varies.
        p: One-sided permutation p-value of the AUC, (c).
        p_corrected: The same corrected over the layer's units (family-wise, by the maximum over units), (c).
        ranks: Place of the named unit in each concept image's spectrum, 1 = highest, (n).
        layer: The layer's name.
        unit: The unit that the guess is about.
        rank: Its place by AUC in the layer, 1 = best.
        better: Units that answer better (higher AUC), best first.
        against: Names of the images that speak against the guess: concept images below the best threshold, background images above it.
        concept_names, background_names: Names of the images.
        labels: Class names on the output layer, else empty.
        permutations: How many permutations the p-values rest on.
        verdict: All this in a line.
    """

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
    labels: tuple[str, ...] = ()
    permutations: int = 0
    verdict: str = ""

    def summary(self) -> str:
        """The verdict, the units that answer better, and the images against."""
        lines = [self.verdict]
        if self.better:
            named = [f"{unit}{f' {self.labels[unit]}' if self.labels else ''} (AUC {self.auc[unit]:.3f})" for unit in self.better[:5]]
            lines.append(f"units that answer better: {', '.join(named)}{', ...' if len(self.better) > 5 else ''}")
        if self.against:
            lines.append(f"images against: {', '.join(self.against[:8])}{', ...' if len(self.against) > 8 else ''}")
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """Verdict, the unit's activations on both groups of images, AUC of all channels, better units and contrary images."""
        name = words.unit_name(self.unit, self.labels)
        names = self.concept_names, self.background_names
        missed, mistaken = (tuple(index for index, image in enumerate(group) if image in self.against) for group in names)
        strip = Strip(
            (
                Dots(f"concept ({len(self.concept)})", self.concept[:, self.unit], missed),
                Dots(f"background ({len(self.background)})", self.background[:, self.unit], mistaken),
            ),
            title=f"activation of unit {name} on every image",
            x_label="mean activation",
            legend="(stroke: median; orange: speaks against)" if self.against else "(stroke: median)",
        )
        panels = (
            Text(self.verdict, large=True),
            Group((strip, _numbers(self)), 2),
            _ranking(self),
            Group((_better(self), _contrary(self)), 2),
        )
        note = "AUC: probability that a concept image excites the unit more than a background image; 0.5 is chance. "
        note += "Effect: difference of the means in standard deviations of the background. p: permutation test, corrected for all channels."
        return View(f"Hypothesis: unit {name}", panels, subtitle=words.provenance(self), note=self.with_skipped(note))


_BETTER, _NAMED = 10, 7


def _numbers(result: Hypothesis) -> Table:
    unit, channels = result.unit, len(result.auc)
    rows = (
        ("AUC", number(result.auc[unit])),
        ("rank by AUC", f"{result.rank} of {channels}"),
        ("effect", number(result.effect[unit])),
        ("p", number(result.p[unit])),
        ("p corrected", number(result.p_corrected[unit])),
        ("concept images", str(len(result.concept))),
        ("background images", str(len(result.background))),
    )
    return Table(("", "value"), rows, f"unit {words.unit_name(unit, result.labels)}")


def _ranking(result: Hypothesis) -> Bars:
    """All channels from the best AUC to the worst, the named one and the better ones labelled."""
    order = np.argsort(-np.nan_to_num(result.auc, nan=-np.inf), kind="stable")
    place = {int(unit): index for index, unit in enumerate(order)}
    named = (place[result.unit], f"{words.unit_name(result.unit, result.labels)} (asked about)")
    spikes = (named, *((place[unit], words.unit_name(unit, result.labels)) for unit in result.better[:_NAMED]))
    title = f"AUC of all {len(order)} channels, best first: unit {result.unit} is number {result.rank}"
    return Bars(result.auc[order], title, "channels in order of AUC", "AUC", spikes, baseline=0.5, first=1)


def _better(result: Hypothesis) -> Text | Table:
    if not result.better:
        return Text("None: no unit of this layer tells the concept from the background better.", "better units")
    rows = [
        (words.unit_name(unit, result.labels), number(result.auc[unit]), number(result.effect[unit]), number(result.p_corrected[unit]))
        for unit in result.better[:_BETTER]
    ]
    more = len(result.better) - len(rows)
    title = f"better units (first {len(rows)} of {len(result.better)})" if more else "better units"
    return Table(("channel", "AUC", "effect", "p corrected"), tuple(rows), title)


def _contrary(result: Hypothesis) -> Text | Table:
    """Images on the wrong side, the worst first: concept images that leave the unit cold, background images that excite it."""
    if not result.against:
        return Text("None: the unit tells all these images apart.", "images against")
    groups = (("concept", result.concept_names, result.concept), ("background", result.background_names, result.background))
    found = {name: (kind, spectra[index]) for kind, names, spectra in groups for index, name in enumerate(names)}
    rows: list[tuple[str, ...]] = []
    for name in result.against[:_BETTER]:
        kind, spectrum = found[name]
        rank = 1 + int((spectrum > spectrum[result.unit]).sum())
        rows.append((name, kind, number(spectrum[result.unit]), f"{rank} of {len(spectrum)}"))
    title = f"images against (first {len(rows)} of {len(result.against)})" if len(result.against) > len(rows) else "images against"
    return Table(("image", "shown as", "activation", "rank of the unit"), tuple(rows), title)
