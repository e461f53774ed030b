"""One thing that a person said to the bot, and the pieces that answers are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from palate import chats, events, identities, outbox, people
from palate.chats import Chat
from palate.database import reading, writing
from palate.delivery import bot_callbacks
from palate.delivery.bot_callbacks import Pressed
from palate.delivery.bot_params import BotParams
from palate.delivery.bot_texts import say
from palate.delivery.context import Serving
from palate.domain import Event
from palate.outbox import Call, Draft, Urgency, Waiting
from palate.people import Choices

Rows = list[list[dict[str, str]]]
"""An inline keyboard."""


@dataclass(frozen=True)
class Desk:
    """The bot of one installation: what every answer needs."""

    serving: Serving
    params: BotParams
    username: str
    """Of the bot, without @."""


@dataclass(frozen=True)
class Talk:
    """One message, or one press of a button."""

    desk: Desk
    chat: Chat
    now: datetime
    cause: str
    """Of the answers: the same again when Telegram brings the same once more."""
    message: int = 0
    """Id of the message whose button was pressed."""

    @property
    def serving(self) -> Serving:
        """The installation."""
        return self.desk.serving

    @property
    def user(self) -> str:
        """The id that the person has here."""
        return chats.user_id(self.chat.chat)

    def say(self, name: str, /, **values: object) -> str:
        """A text in the person's language."""
        return say(self.chat.language, name, **values)

    def button(self, text: str, verb: str, key: int, request: str | None = None) -> dict[str, str]:
        """A button that says something back when it is pressed."""
        data = bot_callbacks.button(self.serving.secret, self.chat.chat, Pressed(verb, key, request))
        return {"text": text, "callback_data": data}

    def window(self, choices: Choices) -> timedelta:
        """For how long a post is fresh enough for the person."""
        return timedelta(days=choices.window_days or self.desk.params.window_days)


@dataclass(frozen=True)
class Reply:
    """What became of it: places in the outbox, and what a press is answered with."""

    waiting: tuple[Waiting, ...] = ()
    notice: str | None = None


Act = Callable[[Talk], Reply]


def person_key(connection: sa.Connection, talk: Talk) -> int:
    """Key of the person behind the chat, who is somebody from now on (needs to write then)."""
    key = identities.user_keys(connection, [talk.user], talk.now)[talk.user]
    return identities.persons(connection, [key])[key]


def known_person(connection: sa.Connection, talk: Talk) -> int | None:
    """The same, None when they have done nothing yet."""
    key = identities.user_keys(connection, [talk.user], None).get(talk.user)
    return None if key is None else identities.persons(connection, [key])[key]


def choices_of(talk: Talk) -> Choices:
    """What the person chose."""
    with reading(talk.serving.engine) as connection:
        person = known_person(connection, talk)
        return Choices() if person is None else people.choices(connection, person)


def choose(talk: Talk, **changes: Any) -> Choices:
    """Change what the person chose."""
    with writing(talk.serving.engine) as connection:
        person = person_key(connection, talk)
        chosen = msgspec.structs.replace(people.choices(connection, person), **changes)
        people.set_choices(connection, person, chosen)
    return chosen


def is_owner(talk: Talk) -> bool:
    """Whether the person may write to everybody."""
    return talk.chat.chat in talk.desk.params.owners or choices_of(talk).owner


def text_call(text: str, rows: Rows | None = None) -> Call:
    """A message without a preview of its links."""
    fields: dict[str, Any] = {"text": text, "parse_mode": "HTML", "link_preview_options": {"is_disabled": True}}
    return Call("sendMessage", fields | ({"reply_markup": {"inline_keyboard": rows}} if rows else {}))


def answer(talk: Talk, *calls: Call, number: int = 0) -> Draft:
    """A message to the person; of several answers each has its own number. Further calls are for when the first is refused."""
    return Draft(talk.chat.chat, f"{talk.cause}:{number}", Urgency.ANSWER, calls)


def change(talk: Talk, call: Call) -> Draft:
    """A change of the message whose button was pressed."""
    fields = call.fields | {"message_id": talk.message}
    return Draft(talk.chat.chat, f"{talk.cause}:change", Urgency.CHANGE, (Call(call.method, fields),))


def changed_menu(talk: Talk, text: str, rows: Rows) -> Draft:
    """The pressed menu as it is now."""
    return change(talk, Call("editMessageText", text_call(text, rows).fields))


def changed_buttons(talk: Talk, rows: Rows) -> Draft:
    """Other buttons under the pressed message."""
    return change(talk, Call("editMessageReplyMarkup", {"reply_markup": {"inline_keyboard": rows}}))


def reply(talk: Talk, *drafts: Draft, notice: str | None = None) -> Reply:
    """Put answers into the outbox. Raises NotDurable."""
    with writing(talk.serving.engine) as connection:
        return Reply(tuple(outbox.put(connection, drafts, talk.now)), notice)


def note(connection: sa.Connection, talk: Talk, happened: Sequence[Event]) -> None:
    """Put events into the log, durable with the caller's transaction. Raises InvalidEvent."""
    checked = [events.check(event, index, talk.now) for index, event in enumerate(happened)]
    events.append(connection, checked, talk.now)


def is_answered(connection: sa.Connection, cause: str) -> bool:
    """Whether this was answered before: a crash may have kept Telegram from learning that it was."""
    return outbox.is_known(connection, [f"{cause}:0", f"{cause}:change"])


def in_rows(buttons: Sequence[dict[str, str]], width: int) -> Rows:
    """Buttons side by side."""
    return [list(buttons[start : start + width]) for start in range(0, len(buttons), width)]
