"""The network `textures`: a small VGG-style classifier of the generator's classes, and its bundled weights.

`features` has nine 3x3 convolutions, each followed by batch normalization and `nn.ReLU`, in five blocks parted by 2x2 max pooling, so
that the last map is at stride 16; its channels are averaged over the map and read by the linear `classifier`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from .generator import CLASSES

SIZE = 128
"""Side of the images the network was made for, in pixels; it accepts any height and width of at least 32."""

MEAN: tuple[float, float, float] = (0.5, 0.5, 0.5)
"""Per channel, subtracted from RGB images in [0, 1]."""

STD: tuple[float, float, float] = (0.25, 0.25, 0.25)
"""Per channel, divides what `MEAN` leaves."""

WEIGHTS = Path(__file__).with_name("textures.safetensors")
"""The bundled weights: float16, with the class names, accuracy and training settings in the metadata."""

METADATA_KEY = "training"
"""The one metadata entry of a weights file, a JSON object; several entries would be written in random order."""

_BLOCKS = ((32,), (48, 48), (64, 64), (96, 96), (128, 128))


class Textures(nn.Module):
    """Convolutions, global average, linear readout.

    Args:
        num_classes: number of logits.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for depth, block in enumerate(_BLOCKS):
            if depth:
                layers.append(nn.MaxPool2d(2))
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images `(n rgb h w)` to logits `(n class)`."""
        return self.classifier(self.flatten(self.pool(self.features(images))))


def build(num_classes: int = len(CLASSES)) -> Textures:
    """Return the untrained network, in training mode."""
    return Textures(num_classes)


def load_weights(network: nn.Module, path: Path = WEIGHTS) -> dict[str, Any]:
    """Fill `network` with saved weights; every name and shape must match.

    Args:
        network: what `build` returned; its parameters keep their own precision.
        path: a file written by `train`.

    Returns:
        The record of the training: `classes` (names in the order of the logits), `accuracy` (fraction of fresh images), `generator`
        (its version), `seed` and the other settings.

    Raises:
        RuntimeError: a tensor is missing, unknown or of another shape.
    """
    with safe_open(path, framework="pt") as file:
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()}, strict=True)  # noqa: SIM118 (not a mapping)
        return json.loads(file.metadata()[METADATA_KEY])
