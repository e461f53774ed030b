from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import sqlalchemy as sa
from telegram_world import Asked, Limits, Telegram, breaches, is_join

from palate import accounts, alerts, channels, joins, memberships
from palate.accounts import TelegramParams
from palate.channels import Channel
from palate.database import connect, reading, writing
from palate.errors import NotFound
from palate.sources import joining
from palate.sources.joining import Idle, Join, JoiningParams, Outcome

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
LATER = START + timedelta(days=4)  # noon, and the first days are over
TELEGRAM = TelegramParams(api_id=1, api_hash="x", session_key=accounts.new_key())
PARAMS = JoiningParams()


@pytest.fixture
def quick(data: Path, sqlite_template: Path) -> Iterator[sa.Engine]:
    """SQLite alone, for what takes thousands of steps."""
    data.mkdir()
    shutil.copy(sqlite_template, data / "palate.sqlite")
    engine = connect(None, data)
    yield engine
    engine.dispose()


def add_accounts(engine: sa.Engine, *names: str) -> dict[str, int]:
    with writing(engine) as connection:
        for name in names:
            account = accounts.add(connection, name, None, START)
            accounts.log_in(connection, account.key, "session", TELEGRAM, START)
        return {one.name: one.key for one in accounts.list_accounts(connection)}


def add_channels(engine: sa.Engine, *names: str) -> list[Channel]:
    with writing(engine) as connection:
        return [channels.add(connection, START, username=name) for name in names]


def attempt(engine: sa.Engine, outcome: Outcome, now: datetime = LATER) -> joins.Settled:
    """The next join, with a given outcome."""
    with writing(engine) as connection:
        action = joins.next_action(connection, PARAMS, now)
        assert isinstance(action, Join), action
        key = joins.begin(connection, action, PARAMS, now, np.random.default_rng(1))
        return joins.settle(connection, key, outcome, PARAMS, now)


def stored(engine: sa.Engine, key: int) -> Channel:
    with reading(engine) as connection:
        return channels.get(connection, key)


def test_a_joined_channel_is_known_by_its_id(engine: sa.Engine) -> None:
    keys = add_accounts(engine, "anna")
    (news,) = add_channels(engine, "news")
    settled = attempt(engine, joining.Joined(77, 5, "The News", "News"))
    assert settled == joins.Settled(news.key, True, 0)
    found = stored(engine, news.key)
    assert (found.state, found.telegram_id, found.title) == ("joined", 77, "The News")
    with reading(engine) as connection:
        (member,) = memberships.list_memberships(connection)
        assert (member.account, member.access_hash, member.joined) == (keys["anna"], 5, LATER)
        assert joins.next_action(connection, PARAMS, LATER) == Idle(None, "no channel waits to be joined")


@pytest.mark.parametrize(
    ("outcome", "state", "error"),
    [
        (joining.Requested(), "requested", "Its owner has to let us in."),
        (joining.Private(), "failed", "The channel is private."),
        (joining.Gone(), "failed", "There is no channel of this name."),
        (joining.InviteExpired(), "failed", "The invite link has expired: get a new one."),
        (joining.NotAChannel(), "failed", "The name is no channel's."),
        (joining.Failed("No route to host."), "wanted", "No route to host."),
        (joining.Wait(30), "wanted", None),
        (joining.Full(), "wanted", None),
    ],
)
def test_each_outcome_says_what_becomes_of_the_channel(
    engine: sa.Engine, outcome: Outcome, state: str, error: str | None
) -> None:
    add_accounts(engine, "anna")
    (news,) = add_channels(engine, "news")
    assert attempt(engine, outcome) == joins.Settled(news.key, False, 0)
    assert (stored(engine, news.key).state, stored(engine, news.key).error) == (state, error)
    with reading(engine) as connection:
        assert memberships.count_outcomes(connection) == {joining.NAMES[type(outcome)]: 1}
        assert memberships.waited(connection) == (30 if isinstance(outcome, joining.Wait) else 0)


def test_a_channel_that_fails_again_and_again_is_given_up(engine: sa.Engine) -> None:
    add_accounts(engine, "anna")
    (news,) = add_channels(engine, "news")
    now = LATER
    for hours in (1, 2, 4, 8):
        attempt(engine, joining.Failed("Reset."), now)
        assert stored(engine, news.key).next_try == now + timedelta(hours=hours)
        with reading(engine) as connection:
            waiting = joins.next_action(connection, PARAMS, now)
        assert isinstance(waiting, Idle)
        assert waiting.until is not None
        now = waiting.until
    attempt(engine, joining.Failed("Reset."), now)
    assert (stored(engine, news.key).state, stored(engine, news.key).failures) == ("failed", 5)


@pytest.mark.parametrize(("outcome", "state"), [(joining.Banned(), "banned"), (joining.Frozen(), "frozen")])
def test_channels_of_a_lost_account_move_to_the_other_first(engine: sa.Engine, outcome: Outcome, state: str) -> None:
    keys = add_accounts(engine, "anna")
    one, two, _ = add_channels(engine, "one", "two", "three")
    attempt(engine, joining.Joined(1, 11))
    settled = attempt(engine, outcome, LATER + timedelta(hours=1))
    add_accounts(engine, "berta")
    assert settled == joins.Settled(two.key, False, 1)
    with reading(engine) as connection:
        assert accounts.of_key(connection, keys["anna"]).state == state
        assert [(one.kind, one.subject) for one in alerts.list_alerts(connection)] == [(f"account_{state}", "anna")]
        assert "its 1 channels are moving" in alerts.list_alerts(connection)[0].text
        action = joins.next_action(connection, PARAMS, LATER + timedelta(hours=2))
    assert action == Join(keys["anna"] + 1, one.key, True)


def test_an_account_that_was_logged_out_keeps_its_channels(engine: sa.Engine) -> None:
    keys = add_accounts(engine, "anna")
    one, _ = add_channels(engine, "one", "two")
    attempt(engine, joining.Joined(1, 11))
    attempt(engine, joining.LoggedOut(), LATER + timedelta(hours=1))
    assert stored(engine, one.key).state == "joined"
    with reading(engine) as connection:
        assert accounts.get(connection, "anna").state == "logged_out"
        assert "palate accounts login anna" in alerts.list_alerts(connection)[0].text
    with writing(engine) as connection:
        assert joins.remove(connection, "anna", LATER) == 1
        assert alerts.list_alerts(connection) == []
        assert memberships.list_memberships(connection, account=keys["anna"]) == []
        with pytest.raises(NotFound):
            joins.remove(connection, "anna", LATER)
    assert (stored(engine, one.key).state, stored(engine, one.key).urgent) == ("wanted", True)


def test_a_channel_that_a_lost_account_had_asked_to_enter_is_asked_by_another(engine: sa.Engine) -> None:
    keys = add_accounts(engine, "anna")
    (closed,) = add_channels(engine, "closed")
    attempt(engine, joining.Requested(9, 99))
    assert stored(engine, closed.key).state == "requested"
    with writing(engine) as connection:
        joins.lose(connection, keys["anna"], "banned", "Banned.", LATER)
    assert stored(engine, closed.key).state == "wanted"


def test_who_asked_is_let_in_later(engine: sa.Engine) -> None:
    keys = add_accounts(engine, "anna")
    (closed,) = add_channels(engine, "closed")
    attempt(engine, joining.Requested())
    with writing(engine) as connection:
        joins.let_in(connection, closed.key, keys["anna"], joining.Joined(9, 99, "Closed"), LATER)
    assert (stored(engine, closed.key).state, stored(engine, closed.key).title) == ("joined", "Closed")


def test_a_decision_made_while_joining_stays(engine: sa.Engine) -> None:
    add_accounts(engine, "anna")
    (news,) = add_channels(engine, "news")
    with writing(engine) as connection:
        action = joins.next_action(connection, PARAMS, LATER)
        assert isinstance(action, Join)
        key = joins.begin(connection, action, PARAMS, LATER, np.random.default_rng(1))
        channels.pause(connection, news.key)
        joins.settle(connection, key, joining.Joined(7, 70), PARAMS, LATER)
        assert channels.get(connection, news.key).state == "paused"
        channels.resume(connection, news.key)
    assert stored(engine, news.key).state == "joined"


def test_whoever_died_while_joining_tries_again_with_the_same_account(engine: sa.Engine) -> None:
    keys = add_accounts(engine, "anna", "berta")
    news, _ = add_channels(engine, "news", "other")
    with writing(engine) as connection:
        action = joins.next_action(connection, PARAMS, LATER)
        assert action == Join(keys["anna"], news.key, True)
        joins.begin(connection, action, PARAMS, LATER, np.random.default_rng(1))
    with reading(engine) as connection:
        then = joins.next_action(connection, PARAMS, LATER)
        assert isinstance(then, Join)
        assert (then.account, then.channel) == (keys["berta"], news.key + 1)
        later = joins.next_action(connection, PARAMS, LATER + timedelta(hours=1))
    assert later == Join(keys["anna"], news.key, True)


def test_the_plan_says_when_and_why_not_sooner(engine: sa.Engine) -> None:
    add_accounts(engine, "anna")
    add_channels(engine, *(f"channel{n}" for n in range(10)))
    with reading(engine) as connection:
        planned = joins.plan(connection, PARAMS, START)
        why = joins.why_idle(connection, PARAMS, START)
    assert why == {"anna": "anna was logged in only lately, until 2026-03-05 12:00 UTC"}
    assert [one.channel.username for one in planned] == [f"channel{n}" for n in range(10)]
    assert planned[0].time == START + timedelta(days=3)
    assert [one.reason for one in planned] == [
        "anna was logged in only lately",
        *["anna has just joined"] * 7,
        "anna has used up its day's joins",
        "anna has just joined",
    ]
    assert planned[8].time == planned[0].time + timedelta(days=1)


def test_a_clock_that_was_ahead_stops_the_plan_for_a_day_and_no_limit_is_broken(engine: sa.Engine) -> None:
    (anna,) = add_accounts(engine, "anna").values()
    add_channels(engine, *(f"channel{n}" for n in range(10)))
    ahead = LATER + timedelta(days=400)
    for n in range(7):
        attempt(engine, joining.Joined(n), ahead + n * timedelta(hours=1))
    attempt(engine, joining.Failed("Connection reset."), ahead + timedelta(hours=8))
    joins.set_back(engine, LATER)
    with reading(engine) as connection:
        planned = joins.plan(connection, PARAMS, LATER)
    assert {one.account for one in planned} == {"anna"}
    assert [one.channel.username for one in planned] == ["channel8", "channel9", "channel7"]
    assert LATER + joining.DAY <= planned[0].time < LATER + joining.DAY + timedelta(minutes=1)
    with writing(engine) as connection:
        accounts.log_in(connection, anna, "session", TELEGRAM, ahead)
    joins.set_back(engine, LATER)
    with reading(engine) as connection:
        assert joins.plan(connection, PARAMS, LATER)[0].time == LATER + timedelta(days=PARAMS.first_days)


# Weeks of it


def pool(number: int) -> dict[str, Outcome]:
    """So many channels by address; one in ten can't be joined, for one reason or another."""
    faults: list[Outcome] = [joining.Gone(), joining.Private(), joining.NotAChannel(), joining.InviteExpired()]
    found: dict[str, Outcome] = {}
    for n in range(number):
        address = f"https://t.me/+invite{n}" if n % 7 == 3 else f"https://t.me/channel{n}"
        found[address] = faults[n // 10 % 4] if n % 10 == 9 else joining.Joined(1000 + n, 5 * n)
    return found


class Killed(BaseException):
    """The process ends in the middle of something."""


def live(
    connection: sa.Connection, telegram: Telegram, params: JoiningParams, now: datetime, end: datetime
) -> datetime:
    """Join until nothing is left to do, or until killed at a random moment; gives the time."""
    rng = telegram.rng
    left = int(rng.integers(1, 30))  # attempts before the next kill
    while now < end:
        action = joins.next_action(connection, params, now)
        if isinstance(action, Idle):
            if action.until is None:
                return end
            now = action.until if rng.random() < 0.9 else now + (action.until - now) * float(rng.random())
            continue
        key = joins.begin(connection, action, params, now, rng)
        left -= 1
        address = channels.get(connection, action.channel).address
        if left == 0 and rng.random() < 0.3:  # before Telegram was asked
            never = joining.Failed("Never asked.")
            telegram.log.append(Asked(now, action.account, address, action.resolves, never, heard=False))
            raise Killed(now)
        outcome = telegram.join(action.account, address, action.resolves, now)
        if left == 0:
            telegram.unheard()
            raise Killed(now)
        joins.settle(connection, key, outcome, params, now)
        now += timedelta(seconds=float(rng.uniform(0, 5)))
    return now


def live_through_kills(
    engine: sa.Engine, telegram: Telegram, params: JoiningParams, now: datetime, end: datetime
) -> int:
    """The same, started again after each kill; gives how many there were."""
    kills = 0
    while now < end:
        with writing(engine) as connection:
            try:
                now = live(connection, telegram, params, now, end)
            except Killed as killed:  # what was written is durable: each step of the plan is a transaction of its own
                now, kills = killed.args[0], kills + 1
    return kills


@pytest.mark.parametrize(
    ("number", "banned", "frozen", "thaw"), [(130, 4, 5, 8), pytest.param(500, 11, 20, 30, marks=pytest.mark.soak)]
)
def test_channels_are_joined_by_three_accounts_under_every_limit(
    quick: sa.Engine, number: int, banned: int, frozen: int, thaw: int
) -> None:
    params = JoiningParams(time_zone="America/New_York")  # whose clocks are changed on the way
    keys = add_accounts(quick, "anna", "berta", "clara")
    anna, berta, clara = keys.values()
    found = pool(number)
    with writing(quick) as connection:
        accounts.describe(connection, anna, premium=True, channel_limit=None, other_channels=0)
        for address in found:
            invite = address.partition("/+")[2]
            channels.add(connection, START, invite=invite or None, username=None if invite else address.split("/")[-1])
    telegram = Telegram(np.random.default_rng(1), found, flood_share=0.04, failure_share=0.03)
    telegram.fates = {
        berta: (START + timedelta(days=banned), joining.Banned()),
        clara: (START + timedelta(days=frozen), joining.Frozen()),
    }
    thawed = START + timedelta(days=thaw)
    kills = live_through_kills(quick, telegram, params, START, thawed)
    with writing(quick) as connection:
        assert {one.kind for one in alerts.list_alerts(connection)} == {"account_banned", "account_frozen"}
        telegram.fates.pop(clara)
        accounts.resume(connection, "clara")
    kills += live_through_kills(quick, telegram, params, thawed, START + timedelta(days=120))
    assert kills > 5

    limits = Limits(zone=ZoneInfo("America/New_York"))
    assert (
        breaches(telegram.log, dict.fromkeys(keys.values(), START), limits, {anna: 990, berta: 490, clara: 490}) == []
    )
    assert_all_joined(quick, telegram, found)
    waits = [one.outcome.seconds for one in telegram.log if isinstance(one.outcome, joining.Wait)]
    assert len(waits) > 5
    with reading(quick) as connection:
        assert memberships.waited(connection) <= sum(waits) + 1  # an answer may have died with the process


def assert_all_joined(engine: sa.Engine, telegram: Telegram, found: dict[str, Outcome]) -> None:
    """Every channel is listened to by an account that is alive, or has failed with its reason."""
    listened = set[int]().union(*telegram.inside.values())
    with reading(engine) as connection:
        listed = {one.address: one for one in channels.list_channels(connection)}
        members = memberships.list_memberships(connection)
    assert len(listed) == len(found)
    for address, outcome in found.items():
        channel = listed[address]
        if isinstance(outcome, joining.Joined):
            assert channel.state == "joined", channel
            assert outcome.telegram_id in listened
        else:
            assert (channel.state, channel.error) == ("failed", getattr(outcome, "error", None))
    ids = {one.key: one.telegram_id for one in listed.values()}
    assert all(ids[one.channel] in telegram.inside[one.account] for one in members)


def test_dead_names_use_up_look_ups_but_no_joins(quick: sa.Engine) -> None:
    params = JoiningParams(resolves_per_day=6, quiet_from=8)
    (anna,) = add_accounts(quick, "anna").values()
    found: dict[str, Outcome] = {f"https://t.me/gone{n}": joining.Gone() for n in range(24)}
    add_channels(quick, *(address.split("/")[-1] for address in found))
    telegram = Telegram(np.random.default_rng(3), found)
    live_through_kills(quick, telegram, params, START, START + timedelta(days=9))
    log = [one for one in telegram.log if one.account == anna]
    days = [sum(other.time - timedelta(days=1) < one.time <= other.time for one in log) for other in log]
    assert max(days) == 6
    assert not any(is_join(one) for one in log if one.heard)
    with reading(quick) as connection:
        assert channels.count(connection) == {"failed": 24}


def test_the_referee_sees_each_breach() -> None:
    noon = START + timedelta(days=4)
    fine = joining.Joined(1, 1)

    def said(*log: Asked) -> str:
        return " ".join(breaches(log, {1: START, 2: START}, Limits(), {1: 2, 2: 2}))

    def asked(minutes: float, outcome: Outcome = fine, account: int = 1, looked_up: bool = False) -> Asked:
        return Asked(noon + timedelta(minutes=minutes), account, "a", looked_up, outcome)

    assert said(asked(0)) == ""
    assert "first days" in said(asked(-4 * 1440))
    assert "at night" in said(asked(12 * 60))
    assert "too soon" in said(asked(0), asked(9))
    assert "during a wait" in said(asked(0, joining.Wait(30)), asked(59))
    assert "during a wait" in said(asked(0, joining.Wait(6000)), asked(109))
    assert "too many joins" in said(*(asked(11 * n) for n in range(9)))
    assert "too many joins" in said(asked(-700, joining.Wait(1)), *(asked(11 * n) for n in range(4)))
    assert "too full" in said(*(asked(11 * n, joining.Joined(n)) for n in range(3)))
    assert "was emptier" in said(asked(0), asked(20, joining.Joined(2)))
    assert "no long pause" in said(*(asked(200 * (n - 21)) for n in range(20)), asked(-300))
    assert "looked up twice" in said(asked(0, looked_up=True), asked(20, looked_up=True))
