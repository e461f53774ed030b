"""The process that plays Telegram: both servers, the channels' posts, and the people."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from datetime import timedelta

import numpy as np
import sqlalchemy as sa

from palate import accounts, channels, memberships
from palate.accounts import TelegramParams
from palate.database import reading, writing
from palate.loopback import bot_api
from palate.loopback.bot_api_chats import Chats
from palate.loopback.telegram_server import TelegramServer
from palate.play import people, preparing, world
from palate.play.stage import Stage
from palate.play.world import MOMENT, Play

log = logging.getLogger(__name__)

SEED = 5
LOOK = 0.25
"""Seconds between two looks at what is due."""
FAREWELL = 1.5
"""Seconds that the servers stay after all were told to stop: the others hang up first."""
LOGGED_IN = timedelta(days=60)
"""How long the accounts have been logged in: long enough to join."""
FLOODED, FLOOD_AFTER, FLOOD_SECONDS = "boris", 3, 20
"""Whom Telegram asks to wait, at which of his joins, and for how long."""


def run(engine: sa.Engine, stage: Stage, telegram: TelegramParams, stop: threading.Event) -> None:
    """Play until `stop` is set."""
    asyncio.run(_until_stopped(engine, stage, telegram, stop))


async def _until_stopped(engine: sa.Engine, stage: Stage, telegram: TelegramParams, stop: threading.Event) -> None:
    playing = asyncio.create_task(play_all(engine, stage, telegram))
    while not stop.is_set() and not playing.done():
        await asyncio.sleep(LOOK)
    await asyncio.wait([playing], timeout=FAREWELL)
    playing.cancel()
    with suppress(asyncio.CancelledError):
        await playing


async def play_all(engine: sa.Engine, stage: Stage, telegram: TelegramParams) -> None:
    """Play until cancelled."""
    play, chats, rng = preparing.opened(stage), Chats(), np.random.default_rng(SEED)
    everybody = people.people([scene.item for scene in play.script.scenes if scene.item is not None], rng)
    people.arrive(chats, everybody)
    chats.preview = lambda url: world.preview(play, url)
    server = TelegramServer(play.world, port=stage.telegram_port)
    await server.start()
    try:
        _log_in(engine, play, server, telegram, stage)
        async with bot_api.serving(chats, port=stage.bot_port), asyncio.TaskGroup() as tasks:
            tasks.create_task(_go_on(play, server, stage, rng))
            for person, own in zip(everybody, rng.spawn(len(everybody)), strict=True):
                tasks.create_task(people.live(person, chats, lambda url: world.item_of(play, url), everybody, own))
    finally:
        await server.close()


def _log_in(engine: sa.Engine, play: Play, server: TelegramServer, params: TelegramParams, stage: Stage) -> None:
    """Give each account a session with this server, and let it be in the channels that it is known to be in."""
    with reading(engine) as connection:
        known = {one.key: one.telegram_id for one in channels.list_channels(connection)}
    with writing(engine) as connection:
        for account in play.world.accounts.values():
            key = accounts.get(connection, account.name).key
            accounts.log_in(connection, key, server.session(account), params, stage.opening - LOGGED_IN)
            inside = memberships.list_memberships(connection, account=key)
            account.joined |= {id for one in inside if (id := known.get(one.channel)) is not None}


async def _go_on(play: Play, server: TelegramServer, stage: Stage, rng: np.random.Generator) -> None:
    """Let time pass: posts appear, are read and corrected; one account is asked to wait."""
    passed, is_flooded = stage.opening, False
    while True:
        now = stage.clock()
        world.publish_due(play, now)
        if now - passed >= MOMENT:
            world.let_pass(play, rng)
            passed = now
        if not is_flooded and len(server.made("JoinChannel", FLOODED)) >= FLOOD_AFTER - 1:
            server.fail(f"FLOOD_WAIT_{FLOOD_SECONDS}", method="JoinChannel", account=FLOODED)
            is_flooded = True
        await asyncio.sleep(LOOK)
