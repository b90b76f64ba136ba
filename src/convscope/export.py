"""Exports a detector as a torch module, which takes a layer's activations or images (the network included), and as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from convscope.errors import BadInput, BadWeights, NotInstalled
from convscope.results.detector import Detector
from convscope.scope import Scope
from convscope.scope.network import frozen_copy

METHODS = ("maps", "probe")


class DetectorModule(nn.Module):
    """Scores and alarms of a detector from a layer's map.

    Attributes:
        classes: The classes, in the order of the scores.
        layer: The layer whose map is expected.
    """

    weights: Tensor
    offsets: Tensor
    thresholds: Tensor

    def __init__(self, detector: Detector, method: Literal["maps", "probe"] = "maps") -> None:
        """Takes the weights and thresholds of "maps" or "probe"; the network's output needs no module."""
        super().__init__()
        if method not in METHODS:
            raise BadInput(f"method must be {' or '.join(METHODS)}, got {method!r}")
        self.classes, self.layer = detector.classes, detector.layer
        row = METHODS.index(method)
        threshold = detector.thresholds[("maps", "output", "probe").index(method)]
        for name, values in (("weights", detector.weights[row]), ("offsets", detector.offsets[row]), ("thresholds", threshold)):
            self.register_buffer(name, torch.tensor(np.asarray(values), dtype=torch.float32, device="cpu"))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's map (n c h w) to scores (n label) and alarms (n label), bool."""
        scores = nn.functional.linear(maps.mean((2, 3)), self.weights, self.offsets)
        return scores, scores > self.thresholds


class DetectorNetwork(nn.Module):
    """A detector with the network below it: from images (n c h w) in [0,1] to scores and alarms.

    Attributes:
        classes: The classes, in the order of the scores.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, below: nn.Module, head: DetectorModule, scope: Scope) -> None:
        super().__init__()
        self.below, self.head, self.classes = below, head, head.classes
        for name, values in (("mean", scope.inputs.means), ("std", scope.inputs.stds)):
            self.register_buffer(name, torch.tensor(list(values), dtype=torch.float32, device="cpu").view(-1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n c h w) in [0,1] to scores (n label) and alarms (n label), bool."""
        return self.head(self.below((images - self.mean) / self.std)["maps"])


def detector_module(detector: Detector, method: Literal["maps", "probe"] = "maps") -> DetectorModule:
    """A detector as a torch module on the layer's map (n c h w).

    Args:
        detector: The detector.
        method: "maps" or "probe".

    Returns:
        A module that returns scores and alarms, both (n label). Its input are the layer's values as in the survey, that is after its ReLU.

    Raises:
        BadInput: Unknown method.
    """
    return frozen_copy(DetectorModule(detector, method))


def detector_network(detector: Detector, scope: Scope, method: Literal["maps", "probe"] = "maps") -> DetectorNetwork:
    """A detector with a copy of the network up to its layer: from images (n c h w) in [0,1] to scores and alarms.

    The network is cut by symbolic tracing. The result is compared with the scope on random images, and refused if it differs.

    Args:
        detector: The detector.
        scope: The network that the survey was made with.
        method: "maps" or "probe".

    Returns:
        The module, in evaluation mode, on the CPU.

    Raises:
        BadInput: Unknown method, or a network that cannot be traced.
        BadWeights: The network's weights are not those of the survey.
    """
    from torchvision.models.feature_extraction import create_feature_extractor

    known = detector.manifest["network"]["weights_hash"]
    if scope.weights_hash != known:
        raise BadWeights(f"the detector is for weights {known}, but {scope.name} has {scope.weights_hash}")
    module, _, call = detector.layer.partition(":")
    head, name = DetectorModule(detector, method), module if call in ("", "0") else f"{module}_{call}"  # tracing's name of later calls
    size = 2, scope.inputs.channel_count, scope.inputs.height, scope.inputs.width
    images = torch.rand(size, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32, device="cpu")
    expected, _ = head(scope.layers[detector.layer].channels_first(scope.activations(images, detector.layer)[detector.layer]).cpu())
    try:
        below = create_feature_extractor(frozen_copy(scope.model), {name: "maps"}, suppress_diff_warning=True)
        found, _ = (network := DetectorNetwork(below, head, scope))(images)
    except Exception as error:  # tracing raises any error of the network's own code
        raise BadInput(f"{scope.name} cannot be traced up to {name} ({_line(error)}); use detector_module on its map instead") from None
    gap = float((found - expected).abs().max())
    if not gap <= 1e-3 * float(1 + expected.abs().max()):
        raise BadInput(f"{scope.name} traced up to {name} gives other values (by {gap:.3g}); use detector_module on its map instead")
    return frozen_copy(network)


def detector_onnx(module: DetectorModule | DetectorNetwork, path: str | Path, *, size: tuple[int, int] | None = None) -> Path:
    """Writes a detector as ONNX; inputs "images" or "maps", outputs "scores" and "alarms", any number of images at a time.

    Args:
        module: As :func:`detector_module` or :func:`detector_network` makes it.
        path: The file.
        size: Height and width of the network's input. For a module on a layer's map: of that map; None: any size.

    Returns:
        The path.

    Raises:
        NotInstalled: The extra `onnx` is not installed.
        BadInput: A network without a size.
    """
    head = isinstance(module, DetectorModule)
    if size is None and not head:
        raise BadInput("size: expected height and width of the network's input")
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingImports]
    except ImportError:
        raise NotInstalled("ONNX needs onnx and onnxscript", "onnx") from None
    channels = module.weights.shape[1] if isinstance(module, DetectorModule) else 3
    example = torch.zeros(2, channels, *(size or (7, 7)), dtype=torch.float32, device="cpu")
    moving = {0: "n", 2: "h", 3: "w"} if head and size is None else {0: "n"}
    options: dict[str, Any] = {
        "input_names": ["maps" if head else "images"],
        "output_names": ["scores", "alarms"],
        "dynamic_shapes": ({axis: torch.export.Dim(name) for axis, name in moving.items()},),
        "dynamo": True,
        "external_data": False,
        "verbose": False,
    }
    torch.onnx.export(frozen_copy(module), (example,), str(path), **options)
    return Path(path)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
