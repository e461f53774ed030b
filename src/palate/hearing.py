"""What was heard from channels → what the catalog says, each post exactly once.

    changes in order → what is left of them → albums whole → items → stored → counters, deletions, names, position

A channel's position (`pts`) moves only over what was stored, and only over changes without a gap between them; whatever lies
beyond a gap is stored too, and asked for again. So a crash at any moment costs a repetition, which changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from palate import catalog, channels, counters, ingest, memberships, subscriptions
from palate.channels import Mention
from palate.database import reading, writing
from palate.domain import Item
from palate.errors import DatabaseError, SourceError, TelegramRefused
from palate.own_categories import OwnModel
from palate.sources import handles, telegram_posts
from palate.sources.telegram import Change, ChannelRef, Client
from palate.sources.telegram_posts import ChannelName, Post
from palate.text.cleaning import MAX_TITLE, plain_line

READDRESSED = timedelta(days=30)
"""Items of a renamed channel that are younger than this get their new address."""


@dataclass(eq=False)
class Followed:
    """A channel that an account listens to, and how far it has got."""

    key: int
    """Of the channel in the pool."""
    account: int
    """Key of the account."""
    ref: ChannelRef
    name: ChannelName
    source: str
    """Id of the source of its items."""
    source_key: int
    labels: tuple[str, ...]
    reached: int | None
    """The pts up to which all was heard; None before the channel was first looked at."""
    next_sweep: datetime
    muted: bool = False
    furthest: int = 0
    """The highest pts that was heard of: beyond `reached` there is a gap."""
    look: bool = False
    """Whether something was heard that doesn't say where it stands, so that the channel has to be asked."""
    moved: bool = False
    """Whether its name, or whether we may read it, may have changed."""
    waiting: list[Change] = field(default_factory=list)
    last_heard: datetime | None = None
    counted: datetime | None = None
    """When its counters were last asked for."""
    failed: datetime | None = None
    """When it was last asked in vain."""
    swept: datetime | None = None
    """When it was last asked for all that had happened, as long as what came of that isn't stored."""

    @property
    def is_behind(self) -> bool:
        """Whether it has to be asked at once, not when its time comes."""
        return self.look or self.moved or self.reached is None or self.furthest > self.reached


@dataclass
class _Net:
    """What is left of a channel's changes when all of them have happened."""

    channel: Followed
    taken: list[Change]
    reached: int | None
    messages: dict[int, Any] = field(default_factory=dict)
    edited: set[int] = field(default_factory=set)
    deleted: set[int] = field(default_factory=set)
    counters: dict[int, dict[str, float]] = field(default_factory=dict)
    names: dict[int, ChannelName] = field(default_factory=dict)
    posts: list[Post] = field(default_factory=list)


def hear(channel: Followed, change: Change, now: datetime) -> None:
    """Take note of a change that was told unasked; what was heard before is left out."""
    channel.last_heard = now
    channel.moved = channel.moved or change.moved
    if change.pts is not None:
        if channel.reached is not None and change.pts <= channel.reached:
            return
        channel.furthest = max(channel.furthest, change.pts)
        if channel.reached is not None and change.pts - change.count == channel.reached:
            channel.reached = change.pts
    elif change.message is not None or change.deleted:
        channel.look = True
    channel.waiting.append(change)


def catch_up(channel: Followed, changes: Sequence[Change], pts: int, now: datetime) -> None:
    """Take note of all that happened up to `pts`, as Telegram has told it when asked."""
    channel.waiting += changes
    channel.reached = pts
    channel.last_heard = now


def is_ready(channel: Followed, now: datetime, album_seconds: float) -> bool:
    """Whether what was heard may be stored: the further messages of an album come within moments, so they are waited for."""
    if not channel.waiting:
        return False
    album = any(change.message is not None and change.message.grouped_id for change in channel.waiting)
    quiet = abs(
        (now - (channel.last_heard or now)).total_seconds()
    )  # a clock that was set back lets nothing wait for ever
    return not album or quiet >= album_seconds


async def store(
    engine: sa.Engine,
    ready: Sequence[tuple[Client, Followed]],
    now: datetime,
    keep_text: bool,
    own: OwnModel | None = None,
) -> Counter[str]:
    """Store what was heard from these channels. Gives how many items became what.

    Raises DatabaseError, with everything as it was before; and SourceError when an album couldn't be completed: its channel keeps
    what it had, and all others are stored.
    """
    nets, failed = list[_Net](), list[SourceError]()
    for client, channel in ready:
        net = _net(channel)
        try:
            await _complete(net, client)
            nets.append(net)
        except SourceError as error:
            failed.append(error)
            channel.waiting = net.taken + channel.waiting
    try:
        outcomes = _store(engine, nets, now, keep_text, own)
    except DatabaseError:
        for net in nets:
            net.channel.waiting = net.taken + net.channel.waiting
        raise
    if failed:
        raise failed[0]
    return outcomes


def _net(channel: Followed) -> _Net:
    """What the waiting changes come to, in their order; nothing waits any more."""
    taken, channel.waiting = channel.waiting, []
    net = _Net(channel, taken, channel.reached, names={channel.name.id: channel.name})
    for change in taken:
        net.names |= change.names
        if change.message is not None and _is_newer(change.message, net):
            net.messages[change.message.id] = change.message
            net.edited |= {change.message.id} if change.edited else set()
        for id in change.deleted:
            net.messages.pop(id, None)
            net.deleted.add(id)
        for id, counted in change.counters.items():
            net.counters.setdefault(id, {}).update(counted)
    return net


def _is_newer(message: Any, net: _Net) -> bool:
    """Whether it says something: what was asked for can be older than what was told meanwhile."""
    known = net.messages.get(message.id)
    if message.id in net.deleted:
        return False
    return known is None or _edited(message) >= _edited(known)


def _edited(message: Any) -> datetime:
    time: datetime = message.edit_date or message.date
    return time


async def _complete(net: _Net, client: Client) -> None:
    """Make posts of the messages. Of an album that may not be whole, since one of its messages was edited or came alone, all
    messages are asked for."""
    for group in telegram_posts.albums(net.messages.values()):
        album = group[0].grouped_id
        if album and (len(group) == 1 or any(one.id in net.edited for one in group)):
            group = await _whole(net, client, group)
        if group:
            net.posts.append(telegram_posts.post(group, net.names))


async def _whole(net: _Net, client: Client, group: list[Any]) -> list[Any]:
    """All messages of an album; those that we have when Telegram doesn't give them for another reason than a wait."""
    try:
        parts, names = await client.album(net.channel.ref, group[0].id, group[0].grouped_id)
    except TelegramRefused as error:
        if error.retry_after is not None:
            raise
        return group
    net.names |= names
    return sorted(parts, key=lambda one: one.id)


def _store(
    engine: sa.Engine, nets: Sequence[_Net], now: datetime, keep_text: bool, own: OwnModel | None
) -> Counter[str]:
    outcomes = Counter[str]()
    with reading(engine) as connection:
        fresh = catalog.unknown(connection, [post.item.id for net in nets for post in net.posts])
    for kept in (False, True):
        chosen = [(net, post) for net in nets for post in net.posts if (keep_text and not post.is_protected) is kept]
        items = [_item(net.channel, post) for net, post in chosen]
        for one in ingest.store_items(engine, items, now, revive=False, keep_text=kept, own=own):
            outcomes[one.outcome] += 1
    with writing(engine) as connection:
        for net in nets:
            _settle(connection, net, fresh, now)
    return outcomes


def _item(channel: Followed, post: Post) -> Item:
    return msgspec.structs.replace(post.item, source=channel.source, labels=channel.labels)


def _settle(connection: sa.Connection, net: _Net, fresh: set[str], now: datetime) -> None:
    """All that goes with the items of one channel, and how far it has got. `fresh`: ids of posts that came for the first time,
    also of those that are another channel's post."""
    channel = net.channel
    telegram_id = channel.ref.id
    catalog.alias(connection, _parts(net.posts))
    gone = sorted(net.deleted - net.messages.keys())
    catalog.withdraw(connection, [telegram_posts.item_id(telegram_id, id) for id in gone], now)
    counted = {telegram_posts.item_id(telegram_id, id): numbers for id, numbers in net.counters.items()}
    counters.put(connection, {post.item.id: post.counters for post in net.posts} | counted, now)
    named = [mention for post in net.posts if post.item.id in fresh for mention in _mentions(post, channel.name)]
    channels.record_mentions(connection, channel.source_key, named, now)
    rename(connection, channel, net.names[telegram_id], now)
    if net.reached is not None:
        memberships.set_pts(connection, channel.key, channel.account, net.reached)
    if channel.swept is not None:
        note_swept(connection, channel, channel.swept)


def note_swept(connection: sa.Connection, channel: Followed, time: datetime) -> None:
    """All that had happened in a channel up to this time is stored: after an absence its history is read back to here."""
    memberships.record_sweep(connection, channel.key, channel.account, time)
    subscriptions.note_heard(connection, channel.source_key, time)
    channel.swept = None


def _parts(posts: Sequence[Post]) -> dict[str, str]:
    return {
        telegram_posts.item_id(post.channel, message): post.item.id for post in posts for message in post.messages[1:]
    }


def _mentions(post: Post, own: ChannelName) -> list[Mention]:
    """The channels that a post names: that it was forwarded from, and those in its text."""
    origin = post.origin
    others = handles.named(post.item.text or "")
    known = {own.username, origin and origin.username}
    found = [Mention(one.username, one.invite) for one in others if one.username is None or one.username not in known]
    if origin is None or origin.id == own.id:
        return found
    return [Mention(username=origin.username, telegram_id=origin.id, title=origin.title or None), *found]


def rename(connection: sa.Connection, channel: Followed, name: ChannelName, now: datetime) -> None:
    """If a channel has another name by now, its source gets it too, and its younger items get their new addresses."""
    name = ChannelName(name.id, plain_line(name.title, MAX_TITLE) or channel.source, name.username)
    if name == channel.name:
        return
    channel.name = name
    channel.key = channels.identify(connection, channel.key, name.id, name.username, name.title)
    subscriptions.rename(connection, channel.source_key, source_address(name), name.title)
    items = [
        Item(id=id, source=channel.source, url=telegram_posts.address(name.id, name.username, message))
        for id in catalog.recent_ids(connection, channel.source_key, now - READDRESSED)
        if (message := telegram_posts.message_of(id, name.id)) is not None
    ]
    catalog.upsert(connection, items, now, revive=False)


def source_address(name: ChannelName) -> str:
    """The address of a channel's source: its link when it is public, else by its number."""
    return f"https://t.me/{name.username}" if name.username else f"tg:{name.id}"


def messages_since(engine: sa.Engine, channel: Followed, since: datetime) -> list[int]:
    """The messages of a channel that are items published since then, the newest first."""
    with reading(engine) as connection:
        ids = catalog.recent_ids(connection, channel.source_key, since)
    found = (telegram_posts.message_of(id, channel.ref.id) for id in ids)
    return sorted((message for message in found if message is not None), reverse=True)
