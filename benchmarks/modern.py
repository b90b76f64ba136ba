"""Networks of today: a step of feature visualization against a plain loop and the machine's limit, and a scan against the bare forward.

    python benchmarks/modern.py                                      # both tables (about 15 minutes on 2 cores)
    python benchmarks/modern.py --networks resnet50 --parts step

A step is one of the recipe `crops` (160 px, batch 4, float32) for a class. The plain loop is what one writes down: a copy of the network,
its parameters frozen, channels first, with the same Fourier image and crops. Each runs in a process of its own, alternating; an image's
seconds per step are those of a long run less those of a short one. The limit is, for each layer with weights, its arithmetic at the
measured peak of convolutions or its values at the measured bandwidth, whichever is longer; nothing else is counted.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time

import torch
import torchvision
from feature_visualization import MEAN, STD, peak
from scan import bare, scanned

import convscope as cs
import convscope.techniques.feature_visualization as technique
from convscope.optimize.parameterizations.fourier import Fourier
from convscope.optimize.recipes import RECIPES
from convscope.optimize.transforms import warp

NETWORKS = ("efficientnet_lite0", "mobilenet_v3_large", "resnet50", "convnext_tiny", "densenet121", "regnet_y_800mf")
BATCH, SHORT, LONG = 4, 2, 14
INPUTS = cs.Inputs(224, MEAN, STD)
RECIPE = RECIPES["crops"]


def network(name: str) -> torch.nn.Module:
    """A network; but for efficientnet_lite0, with the same random weights every time."""
    if name.startswith("efficientnet_lite"):
        return cs.open(name).model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.get_model(name, weights=None).eval()


def plain_loop(model: torch.nn.Module, steps: int) -> None:
    """Class images by gradient ascent, as one writes it down."""
    model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    form, transform = Fourier(INPUTS), RECIPE.random_transform()
    assert transform is not None
    draws = [torch.Generator().manual_seed(number) for number in range(BATCH)]
    parameters = form.start(224, 224, draws).requires_grad_()
    adam = torch.optim.Adam([parameters], lr=RECIPE.learning_rate)
    for step in range(steps):
        adam.zero_grad()
        matrices = torch.stack([transform.draw(one, step / steps, 224) for one in draws])
        seen = warp(form.image(parameters, 224, 224), matrices, RECIPE.crop_size)
        seen = seen + RECIPE.noise * torch.randn_like(seen)
        logits = model((seen - mean) / std)
        (-logits.diagonal().sum()).backward()
        adam.step()


def timed(who: str, model: torch.nn.Module, name: str) -> float:
    """Milliseconds of an image's step."""
    technique.rose = lambda _: True  # after a few steps some have not risen, and would be tried again
    scope = cs.Scope(model, INPUTS, precision="float32", name=name)

    def run(steps: int) -> float:
        begun = time.perf_counter()
        if who == "plain":
            plain_loop(model, steps)
        else:
            cs.feature_visualization(scope, "output", list(range(BATCH)), recipe=RECIPE, steps=steps)
        return time.perf_counter() - begun

    run(SHORT)
    short, long = (statistics.median(run(steps) for _ in range(3)) for steps in (SHORT, LONG))
    return 1e3 * (long - short) / (LONG - SHORT) / BATCH


def bandwidth() -> float:
    """Gigabytes a second that are read and written by an addition of arrays too large for the caches."""
    first, second = torch.ones(2, 2**26).unbind()
    best = 0.0
    for _ in range(8):
        begun = time.perf_counter()
        torch.add(first, 1.0, out=second)
        best = max(best, 2 * 4 * len(first) / (time.perf_counter() - begun) / 1e9)
    return best


def limit(model: torch.nn.Module, gflops: float, gigabytes: float) -> float:
    """Milliseconds that an image's step takes at least: each layer with weights forward, and back to its input."""
    scope = cs.Scope(model, cs.Inputs(RECIPE.crop_size, MEAN, STD), name="limit")
    total = 0.0
    for layer in scope.layers.of_kind("Conv2d", "Linear").values():
        if layer.node is None:
            continue
        source = scope.graph.nodes[layer.node].edges[0].node
        values = [scope.graph.nodes[node].shape for node in (source, layer.node)]
        count = sum(torch.Size(shape[1:]).numel() for shape in values)
        total += max(4 * layer.macs / gflops / 1e6, 2 * 4 * count / gigabytes / 1e6)  # read, written; and so its derivatives
    return total


def child(arguments: list[str]) -> float:
    """A figure that a process of its own prints."""
    done = subprocess.run([sys.executable, __file__, "--one", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--parts", nargs="+", default=["step", "scan"], choices=["step", "scan"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=256, help="of a scan")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        who, name = given.one
        model = network(name)
        if who in ("bare", "tuned"):
            print(bare(model, 8, given.images, tuned=who == "tuned", clock="wall"))
        elif who == "scan":
            print(scanned(model, name, 8, given.images, "wall"))
        else:
            print(timed(who, model, name))
        return
    if "step" in given.parts:
        gflops, gigabytes = peak("float32"), bandwidth()
        print(f"{torch.get_num_threads()} threads, float32; convolution peak {gflops:.0f} GFLOP/s, bandwidth {gigabytes:.0f} GB/s\n")
        print("| network | plain loop, ms per image and step | convscope | times as fast | limit | share of it |")
        print("|---|---:|---:|---:|---:|---:|")
        for name in given.networks:
            rounds = [[child([who, name]) for who in ("plain", "ours")] for _ in range(given.rounds)]
            plain, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
            least = limit(network(name), gflops, gigabytes)
            print(f"| {name} | {plain:.1f} | {ours:.1f} | {plain / ours:.2f}x | {least:.1f} | {least / ours:.0%} |", flush=True)
    if "scan" in given.parts:
        print(f"\n{given.images} images, batch 8, images per second\n")
        print("| network | bare forward | tuned | scan | scan / bare | scan / tuned |\n|---|---:|---:|---:|---:|---:|")
        for name in given.networks:
            rounds = [[child([who, name]) for who in ("bare", "tuned", "scan")] for _ in range(given.rounds)]
            one, two, own = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"| {name} | {one:.1f} | {two:.1f} | {own:.1f} | {own / one:.2f} | {own / two:.2f} |", flush=True)


if __name__ == "__main__":
    main()
