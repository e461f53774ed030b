"""Posts that the bot wants to copy are forwarded into its staging channel, by an account that listens to their channel."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from palate import catalog, staging
from palate.database import reading, writing
from palate.errors import TelegramRefused
from palate.hearing import Followed
from palate.sources.telegram import PAGE, ChannelRef, Client
from palate.sources.telegram_posts import message_of

log = logging.getLogger(__name__)

LOOKED_AT = 1000
"""Wanted posts among which those of an account's channels are looked for."""
_FORBIDDEN = frozenset(("CHAT_FORWARDS_RESTRICTED", "MESSAGE_ID_INVALID"))
"""What Telegram says when posts can never be forwarded: their channel forbids it, or they are gone."""


async def forward_some(
    engine: sa.Engine, client: Client, to: ChannelRef, channels: Mapping[int, Followed], now: datetime
) -> None:
    """Forward wanted posts of one of these channels (by Telegram's number), at most 100 messages, in one request.

    Raises TelegramRefused when it may work later, with all wanted as before; TelegramUnreachable when nobody knows whether they
    were forwarded: then they aren't wanted, until somebody wants them anew.
    """
    with reading(engine) as connection:
        channel, items = _of_one_channel(staging.wanted(connection, LOOKED_AT), channels)
        posts = _posts(items, catalog.aliases(connection, items), channel) if channel is not None else {}
    if channel is None:
        return
    chosen = _at_most(posts, PAGE)
    messages = [message for item in chosen for message in posts[item]]
    with writing(engine) as connection:
        staging.begin(connection, chosen, now)
    _note(engine, posts, chosen, await _forwarded(engine, client, channel, messages, chosen, to, now), now)


async def _forwarded(
    engine: sa.Engine,
    client: Client,
    channel: Followed,
    messages: Sequence[int],
    items: Sequence[str],
    to: ChannelRef,
    now: datetime,
) -> dict[int, int]:
    """Where each message lies in the staging channel; nothing when it can never lie there."""
    try:
        return await client.forward(channel.ref, messages, to)
    except TelegramRefused as error:
        if error.code in _FORBIDDEN:
            log.info("%s: %s", channel.name.title, error)
            return {}
        with writing(engine) as connection:
            staging.again(connection, items, now)
        raise


def _note(
    engine: sa.Engine, posts: Mapping[str, Sequence[int]], items: Sequence[str], lying: Mapping[int, int], now: datetime
) -> None:
    with writing(engine) as connection:
        for item in items:
            there = [lying[message] for message in posts[item] if message in lying]
            if there:
                staging.staged(connection, item, there, now)
            else:
                staging.refuse(connection, item, now)


def _of_one_channel(wanted: Sequence[str], channels: Mapping[int, Followed]) -> tuple[Followed | None, list[str]]:
    """The channel of the post that is wanted longest among those that we can read, and its wanted posts."""
    for item in wanted:
        parts = item.split(":")
        channel = channels.get(int(parts[1])) if len(parts) == 3 and parts[1].isdecimal() else None
        if channel is not None and message_of(item, channel.ref.id) is not None:
            return channel, [one for one in wanted if message_of(one, channel.ref.id) is not None]
    return None, []


def _posts(items: Sequence[str], aliases: Mapping[str, Sequence[str]], channel: Followed) -> dict[str, list[int]]:
    """By item the messages that it is in this channel: of an album all, which have ids in a row."""
    posts: dict[str, list[int]] = {}
    for item in items:
        first = message_of(item, channel.ref.id)
        assert first is not None, "only posts of this channel are asked for"
        ids = {message_of(name, channel.ref.id) for name in aliases.get(item, ())}
        row = range(first, first + staging.MOST_PARTS)
        posts[item] = [first, *(id for id in row[1:] if ids.issuperset(range(first + 1, id + 1)))]
    return posts


def _at_most(posts: Mapping[str, Sequence[int]], limit: int) -> list[str]:
    """The first posts that have so many messages together."""
    chosen, number = list[str](), 0
    for item, messages in posts.items():
        number += len(messages)
        if number > limit:
            break
        chosen.append(item)
    return chosen
