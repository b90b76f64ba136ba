"""Comparisons of two networks on the same images: matched units, what changed most, accuracy by class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypedDict

import numpy as np

from convscope.names import OUTPUT, place_of
from convscope.render.panels import Curves, Group, Image, Line, Panel, Table, Text, View
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows

_SIDE, _LABELS, _MAPS = 112, 20, 6


class Shown(TypedDict):
    """A unit that changed, with crops of its strongest images before and of its match's after, (top rgb h w) in [0,1]."""

    layer: str
    unit: int
    match: int
    correlation: float
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True, eq=False)
class Compare(Result):
    """Two networks on the same images; "before" is the first, "after" the second.

    Attributes:
        layer_index: The layer of each pair, as an index into `layers`, (pair).
        units: The unit of the first network, (pair); -1 where the second network's unit has no partner.
        counterparts: The matched unit of the second, (pair); -1 where the first network's unit has none.
        correlations: Correlation of their mean activations over the images, (pair); 0 where a side is missing or constant.
        cka: Linear CKA of each layer, (layer); NaN where a side is constant.
        chance: The correlation that 99 % of the matches stay below when the second network's images are shuffled, (layer).
        dead: Units that are constant over the images, before and after, (layer side).
        accuracy: Right images and all images of each label, before and after, (label side count); -1 where it is not known.
        layers: Names of the layers.
        labels: The first survey's labels.
        gained: Units of the second network that became class maps, {layer: {label: units}}.
        lost: Units of the first network that are class maps no longer, {layer: {label: units}}.
        shown: The most changed units of the layer that changed most.
        surveys: Where the surveys are.
        networks: Names of the networks.
        images: How many images were compared.
        left_out: How many images only one survey has.
        threshold: Correlation above which two units are counterparts.
        fail_above: Share of active units without a counterpart above which `passed` is False; None for no limit.
    """

    tabled: ClassVar[Rows] = Rows("pair", unit="pair:units", counterpart="pair:counterparts")

    layer_index: Array = axes("pair")
    units: Array = axes("pair")
    counterparts: Array = axes("pair")
    correlations: Array = axes("pair")
    cka: Array = axes("layer")
    chance: Array = axes("layer")
    dead: Array = axes("layer side")
    accuracy: Array = axes("label side count")
    layers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    gained: dict[str, dict[str, list[int]]] | None = None
    lost: dict[str, dict[str, list[int]]] | None = None
    shown: tuple[Shown, ...] = ()
    surveys: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    images: int = 0
    left_out: int = 0
    threshold: float = 0.7
    fail_above: float | None = None

    def of(self, layer: str) -> dict[int, tuple[int, float]]:
        """{unit: (its match, -1 for none, their correlation)} of a layer."""
        own = (self.layer_index == place_of(layer, self.layers, "layer")) & (self.units >= 0)
        pairs = zip(self.counterparts[own].tolist(), self.correlations[own].tolist(), strict=True)
        return dict(zip(self.units[own].tolist(), pairs, strict=True))

    def matched(self, layer: str) -> tuple[int, int]:
        """How many active units of the first network have a counterpart, and how many active units there are."""
        index = place_of(layer, self.layers, "layer")
        own = (self.layer_index == index) & (self.units >= 0)
        return int((self.correlations[own] > self.threshold).sum()), int(own.sum() - self.dead[index, 0])

    @property
    def passed(self) -> bool:
        """Whether in every layer the share of active units without a counterpart is at most `fail_above`."""
        if self.fail_above is None:
            return True
        shares = (self.matched(layer) for layer in self.layers)
        return all(active == 0 or 1 - found / active <= self.fail_above for found, active in shares)

    def table(self) -> Table:
        """For each layer: units, how many have a counterpart, median correlation, chance, CKA, dead units."""
        rows: list[tuple[str, ...]] = []
        for index, layer in enumerate(self.layers):
            found, active = self.matched(layer)
            own = self.correlations[(self.layer_index == index) & (self.units >= 0)]
            share = f"{100 * found / active:.0f} %" if active else "-"
            middle = f"{np.median(own):.2f}" if own.size else "-"
            cka = "-" if math.isnan(self.cka[index]) else f"{self.cka[index]:.2f}"
            dead = f"{self.dead[index, 0]} / {self.dead[index, 1]}"
            rows.append((layer, str(len(own)), str(found), share, middle, f"{self.chance[index]:.2f}", cka, dead))
        header = ("layer", "units", "counterparts", "of active", "median r", "r by chance", "CKA", "dead before / after")
        return Table(header, tuple(rows), "Layers")

    def summary(self) -> str:
        """Share of counterparts in each layer, the layer that changed most, accuracy before and after."""
        lines = [f"{words.plural(self.images, 'image')} seen by both"]
        if self.left_out:
            lines[0] += f" ({self.left_out} seen by one only, left out)"
        for index, layer in enumerate(self.layers):
            found, active = self.matched(layer)
            cka = "" if math.isnan(self.cka[index]) else f", CKA {self.cka[index]:.2f}"
            lines.append(f"{layer}: {found} of {active} active units have a counterpart (r > {self.threshold:g}){cka}")
        known = self.accuracy[(self.accuracy >= 0).all((1, 2))]
        if len(known):
            before, after = (100 * known[:, side, 0].sum() / known[:, side, 1].sum() for side in (0, 1))
            lines.append(f"accuracy {before:.1f} % before, {after:.1f} % after")
        if self.fail_above is not None:
            limit = f"at most {100 * self.fail_above:.0f} % of a layer's active units may lack a counterpart"
            lines.append(f"{'passed' if self.passed else 'FAILED'}: {limit}")
        return "\n".join(lines)

    def view(self) -> View:
        """Counterparts and CKA over the layers, the table, accuracy by class, changed class maps, and exemplars of changed units."""
        panels: list[Panel] = []
        if len(self.layers) > 1:
            panels.append(self._curves())
        panels.append(self.table())
        changes = [table for table in (self._accuracies(), self._maps()) if table.rows]
        if changes:
            panels.append(Group(tuple(changes), 2))
        for one in self.shown:
            tiles = [Image(crop, f"before: {one['unit']}" if not place else "") for place, crop in enumerate(one["before"])]
            tiles += [Image(crop, f"after: {one['match']}" if not place else "") for place, crop in enumerate(one["after"])]
            title = f"{one['layer']}: unit {one['unit']} and its match {one['match']}, r = {one['correlation']:.2f}"
            panels.append(Group(tuple(tiles), len(tiles), title, side=_SIDE))
        if self.layers == (OUTPUT,):
            panels.append(Text("Only the output is in both surveys: scan both with the same layers to compare units."))
        note = words.note(
            "Units of a layer are matched one to one so that the sum of the correlations of their mean activations is largest;",
            f"counterparts correlate above {self.threshold:g}. r by chance: 99 % of matches stay below it when images are shuffled.",
            "CKA: likeness of two layers whatever basis their units are, 1 is equal.",
            "Exemplars: strongest images of the units that changed most." if self.shown else "",
        )
        subtitle = (
            f"{self.networks[0]} ({self.surveys[0]}) and {self.networks[1]} ({self.surveys[1]}) · {words.plural(self.images, 'image')}"
        )
        return View("Comparison of two networks", tuple(panels), subtitle=subtitle, note=note)

    def _curves(self) -> Curves:
        places = np.arange(len(self.layers), dtype=float)
        shares = [(found / active if active else math.nan) for found, active in map(self.matched, self.layers)]
        lines = (Line(f"counterparts (r > {self.threshold:g})", places, np.array(shares), 0), Line("CKA", places, self.cka, 1, dashed=True))
        limits = 0.0, float(len(self.layers) - 1), min(0.0, float(np.nanmin(self.cka, initial=0.0))), 1.0
        return Curves(lines, "How much is left, layer by layer", "layer, in call order", "share of active units; CKA", limits, width=640)

    def _accuracies(self) -> Table:
        known = np.flatnonzero((self.accuracy >= 0).all((1, 2)) & (self.accuracy[:, :, 1] > 0).all(1))
        shares = self.accuracy[known, :, 0] / self.accuracy[known, :, 1]
        order = np.argsort(-np.abs(shares[:, 1] - shares[:, 0]), kind="stable")[:_LABELS]
        rows = tuple(
            (self.labels[known[at]], str(self.accuracy[known[at], 0, 1]), *(f"{100 * share:.0f} %" for share in shares[at])) for at in order
        )
        more = f" ({words.first(_LABELS, len(known))}, the most changed)" if len(known) > _LABELS else ""
        return Table(("label", "images", "right before", "right after"), rows, f"Accuracy by label{more}")

    def _maps(self) -> Table:
        rows: list[tuple[str, ...]] = []
        for layer in self.gained or {}:
            for label in (self.gained or {})[layer]:
                gained, lost = ((each or {})[layer][label] for each in (self.gained, self.lost))
                if gained or lost:
                    rows.append((layer, label, words.listed(gained, _MAPS) or "-", words.listed(lost, _MAPS) or "-"))
        more = f" ({words.first(_LABELS, len(rows))})" if len(rows) > _LABELS else ""
        return Table(("layer", "label", "gained", "lost"), tuple(rows[:_LABELS]), f"Class maps gained and lost{more}")
