"""What becomes of the log with time: complete days are sealed into Parquet files, old ones are dropped, people are forgotten.

One process does any of this at a time, on all machines that share the database. Where there is an object store, a file belongs to
the log only once the store has it; the data folder then holds copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from palate import advisory, database, events, identities, sealing, user_index
from palate.advisory import Writing
from palate.database import reading
from palate.domain import from_milliseconds, to_milliseconds
from palate.events import Row

PART = 250_000
"""Rows in one sealed file at most, and so in one transaction of sealing."""

DAY = 86_400_000

_SEQ, _TYPE, _ITEM_KEY, _VALUE = (list(sealing.COLUMNS).index(name) for name in ("seq", "type", "item_key", "value"))


@dataclass(frozen=True)
class _Log:
    """The log, while nobody else adds or removes sealed files."""

    engine: sa.Engine
    folder: Path
    writing: Writing
    """Opens transactions: if the right to it is lost, they fail."""


@contextmanager
def _alone(engine: sa.Engine, folder: Path) -> Iterator[_Log]:
    with advisory.held(engine, "sealing") as writing, sealing.locked(folder):
        yield _Log(engine, folder, writing)


def seal(engine: sa.Engine, folder: Path, before: datetime, up_to_seq: int) -> list[Path]:
    """Move the events of complete days (UTC, by `received`) that end by `before` from the table into Parquet files.

    Only events with a seq up to `up_to_seq`: those that every follower has read. Returns the new files,
    `folder/day=YYYY-MM-DD/….parquet`. A crash at any moment loses and repeats nothing. Raises DataFolderError, StoreError or
    NotDurable when it can't be written; what was sealed until then stays so.
    """
    end = to_milliseconds(before) // DAY * DAY
    files = []
    with _alone(engine, folder) as log:
        _clean(log)
        while (span := _sealable(engine, end, up_to_seq)) is not None:
            path = _seal_part(log, span)
            if path is not None:
                files.append(folder / path)
    return files


@dataclass(frozen=True)
class _Span:
    """Unsealed rows of one day that become one file."""

    start: int
    """First millisecond of the day."""
    first_seq: int
    last_seq: int
    rows: int

    def where(self) -> sa.ColumnElement[bool]:
        table = database.events
        in_day = table.c.received.between(self.start, self.start + DAY - 1)
        return table.c.seq.between(self.first_seq, self.last_seq) & in_day


def _sealable(engine: sa.Engine, end: int, up_to_seq: int) -> _Span | None:
    """The next rows to seal, all received before `end` on one day; None when there are none."""
    table = database.events
    known = table.c.seq <= up_to_seq
    with reading(engine) as connection:
        oldest = sa.select(table.c.received).where(known, table.c.received < end).order_by(table.c.seq).limit(1)
        received = connection.scalar(oldest)
        if received is None:
            return None
        start = received // DAY * DAY
        in_day = table.c.received.between(start, start + DAY - 1)
        part = sa.select(table.c.seq).where(known, in_day).order_by(table.c.seq).limit(PART).subquery()
        query = sa.select(sa.func.min(part.c.seq), sa.func.max(part.c.seq), sa.func.count())
        return _Span(start, *connection.execute(query.select_from(part)).one())


def _seal_part(log: _Log, span: _Span) -> str | None:
    """Write one file, bring it into the store, then record it and delete its rows in one transaction.

    None when all was of deleted people.
    """
    day = from_milliseconds(span.start).date().isoformat()
    path = sealing.new_path(day, span.first_seq)
    counts, taken = ItemCounts(), ItemCounts()
    rows = sealing.write(log.folder, path, _counted(_pages(log.engine, span), counts, taken))
    if rows:
        sealing.store(log.engine, log.folder, path)
    with log.writing() as connection:
        _add_counts(connection, counts, taken)
        if rows:
            row = {"path": path, "day": day, "first_seq": span.first_seq, "last_seq": span.last_seq, "rows": rows}
            connection.execute(sa.insert(database.sealed).values(row))
        deleted = connection.execute(sa.delete(database.events).where(span.where())).rowcount
        assert deleted == span.rows, "Rows of the log changed while they were sealed, against the lock."
        user_index.drop_sealed(connection)
    return path if rows else None


def _pages(engine: sa.Engine, span: _Span) -> Iterator[list[Row]]:
    after = 0
    with reading(engine) as connection:
        while page := events.hot_rows(connection, span.where() & (database.events.c.seq > after), events.PAGE):
            after = page[-1][_SEQ]
            yield [row for row in page if row[0] is not None and row[1] is not None]


ItemCounts = Counter[tuple[int, str]]
"""Number of events by the item's key and the type, or the sum of their values, each within 0 and 1."""


def _counted(pages: Iterable[list[Row]], counts: ItemCounts, taken: ItemCounts) -> Iterator[list[Row]]:
    for page in pages:
        counts.update((row[_ITEM_KEY], row[_TYPE]) for row in page)
        for row in page:
            if row[_VALUE] is not None:
                taken[row[_ITEM_KEY], row[_TYPE]] += sealing.within(row[_VALUE])
        yield page


def _add_counts(connection: sa.Connection, counts: ItemCounts, taken: ItemCounts) -> None:
    """Add to the counts of sealed events, or take away by counts below 0."""
    if not counts:
        return
    insert = identities.insert_new(connection, database.item_counts)
    totals = {name: database.item_counts.c[name] + insert.excluded[name] for name in ("count", "taken")}
    insert = insert.on_conflict_do_update(index_elements=["item", "type"], set_=totals)
    rows = [
        {"item": item, "type": type, "count": count, "taken": float(taken[item, type])}
        for (item, type), count in sorted(counts.items())
    ]
    connection.execute(insert, rows)


def _clean(log: _Log) -> None:
    """Remove what a crash left in the folder and in the store."""
    with reading(log.engine) as connection:
        known = {part.path for part in events.parts(connection)}
    sealing.remove_strangers(log.engine, log.folder, known)


def evict(engine: sa.Engine, folder: Path) -> None:
    """Remove copies of files that are no longer of the log: their people were forgotten elsewhere, or their days are over."""
    with sealing.locked(folder), reading(engine) as connection:
        sealing.remove_copies(folder, {part.path for part in events.parts(connection)})


def expire(engine: sa.Engine, folder: Path, before: datetime) -> int:
    """Drop the sealed files of days that ended by `before`. Returns how many events that were.

    The counts of an item are of all times: they keep these events, also when one of their people is forgotten later.
    """
    first_kept = before.astimezone(UTC).date().isoformat()
    table = database.sealed
    with _alone(engine, folder) as log:
        with log.writing() as connection:
            old = list(connection.execute(sa.select(table).where(table.c.day < first_kept)))
            connection.execute(sa.delete(table).where(table.c.day < first_kept))
        for part in old:
            sealing.remove(engine, folder, part.path)
    return sum(part.rows for part in old)


def forget(engine: sa.Engine, folder: Path, user_keys: Collection[int]) -> int:
    """Remove every event of these users, from the table and from the sealed files. Returns how many events that were.

    Each file is replaced atomically, under a new name; after a crash, call it again. Raises DataFolderError, StoreError or
    NotDurable when it can't be written; what was removed until then stays so. Copies on other machines are left to `evict`.
    """
    with _alone(engine, folder) as log:
        _clean(log)
        with log.writing() as connection:
            removed = sum(_forget_hot(connection, keys) for keys in identities.chunks(user_keys))
            parts = events.parts(connection)
        for part in parts:
            if sealing.holds(sealing.at_hand(engine, folder, part.path), user_keys):
                removed += _forget_sealed(log, part, user_keys)
    return removed


def _forget_hot(connection: sa.Connection, user_keys: list[int]) -> int:
    table, known = database.events, database.event_ids
    theirs = user_index.of_users(connection, user_keys)
    user_index.forget(connection, user_keys)
    ids = sa.select(table.c.id).where(theirs, table.c.id.is_not(None))
    connection.execute(sa.delete(known).where(known.c.id.in_(ids)))
    return connection.execute(sa.delete(table).where(theirs)).rowcount


def _forget_sealed(log: _Log, part: sa.Row[Any], user_keys: Collection[int]) -> int:
    table, known = database.sealed, database.event_ids
    new = sealing.rewrite(log.folder, part.path, user_keys)
    if new.path is not None:
        sealing.store(log.engine, log.folder, new.path)
    with log.writing() as connection:
        for ids in identities.chunks(new.ids):
            connection.execute(sa.delete(known).where(known.c.id.in_(ids)))
        _add_counts(
            connection, *(ItemCounts({pair: -one for pair, one in sums.items()}) for sums in (new.counts, new.taken))
        )
        this = table.c.path == part.path
        if new.path is None:
            connection.execute(sa.delete(table).where(this))
        else:
            connection.execute(sa.update(table).where(this).values(path=new.path, rows=new.rows))
    sealing.remove(log.engine, log.folder, part.path)
    return new.removed
