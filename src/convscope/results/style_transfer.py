"""Style transfer: images with the content of one image and the style statistics of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Group, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes

STATISTICS = ("sums", "gram", "mean-std")
"""Style statistics of a layer's maps: their sums, their Gram matrix, their means and standard deviations."""

_SIDE = 240


@dataclass(frozen=True, eq=False)
class StyleTransfer(ImageResult):
    """An image for every content and style.

    Attributes:
        images: The optimized images, (content style rgb h w) in [0,1].
        contents: The content images, (content rgb h w).
        styles: The style images, cropped and resized to the contents' size for showing, (style rgb h w).
        style_losses: Loss at the end by every statistic, whichever was minimized, (content style statistic layer), not weighted.
        style_losses_before: The same of the content image itself.
        content_errors: ||F - F_c||^2 / ||F_c||^2 at the content layer at the end, (content style).
        losses: Weighted content and style terms at the end, (content style part).
        history: Weighted loss at every evaluation, (content style step); NaN after an early end.
        statistic: The one that was minimized.
        statistics: Names along the statistic axis.
        content_layer: Where content was compared.
        layers: Where style was compared.
        content_names, style_names: Names of the images.
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
        """Style loss as a share of the content image's own, mean over the layers, (content style statistic)."""
        return (self.style_losses / np.maximum(self.style_losses_before, 1e-30)).mean(-1)

    def summary(self) -> str:
        """The content error and the remaining style loss of each image."""
        remaining = self.remaining()
        lines = [
            f"{content} as {style}: content error {self.content_errors[row, column]:.3g}; style loss left: "
            + ", ".join(f"{name} {100 * share:.3g} %" for name, share in zip(self.statistics, remaining[row, column], strict=True))
            for row, content in enumerate(self.content_names)
            for column, style in enumerate(self.style_names)
        ]
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """The images in a grid, contents above and styles at the left, then a table."""
        panels: tuple[Panel, ...] = (_grid(self), _table(self))
        note = words.note(
            "Content error: ||F - F_c||^2 / ||F_c||^2. Style loss left: share of the content image's own loss, mean over",
            "the layers, by each statistic, whichever was minimized. Styles are cropped to the contents' shape for showing only.",
        )
        layers = f"content at {self.content_layer}", f"style at {', '.join(self.layers)}"
        subtitle = words.subtitle(self, f"style by {self.statistic}", *layers)
        return View("Style transfer", panels, subtitle=subtitle, note=self.with_skipped(note))


def _grid(result: StyleTransfer) -> Group:
    contents, styles = result.images.shape[:2]
    remaining = result.remaining()[..., result.statistics.index(result.statistic)]
    tiles = [Image(np.ones_like(result.contents[0]), "", "")]
    tiles += [Image(result.contents[content], str(result.content_names[content]), "content") for content in range(contents)]
    for style in range(styles):
        tiles.append(Image(result.styles[style], str(result.style_names[style]), "style"))
        for content in range(contents):
            caption = f"{number(100 * float(remaining[content, style]))} % of the style loss left"
            tiles.append(Image(result.images[content, style], "", caption))
    return Group(tuple(tiles), contents + 1, side=_SIDE)


def _table(result: StyleTransfer) -> Table:
    header = ("content", "style", "content error", *(f"{name} left" for name in result.statistics))
    remaining = result.remaining()
    rows = [
        (
            str(content),
            str(style),
            number(result.content_errors[row, column]),
            *(f"{number(100 * float(share))} %" for share in remaining[row, column]),
        )
        for row, content in enumerate(result.content_names)
        for column, style in enumerate(result.style_names)
    ]
    return Table(header, tuple(rows))
