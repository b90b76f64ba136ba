"""The errors that convscope raises, all of them for the caller to read.

ConvscopeError
├── LayerNotFound    no layer of that name; near names are listed
├── AmbiguousLayer   the module runs several times; say which call (``name:0``)
├── NotReached       the layer exists but this forward never came to it
├── BadInput         an argument of the wrong shape, range, type or value
│   ├── UnitNotFound     a unit that the layer does not have
│   └── NotInstalled     an optional package that is needed for this; the command that installs it
├── BadImage         a file that cannot be read as an image (path and reason)
├── BadWeights       weights that do not fit, cannot be trusted, or hold NaN
└── StoreConflict    a folder that holds something else than what is asked for
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from convscope.text import one_line


class ConvscopeError(Exception):
    """Base of all errors meant for the caller: one line that says what was asked, what was wrong and what would be right.

    Names and words of files in it are made visible: no error can send a terminal an escape sequence.

    Attributes:
        question: What the caller asked for (technique, layer, input shape, ...), filled in on the way up by :func:`asking`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = one_line(message)
        self.question: dict[str, Any] = {}

    def __str__(self) -> str:
        asked = ", ".join(f"{key}={value}" for key, value in self.question.items() if str(value) not in self.message)
        return f"{self.message} [{one_line(asked)}]" if asked else self.message


class LayerNotFound(ConvscopeError, KeyError):
    """The network has no layer of that name."""


class AmbiguousLayer(ConvscopeError):
    """The module is called several times in one forward: the name must say which call."""


class NotReached(ConvscopeError):
    """The layer exists, but this forward pass never came to it."""


class BadInput(ConvscopeError, ValueError):
    """An argument has the wrong shape, range, type or value."""


class UnitNotFound(BadInput):
    """The layer has no such unit."""


class NotInstalled(BadInput):
    """A package that convscope needs for this alone is not installed."""

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(f"{need}: pip install 'convscope[{extra}]'")


class BadImage(ConvscopeError):
    """A file cannot be read as an image.

    Attributes:
        reason: Why, without the name of the file.
    """

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = one_line(reason)


class BadWeights(ConvscopeError):
    """Weights do not fit the network, cannot be trusted, or are not finite."""


class StoreConflict(ConvscopeError):
    """A folder or file holds something else than what is asked for."""


@contextmanager
def asking(**question: Any) -> Generator[None]:
    """Adds the caller's question to every convscope error raised inside; outer questions do not overwrite inner ones."""
    try:
        yield
    except ConvscopeError as error:
        error.question = {**{key: value for key, value in question.items() if value is not None}, **error.question}
        raise
