"""How often things were shown, viewed, liked and refused lately: counts that fade, of items and people, and of groups of items.

A snapshot holds the counts up to its last event; serving adds what came since. A count fades by halves, over an hour, a day,
a week, or never (Cohen and Strauss, "Maintaining Time-Decaying Stream Aggregates", 2006): so it takes four numbers, however
long the log is, and counts of different moments can be added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.domain import EventColumns
from palate.interactions import EventType
from palate.vocabulary import Vocabulary

Floats = NDArray[np.float32]

HOUR = 3_600_000
"""Milliseconds."""

HALF_LIVES = np.array([1, 24, 168, np.inf])
"""Hours."""

EVER = 3
"""Of them the one by which nothing is forgotten."""

KINDS = ("shown", "viewed", "liked", "refused")
SHOWN, VIEWED, LIKED, REFUSED = range(4)
CELLS = len(KINDS) * len(HALF_LIVES)
"""Numbers kept of a thing."""

RETRACT = "retract:"
"""How the types begin by which one type is undone. What undoes all types at once isn't counted: it doesn't say what there was."""

LIMIT = 200_000
"""Things counted since the snapshot that are kept when there are more by one in `SLACK`: those of which most was heard lately."""

SLACK = 16

CLOCK = 12 * HOUR
"""How long counts are added to at the moment they have, which moves none of them: an event of an hour later weighs twice as
much."""


@dataclass(frozen=True, eq=False)
class Counts:
    """What happened to n things up to a moment."""

    keys: Vocabulary
    """(n,)"""
    values: Floats
    """(n, KINDS, HALF_LIVES)"""
    time: int
    """Milliseconds since 1970, to which the values have faded."""

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, keys: NDArray[np.int64], now: int) -> Floats:
        """(m, KINDS, HALF_LIVES) of these things at this moment; zero for those of which nothing is known."""
        return self.at_rows(self.keys.rows(keys), now)

    def at_rows(self, rows: NDArray[np.int64], now: int) -> Floats:
        """The same by row; −1 finds zero."""
        flat = self.values.reshape(len(self), CELLS)
        found = flat[rows] if len(flat) else np.zeros((len(rows), CELLS), np.float32)
        found[rows < 0] = 0
        found *= np.tile(faded(self.time, now), len(KINDS))  # as rows of all columns: those of four take longest
        return found.reshape(len(rows), *self.values.shape[1:])

    def ever(self, rows: NDArray[np.int64], kind: int) -> Floats:
        """(m,) how often this one of KINDS happened to the things of these rows, nothing forgotten; −1 finds zero."""
        found = np.zeros(len(rows), np.float32)
        known = np.flatnonzero(rows >= 0)
        found[known] = self.values[rows[known], kind, EVER]
        return found


def nothing(time: int = 0) -> Counts:
    """Of no things."""
    return Counts(Vocabulary(np.zeros(0, np.int64)), np.zeros((0, len(KINDS), len(HALF_LIVES)), np.float32), time)


def kinds(names: Sequence[str], types: Mapping[str, EventType]) -> NDArray[np.int8]:
    """Which of KINDS each type of event counts as, or takes back where it is a retraction of one; −1 for none."""
    plain = [name.removeprefix(RETRACT) for name in names]
    return np.array([_kind(name, types.get(name)) for name in plain], np.int8)


def _kind(name: str, meaning: EventType | None) -> int:
    if name == "shown":
        return SHOWN
    if meaning is None:
        return -1
    if meaning.positive is True:
        return LIKED
    if meaning.positive is False:
        return REFUSED
    return VIEWED if meaning.viewed or meaning.positive == "value" else -1


@dataclass(frozen=True, eq=False)
class Activity:
    """Counts of items and of people, up to one moment."""

    items: Counts
    users: Counts

    @property
    def time(self) -> int:
        """Milliseconds since 1970."""
        return self.items.time


def counted(before: Activity, events: EventColumns, types: Mapping[str, EventType], now: int) -> Activity:
    """With these events as well, all faded to `now`, which is no earlier than the moment of what is there. What claims to have
    happened later than now happened now.

    A retraction takes away as much as an event of its moment adds. The count that never fades is right then; those that fade are
    once it was taken back soon, and else too low for a while: below 0 at the worst, which readers take for 0.
    """
    new = told(events, types, max(now, before.time))
    return Activity(together(before.items, new.items), together(before.users, new.users))


def told(events: EventColumns, types: Mapping[str, EventType], now: int) -> Activity:
    """The counts of these events alone, as `counted` says."""
    kind = kinds(events.types, types)[events.type]
    sign = np.array([-1 if name.startswith(RETRACT) else 1 for name in events.types], np.float32)[events.type]
    known = np.flatnonzero(kind >= 0)
    age = np.maximum(now - events.time[known], 0) / HOUR
    weights = (sign[known, np.newaxis] * np.exp2(-age[:, np.newaxis] / HALF_LIVES)).astype(np.float32)
    return Activity(
        _summed(events.item[known], kind[known], weights, now), _summed(events.user[known], kind[known], weights, now)
    )


def _summed(keys: NDArray[np.int64], kind: NDArray[np.int8], weights: Floats, now: int) -> Counts:
    if not len(keys):
        return nothing(now)
    cells = keys * len(KINDS) + kind
    order = np.argsort(cells, kind="stable")
    starts = _starts(cells[order])
    sums, cells = np.add.reduceat(weights[order], starts, axis=0), cells[order][starts]
    things = cells // len(KINDS)
    first = _starts(things)
    values = np.zeros((len(first), len(KINDS), len(HALF_LIVES)), np.float32)
    values[np.repeat(np.arange(len(first)), np.diff(first, append=len(things))), cells % len(KINDS)] = sums
    return Counts(Vocabulary(things[first]), values, now)


def _starts(ascending: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the numbers comes first; there is one at least."""
    return np.concatenate(([0], np.flatnonzero(ascending[1:] != ascending[:-1]) + 1))


def continued(before: Counts, new: Counts) -> Counts:
    """The sum of both, where `new` are few and no older: at the moment that `before` has, as long as that isn't long ago."""
    if new.time - before.time > CLOCK:
        before = Counts(before.keys, before.at_rows(np.arange(len(before)), new.time), new.time)
    keys, rows = new.keys.keys, before.keys.rows(new.keys.keys)
    fresh = keys[rows < 0]
    if len(fresh):
        places = np.searchsorted(before.keys.keys, fresh)
        every = Vocabulary(np.insert(before.keys.keys, places, fresh))
        values = np.insert(before.values, places, np.float32(0), axis=0)
        rows = every.rows(keys)
    else:
        every, values = before.keys, before.values.copy()
    values[rows] += new.values / faded(before.time, new.time)
    return Counts(every, values, before.time)


def both(before: Activity, new: Activity) -> Activity:
    """What `continued` gives, of items and of people."""
    return Activity(continued(before.items, new.items), continued(before.users, new.users))


def limited(activity: Activity, limit: int = LIMIT) -> Activity:
    """With about so many items, and people, those of which most was heard within a day or so."""
    return Activity(_limited(activity.items, limit), _limited(activity.users, limit))


def _limited(counts: Counts, limit: int) -> Counts:
    if len(counts) <= limit + limit // SLACK:
        return counts
    kept = _loudest(counts, limit)
    return Counts(Vocabulary(counts.keys.keys[kept]), counts.values[kept], counts.time)


def loudest(counts: Counts, limit: int) -> NDArray[np.int64]:
    """Keys, ascending, of at most so many things, those of which most was heard within a day or so."""
    return counts.keys.keys if len(counts) <= limit else counts.keys.keys[_loudest(counts, limit)]


def _loudest(counts: Counts, limit: int) -> NDArray[np.int64]:
    heard = counts.values[:, :, 1].sum(axis=1)
    least = np.partition(heard, len(heard) - limit)[len(heard) - limit]
    kept = heard > least
    kept[np.flatnonzero(heard == least)[: limit - np.count_nonzero(kept)]] = True
    return np.flatnonzero(kept)


def together(first: Counts, second: Counts) -> Counts:
    """The sum of both, at the later moment."""
    now = max(first.time, second.time)
    every = first.keys.extended(second.keys.keys)
    values = first.of(every.keys, now) + second.of(every.keys, now)
    return Counts(every, values, now)


def not_below_zero(counts: Counts) -> Counts:
    """As they are to be read."""
    return Counts(counts.keys, np.maximum(counts.values, 0), counts.time)


def grouped(items: Counts, group: NDArray[np.integer[Any]]) -> Counts:
    """Counts of groups: `group` (n,) is that of each of the items, below 0 for none."""
    known = np.flatnonzero(group >= 0)
    if not len(known):
        return nothing(items.time)
    order = known[np.argsort(group[known], kind="stable")]
    keys = group[order].astype(np.int64)
    starts = _starts(keys)
    return Counts(Vocabulary(keys[starts]), np.add.reduceat(items.values[order], starts, axis=0), items.time)


def faded(then: int, now: int) -> Floats:
    """(HALF_LIVES,) what is left of a count after that time."""
    return np.exp2(-max(now - then, 0) / HOUR / HALF_LIVES).astype(np.float32)


# --- in a snapshot --------------------------------------------------------------------------------------------------------


def to_arrays(activity: Activity, users: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """What a snapshot holds: of items those that were counted, of people all of its `users`, ascending."""
    return {
        "activity_item_keys": activity.items.keys.keys,
        "activity_items": activity.items.values,
        "activity_users": activity.users.of(users, activity.time),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]], time: int) -> Activity | None:
    """What a snapshot holds, on its arrays, as of this moment; None where it holds none."""
    if "activity_items" not in arrays:
        return None
    items = Counts(Vocabulary(np.asarray(arrays["activity_item_keys"])), arrays["activity_items"], time)
    return Activity(items, Counts(Vocabulary(np.asarray(arrays["users"])), arrays["activity_users"], time))
