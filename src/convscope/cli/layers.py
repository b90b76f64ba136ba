"""The command `layers`; its columns are made in :class:`convscope.scope.layers.Layers`."""

from __future__ import annotations

from convscope.cli.derive import command
from convscope.cli.show import print_table, say, wants_rows
from convscope.errors import BadInput
from convscope.results.table import records
from convscope.zoo import open as open_network


@command
def layers(network: str, *, kind: str | None = None, all: bool = False, weights: str = "random", output_part: str | None = None) -> None:
    """The layers of a network, in call order, as a table.

    Every name in it can be given to the other commands; a star marks values after the activation function of a convolution. A module that
    runs several times has a row for each call.

    Args:
        network: A torchvision name, efficientnet_lite0 to 2, timm:NAME, hf:FOLDER, file.py:function, or textures.
        kind: Only layers of this kind, e.g. Conv2d.
        all: Also layers that return their input, such as Identity and Dropout; --json has them anyway.
        weights: A file (.safetensors, .pth), "pretrained", or "random": the table is the same.
        output_part: Which part of what the network returns is the layer "output": a key, attribute or number, e.g. logits.

    Command line:
        convscope layers textures
        convscope layers squeezenet1_0 --kind Conv2d
        convscope layers my_model.py:build
    """
    scope = open_network(network, weights=weights, output=output_part)
    table = scope.layers.of_kind(kind) if kind else scope.layers
    rows = table.rows(every=all)
    if not rows:
        kinds = ", ".join(dict.fromkeys(layer.kind for layer in scope.layers.values()))
        raise BadInput(f"{network} has no layer of kind {kind}; there are: {kinds}")
    print_table(
        f"{network} at {scope.inputs.height}x{scope.inputs.width}",
        table.HEADER,
        rows,
        right=[index > 1 for index in range(len(table.HEADER))],
        spare=("kind", "stride", "parameters", "MACs"),
        records=records(table.columns()),
    )
    if not wants_rows() and (legend := table.legend("--all shows them", every=all)):
        say(legend)
