"""What buttons and links carry: signed, so that nobody can press what they were not shown.

A button's data are a verb, a 64-bit key, for posts the request that they came with, and a signature over these and the chat:
28 or 50 characters of the 64 bytes that Telegram allows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

SIGNATURE = 12
"""Bytes: 96 bits, of which a guess every second finds one in 10²¹ years."""
KEY = 8
REQUEST = 16
SHARE = "s"


@dataclass(frozen=True)
class Pressed:
    """What a button says."""

    verb: str
    """One ASCII character."""
    key: int
    """Of the item or the source, or whatever number the verb needs; 64 bits without sign."""
    request: str | None = None
    """Id of the answer that the post was served with, 32 hexadecimal digits."""


@dataclass(frozen=True)
class Shared:
    """What a shared link says."""

    item: int
    sharer: int
    """Key of the person who shared it."""


def button(secret: bytes, chat: int, pressed: Pressed) -> str:
    """The data of a button in a chat."""
    body = pressed.verb.encode("ascii") + pressed.key.to_bytes(KEY) + bytes.fromhex(pressed.request or "")
    assert len(body) in (1 + KEY, 1 + KEY + REQUEST), "a request's id has 32 digits"
    return _text(body + _signature(secret, _chat(chat) + body))


def read_button(secret: bytes, chat: int, data: str) -> Pressed | None:
    """What a button says; None when it was not signed for this chat."""
    body = _signed(data, lambda body: _signature(secret, _chat(chat) + body))
    if body is None or len(body) not in (1 + KEY, 1 + KEY + REQUEST):
        return None
    return Pressed(chr(body[0]), int.from_bytes(body[1 : 1 + KEY]), body[1 + KEY :].hex() or None)


def share(secret: bytes, shared: Shared) -> str:
    """What follows `?start=` in the link to a post: 39 of the 64 characters that Telegram allows."""
    body = SHARE.encode() + shared.item.to_bytes(KEY) + shared.sharer.to_bytes(KEY)
    return _text(body + _signature(secret, body))


def read_share(secret: bytes, payload: str) -> Shared | None:
    """What a shared link says; None when it wasn't made here."""
    body = _signed(payload, lambda body: _signature(secret, body))
    if body is None or len(body) != 1 + 2 * KEY or body[:1] != SHARE.encode():
        return None
    return Shared(int.from_bytes(body[1 : 1 + KEY]), int.from_bytes(body[1 + KEY :]))


def _signed(text: str, signature: Callable[[bytes], bytes]) -> bytes | None:
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    body, given = raw[:-SIGNATURE], raw[-SIGNATURE:]
    return body if body and hmac.compare_digest(given, signature(body)) else None


def _signature(secret: bytes, said: bytes) -> bytes:
    return hmac.digest(secret, b"palate.bot\0" + said, hashlib.sha256)[:SIGNATURE]


def _chat(chat: int) -> bytes:
    return b"chat" + chat.to_bytes(8, signed=True)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
