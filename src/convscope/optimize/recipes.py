"""Recipes: complete parameters of an optimization, each a plain value of which single parameters can be changed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from convscope.errors import BadInput
from convscope.names import is_whole, near_names
from convscope.optimize.transforms import RandomAffine, RandomCrops, Transform

Optimizer: TypeAlias = Literal["lbfgs", "adam", "paper"]
"""Optimizers that minimize a loss."""

ImageForm: TypeAlias = Literal["fourier", "normalized", "pixels", "mean-subtracted"]
"""Parameterizations of images that minimize a loss."""


ARTICLE_NAMES = {
    "upscaling_steps": "stages",
    "upscaling_factor": "enlargement",
    "opt_steps": "steps",
    "lr": "learning_rate",
    "sz": "size",
    "filter": "units",
}
"""What the articles call parameters (S0, S2), with the names here."""

MOST = {"size": 16384, "stages": 1000, "enlargement": 100, "steps": 100_000, "crop_size": 4096, "pad": 4096}
"""Largest values that are taken, `size` in every stage: what is larger fills memory, or never ends."""


@dataclass(frozen=True)
class Recipe:
    """Parameters of feature visualization.

    Attributes:
        name: Its name.
        parameterization: How an image is written as parameters: "pixels", "normalized", "sigmoid" or "fourier".
        size: Side of the image in the first stage, in pixels; None: the network's own input side.
        stages: How often the image is optimized, enlarged in between.
        enlargement: Factor of the side between stages; sides are floor(enlargement * side).
        blur: Width of the box blur after each enlargement; None: no blur.
        start_range: Bounds of the 8-bit start noise; for "fourier" (0, standard deviation of the start).
        steps: Optimization steps per stage.
        optimizer: "adam", or "normalized-gradient": ascent along the gradient divided by its root mean square.
        learning_rate: Of Adam, in the parameters' units; step length of "normalized-gradient", in units of 1/255.
        weight_decay: Adam's coupled weight decay. Even 1e-6 moves pixels without gradient at full speed: only for fidelity to S0 and S2.
        reduce: How a unit's map becomes one number to maximize: "mean", "sum" or "center".
        class_weight: On the "output" layer, weight of the class's log-odds added to its logit.
        transform: Random transform at each step: "none", "crops" or "affine".
        crop_start, crop_end, crop_size: See :class:`~convscope.optimize.transforms.RandomCrops`.
        pad, jitter, scale, rotate: See :class:`~convscope.optimize.transforms.RandomAffine`.
        mirror: Whether every second view, by chance, is mirrored left to right: of images that the network takes for the same when
            mirrored, see :func:`~convscope.optimize.ascent.ascend`.
        noise: Standard deviation of the noise added after the transform.
        patience: End an image early when so many steps brought nothing, see :func:`~convscope.optimize.ascent.ascend`; 0: never.
    """

    name: str
    parameterization: Literal["pixels", "normalized", "sigmoid", "fourier"]
    size: int | None = None
    stages: int = 1
    enlargement: float = 1.0
    blur: int | None = None
    start_range: tuple[float, float] = (150, 180)
    steps: int = 20
    optimizer: Literal["adam", "normalized-gradient"] = "adam"
    learning_rate: float = 0.1
    weight_decay: float = 0.0
    reduce: Literal["mean", "sum", "center"] = "mean"
    class_weight: float = 0.0
    transform: Literal["none", "crops", "affine"] = "none"
    crop_start: tuple[float, float] = (0.6, 1.0)
    crop_end: tuple[float, float] = (0.2, 0.6)
    crop_size: int = 160
    pad: int = 12
    jitter: tuple[int, int] = (8, 4)
    scale: tuple[float, float] = (0.9, 1.1)
    rotate: float = 10.0
    mirror: bool = False
    noise: float = 0.0
    patience: int = 0

    def describe(self) -> dict[str, Any]:
        """The recipe as JSON holds it; patience only where there is some."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "patience" or value}

    def sides(self, default: int) -> list[int]:
        """The image's side in each stage; `default` where the recipe leaves the first one to the network.

        Raises:
            BadInput: It grows beyond what is taken.
        """
        sides = [self.size or default]
        for stage in range(self.stages - 1):
            sides.append(int(self.enlargement * sides[-1]))
            if sides[-1] > MOST["size"]:
                raise BadInput(
                    f"recipe {self.name}: enlarged to {sides[-1]} px after {stage + 1} of {self.stages} stages, more than {MOST['size']}"
                )
        return sides

    def random_transform(self) -> Transform | None:
        """The random transform that it asks for, or None."""
        if self.transform == "crops":
            return RandomCrops(self.crop_start, self.crop_end, self.crop_size)
        if self.transform == "affine":
            return RandomAffine(self.pad, self.jitter, self.scale, self.rotate)
        return None

    def changes(self) -> dict[str, Any]:
        """The parameters that differ from those of the recipe of its name; all of a recipe of the caller's own."""
        own, given = self.describe(), RECIPES.get(self.name)
        base = {} if given is None else dataclasses.asdict(given)
        return {name: value for name, value in own.items() if name != "name" and (not base or base[name] != value)}

    def changed(self, **parameters: Any) -> Recipe:
        """The same recipe with other parameters.

        Raises:
            BadInput: No such parameter, or a value that makes no sense.
        """
        known = [field.name for field in dataclasses.fields(self) if field.name != "name"]
        for name in parameters:
            if name in ARTICLE_NAMES:
                raise BadInput(f"a recipe has no parameter {name!r}: it is called {ARTICLE_NAMES[name]} here")
            if name not in known:
                near = ", ".join(near_names(name, known)) or ", ".join(known)
                raise BadInput(f"a recipe has no parameter {name!r}; near names: {near}")
        recipe = dataclasses.replace(self, **{key: tuple(value) if isinstance(value, list) else value for key, value in parameters.items()})
        for name, hint in get_type_hints(Recipe).items():
            if not _fits(value := getattr(recipe, name), hint):
                meant = ", ".join(get_args(hint)) if get_origin(hint) is Literal else Recipe.__annotations__[name]
                raise BadInput(f"recipe {self.name}: {name} must be {meant}, got {value!r}")
        smallest = {"steps": 1, "stages": 1, "learning_rate": 0, "enlargement": 1, "crop_size": 8, "noise": 0, "size": 8, "patience": 0}
        for name, least in smallest.items():
            value = getattr(recipe, name)
            if value is not None and not value >= least:
                raise BadInput(f"recipe {self.name}: {name} must be at least {least}, got {value}")
        for name, most in MOST.items():
            value = getattr(recipe, name)
            if value is not None and value > most:
                raise BadInput(f"recipe {self.name}: {name} must be at most {most}, got {value}")
        if recipe.parameterization == "fourier" and recipe.stages > 1:
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
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


_MULTISCALE: dict[str, Any] = {"enlargement": 1.2, "steps": 20, "weight_decay": 1e-6}
_FOURIER: dict[str, Any] = {"size": 224, "learning_rate": 0.05, "start_range": (0, 0.01)}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("crops", "fourier", steps=192, transform="crops", mirror=True, noise=0.05, **_FOURIER),
        Recipe("fourier", "fourier", steps=256, transform="affine", **_FOURIER),
        Recipe("multiscale", "normalized", size=56, stages=12, learning_rate=0.1, **_MULTISCALE),
        Recipe("multiscale-sigmoid", "sigmoid", size=33, stages=20, learning_rate=0.2, **_MULTISCALE),
        Recipe("pixels", "pixels", size=150, steps=40, optimizer="normalized-gradient", learning_rate=1.0, start_range=(128, 148)),
    )
}
"""The recipes of feature visualization. "multiscale" is S0, "multiscale-sigmoid" S2, "pixels" S3, "fourier" Lucid, "crops" our own."""

RecipeName: TypeAlias = Literal["crops", "fourier", "multiscale", "multiscale-sigmoid", "pixels"]
"""The names of :data:`RECIPES`."""

DEFAULT: RecipeName = "crops"
"""The recipe of feature visualization that is used if none is asked for."""


def find_recipe(recipe: str | Recipe, **parameters: Any) -> Recipe:
    """A recipe of feature visualization by name (or itself), with some of its parameters replaced.

    Raises:
        BadInput: Unknown recipe or parameter.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise BadInput(f"no recipe {recipe!r}; there are: {', '.join(RECIPES)}")
        recipe = RECIPES[recipe]
    return recipe.changed(**parameters)


@dataclass(frozen=True)
class DescentRecipe:
    """Parameters of inversion or style transfer.

    Attributes:
        optimizer: "lbfgs", "adam", or "paper": that of Xia et al. 2016.
        parameterization: How an image is written as parameters: "fourier", "normalized", "pixels" or "mean-subtracted".
        steps: Evaluations of the network for each image, at most.
        start: What the optimization starts from: "noise" or "content" (style transfer's content image).
        start_range: Bounds of the start noise, see the parameterization.
        decay: Of a Fourier image, the power of the frequency in its scale.
        jitter: Each step sees the image shifted by 0 to jitter-1 pixels; 1: no shift.
        banded: L-BFGS estimates an initial curvature for each band of frequencies and colours.
        denoise: Weight of the total variation denoising of the finished image, clipped to [0,1]; 0: none.
        options: Further parameters of the optimizer, see :mod:`convscope.optimize.minimizers`.
    """

    optimizer: Optimizer
    parameterization: ImageForm
    steps: int
    start: Literal["noise", "content"] = "noise"
    start_range: tuple[float, float] = (118, 138)
    decay: float = 1.0
    jitter: int = 1
    banded: bool = False
    denoise: float = 0.0
    options: Mapping[str, float] = field(default_factory=dict[str, float])


INVERSION: Mapping[Optimizer, DescentRecipe] = {
    "lbfgs": DescentRecipe("lbfgs", "fourier", 200, start_range=(0.0, 0.3), decay=0.75, options={"first": 0.1, "longest": 2.0}),
    "adam": DescentRecipe("adam", "fourier", 300, start_range=(0.0, 0.3), decay=0.75, options={"learning_rate": 0.05}),
    "paper": DescentRecipe("paper", "mean-subtracted", 1000, start_range=(-0.1, 0.1), denoise=0.2),
}
"""Recipes of inversion by optimizer.

L-BFGS steps further than usual: towards codes none of its steps is ever refused (SqueezeNet). "paper" is that of Xia et al. 2016, with
its unnormalized loss 1/2 ||phi - psi||^2. A code wants fine detail more than a unit does, so that its Fourier image is fastest with less
weight on low frequencies, and deep layers leave grey sooner with more start noise (measured on SqueezeNet).
"""

INVERSION_AVERAGED = DescentRecipe("lbfgs", "fourier", 200, start_range=(0.0, 0.1), banded=True, options={"first": 0.5})
"""Recipe of inversion by L-BFGS through average pooling.

With a curvature for each band it takes 0.4 to 0.9 of the evaluations, fewest from less start noise. Through max pooling it is better at
shallow layers, but ends with a fifth to a third more error at deep ones (measured on SqueezeNet).
"""

STYLE_TRANSFER: Mapping[Optimizer, DescentRecipe] = {
    "lbfgs": DescentRecipe("lbfgs", "normalized", 200, "content"),
    "adam": DescentRecipe("adam", "normalized", 300, "content", options={"learning_rate": 0.05}),
    "paper": DescentRecipe("paper", "mean-subtracted", 1000, "noise", (-0.1, 0.1), denoise=0.2, options={"weight_decay": 5e-3}),
}
"""Recipes of style transfer by optimizer."""

_STARTS: dict[ImageForm, tuple[tuple[float, float], float]] = {
    "fourier": ((0.0, 0.3), 0.75),
    "normalized": ((118, 138), 1.0),
    "pixels": ((118, 138), 1.0),
    "mean-subtracted": ((-0.1, 0.1), 1.0),
}
"""Start range and decay of each parameterization, where it is chosen by the caller."""


def find_descent_recipe(
    recipes: Mapping[Optimizer, DescentRecipe],
    optimizer: Optimizer,
    *,
    steps: int | None = None,
    parameterization: ImageForm | None = None,
    start: Literal["noise", "content"] | None = None,
    jitter: int = 1,
) -> DescentRecipe:
    """A recipe by its optimizer, with some of its parameters replaced (None: as in the recipe).

    Args:
        recipes: :data:`INVERSION` or :data:`STYLE_TRANSFER`.
        optimizer, steps, parameterization, start, jitter: See :class:`DescentRecipe`.

    Raises:
        BadInput: No steps, or jitter with another optimizer than Adam.
    """
    if steps is not None and (not is_whole(steps) or steps < 1):
        raise BadInput(f"steps must be a whole number of at least 1, got {steps!r}")
    if not is_whole(jitter) or jitter < 1 or (jitter > 1 and optimizer != "adam"):
        raise BadInput(f"jitter must be 1 (none), or more with optimizer='adam', whose steps may each see something else; got {jitter!r}")
    recipe = recipes[optimizer]
    changes: dict[str, Any] = {"jitter": jitter, "steps": steps or recipe.steps, "start": start or recipe.start}
    if parameterization is not None:
        changes |= {"parameterization": parameterization}
        changes |= dict(zip(("start_range", "decay"), _STARTS[parameterization], strict=True))
    return dataclasses.replace(recipe, **changes)
