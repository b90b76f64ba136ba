# fsspec ships no types. A filesystem's methods differ from one to the next, so they are Any.
from typing import Any

from fsspec import core as core

class AbstractFileSystem:
    def __getattr__(self, name: str) -> Any: ...
