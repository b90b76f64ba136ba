"""The command that makes a detector usable elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from convscope.cli import words
from convscope.cli.derive import command
from convscope.cli.output import check_file
from convscope.cli.show import print_written, progress, say
from convscope.errors import StoreConflict


@command
def export(
    detector: Path, path: Path, *, network: str | None = None, weights: str = "pretrained", method: Literal["maps", "probe"] = "maps"
) -> None:
    """Writes a detector as ONNX.

    With --network, from images in [0,1] to scores and alarms; without, from the layer's activations after its ReLU. Needs the extra `onnx`.

    Args:
        detector: Folder that convscope detector has written.
        path: The ONNX file to write.
        network: The network that the survey was made with; without it, the detector takes the layer's activations.
        weights: Weights of --network: a file (.safetensors, .pth), "pretrained" or "random".
        method: Which scores.

    Command line:
        convscope export out/detector/survey-features.27 detector.onnx
        convscope export out/detector/survey-features.27 alarms.onnx --network textures --method probe
    """
    from convscope.export import detector_module, detector_network, detector_onnx
    from convscope.results.detector import Detector
    from convscope.zoo import open as open_network
    from convscope.zoo.recorded import recorded_output

    if path.exists():
        raise StoreConflict(f"{path} is there already; choose another file")
    check_file(path, "the file")
    with progress():
        loaded = words.result(detector, Detector)
        if network is None:
            written = detector_onnx(detector_module(loaded, method), path)
        else:
            scope = open_network(network, weights=weights, output=recorded_output(loaded.manifest["network"]))
            size = scope.inputs.height, scope.inputs.width
            written = detector_onnx(detector_network(loaded, scope, method), path, size=size)
    takes = f"the map of {loaded.layer}" if network is None else "images (n 3 h w) in [0,1]"
    say(f"takes {takes}; gives scores and alarms for {', '.join(loaded.classes)}")
    print_written([(written, "ONNX")])
