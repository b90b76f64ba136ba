"""Text in pixels: measuring, wrapping and shortening with the font that matplotlib bundles, for sheets and figures alike."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

DPI = 120
"""Pixels per inch of every image of a result: all sizes in this package are pixels at this resolution."""

SMALL, BODY, HEAD, LARGE, TITLE = 14, 15, 16, 18, 22
"""Font sizes in pixels."""


def points(pixels: float) -> float:
    """A size in typographic points, as matplotlib wants it."""
    return pixels * 72 / DPI


def line(size: int) -> int:
    """The height of a line of text, in pixels."""
    return round(size * 1.35)


def _path(bold: bool) -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


@lru_cache(maxsize=32)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font for pillow at a size in pixels."""
    return ImageFont.truetype(str(_path(bold)), size)


@lru_cache(maxsize=1)
def _covered() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_path(False))).get_charmap())


def legible(text: str) -> str:
    """The text in one line, with a question mark for every character that the font lacks."""
    return "".join(sign if ord(sign) in _covered() else "?" for sign in " ".join(text.split()))


def width(text: str, size: int, bold: bool = False) -> int:
    """The width of a line of text, in pixels."""
    return int(font(size, bold).getlength(text)) + 1


def shorten(text: str, size: int, limit: int, bold: bool = False) -> str:
    """The text, with an ellipsis where it is wider than `limit` pixels: at the end, but in the middle of a text that is mostly one word.

    File and layer names often differ in their last characters alone.
    """
    if width(text, size, bold) <= limit:
        return text
    one_word = 2 * max(map(len, text.split(" "))) > len(text)

    def cut(kept: int) -> str:
        tail = kept // 2 if one_word else 0
        return f"{text[: kept - tail].rstrip()}…{text[len(text) - tail :]}"

    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width(cut(middle), size, bold) <= limit else (low, middle - 1)
    return cut(low)


def wrap(text: str, size: int, limit: int, most: int | None = None, bold: bool = False) -> list[str]:
    """The text in lines of at most `limit` pixels; words that are longer are shortened.

    Args:
        text: Any text; its line breaks are kept.
        size: Font size in pixels.
        limit: Width of a line in pixels.
        most: The number of lines at most, the last one ending in an ellipsis if text is left; None for no limit.
        bold: Whether the text is set bold.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        current = ""
        for word in legible(paragraph).split(" "):
            longer = f"{current} {word}".strip()
            if current and width(longer, size, bold) > limit:
                lines.append(current)
                current = word
            else:
                current = longer
        lines.append(current)
    if most is not None and len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [shorten(each, size, limit, bold) for each in lines]
