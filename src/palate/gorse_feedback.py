"""The log in Gorse's terms: one feedback for each type, user and item, with a value that can be added to and overwritten.

A table follows the log by `seq`, like every follower, and is brought up to it whenever somebody reads; so what comes in by any
other door is feedback too. A retraction takes feedback away. Recommendations that are to be logged later wait in a table as well.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from palate import database, events, gorse_tables, identities
from palate.database import reading, writing
from palate.domain import Event, to_milliseconds

POSITION = "gorse_feedback"
"""Name in `meta` of the last seq that the table has followed."""

SILENT = frozenset({"shown"})
"""Types that are no feedback: what we did, not what the person did."""
KEPT_BY_RETRACT = ("viewed",)

DAY = 86_400_000
"""Milliseconds."""
TRIPLES = 150
"""Of users, items and types in one statement."""
WRITE_BACKS = 500
"""Recommendations of which the log is written in one transaction."""

_TABLE = gorse_tables.feedback
Pair = tuple[int, int]
Triple = tuple[int, int, str]


@dataclass(frozen=True)
class Feedback:
    """What one user said of one item by one type; times in milliseconds since 1970."""

    type: str
    user: str
    item: str
    value: float
    time: int
    updated: int
    features: str | None
    place: Triple
    """Keys of user and item, and the type: by these a listing is ordered."""


def catch_up(engine: sa.Engine, data: Path) -> None:
    """Follow the log to its end. Raises DataFolderError for a sealed file that is missing."""
    with reading(engine) as connection:
        position, end = _position(connection), events.last_seq(connection)
        sealed = connection.scalar(sa.select(sa.func.max(database.sealed.c.last_seq))) or 0
    if sealed > position:
        # Sealed files are read in a process of its own: what reads Parquet would stay in the memory of this one.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            url = engine.url.render_as_string(hide_password=False)
            pool.submit(follow, url, data, database.store_of(engine)).result()
    elif end > position:
        with writing(engine) as connection:
            _follow_hot(connection)


def follow(url: str, data: Path, store: str | None) -> None:
    """Follow the log, sealed files included, to its end."""
    engine = database.connect(url, data, store)
    try:
        with reading(engine) as connection:
            position = _position(connection)
        for batch in events.stream(engine, data / "events", position):
            with writing(engine) as connection:
                if _locked(connection) == position:
                    _fold(connection, batch)
                    _follow_to(connection, batch[-1].seq or position)
            position = batch[-1].seq or position
    finally:
        engine.dispose()


def add(engine: sa.Engine, given: Sequence[Event], overwrite: bool, now: datetime) -> int:
    """Append feedback to the log: a value is added to that of what there is already, or takes its place.

    Call `catch_up` first. The events have been checked; those of several of one kind are taken in their order.
    """
    with writing(engine) as connection:
        _follow_hot(connection)
        known, happened = _known(connection, given), list[Event]()
        for event in given:
            said = event.user, event.item, event.type
            happened += _made_of(event, known.get(said), overwrite)
            known[said] = happened[-1].value, happened[-1].time
        events.append(connection, happened, now)
    return len(given)


def take_back(engine: sa.Engine, types: Collection[str], user: str, item: str, now: datetime) -> int:
    """Retract feedback of these types; of all there is when none is named. Returns how many there were."""
    with writing(engine) as connection:
        _follow_hot(connection)
        keys = identities.user_keys(connection, [user], None), identities.item_keys(connection, [item], None)
        if not all(keys):
            return 0
        pair = (_TABLE.c.user == keys[0][user]) & (_TABLE.c.item == keys[1][item])
        found = [
            type for type in connection.scalars(sa.select(_TABLE.c.type).where(pair)) if not types or type in types
        ]
        retractions = [Event(user=user, item=item, type=f"retract:{type}") for type in found]
        events.append(connection, retractions, now)
        _follow_hot(connection)
    return len(found)


def forget_item(connection: sa.Connection, item: int) -> None:
    """Drop an item's feedback from the table."""
    connection.execute(sa.delete(_TABLE).where(_TABLE.c.item == item))


def expire(connection: sa.Connection, before: datetime) -> None:
    """Drop what last came before this day, as the log drops the days before it; what isn't sealed yet stays in both."""
    oldest = connection.scalar(sa.select(database.events.c.received).order_by(database.events.c.seq).limit(1))
    end = to_milliseconds(before) if oldest is None else min(to_milliseconds(before), oldest)
    connection.execute(sa.delete(_TABLE).where(_TABLE.c.received < end // DAY * DAY))


def find(
    connection: sa.Connection,
    *,
    users: Collection[int] | None = None,
    item: int | None = None,
    types: Collection[str] | None = None,
    after: Triple | None = None,
    limit: int | None = None,
) -> list[Feedback]:
    """Feedback of these users, of this item, of these types (None: any), in the order of `place`, from beyond `after`."""
    users_, items, c = database.users, database.items, _TABLE.c
    query = (
        sa.select(_TABLE, users_.c.id.label("user_id"), items.c.id.label("item_id"))
        .join_from(_TABLE, users_, users_.c.key == c.user)
        .join(items, items.c.key == c.item)
        .where(items.c.state != "deleted")
        .order_by(c.user, c.item, c.type)
        .limit(limit)
    )
    if users is not None:
        query = query.where(c.user.in_(users))
    if item is not None:
        query = query.where(c.item == item)
    if types is not None:
        query = query.where(c.type.in_(types))
    if after is not None:
        query = query.where(sa.tuple_(c.user, c.item, c.type) > sa.tuple_(*map(sa.literal, after)))
    return [_feedback(row) for row in connection.execute(query)]


def write_back_later(
    connection: sa.Connection, user: str, happened: Sequence[Event], due: datetime, now: datetime
) -> None:
    """Log these events of a user when they are due."""
    key = identities.user_keys(connection, [user], now)[user]
    row = {"due": to_milliseconds(due), "user": key, "events": msgspec.json.encode(happened).decode()}
    connection.execute(sa.insert(gorse_tables.write_backs).values(row))


def write_back_due(engine: sa.Engine, now: datetime) -> int:
    """Log what is due. Returns how many events that were; each counts once, however many processes do this."""
    table = gorse_tables.write_backs
    due = table.c.due <= to_milliseconds(now)
    with reading(engine) as connection:
        if connection.scalar(sa.select(table.c.key).where(due).limit(1)) is None:
            return 0
    with writing(engine) as connection:
        some = sa.select(table.c.key).where(due).order_by(table.c.key).limit(WRITE_BACKS)
        taken = sa.delete(table).where(table.c.key.in_(some)).returning(table.c.key, table.c.events)
        rows = sorted(tuple(row) for row in connection.execute(taken))
        happened = [event for _, text in rows for event in msgspec.json.decode(text, type=list[Event])]
        return events.append(connection, happened, now)


# --- following ------------------------------------------------------------------------------------------------------------


def _position(connection: sa.Connection) -> int:
    found = connection.scalar(sa.select(database.meta.c.value).where(database.meta.c.name == POSITION))
    return int(found or 0)


def _locked(connection: sa.Connection) -> int:
    """The position, held by this transaction until its end."""
    table = database.meta
    insert = identities.insert_new(connection, table).values(name=POSITION, value="0")
    same = insert.on_conflict_do_update(index_elements=["name"], set_={"value": table.c.value})
    return int(connection.execute(same.returning(table.c.value)).scalar_one())


def _follow_to(connection: sa.Connection, seq: int) -> None:
    connection.execute(sa.update(database.meta).where(database.meta.c.name == POSITION).values(value=str(seq)))


_HOT = (
    sa.select(database.events, database.users.c.id.label("user_id"), database.items.c.id.label("item_id"))
    .join_from(database.events, database.users, database.users.c.key == database.events.c.user)
    .join(database.items, database.items.c.key == database.events.c.item)
    .order_by(database.events.c.seq)
    .limit(events.PAGE)
)


def _follow_hot(connection: sa.Connection) -> None:
    """Follow what isn't sealed yet."""
    position, seq = _locked(connection), database.events.c.seq
    while rows := connection.execute(_HOT.where(seq > position)).all():
        _fold(
            connection,
            [
                Event(
                    user=row.user_id,
                    item=row.item_id,
                    type=row.type,
                    value=row.value,
                    time=row.time,
                    received=row.received,
                    features=row.features,
                )
                for row in rows
            ],
        )
        position = rows[-1].seq
        _follow_to(connection, position)


def _fold(connection: sa.Connection, batch: Sequence[Event]) -> None:
    """Take a part of the log into the table."""
    users = identities.user_keys(connection, {event.user for event in batch}, None)
    items = identities.item_keys(connection, {event.item for event in batch}, None)
    changes, gone, wiped = dict[Triple, dict[str, Any]](), set[Triple](), set[Pair]()
    for event in batch:
        if event.user not in users or event.item not in items or event.type in SILENT:
            continue
        user, item = users[event.user], items[event.item]
        if event.type == "retract":
            wiped.add((user, item))
            for place in [one for one in changes if one[:2] == (user, item) and one[2] not in KEPT_BY_RETRACT]:
                del changes[place]
        elif event.type.startswith("retract:"):
            place = user, item, event.type.removeprefix("retract:")
            gone.add(place)
            changes.pop(place, None)
        else:
            _change(changes.setdefault((user, item, event.type), {}), event)
    _apply(connection, changes, gone, wiped)


def _change(row: dict[str, Any], event: Event) -> None:
    assert event.time is not None, "the log gives every event a time"
    assert event.received is not None, "the log says when it received an event"
    row.setdefault("time", event.time)
    row["updated"], row["received"] = event.time, event.received
    row["value"] = row.get("value") if event.value is None else event.value
    row["features"] = row.get("features") if event.features is None else event.features


def _apply(
    connection: sa.Connection, changes: dict[Triple, dict[str, Any]], gone: Iterable[Triple], wiped: Iterable[Pair]
) -> None:
    c = _TABLE.c
    if pairs := [{"u": user, "i": item} for user, item in sorted(wiped)]:
        ours = (c.user == sa.bindparam("u")) & (c.item == sa.bindparam("i")) & c.type.not_in(KEPT_BY_RETRACT)
        connection.execute(sa.delete(_TABLE).where(ours), pairs)
    if places := [{"u": user, "i": item, "t": type} for user, item, type in sorted(gone)]:
        this = (c.user == sa.bindparam("u")) & (c.item == sa.bindparam("i")) & (c.type == sa.bindparam("t"))
        connection.execute(sa.delete(_TABLE).where(this), places)
    if not changes:
        return
    insert = identities.insert_new(connection, _TABLE)
    names = "value", "updated", "received", "features"
    later = {name: sa.func.coalesce(insert.excluded[name], c[name]) for name in names}
    rows = [{"user": user, "item": item, "type": type, **row} for (user, item, type), row in sorted(changes.items())]
    connection.execute(insert.on_conflict_do_update(index_elements=["user", "item", "type"], set_=later), rows)


# --- one feedback -----------------------------------------------------------------------------------------------------------


Said = tuple[float | None, int | None]
"""Value and time of what was said before."""


def _known(connection: sa.Connection, given: Sequence[Event]) -> dict[tuple[str, str, str], Said]:
    """What holds already, by ids of user and item, and type."""
    users = identities.user_keys(connection, {event.user for event in given}, None)
    items = identities.item_keys(connection, {event.item for event in given}, None)
    places = {
        (users[event.user], items[event.item], event.type): (event.user, event.item, event.type)
        for event in given
        if event.user in users and event.item in items
    }
    c, found = _TABLE.c, dict[tuple[str, str, str], Said]()
    for chunk in identities.chunks(sorted(places), TRIPLES):
        query = sa.select(_TABLE).where(sa.tuple_(c.user, c.item, c.type).in_(chunk))
        found |= {places[row.user, row.item, row.type]: (row.value, row.time) for row in connection.execute(query)}
    return found


def _made_of(event: Event, known: Said | None, overwrite: bool) -> list[Event]:
    """The events of the log that say this, after what is known."""
    if known is None:
        return [event]
    if overwrite:
        return [_retraction(event), event]
    value, time = known
    if event.value is None:
        return [msgspec.structs.replace(event, value=value, time=time)]
    added = msgspec.structs.replace(event, value=event.value + (value or 0), time=time)
    return [added] if event.value >= 0 else [_retraction(event), added]  # models go by the largest of several values


def _retraction(event: Event) -> Event:
    return Event(user=event.user, item=event.item, type=f"retract:{event.type}")


def _feedback(row: sa.Row[Any]) -> Feedback:
    return Feedback(
        type=row.type,
        user=row.user_id,
        item=row.item_id,
        value=row.value or 0.0,
        time=row.time,
        updated=row.updated,
        features=row.features,
        place=(row.user, row.item, row.type),
    )
