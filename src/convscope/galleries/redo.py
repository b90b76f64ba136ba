"""A picture made again from its receipt, and held against the original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from convscope.errors import BadInput, BadWeights
from convscope.optimize.recipes import Recipe
from convscope.receipts import read_receipt
from convscope.scope import Scope
from convscope.techniques.feature_visualization import feature_visualization
from convscope.zoo import open as open_network


@dataclass(frozen=True)
class Redone:
    """What came of making a picture again.

    Attributes:
        image: The new picture, (rgb h w) in [0,1].
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


def redo(picture: str | Path, *, scope: Scope | None = None, weights: str | Path | None = None) -> Redone:
    """Makes a picture again from the receipt in its PNG.

    Args:
        picture: A PNG written by :func:`~convscope.gallery`.
        scope: The network, if the receipt's name cannot be opened (a network of your own).
        weights: Where the weights are now, if they have moved.

    Returns:
        The new picture and how it differs.

    Raises:
        StoreConflict: No receipt in that file.
        BadWeights: The network has other weights than the one that made the picture.
    """
    receipt = read_receipt(Path(picture))
    if "group" not in receipt:
        raise BadInput(f"{picture}: made by {receipt.get('technique')}; only single feature visualizations can be redone")
    network = receipt["network"]
    if scope is None:
        scope = open_network(
            network["name"],
            weights=weights or network["weights"],
            device=receipt["device"],
            precision=receipt["precision"],
            fast=receipt["fast"],
        )
    if scope.weights_hash != network["weights_hash"]:
        raise BadWeights(f"{picture}: made with weights {network['weights_hash']}, but {scope.name} has {scope.weights_hash}")
    numbers = dict(receipt["recipe"])
    recipe = Recipe(numbers.pop("name"), numbers["image"]).changed(**numbers)
    parameters = receipt["parameters"]
    # Rounding may depend on what goes through the network together, so the picture gets the mates that it had.
    mates = receipt["group"]
    before, scope.precision = scope.precision, receipt["precision"]
    try:
        result = feature_visualization(scope, parameters["layer"], mates, recipe=recipe, seed=parameters["seed"])
    finally:
        scope.precision = before
    image = result.images[mates.index(receipt["unit"])]
    new = np.round(image.transpose(1, 2, 0) * 255).astype(int)
    old = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    if new.shape != old.shape:
        raise BadInput(f"{picture}: has {old.shape[:2]} pixels, its receipt makes {new.shape[:2]}")
    gap = np.abs(new - old)
    equal = not gap.any()
    words = "bit-equal" if equal else f"not bit-equal: largest difference {gap.max()}/255, mean {gap.mean():.3g}/255"
    return Redone(image, equal, int(gap.max()), float(gap.mean()), words)
