"""The network `textures`: a small VGG-style classifier of generated texture images, and its bundled weights.

`features` has nine 3x3 convolutions, each followed by batch normalization and `nn.ReLU`, in five blocks parted by 2x2 max pooling, so
that the last map is at stride 16; its channels are averaged over the map and read by the linear `classifier`.
"""

from __future__ import annotations

from pathlib import Path

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
"""The one metadata entry of a weights file, a JSON object: `classes` (names in the order of the logits), `accuracy` (fraction of
fresh images), `generator` (its version), `seed` and the other settings. Several entries would be written in random order."""

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
