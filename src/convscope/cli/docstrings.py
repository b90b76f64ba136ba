"""Docstrings as help texts, read from source files by `ast`: nothing is imported, so that listing all commands takes no time."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
COMMAND_LINE = "Command line"
"""Name of the docstring section that holds examples for the command line, one command a line."""


@dataclass(frozen=True)
class Help:
    """What a docstring says to a reader of the command line.

    Attributes:
        description: First sentence, then the other paragraphs before the first section, each on one line.
        parameters: Parameter name to its text.
        examples: Commands that run as they stand, see :data:`PREPARED`.
    """

    description: str
    parameters: dict[str, str]
    examples: tuple[str, ...]


PREPARED = {
    "convscope textures sample --out data --per-class 4": "data",
    "convscope scan textures data/images --out survey": "survey",
    "convscope scan textures data/images --weights random --out untrained": "untrained",
}
"""The commands that make what examples read, with the folder that each makes."""


@cache
def help_of(home: str) -> Help:
    """The help in the docstring of a function, given as "package.module:function" below convscope."""
    module, _, function = home.partition(":")
    tree = ast.parse((SOURCE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return read_docstring(ast.get_docstring(found[0]) or "" if found else ast.get_docstring(tree) or "")


def read_docstring(text: str) -> Help:
    """A Google-style docstring as help: without markup, paragraphs on one line, None called the default."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", inspect.cleandoc(text)).replace("`", "")
    head, *parts = re.split(r"^([A-Z][\w ]*):\n(?=    )", text, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    found = re.findall(r"^ {4}\*{0,2}(\w[\w, ]*): (.*(?:\n {5,}.*)*)", sections.get("Args", ""), re.MULTILINE)
    parameters = {name: re.sub(r"\bNone\b", "default", " ".join(words.split())) for names, words in found for name in names.split(", ")}
    lines = (line.strip() for line in sections.get(COMMAND_LINE, "").splitlines())
    return Help(
        description="\n\n".join(" ".join(paragraph.split()) for paragraph in head.strip().split("\n\n")),
        parameters=parameters,
        examples=tuple(filter(None, lines)),
    )


@cache
def techniques() -> dict[str, str]:
    """The techniques by command name, with their homes: public functions named after their file, see `__init__.pyi`."""
    homes: dict[str, str] = {}
    for node in ast.parse((SOURCE / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            package, _, file = node.module.partition(".")
            if package in ("techniques", "analyses", "scanner") and [alias.name for alias in node.names] == [file]:
                homes[file.replace("_", "-")] = f"{node.module}:{file}"
    return homes
