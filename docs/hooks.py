"""What the documentation site makes while it is built: the reference of all public names, and the commands with their help."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "Open a network": r"\.zoo|\.scope",
    "Networks and images": r"\.techniques",
    "Data sets": r"\.scanner|\.survey|\.analyses",
    "Galleries and the atlas": r"\.galleries",
    "Training": r"\.training",
    "Results": r"\.results",
    "Objectives, recipes, edits": r"\.optimize|\.ops",
    "Export, errors, progress": r"",
}
"""Headings of the reference, with the packages that come under each; a name is listed under the first that fits."""


def public_names() -> dict[str, str]:
    """{public name: its home}, in the order of the list of public names."""
    listed = (ROOT / "src" / "convscope" / "__init__.pyi").read_text(encoding="utf-8")
    found = re.findall(r"^from (\.[\w.]*) import \w+ as (\w+)$", listed, re.M)
    named = {name: f"convscope{home.rstrip('.')}.{name}" for home, name in found}
    return {name: home for name, home in named.items() if not home.startswith("convscope.errors")}  # they have a page of their own


def reference() -> str:
    """The reference's sections, for mkdocstrings."""
    rest, parts = public_names(), list[str]()
    for title, fits in GROUPS.items():
        own = {name: home for name, home in rest.items() if re.match(rf"convscope(?:{fits})", home)}
        rest = {name: home for name, home in rest.items() if name not in own}
        parts.append(f"## {title}\n")
        parts += [f"::: {home}\n" for home in own.values()]
    return "\n".join(parts)


def commands() -> str:
    """Every command with its help, as it stands in a terminal of 96 columns."""
    from convscope.cli import OTHERS, main
    from convscope.cli.docstrings import techniques

    os.environ["COLUMNS"] = "96"
    parts: list[str] = []
    for name in sorted([*techniques(), *OTHERS]):
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            main([name, "--help"])
        parts.append(f"## convscope {name}\n\n```text\n{told.getvalue().strip()}\n```\n")
    return "\n".join(parts)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Puts what is made in place of its mark."""
    made = {"reference.md": reference, "commands.md": commands}.get(page.file.src_uri)
    return markdown.replace("<!-- made -->", made()) if made else markdown
