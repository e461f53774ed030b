"""Public pages of Telegram's channels, https://t.me/s/NAME → posts, without an account.

What is read from a page is named in one table of class names: when Telegram changes its pages, that is what changes here. The
share of posts in which neither text nor media was found shows when it has. Ids are those that accounts give to the same posts.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lxml import etree
from lxml import html as pages

from palate.domain import Fetched, Item, Kind, Media
from palate.errors import NoPreview
from palate.sources.fetching import Fetcher

EVERY = 600.0
"""Seconds between two readings of one channel, at least."""
LONGEST = 100
"""Posts of one page that are read at most: the newest."""

_CLASSES = {
    "history": "tgme_channel_history",
    "post": "tgme_widget_message",
    "service": "service_message",
    "text": "tgme_widget_message_text",
    "reply": "tgme_widget_message_reply",
    "link_preview": "tgme_widget_message_link_preview",
    "meta": "tgme_widget_message_meta",
    "date": "tgme_widget_message_date",
    "views": "tgme_widget_message_views",
    "reaction": "tgme_reaction",
    "author": "tgme_widget_message_from_author",
    "forward": "tgme_widget_message_forwarded_from_name",
    "photo": "tgme_widget_message_photo_wrap",
    "video": "tgme_widget_message_video_player",
    "round_video": "tgme_widget_message_roundvideo_player",
    "video_thumb": "tgme_widget_message_video_thumb",
    "round_thumb": "tgme_widget_message_roundvideo_thumb",
    "video_length": "message_video_duration",
    "voice": "tgme_widget_message_voice_player",
    "voice_length": "tgme_widget_message_voice_duration",
    "document": "tgme_widget_message_document_wrap",
    "document_title": "tgme_widget_message_document_title",
    "sticker": "tgme_widget_message_sticker_wrap",
    "location": "tgme_widget_message_location_wrap",
    "contact": "tgme_widget_message_contact_wrap",
    "poll": "tgme_widget_message_poll",
    "poll_question": "tgme_widget_message_poll_question",
    "poll_option": "tgme_widget_message_poll_option_text",
    "unsupported": "message_media_not_supported",
    "title": "tgme_channel_info_header_title",
    "header_title": "tgme_header_title",
}
_PATHS = {
    name: etree.XPath(f"descendant::*[contains(concat(' ', normalize-space(@class), ' '), ' {word} ')]")
    for name, word in _CLASSES.items()
}
_POST = re.compile(r"([A-Za-z0-9_]{2,64})/([0-9]{1,18})")
_LINK = re.compile(r"https://t\.me/(?:s/)?([A-Za-z0-9_]{2,64})/([0-9]{1,18})(?:\?.*)?")
_IMAGE = re.compile(r"url\(['\"]?((?:https:)?//[^'\")\s]{1,2000})['\"]?\)")
_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([KM]?)")
_FACTORS = {"": 1, "K": 1_000, "M": 1_000_000}


@dataclass(frozen=True)
class PreviewPost:
    """A post of a page. None where the page doesn't say."""

    username: str
    message: int
    """Its number in the channel; of an album the first."""
    channel: int | None
    """Telegram's own number of the channel."""
    text: str | None
    """HTML, unsafe until it was cleaned."""
    published: datetime | None
    edited: bool
    author: str | None
    views: int | None
    reactions: Mapping[str, int] = field(default_factory=dict)
    """By the emoji; of an emoji of Telegram's own its number."""
    media: tuple[Media, ...] = ()
    kind: Kind = "post"
    duration: float | None = None
    """Seconds, of a film or a sound."""
    forwarded: str | None = None
    """Address of the original."""
    unsupported: bool = False
    """It has something that pages don't show, and nothing else."""

    @property
    def id(self) -> str:
        """The item's id: the one that accounts give it, or by its name where the page hides the channel's number."""
        return f"tg:{self.channel or self.username.lower()}:{self.message}"

    @property
    def is_empty(self) -> bool:
        """Whether neither text nor media was found: rare, unless Telegram has changed its pages."""
        return self.text is None and not self.media and self.kind == "post"


def read(address: str, state: dict[str, Any], fetcher: Fetcher) -> Fetched:
    """Read a channel's newest posts. `address`: https://t.me/NAME. Raises NoPreview and every SourceError.

    The state holds `posts` and `empty`, how many were found and in how many of them nothing, and `every`, the pause to keep.
    """
    name = address.rstrip("/").rsplit("/", 1)[-1]
    answer = fetcher.get(f"https://t.me/s/{name}", accept="text/html")
    return fetched(answer.body, name)


def fetched(body: bytes, name: str) -> Fetched:
    """What a page says. `name`: the channel's. Raises NoPreview when the page shows no posts of a channel."""
    root = _root(body)
    if root is None or not _PATHS["history"](root):
        raise NoPreview(
            f"{name} has no public page at t.me/s: it is private, restricted or gone. "
            f"An account can still read it: `palate channels add {name}`."
        )
    posts = list(_posts(root))[-LONGEST:]
    title = _text_of(next(_first(root, "title", "header_title"), None))
    return Fetched(
        items=tuple(to_item(post) for post in posts),
        counters={post.id: counters for post in posts if (counters := _counters(post))},
        state={"posts": len(posts), "empty": sum(post.is_empty for post in posts), "every": EVERY},
        title=title,
        site=f"https://t.me/{name.lower()}",
    )


def read_posts(body: bytes) -> list[PreviewPost]:
    """The posts of a page, or of a piece of one, in its order; service messages are none."""
    root = _root(body)
    return [] if root is None else list(_posts(root))


def to_item(post: PreviewPost) -> Item:
    """The item that a post is. What was forwarded has the address of the original, by which the catalog knows it."""
    return Item(
        id=post.id,
        text=post.text,
        url=post.forwarded or f"https://t.me/{post.username.lower()}/{post.message}",
        author=post.author,
        published=post.published,
        kind=post.kind,
        duration=post.duration,
        media=post.media,
    )


def _counters(post: PreviewPost) -> dict[str, float]:
    counted = {"views": post.views, "reactions": sum(post.reactions.values()) if post.reactions else None}
    return {name: float(number) for name, number in counted.items() if number is not None}


def _root(body: bytes) -> Any:
    try:
        return pages.document_fromstring(body, parser=pages.HTMLParser(encoding="utf-8", remove_comments=True))
    except (etree.LxmlError, ValueError):
        return None


def _posts(root: Any) -> Iterator[PreviewPost]:
    for element in _PATHS["post"](root):
        named = _POST.fullmatch(element.get("data-post", ""))
        if named and _CLASSES["service"] not in element.get("class", "").split():
            yield _post(element, named[1], int(named[2]))


def _post(element: Any, username: str, message: int) -> PreviewPost:
    text = _text(element)
    media = tuple(_media(element))
    kind, duration = _kind(element, media, text)
    meta = _text_of(next(_first(element, "meta"), None)) or ""
    return PreviewPost(
        username=username,
        message=message,
        channel=_channel(element.get("data-view", "")),
        text=text,
        published=_published(element),
        edited="edited" in meta,
        author=_text_of(next(_first(element, "author"), None)),
        views=_number(_text_of(next(_first(element, "views"), None))),
        reactions=dict(_reactions(element)),
        media=media,
        kind=kind,
        duration=duration,
        forwarded=_forwarded(element),
        unsupported=kind == "other",
    )


def _first(element: Any, *names: str) -> Iterator[Any]:
    return (found for name in names for found in _PATHS[name](element))


def _text_of(element: Any) -> str | None:
    text = "" if element is None else " ".join("".join(element.itertext()).split())
    return text or None


def _channel(view: str) -> int | None:
    """Telegram's number of the channel, which pages carry in a token: as `-` and the number."""
    try:
        told = json.loads(base64.urlsafe_b64decode(view + "=" * (-len(view) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    number = told.get("c") if isinstance(told, dict) else None
    return -number if isinstance(number, int) and -(10**15) < number < 0 else None


def _published(element: Any) -> datetime | None:
    """The time in the post's footer: dates between posts and lengths of films stand in elements of the same kind."""
    for link in _PATHS["date"](element):
        for time in link.iter("time"):
            try:
                found = datetime.fromisoformat(time.get("datetime", ""))
            except ValueError:
                continue
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def _number(text: str | None) -> int | None:
    """
    >>> [_number(text) for text in ("492", "4.85K", "1.12M", "soon", None)]
    [492, 4850, 1120000, None, None]
    """
    found = _NUMBER.fullmatch(text or "")
    return round(float(found[1]) * _FACTORS[found[2]]) if found else None


def _reactions(element: Any) -> Iterator[tuple[str, int]]:
    """The number stands after the picture, as bare text."""
    for reaction in _PATHS["reaction"](element):
        own = next(reaction.iter("tg-emoji"), None)
        icon = own.get("emoji-id", "") if own is not None else _text_of(next(reaction.iter("i"), None))
        count = _number("".join(reaction.xpath("text()")).strip())
        if icon and count is not None:
            yield icon, count


def _forwarded(element: Any) -> str | None:
    for origin in _PATHS["forward"](element):
        found = _LINK.fullmatch(origin.get("href", ""))
        if found:
            return f"https://t.me/{found[1].lower()}/{found[2]}"
    return None


# Text


def _text(element: Any) -> str | None:
    """The post's own text, not that of a post it answers or of a page it links; a poll's question and options."""
    for found in _PATHS["text"](element):
        if not _is_inside(found, element, "reply", "link_preview"):
            return _clean(found) or None
    lines = [_text_of(line) for line in _first(element, "poll_question", "poll_option")]
    return "<br>".join(html.escape(line) for line in lines if line) or None


def _is_inside(element: Any, top: Any, *names: str) -> bool:
    words = {_CLASSES[name] for name in names}
    for parent in element.iterancestors():
        if words & set(parent.get("class", "").split()):
            return True
        if parent is top:
            return False
    return False


def _clean(element: Any) -> str:
    """Its inner HTML, emoji as letters, without what only lays out, and with addresses as they were written."""
    for one in list(element.iter("span")):
        if "visibility:hidden" in one.get("style", "").replace(" ", "") or _text_of(one) is None:
            one.drop_tree()
    for one in list(element.iter("i")):
        if "emoji" in one.get("class", "").split():
            letters = "".join(one.itertext())
            for child in list(one):
                one.remove(child)
            one.text = letters
            one.drop_tag()
    nested = [
        one for one in element.iter("div") if one is not element and _CLASSES["text"] in one.get("class", "").split()
    ]
    for one in [*nested, *element.iter("tg-emoji", "tg-spoiler")]:
        one.drop_tag()
    for link in list(element.iter("a")):
        _clean_link(link)
    inner = html.escape(element.text or "", quote=False) + "".join(
        etree.tostring(child, encoding="unicode", method="html") for child in element
    )
    return inner.strip()


def _clean_link(link: Any) -> None:
    """Hashtags lead to a search of the page; foreign addresses are escaped once too often since 2024."""
    address = link.get("href", "")
    if address.startswith("?"):
        link.drop_tag()
    elif link.get("onclick") is not None:
        link.set("href", html.unescape(address))


# Media


def _media(element: Any) -> Iterator[Media]:
    for photo in _PATHS["photo"](element):
        if not _is_inside(photo, element, "reply") and (url := _image(photo)):
            yield Media(url=url)
    for player in _first(element, "video", "round_video"):
        poster = next((_image(one) for one in _first(player, "video_thumb", "round_thumb")), None)
        film = next((one.get("src") for one in player.iter("video") if one.get("src")), None)
        if film or poster:
            yield Media(url=film, type="video", poster=poster) if film else Media(url=poster or "", type="image")
    for sound in element.iter("audio"):
        if sound.get("src"):
            yield Media(url=sound.get("src"), type="audio")


def _image(element: Any) -> str | None:
    found = _IMAGE.search(element.get("style", ""))
    return None if found is None else "https:" + found[1] if found[1].startswith("//") else found[1]


def _kind(element: Any, media: tuple[Media, ...], text: str | None) -> tuple[Kind, float | None]:
    if next(_first(element, "video", "round_video"), None) is not None:
        return "video", _seconds(next(_first(element, "video_length"), None))
    if next(_first(element, "voice"), None) is not None:
        return "audio", _seconds(next(_first(element, "voice_length"), None))
    if text is None and media:
        return "picture", None
    others = ("document", "sticker", "location", "contact", "unsupported")
    return ("other" if text is None and _has(element, others) else "post"), None


def _has(element: Any, names: tuple[str, ...]) -> bool:
    return next(_first(element, *names), None) is not None


def _seconds(element: Any) -> float | None:
    """Of a length such as 1:02:03."""
    parts = (_text_of(element) or "").split(":")
    if not 2 <= len(parts) <= 3 or not all(re.fullmatch(r"[0-9]{1,2}", part) for part in parts):
        return None
    return float(sum(int(part) * 60**place for place, part in enumerate(reversed(parts))))
