"""Does each architecture give right results, or one line that refuses? python benchmarks/architectures.py (about an hour on 2 cores)

Every classifier of torchvision and 60 architectures of timm, random weights, a small input: a picture of a class by the default recipe (2
steps), and at the deepest layer with maps a spectrum, an overlay and a scan of two images. Right means: the spectrum is the mean that a
plain hook sees; quarters of the image that change, change the same quarters of the maps, of all 24 assignments; the scan finds the same
maxima at the same places; the picture is finite and not its start. Writes docs/architectures.md; goes on where it stopped
(out/architectures.json).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models

import convscope as cs
from convscope.errors import ConvscopeError

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "out" / "architectures.json", ROOT / "docs" / "architectures.md"
LARGE = 224
SIDES = (96, 128, 192, 224, 240, 256, 288, 384)
TIMM = (
    "vit_tiny_patch16_224 vit_tiny_r_s16_p8_224 deit_tiny_distilled_patch16_224 cait_xxs24_224 beit_base_patch16_224 "
    "eva02_tiny_patch14_224 vit_tiny_patch16_dinov3_qkvb volo_d1_224 convit_tiny crossvit_tiny_240 levit_128s xcit_nano_12_p16_224 "
    "tnt_s_patch16_224 pit_ti_224 mixer_s16_224 resmlp_12_224 gmlp_ti16_224 swin_tiny_patch4_window7_224 swin_s3_tiny_224 "
    "swinv2_tiny_window8_256 swinv2_cr_tiny_224 maxvit_pico_rw_256 coatnet_pico_rw_224 mobilevit_xxs mobilevitv2_050 pvt_v2_b0 "
    "twins_svt_small nest_tiny visformer_tiny poolformer_s12 caformer_s18 edgenext_xx_small efficientformer_l1 efficientvit_b0 "
    "efficientvit_m0 fastvit_t8 tiny_vit_5m_224 hiera_tiny_224 davit_tiny mvitv2_tiny focalnet_tiny_srf gcvit_xxtiny nextvit_small "
    "sequencer2d_s convnext_atto convnextv2_atto inception_next_atto mambaout_femto starnet_s1 repvit_m0_9 ghostnet_050 "
    "mobilenetv4_conv_small mobilenetv4_hybrid_medium hrnet_w18_small res2net50_14w_8s resnest14d dla34 botnet26t_256 halonet26t "
    "lambda_resnet26t tf_efficientnet_lite0 nf_resnet26 rexnet_100 xception41 "
).split()
QUARTERS = "quarters"
MIXED = 0.1
"""Where every quarter of the image changes all of the maps alike, to a tenth, their places cannot be told by changes."""
COLUMNS = ("class picture", "spectrum", "overlay", "scan")


def network(kind: str, name: str, side: int) -> nn.Module:
    """A network with random weights for images of a side."""
    if kind == "torchvision":
        more: dict[str, Any] = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
        more |= {"image_size": side} if name.startswith("vit_") else {}
        more |= {"input_size": (side, side)} if name == "maxvit_t" else {}
        return models.get_model(name, weights=None, **more).eval()
    import timm

    try:
        return timm.create_model(name, pretrained=False, img_size=side).eval()
    except TypeError:
        return timm.create_model(name, pretrained=False).eval()


def smallest(kind: str, name: str, least: int) -> cs.Scope:
    """The network at the smallest side that it takes."""
    problem: Exception | None = None
    for side in (side for side in SIDES if side >= least):
        try:
            torch.manual_seed(0)
            scope = cs.Scope(network(kind, name, side), cs.Inputs(size=side), precision="float32", name=name)
            if deepest(scope) is not None:
                return scope
        except (ConvscopeError, RuntimeError, ValueError, AssertionError) as error:
            problem = error
    if problem is not None:
        raise problem
    return scope


def deepest(scope: cs.Scope) -> str | None:
    """The last layer with maps of more than one row and column."""
    for name, layer in reversed(list(scope.layers.items())):
        if name != "output" and layer.batch_axis is not None and not layer.unclear and len(layer.spatial) == 2 and min(layer.spatial) > 1:
            return name
    return None


def plain(scope: cs.Scope, layer: str, images: Tensor) -> Tensor:
    """The value of a layer by a plain hook, images in front, without convscope's reading of its axes."""
    known, seen, calls = scope.layers[layer], list[Tensor](), [0]

    def keep(_module: nn.Module, _given: Any, value: Any) -> None:
        if calls[0] == known.call:
            seen.append((value if isinstance(value, Tensor) else value[0]).clone())  # it may be overwritten later
        calls[0] += 1

    handle = known.module.register_forward_hook(keep)
    with torch.no_grad():
        scope.model(scope.inputs.normalize(images))
    handle.remove()
    return seen[0].movedim(known.batch_axis or 0, 0).clone()


def check_spectrum(scope: cs.Scope, layer: str, images: Tensor) -> None:
    """The units' means, and the places of the maps: quarters of the image that change, change the same quarters of the maps."""
    known, value = scope.layers[layer], plain(scope, layer, images)
    seen = cs.spectrum(scope, layer, images)
    units = value.movedim(known.channel_axis + 1, 1).flatten(2)
    if known.grid is not None:
        height, width = known.grid
        units = units[:, :, known.prefix : known.prefix + height * width]
    twin = units.double().mean(2).numpy()
    assert np.allclose(seen.values, twin, rtol=1e-3, atol=1e-4 * np.abs(twin).max()), "the spectrum is another"
    side, places = images.shape[-1] // 2, [(0, 0), (0, 1), (1, 0), (1, 1)]
    before, table = scope.run(images[:1], layer, channels_first=True)[layer], np.zeros((4, 4))
    for row, (y, x) in enumerate(places):
        other = images[:1].clone()
        other[..., y * side : (y + 1) * side, x * side : (x + 1) * side] = images[1:, ..., :side, :side]
        changed = (scope.run(other, layer, channels_first=True)[layer] - before).abs().mean((0, 1))
        h, w = (length // 2 for length in changed.shape)
        for column, (a, b) in enumerate(places):
            part = changed[a * (len(changed) - h) :][:h, b * (changed.shape[1] - w) :][:, :w]
            table[row, column] = np.log(max(float(part.mean()), 1e-30))
    rows = range(4)
    best = max(itertools.permutations(rows), key=lambda order: sum(table[row, order[row]] for row in rows))
    contrast = float(np.ptp(table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()))
    assert best == (0, 1, 2, 3) or contrast < MIXED, f"{QUARTERS} of the image change quarters {best} of the maps"


def check_overlay(scope: cs.Scope, layer: str, images: Tensor) -> None:
    laid = cs.map_overlay(scope, layer, images, top=2)
    maps = scope.run(images, layer, channels_first=True)[layer].numpy()
    for row, units in enumerate(laid.units):
        assert np.allclose(laid.maps[row], maps[row, units], atol=1e-4 * max(1.0, np.abs(maps).max())), "other maps"


def check_scan(scope: cs.Scope, layer: str, images: Tensor) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            pixels = (image.numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{number}.png")
        survey = cs.scan(scope, folder, Path(folder) / "survey", layers=[layer], decoders=0)
        fed = torch.from_numpy(np.stack([survey.read_image(number) for number in (0, 1)]))
        maps = scope.run(fed, layer, channels_first=True)[layer]
        peaks, (y, x) = survey.maximum(layer), np.moveaxis(survey.positions(layer), -1, 0)
        rows, units = np.indices(peaks.shape)
        assert np.allclose(peaks, maps.amax((2, 3)).numpy(), rtol=1e-3, atol=1e-4 * float(maps.abs().max())), "other maxima"
        assert np.allclose(maps.numpy()[rows, units, y, x], peaks, rtol=1e-3, atol=1e-3 * float(maps.abs().max())), "at other places"
        cut = cs.exemplars(survey, layer, [0], top=1)
        assert np.isfinite(cut.crops).all()


def check_picture(scope: cs.Scope) -> None:
    made = cs.feature_visualization(scope, "output", [1], steps=2)
    assert np.isfinite(made.images).all() and np.isfinite(made.scores).all() and made.images.std() > 0


def tried(check: Callable[[], None]) -> str:
    try:
        check()
    except ConvscopeError as error:
        text = str(error)
        return f"refused: {text}" if "\n" not in text else f"WRONG: several lines: {text}"
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"
    return "right"


def examined(kind: str, name: str, least: int = 0) -> dict[str, Any]:
    """What an architecture does."""
    begun = time.monotonic()
    try:
        scope = smallest(kind, name, least)
        layer = deepest(scope)
    except ConvscopeError as error:
        return {"side": 0, "layer": "-", "map": "-", "refused": str(error)} | dict.fromkeys(COLUMNS, f"refused: {error}")
    generator = torch.Generator().manual_seed(0)
    side = scope.inputs.height
    images = torch.nn.functional.interpolate(torch.rand(2, 3, side // 4, side // 4, generator=generator), size=side)
    images = (images * 255).round() / 255
    found: dict[str, Any] = {"side": side, "layer": layer or "-", "map": "-"}
    known = list(scope.layers.values())
    found["unclear"] = sum(one.unclear or one.batch_axis is None for one in known)
    found["layers"] = len(known)
    found["class picture"] = tried(lambda: check_picture(scope))
    if layer is None:
        found |= dict.fromkeys(COLUMNS[1:], "refused: no layer has maps")
    else:
        own = scope.layers[layer]
        prefix = f"{own.prefix} + " if own.prefix else ""
        found["map"] = f"{prefix}{own.spatial[0]}x{own.spatial[1]}" + (" tokens" if own.grid else "") + f", {own.channels} units"
        for column, check in zip(COLUMNS[1:], (check_spectrum, check_overlay, check_scan), strict=True):
            found[column] = tried(lambda check=check: check(scope, layer, images))
    if QUARTERS in found["spectrum"] and side < LARGE:
        return examined(kind, name, LARGE)  # maps of nine positions have too small quarters
    return found | {"seconds": round(time.monotonic() - begun, 1)}


def page(rows: dict[str, dict[str, Any]]) -> str:
    """The table for the documentation."""
    right = [name for name, row in rows.items() if all(row[column] == "right" for column in COLUMNS)]
    refused = {name: row for name, row in rows.items() if name not in right}
    lines = [
        "# Architectures",
        "",
        f"`python benchmarks/architectures.py`: {len(rows)} architectures with random weights, each at the smallest of a few sizes",
        "that it takes. A picture of a class by the default recipe (2 steps), and at the deepest layer with maps a spectrum, an overlay",
        "and a scan of two images. Right means: the spectrum is the mean that a plain hook sees; quarters of the image that change,",
        "change the same quarters of the maps (of all 24 assignments, this one fits best, or all fit alike because everything was",
        "mixed); the scan finds the same maxima at the same places.",
        "",
        "Tokens are maps as well: `1 + 6x6 tokens` is a sequence of one class token and a grid. Which tokens these are, and which axis",
        'counts units, is followed through the recorded graph from the image on. "Not told" are layers of which that cannot be said (as of',
        "heads of attention, windows, mixed tokens): `activations` reads them, and every technique refuses them in one line.",
        "",
        f"## Right: {len(right)}",
        "| architecture | input | deepest layer with maps | its value | layers | not told |",
        "|---|---:|---|---|---:|---:|",
    ]
    for name in right:
        row = rows[name]
        lines.append(f"| {name} | {row['side']} | {row['layer']} | {row['map']} | {row['layers']} | {row['unclear']} |")
    lines += [
        "",
        f"## Refused, wholly or in part: {len(refused)}",
        "| architecture | input | layer | what | answer |",
        "|---|---:|---|---|---|",
    ]
    for name, row in refused.items():
        answers: dict[str, list[str]] = {}
        for column in COLUMNS:
            if row[column] != "right":
                answers.setdefault(row[column], []).append(column)
        for answer, columns in answers.items():
            lines.append(f"| {name} | {row['side']} | {row['layer']} | {', '.join(columns)} | {answer.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these, e.g. timm/vit_tiny_patch16_224")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    every = [f"timm/{name}" for name in TIMM] + [f"torchvision/{name}" for name in models.list_models(module=models)]
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in given.names or [name for name in every if name not in rows]:
        rows[name] = examined(*name.split("/"))
        gc.collect()
        print(name, rows[name], flush=True)
        KEPT.write_text(json.dumps(rows, indent=1))
    PAGE.write_text(page({name: rows[name] for name in every if name in rows}))


if __name__ == "__main__":
    main()
