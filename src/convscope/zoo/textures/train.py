"""Training of the network `textures` on generated images, reproducible from its seed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from convscope.zoo.loaded import plain_defaults

from .dataset import Images, augmented, normalized, rendered
from .generator import CLASSES, VERSION
from .network import METADATA_KEY, SIZE, Textures, build

_VALIDATION_SEED = 1_000_003
"""Added to the training seed: validation images are never training images."""


@dataclass(frozen=True)
class Figures:
    """What a training run measured.

    Attributes:
        losses: mean training loss of every epoch, in nats.
        accuracy: fraction of fresh images classified rightly by the saved float16 weights.
        per_class: the same for each class.
        seconds: duration of the run.
    """

    losses: list[float]
    accuracy: float
    per_class: dict[str, float]
    seconds: float


def _silent(_line: str) -> None:
    pass


def train(
    out: Path,
    *,
    seed: int = 0,
    images_per_class: int = 700,
    epochs: int = 8,
    validation_per_class: int = 100,
    batch: int = 64,
    rate: float = 3e-3,
    decay: float = 0.05,
    workers: int = 0,
    threads: int = 2,
    report: Callable[[str], None] = _silent,
) -> Figures:
    """Train from scratch, save the weights as float16, and measure the network with those.

    The same arguments give the same file, bit for bit, on one machine. AdamW under a one-cycle cosine schedule, label smoothing 0.05,
    bfloat16 autocast. The defaults made the bundled weights, in about a quarter of an hour on two free cores.

    Args:
        out: the safetensors file to write.
        seed: seed of the images, the initial weights, the order and the augmentation.
        images_per_class: training images of each class, rendered once.
        epochs: passes over them.
        validation_per_class: fresh images of each class, made from another seed.
        batch: images a step.
        rate: highest learning rate.
        decay: decoupled weight decay of the convolution and readout weights.
        workers: processes that render; 0 renders in this one. Does not change the result.
        threads: CPU threads; sums are ordered by it, so it can change the last bits.
        report: receives a line of progress after each phase and epoch.

    Returns:
        The figures of the run.
    """
    start = time.perf_counter()
    with _threads(threads), plain_defaults():
        images = rendered(images_per_class, seed=seed, size=SIZE, workers=workers)
        report(f"{len(images.labels)} images rendered in {time.perf_counter() - start:.0f} s")
        network = _initial(seed).to(memory_format=torch.channels_last)
        losses = _fit(network, images, seed, epochs, batch, rate, decay, report)
        del images
        fresh = rendered(validation_per_class, seed=seed + _VALIDATION_SEED, size=SIZE, workers=workers)
        half = _halved(network)
        network.load_state_dict(half)
        per_class = class_accuracies(network, fresh)
        accuracy = sum(per_class.values()) / len(per_class)
        settings = {"seed": seed, "images_per_class": images_per_class, "epochs": epochs, "batch": batch, "rate": rate, "decay": decay}
        record = {"classes": CLASSES, "accuracy": round(accuracy, 4), "generator": VERSION, **settings}
        save_file(half, out, metadata={METADATA_KEY: json.dumps(record)})
    for name, value in sorted(per_class.items(), key=lambda item: item[1]):
        report(f"{name:12s} {value:.1%}")
    report(f"accuracy {accuracy:.2%} on {len(fresh.labels)} fresh images")
    return Figures(losses, accuracy, per_class, time.perf_counter() - start)


@torch.no_grad()
def class_accuracies(network: nn.Module, images: Images, batch: int = 100) -> dict[str, float]:
    """Return the fraction of each class's images that the network, put in evaluation mode, classifies rightly; float32."""
    network.eval()
    parts = [network(normalized(part)).argmax(1) for part in images.pixels.split(batch)]
    right = torch.cat(parts) == images.labels
    return {name: right[images.labels == index].float().mean().item() for index, name in enumerate(CLASSES)}


def _fit(
    network: Textures,
    images: Images,
    seed: int,
    epochs: int,
    batch: int,
    rate: float,
    decay: float,
    report: Callable[[str], None],
) -> list[float]:
    generator = torch.Generator("cpu").manual_seed(seed)
    steps = epochs * (len(images.labels) // batch)
    optimizer = torch.optim.AdamW(_groups(network, decay), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 2), pct_start=0.15, cycle_momentum=False)
    losses: list[float] = []
    network.train()
    for epoch in range(epochs):
        start, total, count = time.perf_counter(), 0.0, 0
        for pixels, labels in _batches(images, batch, generator):
            inputs = augmented(pixels, generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(inputs)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total, count = total + loss.item(), count + 1
        losses.append(total / count)
        report(f"epoch {epoch + 1}/{epochs}: loss {losses[-1]:.4f}, {time.perf_counter() - start:.0f} s")
    return losses


def _batches(images: Images, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the set once in random order, in full batches."""
    order = torch.randperm(len(images.labels), generator=generator, dtype=torch.int64, device="cpu")
    for part in order[: len(order) // batch * batch].split(batch):
        yield images.pixels[part], images.labels[part]


def _groups(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Part the parameters: weights decay, biases and normalization do not."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _initial(seed: int) -> Textures:
    """Return the network with weights drawn from `seed`, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        network = build()
    generator = torch.Generator("cpu").manual_seed(seed + 1)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05, generator=generator)
            nn.init.zeros_(module.bias)
    return network


def _halved(network: nn.Module) -> dict[str, Tensor]:
    """Return the state with every float tensor as contiguous float16; counters stay int64."""
    state = network.state_dict()
    return {name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in state.items()}


@contextmanager
def _threads(count: int) -> Generator[None, None, None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
