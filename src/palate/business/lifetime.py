"""What a person is worth: how long people stay, times what a week of theirs is worth.

    value = Σ over w = 0 … H − 1 of S(w) · δʷ · (a + b · h)

S(w) is the share of a first week's people who are active w weeks later, over all first weeks of which that week is complete;
behind the last such week it falls by the ratio r by which the shares fell from the second week on. δ is the discount of a week, a
what an active week is worth, b what an hour is worth, h the hours of a person's active week. Fader and Hardie, "How to Project
Customer Retention" (2007), on S; the tail here is the plain geometric one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate import metrics
from palate.evaluation.measuring import Figure
from palate.report_params import LifetimeParams

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cohorts:
    """People by their first week."""

    first: int
    """Number of the first of n weeks."""
    active: Values
    """(parts of the people, n first weeks, n weeks since): how many were active then; 0 where that isn't complete."""


@dataclass(frozen=True)
class Lifetime:
    """What a person of a variant is worth."""

    value: Figure
    """In money, or in active weeks."""
    seen: float | None
    """How much of it lies in weeks that were seen; the rest follows from r."""
    weeks: int
    """Weeks that were seen."""
    ratio: float | None
    """r; None where fewer than three weeks were seen, and nothing is counted behind them."""

    def to_json(self) -> dict[str, object]:
        """As the command line answers."""
        return {**self.value.to_json(), "seen": self.seen, "weeks": self.weeks, "ratio": self.ratio}


def value(cohorts: Cohorts, hours: Values, params: LifetimeParams, random: np.random.Generator) -> Lifetime:
    """From the cohorts, and (parts, 2) hours and active weeks, with an interval by drawing parts."""
    counted = _counted(cohorts.active)
    weeks = int(np.count_nonzero(counted[:, 1].sum(axis=0)))  # later ones nobody has reached
    parts = np.concatenate([counted[:, :, :weeks].reshape(len(counted), -1), hours], axis=1)

    def finish(sums: Values) -> Values:
        return _worth(sums, weeks, params, params.horizon_weeks)

    if not weeks:
        return Lifetime(Figure(None), None, 0, None)
    total = parts.sum(axis=0)
    low, high = metrics.intervals_of_sums([(parts, finish)], random)[0]
    seen, ratio = float(_worth(total, weeks, params, min(weeks, params.horizon_weeks))), float(_ratio(total, weeks))
    return Lifetime(Figure(float(finish(total)), low, high), seen, weeks, None if np.isnan(ratio) else ratio)


def _counted(active: Values) -> Values:
    """(parts, 3, n): people active w weeks after their first; of the same first weeks, all, and those active a week before."""
    weeks = active.shape[1]
    seen = [active[:, : weeks - age] for age in range(weeks)]
    now = [part[:, :, age].sum(axis=1) for age, part in enumerate(seen)]
    begun = [part[:, :, 0].sum(axis=1) for part in seen]
    before = [part[:, :, max(age - 1, 0)].sum(axis=1) for age, part in enumerate(seen)]
    return np.array([now, begun, before]).reshape(3, weeks, len(active)).transpose(2, 0, 1)


def _worth(sums: Values, weeks: int, params: LifetimeParams, horizon: int) -> Values:
    """Sums (…, 3 · weeks + 2) to the value up to a horizon; NaN where nobody came."""
    now, begun = sums[..., :weeks], sums[..., weeks : 2 * weeks]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = now / begun  # NaN where nobody had come in time
    discount = (1 + params.yearly_discount) ** (-1 / 52)
    known = min(weeks, horizon)
    seen = np.nansum(shares[..., :known] * discount ** np.arange(known), axis=-1)
    tail = np.nan_to_num(shares[..., weeks - 1]) * discount ** (weeks - 1) * _geometric(sums, weeks, discount, horizon)
    worth = np.where(begun[..., 0] > 0, seen + tail, np.nan) * _week(sums[..., -2:], params)
    return np.asarray(worth, np.float64)


def _geometric(sums: Values, weeks: int, discount: float, horizon: int) -> Values:
    """Σ of (r·δ)ʲ over the weeks from the last seen to the horizon; 0 where there is no r."""
    step = np.nan_to_num(_ratio(sums, weeks)) * discount
    left = max(horizon - weeks, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(step < 1, step * (1 - step**left) / (1 - step), float(left))


def _ratio(sums: Values, weeks: int) -> Values:
    """By what the shares fall in a week from the second on, at most 1; NaN where fewer than three were seen."""
    if weeks < 3:
        return np.full(sums.shape[:-1], np.nan)
    later, earlier = sums[..., 2:weeks].sum(axis=-1), sums[..., 2 * weeks + 2 : 3 * weeks].sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(earlier > 0, np.minimum(later / earlier, 1.0), np.nan)


def _week(hours: Values, params: LifetimeParams) -> Values:
    """What an active week is worth."""
    if not params.priced:
        return np.ones(hours.shape[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(hours[..., 1] > 0, hours[..., 0] / hours[..., 1], 0.0)
    return (params.value_per_week or 0.0) + (params.value_per_hour or 0.0) * mean


def stated(params: LifetimeParams) -> list[str]:
    """The formula with its numbers, for people."""
    worth = []
    if params.value_per_week is not None:
        worth.append(f"{params.value_per_week:g} {params.currency}".strip() + " for each active week")
    if params.value_per_hour is not None:
        worth.append(f"{params.value_per_hour:g} {params.currency}".strip() + " for each hour")
    unit = " and ".join(worth) or "1 for each active week, since no money is set: it is the number of active weeks"
    return [
        "Lifetime value = Σ over w from 0 to "
        f"{params.horizon_weeks - 1} of S(w) · δ^w · (value of a week): S(w) is the share of people active w weeks after their "
        "first week, over all first weeks in this time of which that week is complete; behind the last it falls by the ratio "
        "r of the shares from the second week on, at most 1; δ discounts "
        f"{params.yearly_discount:.0%} a year. The value is {unit}.",
        "First weeks are those in the log: who came before the log began counts as new in its first week.",
    ]
