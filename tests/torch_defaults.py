"""torch's global defaults set to something else for a block, and put back whatever happens."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import torch

DEFAULTS = ("float64", "float16", "meta")


@contextmanager
def set_to(default: str) -> Generator[None]:
    """Another default dtype, or another default device."""
    before = torch.get_default_dtype()
    dtype = getattr(torch, default, None)
    try:
        if dtype is not None:
            torch.set_default_dtype(dtype)
        with nullcontext() if dtype is not None else torch.device(default):
            yield
    finally:
        torch.set_default_dtype(before)
