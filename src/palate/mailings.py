"""Messages of the owner to everybody who talks with the bot: drafted, confirmed, then put into the outbox chat by chat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from palate import telegram_tables
from palate.domain import to_milliseconds

_TABLE = telegram_tables.bot_mailings


@dataclass(frozen=True)
class Mailing:
    """A confirmed mailing on its way."""

    key: int
    text: str
    """Telegram's HTML."""
    sent_to: int
    """Chats up to this one have it."""


def draft(connection: sa.Connection, author: int, text: str, now: datetime) -> int:
    """Keep a mailing that isn't confirmed yet; returns its key."""
    row = {"author": author, "text": text, "state": "draft", "created": to_milliseconds(now), "sent_to": -(2**62)}
    key = connection.execute(sa.insert(_TABLE).values(**row).returning(_TABLE.c.key)).scalar_one()
    return int(key)


def decide(connection: sa.Connection, key: int, author: int, state: Literal["confirmed", "cancelled"]) -> bool:
    """Send a draft of this author's, or don't; False when there is none, or it was decided before."""
    own = (_TABLE.c.key == key) & (_TABLE.c.author == author) & (_TABLE.c.state == "draft")
    return bool(connection.execute(sa.update(_TABLE).where(own).values(state=state)).rowcount)


def on_their_way(connection: sa.Connection) -> list[Mailing]:
    """Confirmed mailings that not everybody has yet, oldest first."""
    query = sa.select(_TABLE).where(_TABLE.c.state == "confirmed").order_by(_TABLE.c.key)
    return [Mailing(row.key, row.text, row.sent_to) for row in connection.execute(query)]


def advance(connection: sa.Connection, key: int, sent_to: int | None) -> None:
    """Chats up to `sent_to` have it; None: everybody has."""
    changed = {"state": "sent"} if sent_to is None else {"sent_to": sent_to}
    connection.execute(sa.update(_TABLE).where(_TABLE.c.key == key).values(**changed))
