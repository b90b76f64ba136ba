"""Result of `inversion`: images with the same activations as a given image, or as an edited code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Group, Image, Panel, Table, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

_MOST, _ACROSS, _SIDE, _MOST_ROWS = 120, 9, 176, 24


@dataclass(frozen=True, eq=False)
class Inversion(ImageResult):
    """An image for every given image and edit of its code; of several layers, for every edit at the first, then at the second, ...

    Attributes:
        images: The optimized images, (n edit c h w) in [0,1].
        originals: The images whose codes were taken, (n c h w).
        error: ||phi(x) - psi||^2 / ||psi||^2 of the image as shown, in float32, mean over the layers of its code, (n edit).
        layer_errors: The same, for each layer of its code, (n edit layer).
        losses: The terms of the loss at the end, as they were weighted, (n edit part).
        history: The error at every evaluation, (n edit step); NaN after an early end.
        layers: The layers' names.
        codes: The layers of each code along the edit axis: one, or all if they were inverted jointly.
        edits: The target codes: "own code", "map 3", "reallocated, seed 0", ...
        names: Names of the images.
        parts: Names of the terms of the loss: "code" and, where there is one, "prior".
    """

    tabled: ClassVar[Rows] = Rows("n edit", image="n:names", edit="edit:edits")

    images: Array = axes("n edit c h w", "image")
    originals: Array = axes("n c h w", "image")
    error: Array = axes("n edit")
    layer_errors: Array = axes("n edit layer")
    losses: Array = axes("n edit part")
    history: Array = axes("n edit step", "series", unit="normalized error")
    layers: tuple[str, ...] = ()
    codes: tuple[tuple[str, ...], ...] = ()
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
            f"{name}, {target}: normalized error {self.error[row, column]:.3g} after {evaluations[row, column]} evaluations"
            for row, name in enumerate(self.names)
            for column, target in enumerate(_targets(self))
        ]
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """A row per image and layer: the original, then the inversions with their errors; a table of evaluations and losses."""
        count, targets = self.error.shape
        codes = list(dict.fromkeys(self.codes)) or [()]
        shown = min(count, max(1, _MOST // (targets + len(codes))))
        across = targets // len(codes) + 1
        tiles = [tile for row in range(shown) for code in codes for tile in _row(self, row, code)]
        panels: list[Panel] = [Group(tuple(tiles), across if across <= _ACROSS or len(codes) > 1 else _ACROSS, side=_SIDE)]
        if count * targets <= _MOST_ROWS:
            panels.append(_table(self))
        layers = f"layers {', '.join(self.layers)}" if len(self.layers) > 1 else ""
        joint = "jointly" if len(self.layers) > 1 == len(codes) else ""
        note = words.note(
            "Error: ||phi(x) - psi||^2 / ||psi||^2 of the image as shown, psi the target code; 0: reached, 1: no better than a zero code.",
            channels.note(self, self.images.shape[2]),
            f"Shown: the first {shown} of {count} images." if shown < count else "",
        )
        subtitle = words.subtitle(self, layers, joint, *words.optimized(self, self.images))
        return View("Inversion: images with the same code", tuple(panels), subtitle=subtitle, note=self.with_skipped(note))


def _targets(result: Inversion) -> list[str]:
    """The codes along the edit axis, with their layer where there are several."""
    several = len(set(result.codes)) > 1
    return [f"{', '.join(code)}, {edit}" if several else str(edit) for code, edit in zip(result.codes, result.edits, strict=True)]


def _row(result: Inversion, row: int, code: tuple[str, ...]) -> list[Image]:
    several = len(set(result.codes)) > 1
    tiles = [Image(channels.shown(result, result.originals[row]), str(result.names[row]), ", ".join(code) if several else "the image")]
    for column, edit in enumerate(result.edits):
        if result.codes[column] == code:
            pixels = channels.shown(result, result.images[row, column])
            tiles.append(Image(pixels, str(edit), f"error {number(result.error[row, column])}"))
    return tiles


def _table(result: Inversion) -> Table:
    """Error, evaluations and terms of the loss of each image."""
    header = ("image", "target", "error", "evaluations", *(f"loss: {part}" for part in result.parts))
    evaluations = result.evaluations
    rows = [
        (
            str(name),
            target,
            number(result.error[row, column]),
            str(evaluations[row, column]),
            *(number(value) for value in result.losses[row, column]),
        )
        for row, name in enumerate(result.names)
        for column, target in enumerate(_targets(result))
    ]
    return Table(header, tuple(rows))
