"""What a code still knows: a picture, found from noise, whose code is the wanted one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Generator, Tensor

from convscope.errors import BadInput, asking
from convscope.ops.codes import Edit, edit_name, find_edits
from convscope.optimize.descent import descend
from convscope.optimize.minimizers import find_minimizer
from convscope.optimize.objectives import Objective, find_prior
from convscope.optimize.parameterizations import Fourier, MeanSubtracted, NormalizedPixels, Parameterization, Pixels
from convscope.progress import task
from convscope.results.inversion import Inversion
from convscope.results.provenance import describe, technique
from convscope.scope import Images, Inputs, Scope
from convscope.scope.edits import average_pooling
from convscope.scope.inputs import image_names
from convscope.scope.network import large_enough
from convscope.seeding import derive_seed

INPUT = "input"
"""The layer before all layers: its code is the picture itself."""


@dataclass(frozen=True)
class _Plan:
    """How pictures are optimized: the optimizer, how a picture is written, evaluations at most, further numbers, jitter, and whether each
    band of frequencies and colours has a curvature of its own."""

    optimizer: str
    image: str
    steps: int
    numbers: Mapping[str, float]
    jitter: int = 1
    banded: bool = False


PLANS = {
    "lbfgs": _Plan("lbfgs", "fourier", 200, {"first": 0.1, "longest": 2.0}),
    "adam": _Plan("adam", "fourier", 300, {"rate": 0.05}),
    "paper": _Plan("paper", "mean-subtracted", 1000, {}),
}
"""The optimizers. L-BFGS steps further than usual: towards codes none of its steps is ever refused (SqueezeNet). "paper" is that of
Xia et al. 2016, with its unnormalized loss 1/2 ||phi - psi||^2."""


FORMS: dict[str, Callable[[Inputs], Parameterization]] = {
    "fourier": partial(Fourier, start_range=(0.0, 0.3), decay=0.75),
    "normalized": partial(NormalizedPixels, start_range=(118, 138)),
    "pixels": partial(Pixels, start_range=(118, 138)),
    "mean-subtracted": MeanSubtracted,
}
"""How pictures may be written, and where each begins: grey with noise. A code wants fine detail more than a unit does, so that its Fourier
image is fastest with less weight on low frequencies, and deep layers leave grey sooner with more noise (measured on SqueezeNet)."""


AVERAGED = {"first": 0.5}


QUIET = partial(Fourier, start_range=(0.0, 0.1))
"""L-BFGS through average pooling: with a curvature for each band it takes 0.4 to 0.9 of the evaluations, soonest from a quieter start.
Through max pooling it is better at shallow layers, but ends with a fifth to a third more error at deep ones (measured on SqueezeNet)."""


EditLike: TypeAlias = Edit | str | None


@technique
def inversion(
    scope: Scope,
    layer: str | Sequence[str],
    images: Images,
    *,
    edit: EditLike | Sequence[EditLike] = None,
    optimizer: Literal["lbfgs", "adam", "paper"] = "lbfgs",
    steps: int | None = None,
    image: Literal["fourier", "normalized", "pixels", "mean-subtracted"] | None = None,
    prior: str | Objective = "none",
    jitter: int = 1,
    pooling: Literal["own", "average"] = "own",
    size: int | None = None,
    seed: int = 0,
) -> Inversion:
    """What a code still knows: x* = argmin over x of ||phi(x) - psi||^2 / ||psi||^2 + prior(x), with psi = edit(phi(image)).

    All pictures of one call share their passes through the network, and none depends on the others.

    Args:
        scope: The network.
        layer: Layer name, or several (their errors count alike); "input" gives the image itself.
        images: One or several images of one size.
        edit: What the code is turned into before it is inverted: None (the image's own), :class:`~convscope.FeatureMap`,
            :class:`~convscope.Reallocate`, :class:`~convscope.Purposeful`, any function of a code (c h w), or a list of these. As words:
            "map=3", "map=0-4", "reallocate=0", "own", with commas in between.
        optimizer: "lbfgs", "adam", or "paper": clipped gradient descent with momentum on 1/2 ||phi - psi||^2, with its stop rule.
        steps: Evaluations of the network for each picture, at most; default 200, 300 and 1000.
        image: How the picture is written: "fourier" (default; always in [0,1]), "normalized", "pixels", or "mean-subtracted" (paper).
        prior: "none", "ijcv2016", "cvpr2015" (stronger for deeper layers), a multiple such as "cvpr2015*0.1", or an objective of pictures.
        jitter: With "adam", each step looks at the picture moved by 0 to jitter-1 pixels; the papers take a quarter of the layer's stride.
        pooling: "own", or "average" in place of max pooling, as in the paper.
        size: Longer side of the whole picture in pixels; None: as the network is fed it. Tensors keep their size.
        seed: Seed of the start and the jitter.

    Returns:
        A picture per image and edit, with its error re-measured in float32 on the clipped picture.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: Unknown optimizer, image, prior or edit, no steps; images of different sizes; a target that is zero or not finite.

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
        convscope inversion textures features.6 data/images/chains/0000.png --edit own,map=0-2,reallocate=0 --size 64 --steps 20
        convscope inversion textures features.20 data/images/chains/0000.png --prior cvpr2015*0.05 --pooling average --steps 20
    """
    plan = _plan(optimizer, steps, image, jitter, pooling)
    names = [layer] if isinstance(layer, str) else list(layer)
    sources = scope.inputs.sources(images)
    batch = scope.inputs.batch(images if size is None else [scope.inputs.whole(one, size) for one in sources])
    edits = find_edits(edit)
    goal = _Goal.of(scope, batch, names, edits, find_prior(prior, _depth(scope, names)), pooling, plan)
    if names == [INPUT] and goal.prior is None:
        pictures, trace = goal.targets[0], [[{"code": 0.0}]] * len(goal.targets[0])
    else:
        pictures, trace = _descend(goal, (batch.shape[-2], batch.shape[-1]), plan, seed)
    count = len(batch), len(edits)
    pictures = pictures.float().clamp(0, 1).cpu()
    parts = list(trace[0][-1])
    history = torch.full((len(trace), max(map(len, trace))), torch.nan)
    for row, turns in enumerate(trace):
        history[row, : len(turns)] = torch.tensor([goal.normalized(turn["code"], row) for turn in turns])
    errors = goal.errors_of(pictures)
    return Inversion(
        images=pictures.unflatten(0, count),
        originals=batch,
        error=errors.mean(1).unflatten(0, count),
        layer_errors=errors.unflatten(0, count),
        losses=torch.tensor([[turns[-1][part] for part in parts] for turns in trace]).unflatten(0, count),
        history=history.unflatten(0, count),
        layers=tuple(names),
        edits=tuple(map(edit_name, edits)),
        names=image_names(sources),
        parts=tuple(parts),
        manifest={"precision": scope.resolve("optimize"), "plan": describe(plan)},
    )


def _plan(optimizer: str, steps: int | None, image: str | None, jitter: int, pooling: str) -> _Plan:
    """The optimizer's plan with what the caller wants otherwise."""
    if not isinstance(jitter, int) or isinstance(jitter, bool) or jitter < 1 or (jitter > 1 and optimizer != "adam"):
        raise BadInput(f"jitter must be 1 (none), or more with optimizer='adam', whose steps may each see something else; got {jitter!r}")
    plan = PLANS[optimizer]
    plan = replace(plan, image=image or plan.image, steps=plan.steps if steps is None else steps, jitter=jitter)
    find_minimizer(plan.optimizer, plan.steps)
    averaged = pooling == "average" and plan.optimizer == "lbfgs" and plan.image == "fourier"
    return replace(plan, numbers=AVERAGED, banded=True) if averaged else plan


def _depth(scope: Scope, names: Sequence[str]) -> float:
    """How deep the deepest of the layers is: the share of the network's convolutions and matrix products up to it."""
    weighted = [layer.position for layer in scope.layers.values() if layer.kind in ("Conv2d", "Linear")]
    last = max((scope.layers[name].position for name in names if name != INPUT), default=-1)
    return sum(position <= last for position in weighted) / max(1, len(weighted))


@dataclass(frozen=True)
class _Goal:
    """What the pictures are to become: a target per layer and item; item = image times the number of edits + edit."""

    scope: Scope
    names: tuple[str, ...]
    targets: tuple[Tensor, ...]
    powers: Tensor
    prior: Objective | None
    pooling: Callable[[], AbstractContextManager[Any]]
    plan: _Plan

    @classmethod
    def of(
        cls,
        scope: Scope,
        batch: Tensor,
        names: Sequence[str],
        edits: Sequence[Edit | None],
        prior: Objective | None,
        pooling: str,
        plan: _Plan,
    ) -> _Goal:
        if not names or (plan.optimizer == "paper" and len(names) > 1):
            raise BadInput("optimizer 'paper' inverts the code of one layer" if names else "no layer asked for")
        goal = cls(scope, tuple(names), (), torch.empty(0), prior, average_pooling if pooling == "average" else nullcontext, plan)
        with torch.no_grad(), scope.session("float32"), large_enough(batch.shape[-2], batch.shape[-1]):
            pictures = batch.to(scope.device).contiguous(memory_format=torch.channels_last)  # half the time, on a CPU
            codes = [torch.cat(parts) for parts in zip(*scope.in_batches(pictures, goal.codes), strict=True)]
        targets = tuple(
            torch.stack([_target(name, code, edit) for code in whole for edit in edits]) for name, whole in zip(names, codes, strict=True)
        )
        powers = torch.stack([target.flatten(1).square().sum(1) for target in targets], 1)
        return replace(goal, targets=targets, powers=powers)

    def codes(self, pictures: Tensor) -> list[Tensor]:
        """The values of the layers, units first, (n c h w) or (n c)."""
        inside = [name for name in self.names if name != INPUT]
        values = self.scope.run(pictures, inside, edit=self.pooling(), channels_first=True) if inside else {}
        return [pictures if name == INPUT else values[name] for name in self.names]

    def errors(self, pictures: Tensor, items: Sequence[int]) -> Tensor:
        """||phi - psi||^2 / ||psi||^2, (n layer)."""
        each = [
            (code - target[list(items)]).flatten(1).square().sum(1) for code, target in zip(self.codes(pictures), self.targets, strict=True)
        ]
        return torch.stack(each, 1) / self.powers[list(items)]

    def errors_of(self, pictures: Tensor) -> Tensor:
        """The errors of all items' pictures, in float32."""
        at_once = self.scope.fitting(pictures.shape[-2] * pictures.shape[-1])
        pictures, items = pictures.contiguous(memory_format=torch.channels_last), range(len(pictures))
        with torch.no_grad(), self.scope.session("float32"):
            work = self.scope.in_parts(len(pictures), at_once, lambda part: self.errors(pictures[part].to(self.scope.device), items[part]))
            return torch.cat(list(work)).cpu()

    def loss(self, pictures: Tensor, *, items: Sequence[int], turn: int, seed: int) -> dict[str, Tensor]:
        """The parts of the loss: see :class:`~convscope.optimize.descent.Loss`."""
        looked = pictures if self.plan.jitter == 1 else _moved(pictures, items, turn, self.plan.jitter, seed)
        error = self.errors(looked, items)
        parts = {"code": error[:, 0] * self.powers[list(items), 0] / 2 if self.plan.optimizer == "paper" else error.mean(1)}
        return parts if self.prior is None else parts | {"prior": self.prior(self.scope, looked)}

    def normalized(self, code_loss: float, item: int) -> float:
        """The error that a code's part of the loss stands for."""
        return 2 * code_loss / float(self.powers[item, 0]) if self.plan.optimizer == "paper" else code_loss


def _target(name: str, code: Tensor, edit: Edit | None) -> Tensor:
    """edit(code), checked."""
    if edit is None:
        target = code
    else:
        with asking(layer=name):
            target = edit(code)
        if not isinstance(target, Tensor) or target.shape != code.shape or not bool(torch.isfinite(target).all()):
            what = tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__
            raise BadInput(f"layer {name}: the edit made of a code {tuple(code.shape)} not a finite code of that shape but {what}")
    if not bool(target.any()):
        raise BadInput(f"layer {name}: the code aimed at is zero everywhere, so that no picture can be told from another")
    return target.to(code)


def _moved(pictures: Tensor, items: Sequence[int], turn: int, jitter: int, seed: int) -> Tensor:
    """A window, jitter-1 pixels smaller, at a place drawn anew for every picture and turn."""
    height, width = (length - jitter + 1 for length in pictures.shape[-2:])
    windows: list[Tensor] = []
    for picture, item in zip(pictures, items, strict=True):
        stream = Generator().manual_seed(derive_seed(seed, "inversion", "jitter", item, turn))
        y, x = torch.randint(jitter, (2,), generator=stream).tolist()
        windows.append(picture[:, y : y + height, x : x + width])
    return torch.stack(windows)


def _descend(goal: _Goal, size: tuple[int, int], plan: _Plan, seed: int) -> tuple[Tensor, list[list[dict[str, float]]]]:
    """The pictures, of the images' size, and every item's parts of the loss at every evaluation."""
    count, more = len(goal.targets[0]), plan.jitter - 1
    canvas = size[0] + more, size[1] + more
    form = (QUIET if plan.banded else FORMS[plan.image])(goal.scope.inputs)
    bands = {"groups": form.bands(*canvas).to(goal.scope.device)} if plan.banded and isinstance(form, Fourier) else {}
    streams = [Generator().manual_seed(derive_seed(seed, "inversion", "start")) for _ in range(count)]
    with task(f"{', '.join(goal.names)}: {count} pictures", count * plan.steps) as advance:
        descended = descend(
            goal.scope,
            form,
            canvas,
            form.start(*canvas, streams),
            partial(goal.loss, seed=seed),
            find_minimizer(plan.optimizer, plan.steps, **plan.numbers, **bands),
            precision=goal.scope.resolve("optimize"),
            advance=advance,
        )
    with torch.no_grad():
        pictures = torch.cat([form.picture(numbers[None], *canvas) for numbers in descended.numbers])
    edge = more // 2
    return pictures[..., edge : edge + size[0], edge : edge + size[1]], descended.history
