"""Class profiles: how well units tell each label's images from all others."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Bars, Group, Panel, Table, View, number

_MOST_PLOTS, _NAMED, _ROWS, _CHANCE = 6, 8, 30, 0.05


def view(result: Any) -> View:
    """Bars for each of a few units; for many, a matrix and tables of the best labels and units.

    Args:
        result: ``ClassProfile``, fresh or loaded: auc, p_corrected and effect (unit label), counts (label).
    """
    panels: list[Panel] = []
    if len(result.units) <= _MOST_PLOTS:
        for row in range(len(result.units)):
            panels.append(Group((_bars(result, row), _table(result, row)), 2))
    else:
        whole = tuple(result.units) == tuple(range(len(result.units)))
        style: dict[str, Any] = {"unit": "AUC", "x_label": "unit" if whole else "units, as asked for", "limits": (0.5, 1.0)}
        panels.append(words.matrix(result.auc.T, list(map(str, result.classes)), title="AUC of every unit for every label", **style))
        panels.append(Group((_best_units(result), _best_labels(result)), 2))
    bounded = "any false discovery" if result.correction == "holm" else "the share of false discoveries"
    note = f"AUC: probability that an image of the label excites the unit more than another image ({result.reduce} over positions); 0.5 is "
    note += f"chance. p: Mann-Whitney, one-sided, corrected for {bounded} among all {result.auc.size} pairs of unit and label. "
    note += f"Orange: p below {_CHANCE:g}."
    parts = words.provenance(result), f"{int(result.counts.sum())} images of {len(result.classes)} labels"
    return View("Class profile", tuple(panels), subtitle=" · ".join(part for part in parts if part), note=note)


def _name(result: Any, row: int) -> str:
    return f"{result.units[row]} {result.labels[row]}".strip()


def _order(auc: np.ndarray, effect: np.ndarray) -> np.ndarray:
    return np.lexsort((np.arange(len(auc)), -effect, -auc))


def _bars(result: Any, row: int) -> Bars:
    order = _order(result.auc[row], result.effect[row])
    sure = tuple((int(place), str(result.classes[place])) for place in order if result.p_corrected[row, place] < _CHANCE)
    names = tuple(map(str, result.classes)) if len(result.classes) <= 12 else ()
    return Bars(result.auc[row], f"unit {_name(result, row)}", "label", "AUC", sure[:_NAMED], names, baseline=0.5)


def _table(result: Any, row: int) -> Table:
    order = _order(result.auc[row], result.effect[row])[:_NAMED]
    numbers = (result.auc[row], result.effect[row], result.p_corrected[row])
    cells = tuple((str(result.classes[at]), *(number(each[at]) for each in numbers)) for at in order)
    return Table(("label", "AUC", "effect", "p corrected"), cells, "best labels")


def _best_units(result: Any) -> Table:
    rows: list[tuple[str, ...]] = []
    for column, label in list(enumerate(result.classes))[:_ROWS]:
        order = _order(result.auc[:, column], result.effect[:, column])[:3]
        rows.append((str(label), ", ".join(f"{_name(result, row)} ({result.auc[row, column]:.2f})" for row in order)))
    return Table(("label", "units (AUC)"), tuple(rows), _first("best units of each label", len(result.classes)))


def _best_labels(result: Any) -> Table:
    rows: list[tuple[str, ...]] = []
    best = [int(_order(auc, effect)[0]) for auc, effect in zip(result.auc, result.effect, strict=True)]
    height, gap = (values[np.arange(len(best)), best] for values in (result.auc, result.effect))
    for row in _order(height, gap)[:_ROWS]:
        at = best[row]
        p = number(result.p_corrected[row, at])
        rows.append((_name(result, row), str(result.classes[at]), number(result.auc[row, at]), p))
    return Table(("unit", "label", "AUC", "p corrected"), tuple(rows), _first("best label of each unit", len(result.units)))


def _first(title: str, count: int) -> str:
    return f"{title} (first {_ROWS} of {count})" if count > _ROWS else title
