"""The images of an atlas's units by feature visualization, and the projections of their strongest images."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convscope.errors import BadImage, BadInput, StoreConflict
from convscope.files import atomic_write
from convscope.galleries.atlas_work import Work
from convscope.galleries.gallery import asked_of, differences, receipt
from convscope.names import OUTPUT
from convscope.optimize.recipes import Recipe
from convscope.progress import task
from convscope.receipts import published_bytes, read_receipt
from convscope.results.channels import shown
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


class UnitImages:
    """The images of the units of an atlas.

    Args:
        work: What the parts of making an atlas share.
        plan: How images are made.
        seed: Seed of all draws.
        pictures: Galleries that images are taken from.
    """

    def __init__(self, work: Work, plan: Recipe, seed: int, pictures: Sequence[Path]) -> None:
        self.work, self.plan, self.seed, self.pictures = work, plan, seed, pictures
        self.scope, self.survey, self.root, self.options = work.scope, work.survey, work.root, work.options
        self.projecting = bool(work.options.projections)

    def make(self, site: Site, end: float | None) -> tuple[int, int]:
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
        if all(len(self.options.units[name]) == self.scope.layers[name].channels for name in self.work.layers):
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
