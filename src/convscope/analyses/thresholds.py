"""Choosing a threshold by a declared rule, and how much it and the areas would vary with other images: bootstrap, in arrays.

An alarm is a score above the threshold (strictly). All images of a draw are counted by their weights, so that the choice on the data
itself (every weight 1) and on thousands of bootstrap draws is one computation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from convscope.errors import BadInput

_BLOCK = 2**22


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        name: "fpr": the lowest threshold whose false positive rate is at most `fpr`; "youden": the largest TPR - FPR; "fbeta": the
            largest F-beta. Of equals the highest threshold, which alarms least.
        fpr: Target false positive rate in [0, 1).
        beta: How much more recall weighs than precision, > 0.
    """

    name: Literal["fpr", "youden", "fbeta"] = "fpr"
    fpr: float = 0.05
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.fpr < 1 or not self.beta > 0:
            raise BadInput(f"fpr must be in [0, 1) and beta above 0, got {self.fpr} and {self.beta}")

    def choose(self, hits: np.ndarray, alarms: np.ndarray) -> np.ndarray:
        """For each draw, the place of the best candidate; `hits` and `alarms` are (draw candidate), from the lowest threshold up."""
        positives, negatives = hits[:, :1], alarms[:, :1]
        if self.name == "fpr":
            return (alarms <= self.fpr * negatives + 1e-9).argmax(1)
        if self.name == "youden":
            good = hits / positives - alarms / negatives
        else:
            square = self.beta**2
            good = (1 + square) * hits / (square * positives + hits + alarms)
        return good.shape[1] - 1 - np.round(good[:, ::-1], 12).argmax(1)


@dataclass(frozen=True, eq=False)
class Counter:
    """Scores of positives and negatives, ready to be counted under any weights.

    Attributes:
        scores: (n) finite.
        positive: (n) bool.
    """

    scores: np.ndarray
    positive: np.ndarray

    def candidates(self) -> np.ndarray:
        """Thresholds between which nothing changes, ascending: below all scores, midway between neighbours, the largest score."""
        values = np.unique(self.scores)
        middles = (values[:-1] + values[1:]) / 2
        middles = np.where(middles >= values[1:], values[:-1], middles)  # neighbours so close that no number lies between
        return np.concatenate([[np.nextafter(values[0], -np.inf)], middles, values[-1:]])

    def above(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of positives and of negatives above each candidate; `weights` is (draw n), the result twice (draw candidate)."""
        return self._above(weights * self.positive), self._above(weights * ~self.positive)

    def _above(self, weights: np.ndarray) -> np.ndarray:
        grouped = self._grouped(weights)
        return np.concatenate([grouped[:, ::-1].cumsum(1)[:, ::-1], np.zeros((len(weights), 1))], 1)

    def _grouped(self, weights: np.ndarray) -> np.ndarray:
        """(draw n) to (draw value): the weights of equal scores added, values ascending."""
        order = np.argsort(self.scores, kind="stable")
        ordered = self.scores[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        return np.add.reduceat(weights[:, order], starts, axis=1)

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """Area under the ROC curve of each draw, ties a half, (draw)."""
        hits, alarms = (self._grouped(weights * chosen) for chosen in (self.positive, ~self.positive))
        below = np.concatenate([np.zeros((len(weights), 1)), alarms.cumsum(1)[:, :-1]], 1)
        return (hits * (below + alarms / 2)).sum(1) / (hits.sum(1) * alarms.sum(1))

    def area(self) -> float:
        """Area under the ROC curve of the images themselves."""
        return float(self.areas(np.ones((1, len(self.scores))))[0])

    def threshold(self, rule: Rule) -> float:
        """The threshold that a rule chooses on these images."""
        weights = np.ones((1, len(self.scores)))
        return float(self.candidates()[rule.choose(*self.above(weights))[0]])

    def interval(self, rule: Rule, confidence: float, draws: int, seed: int) -> tuple[float, float]:
        """Where the rule's threshold lies in the middle `confidence` of bootstrap draws."""
        candidates = self.candidates()
        return self._middle(lambda weights: candidates[rule.choose(*self.above(weights))], confidence, draws, seed)

    def area_interval(self, confidence: float, draws: int, seed: int) -> tuple[float, float]:
        """Where the area under the ROC curve lies in the middle `confidence` of bootstrap draws."""
        return self._middle(self.areas, confidence, draws, seed)

    def rate_interval(self, threshold: float, confidence: float, draws: int, seed: int) -> tuple[float, float]:
        """Where the share of positives above `threshold` lies in the middle `confidence` of bootstrap draws."""
        found = self.positive & (self.scores > threshold)
        return self._middle(lambda weights: weights @ found / (weights @ self.positive), confidence, draws, seed)

    def _middle(self, measure: Callable[[np.ndarray], np.ndarray], confidence: float, draws: int, seed: int) -> tuple[float, float]:
        found = np.concatenate([measure(weights) for weights in self._draws(draws, seed)])
        low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)

    def _draws(self, draws: int, seed: int) -> Iterator[np.ndarray]:
        """Weights (draw n) of images drawn again with replacement, positives and negatives each among themselves."""
        generator = np.random.default_rng(seed)
        block = max(_BLOCK // len(self.scores), 1)
        for first in range(0, draws, block):
            weights = np.zeros((min(block, draws - first), len(self.scores)))
            for group in (self.positive, ~self.positive):
                count = int(group.sum())
                weights[:, group] = generator.multinomial(count, np.full(count, 1 / count), size=len(weights))
            yield weights
