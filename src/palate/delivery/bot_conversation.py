"""What people say to the bot, and which act answers it: commands, buttons, shared links."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial

from aiogram import Dispatcher, F, Router
from aiogram.exceptions import TelegramAPIError
from aiogram.filters import Command, CommandObject, CommandStart
from aiogram.types import CallbackQuery, Message, MessageOriginChannel, Update

from palate import chats, identities, staging
from palate.chats import Chat
from palate.database import reading, writing
from palate.delivery import bot_acts, bot_callbacks, bot_lists, bot_menus, bot_person, bot_schedule
from palate.delivery.bot_callbacks import Pressed
from palate.delivery.bot_sending import Clock, Sender
from palate.delivery.bot_talk import Act, Desk, Reply, Talk, answer, is_answered, reply, text_call
from palate.delivery.bot_texts import helping, language_of
from palate.delivery.context import in_thread
from palate.errors import DatabaseError, PalateError

log = logging.getLogger(__name__)

Press = Callable[[Talk, int], Reply]
"""In the Bot API a channel's number is this less its own."""
TRIES = 5
"""Times that an act is tried while the database can't be written."""

MENUS: dict[str, Press] = {
    "t": bot_menus.toggle_topic,
    "c": bot_menus.toggle_source,
    "p": bot_menus.sources_page,
    "i": bot_menus.choose_interface,
    "r": bot_menus.toggle_language,
    "w": bot_menus.choose_days,
    "n": bot_menus.choose_ration,
    "x": bot_menus.toggle_deletion,
    "f": bot_person.forget,
    "d": bot_schedule.toggle_time,
    "m": bot_schedule.choose_count,
    "g": bot_schedule.choose_digest,
    "q": bot_schedule.choose_quiet,
    "a": bot_schedule.zones,
    "z": bot_schedule.choose_zone,
    "y": bot_schedule.confirm_mail,
    "v": bot_schedule.cancel_mail,
}
"""By the verb of a button, besides those under posts."""

COMMANDS: dict[str, Act] = {
    "next": bot_acts.next_post,
    "top": bot_lists.top,
    "stories": bot_lists.stories,
    "topics": bot_menus.topics,
    "sources": bot_menus.sources,
    "settings": bot_menus.settings,
    "language": bot_menus.languages,
    "web": bot_person.web,
    "export": bot_person.export,
    "forget": bot_person.ask_forget,
    "figures": bot_schedule.figures,
    "help": lambda talk: reply(talk, answer(talk, text_call(helping(talk.chat.language)))),
}


def dispatcher(desk: Desk, sender: Sender, clock: Clock) -> Dispatcher:
    """The table of what is answered by what."""
    router = Router()
    private = F.chat.type == "private"

    @router.message(private, CommandStart())
    async def on_start(message: Message, command: CommandObject, event_update: Update) -> None:
        await _answer(desk, sender, clock, message, event_update, partial(_start, command.args))

    @router.message(private, Command(*COMMANDS))
    async def on_command(message: Message, command: CommandObject, event_update: Update) -> None:
        act = COMMANDS[command.command.lower()]
        await _answer(desk, sender, clock, message, event_update, lambda talk, _: act(talk))

    @router.message(private, Command("schedule"))
    async def on_schedule(message: Message, command: CommandObject, event_update: Update) -> None:
        words = (command.args or "").split()
        await _answer(desk, sender, clock, message, event_update, lambda talk, _: bot_schedule.schedule(talk, words))

    @router.message(private, Command("mail"))
    async def on_mail(message: Message, event_update: Update) -> None:
        text = message.html_text.partition(" ")[2]
        await _answer(desk, sender, clock, message, event_update, lambda talk, _: bot_schedule.mail(talk, text))

    @router.message(private)
    async def on_anything(message: Message, event_update: Update) -> None:
        await _answer(desk, sender, clock, message, event_update, lambda talk, _: _puzzled(talk))

    @router.callback_query(F.message.chat.type == "private")
    async def on_press(query: CallbackQuery, event_update: Update) -> None:
        await _press(desk, sender, clock, query, event_update)

    @router.channel_post(F.chat.id == desk.params.staging_channel)
    async def on_staged(message: Message) -> None:
        await in_thread(desk.serving, _stage, desk, clock, message)

    found = Dispatcher()
    found.include_router(router)
    return found


Told = Callable[[Talk, bool], Reply]
"""An act that also wants to know whether the chat is new."""


def _start(payload: str | None, talk: Talk, is_new: bool) -> Reply:
    shared = bot_callbacks.read_share(talk.serving.secret, payload) if payload else None
    return bot_acts.start(talk, is_new, shared, bot_menus.topics_call(talk))


def _puzzled(talk: Talk) -> Reply:
    return reply(talk, answer(talk, text_call(talk.say("unknown"))))


async def _answer(desk: Desk, sender: Sender, clock: Clock, message: Message, update: Update, told: Told) -> None:
    code = message.from_user.language_code if message.from_user else None
    given = await _tried(desk, clock, partial(_do, desk, clock, update, message.chat.id, code, 0, told))
    if given is not None:
        sender.put(given.waiting)


async def _press(desk: Desk, sender: Sender, clock: Clock, query: CallbackQuery, update: Update) -> None:
    assert query.message is not None, "a button without its message isn't routed here"
    chat, code = query.message.chat.id, query.from_user.language_code
    pressed = bot_callbacks.read_button(desk.serving.secret, chat, query.data or "")
    told = partial(_pressed, pressed)
    given = await _tried(desk, clock, partial(_do, desk, clock, update, chat, code, query.message.message_id, told))
    if given is not None:
        sender.put(given.waiting)
    if not sender.is_held():
        sender.beside(_notify(query, given.notice if given is not None else None))


def _pressed(pressed: Pressed | None, talk: Talk, _is_new: bool) -> Reply:
    if pressed is None:
        return Reply((), talk.say("forged"))
    if pressed.verb in bot_acts.VERBS:
        return bot_acts.vote(talk, pressed)
    press = MENUS.get(pressed.verb)
    return press(talk, pressed.key) if press is not None else Reply((), talk.say("forged"))


def _do(desk: Desk, clock: Clock, update: Update, chat: int, code: str | None, message: int, told: Told) -> Reply:
    """Meet the person and do what they asked for, unless that was done before."""
    now, cause = clock.now(), f"{desk.username}.{update.update_id}"
    with reading(desk.serving.engine) as connection:
        found = chats.get(connection, chat)
        if is_answered(connection, cause):
            return Reply()
    met, is_new = (found, False) if found is not None and found.is_active else _met(desk, chat, code, now)
    return told(Talk(desk, met, now, cause, message), is_new)


def _met(desk: Desk, chat: int, code: str | None, now: datetime) -> tuple[Chat, bool]:
    """The chat of somebody who is not known, or who had blocked the bot, and whether it is new."""
    with writing(desk.serving.engine) as connection:
        identities.user_keys(connection, [chats.user_id(chat)], now)
        return chats.meet(connection, chat, language_of(code), now)


async def _tried(desk: Desk, clock: Clock, do: Callable[[], Reply]) -> Reply | None:
    """What an act gives; None when it fails for good. A full disk or a busy database is waited for."""
    for attempt in range(TRIES):
        try:
            return await in_thread(desk.serving, do)
        except DatabaseError:
            log.exception("What a person did can't be written down")
            await clock.sleep(2.0**attempt)
        except PalateError:
            log.exception("What a person did can't be done")
            return None
    return None


async def _notify(query: CallbackQuery, notice: str | None) -> None:
    """Answer a press; one that is too old for an answer gets none."""
    try:
        await query.answer((notice or "")[:200])
    except (TelegramAPIError, TimeoutError, asyncio.CancelledError) as error:
        log.debug("A press was not answered: %s", error)


def _stage(desk: Desk, clock: Clock, message: Message) -> None:
    """Take note of a post that was forwarded into the staging channel."""
    origin = message.forward_origin
    if not isinstance(origin, MessageOriginChannel):
        return
    channel = staging.channel_of(origin.chat.id)
    is_part = message.media_group_id is not None
    with writing(desk.serving.engine) as connection:
        staging.arrived(connection, channel, origin.message_id, message.message_id, clock.now(), is_part=is_part)
