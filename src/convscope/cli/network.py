"""Commands about a network as such."""

from __future__ import annotations

import typer

from convscope.cli.show import print_table
from convscope.zoo import open as open_network


def layers(
    network: str = typer.Argument(help="Network: a torchvision name, timm:NAME, file.py:function, or textures."),
    kind: str = typer.Option(None, help="Only layers of this kind, e.g. Conv2d."),
    weights: str = typer.Option("random", help="Weights file (.safetensors, .pth), 'pretrained', or 'random' (the table is the same)."),
) -> None:
    """The layers of a network, in call order, as a table.

    Every name in it can be given to the other commands. A module that runs several times has a row for each call.
    """
    scope = open_network(network, weights=weights)
    table = scope.layers.of_kind(kind) if kind else scope.layers
    rows = table.rows()
    if not rows:
        kinds = ", ".join(dict.fromkeys(layer.kind for layer in scope.layers.values()))
        typer.echo(f"{network} has no layer of kind {kind}; there are: {kinds}")
        return
    print_table(f"{network} at {scope.inputs.height}x{scope.inputs.width}", table.HEADER, rows, left=2)
