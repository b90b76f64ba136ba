"""Training of the three models: fine-tuning, and adversarial discriminative domain adaptation (ADDA)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from augment import geometric
from photographs import Photograph
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from convscope.scope.precision import bfloat16_is_fast
from networks import LABELS, SIDE, Insects, inputs

Augment = Callable[[Tensor, Generator], Tensor]
STORED = SIDE * 6 // 5
BATCH = 32
ADAPTING = 2e-5
"""Learning rate of the features of model 3."""
FROZEN = 3
"""Modules of `features` that keep ImageNet's weights: the first convolution, its ReLU and pooling."""


def pictures(photographs: Sequence[Photograph]) -> Tensor:
    """Normalized pictures, somewhat larger than the network sees them, (n 3 192 192)."""
    expects = inputs()
    larger = type(expects)(size=STORED, mean=expects.mean, std=expects.std)
    return larger.normalize(larger.batch([each.path for each in photographs]))


def targets(photographs: Sequence[Photograph]) -> Tensor:
    """1 for an image's class, 0 otherwise, (n label)."""
    return torch.tensor([[float(each.label == label) for label in LABELS] for each in photographs])


def fine_tune(
    network: Insects,
    photographs: Sequence[Photograph],
    augment: Augment,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    seed: int,
) -> Insects:
    """Trains on labelled photographs: AdamW, 32 images a step, a cosine schedule; the head ten times as fast as the features.

    Args:
        network: Changed in place.
        photographs: What it is trained on.
        augment: Random views of a batch.
        loss: Of outputs and targets, (n label) each.
        steps: How many.
        seed: Of everything that is drawn.
    """
    images, truth = pictures(photographs), targets(photographs)
    network.to(memory_format=torch.channels_last)
    generator = Generator().manual_seed(seed)
    network.features[:FROZEN].requires_grad_(False)
    groups = [{"params": [p for p in network.features.parameters() if p.requires_grad], "lr": 1e-4}]
    optimizer = torch.optim.AdamW([*groups, {"params": network.head.parameters(), "lr": 1e-3}], weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global state
        torch.default_generator.manual_seed(seed)
        network.train()
        for step, rows in zip(range(steps), _batches(balanced(truth), generator), strict=False):
            views = augment(images[rows], generator)
            with fast():
                outputs = network(views)
            value = loss(outputs.float(), truth[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            if step % 20 == 0 or step == steps - 1:
                print(f"  step {step + 1} of {steps}: loss {value.item():.3f}", flush=True)
    return network.eval()


def adapt(source: Insects, photographs: Sequence[Photograph], renderings: Sequence[Photograph], *, steps: int, seed: int) -> Insects:
    """ADDA: new features that map renderings to where the old ones map photographs; labels are not looked at.

    A discriminator tells means of the last maps on photographs (by the source network, which stays as it is) from those on renderings
    (by its copy, which learns to be mistaken for it). The head is the source's.

    Source: Tzeng et al. 2017 (arXiv 1702.05464), sections 3 and 4: inverted labels, discriminator of three layers, Adam with beta1 = 0.5.
    """
    photos, xrays = pictures(photographs), pictures(renderings)
    generator = Generator().manual_seed(seed)
    adapted = copy.deepcopy(source).eval()
    adapted.to(memory_format=torch.channels_last)
    adapted.features[:FROZEN].requires_grad_(False)
    source.eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        judge = nn.Sequential(nn.Linear(512, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
    learns = torch.optim.Adam([p for p in adapted.features.parameters() if p.requires_grad], lr=ADAPTING, betas=(0.5, 0.999))
    judges = torch.optim.Adam(judge.parameters(), lr=2e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    centre, spread = _moments(source, photos)
    choices = _batches([torch.arange(len(photos))], generator), _batches([torch.arange(len(xrays))], generator)
    for step, here, there in zip(range(steps), *choices, strict=False):
        views = geometric(photos[here], generator), geometric(xrays[there], generator)
        with fast(), torch.no_grad():
            real = (source.features(views[0]).float().mean((2, 3)) - centre) / spread
        with fast():
            fake = (adapted.features(views[1]).float().mean((2, 3)) - centre) / spread
        verdicts = judge(torch.cat([real, fake.detach()]))
        truth = torch.cat([torch.ones(len(real), 1), torch.zeros(len(fake), 1)])
        judged = F.binary_cross_entropy_with_logits(verdicts, truth)
        judges.zero_grad()
        judged.backward()
        judges.step()
        fooled = F.binary_cross_entropy_with_logits(judge(fake), torch.ones(len(fake), 1))
        learns.zero_grad()
        fooled.backward()
        learns.step()
        if step % 20 == 0 or step == steps - 1:
            right = ((verdicts > 0) == (truth > 0)).float().mean().item()
            print(
                f"  step {step + 1} of {steps}: discriminator right on {100 * right:.0f} %, loss of the features {fooled.item():.3f}",
                flush=True,
            )
    return adapted.eval()


def fast() -> torch.autocast:
    """bfloat16 where the processor computes in it (2.6 times as fast together with channels last), float32 elsewhere."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_fast(torch.device("cpu")))


def balanced(truth: Tensor) -> list[Tensor]:
    """Rows of each class, and of none, that batches draw from alike."""
    groups = [torch.nonzero(column)[:, 0] for column in truth.T] + [torch.nonzero(truth.sum(1) == 0)[:, 0]]
    return [group for group in groups if len(group)]


def _batches(groups: Sequence[Tensor], generator: Generator) -> Iterator[Tensor]:
    """Rows for one step after another, from every group as many; a group is gone through before it begins anew."""
    queues = [torch.empty(0, dtype=torch.long) for _ in groups]
    while True:
        rows: list[Tensor] = []
        for place, group in enumerate(groups):
            wanted = BATCH // len(groups) + (place < BATCH % len(groups))
            while len(queues[place]) < wanted:
                queues[place] = torch.cat([queues[place], group[torch.randperm(len(group), generator=generator)]])
            rows.append(queues[place][:wanted])
            queues[place] = queues[place][wanted:]
        yield torch.cat(rows)


@torch.no_grad()
def _moments(network: Insects, images: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and spread of the means of the last maps."""
    size = SIDE, SIDE
    means = torch.cat(
        [network.features(F.interpolate(part, size, mode="bilinear", antialias=True)).mean((2, 3)) for part in images.split(BATCH)]
    )
    return means.mean(0), means.std(0) + 1e-2 * means.std()


def save(network: Insects, path: Path) -> Path:
    """Weights as convscope opens them."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path
