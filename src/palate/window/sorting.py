"""Events sorted by user, item and log, and what that tells of each user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.interactions import InteractionParams
from palate.machine_code import compiled
from palate.places import Places
from palate.vocabulary import Vocabulary
from palate.window import join_kernels, kernels
from palate.window.join_kernels import Room
from palate.window.meaning import halves, rules_of
from palate.window.threads import by_users, in_threads, offsets_of

SPARE = 16
"""Arrays are made with room for the share 1 / SPARE more, so that they can grow; what nobody writes to takes no memory."""

PICKED = 1 << 17
"""Pairs that a thread copies at a time."""


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
    nobody, start = Vocabulary(np.empty(0, np.int64)), np.zeros(1, np.int64)
    return as_sorted(nobody, nobody, start, start, room_for(0, 0))


def as_sorted(
    users: Vocabulary, items: Vocabulary, pairs: NDArray[np.int64], events: NDArray[np.int64], written: Room
) -> Sorted:
    """What was written; nobody measured yet."""
    hyperactive, low, high = unmeasured(len(users))
    return Sorted(users, items, pairs, events, *written, hyperactive, low, high)


def room_for(pairs: int, events: int) -> Room:
    """What nobody writes to takes no memory."""
    of_events = with_spare(events, np.uint32), with_spare(events, np.uint8), with_spare(events, np.uint16)
    return Room(with_spare(pairs, np.int32), *of_events)


def with_spare(size: int, dtype: Any) -> NDArray[Any]:
    """So many numbers, the beginning of an array with room for some more."""
    array: NDArray[Any] = np.empty(size + size // SPARE, dtype)[:size]
    return array


def picked(content: Sorted, places: Places, threads: int) -> Sorted:
    """The pairs at these places with their events; all users and items stay."""
    pairs = divided(places, content.pairs)
    starts, ends = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
    some = content.pairs, content.events, content.codes, places, pairs, starts, ends
    by_users(pairs, threads, lambda first, last: (join_kernels.spans, first, last, *some))
    goals = offsets_of(ends - starts)
    room = room_for(len(places), int(goals[-1]))
    old = content.columns, content.times, content.codes, content.values
    bounds = np.linspace(0, len(places), 1 + -(-len(places) // PICKED)).astype(np.int64)
    rest = places, starts, ends, old, goals, tuple(room)
    in_threads(
        lambda part: compiled(join_kernels.pick, bounds[part], bounds[part + 1], *rest), range(len(bounds) - 1), threads
    )
    return as_sorted(content.users, content.items, pairs, goals[pairs], room)


def divided(places: Places, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(U + 1,): where the places of each user begin, whose pairs begin at these offsets."""
    firsts = np.empty(len(offsets), np.int64)
    compiled(kernels.divide, places, offsets, firsts)
    return firsts


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
