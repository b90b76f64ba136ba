"""Grad-CAM: where the units of a layer that raise a class score are active."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.results.grad_cam import GradCam
from convscope.results.provenance import technique
from convscope.scope import OUTPUT, Images, Scope
from convscope.techniques.occlusion import occlusion as hide


@technique
def grad_cam(
    scope: Scope,
    images: Images,
    target: int | str | None = None,
    *,
    layer: str | None = None,
    relu: bool = True,
    occlusion: bool = False,
) -> GradCam:
    """Grad-CAM: a heat map of the regions that raise a class's logit, from one forward and one backward.

    map(y, x) = relu(sum over units k of w_k A_k(y, x)), where w_k is the mean over positions of the derivative of the logit with respect
    to the unit's map A_k.

    Args:
        scope: The network.
        images: One or several images of one size, or a folder.
        target: Class index or name; None for the class predicted for each image.
        layer: A layer with maps; None for the last one after its ReLU that is not a map for each class.
        relu: Whether negative values are cut off, as in the paper; without it the map is signed.
        occlusion: Whether occlusion sensitivity is computed as well and shown beside it, with their rank agreement.

    Returns:
        The maps at the layer's size, and what they say of which class.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or class.
        BadInput: A layer without maps, or one that the output does not depend on differentiably.

    Source:
        Selvaraju et al. 2017 (arXiv 1610.02391). Equal to Captum's ``LayerGradCam`` with its ReLU.

    Example:
        >>> import convscope as cs, torch
        >>> cs.grad_cam(cs.open("textures"), torch.rand(1, 3, 128, 128)).map.shape
        (1, 8, 8)

    Command line:
        convscope grad-cam textures data/images/heart/0000.png
        convscope grad-cam textures data/images/heart --target heart --layer features.20 --occlusion
    """
    name = layer or scope.layers.last_maps()
    known = scope.layers[name]
    if len(known.spatial) != 2:
        near = ", ".join(scope.layers.after_relu()[-3:]) or "none"
        raise BadInput(f"layer {name} has no maps: its value is {'x'.join(map(str, known.shape))}; layers with maps: {near}")
    reader = scope.inputs.reader(images)
    batch = reader.batch()
    asked = None if target is None else scope.class_index(target)

    def logit(logits: Tensor) -> Tensor:
        return logits.gather(1, logits.argmax(1, keepdim=True))[:, 0] if asked is None else logits[:, asked]

    parts = list(scope.in_batches(batch, lambda part: scope.layer_gradient(part, name, logit)))
    maps, slopes, logits = (torch.cat(each) for each in zip(*parts, strict=True))
    maps, slopes = known.channels_first(maps), known.channels_first(slopes)
    found = (slopes.mean((2, 3), keepdim=True) * maps).sum(1)
    targets = logits.argmax(1) if asked is None else torch.full_like(logits[:, 0], asked, dtype=torch.int64)
    probability = torch.softmax(logits.double(), 1).gather(1, targets[:, None])[:, 0]
    hidden = hide(scope, batch, target) if occlusion else None
    return GradCam(
        place=scope.layers.place(known, (maps.shape[2], maps.shape[3]), (batch.shape[2], batch.shape[3])),
        map=found.clamp(min=0) if relu else found,
        images=batch,
        probability=probability,
        drop=np.zeros((0, 0, 0), np.float32) if hidden is None else hidden.drop,
        targets=tuple(targets.tolist()),
        names=reader.names,
        skipped=reader.skipped,
        cut=reader.cut,
        target_names=tuple(scope.unit_names(OUTPUT, targets.tolist())),
        layer=name,
        relu=relu,
        manifest={"precision": scope.resolve("measure")},
    )
