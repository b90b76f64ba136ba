"""Occlusion side by side: Captum at its best, full inference in batches, and incremental inference in float32 and bfloat16.

    python benchmarks/occlusion.py                                           # all networks, stride 8 (about an hour on 2 cores)
    python benchmarks/occlusion.py --networks vgg16 resnet18 --strides 8 4

Random weights (they do not change the arithmetic), one picture, patch 16, every position of the `cover` grid. Every contender runs in a
process of its own, and those of a network follow one another. Timed is the map alone, without opening the network; a warm-up on few
positions comes before. Captum runs with as many perturbations at once (1, 8 or 32) as the bare forward is fastest with. Where a
whole map would take longer than --longest seconds, full inference and Captum are timed on a coarser grid and scaled by the number of
positions, which all cost them the same; such times carry a `~`. `(full)`: what is chosen for the network. Largest difference: of a
logit at 12 positions, as a share of the largest change of it. Needs the extra `bench` for Captum.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
import torchvision

import convscope as cs
from convscope.incremental.rerun import rerun
from convscope.incremental.sweep import Sweep
from convscope.ops.patches import patches

NETWORKS = "vgg16 resnet18 resnet50 inception_v3 squeezenet1_0 densenet121 mobilenet_v2 efficientnet_b0 convnext_tiny".split()
CONTENDERS = ["captum", "full", "incremental", "incremental bfloat16"]
PATCH = 16
COLUMNS = [
    "network",
    "stride",
    "Captum, s",
    "full, s",
    "incremental, s",
    "bfloat16, s",
    "faster than full",
    "than Captum",
    "MAC ratio, least / planned",
    "share of it",
    "memory, full / incremental, GB",
    "largest difference",
]


def scope_of(name: str, precision: str) -> cs.Scope:
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    size = 299 if name == "inception_v3" else 224
    inputs = cs.Inputs(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return cs.Scope(torchvision.models.get_model(name, weights=None, **options).eval(), inputs, precision=precision, name=name)


def awaken(model: torch.nn.Module, side: int) -> None:
    """Sets the statistics of batch norms to those of what they see: in a deep network with random ones nothing arrives at the output."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1)))
    for norm in norms:
        norm.eval()


def picture_for(scope: cs.Scope) -> torch.Tensor:
    """Smooth noise, (1 3 h w) in [0,1]."""
    coarse = torch.rand(1, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(scope.inputs.height, scope.inputs.width), mode="bilinear")


def captum_map(scope: cs.Scope, picture: torch.Tensor, stride: int, at_once: int) -> None:
    """Captum's map of the predicted class's probability."""
    from captum.attr import Occlusion

    fed = scope.inputs.normalize(picture)
    fill = float(scope.inputs.normalize(torch.full((1, 3, 1, 1), 0.5)).mean())
    with torch.no_grad():
        target = int(scope.model(fed).argmax(1))
        Occlusion(lambda batch: scope.model(batch).softmax(1)).attribute(
            fed, (3, PATCH, PATCH), (3, stride, stride), baselines=fill, target=target, perturbations_per_eval=at_once
        )


def timed(work: object, *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


def contend(name: str, contender: str, stride: int, longest: float) -> dict[str, object]:
    """Seconds for a whole map, and peak memory, of one contender; run in a process of its own."""
    scope = scope_of(name, "bfloat16" if "bfloat16" in contender else "float32")
    picture = picture_for(scope)
    side = scope.inputs.height
    count = (-(-(side - PATCH) // stride) + 1) ** 2
    few = next(step for step in range(stride, side) if (-(-(side - PATCH) // step) + 1) ** 2 <= 36)
    found: dict[str, object] = {"positions": count}
    scaled = 1.0
    if contender == "captum":
        with torch.no_grad():
            pictures = {at_once: picture.repeat(at_once, 1, 1, 1) for at_once in (1, 8, 32)}
            tried = {at_once: min(timed(scope.model, batch) for _ in range(3)) / at_once for at_once, batch in pictures.items()}
        best = min(tried, key=tried.__getitem__)
        step, scaled = coarser(side, stride, tried[best] * count, longest)
        step, scaled = (step, scaled) if step <= PATCH else (PATCH, count / (-(-(side - PATCH) // PATCH) + 1) ** 2)
        seconds = timed(captum_map, scope, picture, step, best)
        found["at_once"] = best
    else:
        method = contender.split()[0]
        warm = cs.occlusion(scope, picture, patch=PATCH, stride=few, method=method)
        step = stride
        if method == "full":
            each = timed(lambda: cs.occlusion(scope, picture, patch=PATCH, stride=few, method=method)) / warm.map.size
            step, scaled = coarser(side, stride, each * count, longest)
        seconds = timed(lambda: cs.occlusion(scope, picture, patch=PATCH, stride=step, method=method, verify=0))
    found |= {"seconds": seconds * scaled, "scaled": scaled != 1, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    return found


def coarser(side: int, stride: int, seconds: float, longest: float) -> tuple[int, float]:
    """A stride whose map takes no longer than `longest`, and how many times as many positions the asked one has."""
    counts = {step: (-(-(side - PATCH) // step) + 1) ** 2 for step in range(stride, side)}
    step = next(step for step in counts if seconds * counts[step] / counts[stride] <= longest or counts[step] <= 36)
    return step, counts[stride] / counts[step]


def facts(name: str, stride: int) -> dict[str, float]:
    """The least and the planned share of arithmetic, which method is chosen, and the largest difference and rank correlation."""
    scope = scope_of(name, "float32")
    awaken(scope.model, scope.inputs.height)
    picture = picture_for(scope)
    boxes = patches((scope.inputs.height, scope.inputs.width), (PATCH, PATCH), (stride, stride), "cover").reshape(-1, 4)
    with torch.no_grad(), scope.session("float32"):
        ready = rerun(scope, picture, "output")
        sweep = Sweep(scope, picture, torch.full_like(picture, 0.5), boxes, "output")
        full: list[torch.Tensor] = []
        checks = np.random.default_rng(0).choice(len(boxes), 12, replace=False)
        difference = sweep.verify(checks, lambda values: full.append(values) or values[:, 0])
        parts = ready.planner.batches(boxes, 4 * scope.fitting(picture.shape[-2] * picture.shape[-1]), ready.cached)
    planned = sum(part.cost * len(part.members) for part in parts) / len(boxes)
    return {
        "least": 1 / float(ready.planner.least(boxes).mean()),
        "planned": 1 / planned,
        "difference": difference / float((full[0][:, 0] - sweep.base()[:, 0]).abs().max()) if full else 0.0,
        "incremental": float(sweep.method == "incremental"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--strides", nargs="+", type=int, default=[8])
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS)
    parser.add_argument("--longest", type=float, default=60.0, help="seconds a full map may take before it is scaled from a coarser grid")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, contender, stride = options.one
        done = facts(name, int(stride)) if contender == "facts" else contend(name, contender, int(stride), options.longest)
        print(json.dumps(done))
        return
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * (len(COLUMNS) - 1))
    for name in options.networks:
        for stride in options.strides:
            known = child(name, "facts", stride, options.longest)
            done = {contender: child(name, contender, stride, options.longest) for contender in options.contenders}
            print("| " + " | ".join([name, str(stride), *row(known, done)]) + " |", flush=True)


def row(known: dict[str, float], done: dict[str, dict[str, float]]) -> list[str]:
    """What is to be said of one network at one stride."""

    def seconds(contender: str) -> str:
        return f"{'~' if done[contender]['scaled'] else ''}{done[contender]['seconds']:.1f}" if contender in done else ""

    def faster(contender: str) -> str:
        return f"{done[contender]['seconds'] / done['incremental']['seconds']:.2f}x" if {contender, "incremental"} <= done.keys() else ""

    method = "" if known["incremental"] else " (full)"
    both = {"full", "incremental"} <= done.keys()
    return [
        seconds("captum"),
        seconds("full"),
        seconds("incremental") + method,
        seconds("incremental bfloat16"),
        faster("full"),
        faster("captum"),
        f"{known['least']:.2f} / {known['planned']:.2f}",
        f"{done['full']['seconds'] / done['incremental']['seconds'] / known['least']:.0%}" if both else "",
        " / ".join(f"{done[contender]['memory']:.2f}" for contender in ("full", "incremental") if contender in done),
        f"{known['difference']:.0e}",
    ]


def child(name: str, contender: str, stride: int, longest: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--longest", str(longest), "--one", name, contender, str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
