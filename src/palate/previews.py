"""What is known over all public pages of Telegram's channels: whether they still look as we read them, and whom they name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from palate import alerts, channels, subscriptions
from palate.channels import Mention
from palate.domain import Item
from palate.sources import handles

PREVIEW = "telegram_preview"
"""Kind of the sources that are such pages."""
WHY_OFF = (
    "Public pages of Telegram's channels are not read, since Telegram's terms may forbid it: read docs/telegram.md, "
    "and set `[telegram] preview = true`, or listen with an account."
)
SUSPICIOUS = 0.3
"""Share of posts in which nothing was found from which on we take the pages to have changed."""
FEWEST = 20
"""Posts below which a share says nothing."""


def drift(connection: sa.Connection) -> float | None:
    """The share of posts on the last pages of all channels in which neither text nor media was found; None without posts."""
    posts, empty = _counted(connection)
    return empty / posts if posts else None


def watch_drift(connection: sa.Connection, now: datetime) -> None:
    """Raise an alert when the pages have changed, and end it when they are read well again."""
    posts, empty = _counted(connection)
    if posts >= FEWEST and empty > SUSPICIOUS * posts:
        text = f"In {empty} of {posts} posts on Telegram's public pages nothing was found: the pages have changed, update Palate."
        alerts.start(connection, "preview_drift", "t.me", text, now)
    else:
        alerts.end(connection, "preview_drift", "t.me", now)


def _counted(connection: sa.Connection) -> tuple[int, int]:
    states = [one.state for one in subscriptions.list_sources(connection) if one.kind == PREVIEW]
    return sum(one.get("posts", 0) for one in states), sum(one.get("empty", 0) for one in states)


def record_mentions(connection: sa.Connection, source: int, items: Sequence[Item], now: datetime) -> None:
    """Count the channels that new posts of a source (its key) name or forward: they are candidates to be joined."""
    found = [handle for item in items for handle in handles.named(item.text or "", item.url)]
    own = subscriptions.of_key(connection, source).address.rsplit("/", 1)[-1].lower()
    others = [Mention(one.username, one.invite) for one in found if one.username != own]
    channels.record_mentions(connection, source, others, now)
