"""The command that writes the project file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from convscope.cli.derive import command
from convscope.cli.project import FILE, Project, checked, write_project
from convscope.cli.show import progress, say
from convscope.errors import BadInput
from convscope.files import is_url


@command
def use(
    network: str,
    *,
    weights: str | None = None,
    images: str | None = None,
    device: str | None = None,
    precision: Literal["auto", "float32", "bfloat16"] | None = None,
) -> None:
    """Writes convscope.toml, so that commands in this folder need not be told the network, weights, images and device again.

    Later commands leave out NETWORK (the next argument takes its place), --weights, IMAGES and --device. What a command says itself wins.
    Each command prints what it took, and receipts keep it.

    Args:
        network: A torchvision name, efficientnet_lite0 to 2, timm:NAME, hf:FOLDER, or textures; no file.py:function.
        weights: A file (.safetensors, .pth), "pretrained" or "random".
        images: A folder, list (.csv, .parquet) or other source of images.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Number format of the network's computation.

    Command line:
        convscope use textures --images data/images
        convscope use squeezenet1_0 --weights random --device cpu
    """
    from convscope.image_files import find_images
    from convscope.zoo import open as open_network

    project = checked({key: value for key, value in locals().items() if key in Project.__dataclass_fields__ and value is not None})
    if images is not None and not is_url(images) and not set("*?[") & set(images) and not Path(images).exists():
        raise BadInput(f"--images {images}: there is no such file or folder")
    with progress():
        open_network(network, weights=weights or "pretrained", device=device or "auto", precision=precision or "auto")
        count = len(list(find_images(images))) if images is not None else 0
    before = Path(FILE).exists()
    write_project(project)
    for key, value in project.entries().items():
        say(f"{key.ljust(9)} {value}" + (f" ({count:,} file{'s' if count != 1 else ''})" if key == "images" else ""))
    say(f"{'replaced' if before else 'wrote'} {FILE}: commands in this folder take these where none are given")
