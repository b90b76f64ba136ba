"""The occlusion maps of an atlas's images, and the strips of their strongest maps layer by layer."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch

from convscope.errors import BadInput
from convscope.galleries.atlas_work import DATA, Work
from convscope.progress import task
from convscope.results.occlusion import patch_for
from convscope.site.build import Site
from convscope.site.tables import STUDIES, Studies, is_current, write_table
from convscope.techniques.activation_grid import activation_grid
from convscope.techniques.occlusion import occlusion

_log = logging.getLogger("convscope")
_FINEST = 56
"""Sides of the maps that are kept of occlusion and of strips."""


def write_occlusions(work: Work, site: Site, most: int, end: float | None) -> None:
    """Adds occlusion maps and strips of layers, one image after another, the worst mistakes first."""
    studies = Studies.read(work.root) if is_current(work.root / DATA, STUDIES, work.key) else Studies()
    paged = [row for row in site.content.foremost_images() if int(work.survey.ids[row]) in site.stored]
    missing = [row for row in paged[:most] if int(work.survey.ids[row]) not in studies.of]
    last = 0.0
    with task(f"occlusion of {len(missing)} images", len(missing)) as advance:
        for row in missing:
            now = time.monotonic()
            if end is not None and now + last > end:
                return
            try:
                found = _studied(work, site, row)
            except BadInput as error:
                _log.warning("no occlusion maps: %s", error.message)
                return
            if found is not None:
                studies.add(found)
                columns = {key: [one[key] for one in studies.rows] for key in found}
                write_table(work.root / DATA, STUDIES, columns, work.key)
                site.content.studies = studies
                site.write_image(found["image"])
            last = time.monotonic() - now
            advance()


def _studied(work: Work, site: Site, row: int) -> dict[str, Any] | None:
    """An image's row of the table; None if its file is gone."""
    pixels = work.photograph(row)
    if pixels is None:
        return None
    image = torch.from_numpy(pixels[None, : work.scope.inputs.channel_count].copy())
    target, truth = int(site.content.ranked[row, 0]), int(site.content.truth[row])
    patch = patch_for(image.shape[2], image.shape[3])
    score = "logit" if site.content.predictions is None else "log-odds"
    found = occlusion(work.scope, image, target, score=score, patch=patch, stride=max(patch // 2, 1))
    lowest = np.unravel_index(int(found.map[0].argmin()), found.map[0].shape)
    drop = _reduced(found.drop[0])
    largest = float(np.abs(drop).max())
    names = [name for name in work.layers if (one := work.survey.layer(name)).height * one.width > 1]
    seen = activation_grid(work.scope, image, names) if names else None
    strip: list[dict[str, Any]] = []
    for name, unit, values in [] if seen is None else seen.strip():
        high, small = float(values.max()), _reduced(values)
        if high > 0:
            shown = np.rint(np.clip(small / small.max(), 0, 1) * 255).astype(np.uint8)
            shape = {"height": shown.shape[0], "width": shown.shape[1], "values": shown.tobytes()}
            y0, x0, y1, x1 = work.place(name, values.shape)
            by = [_step(side) for side in values.shape]
            ends = (one * step / side for one, step, side in zip(small.shape, by, values.shape, strict=True))
            down, across = ((end - start) * kept for (start, end), kept in zip(((y0, y1), (x0, x1)), ends, strict=True))
            shape["place"] = [y0, x0, y0 + down, x0 + across]
            strip.append({"layer": name, "unit": unit, "maximum": high} | shape)
    return {
        "image": int(work.survey.ids[row]),
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


def _step(side: int) -> int:
    """Sides of the blocks that a map's values are averaged over."""
    return max(-(-side // _FINEST), 1)


def _reduced(values: np.ndarray) -> np.ndarray:
    """A map (h w) with sides of at most `_FINEST`, each value the mean over a block of equal size, the last ones cut off."""
    step = [_step(side) for side in values.shape]
    height, width = (side // by for side, by in zip(values.shape, step, strict=True))
    cut = values[: height * step[0], : width * step[1]].astype(np.float64)
    return np.nan_to_num(cut.reshape(height, step[0], width, step[1]).mean((1, 3)))
