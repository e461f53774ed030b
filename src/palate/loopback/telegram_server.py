"""A loopback Telegram: answers the requests of real Telethon clients from a `TelegramWorld`, refuses what a script says, and
keeps an account of every call, so that a test can see that each limit was kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from telethon.crypto import AuthKey
from telethon.sessions import StringSession
from telethon.tl import functions, types

from palate.loopback import passwords
from palate.loopback.mtproto import MtprotoServer, Refusal, key_id
from palate.loopback.telegram_world import CHANNELS, CHANNELS_PREMIUM, Account, Channel, TelegramWorld

CODE = "22222"
"""The code by which every account logs in."""
RESOLVES = 200
"""Usernames that an account may resolve in a day; one more is a breach."""

_CODES = {"FLOOD_WAIT": 420, "FROZEN": 420, "AUTH_KEY": 401, "SESSION": 401, "USER_DEACTIVATED": 401}
_CONFIGURED = """chat_size_max megagroup_size_max forwarded_count_max online_update_period_ms offline_blur_timeout_ms
offline_idle_timeout_ms online_cloud_timeout_ms notify_cloud_delay_ms notify_default_delay_ms push_chat_period_ms push_chat_limit
edit_time_limit revoke_time_limit revoke_pm_time_limit rating_e_decay stickers_recent_limit channels_read_media_period
call_receive_timeout_ms call_ring_timeout_ms call_connect_timeout_ms call_packet_timeout_ms caption_length_max
message_length_max webfile_dc_id"""
_UNCOUNTED = ("GetConfig", "GetUsers", "GetState", "GetDifference")


@dataclass(frozen=True)
class Call:
    """A request that was made."""

    time: datetime
    account: str
    method: str
    """Such as JoinChannel."""
    request: Any
    error: str | None
    """What it was refused with; None when it was answered."""


@dataclass(eq=False)
class _Fault:
    message: str
    method: str | None
    account: str | None
    times: int


@dataclass(eq=False)
class TelegramServer:
    """Serves a world on a port of the loopback address."""

    world: TelegramWorld
    calls: list[Call] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    """What a client did that Telegram punishes; a test asserts that there is nothing."""
    half_open: dict[bytes, str] = field(default_factory=dict)
    """Keys of sessions that gave the code and still owe the password, each with its account's name."""
    too_long: int = 1000
    """Changes of a channel beyond which its difference is too long to be given."""
    port: int = 0
    """Port to listen on; 0 takes any free one."""
    _faults: list[_Fault] = field(default_factory=list)
    _waits: dict[tuple[str, str], datetime] = field(default_factory=dict)
    _wire: MtprotoServer = field(init=False)

    def __post_init__(self) -> None:
        self._wire = MtprotoServer(self._answer, port=self.port)
        self.world.tell = self._tell

    async def start(self) -> None:
        """Listen, on the same port again after a `close`."""
        await self._wire.start()

    async def close(self) -> None:
        """Cut every connection and listen no more."""
        await self._wire.close()

    def session(self, account: Account | None) -> str:
        """A new session for Telethon, logged in to an account, or (None) to none yet."""
        key = AuthKey(self._wire.new_key())
        if account is not None:
            account.keys.append(_id_of(key))
        session = StringSession()
        session.set_dc(2, "127.0.0.1", self._wire.port)
        session.auth_key = key
        return str(session.save())

    def fail(self, message: str, *, method: str | None = None, account: str | None = None, times: int = 1) -> None:
        """Refuse the next calls (of this method, of this account) with a message such as FLOOD_WAIT_30; `CUT` cuts the line."""
        self._faults.append(_Fault(message, method, account, times))

    def drop(self, account: Account) -> None:
        """Cut the lines of an account."""
        for key in account.keys:
            self._wire.drop(key)

    def made(self, method: str, account: str | None = None) -> list[Call]:
        """The calls of this method, in their order."""
        return [call for call in self.calls if call.method == method and account in (None, call.account)]

    def _tell(self, account: Account, update: Any) -> None:
        for key in account.keys:
            self._wire.push(key, update)

    def _answer(self, key: bytes, request: Any) -> Any:
        method = type(request).__name__.removesuffix("Request")
        account = next((one for one in self.world.accounts.values() if key in one.keys), None)
        try:
            self._refuse(account, method)
            said = _answer_account(self, account, request) if account else _answer_stranger(self, key, request)
        except Refusal as refusal:
            self._note(account, method, request, refusal.message)
            raise
        self._note(account, method, request, None)
        return said

    def _refuse(self, account: Account | None, method: str) -> None:
        """Raises Refusal when the account is refused, or a fault was scripted for this call."""
        if account is None:
            return
        if account.refused is not None:
            raise refusal(account.refused)
        if account.frozen and method in ("JoinChannel", "ImportChatInvite"):
            raise refusal("FROZEN_METHOD_INVALID")
        for fault in self._faults:
            if fault.method in (None, method) and fault.account in (None, account.name) and method not in _UNCOUNTED:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
                raise refusal(fault.message)

    def _note(self, account: Account | None, method: str, request: Any, error: str | None) -> None:
        name, now = account.name if account else "", self.world.clock()
        if now < self._waits.get((name, method), now):
            self.breaches.append(f"{name} called {method} at {now} although it was to wait")
        wait = re.fullmatch(r"FLOOD_WAIT_(\d+)", error or "")
        if wait:
            self._waits[name, method] = now + timedelta(seconds=int(wait[1]))
        self.calls.append(Call(now, name, method, request, error))


def refusal(message: str) -> Refusal:
    """The error with the code that belongs to its message."""
    code = next((code for start, code in _CODES.items() if message.startswith(start)), 400)
    return Refusal(code, message, cut=message == "CUT")


def _id_of(key: AuthKey) -> bytes:
    return key_id(bytes(key.key))


def _answer_account(server: TelegramServer, account: Account, request: Any) -> Any:
    answer = _ANSWERS.get(type(request))
    if answer is None:
        raise Refusal(400, f"METHOD_NOT_EMULATED_{type(request).__name__}")
    return answer(server, account, request)


# Who one is


def _config(server: TelegramServer, _account: Account | None, _request: Any) -> Any:
    now = server.world.clock()
    fields: dict[str, Any] = dict.fromkeys(_CONFIGURED.split(), 1)
    fields |= {"this_dc": 2, "dc_options": [], "dc_txt_domain_name": "", "test_mode": False}
    return types.Config(date=now, expires=now, me_url_prefix="https://t.me/", **fields)


def _app_config(_server: TelegramServer, _account: Account, _request: Any) -> Any:
    limits = {"channels_limit_default": CHANNELS, "channels_limit_premium": CHANNELS_PREMIUM}
    values = [types.JsonObjectValue(name, types.JsonNumber(float(value))) for name, value in limits.items()]
    return types.help.AppConfig(1, types.JsonObject(values))


def _users(_server: TelegramServer, account: Account, _request: Any) -> Any:
    return [_user(account)]


def _user(account: Account) -> Any:
    premium = account.premium or None
    return types.User(
        account.id, is_self=True, access_hash=1, first_name=account.name, phone=account.phone, premium=premium
    )


def _state(server: TelegramServer, _account: Account, _request: Any) -> Any:
    return types.updates.State(1, 0, server.world.clock(), 1, 0)


def _difference(server: TelegramServer, _account: Account, _request: Any) -> Any:
    return types.updates.DifferenceEmpty(server.world.clock(), 1)


def _answer_stranger(server: TelegramServer, key: bytes, request: Any) -> Any:
    """What somebody who isn't logged in may do: ask for the code, and log in with it."""
    if isinstance(request, functions.help.GetConfigRequest):
        return _config(server, None, request)
    if isinstance(request, functions.auth.SendCodeRequest):
        return types.auth.SentCode(
            types.auth.SentCodeTypeApp(len(CODE)), phone_code_hash=_of_phone(server, request).name
        )
    if isinstance(request, functions.auth.SignInRequest):
        return _sign_in(server, key, request)
    waiting = server.world.accounts.get(server.half_open.get(key, ""))
    if waiting is None:
        raise refusal("AUTH_KEY_UNREGISTERED")
    if isinstance(request, functions.account.GetPasswordRequest):
        return passwords.challenge(waiting.password or "")
    if isinstance(request, functions.auth.CheckPasswordRequest):
        if not passwords.fits(waiting.password or "", request.password):
            raise refusal("PASSWORD_HASH_INVALID")
        waiting.keys.append(key)
        return types.auth.Authorization(_user(waiting))
    raise refusal("AUTH_KEY_UNREGISTERED")


def _of_phone(server: TelegramServer, request: Any) -> Account:
    for account in server.world.accounts.values():
        if account.phone == request.phone_number:
            return account
    raise refusal("PHONE_NUMBER_INVALID")


def _sign_in(server: TelegramServer, key: bytes, request: Any) -> Any:
    account = _of_phone(server, request)
    if request.phone_code != CODE or request.phone_code_hash != account.name:
        raise refusal("PHONE_CODE_INVALID")
    if account.password is not None:
        server.half_open[key] = account.name
        raise Refusal(401, "SESSION_PASSWORD_NEEDED")
    account.keys.append(key)
    return types.auth.Authorization(_user(account))


# Channels


def _resolve(server: TelegramServer, account: Account, request: Any) -> Any:
    since = server.world.clock() - timedelta(days=1)
    if sum(call.time > since for call in server.made("ResolveUsername", account.name)) >= RESOLVES:
        server.breaches.append(f"{account.name} resolved more than {RESOLVES} names in a day")
    for channel in server.world.channels.values():
        if channel.username and channel.username.lower() == request.username.lower():
            shown = server.world.tl_channel(account, channel)
            return types.contacts.ResolvedPeer(types.PeerChannel(channel.id), [shown], [])
    raise refusal("USERNAME_NOT_OCCUPIED")


def _join(server: TelegramServer, account: Account, request: Any) -> Any:
    channel = _channel(server, account, request.channel)
    if channel.username is None:
        raise refusal("CHANNEL_PRIVATE")
    return _joined(server, account, channel)


def _import_invite(server: TelegramServer, account: Account, request: Any) -> Any:
    channel = _invited(server, request.hash)
    if channel.id in account.joined:
        raise refusal("USER_ALREADY_PARTICIPANT")
    if channel.asks:
        raise refusal("INVITE_REQUEST_SENT")
    return _joined(server, account, channel)


def _joined(server: TelegramServer, account: Account, channel: Channel) -> Any:
    if len(account.joined) >= account.limit:
        raise refusal("CHANNELS_TOO_MUCH")
    account.joined.add(channel.id)
    update = types.UpdateChannel(channel.id)
    chats = [server.world.tl_channel(account, channel)]
    if channel.migrated_from is not None:
        chats.insert(0, _small_group(server, account, channel))
    updates = types.Updates([update], [], chats, server.world.clock(), 0)
    return types.messages.ChatInviteJoinResultOk(updates)


def _small_group(server: TelegramServer, account: Account, channel: Channel) -> Any:
    moved = types.InputChannel(channel.id, account.access_hash(channel.id))
    now = server.world.clock()
    return types.Chat(channel.migrated_from, channel.title, types.ChatPhotoEmpty(), 1, now, 1, migrated_to=moved)


def _check_invite(server: TelegramServer, account: Account, request: Any) -> Any:
    channel = _invited(server, request.hash)
    if channel.id in account.joined:
        return types.ChatInviteAlready(server.world.tl_channel(account, channel))
    asks = channel.asks or None
    return types.ChatInvite(channel.title, types.PhotoEmpty(1), 1, 1, channel=True, broadcast=True, request_needed=asks)


def _leave(server: TelegramServer, account: Account, request: Any) -> Any:
    channel = _channel(server, account, request.channel)
    account.joined.discard(channel.id)
    chats = [server.world.tl_channel(account, channel)]
    return types.Updates([types.UpdateChannel(channel.id)], [], chats, server.world.clock(), 0)


def _dialogs(server: TelegramServer, account: Account, request: Any) -> Any:
    """A page of the channels that the account is in, in the order of their ids."""
    start = getattr(request.offset_peer, "channel_id", 0)
    inside = [server.world.channels[id] for id in sorted(account.joined) if id > start]
    page = inside[: min(request.limit, 100)]
    settings = types.PeerNotifySettings()
    dialogs = [types.Dialog(types.PeerChannel(one.id), one.last_id, 0, 0, 0, 0, 0, 0, settings) for one in page]
    last = [one.posts[one.last_id] for one in page if one.last_id in one.posts]
    chats = [*(server.world.tl_channel(account, one) for one in page), *server.world.shown_channels(account, last)]
    if len(page) < len(account.joined):
        return types.messages.DialogsSlice(len(account.joined), dialogs, last, chats, [])
    return types.messages.Dialogs(dialogs, last, chats, [])


def _forward(server: TelegramServer, account: Account, request: Any) -> Any:
    channel, to = (_open_channel(server, account, peer) for peer in (request.from_peer, request.to_peer))
    if len(request.id) > 100 or request.drop_author:
        server.breaches.append(
            f"{account.name} forwarded {len(request.id)} posts, without author: {request.drop_author}"
        )
    if to.id not in account.writes:
        raise refusal("CHAT_WRITE_FORBIDDEN")
    if channel.noforwards or any(channel.posts[id].noforwards for id in request.id if id in channel.posts):
        raise refusal("CHAT_FORWARDS_RESTRICTED")
    forwarded = server.world.forward(channel, request.id, to)
    if not forwarded:
        raise refusal("MESSAGE_ID_INVALID")
    numbers = zip(request.id, request.random_id, strict=True)
    ids = [types.UpdateMessageID(forwarded[id], number) for id, number in numbers if id in forwarded]
    return types.Updates(ids, [], [server.world.tl_channel(account, to)], server.world.clock(), 0)


def _mute(server: TelegramServer, account: Account, request: Any) -> Any:
    account.muted.add(_channel(server, account, request.peer.peer).id)
    return True


def _full(server: TelegramServer, account: Account, request: Any) -> Any:
    channel = _open_channel(server, account, request.channel)
    last, settings = channel.last_id, types.PeerNotifySettings()
    full = types.ChannelFull(channel.id, "", 0, 0, last, types.PhotoEmpty(1), settings, [], channel.pts)
    return types.messages.ChatFull(full, [server.world.tl_channel(account, channel)], [])


def _invited(server: TelegramServer, hash: str) -> Channel:
    for channel in server.world.channels.values():
        if channel.invite == hash:
            return channel
    raise refusal("INVITE_HASH_EXPIRED")


def _channel(server: TelegramServer, account: Account, peer: Any) -> Channel:
    channel = server.world.channels.get(peer.channel_id)
    if channel is None or peer.access_hash != account.access_hash(peer.channel_id):
        raise refusal("CHANNEL_INVALID")
    return channel


def _open_channel(server: TelegramServer, account: Account, peer: Any) -> Channel:
    """The channel if the account may read it."""
    channel = _channel(server, account, peer)
    if channel.username is None and channel.id not in account.joined:
        raise refusal("CHANNEL_PRIVATE")
    return channel


# Posts


def _channel_difference(server: TelegramServer, account: Account, request: Any) -> Any:
    channel = _open_channel(server, account, request.channel)
    if not 10 <= request.limit <= 100:
        server.breaches.append(f"{account.name} asked for a difference of {request.limit}")
    news = [change for change in channel.changes if change.pts > request.pts]
    if not news:
        return types.updates.ChannelDifferenceEmpty(channel.pts, final=True, timeout=60)
    if len(news) > server.too_long:
        return _too_long(server, account, channel)
    part = news[: request.limit]
    messages = [_now(channel, change) for change in part if change.is_post]
    messages = [message for message in messages if message is not None]
    others = [change.update for change in part if not change.is_post]
    chats = [server.world.tl_channel(account, channel), *server.world.shown_channels(account, messages)]
    final = len(part) == len(news) or None
    return types.updates.ChannelDifference(part[-1].pts, messages, others, chats, [], final=final, timeout=60)


def _now(channel: Channel, change: Any) -> Any:
    """The post as it is now; None when it is gone."""
    return channel.posts.get(change.update.message.id)


def _too_long(server: TelegramServer, account: Account, channel: Channel) -> Any:
    settings, peer = types.PeerNotifySettings(), types.PeerChannel(channel.id)
    dialog = types.Dialog(peer, channel.last_id, 0, 0, 0, 0, 0, 0, settings, pts=channel.pts)
    chats = [server.world.tl_channel(account, channel)]
    return types.updates.ChannelDifferenceTooLong(dialog, [], chats, [], final=True, timeout=60)


def _history(server: TelegramServer, account: Account, request: Any) -> Any:
    channel = _open_channel(server, account, request.peer)
    ids = [id for id in sorted(channel.posts, reverse=True) if not request.offset_id or id < request.offset_id]
    messages = [channel.posts[id] for id in ids if id > request.min_id][: min(request.limit, 100)]
    return _messages(server, account, channel, messages)


def _some(server: TelegramServer, account: Account, request: Any) -> Any:
    channel = _open_channel(server, account, request.channel)
    ids = [one.id for one in request.id]
    messages = [channel.posts.get(id) or types.MessageEmpty(id, types.PeerChannel(channel.id)) for id in ids]
    return _messages(server, account, channel, messages)


def _messages(server: TelegramServer, account: Account, channel: Channel, messages: list[Any]) -> Any:
    there = [message for message in messages if isinstance(message, types.Message)]
    chats = [server.world.tl_channel(account, channel), *server.world.shown_channels(account, there)]
    return types.messages.ChannelMessages(channel.pts, len(channel.posts), messages, [], chats, [])


def _views(server: TelegramServer, account: Account, request: Any) -> Any:
    channel = _open_channel(server, account, request.peer)
    if request.increment:
        server.breaches.append(f"{account.name} counted itself as a reader")
    posts = [channel.posts.get(id) for id in request.id]
    views = [
        types.MessageViews(views=post.views, forwards=post.forwards) if post else types.MessageViews() for post in posts
    ]
    return types.messages.MessageViews(views, [], [])


_ANSWERS: Mapping[type, Callable[[TelegramServer, Account, Any], Any]] = {
    functions.help.GetConfigRequest: _config,
    functions.help.GetAppConfigRequest: _app_config,
    functions.users.GetUsersRequest: _users,
    functions.updates.GetStateRequest: _state,
    functions.updates.GetDifferenceRequest: _difference,
    functions.updates.GetChannelDifferenceRequest: _channel_difference,
    functions.contacts.ResolveUsernameRequest: _resolve,
    functions.channels.JoinChannelRequest: _join,
    functions.channels.LeaveChannelRequest: _leave,
    functions.channels.GetFullChannelRequest: _full,
    functions.channels.GetMessagesRequest: _some,
    functions.messages.CheckChatInviteRequest: _check_invite,
    functions.messages.ImportChatInviteRequest: _import_invite,
    functions.messages.GetDialogsRequest: _dialogs,
    functions.messages.ForwardMessagesRequest: _forward,
    functions.messages.GetHistoryRequest: _history,
    functions.messages.GetMessagesViewsRequest: _views,
    functions.account.UpdateNotifySettingsRequest: _mute,
}
