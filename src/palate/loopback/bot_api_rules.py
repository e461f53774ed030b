"""What Telegram's Bot API refuses, with its words: markup that isn't well formed, texts and keyboards beyond their limits."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec

MAX_TEXT, MAX_CAPTION = 4096, 1024
"""UTF-16 code units, after markup."""
MAX_DATA = 64
"""Bytes that a button may send back."""
MAX_BUTTONS = 100
MAX_MARKUP = 10_000
"""Bytes of a keyboard."""
MAX_PAYLOAD = 64
"""Characters after /start."""
MAX_COMMANDS = 100

TAGS = {"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "span", "tg-spoiler", "a", "code", "pre"}
TAGS |= {"blockquote", "tg-emoji"}
TOKEN = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)((?:\s+[a-zA-Z-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s>]+))?)*)\s*>")
ENTITY = re.compile(r"&(?:(lt|gt|amp|quot)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));")
COMMAND = re.compile(r"[a-z0-9_]{1,32}")
PAYLOAD = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_PAYLOAD}}}")


class Refused(Exception):
    """The API's answer to a call that breaks a rule."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters


@dataclass(frozen=True)
class Plain:
    """A text without its markup."""

    text: str
    links: tuple[str, ...]


def bad(reason: str) -> Refused:
    """A refusal with status 400."""
    return Refused(400, f"Bad Request: {reason}")


def units(text: str) -> int:
    """UTF-16 code units of a text, in which Telegram counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def read_text(fields: Mapping[str, str], name: str, most: int) -> Plain:
    """A field's text without its markup. Raises Refused where it is empty, too long or not well formed."""
    given = fields.get(name, "")
    plain = read_html(given) if fields.get("parse_mode", "").upper() == "HTML" else Plain(given, ())
    if units(plain.text) > most:
        raise bad("message caption is too long" if name == "caption" else "message is too long")
    if name == "text" and not plain.text.strip():
        raise bad("message text is empty")
    return plain


def read_html(text: str) -> Plain:
    """The text and the links of Telegram's HTML. Raises Refused where it isn't well formed."""
    parts: list[str] = []
    links: list[str] = []
    opened: list[str] = []
    place = 0
    while (start := text.find("<", place)) >= 0:
        parts.append(_unescaped(text[place:start]))
        token = TOKEN.match(text, start)
        if token is None:
            raise _unparsed(text, start, "Unsupported start tag")
        links += _take_tag(text, token, opened)
        place = token.end()
    parts.append(_unescaped(text[place:]))
    if opened:
        raise bad(f"can't parse entities: Can't find end tag corresponding to start tag \"{opened[-1]}\"")
    return Plain("".join(parts), tuple(links))


def _take_tag(text: str, token: re.Match[str], opened: list[str]) -> list[str]:
    closing, name, attributes = token[1], token[2].lower(), token[3]
    if closing:
        if not opened or opened[-1] != name:
            raise _unparsed(text, token.start(), "Unmatched end tag")
        opened.pop()
        return []
    if name not in TAGS:
        raise _unparsed(text, token.start(), f'Unsupported start tag "{name}"')
    opened.append(name)
    found = re.search(r"href\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", attributes) if name == "a" else None
    return [_unescaped(found[1] or found[2] or "")] if found else []


def _unparsed(text: str, at: int, what: str) -> Refused:
    return bad(f"can't parse entities: {what} at byte offset {len(text[:at].encode())}")


def _unescaped(text: str) -> str:
    return ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def read_keyboard(given: str | None) -> list[list[dict[str, Any]]] | None:
    """The rows of an inline keyboard, None where there is none. Raises Refused where Telegram would."""
    if given is None:
        return None
    try:
        rows = msgspec.json.decode(given, type=dict[str, list[list[dict[str, Any]]]]).get("inline_keyboard", [])
    except msgspec.DecodeError:
        raise bad("can't parse reply keyboard markup JSON object") from None
    rows = [row for row in rows if row]
    if len(given.encode()) > MAX_MARKUP or sum(map(len, rows)) > MAX_BUTTONS:
        raise bad("reply markup is too long")
    for row in rows:
        for button in row:
            _check_button(button)
    return rows


def _check_button(button: Mapping[str, Any]) -> None:
    if not str(button.get("text", "")).strip():
        raise bad("can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")
    data = button.get("callback_data")
    if data is not None and not 1 <= len(str(data).encode()) <= MAX_DATA:
        raise bad("BUTTON_DATA_INVALID")
    url = button.get("url")
    if url is not None and not re.match(r"(https?|tg)://[^\s/]", str(url)):
        raise bad(f"inline keyboard button URL '{url}' is invalid: Wrong HTTP URL")
    if data is None and url is None:
        raise bad("can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")


def read_preview(given: str | None) -> dict[str, Any]:
    """The options of a link preview. Raises Refused for what isn't such an object."""
    try:
        options = msgspec.json.decode(given, type=dict[str, Any]) if given else {}
    except msgspec.DecodeError:
        raise bad("can't parse link preview options JSON object") from None
    if options.get("prefer_large_media") and options.get("prefer_small_media"):
        raise bad("can't prefer both small and large media")
    return options


def read_commands(given: str | None) -> list[dict[str, str]]:
    """The commands of a menu. Raises Refused for one that can't be shown."""
    try:
        commands = msgspec.json.decode(given or "[]", type=list[dict[str, str]])
    except msgspec.DecodeError:
        raise bad("can't parse commands list: expected an Array of BotCommand") from None
    if len(commands) > MAX_COMMANDS:
        raise bad("BOT_COMMANDS_TOO_MUCH")
    for command in commands:
        if not COMMAND.fullmatch(command.get("command", "")):
            raise bad("BOT_COMMAND_INVALID")
        if not 1 <= len(command.get("description", "")) <= 256:
            raise bad("BOT_COMMAND_DESCRIPTION_INVALID")
    return commands


def read_ids(given: str | None) -> Sequence[int]:
    """Message ids: 1 to 100, strictly increasing. Raises Refused."""
    try:
        ids = msgspec.json.decode(given or "[]", type=list[int])
    except msgspec.DecodeError:
        raise bad("can't parse message identifiers JSON object") from None
    if not ids:
        raise bad("message identifiers are not specified")
    if len(ids) > 100:
        raise bad("too many message identifiers specified")
    if any(after <= before for before, after in pairwise(ids)):
        raise bad("message identifiers must be in a strictly increasing order")
    return ids
