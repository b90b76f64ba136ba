"""Class maps: the units of a layer that are strong on most images of a class, and on those of no other class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convscope.errors import BadInput
from convscope.results.class_maps import PER_CLASS, PER_IMAGE, ClassMaps, maps_by_class
from convscope.results.provenance import technique
from convscope.survey.survey import Survey


@technique
def class_maps(
    survey: Survey,
    layer: str,
    *,
    classes: Sequence[str] | None = None,
    split: str | None = None,
    per_image: int = PER_IMAGE,
    per_class: int = PER_CLASS,
) -> ClassMaps:
    """The units of a layer that belong to each class: those that most of its images vote for, and no other class lists.

    Each image votes for its `per_image` units of highest mean activation. A class lists the `per_class` units with the most votes.
    Units that several classes list are then removed from all lists.

    Ties: of an image's units, the lower number; of a class's units with equal votes, the higher mean activation over the class's images,
    then the lower number. Units without a vote are never listed, so a list may be shorter than `per_class`.

    Args:
        survey: The survey; its images need labels.
        layer: Layer name; the article takes the last convolution after its ReLU.
        classes: The labels that get maps; other labels (a background) are ignored. None: all labels.
        split: Only images of this split vote; None: all images.
        per_image: Votes per image (the article's N1).
        per_class: Units a class lists before shared ones are removed (its N2).

    Returns:
        Votes, and `.maps`, the units of each class.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: No labels; an unknown label or split; a label without an image in the split; or a survey without per-image values, if
            `per_image` is not the scan's number or a split is given.

    Source:
        Shin 2020 (S2, section 1). Deviations: a rule for ties; units without a vote are dropped (the article's code fills lists with
        them); a single class keeps its list (the code returns none).

    Example:
        >>> import convscope as cs
        >>> survey = cs.read_survey("surveys/ants-bees")  # doctest: +SKIP
        >>> cs.class_maps(survey, "features.12").maps["ants"]  # doctest: +SKIP
        (213, 41, 500)

    Command line:
        convscope class-maps survey features.27 --classes chains,dots
        convscope class-maps survey features.27 --per-image 5 --per-class 8
    """
    if min(per_image, per_class) < 1:
        raise BadInput(f"per_image and per_class must be at least 1, got {per_image} and {per_class}")
    if not survey.labels:
        raise BadInput(f"survey {survey.path}: its images have no labels, so there are no classes for class maps")
    names = survey.chosen_labels(classes)
    if split is not None:
        votes, means, counts = count_votes(
            survey.mean(layer), np.where(survey.in_split(split), survey.truth, -1), len(survey.labels), per_image
        )
        names = _present(names, survey, counts, split, asked=classes is not None)
    elif per_image == survey.manifest["votes_per_image"]:
        votes, means, counts = _counted(survey, layer)
    elif survey.manifest["summary_only"]:
        kept = survey.manifest["votes_per_image"]
        raise BadInput(f"survey {survey.path} holds summaries only, with {kept} votes for each image; got per_image={per_image}")
    else:
        votes, means, counts = count_votes(survey.mean(layer), survey.truth, len(survey.labels), per_image)
    rows = [survey.labels.index(label) for label in names]
    votes, means, counts = votes[rows], means[rows], counts[rows]
    own, shared = choose_units(votes, means, per_class)
    return ClassMaps(
        votes=votes,
        frequency=votes / counts[:, None],
        means=means,
        counts=counts,
        layer=layer,
        classes=names,
        unit_names=survey.unit_names(layer, range(votes.shape[1])),
        maps=dict(zip(names, own, strict=True)),
        shared=dict(zip(names, shared, strict=True)),
        per_image=per_image,
        per_class=per_class,
    )


def count_votes(means: np.ndarray, truth: np.ndarray, count: int, per_image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts votes. Returns votes (label c), mean activations (label c) and numbers of images (label).

    Args:
        means: Mean activation of every unit, (n c).
        truth: The label's index of every image, -1 for none, (n).
        count: Number of labels.
        per_image: Votes per image.
    """
    strongest = np.argsort(-means, axis=1, kind="stable")[:, :per_image]
    votes, sums = np.zeros((count, means.shape[1]), np.int64), np.zeros((count, means.shape[1]))
    labelled = np.flatnonzero(truth >= 0)
    np.add.at(votes, (truth[labelled, None], strongest[labelled]), 1)
    np.add.at(sums, truth[labelled], means[labelled])
    counts = np.bincount(truth[labelled], minlength=count)
    return votes, sums / np.maximum(counts, 1)[:, None], counts


def choose_units(votes: np.ndarray, means: np.ndarray, per_class: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The units of each class, and the units it shares with another class, which are removed; both by descending votes."""
    channels = np.arange(votes.shape[1])
    lists = [
        [int(channel) for channel in np.lexsort((channels, -mean, -vote))[:per_class] if vote[channel]]
        for vote, mean in zip(votes, means, strict=True)
    ]
    listed = np.bincount(np.concatenate([np.array(each, np.int64) for each in lists]), minlength=len(channels))
    own = [tuple(channel for channel in each if listed[channel] == 1) for each in lists]
    shared = [tuple(channel for channel in each if listed[channel] > 1) for each in lists]
    return own, shared


def maps_of(given: object, survey: Survey, layer: str) -> dict[str, tuple[int, ...]]:
    """{label: units} of given class maps, or of the survey's own with the article's numbers.

    Raises:
        BadInput: The maps are of another layer, or something else.
        UnitNotFound: The layer has no such unit.
    """
    maps = maps_by_class(class_maps(survey, layer) if given is None else given, layer)
    return {label: tuple(survey.units(layer, list(units))) if units else () for label, units in maps.items()}


def _present(names: tuple[str, ...], survey: Survey, counts: np.ndarray, split: str, *, asked: bool) -> tuple[str, ...]:
    """The labels that have an image in the split.

    Raises:
        BadInput: No label has one, or a label that was asked for has none.
    """
    present = tuple(label for label in names if counts[survey.labels.index(label)])
    missing = [label for label in names if label not in present]
    if not present or (asked and missing):
        raise BadInput(f"survey {survey.path}: no image of split {split!r} has label {missing[0]!r}, so it has no votes")
    return present


def _counted(survey: Survey, layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What :func:`count_votes` returns, from the votes that the scan counted."""
    table = survey.classes(layer)
    place = {label: index for index, label in enumerate(survey.labels)}
    rows = np.array([place[label] for label in table["label"].to_pylist()], np.int64)
    shape = len(survey.labels), survey.layer(layer).channels
    votes, means, counts = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64)
    at = rows, table["channel"].to_numpy()
    votes[at], means[at], counts[at] = table["votes"].to_numpy(), table["mean"].to_numpy(), table["images"].to_numpy()
    return votes, means, counts[:, 0]
