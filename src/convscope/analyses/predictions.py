"""Predictions of a network on a survey's images: accuracy, confusion matrix, worst mistakes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from convscope.errors import BadImage, BadInput
from convscope.names import OUTPUT, class_number
from convscope.results.predictions import Predictions
from convscope.results.provenance import technique
from convscope.survey.survey import Survey

_NUMBERED = re.compile(r"n\d{8}[ _-]?")
"""WordNet's number of an ImageNet class, which often begins the name of its folder."""


@technique
def predictions(survey: Survey, *, classes: Mapping[str, int | str] | None = None, worst: int = 12, top: int = 5) -> Predictions:
    """Which images a network gets right and which wrong: accuracy, confusion matrix, and the worst mistakes.

    Probabilities are the softmax of the output; an output whose rows are probabilities already is taken as it is. A mistake is the worse
    the more probable its wrong class is.

    Args:
        survey: The survey; accuracy needs labels.
        classes: The class, as name or number, that a label means, {label: class}. Labels left out mean the class of the same name (case,
            ``_``, a plural s, a WordNet number in front, and further names after a comma do not matter), or the class of that number. Where
            the network has no class names and as many outputs as there are labels, labels are classes in alphabetical order, as
            torchvision's ImageFolder numbers them.
        worst: How many of the worst mistakes are shown.
        top: How many of each image's most probable classes are kept.

    Returns:
        Predictions of all images; `.accuracy()`, `.by_class()`, `.confusion()`.

    Raises:
        BadInput: A network with a single output, an unknown label or class, or a survey without per-image values.

    Source:
        Accuracy's interval: Wilson 1927.

    Example:
        >>> import convscope as cs
        >>> found = cs.predictions(cs.read_survey("surveys/photos"))  # doctest: +SKIP
        >>> found.accuracy(), found.names[found.mistakes[0]]  # doctest: +SKIP
        (0.884, 'n02099712_labrador.jpg')

    Command line:
        convscope predictions survey
    """
    if worst < 0 or top < 1:
        raise BadInput(f"predictions: expected worst >= 0 and top >= 1, got {worst} and {top}")
    output = survey.mean(OUTPUT).astype(np.float64)
    if output.shape[1] < 2:
        raise BadInput(f"survey {survey.path}: predictions need a network with at least two outputs, it has {output.shape[1]}")
    probability = _probabilities(output)
    names = tuple(str(name) for name in survey.manifest["inputs"]["classes"] or ())
    meant = classes_of(survey.labels, names, output.shape[1], classes or {})
    label_class = np.array([*(meant.get(label, -1) for label in survey.labels), -1])
    truth = label_class[survey.truth]
    known, rows = truth >= 0, np.arange(len(truth))
    order = np.argsort(-probability, axis=1, kind="stable")
    own = np.where(known, probability[rows, truth], np.nan)
    rank = np.where(known, np.argsort(order, axis=1, kind="stable")[rows, truth], -1)
    wrong = np.flatnonzero(rank > 0)
    mistakes = wrong[np.argsort(-probability[wrong, order[wrong, 0]], kind="stable")][:worst]
    mistakes, images = _read(survey, mistakes)
    return Predictions(
        predicted=order[:, :top],
        probability=np.take_along_axis(probability, order[:, :top], 1),
        truth=truth,
        truth_probability=own,
        truth_rank=rank,
        images=images,
        mistakes=mistakes,
        names=survey.names,
        paths=tuple(survey.images["path"].to_pylist()),
        labels=tuple(survey.labels[index] if index >= 0 else "" for index in survey.truth),
        splits=tuple(split or "" for split in survey.images["split"].to_pylist()),
        meant=meant,
        classes=names,
        network=str(survey.manifest["network"]["name"]),
        weights=str(survey.manifest["network"].get("weights") or "random"),
    )


def classes_of(labels: Sequence[str], names: Sequence[str], count: int, given: Mapping[str, int | str]) -> dict[str, int]:
    """The class that each label means, {label: number}; labels that are no class are left out. See :func:`predictions`.

    Raises:
        BadInput: An unknown label or class in `given`.
    """
    unknown = sorted(set(given) - set(labels))
    if unknown:
        raise BadInput(f"classes: no image has the label {unknown[0]!r}; labels are {', '.join(labels[:5]) or 'none'}")
    found: dict[str, int] = {}
    words: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        for word in {name, *name.split(",")}:
            words.setdefault(_plain(word), []).append(number)
    for label in labels:
        if label in given:
            asked = given[label]
            found[label] = class_number(int(asked) if isinstance(asked, str) and asked.isdigit() else asked, count, names)
        elif label in names:
            found[label] = list(names).index(label)
        elif len(numbers := words.get(_plain(label), ()) or words.get(_plain(label).removesuffix("s"), ())) == 1:
            found[label] = numbers[0]
        elif label.isdigit() and int(label) < count:
            found[label] = int(label)
    if not names and not given and not found and len(labels) == count:
        return {label: number for number, label in enumerate(labels)}
    return found


def _plain(name: str) -> str:
    """A class name or label without what names of folders differ in."""
    return " ".join(_NUMBERED.sub("", name.casefold(), count=1).replace("_", " ").replace("-", " ").split())


def _probabilities(output: np.ndarray) -> np.ndarray:
    """Softmax over classes, (n c); rows that are probabilities stay as they are."""
    if (output >= 0).all() and np.allclose(output.sum(1), 1, atol=1e-4):
        return output
    shifted = np.exp(output - output.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def _read(survey: Survey, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose image can be read, and these images, (mistake rgb h w)."""
    size = survey.preprocessing
    kept: list[int] = []
    images: list[np.ndarray] = []
    for row in rows.tolist():
        try:
            images.append(survey.read_image(int(survey.ids[row])))
        except BadImage:
            continue
        kept.append(row)
    return np.array(kept, np.int64), np.stack(images) if images else np.zeros((0, 3, size.height, size.width), np.float32)
