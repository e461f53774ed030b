"""What a post looks like in a chat: its text, the preview of its link, its buttons.

A post is never downloaded: Telegram draws it from its link, or copies it from the staging channel where the owner has one.
"""

from __future__ import annotations

import html
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from palate.delivery import bot_callbacks
from palate.delivery.bot_callbacks import Shared
from palate.delivery.bot_talk import Rows, Talk
from palate.domain import Item, RankedItem
from palate.outbox import Call
from palate.text.cleaning import excerpt, plain_line, to_plain

TITLE, NAME, BODY = 300, 80, 1200
"""Characters; together at most 4,096 UTF-16 code units, whatever they are."""


@dataclass(frozen=True)
class Post:
    """An item as it goes to a chat."""

    key: int
    item: Item
    source_title: str | None
    request: str | None = None
    """Id of the answer it was served with."""
    why: str | None = None
    """Name of the text that says why."""
    also: tuple[str, ...] = ()
    """Names of others that tell the same."""


def post_of(ranked: RankedItem, request: str) -> Post:
    """The post of a served item."""
    why = f"why_{ranked.reasons[0].kind}" if ranked.reasons else None
    also = tuple(dict.fromkeys(other.source_title for other in ranked.also if other.source_title))
    return Post(ranked.key, ranked.item, ranked.source_title, request, why, also)


def link_call(talk: Talk, post: Post, sharer: int) -> Call:
    """The message that shows a post by its link, with the buttons."""
    url = web_link(post.item.url)
    preview: dict[str, Any] = {"is_disabled": True}
    if url is not None:
        preview = {"url": url, "prefer_large_media": True, "show_above_text": True}
    fields = {"text": post_text(talk, post), "parse_mode": "HTML", "link_preview_options": preview}
    return Call("sendMessage", fields | {"reply_markup": {"inline_keyboard": post_buttons(talk, post, sharer)}})


def copy_calls(talk: Talk, post: Post, sharer: int, staged: Collection[int]) -> list[Call]:
    """The messages that show a post as it lies in the staging channel: the post with its buttons, or an album and then they."""
    place = {"from_chat_id": talk.desk.params.staging_channel}
    markup = {"reply_markup": {"inline_keyboard": post_buttons(talk, post, sharer)}}
    if len(staged) == 1:
        return [Call("copyMessage", {**place, "message_id": min(staged), **markup})]
    album = Call("copyMessages", {**place, "message_ids": sorted(staged)})
    caption = {"text": post_text(talk, post), "parse_mode": "HTML", "link_preview_options": {"is_disabled": True}}
    return [album, Call("sendMessage", caption | markup)]


def post_text(talk: Talk, post: Post) -> str:
    """Title, source, and why it came; the text itself only of what has no link."""
    url, item = web_link(post.item.url), post.item
    name = plain_line(post.source_title or item.source, NAME)
    title = plain_line(item.title, TITLE)
    lines = [f"<b>{html.escape(title)}</b>"] if title else []
    if url is None and item.text:
        lines.append(html.escape(excerpt(to_plain(item.text), BODY)))
    if url is not None:
        lines.append(f'<a href="{html.escape(url)}">{html.escape(name or talk.say("read"))}</a>')
    elif name:
        lines.append(html.escape(name))
    if post.also:
        lines.append(talk.say("also", names=", ".join(plain_line(one, NAME) or "" for one in post.also[:3])))
    lines += [f"<i>{talk.say(post.why)}</i>"] if post.why else []
    return "\n".join(lines) or html.escape(item.id)


def post_buttons(talk: Talk, post: Post, sharer: int, standing: Collection[str] = (), is_hidden: bool = False) -> Rows:
    """The buttons under a post; those of `standing` (like, dislike) are marked as pressed."""
    votes = [
        talk.button(talk.say(name) + (" ✓" if name in standing else ""), name[0], post.key, post.request)
        for name in ("like", "dislike")
    ]
    more = [{"text": talk.say("share"), "url": share_address(talk, post.key, sharer)}]
    if post.item.source is not None:
        name = "unhide" if is_hidden else "hide"
        more.append(talk.button(talk.say(name), name[0], post.key, post.request))
    return [votes, more]


def share_address(talk: Talk, item: int, sharer: int) -> str:
    """What opens Telegram's own list of people to send a post to."""
    payload = bot_callbacks.share(talk.serving.secret, Shared(item, sharer))
    return f"https://t.me/share/url?url={quote(f'https://t.me/{talk.desk.username}?start={payload}', safe='')}"


def web_link(url: str | None) -> str | None:
    """An address that Telegram can show; None for any other."""
    return url if url is not None and url.startswith(("https://", "http://")) and len(url) <= 2000 else None
