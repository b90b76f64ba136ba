"""Text from files and errors on its way to a person: one line, no character that a terminal or a spreadsheet would obey."""

from __future__ import annotations

import math
import os
import re
from decimal import Decimal

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (escape sequences begin with one), line separators, signs that reverse what follows, halves of characters."""
_LONGEST = 2000


def visible(text: str) -> str:
    r"""Text without characters that a terminal obeys: each becomes \xNN, once for each of its bytes. Tabs and line ends too."""
    return _UNPRINTABLE.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in _bytes(found[0])), text)


def _bytes(sign: str) -> bytes:
    """A character's bytes; of half a character those that stand for it in a file name, or that UTF-8 would have."""
    return sign.encode("utf-8", "surrogateescape" if "\udc80" <= sign <= "\udcff" else "surrogatepass")


def visible_lines(text: str) -> str:
    """:func:`visible`, but lines stay lines."""
    return "\n".join(map(visible, text.split("\n")))


def printable(path: str | os.PathLike[str]) -> str:
    r"""A path as text that can be written anywhere: :func:`visible`, and :func:`convscope.files.actual` leads back to the path."""
    text = os.fspath(path)
    return visible(text.replace("\\x", "\\x5cx")) if _UNPRINTABLE.search(text) else text


def one_line(message: object, limit: int = _LONGEST) -> str:
    """An error, or anything else, in one visible line; of an error without words its type. What is too long loses its middle."""
    words = (message.strerror if isinstance(message, OSError) else None) or str(message)
    text = visible(" ".join(words.split())) or type(message).__name__
    return text if len(text) <= limit else f"{text[: limit - limit // 2]}...{text[len(text) - limit // 2 + 3 :]}"


def json_text(text: str) -> str:
    """JSON that means the same and holds no character that a terminal obeys, line ends aside."""
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in "\n\t" else f"\\u{ord(found[0]):04x}", text)


def percent(share: float, *, least: float = 1e-4) -> str:
    """A share as a percentage, read at a glance: "62 %", "1.3 %", and below `least` "under 0.01 %"; "–" where there is none.

    Args:
        share: The share, 1 is all.
        least: Smallest share that is written out; 0: each is.
    """
    if not math.isfinite(share):
        return "–"
    if 0 < share < least:
        return f"under {100 * least:g} %"
    return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{Decimal(f'{100 * share:.2g}'):f} %"
