"""Recipes: complete sets of numbers for optimizing a picture, each a plain value that can be changed number by number."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from convscope.errors import BadInput
from convscope.names import near_names
from convscope.optimize.transforms import Crops, Robust, View


@dataclass(frozen=True)
class Recipe:
    """How a picture is optimized.

    Attributes:
        name: What it is called.
        image: How the picture is written as free numbers: "pixels", "normalized", "sigmoid" or "fourier".
        size: Side of the first picture in pixels; None: the network's own input side.
        stages: How often the picture is optimized, enlarged in between.
        factor: Enlargement between stages; sides are floor(factor * side).
        blur: Width of the box blur after each enlargement; None: no blur.
        start_range: Bounds of the 8-bit start noise; for "fourier" (0, standard deviation of the start).
        steps: Optimization steps per stage.
        optimizer: "adam", or "normalized": ascent along the gradient divided by its root mean square.
        rate: Learning rate of Adam, in the free numbers' units; step length of "normalized", in steps of 1/255.
        weight_decay: Adam's coupled weight decay. Even 1e-6 moves pixels without gradient at full speed: only for fidelity to S0 and S2.
        reduce: What of a unit's map is maximized: "mean", "sum" or "center".
        class_weight: On the "output" layer, weight of the class's log-odds added to its logit.
        view: How the picture is looked at: "whole", "crops" or "robust".
        crop_first, crop_last, crop_size: See :class:`~convscope.optimize.transforms.Crops`.
        pad, jitter, scale, rotate: See :class:`~convscope.optimize.transforms.Robust`.
        noise: Standard deviation of the noise laid over each look at the picture.
    """

    name: str
    image: Literal["pixels", "normalized", "sigmoid", "fourier"]
    size: int | None = None
    stages: int = 1
    factor: float = 1.0
    blur: int | None = None
    start_range: tuple[float, float] = (150, 180)
    steps: int = 20
    optimizer: Literal["adam", "normalized"] = "adam"
    rate: float = 0.1
    weight_decay: float = 0.0
    reduce: Literal["mean", "sum", "center"] = "mean"
    class_weight: float = 0.0
    view: Literal["whole", "crops", "robust"] = "whole"
    crop_first: tuple[float, float] = (0.6, 1.0)
    crop_last: tuple[float, float] = (0.2, 0.6)
    crop_size: int = 160
    pad: int = 12
    jitter: tuple[int, int] = (8, 4)
    scale: tuple[float, float] = (0.9, 1.1)
    rotate: float = 10.0
    noise: float = 0.0

    def sides(self, default: int) -> list[int]:
        """The picture's side in each stage; `default` where the recipe leaves the first one to the network."""
        sides = [self.size or default]
        for _ in range(self.stages - 1):
            sides.append(int(self.factor * sides[-1]))
        return sides

    def looking(self) -> View | None:
        """The view that it asks for; None: the picture is looked at as it is."""
        if self.view == "crops":
            return Crops(self.crop_first, self.crop_last, self.crop_size, self.noise)
        if self.view == "robust":
            return Robust(self.pad, self.jitter, self.scale, self.rotate, self.noise)
        return None

    def changed(self, **numbers: Any) -> Recipe:
        """The same recipe with other numbers.

        Raises:
            BadInput: No such number, or a value that makes no sense.
        """
        known = [field.name for field in dataclasses.fields(self) if field.name != "name"]
        for name in numbers:
            if name not in known:
                near = ", ".join(near_names(name, known)) or ", ".join(known)
                raise BadInput(f"a recipe has no number {name!r}; near names: {near}")
        recipe = dataclasses.replace(self, **{key: tuple(value) if isinstance(value, list) else value for key, value in numbers.items()})
        for name, hint in get_type_hints(Recipe).items():
            if not _fits(value := getattr(recipe, name), hint):
                meant = ", ".join(get_args(hint)) if get_origin(hint) is Literal else Recipe.__annotations__[name]
                raise BadInput(f"recipe {self.name}: {name} must be {meant}, got {value!r}")
        for name, smallest in (("steps", 1), ("stages", 1), ("rate", 0), ("factor", 1), ("crop_size", 8), ("noise", 0), ("size", 8)):
            value = getattr(recipe, name)
            if value is not None and not value >= smallest:
                raise BadInput(f"recipe {self.name}: {name} must be at least {smallest}, got {value}")
        if recipe.image == "fourier" and recipe.stages > 1:
            raise BadInput(f"recipe {self.name}: a Fourier image has one size, so stages must be 1, got {recipe.stages}")
        return recipe


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of the type that a recipe's field declares; whole numbers count as float, truth values as neither."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is UnionType:
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and not isinstance(value, bool)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("crops", "fourier", size=224, steps=192, rate=0.05, start_range=(0, 0.01), view="crops", noise=0.05),
        Recipe("fourier", "fourier", size=224, steps=256, rate=0.05, start_range=(0, 0.01), view="robust"),
        Recipe("multiscale", "normalized", size=56, stages=12, factor=1.2, steps=20, rate=0.1, weight_decay=1e-6),
        Recipe("multiscale-sigmoid", "sigmoid", size=33, stages=20, factor=1.2, steps=20, rate=0.2, weight_decay=1e-6),
        Recipe("pixels", "pixels", size=150, steps=40, optimizer="normalized", rate=1.0, start_range=(128, 148)),
    )
}
"""The recipes by name. "multiscale" is S0, "multiscale-sigmoid" S2, "pixels" S3, "fourier" Lucid, "crops" our own."""


def find_recipe(recipe: str | Recipe, **numbers: Any) -> Recipe:
    """A recipe by name (or itself), with some of its numbers replaced.

    Raises:
        BadInput: Unknown recipe or number.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise BadInput(f"no recipe {recipe!r}; there are: {', '.join(RECIPES)}")
        recipe = RECIPES[recipe]
    return recipe.changed(**numbers)
