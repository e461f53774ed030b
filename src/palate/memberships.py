"""Which account is in which channel, and the log of attempts to join, by which limits are kept over restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from palate import database, identities, telegram_tables
from palate.domain import from_milliseconds, to_milliseconds

_TABLE = telegram_tables.memberships
_ATTEMPTS = telegram_tables.join_attempts
_MAX_ERROR = 500


@dataclass(frozen=True)
class Membership:
    """What an account knows of a channel. None means unknown, or never."""

    channel: int
    account: int
    access_hash: int | None
    """With which this account, and no other, may name the channel to Telegram."""
    joined: datetime | None
    """None: it isn't in the channel, but may have looked it up."""
    muted: bool
    pts: int | None
    """Up to where it has seen the channel's updates."""
    last_sweep: datetime | None


@dataclass(frozen=True)
class Attempt:
    """One attempt to join, as it is logged. None means: we died before we knew."""

    key: int
    time: datetime
    account: int
    channel: int
    resolves: bool
    """Whether a name had to be looked up, of which Telegram allows few a day."""
    pause: float
    """Seconds from `time` before which this account doesn't try again."""
    outcome: str | None
    """A name of `sources.joining`'s outcomes."""
    ended: datetime | None
    wait: float | None
    """Seconds that Telegram asked for; None when it didn't."""
    error: str | None


def learn(connection: sa.Connection, channel: int, account: int, access_hash: int | None) -> None:
    """Remember how an account may name a channel: looked up once, it is good for ever."""
    row = {"channel": channel, "account": account, "access_hash": access_hash, "muted": 0}
    insert = identities.insert_new(connection, _TABLE).values(row)
    known = sa.func.coalesce(insert.excluded.access_hash, _TABLE.c.access_hash)
    connection.execute(insert.on_conflict_do_update(index_elements=["channel", "account"], set_={"access_hash": known}))


def join(connection: sa.Connection, channel: int, account: int, access_hash: int | None, now: datetime) -> None:
    """The account is in the channel, since now when it wasn't."""
    learn(connection, channel, account, access_hash)
    outside = _row(channel, account).where(_TABLE.c.joined.is_(None))
    connection.execute(outside.values(joined=to_milliseconds(now), muted=0))


def leave(connection: sa.Connection, channel: int, account: int) -> None:
    """The account is in the channel no more; what it knows of it stays."""
    connection.execute(_row(channel, account).values(joined=None, pts=None, last_sweep=None, muted=0))


def set_muted(connection: sa.Connection, channel: int, account: int) -> None:
    """The channel doesn't ring on the account any more."""
    connection.execute(_row(channel, account).values(muted=1))


def set_pts(connection: sa.Connection, channel: int, account: int, pts: int) -> None:
    """The account has seen the channel's updates up to here."""
    connection.execute(_row(channel, account).values(pts=pts))


def record_sweep(connection: sa.Connection, channel: int, account: int, now: datetime) -> None:
    """The account has just looked for posts that no update had told it of."""
    connection.execute(_row(channel, account).values(last_sweep=to_milliseconds(now)))


def list_memberships(
    connection: sa.Connection, *, account: int | None = None, channel: int | None = None, joined: bool = True
) -> list[Membership]:
    """Who is in what, in the order of channels; with `joined` false also of channels that were only looked up."""
    query = sa.select(_TABLE).order_by(_TABLE.c.channel, _TABLE.c.account)
    if account is not None:
        query = query.where(_TABLE.c.account == account)
    if channel is not None:
        query = query.where(_TABLE.c.channel == channel)
    if joined:
        query = query.where(_TABLE.c.joined.is_not(None))
    return [_membership(row) for row in connection.execute(query)]


def to_follow(connection: sa.Connection) -> dict[int, set[int]]:
    """Channels that are to be listened to, by the account that is in them: those whose owner has paused neither them nor their
    source."""
    sources = database.sources
    kept = (
        _inside("joined")
        .join(sources, sources.c.key == telegram_tables.channels.c.source)
        .where(sources.c.status == "active")
    )
    return _by_account(connection, kept)


def to_leave(connection: sa.Connection) -> dict[int, set[int]]:
    """Channels that their owner wants no more, by the account that is still in them."""
    return _by_account(connection, _inside("left"))


def telegram_ids(connection: sa.Connection, account: int) -> set[int]:
    """Telegram's own ids of the channels that an account is in for us."""
    channels = telegram_tables.channels
    query = sa.select(channels.c.telegram_id).join(_TABLE, _TABLE.c.channel == channels.c.key)
    found = connection.scalars(query.where(_TABLE.c.account == account, _TABLE.c.joined.is_not(None)))
    return {id for id in found if id is not None}


def _inside(state: str) -> sa.Select[tuple[int, int]]:
    channels = telegram_tables.channels
    query = sa.select(_TABLE.c.account, _TABLE.c.channel).join(channels, channels.c.key == _TABLE.c.channel)
    return query.where(_TABLE.c.joined.is_not(None), channels.c.state == state, channels.c.telegram_id.is_not(None))


def _by_account(connection: sa.Connection, query: sa.Select[tuple[int, int]]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for row in connection.execute(query):
        found.setdefault(row.account, set()).add(row.channel)
    return found


def list_known(connection: sa.Connection, channels: Sequence[int]) -> list[tuple[int, int]]:
    """Account and channel, of these channels, wherever the one can name the other without looking it up."""
    query = sa.select(_TABLE.c.account, _TABLE.c.channel).where(_TABLE.c.access_hash.is_not(None))
    chunks = (query.where(_TABLE.c.channel.in_(chunk)) for chunk in identities.chunks(channels))
    return [(row[0], row[1]) for chunk in chunks for row in connection.execute(chunk)]


def count_joined(connection: sa.Connection) -> dict[int, int]:
    """Channels that each account is in, by the account's key."""
    query = sa.select(_TABLE.c.account, sa.func.count()).where(_TABLE.c.joined.is_not(None))
    return {row[0]: row[1] for row in connection.execute(query.group_by(_TABLE.c.account))}


def release(connection: sa.Connection, account: int) -> list[int]:
    """Take a lost account out of all its channels; gives the keys of those that nobody is in now."""
    left = [one.channel for one in list_memberships(connection, account=account)]
    connection.execute(sa.update(_TABLE).where(_TABLE.c.account == account).values(joined=None, pts=None))
    still = sa.select(_TABLE.c.channel).where(_TABLE.c.joined.is_not(None))
    others = set(connection.execute(still).scalars())
    return [channel for channel in left if channel not in others]


def begin_attempt(
    connection: sa.Connection, account: int, channel: int, *, resolves: bool, pause: float, now: datetime
) -> int:
    """Log an attempt before Telegram is asked, so that it counts even if we die meanwhile. Gives its key."""
    row = {
        "time": to_milliseconds(now),
        "account": account,
        "channel": channel,
        "resolves": int(resolves),
        "pause": pause,
    }
    done = connection.execute(sa.insert(_ATTEMPTS).values(row))
    assert done.inserted_primary_key is not None, "an insert of one row gives its key"
    return int(done.inserted_primary_key[0])


def end_attempt(
    connection: sa.Connection,
    key: int,
    outcome: str,
    now: datetime,
    *,
    wait: float | None = None,
    error: str | None = None,
) -> None:
    """Log what became of it."""
    said = {"outcome": outcome, "ended": to_milliseconds(now), "wait": wait}
    ended = sa.update(_ATTEMPTS).where(_ATTEMPTS.c.key == key)
    connection.execute(ended.values(**said, error=error[:_MAX_ERROR] if error else None))


def is_ahead(connection: sa.Connection, now: datetime) -> bool:
    """Whether the log tells of attempts that are still to come."""
    query = sa.select(_ATTEMPTS.c.key).where(_ATTEMPTS.c.time > to_milliseconds(now)).limit(1)
    return connection.execute(query).first() is not None


def set_back(connection: sa.Connection, now: datetime) -> None:
    """What was logged as of a time to come was done before now: it counts as done just now."""
    time = to_milliseconds(now)
    ended = sa.case((_ATTEMPTS.c.ended.is_not(None), time))
    connection.execute(sa.update(_ATTEMPTS).where(_ATTEMPTS.c.time > time).values(time=time, ended=ended))


def get_attempt(connection: sa.Connection, key: int) -> Attempt:
    """One attempt by its key."""
    row = connection.execute(sa.select(_ATTEMPTS).where(_ATTEMPTS.c.key == key)).one()
    return _attempt(row)


def list_attempts(
    connection: sa.Connection, since: datetime, *, account: int | None = None, channel: int | None = None
) -> list[Attempt]:
    """What was tried since then, in order."""
    query = sa.select(_ATTEMPTS).where(_ATTEMPTS.c.time >= to_milliseconds(since)).order_by(_ATTEMPTS.c.key)
    if account is not None:
        query = query.where(_ATTEMPTS.c.account == account)
    if channel is not None:
        query = query.where(_ATTEMPTS.c.channel == channel)
    return [_attempt(row) for row in connection.execute(query)]


def list_effective(
    connection: sa.Connection, now: datetime, since: datetime, recent: timedelta, lasting: Sequence[str]
) -> list[Attempt]:
    """Of the attempts since then those that were `recent`ly made, whose pause lasts, or whose outcome is `lasting`; in order."""
    time = to_milliseconds(now)
    counts = sa.or_(
        _ATTEMPTS.c.time >= to_milliseconds(now - recent),
        _ATTEMPTS.c.outcome.in_(lasting),
        _ATTEMPTS.c.time + _ATTEMPTS.c.pause * 1000 > time,
    )
    query = sa.select(_ATTEMPTS).where(_ATTEMPTS.c.time >= to_milliseconds(since), counts).order_by(_ATTEMPTS.c.key)
    return [_attempt(row) for row in connection.execute(query)]


def list_unknown(connection: sa.Connection) -> dict[int, int]:
    """Channels whose last attempt has no outcome, with the account that made it."""
    last = sa.select(sa.func.max(_ATTEMPTS.c.key)).group_by(_ATTEMPTS.c.channel)
    query = sa.select(_ATTEMPTS.c.channel, _ATTEMPTS.c.account)
    query = query.where(_ATTEMPTS.c.key.in_(last), _ATTEMPTS.c.outcome.is_(None))
    return {row[0]: row[1] for row in connection.execute(query)}


def count_attempts(connection: sa.Connection) -> dict[int, int]:
    """Attempts that each account ever made, by its key."""
    query = sa.select(_ATTEMPTS.c.account, sa.func.count()).group_by(_ATTEMPTS.c.account)
    return {row[0]: row[1] for row in connection.execute(query)}


def count_outcomes(connection: sa.Connection) -> dict[str, int]:
    """Attempts by what became of them; `unknown` where we died before we knew."""
    outcome = sa.func.coalesce(_ATTEMPTS.c.outcome, "unknown")
    query = sa.select(outcome, sa.func.count()).group_by(outcome)
    return {row[0]: row[1] for row in connection.execute(query)}


def waited(connection: sa.Connection) -> float:
    """Seconds that Telegram has asked for in all attempts together."""
    return float(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(_ATTEMPTS.c.wait), 0.0))).scalar_one())


def _row(channel: int, account: int) -> sa.Update:
    return sa.update(_TABLE).where(_TABLE.c.channel == channel, _TABLE.c.account == account)


def _membership(row: sa.Row[Any]) -> Membership:
    times = {name: _time(getattr(row, name)) for name in ("joined", "last_sweep")}
    return Membership(**(dict(row._mapping) | times | {"muted": bool(row.muted)}))


def _attempt(row: sa.Row[Any]) -> Attempt:
    times = {"time": from_milliseconds(row.time), "ended": _time(row.ended), "resolves": bool(row.resolves)}
    return Attempt(**(dict(row._mapping) | times))


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_milliseconds(milliseconds)
