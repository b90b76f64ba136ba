"""Small data sets and what a scan of them must give, worked out plainly, for the tests of scans."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

import convscope as cs
import hand_built
from convscope.scope import Scope

SIDE = 24
LAYERS = ["2", "5"]
"""The two ReLUs of :func:`hand_built.small`."""
CLASSES = ("ant", "bee", "cat")


def small_scope(side: int = SIDE) -> Scope:
    """The network that is scanned in tests."""
    inputs = cs.Inputs(size=side, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), classes=[f"class {index}" for index in range(5)])
    return Scope(hand_built.small(), inputs, precision="float32", name="small")


def picture(number: int, side: int = SIDE) -> Image.Image:
    """A picture of noise, another for each number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side + number % 5, side + number % 3, 3), dtype=np.uint8))


def folder_of(folder: Path, count: int, *, split: str = "") -> Path:
    """A folder of `count` PNGs in subfolders named like classes."""
    for number in range(count):
        file = folder / split / CLASSES[number % len(CLASSES)] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
    return folder


def tar_of(path: Path, count: int) -> Path:
    """A WebDataset shard with `count` PNGs, their labels in .cls members."""
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            data = io.BytesIO()
            picture(number).save(data, "png")
            for name, content in ((f"{number:03d}.png", data.getvalue()), (f"{number:03d}.cls", CLASSES[number % 3].encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def files_of(survey: Path) -> dict[str, bytes]:
    """{name below the survey: its bytes}."""
    return {path.relative_to(survey).as_posix(): path.read_bytes() for path in sorted(survey.rglob("*")) if path.is_file()}


def table(survey: Path, name: str) -> pa.Table:
    """A table of a survey."""
    return pq.read_table(survey / f"{name}.parquet")


def values_of(survey: Path, layer: str) -> dict[str, np.ndarray]:
    """A layer's rows of `values/`, in order: {column: (n) or (n c)}."""
    rows = [
        row for file in sorted((survey / "values").glob("*.parquet")) for row in pq.read_table(file).to_pylist() if row["layer"] == layer
    ]
    return {name: np.array([row[name] for row in rows]) for name in ("image", "maximum", "mean", "y", "x")}


def twin(scope: Scope, files: list[Path], layers: list[str]) -> dict[str, dict[str, Any]]:
    """What a scan must find, in float64, one image at a time: {layer: {maximum, mean, y, x (n c), positive (c)}}."""
    model = hand_built.small().double().eval()
    found: dict[str, dict[str, list[Any]]] = {layer: {key: [] for key in ("maximum", "mean", "y", "x", "positive")} for layer in layers}
    for file in files:
        value = scope.inputs.normalize(scope.inputs(file)[None].double())
        for name, module in model.named_children():
            value = module(value)
            if name in layers or name == "8":
                maps = (value if value.ndim == 4 else value[..., None, None])[0].detach().numpy()
                flat = maps.reshape(len(maps), -1)
                row = found[name if name in layers else "output"]
                row["maximum"].append(flat.max(1))
                row["mean"].append(flat.mean(1))
                row["y"].append(flat.argmax(1) // maps.shape[2])
                row["x"].append(flat.argmax(1) % maps.shape[2])
                row["positive"].append((flat > 0).sum(1))
    return {layer: {key: np.array(values) for key, values in row.items()} for layer, row in found.items()}


def largest(values: np.ndarray, images: np.ndarray, count: int) -> list[tuple[float, int]]:
    """The `count` largest of (n), larger first, equals by image: a plain sort."""
    return sorted(zip(values.tolist(), images.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))[:count]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Values around zero from a generator of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
