"""The bot: asks Telegram what people said, answers each in order, and sends what waits.

An update is confirmed when it has been dealt with, so a crash loses none; what came twice is answered once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import ClientDecodeError, TelegramAPIError, TelegramRetryAfter
from aiogram.methods import GetUpdates
from aiogram.types import BotCommand, Update, User

from palate import outbox, staging
from palate.database import writing
from palate.delivery import bot_schedule
from palate.delivery.bot_conversation import dispatcher
from palate.delivery.bot_params import BotParams
from palate.delivery.bot_sending import Clock, Sender
from palate.delivery.bot_talk import Desk
from palate.delivery.bot_texts import COMMANDS
from palate.delivery.context import Serving, ServingParams, in_thread, open_serving
from palate.errors import DatabaseError

log = logging.getLogger(__name__)

KINDS = ["message", "callback_query", "channel_post"]
PATIENCE = 5.0
"""Seconds that the others wait for whoever takes long; they still come after him in his own chat."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before Telegram is asked again after it failed: doubled from failure to failure."""
REMEMBERED = timedelta(days=2)
"""For how long the causes of answers are kept: Telegram brings updates again for one day."""
STAGED = timedelta(days=30)
"""For how long posts in the staging channel are known: nobody's window of freshness in the menu is longer."""
MINUTE = timedelta(minutes=1)
LOOK = 0.2
"""Seconds between two looks at whether to stop."""


def run(data: Path, database_url: str | None, params: ServingParams, bot: BotParams, stop: threading.Event) -> None:
    """Serve people on Telegram until `stop` is set. Raises DatabaseError."""
    with open_serving(data, database_url, params) as serving:
        asyncio.run(_until_stopped(serving, bot, stop))


async def _until_stopped(serving: Serving, params: BotParams, stop: threading.Event) -> None:
    working = asyncio.create_task(work(serving, params, Clock()))
    while not stop.is_set() and not working.done():
        await asyncio.sleep(LOOK)
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working


async def work(serving: Serving, params: BotParams, clock: Clock) -> None:
    """Serve people on Telegram until cancelled."""
    async with _bot(params) as bot:
        me = await _introduced(bot, clock)
        desk = Desk(serving, params, me.username or "")
        sender = Sender(desk, bot, clock)
        await sender.take_up()
        handlers = dispatcher(desk, sender, clock)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sender.run())
            tasks.create_task(_listen(bot, handlers, params, clock))
            tasks.create_task(_tidy(serving, clock))
            tasks.create_task(_keep_times(desk, sender, clock))


def _bot(params: BotParams) -> Bot:
    assert params.token is not None, "who starts the bot has looked whether there is one"
    return Bot(params.token, session=AiohttpSession(api=TelegramAPIServer.from_base(params.api)))


async def _introduced(bot: Bot, clock: Clock) -> User:
    """Who the bot is, once Telegram says so; its menu is set on the way."""
    pause = FIRST_PAUSE
    while True:
        try:
            me = await bot.get_me()
            await bot.delete_webhook()
            for language, commands in COMMANDS.items():
                menu = [BotCommand(command=name, description=what) for name, what in commands.items()]
                await bot.set_my_commands(menu, language_code=None if language == "en" else language)
            return me
        except (TelegramAPIError, ClientDecodeError, TimeoutError) as error:
            pause = await _paused(error, pause, clock)


async def _paused(error: Exception, pause: float, clock: Clock) -> float:
    """Wait after a failure; returns how long to wait after the next."""
    wait = float(error.retry_after) if isinstance(error, TelegramRetryAfter) else pause
    log.error("Telegram can't be asked, trying again in %.0f s: %s", wait, error)
    await clock.sleep(wait)
    return min(2 * pause, LONGEST_PAUSE)


@dataclass
class _Chats:
    """The chats in which something is being done: what comes next in one waits for what came before."""

    busy: dict[int, asyncio.Task[None]]


async def _listen(bot: Bot, handlers: Dispatcher, params: BotParams, clock: Clock) -> None:
    """Ask for updates and deal with them, for ever."""
    offset, pause = 0, FIRST_PAUSE
    chats = _Chats({})
    while True:
        ask = GetUpdates(offset=offset, timeout=params.poll_seconds, allowed_updates=KINDS)
        try:
            updates = await bot(ask, request_timeout=params.poll_seconds + 10)
        except (TelegramAPIError, ClientDecodeError, TimeoutError) as error:
            pause = await _paused(error, pause, clock)
            continue
        pause = FIRST_PAUSE
        if updates:
            await _deal_with(bot, handlers, updates, chats)
            offset = updates[-1].update_id + 1


async def _deal_with(bot: Bot, handlers: Dispatcher, updates: Sequence[Update], chats: _Chats) -> None:
    """Everybody at once, each chat in order; returns when all is done, or when those who are left take long."""
    tasks = []
    for chat, own in _by_chat(updates).items():
        task = asyncio.create_task(_one_by_one(bot, handlers, own, chats.busy.get(chat)))
        chats.busy[chat] = task
        task.add_done_callback(lambda done, chat=chat: _forget(chats, chat, done))  # type: ignore[misc]
        tasks.append(task)
    await asyncio.wait(tasks, timeout=PATIENCE)


def _forget(chats: _Chats, chat: int, done: asyncio.Task[None]) -> None:
    if chats.busy.get(chat) is done:
        del chats.busy[chat]


def _by_chat(updates: Iterable[Update]) -> dict[int, list[Update]]:
    found: dict[int, list[Update]] = {}
    for update in updates:
        found.setdefault(_chat_of(update), []).append(update)
    return found


def _chat_of(update: Update) -> int:
    message = update.message or update.channel_post
    if update.callback_query is not None and update.callback_query.message is not None:
        return update.callback_query.message.chat.id
    return message.chat.id if message is not None else 0


async def _one_by_one(
    bot: Bot, handlers: Dispatcher, updates: Sequence[Update], before: asyncio.Task[None] | None
) -> None:
    if before is not None:
        await asyncio.wait([before])
    for update in updates:
        try:
            await handlers.feed_update(bot, update)
        except Exception:  # of one person; the others go on
            log.exception("An update failed by a mistake of ours.")


async def _keep_times(desk: Desk, sender: Sender, clock: Clock) -> None:
    """Once a minute, send what is due. What is due stands in our own tables: APScheduler only wakes us.

    It counts by the machine's clock, so when that is set back it is told to look again.
    """
    from apscheduler.schedulers.asyncio import AsyncIOScheduler
    from apscheduler.triggers.cron import CronTrigger

    scheduler = AsyncIOScheduler(timezone=UTC)
    # Late is better than never: what it has missed is found in the tables.
    job = scheduler.add_job(
        send_due, CronTrigger(second=0), (desk, sender, clock), max_instances=1, coalesce=True, misfire_grace_time=None
    )
    scheduler.start()
    try:
        while True:
            await clock.sleep(MINUTE.total_seconds())
            if job.next_run_time > clock.now() + 2 * MINUTE:
                job.modify(next_run_time=clock.now())
    finally:
        scheduler.shutdown(wait=False)


async def send_due(desk: Desk, sender: Sender, clock: Clock) -> None:
    """Put everything that is due now into the outbox: people's own times, and mailings that are on their way."""
    serving = desk.serving
    try:
        for chat in await in_thread(serving, bot_schedule.scheduled, desk):
            sender.put(await in_thread(serving, bot_schedule.deliver, desk, chat, clock.now()))
        while waiting := await in_thread(serving, bot_schedule.mail_some, desk, clock.now()):
            sender.put(waiting)
    except DatabaseError:
        log.exception("What is due could not be sent; it is tried again in a minute")


async def _tidy(serving: Serving, clock: Clock) -> None:
    """Forget what is settled, and old posts of the staging channel, every hour."""
    while True:
        try:
            await in_thread(serving, _prune, serving, clock)
        except DatabaseError:
            log.exception("What is settled could not be tidied away")
        await clock.sleep(3600)


def _prune(serving: Serving, clock: Clock) -> None:
    with writing(serving.engine) as connection:
        outbox.prune(connection, clock.now() - REMEMBERED)
        staging.prune(connection, clock.now() - STAGED)
