"""A guess put to the test: against SciPy, exact enumeration, and pure chance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import convscope
import hand_built
import promises
from convscope.errors import BadInput, LayerNotFound, UnitNotFound
from convscope.results.hypothesis import standing
from convscope.scope import Inputs, Scope
from convscope.statistics import SIGNIFICANCE, permutation_test, rows_enough, smallest_p
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: convscope.hypothesis(s, "5", 0, promises.IMAGES[:2], promises.IMAGES[2:], permutations=9),
    "result.view().title",
    forwards=2,
)


def values_of(count: int, channels: int, seed: int = 0, ties: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, channels))
    return np.round(values) if ties else values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 9), (12, 3)])
def test_auc_is_mann_whitney(n: int, m: int, ties: bool) -> None:
    values = values_of(n + m, 6, ties=ties)
    auc, _, _ = permutation_test(values, n, 9, 0)
    expected = [scipy.stats.mannwhitneyu(values[:n, c], values[n:, c]).statistic / (n * m) for c in range(6)]
    np.testing.assert_allclose(auc, expected, rtol=1e-12)
    pairs = [[np.sign(a - b) for a in values[:n, c] for b in values[n:, c]] for c in range(6)]
    np.testing.assert_allclose(auc, [0.5 + np.mean(signs) / 2 for signs in pairs], rtol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_against_all_relabellings(ties: bool) -> None:
    n, m, draws_of = 3, 4, 40_000
    values = values_of(n + m, 3, seed=4, ties=ties)
    values[:n, 0] += 1.5

    def area(rows: tuple[int, ...], c: int) -> float:
        rest = [row for row in range(n + m) if row not in rows]
        return float(np.mean([[0.5 * (values[a, c] >= values[b, c]) + 0.5 * (values[a, c] > values[b, c]) for b in rest] for a in rows]))

    everyone = [[area(rows, c) for c in range(3)] for rows in itertools.combinations(range(n + m), n)]
    table = np.array(everyone)
    own = table[0]  # the first combination is the true labelling
    auc, p, corrected = permutation_test(values, n, draws_of, 1)
    np.testing.assert_allclose(auc, own, rtol=1e-12)
    for found, exact in ((p, (table >= own - 1e-12).mean(0)), (corrected, (table.max(1)[:, None] >= own - 1e-12).mean(0))):
        np.testing.assert_allclose(found, exact, rtol=0, atol=4 * math.sqrt(0.25 / draws_of))


def test_p_values_have_a_floor_and_the_correction_is_never_smaller() -> None:
    values = values_of(24, 5)
    values[:12, 0] += 100
    _, p, corrected = permutation_test(values, 12, 499, 0)
    assert p[0] == corrected[0] == 1 / 500
    assert (corrected >= p).all() and (corrected <= 1).all()
    alone = permutation_test(values[:, 1:2], 12, 499, 0)
    np.testing.assert_array_equal(alone[1], alone[2], "with one unit there is nothing to correct")


def test_chance_is_called_a_discovery_as_often_as_promised() -> None:
    runs, discoveries, single = 400, 0, 0
    for run in range(runs):
        _, p, corrected = permutation_test(values_of(16, 20, seed=run), 8, 99, run)
        discoveries += bool((corrected <= 0.05).any())
        single += int((p <= 0.05).sum())
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert discoveries / runs <= limit, "in a family of 20 units of pure noise"
    assert single / (20 * runs) == pytest.approx(0.05, abs=0.012)
    assert discoveries > 0, "a test that never discovers anything would pass as well"


def test_a_real_difference_is_found_among_noise() -> None:
    values = values_of(30, 50, seed=3)
    values[:15, 17] += 2.5
    auc, _, corrected = permutation_test(values, 15, 999, 0)
    assert corrected[17] < 0.01 and int(auc.argmax()) == 17
    assert (np.delete(corrected, 17) > 0.05).all()


def test_blocks_of_permutations_do_not_matter() -> None:
    values = values_of(9, 3)
    first, second = permutation_test(values, 4, 300, 5), permutation_test(values, 4, 300, 5)
    for one, other in zip(first, second, strict=True):
        assert (one == other).all()
    assert (permutation_test(values, 4, 300, 6)[1] != first[1]).any()


def test_the_smallest_p_is_that_of_a_column_that_tells_the_groups_apart() -> None:
    n, m, values = 4, 4, values_of(8, 40, seed=2)
    values[:n, 7] += 100
    assert smallest_p(values, n, 999, 3) == permutation_test(values, n, 999, 3)[2][7]
    assert smallest_p(np.delete(values, 7, 1), n, 999, 3) == smallest_p(values, n, 999, 3), "whether or not there is such a column"
    for seed in range(5):
        others = values_of(n + m, 40, seed=seed)
        assert permutation_test(others, n, 999, 3)[2].min() >= smallest_p(others, n, 999, 3)
    ways = list(itertools.combinations(range(n + m), n))
    firsts = {tuple(sorted(np.argsort(-values[:, c])[:n])) for c in range(40)}
    assert smallest_p(values, n, 20_000, 3) == pytest.approx(len(firsts) / len(ways), abs=0.015), (
        "labellings that some column has AUC 1 for"
    )


@pytest.mark.parametrize("columns", [1, 10, 256])
def test_enough_rows_are_enough_and_half_of_them_are_not(columns: int) -> None:
    enough = rows_enough(columns)
    assert {1: 4, 10: 6, 256: 8}[columns] == enough
    for seed in range(3):
        assert smallest_p(values_of(2 * enough, columns, seed=seed), enough, 2000, seed) < SIGNIFICANCE
    fewer = enough - 2
    assert smallest_p(values_of(2 * fewer, columns), fewer, 2000, 0) >= SIGNIFICANCE


# --- on a network


def bright_and_dark() -> tuple[Scope, torch.Tensor, torch.Tensor]:
    """A network whose unit 0 answers to red, unit 1 to green, unit 2 to nothing, and images that are red or green."""
    model = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, 0, 0]]).view(3, 3, 1, 1))
        model[0].bias.zero_()
    red, green = draws(8, 3, 10, 10) * 0.3, draws(8, 3, 10, 10, seed=1) * 0.3
    red[:, 0] += 0.6
    green[:, 1] += 0.6
    return Scope(model, Inputs(size=10), precision="float32"), red, green


def test_a_unit_that_answers() -> None:
    scope, red, green = bright_and_dark()
    made = convscope.hypothesis(scope, "1", 0, red, green, permutations=999)
    assert made.auc[0] == 1 and made.rank == 1 and made.better == () and made.against == ()
    assert made.p_corrected[0] < 0.01 and "best of the layer" in made.verdict
    assert made.concept.shape == (8, 3) and made.background.shape == (8, 3) and made.ranks.tolist() == [1] * 8
    means, spread = made.concept.mean(0) - made.background.mean(0), made.background.std(0, ddof=1)
    assert made.effect[1] == pytest.approx(means[1] / spread[1]) and made.effect[2] == 0
    assert made.auc[2] == 0.5 and made.p[2] == 1


def test_a_unit_that_answers_to_something_else() -> None:
    scope, red, green = bright_and_dark()
    made = convscope.hypothesis(scope, "1", 1, red, green, permutations=999)
    assert made.auc[1] == 0 and made.rank == 3 and made.better == (0, 2) and "not supported" in made.verdict
    assert made.p[1] == 1 and "units that answer better: 0 (AUC 1.000), 2 (AUC 0.500)" in made.summary()


def test_too_few_images_decide_nothing() -> None:
    """Seen to say "not supported" before."""
    scope, red, green = bright_and_dark()
    made = convscope.hypothesis(scope, "1", 0, red[:3], green[:3])
    assert made.auc[0] == 1 and made.p_corrected[0] > SIGNIFICANCE
    enough = rows_enough(3)
    said = "unit 0 of 1: undecided: 3 against 3 images cannot reach p < 0.05 among 3 units, whatever they show"
    assert f"{said}; {enough} against {enough} can" in made.verdict
    assert "undecided" in made.summary()
    assert "best of the layer" in convscope.hypothesis(scope, "1", 0, red[:enough], green[:enough]).verdict
    assert "not supported" in convscope.hypothesis(scope, "1", 1, red[:3], green[:3]).verdict, "below chance nothing is open"
    few = convscope.hypothesis(scope, "1", 0, red, green, permutations=9)
    assert "undecided: with 9 permutations no unit can reach p < 0.05; take 2000" in few.verdict


def test_the_images_against_a_guess_are_named() -> None:
    scope, red, green = bright_and_dark()
    mixed = [*red[:7], green[7]]
    made = convscope.hypothesis(scope, "1", 0, mixed, [*list(green[:7]), red[7]], permutations=99)
    assert set(made.against) == {"image 7", "image 7 (background)"}
    assert made.concept_names == tuple(f"image {index}" for index in range(8))


def test_an_effect_without_spread_is_infinite_not_an_error() -> None:
    scope, red, _ = bright_and_dark()
    flat = torch.full((4, 3, 10, 10), 0.5)
    made = convscope.hypothesis(scope, "1", 0, red, flat, permutations=99)
    assert made.effect[0] == np.inf and made.effect[2] == 0


def test_reduce_and_seed() -> None:
    scope, red, green = bright_and_dark()
    one = convscope.hypothesis(scope, "1", 0, red, green, permutations=99)
    assert (convscope.hypothesis(scope, "1", 0, red, green, permutations=99).p == one.p).all()
    highest = convscope.hypothesis(scope, "1", 0, red, green, permutations=99, reduce="max")
    assert (highest.concept == convscope.spectrum(scope, "1", red, reduce="max").values).all()
    assert one.manifest["parameters"]["permutations"] == 99 and one.permutations == 99


def test_class_names() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24, classes=["a", "b", "c", "d", "e"]))
    made = convscope.hypothesis(scope, "output", "c", draws(3, 3, 24, 24), draws(3, 3, 24, 24, seed=1), permutations=9)
    assert made.unit == 2 and made.unit_names == ("a", "b", "c", "d", "e") and "unit 2 (c)" in made.verdict


def test_the_network_is_left_as_it_was(small: nn.Module) -> None:
    hand_built.unsettle(small)
    before = hand_built.state_of(small)
    convscope.hypothesis(Scope(small, Inputs(size=24)), "5", 0, draws(2, 3, 24, 24), draws(2, 3, 24, 24, seed=1), permutations=9)
    assert hand_built.state_of(small) == before


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"images": draws(1, 3, 10, 10)}, BadInput, "at least 2 images on each side, got 1 and 8; for one image see spectrum"),
        ({"against": draws(1, 3, 10, 10)}, BadInput, "got 8 and 1"),
        ({"images": []}, BadInput, "an empty list"),
        ({"permutations": 0}, BadInput, "permutations must be at least 1, got 0"),
        ({"unit": 3}, UnitNotFound, "units 0 to 2, got 3"),
        ({"layer": "2"}, LayerNotFound, "no layer '2'"),
        ({"reduce": "sum"}, BadInput, "reduce must be mean or max"),
    ],
)
def test_wrong_questions(wrong: dict[str, object], error: type[Exception], words: str) -> None:
    scope, red, green = bright_and_dark()
    asked = {"layer": "1", "unit": 0, "images": red, "against": green} | wrong
    with pytest.raises(error, match=words):
        convscope.hypothesis(scope, **asked)  # type: ignore[arg-type]


def test_units_with_the_same_auc_share_their_ranks() -> None:
    """Also tried: a network with dead units, and one whose classes are all as probable."""
    auc = np.array([0.9, 1.0, 0.5, 1.0, 0.9, 1.0])
    wanted = ["4 to 5, tied", "1 to 3, tied", "6", "1 to 3, tied", "4 to 5, tied", "1 to 3, tied"]
    assert [standing(auc, unit) for unit in range(6)] == wanted
