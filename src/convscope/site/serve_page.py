"""The live page where a server stands behind it: marked so, and alone, without an atlas around it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from convscope.preprocessing import Preprocessing
from convscope.site.pages import environment
from convscope.site.write import script


def static_file(name: str) -> str:
    """A script or style sheet of the pages."""
    from convscope.render.html import STYLE

    text = files("convscope.site").joinpath("static", name).read_text(encoding="utf-8")
    return STYLE + text if name == "atlas.css" else text


def with_server(page: str) -> str:
    """The live page, told that a server computes for it."""
    marked = page.replace('data-kind="live"', 'data-kind="live" data-serve="1"', 1)
    marked = marked.replace(
        "It is measured here, in this browser: nothing is sent anywhere.",
        "It is measured by the network on the machine that serves this page.",
    )
    return marked.replace("</body>", '<script src="static/live-serve.js" defer></script>\n</body>', 1)


def alone_page(title: str) -> str:
    """The live page without an atlas."""
    facts = {"title": title, "folder": "", "images": 0, "version": version("convscope")}
    return environment().get_template("live.html").render(root="", facts=facts, options=_Alone(), ready=True, reason="", alone=True)


class _Alone:
    live = True


def alone_script(
    how: Preprocessing, layers: Sequence[tuple[str, int, tuple[int, ...], Sequence[float] | None]], classes: Sequence[str]
) -> str:
    """What :func:`~convscope.site.live.network_data` says, of a network without a folder of images.

    Args:
        how: How images enter.
        layers: Name, number of units, map size, and where maps lie on an image (y0 x0 y1 x1; None: on all of it) of each, "output" last.
        classes: Names of the outputs.
    """
    names = ("height", "width", "interpolation", "crop", "channels")
    known: dict[str, Any] = {
        "ready": True,
        "preprocessing": {name: getattr(how, name) for name in names},
        "suffix": "",
        "probabilities": False,
        "classes": list(classes),
        "layers": [_layer(*one) for one in layers],
        "photographs": False,
        "images": [],
    }
    return f"window.atlasNetwork={script(known)};\n"


def _layer(name: str, channels: int, spatial: tuple[int, ...], place: Sequence[float] | None) -> dict[str, Any]:
    size = list(spatial) if len(spatial) == 2 else [1, 1]
    return {"name": name, "address": "", "channels": channels, "size": size, "place": place, "units": [], "mean": [], "sd": []}
