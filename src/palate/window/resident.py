"""The window itself: events as they are appended, sorted in from time to time, and leaving.

A `Window` is a value. `appended` and `compacted` give a new one and change nothing that the old one holds, so that training
reads on while events come. It keeps of an event its time in whole seconds (of one second, the log's order counts) and 11 bits of
its value, up to ±65,504. The log's order itself is that in which events were appended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from palate.columns import NOBODY, Persons
from palate.domain import EventColumns
from palate.interactions import InteractionParams
from palate.vocabulary import Vocabulary
from palate.window import sorting
from palate.window.joining import NOTHING_SAID, Joined, Said, joined
from palate.window.kernels import FIRST, Records
from palate.window.meaning import codes_of
from palate.window.runs import MOST_KEYS, Run, distinct, make_run, packed, with_runs
from palate.window.sorting import Sorted, measured


@dataclass(frozen=True, eq=False)
class Window:
    """Events, and what they mean under one set of rules."""

    params: InteractionParams
    sorted: Sorted
    tail: tuple[Run, ...]
    """Appended since the window was last compacted."""
    unlearned: tuple[NDArray[np.uint64], ...] | None
    """(user key << 32 | item key) of the events since `learned` was called; None when it never was: then all are."""
    seq: int
    """Of the last event that was appended."""

    def __len__(self) -> int:
        return len(self.sorted) + sum(map(len, self.tail))


def empty(params: InteractionParams) -> Window:
    """A window without events. Raises InvalidInput when the settings give a meaning to too many types."""
    codes_of(params)
    return Window(params, sorting.nothing(), (), None, 0)


def appended(window: Window, batches: Iterable[EventColumns]) -> Window:
    """With these events as well, persons for users, in the order of the log. They are sorted while the next are read.

    Raises InvalidInput for a key that 32 bits can't hold.
    """
    codes, seq, sorting = codes_of(window.params), window.seq, list[Future[Run]]()
    with ThreadPoolExecutor(1) as pool:
        for records, last in packed(batches, codes):
            if len(sorting) > 1:
                sorting[-2].result()  # no more than two wait
            sorting.append(pool.submit(make_run, records))
            seq = last
    runs = [run.result() for run in sorting]
    unlearned = window.unlearned
    if unlearned is not None:
        unlearned = (*unlearned, *(run.records[:, 0].copy() for run in runs))
    return replace(window, tail=with_runs(window.tail, runs), unlearned=unlearned, seq=seq)


def people(window: Window) -> NDArray[np.int64]:
    """Keys of all who have an event in it, ascending."""
    return distinct([window.sorted.users.keys, *(run.users for run in window.tail)])


def learned(window: Window) -> Window:
    """The same events, none of them news: `View.touched` will tell those that are appended from now on."""
    return replace(window, unlearned=())


def compacted(
    window: Window,
    *,
    earliest: int | None = None,
    persons: Persons = NOBODY,
    forgotten: Collection[int] = frozenset(),
    threads: int = 1,
) -> Window:
    """With all that was appended sorted in, and without what happened before the millisecond `earliest` (whole seconds count).

    The events of aliases go to their persons: since the window knows nothing of the log's order between the two, it puts
    theirs in the order of time. `forgotten` are keys of people who leave. It takes 16 bytes for each appended event and 11
    for every event, beside what `window` itself holds.
    """
    return followed(window, NOTHING_SAID, earliest=earliest, persons=persons, forgotten=forgotten, threads=threads)[0]


def followed(
    window: Window,
    said: Said,
    *,
    earliest: int | None = None,
    persons: Persons = NOBODY,
    forgotten: Collection[int] = frozenset(),
    threads: int = 1,
    own: bool = False,
) -> tuple[Window, Joined]:
    """`compacted`, and which pairs have changed; `said` is what was known of the old ones, or empty.

    With `own` neither the window nor what was said is used again: their arrays become the new ones, which takes half the memory.
    """
    cut = 0 if earliest is None else -(-earliest // 1000)
    tail, rejoined = _with_persons(window, persons)
    users = people(replace(window, tail=tail))
    users = _without(users, np.append(np.fromiter(forgotten, np.int64), persons.aliases))
    unlearned = window.unlearned
    if unlearned is not None and len(persons.aliases):
        unlearned = tuple(_of_persons(pairs, persons) for pairs in unlearned)
    found = joined(window.sorted, said, tail, users, rejoined, cut, threads, own)
    content = measured(found.content, window.params, threads)
    return replace(window, sorted=content, tail=(), unlearned=unlearned), replace(found, content=content)


def _without(users: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = Vocabulary(users).rows(others)
    return np.delete(users, rows[rows >= 0])


def _with_persons(window: Window, persons: Persons) -> tuple[tuple[Run, ...], NDArray[np.int64]]:
    """The tail after a run of all events of those who have an alias in the window; and who these are, aliases included."""
    met = np.zeros(len(persons.aliases), bool)
    for users in (window.sorted.users.keys, *(run.users for run in window.tail)):
        met |= np.isin(persons.aliases, users)
    if not met.any():
        return window.tail, np.empty(0, np.int64)
    affected = np.union1d(persons.aliases[met], persons.persons[met])
    parts = [_of_user(window.sorted, row) for row in window.sorted.users.rows(affected) if row >= 0]
    rest = []
    for run in window.tail:
        theirs = np.repeat(np.isin(run.users, affected), np.diff(run.starts))
        parts.append(run.records[theirs])
        rest.append(make_run(run.records[~theirs]))
    records = np.concatenate(parts)
    records = records[np.argsort(records[:, 1] >> np.uint64(32), kind="stable")]
    records[:, 0] = _of_persons(records[:, 0], persons)
    return (make_run(records), *rest), affected


def _of_user(content: Sorted, row: int) -> Records:
    """The events of one user as they were appended."""
    events = slice(content.events[row], content.events[row + 1])
    code = content.codes[events].astype(np.uint64)
    pair = content.pairs[row] + np.cumsum(code >= FIRST) - 1
    user, item = content.users.keys[row], content.items.keys[content.columns[pair]]
    time, value = content.times[events].astype(np.uint64), content.values[events].astype(np.uint64)
    rest = (time << np.uint64(32)) | (value << np.uint64(16)) | (code & np.uint64(FIRST - 1))
    return np.stack(((user << 32 | item).astype(np.uint64), rest), axis=1)


def _of_persons(pairs: NDArray[np.uint64], persons: Persons) -> NDArray[np.uint64]:
    users = persons.of((pairs >> np.uint64(32)).astype(np.int64)).astype(np.uint64)
    return (users << np.uint64(32)) | (pairs & np.uint64(MOST_KEYS - 1))
