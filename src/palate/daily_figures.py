"""Figures of each day of incoming data: how they are counted in the log, and where they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from palate import database, user_index
from palate.domain import from_milliseconds, to_milliseconds
from palate.usual import Taken

LOG, PLAYER = "log", "player"
"""Where figures come from: the event log, or the archives of a player."""
DAY = 86_400_000
"""Milliseconds."""
LATE, AHEAD = DAY, 60_000
"""How long after it happened an event comes late, and how far in the future its clock is off; milliseconds."""
MEANINGS = {
    "events": "Events",
    "people": "People who did anything",
    "items": "Items that came",
    "unknown": "Items that events named before any source gave them",
    "liked": "Likes, of likes and dislikes",
    "likes": "Likes, of views",
    "opened": "Opened, of shown",
    "late": "Events that came more than a day late, of all",
    "ahead": "Events of the future, of all",
}
"""Names of the log's figures, in words."""
_SHARES = {
    "liked": ("like", ("like", "dislike")),
    "likes": ("like", ("viewed", "opened", "watch")),
    "opened": ("opened", ("shown",)),
}
_TABLE = database.daily_figures
_FIGURE = [_TABLE.c[name] for name in ("name", "subject", "count", "out_of")]


@dataclass(frozen=True)
class Figure:
    """What was counted of one day."""

    name: str
    subject: str
    """What it is about: a type of event, a source's id; "" for all."""
    taken: Taken


def count(connection: sa.Connection, day: date) -> Iterator[Figure]:
    """The figures of a day of the log, by when things were received; its events must not be sealed yet."""
    yield from _events(connection, day)
    yield from _items(connection, day)


def _events(connection: sa.Connection, day: date) -> Iterator[Figure]:
    table = database.events
    within = _within(table.c.received, day)
    late, ahead = table.c.time < table.c.received - LATE, table.c.time > table.c.received + AHEAD
    columns = table.c.type, sa.func.count(), _number_of(late), _number_of(ahead)
    rows = connection.execute(sa.select(*columns).where(within).group_by(table.c.type)).all()
    types = {type: int(events) for type, events, _, _ in rows}
    yield from (Figure("events", type, Taken(events)) for type, events in sorted(types.items()))
    people = sa.select(sa.func.count(table.c.user.distinct())).where(within)
    yield Figure("people", "", Taken(connection.execute(people).scalar_one()))
    total = sum(types.values())
    if total:
        yield Figure("late", "", Taken(int(sum(row[2] for row in rows)), total))
        yield Figure("ahead", "", Taken(int(sum(row[3] for row in rows)), total))
    yield from _shares(types)


def _shares(types: Mapping[str, int]) -> Iterator[Figure]:
    for name, (wanted, of) in _SHARES.items():
        out_of = sum(types.get(type, 0) for type in of)
        if out_of:
            yield Figure(name, "", Taken(min(types.get(wanted, 0), out_of), out_of))


def _items(connection: sa.Connection, day: date) -> Iterator[Figure]:
    items, sources = database.items, database.sources
    columns = sources.c.id, sa.func.count(), _number_of(items.c.state == "stub")
    query = sa.select(*columns).select_from(items.outerjoin(sources, sources.c.key == items.c.source))
    rows = connection.execute(query.where(_within(items.c.received, day)).group_by(sources.c.id)).all()
    stubs = int(sum(row[2] for row in rows))
    yield Figure("items", "", Taken(sum(row[1] for row in rows) - stubs))
    yield Figure("unknown", "", Taken(stubs))
    yield from (Figure("items", id, Taken(number)) for id, number, _ in sorted(rows, key=str) if id is not None)


def _number_of(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((condition, 1), else_=0))


def _within(column: sa.ColumnElement[int], day: date) -> sa.ColumnElement[bool]:
    start = to_milliseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
    return column.between(start, start + DAY - 1)


def acts(connection: sa.Connection, day: date, at_least: int) -> list[tuple[str, list[int]]]:
    """Users with so many acts on a day, `shown` not counted, and when they were: milliseconds, ascending."""
    table, users = database.events, database.users
    which = _within(table.c.received, day) & (table.c.type != "shown")
    busy = sa.select(table.c.user).where(which).group_by(table.c.user).having(sa.func.count() >= at_least)
    found = connection.execute(sa.select(users.c.key, users.c.id).where(users.c.key.in_(busy)).order_by(users.c.key))
    return [(id, _times(connection, which & user_index.of_users(connection, [key]))) for key, id in found.all()]


def _times(connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[int]:
    time = database.events.c.time
    return list(connection.scalars(sa.select(time).where(which).order_by(time)))


def last_day(connection: sa.Connection, origin: str) -> date | None:
    """The newest day that was counted; None when none was."""
    newest = connection.scalar(sa.select(sa.func.max(_TABLE.c.day)).where(_TABLE.c.origin == origin))
    return None if newest is None else date.fromisoformat(newest)


def first_day(connection: sa.Connection) -> date | None:
    """The day of the oldest unsealed event; None when there is none."""
    received = database.events.c.received
    oldest = connection.scalar(sa.select(received).order_by(database.events.c.seq).limit(1))
    return None if oldest is None else from_milliseconds(oldest).date()


def keep(connection: sa.Connection, origin: str, day: date, figures: Sequence[Figure]) -> None:
    """Store a day's figures in place of those that it had."""
    connection.execute(sa.delete(_TABLE).where(_TABLE.c.origin == origin, _TABLE.c.day == day.isoformat()))
    rows = [
        {
            "origin": origin,
            "day": day.isoformat(),
            "name": one.name,
            "subject": one.subject,
            "count": one.taken.count,
            "out_of": one.taken.out_of,
        }
        for one in figures
    ]
    if rows:
        connection.execute(sa.insert(_TABLE), rows)


def expire(connection: sa.Connection, before: date) -> None:
    """Drop the figures of older days."""
    connection.execute(sa.delete(_TABLE).where(_TABLE.c.day < before.isoformat()))


def read(
    connection: sa.Connection, origin: str, first: date, last: date, of_sources: bool = False
) -> dict[tuple[str, str], dict[date, Taken]]:
    """What the days from `first` to `last` have, by name and subject; of single sources alone if so wanted, else without them."""
    single = _of_single_sources()
    query = sa.select(_TABLE.c.day, *_FIGURE).where(
        _TABLE.c.origin == origin,
        _TABLE.c.day.between(first.isoformat(), last.isoformat()),
        single if of_sources else ~single,
    )
    found: dict[tuple[str, str], dict[date, Taken]] = {}
    for day, name, subject, count, out_of in connection.execute(query.order_by(*_FIGURE[:2], _TABLE.c.day)):
        found.setdefault((name, subject), {})[date.fromisoformat(day)] = Taken(count, out_of)
    return found


def _of_single_sources() -> sa.ColumnElement[bool]:
    return (_TABLE.c.name == "items") & (_TABLE.c.subject != "")


def newest(connection: sa.Connection) -> dict[tuple[str, str, str], Taken]:
    """Those of the last day that has any, by origin, name and subject; single sources are left out."""
    last = sa.select(_TABLE.c.origin, sa.func.max(_TABLE.c.day).label("day")).group_by(_TABLE.c.origin).subquery()
    query = sa.select(_TABLE.c.origin, *_FIGURE).join(
        last, (_TABLE.c.origin == last.c.origin) & (_TABLE.c.day == last.c.day)
    )
    rows = connection.execute(query.where(~_of_single_sources()))
    return {(origin, name, subject): Taken(count, out_of) for origin, name, subject, count, out_of in rows}


def days(first: date, last: date) -> list[date]:
    """Each day from `first` to `last`."""
    return [first + timedelta(days=past) for past in range((last - first).days + 1)]
