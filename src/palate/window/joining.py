"""What was appended sorted into a window's content, and what left taken out of it.

Of a great window nearly all pairs stay from one cycle to the next. So users are looked through block by block for the spans of
pairs that stay; what is new or has changed is written apart; then each array is moved by these spans, at once within itself where
nobody else needs it as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.machine_code import compiled
from palate.places import Places, Some
from palate.vocabulary import Vocabulary
from palate.window import join_kernels, kernels
from palate.window.join_kernels import Content, Room
from palate.window.kernels import Records
from palate.window.runs import CHUNK, Run, distinct, is_dense
from palate.window.sorting import SPARE, Sorted, as_sorted, picked, room_for, with_spare
from palate.window.threads import in_threads, offsets_of

BLOCK = 1 << 17
"""Appended events of neighbouring users that are sorted together: what fits into the processor's cache."""

LARGE = 1 << 20
"""Events that were sorted before and are joined with those."""

NO_SPANS = np.empty((0, 6), np.int64)


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
    lost: Sorted
    """The pairs of the old content that have changed or left, as they were; its users and items are those of the old."""
    came: Some
    """The pairs of the new one that weren't there, or were others."""
    said: Said
    """What was known of the others, and at `came` anything; empty when nothing was known."""


@dataclass(frozen=True, eq=False)
class _Spans:
    """Spans of an array that stay, and where they come to be: (S,) each, ascending."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    goals: NDArray[np.int64]

    def left(self, size: int) -> Places:
        """What of so many is in none of them."""
        return _between(self.starts, self.ends, size)

    def came(self, size: int) -> Places:
        """Where of so many none of them comes to be."""
        return _between(self.goals, self.goals + self.ends - self.starts, size)


@dataclass(frozen=True, eq=False)
class _Difference:
    """Between an old content and the one that comes of it."""

    pairs: _Spans
    events: _Spans
    fresh: Room
    """The pairs that are new or have changed, with their events."""
    pair_counts: NDArray[np.int64]
    """(users,) in the new content; likewise `event_counts`."""
    event_counts: NDArray[np.int64]


def joined(
    old: Sorted,
    said: Said,
    tail: tuple[Run, ...],
    users: NDArray[np.int64],
    rejoined: NDArray[np.int64],
    cut: int,
    threads: int,
    own: bool,
) -> Joined:
    """The events of these users from the second `cut` on; not measured yet. Those `rejoined` have theirs in the tail alone.
    `said` is what is known of the old pairs, or empty. With `own` the arrays of both become the new ones: nobody else has them.
    """
    items = Vocabulary(distinct([old.items.keys, *(run.items for run in tail)]))
    rows = old.users.rows(users)
    rows[np.searchsorted(users, rejoined[np.isin(rejoined, users)])] = -1
    found = _difference(old, tail, users, rows, items, cut, threads)
    lost = picked(old, found.pairs.left(len(old.columns)), threads)
    came: Some = np.ones(len(found.fresh.columns), bool)
    written, said_now = found.fresh, NOTHING_SAID
    if len(old):
        came = new = found.pairs.came(int(found.pair_counts.sum()))
        written, said_now = _moved(old, said, found, new, items, threads, own)
    if len(written.times) < len(old) + sum(map(len, tail)):
        items = _with_rows_of(items, written.columns, threads)
    kept = found.event_counts > 0
    starts = offsets_of(found.pair_counts[kept]), offsets_of(found.event_counts[kept])
    return Joined(as_sorted(Vocabulary(users[kept]), items, *starts, written), rows[kept], lost, came, said_now)


def _difference(
    old: Sorted,
    tail: tuple[Run, ...],
    users: NDArray[np.int64],
    rows: NDArray[np.int64],
    items: Vocabulary,
    cut: int,
    threads: int,
) -> _Difference:
    fresh = sum(map(len, tail))
    blocks = min(max(-(-fresh // BLOCK), -(-(len(old) + fresh) // LARGE)), len(users))
    bounds = np.linspace(0, len(users), blocks + 1).astype(np.int64)
    rooms = _rooms(old, tail, users, rows, bounds)
    whole = None if len(old) else room_for(int(rooms[0][-1]), int(rooms[1][-1]))  # all is written where it stays
    counts = np.zeros((2, len(users)), np.int64)
    moved, table = items.rows(old.items.keys).astype(np.int32), _table(items)
    before = Content(old.pairs, old.events, old.columns, old.times, old.codes, old.values)
    stays, written = [NO_SPANS] * blocks, [room_for(0, 0)] * blocks

    def compare(block: int) -> None:
        part = slice(bounds[block], bounds[block + 1])
        pairs, events = (slice(ends[block], ends[block + 1]) for ends in rooms)
        records = _taken(tail, users[part], items, table, cut)
        room = _part(whole, pairs, events) if whole else room_for(pairs.stop - pairs.start, events.stop - events.start)
        spans = np.empty((len(room.columns) + part.stop - part.start, 6), np.int64)
        made = compiled(join_kernels.join, rows[part], before, moved, records, cut, room, spans, *counts[:, part])
        stays[block], written[block] = spans[: made[0]].copy(), _part(room, slice(made[1]), slice(made[2]))
        if whole is None:
            written[block] = _together([written[block]])

    in_threads(compare, range(blocks), threads)
    sizes = [offsets_of(np.array([len(part[place]) for part in written], np.int64)) for place in (0, 1)]
    if whole is not None:
        return _Difference(*_spans(stays, *sizes), _closed(whole, rooms, sizes, threads), *counts)
    return _Difference(*_spans(stays, *sizes), _together(written), *counts)


def _together(parts: Sequence[Room]) -> Room:
    """A copy of what was written, one after the other."""
    columns, times, codes, values = (np.concatenate(arrays) for arrays in zip(room_for(0, 0), *parts, strict=True))
    return Room(columns, times, codes, values)


def _spans(
    stays: Sequence[NDArray[np.int64]], pair_starts: NDArray[np.int64], event_starts: NDArray[np.int64]
) -> tuple[_Spans, _Spans]:
    """Of pairs and of events: from what `join_kernels.join` says of each block, and how much was written before each."""
    every, counts = np.concatenate([NO_SPANS, *stays]), list(map(len, stays))
    found = []
    for first, written, starts in ((0, 4, pair_starts), (2, 5, event_starts)):
        sizes = every[:, first + 1] - every[:, first]
        goals = np.cumsum(sizes) - sizes + every[:, written] + np.repeat(starts[:-1], counts)
        found.append(_Spans(every[:, first].copy(), every[:, first + 1].copy(), goals))
    return found[0], found[1]


def _between(starts: NDArray[np.int64], ends: NDArray[np.int64], size: int) -> Places:
    """The places below `size` that are in no span."""
    firsts, lasts = np.append(0, ends), np.append(starts, size)
    counts = lasts - firsts
    places: Places = np.arange(counts.sum()) + np.repeat(firsts - (np.cumsum(counts) - counts), counts)
    return places


def _moved(
    old: Sorted, said: Said, found: _Difference, came: Places, items: Vocabulary, threads: int, own: bool
) -> tuple[Room, Said]:
    """The arrays of the old content and of what was said of it, with what is new between what stays; columns are of `items`."""
    fresh, of_events = found.fresh, found.events.came(int(found.event_counts.sum()))
    rows = items.rows(old.items.keys).astype(np.int32)
    given: list[tuple[NDArray[Any], _Spans, Places, NDArray[Any] | None]] = [
        (old.codes, found.events, of_events, fresh.codes),
        (old.times, found.events, of_events, fresh.times),
        (old.values, found.events, of_events, fresh.values),
        *[(array, found.pairs, came, None) for array in (said.label, said.time) if len(array)],
        (old.columns, found.pairs, came, fresh.columns),
    ]
    made: list[NDArray[Any]] = [array for array, *_ in given]

    def move(place: int) -> None:
        array, spans, new, values = given[place]
        size = len(new) + int((spans.ends - spans.starts).sum())
        room = _with_room(array, size, own)
        if array is old.columns and len(rows) and rows[-1] >= len(rows):  # else every item has the row that it had
            compiled(kernels.renumber, 0, len(array), room, rows)
        compiled(join_kernels.shift, room, spans.starts, spans.ends, spans.goals)
        if values is not None:
            room[new] = values
        made[place] = room[:size]

    in_threads(move, range(len(given)), threads)
    codes, times, values, *labels, moved = made
    return Room(moved, times, codes, values), Said(*labels) if labels else NOTHING_SAID


def _with_room(array: NDArray[Any], size: int, own: bool) -> NDArray[Any]:
    """The array with room for so many numbers: the one that it is the beginning of, if that has it and is our own."""
    room = array if array.base is None else array.base
    assert isinstance(room, np.ndarray), "Arrays of a window begin arrays of their own."
    assert room.ctypes.data == array.ctypes.data, "They begin where these begin."
    if own and len(room) >= size:
        return room
    made = with_spare(max(size, len(array)), array.dtype)
    made = made if made.base is None else made.base
    made[: len(array)] = array
    return made


def _part(room: Room, pairs: slice, events: slice) -> Room:
    return Room(room.columns[pairs], room.times[events], room.codes[events], room.values[events])


def _closed(room: Room, rooms: Sequence[NDArray[np.int64]], starts: Sequence[NDArray[np.int64]], threads: int) -> Room:
    """With each block of pairs and of events moved to where the one before it ends, and the rest given back."""
    closed: list[NDArray[Any]] = list(room)

    def close(place: int) -> None:
        closed[place] = _close(closed[place], rooms[place > 0], starts[place > 0])

    in_threads(close, range(len(closed)), threads)
    return Room(*closed)


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


def _close(array: NDArray[Any], rooms: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[Any]:
    for room, start, end in zip(rooms, starts, starts[1:], strict=False):
        if room > start:
            array[start:end] = array[room : room + end - start]
    whole = array if array.base is None else array.base
    size = int(starts[-1])
    whole.resize(min(len(whole), size + size // SPARE), refcheck=False)
    return whole[:size]


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
