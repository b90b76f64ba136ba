"""Inversions: a row per image, the image first, then what its codes still say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Group, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes


@dataclass(frozen=True, eq=False)
class Inversion(ImageResult):
    """A picture for every image and edit.

    Attributes:
        images: The pictures, (n edit rgb h w) in [0,1].
        originals: The images whose codes were taken, (n rgb h w).
        error: ||phi(x) - psi||^2 / ||psi||^2 of the clipped picture, in float32, mean over the layers, (n edit).
        layer_errors: The same, layer by layer, (n edit layer).
        losses: The parts of the loss in the end, as they were weighted, (n edit part).
        history: The error at every evaluation, (n edit step); NaN after an early end.
        layers: The layers' names.
        edits: What was aimed at: "own code", "map 3", "reallocated, seed 0", ...
        names: Names of the images.
        parts: Names of the parts of the loss: "code" and, where there is one, "prior".
    """

    images: Array = axes("n edit rgb h w", "image")
    originals: Array = axes("n rgb h w", "image")
    error: Array = axes("n edit")
    layer_errors: Array = axes("n edit layer")
    losses: Array = axes("n edit part")
    history: Array = axes("n edit step", "series", unit="normalized error")
    layers: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def evaluations(self) -> np.ndarray:
        """How often the network was asked for each picture, (n edit)."""
        return np.isfinite(self.history).sum(-1)

    def summary(self) -> str:
        """The normalized error of each picture."""
        lines = [
            f"{name}, {edit}: normalized error {self.error[row, column]:.3g} after {self.evaluations[row, column]} evaluations"
            for row, name in enumerate(self.names)
            for column, edit in enumerate(self.edits)
        ]
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """The pictures with their errors, and a table of how they came about."""
        count, edits = self.error.shape
        shown = min(count, max(1, _MOST // (edits + 1)))
        tiles = [tile for row in range(shown) for tile in _row(self, row)]
        columns = edits + 1 if edits < _ACROSS else _ACROSS
        panels: tuple[Panel, ...] = (Group(tuple(tiles), columns, side=_SIDE),)
        if count * edits <= 24:
            panels = (*panels, _table(self))
        where = f"layers {', '.join(self.layers)}" if len(self.layers) > 1 else ""
        parts = words.provenance(self), where, str(self.manifest.get("plan", {}).get("optimizer", ""))
        note = "Error: ||phi(x) - psi||^2 / ||psi||^2 of the picture as shown, psi the code aimed at; 0: reached, 1: no better than a zero code."
        if shown < count:
            note += f" Shown: the first {shown} of {count} images."
        return View(
            "Inversion: what a code still knows", panels, subtitle=" · ".join(part for part in parts if part), note=self.with_skipped(note)
        )


_MOST, _ACROSS, _SIDE = 120, 8, 176


def _row(result: Inversion, row: int) -> list[Image]:
    found = [Image(result.originals[row], str(result.names[row]), "the image")]
    for column, edit in enumerate(result.edits):
        found.append(Image(result.images[row, column], str(edit), f"error {number(result.error[row, column])}"))
    return found


def _table(result: Inversion) -> Table:
    """Evaluations and parts of the loss of each picture."""
    header = ("image", "aimed at", "error", "evaluations", *(f"loss: {part}" for part in result.parts))
    rows = [
        (
            str(name),
            str(edit),
            number(result.error[row, column]),
            str(int(np.isfinite(result.history[row, column]).sum())),
            *(number(value) for value in result.losses[row, column]),
        )
        for row, name in enumerate(result.names)
        for column, edit in enumerate(result.edits)
    ]
    return Table(header, tuple(rows))
