"""The documentation builds strictly: every page has its place, every link leads somewhere, every public name is in the reference."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import convscope

ROOT = Path(__file__).parents[1]


def test_the_site_builds(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    reference = (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")
    for name in (
        name
        for name in dir(convscope)
        if not name.startswith("_") and name not in ("errors", "ConvscopeError", "progress", "objectives", "recipes")
    ):
        assert f'.{name}"' in reference, f"{name} is not in the reference"
    commands = (tmp_path / "commands" / "index.html").read_text(encoding="utf-8")
    assert "Usage: convscope feature-visualization" in commands and "Usage: convscope atlas" in commands


def test_every_extra_for_users_is_on_the_page_of_installing() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in extras.keys() - {"dev", "docs", "bench"})
