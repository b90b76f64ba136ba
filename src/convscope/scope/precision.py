"""Precision: float32 or bfloat16, and the autocast context of each."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from convscope.errors import BadInput

Precision = Literal["auto", "float32", "bfloat16"]


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32: CUDA from compute capability 8, CPUs with AMX, some with AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        has: Any = torch.cpu  # torch's own tests of the CPU are private
        return has._is_amx_tile_supported() or (has._is_avx512_bf16_supported() and _measured_faster())
    return False


@cache
def _measured_faster() -> bool:
    """Whether bfloat16 matrix products are at least 1.25 times as fast as float32 on this CPU; measured once, in about 20 ms.

    The instruction set does not tell: with AVX512-BF16, an AMD Zen 5 is 1.95 times as fast in bfloat16, an Intel Xeon without AMX half as
    fast.
    """
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        for _ in range(6):
            for kind in best:
                matrix = torch.ones(512, 512, dtype=kind, device="cpu")
                begun = time.perf_counter()
                _ = matrix @ matrix
                best[kind] = min(best[kind], time.perf_counter() - begun)
    return best[torch.float32] > 1.25 * best[torch.bfloat16]


def resolve_precision(precision: str, device: torch.device, purpose: Literal["measure", "optimize"]) -> str:
    """The number format of a purpose: "auto" is float32 to measure, and bfloat16 to optimize where the hardware is fast at it.

    Raises:
        BadInput: Not one of auto, float32, bfloat16.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise BadInput(f"precision must be auto, float32 or bfloat16, got {precision!r}")
    if precision != "auto":
        return precision
    return "bfloat16" if purpose == "optimize" and bfloat16_is_fast(device) else "float32"


def computing_in(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The autocast context in which convolutions and matrix products run in `precision`, whatever the caller's own autocast is."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return torch.autocast(device.type, enabled=False) if device.type in ("cpu", "cuda") else nullcontext()


def wide(values: Tensor) -> Tensor:
    """Half-precision values in float32; others as they are."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
