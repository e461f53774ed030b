from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.sources import joining
from palate.sources.joining import Idle, Join, Joiner, JoiningParams, Ready, Target, Try, next_action, ready_at

PARAMS = JoiningParams()
NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def joiner(key: int = 1, *tries: Try, **more: Any) -> Joiner:
    usual: dict[str, Any] = {"active": True, "logged_in": NOON - 30 * DAY, "tries": tries}
    return Joiner(key=key, name=f"a{key}", **(usual | more))


def tried(ago: timedelta, outcome: str | None = "joined", wait: float | None = None, pause: float = 600) -> Try:
    return Try(NOON - ago, pause, resolves=True, outcome=outcome, ended=NOON - ago, wait=wait)


def target(key: int = 10, *, by_name: bool = True, by_invite: bool = False, next_try: datetime | None = None) -> Target:
    return Target(key=key, name=f"c{key}", by_name=by_name, by_invite=by_invite, next_try=next_try)


def ready(one: Joiner, now: datetime = NOON, resolves: bool = False, params: JoiningParams = PARAMS) -> Ready:
    return ready_at(one, resolves, params, now)


def test_a_rested_account_joins_at_once() -> None:
    assert ready(joiner()) == Ready(NOON, "now")


@pytest.mark.parametrize(
    ("one", "time", "reason"),
    [
        (joiner(logged_in=NOON - DAY), NOON + 2 * DAY, "a1 was logged in only lately"),
        (joiner(1, tried(timedelta(minutes=4))), NOON + timedelta(minutes=6), "a1 has just joined"),
        (joiner(1, tried(HOUR, pause=7200)), NOON + HOUR, "a1 has just joined"),
        (joiner(1, tried(0 * HOUR, "wait", 30)), NOON + HOUR, "Telegram asked a1 to wait"),
        (joiner(1, tried(HOUR, "wait", 18_000)), NOON + 4.5 * HOUR, "Telegram asked a1 to wait"),
        (joiner(flood_until=NOON + 2 * HOUR), NOON + 2 * HOUR, "Telegram asked a1 to wait"),
        (joiner(1, tried(DAY * 6, "full")), NOON + DAY, "a1 is full"),
        (joiner(1, *(tried(HOUR * n) for n in range(9, 1, -1))), NOON + 15 * HOUR, ""),
        (joiner(active=False), None, "a1 is not active"),
        (joiner(logged_in=None), None, "a1 is not active"),
        (joiner(channels=490), None, "a1 is full"),
        (joiner(channels=20, channel_limit=30), None, "a1 is full"),
    ],
)
def test_each_rule_names_the_time_that_it_asks_for(one: Joiner, time: datetime | None, reason: str) -> None:
    day = JoiningParams(quiet_from=0, quiet_until=0)
    found = ready(one, params=day)
    assert found.time == time
    assert found.reason == (reason or "a1 has used up its day's joins")


def test_a_premium_account_has_more_places() -> None:
    assert ready(joiner(channels=989, premium=True)).time == NOON
    assert ready(joiner(channels=990, premium=True)).time is None
    assert joining.capacity(joiner(premium=True, channel_limit=700), PARAMS) == 690


def test_each_wait_halves_the_budget_for_a_week() -> None:
    day = JoiningParams(quiet_from=0, quiet_until=0)
    joins = [tried(HOUR * n) for n in range(23, 19, -1)]
    once = joiner(1, tried(DAY * 5, "wait", 5), *joins)
    assert ready(once, params=day) == Ready(NOON + HOUR, "a1 has used up its day's joins")
    assert ready(joiner(1, tried(DAY * 7, "wait", 5), *joins), params=day).time == NOON
    twice = joiner(1, tried(DAY * 6.5, "wait", 5), tried(DAY * 5, "wait", 5), *joins)
    assert ready(twice, params=day).time == NOON + 3 * HOUR
    assert [joining.budget(PARAMS, waits) for waits in (0, 1, 2, 3, 4, 99)] == [8, 4, 2, 1, 1, 1]
    assert joining.budget(JoiningParams(joins_per_day=0), 3) == 0


def test_a_week_of_care_ends_within_the_wait_for_a_budget() -> None:
    day = JoiningParams(quiet_from=0, quiet_until=0)
    joins = [tried(HOUR * n) for n in (5, 4, 3, 2)]
    assert ready(joiner(1, tried(DAY * 7 - HOUR, "wait", 5), *joins), params=day).time == NOON + HOUR


def test_names_that_led_nowhere_count_as_look_ups_only() -> None:
    gone = [tried(HOUR * 2, "gone") for _ in range(9)]
    assert ready(joiner(1, *gone)).time == NOON
    few = JoiningParams(resolves_per_day=9, quiet_from=8)
    assert ready(joiner(1, *gone), params=few).time == NOON
    assert ready(joiner(1, *gone), resolves=True, params=few) == Ready(
        NOON + 22 * HOUR, "a1 has used up its day's look-ups"
    )


@pytest.mark.parametrize(
    ("now", "night_ends"),
    [
        ("2026-03-09T22:59", None),
        ("2026-03-09T23:00", "2026-03-10"),
        ("2026-03-10T03:00", "2026-03-10"),
        ("2026-03-28T23:30", "2026-03-29"),
        ("2026-03-10T09:00", None),
    ],
)
def test_nothing_is_joined_at_night_where_the_owner_lives(now: str, night_ends: str | None) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    params = JoiningParams(time_zone="Europe/Berlin")
    local = datetime.fromisoformat(now).replace(tzinfo=berlin)
    found = ready(joiner(), local.astimezone(UTC), params=params)
    assert found.time is not None
    if night_ends is None:
        assert found.time == local
    else:
        morning = datetime.fromisoformat(night_ends).replace(hour=8, tzinfo=berlin)
        assert morning <= found.time.astimezone(berlin) <= morning + HOUR
        assert found.reason == "a1 rests at night"


def test_a_night_may_lie_within_one_day() -> None:
    params = JoiningParams(quiet_from=1, quiet_until=6)
    found = ready(joiner(), NOON.replace(hour=2), params=params).time
    assert found is not None
    assert NOON.replace(hour=6) <= found < NOON.replace(hour=7)
    assert ready(joiner(), NOON.replace(hour=0), params=params).time == NOON.replace(hour=0)


def test_accounts_wake_at_different_minutes() -> None:
    wake = {ready(joiner(key), NOON.replace(hour=3)).time for key in range(5)}
    assert len(wake) == 5


def test_the_least_full_account_gets_the_next_channel() -> None:
    accounts = [joiner(1, channels=50), joiner(2, channels=60, premium=True), joiner(3, channels=90)]
    assert next_action(accounts, [target(10), target(11)], PARAMS, NOON) == Join(2, 10, True)
    assert next_action([accounts[2], accounts[0]], [target()], PARAMS, NOON) == Join(1, 10, True)


def test_a_channel_that_no_account_may_look_up_now_gives_way_to_an_invite() -> None:
    params = JoiningParams(resolves_per_day=0)
    wanted = [target(10), target(11, by_invite=True, by_name=False)]
    assert next_action([joiner()], wanted, params, NOON) == Join(1, 11, False)
    assert next_action([joiner(knows=frozenset({10}))], wanted, params, NOON) == Join(1, 10, False)


def test_a_channel_known_by_its_id_alone_is_joined_by_who_knows_it() -> None:
    private = target(10, by_name=False)
    accounts = [joiner(1), joiner(2, channels=400, knows=frozenset({10}))]
    assert next_action(accounts, [private], PARAMS, NOON) == Join(2, 10, False)
    assert next_action([joiner(1)], [private], PARAMS, NOON) == Idle(
        None, "no account can name what is left: add those channels by a link"
    )


def test_without_accounts_it_says_how_to_add_one() -> None:
    idle = next_action([], [target()], PARAMS, NOON)
    assert idle == Idle(None, "there is no account: `palate accounts add`")
    full = next_action([joiner(channels=490), joiner(2, active=False)], [target()], PARAMS, NOON)
    assert full == Idle(None, "a1 is full; a2 is not active")


def test_a_channel_that_failed_waits_and_lets_others_go_first() -> None:
    late = target(10, next_try=NOON + HOUR)
    assert next_action([joiner()], [late, target(11)], PARAMS, NOON) == Join(1, 11, True)
    assert next_action([joiner()], [late], PARAMS, NOON) == Idle(NOON + HOUR, "c10 has failed and is tried again later")


def test_a_pause_is_never_shorter_than_it_must_be_and_every_twentieth_is_long() -> None:
    rng = np.random.default_rng(7)
    short = [joining.draw_pause(n, PARAMS, rng) for n in range(19)]
    assert 600 <= min(short) < max(short) <= 1500
    assert 10_800 <= joining.draw_pause(19, PARAMS, rng) <= 27_000
    assert joining.draw_pause(20, PARAMS, rng) <= 1500


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9 * 1440),
            st.sampled_from(["joined", "wait", "gone", "failed", None]),
            st.floats(0, 90_000),
        ),
        max_size=40,
    )
)
def test_whatever_the_log_the_time_keeps_every_limit_and_no_sooner_one_does(log: list[tuple[int, Any, float]]) -> None:
    tries = [tried(timedelta(minutes=ago), outcome, wait) for ago, outcome, wait in sorted(log, key=lambda x: -x[0])]
    found = ready(joiner(1, *tries), resolves=True).time
    assert found is not None
    assert found >= NOON
    assert keeps(found, tries)
    for minutes in range(0, int((found - NOON).total_seconds() / 60), 7):
        sooner = NOON + timedelta(minutes=minutes)
        assert not keeps(sooner, tries) or sooner.hour == 8  # the lie-in


def keeps(time: datetime, tries: list[Try]) -> bool:
    joins = sum(one.outcome != "gone" and time - one.time < DAY for one in tries)
    waits = sum(one.outcome == "wait" and time - one.time < 7 * DAY for one in tries)
    stops = [one.time + timedelta(seconds=max(1.1 * (one.wait or 0), 3600)) for one in tries if one.outcome == "wait"]
    return (
        8 <= time.hour < 23
        and all(time >= one.time + timedelta(seconds=600) for one in tries)
        and all(time >= stop for stop in stops)
        and joins < max(8 // 2**waits, 1)
    )


@pytest.mark.parametrize("wrong", [{"time_zone": "Mars/Olympus"}, {"pause_minutes": 5}, {"quiet_from": 24}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, JoiningParams)
