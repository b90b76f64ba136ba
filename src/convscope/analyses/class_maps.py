"""The maps of a layer that belong to a class: chosen by most of its images and by no other class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from convscope.errors import BadInput
from convscope.results.base import Result
from convscope.results.class_maps import PER_CLASS, PER_IMAGE, ClassMaps
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
    """The maps of a layer that belong to a class: chosen by most of its images and by no other class.

    Each image votes for its `per_image` channels of highest mean activation; a class lists the `per_class` channels with most votes;
    then every channel that another class lists, too, is removed from all lists.

    Ties: between channels of an image, the lower channel; between channels of a class with equal votes, the higher mean activation over
    the class's images, then the lower channel. Channels without a vote are never listed, so a list may be shorter than `per_class`.

    Args:
        survey: The survey; its images need labels.
        layer: Layer name; the article takes the last convolution after its ReLU.
        classes: Labels that maps are for; others (a background) neither get maps nor take any away. None: all labels.
        split: Only images of this split vote, so that others stay unseen; None: all images.
        per_image: Votes of an image (the article's N1).
        per_class: Channels of a class before removal (its N2).

    Returns:
        Votes, and `.maps`, the channels of each class.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: No labels; an unknown label or split, or a label without an image in the split; a survey of summaries with another
            number of votes for each image, or asked about a split.

    Source:
        Shin 2020 (S2, section 1). Deviations: ties are declared; channels without a vote are dropped, where the code fills lists with
        them; a single class keeps its list, where the code has none.

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
        raise BadInput(f"survey {survey.path}: its images have no labels, so there are no classes to find maps of")
    names = survey.chosen_labels(classes)
    if split is not None:
        votes, means, counts = tally(survey.mean(layer), np.where(survey.in_split(split), survey.truth, -1), len(survey.labels), per_image)
        names = _present(names, survey, counts, split, asked=classes is not None)
    elif per_image == survey.manifest["votes_per_image"]:
        votes, means, counts = _counted(survey, layer)
    elif survey.manifest["summary_only"]:
        kept = survey.manifest["votes_per_image"]
        raise BadInput(f"survey {survey.path} holds summaries only, with {kept} votes for each image; got per_image={per_image}")
    else:
        votes, means, counts = tally(survey.mean(layer), survey.truth, len(survey.labels), per_image)
    rows = [survey.labels.index(label) for label in names]
    votes, means, counts = votes[rows], means[rows], counts[rows]
    own, shared = elect(votes, means, per_class)
    return ClassMaps(
        votes=votes,
        frequency=votes / counts[:, None],
        means=means,
        counts=counts,
        layer=layer,
        classes=names,
        labels=survey.unit_labels(layer, range(votes.shape[1])),
        maps=dict(zip(names, own, strict=True)),
        shared=dict(zip(names, shared, strict=True)),
        per_image=per_image,
        per_class=per_class,
    )


def tally(means: np.ndarray, truth: np.ndarray, classes: int, per_image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Votes (label c), mean activations (label c) and numbers of images (label).

    Args:
        means: Mean activation of every channel, (n c).
        truth: The class of every image, -1 for none, (n).
        classes: How many classes.
        per_image: How many channels an image votes for.
    """
    strongest = np.argsort(-means, axis=1, kind="stable")[:, :per_image]
    votes, sums = np.zeros((classes, means.shape[1]), np.int64), np.zeros((classes, means.shape[1]))
    labelled = np.flatnonzero(truth >= 0)
    np.add.at(votes, (truth[labelled, None], strongest[labelled]), 1)
    np.add.at(sums, truth[labelled], means[labelled])
    counts = np.bincount(truth[labelled], minlength=classes)
    return votes, sums / np.maximum(counts, 1)[:, None], counts


def elect(votes: np.ndarray, means: np.ndarray, per_class: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The channels that each class keeps, and those that it loses because another class lists them, too; both most votes first."""
    channels = np.arange(votes.shape[1])
    lists = [
        [int(channel) for channel in np.lexsort((channels, -mean, -vote))[:per_class] if vote[channel]]
        for vote, mean in zip(votes, means, strict=True)
    ]
    listed = np.bincount(np.concatenate([np.array(each, np.int64) for each in lists]), minlength=len(channels))
    own = [tuple(channel for channel in each if listed[channel] == 1) for each in lists]
    shared = [tuple(channel for channel in each if listed[channel] > 1) for each in lists]
    return own, shared


def maps_of(given: ClassMaps | Mapping[str, Sequence[int]] | None, survey: Survey, layer: str) -> dict[str, tuple[int, ...]]:
    """The maps meant: those given, or the survey's own by the article's numbers.

    Raises:
        BadInput: The maps are of another layer, or no maps at all.
        UnitNotFound: The layer has no such channel.
    """
    if given is None:
        given = class_maps(survey, layer)
    if isinstance(given, Result):
        there = str(getattr(given, "layer", ""))
        if given.technique != ClassMaps.technique or there != layer:
            raise BadInput(f"maps: expected class maps of layer {layer}, got {given.technique} of layer {there or 'none'}")
        given = given.maps
    if not isinstance(given, Mapping) or not given:
        raise BadInput(f"maps: expected class maps or {{label: channels}}, got {type(given).__name__}")
    return {str(label): tuple(survey.units(layer, list(channels))) if len(channels) else () for label, channels in given.items()}


def _present(names: tuple[str, ...], survey: Survey, counts: np.ndarray, split: str, *, asked: bool) -> tuple[str, ...]:
    """The labels that have an image in the split.

    Raises:
        BadInput: None has, or one that was asked for has not.
    """
    present = tuple(label for label in names if counts[survey.labels.index(label)])
    missing = [label for label in names if label not in present]
    if not present or (asked and missing):
        raise BadInput(f"survey {survey.path}: no image of split {split!r} has label {missing[0]!r}, so it has no votes")
    return present


def _counted(survey: Survey, layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What :func:`tally` gives, from the survey's own count."""
    table = survey.classes(layer)
    place = {label: index for index, label in enumerate(survey.labels)}
    rows = np.array([place[label] for label in table["label"].to_pylist()], np.int64)
    shape = len(survey.labels), survey.layer(layer).channels
    votes, means, counts = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64)
    at = rows, table["channel"].to_numpy()
    votes[at], means[at], counts[at] = table["votes"].to_numpy(), table["mean"].to_numpy(), table["images"].to_numpy()
    return votes, means, counts[:, 0]
