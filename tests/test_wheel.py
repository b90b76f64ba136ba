"""What is published: the wheel holds everything that the package reads, runs from an empty folder, and the source archive builds it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def call(*words: str, folder: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {} if path is None else {"PYTHONPATH": str(path)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


def build(kind: str, source: Path, out: Path) -> Path:
    done = call("-m", "hatchling", "build", "-t", kind, "-d", str(out), folder=source)
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive and unpacked."""
    folder = tmp_path_factory.mktemp("built")
    with tarfile.open(build("sdist", ROOT, folder / "sdist")) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    with zipfile.ZipFile(build("wheel", source, folder / "wheel")) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_it_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    package = ROOT / "src"
    wanted = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    held = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    assert {name for name in held if ".dist-info/" not in name} == wanted
    assert any(name.endswith(("licenses/LICENSE", "LICENSE")) for name in held)


def test_it_runs_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    done = call("-c", "import convscope; print(convscope.__file__)", folder=tmp_path, path=wheel)
    assert Path(done.stdout.strip()).is_relative_to(wheel), done.stderr
    words = ["feature-visualization", "textures", "features.27", "--units", "3", "--set", "steps=1", "--out", "images"]
    done = call("-m", "convscope", *words, folder=tmp_path, path=wheel)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "images" / "unit_0003.png").stat().st_size > 1000
