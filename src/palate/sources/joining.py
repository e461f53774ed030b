"""Which account joins which channel, and when: the rules, without clock, network or tables.

Telegram doesn't say how many joins it allows; accounts that join fast are frozen or banned. So joins are few, far apart and
irregular, never at night, never in an account's first days; and a wait that Telegram asks for is kept to the second and
followed by a careful week. Everything is decided from the log of attempts, so a restart forgets nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

if TYPE_CHECKING:
    import numpy as np

DAY = timedelta(days=1)
SHORTEST_STOP = 3600.0
"""Seconds without joins after any wait that Telegram asked for."""
MARGIN = 1.1
"""Times what Telegram asked for."""
LONGEST_BACKOFF = DAY


class JoiningParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How carefully channels are joined. The defaults are on the safe side; Telegram publishes no limits."""

    joins_per_day: Annotated[int, msgspec.Meta(ge=0, le=50)] = 8
    """Joins of one account within any 24 hours; 0: none."""
    pause_minutes: Annotated[float, msgspec.Meta(ge=10, le=1440)] = 10.0
    """Minutes between two joins of an account, at least."""
    jitter: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.5
    """How much longer a pause may be by chance: 1.5 makes it up to two and a half times as long."""
    long_pause_every: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 20
    """After so many joins of an account comes a long pause."""
    long_pause_minutes: Annotated[float, msgspec.Meta(ge=10, le=10_080)] = 180.0
    """Minutes of a long pause, at least; the jitter applies to it too."""
    quiet_from: Annotated[int, msgspec.Meta(ge=0, le=23)] = 23
    """Hour at which joins end for the night."""
    quiet_until: Annotated[int, msgspec.Meta(ge=0, le=23)] = 8
    """Hour after which they begin again, each account at another minute of it. The same as `quiet_from`: no night."""
    time_zone: str = "UTC"
    """Where it is night, such as Europe/Berlin."""
    first_days: Annotated[float, msgspec.Meta(ge=0, le=365)] = 3.0
    """Days after its login in which an account joins nothing."""
    resolves_per_day: Annotated[int, msgspec.Meta(ge=0, le=200)] = 100
    """Names that an account looks up within any 24 hours; each name is looked up once for ever."""
    limit: Annotated[int, msgspec.Meta(ge=1)] = 500
    """Channels and groups that an account may be in where Telegram hasn't said."""
    limit_premium: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """The same of a Premium account."""
    reserve: Annotated[int, msgspec.Meta(ge=0)] = 10
    """Places that are left free in each account."""
    careful_days: Annotated[float, msgspec.Meta(ge=0, le=365)] = 7.0
    """Days after a wait that Telegram asked for in which the account joins half as often; each further wait halves again."""
    full_days: Annotated[float, msgspec.Meta(ge=0, le=365)] = 7.0
    """Days that an account rests when Telegram says that it is in too many channels."""
    request_days: Annotated[float, msgspec.Meta(ge=1, le=365)] = 28.0
    """Days after which a channel whose owner hasn't let us in is given up."""
    tries: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    """Attempts that may fail for reasons of the moment before a channel is given up."""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{self.time_zone} is no time zone such as Europe/Berlin") from error


# What may come of an attempt


@dataclass(frozen=True)
class Inside:
    """The account is in the channel. What Telegram says of it; None where it doesn't."""

    telegram_id: int
    """The bare positive number."""
    access_hash: int | None = None
    title: str | None = None
    username: str | None = None


class Joined(Inside):
    """It is in now."""


class AlreadyIn(Inside):
    """It was in before."""


@dataclass(frozen=True)
class Requested:
    """The channel's owner has to let us in."""

    telegram_id: int | None = None
    access_hash: int | None = None


@dataclass(frozen=True)
class Wait:
    """Telegram asks to wait: FLOOD_WAIT, or 429."""

    seconds: float
    error: str = "Telegram asked to wait."


@dataclass(frozen=True)
class Full:
    """The account is in as many channels as Telegram allows."""

    error: str = "The account is in as many channels as Telegram allows."


@dataclass(frozen=True)
class Frozen:
    """Telegram has frozen the account: it may read little and join nothing."""

    error: str = "Telegram has frozen the account."


@dataclass(frozen=True)
class Banned:
    """Telegram has banned the account's number."""

    error: str = "Telegram has banned the account."


@dataclass(frozen=True)
class LoggedOut:
    """The account's session was ended elsewhere."""

    error: str = "The account's session was ended elsewhere."


@dataclass(frozen=True)
class Private:
    """The channel is private, or this account was thrown out of it."""

    error: str = "The channel is private."


@dataclass(frozen=True)
class Gone:
    """Nobody has the name; nothing was joined, only looked up."""

    error: str = "There is no channel of this name."


@dataclass(frozen=True)
class InviteExpired:
    """The invite link is good no more."""

    error: str = "The invite link has expired: get a new one."


@dataclass(frozen=True)
class NotAChannel:
    """The name is a person's, a bot's or a group's; nothing was joined, only looked up."""

    error: str = "The name is no channel's."


@dataclass(frozen=True)
class Failed:
    """Anything else, of the moment: no connection, a fault at Telegram."""

    error: str


Outcome = (
    Joined
    | AlreadyIn
    | Requested
    | Wait
    | Full
    | Frozen
    | Banned
    | LoggedOut
    | Private
    | Gone
    | InviteExpired
    | NotAChannel
    | Failed
)

NAMES: dict[type, str] = {
    Joined: "joined",
    AlreadyIn: "already_in",
    Requested: "requested",
    Wait: "wait",
    Full: "full",
    Frozen: "frozen",
    Banned: "banned",
    LoggedOut: "logged_out",
    Private: "private",
    Gone: "gone",
    InviteExpired: "invite_expired",
    NotAChannel: "not_a_channel",
    Failed: "failed",
}
"""Under which outcomes are logged and counted."""
LASTING = ("wait", "full")
"""Outcomes that count for longer than a day."""
_LOOKED_UP = ("gone", "not_a_channel")  # no join was asked for: these count as look-ups only


@dataclass(frozen=True)
class Consequence:
    """What an outcome means. None: stays as it is."""

    channel: Literal["joined", "requested", "wanted", "failed"]
    account: Literal["frozen", "banned", "logged_out"] | None = None
    error: str | None = None
    """What is said of the channel."""
    failures: int = 0
    """Of the channel, in a row."""
    next_try: datetime | None = None
    """Of the channel; None: as soon as an account may."""


def consequence(outcome: Outcome, failures: int, params: JoiningParams, now: datetime) -> Consequence:
    """What becomes of the channel and of the account. `failures`: of the channel in a row, before this attempt."""
    match outcome:
        case Joined() | AlreadyIn():
            return Consequence("joined")
        case Requested():
            return Consequence("requested", error="Its owner has to let us in.")
        case Wait() | Full():
            return Consequence("wanted", failures=failures)
        case Frozen():
            return Consequence("wanted", account="frozen", failures=failures)
        case Banned():
            return Consequence("wanted", account="banned", failures=failures)
        case LoggedOut():
            return Consequence("wanted", account="logged_out", failures=failures)
        case Private() | Gone() | InviteExpired() | NotAChannel():
            return Consequence("failed", error=outcome.error, failures=failures + 1)
        case Failed():
            return _failed(outcome.error, failures + 1, params, now)


def _failed(error: str, failures: int, params: JoiningParams, now: datetime) -> Consequence:
    if failures >= params.tries:
        return Consequence("failed", error=error, failures=failures)
    backoff = min(timedelta(hours=1) * 2 ** (failures - 1), LONGEST_BACKOFF)
    return Consequence("wanted", error=error, failures=failures, next_try=now + backoff)


# Who may join when


@dataclass(frozen=True)
class Try:
    """An attempt of one account, from the log."""

    time: datetime
    pause: float
    """Seconds from `time` before the account's next."""
    resolves: bool
    outcome: str | None = None
    """None: unknown, and counted like a join."""
    ended: datetime | None = None
    wait: float | None = None
    """Seconds that Telegram asked for."""


@dataclass(frozen=True)
class Joiner:
    """An account, as far as joining goes."""

    key: int
    name: str
    active: bool
    logged_in: datetime | None
    premium: bool = False
    reachable: bool = True
    """Whether it is connected, and Telegram doesn't have it wait."""
    channel_limit: int | None = None
    """As Telegram says; None: by `premium`."""
    channels: int = 0
    """That it is in, ours and its own."""
    flood_until: datetime | None = None
    tries: tuple[Try, ...] = ()
    """The log of at least the last `careful_days`, `full_days` and day, in order."""
    tries_ever: int = 0
    knows: frozenset[int] = frozenset()
    """Keys of the channels that it can name without looking them up."""


@dataclass(frozen=True)
class Target:
    """A channel that is wanted."""

    key: int
    name: str
    by_name: bool
    """It has a username, which an account looks up once."""
    by_invite: bool = False
    next_try: datetime | None = None
    begun_by: int | None = None
    """The account that began to join it when we died: it may be in already, so only it tries again."""


@dataclass(frozen=True)
class Join:
    """Account `account` may join `channel` now; `resolves`: by a name that it looks up first."""

    account: int
    channel: int
    resolves: bool


@dataclass(frozen=True)
class Idle:
    """Nothing may be joined before `until`; None: not until an account or the pool changes."""

    until: datetime | None
    reason: str


@dataclass(frozen=True)
class Planned:
    """A join that the plan foresees when all goes well, and what holds it back until then."""

    time: datetime
    account: int
    channel: int
    reason: str


@dataclass(frozen=True)
class Ready:
    """When an account may join; `time` None: not until something changes."""

    time: datetime | None
    reason: str


def next_action(
    joiners: Sequence[Joiner], targets: Sequence[Target], params: JoiningParams, now: datetime
) -> Join | Idle:
    """What to do at `now`. `targets` in the order in which they should be joined.

    The first target that any account may join goes to the account of these that is the least full.
    """
    if not targets:
        return Idle(None, "no channel waits to be joined")
    ready = {(one.key, resolves): ready_at(one, resolves, params, now) for one in joiners for resolves in (False, True)}
    best: Ready | None = None
    for target in targets:
        able = list(_ways(joiners, target))
        if target.next_try is not None and target.next_try > now:
            best = _sooner(best, (_again_at(one, resolves, target, params) for one, resolves in able))
            continue
        free = [one for one, resolves in able if ready[one.key, resolves].time == now]
        if free:
            one = min(free, key=lambda one: (fullness(one, params), one.key))
            return Join(one.key, target.key, _resolves(one, target))
        best = _sooner(best, (ready[one.key, resolves] for one, resolves in able))
    if best is not None:
        return Idle(best.time, best.reason)
    return Idle(None, _nobody([ready[one.key, False] for one in joiners]))


def _ways(joiners: Sequence[Joiner], target: Target) -> Iterator[tuple[Joiner, bool]]:
    """Accounts that can reach the target at all, and whether they must look its name up."""
    begun = [one for one in joiners if one.key == target.begun_by and one.active]
    for one in begun or joiners:
        if target.by_name or target.by_invite or target.key in one.knows:
            yield one, _resolves(one, target)


def _resolves(joiner: Joiner, target: Target) -> bool:
    return target.key not in joiner.knows and not target.by_invite and target.by_name


def _again_at(joiner: Joiner, resolves: bool, target: Target, params: JoiningParams) -> Ready:
    """When the account may try a channel again that has failed."""
    assert target.next_try is not None, "only a channel that failed waits by itself"
    when = ready_at(joiner, resolves, params, target.next_try)
    reason = f"{target.name} has failed and is tried again later" if when.time == target.next_try else when.reason
    return Ready(when.time, reason)


def _sooner(best: Ready | None, others: Iterable[Ready]) -> Ready | None:
    found = [(one.time, one.reason) for one in (best, *others) if one is not None and one.time is not None]
    return Ready(*min(found)) if found else None


def _nobody(ready: Sequence[Ready]) -> str:
    if not ready:
        return "there is no account: `palate accounts add`"
    reasons = list(dict.fromkeys(one.reason for one in ready if one.time is None))
    return "; ".join(reasons) if reasons else "no account can name what is left: add those channels by a link"


def fullness(joiner: Joiner, params: JoiningParams) -> float:
    """The share of its places that an account has used: 1 or more is full."""
    return joiner.channels / max(capacity(joiner, params), 1) if capacity(joiner, params) > 0 else 1.0


def capacity(joiner: Joiner, params: JoiningParams) -> int:
    """Channels that we let an account be in: what Telegram allows, less the reserve."""
    usual = params.limit_premium if joiner.premium else params.limit
    return (joiner.channel_limit if joiner.channel_limit is not None else usual) - params.reserve


def ready_at(joiner: Joiner, resolves: bool, params: JoiningParams, now: datetime) -> Ready:
    """The earliest time from `now` on at which the account may join, and the rule that it has to wait for."""
    if not joiner.active or joiner.logged_in is None:
        return Ready(None, f"{joiner.name} is not active")
    if not joiner.reachable:
        return Ready(None, f"{joiner.name} is not connected")
    if fullness(joiner, params) >= 1:
        return Ready(None, f"{joiner.name} is full")
    if params.joins_per_day == 0 or (resolves and params.resolves_per_day == 0):
        return Ready(None, "the settings allow no joins")
    time, reason = max(_thresholds(joiner, params, now), key=lambda one: one[0])
    for rule in (_within_joins, _within_resolves) if resolves else (_within_joins,):
        later = rule(joiner, params, time)
        if later > time:
            time, reason = (
                later,
                f"{joiner.name} has used up its day's {'look-ups' if rule is _within_resolves else 'joins'}",
            )
    later = _by_day(joiner, params, time)
    return Ready(later, f"{joiner.name} rests at night" if later > time else reason)


def _thresholds(joiner: Joiner, params: JoiningParams, now: datetime) -> Iterator[tuple[datetime, str]]:
    """Times before which nothing is joined, each with its reason."""
    yield now, "now"
    assert joiner.logged_in is not None, "only who is logged in joins"
    yield joiner.logged_in + timedelta(days=params.first_days), f"{joiner.name} was logged in only lately"
    if joiner.flood_until is not None:
        yield joiner.flood_until, f"Telegram asked {joiner.name} to wait"
    for one in joiner.tries:
        yield one.time + timedelta(seconds=one.pause), f"{joiner.name} has just joined"
        if one.outcome == "wait":
            yield stopped_until(one), f"Telegram asked {joiner.name} to wait"
        elif one.outcome == "full":
            yield one.time + timedelta(days=params.full_days), f"{joiner.name} is full"


def stopped_until(one: Try) -> datetime:
    """Until when an account joins nothing after Telegram asked it to wait."""
    return (one.ended or one.time) + timedelta(seconds=max((one.wait or 0.0) * MARGIN, SHORTEST_STOP))


def _within_joins(joiner: Joiner, params: JoiningParams, start: datetime) -> datetime:
    """The first time from `start` on at which fewer joins lie within the last 24 hours than are allowed then."""
    joins = [one.time for one in joiner.tries if one.outcome not in _LOOKED_UP]
    waits = [one.ended or one.time for one in joiner.tries if one.outcome == "wait"]
    careful = timedelta(days=params.careful_days)
    changes = [time + DAY for time in joins] + [time + careful for time in waits]
    for time in sorted([start, *(change for change in changes if change > start)]):
        recent = sum(time - DAY < one <= time for one in joins)
        if recent < budget(params, sum(time - careful < one <= time for one in waits)):
            return time
    raise AssertionError("when all is over a day ago, any budget allows a join")


def budget(params: JoiningParams, waits: int) -> int:
    """Joins within 24 hours of an account that was asked to wait so many times in the last careful days: at least one."""
    return max(params.joins_per_day >> waits, min(params.joins_per_day, 1))


def _within_resolves(joiner: Joiner, params: JoiningParams, start: datetime) -> datetime:
    times = [one.time for one in joiner.tries if one.resolves]
    for time in sorted([start, *(one + DAY for one in times if one + DAY > start)]):
        if sum(time - DAY < one <= time for one in times) < params.resolves_per_day:
            return time
    raise AssertionError("when all is over a day ago, any budget allows a look-up")


def _by_day(joiner: Joiner, params: JoiningParams, time: datetime) -> datetime:
    """The time, or when it is night the morning after it: another minute each day, and for each account."""
    zone = ZoneInfo(params.time_zone)
    local = time.astimezone(zone)
    begin, end = params.quiet_from, params.quiet_until
    if begin == end:
        return time
    after_begin = local.hour >= begin
    day = local.date() + DAY if after_begin and begin > end else local.date()
    morning = datetime(day.year, day.month, day.day, end, tzinfo=zone) + _lie_in(joiner.key, day)
    asleep = after_begin or local < morning if begin > end else after_begin and local < morning
    return max(time, morning.astimezone(time.tzinfo)) if asleep else time


def _lie_in(account: int, day: date) -> timedelta:
    """Up to an hour, so that accounts don't wake by the bell; the same whenever it is asked."""
    import numpy as np

    return timedelta(seconds=float(np.random.default_rng([account, day.toordinal()]).uniform(0, 3600)))


def draw_pause(tries_ever: int, params: JoiningParams, rng: np.random.Generator) -> float:
    """Seconds from an attempt to the account's next. `tries_ever`: before this one."""
    long = (tries_ever + 1) % params.long_pause_every == 0
    minutes = max(params.long_pause_minutes, params.pause_minutes) if long else params.pause_minutes
    return 60 * minutes * (1 + params.jitter * float(rng.uniform()))


def plan(
    joiners: Sequence[Joiner], targets: Sequence[Target], params: JoiningParams, now: datetime, limit: int
) -> list[Planned]:
    """The next joins, at most `limit`, if every one succeeds and pauses are of the middle length."""
    accounts, left = {one.key: one for one in joiners}, list(targets)
    planned: list[Planned] = []
    reason = "now"
    while left and len(planned) < limit:
        action = next_action(list(accounts.values()), left, params, now)
        if isinstance(action, Idle):
            if action.until is None:
                break
            now, reason = action.until, action.reason
            continue
        planned.append(Planned(now, action.account, action.channel, reason))
        left = [one for one in left if one.key != action.channel]
        accounts[action.account] = _having_joined(accounts[action.account], action, params, now)
        reason = "now"
    return planned


def _having_joined(joiner: Joiner, action: Join, params: JoiningParams, now: datetime) -> Joiner:
    long = (joiner.tries_ever + 1) % params.long_pause_every == 0
    minutes = max(params.long_pause_minutes, params.pause_minutes) if long else params.pause_minutes
    done = Try(now, 60 * minutes * (1 + params.jitter / 2), action.resolves, "joined", now)
    return replace(joiner, tries=(*joiner.tries, done), tries_ever=joiner.tries_ever + 1, channels=joiner.channels + 1)
