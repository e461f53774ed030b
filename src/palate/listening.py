"""What the hub does: accounts → connect → store what was heard → join → sweep → forward what the bot wants.

Every account has a line of its own. What Telegram tells unasked is stored as it comes; since it doesn't tell all, each channel is
asked now and then what has happened since its last position (`sweeping`). Which channel is joined next is the plan's to say
(`joins`). An account that is lost leaves its channels to others. Nothing here waits or knows the time: `step` does what is due.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from palate import (
    accounts,
    channels,
    forwarding,
    hearing,
    joins,
    memberships,
    own_categories,
    staging,
    subscriptions,
    sweeping,
)
from palate.accounts import Account, TelegramParams
from palate.channels import Channel
from palate.database import reading, writing
from palate.errors import DatabaseError, SourceError, TelegramUnreachable
from palate.hearing import Followed
from palate.hub_params import HubParams
from palate.own_categories import Kept
from palate.sources import joining, telegram, telegram_refusals
from palate.sources.joining import AlreadyIn, Join, Joined, JoiningParams, Outcome
from palate.sources.telegram import Change, ChannelRef, Client, Found
from palate.sources.telegram_posts import ChannelName
from palate.text.cleaning import MAX_TITLE, plain_line

log = logging.getLogger(__name__)

LOOK_AGAIN = timedelta(minutes=1)
"""How long what is known of the pool, of accounts and of the plan is relied on: their owner may change them meanwhile."""
LONGEST_ABSENCE = timedelta(minutes=10)
"""Time that a step makes up for at most, such as after the machine has slept."""
DAY = timedelta(days=1)
STAGED_FOR = timedelta(days=30)
"""How long it is remembered what lies in the staging channel."""
_SLACK = timedelta(minutes=5)


@dataclass(eq=False)
class Line:
    """An account that is connected, and the channels that it listens to, by Telegram's number."""

    account: Account
    client: Client
    channels: dict[int, Followed] = field(default_factory=dict)
    rest: tuple[datetime, timedelta] | None = None
    """Since when Telegram has it wait, and how long."""
    news: bool = False
    """A channel that it isn't listening to has changed: it may have been let in."""
    staging: ChannelRef | None = None
    """The channel into which posts are forwarded for the bot; None when it may not."""
    forwarded: datetime | None = None
    """When posts were forwarded last."""


@dataclass(eq=False)
class Hub:
    """What is connected now. All that must outlive a restart is in the database."""

    engine: sa.Engine
    params: HubParams
    telegram: TelegramParams
    joining: JoiningParams
    rng: np.random.Generator
    data: Path
    """The data folder, which may have a model of categories of its own."""
    staging: int | None = None
    """Telegram's number of the channel into which posts are forwarded for the bot."""
    lines: dict[int, Line] = field(default_factory=dict)
    """By the account's key."""
    failed: dict[int, datetime] = field(default_factory=dict)
    """When an account's line was lost last."""
    looked: datetime | None = None
    """When accounts and channels were last read."""
    tidied: datetime | None = None
    next_join: datetime | None = None
    own: Kept = field(default_factory=Kept)
    stepped: datetime | None = None


async def step(hub: Hub, now: datetime) -> None:
    """Do all that is due. Raises DatabaseError, SettingsError."""
    if _is_due(hub.looked, now, LOOK_AGAIN):
        await _look_again(hub, now)
    if _is_due(hub.tidied, now, DAY):
        _tidy(hub, now)
    await _store(hub, now)
    await _join(hub, now)
    sweeps = _sweeps(hub, now)
    await asyncio.gather(*(_sweep_some(hub, line, sweeps, now) for line in list(hub.lines.values())))
    await asyncio.gather(*(_forward_some(hub, line, now) for line in list(hub.lines.values())))
    hub.stepped = now


async def close(hub: Hub, now: datetime) -> None:
    """Store what was heard, and hang up."""
    try:
        await _store(hub, now, closing=True)
    except DatabaseError as error:
        log.warning("what was heard last is asked for again at the next start: %s", error)
    for line in list(hub.lines.values()):
        await _hang_up(hub, line)


def _is_due(last: datetime | None, now: datetime, every: timedelta) -> bool:
    """Whether it is time again; a clock that was set back is no reason to wait longer."""
    return last is None or abs(now - last) >= every


# Accounts


async def _look_again(hub: Hub, now: datetime) -> None:
    """Connect who isn't, hang up who shouldn't be, and listen to what the owner wants now."""
    joins.set_back(hub.engine, now)
    with reading(hub.engine) as connection:
        active = {one.key: one for one in accounts.list_accounts(connection, ["active"])}
    for line in list(hub.lines.values()):
        if line.account.key not in active or not line.client.is_connected:
            await _hang_up(hub, line)
    for account in active.values():
        if account.key not in hub.lines and _is_due(hub.failed.get(account.key), now, _retry(hub)):
            await _connect(hub, account, now)
    await _leave_some(hub, now)
    _read_channels(hub, now)
    hub.own = own_categories.look(hub.data, hub.own)
    hub.looked, hub.next_join = now, None


async def _connect(hub: Hub, account: Account, now: datetime) -> None:
    api = hub.telegram
    with reading(hub.engine) as connection:
        session = accounts.session(connection, account.key, api)
    if session is None or api.api_id is None or api.api_hash is None:
        log.warning("%s can't listen: log it in again, with [telegram] api_id and api_hash set", account.name)
        return
    try:
        client = await telegram.connect(session, api.api_id, api.api_hash, lambda one: _hear(hub, account.key, one))
    except TelegramUnreachable as error:
        hub.failed[account.key] = now
        log.warning("%s: %s", account.name, error)
        return
    hub.lines[account.key] = line = Line(account, client)
    if await _asked(hub, line, _introduce(hub, line, session), now):
        log.info("%s listens", account.name)


def _retry(hub: Hub) -> timedelta:
    return timedelta(minutes=hub.params.retry_minutes)


async def _introduce(hub: Hub, line: Line, session: str) -> None:
    """Learn what Telegram says of the account, and keep its session where that has changed."""
    profile = await line.client.profile()
    dialogs = await line.client.dialogs()
    line.staging = next((one.ref for one in dialogs if one.ref.id == hub.staging and one.may_post), None)
    with writing(hub.engine) as connection:
        ours = memberships.telegram_ids(connection, line.account.key)
        accounts.describe(
            connection,
            line.account.key,
            premium=profile.premium,
            channel_limit=profile.channel_limit,
            other_channels=sum(one.ref.id not in ours for one in dialogs),
        )
        if line.client.session() != session:
            accounts.keep_session(connection, line.account.key, line.client.session(), hub.telegram)


async def _hang_up(hub: Hub, line: Line) -> None:
    hub.lines.pop(line.account.key, None)
    await line.client.close()


async def _asked(
    hub: Hub, line: Line, question: Awaitable[object], now: datetime, channel: Followed | None = None
) -> bool:
    """Whether Telegram answered. What it refuses has its consequences: for the account, or for the channel."""
    try:
        await question
        return True
    except SourceError as error:
        await _take_refusal(hub, line, error, now, channel)
        return False


async def _take_refusal(hub: Hub, line: Line, error: SourceError, now: datetime, channel: Followed | None) -> None:
    said = telegram_refusals.outcome(error)
    log.info("%s: %s", line.account.name if channel is None else channel.name.title, error)
    if isinstance(said, joining.Wait):
        line.rest = (now, timedelta(seconds=said.seconds))
        with writing(hub.engine) as connection:
            accounts.record_flood(connection, line.account.key, now + line.rest[1])
    elif isinstance(said, joining.Frozen | joining.Banned | joining.LoggedOut):
        await _lose(hub, line, said, now)
    elif isinstance(error, TelegramUnreachable):
        hub.failed[line.account.key] = now
        await _hang_up(hub, line)
    elif channel is not None:
        _lose_channel(hub, line, channel, said, now)


async def _lose(hub: Hub, line: Line, said: Outcome, now: datetime) -> None:
    """The account is lost: its channels go to others."""
    then = joining.consequence(said, 0, hub.joining, now)
    assert then.account is not None, "only an account that is lost is given up"
    with writing(hub.engine) as connection:
        joins.lose(connection, line.account.key, then.account, getattr(said, "error", None), now)
    await _hang_up(hub, line)
    hub.next_join = None


def _lose_channel(hub: Hub, line: Line, channel: Followed, said: Outcome, now: datetime) -> None:
    """The channel can't be read for now, or (Private) no more."""
    reason = getattr(said, "error", str(said))
    with writing(hub.engine) as connection:
        subscriptions.note_heard(connection, channel.source_key, now, reason)
        if isinstance(said, joining.Private):
            memberships.leave(connection, channel.key, channel.account)
            channels.set_state(connection, channel.key, "failed", error=reason)
    if isinstance(said, joining.Private):
        line.channels.pop(channel.ref.id, None)


def _tidy(hub: Hub, now: datetime) -> None:
    """Once a day: forget what leads nowhere."""
    with writing(hub.engine) as connection:
        channels.prune_candidates(connection)
        joins.give_up(connection, hub.joining, now)
        staging.expire(connection, now - DAY)
        staging.prune(connection, now - STAGED_FOR)
    hub.tidied = now


# Listening


def _hear(hub: Hub, account: int, change: Change) -> None:
    """Take note of what Telegram tells an account unasked."""
    line = hub.lines.get(account)
    channel = line.channels.get(change.channel) if line else None
    if channel is not None:
        hearing.hear(channel, change, hub.stepped or channel.next_sweep)
    elif line is not None and change.moved:
        line.news = True


async def _store(hub: Hub, now: datetime, closing: bool = False) -> None:
    """Store what was heard of all channels of which nothing more is awaited."""
    for line in list(hub.lines.values()):
        pause = 0.0 if closing else hub.params.album_seconds
        ready = [(line.client, one) for one in line.channels.values() if hearing.is_ready(one, now, pause)]
        if ready and not _rests(line, now):
            await _asked(hub, line, hearing.store(hub.engine, ready, now, hub.telegram.keep_text, hub.own.model), now)


def _rests(line: Line, now: datetime) -> bool:
    """Whether Telegram has the account wait; when the clock was set back the whole wait begins anew."""
    if line.rest is None:
        return False
    since, length = line.rest
    line.rest = (min(since, now), length)
    return now - line.rest[0] < length


def _read_channels(hub: Hub, now: datetime) -> None:
    """Listen to those channels of each account that its owner wants listened to, and to no others."""
    with reading(hub.engine) as connection:
        wanted = memberships.to_follow(connection)
        for account, line in hub.lines.items():
            before = {one.key: one for one in line.channels.values()}
            keys = sorted(wanted.get(account, ()))
            followed = [before.get(key) or _followed(connection, account, key, now) for key in keys]
            line.channels = {one.ref.id: one for one in followed}


def _followed(connection: sa.Connection, account: int, key: int, now: datetime) -> Followed:
    channel = channels.get(connection, key)
    [member] = memberships.list_memberships(connection, account=account, channel=key)
    assert channel.telegram_id is not None, "a channel that was joined has a number"
    assert channel.source is not None, "… and a source"
    return Followed(
        key=channel.key,
        account=member.account,
        ref=ChannelRef(channel.telegram_id, member.access_hash or 0),
        name=ChannelName(channel.telegram_id, channel.title or "", channel.username),
        source=subscriptions.of_key(connection, channel.source).id,
        source_key=channel.source,
        labels=(channel.category,) if channel.category else (),
        reached=member.pts,
        next_sweep=now,
        muted=member.muted,
    )


async def _leave_some(hub: Hub, now: datetime) -> None:
    """Each account leaves one of the channels that the owner wants no more; the next follows with the next look."""
    with reading(hub.engine) as connection:
        unwanted = memberships.to_leave(connection)
    for account, keys in unwanted.items():
        line = hub.lines.get(account)
        if line is not None and not _rests(line, now):
            await _asked(hub, line, _leave(hub, line, min(keys)), now)


async def _leave(hub: Hub, line: Line, key: int) -> None:
    with reading(hub.engine) as connection:
        channel = channels.get(connection, key)
        [member] = memberships.list_memberships(connection, account=line.account.key, channel=key)
    assert channel.telegram_id is not None, "a channel that was joined has a number"
    await line.client.leave(ChannelRef(channel.telegram_id, member.access_hash or 0))
    with writing(hub.engine) as connection:
        memberships.leave(connection, key, line.account.key)


# Joining


async def _join(hub: Hub, now: datetime) -> None:
    """Join the channel that the plan says, if it says one."""
    if hub.next_join is not None and now < hub.next_join:
        return
    reachable = {account for account, line in hub.lines.items() if not _rests(line, now)}
    with reading(hub.engine) as connection:
        action = joins.next_action(connection, hub.joining, now, reachable)
    if not isinstance(action, Join):
        hub.next_join = min(action.until or now + LOOK_AGAIN, now + LOOK_AGAIN)
        return
    line = hub.lines[action.account]
    with writing(hub.engine) as connection:
        channel = channels.get(connection, action.channel)
        attempt = joins.begin(connection, action, hub.joining, now, hub.rng)
    outcome = await _try_to_join(hub, line, channel)
    with writing(hub.engine) as connection:
        settled = joins.settle(connection, attempt, outcome, hub.joining, now)
        if settled.joined and isinstance(outcome, Joined):
            _give_source(connection, channels.get(connection, settled.channel), now)
    if joining.consequence(outcome, 0, hub.joining, now).account is not None:
        await _hang_up(hub, line)
    elif settled.joined:
        _read_channels(hub, now)


async def _try_to_join(hub: Hub, line: Line, channel: Channel) -> Outcome:
    try:
        return _inside(Joined, await _enter(hub, line, channel))
    except SourceError as error:
        return telegram_refusals.outcome(error)


async def _enter(hub: Hub, line: Line, channel: Channel) -> Found:
    """Enter by what is known of the channel: its number from before, its invitation, or its name, which is looked up once."""
    with reading(hub.engine) as connection:
        knows = memberships.list_memberships(connection, account=line.account.key, channel=channel.key, joined=False)
    if channel.telegram_id is not None and knows and knows[0].access_hash is not None and channel.username is not None:
        return await line.client.join(ChannelRef(channel.telegram_id, knows[0].access_hash))
    if channel.invite is not None:
        return await line.client.join_invite(channel.invite)
    assert channel.username is not None, "the plan says only channels that can be reached"
    found = await line.client.resolve(channel.username)
    with writing(hub.engine) as connection:
        key = channels.identify(connection, channel.key, found.name.id, found.name.username, found.name.title)
        memberships.learn(connection, key, line.account.key, found.ref.access_hash)
    return await line.client.join(found.ref)


def _inside(how: type[Joined] | type[AlreadyIn], found: Found) -> Joined | AlreadyIn:
    name = found.name
    return how(name.id, found.ref.access_hash, plain_line(name.title, MAX_TITLE), name.username)


def _give_source(connection: sa.Connection, channel: Channel, now: datetime) -> None:
    """The source of a channel's items: the one it had, else one by its address that is no other channel's."""
    if channel.source is not None:
        return
    addresses = [f"https://t.me/{channel.username}"] if channel.username else []
    taken = {one.source for one in channels.list_channels(connection)}
    for address in (*addresses, f"tg:{channel.telegram_id}"):
        source = subscriptions.add(connection, "telegram", address, now, title=channel.title)
        if source.key not in taken:
            channels.set_source(connection, channel.key, source.key)
            return


async def _let_in(hub: Hub, line: Line, now: datetime) -> None:
    """See whether we were let into a channel whose owner we had asked."""
    line.news = False
    with reading(hub.engine) as connection:
        requested = channels.list_channels(connection, ["requested"])
    for channel in requested:
        found = await line.client.invited(channel.invite) if channel.invite is not None else None
        if found is not None:
            with writing(hub.engine) as connection:
                key = joins.let_in(connection, channel.key, line.account.key, _inside(AlreadyIn, found), now)
                _give_source(connection, channels.get(connection, key), now)
            _read_channels(hub, now)


# Sweeping


def _sweeps(hub: Hub, now: datetime) -> int:
    """How many sweeps each account may make now: one, or what the time since the last step allows."""
    passed = min(now - hub.stepped, LONGEST_ABSENCE) if hub.stepped is not None else timedelta(0)
    return max(int(passed.total_seconds() / hub.params.sweep_pause), 1)


async def _sweep_some(hub: Hub, line: Line, number: int, now: datetime) -> None:
    """Ask for the channels whose time has come, those first that have a gap."""
    if _rests(line, now):
        return
    if line.news and not await _asked(hub, line, _let_in(hub, line, now), now):
        return
    due = [one for one in line.channels.values() if _is_to_be_swept(hub, one, now)]
    for channel in sorted(due, key=lambda one: (not one.is_behind, one.next_sweep))[:number]:
        channel.next_sweep = now + _next_interval(hub)
        if not await _asked(hub, line, _sweep(hub, line, channel, now), now, channel):
            channel.failed = now
            if hub.lines.get(line.account.key) is not line or _rests(line, now):
                return


def _is_to_be_swept(hub: Hub, channel: Followed, now: datetime) -> bool:
    """Its time has come, or is further away than it can be since the clock was set back; one that failed waits a moment."""
    longest = now + timedelta(minutes=hub.params.longest_sweep) + _SLACK
    wanted = channel.is_behind or not now < channel.next_sweep <= longest
    return wanted and _is_due(channel.failed, now, _retry(hub))


def _next_interval(hub: Hub) -> timedelta:
    shortest, longest = hub.params.shortest_sweep, hub.params.longest_sweep
    return timedelta(minutes=float(hub.rng.uniform(min(shortest, longest), longest)))


async def _sweep(hub: Hub, line: Line, channel: Followed, now: datetime) -> None:
    await sweeping.mute(hub.engine, line.client, channel)
    await sweeping.catch_up(hub.engine, line.client, channel, timedelta(days=hub.params.history_days), now)
    if _is_due(channel.counted, now, timedelta(hours=hub.params.counter_hours)):
        await sweeping.count(hub.engine, line.client, channel, timedelta(days=hub.params.history_days), now)
    channel.swept = now
    if not channel.waiting:
        with writing(hub.engine) as connection:
            hearing.note_swept(connection, channel, now)


# Forwarding


async def _forward_some(hub: Hub, line: Line, now: datetime) -> None:
    """Forward posts that the bot wants to copy, when it is time."""
    pause = timedelta(seconds=hub.params.forward_pause)
    if line.staging is None or _rests(line, now) or not _is_due(line.forwarded, now, pause):
        return
    line.forwarded = now
    if not await _asked(
        hub, line, forwarding.forward_some(hub.engine, line.client, line.staging, line.channels, now), now
    ):
        line.forwarded = now + _retry(hub)
