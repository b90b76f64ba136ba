"""Inversion and style transfer against the papers' optimizers, and many filters at once against one by one.

    python benchmarks/inversion.py error      # time to the error at which the paper's optimizer stops
    python benchmarks/inversion.py batch      # 16 filters at once against 16 single runs
    python benchmarks/inversion.py style      # style transfer at 512 px: seconds to the reference loss

Contenders run one after the other in one process, after a warm-up of each. The error is that of the finished picture, clipped to [0,1],
in float32. The paper's optimizer is written out below as its users had it: float32, hooks, the network truncated at the layer.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import convscope as cs
from convscope.ops.map_statistics import gram_means

SHARED = Path(__file__).resolve().parents[2] / "shared"
PHOTO = SHARED / "images" / "inversion-paper" / "content-golden-gate.jpg"
PAINTING = SHARED / "images" / "inversion-paper" / "style-starry-night.jpg"
MEAN_COLOR = torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1)


def network(precision: str = "auto") -> cs.Scope:
    return cs.open("squeezenet1_0", weights=SHARED / "weights" / "squeezenet1_0-imagenet.safetensors", precision=precision)


class Plain:
    """SqueezeNet's features up to a layer as plain torch, with max or average pooling."""

    def __init__(self, layer: str, average: bool) -> None:
        scope = network("float32")
        self.modules = list(scope.model.eval().features)[: int(layer.partition(".")[2]) + 1]
        for parameter in scope.model.parameters():
            parameter.requires_grad_(False)
        self.average, self.inputs = average, scope.inputs

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        values = self.inputs.normalize(picture)
        for module in self.modules:
            pool = self.average and isinstance(module, torch.nn.MaxPool2d)
            values = F.avg_pool2d(values, 3, 2, ceil_mode=True) if pool else module(values)
        return values


def papers(layer: str, photo: torch.Tensor, average: bool) -> tuple[float, int, float]:
    """Xia et al.'s optimizer to its stop: (seconds, steps, error of the clipped picture)."""
    code = Plain(layer, average)
    begun = time.perf_counter()
    with torch.no_grad():
        target = code(photo)
    numbers = 0.2 * torch.rand(photo.shape, generator=torch.Generator().manual_seed(0)) - 0.1
    speed, steps = torch.zeros_like(numbers), 0
    for steps in range(1, 1001):
        free = numbers.requires_grad_()
        loss = (code((free + MEAN_COLOR) / 255) - target).square().sum() / 2
        (slope,) = torch.autograd.grad(loss, free)
        numbers = numbers.detach()
        speed = 0.9 * speed - 0.1 * 0.9 ** ((steps - 1) // 10) * (slope.clamp(-10, 10) + 5e-4 * numbers)
        numbers = numbers + speed
        if float(speed.norm()) < 0.005 * float(numbers.norm()):
            break
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        picture = ((numbers + MEAN_COLOR) / 255).clamp(0, 1)
        error = (code(picture) - target).square().sum() / target.square().sum()
    return seconds, steps, float(error)


def photographs(count: int) -> list[Path]:
    """The paper's Golden Gate and, beyond it, photographs evenly spaced over the sample of ImageNet."""
    sample = sorted((SHARED / "images" / "imagenet-sample").iterdir())
    return [PHOTO, *[sample[(2 * place + 1) * len(sample) // (2 * (count - 1))] for place in range(count - 1)]]


def error(layers: list[str], poolings: list[str], optimizer: str, limit: int, photos: int) -> None:
    print("| layer | pooling | photograph | paper: error, steps, s | its preset here, s | evaluations, s | share of the paper's time |")
    print("|---|---|---|---|---:|---|---:|")
    scope = network()
    for layer in layers:
        for pooling in poolings:
            cs.inversion(scope, layer, PHOTO, optimizer=optimizer, steps=3, pooling=pooling)
            shares: list[float] = []
            for path in photographs(photos):
                photo = scope.inputs(path)
                papers_seconds, steps, aim = papers(layer, photo[None], pooling == "average")
                begun = time.perf_counter()
                cs.inversion(scope, layer, photo, optimizer="paper", pooling=pooling)
                preset = time.perf_counter() - begun
                evaluations, seconds = reaching(aim, scope, photo, layer, pooling=pooling, optimizer=optimizer, limit=limit)
                shares.append(seconds / papers_seconds)
                ours = f"{evaluations}, {seconds:.2f} | {shares[-1]:.2f}" if evaluations else "not reached | -"
                print(
                    f"| {layer} | {pooling} | {path.stem} | {aim:.4f}, {steps}, {papers_seconds:.2f} | {preset:.2f} | {ours} |", flush=True
                )
            if photos > 1:
                print(f"| {layer} | {pooling} | mean of {photos} | | | | {np.mean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}) |")


def reaching(
    aim: float, scope: cs.Scope, photo: torch.Tensor, layer: str, *, pooling: str, optimizer: str, limit: int
) -> tuple[int, float]:
    """Evaluations until the picture's error is `aim`, and seconds of a run of its own to there; (0, nan) where `limit` is not enough."""
    history = cs.inversion(scope, layer, photo, pooling=pooling, optimizer=optimizer, steps=limit).history[0, 0]
    reached = np.flatnonzero(history <= aim)
    evaluations = int(reached[0]) + 1 if len(reached) else limit + 1
    while evaluations <= limit:
        begun = time.perf_counter()
        made = cs.inversion(scope, layer, photo, pooling=pooling, optimizer=optimizer, steps=evaluations)
        seconds = time.perf_counter() - begun
        if made.error.item() <= aim:
            return evaluations, seconds
        evaluations += 2  # rounding may ask for a little more
    return 0, float("nan")


def batch(layer: str, steps: int, singles: int) -> None:
    scope = network()
    photo = scope.inputs.whole(PHOTO, 256)
    photo = F.interpolate(photo[None], (256, 256), mode="bilinear", antialias=True)[0].clamp(0, 1)
    cs.inversion(scope, layer, photo, edit=cs.FeatureMap(0), prior="none", steps=3)
    begun = time.perf_counter()
    for number in range(singles):
        cs.inversion(scope, layer, photo, edit=cs.FeatureMap(number), prior="none", steps=steps)
    single = (time.perf_counter() - begun) / singles
    begun = time.perf_counter()
    cs.inversion(scope, layer, photo, edit=[cs.FeatureMap(number) for number in range(16)], prior="none", steps=steps)
    together = (time.perf_counter() - begun) / 16
    print("| layer | evaluations | single, s per picture | 16 at once, s per picture | share | pictures per minute |")
    print("|---|---:|---:|---:|---:|---:|")
    print(f"| {layer} | {steps} | {single:.2f} | {together:.2f} | {together / single:.2f} | {60 / together:.0f} |")


def style(reference_steps: int) -> None:
    """The reference: a plain L-BFGS loop with torch's optimizer, float32, from the content, Gram matrices, as tutorials have it."""
    scope = network()
    content, painting = (scope.inputs.whole(path, 512) for path in (PHOTO, PAINTING))
    cs.style_transfer(scope, content, painting, statistic="gram", weighting="paper", steps=2)
    layers, deepest = (1, 3, 7, 9, 12), 10
    body = Plain("features.12", True)

    def maps(picture: torch.Tensor) -> dict[int, torch.Tensor]:
        values, found = body.inputs.normalize(picture), {}
        for place, module in enumerate(body.modules):
            values = F.avg_pool2d(values, 3, 2, ceil_mode=True) if isinstance(module, torch.nn.MaxPool2d) else module(values)
            if place in (*layers, deepest):
                found[place] = values
        return found

    begun = time.perf_counter()
    with torch.no_grad():
        code = maps(content[None])[deepest]
        aims = {place: gram_means(values) for place, values in maps(painting[None]).items() if place in layers}
    free = body.inputs.normalize(content[None]).clone().requires_grad_()
    limits = {"max_iter": reference_steps, "max_eval": reference_steps, "tolerance_grad": 0.0, "tolerance_change": 0.0}
    optimizer = torch.optim.LBFGS([free], **limits, history_size=10, line_search_fn="strong_wolfe")
    losses: list[float] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        found = maps(body.inputs.denormalize(free))
        loss = (found[deepest] - code).square().sum() / 2
        for place, aim in aims.items():
            loss = loss + 1000 / 5 / (4 * aim.shape[1] ** 2) * (gram_means(found[place]) - aim).square().sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    reference = time.perf_counter() - begun
    history = cs.style_transfer(scope, content, painting, statistic="gram", weighting="paper", steps=reference_steps).history[0, 0, 0]
    reached = np.flatnonzero(history <= min(losses))
    evaluations = int(reached[0]) + 1 if len(reached) else reference_steps
    begun = time.perf_counter()
    made = cs.style_transfer(scope, content, painting, statistic="gram", weighting="paper", steps=evaluations)
    seconds = time.perf_counter() - begun
    print("| contender | evaluations | loss | s |")
    print("|---|---:|---:|---:|")
    print(f"| torch's L-BFGS, plain loop, float32 | {len(losses)} | {min(losses):.4g} | {reference:.1f} |")
    print(f"| style_transfer | {evaluations} | {np.nanmin(made.history):.4g} | {seconds:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["error", "batch", "style"])
    parser.add_argument("--layers", nargs="*", default=["features.3", "features.7", "features.12"])
    parser.add_argument("--poolings", nargs="*", default=["average", "own"])
    parser.add_argument("--optimizer", default="lbfgs", choices=["lbfgs", "adam"])
    parser.add_argument("--limit", type=int, default=400, help="evaluations at most to reach the error")
    parser.add_argument("--photos", type=int, default=1, help="photographs, Golden Gate first, in part error")
    parser.add_argument("--layer", default="features.7")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--singles", type=int, default=16)
    chosen = parser.parse_args()
    if chosen.part == "error":
        error(chosen.layers, chosen.poolings, chosen.optimizer, chosen.limit, chosen.photos)
    elif chosen.part == "batch":
        batch(chosen.layer, chosen.steps, chosen.singles)
    else:
        style(chosen.steps)


if __name__ == "__main__":
    main()
