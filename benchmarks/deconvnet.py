"""Deconvnet: what 16 units of one picture cost, against one batched forward and backward of the truncated network on a batch of 16.

    python benchmarks/deconvnet.py

The reference is what a loop-free user would write: the picture 16 times in a batch, the network cut off at the layer, one
`torch.autograd.grad`. Random weights; both are timed in turn, in one process, and the median of the rounds is printed. The bar is 1.3.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torchvision

import convscope as cs

CASES = {"squeezenet1_0": 12, "vgg16": 28}
UNITS = 16
BAR = 1.3


def reference(net: torch.nn.Sequential, picture: torch.Tensor) -> torch.Tensor:
    batch = picture.expand(UNITS, -1, -1, -1).clone().requires_grad_()
    value = net(batch)
    own = value[torch.arange(UNITS), torch.arange(UNITS)]
    return torch.autograd.grad(own.flatten(1).amax(1).sum(), batch)[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    print(f"{torch.get_num_threads()} threads, {UNITS} units, median of {rounds} rounds\n")
    print("| network | layer | rule | reference s | deconvnet s | ratio |\n|---|---|---|---:|---:|---:|")
    for name, last in CASES.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)
        net = model.features[: last + 1]
        scope = cs.Scope(model, cs.Inputs(224), name=name)
        layer = f"features.{last}"
        _ = scope.layers
        for rule in ("deconvnet", "guided", "gradient"):
            times: dict[str, list[float]] = {"reference": [], "ours": []}
            for _ in range(rounds + 1):  # the first is a rehearsal
                begun = time.perf_counter()
                reference(net, picture)
                between = time.perf_counter()
                cs.deconvnet(scope, layer, slice(UNITS), picture, rule=rule)
                times["reference"].append(between - begun)
                times["ours"].append(time.perf_counter() - between)
            base, ours = (statistics.median(times[key][1:]) for key in ("reference", "ours"))
            verdict = "" if ours <= BAR * base else f" above {BAR}"
            print(f"| {name} | {layer} | {rule} | {base:.2f} | {ours:.2f} | {ours / base:.2f}{verdict} |", flush=True)


if __name__ == "__main__":
    main()
