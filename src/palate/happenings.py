"""What serving knows beside pool and person, of this moment: counts of what happened lately, and where texts stand.

The snapshot's part is on its arrays; what came since is followed in the log, a page at a time, by whoever keeps the pool fresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import activity, columns, hot_columns, identities
from palate.activity import Activity, Counts
from palate.domain import EventColumns, to_milliseconds
from palate.interactions import EventType
from palate.lately import Lately
from palate.log_tail import LogTail
from palate.pool import Pool
from palate.snapshots import Snapshot
from palate.spaces import Spaces
from palate.vocabulary import Vocabulary

PAGE = 10_000
"""Events read at a time."""
PAGES = 10
"""Of them at one look: who comes back after long catches up in several."""

GROUPS = ("source", "category", "story")
"""Columns of the pool by which items are counted together."""

NEW = 4_000
"""Items, or people, of the newest counts from which on they are added to the others."""

HOT = 2_000
"""Items of which most was heard lately, which the light ranker is told of."""


def _empty() -> Activity:
    return Activity(activity.nothing(), activity.nothing())


class Part(NamedTuple):
    """Counts of some items."""

    values: NDArray[np.float32]
    """(counted, KINDS, HALF_LIVES), never to be written to."""
    rows: NDArray[np.int64]
    """(n,) of each item among them, −1 for one of which nothing was heard."""
    left: NDArray[np.float32]
    """(HALF_LIVES,) what is left of them by now."""


def _read_only(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Like the arrays of a snapshot: to machine code an array that may be written to is another kind."""
    found = values.view(np.ndarray)
    found.flags.writeable = False
    return found


@dataclass(frozen=True, eq=False)
class Happenings:
    """One consistent state; at first nothing is known."""

    snapshot: Snapshot | None = None
    spaces: Spaces | None = None
    """Where texts stand."""
    seq: int = 0
    """The last event that was counted."""
    learned: Activity = field(default_factory=_empty)
    """Up to the snapshot."""
    recent: Activity = field(default_factory=_empty)
    """Since then, but what is newest …"""
    newest: Activity = field(default_factory=_empty)
    """… which is little, so that a few events don't make a copy of all."""
    pool: Pool | None = None
    """That tells the group of each item."""
    learned_groups: Mapping[str, Counts] = field(default_factory=dict)
    sums: Mapping[str, Counts] = field(default_factory=dict)
    """Of each of GROUPS, all that happened to items of `pool`; keys are what its column holds."""
    groups: Mapping[str, Counts] = field(default_factory=dict)
    """The same, never below zero."""
    learned_rows: NDArray[np.int32] = field(default_factory=lambda: np.full(1, -1, np.int32))
    """(I + 1,) of each item of the snapshot its row in `learned`, −1 for none; the last is none."""
    sum: Counts = field(default_factory=lambda: _sum(activity.nothing()))
    """Of all items together, all that happened."""
    learned_hot: Vocabulary = field(default_factory=lambda: Vocabulary(np.zeros(0, np.int64)))
    """Items of which most had been heard by the snapshot …"""
    loud: Vocabulary = field(default_factory=lambda: Vocabulary(np.zeros(0, np.int64)))
    """… and since then."""
    hot: Counts = field(default_factory=activity.nothing)
    """Of items of which most was heard lately, all that happened: few enough to be found among many candidates at once."""
    totals: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((len(activity.KINDS), len(activity.HALF_LIVES)), np.float32)
    )
    """(KINDS, HALF_LIVES) of all items, at the moment of `hot`."""
    worked_out: Lately[int, Any] = field(default_factory=lambda: Lately(4))
    """What rankers make of these counts at each of the last seconds, the same for all who ask within it."""

    def of_items(
        self, keys: NDArray[np.int64], now: int, rows: NDArray[np.integer] | None = None
    ) -> NDArray[np.float32]:
        """(n, KINDS, HALF_LIVES) what happened to these items; `rows` are theirs in the snapshot, −1 for none (None: they are
        looked for)."""
        learned = self.learned.items
        counted = learned.keys.rows(keys) if rows is None else self._counted(keys, rows)
        found: NDArray[np.float32] = learned.at_rows(counted, now) + self.recent.items.of(keys, now)
        found += self.newest.items.of(keys, now)
        return np.maximum(found, np.float32(0))

    def shown(self, keys: NDArray[np.int64], rows: NDArray[np.integer] | None = None) -> NDArray[np.float32]:
        """(n,) how often these items were ever shown; `rows` as in `of_items`."""
        learned = self.learned.items
        found = learned.ever(learned.keys.rows(keys) if rows is None else self._counted(keys, rows), activity.SHOWN)
        for later in (self.recent.items, self.newest.items):
            found += later.ever(later.keys.rows(keys), activity.SHOWN)
        return np.maximum(found, np.float32(0))

    def parts_of_items(self, keys: NDArray[np.int64], now: int, rows: NDArray[np.integer]) -> tuple[Part, ...]:
        """The parts that `of_items` adds up: up to the snapshot, since then, and the newest."""
        found = [(self.learned.items, self._counted(keys, rows))]
        found += [(later.items, later.items.keys.rows(keys)) for later in (self.recent, self.newest)]
        return tuple(Part(_read_only(of.values), own, activity.faded(of.time, now)) for of, own in found)

    def of_all(self, now: int) -> NDArray[np.float32]:
        """(KINDS, HALF_LIVES) what happened to all items together."""
        return self.totals * activity.faded(self.hot.time, now)

    def _counted(self, keys: NDArray[np.int64], rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Their rows among what was counted up to the snapshot."""
        counted: NDArray[np.int64] = self.learned_rows[rows].astype(np.int64)
        unknown = np.flatnonzero(rows < 0)
        counted[unknown] = self.learned.items.keys.rows(keys[unknown])
        return counted

    def of_user(self, key: int, now: int) -> NDArray[np.float32]:
        """(KINDS, HALF_LIVES) what this person met and did."""
        keys = np.array([key], np.int64)
        every = (self.learned, self.recent, self.newest)
        found = sum((counted.users.of(keys, now)[0] for counted in every), np.zeros_like(self.totals))
        return np.maximum(found, np.float32(0))

    def texts(self, keys: NDArray[np.int64], rows: NDArray[np.integer] | None = None) -> NDArray[np.float32] | None:
        """(n, DIRECTIONS) where these items stand by their texts, zero for those without words; None where no text is known.

        `rows` are theirs in the snapshot, −1 for none; None: they are looked for.
        """
        return None if self.spaces is None else self.spaces.texts(keys, rows)


def refreshed(
    before: Happenings,
    connection: sa.Connection,
    snapshot: Snapshot | None,
    pool: Pool,
    types: Mapping[str, EventType],
    now: datetime,
    tail: LogTail,
) -> Happenings:
    """The state by now; what was there is taken along where it still holds. Cheap when little happened: only what is new is
    counted, unless the pool is another one."""
    found = before if snapshot is before.snapshot else _taken_up(snapshot, pool)
    return continued(found, _since(connection, found.seq, tail), pool, types, now)


def continued(
    before: Happenings, happened: EventColumns, pool: Pool, types: Mapping[str, EventType], now: datetime
) -> Happenings:
    """With these events as well, and by the groups that the pool tells."""
    if before.pool is pool and not len(happened):
        return before
    moment, found = to_milliseconds(now), before
    if len(happened):
        found = _with_new(before, activity.told(happened, types, moment), pool)
        found = replace(found, seq=int(happened.seq[-1]))
    if found.pool is not pool:
        found = replace(found, pool=pool, sums=_sums(found, pool))
    groups = {name: activity.not_below_zero(counts) for name, counts in found.sums.items()}
    totals = np.maximum(found.sum.at_rows(np.zeros(1, np.int64), moment)[0], 0)
    return replace(found, groups=groups, totals=totals, hot=_hot(found, moment), worked_out=Lately(4))


def _with_new(before: Happenings, new: Activity, pool: Pool) -> Happenings:
    found = replace(_with_newest(before, new), sum=activity.continued(before.sum, _sum(new.items)))
    if before.pool is pool:
        of_groups = _by_group(new.items, pool)
        sums = {name: activity.continued(counts, of_groups[name]) for name, counts in before.sums.items()}
        found = replace(found, sums=sums)
    return replace(found, loud=_loud(found, new.items))


def _with_newest(before: Happenings, new: Activity) -> Happenings:
    newest = activity.both(before.newest, new) if len(before.newest.items) + len(before.newest.users) else new
    if max(len(newest.items), len(newest.users)) <= NEW:
        return replace(before, newest=newest)
    return replace(before, recent=activity.limited(activity.both(before.recent, newest)), newest=_empty())


def _loud(found: Happenings, new: Counts) -> Vocabulary:
    """Items of which most was heard: all fade alike, so that those of which nothing is new don't overtake one another."""
    if len(new) and new.values.min() < 0:  # what fell makes room for others
        rivals = found.recent.items.keys.extended(found.newest.items.keys.keys)
    else:
        rivals = found.loud.extended(new.keys.keys)
    if len(rivals) <= HOT:
        return rivals
    heard = found.recent.items.of(rivals.keys, new.time) + found.newest.items.of(rivals.keys, new.time)
    return Vocabulary(activity.loudest(Counts(rivals, heard, new.time), HOT))


def _hot(found: Happenings, now: int) -> Counts:
    keys = found.learned_hot.extended(found.loud.keys)
    return Counts(keys, found.of_items(keys.keys, now), now)


def _taken_up(snapshot: Snapshot | None, pool: Pool) -> Happenings:
    """What a snapshot says; one from before activity was counted says nothing, and what came since is counted."""
    if snapshot is None:
        return Happenings()
    seq, time = int(snapshot.header["seq"]), int(snapshot.header.get("activity_time", 0))
    learned = activity.from_arrays(snapshot.arrays, time) or _empty()
    rows = learned.items.keys.rows(np.asarray(snapshot.arrays["items"]))
    return Happenings(
        snapshot=snapshot,
        seq=seq,
        learned=learned,
        learned_groups=_by_group(learned.items, pool),
        learned_rows=np.append(rows, -1).astype(np.int32),
        sum=_sum(learned.items),
        learned_hot=Vocabulary(activity.loudest(learned.items, HOT)),
    )


def _by_group(items: Counts, pool: Pool) -> dict[str, Counts]:
    """Of the items that are in the pool."""
    rows = pool.rows(items.keys.keys)
    inside = Counts(Vocabulary(items.keys.keys[rows >= 0]), items.values[rows >= 0], items.time)
    return {name: activity.grouped(inside, getattr(pool, name)[rows[rows >= 0]]) for name in GROUPS}


def _sums(found: Happenings, pool: Pool) -> dict[str, Counts]:
    """The counts of groups, anew."""
    learned, since = found.learned_groups, _by_group(activity.together(found.recent.items, found.newest.items), pool)
    return {name: activity.together(learned[name], since[name]) if name in learned else since[name] for name in GROUPS}


def _sum(counts: Counts) -> Counts:
    """Of all of them together, under the key 0."""
    values: NDArray[np.float32] = counts.values.sum(axis=0, dtype=np.float32)[np.newaxis]
    return Counts(Vocabulary(np.zeros(1, np.int64)), values, counts.time)


def _since(connection: sa.Connection, seq: int, tail: LogTail) -> EventColumns:
    """What the log holds after this event, users resolved to persons; about so many pages of it at most. `connection` has read
    nothing yet: so whatever others wrote before the last of `tail` is there."""
    pages = list(islice(_pages(connection, seq, tail.after(seq)), PAGES))
    log = columns.Log(sum(map(len, pages)), columns.persons(identities.joined(connection) if pages else {}))
    for page in pages:
        log.add(page)
    return log.columns()


def _pages(connection: sa.Connection, seq: int, written: Sequence[EventColumns]) -> Iterator[EventColumns]:
    for own in written:
        if seq + 1 < own.seq[0]:
            yield from hot_columns.small_pages(connection, seq, int(own.seq[0]))
        yield own
        seq = int(own.seq[-1])
    yield from hot_columns.small_pages(connection, seq)
