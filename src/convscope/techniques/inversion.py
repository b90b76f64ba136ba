"""Inversion: an image, optimized from noise, with the same (or an edited) representation at a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from convscope.errors import BadInput, asking
from convscope.ops.codes import Edit, FeatureMap, Purposeful, edit_name, find_edits
from convscope.optimize.descent import in_float32, minimize, tabulated
from convscope.optimize.objective import Objective
from convscope.optimize.priors import Prior, find_prior
from convscope.optimize.recipes import INVERSION, INVERSION_AVERAGED, DescentRecipe, ImageForm, Optimizer, find_descent_recipe
from convscope.results.inversion import Inversion
from convscope.results.provenance import describe, technique
from convscope.scope import Images, Scope
from convscope.scope.edits import average_pooling
from convscope.seeding import derive_seed

INPUT = "input"
"""The layer before all layers: its code is the image itself."""


@technique
def inversion(
    scope: Scope,
    layer: str | Sequence[str],
    images: Images,
    *,
    edit: Edit | Sequence[Edit | None] | None = None,
    joint: bool = False,
    optimizer: Optimizer = "lbfgs",
    steps: int | None = None,
    parameterization: ImageForm | None = None,
    prior: Prior | tuple[Prior, float] | Objective | None = None,
    jitter: int = 1,
    pooling: Literal["own", "average"] = "own",
    size: int | None = None,
    seed: int = 0,
) -> Inversion:
    """Inverts a code into an image with the same activations.

    x* = argmin of ||phi(x) - psi||^2 / ||psi||^2 + prior(x).

    The code phi(x) is the activations of a layer, and psi = edit(phi(image)). All images of one call share their passes, and
    none depends on the others.

    Args:
        scope: The network.
        layer: Layer name, or several, each of which is inverted; "input" gives the image itself.
        images: One or several images of one size.
        edit: What the code is turned into before it is inverted: None (the image's own), :class:`~convscope.FeatureMap`,
            :class:`~convscope.Reallocate`, :class:`~convscope.Purposeful`, any function of a code (c h w), or a list of these.
        joint: Whether several layers are inverted together, into one image whose errors at all of them count alike.
        optimizer: "lbfgs", "adam", or "paper": clipped gradient descent with momentum on 1/2 ||phi - psi||^2, with its stop rule and its
            denoising at the end.
        steps: Evaluations of the network for each image, at most; default 200, 300 and 1000.
        parameterization: How the image is written: "fourier" (default; always in [0,1]), "normalized", "pixels", or "mean-subtracted"
            (default with optimizer "paper").
        prior: "none", "ijcv2016", "cvpr2015" (stronger for deeper layers), "contrast", one with a weight such as ("cvpr2015", 0.1), or an
            objective of images to make small. None: "contrast" for a FeatureMap, whose code no image has, so that optimization would
            drive pixels to the ends of their range; none for other codes and with optimizer "paper".
        jitter: With "adam", each step sees the image shifted by 0 to jitter-1 pixels; the papers take a quarter of the layer's stride.
        pooling: "own", or "average" in place of max pooling, as in the paper.
        size: Longer side of the whole image in pixels; None: as the network is fed it. Tensors keep their size.
        seed: Seed of the start and the jitter.

    Returns:
        An image per image, layer and edit, with its error re-measured in float32 on the image as shown.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: Unknown optimizer, parameterization, prior or edit, no steps; images of different sizes; a target that is zero or not
            finite.

    Source:
        Mahendran and Vedaldi 2015 (arXiv 1412.0035), 2016 (1512.02017); Xia et al. 2016 (1608.04170). Their gradient descent is replaced by
        L-BFGS on a Fourier image unless asked for.

    Example:
        >>> import convscope as cs, torch
        >>> photo = torch.rand(3, 64, 64)
        >>> cs.inversion(cs.open("textures"), "features.2", photo, edit=cs.FeatureMap(3), steps=2).images.shape
        (1, 1, 3, 64, 64)

    Command line:
        convscope inversion textures features.6 data/images/chains/0000.png --steps 20
        convscope inversion textures features.2,features.6 data/images/chains/0000.png --edit own,map=0-2,reallocate=0 --size 64 --steps 20
        convscope inversion textures features.6 data/images/chains/0000.png --edit purposeful=data/images/dots/0000.png --steps 20
        convscope inversion textures features.20 data/images/chains/0000.png --prior cvpr2015*0.05 --pooling average --steps 20
    """
    recipe = find_descent_recipe(INVERSION, optimizer, steps=steps, parameterization=parameterization, jitter=jitter)
    if pooling == "average" and recipe.optimizer == "lbfgs" and recipe.parameterization == "fourier":
        recipe = replace(INVERSION_AVERAGED, steps=recipe.steps)
    names = [layer] if isinstance(layer, str) else list(layer)
    if not names or (recipe.optimizer == "paper" and joint and len(names) > 1):
        raise BadInput("optimizer 'paper' inverts the code of one layer: leave joint out" if names else "no layer asked for")
    codes = [tuple(names)] if joint else [(name,) for name in names]
    reader = scope.inputs.reader(images, size)
    batch = reader.batch()
    edits = find_edits(edit)
    styles = [_style_image(scope, each, size) for each in edits]
    made = [_made(_Loss.of(scope, batch, code, edits, styles, prior, pooling, recipe, seed), batch) for code in codes]
    found, histories = [_side_by_side(parts, len(batch)) for parts in list(zip(*made, strict=True))[:3]], [one for *_, one in made]
    images_made, errors, losses = found
    longest = max(one.shape[1] for one in histories)
    history = [F.pad(one, (0, longest - one.shape[1]), value=torch.nan) for one in histories]
    return Inversion(
        images=images_made,
        originals=batch,
        error=errors.mean(2),
        layer_errors=errors,
        losses=losses,
        history=_side_by_side(history, len(batch)),
        layers=tuple(names),
        codes=tuple(code for code in codes for _ in edits),
        edits=tuple(edit_name(each) for _ in codes for each in edits),
        names=reader.names,
        skipped=reader.skipped,
        cut=reader.cut,
        parts=("code", "prior")[: losses.shape[2]],
        manifest={"precision": scope.resolve("optimize"), "recipe": describe(recipe)},
    )


def _style_image(scope: Scope, edit: Edit | None, size: int | None) -> Tensor | None:
    """The image (1 3 h w) that an edit takes a style's code from, if it does."""
    if not isinstance(edit, Purposeful) or isinstance(edit.style, Tensor):
        return None
    found = scope.inputs.reader(edit.style, size).batch()
    if len(found) != 1:
        raise BadInput(f"Purposeful: expected one style image, got {len(found)}")
    return found


def _side_by_side(parts: Sequence[Tensor], count: int) -> Tensor:
    """Values of codes, each (image x edit ...), as (image, code x edit, ...)."""
    return torch.cat([part.unflatten(0, (count, -1)) for part in parts], 1)


def _made(loss: _Loss, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of every item of a code: its image, errors (item layer), terms of the loss at the end, and history of the error."""
    count = len(loss.targets[0])
    if loss.names == (INPUT,) and loss.prior is None:
        made, history = loss.targets[0], [[{"code": 0.0}]] * count
    else:
        size = batch.shape[-2], batch.shape[-1]
        title = f"{', '.join(loss.names)}: {count} images"
        minimized = minimize(loss.scope, "inversion", loss.recipe, size, count, loss, seed=loss.seed, title=title)
        made, history = minimized.images, minimized.history
    made = made.float().clamp(0, 1).cpu()
    terms = torch.tensor([list(steps[-1].values()) for steps in history], dtype=torch.float32, device="cpu")
    return made, loss.errors_of(made), terms, tabulated(history, lambda item, values: loss.normalized(values["code"], item))


def _depth(scope: Scope, names: Sequence[str]) -> float:
    """Depth of the deepest of the layers: the share of the network's convolutions and matrix products up to it."""
    weighted = [layer.position for layer in scope.layers.of_kind("Conv2d", "Linear").values()]
    last = max((scope.layers[name].position for name in names if name != INPUT), default=-1)
    return sum(position <= last for position in weighted) / max(1, len(weighted))


@dataclass(frozen=True)
class _Loss:
    """Distance from the target codes, plus the prior of the items it is for (`priced`, 0 or 1).

    A target per layer and item; item = image times the number of edits + edit.
    """

    scope: Scope
    names: tuple[str, ...]
    targets: tuple[Tensor, ...]
    powers: Tensor
    prior: Objective | None
    priced: Tensor
    pooling: Callable[[], AbstractContextManager[Any]]
    recipe: DescentRecipe
    seed: int

    @classmethod
    def of(
        cls,
        scope: Scope,
        batch: Tensor,
        names: Sequence[str],
        edits: Sequence[Edit | None],
        styles: Sequence[Tensor | None],
        prior: Prior | tuple[Prior, float] | Objective | None,
        pooling: str,
        recipe: DescentRecipe,
        seed: int,
    ) -> _Loss:
        for_maps = prior is None and recipe.optimizer != "paper"
        each = [float(isinstance(edit, FeatureMap) if for_maps else prior is not None) for _ in batch for edit in edits]
        priced = torch.tensor(each, dtype=torch.float32, device=scope.device)
        chosen = find_prior(("contrast" if for_maps else prior) or "none", _depth(scope, names)) if any(each) else None
        way = average_pooling if pooling == "average" else nullcontext
        loss = cls(scope, tuple(names), (), torch.empty(0, dtype=torch.float32, device="cpu"), chosen, priced, way, recipe, seed)
        codes = loss.codes_of(batch)
        known = [None if style is None else loss.codes_of(style) for style in styles]
        targets = tuple(
            torch.stack(
                [
                    _target(name, code, edit if own is None else Purposeful(own[place][0]))
                    for code in codes[place]
                    for edit, own in zip(edits, known, strict=True)
                ]
            )
            for place, name in enumerate(names)
        )
        powers = torch.stack([target.flatten(1).square().sum(1) for target in targets], 1)
        return replace(loss, targets=targets, powers=powers)

    def codes_of(self, images: Tensor) -> list[Tensor]:
        """The codes of images (n c h w), without gradients, in float32."""
        with self.scope.session("float32"), torch.no_grad():
            images = images.to(self.scope.device).contiguous(memory_format=torch.channels_last)  # half the time, on a CPU
            return [torch.cat(parts) for parts in zip(*self.scope.in_batches(images, self.codes), strict=True)]

    def codes(self, images: Tensor) -> list[Tensor]:
        """The values of the layers, units on axis 1, (n c h w) or (n c)."""
        inside = [name for name in self.names if name != INPUT]
        values = self.scope.run(images, inside, edit=self.pooling(), channels_first=True) if inside else {}
        return [images if name == INPUT else values[name] for name in self.names]

    def errors(self, images: Tensor, items: Sequence[int]) -> Tensor:
        """||phi - psi||^2 / ||psi||^2, (n layer)."""
        each = [
            (code - target[list(items)]).flatten(1).square().sum(1) for code, target in zip(self.codes(images), self.targets, strict=True)
        ]
        return torch.stack(each, 1) / self.powers[list(items)]

    def errors_of(self, images: Tensor) -> Tensor:
        """The errors of all items' images, in float32."""
        return torch.cat(in_float32(self.scope, images.contiguous(memory_format=torch.channels_last), self.errors)).cpu()

    def __call__(self, images: Tensor, *, items: Sequence[int], step: int) -> dict[str, Tensor]:
        """The terms of the loss: see :class:`~convscope.optimize.descent.Loss`."""
        seen = images if self.recipe.jitter == 1 else _shifted(images, items, step, self.recipe.jitter, self.seed)
        error = self.errors(seen, items)
        code = error[:, 0] * self.powers[list(items), 0] / 2 if self.recipe.optimizer == "paper" else error.mean(1)
        return {"code": code} if self.prior is None else {"code": code, "prior": self.priced[list(items)] * self.prior(self.scope, seen)}

    def normalized(self, code_loss: float, item: int) -> float:
        """The error ||phi - psi||^2 / ||psi||^2 that the code's term of the loss stands for."""
        return 2 * code_loss / float(self.powers[item, 0]) if self.recipe.optimizer == "paper" else code_loss


def _target(name: str, code: Tensor, edit: Edit | None) -> Tensor:
    """edit(code), checked."""
    if edit is None:
        target = code
    else:
        with asking(layer=name):
            target = cast("object", edit(code))
        if not isinstance(target, Tensor) or target.shape != code.shape or not bool(torch.isfinite(target).all()):
            what = tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__
            raise BadInput(f"layer {name}: the edit made of a code {tuple(code.shape)} not a finite code of that shape but {what}")
    if not bool(target.any()):
        raise BadInput(f"layer {name}: the target code is zero everywhere, so that all images are equally far from it")
    return target.to(code)


def _shifted(images: Tensor, items: Sequence[int], step: int, jitter: int, seed: int) -> Tensor:
    """A window, jitter-1 pixels smaller, at a position drawn anew for every image and step."""
    height, width = (length - jitter + 1 for length in images.shape[-2:])
    windows: list[Tensor] = []
    for image, item in zip(images, items, strict=True):
        generator = Generator("cpu").manual_seed(derive_seed(seed, "inversion", "jitter", item, step))
        y, x = torch.randint(jitter, (2,), generator=generator, dtype=torch.int64, device="cpu").tolist()
        windows.append(image[:, y : y + height, x : x + width])
    return torch.stack(windows)
