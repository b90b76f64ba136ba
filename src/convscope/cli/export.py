"""The command that makes a detector usable elsewhere."""

from __future__ import annotations

from pathlib import Path

import typer

from convscope.cli.show import print_written, progress
from convscope.errors import BadInput, StoreConflict


def export(
    detector: Path = typer.Argument(help="Folder that convscope detector has written."),
    path: Path = typer.Argument(help="The ONNX file to write."),
    network: str = typer.Option(None, help="The network that the survey was made with; without it, the detector takes the layer's map."),
    weights: str = typer.Option(None, help="Weights file (.safetensors, .pth), or 'random'. Default: pretrained."),
    method: str = typer.Option("maps", help="Which scores: maps or probe."),
) -> None:
    """Writes a detector as ONNX.

    With --network, from images in [0,1] to scores and alarms; without, from the layer's map after its ReLU. Needs the extra `onnx`.
    """
    from convscope.analyses.detector import Detector
    from convscope.export import detector_module, detector_network, detector_onnx
    from convscope.results.folder import load
    from convscope.zoo import open as open_network

    if path.exists():
        raise StoreConflict(f"{path} is there already; choose another file")
    with progress():
        loaded = load(detector)
        if not isinstance(loaded, Detector):
            raise BadInput(f"{detector}: holds a result of {loaded.technique}, not a detector")
        if network is None:
            written = detector_onnx(detector_module(loaded, method), path)
        else:
            scope = open_network(network, weights=weights or "pretrained")
            size = scope.inputs.height, scope.inputs.width
            written = detector_onnx(detector_network(loaded, scope, method), path, size=size)
    takes = f"the map of {loaded.layer}" if network is None else "images (n 3 h w) in [0,1]"
    typer.echo(f"takes {takes}; gives scores and alarms for {', '.join(loaded.classes)}")
    print_written([(written, "ONNX")])
