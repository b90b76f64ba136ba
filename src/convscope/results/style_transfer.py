"""Result of `style_transfer`: images with the content of one image and the style statistics of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Group, Image, Panel, Table, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.text import percent

STATISTICS = ("sums", "gram", "mean-std")
"""Style statistics of a layer's maps: their sums, their Gram matrix, their means and standard deviations."""

_SIDE, _MUCH = 240, 0.2
"""Side of an image as shown, and the share of the style loss above which a run has hardly shown the style."""


@dataclass(frozen=True, eq=False)
class StyleTransfer(ImageResult):
    """An image for every content, style and statistic that was minimized.

    Attributes:
        images: The optimized images, (content style by c h w) in [0,1].
        contents: The content images, (content c h w).
        styles: The style images, cropped and resized to the contents' size for showing, (style c h w).
        style_losses: Loss at the end by every statistic, whichever was minimized, (content style by statistic layer), not weighted.
        style_losses_before: The same of the content image itself, (content style statistic layer); at least a millionth of that of maps
            that are zero, for contents that have the style already.
        content_errors: ||F - F_c||^2 / ||F_c||^2 at the content layer at the end, (content style by).
        losses: Weighted content and style terms at the end, (content style by part).
        history: Weighted loss at every evaluation, (content style by step); NaN after an early end.
        by: The statistics that were minimized.
        statistics: Names along the statistic axis.
        content_layers: Where content was compared, for each statistic that was minimized.
        layers: Where style was compared.
        content_names, style_names: Names of the images.
    """

    images: Array = axes("content style by c h w", "image")
    contents: Array = axes("content c h w", "image")
    styles: Array = axes("style c h w", "image")
    style_losses: Array = axes("content style by statistic layer")
    style_losses_before: Array = axes("content style statistic layer")
    content_errors: Array = axes("content style by")
    losses: Array = axes("content style by part")
    history: Array = axes("content style by step", "series", unit="loss")
    by: tuple[str, ...] = ()
    statistics: tuple[str, ...] = STATISTICS
    content_layers: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    content_names: tuple[str, ...] = ()
    style_names: tuple[str, ...] = ()

    def remaining(self) -> np.ndarray:
        """Style loss as a share of the content image's own, mean over the layers, (content style by statistic)."""
        return (self.style_losses / self.style_losses_before[:, :, None]).mean(-1)

    def kept(self) -> np.ndarray:
        """The share of the style loss that is left by the statistic that was minimized, (content style by)."""
        remaining = self.remaining()
        return np.stack([remaining[:, :, place, self.statistics.index(name)] for place, name in enumerate(self.by)], -1)

    def summary(self) -> str:
        """The content error and the remaining style loss of each image, and which have hardly any of the style."""
        lines = [
            f"{content} as {style} by {by}: content error {self.content_errors[at]:.3g}; style loss left: "
            + ", ".join(f"{name} {percent(share)}" for name, share in zip(self.statistics, self.remaining()[at], strict=True))
            + (f"; {_HARDLY}" if self.kept()[at] > _MUCH else "")
            for at, content, style, by in _each(self)
        ]
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """The contents, then a row per style: the style, and what each content became by each statistic; then a table."""
        named = zip(self.contents, self.content_names, strict=True)
        contents = tuple(Image(channels.shown(self, pixels), str(name), "content") for pixels, name in named)
        grid = _grid(self)
        if len(self.contents) == len(self.styles) == 1:
            images = [Group((*contents, *grid.panels), side=_SIDE, columns=len(grid.panels) + 1)]
        else:
            images = [Group(contents, len(contents), "Contents", _SIDE), grid]
        panels: tuple[Panel, ...] = (*images, _table(self))
        note = words.note(
            "Content error: ||F - F_c||^2 / ||F_c||^2. Style loss left: share of the content image's own loss, mean over",
            "the layers, by each statistic, whichever was minimized. Styles are cropped to the contents' shape for showing only.",
            channels.note(self, self.images.shape[3]),
        )
        at = ", ".join(f"{layer} ({by})" if len(self.by) > 1 else layer for by, layer in zip(self.by, self.content_layers, strict=True))
        layers = f"content at {at}", f"style at {', '.join(self.layers)}"
        subtitle = words.subtitle(self, f"style by {', '.join(self.by)}", *layers, *words.optimized(self, self.images))
        return View("Style transfer", panels, subtitle=subtitle, note=self.with_skipped(note))


_HARDLY = f"more than {100 * _MUCH:.0f} % is left: more steps or a larger style_weight would show more of the style"


def _each(result: StyleTransfer) -> Iterator[tuple[tuple[int, int, int], str, str, str]]:
    """Every image's place, content, style and statistic."""
    for at in np.ndindex(*result.content_errors.shape):
        row, column, place = at
        yield (row, column, place), str(result.content_names[row]), str(result.style_names[column]), result.by[place]


def _grid(result: StyleTransfer) -> Group:
    contents, styles, count = result.content_errors.shape
    kept, tiles = result.kept(), list[Image]()
    for style in range(styles):
        tiles.append(Image(channels.shown(result, result.styles[style]), str(result.style_names[style]), "style"))
        for content, place in np.ndindex(contents, count):
            share = float(kept[content, style, place])
            title = " by ".join([str(result.content_names[content])] * (contents > 1) + [result.by[place]] * (count > 1))
            marked = "hardly any of the style" if share > _MUCH else None
            pixels = channels.shown(result, result.images[content, style, place])
            tiles.append(Image(pixels, title, f"{percent(share)} of the style loss left", marked))
    return Group(tuple(tiles), contents * count + 1, "Styles, and the contents in them", _SIDE)


def _table(result: StyleTransfer) -> Table:
    header = ("content", "style", "by", "content error", *(f"{name} left" for name in result.statistics))
    remaining = result.remaining()
    rows = [
        (content, style, by, number(result.content_errors[at]), *(percent(float(share)) for share in remaining[at]))
        for at, content, style, by in _each(result)
    ]
    return Table(header, tuple(rows))
