"""Who talks with the bot, and what they chose there. A chat's person is the user `telegram:<chat>`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, Literal

import sqlalchemy as sa

from palate import identities, telegram_tables
from palate.domain import from_milliseconds, to_milliseconds

Language = Literal["en", "ru"]
PREFIX = "telegram:"

_TABLE = telegram_tables.bot_chats
_CHAT = sa.select(_TABLE).where(_TABLE.c.chat == sa.bindparam("one"))


@dataclass(frozen=True)
class Chat:
    """A chat and its choices. Times of day are the person's own."""

    chat: int
    is_active: bool
    """False: the person has blocked the bot."""
    language: Language
    """Of the bot's own texts."""
    delete_disliked: bool
    time_zone: str | None
    """IANA name; None: not said yet, UTC counts."""
    deliveries: tuple[time, ...]
    """When posts are sent unasked."""
    posts: int
    """So many at a time."""
    digest: time | None
    quiet: tuple[time, time] | None
    """From when to when nothing is sent unasked; None: never."""
    delivered: datetime
    """Up to when what was due has been sent."""


def user_id(chat: int) -> str:
    """The user behind a private chat."""
    return f"{PREFIX}{chat}"


def of_users(ids: Iterable[str]) -> list[int]:
    """The chats among the ids of a person."""
    numbers = (id.removeprefix(PREFIX) for id in ids if id.startswith(PREFIX))
    return [int(number) for number in numbers if number.removeprefix("-").isdigit()]


def meet(connection: sa.Connection, chat: int, language: Language, now: datetime) -> tuple[Chat, bool]:
    """The chat somebody writes in, and whether it is new. Whoever writes has the bot unblocked."""
    found = get(connection, chat)
    if found is not None and found.is_active:
        return found, False
    row = {"chat": chat, "state": "active", "language": language, "delete_disliked": 0, "deliveries": [], "posts": 3}
    times = {"created": to_milliseconds(now), "delivered": to_milliseconds(now)}
    insert = identities.insert_new(connection, _TABLE).values(**row, **times)
    connection.execute(
        insert.on_conflict_do_update(index_elements=["chat"], set_={"state": "active", "delivered": times["delivered"]})
    )
    met = get(connection, chat)
    assert met is not None, "it has just been written"
    return met, found is None


def get(connection: sa.Connection, chat: int) -> Chat | None:
    """A chat; None when nobody wrote in it yet."""
    row = connection.execute(_CHAT, {"one": chat}).one_or_none()
    return None if row is None else _chat(row)


def active(connection: sa.Connection, after: int, limit: int) -> list[int]:
    """The next chats, by number, that may be written to."""
    query = sa.select(_TABLE.c.chat).where(_TABLE.c.state == "active", _TABLE.c.chat > after)
    return list(connection.scalars(query.order_by(_TABLE.c.chat).limit(limit)))


def scheduled(connection: sa.Connection) -> list[Chat]:
    """Chats that may be written to and want something unasked."""
    query = sa.select(_TABLE).where(_TABLE.c.state == "active").order_by(_TABLE.c.chat)
    return [chat for chat in map(_chat, connection.execute(query)) if chat.deliveries or chat.digest]


def change(connection: sa.Connection, chat: int, **values: Any) -> None:
    """Set columns of a chat's row."""
    connection.execute(sa.update(_TABLE).where(_TABLE.c.chat == chat).values(**values))


def block(connection: sa.Connection, chat: int) -> None:
    """The person has blocked the bot: nothing is sent until they write again."""
    change(connection, chat, state="blocked")


def forget(connection: sa.Connection, chats: Iterable[int]) -> None:
    """Keep nothing of these chats."""
    for chunk in identities.chunks(chats):
        connection.execute(sa.delete(_TABLE).where(_TABLE.c.chat.in_(chunk)))


def counted(connection: sa.Connection) -> dict[str, int]:
    """Number of chats by state."""
    query = sa.select(_TABLE.c.state, sa.func.count()).group_by(_TABLE.c.state)
    return {row.state: row[1] for row in connection.execute(query)}


def _chat(row: sa.Row[Any]) -> Chat:
    return Chat(
        chat=row.chat,
        is_active=row.state == "active",
        language=row.language,
        delete_disliked=bool(row.delete_disliked),
        time_zone=row.time_zone,
        deliveries=tuple(_time(minute) for minute in row.deliveries),
        posts=row.posts,
        digest=None if row.digest is None else _time(row.digest),
        quiet=None if row.quiet_from is None else (_time(row.quiet_from), _time(row.quiet_to)),
        delivered=from_milliseconds(row.delivered),
    )


def _time(minute: int) -> time:
    return time(minute // 60, minute % 60)
