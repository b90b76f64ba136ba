"""What an atlas shows beside its survey: order of the units, connections, maps on images, first kernels, the live page's network."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import torch

from convscope.errors import BadInput
from convscope.files import atomic_write
from convscope.galleries.atlas_work import DATA, Work
from convscope.galleries.live_network import live_network
from convscope.graph.connections import connections
from convscope.names import OUTPUT
from convscope.progress import task
from convscope.receipts import png_bytes
from convscope.site import addresses
from convscope.site.arrangement import arrange
from convscope.site.build import Site
from convscope.site.content import directions
from convscope.site.live import MODEL, RECORD, Live, embedded, packed
from convscope.site.tables import ARRANGEMENT, ATTRIBUTION, CONNECTIONS, MAPS, Attributions, Maps
from convscope.techniques.unit_attribution import log_odds
from convscope.techniques.weight_grid import weight_grid

_log = logging.getLogger("convscope")
_CHECKED = 4
"""Images that the network of the live page is checked on."""
_STRONGEST, _MAPS = 8, 4
LARGEST_FOLDER = 2_000


def write_tables(work: Work) -> None:
    """Writes the tables that the pages read beside the survey."""
    for name, make in ((ARRANGEMENT, lambda: _arrangement(work)), (CONNECTIONS, lambda: _connections(work))):
        work.write_table(name, make)
    _first_weights(work)


def write_maps(work: Work) -> Maps:
    """Writes the table of maps, which takes a second pass over the images, and reads it."""
    work.write_table(MAPS, lambda: _maps(work))
    return Maps.read(work.root)


def write_attributions(work: Work, site: Site) -> Attributions:
    """Writes the table of the units behind each class's verdicts, another pass over the images, and reads it."""
    work.write_table(ATTRIBUTION, lambda: _attributions(work, site))
    return Attributions.read(work.root)


def write_live_network(work: Work, site: Site) -> None:
    """Adds the network to the live page, or the reason why it cannot be there."""
    known = Live.read(work.root)
    if known is not None and not known.reason and known.key == work.key and (work.root / MODEL).exists():
        return
    places = {name: place for name in work.layers if (place := work.scope.layers.own_place(name)) is not None}
    rows = np.linspace(0, len(work.survey) - 1, min(_CHECKED, len(work.survey))).round().astype(int)
    images = [pixels for row in rows.tolist() if (pixels := work.photograph(row)) is not None]
    try:
        if not images:
            raise BadInput("none of its images is there to check it with")
        made = live_network(work.scope, work.layers, np.stack(images)[:, : work.scope.inputs.channel_count])
    except BadInput as error:
        _log.warning("the live page is without the network: %s", error.message)
        found = Live(error.message, work.key, places=places)
    else:
        site.writer.write(MODEL, embedded("model", packed(made.data)))
        found = Live("", work.key, made.precision, len(made.data), made.difference, made.images, places)
    site.writer.write(f"{DATA}/{RECORD}", found.text())


def _arrangement(work: Work) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {key: [] for key in ("layer", "unit", "place", "x", "y")}
    names = [*work.layers, OUTPUT]
    with task("arranging units", len(names)) as advance:
        for name in names:
            placed = arrange(directions(work.survey.mean(name)))
            columns["layer"] += [name] * len(placed)
            columns["unit"] += range(len(placed))
            columns["place"] += placed[:, 0].astype(int).tolist()
            for key, values in (("x", placed[:, 1]), ("y", placed[:, 2])):
                columns[key] += [None if np.isnan(value) else float(value) for value in values]
            advance()
    return columns


def _connections(work: Work) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {key: [] for key in ("from_layer", "from_unit", "to_layer", "to_unit", "weight")}
    nodes = {name: node for name in [*work.layers, OUTPUT] if (node := work.scope.layers[name].node) is not None}
    for block in connections(work.scope.graph, nodes):
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


def _maps(work: Work) -> dict[str, Any]:
    """Maps of the units with the highest mean in the deepest layer that has maps, on every image."""
    keys = ("image", "layer", "unit", "rank", "maximum", "height", "width", "values", "place")
    columns: dict[str, list[Any]] = {key: [] for key in keys}
    spatial = [name for name in work.layers if work.survey.layer(name).height * work.survey.layer(name).width >= 9]
    if not spatial or len(work.survey) > LARGEST_FOLDER:
        return columns
    name = spatial[-1]
    units = np.argsort(-work.survey.mean(name), axis=1, kind="stable")[:, :_MAPS]
    place = work.place(name, (work.survey.layer(name).height, work.survey.layer(name).width))
    several = work.scope.fitting(work.scope.inputs.height * work.scope.inputs.width)
    with task("maps", len(work.survey)) as advance, torch.no_grad():
        for first in range(0, len(work.survey), several):
            wanted = range(first, min(first + several, len(work.survey)))
            batch = {row: pixels for row in wanted if (pixels := work.photograph(row)) is not None}
            advance(len(wanted))
            if not batch:
                continue
            images = np.stack(list(batch.values()))[:, : work.scope.inputs.channel_count]
            maps = work.scope.run(torch.from_numpy(images), name, channels_first=True)[name].cpu().numpy()
            for row, own in zip(batch, maps, strict=True):
                for rank, unit in enumerate(units[row].tolist()):
                    high = float(own[unit].max())
                    if high > 0:
                        shown = np.rint(np.clip(own[unit] / high, 0, 1) * 255).astype(np.uint8)
                        found = int(work.survey.ids[row]), name, unit, rank, high, *shown.shape, shown.tobytes(), place
                        for key, value in zip(keys, found, strict=True):
                            columns[key].append(value)
    return columns


def _attributions(work: Work, site: Site) -> dict[str, Any]:
    """For each class, the units of the last layers with maps that raise its log-odds most on images taken for it.

    Activation times derivative, as :func:`~convscope.unit_attribution` estimates before it measures.
    """
    columns: dict[str, list[Any]] = {key: [] for key in ("class", "group", "images", "layer", "unit", "value")}
    content, layers = site.content, work.scope.layers.last_with_maps(work.layers)
    if not layers or content.predictions is None or len(work.survey) > LARGEST_FOLDER:
        return columns
    sums: dict[tuple[int, str], np.ndarray] = {}
    counts: Counter[tuple[int, str]] = Counter()
    several = work.scope.fitting(work.scope.inputs.height * work.scope.inputs.width)
    with task("units behind verdicts", len(work.survey)) as advance:
        for first in range(0, len(work.survey), several):
            wanted = range(first, min(first + several, len(work.survey)))
            batch = {row: pixels for row in wanted if (pixels := work.photograph(row)) is not None}
            if batch:
                targets = torch.from_numpy(content.ranked[list(batch), 0].astype(np.int64))
                images = torch.from_numpy(np.stack(list(batch.values()))[:, : work.scope.inputs.channel_count])
                try:
                    values = np.concatenate([_attributed(work, name, images, targets) for name in layers], 1)
                except BadInput as error:
                    _log.warning("no units behind verdicts: %s", error.message)
                    return {key: [] for key in columns}
                for row, target, own in zip(batch, targets.tolist(), values, strict=True):
                    group = "unknown" if content.truth[row] < 0 else "right" if content.right[row] else "wrong"
                    sums[target, group] = sums.get((target, group), 0) + own
                    counts[target, group] += 1
            advance(len(wanted))
    names = [(name, unit) for name in layers for unit in range(work.scope.layers[name].channels)]
    for (target, group), total in sorted(sums.items()):
        mean = total / counts[target, group]
        for place in np.argsort(-mean, kind="stable")[:_STRONGEST].tolist():
            if mean[place] > 0:
                for key, value in zip(columns, (target, group, counts[target, group], *names[place], float(mean[place])), strict=True):
                    columns[key].append(value)
    return columns


def _attributed(work: Work, name: str, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Activation times derivative of the log-odds of the target, summed over positions, (n unit) float64."""

    def score(logits: torch.Tensor) -> torch.Tensor:
        return log_odds(logits.double(), targets.to(logits.device), None)

    values, slopes, _ = work.scope.layer_gradient(images, name, score)
    return work.scope.layers[name].units_first(values * slopes).flatten(2).sum(2).double().cpu().numpy()


def _first_weights(work: Work) -> None:
    """Writes the kernels of layers that read the image, as one mosaic in colour."""
    found = work.scope.layers.of_kind("Conv2d")
    first = next(iter(found.values()), None)
    name = next(iter(work.scope.layers.after_relu()), "")
    if first is None or name not in work.layers or work.scope.weights_of(first.name).shape[1] != 3:
        return
    shown = weight_grid(work.scope, first.name).shown
    count, _, height, width = shown.shape
    zoom, across = max(1, 48 // max(height, width)), 16
    down = -(-count // across)
    cell = height * zoom + 2, width * zoom + 2
    sheet = np.ones((3, down * cell[0], min(across, count) * cell[1]), np.float32)
    for place, kernel in enumerate(shown):
        y, x = place // across * cell[0], place % across * cell[1]
        sheet[:, y : y + height * zoom, x : x + width * zoom] = kernel.repeat(zoom, 1).repeat(zoom, 2)
    path = work.root / addresses.layer_weights(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, png_bytes(sheet, {"technique": "weight_grid", "layer": first.name}))
