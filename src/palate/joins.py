"""The plan of joins on this installation's tables: what to join next, what came of it, and what happens to channels and accounts.

The rules are `sources/joining.py`'s. Who joins asks `next_action`, logs with `begin`, asks Telegram, and gives the outcome to
`settle`; whoever dies in between goes on from the log.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sa

from palate import accounts, alerts, channels, memberships
from palate.accounts import Account
from palate.channels import Channel
from palate.database import reading, writing
from palate.memberships import Attempt
from palate.sources import joining
from palate.sources.joining import Idle, Inside, Join, Joiner, JoiningParams, Outcome, Target, Try

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

LOOKED_AT = 20
"""Wanted channels among which the next one is looked for."""
LostState = Literal["frozen", "banned", "logged_out", "removed"]


@dataclass(frozen=True)
class Settled:
    """What an attempt has led to."""

    channel: int
    """Key of the channel: another one when it turned out to be in the pool already."""
    joined: bool
    moved: int
    """Channels that wait for another account, since this one is lost."""


@dataclass(frozen=True)
class PlannedJoin:
    """A join that the plan foresees, and what holds it back until then."""

    time: datetime
    account: str
    channel: Channel
    reason: str


def next_action(
    connection: sa.Connection, params: JoiningParams, now: datetime, reachable: Container[int] | None = None
) -> Join | Idle:
    """What may be joined now, or until when nothing may. `reachable`: keys of the accounts that are connected; None: all are."""
    targets = _targets(connection, now, LOOKED_AT)
    joiners = _joiners(connection, params, now, targets)
    if reachable is not None:
        joiners = [replace(one, reachable=one.key in reachable) for one in joiners]
    return joining.next_action(joiners, targets, params, now)


def begin(
    connection: sa.Connection, action: Join, params: JoiningParams, now: datetime, rng: np.random.Generator
) -> int:
    """Log an attempt before Telegram is asked, with the pause that comes after it. Gives its key, for `settle`."""
    ever = memberships.count_attempts(connection).get(action.account, 0)
    return memberships.begin_attempt(
        connection,
        action.account,
        action.channel,
        resolves=action.resolves,
        pause=joining.draw_pause(ever, params, rng),
        now=now,
    )


def settle(connection: sa.Connection, attempt: int, outcome: Outcome, params: JoiningParams, now: datetime) -> Settled:
    """Log what came of an attempt, and let it have its consequences: for the channel, the account, and its other channels."""
    tried = memberships.get_attempt(connection, attempt)
    channel = channels.get(connection, tried.channel)
    then = joining.consequence(outcome, channel.failures, params, now)
    name, error = joining.NAMES[type(outcome)], getattr(outcome, "error", None)
    memberships.end_attempt(
        connection, attempt, name, now, wait=outcome.seconds if isinstance(outcome, joining.Wait) else None, error=error
    )
    key = channel.key
    if isinstance(outcome, Inside):
        key = _take_in(connection, channel, tried.account, outcome, now)
    elif isinstance(outcome, joining.Requested) and outcome.telegram_id is not None:
        key = channels.identify(connection, key, outcome.telegram_id)
        memberships.learn(connection, key, tried.account, outcome.access_hash)
    if channel.state in ("wanted", "requested"):  # else its owner has decided otherwise meanwhile
        channels.set_state(
            connection,
            key,
            then.channel,
            error=then.error,
            urgent=channel.urgent and then.channel == "wanted",
            next_try=then.next_try,
            failures=then.failures,
        )
    moved = lose(connection, tried.account, then.account, error, now) if then.account else 0
    log.info("%s: %s", channel.name, name if error is None else f"{name}, {error}")
    return Settled(key, isinstance(outcome, Inside), moved)


def let_in(connection: sa.Connection, channel: int, account: int, found: Inside, now: datetime) -> int:
    """A channel's owner has let an account in that had asked, or its owner has joined by hand. Gives the channel's key."""
    key = _take_in(connection, channels.get(connection, channel), account, found, now)
    if channels.get(connection, key).state not in ("paused", "left"):
        channels.set_state(connection, key, "joined")
    return key


def _take_in(connection: sa.Connection, channel: Channel, account: int, found: Inside, now: datetime) -> int:
    key = channels.identify(connection, channel.key, found.telegram_id, found.username, found.title)
    memberships.join(connection, key, account, found.access_hash, now)
    return key


def lose(connection: sa.Connection, account: int, state: LostState, error: str | None, now: datetime) -> int:
    """An account is frozen, banned, logged out or removed: its channels go to others, and an alert says so.

    The channels of one that is only logged out stay with it: it is in them still, and goes on after its next login. Gives the
    number of channels that are to be joined anew.
    """
    name = accounts.of_key(connection, account).name
    if state != "removed":
        accounts.set_state(connection, account, state, error)
    moved = _give_back(connection, account) if state != "logged_out" else []
    alerts.end_all_of(connection, name, now)
    if state == "logged_out":
        said = f"The account {name} was logged out: `palate accounts login {name}`, or remove it to move its channels."
        alerts.start(connection, "account_logged_out", name, said, now)
    elif state != "removed":
        said = f"The account {name} is {state}: its {len(moved)} channels are moving to other accounts."
        alerts.start(connection, f"account_{state}", name, said, now)
    return len(moved)


def set_back(engine: sa.Engine, now: datetime) -> None:
    """When the clock was ahead, and what was done then lies in the future: let it count as done just now.

    So no limit is broken, and nothing waits for longer than if it had been.
    """
    with reading(engine) as connection:
        if not (memberships.is_ahead(connection, now) or accounts.is_ahead(connection, now)):
            return
    with writing(engine) as connection:
        memberships.set_back(connection, now)
        accounts.set_back(connection, now)
        channels.set_back(connection, now + joining.LONGEST_BACKOFF)
    log.warning("The clock was set back: joins and logins of times to come count as of now")


def give_up(connection: sa.Connection, params: JoiningParams, now: datetime) -> int:
    """Channels whose owners haven't let us in for long have failed. Gives how many."""
    given = 0
    for channel in channels.list_channels(connection, ["requested"]):
        attempts = memberships.list_attempts(connection, channel.created, channel=channel.key)
        asked = max((one.time for one in attempts if one.outcome == "requested"), default=channel.created)
        if now - asked > timedelta(days=params.request_days):
            reason = f"Its owner was asked on {asked:%Y-%m-%d} to let us in, and hasn't answered."
            channels.set_state(connection, channel.key, "failed", error=reason)
            given += 1
    return given


def remove(connection: sa.Connection, name: str, now: datetime) -> int:
    """Forget an account; gives the number of channels that are to be joined anew by others. Raises NotFound."""
    account = accounts.remove(connection, name)
    return lose(connection, account.key, "removed", None, now)


def _give_back(connection: sa.Connection, account: int) -> list[int]:
    """Channels that only this account was in, or had asked to be let into, are wanted again, before all others."""
    asked = [
        one for one in memberships.list_memberships(connection, account=account, joined=False) if one.joined is None
    ]
    left = memberships.release(connection, account)
    for key in left:
        if channels.get(connection, key).state == "joined":
            channels.set_state(connection, key, "wanted", urgent=True)
    requested = {one.key for one in channels.list_channels(connection, ["requested"])}
    for key in (one.channel for one in asked if one.channel in requested):
        channels.set_state(connection, key, "wanted")
    return left


def plan(connection: sa.Connection, params: JoiningParams, now: datetime, limit: int = 1000) -> list[PlannedJoin]:
    """The next joins if every one succeeds, at most `limit`, with what holds each back until then."""
    targets = _targets(connection, now, None)
    joiners = _joiners(connection, params, now, targets)
    names = {one.key: one.name for one in joiners}
    planned = joining.plan(joiners, targets, params, now, limit)
    wanted = {one.key: one for one in channels.list_channels(connection, ["wanted"])}
    return [PlannedJoin(one.time, names[one.account], wanted[one.channel], one.reason) for one in planned]


def why_idle(connection: sa.Connection, params: JoiningParams, now: datetime) -> dict[str, str]:
    """Each account's name with when and why it joins next, in words."""
    ready = {one.name: joining.ready_at(one, False, params, now) for one in _joiners(connection, params, now, ())}
    return {
        name: one.reason
        if one.time is None or one.time <= now
        else f"{one.reason}, until {one.time:%Y-%m-%d %H:%M} UTC"
        for name, one in ready.items()
    }


def _joiners(
    connection: sa.Connection, params: JoiningParams, now: datetime, targets: Sequence[Target]
) -> list[Joiner]:
    since = now - timedelta(days=max(params.careful_days, params.full_days, 7.0) + 1)
    tries: dict[int, list[Try]] = {}
    for attempt in memberships.list_effective(connection, now, since, 2 * joining.DAY, joining.LASTING):
        tries.setdefault(attempt.account, []).append(_try(attempt))
    joined, ever = memberships.count_joined(connection), memberships.count_attempts(connection)
    knows: dict[int, set[int]] = {}
    for account, channel in memberships.list_known(connection, [one.key for one in targets]):
        knows.setdefault(account, set()).add(channel)
    return [
        _joiner(one, joined.get(one.key, 0), tries.get(one.key, []), ever.get(one.key, 0), knows.get(one.key, set()))
        for one in accounts.list_accounts(connection)
    ]


def _joiner(account: Account, joined: int, tries: list[Try], ever: int, knows: set[int]) -> Joiner:
    return Joiner(
        key=account.key,
        name=account.name,
        active=account.state == "active",
        logged_in=account.logged_in,
        premium=account.premium,
        channel_limit=account.channel_limit,
        channels=joined + account.other_channels,
        flood_until=account.flood_until,
        tries=tuple(tries),
        tries_ever=ever,
        knows=frozenset(knows),
    )


_TICK = timedelta(milliseconds=1)


def _try(attempt: Attempt) -> Try:
    """Times are stored without what is beyond the millisecond: a limit that counts from them must not end too early."""
    ended = None if attempt.ended is None else attempt.ended + _TICK
    return Try(attempt.time + _TICK, attempt.pause, attempt.resolves, attempt.outcome, ended, attempt.wait)


def _targets(connection: sa.Connection, now: datetime, limit: int | None) -> list[Target]:
    begun = memberships.list_unknown(connection)
    return [
        Target(
            key=one.key,
            name=one.name,
            by_name=one.username is not None,
            by_invite=one.invite is not None,
            next_try=one.next_try,
            begun_by=begun.get(one.key),
        )
        for one in channels.list_wanted(connection, now, limit)
    ]
