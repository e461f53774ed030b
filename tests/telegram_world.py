"""A scripted Telegram for tests of the plan of joins, and a referee that knows the limits and nothing of how they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo

import numpy as np

from palate.sources import joining
from palate.sources.joining import Outcome

DAY = timedelta(days=1)
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Asked:
    """One request to join, as Telegram saw it."""

    time: datetime
    account: int
    channel: str
    looked_up: bool
    outcome: Outcome
    heard: bool = True
    """False: who asked died before the answer was stored, or even before it asked."""


@dataclass
class Telegram:
    """What is behind the addresses, what happens to accounts when, and who is in what. Channels: their ids by address."""

    rng: np.random.Generator
    channels: dict[str, Outcome]
    flood_share: float = 0.0
    failure_share: float = 0.0
    fates: dict[int, tuple[datetime, Outcome]] = field(default_factory=dict)
    """What becomes of an account, and from when on; taken away when it is over."""
    inside: dict[int, set[int]] = field(default_factory=dict)
    log: list[Asked] = field(default_factory=list)

    def join(self, account: int, address: str, looked_up: bool, now: datetime) -> Outcome:
        outcome = self._answer(account, address, now)
        if isinstance(outcome, joining.Joined):
            mine = self.inside.setdefault(account, set())
            if outcome.telegram_id in mine:
                outcome = joining.AlreadyIn(outcome.telegram_id, outcome.access_hash)
            mine.add(outcome.telegram_id)
        self.log.append(Asked(now, account, address, looked_up, outcome))
        return outcome

    def unheard(self) -> None:
        """Who asked last has died before it stored the answer."""
        self.log[-1] = replace(self.log[-1], heard=False)

    def _answer(self, account: int, address: str, now: datetime) -> Outcome:
        fate = self.fates.get(account)
        if fate is not None and now >= fate[0]:
            self.inside.pop(account, None)
            return fate[1]
        if self.rng.random() < self.flood_share:
            return joining.Wait(float(np.exp(self.rng.uniform(np.log(5), np.log(200_000)))))
        if self.rng.random() < self.failure_share:
            return joining.Failed("Connection reset.")
        return self.channels[address]


@dataclass(frozen=True)
class Limits:
    """The table of limits, once more and on its own."""

    joins: int = 8
    pause: timedelta = timedelta(minutes=10)
    long_pause: timedelta = timedelta(hours=3)
    zone: tzinfo = UTC
    first: timedelta = timedelta(days=3)
    look_ups: int = 100
    places: int = 490
    slack: float = 2.5
    """How much longer than it must be a pause may be."""


def breaches(log: Sequence[Asked], logged_in: dict[int, datetime], limits: Limits, places: dict[int, int]) -> list[str]:
    """What in the log breaks a limit. `places`: channels that each account may be in, less the reserve."""
    found: list[str] = []
    before: dict[int, list[Asked]] = {account: [] for account in logged_in}
    inside: dict[int, set[int]] = {account: set() for account in logged_in}
    for asked in log:
        mine = before[asked.account]
        found += [f"{asked.time} {asked.account}: {what}" for what in _breached(asked, mine, logged_in, limits)]
        if isinstance(asked.outcome, joining.Inside):
            inside[asked.account].add(asked.outcome.telegram_id)
            if len(inside[asked.account]) > places[asked.account]:
                found.append(f"{asked.time} {asked.account}: too full")
            if not any(one.channel == asked.channel and not one.heard for one in mine):  # begun by it, so it goes on
                found += _fuller_than_others(asked, before, inside, logged_in, limits, places)
        mine.append(asked)
    return found


def _breached(asked: Asked, mine: list[Asked], logged_in: dict[int, datetime], limits: Limits) -> list[str]:
    found = []
    now = asked.time
    if now < logged_in[asked.account] + limits.first:
        found.append("in its first days")
    if not 8 <= now.astimezone(limits.zone).hour < 23:
        found.append(f"at night ({now.astimezone(limits.zone)})")
    if mine and now - mine[-1].time < limits.pause:
        found.append("too soon")
    if mine and len(mine) % 20 == 0 and now - mine[-1].time < limits.long_pause:
        found.append("no long pause")
    if any(now < _stopped_until(one) for one in mine):
        found.append("during a wait")
    if joins_of(mine, now) + is_join(asked) > _budget(mine, now, limits):
        found.append("too many joins")
    if asked.looked_up and sum(one.looked_up and now - one.time < DAY for one in mine) >= limits.look_ups:
        found.append("too many look-ups")
    if asked.looked_up and any(one.channel == asked.channel and known(one) for one in mine):
        found.append("looked up twice")
    return found


def known(asked: Asked) -> bool:
    return isinstance(asked.outcome, joining.Inside) and asked.heard


def is_join(asked: Asked) -> bool:
    return not isinstance(asked.outcome, joining.Gone | joining.NotAChannel)


def joins_of(mine: list[Asked], now: datetime) -> int:
    return sum(now - one.time < DAY and is_join(one) for one in mine)


def _budget(mine: list[Asked], now: datetime, limits: Limits) -> int:
    waits = sum(_wait(one) is not None and now - one.time < WEEK for one in mine)
    return max(int(limits.joins / 2**waits), 1)


def _stopped_until(asked: Asked) -> datetime:
    wait = _wait(asked)
    return asked.time if wait is None else asked.time + timedelta(seconds=max(1.1 * wait, 3600))


def _wait(asked: Asked) -> float | None:
    """Seconds that Telegram asked for; None where it didn't, and where nobody lived to hear it."""
    return asked.outcome.seconds if isinstance(asked.outcome, joining.Wait) and asked.heard else None


def _fuller_than_others(
    asked: Asked,
    before: dict[int, list[Asked]],
    inside: dict[int, set[int]],
    logged_in: dict[int, datetime],
    limits: Limits,
    places: dict[int, int],
) -> list[str]:
    """Accounts that were emptier, and could have joined without any doubt."""
    now = asked.time
    unheard = sum(not one.heard for one in before[asked.account])
    share = (len(inside[asked.account]) - 1 - unheard) / places[asked.account]
    return [
        f"{now}: {asked.account} joined, though {other} was emptier"
        for other, mine in before.items()
        if other != asked.account
        and len(inside[other]) / places[other] < share
        and _free_beyond_doubt(mine, now, logged_in[other], limits)
    ]


def _free_beyond_doubt(mine: list[Asked], now: datetime, logged_in: datetime, limits: Limits) -> bool:
    lost = joining.Banned | joining.Frozen | joining.LoggedOut
    longest = limits.slack * (limits.long_pause if len(mine) % 20 == 0 else limits.pause)
    return (
        now >= logged_in + limits.first
        and 9 <= now.astimezone(limits.zone).hour < 23
        and not (mine and (now - mine[-1].time <= longest or isinstance(mine[-1].outcome, lost)))
        and not any(now < _stopped_until(one) for one in mine)
        and joins_of(mine, now) < _budget(mine, now, limits)
        and sum(one.looked_up and now - one.time < DAY for one in mine) < limits.look_ups
    )
