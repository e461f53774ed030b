"""Sums by item for popularity, kept from one cycle to the next: what came is added, what left or changed is taken away.

What a pair says fades by a clock (`popularity.Clock`). Full cycles set it; each incremental one lets it go on, and what it said
of earlier times stays, so sums of the past fade all alike. They are those that counting all pairs by that clock gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate import matrix, pairs
from palate.models import popularity
from palate.models.popularity import Clock, Tally
from palate.pairs import Pairs
from palate.places import Mask
from palate.vocabulary import Vocabulary

DECAYED = slice(3)
"""Columns of sums that fade."""


@dataclass(frozen=True, eq=False)
class RunningTally:
    """What all pairs up to the moment `clock.until` say, as of that moment."""

    items: Vocabulary
    sums: NDArray[np.float64]
    """(items, 8): see `pair_kernels.by_item`."""
    clock: Clock
    half_life_days: float


class Change(NamedTuple):
    """Some pairs, and which of them say something that is learned from."""

    pairs: Pairs
    which: Mask


def counted(given: Pairs, which: Mask, clock: Clock, half_life_days: float) -> RunningTally:
    """From all pairs, of which `which` say something."""
    fading = pairs.faded(clock, clock.until, half_life_days)
    return RunningTally(given.items, given.sums(which, fading, to=clock.until), clock, half_life_days)


def changed(old: RunningTally, lost: Sequence[Change], came: Change) -> RunningTally:
    """After some pairs have left, or said what `lost` says, and others have come, or say what `came` says now; the items are
    those of the latter.
    """
    items, clock = came.pairs.items, old.clock
    fading = pairs.faded(clock, clock.until, old.half_life_days)
    sums = matrix.moved_rows(old.sums, items.rows(old.items.keys), len(items))
    for given, which in lost:
        if which.any():
            left = given.sums(which, fading, to=clock.until)
            sums -= matrix.moved_rows(left, items.rows(given.items.keys), len(items))
    sums += came.pairs.sums(came.which, fading, to=clock.until)
    return replace(old, items=items, sums=sums)


def progress(clock: Clock, given: Pairs, which: Mask, now: int) -> tuple[Clock, int]:
    """The clock gone on to the newest of these pairs, and that moment (at most `now`, milliseconds); they are all that say
    something later than `clock.until`, and others.
    """
    times = given.time[which].astype(np.int64) * given.unit
    until = max(clock.until, min(now, int(times.max(initial=clock.until))))
    return popularity.going_on(clock, until, int(((times > clock.until) & (times <= until)).sum())), until


def proceeded(old: RunningTally, given: Pairs, which: Mask, clock: Clock) -> RunningTally:
    """With what these pairs say between its moment and that of the `clock`, which is its own or has gone on from it."""
    passed = float(clock.at(clock.until) - clock.at(old.clock.until))
    sums = old.sums.copy()
    sums[:, DECAYED] *= np.exp2(-passed / old.half_life_days)
    fading = pairs.faded(clock, clock.until, old.half_life_days)
    sums += given.sums(which, fading, after=old.clock.until, to=clock.until)
    return replace(old, sums=sums, clock=clock)


def as_of(given: RunningTally, until: int, later: Pairs, which: Mask, items: Vocabulary) -> Tally:
    """The sums as of the millisecond `until`, with what those of `later` pairs say that it hasn't counted; for these items, and
    others.
    """
    clock, sums = given.clock, given.sums.copy()
    sums[:, DECAYED] *= np.exp2(float(clock.at(clock.until) - clock.at(until)) / given.half_life_days)
    sums += later.sums(which, pairs.faded(clock, until, given.half_life_days), after=clock.until)
    sums[np.abs(sums) < TRACE] = 0
    return popularity.summed_up(matrix.moved_rows(sums, items.rows(given.items.keys), len(items)))


TRACE = 1e-9
"""Below it a sum is what adding and taking away leaves of nothing."""
