"""Makes an image again from its receipt, the record of how it was made that the file holds, and compares the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convscope.errors import BadInput, ConvscopeError, StoreConflict
from convscope.files import check_form, local_path
from convscope.image_files import read_bytes
from convscope.optimize.objective import Objective
from convscope.optimize.objectives import from_description
from convscope.optimize.recipes import MOST, Recipe
from convscope.preprocessing import decode
from convscope.receipts import LOSSY, published_bytes, read_receipt, to_bytes
from convscope.results.base import Result
from convscope.results.channels import shown, shown_size
from convscope.scope import Scope
from convscope.techniques.feature_visualization import MOST_COPIES, MOST_DIVERSITY, ObjectiveLike, at_once, feature_visualization
from convscope.text import one_line, printable
from convscope.zoo.recorded import check_recorded, open_recorded

_TABLE = {"type": "object"}
_TEXT = {"type": "string"}
_RECEIPT = {
    "required": ["network", "parameters", "recipe", "group", "unit", "copy", "device", "precision", "fast"],
    "properties": {
        "network": _TABLE,
        "parameters": {
            "type": "object",
            "required": ["layer", "copies", "diversity", "seed"],
            "properties": {
                "layer": _TEXT,
                "copies": {"type": "integer", "minimum": 1, "maximum": MOST_COPIES},
                "diversity": {"type": "number", "minimum": 0, "maximum": MOST_DIVERSITY},
                "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
            },
        },
        "recipe": {  # bounds beside those of every recipe
            "type": "object",
            "required": ["name", "parameterization"],
            "properties": {
                "name": _TEXT,
                "pad": {"type": "integer", "minimum": 0},
                "patience": {"type": "integer", "minimum": 0},
            },
        },
        "group": {"type": "array", "minItems": 1, "items": {"type": ["integer", "null"], "minimum": 0}},
        "unit": {"type": ["integer", "null"]},
        "copy": {"type": "integer", "minimum": 0},
        "device": {"type": "string", "pattern": r"^(cpu|cuda(:\d{1,3})?|mps)$"},
        "precision": {"enum": ["float32", "bfloat16"]},
        "fast": {"type": "boolean"},
    },
}
"""What a receipt must hold before anything in it is used."""


@dataclass(frozen=True)
class Redone:
    """What came of making an image again.

    Attributes:
        image: The new image, (rgb h w) in [0,1].
        equal: Whether all its 8-bit pixels equal the original's.
        largest: The largest difference of a pixel, in 1/255.
        mean: The mean difference, in 1/255.
        verdict: The same in words.
    """

    image: np.ndarray
    equal: bool
    largest: int
    mean: float
    verdict: str


def redo(
    image: str | Path,
    *,
    scope: Scope | None = None,
    weights: str | Path | None = None,
    objective: ObjectiveLike = None,
    penalty: Objective | None = None,
) -> Redone:
    """Makes an image again from its receipt.

    A receipt may name a network of torchvision, timm or convscope and the weights published with it. Code and files are never taken from
    it: a network or objective of your own, and a file of weights, must be given.

    Args:
        image: A PNG written by :func:`~convscope.gallery`, or an image of a unit in an atlas. What is lossy is compared as it would be
            written.
        scope: The network, if it is one of your own; it is left as it is.
        weights: The file of weights, if it was made with one.
        objective: The objective, if it is not made of built-in ones.
        penalty: The penalty, if it is not made of built-in ones.

    Returns:
        The new image and how it differs.

    Raises:
        StoreConflict: No receipt in that file, or a damaged one.
        BadInput: The receipt names a network, weights or objective that only the caller can give.
        BadWeights: The network has other weights than the one that made the image.
    """
    path = local_path(image)
    receipt = read_receipt(path)
    if "group" not in receipt:
        raise BadInput(f"{path}: made by {receipt.get('technique')}; only single feature visualizations can be redone")
    try:
        check_form(receipt, _RECEIPT)
        network, parameters, group = receipt["network"], receipt["parameters"], list(receipt["group"])
        if len(group) > at_once(parameters["copies"]):
            raise ValueError(f"{len(group)} units at once")
        if len(set(group)) < len(group) or receipt["copy"] >= parameters["copies"]:
            raise ValueError(f"copy {receipt['copy']} of {parameters['copies']}, units {group}")
        made_with = {key: receipt[key] for key in ("device", "precision", "fast")}
        asked = {key: parameters[key] for key in ("layer", "copies", "diversity", "seed")}
        row = group.index(receipt["unit"]) * int(asked["copies"]) + int(receipt["copy"])
        fields = dict(receipt["recipe"])
        recipe = Recipe(fields.pop("name"), fields["parameterization"]).changed(**fields)
        if recipe.steps * recipe.stages > MOST["steps"]:
            raise ValueError(f"{recipe.steps * recipe.stages} steps")
    except (KeyError, TypeError, ValueError) as error:
        raise StoreConflict(f"{path}: its receipt is damaged ({one_line(error, 300)})") from None
    old = _pixels(read_bytes(path), path)
    scope = _scope(path, network, made_with, scope, weights)
    check_recorded(scope, network, path)
    if objective is None and receipt.get("objective") is not None:
        objective = _objective(path, group, receipt["objective"])
    if penalty is None and receipt.get("penalty") is not None:
        penalty = _made_again(path, "penalty", receipt["penalty"])
    side = recipe.sides(max(scope.inputs.height, scope.inputs.width))[-1]
    if old.shape[:2] != (size := shown_size(Result(manifest=receipt), scope.inputs.channel_count, side, side)):
        raise BadInput(f"{path}: has {old.shape[:2]} pixels, its receipt makes {size}")
    try:
        # Rounding may depend on what goes through the network together, so the image gets the same other images in its batch.
        result = feature_visualization(
            scope,
            asked.pop("layer"),
            None if isinstance(objective, Objective) else group,
            objective=objective,
            penalty=penalty,
            recipe=recipe,
            **asked,
        )
    except ConvscopeError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as error:  # a number that no transform can use, say
        raise StoreConflict(f"{path}: what its receipt asks for cannot be made ({one_line(error, 300)})") from None
    made = shown(result, result.images[row])
    new = to_bytes(made).astype(int) if path.suffix not in LOSSY else _pixels(published_bytes(made, None, path.suffix), path)
    gap = np.abs(new - old)
    equal = not gap.any()
    words = "bit-equal" if equal else f"not bit-equal: largest difference {gap.max()}/255, mean {gap.mean():.3g}/255"
    return Redone(made, equal, int(gap.max()), float(gap.mean()), words)


def _pixels(data: bytes, path: Path) -> np.ndarray:
    """The pixels of an image file's bytes, (h w 3), wide enough for differences."""
    return np.asarray(decode(data, printable(path))[0]).astype(int)


def _scope(path: Path, network: Mapping[str, Any], made_with: Mapping[str, Any], given: Scope | None, weights: str | Path | None) -> Scope:
    """The network that made the image, in the precision that it was made in."""
    if given is not None:
        settings = {key: made_with[key] for key in ("precision", "fast")}
        return Scope(given.model, given.inputs, **settings, name=given.name, weights=given.weights, output=given.output)
    return open_recorded(network, path, weights=weights, **made_with)


def _objective(path: Path, group: list[int | None], descriptions: Any) -> ObjectiveLike:
    """The objective of every unit that was in the batch."""
    if not isinstance(descriptions, list) or len(descriptions) != len(group):
        raise StoreConflict(f"{path}: its receipt is damaged (objectives of {group})")
    made = [_made_again(path, "objective", description) for description in descriptions]
    if group == [None]:
        return made[0]
    by_unit = dict(zip(group, made, strict=True))
    return lambda unit: by_unit[unit]


def _made_again(path: Path, what: str, description: Any) -> Objective:
    try:
        return from_description(description)
    except BadInput as error:
        raise BadInput(f"{path}: its {what} cannot be made again: {error.message}; give it as `{what}` (--{what})") from None
