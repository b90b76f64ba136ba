"""Style transfer: a row per style, a column per content, and what is left of each statistic's loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Group, Image, Panel, Table, View, number

_SIDE = 240


def view(result: Any) -> View:
    """The pictures between the contents above and the styles at the left, then a table.

    Args:
        result: ``StyleTransfer``, fresh or loaded: images (content style rgb h w), contents, styles, style_losses and style_losses_before
            (content style statistic layer), content_errors (content style).
    """
    contents, styles = result.images.shape[:2]
    blank = Image(np.ones_like(result.contents[0]), "", "")
    tiles = [blank, *(Image(result.contents[place], str(result.content_names[place]), "content") for place in range(contents))]
    for row in range(styles):
        tiles.append(Image(result.styles[row], str(result.style_names[row]), "style"))
        tiles += [Image(result.images[column, row], "", _caption(result, column, row)) for column in range(contents)]
    panels: tuple[Panel, ...] = (Group(tuple(tiles), contents + 1, side=_SIDE), _table(result))
    parts = (
        words.provenance(result),
        f"style by {result.statistic}",
        f"content at {result.content_layer}",
        f"style at {', '.join(result.layers)}",
    )
    note = "Content error: ||F - F_c||^2 / ||F_c||^2. Style loss left: share of the content picture's own loss, mean over "
    note += "the layers, by each statistic, whichever was made small. Styles are cut to the contents' shape for showing only."
    return View("Style transfer", panels, subtitle=" · ".join(part for part in parts if part), note=note)


def _left(result: Any, column: int, row: int) -> np.ndarray:
    """Share of the loss that is left, (statistic)."""
    before = np.maximum(result.style_losses_before[column, row], 1e-30)
    return (result.style_losses[column, row] / before).mean(-1)


def _caption(result: Any, column: int, row: int) -> str:
    left = _left(result, column, row)[result.statistics.index(result.statistic)]
    return f"{number(100 * float(left))} % of the style loss left"


def _table(result: Any) -> Table:
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
