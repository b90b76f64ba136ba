"""Results on disk: a folder per result with the manifest written last, and pictures that carry their receipt."""

from __future__ import annotations

from convscope.store.folder import load, save
from convscope.store.receipts import atomic_write, png_bytes, read_receipt, write_png

__all__ = ["atomic_write", "load", "png_bytes", "read_receipt", "save", "write_png"]
