"""The notebook of the first look runs from top to bottom, and its figures show themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorials" / "first_look.ipynb"


@pytest.mark.filterwarnings("default")  # of the kernel's own machinery
def test_every_cell_runs(tmp_path: Path) -> None:
    nbformat: Any = pytest.importorskip("nbformat", reason="the extra dev is not installed")
    nbclient: Any = pytest.importorskip("nbclient", reason="the extra dev is not installed")
    book = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "the notebook is kept without outputs"
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    assert all(cell.execution_count for cell in cells)
    warned = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr" and "arning" in output.text]
    assert warned == []
    shown = [output for output in outputs if output.output_type == "execute_result"]
    assert sum("image/png" in output.data for output in shown) == 4, "two feature visualizations, exemplars, occlusion"
    assert sum("text/html" in output.data for output in shown) == 5, "and a data frame"
    assert len(shown) == len(cells)
