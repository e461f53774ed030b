"""Candidates that still hold: whoever asks for the next page a moment later has rarely done what changes them.

What may be served is looked at closely afterwards in any case, so nothing comes that has been met, hidden or taken back since,
and what came since is always among them. All that can be missed for a minute is an old item that would stand behind these.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from palate import finding
from palate.candidates.found import bit
from palate.candidates.wanted import Wanted
from palate.feed_params import FeedParams
from palate.finding import Found
from palate.lately import Lately
from palate.live import History
from palate.pool import Pool
from palate.ranking.scoring import Judgement
from palate.ranking.taste import Taste
from palate.stock import Stock

LONGEST = timedelta(minutes=1)
"""For which candidates hold."""
MOST_MET = 100
"""Items shown since they were found from which on others may be as good as those that are left."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What was found, and all that it follows from. Items aren't kept alive by it."""

    rows: NDArray[np.int64]
    """(m,) of the base, ascending."""
    by: NDArray[np.uint16]
    """(m,) bits of the ways that found each."""
    beside: NDArray[np.int64]
    """(s,) keys of those beside the base, and by which ways they were found."""
    beside_by: NDArray[np.uint16]
    side: NDArray[np.int64]
    """Keys of all that was beside it."""
    base: weakref.ref[Pool]
    taste: Taste
    asked: tuple[Hashable, ...]
    params: FeedParams
    found: datetime
    met: int
    """Items of the person's history …"""
    liked: int
    """… and how many of them they took to."""


Memory = Lately[tuple[int, ...], Kept]
"""What was found last for people, by the keys of their ids."""


def find(memory: Memory, stock: Stock, wanted: Wanted, judgement: Judgement, params: FeedParams) -> Found:
    """What `finding.find` gives, sought anew only where something else than a page of items has come since."""
    if not _may_return(wanted):
        return finding.find(stock, wanted, judgement, params)
    before = memory.get(wanted.person.keys)
    if before is not None and _holds(before, stock, wanted, judgement, params):
        came = np.setdiff1d(stock.side.keys, before.side, assume_unique=True)
        if len(came) <= params.find.new:  # of a burst those are found that fit
            return _again(before, stock, came)
    found = finding.find(stock, wanted, judgement, params)
    if found.rows is not None:
        memory.add({wanted.person.keys: _kept(found.rows, found.by, stock, wanted, judgement, params)})
    return found


def _may_return(wanted: Wanted) -> bool:
    """Whether what stays out of this call stays out of the next: not so where the caller names it."""
    named = len(wanted.given) + len(wanted.excluded)
    return bool(wanted.person.keys) and wanted.among is None and not named


def _holds(before: Kept, stock: Stock, wanted: Wanted, judgement: Judgement, params: FeedParams) -> bool:
    history = wanted.person.history
    return (
        before.base() is stock.base
        and before.taste is judgement.taste
        and timedelta(0) <= wanted.now - before.found < LONGEST
        and len(history) - before.met <= MOST_MET
        and before.params == params
        and before.asked == _asked(wanted)
        and before.liked == _liked(history)
    )


def _asked(wanted: Wanted) -> tuple[Hashable, ...]:
    person = wanted.person
    of_person = person.hidden, person.followed, person.topics, person.languages, person.viewer
    return wanted.surface, wanted.window, wanted.language, wanted.category, wanted.labels, of_person


def _liked(history: History) -> int:
    return int(np.count_nonzero((history.labels > 0.5) | (history.weights > 0)))


def _kept(
    rows: NDArray[np.int64],
    by: NDArray[np.uint16],
    stock: Stock,
    wanted: Wanted,
    judgement: Judgement,
    params: FeedParams,
) -> Kept:
    inside, history = rows < len(stock.base), wanted.person.history
    return Kept(
        rows=rows[inside],
        by=by[inside],
        beside=stock.keys(rows[~inside]),
        beside_by=by[~inside],
        side=stock.side.keys,
        base=weakref.ref(stock.base),
        taste=judgement.taste,
        asked=_asked(wanted),
        params=params,
        found=wanted.now,
        met=len(history),
        liked=_liked(history),
    )


def _again(before: Kept, stock: Stock, came: NDArray[np.int64]) -> Found:
    """Those that are still there, and what came since (keys)."""
    stay = ~np.isin(before.rows, stock.gone) if len(stock.gone) else np.ones(len(before.rows), bool)
    beside = stock.side.rows(np.append(before.beside, came))
    by = np.append(before.beside_by, np.full(len(came), bit("new"), np.uint16))
    rows = np.concatenate((before.rows[stay], beside[beside >= 0] + len(stock.base)))
    return finding.of_rows(stock, rows, np.append(before.by[stay], by[beside >= 0]))
