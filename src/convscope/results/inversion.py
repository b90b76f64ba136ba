"""Inversions of a representation: images with the same activations as a given image, or as an edited code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Group, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes

_MOST, _ACROSS, _SIDE, _MOST_ROWS = 120, 8, 176, 24


@dataclass(frozen=True, eq=False)
class Inversion(ImageResult):
    """An image for every given image and edit of its code.

    Attributes:
        images: The optimized images, (n edit rgb h w) in [0,1].
        originals: The images whose codes were taken, (n rgb h w).
        error: ||phi(x) - psi||^2 / ||psi||^2 of the clipped image, in float32, mean over the layers, (n edit).
        layer_errors: The same, layer by layer, (n edit layer).
        losses: The terms of the loss at the end, as they were weighted, (n edit part).
        history: The error at every evaluation, (n edit step); NaN after an early end.
        layers: The layers' names.
        edits: The target codes: "own code", "map 3", "reallocated, seed 0", ...
        names: Names of the images.
        parts: Names of the terms of the loss: "code" and, where there is one, "prior".
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
        """How many times the loss of each image was evaluated, (n edit)."""
        return np.isfinite(self.history).sum(-1)

    def summary(self) -> str:
        """The normalized error of each image."""
        evaluations = self.evaluations
        lines = [
            f"{name}, {edit}: normalized error {self.error[row, column]:.3g} after {evaluations[row, column]} evaluations"
            for row, name in enumerate(self.names)
            for column, edit in enumerate(self.edits)
        ]
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """A row per image: the original, then the inversions with their errors; a table of evaluations and losses."""
        count, edits = self.error.shape
        shown = min(count, max(1, _MOST // (edits + 1)))
        tiles = [tile for row in range(shown) for tile in _row(self, row)]
        panels: list[Panel] = [Group(tuple(tiles), edits + 1 if edits < _ACROSS else _ACROSS, side=_SIDE)]
        if count * edits <= _MOST_ROWS:
            panels.append(_table(self))
        layers = f"layers {', '.join(self.layers)}" if len(self.layers) > 1 else ""
        note = words.note(
            "Error: ||phi(x) - psi||^2 / ||psi||^2 of the image as shown, psi the target code; 0: reached, 1: no better than a zero code.",
            f"Shown: the first {shown} of {count} images." if shown < count else "",
        )
        subtitle = words.subtitle(self, layers, str(self.manifest.get("plan", {}).get("optimizer", "")))
        return View("Inversion: images with the same code", tuple(panels), subtitle=subtitle, note=self.with_skipped(note))


def _row(result: Inversion, row: int) -> list[Image]:
    tiles = [Image(result.originals[row], str(result.names[row]), "the image")]
    for column, edit in enumerate(result.edits):
        tiles.append(Image(result.images[row, column], str(edit), f"error {number(result.error[row, column])}"))
    return tiles


def _table(result: Inversion) -> Table:
    """Error, evaluations and terms of the loss of each image."""
    header = ("image", "target", "error", "evaluations", *(f"loss: {part}" for part in result.parts))
    evaluations = result.evaluations
    rows = [
        (
            str(name),
            str(edit),
            number(result.error[row, column]),
            str(evaluations[row, column]),
            *(number(value) for value in result.losses[row, column]),
        )
        for row, name in enumerate(result.names)
        for column, edit in enumerate(result.edits)
    ]
    return Table(header, tuple(rows))
