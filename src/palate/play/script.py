"""What is published when: the sample's items as posts of channels. The same sample gives the same script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from palate.domain import EPOCH, Item
from palate.text.cleaning import excerpt, to_plain

Role = Literal["followed", "wanted", "unknown"]
"""How the accounts stand to a channel in the beginning: they are in it, are to join it, or have never heard of it."""

FOLLOWED, UNKNOWN = 5, 3
"""How many of the largest channels are followed from the beginning, and how many of the smallest are in no list."""
DIGEST = "morning_digest"
"""A channel that forwards posts of the others, and recommends channels."""
LETTERS_INVITE = "AbCdEfGhIjKlMnOp"
"""Of a private channel whose owner lets in whom he likes."""
LOST_NAME = "sold_to_nobody"
"""A name on the list that leads to no channel."""
ALBUM_EVERY, FORWARD_EVERY, RECOMMEND_EVERY = 15, 12, 50
FORWARD_LATER = timedelta(minutes=40)
EXCERPT = 600
"""Characters of an item's text in its post."""

_USERNAMES = {
    "Digital.gov": ("digital_gov", "Digital.gov"),
    "Русские Викиновости": ("ru_wikinews", "Русские Викиновости"),
    "Rust Blog": ("rust_blog", "Rust Blog"),
    "Inside Rust Blog": ("inside_rust", "Inside Rust"),
    "arXiv cs.GT": ("arxiv_games", "arXiv: game theory"),
    "arXiv cs.IT": ("arxiv_information", "arXiv: information theory"),
    "arXiv cs.CE": ("arxiv_engineering", "arXiv: engineering"),
    "arXiv cs.CV": ("arxiv_vision", "arXiv: computer vision"),
    "arXiv cs.CL": ("arxiv_language", "arXiv: language"),
    "arXiv cs.AI": ("arxiv_ai", "arXiv: artificial intelligence"),
    "arXiv cs.GR": ("arxiv_graphics", "arXiv: graphics"),
}


@dataclass(frozen=True)
class ChannelRole:
    """A public channel of the play."""

    username: str
    title: str
    category: str
    role: Role


@dataclass(frozen=True)
class Scene:
    """A post that is to be published; `texts` has one for each message of an album."""

    time: datetime
    channel: str
    texts: tuple[str, ...]
    item: Item | None
    """What it is made of; None: the channel's own words."""
    forwards: str | None = None
    """Id of the item whose post is forwarded."""


@dataclass(frozen=True)
class Script:
    """Channels, the largest first, and what they publish, in order of time."""

    channels: tuple[ChannelRole, ...]
    scenes: tuple[Scene, ...]


def write(items: Sequence[Item]) -> Script:
    """The script of these items, each published at its time."""
    items = sorted(items, key=lambda item: (item.published or EPOCH, item.id))
    sizes = Counter(_channel(item) for item in items)
    ranked = sizes.most_common()
    cast = [
        ChannelRole(username, title, category, _role(place, len(ranked)))
        for place, ((username, title, category), _) in enumerate(ranked)
    ]
    digest = ChannelRole(DIGEST, "Morning Digest", "society", "followed")
    unknown = [one.username for one in cast if one.role == "unknown"]
    scenes = [_scene(item, number) for number, item in enumerate(items)] + _digest(items, unknown)
    return Script((digest, *cast), tuple(sorted(scenes, key=lambda scene: scene.time)))


def _channel(item: Item) -> tuple[str, str, str]:
    """Username, title and category of the channel that an item is published in."""
    topic = item.labels[-1] if item.labels else "news"
    category = item.labels[0] if item.labels and item.labels[0].isascii() else "society"
    if item.source in _USERNAMES:
        return (*_USERNAMES[item.source], category)
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in topic.casefold())
    return f"current_{name}", f"Current events: {topic}", category


def _role(place: int, channels: int) -> Role:
    if place < FOLLOWED:
        return "followed"
    return "unknown" if place >= channels - UNKNOWN else "wanted"


def _scene(item: Item, number: int) -> Scene:
    assert item.published is not None, "the sample's items have times"
    more = ("", "") if number % ALBUM_EVERY == ALBUM_EVERY - 1 else ()
    return Scene(item.published, _channel(item)[0], (post_text(item), *more), item)


def post_text(item: Item) -> str:
    """An item as the text of a post: title, beginning, where it is from."""
    body = excerpt(to_plain(item.text), EXCERPT) if item.text else ""
    source = " · ".join(part for part in (item.url, item.license) if part)
    title = item.title or ""
    is_said = body.startswith(title.rstrip(" .…"))  # short news begin with what they are called
    return "\n\n".join(part for part in ("" if is_said else title, body or title, source) if part)


def _digest(items: Sequence[Item], unknown: Sequence[str]) -> list[Scene]:
    """What the digest forwards, and the channels that it recommends."""
    found = []
    for number, item in enumerate(items[::FORWARD_EVERY]):
        assert item.published is not None, "the sample's items have times"
        found.append(Scene(item.published + FORWARD_LATER, DIGEST, (post_text(item),), item, item.id))
        if unknown and number % (RECOMMEND_EVERY // FORWARD_EVERY) == 0:
            name = unknown[number % len(unknown)]
            text = f"Readers of this digest also read @{name}: what is new there, once a day."
            found.append(Scene(item.published + 2 * FORWARD_LATER, DIGEST, (text,), None))
    return found
