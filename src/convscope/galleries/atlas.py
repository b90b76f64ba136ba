"""Makes an atlas: a site with a page for every unit, class and image, from a network and a folder of images."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convscope.errors import BadImage, BadInput, StoreConflict, asking
from convscope.files import local_path
from convscope.galleries.gallery import asked_of, differences, receipt
from convscope.galleries.live_network import live_network
from convscope.graph.connections import connections
from convscope.names import OUTPUT, Units
from convscope.optimize.recipes import DEFAULT, Recipe, RecipeName, find_recipe
from convscope.progress import task
from convscope.receipts import atomic_write, jsonable, png_bytes, published_bytes, published_suffix, read_receipt
from convscope.results.channels import shown
from convscope.results.gallery import GalleryImage, image_name
from convscope.results.provenance import describe, manifest
from convscope.scanner.scan import scan
from convscope.scope import Scope
from convscope.site import addresses
from convscope.site.arrangement import arrange
from convscope.site.build import Site, folder_size
from convscope.site.content import LayerContent, Options, companions, directions
from convscope.site.images import TILE
from convscope.site.live import MODEL, RECORD, Live, embedded, packed
from convscope.site.tables import ARRANGEMENT, CONNECTIONS, MAPS, STUDIES, Maps, Studies, is_current, write_table
from convscope.survey.survey import Survey, read_survey
from convscope.techniques.activation_grid import activation_grid
from convscope.techniques.deconvnet import deconvnet
from convscope.techniques.feature_visualization import at_once, feature_visualization, goal_of
from convscope.techniques.occlusion import occlusion
from convscope.techniques.weight_grid import weight_grid

_log = logging.getLogger("convscope")
DATA, FRESH, FILE = "data", ".data", "atlas.json"
MANY_FILES = 20_000
"""A site of more files is slow to copy: fewer layers or units are suggested."""
MOST_UNITS = 6_000
"""Networks with more units behind their convolutions show the last layer of each map size only, unless layers are given."""
PROJECTED, _GAP = 3, 4
_CHECKED = 4
"""Images that the network of the live page is checked on."""
_STRONGEST, _MAPS = 8, 4
LARGEST_FOLDER = 2_000
_FINEST = 56
"""Sides of the maps that are kept of occlusion and of strips."""
_AT_ONCE = 4
"""Units whose images are made together where there is a budget."""


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
        ray: Scan on a Ray cluster, as for :func:`~convscope.scan`.
        changes: Recipe parameters to replace.

    Returns:
        Where it is, and how complete.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        StoreConflict: `out` holds something else.

    Example:
        >>> import convscope as cs
        >>> cs.atlas(cs.open("textures"), "photos", "site", layers="features.20").index  # doctest: +SKIP
        PosixPath('site/index.html')
    """
    begun = time.monotonic()
    if copies < 1 or occlusions < 0:
        raise BadInput(f"copies must be at least 1 and occlusions at least 0, got {copies} and {occlusions}")
    root, plan = Path(out), find_recipe(recipe, **changes)
    with asking(technique="atlas"):
        names = chosen_layers(scope, layers)
        shown = shown_units(scope, names, units, classes)
        _check_folder(root)
        survey = _scanned(scope, images, root, names, ray)
        options = Options(
            shown, photographs, copies, published_suffix(), {"recipe": plan.name, "steps": plan.stages * plan.steps}, projections, live
        )
        work = _Work(scope, survey, root, options, plan, seed, [local_path(folder) for folder in pictures])
        with scope.session():
            work.prepare()
            site = Site(survey, root, options, _facts(scope, survey, images, plan))
            began = time.monotonic()
            with task("pages", site.steps()) as advance:
                site.write(advance)
            work.note(site)
            writing = time.monotonic() - began  # once more at the end
            site.content.maps = work.maps()
            if live:
                work.live(site)
            end = begun + budget - writing if budget is not None else None
            work.study(site, occlusions, end)
            finished = work.fill(site, end)
            with task("pages", site.steps()) as advance:
                site.write(advance)
            work.note(site)
    files, size = folder_size(root)
    return Atlas(root, finished[1], finished[0], files, size)


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


def _check_folder(root: Path) -> None:
    """Refuses a folder that holds something that is no atlas."""
    if root.exists() and not root.is_dir():
        raise StoreConflict(f"{root}: is a file, not a folder")
    ours = {DATA, FRESH, FILE, "index.html"}
    names = {path.name for path in root.iterdir()} if root.is_dir() else set[str]()
    if names and not names & ours:
        raise StoreConflict(f"{root}: holds other files ({', '.join(sorted(names)[:3])}); choose another folder")


def _scanned(scope: Scope, images: Any, root: Path, names: Sequence[str], ray: str | None) -> Survey:
    """The survey in the site's folder; one of other images, layers or weights is replaced when the new one is finished."""
    data, fresh = root / DATA, root / FRESH
    root.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Any] = {"layers": list(names), "ray": ray}
    finished = (data / "manifest.json").exists()
    if finished:
        try:
            return scan(scope, images, data, **asked)
        except StoreConflict:
            _log.debug("another survey: scanning anew")
    try:
        scan(scope, images, fresh, **asked)
    except StoreConflict:  # begun with other settings
        shutil.rmtree(fresh)
        scan(scope, images, fresh, **asked)
    if finished:
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


class _Work:
    """What an atlas computes beside the survey."""

    def __init__(
        self, scope: Scope, survey: Survey, root: Path, options: Options, plan: Recipe, seed: int, pictures: Sequence[Path]
    ) -> None:
        self.scope, self.survey, self.root, self.options, self.plan, self.seed = scope, survey, root, options, plan, seed
        self.pictures = pictures
        self.layers = [name for name in survey.layers if name != OUTPUT]
        self.key = json.dumps([survey.manifest["plan"], version("convscope")], sort_keys=True)
        self.projecting = bool(options.projections)

    # ------------------------------------------------------------------------------------------------- tables beside the survey

    def prepare(self) -> None:
        """Writes the tables that the pages read beside the survey."""
        for name, make in ((ARRANGEMENT, self._arrangement), (CONNECTIONS, self._connections)):
            self._write_table(name, make)
        self._first_weights()

    def maps(self) -> Maps:
        """Writes the table of maps, which takes a second pass over the images, and reads it."""
        self._write_table(MAPS, self._maps)
        return Maps.read(self.root)

    def live(self, site: Site) -> None:
        """Adds the network to the live page, or the reason why it cannot be there."""
        known = Live.read(self.root)
        if known is not None and not known.reason and known.key == self.key and (self.root / MODEL).exists():
            return
        places = {name: place for name in self.layers if (place := self.scope.layers.own_place(name)) is not None}
        rows = np.linspace(0, len(self.survey) - 1, min(_CHECKED, len(self.survey))).round().astype(int)
        images = [pixels for row in rows.tolist() if (pixels := self._photograph(row)) is not None]
        try:
            if not images:
                raise BadInput("none of its images is there to check it with")
            made = live_network(self.scope, self.layers, np.stack(images)[:, : self.scope.inputs.channel_count])
        except BadInput as error:
            _log.warning("the live page is without the network: %s", error.message)
            found = Live(error.message, self.key, places=places)
        else:
            site.writer.write(MODEL, embedded("model", packed(made.data)))
            found = Live("", self.key, made.precision, len(made.data), made.difference, made.images, places)
        site.writer.write(f"{DATA}/{RECORD}", found.text())

    def _write_table(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        folder = self.root / DATA
        if not is_current(folder, name, self.key):
            write_table(folder, name, make(), self.key)

    def _arrangement(self) -> dict[str, Any]:
        columns: dict[str, list[Any]] = {key: [] for key in ("layer", "unit", "place", "x", "y")}
        names = [*self.layers, OUTPUT]
        with task("arranging units", len(names)) as advance:
            for name in names:
                placed = arrange(directions(self.survey.mean(name)))
                columns["layer"] += [name] * len(placed)
                columns["unit"] += range(len(placed))
                columns["place"] += placed[:, 0].astype(int).tolist()
                for key, values in (("x", placed[:, 1]), ("y", placed[:, 2])):
                    columns[key] += [None if np.isnan(value) else float(value) for value in values]
                advance()
        return columns

    def _connections(self) -> dict[str, Any]:
        columns: dict[str, list[Any]] = {key: [] for key in ("from_layer", "from_unit", "to_layer", "to_unit", "weight")}
        nodes = {name: node for name in [*self.layers, OUTPUT] if (node := self.scope.layers[name].node) is not None}
        for block in connections(self.scope.graph, nodes):
            weights = block.weights
            rows = np.argsort(-np.abs(weights), axis=1, kind="stable")[:, :_STRONGEST]
            kept = np.zeros(weights.shape, bool)
            np.put_along_axis(kept, rows, True, 1)
            strongest = np.argsort(-np.abs(weights), axis=0, kind="stable")[:_STRONGEST]
            np.put_along_axis(kept, strongest, True, 0)
            target, source = np.nonzero(kept & (weights != 0))
            columns["from_layer"] += [block.source] * len(source)
            columns["to_layer"] += [block.target] * len(target)
            columns["from_unit"] += source.tolist()
            columns["to_unit"] += target.tolist()
            columns["weight"] += weights[target, source].tolist()
        return columns

    def _maps(self) -> dict[str, Any]:
        """Maps of the units with the highest mean in the deepest layer that has maps, on every image."""
        keys = ("image", "layer", "unit", "rank", "maximum", "height", "width", "values", "place")
        columns: dict[str, list[Any]] = {key: [] for key in keys}
        spatial = [name for name in self.layers if self.survey.layer(name).height * self.survey.layer(name).width >= 9]
        if not spatial or len(self.survey) > LARGEST_FOLDER:
            return columns
        name = spatial[-1]
        units = np.argsort(-self.survey.mean(name), axis=1, kind="stable")[:, :_MAPS]
        place = self._place(name, (self.survey.layer(name).height, self.survey.layer(name).width))
        several = self.scope.fitting(self.scope.inputs.height * self.scope.inputs.width)
        with task("maps", len(self.survey)) as advance, torch.no_grad():
            for first in range(0, len(self.survey), several):
                wanted = range(first, min(first + several, len(self.survey)))
                batch = {row: pixels for row in wanted if (pixels := self._photograph(row)) is not None}
                advance(len(wanted))
                if not batch:
                    continue
                images = np.stack(list(batch.values()))[:, : self.scope.inputs.channel_count]
                maps = self.scope.run(torch.from_numpy(images), name, channels_first=True)[name].cpu().numpy()
                for row, own in zip(batch, maps, strict=True):
                    for rank, unit in enumerate(units[row].tolist()):
                        high = float(own[unit].max())
                        if high > 0:
                            shown = np.rint(np.clip(own[unit] / high, 0, 1) * 255).astype(np.uint8)
                            found = int(self.survey.ids[row]), name, unit, rank, high, *shown.shape, shown.tobytes(), place
                            for key, value in zip(keys, found, strict=True):
                                columns[key].append(value)
        return columns

    def study(self, site: Site, most: int, end: float | None) -> None:
        """Adds occlusion maps and strips of layers, one image after another, the worst mistakes first."""
        studies = Studies.read(self.root) if is_current(self.root / DATA, STUDIES, self.key) else Studies()
        paged = [row for row in site.content.foremost_images() if int(self.survey.ids[row]) in site.stored]
        missing = [row for row in paged[:most] if int(self.survey.ids[row]) not in studies.of]
        last = 0.0
        with task(f"occlusion of {len(missing)} images", len(missing)) as advance:
            for row in missing:
                now = time.monotonic()
                if end is not None and now + last > end:
                    return
                try:
                    found = self._studied(site, row)
                except BadInput as error:
                    _log.warning("no occlusion maps: %s", error.message)
                    return
                if found is not None:
                    studies.add(found)
                    columns = {key: [one[key] for one in studies.rows] for key in found}
                    write_table(self.root / DATA, STUDIES, columns, self.key)
                    site.content.studies = studies
                    site.write_image(found["image"])
                last = time.monotonic() - now
                advance()

    def _studied(self, site: Site, row: int) -> dict[str, Any] | None:
        """An image's row of the table; None if its file is gone."""
        pixels = self._photograph(row)
        if pixels is None:
            return None
        image = torch.from_numpy(pixels[None, : self.scope.inputs.channel_count].copy())
        target, truth = int(site.content.ranked[row, 0]), int(site.content.truth[row])
        patch = patch_of(image.shape)
        score = "logit" if site.content.predictions is None else "log-odds"
        found = occlusion(self.scope, image, target, score=score, patch=patch, stride=max(patch // 2, 1))
        lowest = np.unravel_index(int(found.map[0].argmin()), found.map[0].shape)
        drop = _reduced(found.drop[0])
        largest = float(np.abs(drop).max())
        names = [name for name in self.layers if (one := self.survey.layer(name)).height * one.width > 1]
        seen = activation_grid(self.scope, image, names) if names else None
        strip: list[dict[str, Any]] = []
        for name, unit, values in [] if seen is None else seen.strip():
            high, small = float(values.max()), _reduced(values)
            if high > 0:
                shown = np.rint(np.clip(small / small.max(), 0, 1) * 255).astype(np.uint8)
                shape = {"height": shown.shape[0], "width": shown.shape[1], "values": shown.tobytes()}
                y0, x0, y1, x1 = self._place(name, values.shape)
                by = [_step(side) for side in values.shape]
                ends = (one * step / side for one, step, side in zip(small.shape, by, values.shape, strict=True))
                down, across = ((end - start) * kept for (start, end), kept in zip(((y0, y1), (x0, x1)), ends, strict=True))
                shape["place"] = [y0, x0, y0 + down, x0 + across]
                strip.append({"layer": name, "unit": unit, "maximum": high} | shape)
        return {
            "image": int(self.survey.ids[row]),
            "target": target,
            "patch": patch,
            "base": float(found.base[0]),
            "lowest": float(found.map[0][lowest]),
            "then": int(found.label[0][lowest]),
            "positions": found.map[0].size,
            "own": int((found.label[0] == truth).sum()),
            "largest": largest,
            "height": drop.shape[0],
            "width": drop.shape[1],
            "values": np.rint(drop / (largest or 1.0) * 127).astype(np.int8).tobytes(),
            "strip": strip,
        }

    def _place(self, name: str, cells: tuple[int, ...]) -> list[float]:
        """Where a layer's maps lie on an image: y0, x0, y1, x1 in pixels."""
        size = self.scope.inputs.height, self.scope.inputs.width
        return list(self.scope.layers.place(self.scope.layers[name], (cells[0], cells[1]), size))

    def _photograph(self, row: int) -> np.ndarray | None:
        """An image as the network is fed it, (3 h w) in [0,1], grey if it takes one channel; None if its file is gone."""
        try:
            return self.survey.read_image(int(self.survey.ids[row]))
        except BadImage:
            return None

    def _first_weights(self) -> None:
        """Writes the kernels of layers that read the image, as one mosaic in colour."""
        found = self.scope.layers.of_kind("Conv2d")
        first = next(iter(found.values()), None)
        name = next(iter(self.scope.layers.after_relu()), "")
        if first is None or name not in self.layers or self.scope.weights_of(first.name).shape[1] != 3:
            return
        shown = weight_grid(self.scope, first.name).shown
        count, _, height, width = shown.shape
        zoom, across = max(1, 48 // max(height, width)), 16
        down = -(-count // across)
        cell = height * zoom + 2, width * zoom + 2
        sheet = np.ones((3, down * cell[0], min(across, count) * cell[1]), np.float32)
        for place, kernel in enumerate(shown):
            y, x = place // across * cell[0], place % across * cell[1]
            sheet[:, y : y + height * zoom, x : x + width * zoom] = kernel.repeat(zoom, 1).repeat(zoom, 2)
        path = self.root / addresses.layer_weights(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, png_bytes(sheet, {"technique": "weight_grid", "layer": first.name}))

    # ----------------------------------------------------------------------------------------------------------- images of units

    def fill(self, site: Site, end: float | None) -> tuple[int, int]:
        """Makes the images of units that are missing and puts them on their pages; returns how many there are and should be."""
        several = at_once(self.options.copies)
        if end is not None:
            several = min(several, _AT_ONCE)  # the budget ends between groups
        groups = list(self._groups(site, several))
        count = sum(len(units) for _, units, _ in groups) * self.options.copies
        missing = [(name, units, goal) for name, units, goal in groups if not self._finished(name, units, goal)]
        last = 0.0
        with task(f"images of {count} units", sum(len(units) for _, units, _ in missing)) as advance:
            for name, units, asked in missing:
                now = time.monotonic()
                if end is not None and now + last > end and not self._kept(units[0], asked):
                    continue
                self._make(name, units, asked)
                self._project(site, name, units)
                site.write_units(name, units)
                site.write_layer(name, units)
                last = time.monotonic() - now
                advance(len(units), name)
        made = sum(len(site.content.unit_images(name, unit)) for name, units in self.options.units.items() for unit in units)
        return made, count

    def _groups(self, site: Site, several: int) -> Iterator[tuple[str, list[int], dict[str, Any]]]:
        """Units whose images are optimized together, in order of interest: some of every layer, then the next of every layer.

        Args:
            site: The site.
            several: The most that go together. An image does not depend on the others.
        """
        touched = site.content.touched()
        orders: list[tuple[str, list[int], dict[str, Any]]] = []
        for name, units in self.options.units.items():
            order = site.content.interest(name)
            if name == OUTPUT:
                order = sorted(order, key=lambda unit: unit not in touched)
            goal = goal_of(self.scope, name, list(units), None, None, self.options.copies, 0.0, self.plan)
            orders.append((name, order, asked_of(self.scope, goal, self.seed)))
        if all(len(self.options.units[name]) == self.scope.layers[name].channels for name in self.layers):
            orders.reverse()  # classes first: they are what most people look at, unless they have chosen units
        parts: list[list[tuple[str, list[int], dict[str, Any]]]] = []
        for name, order, asked in orders:
            taken = [unit for unit in order if self._kept(unit, asked)]
            own = [unit for unit in order if unit not in taken]
            chunks = [group[first : first + several] for group in (taken, own) for first in range(0, len(group), several)]
            parts.append([(name, chunk, asked) for chunk in chunks])
        for row in zip_longest(*parts):
            yield from (part for part in row if part is not None)

    def _kept(self, unit: int, asked: Mapping[str, Any]) -> list[GalleryImage]:
        """A unit's images in the galleries, if all its copies are there and made as asked; else none."""
        if self.scope.inputs.channel_count != 3:  # a gallery shows other channels as colours
            return []
        for folder in self.pictures:
            images = [GalleryImage(unit, copy, folder / image_name(unit, copy)) for copy in range(self.options.copies)]
            if all(image.path.exists() and not differences(image.receipt, asked) for image in images):
                return images
        return []

    def _finished(self, name: str, units: Sequence[int], asked: Mapping[str, Any]) -> bool:
        """Whether all images and projections of some units are there; removes images made otherwise."""
        whole = True
        for unit in units:
            for copy in range(self.options.copies):
                whole &= self._is_made(self.root / addresses.unit_image(name, unit, copy, self.options.suffix), asked)
            if self.projecting and name != OUTPUT:
                whole &= (self.root / addresses.unit_projections(name, unit, self.options.suffix)).exists() or self._silent(name, unit)
        return whole

    def _is_made(self, path: Path, asked: Mapping[str, Any]) -> bool:
        if not path.exists():
            return False
        try:
            fits = not differences(read_receipt(path), asked)
        except (StoreConflict, BadImage):
            fits = False
        if not fits:
            path.unlink()
        return fits

    def _silent(self, name: str, unit: int) -> bool:
        return float(self.survey.channels(name)["maximum"][unit].as_py()) <= 0

    def _make(self, name: str, units: Sequence[int], asked: Mapping[str, Any]) -> None:
        """Optimizes the images of some units together and writes those that are missing."""
        paths = {
            (unit, copy): self.root / addresses.unit_image(name, unit, copy, self.options.suffix)
            for unit in units
            for copy in range(self.options.copies)
        }
        if all(self._is_made(path, asked) for path in paths.values()):
            return
        if kept := [image for unit in units for image in self._kept(unit, asked)]:
            pixels = [image.image for image in kept]
            images, receipts = np.stack(pixels), [dict(image.receipt) for image in kept]
        else:
            made = feature_visualization(self.scope, name, list(units), copies=self.options.copies, recipe=self.plan, seed=self.seed)
            images, receipts = made.images, [receipt(made, index) for index in range(len(paths))]
            pixels = [shown(made, image) for image in images]
        ranks, companions = self._excited(name, images, [unit for unit, _ in paths])
        for index, path in enumerate(paths.values()):
            if not self._is_made(path, asked):
                path.parent.mkdir(parents=True, exist_ok=True)
                more = {"rank": ranks[index], "companions": companions[index], "side": images.shape[-1]}
                atomic_write(path, published_bytes(pixels[index], receipts[index] | more, self.options.suffix))

    def _excited(self, name: str, images: np.ndarray, units: Sequence[int]) -> tuple[list[int], list[list[int]]]:
        """The rank of each image's unit among all of its layer, by standard deviations above the average over the survey; of an output, by
        its value. And the other units that are first in that order."""
        values = self.scope.activations(torch.from_numpy(images.copy()), name)[name]
        values = self.scope.layers[name].channels_first(values)
        means = (values.flatten(2).mean(2) if values.ndim > 2 else values).cpu().numpy().astype(np.float64)
        if name != OUTPUT:
            table = self.survey.channels(name)
            mean, sd = table["mean"].to_numpy(), table["sd"].to_numpy()
            means = np.divide(means - mean, sd, out=np.zeros_like(means), where=sd > 0)
        pairs = list(zip(means, units, strict=True))
        return [1 + int((row > row[unit]).sum()) for row, unit in pairs], [companions(row, unit) for row, unit in pairs]

    def _project(self, site: Site, name: str, units: Sequence[int]) -> None:
        """Writes the projections of the strongest images of some units, side by side."""
        if not self.projecting or name == OUTPUT:
            return
        known = site.content.layer(name)
        for unit in units:
            path = self.root / addresses.unit_projections(name, unit, self.options.suffix)
            if path.exists() or self._silent(name, unit):
                continue
            try:
                strip = self._strip(known, name, unit)
            except BadInput as error:  # a nonlinearity that the rule is not defined for
                _log.warning("no projections: %s", error.message)
                self.projecting = False
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, published_bytes(strip, None, self.options.suffix))

    def _strip(self, known: LayerContent, name: str, unit: int) -> np.ndarray:
        """Three projections, each cut as the photograph's crop is, (h w 3) uint8; grey is zero."""
        from PIL import Image as Pillow

        strip = np.full((TILE, PROJECTED * (TILE + _GAP) - _GAP, 3), 128, np.uint8)
        crops = [crop for crop in known.strongest(unit)[:PROJECTED] if crop.value > 0]
        pairs = [(crop, pixels) for crop in crops if (pixels := self._photograph(crop.row)) is not None]
        if not pairs:
            return strip
        done = deconvnet(self.scope, name, [unit], torch.from_numpy(np.stack([pixels for _, pixels in pairs])))
        for place, (crop, _) in enumerate(pairs):
            projected = done.projection[place, 0]
            inside = np.abs(projected[projected != 0])
            reach = float(np.quantile(inside, 0.995)) if inside.size else 1.0
            shown = np.rint(np.clip(0.5 + 0.5 * np.moveaxis(projected, 0, -1) / (reach or 1.0), 0, 1) * 255).astype(np.uint8)
            x, y, width, height = crop.box
            cut = Pillow.new("RGB", (width, height), (128, 128, 128))
            cut.paste(Pillow.fromarray(shown), (-x, -y))
            left = place * (TILE + _GAP)
            strip[:, left : left + TILE] = np.asarray(cut.resize((TILE, TILE), Pillow.Resampling.LANCZOS))
        return strip

    def note(self, site: Site) -> None:
        """Writes the first page and, last, `atlas.json`: what the atlas is made of and how complete it is."""
        site.writer.write("index.html", site.pages.network())
        wanted = {name: len(units) * self.options.copies for name, units in self.options.units.items()}
        made = {name: sum(len(site.content.unit_images(name, unit)) for unit in units) for name, units in self.options.units.items()}
        parameters = {name: getattr(self.options, name) for name in ("copies", "photographs", "projections", "live")}
        head = manifest(self.scope, "atlas", parameters | {"recipe": describe(self.plan), "seed": self.seed}) | {
            "schema": 1,
            "libraries": {name: version(name) for name in ("pillow", "scikit-learn")},
            "images": len(self.survey),
            "units": {name: list(units) for name, units in self.options.units.items()},
            "wanted": wanted,
            "made": made,
        }
        site.writer.write(FILE, json.dumps(jsonable(head), indent=1, ensure_ascii=True) + "\n")


def patch_of(shape: Sequence[int]) -> int:
    """Side of the patch of occlusion maps on images of a shape (n c h w)."""
    return max(min(shape[-2:]) // 7, 1)


def _step(side: int) -> int:
    """Sides of the blocks that a map's values are averaged over."""
    return max(-(-side // _FINEST), 1)


def _reduced(values: np.ndarray) -> np.ndarray:
    """A map (h w) with sides of at most `_FINEST`, each value the mean over a block of equal size, the last ones cut off."""
    step = [_step(side) for side in values.shape]
    height, width = (side // by for side, by in zip(values.shape, step, strict=True))
    cut = values[: height * step[0], : width * step[1]].astype(np.float64)
    return np.nan_to_num(cut.reshape(height, step[0], width, step[1]).mean((1, 3)))
