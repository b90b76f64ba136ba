"""The study behind every-filter-a-texture.md: python docs/studies/every_filter_a_texture.py.

Feature map inversions of two photographs at five depths of SqueezeNet; are those of one filter alike, whatever the photograph? Writes the
figures beside this file and its numbers to out/every-filter-a-texture.json. Uses real weights and photographs from ../shared.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import convscope as cs
from convscope.ops.map_statistics import gram_means, normalized_distances
from convscope.render.contact_sheet import contact_sheet
from convscope.render.panels import Image as Tile
from convscope.techniques.style_layers import style_depths

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
PHOTOS = SHARED / "images" / "inversion-paper"
OUT = HERE.parents[1] / "out"
SIDE, STEPS, RANDOM, PERMUTATIONS = 160, 80, 32, 9999


def network(side: int = SIDE) -> cs.Scope:
    """SqueezeNet, fed the middle of a picture at `side` pixels."""
    opened = cs.open("squeezenet1_0", weights=SHARED / "weights" / "squeezenet1_0-imagenet.safetensors")
    return cs.Scope(opened.model, replace(opened.inputs, size=side, crop=1.0), name="squeezenet1_0")


def filters(channels: int) -> list[int]:
    """The first five, and as many random others as RANDOM says."""
    others = np.random.default_rng(0).permutation(np.arange(5, channels))[:RANDOM]
    return [*range(5), *sorted(int(one) for one in others)]


def write(tiles: list[Tile], columns: int, name: str, title: str, side: int = 132) -> None:
    """A contact sheet in 256 colours."""
    page = contact_sheet(tiles, title=title, columns=columns, side=side)
    page = np.pad(page, ((12, 12), (12, 12), (0, 0)), constant_values=255)
    Image.fromarray(page).quantize(256).save(HERE / name, optimize=True)


def stuck(made: cs.Inversion) -> np.ndarray:
    """Filters with a picture that the optimization could not move on either photograph: the error fell by less than 1 %, (filter)."""
    fallen = 1 - np.nanmin(made.history, -1) / made.history[..., 0]
    return (fallen < 0.01).any(0)


def matching(scope: cs.Scope, pictures: np.ndarray, layer: str, layers: list[str]) -> dict[str, object]:
    """How often the same filter's picture is the nearest one of the other photograph, by Gram matrices of all layers but its own.

    Args:
        scope: The network.
        pictures: (photograph filter rgb h w), two photographs.
        layer: Where they were inverted.
        layers: The depths.
    """
    count = pictures.shape[1]
    others = [name for name in layers if name != layer]
    values = scope.activations(torch.tensor(pictures).flatten(0, 1), others)
    each = {name: normalized_distances(gram_means(values[name])).numpy() for name in others}
    apart = np.mean(list(each.values()), 0)
    cross = apart[:count, count:]

    found = cross.argmin(1), cross.argmin(0)
    right = sum(int((found[way] == np.arange(count)).sum()) for way in (0, 1)) / (2 * count)
    draws = np.random.default_rng(1)
    chance = []
    for _ in range(PERMUTATIONS):
        names = draws.permutation(count)
        chance.append(((found[0] == names).sum() + (found[1] == names.argsort()).sum()) / (2 * count))
    same_filter = cross.diagonal()
    same_photo = np.concatenate([apart[:count, :count][np.triu_indices(count, 1)], apart[count:, count:][np.triu_indices(count, 1)]])
    between = cross[~np.eye(count, dtype=bool)]
    truth = lambda other: np.r_[np.ones(count), np.zeros(len(other))]  # noqa: E731
    return {
        "accuracy": right,
        "chance": 1 / count,
        "p": (1 + sum(value >= right for value in chance)) / (1 + PERMUTATIONS),
        "accuracy_by_layer": {
            name: float(
                ((one[:count, count:].argmin(1) == np.arange(count)).mean() + (one[:count, count:].argmin(0) == np.arange(count)).mean())
                / 2
            )
            for name, one in each.items()
        },
        "auc_against_other_filters": float(roc_auc_score(truth(between), -np.r_[same_filter, between])),
        "auc_against_same_photograph": float(roc_auc_score(truth(same_photo), -np.r_[same_filter, same_photo])),
    }


def colourfulness(pictures: np.ndarray) -> float:
    """Hasler and Süsstrunk's measure (2003) on 0..255, mean over pictures (n rgb h w)."""
    red, green, blue = np.moveaxis(255 * pictures, -3, 0)
    first, second = red - green, (red + green) / 2 - blue
    spread = np.hypot(first.std((-2, -1)), second.std((-2, -1)))
    return float((spread + 0.3 * np.hypot(first.mean((-2, -1)), second.mean((-2, -1)))).mean())


def inversions(scope: cs.Scope, photos: list[Path], layers: list[str]) -> dict[str, object]:
    """Figure 3, and the numbers."""
    tiles: dict[int, list[Tile]] = {0: [], 1: []}
    numbers: dict[str, object] = {}
    for layer in layers:
        begun = time.perf_counter()
        chosen = filters(scope.layers[layer].channels)
        made = cs.inversion(scope, layer, photos, edit=[cs.FeatureMap(one) for one in chosen], prior="none", steps=STEPS, pooling="average")
        fixed = stuck(made)
        numbers[layer] = {
            "filters": len(chosen),
            "stuck": int(fixed.sum()),
            "among_the_moved": matching(scope, made.images[:, ~fixed], layer, layers),
            "error": float(made.error.mean()),
            "colourfulness": colourfulness(made.images),
            **matching(scope, made.images, layer, layers),
            "seconds": time.perf_counter() - begun,
        }
        print(layer, json.dumps(numbers[layer]), flush=True)
        for photo in tiles:
            tiles[photo] += [Tile(made.images[photo, one], f"{layer} map {one}") for one in range(5)]
    rows = [tile for row in range(len(layers)) for photo in (0, 1) for tile in tiles[photo][5 * row : 5 * row + 5]]
    write(rows, 10, "every-filter-3.png", "Feature map inversion: left the gate, right Tübingen; a row per depth, the first five maps", 104)
    return numbers


def reallocations(scope: cs.Scope, photos: list[Path], layers: list[str]) -> dict[str, float]:
    """Figure 4: two random deals at each depth."""
    tiles: dict[tuple[int, int], list[Tile]] = {}
    errors: dict[str, float] = {}
    for layer in layers:
        made = cs.inversion(scope, layer, photos, edit=[cs.Reallocate(0), cs.Reallocate(1)], steps=STEPS, pooling="average")
        errors[layer] = float(made.error.mean())
        for photo in (0, 1):
            for deal in (0, 1):
                tiles.setdefault((photo, deal), []).append(Tile(made.images[photo, deal], f"{layer}: {deal}"))
    write(
        [tile for row in sorted(tiles) for tile in tiles[row]],
        len(layers),
        "every-filter-4.png",
        "Random modification: two a photograph",
    )
    return errors


def styles(scope: cs.Scope, photos: list[Path]) -> dict[str, object]:
    """Figure 5: sums (PMCI) beside Gram (Gatys), and whose style each result has."""
    paintings = sorted(PHOTOS.glob("style-*"))
    contents = [scope.inputs(photo) for photo in photos]
    given = {"sums": {"style_weight": 30.0}, "gram": {}}
    made = {
        name: cs.style_transfer(scope, contents, paintings, statistic=name, weighting="paper", steps=STEPS, size=2 * SIDE, **given[name])
        for name in given
    }
    tiles: list[Tile] = []
    for row, painting in enumerate(paintings):
        tiles.append(Tile(made["sums"].styles[row], painting.stem))
        tiles += [
            Tile(made[name].images[content, row, 0], f"{('gate', 'Tübingen')[content]}, {name}") for content in (0, 1) for name in made
        ]
    write(tiles, 5, "every-filter-5.png", "Style by channel sums and by Gram matrices")
    found: dict[str, object] = {}
    for name, result in made.items():
        pictures = [torch.tensor(one) for one in result.images.reshape(-1, *result.images.shape[-3:])]
        alike = cs.style_similarity(scope, [*pictures, *paintings], size=2 * SIDE)
        count = len(pictures)
        wanted = count + np.tile(np.arange(len(paintings)), len(photos))
        among = range(count, count + len(paintings))
        found[name] = {
            "nearest_is_its_own": {by: int((alike.nearest(by, among)[:count] == wanted).sum()) for by in alike.statistics},
            "of": count,
            "style_loss_left": dict(zip(result.statistics, result.remaining().mean((0, 1, 2)).tolist(), strict=True)),
            "content_error": float(result.content_errors.mean()),
        }
    return found


def main() -> None:
    begun = time.perf_counter()
    scope = network()
    photos = [PHOTOS / "content-golden-gate.jpg", PHOTOS / "content-tubingen.jpg"]
    layers = style_depths(scope.layers)
    numbers: dict[str, object] = {"matching": inversions(scope, photos, layers)}
    numbers["reallocation_error"] = reallocations(scope, photos, layers)
    numbers["styles"] = styles(scope, photos)
    numbers["minutes"] = (time.perf_counter() - begun) / 60
    OUT.mkdir(exist_ok=True)
    (OUT / "every-filter-a-texture.json").write_text(json.dumps(numbers, indent=1))
    print(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
