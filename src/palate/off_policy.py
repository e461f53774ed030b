"""What another way to choose would have earned, from what was chosen by chance: the log says with which probability.

Each choice is weighed by how much likelier the other way would have made it (inverse propensity scores). Self-normalised (SNIPS),
the sum is divided by that of the weights instead of the number of choices: a little biased, much steadier, and never above the
largest reward. Horvitz and Thompson (1952); Swaminathan and Joachims, "The Self-Normalized Estimator for Counterfactual Learning"
(NIPS 2015). The person is the unit of all intervals, by the delta method.
"""

from __future__ import annotations

from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate import lifts

FEW = 1_000.0
"""Choices that an estimate must effectively rest on to be worth much."""

Values = NDArray[np.float64]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A value, and where it lies; None where nothing can be told."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Mean reward of a choice."""

    choices: int
    people: int
    logged: Interval
    """Of the choices as they were made."""
    ips: Interval
    """Of the other way, by inverse propensity scores."""
    snips: Interval
    """The same, self-normalised: the one to go by."""
    effective: float
    """So many choices of equal weight would tell as much: (Σ weights)² / Σ weights² (Kish 1965)."""
    warning: str | None


def estimate(
    rewards: ArrayLike, logged: ArrayLike, target: ArrayLike, people: ArrayLike, level: float = 0.95
) -> Estimate:
    """The mean reward of choices (n,), had each been made with the probability `target` instead of `logged` (above 0).

    `people` says whose each choice was. What had no chance when it was logged can't be known, whatever it would have earned.
    """
    r, p, q = (np.asarray(part, np.float64) for part in (rewards, logged, target))
    whose = np.unique(np.asarray(people), return_inverse=True)[1]
    weights, n = q / p, int(whose.max(initial=-1)) + 1

    def sums(values: Values) -> Values:
        return np.asarray(np.bincount(whose, values, n), np.float64)

    ones = sums(np.ones(len(r)))
    squares = float(np.sum(weights**2))
    effective = float(weights.sum() ** 2 / squares) if squares else 0.0
    return Estimate(
        choices=len(r),
        people=n,
        logged=_interval(sums(r), ones, level),
        ips=_interval(sums(weights * r), ones, level),
        snips=_interval(sums(weights * r), sums(weights), level),
        effective=effective,
        warning=_warning(effective, len(r)),
    )


def _interval(numerators: Values, denominators: Values, level: float) -> Interval:
    group = lifts.moments(numerators, denominators)
    value = float(lifts.ratio(group))
    if np.isnan(value):
        return Interval(value=None)
    spread = float(lifts.spread(group))
    if np.isnan(spread):
        return Interval(value=value)
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(spread / len(numerators)) * value
    return Interval(value=value, low=value - half, high=value + half)


def _warning(effective: float, choices: int) -> str | None:
    if effective >= FEW:
        return None
    return (
        f"It rests on {choices:,} choices that tell as much as {effective:,.0f} of equal weight; below {FEW:,.0f} it is little "
        "more than a guess."
    )


def explored_more(logged: ArrayLike, before: float, after: float) -> Values:
    """The probability of each choice if the share of places that explore were `after` instead of `before` (0 < `before` < ½).

    With L items to explore, one of them was chosen with before / L, the best item with 1 − before, or with both if it is among
    them; with 1 where there was nothing to explore (`ranking.arranging`). NaN for a probability that no such share gives.
    """
    p = np.asarray(logged, np.float64)
    assert 0 < before < 0.5, "The best and what is explored are told apart by their probabilities."
    tiny = 1e-9
    explored = np.where(p <= before + tiny, p * after / before, np.nan)
    best = np.where(p >= 1 - before - tiny, (1 - after) + (p - (1 - before)) * after / before, explored)
    return np.asarray(np.where(p >= 1 - tiny, 1.0, best))
