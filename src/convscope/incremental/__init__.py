"""Incremental inference: after a local change of the image, only the positions that depend on it are computed again, exactly.

A new kind of operation: its geometry in ``graph/operations.py``; `local`, `slides` and `slid` in ``replay.py``."""
