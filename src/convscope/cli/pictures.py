"""Commands about finished pictures, and the demo."""

from __future__ import annotations

from pathlib import Path

import typer

from convscope.cli.show import print_written, progress


def redo(
    picture: Path = typer.Argument(help="A PNG that convscope made."),
    network: str = typer.Option(None, help="The network, if the receipt's name no longer leads to it."),
    weights: str = typer.Option(None, help="Where its weights are now."),
    out: Path = typer.Option(None, help="Write the new picture here, too."),
) -> None:
    """Makes a picture again from its receipt and compares the two.

    Says bit-equal, or the largest difference; exit code 1 if they differ by more than 2/255 on average.
    """
    from convscope.galleries.redo import redo as again
    from convscope.receipts import write_png
    from convscope.zoo import open as open_network

    with progress():
        scope = open_network(network, weights=weights or "pretrained") if network else None
        made = again(picture, scope=scope, weights=weights)
    typer.echo(f"{picture}: {made.verdict}")
    if out is not None:
        print_written([(write_png(out, made.image, {"redone": str(picture)}), "the new picture")])
    if made.mean > 2:
        raise typer.Exit(1)


def demo(
    out: Path = typer.Option(Path("out/demo"), help="Folder for what is written."),
    seed: int = typer.Option(0, help="Seed of all draws."),
) -> None:
    """The main job on the bundled network: offline, in under three minutes.

    What its units and classes look for, what a picture excites, and a guess about a unit put to the test.
    """
    from convscope.cli.demo import demo as run

    with progress():
        written = run(out, seed=seed)
    print_written(written)
