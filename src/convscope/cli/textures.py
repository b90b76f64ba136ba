"""The commands `textures sample` (writes generated images) and `textures train` (trains the bundled network again)."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from convscope.cli import examples
from convscope.cli.derive import command
from convscope.cli.docstrings import help_of
from convscope.cli.output import check_file
from convscope.cli.show import print_written, say, tell
from convscope.errors import BadInput, StoreConflict
from convscope.files import local_path


@command
def sample(*, out: Path, per_class: int = 20, seed: int = 0, size: int = 128) -> None:
    """Writes a labelled folder of generated images, with masks of the objects where a class is a shape.

    Args:
        out: Folder for the images; must be empty or new.
        per_class: Images of each class.
        seed: Seed; an image depends on nothing but the seed, its class and its number.
        size: Side in pixels.

    Command line:
        convscope textures sample --out data --per-class 4
    """
    from convscope.zoo.textures.generator import CLASSES, write_folder

    if per_class < 1 or size < 32:
        raise BadInput(f"--per-class must be at least 1 and --size at least 32, got {per_class} and {size}")
    if local_path(out).exists() and any(out.iterdir()):
        raise StoreConflict(f"{out} is not empty; choose another folder")
    write_folder(out, per_class, seed, size)
    print_written([(out / "images", f"{len(CLASSES)} classes with {per_class} images each"), (out / "masks", "where the object is")])


@command
def train(*, out: Path, seed: int = 0) -> None:
    """Trains the bundled network again, from nothing but its seed (about half an hour on two cores).

    Args:
        out: File for the weights (.safetensors).
        seed: Seed of images, weights and order.
    """
    from convscope.zoo.textures.train import train as run

    check_file(out)
    figures = run(out, seed=seed, report=lambda line: say(line, error=True))
    tell(accuracy=figures.accuracy)
    say(f"validation accuracy {100 * figures.accuracy:.2f} %")
    print_written([(out, "weights, float16")])


app = App(name="textures", help_format="plaintext", group_parameters="Options", help_epilogue="")
for each in (sample, train):
    app.command(each, name=each.__name__, help_epilogue=examples(help_of(f"cli.textures:{each.__name__}")))
