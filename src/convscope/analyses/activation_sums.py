"""Activation sums: how strongly each image activates the class maps of each class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from convscope.analyses.class_maps import ClassMaps, maps_of
from convscope.errors import BadInput
from convscope.names import OUTPUT
from convscope.results.activation_sums import ActivationSums
from convscope.results.class_maps import of_classes
from convscope.results.provenance import technique
from convscope.survey.survey import Survey


@technique
def activation_sums(
    survey: Survey,
    layer: str | None = None,
    maps: ClassMaps | Mapping[str, Sequence[int]] | None = None,
    *,
    classes: Sequence[str] | None = None,
    mode: Literal["mean", "sum", "standardized"] = "mean",
    others: Sequence[Survey] = (),
    beside: Sequence[Survey] = (),
) -> ActivationSums:
    """How strongly each image activates the class maps of each class.

    S_c(x) = mean over units k in maps[c] of a_k(x), where a_k is the mean of unit k's map over positions. Or their sum, which grows
    with the number of units. Or the mean of (a_k - mu_k) / sd_k with mu and sd over the images of `survey`, so that no single strong
    unit dominates.

    Args:
        survey: The survey.
        layer: Layer name; None: the last one scanned that has maps.
        maps: Class maps, or {label: units}. None: those of this survey, with the article's numbers.
        classes: The classes whose maps are summed; None: all.
        mode: "mean", "sum" (the article's) or "standardized".
        others: Further surveys by the same network (of another domain, say); maps, mu and sd are those of `survey`.
        beside: Surveys by other networks, in the same figure: each with its own maps, on its layer of that name or else its last.

    Returns:
        A sum for each image and class. `.beside` adds sums over given maps of other networks to the same figure.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: No maps, a survey by another network, or a survey without per-image values.

    Source:
        Shin 2020 (S2, section 5). Deviation: the mean over units by default, because classes have different numbers of units.

    Example:
        >>> import convscope as cs
        >>> photos, xrays = cs.read_survey("surveys/photos"), cs.read_survey("surveys/xrays")  # doctest: +SKIP
        >>> cs.activation_sums(photos, "features.12", others=[xrays]).figure()  # doctest: +SKIP

    Command line:
        convscope activation-sums survey features.27 --maps out/class-maps/survey-features.27 --others drawings
        convscope activation-sums survey features.27 --maps chains=3,17 --maps dots=40 --mode sum
        convscope activation-sums survey drawings --class chains
    """
    layer = _last_layer(survey) if layer is None else layer
    chosen = of_classes(maps_of(maps, survey, layer), classes)
    surveys = (survey, *others)
    for other in others:
        same_weights(other, survey.manifest["network"]["weights_hash"], survey.path)
    means = [each.mean(layer) for each in surveys]
    weights, offset = weights_of(chosen, means[0], mode)
    sums = [each.astype(np.float64) @ weights.T + offset for each in means]
    labels = tuple(sorted({label for each in surveys for label in each.labels}))
    places = [np.array([*(labels.index(label) for label in each.labels), -1], np.int64) for each in surveys]
    found = ActivationSums(
        sums=np.concatenate(sums),
        truth=np.concatenate([place[each.truth] for each, place in zip(surveys, places, strict=True)]),
        group=np.repeat(np.arange(len(surveys)), [len(each) for each in means]),
        sizes=np.array([[len(each) for each in chosen.values()]] * len(surveys)),
        layers=(layer,) * len(surveys),
        classes=tuple(chosen),
        labels=labels,
        surveys=survey_names(surveys),
        networks=tuple(str(each.manifest["network"]["name"]) for each in surveys),
        names=tuple(name for each in surveys for name in each.names),
        mode=mode,
    )
    more = [activation_sums(each, layer if layer in each.layers else None, classes=tuple(chosen), mode=mode) for each in beside]
    if not more:
        return found
    return dataclasses.replace(found.beside(*more), surveys=survey_names((*surveys, *beside)))


def _last_layer(survey: Survey) -> str:
    """The last layer scanned that has maps.

    Raises:
        BadInput: None has.
    """
    mapped = [layer.name for layer in survey.layers.values() if layer.height * layer.width > 1 and layer.name != OUTPUT]
    if not mapped:
        raise BadInput(f"survey {survey.path}: none of its layers has maps: {', '.join(survey.layers)}")
    return mapped[-1]


def weights_of(maps: Mapping[str, Sequence[int]], means: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Activation sums as a linear function of mean activations: weights (label c) and offset (label), NaN for a class without units.

    The standardized value of a unit that is constant over `means` is 0.
    """
    weights, offset = np.zeros((len(maps), means.shape[1])), np.zeros(len(maps))
    centre, spread = means.mean(0, dtype=np.float64), means.std(0, dtype=np.float64)
    for row, channels in enumerate(maps.values()):
        if not len(channels):
            weights[row], offset[row] = np.nan, np.nan
            continue
        own = np.array(channels)
        share = 1.0 if mode == "sum" else 1 / len(own)
        if mode == "standardized":
            scaled = np.divide(share, spread[own], out=np.zeros(len(own)), where=spread[own] > 0)
            weights[row, own], offset[row] = scaled, -(scaled * centre[own]).sum()
        else:
            weights[row, own] = share
    return weights, offset


def same_weights(survey: Survey, weights: str, other: str) -> None:
    """Checks that a survey is by the network with these weights.

    Args:
        survey: The survey.
        weights: The other's weights hash.
        other: The other's name in error messages.

    Raises:
        BadInput: It is by another network.
    """
    own = survey.manifest["network"]["weights_hash"]
    if own != weights:
        raise BadInput(f"survey {survey.path} is by other weights ({own}) than {other} ({weights}), so its units are not the same")


def survey_names(surveys: Sequence[Survey]) -> tuple[str, ...]:
    """A distinct name for each survey: its folder's name, or its path if several have the same."""
    short = [each.path.rstrip("/").rpartition("/")[2] for each in surveys]
    return tuple(name if short.count(name) == 1 else each.path for name, each in zip(short, surveys, strict=True))
