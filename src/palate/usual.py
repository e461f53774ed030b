"""What is usual: the range of a figure that is taken every day, a source that falls silent, an account that no hand moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WEEK = 7
SAME_WEEKDAYS = 2
"""Days of the same weekday from which on a weekday has a range of its own."""
OF_NORMAL = 1.4826
"""What a median absolute deviation is taken times to be the standard deviation of a normal distribution."""
DRIFT = 0.1
"""Share of its median by which a figure may move with nothing behind it."""
STEADY = 0.15
"""A timer's pauses deviate by less than this share of their mean; those of a person by more than their mean."""
HOUR = 3_600_000
"""Milliseconds."""


@dataclass(frozen=True)
class Taken:
    """A figure of one day: a count, or how many of `out_of` things."""

    count: float
    out_of: float | None = None
    """None for a plain count."""

    @property
    def value(self) -> float:
        """The count, or the share; 0 of nothing."""
        if self.out_of is None:
            return self.count
        return self.count / self.out_of if self.out_of else 0.0


@dataclass(frozen=True)
class Range:
    """From where to where a figure usually lies."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether the figure is usual."""
        return self.low <= value <= self.high


def usual_range(past: Sequence[Taken | None], today: Taken, deviations: float) -> Range:
    """Where the figure usually lies, from those of the days before, the newest last; None where a day has none.

    All days have a range, and those of today's weekday one of their own where enough are known; usual is what lies in one of
    them, so that a quiet Sunday is no alarm. A range is the median and `deviations` times what a figure deviates by: what the
    days did (by their median absolute deviation), the noise of counting (Poisson; binomial of a share) and a tenth.
    """
    known = [one for one in past if one is not None]
    same = [one for one in past[-WEEK::-WEEK] if one is not None]
    ranges = [_range(days, today, deviations) for days in (known, same) if len(days) >= SAME_WEEKDAYS]
    assert ranges, "A range is asked for where days are known."
    return Range(min(one.low for one in ranges), max(one.high for one in ranges))


def _range(days: Sequence[Taken], today: Taken, deviations: float) -> Range:
    values = np.array([one.value for one in days])
    middle = float(np.median(values))
    spread = OF_NORMAL * float(np.median(np.abs(values - middle)))
    reach = deviations * math.sqrt(spread**2 + _noise(middle, today) + (DRIFT * middle) ** 2)
    return Range(max(0.0, middle - reach), middle + reach if today.out_of is None else min(1.0, middle + reach))


def _noise(middle: float, today: Taken) -> float:
    """Variance of counting alone. One more thing than there was is always thought of: no count is sure of its 0."""
    if today.out_of is None:
        return middle + 1.0
    size = max(today.out_of, 1.0)
    return middle * (1 - middle) / size + 1 / size**2


def missed(arrivals: Sequence[float]) -> float:
    """How many things a source would have given since its last, going by its days until then; the newest day last.

    0 where it has never given anything, or gave something on the last day.
    """
    given = np.flatnonzero(np.asarray(arrivals))
    if not len(given):
        return 0.0
    first, last = given[0], given[-1]
    return float(np.sum(arrivals) / (last - first + 1) * (len(arrivals) - 1 - last))


def machine_like(times: NDArray[np.int64]) -> str | None:
    """Why an account with these acts of a day (milliseconds, ascending) is moved by no hand, in words; None if it may be.

    Either its pauses are all alike, or it never sleeps, or it decides faster than anybody reads.
    """
    gaps = np.diff(times).astype(np.float64)
    if not len(gaps):
        return None
    if np.median(gaps) < 300:
        return "most of its acts lie within 0.3 seconds of the one before"
    if gaps.std() < STEADY * gaps.mean():
        return "the pauses between its acts are all alike"
    if len(np.unique(times // HOUR % 24)) == 24:
        return "it acted in every hour of the day"
    return None
