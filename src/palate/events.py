"""The durable event log: what was shown, and what people did.

New events enter a table, the hot tail of the log (`append`; many callers share a commit through `group_commit`); complete days
are sealed into Parquet files (`retention`). Whoever reads sees both as one log in the order of `seq`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain, compress
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from palate import columns, database, hot_columns, identities, sealing, user_index
from palate.database import reading
from palate.domain import MAX_ID_LENGTH, Event, EventColumns, from_milliseconds, to_milliseconds
from palate.errors import DataFolderError, InvalidEvent, InvalidInput

EXACTLY_ONCE = timedelta(days=7)
"""How long a client's event id is remembered."""

CLOCK_SKEW = timedelta(days=1)
"""How far ahead of ours a client's clock may be."""

PAGE = 20_000
"""Rows of the hot tail fetched at a time."""

ROWS = 100
"""Rows in one statement of SQLite."""

STATEMENTS = 300
"""Statements that are kept, by the number of rows and the columns filled."""

TOGETHER = 10
"""Events from which on it is quicker to check them all together."""

TYPE = re.compile(r"(retract:)?[a-z][a-z0-9_.-]{0,63}")
MAX_FEATURES = 20_000
MAX_VALUE = float(np.finfo(np.float32).max)


class EventParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How events are written, sealed and kept."""

    max_waiting: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    """Events that may wait for their commit in one process; more are refused for the moment."""
    max_commit: Annotated[int, msgspec.Meta(ge=1)] = 5_000
    """Events in one commit, unless a single request brings more."""
    commit_seconds: Annotated[float, msgspec.Meta(gt=0)] = 0.01
    """Seconds that it may take to write the events of one commit: while that takes longer, fewer come into the next, 500 at
    least. Whoever comes waits for the commit that is under way, and for their own."""
    hot_days: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Complete days that stay in the database before they are sealed into Parquet files."""
    keep_days: Annotated[int, msgspec.Meta(ge=1)] | None = 730
    """Days for which sealed events are kept; None keeps them for ever."""


Row = tuple[Any, ...]

Columns = dict[str, Sequence[Any]]
"""Of events, or of rows of the log, by their names; of events without what nobody filled. A tuple or an object of each event
would keep the garbage collector busy."""

_FIELDS = {name: attrgetter(name) for name in Event.__struct_fields__ if name not in ("seq", "received")}

_PLAIN = frozenset(("user", "item", "type", "value", "time", "id"))
"""Who did what, when; beyond that nothing needs to be known of an event."""


def in_columns(several: Sequence[msgspec.Struct]) -> Columns:
    """Events, or other structs that have their fields, as columns."""
    if len(several) == 1:
        [one] = several
        return {name: [value] for name, getter in _FIELDS.items() if (value := getter(one)) is not None}
    every = {name: list(map(getter, several)) for name, getter in _FIELDS.items()}
    return {name: column for name, column in every.items() if column.count(None) < len(column)}


def check_all(posted: Sequence[Event], now: datetime) -> Sequence[Event]:
    """The events as they are, when all may enter the log; each is told by its place where one may not.

    Raises InvalidEvent.
    """
    if len(posted) < TOGETHER or not are_plain(in_columns(posted), now):
        for index, event in enumerate(posted):
            check(event, index, now)
    return posted


def are_plain(given: Columns, now: datetime) -> bool:
    """Whether events break no rule at a glance, all of them together; of others `check` says."""
    latest = to_milliseconds(now + CLOCK_SKEW)
    values, times, ids = (set(given.get(name, ())) - {None} for name in ("value", "time", "id"))
    return (
        given.keys() <= _PLAIN
        and _are_plain_ids([*given["user"], *given["item"], *ids])
        and all(map(_is_type, set(given["type"])))
        and all(-MAX_VALUE <= value <= MAX_VALUE for value in values)
        and all(type(time) is int and 0 <= time <= latest for time in times)
    )


def _are_plain_ids(ids: Sequence[str]) -> bool:
    text = "".join(ids)
    return all(ids) and len(max(ids, key=len)) <= MAX_ID_LENGTH and text.isascii() and text.isprintable()


@lru_cache(maxsize=1000)
def _is_type(name: str) -> bool:
    return TYPE.fullmatch(name) is not None


def check(event: Event, index: int | None, now: datetime) -> Event:
    """The event as it is, when it may enter the log. `index` is its place in the request.

    Raises InvalidEvent with the first rule that it breaks.
    """
    try:
        identities.check_id(event.user, "the user id")
        identities.check_id(event.item, "the item id")
        for name in ("id", "request", "surface", "snapshot", "variant"):
            if getattr(event, name) is not None:
                identities.check_id(getattr(event, name), f"{name}, where given,")
        _check_measures(event, now)
    except InvalidInput as error:
        raise InvalidEvent(error.reason, index) from None
    return event


def _check_measures(event: Event, now: datetime) -> None:
    if not _is_type(event.type):
        raise InvalidInput(
            "the type must be a letter and up to 63 of a-z, 0-9, '_', '.', '-', or that after 'retract:'"
        )
    if event.value is not None and not _is_number(event.value, -MAX_VALUE, MAX_VALUE):
        raise InvalidInput("the value must be a finite number")
    latest = to_milliseconds(now + CLOCK_SKEW)
    if event.time is not None and not (isinstance(event.time, int) and _is_number(event.time, 0, latest)):
        raise InvalidInput("the time must be milliseconds since 1970, at most a day ahead of now")
    if event.position is not None and not (
        isinstance(event.position, int) and _is_number(event.position, 0, 2**31 - 1)
    ):
        raise InvalidInput("the position must be a whole number from 0")
    if event.probability is not None and not (_is_number(event.probability, 0, 1) and event.probability > 0):
        raise InvalidInput("the probability must be above 0 and at most 1")
    if event.features is not None:
        _check_features(event.features)


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high  # NaN is not


def _check_features(features: str) -> None:
    if len(features) > MAX_FEATURES:
        raise InvalidInput(f"the features must have at most {MAX_FEATURES} characters")
    try:
        msgspec.json.decode(features)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise InvalidInput("the features must be JSON") from None


def append(connection: sa.Connection, events: Sequence[Event], now: datetime) -> int:
    """Add checked events to the log, in their order; they are durable when the caller's transaction is.

    Users and items that nobody named before get their rows. An event whose client id came within the last seven days, or
    earlier in this call, is not added again. Returns how many of the events the log then holds: all, repeats included.
    """
    if events:
        append_received(connection, in_columns(events), [to_milliseconds(now)] * len(events), now)
    return len(events)


def append_received(
    connection: sa.Connection,
    given: Columns,
    received: Sequence[int],
    now: datetime,
    keys: identities.WriterKeys | None = None,
) -> Appended | None:
    """What `append` does, for events that came at moments of their own (milliseconds), the last of them at `now`; one at least.

    `keys` is what the caller knows of ids; it has to tell it whether the transaction was committed. Returns what the log then
    holds more; None where the database doesn't say in which place.
    """
    keys = keys or identities.WriterKeys()
    if connection.dialect.name == "postgresql":
        # Numbers are drawn under this lock, so that they become visible in their order and followers skip none.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7073618)"))
    given = given | {"received": received}
    if "id" in given:
        fresh = _first_seen(connection, given["id"], to_milliseconds(now))
        given = given if all(fresh) else {name: list(compress(column, fresh)) for name, column in given.items()}
    if not given["received"]:
        return None
    given["user"] = keys.users(connection, given["user"], now)
    given["item"] = keys.items(connection, given["item"], now)
    given["time"] = _times(given.get("time"), given["received"])
    if connection.dialect.name == "postgresql":
        _insert_arrays(connection, given)
        return None
    return Appended(_insert_rows(connection, given), given)


@dataclass(frozen=True)
class Appended:
    """What came to the log: `rows` one after the other from the place `first_seq` on, by its names; users as they are written."""

    first_seq: int
    rows: Columns


def _times(given: Sequence[int | None] | None, received: Sequence[int]) -> Sequence[int]:
    if given is None:
        return received
    return [at if time is None else time for time, at in zip(given, received, strict=True)]


def _first_seen(connection: sa.Connection, given: Sequence[str | None], now: int) -> list[bool]:
    """Of each event whether it has no client id, or one that wasn't known; remembers those."""
    ids = {id for id in given if id is not None}
    limit = now - EXACTLY_ONCE // timedelta(milliseconds=1)
    unseen = set(_remembered(connection, sorted(ids), now, limit))
    _forget_old_ids(connection, limit, 2 * len(ids))
    return [id is None or _take(unseen, id) for id in given]


_REMEMBER = """
INSERT INTO event_ids (id, received) SELECT {id}, {received} FROM {given}
ON CONFLICT (id) DO UPDATE SET received = excluded.received WHERE event_ids.received < {limit} RETURNING id
"""
_REMEMBER_SQLITE = _REMEMBER.format(
    id="value", received=":received", given="json_each(:ids) WHERE true", limit=":limit"
)
_REMEMBER_POSTGRESQL = _REMEMBER.format(
    id="given", received="%(received)s::int8", given="unnest(%(ids)s::text[]) AS given", limit="%(limit)s::int8"
)


def _remembered(connection: sa.Connection, ids: list[str], now: int, limit: int) -> Iterator[str]:
    """Those of the ids that weren't known, or were before `limit`, by one statement: they are known from `now` on."""
    if connection.dialect.name == "postgresql":
        rows = connection.exec_driver_sql(_REMEMBER_POSTGRESQL, {"ids": ids, "received": now, "limit": limit})
    else:
        listed = msgspec.json.encode(ids).decode()
        rows = connection.exec_driver_sql(_REMEMBER_SQLITE, {"ids": listed, "received": now, "limit": limit})
    return (id for (id,) in database.plain_rows(rows))


_OLD_IDS = (
    sa.select(database.event_ids.c.id)
    .where(database.event_ids.c.received < sa.bindparam("limit"))
    .order_by(database.event_ids.c.received)
    .limit(sa.bindparam("count", type_=sa.Integer))
)
_FORGET_IDS = sa.delete(database.event_ids).where(database.event_ids.c.id.in_(_OLD_IDS))


def _take(unseen: set[str], id: str) -> bool:
    if id in unseen:
        unseen.remove(id)
        return True
    return False


def _forget_old_ids(connection: sa.Connection, limit: int, count: int) -> None:
    """Forget at most `count` ids that are past their time: every append clears more than it adds."""
    connection.execute(_FORGET_IDS, {"limit": limit, "count": count})


_NAMES = [column.name for column in database.events.c if column.name != "seq"]
_LISTED = ", ".join(f'"{name}"' for name in _NAMES)
_ARRAY_OF = {sa.Text: "text[]", sa.Float: "float8[]", sa.BigInteger: "int8[]", sa.Integer: "int4[]"}
_ARRAYS = ", ".join(f"%s::{_ARRAY_OF[type(database.events.c[name].type)]}" for name in _NAMES)
_INSERT_POSTGRESQL = (  # one statement: executemany sends a message a row
    f"INSERT INTO events ({_LISTED}) SELECT {_LISTED} "
    f"FROM unnest({_ARRAYS}) WITH ORDINALITY AS given ({_LISTED}, place) ORDER BY place"
)


def _insert_arrays(connection: sa.Connection, given: Columns) -> None:
    nothing = [None] * len(given["user"])
    every = {name: list(given.get(name, nothing)) for name in _NAMES}
    for name in ("value", "probability"):
        every[name] = [None if one is None else float(one) for one in every[name]]
    connection.exec_driver_sql(_INSERT_POSTGRESQL, tuple(every[name] for name in _NAMES))


def _insert_rows(connection: sa.Connection, given: Columns) -> int:
    """The place of the first. One statement for many rows: a statement a row takes twice the time, as do columns that nobody
    filled, and at every one the driver hands the interpreter over to another thread.
    """
    count = len(given["user"])
    names = tuple(name for name in _NAMES if name in given)
    flat: list[Any] = [None] * (count * len(names))
    for place, name in enumerate(names):
        flat[place :: len(names)] = given[name]
    with database.driver_cursor(connection) as cursor:
        for start in range(0, len(flat), ROWS * len(names)):
            part = flat[start : start + ROWS * len(names)]
            cursor.execute(_insert(names, len(part) // len(names)), part)
        [(last,)] = cursor.execute("SELECT last_insert_rowid()")
    first = int(last) + 1 - count
    user_index.add(connection, first, given["user"])
    return first


@lru_cache(maxsize=STATEMENTS)
def _insert(names: Sequence[str], rows: int) -> str:
    listed, row = (", ".join(texts) for texts in ([f'"{name}"' for name in names], "?" * len(names)))
    return f"INSERT INTO events ({listed}) VALUES {', '.join([f'({row})'] * rows)}"


def last_seq(connection: sa.Connection) -> int:
    """Number of the newest event, 0 in an empty log. Falls when the newest events are forgotten."""
    hot = connection.scalar(sa.select(sa.func.max(database.events.c.seq)))
    return hot or connection.scalar(sa.select(sa.func.max(database.sealed.c.last_seq))) or 0


def count(connection: sa.Connection, since: datetime | None) -> int:
    """How many events the log holds; without sealed days in which nothing came that could have happened since."""
    hot = connection.execute(sa.select(sa.func.count()).select_from(database.events)).scalar_one()
    sealed = parts(connection, earliest=None if since is None else to_milliseconds(since))
    return int(hot + sum(part.rows for part in sealed))


def of_user(
    connection: sa.Connection,
    user_keys: Collection[int],
    after_seq: int,
    person: int | None = None,
    also: Collection[int] = (),
) -> EventColumns:
    """The unsealed events of these users with a greater seq than `after_seq`, and all with the items `also` (keys); all are
    `person`, where that is known."""
    rows = _hot_of_users(connection, user_keys, after_seq, also)
    if not rows:
        return columns.from_rows([])
    joined = identities.persons(connection, user_keys) if person is None else dict.fromkeys(user_keys, person)
    log = columns.Log(len(rows), columns.persons(joined))
    log.add(columns.from_rows(sorted(rows)))
    return log.columns()


def counts_of_item(connection: sa.Connection, item_key: int) -> dict[str, int]:
    """How many events of each type an item has had: all of the log, and those of days that have expired."""
    table, sealed = database.events, database.item_counts
    unsealed = sa.select(table.c.type, sa.func.count().label("count")).where(table.c.item == item_key)
    both = sa.union_all(
        unsealed.group_by(table.c.type), sa.select(sealed.c.type, sealed.c.count).where(sealed.c.item == item_key)
    ).subquery()
    query = sa.select(both.c.type, sa.func.sum(both.c.count)).group_by(both.c.type)
    return {type: int(count) for type, count in connection.execute(query) if count}


def read_columns(
    engine: sa.Engine,
    folder: Path,
    *,
    after_seq: int = 0,
    since: datetime | None = None,
    types: Collection[str] | None = None,
) -> EventColumns:
    """The log as columns, sealed and unsealed events in one consistent view, aliases resolved to persons.

    `after_seq` leaves out what was read before, `since` what happened earlier (by the event's own time), `types` all other
    types (name a type's `retract:` too if you want it). Raises DataFolderError when a sealed file is missing or broken.
    """
    earliest = None if since is None else to_milliseconds(since)
    return _retried(lambda: _read_columns(engine, folder, after_seq, earliest, types))


def _read_columns(
    engine: sa.Engine, folder: Path, after_seq: int, earliest: int | None, types: Collection[str] | None
) -> EventColumns:
    with reading(engine) as connection:
        found = parts(connection, after_seq, earliest)
        hot = [columns.select(page, earliest, types) for page in _hot_pages(connection, after_seq)]
        persons = columns.persons(identities.joined(connection))
    log = columns.Log(sum(part.rows for part in found) + sum(map(len, hot)), persons)
    for part in found:
        for batch in sealing.read_columns(sealing.at_hand(engine, folder, part.path), after_seq):
            log.add(columns.select(batch, earliest, types))
    for page in hot:
        log.add(page)
    return log.columns()


def batches(
    engine: sa.Engine, folder: Path, *, after_seq: int = 0, up_to_seq: int | None = None, since: datetime | None = None
) -> Iterator[EventColumns]:
    """What `read_columns` gives, in batches whose seq ascends and of which one fits into memory when all would not.

    `up_to_seq` is the last event wanted. The log is read as it is at the first batch; only who is forgotten meanwhile may be
    missing already. Raises DataFolderError when a sealed file is missing or broken.
    """
    earliest = None if since is None else to_milliseconds(since)
    last = 2**63 - 1 if up_to_seq is None else up_to_seq
    with reading(engine) as connection:
        found = parts(connection, after_seq, earliest)
        hot = list(hot_columns.pages(connection, after_seq))
        persons = columns.persons(identities.joined(connection))
    sealed = (batch for part in found if part.first_seq <= last for batch in _sealed(engine, folder, part, after_seq))
    for batch in columns.in_order(chain(sealed, hot)):
        end = int(np.searchsorted(batch.seq, last, side="right"))
        if end:
            person = replace(batch, user=persons.of(batch.user))
            yield columns.select(person if end == len(batch) else columns.first(person, end), earliest, None)


def _sealed(engine: sa.Engine, folder: Path, part: sa.Row[Any], after_seq: int) -> Iterator[EventColumns]:
    """The batches of a file, under the name that it has by now; none when its day has expired."""
    path: str | None = part.path
    for _ in range(5):
        if path is None:
            return
        try:
            yield from sealing.read_columns(sealing.at_hand(engine, folder, path), after_seq)
            return
        except FileNotFoundError as error:
            missing = error
        table = database.sealed
        same = (table.c.day == part.day) & (table.c.first_seq == part.first_seq) & (table.c.last_seq == part.last_seq)
        with reading(engine) as connection:
            path = connection.scalar(sa.select(table.c.path).where(same))
    raise _gone(missing)


def parts(connection: sa.Connection, after_seq: int = 0, earliest: int | None = None) -> list[sa.Row[Any]]:
    """The sealed files with a row of a greater seq, by their first; without those of days in which nothing came that could
    have happened from the millisecond `earliest` on.
    """
    table = database.sealed
    query = sa.select(table).where(table.c.last_seq > after_seq).order_by(table.c.first_seq)
    if earliest is not None:
        skew = CLOCK_SKEW // timedelta(milliseconds=1)
        received = from_milliseconds(max(0, earliest - skew))
        query = query.where(table.c.day >= received.date().isoformat())
    return list(connection.execute(query))


_HOT = [database.events.c[name] for name in ("seq", "user", "item", "type", "value", "time")]

_HOT_OF_USER = sa.select(*_HOT).where(
    database.events.c.user == sa.bindparam("user"), database.events.c.seq > sa.bindparam("after")
)
_OF_ITEMS = sa.bindparam("also", type_=postgresql.ARRAY(sa.BigInteger))
_ALSO_OF_USER = sa.select(*_HOT).where(
    database.events.c.user == sa.bindparam("user"),
    (database.events.c.seq > sa.bindparam("after")) | (database.events.c.item == sa.any_(_OF_ITEMS)),
)
_HOT_AT = sa.select(*_HOT).where(database.events.c.seq.in_(user_index.LISTED))
_ITEMS = sa.select(sa.column("value", sa.Integer)).select_from(sa.func.json_each(sa.bindparam("also", type_=sa.Text)))
_ALSO_AT = _HOT_AT.where((database.events.c.seq > sa.bindparam("after")) | database.events.c.item.in_(_ITEMS))


def _hot_of_users(connection: sa.Connection, users: Collection[int], after: int, also: Collection[int]) -> list[Row]:
    """Rows (seq, user, item, type, value, time); each request asks for some, so nothing of SQLAlchemy is around it."""
    if connection.dialect.name == "postgresql":
        statement, items = (_ALSO_OF_USER, {"also": list(also)}) if also else (_HOT_OF_USER, {})
        each = (database.driver_rows(connection, statement, {"user": user, "after": after} | items) for user in users)
        return list(chain.from_iterable(each))
    seqs = user_index.seqs(connection, users, 0 if also else after)
    if not len(seqs):
        return []
    if not also:
        return database.driver_rows(connection, _HOT_AT, user_index.listed(seqs))
    asked = user_index.listed(seqs) | {"also": msgspec.json.encode(list(also)).decode()}
    return database.driver_rows(connection, _ALSO_AT, asked | {"after": after})


def _hot_pages(connection: sa.Connection, after_seq: int) -> Iterator[EventColumns]:
    table = database.events
    while True:
        query = sa.select(*_HOT).where(table.c.seq > after_seq).order_by(table.c.seq).limit(PAGE)
        rows = database.plain_rows(connection.execute(query))
        if rows:
            yield columns.from_rows(rows)
        if len(rows) < PAGE:
            return
        after_seq = rows[-1][0]


def stream(engine: sa.Engine, folder: Path, after: int = 0) -> Iterator[list[Event]]:
    """Every event (of a seq beyond `after`) that is durable at the start, once, in the order of the log, in lists that fit.

    `user` is the id that the event came with, also when that was joined to another since. Raises DataFolderError when a
    sealed file is missing or broken.
    """
    with reading(engine) as connection:
        end = last_seq(connection)
    while after < end:
        rows, after = _retried(lambda after=after: _next_rows(engine, folder, after, end))  # type: ignore[misc]
        if rows:
            yield [sealing.to_event(row) for row in rows]


def _next_rows(engine: sa.Engine, folder: Path, after: int, end: int) -> tuple[list[Row], int]:
    """The next few rows (sealing.COLUMNS) of the log up to `end`, and the seq up to which they reach."""
    with reading(engine) as connection:
        found = parts(connection, after)
        first = min([part.first_seq for part in found] + [_next_seq(connection, after) or end])
        start = max(after + 1, first)
        stop = min(start + sealing.BATCH, end + 1)
        rows = hot_rows(connection, database.events.c.seq.between(start, stop - 1), PAGE)
    if len(rows) == PAGE:
        stop = rows[-1][_SEQ] + 1
    for part in found:
        if part.first_seq < stop:
            rows += sealing.read_rows(sealing.at_hand(engine, folder, part.path), after, stop)
    rows.sort(key=lambda row: row[_SEQ])
    return [row for row in rows if row[0] is not None and row[1] is not None], stop - 1


def _next_seq(connection: sa.Connection, after: int) -> int | None:
    table = database.events
    found: int | None = connection.scalar(sa.select(sa.func.min(table.c.seq)).where(table.c.seq > after))
    return found


_SEQ = list(sealing.COLUMNS).index("seq")


def hot_rows(connection: sa.Connection, which: sa.ColumnElement[bool], limit: int) -> list[Row]:
    """Unsealed rows as sealing.COLUMNS, by seq. The public ids are None where the user or item was deleted meanwhile."""
    table, users, items = database.events, database.users, database.items
    by_name = {
        **{column.name: column for column in table.c},
        "user": users.c.id,
        "item": items.c.id,
        "user_key": table.c.user,
        "item_key": table.c.item,
    }
    tables = table.outerjoin(users, users.c.key == table.c.user).outerjoin(items, items.c.key == table.c.item)
    query = sa.select(*(by_name[name].label(name) for name in sealing.COLUMNS)).select_from(tables)
    return [tuple(row) for row in connection.execute(query.where(which).order_by(table.c.seq).limit(limit))]


T = TypeVar("T")


def _retried(attempt: Callable[[], T]) -> T:
    """What `attempt` gives; tried again when a file that it had listed was replaced before it was read."""
    for _ in range(5):
        try:
            return attempt()
        except FileNotFoundError as error:
            missing = error
    raise _gone(missing)


def _gone(missing: FileNotFoundError) -> DataFolderError:
    return DataFolderError(f"Sealed events are missing: {missing}. Restore the file from a backup.")
