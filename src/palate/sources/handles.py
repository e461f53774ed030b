"""What a Telegram channel is called: names and links as people write them, alone or within a post."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from palate.errors import InvalidInput

MOST = 30
"""Channels that one post may name: a longer list is no recommendation."""

HOSTS = ("t.me", "telegram.me", "telegram.dog")
_NAME = re.compile(r"[A-Za-z](?:_?[A-Za-z0-9]){3,31}")
_INVITE = re.compile(r"[A-Za-z0-9_-]{10,64}")
_RESERVED = frozenset(
    [
        *("addemoji", "addlist", "addstickers", "addtheme", "bg", "boost", "c", "confirmphone"),
        *("contact", "giftcode", "invoice", "iv", "joinchat", "login", "m", "msg"),
        *("nft", "proxy", "s", "setlanguage", "share", "socks", "stickers"),
    ]
)
_LINKS = re.compile(
    r"(?:https?://|tg://|\b)(?:(?:www\.)?(?:t\.me|telegram\.me|telegram\.dog)/|resolve\?|join\?)[^\s\"'<>)]{1,200}"
)
_MENTIONS = re.compile(r"(?<![\w@/.])@([A-Za-z][A-Za-z0-9_]{3,31})\b(?![.@])")


@dataclass(frozen=True)
class Handle:
    """A channel by its username, in lower case, or by the hash of an invite link: one of both."""

    username: str | None = None
    invite: str | None = None


def parse(text: str) -> Handle:
    """A channel's name, its link, the link of one of its posts, or an invite link. Raises InvalidInput for anything else.

    >>> parse("@Durov"), parse("https://t.me/s/durov/5"), parse("t.me/+AbCdEfGhIjK")
    (Handle(username='durov', invite=None), Handle(username='durov', invite=None), Handle(username=None, invite='AbCdEfGhIjK'))
    """
    text = text.strip()
    name = _username(text.removeprefix("@"))
    found = Handle(username=name) if name else _link(text)
    if found is None:
        raise InvalidInput(
            f"{text[:100]!r} names no channel: give its name such as @durov, its link such as https://t.me/durov, "
            "or an invite link"
        )
    return found


def named(text: str, url: str | None = None) -> list[Handle]:
    """The channels that a post's HTML names by link or @, and the one that `url` leads to; each once, at most 30.

    >>> [one.username or one.invite for one in named('See <a href="https://t.me/durov/5">this</a> by @telegram, @some_bot')]
    ['durov', 'telegram']
    """
    found = [_link(url)] if url else []
    found += (_link(match[0].rstrip(".,:;!?")) for match in _LINKS.finditer(text.replace("&amp;", "&")))
    found += (Handle(username=match[1].lower()) for match in _MENTIONS.finditer(text) if _username(match[1]))
    handles = dict.fromkeys(one for one in found if one is not None and not (one.username or "").endswith("bot"))
    return list(handles)[:MOST]


def _username(text: str) -> str | None:
    return text.lower() if _NAME.fullmatch(text) and text.lower() not in _RESERVED else None


def _link(text: str) -> Handle | None:
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
    except ValueError:
        return None
    if parts.scheme == "tg":
        return _deep_link(parts.netloc, parse_qs(parts.query))
    if parts.scheme not in ("http", "https") or parts.netloc.lower().removeprefix("www.") not in HOSTS:
        return None
    return next(_by_path([part for part in parts.path.split("/") if part]), None)


def _deep_link(action: str, query: dict[str, list[str]]) -> Handle | None:
    username = _username(query.get("domain", [""])[0]) if action == "resolve" else None
    invite = query.get("invite", [""])[0] if action == "join" else ""
    if username:
        return Handle(username=username)
    return Handle(invite=invite) if _INVITE.fullmatch(invite) else None


def _by_path(path: list[str]) -> Iterator[Handle]:
    match path:
        case ["joinchat", invite, *_] if _INVITE.fullmatch(invite):
            yield Handle(invite=invite)
        case [invite, *_] if invite.startswith("+") and _INVITE.fullmatch(invite[1:]) and not invite[1:].isdigit():
            yield Handle(invite=invite[1:])  # digits alone are a phone number
        case ["s", name, *_] | [name, *_] if username := _username(name):
            yield Handle(username=username)
