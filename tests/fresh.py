"""Stored results read in a fresh process, in which neither torch nor a technique is loaded."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CODE = """
import pickle, sys
import convscope as cs
found = {}
for name, (folder, expression) in pickle.load(sys.stdin.buffer).items():
    result = cs.load(folder)
    found[name] = f"{type(result).__module__}.{type(result).__name__}", result.summary(), eval(expression, {"result": result})
assert "torch" not in sys.modules
sys.stdout.buffer.write(pickle.dumps(found))
"""


def load_in_a_fresh_process(folders: Mapping[str, Path], expressions: Mapping[str, str]) -> dict[str, tuple[str, str, Any]]:
    """For each stored result its class, its summary and the value of an expression of `result`, as one fresh process loads it."""
    asked = pickle.dumps({name: (str(folder), expressions[name]) for name, folder in folders.items()})
    done = subprocess.run([sys.executable, "-W", "error", "-c", _CODE], input=asked, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)
