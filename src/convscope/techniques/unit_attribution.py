"""Unit attribution: which units of a layer raise or lower a class's score on images, and what the score loses without each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.fast.memory import reusing_memory
from convscope.incremental.above_layer import AboveLayer
from convscope.names import OUTPUT, is_whole
from convscope.progress import task
from convscope.results.provenance import technique
from convscope.results.unit_attribution import SHOWN, UnitAttribution
from convscope.scope import Images, Scope
from convscope.techniques.knockout import check_network, no_silence

_MIXED = ("Images are predicted as different classes, and each image's own is followed: name a target to ask about one.",)


@technique
def unit_attribution(
    scope: Scope,
    images: Images,
    target: int | str | None = None,
    *,
    against: int | str | None = None,
    layer: str | None = None,
    top: int = 6,
) -> UnitAttribution:
    """Which units of a layer a class's score rests on, estimated for all units and measured for the strongest by silencing them.

    The score S is the log-odds of the class, z_c - log(sum over the other classes of exp z), or z_c - z_d against one class d. A unit's
    attribution is the sum over positions of its activation times the derivative of S: what S would lose without the unit if the network
    above it were linear. For the strongest units S is measured with their map set to zero. Units are chosen by the mean over the images
    that are predicted as the class, if there are any; the others are listed beside them, which shows what the two differ in.

    Args:
        scope: The network.
        images: One or several images of one size, or a folder: those that are taken for the class, or those of one label, right and wrong.
        target: Class index or name; None for the class predicted for each image.
        against: Class index or name that the class is compared with; None: all others.
        layer: A layer below the output, best after its ReLU; None for the last one that has maps and is not a map for each class.
        top: Units on each side that are measured: the strongest that raise the score, and the strongest that lower it.

    Returns:
        The attribution of every unit, and for the strongest their maps and the score that is lost without each and without all of them.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or class.
        BadInput: The layer is the output or has no influence on it; the output has no class scores; a class against itself.

    Source:
        Activation times gradient: Shrikumar et al. 2016 (arXiv 1605.01713); equal to Captum's ``LayerGradientXActivation``, summed over
        positions. Silencing: :func:`~convscope.knockout`.

    Example:
        >>> import convscope as cs, torch
        >>> cs.unit_attribution(cs.open("textures"), torch.rand(2, 3, 128, 128), "chains").attribution.shape
        (2, 64)

    Command line:
        convscope unit-attribution textures data/images/heart/0000.png
        convscope unit-attribution textures data/images/heart --target heart --against spirals --layer features.20
    """
    if not is_whole(top) or top < 1:
        raise BadInput(f"top must be a whole number of at least 1, got {top!r}")
    name = layer or scope.layers.last_maps()
    check_network(scope, name, "unit attribution")
    known = scope.layers[name]
    asked = None if target is None else scope.class_index(target)
    rival = None if against is None else scope.class_index(against)
    if rival is not None and rival == asked:
        raise BadInput(f"against: class {against!r} is the target itself")
    reader = scope.inputs.reader(images)
    batch = reader.batch()

    def score(logits: Tensor) -> Tensor:
        chosen = logits.argmax(1) if asked is None else torch.full_like(logits[:, 0], asked, dtype=torch.int64)
        return log_odds(logits.double(), chosen, rival)

    def attributed(part: Tensor) -> tuple[Tensor, ...]:
        values, slopes, logits = scope.layer_gradient(part, name, score)
        product = known.units_first(values * slopes)
        active = known.units_first(values)
        lowest.append(float(values.min()))
        return product.flatten(2).sum(2) if product.ndim > 2 else product, active.flatten(2).mean(2) if active.ndim > 2 else active, logits

    lowest: list[float] = []
    with task(f"{name}: attribution on {len(batch)} images", len(batch) * (2 * top + 2)) as advance:
        parts: list[tuple[Tensor, ...]] = []
        for part in scope.in_batches(batch, attributed):
            parts.append(tuple(each.cpu() for each in part))
            advance(len(part[0]))
        attribution, activation, logits = (torch.cat(each) for each in zip(*parts, strict=True))
        predicted = logits.argmax(1)
        targets = predicted if asked is None else torch.full_like(predicted, asked)
        if rival is not None and (targets == rival).any():
            raise BadInput(
                f"against: {reader.names[int((targets == rival).nonzero()[0])]} is predicted as that class itself; name a target"
            )
        own = predicted == targets
        mean = attribution[own if own.any() else slice(None)].double().mean(0)
        order = mean.argsort(descending=True, stable=True)
        raising = [unit for unit in order[:top].tolist() if mean[unit] > 0]
        lowering = [unit for unit in order.flip(0)[:top].tolist() if mean[unit] < 0]
        lost, without, method = _silenced(
            scope, name, batch, [*([unit] for unit in [*raising, *lowering]), raising], targets, rival, advance
        )
    effect = lost[:, :-1]
    middle = effect[own.numpy() if own.any() else slice(None)].mean(0)
    ranked = [*np.argsort(-middle[: len(raising)], kind="stable"), *(len(raising) + np.argsort(middle[len(raising) :], kind="stable"))]
    units = [[*raising, *lowering][place] for place in ranked]
    first = torch.argsort((~own).long(), stable=True)[:SHOWN]
    maps = _maps(scope, name, batch[first], units, score)
    cells = (maps.shape[2], maps.shape[3])
    return UnitAttribution(
        attribution=attribution.float(),
        activation=activation.float(),
        score=log_odds(logits.double(), targets, rival),
        probability=logits.double().softmax(1).gather(1, targets[:, None])[:, 0],
        effect=effect[:, ranked],
        together=lost[:, -1],
        predicted=predicted,
        predicted_without=without,
        images=batch[first],
        maps=maps,
        place=scope.layers.place(known, cells, (batch.shape[2], batch.shape[3])) if min(cells) else (),
        shown=first,
        units=tuple(units),
        raising=len(raising),
        targets=tuple(targets.tolist()),
        target_names=tuple(scope.unit_names(OUTPUT, targets.tolist())),
        predicted_names=tuple(scope.unit_names(OUTPUT, predicted.tolist())),
        names=reader.names,
        layer=name,
        against="" if rival is None else scope.unit_names(OUTPUT, [rival])[0] or str(rival),
        method=method,
        notices=(*(no_silence(scope, name) if min(lowest) < 0 else ()), *(_MIXED if len(targets.unique()) > 1 else ())),
        skipped=reader.skipped,
        cut=reader.cut,
        manifest={"precision": scope.resolve("measure")},
    )


def log_odds(logits: Tensor, targets: Tensor, rival: int | None) -> Tensor:
    """The log-odds of each image's class, or its logit less that of another class: (n class) -> (n)."""
    own = logits.gather(1, targets[:, None])[:, 0]
    if rival is not None:
        return own - logits[:, rival]
    return own - logits.scatter(1, targets[:, None], -torch.inf).logsumexp(1)


def _silenced(
    scope: Scope, layer: str, images: Tensor, groups: list[list[int]], targets: Tensor, rival: int | None, advance: Any
) -> tuple[np.ndarray, np.ndarray, str]:
    """What the score loses without each group of units, (n group), and the class predicted without the last group, (n)."""
    lost: list[Tensor] = []
    without: list[Tensor] = []
    with scope.session(scope.resolve("measure")), reusing_memory(scope.fast), torch.no_grad():
        above = AboveLayer(scope, layer, (images.shape[2], images.shape[3]))

        def work(part: slice) -> tuple[Tensor, Tensor]:
            cached = above.begin(images[part])
            chosen = targets[part].to(cached.output.device)
            before = log_odds(cached.output.double(), chosen, rival)
            drops, outputs = list[Tensor](), cached.output
            for group in groups:
                value = cached.value.clone()
                above.layer.units_first(value)[:, group] = 0
                outputs = above.finish(cached, value).double()
                drops.append(before - log_odds(outputs, chosen, rival))
                advance(len(chosen))
            return torch.stack(drops, 1).cpu(), outputs.argmax(1).cpu()

        for drops, left in scope.in_parts(len(images), scope.fitting(images.shape[-2] * images.shape[-1]), work):
            lost.append(drops)
            without.append(left)
        return torch.cat(lost).numpy(), torch.cat(without).numpy(), above.method


def _maps(scope: Scope, layer: str, images: Tensor, units: list[int], score: Callable[[Tensor], Tensor]) -> Tensor:
    """Activation times derivative of units at each position, (n unit y x); without maps (n unit 0 0)."""
    known = scope.layers[layer]
    if len(known.spatial) != 2:
        return torch.zeros(len(images), len(units), 0, 0, dtype=torch.float32, device="cpu")

    def of_part(part: Tensor) -> Tensor:
        values, slopes, _ = scope.layer_gradient(part, layer, score)
        return known.channels_first(values * slopes)[:, units].float().cpu()

    return torch.cat(list(scope.in_batches(images, of_part)))
