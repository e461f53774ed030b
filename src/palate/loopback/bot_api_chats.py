"""What the Bot API's stand-in knows: chats with their messages, people who write and tap, the rates at which it is asked."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from palate.loopback.bot_api_rules import PAYLOAD, Refused

BOT = {"id": 123456, "is_bot": True, "first_name": "Palate", "username": "palate_test_bot"}
TOKEN = "123456:LOOPBACK"

PER_SECOND = 30
"""Messages of all chats in any second."""
GAP = 1.0
"""Seconds between two messages to one chat."""
UNDER_WAY = 5.0
"""For so many seconds after silence was asked for, what comes was under way already: it is refused, and no breach."""
ANSWERABLE = 300.0
"""Seconds for which a tap can be answered."""

Record = dict[str, Any]
"""An object of the Bot API, as it goes over the wire."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with the next call: an error, or a connection that breaks before or after the call was done."""

    method: str | None = None
    """None: any that sends or changes a message."""
    chat: int | None = None
    """None: any."""
    status: int = 500
    description: str = "Internal Server Error"
    retry_after: int | None = None
    """Seconds for which that chat, or with `everybody` the whole bot, may send nothing."""
    everybody: bool = False
    drop: Literal["before", "after"] | None = None


@dataclass
class Chat:
    """A private chat between a person and the bot; the person's id is the chat's."""

    id: int
    name: str
    language: str | None
    messages: dict[int, Record] = field(default_factory=dict)
    """Those that are there, by id."""
    deleted: list[int] = field(default_factory=list)
    started: bool = False
    blocked: bool = False
    notices: list[str] = field(default_factory=list)
    """What taps were answered with."""

    def person(self) -> Record:
        """The one who writes here."""
        told = {"id": self.id, "is_bot": False, "first_name": self.name}
        return told | ({"language_code": self.language} if self.language else {})

    def head(self) -> Record:
        """The chat as messages name it."""
        return {"id": self.id, "type": "private", "first_name": self.name}

    def of_bot(self) -> list[Record]:
        """The bot's messages, oldest first."""
        return [message for message in self.messages.values() if message["from"]["is_bot"]]


@dataclass
class Channel:
    """A channel with its posts; the bot can copy from it only where it is an administrator."""

    id: int
    title: str
    username: str | None = None
    has_bot: bool = False
    posts: dict[int, Record] = field(default_factory=dict)

    def head(self) -> Record:
        """The channel as messages name it."""
        return {"id": self.id, "type": "channel", "title": self.title} | (
            {"username": self.username} if self.username else {}
        )


class Rates:
    """Counts what is sent, and keeps every breach of a limit as a sentence."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        self.breaches: list[str] = []
        self.sent = 0
        self._ticks = ticks
        self._recent: deque[float] = deque()
        self._last: dict[int, float] = {}
        self._held: dict[int | None, tuple[float, float]] = {}

    def hold(self, chat: int | None, seconds: float) -> None:
        """Refuse all that goes to a chat (None: to all) for so long."""
        self._held[chat] = self._ticks(), self._ticks() + seconds

    def check_held(self, chat: int) -> None:
        """Raises Refused, and counts a breach, when something comes before the time that was asked for is over."""
        for key in (chat, None):
            began, ends = self._held.get(key, (0.0, 0.0))
            left = ends - self._ticks()
            if left > 0 and self._ticks() - began > UNDER_WAY:
                self.breaches.append(f"retry_after was ignored: chat {chat} was written to {left:.2f} s too early")
            if left > 0:
                raise too_many(int(left) + 1)

    def count(self, chat: int, new: bool) -> None:
        """Count one call that sends (`new`) or changes a message. Raises Refused, and counts a breach, beyond the limits."""
        now = self._ticks()
        self._recent.append(now)
        while self._recent[0] <= now - 1:
            self._recent.popleft()
        if len(self._recent) > PER_SECOND:
            self.breaches.append(f"{len(self._recent)} messages within a second")
            raise too_many(1)
        if not new:
            return
        gap = now - self._last.get(chat, -GAP)
        if gap < GAP:
            self.breaches.append(f"chat {chat} got a message {gap:.3f} s after another")
            raise too_many(1)

    def delivered(self, chat: int) -> None:
        """A message has come to a chat."""
        self._last[chat] = self._ticks()
        self.sent += 1


def too_many(seconds: int) -> Refused:
    """The refusal with status 429."""
    return Refused(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)


class Chats:
    """All of it. Methods that people's names begin with are what people do; they take effect at once."""

    def __init__(
        self,
        ticks: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.chats: dict[int, Chat] = {}
        self.channels: dict[int, Channel] = {}
        self.updates: deque[Record] = deque()
        self.taps: dict[str, tuple[float, int]] = {}
        """Time and chat of what was tapped and not answered yet."""
        self.faults: list[Fault] = []
        self.commands: dict[str, list[dict[str, str]]] = {}
        self.preview: Callable[[str], Record | None] = lambda url: None
        """What is shown of a link, for whoever watches the chats."""
        self.polls = 0
        """Calls of getUpdates so far: a newer one ends those before it."""
        self.rates = Rates(ticks)
        self.ticks = ticks
        self.now = now
        self._update_ids, self._message_ids, self._tap_ids = itertools.count(1), itertools.count(1), itertools.count(1)
        self._changed = asyncio.Event()

    # what people do

    def chat(self, person: int, name: str = "Ann", language: str | None = "en") -> Chat:
        """The chat of a person; a new one has not been started."""
        return self.chats.setdefault(person, Chat(person, name, language))

    def say(self, person: int, text: str) -> int:
        """A person writes to the bot; returns the message's id. Whoever writes has started the chat and unblocked the bot."""
        chat = self.chat(person)
        chat.started, chat.blocked = True, False
        start = text.partition(" ")[2] if text.startswith("/start ") else None
        assert start is None or PAYLOAD.fullmatch(start), "no link of Telegram's can carry this payload"
        entities = [{"type": "bot_command", "offset": 0, "length": len(text.split()[0])}] if text[:1] == "/" else []
        message = self.put(chat.messages, chat.head(), chat.person(), {"text": text, "entities": entities})
        self.post({"message": message})
        return int(message["message_id"])

    def tap(self, person: int, message: int, button: str | None = None, data: str | None = None) -> str:
        """A person taps the button whose text begins with `button`, or sends `data` of their own; returns the tap's id."""
        chat = self.chat(person)
        found = chat.messages.get(message) or {"message_id": message, "chat": chat.head(), "date": 0}
        if data is None:
            assert button is not None, "a tap needs a button or data"
            data = button_of(found, button)["callback_data"]
        id = str(next(self._tap_ids))
        self.taps[id] = (self.ticks(), person)
        query = {"id": id, "from": chat.person(), "chat_instance": str(person), "data": data, "message": found}
        self.post({"callback_query": query})
        return id

    def block(self, person: int) -> None:
        """A person blocks the bot."""
        self.chat(person).blocked = True
        self.notify()

    def publish(self, channel: int, text: str, **more: Any) -> int:
        """A post appears in a channel; a bot that is in it hears of it. Returns the post's id."""
        found = self.channels[channel]
        post = self.put(found.posts, found.head(), None, {"text": text, "sender_chat": found.head(), **more})
        if found.has_bot:
            self.post({"channel_post": post})
        return int(post["message_id"])

    # what both sides share

    def put(self, into: dict[int, Record], chat: Record, sender: Record | None, content: Record) -> Record:
        """A new message among others."""
        id = next(self._message_ids)
        message = {"message_id": id, "date": int(self.now().timestamp()), "chat": chat, **content}
        into[id] = message | ({"from": sender} if sender else {})
        self.notify()
        return into[id]

    def post(self, update: Record) -> None:
        """An update for the bot, kept until it is confirmed."""
        self.updates.append({"update_id": next(self._update_ids), **update})
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until the condition holds; it is looked at after every change. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not condition():
                await self._changed.wait()

    def fault(self, method: str, chat: int | None) -> Fault | None:
        """The fault that this call meets; each happens once."""
        for fault in self.faults:
            if fault.method in (None, method) and fault.chat in (None, chat):
                self.faults.remove(fault)
                return fault
        return None

    def state(self) -> Record:
        """Everything that can be seen, as JSON."""
        return {
            "bot": BOT,
            "chats": [_shown(chat) for chat in self.chats.values()],
            "waiting_updates": len(self.updates),
            "sent": self.rates.sent,
            "breaches": self.rates.breaches,
        }

    def view(self, person: int, last: int) -> Record:
        """One chat as its person sees it, with as many of its last messages; everybody's names; what is shown of links."""
        chat = self.chat(person)
        shown = _shown(chat) | {"messages": list(chat.messages.values())[-last:]}
        urls = {str(message.get("link_preview_options", {}).get("url", "")) for message in shown["messages"]}
        return {
            "bot": BOT,
            "sent": self.rates.sent,
            "people": [{"id": one.id, "name": one.name} for one in self.chats.values()],
            "chat": shown,
            "previews": {url: found for url in urls if (found := self.preview(url)) is not None},
        }


def button_of(message: Record, text: str) -> Record:
    """The button of a message whose text begins so."""
    rows = message.get("reply_markup", {}).get("inline_keyboard", [])
    found = [button for row in rows for button in row if button["text"].startswith(text)]
    assert found, f"the message has no button {text}: {rows}"
    return dict(found[0])


def _shown(chat: Chat) -> Record:
    return {
        "id": chat.id,
        "name": chat.name,
        "blocked": chat.blocked,
        "messages": list(chat.messages.values()),
        "deleted": chat.deleted,
        "notices": chat.notices,
    }
