"""Feature visualization side by side: the forty-line article's own loop, Lucent, and convscope, on the same network and machine.

    python benchmarks/feature_visualization.py                 # the whole table (about 20 minutes on 2 cores)
    python benchmarks/feature_visualization.py --cases 7 --filters 4
    python benchmarks/feature_visualization.py --memory 6 24 48     # peak memory for so many units

Every contender runs in a process of its own, timed from start to end, and the contenders of a case follow one another, so that a
drift of the machine hits them alike. Objectives are measured by one ruler: the mean of the layer's value at the final picture, clipped
to [0,1], in float32. Needs the extra `bench` for Lucent.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch.nn import functional as F

import convscope as cs
from convscope.optimize.objectives import unit
from convscope.optimize.recipes import RECIPES

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SQUEEZENET = Path(__file__).resolve().parents[2] / "shared" / "weights" / "squeezenet1_0-imagenet.safetensors"
LUCENT_SIDE = 224


def network(case: str) -> tuple[torch.nn.Module, str]:
    """The network of a case and the layer's full name; VGG with the same random weights for everyone."""
    if case.startswith("squeezenet"):
        return cs.open("squeezenet1_0", weights=SQUEEZENET).model, case.partition(":")[2]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.vgg16_bn(weights=None).eval(), f"features.{case}"


def scope_of(case: str, precision: str = "auto") -> tuple[cs.Scope, str]:
    model, layer = network(case)
    return cs.Scope(model, cs.Inputs(224, MEAN, STD), precision=precision, name=f"case {case}"), layer


def article(case: str, filters: list[int]) -> np.ndarray:
    """The article's loop as a user would write it down: hooks, one filter at a time, float32, the whole `features`."""
    model, layer = network(case)
    model = model.features.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    kept: dict[str, torch.Tensor] = {}
    handle = model.get_submodule(layer.removeprefix("features.")).register_forward_hook(lambda _m, _i, output: kept.update(features=output))
    pictures = []
    for number in filters:
        size = 56
        image = torch.from_numpy(np.uint8(np.random.default_rng(number).uniform(150, 180, (size, size, 3))) / 255).float().permute(2, 0, 1)
        for _ in range(12):
            variable = ((image - mean) / std)[None].requires_grad_()
            optimizer = torch.optim.Adam([variable], lr=0.1, weight_decay=1e-6)
            for _ in range(20):
                optimizer.zero_grad()
                model(variable)
                loss = -kept["features"][0, number].mean()
                loss.backward()
                optimizer.step()
            image = variable.detach()[0] * std + mean
            final = image
            size = int(1.2 * size)
            image = F.interpolate(image[None], size=(size, size), mode="bicubic", align_corners=False)[0]
        pictures.append(final.clamp(0, 1).numpy())
    handle.remove()
    return np.stack(pictures)


def lucent(case: str, filters: list[int], steps: int) -> np.ndarray:
    """Lucent with its own defaults, but for the picture's side and the number of steps."""
    warnings.simplefilter("ignore")
    from lucent.optvis import objectives, param, render, transform

    model, layer = network(case)
    model = model.eval()
    pictures = []
    for number in filters:
        (image,) = render.render_vis(
            model,
            objectives.channel(layer.replace(".", "_"), number),
            param_f=lambda: param.image(LUCENT_SIDE, fft=True, decorrelate=True),
            transforms=list(transform.standard_transforms),
            thresholds=(steps,),
            show_image=False,
            progress=False,
        )
        pictures.append(np.clip(image[0].transpose(2, 0, 1), 0, 1))
    return np.stack(pictures)


def ours(case: str, filters: list[int], recipe: str, precision: str, steps: int) -> np.ndarray:
    scope, layer = scope_of(case, precision)
    numbers = {"size": LUCENT_SIDE, "steps": steps} if recipe == "fourier" else {}
    return cs.feature_visualization(scope, layer, filters, recipe=recipe, **numbers).images


def objective(case: str, filters: list[int], pictures: np.ndarray) -> float:
    """Mean over the filters of the layer's mean value, in float32."""
    scope, layer = scope_of(case, "float32")
    with torch.no_grad():
        scores = [unit(layer, number)(scope, torch.from_numpy(picture[None])) for number, picture in zip(filters, pictures, strict=True)]
    return float(torch.cat(scores).mean())


def peak(precision: str) -> float:
    """The machine's measured convolution peak in GFLOP/s: the best of some large 3x3 convolutions, forward."""
    best = 0.0
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for channels, side in ((64, 208), (128, 104), (256, 52), (512, 26)):
        conv = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(kind).to(memory_format=torch.channels_last)
        x = torch.rand(2, channels, side, side).to(kind).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            for _ in range(6):
                begun = time.perf_counter()
                conv(x)
                best = max(best, 2 * 2 * channels * channels * 9 * side * side / (time.perf_counter() - begun) / 1e9)
    return best


def work(case: str, recipe: str, steps: int) -> float:
    """GFLOP of the whole convolutions for one filter: forward to the layer, and back to the picture (which costs as much)."""
    scope, layer = scope_of(case)
    last = scope.layers[layer].position
    at_224 = sum(one.macs for one in scope.layers.of_kind("Conv2d").values() if one.position <= last)
    if recipe == "fourier":
        return 4 * at_224 * steps * (LUCENT_SIDE + 12) ** 2 / 224**2 / 1e9
    plan = RECIPES[recipe]
    return sum(4 * at_224 * plan.steps * side**2 / 224**2 for side in plan.sides(224)) / 1e9


CONTENDERS = {
    "article": lambda case, filters, _steps: article(case, filters),
    "ours float32": lambda case, filters, steps: ours(case, filters, "multiscale", "float32", steps),
    "ours bfloat16": lambda case, filters, steps: ours(case, filters, "multiscale", "bfloat16", steps),
    "Lucent": lambda case, filters, steps: lucent(case, filters, steps),
    "ours fourier float32": lambda case, filters, steps: ours(case, filters, "fourier", "float32", steps),
    "ours fourier bfloat16": lambda case, filters, steps: ours(case, filters, "fourier", "bfloat16", steps),
}


def memory(counts: list[int]) -> None:
    """Peak memory of processes that make so many units' pictures: features.40, float32, 3 steps."""
    for count in counts:
        for recipe in ("fourier", "multiscale"):
            numbers = f"recipe={recipe!r}, steps=3{', size=224' if recipe == 'fourier' else ''}"
            script = (
                "import resource, convscope.techniques.feature_visualization as technique, feature_visualization as benchmark\n"
                "technique.rose = lambda _: True\n"  # after 3 steps some have not risen, and would be tried again
                "scope, layer = benchmark.scope_of('40', 'float32')\n"
                f"technique.feature_visualization(scope, layer, range({count}), {numbers})\n"
                "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
            )
            done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
            print(f"{recipe}: {count} units, {float(done.stdout):.2f} GiB", flush=True)


def child(name: str, case: str, filters: list[int], steps: int, out: str) -> None:
    """One contender in its own process: writes its pictures."""
    np.save(out, CONTENDERS[name](case, filters, steps))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", nargs="*", default=["7", "20", "40", "squeezenet1_0:features.12"])
    parser.add_argument("--filters", type=int, default=8)
    parser.add_argument("--reference-filters", type=int, default=3, help="how many of them the slow references make")
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--steps", type=int, default=64, help="steps of Lucent and of `fourier`; Lucent's own default is 512")
    parser.add_argument("--memory", nargs="+", type=int, help="peak memory for so many units, and nothing else")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    filters = list(range(options.filters))
    if options.child:
        child(options.child, options.cases[0], filters, options.steps, options.out)
        return
    if options.memory:
        memory(options.memory)
        return
    peaks = {kind: peak(kind) for kind in ("float32", "bfloat16")}
    measured = ", ".join(f"{kind} {value:.0f} GFLOP/s" for kind, value in peaks.items())
    print(f"{torch.get_num_threads()} threads; convolution peak: {measured}")
    common = min(options.filters, options.reference_filters)
    print(f"{options.filters} filters ({common} of them by the references, one by one), whose objectives are compared")
    print(f"multiscale as in the article; Lucent and fourier: {LUCENT_SIDE} px, {options.steps} steps\n")
    print("| case | contender | s per filter | objective | faster than its reference | objective / reference | of peak |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for case in options.cases:
        reference: dict[str, tuple[float, float]] = {}
        for name in options.contenders:
            count = common if name in ("article", "Lucent") else options.filters
            with tempfile.TemporaryDirectory() as folder:
                out = str(Path(folder) / "pictures.npy")
                command = [
                    sys.executable,
                    __file__,
                    "--cases",
                    case,
                    "--filters",
                    str(count),
                    "--steps",
                    str(options.steps),
                    "--child",
                    name,
                    "--out",
                    out,
                ]
                begun = time.perf_counter()
                done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
                seconds = (time.perf_counter() - begun) / count
                if done.returncode:
                    print(f"| {case} | {name} | failed: {done.stderr.strip().splitlines()[-1]} |", flush=True)
                    continue
                score = objective(case, filters[:common], np.load(out)[:common])
            against = "Lucent" if "fourier" in name or name == "Lucent" else "article"
            reference.setdefault(against, (seconds, score))
            kind = "bfloat16" if "bfloat16" in name else "float32"
            share = work(case, "fourier" if against == "Lucent" else "multiscale", options.steps) / seconds / peaks[kind]
            first, base = reference[against]
            cells = f"{seconds:.2f} | {score:.4f} | {first / seconds:.2f}x | {score / base:.3f} | {share:.0%}"
            print(f"| {case} | {name} | {cells} |", flush=True)
    print("\n" + json.dumps({"torch": torch.__version__, "machine": os.cpu_count()}))


if __name__ == "__main__":
    main()
