"""When something is due to a person, in their own time: known answers, over summer time and midnight."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.chats import Chat
from palate.delivery.bot_timetable import latest, named_zone, quiet_until, read_times, zone

BERLIN = "Europe/Berlin"


def chat(
    *deliveries: time,
    zone: str | None = None,
    quiet: tuple[time, time] | None = None,
    delivered: datetime = datetime(2026, 1, 1, tzinfo=UTC),
) -> Chat:
    return Chat(1, True, "en", False, zone, deliveries, 3, None, quiet, delivered)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-07-01 05:59", None),
        ("2026-07-01 06:00", "2026-07-01 06:00"),  # 8:00 in Berlin in summer
        ("2026-07-01 07:59", "2026-07-01 06:00"),
        ("2026-07-01 08:00", None),  # too late
        ("2026-12-01 06:30", None),
        ("2026-12-01 07:00", "2026-12-01 07:00"),  # and in winter
        ("2026-12-01 22:20", "2026-12-01 22:15"),  # 23:15
        ("2026-12-01 23:30", "2026-12-01 22:15"),  # after midnight there
    ],
)
def test_a_time_of_day_is_due_for_two_hours(now: str, due: str | None) -> None:
    own = chat(time(8), time(23, 15), zone=BERLIN)
    assert latest(own, own.deliveries, at(now)) == (None if due is None else at(due))


def test_of_several_that_were_missed_the_newest_is_due_and_what_was_sent_is_not() -> None:
    own = chat(time(8), time(9), delivered=at("2026-03-01 07:00"))
    assert latest(own, own.deliveries, at("2026-03-01 09:30")) == at("2026-03-01 09:00")
    done = chat(time(8), time(9), delivered=at("2026-03-01 09:00"))
    assert latest(done, done.deliveries, at("2026-03-01 09:30")) is None


def test_what_a_clock_noted_that_was_ahead_holds_nothing_back() -> None:
    own = chat(time(8), delivered=at("2027-03-01 08:00"))
    assert latest(own, own.deliveries, at("2026-03-01 08:00")) == at("2026-03-01 08:00")
    assert latest(own, own.deliveries, at("2026-03-01 10:00")) is None


@given(st.integers(0, 16 * 24 * 60), st.integers(0, 23), st.integers(1, 59))
def test_minute_by_minute_each_day_has_each_time_once(start: int, hour: int, minute: int) -> None:
    """Also on the day on which summer time begins."""
    now = at("2026-03-20 00:00") + timedelta(minutes=start)
    own, found = chat(time(hour, minute), zone=BERLIN), []
    for _ in range(4 * 24 * 4):
        due = latest(own, own.deliveries, now)
        if due is not None:
            found.append(due.astimezone(ZoneInfo(BERLIN)).date())
            own = chat(time(hour, minute), zone=BERLIN, delivered=now)
        now += timedelta(minutes=15)
    assert len(found) == len(set(found))
    assert 3 <= len(found) <= 5


def test_quiet_hours_end_in_the_persons_morning() -> None:
    own = chat(quiet=(time(22), time(8)), zone=BERLIN)
    assert quiet_until(own, at("2026-12-01 20:59")) is None
    assert quiet_until(own, at("2026-12-01 21:00")) == at("2026-12-02 07:00")
    assert quiet_until(own, at("2026-12-02 06:59")) == at("2026-12-02 07:00")
    assert quiet_until(own, at("2026-12-02 07:00")) is None
    noon = chat(quiet=(time(12), time(13)))
    assert quiet_until(noon, at("2026-12-02 12:30")) == at("2026-12-02 13:00")
    assert quiet_until(noon, at("2026-12-02 13:00")) is None
    assert quiet_until(chat(), at("2026-12-02 13:00")) is None


def test_times_and_zones_are_read_as_people_write_them() -> None:
    assert read_times(["20:15", "8", "8:30", "08:30"]) == [time(8), time(8, 30), time(20, 15)]
    assert read_times([]) == []
    assert [read_times([word]) for word in ("24", "8:60", "noon", "-1", "8:3")] == [None] * 5
    assert [named_zone(name) for name in ("Nowhere/At", "../../etc/passwd", "", "/etc/passwd")] == [None] * 4
    assert zone("Nowhere/At") is UTC
    assert zone(None) is UTC
