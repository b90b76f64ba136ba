"""Lowers a view to a self-contained piece of html: the picture, and how it came about."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from convscope.render.panels import View

_CELL = "padding:2px 12px 2px 0;text-align:left;vertical-align:top"


def fragment(view: View, picture: bytes, manifest: Mapping[str, Any]) -> str:
    """An html fragment without links, scripts or style sheets.

    Args:
        view: What is shown; gives the alternative text.
        picture: The view as PNG bytes.
        manifest: How the result came about; nested entries get dotted names.
    """
    source = base64.b64encode(picture).decode("ascii")
    words = escape(f"{view.title}. {view.subtitle}".strip(". ") or "convscope result", quote=True)
    image = f'<img src="data:image/png;base64,{source}" alt="{words}" style="max-width:100%;height:auto">'
    rows = "".join(
        f'<tr><th style="{_CELL}">{escape(key)}</th><td style="{_CELL}">{escape(value)}</td></tr>' for key, value in _flat(manifest)
    )
    table = f"<details><summary>Parameters</summary><table>{rows}</table></details>" if rows else ""
    return f'<figure class="convscope" style="margin:0">{image}{table}</figure>'


def _flat(manifest: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in manifest.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(map(str, value))
        else:
            yield name, str(value)
