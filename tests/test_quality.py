from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import sqlalchemy as sa

from palate import alerts, daily_figures, database, events, quality
from palate.daily_figures import LOG, PLAYER
from palate.database import reading, writing
from palate.domain import Event, to_milliseconds
from palate.quality import QualityParams
from palate.usual import Taken

FIRST = datetime(2026, 3, 2, tzinfo=UTC)
PARAMS = QualityParams()
DAY = timedelta(days=1)


def happen(engine: sa.Engine, day: int, types: dict[str, int], *, late: int = 0, user: str = "u") -> None:
    """Events of one day, each of its own item and person; the first `late` of each type happened two days before."""
    with writing(engine) as connection:
        for type, number in types.items():
            for place in range(number):
                received = FIRST + day * DAY + timedelta(minutes=place)
                time = to_milliseconds(received - 2 * DAY if place < late else received)
                one = Event(user=f"{user}{place}", item=f"{type}{place}", type=type, time=time)
                events.append(connection, [one], received)


def told(engine: sa.Engine, kind: str) -> dict[str, str]:
    with reading(engine) as connection:
        return {one.subject: one.text for one in alerts.list_alerts(connection) if one.kind == kind}


def taken(engine: sa.Engine, day: int) -> dict[tuple[str, str], Taken]:
    when = (FIRST + day * DAY).date()
    with reading(engine) as connection:
        return {key: days[when] for key, days in daily_figures.read(connection, LOG, when, when).items()}


def test_a_day_is_counted_once_it_is_over(engine: sa.Engine) -> None:
    happen(engine, 0, {"like": 3, "dislike": 1, "viewed": 6, "shown": 20}, late=2)
    quality.watch(engine, PARAMS, FIRST + timedelta(hours=23))
    assert taken_of_nothing(engine)
    quality.watch(engine, PARAMS, FIRST + DAY)
    found = taken(engine, 0)
    assert {key: value for key, value in found.items() if key[0] == "events"} == {
        ("events", "like"): Taken(3),
        ("events", "dislike"): Taken(1),
        ("events", "viewed"): Taken(6),
        ("events", "shown"): Taken(20),
    }
    assert found["people", ""] == Taken(20)
    assert (found["liked", ""], found["likes", ""]) == (Taken(3, 4), Taken(3, 6))
    assert (found["late", ""], found["ahead", ""]) == (Taken(2 + 1 + 2 + 2, 30), Taken(0, 30))
    assert ("opened", "") in found


def taken_of_nothing(engine: sa.Engine) -> bool:
    with reading(engine) as connection:
        return daily_figures.last_day(connection, LOG) is None


def test_days_without_events_count_and_a_second_look_changes_nothing(engine: sa.Engine) -> None:
    happen(engine, 0, {"like": 2})
    quality.watch(engine, PARAMS, FIRST + 3 * DAY)
    assert [taken(engine, day)["events", "like"] for day in range(3)] == [Taken(2), Taken(0), Taken(0)]
    happen(engine, 1, {"like": 9})
    quality.watch(engine, PARAMS, FIRST + 3 * DAY + timedelta(hours=1))
    assert taken(engine, 1)["events", "like"] == Taken(0)


def test_a_collapse_of_the_like_rate_is_told_until_it_is_over(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as connection:
        for day in range(30):
            likes = {28: 2}.get(day, 50 + day % 5)
            figures = [daily_figures.Figure("likes", "", Taken(likes, 1000))]
            when = (FIRST + day * DAY).date()
            quality.enter(connection, LOG, when, figures, PARAMS, FIRST)
            said = [one.text for one in alerts.list_alerts(connection)]
            assert said == (
                ["Likes, of views: 0.2 % on 2026-03-30 is too low; usual is 1.6 % to 8.77 %."] if day == 28 else []
            )


def test_a_type_of_events_that_stops_is_told(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as connection:
        for day in range(20):
            when = (FIRST + day * DAY).date()
            figures = [daily_figures.Figure("people", "", Taken(40))]
            figures += [daily_figures.Figure("events", "like", Taken(100 + day))] if day < 19 else []
            quality.enter(connection, LOG, when, figures, PARAMS, FIRST)
        assert [one.subject for one in alerts.list_alerts(connection)] == ["log events like"]


def test_nothing_is_unusual_before_the_usual_is_known(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as connection:
        for day in range(PARAMS.learned_after):
            when = (FIRST + day * DAY).date()
            figures = [daily_figures.Figure("people", "", Taken(10_000 * (day % 2)))]
            quality.enter(connection, LOG, when, figures, PARAMS, FIRST)
        assert not alerts.list_alerts(connection)


def test_an_account_that_acts_like_a_machine_is_told(engine: sa.Engine) -> None:
    times = {"timer": np.arange(250) * 60_000, "anna": np.random.default_rng(0).exponential(60_000, 250).cumsum()}
    with writing(engine) as connection:
        start = to_milliseconds(FIRST)
        for user, offsets in times.items():
            acts = [Event(user=user, item=f"i{n}", type="like", time=start + int(at)) for n, at in enumerate(offsets)]
            events.append_received(connection, events.in_columns(acts), [start] * len(acts), FIRST)
    quality.watch(engine, PARAMS, FIRST + DAY)
    assert list(told(engine, "account_machine")) == ["timer"]
    assert "timer acts like a machine: 250 acts on 2026-03-02" in told(engine, "account_machine")["timer"]
    quality.watch(engine, PARAMS, FIRST + 2 * DAY)
    assert not told(engine, "account_machine")


def arrive(engine: sa.Engine, source: str, day: int, count: int) -> None:
    when = to_milliseconds(FIRST + day * DAY)
    with writing(engine) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO items (id, state, source, received, updated, kind, media, labels) "
                "SELECT :id || number, 'live', key, :when, :when, 'post', '[]', '[]' FROM sources, "
                f"({' UNION ALL '.join(f'SELECT {n} AS number' for n in range(count))}) AS numbers WHERE id = :source"
            ),
            {"id": f"{source}-{day}-", "when": when, "source": source},
        )


def add_source(engine: sa.Engine, id: str, status: str = "active") -> None:
    row = {
        "id": id,
        "kind": "feed",
        "address": id,
        "options": {},
        "state": {},
        "status": status,
        "created": 0,
        "failures": 0,
    }
    with writing(engine) as connection:
        connection.execute(sa.insert(database.sources).values(row))


def test_a_silent_source_is_told_until_it_speaks(engine: sa.Engine) -> None:
    add_source(engine, "busy")
    add_source(engine, "slow")
    add_source(engine, "once")
    add_source(engine, "paused", status="paused")
    for day in range(6):
        arrive(engine, "busy", day, 8)
        arrive(engine, "paused", day, 8)
        if day % 2:
            arrive(engine, "slow", day, 1)
    arrive(engine, "once", 5, 200)
    happen(engine, 0, {"like": 1})
    quality.watch(engine, PARAMS, FIRST + 7 * DAY)
    assert not told(engine, "source_silent")
    quality.watch(engine, PARAMS, FIRST + 9 * DAY)
    assert told(engine, "source_silent") == {
        "busy": "busy has given nothing for 3 days; look whether it is still read."
    }
    arrive(engine, "busy", 9, 1)
    quality.watch(engine, PARAMS, FIRST + 10 * DAY)
    assert not told(engine, "source_silent")


def test_archives_are_watched_by_the_share_of_their_sessions(sqlite_engine: sa.Engine) -> None:
    first = FIRST.date()
    days = {first + day * DAY: {"sessions": 1000 + day, "restarts": 20 + day % 3} for day in range(20)}
    days[first + 19 * DAY]["restarts"] = 300
    quality.enter_archives(sqlite_engine, days, PARAMS, FIRST)
    assert list(told(sqlite_engine, "figure_unusual")) == ["player restarts"]
    with reading(sqlite_engine) as connection:
        last = date.fromordinal((FIRST + 19 * DAY).toordinal())
        drawn = quality.series(connection, PLAYER, last, 2, PARAMS)
    assert [(one.name, one.taken[-1]) for one in drawn] == [
        ("restarts", Taken(300, 1019)),
        ("sessions", Taken(1019)),
    ]


def test_old_figures_are_dropped(engine: sa.Engine) -> None:
    happen(engine, 0, {"like": 1})
    quality.watch(engine, PARAMS, FIRST + DAY)
    happen(engine, 500, {"like": 1})
    quality.watch(engine, PARAMS, FIRST + 501 * DAY)
    with reading(engine) as connection:
        kept = daily_figures.read(connection, LOG, FIRST.date(), (FIRST + 500 * DAY).date())
    assert list(kept["events", "like"]) == [(FIRST + 500 * DAY).date()]
