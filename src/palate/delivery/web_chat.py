"""A chat with the bot as a messenger shows it, by what the demo's stand-in for the Bot API tells of it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from palate.delivery.context import Play
from palate.delivery.refusals import Refusal

LONGEST = 500
"""Characters that a visitor may write at once."""
LAST = 40
"""Messages that are shown."""
PATIENCE = 3.0
COMMANDS = ("/start", "/next", "/top", "/stories", "/topics", "/sources", "/settings")


@dataclass(frozen=True)
class Button:
    """What stands under a message: it sends `data` back, or leads to an address."""

    text: str
    data: str | None
    url: str | None


@dataclass(frozen=True)
class Card:
    """The preview of a link."""

    url: str
    site: str
    title: str
    text: str
    counts: str
    """Views and reactions, in words."""


@dataclass(frozen=True)
class Bubble:
    """A message."""

    id: int
    is_own: bool
    time: str
    text: str
    card: Card | None
    rows: tuple[tuple[Button, ...], ...]


@dataclass(frozen=True)
class ChatView:
    """A chat, its newest message first."""

    person: int
    name: str
    is_visitor: bool
    bot: str
    people: tuple[tuple[int, str], ...]
    """Everybody who has a chat, by number and name."""
    bubbles: tuple[Bubble, ...]
    notice: str | None
    """What the last press was answered with."""
    commands: tuple[str, ...] = COMMANDS


def look(play: Play, person: int) -> ChatView:
    """Somebody's chat as it is now. Raises Refusal when nobody has this number, and while the servers aren't there."""
    told = _ask(play, f"/chats/{person}?last={LAST}")
    shown, previews = told["chat"], told["previews"]
    bubbles = [_bubble(message, previews) for message in reversed(shown["messages"])]
    notices = [text for text in shown["notices"] if text]
    people = tuple((int(one["id"]), str(one["name"])) for one in told["people"])
    return ChatView(
        person=person,
        name=shown["name"],
        is_visitor=bool(people) and person == people[0][0],
        bot=told["bot"]["first_name"],
        people=people,
        bubbles=tuple(bubbles),
        notice=notices[-1] if notices else None,
    )


def is_there(play: Play) -> bool:
    """Whether the servers have started."""
    address = urlsplit(play.address)
    try:
        socket.create_connection((address.hostname or "", address.port or 0), PATIENCE).close()
        return True
    except OSError:
        return False


def say(play: Play, person: int, text: str) -> None:
    """Write something to the bot as this person."""
    _ask(play, f"/chats/{person}/say", {"text": text})


def tap(play: Play, person: int, message: int, data: str) -> None:
    """Press a button as this person."""
    _ask(play, f"/chats/{person}/tap", {"message": message, "data": data})


def _ask(play: Play, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
    address = urlsplit(play.address)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Refusal(503, "unavailable", "The simulated Telegram isn't there yet: try again in a moment.") from error
    finally:
        connection.close()
    if answer.status == 404:
        raise Refusal(404, "not_found", "Nobody has this chat.")
    if answer.status != 200:
        raise Refusal(400, "invalid_request", "That can't be said here.")
    found: dict[str, Any] = json.loads(text)
    return found


def _bubble(message: Mapping[str, Any], previews: Mapping[str, Any]) -> Bubble:
    url = message.get("link_preview_options", {}).get("url")
    keyboard = message.get("reply_markup", {}).get("inline_keyboard", [])
    text = message.get("text") or message.get("caption") or ""
    if "document" in message:
        text = "📎 " + " ".join(part for part in (message["document"]["file_name"], text) if part)
    return Bubble(
        id=message["message_id"],
        is_own=not message["from"]["is_bot"],
        time=f"{datetime.fromtimestamp(message['date'], UTC):%H:%M}",
        text=text,
        card=_card(url, previews[url]) if url in previews else None,
        rows=tuple(
            tuple(Button(one["text"], one.get("callback_data"), one.get("url")) for one in row) for row in keyboard
        ),
    )


def _card(url: str, told: Mapping[str, Any]) -> Card:
    pictures = f"{told['parts']} pictures" if told["parts"] > 1 else ""
    reactions = f"👍 {told['reactions']:,}" if told["reactions"] else ""
    counts = " · ".join(
        part for part in (f"{told['views']:,} {'view' if told['views'] == 1 else 'views'}", reactions, pictures) if part
    )
    return Card(url, told["site"], told["title"], told["text"], counts)
