"""The play on the loopback Telegram: channels are made, posts appear when their time has come, are edited, and are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from telethon.tl import types

from palate.domain import Item
from palate.loopback.telegram_world import Channel, TelegramWorld
from palate.play.script import LETTERS_INVITE, Scene, Script
from palate.play.stage import Clock
from palate.sources import telegram_posts
from palate.text.cleaning import excerpt

ACCOUNTS = ("anna", "boris")
RECENT = 60
"""Posts that are still read and edited."""
READ_AT_ONCE = 4
"""Of these, how many are read more often after a moment."""
EDITED = 0.04
"""Share of moments after which a post has been corrected."""


@dataclass(frozen=True)
class Published:
    """A post that is out."""

    channel: Channel
    ids: tuple[int, ...]
    scene: Scene

    @property
    def url(self) -> str:
        """Its public address."""
        return telegram_posts.address(self.channel.id, self.channel.username, self.ids[0])


@dataclass
class Play:
    """A play under way."""

    script: Script
    world: TelegramWorld
    channels: dict[str, Channel] = field(default_factory=dict)
    """By username."""
    published: list[Published] = field(default_factory=list)
    of_item: dict[str, Published] = field(default_factory=dict)
    """Where an item was published first."""
    by_url: dict[str, Published] = field(default_factory=dict)
    next: int = 0
    """Place of the next scene in the script."""


def begin(script: Script, clock: Clock) -> Play:
    """A world in which nothing was published yet."""
    play = Play(script, TelegramWorld(clock))
    for name in ACCOUNTS:
        play.world.add_account(name)
    for one in script.channels:
        play.channels[one.username] = play.world.add_channel(one.username, title=one.title)
    play.world.add_channel(title="Letters to friends", invite=LETTERS_INVITE, asks=True)
    return play


def publish_due(play: Play, now: datetime) -> None:
    """Publish all whose time has come."""
    scenes = play.script.scenes
    while play.next < len(scenes) and scenes[play.next].time <= now:
        _publish(play, scenes[play.next])
        play.next += 1


def _publish(play: Play, scene: Scene) -> None:
    channel, fields = play.channels[scene.channel], dict[str, Any](date=scene.time, views=1)
    origin = play.of_item.get(scene.forwards or "")
    if origin is not None:
        source = types.PeerChannel(origin.channel.id)
        fields["fwd_from"] = types.MessageFwdHeader(origin.scene.time, from_id=source, channel_post=origin.ids[0])
    group = channel.last_id + 1 if len(scene.texts) > 1 else None
    ids = play.world.album(channel, scene.texts, group, **fields)
    out = Published(channel, tuple(ids), scene)
    play.published.append(out)
    play.by_url[out.url] = out
    if scene.item is not None:
        play.of_item.setdefault(scene.item.id, out)


def let_pass(play: Play, rng: np.random.Generator) -> None:
    """A moment passes: some of the recent posts are read more often, liked, forwarded, and now and then one is corrected."""
    recent = play.published[-RECENT:]
    for place in rng.permutation(len(recent))[:READ_AT_ONCE].tolist():
        _read(play, recent[place], int(rng.poisson(40)))
    if recent and rng.random() < EDITED:
        one = recent[int(rng.integers(len(recent)))]
        if one.scene.forwards is None:
            said = one.channel.posts[one.ids[0]].message
            play.world.edit(one.channel, one.ids[0], said.removesuffix("\n\n(corrected)") + "\n\n(corrected)")


def _read(play: Play, one: Published, readers: int) -> None:
    post = one.channel.posts[one.ids[0]]
    views = post.views + readers
    play.world.count(one.channel, one.ids[0], views=views, forwards=views // 40, likes=views // 15)


def preview(play: Play, url: str) -> dict[str, Any] | None:
    """What a messenger shows of a link to a post; None for other links."""
    out = play.by_url.get(url)
    if out is None:
        return None
    post = out.channel.posts[out.ids[0]]
    title, *more = post.message.split("\n\n")
    text = " ".join(part for part in more if not part.startswith("https://"))
    reactions = sum(one.count for one in post.reactions.results) if post.reactions else 0
    told = {"site": out.channel.title, "title": excerpt(title, 200), "text": excerpt(text, 320)}
    return told | {"views": post.views, "reactions": reactions, "parts": len(out.ids)}


def item_of(play: Play, url: str) -> Item | None:
    """What the post at an address is made of."""
    out = play.by_url.get(url)
    return None if out is None else out.scene.item


def posts(play: Play) -> Iterator[tuple[Published, telegram_posts.Post]]:
    """The posts that are out, as a listener would have understood them."""
    names = {
        one.id: telegram_posts.ChannelName(one.id, one.title, one.username) for one in play.world.channels.values()
    }
    for out in play.published:
        yield out, telegram_posts.post([out.channel.posts[id] for id in out.ids], names)


MOMENT = timedelta(minutes=2)
"""Time played between two moments."""
