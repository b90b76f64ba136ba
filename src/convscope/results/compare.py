"""Result of `compare`: two networks on the same images, matched units, what changed most, accuracy by class."""

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
        constant: Whether the unit, and its match, are constant over the images: dead, (pair side).
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
        uneven: Layers of both that were left out: the networks have other numbers of units there.
        threshold: Correlation above which two units are counterparts.
        fail_above: Share of active units without a counterpart above which `passed` is False; None for no limit.
    """

    tabled: ClassVar[Rows] = Rows("pair", unit="pair:units", counterpart="pair:counterparts")

    layer_index: Array = axes("pair")
    units: Array = axes("pair")
    counterparts: Array = axes("pair")
    correlations: Array = axes("pair")
    constant: Array = axes("pair side")
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
    uneven: tuple[str, ...] = ()
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
    def one_line(self) -> bool:
        """Whether one network came from the other: most counterparts have the same number, so that a unit is the same unit in both."""
        return same_units(self.units, self.counterparts, self.correlations > self.threshold)

    def dead_units(self, layer: str) -> tuple[list[int], list[int]]:
        """Units of a layer that are constant over the images, in the first network and in the second."""
        own = self.layer_index == place_of(layer, self.layers, "layer")
        before, after = (
            sorted(numbers[own & (self.constant[:, side] > 0)].tolist()) for side, numbers in enumerate((self.units, self.counterparts))
        )
        return before, after

    @property
    def changed_most(self) -> str:
        """The layer with the smallest share of active units that have a counterpart, the output apart; "" if there is none."""
        return min((layer for layer in self.layers if layer != OUTPUT), key=self._share, default="")

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
        if self.changed_most:
            lines.append(f"changed most: {self.changed_most}")
        changed = [(name, *self._changed(name)) for name in self.layers if self.one_line]
        for place, what in ((1, "died"), (2, "born")):
            if found := [(each[0], each[place]) for each in changed if each[place]]:
                units = "; ".join(f"{layer} {words.listed(numbers, _MAPS)}" for layer, numbers in found[:_MAPS])
                lines.append(f"{words.plural(sum(len(numbers) for _, numbers in found), 'unit')} {what}: {units}")
        shares = [self._share_right(side) for side in (0, 1)]
        if any(shares):
            unknown = f"not known (no classes called {words.listed(self.labels, 3)}: say --classes LABEL=CLASS)"
            before, after = (share or unknown for share in shares)
            lines.append(f"accuracy: before {before}, after {after}")
        if self.fail_above is not None:
            limit = f"at most {100 * self.fail_above:.0f} % of a layer's active units may lack a counterpart"
            lines.append(f"{'passed' if self.passed else 'FAILED'}: {limit}")
        return "\n".join(lines)

    def _share_right(self, side: int) -> str:
        """Accuracy of a network over all labels that mean a class of it; "" if none does."""
        known = self.accuracy[self.accuracy[:, side, 1] > 0, side]
        return f"{100 * known[:, 0].sum() / known[:, 1].sum():.1f} %" if len(known) else ""

    def _changed(self, layer: str) -> tuple[list[int], list[int]]:
        """Units that are dead after but not before, and before but not after."""
        before, after = self.dead_units(layer)
        return sorted(set(after) - set(before)), sorted(set(before) - set(after))

    def _share(self, layer: str) -> float:
        """The share of a layer's active units that have a counterpart."""
        found, active = self.matched(layer)
        return found / active if active else 1.0

    def view(self) -> View:
        """Counterparts and CKA over the layers, the table, accuracy by class, changed class maps, and exemplars of changed units."""
        panels: list[Panel] = []
        if len(self.layers) > 1:
            panels.append(self._curves())
        panels.append(self.table())
        changes = [table for table in (self._accuracies(), self._dead(), self._maps()) if table.rows]
        if changes:
            panels.append(Group(tuple(changes), 2))
        for one in self.shown:
            tiles = [Image(crop, f"before: {one['unit']}" if not place else "") for place, crop in enumerate(one["before"])]
            tiles += [Image(crop, f"after: {one['match']}" if not place else "") for place, crop in enumerate(one["after"])]
            what = "before and after" if one["unit"] == one["match"] else f"and its match {one['match']}"
            title = f"{one['layer']}: unit {one['unit']} {what}, r = {one['correlation']:.2f}"
            panels.append(Group(tuple(tiles), len(tiles), title, side=_SIDE))
        if self.layers == (OUTPUT,):
            panels.append(Text("Only the output is in both surveys: scan both with the same layers to compare units."))
        note = words.note(
            "Units of a layer are matched one to one so that the sum of the correlations of their mean activations is largest;",
            f"counterparts correlate above {self.threshold:g}. r by chance: 99 % of matches stay below it when images are shuffled.",
            "CKA: likeness of two layers whatever basis their units are, 1 is equal.",
            "Exemplars: strongest images of the units that changed most, of those active in both." if self.shown else "",
            f"Left out, as the numbers of units differ: {words.listed(self.uneven, 4)}." if self.uneven else "",
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
        known = np.flatnonzero((self.accuracy[:, :, 1] > 0).any(1))
        counts = self.accuracy[known]
        shares = np.divide(counts[..., 0], counts[..., 1], out=np.full(counts.shape[:2], np.nan), where=counts[..., 1] > 0)
        order = np.argsort(-np.abs(np.nan_to_num(shares[:, 1] - shares[:, 0])), kind="stable")[:_LABELS]
        rows = tuple(
            (
                self.labels[known[at]],
                str(counts[at, :, 1].max()),
                *("no such class" if np.isnan(share) else f"{100 * share:.0f} %" for share in shares[at]),
            )
            for at in order
        )
        more = f" ({words.first(_LABELS, len(known))}, the most changed)" if len(known) > _LABELS else ""
        return Table(("label", "images", "right before", "right after"), rows, f"Accuracy by label{more}")

    def _dead(self) -> Table:
        """Which units are dead: of networks of one line those that died and were born, else those of each."""
        rows: list[tuple[str, ...]] = []
        for layer in self.layers:
            sides = self._changed(layer) if self.one_line else self.dead_units(layer)
            if any(sides):
                rows.append((layer, *(words.listed(side, _MAPS) or "-" for side in sides)))
        header = ("layer", "died", "born") if self.one_line else ("layer", "before", "after")
        more = f" ({words.first(_LABELS, len(rows))})" if len(rows) > _LABELS else ""
        return Table(header, tuple(rows[:_LABELS]), f"{'Units that died or were born' if self.one_line else 'Dead units'}{more}")

    def _maps(self) -> Table:
        rows: list[tuple[str, ...]] = []
        for layer in sorted(self.gained or {}, key=self._share):
            for label in (self.gained or {})[layer]:
                gained, lost = ((each or {})[layer][label] for each in (self.gained, self.lost))
                if gained or lost:
                    rows.append((layer, label, words.listed(gained, _MAPS) or "-", words.listed(lost, _MAPS) or "-"))
        more = f" ({words.first(_LABELS, len(rows))}, the most changed layers)" if len(rows) > _LABELS else ""
        return Table(("layer", "label", "gained", "lost"), tuple(rows[:_LABELS]), f"Class maps gained and lost{more}")


def same_units(units: np.ndarray, counterparts: np.ndarray, found: np.ndarray) -> bool:
    """Whether most units that have a counterpart, those `found` (pair), have it in the unit of the same number."""
    return bool(found.any()) and float((units == counterparts)[found].mean()) > 0.5
