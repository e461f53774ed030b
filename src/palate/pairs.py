"""What people did with items, a place for each pair of a person and an item: as a cycle of training looks at it.

Pairs come from `interactions.merge` or from a window that is kept in memory; what is asked of them here means the same either
way. NumPy is enough for the first, so that a small installation's cycles load no compiler for it (the kernels of a window take 15
seconds to compile, once a machine, and a second to load). Of hundreds of millions NumPy would make copies that don't fit into
memory: for those each function has a loop beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate import pair_kernels as kernels
from palate.domain import Interactions, from_milliseconds
from palate.machine_code import compiled
from palate.matrix import Sparse
from palate.models import popularity
from palate.models.popularity import Clock, PopularityParams, Tally
from palate.pair_kernels import Fading
from palate.places import Mask, Places, Some, is_mask, places
from palate.vocabulary import Vocabulary, vocabulary
from palate.window.joining import Said
from palate.window.sorting import divided
from palate.window.threads import by_users, in_threads, offsets_of
from palate.window.view import View

Keys = NDArray[np.int64]
Floats = NDArray[np.float32]

PARTS = 8
"""Into which users are cut where sums of floats are added up: the same with any number of threads."""

WHOLE = 1 << 22
"""Pairs up to which they are added up in one: to add the parts' sums by item takes longer."""

PIECE = 1 << 14
"""Users whose histories are made at a time."""

DAYS = 2**32 // kernels.DAY + 1
"""That seconds in 32 bits count."""

LINE = 64
"""Bytes of a line of the processor's cache."""

HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class History:
    """The newest pairs of each of U people, oldest first, one person after the other."""

    offsets: Keys
    """(U + 1,)"""
    columns: NDArray[np.int32]
    labels: NDArray[np.float16]
    weights: NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs by user and item. Masks of pairs are (P,), also over those of people who are left out, who say nothing."""

    people: Vocabulary
    """All who have a pair."""
    kept: Mask
    """(people,): who isn't left out."""
    items: Vocabulary
    offsets: Keys
    """(people + 1,): where each one's pairs begin."""
    columns: NDArray[np.int32]
    """(P,): row of the item."""
    label: Floats
    """(P,): 0..1, NaN for no example."""
    time: NDArray[Any]
    """(P,): see `Interactions`, in steps of `unit` milliseconds."""
    unit: int
    weigh: Callable[[], Floats]
    """Finds `weight`."""
    threads: int | None
    """That share the loops of many pairs. None: NumPy alone."""

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def users(self) -> Vocabulary:
        """Who isn't left out."""
        return self.people if self.kept.all() else Vocabulary(self.people.keys[self.kept])

    @cached_property
    def weight(self) -> Floats:
        """(P,): see `Interactions`; found when it is first asked for."""
        found = self.weigh()
        if not self.kept.all():
            found[self.of_people(~self.kept)] = 0
        return found

    def of_people(self, which: Mask) -> Mask:
        """The pairs of these people (a mask of `people`)."""
        mask: Mask = np.repeat(which, np.diff(self.offsets))
        return mask

    def labelled(self, people: Mask) -> Mask:
        """The pairs of these people (a mask of `people`) that have a label."""
        if self.threads is None:
            return self.of_people(people) & ~np.isnan(self.label)
        found = np.empty(len(self), bool)
        self._run(lambda first, last: (kernels.labelled, first, last, self.offsets, self.label, people, found))
        return found

    def places(self, users: Keys) -> Places:
        """Where the pairs of these people (keys, each known) are."""
        rows = np.sort(self.people.rows(users))
        counts = self.offsets[rows + 1] - self.offsets[rows]
        ends = np.cumsum(counts)
        places: Places = np.arange(counts.sum()) + np.repeat(self.offsets[rows] - (ends - counts), counts)
        return places

    def rows(self, which: Some) -> Interactions:
        """These pairs in 32 bytes each; none of people who are left out."""
        at = places(which)
        people = np.searchsorted(self.offsets, at, side="right") - 1
        if not self.kept.all():
            at, people = at[self.kept[people]], people[self.kept[people]]
        return Interactions(
            user=self.people.keys[people],
            item=self.items.keys[self.columns[at]],
            label=self.label[at],
            weight=self.weight[at],
            time=self.time[at].astype(np.int64) * self.unit,
        )

    def keys(self, which: Some) -> tuple[Keys, Keys]:
        """Users and items of these pairs."""
        at = places(which)
        people = np.searchsorted(self.offsets, at, side="right") - 1
        return self.people.keys[people], self.items.keys[self.columns[at]]

    def counts(self, which: Some) -> Keys:
        """(people,): how many of these pairs each one has."""
        if not is_mask(which):
            at, plain = places(which), self.threads is None
            return np.diff(np.searchsorted(at, self.offsets).astype(np.int64) if plain else divided(at, self.offsets))
        if self.threads is None:
            people = np.repeat(np.arange(len(self.people)), np.diff(self.offsets))
            return np.bincount(people[which], minlength=len(self.people)).astype(np.int64)
        counts = np.zeros(len(self.people), np.int64)
        self._run(lambda first, last: (kernels.count, first, last, self.offsets, which, counts))
        return counts

    def labels(self, which: Some) -> Sparse:
        """(users, items): the labels of these pairs, each of which has one, in arrays of their own."""
        counts = self.counts(which)
        assert not counts[~self.kept].any(), "People who are left out say nothing."
        offsets = offsets_of(counts[self.kept])
        if self.threads is None or not is_mask(which):
            return Sparse(offsets, self.columns[which], self.label[which], len(self.items))
        starts, size = offsets_of(counts), int(offsets[-1])
        columns, values = np.empty(size, np.int32), np.empty(size, np.float32)
        rest = self.offsets, self.columns, self.label, which, starts, columns, values
        self._run(lambda first, last: (kernels.take, first, last, *rest))
        return Sparse(offsets, columns, values, len(self.items))

    def drawn(self, which: Mask, wanted: int, random: np.random.Generator) -> Places:
        """So many of these pairs, drawn by chance: one of each of so many neighbourhoods of the same size."""
        counts = self.counts(which)
        bounds = np.arange(wanted + 1) * int(counts.sum()) // max(wanted, 1)
        ranks = bounds[:-1] + (random.random(wanted) * np.diff(bounds)).astype(np.int64)
        if self.threads is None:
            return np.flatnonzero(which)[ranks]
        drawn = np.empty(wanted, np.int64)
        rest = self.offsets, which, offsets_of(counts), ranks, drawn
        self._run(lambda first, last: (kernels.draw, first, last, *rest))
        return drawn

    def late(self, all_: Mask, asked: Some) -> Places:
        """Which of `asked` are among the later half (rounded down) of their person's pairs in `all_`, which they are of."""
        at = places(asked)
        if self.threads is not None:
            found, starts = np.zeros(len(at), bool), offsets_of(self.counts(asked))
            rest = self.offsets, self.time, all_, at, starts, found
            self._run(lambda first, last: (kernels.late, first, last, *rest))
            return at[found]
        every, counts, late = np.flatnonzero(all_), self.counts(all_), np.zeros(len(self), bool)
        every = every[np.lexsort((self.time[every], np.repeat(np.arange(len(self.people)), counts)))]
        number = np.arange(len(every)) - np.repeat(np.cumsum(counts) - counts, counts)
        late[every] = number >= np.repeat((counts + 1) // 2, counts)
        return at[late[at]]

    def newest(self, which: Some, wanted: int) -> Places:
        """So many of these pairs, the newest; of equal times those of later people."""
        at = places(which)
        if wanted >= len(at) or not wanted:
            return at[:wanted]
        times = self.time[at]
        cut = np.partition(times, len(times) - wanted)[len(times) - wanted]
        later, ties = times > cut, np.flatnonzero(times == cut)
        later[ties[len(ties) - (wanted - int(later.sum())) :]] = True
        newest: Places = at[later]
        return newest

    def mean_label(self, which: Mask) -> float:
        """Of these pairs, which have one; NaN of none."""
        if self.threads is None:
            return float(np.mean(self.label[which], dtype=np.float64)) if which.any() else math.nan
        total, count = self._summed(
            (2,), np.float64, lambda *part: (kernels.total, *part, self.offsets, self.label, which)
        )
        return float(total / count) if count else math.nan

    def history(self, users: Vocabulary, items: Vocabulary, limit: int) -> History:
        """The newest `limit` pairs of each of these users; users and items are those of the pairs, and others."""
        lengths = np.where(self.kept, np.minimum(np.diff(self.offsets), limit), 0)
        counts = np.zeros(len(users), np.int64)
        counts[users.rows(self.users.keys)] = lengths[self.kept]
        columns, labels, weights = self._newest_of_each(lengths, limit)
        moved = items.rows(self.items.keys).astype(np.int32)
        if len(moved) and moved[-1] >= len(moved):  # else every item has the row that it had
            columns = moved[columns]
        return History(offsets_of(counts), columns, labels, weights)

    def _newest_of_each(self, lengths: Keys, limit: int) -> tuple[NDArray[np.int32], NDArray[Any], NDArray[Any]]:
        if self.threads is not None:
            return self._newest_by_parts(lengths)
        people = np.repeat(np.arange(len(self.people)), np.diff(self.offsets))
        order = np.lexsort((self.time, people))
        order = order[self.kept[people[order]] & (self.offsets[people[order] + 1] - np.arange(len(order)) <= limit)]
        return self.columns[order], self.label[order].astype(np.float16), _half(self.weight[order])

    def _newest_by_parts(self, lengths: Keys) -> tuple[NDArray[np.int32], NDArray[Any], NDArray[Any]]:
        starts = offsets_of(lengths)
        columns = np.empty(starts[-1], np.int32)
        labels, weights = np.empty(starts[-1], np.float16), np.empty(starts[-1], np.float16)

        def fill(part: int) -> None:
            first, last = part * PIECE, min((part + 1) * PIECE, len(self.people))
            to, own = slice(starts[first], starts[last]), starts[first : last + 1]
            found = np.empty(to.stop - to.start, np.float32), np.empty(to.stop - to.start, np.float32)
            weight = self.weight[self.offsets[first] : self.offsets[last]]
            source = self.offsets, self.time, self.columns, self.label, weight
            compiled(kernels.newest, first, last, *source, own, columns[to], *found)
            labels[to], weights[to] = found[0], _half(found[1])

        in_threads(fill, range(-(-len(self.people) // PIECE)), self.threads or 1)
        return columns, labels, weights

    def clock(self, which: Mask, until: int, params: PopularityParams) -> Clock:
        """The clock of what these pairs say up to the millisecond `until`, within the window of popularity."""
        earliest = _earliest(until, params)
        if self.threads is None:
            times = self.rows(which).time
            return popularity.clock_of(times[times >= earliest], until)
        said = self.time, self.label, self.weight, which, -(-earliest // self.unit)
        by_day = self._summed((DAYS,), np.int64, lambda *part: (kernels.by_day, *part, self.offsets, *said))
        days = np.flatnonzero(by_day)
        return popularity.clock(days, by_day[days], until)

    def tally(self, which: Mask, items: Vocabulary, until: int, params: PopularityParams, passing: Clock) -> Tally:
        """What these pairs, all of which say something, say of each of these items, which are those of the pairs, and others, up
        to the millisecond `until`: see `popularity.tally`.
        """
        if self.threads is None:
            return popularity.tally(self.rows(which), items, from_milliseconds(until), params, passing)
        fading = faded(passing, until, params.half_life_days)
        sums = self.sums(which, fading, earliest=_earliest(until, params))
        return popularity.summed_up(matrix.moved_rows(sums, items.rows(self.items.keys), len(items)))

    def sums(
        self, which: Mask, fading: Fading, *, after: int = -1, to: int = 2**63 - 1, earliest: int = 0
    ) -> NDArray[np.float64]:
        """(items, 8): see `kernels.by_item`, whose seconds are milliseconds here."""
        said = self.columns, self.time, self.label, self.weight, which
        seconds = after // self.unit, to // self.unit, -(-earliest // self.unit)
        call = lambda *part: (kernels.by_item, *part, self.offsets, *said, *seconds, fading)  # noqa: E731
        return self._summed((len(self.items), 8), np.float64, call)

    def _summed(self, shape: tuple[int, ...], dtype: Any, call: Callable[[int, int], tuple[Any, ...]]) -> NDArray[Any]:
        """The sum of what a kernel adds up over parts of the users in arrays of this shape, the last of its arguments."""
        parts = PARTS if len(self) > WHOLE else 1
        bounds = np.searchsorted(self.offsets, np.linspace(0, len(self), parts + 1))
        bounds[-1] = len(self.people)
        sums = [_by_lines(shape, dtype) for _ in range(parts)]

        def add(part: int) -> None:
            compiled(*call(int(bounds[part]), int(bounds[part + 1])), sums[part])

        in_threads(add, range(parts), self.threads or 1)
        return np.asarray(sum(sums)) if parts > 1 else sums[0]

    def _run(self, call: Callable[[int, int], tuple[Any, ...]]) -> None:
        by_users(self.offsets, self.threads or 1, call)


def _by_lines(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros that begin with a line of the processor's cache: a row of 64 bytes then lies in one, not across two."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    found: NDArray[Any] = room[start : start + size].view(dtype).reshape(shape)
    return found


def _earliest(until: int, params: PopularityParams) -> int:
    """The first millisecond of what popularity counts."""
    return 0 if params.window_days is None else max(0, math.ceil(until - params.window_days * popularity.DAY))


def faded(passing: Clock, until: int, half_life_days: float | None) -> Fading:
    """What is left of evidence by the millisecond `until`, as `kernels.by_item` looks it up."""
    assert half_life_days is not None, "The parameters are settled."
    knots = passing.moments / popularity.STEP
    first = int(knots[0])
    starts = np.arange(first, int(knots[-1]) + 1)
    coarse = np.exp2((passing.at(starts * popularity.STEP) - passing.at(until)) / half_life_days)
    pace = np.searchsorted(knots, starts, side="right")
    pace[-1] = 0
    passes = np.diff(passing.passed) / np.maximum(np.diff(knots), 1) / kernels.STEP
    fine = np.exp2(np.append(0, passes)[:, np.newaxis] * np.arange(kernels.STEP) / half_life_days)
    return Fading(first - 1, np.append(coarse[:1], coarse), np.append(0, pace).astype(np.int32), fine)


def of_interactions(interactions: Interactions) -> Pairs:
    """The pairs of few interactions."""
    users, items = vocabulary(interactions.user), vocabulary(interactions.item)
    return Pairs(
        people=users,
        kept=np.ones(len(users), bool),
        items=items,
        offsets=np.append(np.searchsorted(interactions.user, users.keys), len(interactions)).astype(np.int64),
        columns=items.rows(interactions.item).astype(np.int32),
        label=interactions.label,
        time=interactions.time,
        unit=1,
        weigh=lambda: interactions.weight.copy(),
        threads=None,
    )


def of_view(view: View, said: Said | None = None) -> Pairs:
    """The pairs of a window, whose arrays are used as they are, as also is what is `said` of each; None: that is found out."""
    content = view.window.sorted
    return Pairs(
        people=content.users,
        kept=view.kept,
        items=content.items,
        offsets=content.pairs,
        columns=content.columns,
        label=(said := said or said_of(view)).label,
        time=said.time,
        unit=1000,
        weigh=view.weights,
        threads=view.threads,
    )


def said_of(view: View) -> Said:
    """Label and time of each pair; people who are left out say nothing."""
    label, time = view.labels_and_times()
    if not view.kept.all():
        label[np.repeat(~view.kept, np.diff(view.window.sorted.pairs))] = np.nan
    return Said(label, time)


def _half(weights: Floats) -> NDArray[np.float16]:
    return np.clip(weights, -HALF, HALF).astype(np.float16)
