"""Writes the files of a site: only what has changed, each by one rename, so that the site is whole at every moment."""

from __future__ import annotations

import contextlib
import json
import secrets
from pathlib import Path
from typing import Any


class Writer:
    """Writes into the folder of a site.

    Attributes:
        root: The folder.
        changed: Number of files written, for messages and tests.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.changed = 0

    def write(self, address: str, content: str | bytes) -> None:
        """Writes a file if it is not there already with this content.

        A file that was cut off by a power failure differs, and is written again; so nothing waits for the disk.
        """
        data = content.encode("utf-8") if isinstance(content, str) else content
        path = self.root / address
        with contextlib.suppress(OSError):
            if path.stat().st_size == len(data) and path.read_bytes() == data:
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self.changed += 1

    def keep_only(self, folder: str, suffixes: tuple[str, ...], wanted: set[str]) -> None:
        """Removes the files with one of these suffixes below a folder that are not wanted, and temporary files of killed processes."""
        for path in sorted((self.root / folder).rglob("*")):
            address = path.relative_to(self.root).as_posix()
            left = path.name.startswith(".") and path.suffix == ".tmp"
            if path.is_file() and (left or (path.suffix in suffixes and address not in wanted)):
                path.unlink()


def script(value: Any) -> str:
    """A value as JSON that may stand in a script: ASCII, and without `</`."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
