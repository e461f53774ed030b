"""Runs sorted into one array of events by user, item and log, and what that tells of each user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.interactions import InteractionParams
from palate.machine_code import compiled
from palate.places import Places
from palate.vocabulary import Vocabulary
from palate.window import kernels
from palate.window.kernels import Records
from palate.window.meaning import halves, rules_of
from palate.window.runs import CHUNK, Run, distinct, is_dense
from palate.window.threads import by_users, in_threads, offsets_of

BLOCK = 1 << 17
"""Appended events of neighbouring users that are sorted together: what fits into the processor's cache."""

LARGE = 1 << 20
"""Events that were sorted before and are joined with those."""


@dataclass(frozen=True, eq=False)
class Sorted:
    """E events of U users with I items in P pairs, by user, item and log."""

    users: Vocabulary
    items: Vocabulary
    pairs: NDArray[np.int64]
    """(U + 1,): where each user's pairs begin."""
    events: NDArray[np.int64]
    """(U + 1,): where each user's events begin."""
    columns: NDArray[np.int32]
    """(P,): row of the item, ascending within a user."""
    times: NDArray[np.uint32]
    """(E,): seconds since 1970."""
    codes: NDArray[np.uint8]
    """(E,): what happened; with the bit `FIRST` at the first event of a pair."""
    values: NDArray[np.uint16]
    """(E,): bits of a float16."""
    hyperactive: NDArray[np.bool_]
    """(U,): who had more events on one day than `max_events_per_day`."""
    low: NDArray[np.float32]
    """(U,): each user's lowest rating, inf when there is none."""
    high: NDArray[np.float32]
    """(U,): the highest, or −inf."""

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        """What it takes in memory: 7 bytes an event, 4 a pair, 33 a user, 8 an item."""
        arrays = [array for array in vars(self).values() if isinstance(array, np.ndarray)]
        return sum(array.nbytes for array in (self.users.keys, self.items.keys, *arrays))


def nothing() -> Sorted:
    """No events."""
    nobody, start, room = Vocabulary(np.empty(0, np.int64)), np.zeros(1, np.int64), _room(0, 0, known=False)
    return _sorted(nobody, nobody, start, start, room)


@dataclass(frozen=True, eq=False)
class Said:
    """What is known of P pairs: see `kernels.label`."""

    label: NDArray[np.float32]
    time: NDArray[np.uint32]


NOTHING_SAID = Said(np.empty(0, np.float32), np.empty(0, np.uint32))


@dataclass(frozen=True, eq=False)
class Joined:
    """What came of a window's content when events came and left."""

    content: Sorted
    rows: NDArray[np.int64]
    """Of each of its users in the old content, −1 for who is new or was joined."""
    lost: NDArray[np.bool_]
    """Which pairs of the old content have changed or left."""
    came: NDArray[np.bool_]
    """Which pairs of the new one weren't there, or were others."""
    said: Said
    """What was known of the others; empty when nothing was."""


def joined(
    old: Sorted,
    said: Said,
    tail: tuple[Run, ...],
    users: NDArray[np.int64],
    rejoined: NDArray[np.int64],
    cut: int,
    threads: int,
) -> Joined:
    """The events of these users from the second `cut` on; not measured yet. Those `rejoined` have theirs in the tail alone.
    `said` is what is known of the old pairs, or empty.
    """
    items = Vocabulary(distinct([old.items.keys, *(run.items for run in tail)]))
    rows = old.users.rows(users)
    rows[np.searchsorted(users, rejoined[np.isin(rejoined, users)])] = -1
    most, fresh = len(old) + sum(map(len, tail)), sum(map(len, tail))
    blocks = min(max(-(-fresh // BLOCK), -(-most // LARGE)), len(users))
    bounds = np.linspace(0, len(users), blocks + 1).astype(np.int64)
    rooms = _rooms(old, tail, users, rows, bounds)
    room = _room(int(rooms[0][-1]), int(rooms[1][-1]), known=len(said.label) > 0)
    pair_counts, event_counts = np.zeros(len(users), np.int64), np.zeros(len(users), np.int64)
    moved, table = items.rows(old.items.keys).astype(np.int32), _table(items)
    before = _content(old, said, _without_rows(old, rows))

    def fill(block: int) -> None:
        part = slice(bounds[block], bounds[block + 1])
        records = _taken(tail, users[part], items, table, cut)
        own = _part(room, *(slice(ends[block], ends[block + 1]) for ends in rooms))
        compiled(kernels.join, rows[part], before, moved, records, cut, own, pair_counts[part], event_counts[part])

    in_threads(fill, range(blocks), threads)
    closed = [(array, rooms[0], offsets_of(pair_counts)[bounds]) for array in room[PAIRS] if len(array)]
    closed += [(array, rooms[1], offsets_of(event_counts)[bounds]) for array in room[EVENTS] if len(array)]
    in_threads(lambda place: _close(*closed[place]), range(len(closed)), threads)
    kept = event_counts > 0
    items = _with_rows_of(items, room.columns, threads) if len(room.times) < most else items
    starts = offsets_of(pair_counts[kept]), offsets_of(event_counts[kept])
    content = _sorted(Vocabulary(users[kept]), items, *starts, room)
    return Joined(content, rows[kept], before.lost, room.came, Said(room.labels, room.decided))


PAIRS, EVENTS = slice(4), slice(4, None)
"""Of `kernels.Room`."""


def _content(content: Sorted, said: Said, lost: NDArray[np.bool_]) -> kernels.Content:
    of_events = content.times, content.codes, content.values
    return kernels.Content(content.pairs, content.events, content.columns, *of_events, said.label, said.time, lost)


def _sorted(
    users: Vocabulary, items: Vocabulary, pairs: NDArray[np.int64], events: NDArray[np.int64], room: kernels.Room
) -> Sorted:
    """What was written; nobody measured yet."""
    hyperactive, low, high = unmeasured(len(users))
    return Sorted(
        users, items, pairs, events, room.columns, room.times, room.codes, room.values, hyperactive, low, high
    )


def _without_rows(old: Sorted, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The pairs of all but these rows of users (those below 0 are none)."""
    lost, left = np.zeros(len(old.columns), bool), np.ones(len(old.users), bool)
    left[rows[rows >= 0]] = False
    for row in np.flatnonzero(left):
        lost[old.pairs[row] : old.pairs[row + 1]] = True
    return lost


def _room(pairs: int, events: int, known: bool) -> kernels.Room:
    """What nobody writes to takes no memory."""
    said = pairs if known else 0
    of_pairs = np.empty(pairs, np.int32), np.empty(said, np.float32), np.empty(said, np.uint32), np.zeros(pairs, bool)
    return kernels.Room(*of_pairs, np.empty(events, np.uint32), np.empty(events, np.uint8), np.empty(events, np.uint16))


def _part(room: kernels.Room, pairs: slice, events: slice) -> kernels.Room:
    return kernels.Room(*(array[pairs] for array in room[PAIRS]), *(array[events] for array in room[EVENTS]))


def picked(content: Sorted, places: Places, threads: int) -> Sorted:
    """The pairs at these places with their events; all users and items stay."""
    pairs = divided(places, content.pairs)
    starts, ends = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
    some = content.pairs, content.events, content.codes, places, pairs, starts, ends
    by_users(pairs, threads, lambda first, last: (kernels.spans, first, last, *some))
    goals = offsets_of(ends - starts)
    room = _room(len(places), int(goals[-1]), known=False)
    old = content.columns, content.times, content.codes, content.values
    new = room.columns, room.times, room.codes, room.values
    compiled(kernels.pick, 0, len(places), places, starts, ends, old, goals, new)
    return _sorted(content.users, content.items, pairs, goals[pairs], room)


def divided(places: Places, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(U + 1,): where the places of each user begin, whose pairs begin at these offsets."""
    firsts = np.empty(len(offsets), np.int64)
    compiled(kernels.divide, places, offsets, firsts)
    return firsts


def _rooms(
    old: Sorted,
    tail: tuple[Run, ...],
    users: NDArray[np.int64],
    rows: NDArray[np.int64],
    bounds: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each block of users may write its pairs and its events: after the most that those before it may have."""
    counts = [
        np.where(rows >= 0, np.diff(starts)[rows], 0) if len(old) else 0 * rows for starts in (old.events, old.pairs)
    ]
    more = np.zeros(len(bounds), np.int64)
    for run in tail:
        places = np.searchsorted(run.users, users[bounds[:-1]])
        more += np.append(run.starts[places], len(run))
    more -= more[0]
    events, pairs = (offsets_of(count)[bounds] + more for count in counts)
    return pairs, events


def _taken(
    tail: tuple[Run, ...], users: NDArray[np.int64], items: Vocabulary, table: tuple[int, NDArray[np.int32]], cut: int
) -> Records:
    """What was appended for these users, by their place among them, the item's row and the log."""
    spans = [np.searchsorted(run.users, (users[0], users[-1] + 1)) for run in tail]
    parts = [run.records[run.starts[first] : run.starts[last]] for run, (first, last) in zip(tail, spans, strict=True)]
    records, size = np.empty((sum(map(len, parts)), 2), np.uint64), 0
    for part in parts:
        size += compiled(kernels.take, part, users, items.keys, *table, cut, records[size:])
    records = records[:size]
    spare = np.empty_like(records)
    compiled(kernels.sort, records, spare, 0, len(items).bit_length())
    compiled(kernels.sort, records, spare, 32, len(users).bit_length())
    return records


def _table(items: Vocabulary) -> tuple[int, NDArray[np.int32]]:
    """The lowest key, and the row of each from there on; no rows when the keys lie too far apart for that."""
    lowest, highest = (int(items.keys[0]), int(items.keys[-1])) if len(items) else (0, 0)
    if not is_dense(lowest, highest, len(items)):
        return lowest, np.empty(0, np.int32)
    table = np.zeros(highest - lowest + 1, np.int32)
    table[items.keys - lowest] = np.arange(len(items))
    return lowest, table


def _close(array: NDArray[Any], rooms: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
    """Move each block from its room to where the one before it ends, and give the rest back."""
    for room, start, end in zip(rooms, starts, starts[1:], strict=False):
        if room > start:
            array[start:end] = array[room : room + end - start]
    array.resize(int(starts[-1]), refcheck=False)


def _with_rows_of(items: Vocabulary, columns: NDArray[np.int32], threads: int) -> Vocabulary:
    """The items that still have a column; changes the columns."""
    present, ends = np.zeros(len(items), bool), np.arange(0, len(columns) + CHUNK, CHUNK)
    ends[-1] = len(columns)
    parts = range(len(ends) - 1)
    in_threads(lambda part: compiled(kernels.meet, ends[part], ends[part + 1], columns, present), parts, threads)
    if present.all():
        return items
    rows = (np.cumsum(present) - 1).astype(np.int32)
    in_threads(lambda part: compiled(kernels.renumber, ends[part], ends[part + 1], columns, rows), parts, threads)
    return Vocabulary(items.keys[present])


def measured(content: Sorted, params: InteractionParams, threads: int) -> Sorted:
    """With what its events tell of each user."""
    limit = params.max_events_per_day or len(content)
    rules = rules_of(params)
    rated = rules.label_is_value | rules.sign_is_value
    found = unmeasured(len(content.users))
    arrays = content.events, content.times, content.codes, content.values, halves()
    rest = rated, rules.acts, limit, *found
    by_users(content.events, threads, lambda first, last: (kernels.measure, first, last, *arrays, *rest))
    hyperactive, low, high = found
    return replace(content, hyperactive=hyperactive, low=low, high=high)


def unmeasured(users: int) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros(users, bool), np.full(users, np.inf, np.float32), np.full(users, -np.inf, np.float32)
