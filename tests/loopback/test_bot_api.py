"""The stand-in for the Bot API is as strict as the real one, seen through the real aiogram."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    TelegramBadRequest,
    TelegramConflictError,
    TelegramForbiddenError,
    TelegramNetworkError,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiogram.types import BotCommand, BufferedInputFile, InlineKeyboardButton, InlineKeyboardMarkup, LinkPreviewOptions

from palate.loopback.bot_api import serving
from palate.loopback.bot_api_chats import BOT, TOKEN, Channel, Chats, Fault

Ask = Callable[[Bot, Chats], Awaitable[Any]]


class Time:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def ask(do: Ask, token: str = TOKEN, time: Time | None = None) -> Chats:
    """Ask the stand-in something; one person has started a chat with it."""

    async def main() -> Chats:
        chats = Chats(time or Time())
        chats.say(1, "/start")
        async with (
            serving(chats) as address,
            Bot(token, session=AiohttpSession(api=TelegramAPIServer.from_base(address))) as bot,
        ):
            await do(bot, chats)
        return chats

    return asyncio.run(main())


def keyboard(*data: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="b", callback_data=one)] for one in data])


def test_a_message_is_there_without_its_markup_and_with_its_preview() -> None:
    async def do(bot: Bot, _: Chats) -> None:
        preview = LinkPreviewOptions(url="https://t.me/a/1", show_above_text=True)
        await bot.send_message(1, "<b>a &lt; b</b>", parse_mode="HTML", link_preview_options=preview)

    [message] = ask(do).chat(1).of_bot()
    assert message["text"] == "a < b"
    assert message["link_preview_options"] == {"url": "https://t.me/a/1", "show_above_text": True}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * 4097, "message is too long"),
        ("🐈" * 2049, "message is too long"),
        ("<b></b>", "message text is empty"),
        ("<b>a", 'end tag corresponding to start tag "b"'),
        ("a</b>", "Unmatched end tag"),
        ("<b><i>a</b></i>", "Unmatched end tag"),
        ("a < b", "Unsupported start tag"),
        ("<p>a</p>", 'Unsupported start tag "p"'),
    ],
)
def test_a_text_that_breaks_a_rule_is_refused(text: str, reason: str) -> None:
    async def do(bot: Bot, _: Chats) -> None:
        with pytest.raises(TelegramBadRequest, match=reason):
            await bot.send_message(1, text, parse_mode="HTML")

    assert not ask(do).chat(1).of_bot()


def test_markup_does_not_count_as_text() -> None:
    async def do(bot: Bot, _: Chats) -> None:
        await bot.send_message(1, f"<b>{'x' * 2048}&amp;{'🐈' * 1023}</b>", parse_mode="HTML")

    assert len(ask(do).chat(1).of_bot()) == 1


@pytest.mark.parametrize(
    ("markup", "reason"),
    [
        (keyboard("x" * 65), "BUTTON_DATA_INVALID"),
        (keyboard("ж" * 33), "BUTTON_DATA_INVALID"),
        (keyboard(*("x" for _ in range(101))), "reply markup is too long"),
        (
            InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="b", url="somewhere")]]),
            "Wrong HTTP URL",
        ),
    ],
)
def test_a_keyboard_that_breaks_a_rule_is_refused(markup: InlineKeyboardMarkup, reason: str) -> None:
    async def do(bot: Bot, _: Chats) -> None:
        with pytest.raises(TelegramBadRequest, match=reason):
            await bot.send_message(1, "text", reply_markup=markup)

    ask(do)


def test_what_is_not_there_or_stays_the_same_can_not_be_changed() -> None:
    async def do(bot: Bot, chats: Chats) -> None:
        sent = await bot.send_message(1, "text", reply_markup=keyboard("a"))
        with pytest.raises(TelegramBadRequest, match="message is not modified"):
            await bot.edit_message_reply_markup(chat_id=1, message_id=sent.message_id, reply_markup=keyboard("a"))
        with pytest.raises(TelegramBadRequest, match="message to edit not found"):
            await bot.edit_message_text("other", chat_id=1, message_id=999)
        with pytest.raises(TelegramBadRequest, match="message can't be edited"):
            await bot.edit_message_text("other", chat_id=1, message_id=1)  # it is the person's own
        with pytest.raises(TelegramBadRequest, match="chat not found"):
            await bot.send_message(2, "text")
        await bot.delete_message(1, sent.message_id)
        with pytest.raises(TelegramBadRequest, match="message to delete not found"):
            await bot.delete_message(1, sent.message_id)

    assert not ask(do).chat(1).of_bot()


def test_a_channel_without_the_bot_can_not_be_copied_from() -> None:
    async def do(bot: Bot, chats: Chats) -> None:
        chats.channels[-1001] = Channel(-1001, "Closed", "closed")
        chats.channels[-1002] = Channel(-1002, "Staging", has_bot=True)
        closed, open_ = chats.publish(-1001, "no"), chats.publish(-1002, "yes")
        with pytest.raises(TelegramBadRequest, match="message to copy not found"):
            await bot.copy_message(1, "@closed", closed)
        await bot.copy_message(1, -1002, open_, reply_markup=keyboard("a"))

    [message] = ask(do).chat(1).of_bot()
    assert message["text"] == "yes"


def test_rates_are_kept_and_a_breach_is_told() -> None:
    time = Time()

    async def do(bot: Bot, chats: Chats) -> None:
        await bot.send_message(1, "first")
        time.seconds = 0.99
        with pytest.raises(TelegramRetryAfter):
            await bot.send_message(1, "too early")
        time.seconds = 2.0
        await bot.send_message(1, "in time")

    chats = ask(do, time=time)
    assert chats.rates.breaches == ["chat 1 got a message 0.990 s after another"]
    assert chats.rates.sent == 2


def test_more_than_thirty_a_second_are_a_breach() -> None:
    async def do(bot: Bot, chats: Chats) -> None:
        for person in range(2, 33):
            chats.say(person, "/start")
        for person in range(2, 32):
            await bot.send_message(person, "text")
        with pytest.raises(TelegramRetryAfter):
            await bot.send_message(32, "text")

    assert ask(do).rates.breaches == ["31 messages within a second"]


def test_faults_come_as_told_and_silence_is_watched() -> None:
    time = Time()

    async def do(bot: Bot, chats: Chats) -> None:
        chats.faults += [Fault(status=502, description="Bad Gateway"), Fault(drop="before")]
        chats.faults += [Fault(drop="after"), Fault(retry_after=7)]
        with pytest.raises(TelegramServerError):
            await bot.send_message(1, "text")
        for _ in range(2):
            with pytest.raises(TelegramNetworkError):
                await bot.send_message(1, "text")
        assert len(chats.chat(1).of_bot()) == 1  # the second connection broke after it was done
        with pytest.raises(TelegramRetryAfter) as asked:
            await bot.send_message(1, "text")
        assert asked.value.retry_after == 7
        time.seconds = 6.5
        with pytest.raises(TelegramRetryAfter):
            await bot.send_message(1, "text")

    assert ask(do, time=time).rates.breaches == ["retry_after was ignored: chat 1 was written to 0.50 s too early"]


def test_a_person_can_block_the_bot() -> None:
    async def do(bot: Bot, chats: Chats) -> None:
        chats.block(1)
        with pytest.raises(TelegramForbiddenError, match="bot was blocked by the user"):
            await bot.send_message(1, "text")

    ask(do)


def test_updates_come_until_they_are_confirmed_and_to_one_asker_only() -> None:
    async def do(bot: Bot, chats: Chats) -> None:
        first = await bot.get_updates()
        assert [update.message and update.message.text for update in first] == ["/start"]
        assert await bot.get_updates() == first
        waiting = asyncio.create_task(bot.get_updates(offset=first[-1].update_id + 1, timeout=20))
        await chats.until(lambda: not chats.updates)
        chats.say(1, "later")
        assert [update.message and update.message.text for update in await waiting] == ["later"]
        chats.updates.clear()
        waiting = asyncio.create_task(bot.get_updates(timeout=20))
        polls = chats.polls
        await chats.until(lambda: chats.polls > polls)
        chats.say(1, "last")
        await waiting
        chats.updates.clear()
        old = asyncio.create_task(bot.get_updates(timeout=20))
        await chats.until(lambda: chats.polls > polls + 1)
        new = asyncio.create_task(bot.get_updates(timeout=20))
        with pytest.raises(TelegramConflictError):
            await old
        chats.say(1, "end")
        await new

    ask(do)


def test_a_tap_can_be_answered_once() -> None:
    async def do(bot: Bot, chats: Chats) -> None:
        sent = await bot.send_message(1, "text", reply_markup=keyboard("a"))
        tap = chats.tap(1, sent.message_id, "b")
        await bot.answer_callback_query(tap, text="counted")
        with pytest.raises(TelegramBadRequest, match="query is too old"):
            await bot.answer_callback_query(tap)

    assert ask(do).chat(1).notices == ["counted"]


def test_a_file_and_a_menu_are_taken() -> None:
    async def do(bot: Bot, _: Chats) -> None:
        await bot.send_document(1, BufferedInputFile(b"{}", "all.json"), caption="yours")
        await bot.set_my_commands([BotCommand(command="next", description="the next")])
        with pytest.raises(TelegramBadRequest, match="BOT_COMMAND_INVALID"):
            await bot.set_my_commands([BotCommand(command="Next!", description="the next")])

    chats = ask(do)
    [message] = chats.chat(1).of_bot()
    assert (message["document"]["file_name"], message["loopback_content"]) == ("all.json", "{}")
    assert chats.commands == {"": [{"command": "next", "description": "the next"}]}


def test_a_wrong_token_is_refused() -> None:
    async def do(bot: Bot, _: Chats) -> None:
        with pytest.raises(TelegramUnauthorizedError):
            await bot.get_me()

    ask(do, token="123456:WRONG")


def test_people_can_be_watched_and_played_over_http() -> None:
    def get(address: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(address, data)) as answer:
            return json.load(answer)

    async def main() -> None:
        chats = Chats(Time())
        async with serving(chats) as address:
            await asyncio.to_thread(get, f"{address}/chats/5/say", {"text": "/start"})
            state = await asyncio.to_thread(get, f"{address}/chats")
            assert [chat["id"] for chat in state["chats"]] == [5]
            assert state["waiting_updates"] == 1
            assert state["chats"][0]["messages"][0]["text"] == "/start"
            with pytest.raises(urllib.error.HTTPError, match="400"):
                await asyncio.to_thread(get, f"{address}/chats/5/say", {"text": "/start not a payload"})
            chats.preview = lambda url: {"title": url} if url == "https://t.me/cats/1" else None
            link = {"text": "Cats", "link_preview_options": {"url": "https://t.me/cats/1"}}
            chats.put(chats.chat(5).messages, chats.chat(5).head(), BOT, link)
            view = await asyncio.to_thread(get, f"{address}/chats/5?last=1")
            assert [message["text"] for message in view["chat"]["messages"]] == ["Cats"]
            assert view["previews"] == {"https://t.me/cats/1": {"title": "https://t.me/cats/1"}}
            with pytest.raises(urllib.error.HTTPError, match="404"):
                await asyncio.to_thread(get, f"{address}/chats/6")
            await asyncio.to_thread(get, f"{address}/chats/5/block", {})
            assert chats.chat(5).blocked

    asyncio.run(main())
