"""What Telegram doesn't tell unasked: one channel is asked for all that has happened since it was last looked at."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from palate import hearing, memberships, subscriptions
from palate.database import reading, writing
from palate.hearing import Followed
from palate.sources.telegram import PAGE, Change, Client

PAGES = 20
"""Pages of a channel's history, or of its difference, that are read at most at once."""
OVERLAP = timedelta(minutes=5)
"""How far before the last time that a channel was heard its history is read."""


async def mute(engine: sa.Engine, client: Client, channel: Followed) -> None:
    """Let the channel ring nowhere, if it still does."""
    if channel.muted:
        return
    await client.mute(channel.ref)
    channel.muted = True
    with writing(engine) as connection:
        memberships.set_muted(connection, channel.key, channel.account)


async def catch_up(engine: sa.Engine, client: Client, channel: Followed, history: timedelta, now: datetime) -> None:
    """Find out all that has happened in a channel since its position; the first time, in the time of `history`."""
    if channel.reached is None or channel.moved:
        pts, name = await client.position(channel.ref)
        with writing(engine) as connection:
            hearing.rename(connection, channel, name, now)
        channel.moved = False
        if channel.reached is None:
            await _read_back(engine, client, channel, pts, history, now)
            return
    channel.look = False
    for _ in range(PAGES):
        found = await client.difference(channel.ref, channel.reached)
        if found.too_long:
            await _read_back(engine, client, channel, found.pts, history, now)
        hearing.catch_up(channel, found.changes, max(found.pts, channel.reached), now)
        if found.is_final:
            channel.furthest = min(channel.furthest, channel.reached)
            return
    channel.look = True


async def count(engine: sa.Engine, client: Client, channel: Followed, history: timedelta, now: datetime) -> None:
    """Ask how often the channel's newest posts were seen and forwarded."""
    channel.counted = now
    recent = hearing.messages_since(engine, channel, now - history)[:PAGE]
    if recent:
        channel.waiting.append(Change(channel.ref.id, counters=await client.counters(channel.ref, recent)))


async def _read_back(
    engine: sa.Engine, client: Client, channel: Followed, pts: int, history: timedelta, now: datetime
) -> None:
    """Read a channel's history back to when it was last heard; what is missing in it was deleted; all up to `pts` is known."""
    since = _last_heard(engine, channel, history, now)
    changes, read = await _history(client, channel, since)
    oldest = min(read, default=0)
    known = hearing.messages_since(engine, channel, since)
    gone = tuple(message for message in known if message >= oldest and message not in read)
    hearing.catch_up(channel, [*changes, Change(channel.ref.id, deleted=gone)], pts, now)


def _last_heard(engine: sa.Engine, channel: Followed, history: timedelta, now: datetime) -> datetime:
    with reading(engine) as connection:
        source = subscriptions.get(connection, channel.source)
    heard = source.last_success
    if heard is None or heard > now:  # then the clock was ahead, and nobody knows when it was
        return now - history
    return max(heard - OVERLAP, now - history)


async def _history(client: Client, channel: Followed, since: datetime) -> tuple[list[Change], set[int]]:
    """The messages since then as changes, the oldest first, and the ids of all that were read."""
    changes, read = list[Change](), set[int]()
    for _ in range(PAGES):
        page, names = await client.history(channel.ref, min(read, default=0))
        read |= {message.id for message in page}
        recent = [message for message in page if message.date >= since]
        changes += [Change(channel.ref.id, message=message, names=names) for message in recent]
        if len(recent) < PAGE:
            break
    return changes[::-1], read
