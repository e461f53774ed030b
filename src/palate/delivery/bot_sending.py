"""Sends what waits in the outbox, in its order and at Telegram's pace.

Messages are settled together, after Telegram's answer, so one whose answer a crash swallowed is sent once more: nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from aiogram import Bot
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramForbiddenError,
    TelegramNetworkError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiogram.methods import (
    CopyMessage,
    CopyMessages,
    DeleteMessage,
    EditMessageReplyMarkup,
    EditMessageText,
    SendDocument,
    SendMessage,
    TelegramMethod,
)
from aiogram.types import BufferedInputFile

from palate import chats, outbox
from palate.database import reading, writing
from palate.delivery.bot_line import Lane, Line
from palate.delivery.bot_talk import Desk
from palate.delivery.context import in_thread
from palate.delivery.surfaces import everything_known
from palate.errors import DatabaseError
from palate.outbox import Call, Message, Urgency, Waiting

log = logging.getLogger(__name__)

METHODS: dict[str, type[TelegramMethod[Any]]] = {
    method.__api_method__: method
    for method in (SendMessage, CopyMessage, CopyMessages, EditMessageReplyMarkup, EditMessageText, DeleteMessage)
}
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before a message is tried again: doubled from try to try."""
STALE = timedelta(minutes=2)
"""Buttons that could not be changed for so long have been pressed again, or are forgotten."""
LONGEST_DUE = timedelta(days=1)
"""For so long a message rests at most, however the clock was set meanwhile."""
REQUEST_SECONDS = 20
STATES: dict[str, outbox.State] = {"sent": "sent", "failed": "failed", "obsolete": "dropped"}
"""What becomes of a message, by the result of its last try."""
OBSOLETE = ("not modified", "to edit not found", "to delete not found", "can't be deleted", "can't be edited")
UNREACHABLE = ("chat not found", "PEER_ID_INVALID", "user is deactivated", "USER_IS_BLOCKED")


@dataclass(frozen=True)
class Clock:
    """Time for everything that waits; tests bring their own."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ticks: Callable[[], float] = time.monotonic
    """Seconds that never jump."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True)
class Outcome:
    """What an attempt to send came to."""

    result: Literal["sent", "retry", "next", "blocked", "obsolete", "failed"]
    wait: float = 0.0
    """Seconds before the next try."""
    holds: Literal["chat", "all", "none"] = "none"
    """What else has to wait for so long."""


def outcome(error: Exception | None, message: Message, tries: int) -> Outcome:
    """What the answer to a message means; None for no error."""
    if error is None:
        return Outcome("sent")
    if isinstance(error, TelegramRetryAfter):
        # Telegram doesn't say whose limit it was. Of a private chat it isn't its own: that one the line keeps.
        return Outcome("retry", float(error.retry_after), "all" if message.chat > 0 else "chat")
    if isinstance(error, TelegramUnauthorizedError):
        return Outcome("retry", LONGEST_WAIT, "all")
    if isinstance(error, TelegramForbiddenError) or _says(error, UNREACHABLE):
        return Outcome("blocked")
    if isinstance(error, TelegramNetworkError | TelegramServerError | ClientDecodeError | TimeoutError):
        wait = min(FIRST_WAIT * 2**message.tries, LONGEST_WAIT)
        return Outcome("retry", wait) if message.tries + 1 < tries else Outcome("failed")
    if isinstance(error, TelegramBadRequest) and _says(error, OBSOLETE):
        return Outcome("obsolete")
    return Outcome("next" if len(message.calls) > 1 else "failed")


def _says(error: Exception, phrases: Iterable[str]) -> bool:
    return isinstance(error, TelegramBadRequest | TelegramNotFound) and any(one in str(error) for one in phrases)


@dataclass(frozen=True)
class _Settling:
    message: Message
    found: Outcome
    written: asyncio.Future[None]


class Sender:
    """The loop that sends; one for a bot."""

    def __init__(self, desk: Desk, bot: Bot, clock: Clock) -> None:
        self._desk = desk
        self._bot = bot
        self._clock = clock
        self._line = Line(desk.params.per_second, desk.params.chat_gap)
        self._changed = asyncio.Event()
        self._flying: set[asyncio.Task[None]] = set()
        self._unsettled: list[_Settling] = []
        self._settler: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Task[None]] = set()

    def put(self, waiting: Iterable[Waiting]) -> None:
        """Let what was put into the outbox go out when its turn comes."""
        now, ticks = self._clock.now(), self._clock.ticks()
        for one in waiting:
            rest = min(one.due - now, LONGEST_DUE).total_seconds()
            self._line.put(one.key, Lane(one.chat, one.urgency != Urgency.CHANGE), one.urgency, ticks + max(rest, 0))
        self._changed.set()

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for which nobody has to wait; it is given up when the bot stops."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def is_held(self) -> bool:
        """Whether Telegram has asked for silence."""
        return self._line.held(None) > self._clock.ticks()

    async def take_up(self) -> None:
        """Let what a former process left in the outbox go out."""
        with reading(self._desk.serving.engine) as connection:
            self.put(outbox.waiting(connection))

    async def run(self) -> None:
        """Send, for ever. When it is cancelled, what is under way is still settled."""
        try:
            while True:
                self._changed.clear()
                key = self._line.take(self._clock.ticks())
                if key is None:
                    await self._rest(self._line.wait(self._clock.ticks()))
                else:
                    task = asyncio.create_task(self._send(key))
                    self._flying.add(task)
                    task.add_done_callback(self._flying.discard)
        finally:
            for task in self._beside:
                task.cancel()
            await asyncio.gather(*self._flying, return_exceptions=True)

    async def _rest(self, seconds: float | None) -> None:
        """Wait until something changes or, when that is given, so long."""
        changed = asyncio.create_task(self._changed.wait())
        timer = [asyncio.ensure_future(self._clock.sleep(seconds))] if seconds is not None else []
        try:
            await asyncio.wait([changed, *timer], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (changed, *timer):
                task.cancel()

    async def _send(self, key: int) -> None:
        """One attempt, from the outbox to what became of it."""
        serving = self._desk.serving
        try:
            message = await in_thread(serving, self._read, key)
        except DatabaseError:
            log.exception("The outbox can't be read")
            return self._again(key, FIRST_WAIT)
        if message is None:
            self._line.done(key, self._clock.ticks())
            return self._changed.set()
        if message.urgency == Urgency.CHANGE and self._clock.now() - message.changed > STALE:
            found = Outcome("obsolete")
        else:
            found = outcome(await self._attempt(message), message, self._desk.params.tries)
        self._hold(message, found)
        if found.result in ("retry", "next"):
            await self._settle(message, found)  # before it can be taken again: its calls may change
            return self._again(key, found.wait)
        self._line.done(key, self._clock.ticks())
        self._changed.set()
        await self._settle(message, found)

    def _read(self, key: int) -> Message | None:
        with reading(self._desk.serving.engine) as connection:
            return outbox.read(connection, key)

    def _again(self, key: int, wait: float) -> None:
        self._line.again(key, self._clock.ticks(), wait)
        self._changed.set()

    def _hold(self, message: Message, found: Outcome) -> None:
        if found.holds != "none":
            chat = message.chat if found.holds == "chat" else None
            self._line.hold(chat, self._clock.ticks() + found.wait)
            log.warning("Telegram asks for %.0f s of silence", found.wait)
        if found.result == "blocked":
            self._line.drop(message.chat)

    async def _attempt(self, message: Message) -> Exception | None:
        try:
            await self._bot(await self._method(message.chat, message.calls[0]), request_timeout=REQUEST_SECONDS)
        except (TelegramAPIError, ClientDecodeError, TimeoutError) as error:
            return error
        return None

    async def _method(self, chat: int, call: Call) -> TelegramMethod[Any]:
        fields = {**call.fields, "chat_id": chat}
        if call.method != SendDocument.__api_method__:
            return METHODS[call.method].model_validate(fields)
        serving = self._desk.serving
        content = await in_thread(serving, everything_known, serving, chats.user_id(chat))
        return SendDocument.model_validate({**fields, "document": BufferedInputFile(content, call.fields["document"])})

    async def _settle(self, message: Message, found: Outcome) -> None:
        """Write down what became of it, together with what else waits for that."""
        one = _Settling(message, found, asyncio.get_running_loop().create_future())
        self._unsettled.append(one)
        if self._settler is None or self._settler.done():
            self._settler = asyncio.create_task(self._settle_all())
        await one.written

    async def _settle_all(self) -> None:
        while self._unsettled:
            together, self._unsettled = self._unsettled, []
            mistake: Exception | None = None
            try:
                await self._write_down(together)
            except Exception as error:  # of ours: whoever waits learns of it
                mistake = error
            for one in together:
                if one.written.done():
                    continue  # nobody waits any more
                one.written.set_result(None) if mistake is None else one.written.set_exception(mistake)

    async def _write_down(self, together: Sequence[_Settling]) -> None:
        """Write, however long the disk is full."""
        while True:
            try:
                return await in_thread(self._desk.serving, self._write, together)
            except DatabaseError:
                log.exception("The outbox can't be written")
                await self._clock.sleep(FIRST_WAIT)

    def _write(self, together: Sequence[_Settling]) -> None:
        now = self._clock.now()
        with writing(self._desk.serving.engine) as connection:
            for result, state in STATES.items():
                keys = [one.message.key for one in together if one.found.result == result]
                outbox.settle(connection, keys, state, now)
            for one in together:
                self._write_rest(connection, one.message, one.found, now)
        for one in together:
            if one.found.result == "failed":
                log.error("Message %d to a chat could not be sent and is given up", one.message.key)

    def _write_rest(self, connection: sa.Connection, message: Message, found: Outcome, now: datetime) -> None:
        if found.result in ("retry", "next"):
            due = now + timedelta(seconds=found.wait)
            outbox.retry(connection, message, int(found.result == "next"), due)
        elif found.result == "blocked":
            chats.block(connection, message.chat)
            outbox.drop_chat(connection, message.chat, now)
            outbox.count(connection, "blocked")
