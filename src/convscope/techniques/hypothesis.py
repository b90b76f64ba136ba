"""Hypothesis test of a unit: does it respond to a concept ("unit 265 = chains") more than to other images?

The test and its correction for many units are in :mod:`convscope.statistics`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from convscope.errors import BadInput
from convscope.results.hypothesis import Hypothesis, standing
from convscope.results.provenance import technique
from convscope.scope import Images, Scope
from convscope.seeding import derive_seed
from convscope.statistics import SIGNIFICANCE, permutation_test, rows_enough, smallest_p
from convscope.techniques.spectrum import spectrum


@technique
def hypothesis(
    scope: Scope,
    layer: str,
    unit: int | str,
    images: Images,
    against: Images,
    *,
    reduce: Literal["mean", "max"] = "mean",
    permutations: int = 2000,
    seed: int = 0,
) -> Hypothesis:
    """Tests whether a unit responds to a concept more than to other images.

    Args:
        scope: The network.
        layer: Layer name.
        unit: The unit (a class name is understood on "output").
        images: Images of the concept; at least 2. A useful p-value takes 6 on each side among 10 units, 8 among 256, 9 among 1000.
        against: Images without it; at least 2.
        reduce: "mean" or "max" over positions, see :func:`~convscope.spectrum`.
        permutations: Number of random permutations of the labels; the smallest possible p is 1 / (permutations + 1).
        seed: Seed of the permutations.

    Returns:
        AUC, effect size and p-values of every unit, and the rank of the named one.

    Raises:
        BadInput: Too few images. One image supports only a rank: use :func:`~convscope.spectrum`.
        UnitNotFound: The layer has no such unit.

    Source:
        AUC = Mann-Whitney U / (n m). p = (1 + #{T* >= T}) / (1 + R) over permutations; corrected by comparing with the largest AUC
        in the layer under each permutation (Westfall and Young 1993), which needs no independence between units.

    Command line:
        convscope hypothesis textures output chains data/images/chains --against data/images/dots
        convscope hypothesis textures features.27 12 data/images/chains --against data/images/dots data/images/weave --reduce max
    """
    number = scope.units(layer, [unit])[0]
    if permutations < 1:
        raise BadInput(f"permutations must be at least 1, got {permutations}")
    counts = [len(scope.inputs.sources(group)) for group in (images, against)]
    if min(counts) < 2:
        raise BadInput(f"a test needs at least 2 images on each side, got {counts[0]} and {counts[1]}; for one image see spectrum")
    shown, other = (spectrum(scope, layer, group, reduce=reduce) for group in (images, against))
    concept, background = shown.values, other.values
    others = tuple(f"{name} (background)" if name in shown.names else name for name in other.names)
    n, values = len(concept), np.concatenate([concept, background])
    if min(n, len(background)) < 2:
        raise BadInput(f"a test needs at least 2 readable images on each side, got {n} and {len(background)}")
    draw = derive_seed(seed, "hypothesis")
    auc, p, corrected = permutation_test(values, n, permutations, draw)
    undecided = ""
    if corrected[number] >= SIGNIFICANCE and auc[number] > 0.5 and smallest_p(values, n, permutations, draw) >= SIGNIFICANCE:
        undecided = _undecided(n, len(background), len(auc), permutations)
    deviation = background.std(0, ddof=1)
    gap = concept.mean(0) - background.mean(0)
    effect = np.divide(gap, deviation, out=np.where(gap == 0, 0.0, np.copysign(np.inf, gap)), where=deviation > 0)
    better = np.argsort(-auc, kind="stable")
    better = tuple(int(other) for other in better if auc[other] > auc[number])
    answer: dict[str, Any] = {
        "layer": layer,
        "unit": number,
        "rank": 1 + len(better),
        "better": better,
        "against": _against(values[:, number], n, (*shown.names, *others)),
        "concept_names": shown.names,
        "background_names": others,
        "unit_names": shown.unit_names,
        "permutations": permutations,
    }
    return Hypothesis(
        concept=concept,
        background=background,
        auc=auc,
        effect=effect,
        p=p,
        p_corrected=corrected,
        ranks=shown.rank(number),
        verdict=_verdict(answer, auc, float(effect[number]), float(corrected[number]), undecided),
        skipped=(*shown.skipped, *other.skipped),
        cut=(*shown.cut, *other.cut),
        manifest={"precision": scope.resolve("measure")},
        **answer,
    )


def _against(values: np.ndarray, n: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """Images on the wrong side of the threshold with the best Youden index (sensitivity + specificity), the worst first."""
    cuts = np.unique(values)
    thresholds = (cuts[:-1] + cuts[1:]) / 2
    if not len(thresholds):
        return names[:n]
    youden = [(values[:n] > cut).mean() + (values[n:] <= cut).mean() for cut in thresholds]
    cut = thresholds[int(np.argmax(youden))]
    wrong = np.concatenate([cut - values[:n], values[n:] - cut])
    return tuple(names[index] for index in np.argsort(-wrong, kind="stable") if wrong[index] > 0)


def _undecided(n: int, m: int, units: int, permutations: int) -> str:
    """That no unit could have been supported, and what would be enough."""
    least, enough = math.ceil(1 / SIGNIFICANCE), rows_enough(units)
    if permutations < least or min(n, m) >= enough:
        return f"undecided: with {permutations} permutations no unit can reach p < {SIGNIFICANCE:g}; take 2000"
    can = f"{enough} against {enough} can"
    return f"undecided: {n} against {m} images cannot reach p < {SIGNIFICANCE:g} among {units} units, whatever they show; {can}"


def _verdict(answer: dict[str, Any], auc: np.ndarray, effect: float, p: float, undecided: str) -> str:
    n, m = len(answer["concept_names"]), len(answer["background_names"])
    if p < SIGNIFICANCE:
        place, units = standing(auc, answer["unit"]), len(auc)
        best = "best of the layer" if place == "1" else f"supported; number {place}, of {units} units"
        stands = best if answer["rank"] == 1 else f"supported, though {answer['rank'] - 1} of {units} units answer better"
    else:
        stands = undecided or "not supported: re-labelled images do as well"
    name = f"unit {answer['unit']}" + (f" ({answer['unit_names'][answer['unit']]})" if answer["unit_names"] else "")
    figures = f"AUC {auc[answer['unit']]:.3f}, effect {effect:+.2f} sd, corrected p {p:.2g}"
    return f"{name} of {answer['layer']}: {stands}; {figures} ({n} images against {m})"
