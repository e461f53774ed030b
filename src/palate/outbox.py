"""What the bot has to send: a queue that outlives the process. Of one cause nothing is put in, and so nothing is sent, twice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from palate import identities, telegram_tables
from palate.domain import from_milliseconds, to_milliseconds

State = Literal["waiting", "sent", "failed", "dropped"]

_TABLE = telegram_tables.bot_outbox

# Made once: to make a statement takes as long as to run it.
_PUT = {
    name: dialect.insert(_TABLE).on_conflict_do_nothing(index_elements=["cause"]).returning(_TABLE.c.key)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_KNOWN = sa.select(_TABLE.c.key).where(_TABLE.c.cause.in_(sa.bindparam("causes", expanding=True))).limit(1)
_READ = sa.select(_TABLE).where(_TABLE.c.key == sa.bindparam("one"), _TABLE.c.state == "waiting")


class Urgency(IntEnum):
    """What goes first, when not everything can."""

    ANSWER = 0
    """To what a person has just done."""
    CHANGE = 1
    """Of a message that is there: its buttons."""
    DELIVERY = 2
    """Sent unasked, by a person's own timetable."""
    MAILING = 3


@dataclass(frozen=True)
class Call:
    """One call of the Bot API: its method, and its fields without the chat."""

    method: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """Something to be sent. Of its calls the first is made, the next when the one before it was refused."""

    chat: int
    cause: str
    urgency: Urgency
    calls: tuple[Call, ...]
    due: datetime | None = None
    """Not to be sent before; None: at once."""


@dataclass(frozen=True)
class Waiting:
    """The place of a draft in the queue."""

    key: int
    chat: int
    urgency: Urgency
    due: datetime


@dataclass(frozen=True)
class Message:
    """A draft that is waiting to be sent."""

    key: int
    chat: int
    urgency: Urgency
    calls: tuple[Call, ...]
    tries: int
    changed: datetime


def put(connection: sa.Connection, drafts: Sequence[Draft], now: datetime) -> list[Waiting]:
    """Put drafts in, and return their places; those whose cause is known are left out. Durable with the caller's transaction."""
    time = to_milliseconds(now)
    placed = []
    for draft in drafts:
        row = {
            "cause": draft.cause,
            "chat": draft.chat,
            "urgency": int(draft.urgency),
            "calls": [{"method": call.method, "fields": call.fields} for call in draft.calls],
            "state": "waiting",
            "tries": 0,
            "due": time if draft.due is None else to_milliseconds(draft.due),
            "changed": time,
        }
        key = connection.scalar(_PUT[connection.dialect.name], row)
        if key is not None:
            placed.append(Waiting(key, draft.chat, draft.urgency, draft.due or now))
    return placed


def is_known(connection: sa.Connection, causes: Sequence[str]) -> bool:
    """Whether something was put in for one of these causes."""
    return connection.scalar(_KNOWN, {"causes": causes}) is not None


def waiting(connection: sa.Connection) -> list[Waiting]:
    """All that waits, in the order in which it was put in."""
    query = sa.select(_TABLE.c.key, _TABLE.c.chat, _TABLE.c.urgency, _TABLE.c.due)
    rows = connection.execute(query.where(_TABLE.c.state == "waiting").order_by(_TABLE.c.key))
    return [Waiting(row.key, row.chat, Urgency(row.urgency), from_milliseconds(row.due)) for row in rows]


def read(connection: sa.Connection, key: int) -> Message | None:
    """What waits at a place; None when it no longer does."""
    row = connection.execute(_READ, {"one": key}).one_or_none()
    if row is None:
        return None
    calls = tuple(Call(call["method"], call["fields"]) for call in row.calls)
    return Message(row.key, row.chat, Urgency(row.urgency), calls, row.tries, from_milliseconds(row.changed))


def settle(connection: sa.Connection, keys: Collection[int], state: State, now: datetime) -> None:
    """Messages are sent, have failed for good, or aren't wanted any more: only their causes are kept."""
    done: dict[str, Any] = {"state": state, "calls": [], "changed": to_milliseconds(now)}
    for chunk in identities.chunks(keys):
        connection.execute(sa.update(_TABLE).where(_TABLE.c.key.in_(chunk)).values(**done))
    count(connection, state, len(keys))


def retry(connection: sa.Connection, message: Message, skip: int, due: datetime) -> None:
    """Keep a message for another try, without its first `skip` calls."""
    calls = [{"method": call.method, "fields": call.fields} for call in message.calls[skip:]]
    later = {"tries": _TABLE.c.tries + 1, "due": to_milliseconds(due), "calls": calls}
    connection.execute(sa.update(_TABLE).where(_TABLE.c.key == message.key).values(**later))
    count(connection, "retried")


def drop_chat(connection: sa.Connection, chat: int, now: datetime) -> int:
    """Let go all that waits for a chat; returns how much that was."""
    mine = (_TABLE.c.chat == chat) & (_TABLE.c.state == "waiting")
    gone = {"state": "dropped", "calls": [], "changed": to_milliseconds(now)}
    dropped = connection.execute(sa.update(_TABLE).where(mine).values(**gone)).rowcount
    count(connection, "dropped", dropped)
    return dropped


def forget(connection: sa.Connection, chats: Iterable[int]) -> None:
    """Keep nothing of these chats."""
    for chunk in identities.chunks(chats):
        connection.execute(sa.delete(_TABLE).where(_TABLE.c.chat.in_(chunk)))


def prune(connection: sa.Connection, before: datetime) -> int:
    """Forget the causes of what was settled before; returns how many."""
    old = (_TABLE.c.state != "waiting") & (_TABLE.c.changed < to_milliseconds(before))
    return connection.execute(sa.delete(_TABLE).where(old)).rowcount


def depth(connection: sa.Connection) -> int:
    """How much waits."""
    query = sa.select(sa.func.count()).select_from(_TABLE).where(_TABLE.c.state == "waiting")
    return connection.scalar(query) or 0


def count(connection: sa.Connection, result: str, number: int = 1) -> None:
    """Add to the figures."""
    table = telegram_tables.bot_counts
    if number:
        insert = identities.insert_new(connection, table).values(result=result, count=number)
        more = {"count": table.c.count + number}
        connection.execute(insert.on_conflict_do_update(index_elements=["result"], set_=more))


def counts(connection: sa.Connection) -> dict[str, int]:
    """What became of what was sent, by result, since the installation began."""
    table = telegram_tables.bot_counts
    query = sa.select(table.c.result, table.c.count.label("number"))
    return {row.result: row.number for row in connection.execute(query)}
