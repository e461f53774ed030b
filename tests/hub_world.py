"""A hub with real Telethon clients before a loopback Telegram, under a clock that only tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa
import telethon.client.users

from palate import accounts, channels, counters, database, listening
from palate.accounts import TelegramParams
from palate.database import reading, writing
from palate.hub_params import HubParams
from palate.loopback.telegram_server import TelegramServer
from palate.loopback.telegram_world import Account, Channel, TelegramWorld
from palate.sources.joining import JoiningParams

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
MOMENT = timedelta(seconds=3)
"""Longer than an album is waited for."""
NIGHTLESS = JoiningParams(quiet_from=0, quiet_until=0, first_days=0.0)


@dataclass(eq=False)
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@dataclass(eq=False)
class Scene:
    """Everything that a scenario may touch."""

    engine: sa.Engine
    clock: Clock
    world: TelegramWorld
    server: TelegramServer
    params: HubParams
    telegram: TelegramParams
    joining: JoiningParams
    hub: listening.Hub = field(init=False)
    staging: int | None = None
    added: dict[str, datetime] = field(default_factory=dict)
    """When each account was added."""

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A hub that knows nothing but what is in the database."""
        rng = np.random.default_rng(1)
        self.hub = listening.Hub(self.engine, self.params, self.telegram, self.joining, rng, Path(), self.staging)

    async def restart(self) -> None:
        """As after a crash: nothing is stored any more, and the lines are dead."""
        for line in list(self.hub.lines.values()):
            await line.client.close()
        self.start()

    def account(self, name: str, days: float = 30, premium: bool = False) -> Account:
        """An account on both sides, logged in so many days ago."""
        there = self.world.add_account(name, premium=premium)
        self.added[name] = self.clock.now
        with writing(self.engine) as connection:
            here = accounts.add(connection, name, f"+{there.phone}", self.clock.now)
            since = self.clock.now - timedelta(days=days)
            accounts.log_in(connection, here.key, self.server.session(there), self.telegram, since)
        return there

    def channel(self, name: str, category: str | None = None, wanted: bool = True) -> Channel:
        """A public channel, in the pool when it is wanted."""
        if wanted:
            with writing(self.engine) as connection:
                channels.add(connection, self.clock.now, username=name, category=category)
        return self.world.add_channel(name, title=f"Channel {name}")

    async def step(self, passed: timedelta = MOMENT) -> None:
        """Let time pass, and the hub do what is due then; what was told meanwhile has arrived."""
        self.clock.now += passed
        for _ in range(3):
            await asyncio.sleep(0.001)
        await listening.step(self.hub, self.clock.now)

    async def until(self, true: Callable[[], bool], passed: timedelta = MOMENT, steps: int = 2000) -> None:
        """Step until something is so."""
        for _ in range(steps):
            if true():
                return
            await self.step(passed)
        raise AssertionError("it never came to that")

    async def join(self, number: int) -> None:
        """Wait until so many channels are joined."""
        await self.until(lambda: self.joined() == number, timedelta(minutes=5))

    def items(self) -> dict[str, sa.Row[tuple[object, ...]]]:
        """The live items, by id."""
        items = database.items
        with reading(self.engine) as connection:
            rows = connection.execute(sa.select(items).where(items.c.state == "live")).all()
        return {row.id: row for row in rows}

    def counted(self, id: str) -> dict[str, float]:
        key = self.items()[id].key
        assert isinstance(key, int)
        with reading(self.engine) as connection:
            return counters.of_item(connection, key)

    def pool(self) -> dict[str, str]:
        """Every channel's state, by its address."""
        with reading(self.engine) as connection:
            return {one.address: one.state for one in channels.list_channels(connection)}

    def joined(self) -> int:
        return sum(len(account.joined) for account in self.world.accounts.values())


def play(
    engine: sa.Engine,
    script: Callable[[Scene], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    keep_text: bool = False,
    params: HubParams | None = None,
    joining: JoiningParams = NIGHTLESS,
) -> None:
    """Run a scenario; afterwards no rule of Telegram's has been broken."""
    clock = Clock()
    # Telethon remembers by the machine's clock how long a method must wait, and lets nobody say another
    monkeypatch.setattr(telethon.client.users, "time", SimpleNamespace(time=lambda: clock.now.timestamp()))
    telegram = TelegramParams(api_id=1, api_hash="hash", session_key=accounts.new_key(), keep_text=keep_text)

    async def run() -> None:
        server = TelegramServer(TelegramWorld(clock))
        await server.start()
        scene = Scene(engine, clock, server.world, server, params or HubParams(), telegram, joining)
        try:
            await script(scene)
        finally:
            await listening.close(scene.hub, clock.now)
            await server.close()
        assert server.breaches == []

    asyncio.run(run())
