"""The main job from start to end on the bundled network and its generated images, for a first look and for `make demo`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convscope import render
from convscope.cli.derive import command
from convscope.cli.show import print_written, progress
from convscope.galleries.gallery import gallery
from convscope.progress import task
from convscope.receipts import atomic_write
from convscope.results.gallery import write_sheet
from convscope.techniques.hypothesis import hypothesis
from convscope.techniques.spectrum import spectrum
from convscope.zoo import open as open_network
from convscope.zoo.textures.generator import CLASSES, write_folder

MIDDLE = "features.20"


@command
def demo(*, out: Path = Path("out/demo"), seed: int = 0) -> None:
    """The main job on the bundled network: offline, in under three minutes.

    Feature visualizations of its classes and of units in the middle, the spectrum of an image, and a hypothesis about a unit put to the
    test. Can be run again: finished images stay, the rest is written anew.

    Args:
        out: Folder for what is written.
        seed: Seed of all draws.

    Command line:
        convscope demo --out out/demo
    """
    with progress():
        written = _demo(out, seed)
    print_written(written)


def _demo(folder: Path, seed: int) -> list[tuple[Path, str]]:
    """Makes everything and says what was written: (path, what it is)."""
    scope = open_network("textures")
    written: list[tuple[Path, str]] = []
    with task("demo", 4) as advance:
        data = folder / "data"
        if not data.exists():
            write_folder(data, 12, seed)
        written.append((data / "images", f"labelled images of {len(CLASSES)} classes, made by the generator"))
        advance(1)
        for layer, units, what in (
            ("output", None, "what each class looks for"),
            (MIDDLE, slice(0, 16), f"what 16 units of {MIDDLE} look for"),
        ):
            made = gallery(scope, layer, units, folder / layer, seed=seed, size=128, steps=96, crop_size=96)
            written.append((write_sheet(made, f"textures: {what}"), what))
            advance(1)
        chains = sorted((data / "images" / "chains").glob("*.png"))
        others = [file for name in CLASSES if name != "chains" for file in sorted((data / "images" / name).glob("*.png"))[:2]]
        seen = spectrum(scope, "output", chains[:1], pictures=folder / "output")
        unit = int(np.argmax(seen.mean))
        tested = hypothesis(scope, "output", unit, chains, others, seed=seed)
        for name, result, what in (
            ("spectrum", seen, "which classes an image of chains excites, with their feature visualizations"),
            ("hypothesis", tested, f"a hypothesis tested: {tested.verdict}"),
        ):
            path = folder / f"{name}.png"
            atomic_write(path, render.png(result.view()))
            written.append((path, what))
        advance(1)
    return written
