"""Which unsealed events are whose, on SQLite.

An index of the database by (user, seq) would take a page of the disk for nearly every event, since the users of one commit lie
all over it, and to write those pages takes several times as long as to write the events. So the index is a few sorted runs, as in
a log-structured merge tree (O'Neil et al. 1996): each covers a span of the log, neighbours of like size become one, and the
newest few events, the tail, are looked through one by one. Runs change in the transactions that add events, so every reader
finds every event, whatever crashes. PostgreSQL has an index of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import takewhile
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database

TAIL = 256
"""Events after the last run that are looked through one by one; when there are as many, they become a run."""

FAN_OUT = 4
"""Runs of like size that become one."""

LARGEST = 2**16
"""Entries from which on a run stays as it is: whoever commits next waits for a merge, some 15 ms for so many."""

BLOCK = 512
"""Entries in one row of `event_blocks`: what is read of a run for one user, 4 KB."""

SPAN = 2**32
"""What the lower half of an entry counts up to: places in the log since the run's first."""

runs = sa.Table(
    "event_runs",
    database.metadata,
    sa.Column("first_seq", database.Key, primary_key=True, autoincrement=False),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("entries", sa.BigInteger, nullable=False),  # when it was made
)

blocks = sa.Table(
    "event_blocks",
    database.metadata,
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),  # its first_seq
    sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),  # no entry is less
    sa.Column("entries", sa.LargeBinary, nullable=False),  # ascending int64: user key × SPAN + seq - first_seq
)

Keys = NDArray[np.int64]

_LAST = "(SELECT ifnull(max(last_seq), 0) FROM event_runs)"
_NEWEST_RUNS = "SELECT first_seq, last_seq, entries FROM event_runs ORDER BY first_seq DESC"
_TAIL = 'SELECT seq, "user" FROM events WHERE seq > ? AND seq < ? ORDER BY seq LIMIT ?'
_TAIL_OF_USER = f'SELECT seq FROM events WHERE seq > max(?, {_LAST}) AND "user" = ? ORDER BY seq'
_BLOCKS_OF_USER = """
SELECT r.first_seq, b.first, b.entries FROM event_runs r CROSS JOIN event_blocks b
WHERE r.last_seq > ? AND b.run = r.first_seq AND b.first < ? AND b.first >=
ifnull((SELECT i.first FROM event_blocks i WHERE i.run = r.first_seq AND i.first <= ? ORDER BY i.first DESC LIMIT 1), ?)
ORDER BY r.first_seq, b.first
"""
_BLOCKS_FROM = "SELECT run, entries FROM event_blocks WHERE run >= ?"
_REPLACE_BLOCK = "UPDATE event_blocks SET entries = ? WHERE run = ? AND first = ?"


@dataclass(frozen=True)
class _Run:
    first_seq: int
    last_seq: int
    entries: int


def of_users(connection: sa.Connection, users: Collection[int], after: int = 0) -> sa.ColumnElement[bool]:
    """What rows of `events` meet that are of these users and have a greater seq than `after`."""
    table = database.events.c
    if connection.dialect.name == "postgresql":
        return table.user.in_(list(users)) & (table.seq > after)
    return table.seq.in_(LISTED.params(listed(seqs(connection, users, after))))


LISTED = sa.select(sa.column("value", sa.Integer)).select_from(sa.func.json_each(sa.bindparam("seqs", type_=sa.Text)))
"""Numbers as a query of SQLite, whose one parameter `listed` gives."""


def listed(seqs: Keys) -> dict[str, str]:
    """The parameter of LISTED for these numbers."""
    return {"seqs": msgspec.json.encode(seqs.tolist()).decode()}


def seqs(connection: sa.Connection, users: Collection[int], after: int = 0) -> Keys:
    """The places in the log, ascending, of these users' events beyond `after`; some may be sealed already."""
    with database.driver_cursor(connection) as cursor:
        found = [part for user in users for part in _seqs_of_user(cursor, user, after)]
    together = np.concatenate(found) if found else np.zeros(0, np.int64)
    return np.sort(together)


def _seqs_of_user(cursor: Any, user: int, after: int) -> list[Keys]:
    rows = _blocks_of_user(cursor, user, after)
    tail = np.array([seq for (seq,) in cursor.execute(_TAIL_OF_USER, (after, user))], np.int64)
    if not rows:
        return [tail] if len(tail) else []
    entries = _entries(entries for _, _, entries in rows)
    lengths = [len(part) // entries.itemsize for _, _, part in rows]
    base = np.repeat(np.array([run for run, _, _ in rows], np.int64), lengths)
    theirs = _are_of(entries, user)
    places = base[theirs] + entries[theirs] % SPAN
    return [places[places > after], tail]


def _blocks_of_user(cursor: Any, user: int, after: int) -> list[tuple[int, int, bytes]]:
    """The rows (run, first, entries) of blocks that may hold entries of a user."""
    low, high = user * SPAN, (user + 1) * SPAN
    found: list[tuple[int, int, bytes]] = cursor.execute(_BLOCKS_OF_USER, (after, high, low, low)).fetchall()
    return found


def _are_of(entries: Keys, user: int) -> NDArray[np.bool_]:
    return (entries >= user * SPAN) & (entries < (user + 1) * SPAN)


def _entries(parts: Iterable[bytes]) -> Keys:
    return np.frombuffer(b"".join(parts), np.int64)


def add(connection: sa.Connection, first_seq: int, users: Sequence[int]) -> None:
    """Take in rows that the same transaction has just added to the log from `first_seq` on, by the user key of each."""
    with database.driver_cursor(connection) as cursor:
        newest = [_Run(*row) for row in cursor.execute(_NEWEST_RUNS)]
        covered = newest[0].last_seq if newest else 0
        if first_seq + len(users) - 1 - covered >= TAIL:
            for pairs in _uncovered(cursor, covered, first_seq, users):
                newest = _put(cursor, newest, pairs)


def _uncovered(cursor: Any, covered: int, first_seq: int, users: Sequence[int]) -> Iterator[Keys]:
    """(n, 2): seq and user of all events beyond `covered`, in parts that fit if somebody wrote many without this index."""
    while len(rows := cursor.execute(_TAIL, (covered, first_seq, LARGEST)).fetchall()) == LARGEST:
        yield np.array(rows, np.int64)
        covered = rows[-1][0]
    own = np.column_stack((np.arange(first_seq, first_seq + len(users)), np.array(users, np.int64)))
    yield np.concatenate((np.array(rows, np.int64).reshape(-1, 2), own))


def _put(cursor: Any, newest: list[_Run], pairs: Keys) -> list[_Run]:
    """Write a run of these (seq, user), with the newest runs that are to be merged with it; the runs that there are then."""
    taken = merged([run.entries for run in newest], len(pairs))
    first = newest[taken - 1].first_seq if taken else int(pairs[0, 0])
    old = [_moved(entries, run - first) for run, entries in cursor.execute(_BLOCKS_FROM, (first,))] if taken else []
    entries = np.sort(np.concatenate((*old, pairs[:, 1] * SPAN + (pairs[:, 0] - first))), kind="stable")
    run = _Run(first, int(pairs[-1, 0]), len(entries))
    assert run.last_seq - first < SPAN, "An entry holds 32 bits of the seq."
    assert int(pairs[:, 1].max()) < SPAN // 2, "An entry holds 31 bits of the user."
    cursor.execute("DELETE FROM event_runs WHERE first_seq >= ?", (first,))
    cursor.execute("DELETE FROM event_blocks WHERE run >= ?", (first,))
    cursor.execute("INSERT INTO event_runs (first_seq, last_seq, entries) VALUES (?, ?, ?)", astuple(run))
    cursor.executemany(
        "INSERT INTO event_blocks (run, first, entries) VALUES (?, ?, ?)",
        [(first, int(entries[at]), entries[at : at + BLOCK].tobytes()) for at in range(0, len(entries), BLOCK)],
    )
    return [run, *newest[taken:]]


def _moved(entries: bytes, by: int) -> Keys:
    moved: Keys = np.frombuffer(entries, np.int64) + by
    return moved


def merged(sizes: Sequence[int], size: int) -> int:
    """How many of the newest runs become one with `size` new entries; `sizes` are theirs, the newest first.

    All that are smaller by an order, and those of its own order once they are FAN_OUT with it.

    >>> merged([300, 300, 300, 5000], 400), merged([300, 300, 5000], 400), merged([300, 300, 5000], 1100)
    (3, 0, 2)
    """
    taken = 0
    while True:
        smaller = _leading(sizes[taken:], _order(size) - 1)
        alike = _leading(sizes[taken:], _order(size)) if size < LARGEST else smaller
        more = alike if alike - smaller + 1 >= FAN_OUT else smaller
        if not more:
            return taken
        size += sum(sizes[taken : taken + more])
        taken += more


def _order(size: int) -> int:
    return int(math.log(min(max(size, TAIL), LARGEST) / TAIL, FAN_OUT))


def _leading(sizes: Sequence[int], order: int) -> int:
    return sum(1 for _ in takewhile(lambda size: _order(size) <= order, sizes))


def drop_sealed(connection: sa.Connection) -> None:
    """Drop the runs of which the log holds nothing any more."""
    if connection.dialect.name == "postgresql":
        return
    with database.driver_cursor(connection) as cursor:
        cursor.execute("DELETE FROM event_runs WHERE last_seq < ifnull((SELECT min(seq) FROM events), ?)", (2**62,))
        cursor.execute(
            "DELETE FROM event_blocks WHERE run < ifnull((SELECT min(first_seq) FROM event_runs), ?)", (2**62,)
        )


def forget(connection: sa.Connection, users: Collection[int]) -> None:
    """Remove what is known of these users, whose events are gone."""
    if connection.dialect.name == "postgresql":
        return
    with database.driver_cursor(connection) as cursor:
        for user in users:
            for run, first, block in _blocks_of_user(cursor, user, 0):
                entries = _entries([block])
                kept = entries[~_are_of(entries, user)]
                cursor.execute(_REPLACE_BLOCK, (kept.tobytes(), run, first))
