"""Makes an atlas: a site with a page for every unit, class and image, from a network and a folder of images."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, cast

from convscope.cluster import cluster
from convscope.errors import BadInput, StoreConflict, asking
from convscope.files import atomic_write, jsonable, local_path, read_json
from convscope.galleries.atlas_images import UnitImages
from convscope.galleries.atlas_occlusion import write_occlusions
from convscope.galleries.atlas_tables import write_attributions, write_live_network, write_maps, write_tables
from convscope.galleries.atlas_work import DATA, Work
from convscope.names import OUTPUT, Units
from convscope.optimize.recipes import DEFAULT, Recipe, RecipeName, find_recipe
from convscope.progress import task
from convscope.receipts import published_suffix
from convscope.results.provenance import describe, manifest
from convscope.scanner.scan import scan
from convscope.scope import Scope
from convscope.site.build import Site, folder_size
from convscope.site.content import Options
from convscope.survey.survey import Survey, read_survey
from convscope.text import printable

_log = logging.getLogger("convscope")
FRESH, FILE = ".data", "atlas.json"
MANY_FILES = 20_000
"""A site of more files is slow to copy: fewer layers or units are suggested."""
MOST_UNITS = 6_000
"""Networks with more units behind their convolutions show the last layer of each map size only, unless layers are given."""


@dataclass(frozen=True)
class Atlas:
    """An atlas.

    Attributes:
        path: Its folder; `index.html` in it is the first page.
        wanted: Images by feature visualization that it should have.
        made: How many of these it has.
        files, size: Number of its files, and their bytes.
    """

    path: Path
    wanted: int
    made: int
    files: int
    size: int

    @property
    def index(self) -> Path:
        """The first page."""
        return self.path / "index.html"


def atlas(
    scope: Scope,
    images: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    layers: str | Sequence[str] | None = None,
    units: Units | Mapping[str, Units] = None,
    classes: Units = None,
    pictures: Sequence[str | PathLike[str]] = (),
    recipe: RecipeName | Recipe = DEFAULT,
    copies: int = 1,
    projections: bool = True,
    photographs: bool = True,
    live: bool = True,
    occlusions: int = 12,
    budget: float | None = None,
    seed: int = 0,
    ray: str | None = None,
    **changes: Any,
) -> Atlas:
    """Makes an atlas: a site that opens from a file, with a page for every unit, class and image.

    The images are scanned first; then the site is complete, but for its images by feature visualization. These follow, the healthiest and
    most active units of each layer first. Whenever it is stopped, what is there is a site, and the same call goes on from there, to
    the same bytes. With other layers, units or images, only what changes is made again.

    Args:
        scope: The network.
        images: As for :func:`~convscope.scan`. They are published with the site, as the network is fed them, without metadata.
        out: Folder of the site.
        layers: A layer name or several. None: every convolution after its ReLU; of networks with more than 6,000 such units the last
            layer of each map size. "output" is always added.
        units: The units of each layer that get a page; numbers that a layer lacks are left out. {layer: units} for each layer by itself.
            None: all.
        classes: The classes that get a page. None: all.
        pictures: Galleries (:func:`~convscope.gallery`); what they hold, made as this call would make it, is taken from there.
        recipe: As for :func:`~convscope.feature_visualization`.
        copies: Images for each unit, from different noise.
        projections: Whether to project the three strongest images of each unit back to pixels (deconvnet).
        photographs: Whether to publish the images; if not, pages show where crops lie.
        live: Whether to add a page that measures the reader's own photographs, with the network in it (about 5 MB and the weights).
        occlusions: Images with an occlusion map and a strip of their layers, the worst mistakes first.
        budget: Seconds that it may take: no image is begun that would end later, the last writing of pages included. The scan and the
            pages are made in any case, and images in `pictures` are taken. None: no limit.
        seed: Seed of all draws.
        ray: Scan and optimize images on a Ray cluster: "auto" (the cluster of this machine, or a new one on it) or an address. With as
            many threads as here, the bytes are the same.
        changes: Recipe parameters to replace.

    Returns:
        Where it is, and how complete.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        StoreConflict: `out` holds something else.
        BadInput: `out` is no local path, or another argument makes no sense.

    Example:
        >>> import convscope as cs
        >>> cs.atlas(cs.open("textures"), "photos", "site", layers="features.20").index  # doctest: +SKIP
        PosixPath('site/index.html')
    """
    begun = time.monotonic()
    if copies < 1 or occlusions < 0:
        raise BadInput(f"copies must be at least 1 and occlusions at least 0, got {copies} and {occlusions}")
    root, plan = local_path(out), find_recipe(recipe, **changes)
    with asking(technique="atlas"), ExitStack() as stack:
        names = chosen_layers(scope, layers)
        shown = shown_units(scope, names, units, classes)
        _claim(root)
        connection = None if ray is None else stack.enter_context(cluster(scope, ray))
        survey = _scanned(scope, images, root, names, ray)
        options = Options(
            shown, photographs, copies, published_suffix(), {"recipe": plan.name, "steps": plan.stages * plan.steps}, projections, live
        )
        work = Work(scope, survey, root, options)
        unit_images = UnitImages(work, plan, seed, [local_path(folder) for folder in pictures], connection)
        with scope.session():
            write_tables(work)
            site = Site(survey, root, options, _facts(scope, survey, images, plan))
            began = time.monotonic()
            with task("pages", site.steps()) as advance:
                site.write(advance)
            _note(work, site, plan, seed)
            writing = time.monotonic() - began  # once more at the end
            site.content.maps, site.content.attributions = write_maps(work), write_attributions(work, site)
            if live:
                write_live_network(work, site)
            end = begun + budget - writing if budget is not None else None
            write_occlusions(work, site, occlusions, end)
            made, wanted = unit_images.make(site, end)
            with task("pages", site.steps()) as advance:
                site.write(advance)
            _note(work, site, plan, seed)
    files, size = folder_size(root)
    return Atlas(root, wanted, made, files, size)


def chosen_layers(scope: Scope, asked: str | Sequence[str] | None) -> list[str]:
    """The layers of an atlas in call order, without "output"; see :func:`atlas`."""
    if asked is not None:
        wanted = {name: scope.layers[name] for name in ([asked] if isinstance(asked, str) else asked) if name != OUTPUT}
        return sorted(wanted, key=lambda name: wanted[name].position)
    names = scope.layers.after_relu()
    if sum(scope.layers[name].channels for name in names) <= MOST_UNITS:
        return names
    last = {scope.layers[name].spatial: name for name in names}
    return [name for name in names if name in last.values()]


def shown_units(scope: Scope, names: Sequence[str], units: Units | Mapping[str, Units], classes: Units) -> dict[str, tuple[int, ...]]:
    """The units of each layer with a page, ascending, "output" last."""
    found: dict[str, tuple[int, ...]] = {}
    if isinstance(units, Mapping) and (unknown := units.keys() - set(names)):
        raise BadInput(f"units: {min(unknown)} is none of the layers shown: {', '.join(names)}")
    for name in names:
        count = scope.layers[name].channels
        own = units.get(name) if isinstance(units, Mapping) else units
        wanted: Any = own
        if not (own is None or isinstance(own, (slice, str))):
            asked = [own] if isinstance(own, int) else list(own)
            wanted = [unit for unit in asked if not isinstance(unit, int) or unit < count]
            if asked and not wanted:
                continue
        found[name] = tuple(sorted(set(scope.units(name, wanted))))
    found[OUTPUT] = tuple(sorted(set(scope.units(OUTPUT, classes))))
    return found


def _claim(root: Path) -> None:
    """Makes the folder and marks it as an atlas's, in which files are replaced and removed; refuses one that holds anything else."""
    if root.exists() and not root.is_dir():
        raise StoreConflict(f"{root}: is a file, not a folder")
    if _is_atlas(root / FILE):
        return
    others = sorted(path.name for path in root.iterdir() if path.name == FRESH or path.name[0] != ".") if root.is_dir() else []
    if others:
        raise StoreConflict(f"{root}: holds other files ({printable(', '.join(others[:3]))}); choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    atomic_write(root / FILE, b'{"technique": "atlas"}\n')


def _is_atlas(file: Path) -> bool:
    try:
        head = read_json(file)
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and cast("dict[str, Any]", head).get("technique") == "atlas"


def _scanned(scope: Scope, images: Any, root: Path, names: Sequence[str], ray: str | None) -> Survey:
    """The survey in the site's folder; one of other images, layers or weights is replaced when the new one is finished."""
    data, fresh = root / DATA, root / FRESH
    asked: dict[str, Any] = {"layers": list(names), "ray": ray}
    finished = (data / "manifest.json").exists()
    if finished:
        try:
            return scan(scope, images, data, **asked)
        except StoreConflict:
            _log.debug("another survey, or a damaged one: scanning anew")
    try:
        scan(scope, images, fresh, **asked)
    except StoreConflict:  # begun with other settings
        shutil.rmtree(fresh)
        scan(scope, images, fresh, **asked)
    if data.exists():
        shutil.rmtree(data)
        for stale in [*root.glob("image/*.webp"), *root.glob("unit/*/*-projections.*")]:
            stale.unlink()
    fresh.rename(data)
    return read_survey(data)


def _facts(scope: Scope, survey: Survey, images: Any, plan: Recipe) -> dict[str, Any]:
    """What all pages say of the network and the images."""
    folder = describe(images)
    many = f"{len(folder)} files" if isinstance(folder, list) else Path(str(folder)).name
    return {
        "title": Path(scope.name).name,
        "folder": many,
        "images": len(survey),
        "skipped": int(survey.manifest["skipped"]),
        "size": (scope.inputs.height, scope.inputs.width),
        "version": version("convscope"),
        "weights": Path(scope.weights).name if scope.weights else "as given",
        "weights_hash": scope.weights_hash,
        "recipe": {"recipe": plan.name, "steps": plan.stages * plan.steps, "image side": plan.sides(scope.inputs.height)[-1]},
        "versions": {name: version(name) for name in ("torch", "numpy", "pillow")},
    }


def _note(work: Work, site: Site, plan: Recipe, seed: int) -> None:
    """Writes the first page and, last, in `atlas.json` what the atlas is made of and how complete it is."""
    site.writer.write("index.html", site.pages.network())
    wanted = {name: len(units) * work.options.copies for name, units in work.options.units.items()}
    made = {name: sum(len(site.content.unit_images(name, unit)) for unit in units) for name, units in work.options.units.items()}
    parameters = {name: getattr(work.options, name) for name in ("copies", "photographs", "projections", "live")}
    head = manifest(work.scope, "atlas", parameters | {"recipe": describe(plan), "seed": seed}) | {
        "schema": 1,
        "libraries": {name: version(name) for name in ("pillow", "scikit-learn")},
        "images": len(work.survey),
        "units": {name: list(units) for name, units in work.options.units.items()},
        "wanted": wanted,
        "made": made,
    }
    site.writer.write(FILE, json.dumps(jsonable(head), indent=1, ensure_ascii=True) + "\n")
