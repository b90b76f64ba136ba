"""Exports a network as ONNX, which the live page runs in the browser, and compares it with PyTorch first.

Images go in; the output, and the means, maxima and maps of the survey's layers come out.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.errors import BadInput, NotInstalled
from convscope.names import OUTPUT
from convscope.scope import Scope
from convscope.scope.layers import Layer
from convscope.scope.network import frozen_copy
from convscope.scope.truncated_forward import forward_until
from convscope.text import one_line

MOST_PARAMETERS = 60_000_000
"""A network of more is left to `convscope serve`: a browser would take long to unpack it, and much memory."""
LARGEST = 10_000_000
"""Bytes of an ONNX file above which weights are stored as float16; they are computed with in float32."""
_SMALLEST_TENSOR = 20_000
"""Smaller tensors stay float32: they weigh little, and rounding those of depthwise convolutions would cost most of the accuracy."""
_ALLOWED = {"float32": 1e-4, "float16": 1e-2}
"""Largest difference to the scope that ships, as a share of a layer's largest value on the images it is checked with."""
_NEEDS = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class LiveNetwork:
    """A network that runs in a browser.

    Attributes:
        data: The ONNX file. Input "images" (1 c h w) in [0,1]; outputs "output" (1 class), "means" and "maxima" (1 unit) over all
            layers, and for each layer its maps, "map:0", "map:1", ... (1 c h w).
        precision: How its weights are stored: "float32" or "float16".
        difference: The largest difference to the scope on the images it was checked with, as a share of the layer's largest value.
        images: Number of these images.
    """

    data: bytes
    precision: str
    difference: float
    images: int


class _Answering(nn.Module):
    """A network with its normalization in front, that returns its output, each unit's mean and maximum, and the maps."""

    mean: Tensor
    std: Tensor

    def __init__(self, scope: Scope, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.network, self.layers = scope.model, list(layers)
        for name, values in (("mean", scope.inputs.means), ("std", scope.inputs.stds)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32, device="cpu").view(-1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (1 c h w) in [0,1] to what :class:`LiveNetwork` lists."""
        found = forward_until(self.network, (images - self.mean) / self.std, self.layers, _as_map, whole=True)
        *maps, output = (found[layer.name] for layer in self.layers)
        means, maxima = (torch.cat(values, 1) for values in ([each.mean((2, 3)) for each in maps], [each.amax((2, 3)) for each in maps]))
        return output.mean((2, 3)), means, maxima, *maps


def _as_map(layer: Layer, value: Tensor) -> Tensor:
    """A layer's value as maps (1 c h w), as a scan reads it: a vector has one position, a sequence is one column."""
    value = layer.channels_first(value)
    value = value[..., None, None] if value.ndim == 2 else value if value.ndim == 4 else value.flatten(2)[..., None]
    return value.clone()  # later code may overwrite it in place


def live_network(scope: Scope, layers: Sequence[str], images: np.ndarray) -> LiveNetwork:
    """Exports a network for the browser, and checks it against the scope.

    Args:
        scope: The network; it is copied, and stays as it is.
        layers: Layers whose means, maxima and maps it gives, without "output".
        images: Real images to check with, (n c h w) in [0,1].

    Raises:
        NotInstalled: The extra `live` is not installed.
        BadInput: It has too many parameters, cannot be exported, or answers otherwise than the scope; in one line.
    """
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise NotInstalled(f"the live page needs {', '.join(missing)}", "live")
    count = sum(parameter.numel() for parameter in scope.model.parameters())
    if count > MOST_PARAMETERS:
        raise BadInput(f"{count / 1e6:.0f} million parameters are too many for a browser (at most {MOST_PARAMETERS // 10**6} million)")
    if why := scope.one_at_a_time and "at random" in scope.one_at_a_time:
        raise BadInput(f"it draws at random: {why}")
    copied = Scope(frozen_copy(scope.model).float(), scope.inputs, precision="float32", fast=False, name=scope.name, output=scope.output)
    try:
        data = _exported(copied, layers)
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        raise BadInput(f"it cannot be exported as ONNX ({type(error).__name__}: {one_line(error, 160)})") from None
    precision = "float32"
    if len(data) > LARGEST:
        data, precision = _halved(data), "float16"
    difference = _difference(data, copied, layers, images)
    if not difference <= _ALLOWED[precision]:
        share = f"{difference:.2g} of a layer's largest value"
        raise BadInput(f"exported as ONNX it gives other values than the network (by {share})")
    return LiveNetwork(data, precision, difference, len(images))


def _exported(scope: Scope, layers: Sequence[str]) -> bytes:
    """The ONNX file, without anything that tells of this machine."""
    import onnx

    example = torch.zeros(1, scope.inputs.channel_count, scope.inputs.height, scope.inputs.width, dtype=torch.float32, device="cpu")
    names = ["output", "means", "maxima", *(f"map:{index}" for index in range(len(layers)))]
    logger = logging.getLogger("torch.onnx")
    level, buffer = logger.level, io.BytesIO()
    with scope.session("float32"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            answering = _Answering(scope, [scope.layers[name] for name in (*layers, OUTPUT)])
            program: Any = torch.onnx.export(
                answering, (example,), input_names=["images"], output_names=names, dynamo=True, external_data=False, verbose=False
            )
            program.save(buffer, external_data=False)
        finally:
            logger.setLevel(level)
    model = onnx.load_model_from_string(buffer.getvalue())
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    return model.SerializeToString(deterministic=True)


def _halved(data: bytes) -> bytes:
    """The same network with its large weights stored as float16, and cast when it is loaded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_model_from_string(data)
    casts: list[Any] = []
    for tensor in list(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALLEST_TENSOR or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        stored = f"{tensor.name}:float16"
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [tensor.name], name=f"cast:{tensor.name}", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    return model.SerializeToString(deterministic=True)


def _difference(data: bytes, scope: Scope, layers: Sequence[str], images: np.ndarray) -> float:
    """The largest difference to the scope, as a share of each layer's largest value, over means, maxima, maps and output."""
    import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    worst = 0.0
    for image in images:
        found: Mapping[str, Any] = dict(zip(names, session.run(None, {"images": image[None]}), strict=True))
        with torch.no_grad():
            maps = scope.observe(torch.from_numpy(image[None].copy()), [*layers, OUTPUT], _as_map)
        first = 0
        for index, name in enumerate(layers):
            wanted = maps[name].numpy()
            units = slice(first, first := first + wanted.shape[1])
            largest = float(np.abs(wanted).max()) or 1.0
            pairs = (
                (found[f"map:{index}"], wanted),
                (found["means"][:, units], wanted.mean((2, 3))),
                (found["maxima"][:, units], wanted.max((2, 3))),
            )
            for got, right in pairs:
                worst = max(worst, _gap(got, right) / largest)
        wanted = maps[OUTPUT].mean((2, 3)).numpy()
        worst = max(worst, _gap(found["output"], wanted) / (float(np.abs(wanted).max()) or 1.0))
    return worst


def _gap(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference; infinite where shapes differ or something is not finite."""
    if found.shape != wanted.shape:
        return np.inf
    gap = float(np.abs(found.astype(np.float64) - wanted).max())
    return gap if np.isfinite(gap) else np.inf
