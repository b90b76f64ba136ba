"""The main job from start to end, for a first look and for `make demo`: on a network of today, or on the bundled one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from convscope import render
from convscope.cli.derive import command
from convscope.cli.show import print_written, progress, say
from convscope.errors import NotInstalled
from convscope.galleries.gallery import gallery
from convscope.receipts import atomic_write
from convscope.results.base import Result
from convscope.results.gallery import write_sheet
from convscope.scope import Scope
from convscope.techniques.hypothesis import hypothesis
from convscope.techniques.occlusion import occlusion
from convscope.techniques.spectrum import spectrum
from convscope.zoo import open as open_network
from convscope.zoo.textures.generator import CLASSES, write_folder

Network: TypeAlias = Literal["efficientnet_lite0", "textures"]
"""The networks that the demo is made for."""

Files: TypeAlias = list[tuple[Path, str]]
"""Files with what each is."""

SHOWN = (
    "goldfish, flamingo, macaw, African elephant, tiger, zebra, golden retriever, monarch, "
    "daisy, strawberry, pineapple, pizza, castle, school bus, peacock, grand piano"
).split(", ")
"""Classes of ImageNet that everybody knows."""

SETTINGS: dict[str, dict[str, Any]] = {
    "efficientnet_lite0": {"size": 160, "crop_size": 128, "crop_end": (0.4, 0.8), "steps": 256},
    "textures": {"size": 128, "crop_size": 96, "steps": 96},
}
"""Images of a size for sheets. EfficientNet-Lite's objects fill more of them, and are named more easily, if the last crops are larger."""

MIDDLE = {"efficientnet_lite0": "blocks.3.1.bn1", "textures": "features.20"}
"""A layer in the middle, after its ReLU."""

UNITS = 16
"""Units of it that are shown."""


@command
def demo(*, network: Network | None = None, out: Path = Path("out/demo"), seed: int = 0) -> None:
    """The main job on a network trained on photographs, in under four minutes, offline.

    Feature visualizations of sixteen classes; the units that a photograph excites, with theirs; and where the photograph shows its class.
    The network is efficientnet_lite0, which the extra `pretrained` installs. With textures, the bundled one: its classes, units in the
    middle, the spectrum of an image, and a hypothesis about a unit put to the test, on generated images.

    Can be run again: finished images stay, the rest is written anew.

    Args:
        network: Which network; None: efficientnet_lite0 if it is installed, else textures.
        out: Folder; the network's name is the folder in it for what is written.
        seed: Seed of all draws.

    Command line:
        convscope demo
        convscope demo --network textures --out out/demo
    """
    scope = _opened(network)
    with progress():
        written = (_on_generated_images if scope.name == "textures" else _on_a_photograph)(scope, out / scope.name, seed)
    print_written(written)


def _opened(network: Network | None) -> Scope:
    """The network asked for; the bundled one where none is and the other is not installed."""
    try:
        return open_network(network or "efficientnet_lite0")
    except NotInstalled as error:
        if network is not None:
            raise
        say(f"{error}; until then the demo shows the bundled network, textures", error=True)
        return open_network("textures")


def _on_a_photograph(scope: Scope, folder: Path, seed: int) -> Files:
    """Classes, a photograph's spectrum with its highest units, and occlusion."""
    from sklearn.datasets import load_sample_images

    photograph = str(load_sample_images().filenames[0])
    middle = MIDDLE[scope.name]
    classes = gallery(scope, "output", SHOWN, folder / "output", seed=seed, **SETTINGS[scope.name])
    highest = sorted(unit for unit, _ in spectrum(scope, middle, photograph).spikes(UNITS))
    units = gallery(scope, middle, highest, folder / middle, seed=seed, **SETTINGS[scope.name])
    seen = spectrum(scope, middle, photograph, pictures=units.folder)
    hidden = occlusion(scope, photograph, patch=32, seed=seed)
    what = "the units that the photograph excites most"
    return [
        (write_sheet(classes, f"{scope.name}: classes, optimized from noise"), "what 16 classes look for"),
        (write_sheet(units, f"{scope.name}, {middle}: {what}"), f"what {what} look for"),
        _figure(folder / "spectrum.png", seen, f"how much a photograph excites each unit of {middle}"),
        _figure(folder / "occlusion.png", hidden, f"where in the photograph the network sees its class, {hidden.target_names[0]}"),
    ]


def _on_generated_images(scope: Scope, folder: Path, seed: int) -> Files:
    """Classes and units, the spectrum of an image, and a hypothesis that is tested."""
    data, middle = folder / "data", MIDDLE[scope.name]
    if not data.exists():
        write_folder(data, 12, seed)
    written: Files = [(data / "images", f"labelled images of {len(CLASSES)} classes, made by the generator")]
    for layer, units, what in (
        ("output", None, "what each class looks for"),
        (middle, slice(0, UNITS), f"what {UNITS} units of {middle} look for"),
    ):
        made = gallery(scope, layer, units, folder / layer, seed=seed, **SETTINGS[scope.name])
        written.append((write_sheet(made, f"{scope.name}: {what}"), what))
    chains = sorted((data / "images" / "chains").glob("*.png"))
    others = [file for name in CLASSES if name != "chains" for file in sorted((data / "images" / name).glob("*.png"))[:2]]
    seen = spectrum(scope, "output", chains[:1], pictures=folder / "output")
    tested = hypothesis(scope, "output", int(np.argmax(seen.mean)), chains, others, seed=seed)
    return [
        *written,
        _figure(folder / "spectrum.png", seen, "which classes an image of chains excites, with their feature visualizations"),
        _figure(folder / "hypothesis.png", tested, f"a hypothesis tested: {tested.verdict}"),
    ]


def _figure(path: Path, result: Result, what: str) -> tuple[Path, str]:
    """Writes a result's figure."""
    atomic_write(path, render.png(result.view()))
    return path, what
