"""The command that makes an atlas."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from convscope.cli.derive import command
from convscope.cli.running import open_network
from convscope.cli.show import print_written, progress, say, tell
from convscope.errors import BadInput
from convscope.names import Units


@command
def atlas(
    network: str,
    images: str,
    *,
    out: Path = Path("out/atlas"),
    layers: str | None = None,
    units: Units = None,
    classes: Units = None,
    pictures: list[Path] | None = None,
    recipe: str = "crops",
    copies: int = 1,
    no_projections: bool = False,
    no_images: bool = False,
    no_live: bool = False,
    occlusions: int = 12,
    budget: str | None = None,
    seed: int = 0,
    ray: str | None = None,
    weights: str = "pretrained",
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    output_part: str | None = None,
    **changes: object,
) -> None:
    """A site that opens from a file, with a page for every unit, class and image.

    The images are scanned, the site is written, then images by feature visualization fill in, the healthiest and most active units first.
    Stop it whenever you like: what is there is a site, and the same command goes on.

    Args:
        network: A torchvision name, timm:NAME, file.py:function, or textures.
        images: A folder (subfolders are labels), a list (.csv, .parquet) or tar shards. The images are published with the site.
        out: Folder of the site.
        layers: Layer names with commas in between. Default: every convolution after its ReLU; in large networks the last of each map
            size.
        units: Units of each layer that get a page.
        classes: Classes that get a page.
        pictures: A folder that convscope feature-visualization wrote; its images are taken where they were made alike. May be repeated.
        recipe: Recipe of the images by feature visualization.
        copies: Images for each unit, from different noise.
        no_projections: Leave out the projections of the strongest images.
        no_images: Do not publish the images; pages then show where crops lie.
        no_live: Leave out the page that measures the reader's own photographs, and the network in it.
        occlusions: Images with an occlusion map, the worst mistakes first.
        budget: Time that it may take, such as 30m, 2h or 90s: no image is begun that would end later. Scan and pages are made in any case.
        seed: Seed of all draws.
        ray: Scan and optimize images on a Ray cluster: "auto" or an address.
        weights: A file (.safetensors, .pth), "pretrained" or "random".
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Number format of the network's computation.
        output_part: Which part of what the network returns is the layer "output": a key, attribute or number, e.g. logits.
        changes: Recipe parameters to replace.

    Command line:
        convscope atlas textures data/images --layers features.27 --units 0-3 --classes chains --set steps=4 --set crop_size=48 --out site
    """
    from convscope.galleries.atlas import MANY_FILES
    from convscope.galleries.atlas import atlas as make
    from convscope.galleries.forecast import forecast
    from convscope.scanner.sources import find_sources

    seconds = None if budget is None else seconds_of(budget)
    wanted = [name.strip() for name in layers.split(",") if name.strip()] if layers else None
    with progress():
        scope = open_network(network, weights=weights, device=device, precision=precision, output_part=output_part)
        settings: Any = changes.get("set") or {}
        given: dict[str, Any] = {"layers": wanted, "units": units, "classes": classes, "recipe": recipe, "copies": copies, **settings}
        count = len(find_sources(images))
        expected = forecast(scope, count, occlusions=occlusions, **given)
        say(f"{count:,} images; {expected}")
        if not no_images:
            say("the images are published with the site, as the network is fed them (--no-images leaves them out)")
        if expected.files > MANY_FILES:
            say(f"more than {MANY_FILES:,} files are slow to copy: --layers and --units make it smaller")
        given["pictures"] = pictures or []
        made = make(
            scope,
            images,
            out,
            projections=not no_projections,
            photographs=not no_images,
            live=not no_live,
            occlusions=occlusions,
            budget=seconds,
            seed=seed,
            ray=ray,
            **given,
        )
    more = "" if made.made == made.wanted else "; the same command makes the others"
    say(f"{made.made:,} of {made.wanted:,} images by feature visualization, {made.files:,} files, {made.size / 2**20:.1f} MB{more}")
    tell(made=made.made, wanted=made.wanted, file_count=made.files, bytes=made.size)
    print_written([(made.index, "open this in a browser")])


def seconds_of(text: str) -> float:
    """A time such as 90s, 30m, 1.5h, or a number of seconds.

    Raises:
        BadInput: It is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if not found:
        raise BadInput(f"--budget {text}: expected a time such as 30m, 2h or 90s")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
