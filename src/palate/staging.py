"""Posts in the staging channel: a private channel into which a listening account forwards what the bot is likely to send.

The bot wants posts (`want`), the account forwards them (`wanted`), and the bot hears of each as it arrives (`arrived`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from palate import identities, telegram_tables
from palate.domain import to_milliseconds

PREFIX = "tg:"
"""How the ids of Telegram's posts begin: `tg:<channel>:<message>`, of an album its first message."""
MOST_PARTS = 10
"""Messages of an album."""
CHANNEL_NUMBERS = -(10**12)
"""Bots number channels from here downwards."""

_TABLE = telegram_tables.bot_staged


def channel_of(chat: int) -> int:
    """Telegram's own number of the channel that bots know as `chat`.

    >>> channel_of(-1001234567890)
    1234567890
    """
    return CHANNEL_NUMBERS - chat


def want(connection: sa.Connection, item: str, now: datetime) -> None:
    """Ask for a post, by its item's id, to be put into the channel. Nothing changes for one that is there or was refused."""
    _insert(connection, item, "wanted", [], now, replace=False)


def wanted(connection: sa.Connection, limit: int) -> list[str]:
    """Ids of items that are wanted, the longest wanted first."""
    query = sa.select(_TABLE.c.item).where(_TABLE.c.state == "wanted").order_by(_TABLE.c.time).limit(limit)
    return list(connection.scalars(query))


def begin(connection: sa.Connection, items: Sequence[str], now: datetime) -> None:
    """Posts are about to be forwarded: they aren't wanted meanwhile, so that none comes twice should we die."""
    for item in items:
        _insert(connection, item, "begun", [], now, replace=True)


def again(connection: sa.Connection, items: Sequence[str], now: datetime) -> None:
    """Posts that were begun could not be forwarded for now: they are wanted still."""
    for item in items:
        _insert(connection, item, "wanted", [], now, replace=True)


def refuse(connection: sa.Connection, item: str, now: datetime) -> None:
    """A post can't be forwarded (its channel forbids it): it isn't wanted any more."""
    _insert(connection, item, "refused", [], now, replace=True)


def arrived(
    connection: sa.Connection, channel: int, post: int, message: int, now: datetime, *, is_part: bool = False
) -> None:
    """The post of a channel, or with `is_part` one message of an album, lies in the staging channel as `message`."""
    item = _item(connection, channel, post, MOST_PARTS if is_part else 1)
    _insert(connection, item, "staged", sorted({*messages(connection, item), message}), now, replace=True)


def staged(connection: sa.Connection, item: str, lying: Sequence[int], now: datetime) -> None:
    """A post was forwarded, and lies in the channel as these messages."""
    _insert(connection, item, "staged", sorted({*messages(connection, item), *lying}), now, replace=True)


def messages(connection: sa.Connection, item: str) -> list[int]:
    """Ids of an item's messages in the channel; none when it isn't there."""
    return list(connection.scalar(sa.select(_TABLE.c.messages).where(_TABLE.c.item == item)) or [])


def expire(connection: sa.Connection, before: datetime) -> int:
    """Forget posts wanted or begun before, which nobody could forward: whoever sends them wants them anew. Returns how many."""
    old = sa.delete(_TABLE).where(_TABLE.c.state.in_(("wanted", "begun")), _TABLE.c.time < to_milliseconds(before))
    return connection.execute(old).rowcount


def prune(connection: sa.Connection, before: datetime) -> int:
    """Forget what was wanted or came before; returns how many."""
    return connection.execute(sa.delete(_TABLE).where(_TABLE.c.time < to_milliseconds(before))).rowcount


def _item(connection: sa.Connection, channel: int, post: int, most: int) -> str:
    """Id of the item that the message is of: of those wanted or staged that which begins here or just before."""
    ids = [f"{PREFIX}{channel}:{post - before}" for before in range(most)]
    known = set(connection.scalars(sa.select(_TABLE.c.item).where(_TABLE.c.item.in_(ids))))
    return next((id for id in ids if id in known), ids[0])


def _insert(
    connection: sa.Connection, item: str, state: str, messages: list[int], now: datetime, *, replace: bool
) -> None:
    values: dict[str, Any] = {"state": state, "messages": messages, "time": to_milliseconds(now)}
    insert = identities.insert_new(connection, _TABLE).values(item=item, **values)
    if replace:
        connection.execute(insert.on_conflict_do_update(index_elements=["item"], set_=values))
    else:
        connection.execute(insert.on_conflict_do_nothing(index_elements=["item"]))
