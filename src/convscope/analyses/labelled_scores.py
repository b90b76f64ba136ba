"""Thresholds chosen by a rule, areas under the ROC curve, and their bootstrap intervals.

An alarm is a score strictly above the threshold. A bootstrap draw is a weight for each image, so that the choice on the data itself
(every weight 1) and on thousands of draws is one computation on arrays.
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
    """A rule for choosing a threshold.

    Attributes:
        name: "fpr": the lowest threshold whose false positive rate is at most `fpr`; "youden": the largest TPR - FPR; "fbeta": the
            largest F-beta. Of equally good thresholds, the highest, which has the fewest alarms.
        fpr: Target false positive rate in [0, 1).
        beta: Weight of recall relative to precision, > 0.
    """

    name: Literal["fpr", "youden", "fbeta"] = "fpr"
    fpr: float = 0.05
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.fpr < 1 or not self.beta > 0:
            raise BadInput(f"fpr must be in [0, 1) and beta above 0, got {self.fpr} and {self.beta}")

    def choose(self, hits: np.ndarray, alarms: np.ndarray) -> np.ndarray:
        """The index of the best threshold for each draw, (draw).

        Args:
            hits: Weight of the positives above each threshold, (draw candidate), thresholds ascending.
            alarms: The same of the negatives.
        """
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
class LabelledScores:
    """Scores of positive and negative images, counted with any weights.

    Attributes:
        scores: (n) finite.
        positive: (n) bool.
    """

    scores: np.ndarray
    positive: np.ndarray

    def candidates(self) -> np.ndarray:
        """All thresholds that make a difference, ascending: below all scores, midway between neighbours, the largest score."""
        values = np.unique(self.scores)
        middles = (values[:-1] + values[1:]) / 2
        middles = np.where(middles >= values[1:], values[:-1], middles)  # neighbours with no float between them
        return np.concatenate([[np.nextafter(values[0], -np.inf)], middles, values[-1:]])

    def above(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights of positives and of negatives above each threshold, both (draw candidate), from weights (draw n)."""
        return self._above(weights * self.positive), self._above(weights * ~self.positive)

    def _above(self, weights: np.ndarray) -> np.ndarray:
        grouped = self._grouped(weights)
        return np.concatenate([grouped[:, ::-1].cumsum(1)[:, ::-1], np.zeros((len(weights), 1))], 1)

    def _grouped(self, weights: np.ndarray) -> np.ndarray:
        """Sums the weights (draw n) of equal scores: (draw value), values ascending."""
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
        """Area under the ROC curve, every image with weight 1."""
        return float(self.areas(np.ones((1, len(self.scores))))[0])

    def threshold(self, rule: Rule) -> float:
        """The threshold that a rule chooses, every image with weight 1."""
        weights = np.ones((1, len(self.scores)))
        return float(self.candidates()[rule.choose(*self.above(weights))[0]])

    def interval(self, rule: Rule, confidence: float, draws: int, seed: int) -> tuple[float, float]:
        """Bootstrap percentile interval of the rule's threshold."""
        candidates = self.candidates()
        return self._percentile_interval(lambda weights: candidates[rule.choose(*self.above(weights))], confidence, draws, seed)

    def area_interval(self, confidence: float, draws: int, seed: int) -> tuple[float, float]:
        """Bootstrap percentile interval of the area under the ROC curve."""
        return self._percentile_interval(self.areas, confidence, draws, seed)

    def rate_interval(self, threshold: float, confidence: float, draws: int, seed: int) -> tuple[float, float]:
        """Bootstrap percentile interval of the share of positives above `threshold`."""
        found = self.positive & (self.scores > threshold)
        return self._percentile_interval(lambda weights: weights @ found / (weights @ self.positive), confidence, draws, seed)

    def _percentile_interval(
        self, measure: Callable[[np.ndarray], np.ndarray], confidence: float, draws: int, seed: int
    ) -> tuple[float, float]:
        found = np.concatenate([measure(weights) for weights in self._draws(draws, seed)])
        low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)

    def _draws(self, draws: int, seed: int) -> Iterator[np.ndarray]:
        """Bootstrap draws as weights (draw n): resampled with replacement, positives and negatives separately."""
        generator = np.random.default_rng(seed)
        block = max(_BLOCK // len(self.scores), 1)
        for first in range(0, draws, block):
            weights = np.zeros((min(block, draws - first), len(self.scores)))
            for group in (self.positive, ~self.positive):
                count = int(group.sum())
                weights[:, group] = generator.multinomial(count, np.full(count, 1 / count), size=len(weights))
            yield weights
