"""Integrated gradients: how much each pixel adds to a class's logit on the way from a baseline to the image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.names import is_whole
from convscope.progress import task
from convscope.results.integrated_gradients import IntegratedGradients
from convscope.results.provenance import technique
from convscope.scope import OUTPUT, Images, Scope
from convscope.techniques.fills import Fill, fill_image

_MOST_STEPS = 1000


@technique
def integrated_gradients(
    scope: Scope,
    images: Images,
    target: int | str | None = None,
    *,
    baseline: Fill = "mean",
    steps: int = 32,
) -> IntegratedGradients:
    """Integrated gradients: how much each pixel adds to a class's logit on the way from a baseline to the image.

    map = (x - b) * integral over a from 0 to 1 of the derivative of the logit at b + a (x - b), summed over colour channels; by
    Gauss-Legendre quadrature. The sum of the map is logit(x) - logit(b), up to what the result's `gap` says.

    Args:
        scope: The network.
        images: One or several images of one size, or a folder.
        target: Class index or name; None for the class predicted for each image.
        baseline: What counts as nothing: "mean" (the mean of the network's normalization), "black", "white", "gray", a grey value, a
            colour, "blur" (the image blurred by a quarter of its side), or an image, as the `fill` of :func:`~convscope.occlusion`.
        steps: Points at which the derivative is taken.

    Returns:
        A signed map at the image's size for each image, with the logits that it leads from and to.

    Raises:
        UnitNotFound: Unknown class.
        BadInput: Steps or a baseline that make no sense, an output that is not a logit for each class, or one without derivative.

    Source:
        Sundararajan, Taly, Yan 2017 (arXiv 1703.01365). Equal to Captum's ``IntegratedGradients`` of as many steps.

    Example:
        >>> import convscope as cs, torch
        >>> cs.integrated_gradients(cs.open("textures"), torch.rand(1, 3, 128, 128), steps=4).map.shape
        (1, 128, 128)

    Command line:
        convscope integrated-gradients textures data/images/heart/0000.png
        convscope integrated-gradients textures data/images/heart --target heart --baseline blur --steps 16
    """
    if not is_whole(steps) or not 1 <= steps <= _MOST_STEPS:
        raise BadInput(f"steps must be a whole number from 1 to {_MOST_STEPS}, got {steps!r}")
    reader = scope.inputs.reader(images)
    batch = reader.batch()
    asked = None if target is None else scope.class_index(target)
    logits = torch.cat(list(scope.in_batches(batch, lambda part: _logits(scope, part))))
    targets = logits.argmax(1) if asked is None else torch.full_like(logits[:, 0], asked, dtype=torch.int64)
    sides = batch.shape[-2] // 2, batch.shape[-1] // 2
    baselines = torch.stack([fill_image(baseline, image, scope.inputs, sides) for image in batch])
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    found: list[Tensor] = []
    with task("integrated gradients", len(batch) * steps) as advance:
        for image, start, chosen in zip(batch, baselines, targets.tolist(), strict=True):
            ways = torch.stack([start + (image - start) * (1 + float(node)) / 2 for node in nodes])

            def slopes(part: slice, ways: Tensor = ways, chosen: int = chosen) -> Tensor:
                own = _slopes(scope, ways[part], chosen)
                advance(len(own))
                return torch.tensordot(torch.tensor(weights[part] / 2, dtype=torch.float64, device="cpu"), own, 1)

            at_once = 1 if scope.one_at_a_time else scope.fitting(image.shape[-2] * image.shape[-1])
            mean = torch.stack(list(scope.in_parts(steps, at_once, slopes))).sum(0)
            found.append(((image - start).double() * mean).sum(0))
    start_logits = torch.cat(list(scope.in_batches(baselines, lambda part: _logits(scope, part))))
    return IntegratedGradients(
        map=torch.stack(found).float(),
        images=batch,
        logit=logits.gather(1, targets[:, None])[:, 0],
        baseline_logit=start_logits.gather(1, targets[:, None])[:, 0],
        probability=torch.softmax(logits.double(), 1).gather(1, targets[:, None])[:, 0],
        targets=tuple(targets.tolist()),
        names=reader.names,
        skipped=reader.skipped,
        cut=reader.cut,
        target_names=scope.unit_names(OUTPUT, targets.tolist()),
        baseline=baseline if isinstance(baseline, str) else "given" if isinstance(baseline, Tensor) else str(baseline),
        steps=steps,
        manifest={"precision": scope.resolve("measure")},
    )


def _logits(scope: Scope, images: Tensor) -> Tensor:
    found = scope.activations(images, OUTPUT)[OUTPUT].cpu()
    if found.ndim != 2:
        raise BadInput(f"{scope.name} returns {tuple(found.shape)}, not a logit for each class")
    return found


def _slopes(scope: Scope, images: Tensor, target: int) -> Tensor:
    """The derivative of a class's logit with respect to each pixel, (n c h w), float64, on the CPU."""
    value, pull = scope.vector_jacobian(images, OUTPUT)
    cotangent = torch.zeros_like(value)
    cotangent[:, target] = 1
    return pull(cotangent[None])[0].double().cpu()
