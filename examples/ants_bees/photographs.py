"""Which photograph plays which part in the study, and the lists that a scan reads."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from xray import xray_like

SUFFIXES = {".jpg", ".jpeg", ".png"}
SHARES = {"fit": 0.5, "tune": 0.25, "target": 0.25}
OTHERS = {"fit": 120, "tune": 60, "target": 60, "val": 150}
NOT_OTHERS = ("_ant", "_bee", "_apiary", "_honeycomb")
"""Classes of the ImageNet sample that show, or may show, ants or bees."""


@dataclass(frozen=True)
class Photograph:
    """A photograph and its part.

    Attributes:
        path: The file.
        label: "ants", "bees" or "other".
        part: "fit": trains networks, chooses maps, fits probes. "tune": chooses thresholds, trains nothing. "target": only its rendering
            is used, without its label, to adapt model 3. "val": evaluates.
        domain: "photographs" or "xray".
    """

    path: Path
    label: str
    part: str
    domain: str = "photographs"


def parts(images: Path, others: Path, *, limit: int = 0, seed: int = 0) -> list[Photograph]:
    """All photographs with their parts: `train/` is split three ways at random, `val/` is kept, others are drawn from `others`.

    Args:
        images: A folder with train/ants, train/bees, val/ants, val/bees.
        others: A folder of photographs without ants and bees.
        limit: At most so many of each label and part; 0: all.
        seed: Of the split.
    """
    found: list[Photograph] = []
    for label in ("ants", "bees"):
        train = _shuffled(_files(images / "train" / label), seed)
        ends = np.round(np.cumsum([0.0, *SHARES.values()]) * len(train)).astype(int)
        for part, start, stop in zip(SHARES, ends, ends[1:], strict=False):
            found += [Photograph(path, label, part) for path in train[start:stop]]
        found += [Photograph(path, label, "val") for path in _files(images / "val" / label)]
    rest = _shuffled([path for path in _files(others) if not path.stem.endswith(NOT_OTHERS)], seed)
    for part, count in OTHERS.items():
        found += [Photograph(path, "other", part) for path in rest[:count]]
        rest = rest[count:]
    if not limit:
        return found
    kept: dict[tuple[str, str], list[Photograph]] = {}
    for each in found:
        kept.setdefault((each.label, each.part), []).append(each)
    return [each for group in kept.values() for each in group[:limit]]


def rendered(photographs: Sequence[Photograph], folder: Path, *, seed: int = 0) -> list[Photograph]:
    """The X-ray-like renderings of photographs, written to `folder` where they are not there yet."""
    made: list[Photograph] = []
    for each in photographs:
        path = folder / each.part / each.label / f"{each.path.stem}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(each.path) as picture:
                xray_like(picture.convert("RGB"), f"{each.label}/{each.path.stem}", seed=seed).save(path)
        made.append(replace(each, path=path, domain="xray"))
    return made


def chosen(photographs: Sequence[Photograph], *wanted: str) -> list[Photograph]:
    """Those of the parts wanted."""
    return [each for each in photographs if each.part in wanted]


def write_list(photographs: Sequence[Photograph], path: Path) -> Path:
    """A list for `convscope scan`: path, label, split, domain."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "domain"])
        writer.writerows([str(each.path.resolve()), each.label, each.part, each.domain] for each in photographs)
    return path


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"{folder}: no photographs there")
    return found


def _shuffled(paths: list[Path], seed: int) -> list[Path]:
    return [paths[place] for place in np.random.default_rng(seed).permutation(len(paths))]
