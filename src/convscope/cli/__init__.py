"""The command line. Thin: a command per technique, derived from its signature, and a few for networks and pictures.

Only the command that is called loads what it needs, so that ``convscope --help`` is instant.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer

from convscope.errors import ConvscopeError

TECHNIQUES = {
    "feature-visualization": "What units look for, as pictures optimized from noise.",
    "spectrum": "Which units images excite.",
    "activation-grid": "What images become, layer by layer.",
    "map-overlay": "Where in images the maps of a layer are active, laid over them.",
    "weight-grid": "The weights of a convolution as pictures.",
    "receptive-field": "Where in the picture units look.",
    "hypothesis": "Tests the guess that a unit answers to what some images show and others do not.",
    "occlusion": "What a verdict rests on.",
    "deconvnet": "What in images units answered to.",
    "scan": "Looks at a whole data set once, and writes down what every image does to every channel.",
    "exemplars": "The images of a data set that excite units most, and what the units see of them.",
    "class-maps": "The maps of a layer that belong to a class.",
    "class-profile": "Which classes units respond to.",
    "activation-sums": "How strongly each image excites the maps of each class.",
    "detector": "Alarms by the maps of a class, beside the network's own output and a linear probe.",
    "filter-health": "Channels that do nothing, always the same, or the same as another.",
    "inversion": "What a code still knows.",
    "style-transfer": "One picture's content in another's style.",
    "style-similarity": "How alike the styles of images are.",
}
"""The commands derived from techniques, with the first line of their help; a test holds it to the techniques' docstrings."""

OTHERS = {
    "layers": (
        "convscope.cli.network:layers",
        "The layers of a network, in call order, as a table.",
        ("convscope layers vgg16_bn --kind Conv2d", "convscope layers timm:resnet50d", "convscope layers my_model.py:build"),
    ),
    "evaluate": (
        "convscope.cli.reading:evaluate",
        "How a detector does on other images.",
        ("convscope evaluate out/detector/train-features.12 surveys/val surveys/xray",),
    ),
    "export": (
        "convscope.cli.export:export",
        "Writes a detector as ONNX.",
        (
            "convscope export out/detector/train-features.12 detector.onnx",
            "convscope export out/detector/train-features.12 alarms.onnx --network squeezenet1_0 --weights w.safetensors",
        ),
    ),
    "query": (
        "convscope.cli.reading:query",
        "SQL over a survey.",
        (
            'convscope query surveys/photos "select label, count(*) from images group by label"',
            "convscope query surveys/photos \"select * from values where layer = 'output' and maximum > 20\" --csv",
        ),
    ),
    "redo": (
        "convscope.cli.pictures:redo",
        "Makes a picture again from its receipt and compares the two.",
        ("convscope redo pictures/unit_0012.png", "convscope redo unit_0012.png --network my_model.py:build --weights best.pth"),
    ),
    "textures": ("convscope.cli.textures:app", "The bundled network `textures`: sample labelled images, or train it again.", ()),
    "demo": (
        "convscope.cli.pictures:demo",
        "The main job on the bundled network: offline, in under three minutes.",
        ("convscope demo --out out/demo",),
    ),
}
"""The other commands: where they live, the first line of their help, examples."""

_EPILOG = "Start with: convscope demo  ·  convscope layers squeezenet1_0  ·  convscope feature-visualization textures output --units 0-3"


INTERRUPTED = 130
"""Exit code after Ctrl-C, by custom."""


def build(argv: Sequence[str]) -> typer.Typer:
    """The command line, with only the command that `argv` calls in full; the others are names with a line of help."""
    app = typer.Typer(
        name="convscope",
        help="A microscope for convolutional networks.",
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )

    @app.callback(invoke_without_command=True)
    def convscope(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
        if version:
            from convscope import __version__

            typer.echo(f"convscope {__version__}")
            raise typer.Exit

    called = next((word for word in argv if not word.startswith("-")), None)
    for name, line in TECHNIQUES.items():
        if name == called:
            import_module("convscope.cli.derive").add_technique(app, name)
        else:
            app.command(name, help=line)(_stub)
    for name, (home, line, examples) in OTHERS.items():
        module, _, attribute = home.partition(":")
        command: Any = getattr(import_module(module), attribute) if name == called else _stub
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, help=line)
        elif name == called:
            app.command(name, epilog="Examples:\n\n" + "\n\n".join(examples))(command)
        else:
            app.command(name, help=line)(command)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code: 0, 2 for a user's mistake (one line says which), 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        code = build(arguments)(arguments, prog_name="convscope", standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except ConvscopeError as error:
        return _fail(" ".join(str(error).split()))
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("\ninterrupted; what is finished is kept: run the same command again to go on from there", err=True)
        return INTERRUPTED
    except Exception as error:
        # typer's own usage errors; anything else is a bug and deserves its traceback
        if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
            raise
        return _fail(" ".join(error.format_message().split()))  # type: ignore[attr-defined]


def _fail(line: str) -> int:
    typer.echo(f"error: {line}", err=True)
    return 2


def _stub() -> None: ...
