"""Style transfer: a row per style, a column per content, and what is left of each statistic's loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Group, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes

STATISTICS = ("sums", "gram", "mean-std")


@dataclass(frozen=True, eq=False)
class StyleTransfer(ImageResult):
    """A picture for every content and style.

    Attributes:
        images: The pictures, (content style rgb h w) in [0,1].
        contents: The content pictures, (content rgb h w).
        styles: The style pictures, cut and resized to the contents' size for showing, (style rgb h w).
        style_losses: Loss in the end by every statistic, whichever was made small, (content style statistic layer), not weighted.
        style_losses_before: The same of the content picture itself.
        content_errors: ||F - F_c||^2 / ||F_c||^2 at the content layer in the end, (content style).
        losses: Weighted content and style parts in the end, (content style part).
        history: Weighted loss at every evaluation, (content style step); NaN after an early end.
        statistic: The one that was made small.
        statistics: Names along the statistic axis.
        content_layer: Where content was compared.
        layers: Where style was compared.
        content_names, style_names: Names of the pictures.
    """

    images: Array = axes("content style rgb h w", "image")
    contents: Array = axes("content rgb h w", "image")
    styles: Array = axes("style rgb h w", "image")
    style_losses: Array = axes("content style statistic layer")
    style_losses_before: Array = axes("content style statistic layer")
    content_errors: Array = axes("content style")
    losses: Array = axes("content style part")
    history: Array = axes("content style step", "series", unit="loss")
    statistic: str = "sums"
    statistics: tuple[str, ...] = STATISTICS
    content_layer: str = ""
    layers: tuple[str, ...] = ()
    content_names: tuple[str, ...] = ()
    style_names: tuple[str, ...] = ()

    def remaining(self) -> np.ndarray:
        """Share of the content picture's own style loss that is left, mean over the layers, (content style statistic)."""
        return (self.style_losses / np.maximum(self.style_losses_before, 1e-30)).mean(-1)

    def summary(self) -> str:
        """What is left of each statistic's loss."""
        left = self.remaining()
        lines = [
            f"{content} as {style}: content error {self.content_errors[row, column]:.3g}; style loss left: "
            + ", ".join(f"{name} {100 * left[row, column, place]:.3g} %" for place, name in enumerate(self.statistics))
            for row, content in enumerate(self.content_names)
            for column, style in enumerate(self.style_names)
        ]
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """The pictures between the contents above and the styles at the left, then a table."""
        contents, styles = self.images.shape[:2]
        blank = Image(np.ones_like(self.contents[0]), "", "")
        tiles = [blank, *(Image(self.contents[place], str(self.content_names[place]), "content") for place in range(contents))]
        for row in range(styles):
            tiles.append(Image(self.styles[row], str(self.style_names[row]), "style"))
            tiles += [Image(self.images[column, row], "", _caption(self, column, row)) for column in range(contents)]
        panels: tuple[Panel, ...] = (Group(tuple(tiles), contents + 1, side=_SIDE), _table(self))
        parts = (
            words.provenance(self),
            f"style by {self.statistic}",
            f"content at {self.content_layer}",
            f"style at {', '.join(self.layers)}",
        )
        note = "Content error: ||F - F_c||^2 / ||F_c||^2. Style loss left: share of the content picture's own loss, mean over "
        note += "the layers, by each statistic, whichever was made small. Styles are cut to the contents' shape for showing only."
        return View("Style transfer", panels, subtitle=" · ".join(part for part in parts if part), note=self.with_skipped(note))


_SIDE = 240


def _left(result: StyleTransfer, column: int, row: int) -> np.ndarray:
    """Share of the loss that is left, (statistic)."""
    before = np.maximum(result.style_losses_before[column, row], 1e-30)
    return (result.style_losses[column, row] / before).mean(-1)


def _caption(result: StyleTransfer, column: int, row: int) -> str:
    left = _left(result, column, row)[result.statistics.index(result.statistic)]
    return f"{number(100 * float(left))} % of the style loss left"


def _table(result: StyleTransfer) -> Table:
    header = ("content", "style", "content error", *(f"{name} left" for name in result.statistics))
    rows = [
        (
            str(content),
            str(style),
            number(result.content_errors[column, row]),
            *(f"{number(100 * float(share))} %" for share in _left(result, column, row)),
        )
        for column, content in enumerate(result.content_names)
        for row, style in enumerate(result.style_names)
    ]
    return Table(header, tuple(rows))
