"""An account of Telegram, through Telethon: connect, look up, join, mute, leave, listen, and look for what listening missed.

What Telegram refuses is raised as TelegramRefused with Telegram's own name for it; no wait is slept through here, and nothing is
done that Telegram counts as reading. Only ids, names and messages come out: `telegram_posts` makes items of them.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from telethon import TelegramClient, errors, events, utils
from telethon.sessions import StringSession
from telethon.tl import functions, types

from palate.errors import TelegramRefused, TelegramUnreachable
from palate.sources.telegram_posts import ChannelName, channel_of, counters, is_post, name_of, names

log = logging.getLogger(__name__)

DIFFERENCE = 100
"""Changes that a difference has at most; Telegram allows 10 to 100."""
PAGE = 100
"""Messages that a page of a channel's history has at most."""
DIALOG_PAGES = 50
"""Pages of an account's dialogs that are read at most."""
ALBUM = 10
"""Messages that an album has at most."""
FOREVER = 2**31 - 1
"""Until when a channel is muted, in seconds since 1970."""
PATIENCE = 30.0
"""Seconds to wait for an answer."""

_LISTENED = (
    types.UpdateNewChannelMessage,
    types.UpdateEditChannelMessage,
    types.UpdateDeleteChannelMessages,
    types.UpdateChannelMessageViews,
    types.UpdateChannelMessageForwards,
    types.UpdateMessageReactions,
    types.UpdateChannel,
)


@dataclass(frozen=True)
class ChannelRef:
    """By which one account may name a channel."""

    id: int
    access_hash: int


@dataclass(frozen=True)
class Found:
    """A channel that was looked up or joined."""

    ref: ChannelRef
    name: ChannelName


@dataclass(frozen=True)
class Change:
    """Something that happened in a channel, in the order in which Telegram told it."""

    channel: int
    pts: int | None = None
    """Where the channel is afterwards; None where that isn't said."""
    count: int = 0
    """How far this moved it."""
    message: Any = None
    """A message that is new or was edited."""
    edited: bool = False
    deleted: tuple[int, ...] = ()
    counters: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """By message."""
    names: Mapping[int, ChannelName] = field(default_factory=dict)
    """Of the channels that it is about."""
    moved: bool = False
    """The channel itself has changed: its name, or whether we may read it."""


@dataclass(frozen=True)
class Difference:
    """What has happened in a channel since some pts."""

    changes: tuple[Change, ...]
    pts: int
    is_final: bool
    """Whether that is all."""
    too_long: bool = False
    """More than Telegram tells in this way: the history has to be read."""


@dataclass(frozen=True)
class Dialog:
    """A channel or a large group that an account is in."""

    ref: ChannelRef
    may_post: bool


@dataclass(frozen=True)
class Profile:
    """What Telegram says of an account."""

    id: int
    phone: str | None
    premium: bool
    channel_limit: int | None
    """Channels that it may be in; None where that isn't said."""


Listener = Callable[[Change], None]


@dataclass(eq=False)
class Client:
    """A connected account. Every call raises TelegramRefused for what Telegram refuses, TelegramUnreachable without an answer."""

    telethon: Any
    api_hash: str

    @property
    def is_connected(self) -> bool:
        """Whether there is a line, or one is being made again."""
        return bool(self.telethon.is_connected())

    def session(self) -> str:
        """The session as it is now, to be kept."""
        return str(self.telethon.session.save())

    async def close(self) -> None:
        """Hang up; the session stays good."""
        await self.telethon.disconnect()

    async def profile(self) -> Profile:
        """Who this is, and how many channels it may be in. Raises TelegramRefused when it isn't logged in any more."""
        users = await self.ask(functions.users.GetUsersRequest([types.InputUserSelf()]))
        config = await self.ask(functions.help.GetAppConfigRequest(hash=0))
        me, numbers = users[0], _numbers(config.config)
        limit = numbers.get("channels_limit_premium" if me.premium else "channels_limit_default")
        return Profile(me.id, me.phone, bool(me.premium), None if limit is None else int(limit))

    async def dialogs(self) -> list[Dialog]:
        """All channels and large groups that the account is in, for us or for its owner."""
        found = dict[int, Dialog]()
        offset: tuple[datetime | None, int, Any] = (None, 0, types.InputPeerEmpty())
        for _ in range(DIALOG_PAGES):
            answer = await self.ask(functions.messages.GetDialogsRequest(*offset, limit=PAGE, hash=0))
            found |= {chat.id: _dialog(chat) for chat in answer.chats if _is_inside(chat)}
            if not isinstance(answer, types.messages.DialogsSlice) or len(answer.dialogs) < PAGE:
                break
            offset = _after(answer)
        return list(found.values())

    async def forward(self, ref: ChannelRef, messages: Sequence[int], to: ChannelRef) -> dict[int, int]:
        """Forward at most 100 messages to another channel, as what they are; gives the id that each that is still there has
        there."""
        assert len(messages) <= PAGE, "Telegram forwards at most 100 messages at a time"
        peers = [types.InputPeerChannel(one.id, one.access_hash) for one in (ref, to)]
        request = functions.messages.ForwardMessagesRequest(
            peers[0], list(messages), peers[1], silent=True, drop_author=False
        )
        answer = await self.ask(request)
        ids = {one.random_id: one.id for one in answer.updates if isinstance(one, types.UpdateMessageID)}
        sent = zip(messages, request.random_id, strict=True)
        return {message: ids[number] for message, number in sent if number in ids}

    async def resolve(self, username: str) -> Found:
        """The channel of this name; Telegram allows few such questions a day."""
        answer = await self.ask(functions.contacts.ResolveUsernameRequest(username))
        return _found(answer.chats)

    async def join(self, ref: ChannelRef) -> Found:
        """Enter a public channel."""
        return _joined(await self.ask(functions.channels.JoinChannelRequest(_input(ref))))

    async def join_invite(self, hash: str) -> Found:
        """Enter a channel by the hash of its invitation; one that we are in already is found as well."""
        try:
            return _joined(await self.ask(functions.messages.ImportChatInviteRequest(hash)))
        except TelegramRefused as error:
            if error.code != "USER_ALREADY_PARTICIPANT":
                raise
        found = await self.invited(hash)
        return found or _found(())

    async def invited(self, hash: str) -> Found | None:
        """The channel that an invitation leads to when we are in it; None when we aren't."""
        answer = await self.ask(functions.messages.CheckChatInviteRequest(hash))
        return _found([answer.chat]) if isinstance(answer, types.ChatInviteAlready) else None

    async def mute(self, ref: ChannelRef) -> None:
        """Let a channel ring on none of the account's devices."""
        peer = types.InputNotifyPeer(types.InputPeerChannel(ref.id, ref.access_hash))
        settings = types.InputPeerNotifySettings(show_previews=False, silent=True, mute_until=FOREVER)
        await self.ask(functions.account.UpdateNotifySettingsRequest(peer, settings))

    async def leave(self, ref: ChannelRef) -> None:
        """Be in a channel no more."""
        await self.ask(functions.channels.LeaveChannelRequest(_input(ref)))

    async def position(self, ref: ChannelRef) -> tuple[int, ChannelName]:
        """The pts where a channel is now, and its name."""
        answer = await self.ask(functions.channels.GetFullChannelRequest(_input(ref)))
        return int(answer.full_chat.pts), _found(answer.chats).name

    async def difference(self, ref: ChannelRef, pts: int) -> Difference:
        """What has happened in a channel since `pts`, at most 100 changes."""
        everything = types.ChannelMessagesFilterEmpty()
        request = functions.updates.GetChannelDifferenceRequest(_input(ref), everything, pts, DIFFERENCE)
        return _difference(ref.id, await self.ask(request))

    async def history(self, ref: ChannelRef, before: int = 0) -> tuple[list[Any], dict[int, ChannelName]]:
        """A page of messages older than `before` (0: the newest), newest first, and the channels that they name."""
        peer = types.InputPeerChannel(ref.id, ref.access_hash)
        answer = await self.ask(functions.messages.GetHistoryRequest(peer, before, None, 0, PAGE, 0, 0, 0))
        return [one for one in answer.messages if is_post(one)], names(answer.chats)

    async def album(self, ref: ChannelRef, message: int, group: int) -> tuple[list[Any], dict[int, ChannelName]]:
        """All messages of the album that a message is part of."""
        near = range(max(message - ALBUM + 1, 1), message + ALBUM)
        wanted = [types.InputMessageID(id) for id in near]
        answer = await self.ask(functions.channels.GetMessagesRequest(_input(ref), wanted))
        parts = [one for one in answer.messages if is_post(one) and one.grouped_id == group]
        return parts, names(answer.chats)

    async def counters(self, ref: ChannelRef, messages: Sequence[int]) -> dict[int, dict[str, float]]:
        """How often at most 100 messages were seen and forwarded, without counting as one who has seen them."""
        assert len(messages) <= PAGE, "Telegram counts at most 100 messages at a time"
        peer = types.InputPeerChannel(ref.id, ref.access_hash)
        answer = await self.ask(functions.messages.GetMessagesViewsRequest(peer, list(messages), increment=False))
        counted = (counters(one.views, one.forwards, one.replies) for one in answer.views)
        return dict(zip(messages, counted, strict=False))

    async def ask(self, request: Any) -> Any:
        """Telegram's answer to a request."""
        return await _answered(self.telethon(request))


async def connect(session: str, api_id: int, api_hash: str, listener: Listener | None = None) -> Client:
    """Connect with a session (an empty one has yet to log in); changes in the account's channels go to `listener`.

    Raises TelegramUnreachable.
    """
    telethon = TelegramClient(
        StringSession(session),
        api_id,
        api_hash,
        device_model="Palate",
        flood_sleep_threshold=0,
        request_retries=1,
        connection_retries=2,
        raise_last_call_error=True,
        sequential_updates=True,
        receive_updates=listener is not None,
    )
    if listener is not None:
        telethon.add_event_handler(_hearing(listener), events.Raw(_LISTENED))
    await _answered(telethon.connect())
    return Client(telethon, api_hash)


async def log_in(client: Client, phone: str, ask_code: Callable[[], str], ask_password: Callable[[], str]) -> Profile:
    """Log in with the code that Telegram sends to `phone`, and the password where the account has one.

    Raises TelegramRefused when one of them is wrong, TelegramUnreachable.
    """
    sent = await _answered(client.telethon.send_code_request(phone))
    code = await asyncio.to_thread(ask_code)
    try:
        await _answered(client.telethon.sign_in(phone, code, phone_code_hash=sent.phone_code_hash))
    except TelegramRefused as error:
        if error.code != "SESSION_PASSWORD_NEEDED":
            raise
        await _answered(client.telethon.sign_in(password=await asyncio.to_thread(ask_password)))
    return await client.profile()


async def _answered(question: Awaitable[Any]) -> Any:
    """The answer, or one of our own errors."""
    try:
        return await asyncio.wait_for(question, PATIENCE)
    except errors.RPCError as error:
        raise refused(error) from error
    except (TimeoutError, OSError, errors.InvalidBufferError, errors.SecurityError) as error:
        reason = str(error) or type(error).__name__
        raise TelegramUnreachable(f"Telegram doesn't answer ({reason}): trying again later.") from error


def refused(error: errors.RPCError) -> TelegramRefused:
    """Telethon's error as ours, with the name that Telegram gives it.

    >>> refused(errors.FloodWaitError(None, 30)).code, refused(errors.ChannelsTooMuchError(None)).code
    ('FLOOD_WAIT', 'CHANNELS_TOO_MUCH')
    """
    known = type(error).__name__.removesuffix("Error")
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", known).upper()
    code = snake if error.message is None or type(error).__module__.endswith("rpcerrorlist") else str(error.message)
    wait = float(error.seconds) if isinstance(error, errors.FloodError) and hasattr(error, "seconds") else None
    reason = f"Telegram refuses: {str(error).partition(' (caused by')[0]}"
    return TelegramRefused(f"{reason.rstrip('.')}.", code[:100], wait)


# What Telegram tells unasked


def _hearing(listener: Listener) -> Callable[[Any], Awaitable[None]]:
    async def hear(update: Any) -> None:
        change = heard(update, names(getattr(update, "_entities", {}).values()))
        if change is not None:
            listener(change)

    return hear


def heard(update: Any, known: Mapping[int, ChannelName]) -> Change | None:
    """The change that an update tells; None for one that is about no channel's posts.

    Updates that Telethon fetched itself to fill a gap carry no pts.
    """
    pts, count = getattr(update, "pts", None) or None, getattr(update, "pts_count", 0)
    if isinstance(update, types.UpdateNewChannelMessage | types.UpdateEditChannelMessage):
        channel = channel_of(update.message)
        edited = isinstance(update, types.UpdateEditChannelMessage)
        message = update.message if is_post(update.message) else None
        return None if channel is None else Change(channel, pts, count, message, edited, names=known)
    if isinstance(update, types.UpdateDeleteChannelMessages):
        return Change(update.channel_id, pts, count, deleted=tuple(update.messages))
    if isinstance(update, types.UpdateChannel):
        return Change(update.channel_id, names=known, moved=True)
    return _counted(update)


def _counted(update: Any) -> Change | None:
    if isinstance(update, types.UpdateChannelMessageViews):
        return Change(update.channel_id, counters={update.id: counters(update.views, None)})
    if isinstance(update, types.UpdateChannelMessageForwards):
        return Change(update.channel_id, counters={update.id: counters(None, update.forwards)})
    if isinstance(update, types.UpdateMessageReactions) and isinstance(update.peer, types.PeerChannel):
        found = counters(None, None, reactions=update.reactions)
        return Change(update.peer.channel_id, counters={update.msg_id: found})
    return None


def _difference(channel: int, answer: Any) -> Difference:
    if isinstance(answer, types.updates.ChannelDifferenceEmpty):
        return Difference((), answer.pts, True)
    known = names(answer.chats)
    if isinstance(answer, types.updates.ChannelDifferenceTooLong):
        return Difference((Change(channel, names=known),), answer.dialog.pts, True, too_long=True)
    new = [Change(channel, message=one, names=known) for one in answer.new_messages if is_post(one)]
    others = [change for update in answer.other_updates if (change := heard(update, known)) is not None]
    return Difference((*new, *others), answer.pts, bool(answer.final))


# What Telegram answers


def _input(ref: ChannelRef) -> Any:
    return types.InputChannel(ref.id, ref.access_hash)


def _joined(answer: Any) -> Found:
    """The channel that was entered; a small group that has become a channel leads to that."""
    if isinstance(answer, types.messages.ChatInviteJoinResultWebView):
        raise TelegramRefused("The channel lets people in by a program of its own: join it by hand.", "JOIN_WEB_VIEW")
    return _found(getattr(answer, "updates", answer).chats)


def _is_inside(chat: Any) -> bool:
    return isinstance(chat, types.Channel) and not chat.left and chat.access_hash is not None


def _dialog(chat: Any) -> Dialog:
    rights = chat.admin_rights
    return Dialog(ChannelRef(chat.id, chat.access_hash), bool(chat.creator or (rights and rights.post_messages)))


def _after(answer: Any) -> tuple[datetime | None, int, Any]:
    """Where the next page of dialogs begins."""
    last = answer.dialogs[-1]
    dates = {
        (utils.get_peer_id(one.peer_id), one.id): getattr(one, "date", None) for one in answer.messages if one.peer_id
    }
    peers = {
        utils.get_peer_id(one): utils.get_input_peer(one, check_hash=False) for one in (*answer.chats, *answer.users)
    }
    place = utils.get_peer_id(last.peer)
    return dates.get((place, last.top_message)), last.top_message, peers.get(place, types.InputPeerEmpty())


def _found(chats: Sequence[Any]) -> Found:
    """The channel among what was found. Raises TelegramRefused when there is none, as for people and small groups."""
    for chat in chats:
        if isinstance(chat, types.Channel) and chat.access_hash is not None:
            return Found(ChannelRef(chat.id, chat.access_hash), name_of(chat))
    raise TelegramRefused("That is no channel: people and small groups can't be followed.", "NOT_A_CHANNEL")


def _numbers(config: Any) -> dict[str, float]:
    pairs = config.value if isinstance(config, types.JsonObject) else []
    return {pair.key: pair.value.value for pair in pairs if isinstance(pair.value, types.JsonNumber)}
