"""CPU speed: folded batch norms, fused operations, Winograd convolutions, reused memory. Optional: same values up to rounding.

One switch turns all of it off: ``Scope(..., fast=False)``, or the environment variable ``CONVSCOPE_FAST=0``.
"""

from __future__ import annotations

import os
from typing import Literal, cast

from convscope.errors import BadInput

VARIABLE = "CONVSCOPE_FAST"


def use_fast(asked: bool | Literal["auto"]) -> bool:
    """Whether the faster code is used.

    Args:
        asked: True or False; "auto" follows the environment variable ``CONVSCOPE_FAST``: "0" is off, "1", "" or unset is on.

    Raises:
        BadInput: Another value of either.
    """
    if asked != "auto":
        if not isinstance(cast("object", asked), bool):
            raise BadInput(f"fast must be True, False or 'auto', got {asked!r}")
        return asked
    given = os.environ.get(VARIABLE, "")
    if given not in ("", "0", "1"):
        raise BadInput(f"the environment variable {VARIABLE} must be 0 (off) or 1 (on), got {given!r}")
    return given != "0"
