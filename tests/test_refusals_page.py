"""The page of refusals: what it says is what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "what_it_will_not_do.md"
ELSEWHERE = {"\\x1b", "alone"}
"""What is no part of a message, or too short to be looked for."""


def messages() -> list[str]:
    """The code in the middle column of every table."""
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [found for row in rows for found in re.findall(r"`([^`]+)`", row[2]) if found not in ELSEWHERE]


def source() -> str:
    """All text in the code, values left out."""
    found: list[str] = []
    for path in sorted((ROOT / "src" / "convscope").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("\0".join(part.value for part in node.values if isinstance(part, ast.Constant)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.fixture(scope="module")
def text() -> str:
    return source()


@pytest.mark.parametrize("message", dict.fromkeys(messages()))
def test_every_refusal_is_in_the_code(text: str, message: str) -> None:
    for part in message.split(" ... "):
        assert part in text, f"the page quotes {part!r}, which no message holds"


def test_the_page_is_found() -> None:
    assert len(messages()) > 40
    for page in ("README.md", "docs/notes/architecture.md", "docs/inputs.md"):
        assert "what_it_will_not_do.md" in (ROOT / page).read_text(encoding="utf-8")
