"""Seeds: every random draw in convscope comes from a generator made here, never from global random state."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *path: str | int) -> int:
    """The seed of one stream of draws, named by what it is for.

    A unit gets the same draws alone, in a batch or on another machine, because its stream depends on nothing but its name.

    Args:
        seed: The user's seed.
        path: Names that tell this stream from all others, e.g. ``("feature_visualization", "features.12", 7)``.

    Returns:
        An integer in [0, 2**63).
    """
    text = "\x1f".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
