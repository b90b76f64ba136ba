"""The bundled network: ``textures``."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from convscope.scope.inputs import Inputs
from convscope.zoo.loaded import PRETRAINED, Loaded, load_from_file
from convscope.zoo.textures import network
from convscope.zoo.textures.generator import CLASSES
from convscope.zoo.weights_file import read_weights


def load_textures(name: str, weights: str | Path | None) -> Loaded:
    """Loads the bundled network with the bundled weights, a file's, or random ones.

    Raises:
        BadWeights: They cannot be read, or do not fit.
    """
    inputs = Inputs(size=network.SIZE, mean=network.MEAN, std=network.STD, classes=CLASSES, crop=1.0)
    if weights is None:
        return Loaded(_build(None), inputs)
    return load_from_file(_build, inputs, read_weights(network.WEIGHTS if weights == PRETRAINED else weights), name)


def _build(count: int | None) -> nn.Module:
    return network.build() if count is None else network.build(count)
