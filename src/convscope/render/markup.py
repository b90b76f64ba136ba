"""HTML and SVG elements as strings: text is escaped where it meets markup, in this one place."""

from __future__ import annotations

import re
from html import escape

_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that HTML forbids or UTF-8 cannot hold."""


class Markup(str):
    """A string that is markup already; every other string is text."""

    __slots__ = ()

    def __html__(self) -> Markup:
        """Itself, for Jinja2 and others that ask so."""
        return self


def text(value: str) -> Markup:
    """Text as markup: escaped, quotes included; characters that HTML forbids become U+FFFD, and line separators references."""
    safe = escape(_UNSAFE.sub("\ufffd", value), quote=True)
    return Markup(safe.replace("\u2028", "&#8232;").replace("\u2029", "&#8233;"))


def joined(*parts: str) -> Markup:
    """Parts one after the other; those that are text are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else text(part) for part in parts))


def element(name: str, *content: str, **attributes: str | float | None) -> Markup:
    """An element with its content and attributes.

    Args:
        name: Name of the element; ``img`` and ``meta`` have no end tag.
        content: Markup, or text that is escaped.
        attributes: Values are escaped; None and "" leave the attribute out, except ``alt``. A trailing underscore is dropped
            (``class_``), others become hyphens (``aria_label``).
    """
    given = ((key.removesuffix("_").replace("_", "-"), str(value)) for key, value in attributes.items() if value is not None)
    words = "".join(f' {key}="{text(value)}"' for key, value in given if value or key == "alt")
    return Markup(f"<{name}{words}>" if name in ("img", "meta") else f"<{name}{words}>{joined(*content)}</{name}>")
