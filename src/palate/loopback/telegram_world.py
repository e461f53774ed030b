"""What a loopback Telegram holds: accounts, channels and their posts; and what a script lets happen there.

Whatever changes in a channel moves its pts by one a message and is told to the accounts that follow it, as Telegram does:
https://core.telegram.org/api/updates
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any

from telethon.tl import types

CHANNELS, CHANNELS_PREMIUM = 500, 1000
"""Channels that an account may be in."""


@dataclass(eq=False)
class Account:
    """Somebody's account, as the server knows it."""

    name: str
    id: int
    phone: str
    premium: bool = False
    password: str | None = None
    """Of its two-step verification; None without."""
    keys: list[bytes] = field(default_factory=list)
    """Ids of the keys of its sessions."""
    joined: set[int] = field(default_factory=set)
    muted: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    """Channels in which it may publish."""
    hears: bool = True
    """False: what changes isn't told, as when updates are lost."""
    refused: str | None = None
    """What every request is answered with, such as SESSION_REVOKED; None while all is well."""
    frozen: bool = False

    @property
    def limit(self) -> int:
        """Channels that it may be in."""
        return CHANNELS_PREMIUM if self.premium else CHANNELS

    def access_hash(self, channel: int) -> int:
        """By which this account, and no other, names a channel."""
        return int.from_bytes(blake2b(f"{self.id} {channel}".encode(), digest_size=7).digest(), "big")


@dataclass(frozen=True)
class Change:
    """What happened in a channel; afterwards it was at `pts`."""

    pts: int
    count: int
    update: Any
    is_post: bool


@dataclass(eq=False)
class Channel:
    """A broadcast channel. Posts are TL messages, in the order of their ids."""

    id: int
    title: str
    username: str | None = None
    invite: str | None = None
    """The hash of its invitation link."""
    asks: bool = False
    """Whether joining by the link waits for an administrator."""
    pts: int = 1
    posts: dict[int, Any] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    last_id: int = 0
    migrated_from: int | None = None
    """Id of the small group that it was; its invitation leads here."""
    noforwards: bool = False
    """Whether it forbids copies."""


@dataclass(eq=False)
class TelegramWorld:
    """All of it. `tell` says an update to an account; a server puts itself there."""

    clock: Callable[[], datetime]
    accounts: dict[str, Account] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    tell: Callable[[Account, Any], None] = lambda account, update: None

    def add_account(self, name: str, *, premium: bool = False, password: str | None = None) -> Account:
        """A new account; its phone number is made from its place."""
        place = len(self.accounts) + 1
        account = Account(name, 9000 + place, f"9996600{place:03}", premium=premium, password=password)
        self.accounts[name] = account
        return account

    def add_channel(
        self,
        username: str | None = None,
        *,
        title: str | None = None,
        invite: str | None = None,
        asks: bool = False,
        migrated_from: int | None = None,
    ) -> Channel:
        """A new channel: public with a `username`, else only by its `invite`."""
        id = 1_000_000 + len(self.channels) + 1
        channel = Channel(id, title or username or f"channel {id}", username, invite, asks)
        channel.migrated_from = migrated_from
        self.channels[id] = channel
        return channel

    def post(self, channel: Channel, text: str, **fields: Any) -> int:
        """Publish a post and give its id; `fields` are those of the TL message, such as `views` or `fwd_from`."""
        return self.album(channel, [text], None, **fields)[0]

    def album(self, channel: Channel, texts: Sequence[str], group: int | None, **fields: Any) -> list[int]:
        """Publish several posts at once, of one `group`; gives their ids."""
        ids = []
        updates = []
        for text in texts:
            channel.last_id += 1
            post = self._message(channel, channel.last_id, text, {"grouped_id": group, **fields})
            channel.posts[post.id] = post
            ids.append(post.id)
            updates.append(self._record(channel, types.UpdateNewChannelMessage(post, 0, 0), 1, is_post=True))
        self._publish(channel, updates)
        return ids

    def forward(self, channel: Channel, ids: Sequence[int], to: Channel) -> dict[int, int]:
        """Forward posts to another channel, albums as albums; gives their ids there. Those that are gone are left out."""
        forwarded, updates = dict[int, int](), list[Any]()
        for post in (channel.posts[id] for id in ids if id in channel.posts):
            to.last_id += 1
            origin = post.fwd_from or self._origin(channel, post)
            fields = {"fwd_from": origin, "grouped_id": post.grouped_id}
            copy = self._message(to, to.last_id, post.message, fields)
            to.posts[copy.id] = copy
            forwarded[post.id] = copy.id
            updates.append(self._record(to, types.UpdateNewChannelMessage(copy, 0, 0), 1, is_post=True))
        self._publish(to, updates)
        return forwarded

    def _origin(self, channel: Channel, post: Any) -> Any:
        return types.MessageFwdHeader(post.date, from_id=types.PeerChannel(channel.id), channel_post=post.id)

    def edit(self, channel: Channel, id: int, text: str) -> None:
        """Give a post another text."""
        post = channel.posts[id]
        post.message, post.edit_date = text, self.clock()
        self._publish(channel, [self._record(channel, types.UpdateEditChannelMessage(post, 0, 0), 1)])

    def delete(self, channel: Channel, *ids: int) -> None:
        """Take posts back."""
        for id in ids:
            del channel.posts[id]
        update = types.UpdateDeleteChannelMessages(channel.id, list(ids), 0, 0)
        self._publish(channel, [self._record(channel, update, len(ids))])

    def count(self, channel: Channel, id: int, *, views: int, forwards: int = 0, likes: int = 0) -> None:
        """Let a post be seen, forwarded and reacted to so often by now; it moves no pts."""
        post = channel.posts[id]
        post.views, post.forwards = views, forwards
        post.reactions = types.MessageReactions([types.ReactionCount(types.ReactionEmoji("👍"), likes)])
        self._publish(
            channel,
            [
                types.UpdateChannelMessageViews(channel.id, id, views),
                types.UpdateChannelMessageForwards(channel.id, id, forwards),
                types.UpdateMessageReactions(types.PeerChannel(channel.id), id, post.reactions),
            ],
        )

    def rename(self, channel: Channel, username: str | None, title: str) -> None:
        """Give a channel another name; without a username it is no longer public."""
        channel.username, channel.title = username, title
        self._publish(channel, [types.UpdateChannel(channel.id)])

    def expel(self, channel: Channel, account: Account) -> None:
        """Shut an account out of a channel, which becomes private."""
        channel.username = None
        account.joined.discard(channel.id)
        self.tell(account, self._updates(account, channel, [types.UpdateChannel(channel.id)]))

    def tl_channel(self, account: Account, channel: Channel) -> Any:
        """The channel as this account sees it."""
        if channel.id not in account.joined and channel.username is None:
            return types.ChannelForbidden(channel.id, account.access_hash(channel.id), channel.title, broadcast=True)
        return types.Channel(
            channel.id,
            channel.title,
            types.ChatPhotoEmpty(),
            self.clock(),
            access_hash=account.access_hash(channel.id),
            broadcast=True,
            username=channel.username,
            noforwards=channel.noforwards or None,
            admin_rights=types.ChatAdminRights(post_messages=True) if channel.id in account.writes else None,
            left=channel.id not in account.joined or None,
        )

    def shown_channels(self, account: Account, messages: Sequence[Any]) -> list[Any]:
        """The channels that posts were forwarded from."""
        origins = {message.fwd_from.from_id.channel_id for message in messages if message.fwd_from}
        return [self.tl_channel(account, self.channels[id]) for id in sorted(origins)]

    def _message(self, channel: Channel, id: int, text: str, fields: dict[str, Any]) -> Any:
        fields = {"date": self.clock(), "post": True, "views": 1, "forwards": 0, **fields}
        return types.Message(id=id, peer_id=types.PeerChannel(channel.id), message=text, **fields)

    def _record(self, channel: Channel, update: Any, count: int, is_post: bool = False) -> Any:
        channel.pts += count
        update.pts, update.pts_count = channel.pts, count
        channel.changes.append(Change(channel.pts, count, update, is_post))
        return update

    def _publish(self, channel: Channel, updates: list[Any]) -> None:
        for account in self.accounts.values():
            if account.hears and channel.id in account.joined:
                self.tell(account, self._updates(account, channel, updates))

    def _updates(self, account: Account, channel: Channel, updates: list[Any]) -> Any:
        messages = [update.message for update in updates if hasattr(update, "message")]
        chats = [self.tl_channel(account, channel), *self.shown_channels(account, messages)]
        return types.Updates(updates, [], chats, self.clock(), 0)
