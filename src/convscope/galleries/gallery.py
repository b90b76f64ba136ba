"""Makes galleries: a folder of feature visualizations, resumable, every image with its receipt."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from convscope.errors import StoreConflict
from convscope.files import atomic_write, jsonable, local_path
from convscope.names import Units, layer_name
from convscope.optimize.film import filming
from convscope.optimize.objective import Objective
from convscope.optimize.recipes import DEFAULT, Recipe, RecipeName, find_recipe
from convscope.progress import task
from convscope.receipts import film_bytes, to_bytes, write_png
from convscope.results.channels import shown
from convscope.results.feature_visualization import FeatureVisualization
from convscope.results.gallery import Gallery, GalleryImage, Saved, image_name
from convscope.results.provenance import check_seed, describe
from convscope.scope import Scope
from convscope.techniques.feature_visualization import Goal, ObjectiveLike, at_once, feature_visualization, goal_of


def gallery(
    scope: Scope,
    layer: str,
    units: Units,
    out: str | Path,
    *,
    objective: ObjectiveLike = None,
    penalty: Objective | None = None,
    copies: int = 1,
    diversity: float = 0.0,
    recipe: RecipeName | Recipe = DEFAULT,
    seed: int = 0,
    film: bool = False,
    **changes: Any,
) -> Gallery:
    """Makes a gallery: the feature visualizations of many units in a folder, as `unit_0012.png`, each with its receipt.

    Images that are there already, made with the same parameters, network and inputs, are skipped, so an interrupted run is resumed by
    calling it again. Memory does not grow with the number of units.

    Args:
        scope: The network.
        layer: Layer name.
        units: Unit numbers; None for all.
        out: The folder; made if need be.
        objective, penalty, copies, diversity, recipe: As for :func:`~convscope.feature_visualization`. Further copies are
            `unit_0012_copy1.png`; the image of an objective that is not of one unit is `objective.png`.
        seed: Seed.
        film: Also write the optimization of each image as an animated WebP, `unit_0012.webp`. The images are the same.
        changes: Recipe parameters to replace.

    Returns:
        The gallery, as :func:`~convscope.read_gallery` reads it, with the images of `units` alone.

    Raises:
        StoreConflict: The folder holds images made with other parameters, or with an objective that has no name.
    """
    folder, layer = local_path(out), layer_name(layer, scope.layers)
    check_seed(seed)
    plan = find_recipe(recipe, **changes)
    goal = goal_of(scope, layer, units, objective, penalty, copies, diversity, plan)
    images = {number: [GalleryImage(number, copy, folder / image_name(number, copy)) for copy in range(copies)] for number in goal.units}
    asked = asked_of(scope, goal, seed)
    finished: set[Path] = set()
    for image in [image for several in images.values() for image in several if image.path.exists()]:
        name = "" if image.unit is None else scope.unit_names(layer, [image.unit])[0]
        _check(image, asked | {"class name": name}, goal)
        if not film or image.film.exists():
            finished.add(image.path)
    several = at_once(copies)
    groups = [goal.units[first : first + several] for first in range(0, len(goal.units), several)]
    # A group that was interrupted is made again as a whole: rounding may depend on what goes through the network together.
    groups = [group for group in groups if any(image.path not in finished for number in group for image in images[number])]
    folder.mkdir(parents=True, exist_ok=True)
    steps, made, taken, seconds = plan.stages * plan.steps, list[Path](), list[int](), 0.0
    missing = sum(image.path not in finished for several in images.values() for image in several)
    with task(f"{layer}: {missing} of {len(goal.units) * copies} images to make", sum(map(len, groups)) * copies * steps) as advance:
        for group in groups:
            wanted = {} if isinstance(objective, Objective) else {"units": [number for number in group if number is not None]}
            begun = time.monotonic()
            with filming() if film else nullcontext() as shot:
                result = feature_visualization(
                    scope,
                    layer,
                    **wanted,
                    objective=objective,
                    penalty=penalty,
                    copies=copies,
                    diversity=diversity,
                    recipe=plan,
                    seed=seed,
                )
            seconds += time.monotonic() - begun
            taken += result.manifest.get("steps_taken", [])
            for index, image in enumerate(image for number in group for image in images[number]):
                if image.path not in finished:
                    final = shown(result, result.images[index])
                    if shot is not None:
                        frames = [shown(result, frame) for frame in shot.frames((image.unit, image.copy))]
                        atomic_write(image.film, film_bytes([*frames, to_bytes(final).transpose(2, 0, 1)]))
                    made.append(write_png(image.path, final, receipt(result, index)))
            advance(len(group) * copies * steps)
    left_out = len(taken) * steps - sum(taken)
    saved = Saved(left_out, len(taken) * steps, seconds * left_out / max(1, sum(taken))) if taken else None
    return Gallery(folder, tuple(image for several in images.values() for image in several), tuple(made), saved)


def receipt(result: FeatureVisualization, index: int) -> dict[str, Any]:
    """The receipt of one image: everything that is needed to make it again."""
    known = dict(result.manifest)
    taken = known.pop("steps_taken", None)
    return (
        known
        | ({} if taken is None else {"steps_taken": taken[index]})
        | {
            "unit": result.units[index],
            "copy": result.copies[index],
            "unit_name": result.unit_names[index],
            "status": result.status[index],
            "reason": result.reasons[index],
            "score": float(result.scores[index]),
            "before_relu": float(result.before_relu[index]),
            "after_relu": float(result.after_relu[index]),
            "maximized": result.objectives[index],
            "group": list(dict.fromkeys(result.units)),
        }
        | ({"network_sees": [*result.verdicts[index], result.verdict_names[index]]} if result.verdicts else {})
    )


def asked_of(scope: Scope, goal: Goal, seed: int) -> dict[str, Any]:
    """What all images of a gallery have in common, as their receipts hold it."""
    return jsonable(
        {
            "layer": goal.layer,
            "recipe": describe(goal.recipe),
            "seed": seed,
            "weights_hash": scope.weights_hash,
            "preprocessing": scope.inputs.manifest(),
            "output": scope.output,
            "precision": scope.resolve("optimize"),
            "fast": scope.fast,
            "penalty": goal.penalty and goal.penalty.describe(),
            "copies": goal.copies,
            "diversity": goal.diversity,
        }
    )


def differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What of :func:`asked_of` an image was not made with, by its receipt."""
    parameters, network = found.get("parameters", {}), found.get("network", {})
    answered = {key: parameters.get(key) for key in ("layer", "seed", "copies", "diversity")}
    answered |= {"weights_hash": network.get("weights_hash"), "preprocessing": network.get("inputs"), "output": network.get("output")}
    answered |= {key: found.get(key) for key in ("recipe", "precision", "fast", "penalty")}
    answered |= {"class name": found.get("unit_name", "")}
    return [key for key, value in asked.items() if answered[key] != value]


def _check(image: GalleryImage, asked: Mapping[str, Any], goal: Goal) -> None:
    """Refuses an image that is there already, unless it was made with the same parameters."""
    found = image.receipt
    differing = differences(found, asked)
    own = None if goal.objectives is None else goal.objectives[image.unit]
    made_of = found.get("objective")
    group = found.get("group", [])
    if made_of is not None:
        made_of = made_of[group.index(image.unit)] if image.unit in group and len(made_of) == len(group) else {}
    if made_of != (None if own is None else json.loads(json.dumps(own.describe()))):
        differing.append("objective")
    if differing:
        raise StoreConflict(f"{image.path} was made with another {', '.join(differing)}; choose another folder, or delete it")
    if not all(one.named for one in (own, goal.penalty) if one is not None):
        raise StoreConflict(
            f"{image.path} is there already, made with an objective that has no name, perhaps another one: "
            "make it with convscope.objectives.named, choose another folder, or delete the image"
        )
