"""From a ranker's scores to probabilities: the share of positives among like scores, made monotone.

Isotonic regression by pooling adjacent violators (Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass
Probability Estimates", 2002), over bins of equally many scores so that a few rows don't say 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

BINS = 50
FEWEST = 20
"""Scores in a bin."""
STEPS = 50
"""Of Newton's method, at most."""
HELD = 1.0
"""How firmly a slope is held at 0, in squares of scores."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """A line through points (m,), straight between them and level beyond; `probabilities` never fall."""

    scores: Values
    probabilities: Values

    def __call__(self, scores: ArrayLike) -> NDArray[np.float32]:
        """The probability that a score means."""
        return np.interp(np.asarray(scores, np.float64), self.scores, self.probabilities).astype(np.float32)


def fit(scores: Values, labels: ArrayLike) -> Calibration:
    """What scores (n,) mean for labels 0 or 1; each bin is held a little at the mean of all."""
    positive = np.asarray(labels, np.float64)
    order = np.argsort(scores, kind="stable")
    bins = max(1, min(BINS, len(scores) // FEWEST))
    mean = float(positive.mean()) if len(positive) else 0.5
    middles, shares, sizes = [], [], []
    for part in np.array_split(order, bins):
        middles.append(float(scores[part].mean()) if len(part) else 0.0)
        shares.append((float(positive[part].sum()) + mean) / (len(part) + 1))
        sizes.append(len(part) + 1.0)
    return Calibration(np.array(middles), _never_falling(shares, sizes))


def slope(scores: Values, labels: ArrayLike) -> float:
    """By how much the log-odds of labels 0 or 1 rise with the scores (n,): logistic regression; 0 where they fall."""
    rows = np.stack((np.ones(len(scores)), np.asarray(scores, np.float64)))
    positive, held = np.asarray(labels, np.float64), np.array([1e-3, HELD])
    found = np.zeros(2)
    for _ in range(STEPS):
        said = 1 / (1 + np.exp(-np.clip(found @ rows, -30, 30)))
        curved = (rows * (said * (1 - said))) @ rows.T + np.diag(held)
        step = np.linalg.solve(curved, rows @ (said - positive) + held * found)
        found = found - step
        if np.abs(step).max() < 1e-9:
            break
    return max(float(found[1]), 0.0)


def _never_falling(shares: list[float], sizes: list[float]) -> Values:
    """The nearest values that don't fall, by squares weighted by size."""
    pools: list[tuple[float, float, int]] = []
    for share, size in zip(shares, sizes, strict=True):
        pools.append((share, size, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            last, before = pools.pop(), pools.pop()
            total = before[1] + last[1]
            pools.append(((before[0] * before[1] + last[0] * last[1]) / total, total, before[2] + last[2]))
    return np.repeat([share for share, _, _ in pools], [count for _, _, count in pools]).astype(np.float64)
