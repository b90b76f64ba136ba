"""Commands about the bundled network and its images."""

from __future__ import annotations

from pathlib import Path

import typer

from convscope.cli.show import print_written
from convscope.errors import BadInput, StoreConflict

app = typer.Typer(no_args_is_help=True)


@app.command(epilog="Example:\n\nconvscope textures sample --out data --per-class 20")
def sample(
    out: Path = typer.Option(..., help="Folder for the images; must be empty or new."),
    per_class: int = typer.Option(20, help="Images of each class."),
    seed: int = typer.Option(0, help="Seed; an image depends on nothing but the seed, its class and its number."),
    size: int = typer.Option(128, help="Side in pixels."),
) -> None:
    """Writes a labelled folder of generated images, with masks of the objects where a class is a shape."""
    from convscope.zoo.textures.generator import CLASSES, write_folder

    if per_class < 1 or size < 32:
        raise BadInput(f"--per-class must be at least 1 and --size at least 32, got {per_class} and {size}")
    if out.exists() and any(out.iterdir()):
        raise StoreConflict(f"{out} is not empty; choose another folder")
    write_folder(out, per_class, seed, size)
    print_written([(out / "images", f"{len(CLASSES)} classes with {per_class} images each"), (out / "masks", "where the object is")])


@app.command(epilog="Example:\n\nconvscope textures train --out textures.safetensors")
def train(
    out: Path = typer.Option(..., help="File for the weights (.safetensors)."),
    seed: int = typer.Option(0, help="Seed of images, weights and order."),
) -> None:
    """Trains the bundled network again, from nothing but its seed (about half an hour on two cores)."""
    from convscope.zoo.textures.train import train as run

    figures = run(out, seed=seed, report=lambda line: typer.echo(line, err=True))
    typer.echo(f"validation accuracy {100 * figures.accuracy:.2f} %")
    print_written([(out, "weights, float16")])
