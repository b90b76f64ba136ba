"""Top patches: the strongest images of each unit, each projected back to pixels from the position of its maximum."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from convscope.analyses.exemplars import FILL, crop_size, exemplars, put_crop
from convscope.errors import BadImage, BadInput
from convscope.progress import task
from convscope.results.exemplars import Exemplars
from convscope.results.provenance import technique
from convscope.results.top_patches import TopPatches
from convscope.scope import Layer, Scope, Units
from convscope.survey.survey import Survey
from convscope.techniques.deconvnet import check_projectable, project_units
from convscope.zoo.recorded import check_recorded

CHANGED = 0.02
"""Share of a unit's largest activation that rounding cannot make up for: the image is another one."""


@technique
def top_patches(
    scope: Scope,
    survey: Survey,
    layer: str,
    units: Units,
    *,
    top: int = 9,
    rule: Literal["deconvnet", "guided", "gradient"] = "deconvnet",
    label: str | None = None,
    middle: float = 1.0,
    evidence: bool = False,
) -> TopPatches:
    """For each unit its strongest images of a data set, as deconvnet projections beside the same crops (Zeiler and Fergus, figure 2).

    Each image is projected on its own: all other units and positions of the layer are zero, and unpooling follows that image's maxima.
    The same as `exemplars` followed by `deconvnet` at the position of each maximum.

    Args:
        scope: The network of the survey.
        survey: The survey.
        layer: Layer name, one of the survey's.
        units: Unit numbers, or class names on "output"; None: all of them.
        top: Number of images per unit.
        rule: What ReLUs pass back: "deconvnet", "guided" or "gradient".
        label: Only images with this label.
        middle: Share of the receptive field's height and width that is shown, around its middle.
        evidence: Whether to show as well where in each crop the projection is.

    Returns:
        Projections and crops with values, positions and boxes.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: Unknown label; `top` larger than the scan's, with a survey without per-image values; a network with other inputs; or a
            nonlinearity that the rule does not cover.
        BadWeights: The survey was made with other weights.
        BadImage: No image can be read.

    Source:
        Zeiler and Fergus 2014 (arXiv 1311.2901), figure 2. Deviation: each projection is scaled by the 99.5 % quantile of its absolute
        values.

    Example:
        >>> import convscope as cs
        >>> scope, survey = cs.open("squeezenet1_0"), cs.read_survey("surveys/photos")  # doctest: +SKIP
        >>> cs.top_patches(scope, survey, "features.12", [3, 17]).projection.shape[:2]  # doctest: +SKIP
        (2, 9)

    Command line:
        convscope top-patches survey features.27 --units 0-3
        convscope top-patches survey features.23 --units 13,47 --rule guided --middle 0.5 --evidence
    """
    check_recorded(scope, survey.manifest["network"], survey.path)
    found = exemplars(survey, layer, units, top=top, label=label, middle=middle, crops=False)
    known = scope.layers[layer]
    check_projectable(known)
    if len(known.spatial) not in (0, 2):
        raise BadInput(f"layer {layer} has values of shape {known.shape}: no maps, so there is no position to project from")
    crops = np.full((*found.images.shape, 3, *crop_size(found.images, found.boxes, 2)), FILL, np.float32)
    projection = np.full_like(crops, np.nan)
    missing, changed = _fill(scope, survey, known, found, rule, crops, projection)
    return TopPatches(
        projection=projection,
        crops=crops,
        evidence=evidence,
        rule=rule,
        missing=missing,
        changed=changed,
        **{name: getattr(found, name) for name in ("values", "images", "positions", "boxes")},
        **{name: getattr(found, name) for name in ("layer", "units", "unit_names", "label", "names", "image_labels", "of", "middle")},
        manifest={"precision": scope.resolve("measure"), "survey": survey.provenance()["survey"]},
    )


def _fill(
    scope: Scope, survey: Survey, layer: Layer, found: Exemplars, rule: str, crops: np.ndarray, projection: np.ndarray
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Puts crops and projections in their places; returns the names of images that cannot be read, and of those that have changed."""
    missing: dict[str, BadImage] = {}
    changed: dict[str, None] = {}
    places = np.argwhere(found.images >= 0)
    places = places[np.argsort(found.images[tuple(places.T)], kind="stable")]  # neighbours share their image
    read: dict[int, Tensor | None] = {}

    def project(part: slice) -> None:
        images = {int(found.images[row, rank]) for row, rank in places[part]}
        for gone in read.keys() - images:
            del read[gone]
        for image in images - read.keys():
            pixels = _read(survey, image, missing)
            read[image] = None if pixels is None else pixels[: scope.inputs.channel_count]  # a grey image has three equal channels
        there = [(row, rank, pixels) for row, rank in places[part] if (pixels := read[int(found.images[row, rank])]) is not None]
        if there:
            rows, ranks = np.array([place[:2] for place in there]).T
            units = torch.from_numpy(np.array(found.units, np.int64)[rows, None])
            positions = torch.from_numpy(found.positions[rows, ranks, None].astype(np.int64))
            back, values, _ = project_units(scope, torch.stack([pixels for *_, pixels in there]), layer, units, rule, positions)
            for (row, rank, pixels), one, value in zip(there, back[:, 0].numpy(), values[:, 0].tolist(), strict=True):
                put_crop(crops[row, rank], pixels.numpy(), found.boxes[row, rank])
                put_crop(projection[row, rank], one, found.boxes[row, rank])
                if abs(value - found.values[row, rank]) > CHANGED * np.nanmax(np.abs(found.values[row])):
                    changed[found.names[row][rank]] = None
        advance(part.stop - part.start)

    at_once = scope.fitting(survey.preprocessing.height * survey.preprocessing.width)
    with task(f"{layer.name}: {len(places)} projections", len(places)) as advance, scope.session():
        for _ in scope.in_parts(len(places), at_once, project):
            pass
    if missing and np.isnan(projection).all():
        raise BadImage(f"none of the {len(missing)} images can be read; the first: {next(iter(missing.values())).message}")
    return tuple(missing), tuple(changed)


def _read(survey: Survey, image: int, missing: dict[str, BadImage]) -> Tensor | None:
    """An image as the survey's network was fed it; None, and an entry in `missing`, if it cannot be read."""
    try:
        return torch.from_numpy(survey.read_image(image))
    except BadImage as error:
        missing[survey.names[survey.row(image)]] = error
        return None
