"""From a result to something to look at: fields -> :class:`View` -> matplotlib figure, png bytes or html.

A technique with a view of its own has it in ``render/views/<technique>.py`` as ``view(result) -> View``; every other result is shown
by the kinds of its fields. Neither torch nor (before something is drawn) matplotlib is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from convscope.render.contact_sheet import contact_sheet
from convscope.render.default import default_view
from convscope.render.draw import draw, encode
from convscope.render.page import fragment
from convscope.render.panels import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convscope.result import Result

__all__ = ["View", "contact_sheet", "figure", "html", "png", "view"]


def view(result: Result) -> View:
    """What is shown of a result."""
    name = f"convscope.render.views.{result.technique}"
    if importlib.util.find_spec(name) is None:
        return default_view(result)
    return importlib.import_module(name).view(result)


def figure(result: Result) -> Figure:
    """The result as a matplotlib figure (no pyplot, nothing is shown)."""
    return draw(view(result))


def png(result: Result) -> bytes:
    """The result as the bytes of a PNG file."""
    return encode(figure(result))


def html(result: Result) -> str:
    """The result as a self-contained html fragment: picture and parameters."""
    shown = view(result)
    return fragment(shown, encode(draw(shown)), result.manifest)
