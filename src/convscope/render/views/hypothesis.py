"""A guess about a unit put to the test: how well the unit tells concept from background, and which units do it better."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Bars, Dots, Group, Strip, Table, Text, View, number

_BETTER, _NAMED = 10, 7


def view(result: Any) -> View:
    """Verdict, the unit's activations on both groups of images, AUC of all channels, better units and contrary images.

    Args:
        result: ``Hypothesis``, fresh or loaded: concept (n c), background (m c), auc/effect/p/p_corrected (c,), ranks (n,).
    """
    name = words.unit_name(result.unit, result.labels)
    names = result.concept_names, result.background_names
    missed, mistaken = (tuple(index for index, image in enumerate(group) if image in result.against) for group in names)
    strip = Strip(
        (
            Dots(f"concept ({len(result.concept)})", result.concept[:, result.unit], missed),
            Dots(f"background ({len(result.background)})", result.background[:, result.unit], mistaken),
        ),
        title=f"activation of unit {name} on every image",
        x_label="mean activation",
        legend="(stroke: median; orange: speaks against)" if result.against else "(stroke: median)",
    )
    panels = (
        Text(result.verdict, large=True),
        Group((strip, _numbers(result)), 2),
        _ranking(result),
        Group((_better(result), _contrary(result)), 2),
    )
    note = "AUC: probability that a concept image excites the unit more than a background image; 0.5 is chance. "
    note += "Effect: difference of the means in standard deviations of the background. p: permutation test, corrected for all channels."
    return View(f"Hypothesis: unit {name}", panels, subtitle=words.provenance(result), note=note)


def _numbers(result: Any) -> Table:
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


def _ranking(result: Any) -> Bars:
    """All channels from the best AUC to the worst, the named one and the better ones labelled."""
    order = np.argsort(-np.nan_to_num(result.auc, nan=-np.inf), kind="stable")
    place = {int(unit): index for index, unit in enumerate(order)}
    named = (place[result.unit], f"{words.unit_name(result.unit, result.labels)} (asked about)")
    spikes = (named, *((place[unit], words.unit_name(unit, result.labels)) for unit in result.better[:_NAMED]))
    title = f"AUC of all {len(order)} channels, best first: unit {result.unit} is number {result.rank}"
    return Bars(result.auc[order], title, "channels in order of AUC", "AUC", spikes, baseline=0.5, first=1)


def _better(result: Any) -> Text | Table:
    if not result.better:
        return Text("None: no unit of this layer tells the concept from the background better.", "better units")
    rows = [
        (words.unit_name(unit, result.labels), number(result.auc[unit]), number(result.effect[unit]), number(result.p_corrected[unit]))
        for unit in result.better[:_BETTER]
    ]
    more = len(result.better) - len(rows)
    title = f"better units (first {len(rows)} of {len(result.better)})" if more else "better units"
    return Table(("channel", "AUC", "effect", "p corrected"), tuple(rows), title)


def _contrary(result: Any) -> Text | Table:
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
