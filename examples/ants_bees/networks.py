"""The networks of the study, as convscope opens them: ``networks.py:binary`` and ``networks.py:multi_label`` with weights of `study.py`.

Both are SqueezeNet 1.0 up to ``features.12`` (512 maps after their ReLU), then one linear layer on the maps' means. SqueezeNet's own head
ends in a ReLU, below which a sigmoid cannot say no; so it is left out.
"""

from __future__ import annotations

from pathlib import Path

import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

import convscope as cs

LABELS = ("ants", "bees")
LAYER = "features.12"
SIDE = 160
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Insects(nn.Module):
    """Two outputs from the means of SqueezeNet's last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.squeezenet1_0(weights=None).features
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Conv2d(512, len(LABELS), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images (n 3 h w) to outputs (n label)."""
        return self.head(self.dropout(self.features(images))).mean((2, 3))


def inputs() -> cs.Inputs:
    """What all networks of the study expect: the central square at 160 px, ImageNet's normalization."""
    return cs.Inputs(size=SIDE, mean=MEAN, std=STD, classes=LABELS)


def binary() -> tuple[nn.Module, cs.Inputs]:
    """Model 1: one of two classes (softmax)."""
    return Insects(), inputs()


def multi_label() -> tuple[nn.Module, cs.Inputs]:
    """Models 2 and 3: each class for itself (sigmoid), so that an image can be neither."""
    return Insects(), inputs()


def from_imagenet(weights: Path) -> Insects:
    """Features with ImageNet's weights, and a head that knows nothing yet: all outputs are zero."""
    network = Insects()
    known = {name: value for name, value in load_file(weights).items() if name.startswith("features.")}
    _, unexpected = network.load_state_dict(known, strict=False)
    if unexpected or len(known) != len(network.features.state_dict()):
        raise SystemExit(f"{weights}: expected the weights of torchvision's squeezenet1_0")
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    return network
