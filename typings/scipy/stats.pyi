# scipy ships no types. These stubs have the functions that convscope calls.
from typing import Literal

import numpy as np

def rankdata(a: np.ndarray, method: Literal["average", "min", "max", "dense", "ordinal"] = ..., *, axis: int | None = ...) -> np.ndarray: ...
def false_discovery_control(ps: np.ndarray, *, axis: int | None = ..., method: Literal["bh", "by"] = ...) -> np.ndarray: ...
