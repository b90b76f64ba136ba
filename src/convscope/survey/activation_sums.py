"""How strongly each image excites the maps of each class: a line for every class of images, over the maps of every class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from convscope.errors import BadInput
from convscope.result import Result, axes
from convscope.survey.class_maps import ClassMaps, maps_of
from convscope.survey.provenance import reader
from convscope.survey.survey import Survey

MODES = ("mean", "sum", "standardized")


@dataclass(frozen=True, eq=False)
class ActivationSums(Result):
    """Sums of every image of one or several surveys.

    Attributes:
        sums: Each image's sum over the maps of each class, (n label); NaN for a class without maps.
        truth: The images' own labels as places in `truths`, -1 for none, (n).
        group: The survey of each image as a place in `surveys`, (n).
        sizes: How many maps each class has in each survey, (survey label).
        layer: The layers' names, one for each survey.
        classes: The classes whose maps were summed.
        truths: The labels found.
        surveys: The surveys' names.
        names: The images' names.
        mode: "mean", "sum" or "standardized".
    """

    sums: np.ndarray = axes("n label", "values", unit="activation")
    truth: np.ndarray = axes("n")
    group: np.ndarray = axes("n")
    sizes: np.ndarray = axes("survey label")
    layer: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    truths: tuple[str, ...] = ()
    surveys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    mode: str = "mean"

    def beside(self, *others: ActivationSums) -> Self:
        """These sums and those of other networks or data sets in one result, to be shown side by side.

        Raises:
            BadInput: Other classes, or another mode.
        """
        every = (self, *others)
        for other in others:
            if set(other.classes) != set(self.classes) or other.mode != self.mode:
                mine, theirs = (f"{each.mode} over maps of {', '.join(each.classes)}" for each in (self, other))
                raise BadInput(f"sums can stand side by side if classes and mode are the same, got {mine} and {theirs}")
        truths = tuple(sorted({label for each in every for label in each.truths}))
        order = [[each.classes.index(label) for label in self.classes] for each in every]
        starts = np.cumsum([0, *(len(each.surveys) for each in every)])
        places = [np.array([*(truths.index(label) for label in each.truths), -1], np.int64) for each in every]
        return dataclasses.replace(
            self,
            sums=np.concatenate([each.sums[:, columns] for each, columns in zip(every, order, strict=True)]),
            truth=np.concatenate([place[each.truth] for each, place in zip(every, places, strict=True)]),
            group=np.concatenate([each.group + start for each, start in zip(every, starts, strict=False)]),
            sizes=np.concatenate([each.sizes[:, columns] for each, columns in zip(every, order, strict=True)]),
            layer=tuple(layer for each in every for layer in each.layer),
            truths=truths,
            surveys=tuple(name for each in every for name in each.surveys),
            names=tuple(name for each in every for name in each.names),
        )

    def summary(self) -> str:
        """For each class's maps, the median over the images of each label."""
        lines: list[str] = []
        for place, survey in enumerate(self.surveys):
            for column, label in enumerate(self.classes):
                own = self.group == place
                medians = [
                    f"{truth} {np.median(self.sums[own & (self.truth == index), column]):.3g}"
                    for index, truth in enumerate(self.truths)
                    if (own & (self.truth == index)).any()
                ]
                maps = f"{self.sizes[place, column]} maps of {label}"
                lines.append(f"{survey}, {maps}: median {self.mode} of images of {', '.join(medians)}")
        return "\n".join(lines)


@reader
def activation_sums(
    survey: Survey,
    layer: str,
    maps: ClassMaps | Mapping[str, Sequence[int]] | None = None,
    *,
    mode: str = "mean",
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
    """
    if mode not in MODES:
        raise BadInput(f"mode must be {', '.join(MODES[:-1])} or {MODES[-1]}, got {mode!r}")
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
