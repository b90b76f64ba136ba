"""Compares two networks on the same images: units matched one to one by correlation, CKA, dead units, class maps, accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from convscope.analyses.class_maps import class_maps
from convscope.analyses.exemplars import exemplars
from convscope.analyses.predictions import classes_of, predictions
from convscope.errors import BadInput
from convscope.names import OUTPUT
from convscope.results.compare import Compare, Shown, same_units
from convscope.results.provenance import technique
from convscope.seeding import derive_seed
from convscope.survey.survey import Survey

_SAME_SHAPE = 0.03
"""Images of one name whose proportions differ by a larger share are different images; a resized copy is the same."""
FEWEST = 4
"""Images that the unbiased estimate of CKA needs."""


@technique
def compare(
    survey: Survey,
    other: Survey,
    *,
    layers: str | Sequence[str] | None = None,
    classes: Mapping[str, int | str] | None = None,
    threshold: float = 0.7,
    examples: int = 4,
    fail_above: float | None = None,
    seed: int = 0,
) -> Compare:
    """What changed between two networks: two checkpoints, two seeds, fine-tuned against base.

    Both surveys must be of the same images. Units of a layer are matched one to one so that the sum of the correlations of their mean
    activations over the images is largest; a unit whose match correlates above `threshold` has a counterpart.

    Args:
        survey: The first network's survey ("before").
        other: The second network's ("after").
        layers: Layer names; None: all layers that both surveys have, with as many units in both where there are such.
        classes: The class, as name or number, that a label means in a network that has no class of the label's name, {label: class}.
        threshold: Correlation above which two units are counterparts.
        examples: How many of the most changed units are shown with their exemplars, in the layer that changed most.
        fail_above: Share of active units without a counterpart, in any layer, above which `.passed` is False and the command ends with
            exit code 1: a gate for continuous integration. None: it always passes.
        seed: Seed of the shuffled images that say what correlation chance gives.

    Returns:
        Matches with their correlations, and for each layer CKA, share of counterparts and dead units; `.table()`.

    Raises:
        LayerNotFound: A layer that one survey does not have.
        BadInput: No common layer, or fewer than four common images.

    Source:
        Matching: Li et al. 2016 (arXiv 1511.07543), by the Hungarian method. Linear CKA: Kornblith et al. 2019 (arXiv 1905.00414) with
        the unbiased estimate of Song et al. 2012, on mean activations per image.

    Example:
        >>> import convscope as cs
        >>> before, after = cs.read_survey("surveys/base"), cs.read_survey("surveys/tuned")  # doctest: +SKIP
        >>> cs.compare(before, after).figure()  # doctest: +SKIP

    Command line:
        convscope compare survey untrained --layers features.27
    """
    rows = _common_images(survey, other)
    names, uneven = _common_layers(survey, other, layers)
    generator = np.random.default_rng(derive_seed(seed, "compare"))
    columns: dict[str, list[np.ndarray]] = {key: [] for key in ("layer_index", "units", "counterparts", "correlations", "constant")}
    cka: list[float] = []
    chance: list[float] = []
    dead: list[tuple[int, int]] = []
    for index, layer in enumerate(names):
        one, two = (each.mean(layer)[own].astype(np.float64) for each, own in zip((survey, other), rows, strict=True))
        matrix = correlations(one, two)
        left, right = assign(matrix)
        shuffled = correlations(one, two[generator.permutation(len(two))])
        chance.append(float(np.quantile(shuffled[assign(shuffled)], 0.99)))
        cka.append(linear_cka(one, two))
        constant = one.std(0) == 0, two.std(0) == 0
        dead.append((int(constant[0].sum()), int(constant[1].sum())))
        lonely = np.setdiff1d(np.arange(one.shape[1]), left), np.setdiff1d(np.arange(two.shape[1]), right)
        none = [np.full(len(each), -1) for each in lonely]
        columns["layer_index"].append(np.full(len(left) + len(none[0]) + len(none[1]), index))
        columns["units"].append(np.concatenate([left, lonely[0], none[1]]))
        columns["counterparts"].append(np.concatenate([right, none[0], lonely[1]]))
        columns["correlations"].append(np.concatenate([matrix[left, right], np.zeros(len(none[0]) + len(none[1]))]))
        sides = [columns[key][-1] for key in ("units", "counterparts")]
        still = [own[np.maximum(side, 0)] & (side >= 0) for own, side in zip(constant, sides, strict=True)]
        columns["constant"].append(np.stack(still, 1).astype(np.uint8))
    arrays = {key: np.concatenate(parts) for key, parts in columns.items()}
    gained, lost = _class_maps(survey, other, names, arrays, threshold)
    return Compare(
        layer_index=arrays["layer_index"],
        units=arrays["units"],
        counterparts=arrays["counterparts"],
        correlations=arrays["correlations"],
        constant=arrays["constant"],
        cka=np.array(cka),
        chance=np.array(chance),
        dead=np.array(dead),
        accuracy=_accuracy(survey, other, rows, classes or {}),
        layers=tuple(names),
        labels=survey.labels,
        gained=gained,
        lost=lost,
        shown=_exemplars(survey, other, rows, names, arrays, threshold, examples),
        surveys=(survey.path, other.path),
        networks=tuple(str(each.manifest["network"]["name"]) for each in (survey, other)),
        images=len(rows[0]),
        uneven=tuple(uneven),
        left_out=len(survey) + len(other) - 2 * len(rows[0]),
        threshold=threshold,
        fail_above=fail_above,
    )


def correlations(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Pearson's correlation of all columns of (n a) with all of (n b): (a b); 0 where a column is constant."""
    parts: list[np.ndarray] = []
    for values in (one, two):
        centred = values - values.mean(0)
        length = np.sqrt((centred**2).sum(0))
        constant = values.std(0) == 0
        parts.append(np.where(constant, 0, centred / np.where(constant, 1, length)))
    return np.clip(parts[0].T @ parts[1], -1, 1)


def assign(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns matched one to one so that the sum of their entries is largest (the Hungarian method)."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(matrix, maximize=True)


def linear_cka(one: np.ndarray, two: np.ndarray) -> float:
    """Linear CKA of (n a) and (n b), n > 3, by the unbiased estimate of HSIC: 1 for equal up to rotation, 0 expected by chance; may be < 0.

    NaN where a side is constant.
    """
    grams = [values @ values.T for values in (one - one.mean(0), two - two.mean(0))]
    own = [_hsic(gram, gram) for gram in grams]
    return float(_hsic(*grams) / np.sqrt(own[0] * own[1])) if min(own) > 0 else float("nan")


def _hsic(one: np.ndarray, two: np.ndarray) -> float:
    """The unbiased estimate of HSIC from two Gram matrices (n n)."""
    count = len(one)
    one, two = one.copy(), two.copy()
    np.fill_diagonal(one, 0)
    np.fill_diagonal(two, 0)
    total = (one * two).sum() + one.sum() * two.sum() / ((count - 1) * (count - 2)) - 2 * (one.sum(0) @ two.sum(0)) / (count - 2)
    return float(total / (count * (count - 3)))


def _common_images(survey: Survey, other: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images that both surveys have, by name, in the first one's order."""
    for each in (survey, other):
        if len(set(each.names)) < len(each.names):
            raise BadInput(f"survey {each.path}: two images have one name, so it cannot be compared image by image")
    place = {name: row for row, name in enumerate(other.names)}
    pairs = [(row, place[name]) for row, name in enumerate(survey.names) if name in place]
    if len(pairs) < FEWEST:
        raise BadInput(
            f"surveys {survey.path} and {other.path} share {len(pairs)} images (by name); compare needs the same images, at least {FEWEST}"
        )
    one, two = (np.array(rows) for rows in zip(*pairs, strict=True))
    here, there = (
        np.stack([each.images[side].to_numpy()[rows] for side in ("height", "width")], 1).astype(np.float64)
        for each, rows in ((survey, one), (other, two))
    )
    shapes = here[:, 0] * there[:, 1], here[:, 1] * there[:, 0]  # equal where proportions are
    if (others := np.flatnonzero(np.abs(shapes[0] - shapes[1]) > _SAME_SHAPE * np.minimum(*shapes))).size:
        first = int(others[0])
        sizes = [f"{width:g}x{height:g} px in {each.path}" for each, (height, width) in ((survey, here[first]), (other, there[first]))]
        raise BadInput(
            f"{survey.names[one[first]]} is not the same image in both surveys ({', '.join(sizes)}); compare needs the same images"
        )
    return one, two


def _common_layers(survey: Survey, other: Survey, asked: str | Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The layers to compare, and those left out because the networks have other numbers of units there."""
    if asked is not None:
        names = [asked] if isinstance(asked, str) else list(asked)
        for name in names:
            for each in (survey, other):
                each.layer(name)
        return names, []
    found = [name for name in survey.layers if name in other.layers]
    even = [name for name in found if survey.layer(name).channels == other.layer(name).channels]
    inner = [name for name in (even if set(even) - {OUTPUT} else found) if name != OUTPUT or name in even]
    if not inner:
        here, there = (", ".join(list(each.layers)[:3]) for each in (survey, other))
        raise BadInput(f"the surveys have no layer in common: {here}, ... and {there}, ...; scan both with the same --layers")
    return inner, [name for name in found if name not in inner]


def _class_maps(
    survey: Survey, other: Survey, names: Sequence[str], arrays: dict[str, np.ndarray], threshold: float
) -> tuple[dict[str, dict[str, list[int]]], dict[str, dict[str, list[int]]]]:
    """Class maps that the second network has and the first has not, and the other way round: {layer: {label: units}}.

    A map is kept if its counterpart is a map of the same label.
    """
    gained: dict[str, dict[str, list[int]]] = {}
    lost: dict[str, dict[str, list[int]]] = {}
    labels = [label for label in survey.labels if label in other.labels]
    if len(labels) < 2:
        return {}, {}
    for index, layer in enumerate(names):
        if layer == OUTPUT:
            continue
        own = (arrays["layer_index"] == index) & (arrays["correlations"] > threshold)
        forward = dict(zip(arrays["units"][own].tolist(), arrays["counterparts"][own].tolist(), strict=True))
        backward = {there: here for here, there in forward.items()}
        before, after = (class_maps(each, layer, classes=labels).maps or {} for each in (survey, other))
        lost[layer] = {label: [unit for unit in before[label] if forward.get(unit) not in after[label]] for label in labels}
        gained[layer] = {label: [unit for unit in after[label] if backward.get(unit) not in before[label]] for label in labels}
    return gained, lost


def _accuracy(survey: Survey, other: Survey, rows: tuple[np.ndarray, np.ndarray], classes: Mapping[str, int | str]) -> np.ndarray:
    """Right images and all images of each label of the first survey before and after, (label side 2); -1 where labels mean no class."""
    found = np.full((len(survey.labels), 2, 2), -1, np.int64)
    for side, (each, own) in enumerate(zip((survey, other), rows, strict=True)):
        count = each.layer(OUTPUT).channels
        names = tuple(str(name) for name in each.manifest["inputs"]["classes"] or ())
        if count < 2:
            continue
        own_names = classes_of(each.labels, names, count, {})
        given = {label: meant for label, meant in classes.items() if label not in own_names}
        if not (own_names or given):
            continue
        seen = predictions(each, classes=given, worst=0, top=1)
        right, labels = seen.right[own], np.array(seen.labels)[own]
        for place, label in enumerate(survey.labels):
            if label in (seen.meant or {}):
                found[place, side] = int(right[labels == label].sum()), int((labels == label).sum())
    return found


def _exemplars(
    survey: Survey,
    other: Survey,
    images: tuple[np.ndarray, np.ndarray],
    names: Sequence[str],
    arrays: dict[str, np.ndarray],
    threshold: float,
    examples: int,
) -> tuple[Shown, ...]:
    """The most changed units of the layer that changed most, with their exemplars before and their match's after.

    Of networks of one line, a unit is held against itself. Units that are dead in one of them are not shown.
    """
    inner = [index for index, name in enumerate(names) if name != OUTPUT and (arrays["layer_index"] == index).any()]
    if not inner or examples < 1:
        return ()
    shares = [float((arrays["correlations"][arrays["layer_index"] == index] > threshold).mean()) for index in inner]
    index = inner[int(np.argmin(shares))]
    layer = names[index]
    own = np.flatnonzero((arrays["layer_index"] == index) & (arrays["units"] >= 0) & (arrays["counterparts"] >= 0))
    units, matches, r, dead = (arrays[key][own] for key in ("units", "counterparts", "correlations", "constant"))
    if same_units(arrays["units"], arrays["counterparts"], arrays["correlations"] > threshold):  # a unit is held against itself
        units = matches = np.arange(min(each.layer(layer).channels for each in (survey, other)))
        values = [each.mean(layer)[rows][:, units].astype(np.float64) for each, rows in zip((survey, other), images, strict=True)]
        r, dead = correlations(*values).diagonal(), np.stack([each.std(0) == 0 for each in values], 1)
    alive = np.flatnonzero(~dead.any(1)) if not dead.any(1).all() else np.arange(len(units))
    found: list[Shown] = []
    for row in alive[np.argsort(r[alive], kind="stable")][:examples].tolist():
        unit, match = int(units[row]), int(matches[row])
        crops = [exemplars(each, layer, [one], top=4).crops[0] for each, one in ((survey, unit), (other, match))]
        found.append(Shown(layer=layer, unit=unit, match=match, correlation=float(r[row]), before=crops[0], after=crops[1]))
    return tuple(found)
