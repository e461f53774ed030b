"""A bot with posts to send, a stand-in for Telegram in front of it, and a clock that runs as fast as the machine allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace

from palate import catalog, database, subscriptions, telegram_tables
from palate.database import reading, writing
from palate.delivery import bot
from palate.delivery.bot_params import BotParams
from palate.delivery.bot_sending import Clock
from palate.delivery.context import Serving
from palate.domain import Item
from palate.loopback.bot_api import serving as serving_api
from palate.loopback.bot_api_chats import TOKEN, Chats, Record, button_of

SPEED = 20.0
"""Seconds of the bot in one of ours."""
PATIENCE = 60.0
"""Seconds of ours after which a test gives up."""
BEGINNING = datetime(2026, 11, 2, 12, tzinfo=UTC)


def fast(speed: float = SPEED) -> Clock:
    """A clock that runs so many times as fast."""
    started = time.monotonic()

    def ticks() -> float:
        return (time.monotonic() - started) * speed

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / speed)

    return Clock(lambda: BEGINNING + timedelta(seconds=ticks()), ticks, sleep)


def post(number: int, source: str = "https://t.me/cats", **more: Any) -> Item:
    """A post of a channel, the higher its number the older."""
    return Item(
        id=f"tg:77:{number}",
        title=f"Post {number}",
        url=f"https://t.me/cats/{number}",
        source=source,
        published=BEGINNING - timedelta(minutes=number + 1),
        **more,
    )


@dataclass
class BotWorld:
    """What a test looks at."""

    serving: Serving
    clock: Clock
    chats: Chats
    params: BotParams
    working: list[asyncio.Task[None]] = field(default_factory=list)

    def add(self, *items: Item) -> None:
        """Put posts into the catalog."""
        with writing(self.serving.engine) as connection:
            for source in dict.fromkeys(item.source for item in items if item.source):
                subscriptions.add(connection, "api", source, BEGINNING, title=source.rpartition("/")[2].title())
            catalog.upsert(connection, items, BEGINNING)
        self.serving.live.refresh(self.clock.now())

    def start(self) -> None:
        """Let a bot run."""
        self.working.append(asyncio.create_task(bot.work(self.serving, self.params, self.clock)))

    async def kill(self) -> None:
        """End the bot, whatever it is doing."""
        task = self.working.pop()
        task.cancel()
        await asyncio.wait([task])

    def texts(self, person: int) -> list[str]:
        """What the bot said to a person, oldest first."""
        return [message.get("text", "") for message in self.chats.chat(person).of_bot()]

    def posts(self, person: int) -> list[Record]:
        """The posts that a person got and still has."""
        return [one for one in self.chats.chat(person).of_bot() if has_button(one, "👍")]

    async def until_texts(self, person: int, count: int) -> list[str]:
        """What the bot said, once it is so much."""
        await self.chats.until(lambda: len(self.texts(person)) >= count, PATIENCE)
        return self.texts(person)

    async def until_posts(self, person: int, count: int) -> list[Record]:
        """The posts, once there are so many."""
        await self.chats.until(lambda: len(self.posts(person)) >= count, PATIENCE)
        return self.posts(person)

    async def until_quiet(self) -> None:
        """Wait until everything that people did is dealt with and everything is sent."""
        await self.chats.until(lambda: not self.chats.updates, PATIENCE)
        await self.settled()
        with suppress(TimeoutError):  # while Telegram wants silence, no tap is answered
            await self.chats.until(lambda: not self.chats.taps, 1.0)

    async def settled(self) -> None:
        """Wait until nothing is left to be sent."""
        async with asyncio.timeout(PATIENCE):
            while self.waiting():
                await asyncio.sleep(0.005)

    def waiting(self) -> int:
        """Messages in the outbox that are not settled."""
        table = telegram_tables.bot_outbox
        with reading(self.serving.engine) as connection:
            query = sa.select(sa.func.count()).select_from(table).where(table.c.state == "waiting")
            return int(connection.scalar(query) or 0)

    def events(self, *types: str) -> list[tuple[str, str, str]]:
        """User, item and type of the log's events of these types, in order."""
        table, users, items = database.events, database.users, database.items
        query = (
            sa.select(users.c.id, items.c.id, table.c.type)
            .join(users, users.c.key == table.c.user)
            .join(items, items.c.key == table.c.item)
            .where(table.c.type.in_(types))
            .order_by(table.c.seq)
        )
        with reading(self.serving.engine) as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def has_button(message: Record, text: str) -> bool:
    """Whether a message has a button whose text begins so."""
    rows = message.get("reply_markup", {}).get("inline_keyboard", [])
    return any(button["text"].startswith(text) for row in rows for button in row)


def data_of(message: Record, text: str) -> str:
    """What a button sends."""
    return str(button_of(message, text)["callback_data"])


@asynccontextmanager
async def bot_world(serving: Serving, posts: int = 20, **params: Any) -> AsyncIterator[BotWorld]:
    """A bot at work with so many posts; no limit of Telegram's may have been broken in the end."""
    clock = fast()
    chats = Chats(clock.ticks, clock.now)
    async with serving_api(chats) as address:
        chosen = replace(BotParams(token=TOKEN, api=address, poll_seconds=1), **params)
        world = BotWorld(serving, clock, chats, chosen)
        world.add(*(post(number) for number in range(posts)))
        world.start()
        try:
            yield world
        finally:
            for task in world.working:
                task.cancel()
            if world.working:
                await asyncio.wait(world.working)
    assert chats.rates.breaches == []
