"""The images of an atlas's units by feature visualization, and the projections of their strongest images."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from convscope.cluster import Cluster, Settings
from convscope.errors import BadImage, BadInput, StoreConflict
from convscope.files import atomic_write
from convscope.galleries.atlas_work import Work
from convscope.galleries.gallery import asked_of, differences, receipt
from convscope.names import OUTPUT
from convscope.optimize.recipes import Recipe
from convscope.progress import task
from convscope.receipts import published_bytes, read_receipt
from convscope.results.channels import shown
from convscope.results.feature_visualization import FeatureVisualization
from convscope.results.gallery import GalleryImage, image_name
from convscope.site import addresses
from convscope.site.build import Site
from convscope.site.content import LayerContent, companions
from convscope.site.images import TILE
from convscope.techniques.deconvnet import deconvnet
from convscope.techniques.feature_visualization import at_once, feature_visualization, goal_of

_log = logging.getLogger("convscope")
PROJECTED, _GAP = 3, 4
_AT_ONCE = 4
"""Units whose images are made together where there is a budget."""


@dataclass(frozen=True)
class Group:
    """Units of a layer whose images are optimized together.

    Attributes:
        layer: Layer name.
        units: Unit numbers.
        asked: What their images have in common, see :func:`~convscope.galleries.gallery.asked_of`.
    """

    layer: str
    units: list[int]
    asked: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.layer}, units {', '.join(map(str, self.units))}"


class ImageActor:
    """A process of a cluster that holds the network and optimizes images.

    Args:
        model, settings: The network.
        precision: Number format of the optimization on the machine that asks.
        threads: Its threads; rounding may depend on them.
        how: Further arguments of :func:`~convscope.feature_visualization`.
    """

    def __init__(self, model: nn.Module, settings: Settings, precision: str, threads: int, how: Mapping[str, Any]) -> None:
        torch.set_num_threads(threads)
        self.scope, self.how = settings.scope(model), how
        if (own := self.scope.resolve("optimize")) != precision:
            raise BadInput(f"a machine of the cluster computes in {own}, this one in {precision}: choose a precision")

    def make(self, layer: str, units: list[int]) -> FeatureVisualization:
        """The images of some units."""
        return feature_visualization(self.scope, layer, units, **self.how)


class UnitImages:
    """The images of the units of an atlas.

    Args:
        work: What the parts of making an atlas share.
        plan: How images are made.
        seed: Seed of all draws.
        pictures: Galleries that images are taken from.
        cluster: Where images are optimized; None: here.
    """

    def __init__(self, work: Work, plan: Recipe, seed: int, pictures: Sequence[Path], cluster: Cluster | None = None) -> None:
        self.work, self.plan, self.seed, self.pictures, self.cluster = work, plan, seed, pictures, cluster
        self.scope, self.survey, self.root, self.options = work.scope, work.survey, work.root, work.options
        self.projecting = bool(work.options.projections)

    def make(self, site: Site, end: float | None) -> tuple[int, int]:
        """Makes the images of units that are missing and puts them on their pages; returns how many there are and should be."""
        several = at_once(self.options.copies)
        if end is not None:
            several = min(several, _AT_ONCE)  # the budget ends between groups
        groups = list(self._groups(site, several))
        count = sum(len(group.units) for group in groups) * self.options.copies
        missing = [group for group in groups if not self._finished(group)]
        with task(f"images of {count} units", sum(len(group.units) for group in missing)) as advance:
            optimized = self._optimized(missing, end) if self.cluster is None else self._on_cluster(self.cluster, missing, end)
            for group, done in optimized:
                self._write(group, done)
                self._project(site, group.layer, group.units)
                site.write_units(group.layer, group.units)
                site.write_layer(group.layer, group.units)
                advance(len(group.units), group.layer)
        made = sum(len(site.content.unit_images(name, unit)) for name, units in self.options.units.items() for unit in units)
        return made, count

    def _optimized(self, groups: Sequence[Group], end: float | None) -> Iterator[tuple[Group, FeatureVisualization | None]]:
        """Groups with their images; None where these are at hand. None is begun that would end after `end`."""
        last = 0.0
        for group in groups:
            now = time.monotonic()
            if self._at_hand(group):
                yield group, None
            elif end is None or now + last <= end:
                yield group, feature_visualization(self.scope, group.layer, group.units, **self._settings)
                last = time.monotonic() - now

    def _on_cluster(
        self, cluster: Cluster, groups: Sequence[Group], end: float | None
    ) -> Iterator[tuple[Group, FeatureVisualization | None]]:
        """The same on a cluster, in the order in which they are finished."""
        begun = dict[str, float]()
        longest = 0.0

        def jobs() -> Iterator[Group]:
            for group in groups:
                now = begun[str(group)] = time.monotonic()
                if (end is None or now + longest <= end) and not self._at_hand(group):
                    yield group

        def start(actor: Any, group: Group) -> Any:
            return actor.make.remote(group.layer, group.units)

        yield from ((group, None) for group in groups if self._at_hand(group))
        threads = torch.get_num_threads()
        arguments = (cluster.settings, self.scope.resolve("optimize"), threads, self._settings)
        for group, made in cluster.each(jobs(), ImageActor, arguments, start, threads=threads):
            longest = max(longest, time.monotonic() - begun[str(group)])
            yield group, made

    @property
    def _settings(self) -> dict[str, Any]:
        return {"copies": self.options.copies, "recipe": self.plan, "seed": self.seed}

    def _at_hand(self, group: Group) -> bool:
        """Whether its images are made, or in a gallery."""
        return all(self._is_made(path, group.asked) for path in self._paths(group).values()) or any(
            self._kept(unit, group.asked) for unit in group.units
        )

    def _paths(self, group: Group) -> dict[tuple[int, int], Path]:
        """The file of each unit and copy."""
        return {
            (unit, copy): self.root / addresses.unit_image(group.layer, unit, copy, self.options.suffix)
            for unit in group.units
            for copy in range(self.options.copies)
        }

    def _groups(self, site: Site, several: int) -> Iterator[Group]:
        """Units whose images are optimized together, in order of interest: some of every layer, then the next of every layer.

        Args:
            site: The site.
            several: The most that go together. An image does not depend on the others.
        """
        touched = site.content.touched()
        orders: list[Group] = []
        for name, units in self.options.units.items():
            order = site.content.interest(name)
            if name == OUTPUT:
                order = sorted(order, key=lambda unit: unit not in touched)
            goal = goal_of(self.scope, name, list(units), None, None, self.options.copies, 0.0, self.plan)
            orders.append(Group(name, order, asked_of(self.scope, goal, self.seed)))
        if all(len(self.options.units[name]) == self.scope.layers[name].channels for name in self.work.layers):
            orders.reverse()  # classes first: they are what most people look at, unless they have chosen units
        parts: list[list[Group]] = []
        for layer in orders:
            taken = [unit for unit in layer.units if self._kept(unit, layer.asked)]
            own = [unit for unit in layer.units if unit not in taken]
            chunks = [units[first : first + several] for units in (taken, own) for first in range(0, len(units), several)]
            parts.append([Group(layer.layer, chunk, layer.asked) for chunk in chunks])
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

    def _finished(self, group: Group) -> bool:
        """Whether all images and projections of a group are there; removes images made otherwise."""
        made = [self._is_made(path, group.asked) for path in self._paths(group).values()]
        whole = all(made)
        if self.projecting and group.layer != OUTPUT:
            files = {unit: self.root / addresses.unit_projections(group.layer, unit, self.options.suffix) for unit in group.units}
            whole &= all(path.exists() or self._silent(group.layer, unit) for unit, path in files.items())
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

    def _write(self, group: Group, made: FeatureVisualization | None) -> None:
        """Writes the images of a group that are missing: as they were made, or (None) from a gallery."""
        paths = self._paths(group)
        if made is not None:
            images, receipts = made.images, [receipt(made, index) for index in range(len(paths))]
            pixels = [shown(made, image) for image in images]
        elif kept := [image for unit in group.units for image in self._kept(unit, group.asked)]:
            pixels = [image.image for image in kept]
            images, receipts = np.stack(pixels), [dict(image.receipt) for image in kept]
        else:
            return
        ranks, companions = self._excited(group.layer, images, [unit for unit, _ in paths])
        for index, path in enumerate(paths.values()):
            if not self._is_made(path, group.asked):
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
        pairs = [(crop, pixels) for crop in crops if (pixels := self.work.photograph(crop.row)) is not None]
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
