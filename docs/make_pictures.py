"""Makes the pictures of the documentation again: python docs/make_pictures.py (about fifteen minutes on 2 cores).

Uses real weights and photographs that are kept beside the repository, in ../shared.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import convscope as cs
from convscope import render
from convscope.render.contact_sheet import contact_sheet
from convscope.render.panels import Image as Tile
from convscope.zoo.textures.generator import CLASSES, indexed

SHARED = Path(__file__).resolve().parents[2] / "shared"
OUT = Path(__file__).parent / "pictures"
UNITS = list(range(16))
LABELS = ["goldfish", "macaw", "flamingo", "golden retriever", "tiger", "zebra", "castle", "pineapple"]


def small(png: bytes, name: str) -> None:
    """Writes a picture with 256 colours."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(OUT / name, optimize=True)


def sheet(scope: cs.Scope, recipe: str, **numbers: object) -> None:
    """Eight classes and sixteen units on one sheet."""
    tiles: list[Tile] = []
    for layer, units in (("output", LABELS), ("features.12", UNITS)):
        made = cs.feature_visualization(scope, layer, units, recipe=recipe, **numbers)
        for index, unit in enumerate(made.units):
            name = made.unit_names[index] or f"{layer} unit {unit}"
            marked = "stuck" if made.status[index] == "stuck" else None
            pixels = np.asarray(
                Image.fromarray(np.uint8(255 * made.images[index].transpose(1, 2, 0))).resize((192, 192), Image.Resampling.LANCZOS)
            )
            tiles.append(Tile(pixels.transpose(2, 0, 1) / 255, name, f"{made.scores[index]:.3g}", marked))
        print(recipe, layer, made.status)
    page = contact_sheet(tiles, title=f"SqueezeNet 1.0, recipe {recipe}", columns=8, side=192)
    Image.fromarray(np.pad(page, ((16, 16), (16, 16), (0, 0)), constant_values=255)).quantize(256).save(
        OUT / f"squeezenet_{recipe}.png", optimize=True
    )


def diverse(scope: cs.Scope) -> None:
    """Two copies of two units, without and with diversity."""
    tiles: list[Tile] = []
    for weight in (0.0, 1.0):
        made = cs.feature_visualization(scope, "features.12", [7, 20], copies=2, diversity=weight, steps=128, size=160, crop_size=112)
        for row, unit in enumerate(made.units):
            tiles.append(Tile(made.images[row], f"unit {unit}, copy {made.copies[row]}", f"{made.scores[row]:.0f}, diversity {weight:g}"))
    page = contact_sheet(tiles, title="SqueezeNet 1.0, features.12", columns=4, side=192)
    Image.fromarray(np.pad(page, ((16, 16), (16, 16), (0, 0)), constant_values=255)).quantize(256).save(
        OUT / "diversity.png", optimize=True
    )


def surveys(scope: cs.Scope) -> None:
    """A thousand photographs with a label each; ants and bees; and the latter as a scanner might show them: inverted, pale, grey."""
    out = OUT.parent.parent / "out" / "docs"
    out.mkdir(parents=True, exist_ok=True)
    with (out / "sample.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for path in sorted((SHARED / "images" / "imagenet-sample").glob("*.jpg")):
            writer.writerow([path, path.stem.partition("_")[2].replace("_", " ")])
    photographs = cs.scan(scope, str(out / "sample.csv"), out / "surveys" / "sample", layers=["features.5", "features.12"])
    small(render.png(cs.exemplars(photographs, "features.12", [3, 7, 20, 367, 456], middle=0.5).view()), "exemplars.png")
    small(render.png(cs.exemplars(photographs, "features.5", [2, 3], top=9).view()), "exemplars_early.png")
    guided = cs.top_patches(scope, photographs, "features.12", [3, 367], rule="guided", middle=0.6, evidence=True)
    small(render.png(guided.view()), "top_patches.png")
    small(render.png(cs.top_patches(scope, photographs, "features.5", [2, 3, 20, 140]).view()), "top_patches_early.png")
    small(render.png(cs.filter_health(cs.scan(scope, str(out / "sample.csv"), out / "surveys" / "health")).view()), "filter_health.png")
    insects = SHARED / "images" / "ants-bees"
    for path in (insects / "val").glob("*/*.jpg"):
        pale = ImageOps.invert(Image.open(path).convert("L")).point([90 + value * 6 // 10 for value in range(256)])
        pale.thumbnail((512, 512))
        file = out / "scanner" / path.parent.name / f"{path.stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pale.save(file)
    sources = {
        "train": SHARED / "images" / "ants-bees" / "train",
        "val": SHARED / "images" / "ants-bees" / "val",
        "scanner": out / "scanner",
    }
    train, val, scanner = (cs.scan(scope, str(path), out / "surveys" / name, layers=["features.12"]) for name, path in sources.items())
    maps = cs.class_maps(train, "features.12")
    small(render.png(maps.view()), "class_maps.png")
    bee = sorted((insects / "val" / "bees").iterdir())[1]
    small(render.png(cs.map_overlay(scope, "features.12", bee, top=30, maps=maps).view()), "map_overlay_classes.png")
    small(render.png(cs.activation_sums(train, "features.12", maps, others=[scanner]).view()), "activation_sums.png")
    small(render.png(cs.class_profile(train, "features.12", [46, 499]).view()), "class_profile.png")
    alarms = cs.detector(train, "features.12", rule="youden")
    small(render.png(alarms.view()), "detector.png")
    photos = [sorted((insects / "val" / name).iterdir())[place] for name in ("ants", "bees") for place in (1, 4)]
    small(render.png(cs.alarm(scope, alarms, photos).view()), "alarm.png")
    small(render.png(cs.detector_evaluation(alarms, val, scanner).view()), "detector_evaluation.png")
    print(alarms.summary(), cs.detector_evaluation(alarms, val, scanner).summary(), sep="\n")


def inverted(scope: cs.Scope, photographs: Path) -> None:
    """Inversion and style."""
    contents = sorted((photographs / "inversion-paper").glob("content-*"))
    paintings = sorted((photographs / "inversion-paper").glob("style-*"))
    small(
        render.png(cs.inversion(scope, "features.3", contents, edit=[None, *map(cs.FeatureMap, range(3)), cs.Reallocate(0)]).view()),
        "inversion.png",
    )
    layers = [f"features.{number}" for number in (1, 3, 7, 9, 12)]
    maps = cs.inversion(scope, layers, contents[0], edit=[cs.FeatureMap(number) for number in range(5)], pooling="average", steps=100)
    small(render.png(maps.view()), "inversion_maps.png")
    named = [next((photographs / "imagenet-sample").glob(f"*_{name}.jpg")) for name in ("goldfish", "macaw")]
    shown = [*contents, *named]
    tiles: list[Tile] = []
    shallow = {"prior": ("cvpr2015", 0.05)}
    deep = {"prior": ("cvpr2015", 0.02), "optimizer": "adam", "jitter": 4, "steps": 600}
    for layer, numbers in (("features.3", shallow), ("features.7", shallow), ("features.12", deep)):
        made = cs.inversion(scope, layer, shown, **numbers)  # type: ignore[arg-type]
        tiles += [Tile(made.images[row, 0], layer if row == 0 else "", f"error {made.error[row, 0]:.3g}") for row in range(len(shown))]
    page = contact_sheet(tiles, title="Inverted from three depths of SqueezeNet", columns=len(shown), side=200)
    Image.fromarray(np.pad(page, ((16, 16), (16, 16), (0, 0)), constant_values=255)).quantize(256).save(
        OUT / "inversion_depths.png", optimize=True
    )
    cut = [cs.Inputs(size=(192, 256))(content) for content in contents]
    styled: list[Tile] = []
    made = cs.style_transfer(scope, cut, paintings, statistic=["sums", "gram"], steps=100)
    styled += [Tile(made.styles[column], paintings[column].stem, "style") for column in range(len(paintings))]
    styled += [
        Tile(made.images[row, column, place], "", f"{name}: {100 * made.kept()[row, column, place]:.1f} % of the loss left")
        for place, name in enumerate(made.by)
        for row in range(len(cut))
        for column in range(len(paintings))
    ]
    page = contact_sheet(styled, columns=len(paintings), side=224)
    Image.fromarray(np.pad(page, ((16, 16), (16, 16), (0, 0)), constant_values=255)).quantize(256).save(
        OUT / "style_transfer.png", optimize=True
    )
    groups = ["photograph" if path in contents else "painting" for path in [*contents, *paintings]]
    small(render.png(cs.style_similarity(scope, [*contents, *paintings], groups=groups).view()), "style_similarity.png")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    scope = cs.open("squeezenet1_0", weights=SHARED / "weights" / "squeezenet1_0-imagenet.safetensors")
    photographs = SHARED / "images"
    gate = next(path for path in (photographs / "inversion-paper").iterdir() if "golden" in path.name)
    zebra = next((photographs / "imagenet-sample").glob("*zebra*"))
    spikes = [unit for unit, _ in cs.spectrum(scope, "features.12", zebra).spikes(8)]
    pictures = cs.gallery(scope, "features.12", spikes, OUT.parent.parent / "out" / "docs" / "features.12")
    small(render.png(cs.spectrum(scope, "features.12", zebra, pictures=pictures.folder).view()), "spectrum.png")
    small(render.png(cs.receptive_field(scope, "features.7", image=gate, position=(8, 13)).view()), "receptive_field.png")
    layers = [f"features.{index}.squeeze_activation" for index in (3, 7, 12)]
    small(render.png(cs.activation_grid(scope, gate, layers).view()), "activation_grid.png")
    goldfish = next((photographs / "imagenet-sample").glob("*goldfish*"))
    fires = [f"features.{index}" for index in (1, 3, 4, 5, 7, 8, 9, 10, 12)]
    small(render.png(cs.activation_grid(scope, goldfish, fires, follow={"features.12": 185}).view()), "activation_path.png")
    small(render.png(cs.weight_grid(scope, "features.0").view()), "weight_grid.png")
    small(render.png(cs.weight_grid(scope, "features.3.expand3x3", mode="collated").view()), "weight_grid_collated.png")
    along = cs.kernel_angles(scope, "features.0", [2, 8, 18, 27, 72], photographs / "ants-bees" / "val" / "bees")
    small(render.png(along.view()), "kernel_angles.png")
    small(render.png(cs.map_overlay(scope, "features.12", gate, top=10).view()), "map_overlay.png")
    small(render.png(cs.deconvnet(scope, "features.12", [133, 194], gate).view()), "deconvnet_gate.png")
    domes = [photographs / "occlusion-article" / f"dome538-{number}.jpg" for number in (1, 2)]
    small(render.png(cs.occlusion(scope, domes, 538, patch=32).view()), "occlusion.png")
    strongest = [unit for unit, _ in cs.spectrum(scope, "features.12", zebra).spikes(12)]
    small(render.png(cs.knockout(scope, "features.12", strongest, [zebra, gate]).view()), "knockout.png")
    bees = [sorted((photographs / "ants-bees" / "val" / "bees").iterdir())[place] for place in (1, 3, 5, 9)]
    small(render.png(cs.map_overlay(scope, "features.12", bees, units=[465]).view()), "map_overlay_many.png")
    inverted(scope, photographs)
    textures = cs.open("textures")
    chains = [indexed("chains", number, seed=1).image for number in range(12)]
    others = [indexed(name, number, seed=1).image for name in CLASSES if name != "chains" for number in range(2)]
    tested = cs.hypothesis(textures, "features.26", 40, chains, others)
    best = int(np.argmax(tested.auc))
    guess = tested.better[3] if len(tested.better) > 3 else best
    (OUT / "hypothesis.png").write_bytes(render.png(cs.hypothesis(textures, "features.26", guess, chains, others).view()))
    surveys(scope)
    diverse(scope)
    sheet(scope, "crops")
    sheet(scope, "fourier")
    sheet(scope, "multiscale", blur=5)


if __name__ == "__main__":
    main()
