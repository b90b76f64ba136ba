import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["convscope.render", "convscope.results.folder"])
def test_importing_the_read_column_loads_neither_torch_nor_matplotlib(module: str):
    code = f"import sys, {module}; print([name for name in ('torch', 'matplotlib', 'pyplot') if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")}, timeout=60)
    assert done.stdout.strip() == "[]"


def test_drawing_loads_no_pyplot():
    code = """
import sys, numpy as np
from dataclasses import dataclass
from convscope import render
from convscope.results.base import Result, axes
@dataclass(frozen=True, eq=False)
class Map(Result):
    heat: np.ndarray = axes("h w", "heat")
assert Map(np.eye(3))._repr_png_().startswith(b"\\x89PNG")
print([name for name in ("torch", "matplotlib.pyplot") if name in sys.modules])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")}, timeout=60)
    assert done.stdout.strip() == "[]"
