"""Panels drawn as a matplotlib figure, PNG or HTML. Knows what a :class:`View` is, and nothing of results or techniques."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope.render.contact_sheet import contact_sheet
from convscope.render.draw import Format, draw, encode, encode_lines, pixels
from convscope.render.html import STYLE, data_uri, html, index
from convscope.render.panels import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STYLE", "Format", "View", "contact_sheet", "data_uri", "encode_lines", "figure", "html", "index", "pixels", "png"]


def figure(view: View) -> Figure:
    """A view as a matplotlib figure (no pyplot, nothing is shown)."""
    return draw(view)


def png(view: View) -> bytes:
    """A view as the bytes of a PNG file."""
    return encode(draw(view))
