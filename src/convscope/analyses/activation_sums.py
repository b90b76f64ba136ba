"""How strongly each image excites the maps of each class: a line for every class of images, over the maps of every class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from convscope.analyses.class_maps import ClassMaps, maps_of
from convscope.errors import BadInput
from convscope.results.activation_sums import ActivationSums
from convscope.results.provenance import technique
from convscope.survey.survey import Survey


@technique
def activation_sums(
    survey: Survey,
    layer: str,
    maps: ClassMaps | Mapping[str, Sequence[int]] | None = None,
    *,
    mode: Literal["mean", "sum", "standardized"] = "mean",
    others: Sequence[Survey] = (),
) -> ActivationSums:
    """How strongly each image excites the maps of each class.

    S_c(x) = mean over k in maps[c] of a_k(x), with a_k the mean of map k over positions; or their sum, which grows with the number of
    maps; or the mean of (a_k - mu_k) / sd_k with mu and sd over the images of `survey`, so that no single strong map decides.

    Args:
        survey: The survey.
        layer: Layer name.
        maps: Class maps, or {label: channels}. None: the survey's own, by the article's numbers.
        mode: "mean", "sum" (the article's) or "standardized".
        others: Further surveys by the same network, of another domain, say; they get the same maps, mu and sd.

    Returns:
        A sum for each image and class. `.beside` puts other networks' sums into the same figure.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or channel.
        BadInput: No maps; unknown mode; a survey by another network; summaries only.

    Source:
        Shin 2020 (S2, section 5). Deviation: the mean over maps by default, since lists differ in length once shared maps are removed.

    Example:
        >>> import convscope as cs
        >>> photos, xrays = cs.read_survey("surveys/photos"), cs.read_survey("surveys/xrays")  # doctest: +SKIP
        >>> cs.activation_sums(photos, "features.12", others=[xrays]).figure()  # doctest: +SKIP

    Command line:
        convscope activation-sums survey features.27 --maps out/class-maps/survey-features.27 --others drawings
        convscope activation-sums survey features.27 --maps chains=3,17 --maps dots=40 --mode sum
    """
    chosen = maps_of(maps, survey, layer)
    surveys = (survey, *others)
    for other in others:
        same_weights(other, survey.manifest["network"]["weights_hash"], survey.path)
    means = [each.mean(layer) for each in surveys]
    weights, offset = weights_of(chosen, means[0], mode)
    sums = [each.astype(np.float64) @ weights.T + offset for each in means]
    truths = tuple(sorted({label for each in surveys for label in each.labels}))
    places = [np.array([*(truths.index(label) for label in each.labels), -1], np.int64) for each in surveys]
    return ActivationSums(
        sums=np.concatenate(sums),
        truth=np.concatenate([place[each.truth] for each, place in zip(surveys, places, strict=True)]),
        group=np.repeat(np.arange(len(surveys)), [len(each) for each in means]),
        sizes=np.array([[len(each) for each in chosen.values()]] * len(surveys)),
        layer=(layer,) * len(surveys),
        classes=tuple(chosen),
        truths=truths,
        surveys=survey_names(surveys),
        names=tuple(name for each in surveys for name in each.names),
        mode=mode,
    )


def weights_of(maps: Mapping[str, Sequence[int]], means: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Sums as a linear function of mean activations: weights (label c) and offset (label), NaN for a class without maps.

    A map that never varies over `means` has no standardized value; it counts as 0.
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
    """Checks that a survey is by the network that `other` is by.

    Raises:
        BadInput: It is not: the same channel means another thing.
    """
    own = survey.manifest["network"]["weights_hash"]
    if own != weights:
        raise BadInput(f"survey {survey.path} is by other weights ({own}) than {other} ({weights}), so its channels mean other things")


def survey_names(surveys: Sequence[Survey]) -> tuple[str, ...]:
    """Names to tell surveys apart by: their folders' names, or their paths where those repeat."""
    short = [each.path.rstrip("/").rpartition("/")[2] for each in surveys]
    return tuple(name if short.count(name) == 1 else each.path for name, each in zip(short, surveys, strict=True))
