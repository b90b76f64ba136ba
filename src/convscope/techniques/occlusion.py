"""Occlusion sensitivity: the score with one part of the image hidden after another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.fast.memory import reusing_memory
from convscope.incremental.sweep import Sweep
from convscope.names import is_whole
from convscope.ops.patches import patches, per_pixel
from convscope.progress import hand_on, task
from convscope.results.occlusion import Occlusion
from convscope.results.provenance import technique
from convscope.scope import OUTPUT, Images, Scope
from convscope.seeding import derive_seed
from convscope.techniques.fills import Fill, fill_image


@technique
def occlusion(
    scope: Scope,
    images: Images,
    target: int | str | None = None,
    *,
    layer: str = OUTPUT,
    score: Literal["probability", "logit", "log-odds", "mean"] | None = None,
    patch: int | tuple[int, int] = 16,
    stride: int | tuple[int, int] = 8,
    fill: Fill = "gray",
    grid: Literal["cover", "valid", "article"] = "cover",
    method: Literal["incremental", "full"] = "incremental",
    verify: int = 2,
    seed: int = 0,
) -> Occlusion:
    """Occlusion sensitivity of a score to the regions of images.

    map(y, x) = score of the image with a patch at (y, x). Incremental inference recomputes only what the patch reaches, layer by layer;
    it is exact, and full inference takes its place where it would save nothing or the network cannot be run in parts.

    Args:
        scope: The network.
        images: One or several images of one size, or a folder.
        target: Class index or name, or the unit of `layer`; None for the class predicted for each image.
        layer: Where the score is read: "output", or any layer with maps.
        score: On the output "probability" (softmax), "logit" or "log-odds", log p/(1-p); "mean" of the unit over its map; None for
            probability on the output and mean elsewhere.
        patch: Side of the patch in pixels, or (height, width).
        stride: Pixels between positions, or (down, across).
        fill: What the patch shows: "gray" (0.5), "median" (the image's own median colour, most often that of its background), "mean" (the
            mean colour that the network was trained with), "black", "white", "blur" (the image itself, blurred), a grey value, a colour
            (r, g, b) in [0,1] or "#rrggbb", an image (path, array, tensor), or "article" (0.5 after normalization, not grey).
        grid: "cover": the last patch is cut at the border, so that every pixel is hidden at least once if stride <= patch; "valid": only
            whole patches; "article": only whole patches that do not touch the far border.
        method: "incremental" or "full".
        verify: Number of positions of each image, drawn with `seed`, that are computed by full inference as well; a difference beyond
            rounding leads to full inference for all.
        seed: Seed of the positions to verify.

    Returns:
        The score and the most probable class at each position, the score of the whole image, and the drop for each pixel.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer, unit or class.
        BadInput: A patch, stride, fill or score that makes no sense here.

    Source:
        Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.2, figure 7. The article's (S1) own figures: ``grid="article"``,
        ``fill="article"`` and :meth:`Occlusion.article_map`, since its map is transposed. Incremental: Nakandala et al. 2019 (Krypton,
        SIGMOD), exact mode with tight windows.

    Example:
        >>> import convscope as cs, torch
        >>> cs.occlusion(cs.open("textures"), torch.rand(1, 3, 128, 128), stride=16).map.shape
        (1, 8, 8)

    Command line:
        convscope occlusion textures data/images/heart/0000.png
        convscope occlusion textures data/images/heart --target heart --patch 32x48 --stride 16 --fill median
        convscope occlusion textures data/images/heart/0000.png --layer features.20 --target 40 --stride 16
    """
    reader = scope.inputs.reader(images)
    batch = reader.batch()
    watched = _watch(scope, layer, score)
    sides, steps = _pair("patch", patch), _pair("stride", stride)
    size = (batch.shape[-2], batch.shape[-1])
    _check(verify, sides, size)
    boxes = patches(size, sides, steps, grid)
    names = reader.names
    asked = None if target is None else scope.units(layer, int(target) if isinstance(target, str) and target.isdigit() else target)[0]
    parts: list[_Hidden] = []
    with task("occlusion", len(batch) * (boxes.size // 4)) as advance, reusing_memory(scope.fast), torch.no_grad():
        for name, image in zip(names, batch, strict=True):
            source = fill_image(fill, image, scope.inputs, sides)
            generator, count = np.random.default_rng(derive_seed(seed, "occlusion", name)), boxes.size // 4
            checks = generator.choice(count, min(verify, count), replace=False)
            parts.append(_hide(scope, image[None], source[None], boxes.reshape(-1, 4), watched, asked, method, checks, advance))
    shape = boxes.shape[:2]
    scores = np.stack([part.scores.reshape(shape) for part in parts])
    base = np.array([part.base for part in parts])
    found = np.stack([part.label.reshape(shape) for part in parts])
    targets = tuple(part.target for part in parts)
    named = (
        dict(zip(map(int, np.unique(found)), scope.unit_names(OUTPUT, np.unique(found).tolist()), strict=True)) if watched.classes else {}
    )
    differences = [part.difference for part in parts if part.checked]
    return Occlusion(
        map=scores,
        base=base,
        drop=per_pixel(base[:, None, None] - scores, boxes, size),
        label=found,
        boxes=boxes,
        images=batch,
        targets=targets,
        names=names,
        skipped=reader.skipped,
        cut=reader.cut,
        target_names=scope.unit_names(layer, targets),
        classes={str(number): name for number, name in named.items()},
        layer=layer,
        score=watched.score,
        method="incremental" if all(part.method == "incremental" for part in parts) else "full",
        checked=sum(part.checked for part in parts),
        largest_difference=max(differences, default=math.nan),
        manifest={"precision": scope.resolve("measure"), "images": list(names)},
    )


@dataclass(frozen=True)
class _Watched:
    """The score that is read from the network.

    Attributes:
        layer, score: As in :func:`occlusion`.
        classes: Whether the layer's values are class scores, (n classes).
        read: (n ...) values and a unit -> (n) scores.
    """

    layer: str
    score: str
    classes: bool
    read: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class _Hidden:
    """The scores and labels of one image, (position), with how they were computed."""

    scores: np.ndarray
    label: np.ndarray
    base: float
    target: int
    method: str
    checked: int
    difference: float


def _watch(scope: Scope, layer: str, score: str | None) -> _Watched:
    known = scope.layers[layer]
    classes = layer == OUTPUT and not known.spatial
    score = score or ("probability" if classes else "mean")
    if score != "mean" and not classes:
        raise BadInput(f"score {score!r} is about classes, but layer {layer} has values of shape {known.shape}; use score='mean'")

    def read(values: Tensor, unit: int) -> Tensor:
        own = known.channels_first(values)[:, unit].double()
        if score in ("mean", "logit"):
            return own.flatten(1).mean(1) if own.ndim > 1 else own
        others = values.double().clone()
        if score == "log-odds":
            others[:, unit] = -math.inf
        log = own - others.logsumexp(1)
        return log.exp() if score == "probability" else log

    return _Watched(layer, score, classes, read)


def _hide(
    scope: Scope,
    image: Tensor,
    source: Tensor,
    boxes: np.ndarray,
    watched: _Watched,
    target: int | None,
    method: str,
    checks: np.ndarray,
    advance: Callable[[int], None],
) -> _Hidden:
    """The scores of one image (1 3 h w) with each box replaced by the same box of `source`; `checks` are the boxes to verify."""
    with scope.session(scope.resolve("measure")):
        if target is None and not watched.classes:
            raise BadInput(f"layer {watched.layer} has no predicted class: say which unit is the target")
        unit = int(scope.run(image, watched.layer)[watched.layer].argmax(1)) if target is None else target
        sweep = Sweep(scope, image, source, boxes, watched.layer, incremental=method == "incremental")
        difference = sweep.verify(checks, lambda values: watched.read(values, unit))
        scores, label = np.empty(len(boxes)), np.full(len(boxes), -1)
        for part, values in sweep.values():
            scores[part] = watched.read(values, unit).cpu().numpy()
            if watched.classes:
                label[part] = values.argmax(1).cpu().numpy()
            hand_on("occlusion", lambda part=part: {"boxes": boxes[part], "scores": scores[part]})
            advance(len(part))
        base = float(watched.read(sweep.base(), unit)[0])
    return _Hidden(scores, label, base, unit, sweep.method, len(checks) if not math.isnan(difference) else 0, difference)


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(is_whole(item) and item >= 1 for item in pair):
        raise BadInput(f"{name} must be a whole number of pixels, at least 1, or two of them (down, across), got {value!r}")
    return int(pair[0]), int(pair[1])


def _check(verify: int, patch: tuple[int, int], size: tuple[int, int]) -> None:
    if verify < 0:
        raise BadInput(f"verify must be at least 0, got {verify}")
    if patch[0] > size[0] or patch[1] > size[1]:
        raise BadInput(f"a patch of {patch[0]}x{patch[1]} pixels is larger than the image, {size[0]}x{size[1]}")
