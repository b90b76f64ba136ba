"""Style similarity of images, measured by statistics of their feature maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from convscope.errors import BadInput
from convscope.ops.map_statistics import DESCRIPTORS, normalized_distances
from convscope.progress import task
from convscope.results.provenance import technique
from convscope.results.style_similarity import STATISTICS, StyleSimilarity
from convscope.scope import Images, Scope
from convscope.scope.inputs import Image
from convscope.techniques.style_layers import find_style_layers

_TILE = 96


@technique
def style_similarity(
    scope: Scope,
    images: Images,
    *,
    layers: str | Sequence[str] | None = None,
    groups: str | Sequence[str] | None = None,
    size: int = 256,
) -> StyleSimilarity:
    """How alike the styles of images are.

    Similarity = 1 - the mean over layers of ||d_a - d_b|| / (||d_a|| + ||d_b||).

    d is a statistic of the layer's maps: their means S/M ("sums"), their Gram matrix G/M ("gram"), or their means and standard deviations
    ("mean-std").

    Args:
        scope: The network.
        images: Two or more images, of any sizes.
        layers: One or several names. Default: five by depth, VGG's relu1_1 to relu5_1 and what corresponds to them elsewhere.
        groups: Which images share a style: a name for each image, or "folder" for the folders that files are in.
        size: Longer side of the images in pixels; tensors keep their size.

    Returns:
        Similarities for each pair, and, with groups, the ROC-AUC of same-group pairs against the others.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: Fewer than two images; groups that do not fit, or leave no pair of one or of the other kind.

    Source:
        Xia et al. 2016 (arXiv 1608.04170) claim that the distribution of the maps' energies tells whether two images share a style; Gatys
        et al. 2016; Li et al. 2017 (1701.01036). Every layer counts alike.

    Example:
        >>> import convscope as cs, torch
        >>> cs.style_similarity(cs.open("textures"), torch.rand(3, 3, 64, 64)).similarity.shape
        (3, 3, 3)

    Command line:
        convscope style-similarity textures data/images/chains
        convscope style-similarity textures data/images/chains data/images/dots --groups folder --size 96
    """
    reader = scope.inputs.reader(images, size)
    if len(reader) < 2:
        raise BadInput("style similarity needs at least two images")
    chosen = find_style_layers(scope.layers, layers)
    named = _groups(groups, reader.images)
    seen: list[list[list[Tensor]]] = []
    tiles: list[Tensor] = []
    with task(f"styles of {len(reader)} images", len(reader)) as advance, scope.session("float32"), torch.no_grad():
        for picture in reader:
            values = scope.run(picture[None], chosen, channels_first=True, resize=True)
            seen.append([[measure(values[layer])[0].cpu() for layer in chosen] for measure in DESCRIPTORS.values()])
            tiles.append(torch.nn.functional.interpolate(picture[None].cpu(), (_TILE, _TILE), mode="bilinear", antialias=True)[0])
            advance()
    if len(seen) < 2:
        raise BadInput(f"style similarity needs at least two images that can be read, got {len(seen)} of {len(reader)}")
    named = reader.of_read(named) if named else ()
    distance = torch.stack(
        [
            torch.stack([normalized_distances(torch.stack([one[row][column] for one in seen])) for column in range(len(chosen))])
            for row in range(len(STATISTICS))
        ]
    )
    whole = distance.mean(1)
    return StyleSimilarity(
        similarity=1 - whole,
        layer_distance=distance,
        auc=np.array([_auc(each, named) for each in whole]),
        layer_auc=np.array([[_auc(each, named) for each in row] for row in distance]),
        images=torch.stack(tiles).clamp(0, 1),
        layers=chosen,
        names=reader.names,
        skipped=reader.skipped,
        groups=named,
        manifest={"precision": scope.resolve("measure"), "images": list(reader.names)},
    )


def _groups(asked: str | Sequence[str] | None, sources: Sequence[Image]) -> tuple[str, ...]:
    """A group for each image; () where none are given."""
    if asked is None:
        return ()
    given = [asked] if isinstance(asked, str) else [str(name) for name in asked]
    if given == ["folder"]:
        given = [Path(source).resolve().parent.name for source in sources if isinstance(source, (str, os.PathLike))]
        if len(given) != len(sources):
            raise BadInput("groups='folder' needs image files, so that each has a folder")
    if len(given) != len(sources):
        raise BadInput(f"groups: {len(given)} names for {len(sources)} images")
    if not len(set(given)) < len(given) or len(set(given)) < 2:
        raise BadInput(f"groups: there must be pairs of one group and pairs of different ones, got {', '.join(sorted(set(given)))}")
    return tuple(given)


def _auc(distance: Tensor, groups: Sequence[str]) -> float:
    """How well small distances tell pairs of one group from pairs of different groups."""
    if not groups:
        return float("nan")
    first, second = np.triu_indices(len(groups), 1)
    same = [groups[a] == groups[b] for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    if all(same) or not any(same):  # images were skipped
        return float("nan")
    return float(roc_auc_score(same, -distance.numpy()[first, second]))
