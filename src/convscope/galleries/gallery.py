"""A folder of unit pictures: written group by group, resumable, every picture with its receipt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from convscope.errors import StoreConflict
from convscope.names import unit_file_name
from convscope.optimize.recipes import Recipe, find_recipe
from convscope.progress import task
from convscope.receipts import read_receipt, write_png
from convscope.render.contact_sheet import contact_sheet
from convscope.render.panels import Image
from convscope.results.provenance import describe
from convscope.scope import Scope, Units
from convscope.techniques.feature_visualization import AT_ONCE, FeatureVisualization, feature_visualization

MARGIN = 16
"""White pixels around a sheet."""


@dataclass(frozen=True)
class Gallery:
    """A finished folder of pictures.

    Attributes:
        folder: Where it is.
        pictures: {unit: path of its PNG}.
        status: {unit: "converged", "rescued" or "stuck"}.
        made: Units made by this call; the others were there already.
    """

    folder: Path
    pictures: dict[int, Path]
    status: dict[int, str]
    made: tuple[int, ...]


def gallery(
    scope: Scope,
    layer: str,
    units: Units,
    out: str | Path,
    *,
    recipe: str | Recipe = "crops",
    seed: int = 0,
    **numbers: Any,
) -> Gallery:
    """Makes the pictures of many units into a folder, as `unit_0012.png`, each with its receipt.

    Units whose picture is there already, with the same question in its receipt, are skipped, so an interrupted run is resumed by
    calling it again. Memory does not grow with the number of units.

    Args:
        scope: The network.
        layer: Layer name.
        units: Unit numbers; None for all.
        out: The folder; made if need be.
        recipe: As for :func:`~convscope.feature_visualization`.
        seed: Seed.
        numbers: Numbers of the recipe to replace.

    Raises:
        StoreConflict: The folder holds pictures made with other parameters.
    """
    folder = Path(out)
    wanted = scope.units(layer, units)
    plan = find_recipe(recipe, **numbers)
    question = {
        "layer": layer,
        "recipe": describe(plan),
        "seed": seed,
        "weights_hash": scope.weights_hash,
        "precision": scope.resolve("optimize"),
    }
    paths = {number: folder / unit_file_name(number) for number in wanted}
    status = {number: _finished(path, question) for number, path in paths.items() if path.exists()}
    missing = [number for number in wanted if number not in status]
    groups = [wanted[first : first + AT_ONCE] for first in range(0, len(wanted), AT_ONCE)]
    # A group that was interrupted is made again as a whole: rounding may depend on what goes through the network together.
    groups = [group for group in groups if not status.keys() >= set(group)]
    folder.mkdir(parents=True, exist_ok=True)
    steps = plan.stages * plan.steps
    with task(f"{layer}: {len(missing)} of {len(wanted)} pictures to make", sum(map(len, groups)) * steps) as advance:
        for group in groups:
            result = feature_visualization(scope, layer, group, recipe=plan, seed=seed)
            for index, number in enumerate(group):
                if number not in status:
                    write_png(paths[number], result.images[index], receipt(result, index))
                    status[number] = result.status[index]
            advance(len(group) * steps)
    return Gallery(folder, paths, status, tuple(missing))


def write_sheet(made: Gallery, title: str) -> Path:
    """All pictures of a gallery on one sheet, `sheet.png` in its folder; what is stuck is marked."""
    tiles: list[Image] = []
    for number, path in made.pictures.items():
        found = read_receipt(path)
        label = f"{number} {found['label']}".strip()
        stuck = "stuck" if made.status[number] == "stuck" else None
        tiles.append(Image(np.asarray(Pillow.open(path), np.float32).transpose(2, 0, 1) / 255, label, f"{found['score']:.3g}", stuck))
    sheet = np.pad(contact_sheet(tiles, title=title, side=160), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255)
    recipe = read_receipt(next(iter(made.pictures.values())))["recipe"]["name"] if made.pictures else ""
    return write_png(made.folder / "sheet.png", sheet, {"technique": "contact_sheet", "title": title, "recipe": recipe})


def receipt(result: FeatureVisualization, index: int) -> dict[str, Any]:
    """The receipt of one unit's picture: everything that is needed to make it again."""
    manifest = dict(result.manifest)
    return manifest | {
        "unit": result.units[index],
        "label": result.labels[index],
        "status": result.status[index],
        "reason": result.reasons[index],
        "score": float(result.scores[index]),
        "before_relu": float(result.before_relu[index]),
        "after_relu": float(result.after_relu[index]),
        "group": list(result.units),
    }


def _finished(path: Path, question: dict[str, Any]) -> str:
    """The status of a picture that is there already, if it answers the same question."""
    found = read_receipt(path)
    parameters = found.get("parameters", {})
    answered = {
        "layer": parameters.get("layer"),
        "recipe": found.get("recipe"),
        "seed": parameters.get("seed"),
        "weights_hash": found.get("network", {}).get("weights_hash"),
        "precision": found.get("precision"),
    }
    if json.loads(json.dumps(question)) != answered:
        differing = [key for key, value in json.loads(json.dumps(question)).items() if answered[key] != value]
        raise StoreConflict(f"{path} was made with another {', '.join(differing)}; choose another folder, or delete it")
    return str(found["status"])
