"""Messages of Telegram's channels → items: pure conversions, no connection.

An item's id is `tg:<channel>:<message>` by Telegram's own numbers, which renaming doesn't change; an album is one item under
the id of its first message. What was forwarded from a channel has the address of the original, by which the catalog knows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telethon.extensions import html
from telethon.tl import types

from palate.domain import Item, Kind

_PRE = re.compile(r"(<pre>.*?</pre>)", re.DOTALL)
_BLANK_LINES = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class ChannelName:
    """A channel as Telegram names it."""

    id: int
    title: str
    username: str | None
    """In lower case; None for one that isn't public."""


@dataclass(frozen=True)
class Post:
    """A post: one message, or the messages of an album."""

    item: Item
    channel: int
    messages: tuple[int, ...]
    """Ids of its messages, ascending; the first stands in the item's id."""
    counters: Mapping[str, float]
    origin: ChannelName | None
    """The channel that it was forwarded from."""
    is_protected: bool
    """Its channel forbids copies: only its preview may be shown."""


def item_id(channel: int, message: int) -> str:
    """The id of the item that a message is.

    >>> item_id(1234, 5)
    'tg:1234:5'
    """
    return f"tg:{channel}:{message}"


def message_of(id: str, channel: int) -> int | None:
    """The message that an item of this channel is; None for an id that isn't one.

    >>> message_of("tg:1234:5", 1234), message_of("tg:99:5", 1234), message_of("tg:1234:x", 1234)
    (5, None, None)
    """
    number = id.removeprefix(f"tg:{channel}:")
    return int(number) if number != id and re.fullmatch(r"[0-9]{1,18}", number) else None


def address(channel: int, username: str | None, message: int) -> str:
    """Where a message can be seen: by everybody when its channel is public, else by the channel's members.

    >>> address(1234, "durov", 5), address(1234, None, 5)
    ('https://t.me/durov/5', 'https://t.me/c/1234/5')
    """
    return f"https://t.me/{username}/{message}" if username else f"https://t.me/c/{channel}/{message}"


def names(chats: Iterable[Any]) -> dict[int, ChannelName]:
    """The channels among these, by their ids; those that can't be seen are left out."""
    found = (name_of(chat) for chat in chats if isinstance(chat, types.Channel))
    return {name.id: name for name in found}


def name_of(channel: Any) -> ChannelName:
    """The channel's name; of several usernames the first that works."""
    others = [one.username for one in channel.usernames or [] if one.active]
    username = channel.username or next(iter(others), None)
    return ChannelName(channel.id, channel.title, username and username.lower())


def is_post(message: Any) -> bool:
    """Whether a message has something to show: not what a channel says of itself, and not the place of a deleted one."""
    return isinstance(message, types.Message)


def channel_of(message: Any) -> int | None:
    """The channel that a message stands in; None for messages between people."""
    return getattr(message.peer_id, "channel_id", None)


def albums(messages: Iterable[Any]) -> list[list[Any]]:
    """Messages that belong together, each group in the order of ids; groups in the order of their first."""
    groups: dict[tuple[str, int], list[Any]] = {}
    for message in sorted(messages, key=lambda one: one.id):
        album = message.grouped_id
        groups.setdefault(("album", album) if album else ("alone", message.id), []).append(message)
    return list(groups.values())


def post(messages: Sequence[Any], channels: Mapping[int, ChannelName]) -> Post:
    """The post that these messages of one channel are; `channels` are those that they may name, their own among them."""
    first = messages[0]
    channel = channel_of(first)
    assert channel is not None, "posts stand in channels"
    origin, url = _origin(first, channels)
    own = channels.get(channel)
    item = Item(
        id=item_id(channel, first.id),
        text="<br>".join(part for message in messages if (part := _html(message))) or None,
        url=url or address(channel, own.username if own else None, first.id),
        author=first.post_author,
        published=first.date,
        kind=_kind(messages),
        duration=next((seconds for message in messages if (seconds := _duration(message))), None),
    )
    ids = tuple(message.id for message in messages)
    protected = any(bool(message.noforwards) for message in messages)
    return Post(item, channel, ids, _counters_of(messages), origin, protected)


def counters(views: int | None, forwards: int | None, replies: Any = None, reactions: Any = None) -> dict[str, float]:
    """What Telegram counts of a message, without what it doesn't say."""
    counted = {
        "views": views,
        "forwards": forwards,
        "replies": replies and replies.replies,
        "reactions": None if reactions is None else sum(one.count for one in reactions.results),
    }
    return {name: float(number) for name, number in counted.items() if number is not None and number >= 0}


def _counters_of(messages: Sequence[Any]) -> dict[str, float]:
    """Of an album the most that was counted of any of its messages: people see it as one."""
    most: dict[str, float] = {}
    for one in messages:
        for name, number in counters(one.views, one.forwards, one.replies, one.reactions).items():
            most[name] = max(number, most.get(name, 0.0))
    return most


def _origin(message: Any, channels: Mapping[int, ChannelName]) -> tuple[ChannelName | None, str | None]:
    """The channel that a message was forwarded from, and the original's address; None for each that isn't known."""
    header = message.fwd_from
    peer = header and (header.from_id or header.saved_from_peer)
    if not isinstance(peer, types.PeerChannel):
        return None, None
    number = header.channel_post or header.saved_from_msg_id
    origin = channels.get(peer.channel_id, ChannelName(peer.channel_id, "", None))
    return origin, number and address(origin.id, origin.username, number)


def _html(message: Any) -> str:
    """The message's text as HTML, with its links and marks; unsafe until it was cleaned."""
    length = len(message.message.encode("utf-16-le")) // 2  # what entities count in
    marks = [
        one for one in message.entities or [] if one.offset >= 0 < one.length and one.offset + one.length <= length
    ]
    parts = _PRE.split(html.unparse(message.message, marks))
    return "".join(part if place % 2 else _lines(part) for place, part in enumerate(parts))


def _lines(text: str) -> str:
    return _BLANK_LINES.sub("<br><br>", text).replace("\n", "<br>")


def _kind(messages: Sequence[Any]) -> Kind:
    media = [message.media for message in messages]
    documents = [one.document for one in media if isinstance(one, types.MessageMediaDocument)]
    names = {type(mark) for document in documents if document for mark in getattr(document, "attributes", ())}
    if types.DocumentAttributeVideo in names:
        return "video"
    if types.DocumentAttributeAudio in names:
        return "audio"
    pictures = any(isinstance(one, types.MessageMediaPhoto) for one in media)
    return "picture" if pictures and not any(message.message for message in messages) else "post"


def _duration(message: Any) -> float | None:
    document = getattr(message.media, "document", None)
    marks = getattr(document, "attributes", None) or ()
    lengths = (mark.duration for mark in marks if hasattr(mark, "duration"))
    return next((float(seconds) for seconds in lengths if seconds), None)
