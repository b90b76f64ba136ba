"""The scan of a data set against the bare forward of the same network: same precision, batch and threads, but no decoding, no statistics.

    python benchmarks/scan.py                          # rates, bar by network
    python benchmarks/scan.py --clock cpu              # CPU seconds of all processes instead: for a machine that is not idle
    python benchmarks/scan.py --memory 20000           # peak memory at 1,000 images and at so many
    python benchmarks/scan.py --crp                    # zennit-crp's feature visualization beside it (extra `bench`)

The bare forward is timed twice: as one writes it down (`model(batch)`), and as the scan runs it (channels-last, freed memory kept). The
bars hold against the first; the second says what measuring and decoding cost. Random weights; photographs from ../shared, decoded in
every round. Contenders alternate, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision

import convscope as cs
from convscope.fast.memory import reusing_memory

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "images" / "imagenet-sample"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BARS = {"vgg16_bn": (0.85, 128), "resnet50": (0.75, 1000), "squeezenet1_0": (0.6, 1000)}
"""{network: (share of the bare forward's rate that the scan must reach, images of a round)}"""


def network(name: str) -> torch.nn.Module:
    """A network with the same random weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.get_model(name, weights=None).eval()


def photographs(count: int) -> list[str]:
    """So many photographs; repeated if there are fewer."""
    files = sorted(map(str, PHOTOGRAPHS.glob("*.jpg")))
    return [files[index % len(files)] for index in range(count)]


def timed(work: Callable[[], object], clock: str = "wall") -> float:
    """Seconds: of the clock on the wall, or of CPU time in this process and those that it started (and that have ended)."""

    def now() -> float:
        own, started = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return time.perf_counter() if clock == "wall" else own.ru_utime + own.ru_stime + started.ru_utime + started.ru_stime

    begun = now()
    work()
    return now() - begun


def bare(model: torch.nn.Module, batch: int, images: int, tuned: bool, clock: str) -> float:
    """Images a second of a forward alone."""
    values = torch.rand(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    rounds = max(2, images // batch // 8)

    def forwards() -> None:
        for _ in range(rounds):
            model(values)

    with torch.no_grad():
        if not tuned:
            model(values)
            return rounds * batch / timed(forwards, clock)
        values = values.contiguous(memory_format=torch.channels_last)
        with reusing_memory():
            model(values)
            return rounds * batch / timed(forwards, clock)


def scanned(model: torch.nn.Module, name: str, batch: int, images: int, clock: str) -> float:
    """Images a second of a scan of all convolutions, from listing the files to the finished tables."""
    scope = cs.Scope(model, cs.Inputs(224, MEAN, STD), name=name)
    _ = scope.layers
    with tempfile.TemporaryDirectory() as folder:
        return images / timed(lambda: cs.scan(scope, photographs(images), f"{folder}/survey", batch_size=batch), clock)


def rates(names: list[str], rounds: int, batch: int, clock: str) -> None:
    """The table of rates."""
    print(f"{torch.get_num_threads()} threads, float32, batch {batch}, images per second of {clock} time, median of {rounds} rounds\n")
    print("| network | images | bare forward | bare, tuned | scan | scan / bare | bar | scan / tuned |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in names:
        bar, images = BARS[name]
        model = network(name)
        found: dict[str, list[float]] = {"bare": [], "tuned": [], "scan": []}
        for _ in range(rounds):
            found["bare"].append(bare(model, batch, images, tuned=False, clock=clock))
            found["tuned"].append(bare(model, batch, images, tuned=True, clock=clock))
            found["scan"].append(scanned(model, name, batch, images, clock))
        plain, tuned, own = (statistics.median(found[key]) for key in ("bare", "tuned", "scan"))
        verdict = "" if own >= bar * plain else " (missed)"
        print(
            f"| {name} | {images} | {plain:.1f} | {tuned:.1f} | {own:.1f} | {own / plain:.2f} | {bar}{verdict} | {own / tuned:.2f} |",
            flush=True,
        )


def memory(many: int) -> None:
    """Peak memory of scans of a small network over few and over many images, each in a process of its own.

    The scanning process by its own peak; it and its decoders together by samples five times a second of the memory that they hold (Linux:
    proportional set size, so that pages they share count once).
    """
    print("| images | time s | peak memory of the scanning process MB | of all its processes MB |\n|---:|---:|---:|---:|")
    for images in (1000, many):
        process = subprocess.Popen([sys.executable, __file__, "--memory-of", str(images)], stdout=subprocess.PIPE, text=True)
        together = 0.0
        while process.poll() is None:
            together = max(together, sum(map(held, family(process.pid))))
            time.sleep(0.2)
        if process.returncode:
            raise SystemExit(process.returncode)
        print(f"{process.communicate()[0].strip()} {together:.0f} |", flush=True)


def family(process: int) -> list[int]:
    """A process and all that it started, by number."""
    try:
        started = [child for thread in Path(f"/proc/{process}/task").iterdir() for child in (thread / "children").read_text().split()]
    except OSError:  # it has ended
        return []
    return [process, *(member for child in started for member in family(int(child)))]


def held(process: int) -> float:
    """What a process holds in memory, MB; its share of pages that others hold, too."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def memory_of(images: int) -> None:
    """One row of :func:`memory`: the same photographs under other names.

    Three small convolutions, because what could grow with the number of images is all but the network.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 16, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3)]
        model = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    scope = cs.Scope(model, cs.Inputs(32, MEAN, STD), name="small")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "images"
        source.mkdir()
        for index, path in enumerate(photographs(images)):
            (source / f"{index:06d}.jpg").symlink_to(path)
        seconds = timed(lambda: cs.scan(scope, source, f"{folder}/survey", shard_size=256))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {images:,} | {seconds:.0f} | {peak:.0f} |")


def crp(images: int, batch: int, clock: str) -> None:
    """zennit-crp's feature visualization (activation and relevance maxima of every convolution) beside a scan, SqueezeNet 1.0."""
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.helper import get_layer_names
    from crp.visualization import FeatureVisualization
    from zennit.composites import EpsilonPlusFlat

    model, inputs = network("squeezenet1_0"), cs.Inputs(224, MEAN, STD)

    class Photographs(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        """The photographs as that library wants them."""

        def __len__(self) -> int:
            return images

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return inputs(photographs(index + 1)[index]), 0

    own = scanned(model, "squeezenet1_0", batch, images, clock)
    layers = dict.fromkeys(get_layer_names(model, [torch.nn.Conv2d]), ChannelConcept())
    with tempfile.TemporaryDirectory() as folder:
        theirs = FeatureVisualization(CondAttribution(model), Photographs(), layers, preprocess_fn=inputs.normalize, path=folder)
        rate = images / timed(lambda: theirs.run(EpsilonPlusFlat(), 0, images, batch, images), clock)
    print(f"| | images per second of {clock} time |\n|---|---:|")
    print(f"| scan | {own:.1f} |\n| zennit-crp, activation and relevance maxima | {rate:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="*", default=list(BARS), choices=list(BARS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--crp", action="store_true")
    parser.add_argument("--memory", type=int, metavar="IMAGES")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        memory_of(given.memory_of)
    elif given.crp:
        crp(200, given.batch, given.clock)
    elif given.memory:
        memory(given.memory)
    else:
        rates(given.networks, given.rounds, given.batch, given.clock)


if __name__ == "__main__":
    main()
