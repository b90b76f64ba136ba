"""Class maps: the article's worked example, a plain twin of its procedure, and the declared ties."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import convscope as cs
import promises
from convscope.analyses.class_maps import choose_units, count_votes, maps_of
from convscope.errors import BadInput, UnitNotFound
from made import drawn, made

PROMISE = promises.Promise(lambda s: cs.class_maps(s, "layer", per_image=3, per_class=3), "result.view().note")


def activations_of(chosen: list[list[int]], channels: int) -> np.ndarray:
    """Maps (n c 1 1) whose strongest channels are those listed, the first strongest."""
    maps = np.zeros((len(chosen), channels, 1, 1), np.float32)
    for image, listed in enumerate(chosen):
        for rank, channel in enumerate(listed):
            maps[image, channel] = 10 - rank
    return maps


def slow(means: np.ndarray, labels: list[str | None], per_image: int, per_class: int) -> dict[str, list[int]]:
    """The procedure as the article tells it, with lists and counters."""
    lists: dict[str, list[int]] = {}
    for label in sorted({each for each in labels if each is not None}):
        rows = [row for row, each in enumerate(labels) if each == label]
        votes = Counter[int]()
        for row in rows:
            votes.update(sorted(range(means.shape[1]), key=lambda channel: (-means[row, channel], channel))[:per_image])
        mean = means[rows].astype(np.float64).mean(0)
        lists[label] = sorted(votes, key=lambda channel: (-votes[channel], -mean[channel], channel))[:per_class]
    return {
        label: [channel for channel in own if not any(channel in other for name, other in lists.items() if name != label)]
        for label, own in lists.items()
    }


def test_the_articles_example(tmp_path: Path) -> None:
    cat = activations_of([[1, 2, 4], [1, 3, 4], [1, 5, 6]], 12)
    alone = made(tmp_path / "cat", {"layer": cat}, ["cat"] * 3, votes_per_image=3)
    result = cs.class_maps(alone, "layer", per_image=3, per_class=2)
    assert result.maps == {"cat": (1, 4)} and result.votes[0].tolist() == [0, 3, 1, 1, 2, 1, 1, 0, 0, 0, 0, 0]
    assert result.frequency[0, 4] == pytest.approx(2 / 3)
    both = np.concatenate([cat, activations_of([[1, 10, 0]], 12)])
    survey = made(tmp_path / "both", {"layer": both}, ["cat"] * 3 + ["dog"])
    result = cs.class_maps(survey, "layer", per_image=3, per_class=2)
    assert result.maps == {"cat": (4,), "dog": (10,)} and result.shared == {"cat": (1,), "dog": (1,)}


@pytest.mark.parametrize(("per_image", "per_class"), [(1, 1), (3, 5), (25, 25), (4, 40)])
@pytest.mark.parametrize("seed", range(3))
def test_maps_are_those_of_the_plain_procedure(tmp_path: Path, per_image: int, per_class: int, seed: int) -> None:
    maps = drawn(30, 16, 2, 2, seed=seed)
    labels = (["a", "b", "c", None, "a"] * 6)[:30]
    survey = made(tmp_path / "s", {"layer": maps}, labels, votes_per_image=4)
    result = cs.class_maps(survey, "layer", per_image=per_image, per_class=per_class)
    assert {label: list(own) for label, own in result.maps.items()} == slow(survey.mean("layer"), labels, per_image, per_class)
    flat = [channel for own in result.maps.values() for channel in own]
    assert len(flat) == len(set(flat))


def test_the_surveys_own_count_and_a_fresh_one_agree(tmp_path: Path) -> None:
    survey = made(tmp_path / "s", {"layer": drawn(20, 12, 3, 3)}, ["a", "b"] * 10, votes_per_image=5)
    kept = cs.class_maps(survey, "layer", per_image=5, per_class=6)
    votes, means, counts = count_votes(survey.mean("layer"), survey.truth, 2, 5)
    np.testing.assert_array_equal(kept.votes, votes)
    np.testing.assert_allclose(kept.means, means, rtol=1e-6)
    assert counts.tolist() == kept.counts.tolist() == [10, 10]


def test_ties_and_channels_without_a_vote() -> None:
    votes = np.array([[2, 2, 0, 3, 2]])
    own, _ = choose_units(votes, np.array([[0.5, 0.7, 9.0, 0.1, 0.5]]), 5)
    assert own == [(3, 1, 0, 4)], "votes, then mean activation, then the lower channel; never one without a vote"
    assert count_votes(np.array([[1.0, 1.0, 2.0, 1.0]]), np.array([0]), 1, 2)[0].tolist() == [[1, 0, 1, 0]], "of equals the lower channel"


def test_order_of_images_and_full_lists(tmp_path: Path) -> None:
    maps, labels = drawn(12, 8, 2, 2), ["a", "b", "c"] * 4
    order = np.random.default_rng(0).permutation(12)
    first = cs.class_maps(made(tmp_path / "1", {"layer": maps}, labels), "layer", per_image=3, per_class=4)
    second = cs.class_maps(made(tmp_path / "2", {"layer": maps[order]}, [labels[row] for row in order]), "layer", per_image=3, per_class=4)
    assert first.maps == second.maps
    everything = cs.class_maps(made(tmp_path / "3", {"layer": maps + 1}, labels), "layer", per_image=8, per_class=8)
    assert set(everything.maps.values()) == {()}, "what every class lists is no class's own"
    assert "0 maps of its own, 8 shared: none" in everything.summary()


def test_summaries_are_enough_for_their_own_number_of_votes(tmp_path: Path) -> None:
    maps, labels = drawn(12, 8, 2, 2), ["a", "b", "c"] * 4
    full = cs.class_maps(made(tmp_path / "1", {"layer": maps}, labels), "layer", per_image=3, per_class=4)
    short = made(tmp_path / "2", {"layer": maps}, labels, summary_only=True, votes_per_image=3)
    assert cs.class_maps(short, "layer", per_image=3, per_class=4).maps == full.maps
    with pytest.raises(BadInput, match="summaries only, with 3 votes for each image; got per_image=25"):
        cs.class_maps(short, "layer")


def test_a_split_votes_alone(tmp_path: Path) -> None:
    maps, labels = drawn(24, 16, 2, 2), ["a", "b", "c"] * 8
    splits = ["train" if row < 15 else "val" for row in range(24)]
    survey = made(tmp_path / "all", {"layer": maps}, labels, splits=splits, votes_per_image=3)
    part = made(tmp_path / "train", {"layer": maps[:15]}, labels[:15], votes_per_image=3)
    restricted = cs.class_maps(survey, "layer", per_image=3, per_class=5, split="train")
    expected = cs.class_maps(part, "layer", per_image=3, per_class=5)
    assert restricted.maps == expected.maps != cs.class_maps(survey, "layer", per_image=3, per_class=5).maps
    np.testing.assert_array_equal(restricted.votes, expected.votes)
    np.testing.assert_allclose(restricted.means, expected.means, rtol=1e-6)
    assert restricted.counts.tolist() == [5, 5, 5]
    with pytest.raises(BadInput, match="has no image of split 'test': train, val"):
        cs.class_maps(survey, "layer", split="test")


def test_a_label_outside_the_split_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    splits = ["train", "train", "val", "train", "train", "val"]
    survey = made(tmp_path / "s", {"layer": drawn(6, 9, 2, 2)}, ["a", "b", "c"] * 2, splits=splits)
    assert cs.class_maps(survey, "layer", split="train").classes == ("a", "b")
    with pytest.raises(BadInput, match="no image of split 'train' has label 'c'"):
        cs.class_maps(survey, "layer", split="train", classes=["a", "c"])


def test_a_background_neither_gets_maps_nor_takes_any_away(tmp_path: Path) -> None:
    maps, labels = drawn(24, 16, 2, 2), ["a", "b", "other"] * 8
    survey = made(tmp_path / "all", {"layer": maps}, labels, votes_per_image=3)
    kept = [row for row, label in enumerate(labels) if label != "other"]
    alone = made(tmp_path / "two", {"layer": maps[kept]}, [labels[row] for row in kept], votes_per_image=3)
    expected = cs.class_maps(alone, "layer", per_image=3, per_class=5).maps
    for per_image, votes_kept in ((3, True), (3, False)):  # by the survey's own count, and by a fresh one
        again = survey if votes_kept else made(tmp_path / "fresh", {"layer": maps}, labels, votes_per_image=7)
        found = cs.class_maps(again, "layer", per_image=per_image, per_class=5, classes=["b", "a"])
        assert found.classes == ("a", "b") and found.votes.shape == (2, 16) and found.maps == expected
    assert {label: cs.class_maps(survey, "layer", per_image=3, per_class=5).maps[label] for label in "ab"} != expected
    with pytest.raises(BadInput, match="has no label 'spoon'"):
        cs.class_maps(survey, "layer", classes=["spoon"])
    with pytest.raises(BadInput, match="at least one label"):
        cs.class_maps(survey, "layer", classes=[])


def test_wrong_questions(tmp_path: Path) -> None:
    survey = made(tmp_path / "1", {"a": drawn(4, 3, 2, 2), "b": drawn(4, 3, 2, 2)}, ["x", "y"] * 2)
    with pytest.raises(BadInput, match="its images have no labels"):
        cs.class_maps(made(tmp_path / "2", {"a": drawn(2, 3, 2, 2)}, [None, None]), "a")
    with pytest.raises(BadInput, match="must be at least 1, got 0 and 25"):
        cs.class_maps(survey, "a", per_image=0)
    with pytest.raises(BadInput, match="expected class maps of layer b, got class_maps of layer a"):
        maps_of(cs.class_maps(survey, "a"), survey, "b")
    with pytest.raises(BadInput, match="expected class maps or"):
        maps_of({}, survey, "a")
    with pytest.raises(UnitNotFound, match="units 0 to 2, got 3"):
        maps_of({"x": [3]}, survey, "a")
