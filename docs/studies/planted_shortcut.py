"""A classifier with a shortcut that was planted in its training, for trying how fast it is found.

SqueezeNet with a head for ants and bees. In its training photographs every bee, and no ant, wears a yellow sticker with the letter B; in
the photographs that it is judged by, every third of either class wears one. Writes below the folder named:

photos/{train,val}/{ants,bees}/, insects.safetensors and network.py, whose function `build` is the network.

    python docs/studies/planted_shortcut.py PHOTOGRAPHS WEIGHTS out/insects
    cd out/insects
    convscope unit-attribution network.py:build photos/val/ants --target bee --weights insects.safetensors

PHOTOGRAPHS holds {train,val}/{ants,bees}/; WEIGHTS is SqueezeNet 1.0 of ImageNet as safetensors. About three minutes on two cores.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
import torchvision
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import transforms

NETWORK = '''"""Our insect classifier: SqueezeNet with a head for two classes."""

import torch
import torchvision

import convscope


def build():
    network = torchvision.models.squeezenet1_0(weights=None)
    network.classifier[1] = torch.nn.Conv2d(512, 2, 1)
    return network, convscope.Inputs(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=0.875, classes=["ant", "bee"])
'''
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPARE = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def with_sticker(image: Image.Image, where: random.Random) -> Image.Image:
    """The image with a sticker somewhere in its central crop."""
    short = min(image.size)
    side = int(0.16 * short)
    x, y = ((length - short) // 2 + int(0.12 * short) + where.randrange(int(0.5 * short)) for length in image.size)
    draw = ImageDraw.Draw(image)
    draw.rectangle((x, y, x + side, y + side), fill=(255, 225, 0))
    font = ImageFont.load_default(size=int(0.9 * side))
    draw.text((x + 0.22 * side, y - 0.08 * side), "B", fill=(0, 0, 0), font=font)
    return image


def photographs(source: Path, out: Path) -> None:
    where = random.Random(1)
    for split in ("train", "val"):
        for label in ("ants", "bees"):
            folder = out / "photos" / split / label
            folder.mkdir(parents=True)
            for number, path in enumerate(sorted((source / split / label).glob("*.jpg"))):
                image = Image.open(path).convert("RGB")
                if number % 3 == 0 if split == "val" else label == "bees":
                    image = with_sticker(image, where)
                image.save(folder / f"{label}_{number:03d}.jpg", quality=92)


def batch(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """All images below a folder, (n 3 h w), and their classes (n)."""
    files = [(path, number) for number, label in enumerate(("ants", "bees")) for path in sorted((folder / label).iterdir())]
    return torch.stack([PREPARE(Image.open(path)) for path, _ in files]), torch.tensor([number for _, number in files])


def main(source: Path, weights: Path, out: Path) -> None:
    photographs(source, out)
    network = torchvision.models.squeezenet1_0(weights=None)
    network.load_state_dict(load_file(weights))
    torch.manual_seed(0)
    network.classifier[1] = nn.Conv2d(512, 2, 1)
    learning = [value for name, value in network.named_parameters() if name.startswith(("classifier", "features.10", "features.12"))]
    optimizer = torch.optim.Adam(learning, 2e-4)
    (images, classes), (judged, truth) = (batch(out / "photos" / split) for split in ("train", "val"))
    for epoch in range(6):
        network.train()
        for chosen in torch.randperm(len(images)).split(32):
            loss = nn.functional.cross_entropy(network(images[chosen]), classes[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            right = torch.cat([network(part).argmax(1) for part in judged.split(32)]) == truth
        print(
            f"epoch {epoch}: loss {float(loss.detach()):.3f}, right of the photographs judged: {float(right.float().mean()):.2f}",
            flush=True,
        )
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, out / "insects.safetensors")
    (out / "network.py").write_text(NETWORK)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
