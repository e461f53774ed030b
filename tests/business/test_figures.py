"""The business's figures of a log so small that every answer is worked out by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from palate import catalog, events, identities, ingest, retention
from palate.business import figures, lifetime, page, queries
from palate.business.figures import EVERYBODY, Line, Report
from palate.cli import app
from palate.database import connect, reading, writing
from palate.domain import Event, Item, to_milliseconds
from palate.errors import DataFolderError, NotFound
from palate.interactions import InteractionParams
from palate.report_params import LifetimeParams, ReportParams
from palate.watching.embedded import connected

NOW = datetime(2026, 3, 25, 12, tzinfo=UTC)
"""A Wednesday: the fourth week isn't complete."""

LIFETIME = LifetimeParams(yearly_discount=0.0, horizon_weeks=5)


def at(day: int, hour: int, minute: int = 0, millisecond: int = 0) -> int:
    return to_milliseconds(datetime(2026, 3, day, hour, minute, tzinfo=UTC)) + millisecond


def event(
    user: str,
    item: str,
    type: str,
    time: int,
    value: float | None = None,
    variant: str | None = None,
    surface: str | None = None,
) -> Event:
    return Event(user=user, item=item, type=type, time=time, value=value, variant=variant, surface=surface)


FIRST_WEEK = [
    event("ann", "film", "shown", at(2, 10), variant="A"),
    event("ann", "film", "viewed", at(2, 10, 5), 60.0),
    event("ann", "film", "watch", at(2, 10, 20), 0.5),
    event("ann-phone", "film", "like", at(2, 10, 50)),  # a pause of 30 minutes doesn't end a visit
    event("ann", "post", "shown", at(2, 11, 20, 1)),  # one of a millisecond more does
    event("bob", "post", "shown", at(3, 23, 50), variant="B"),
    event("bob", "post", "viewed", at(4, 0, 10), 90.0),
    event("cid", "film", "shown", at(4, 8), surface="bot"),
    event("dan", "post", "like", at(4, 9)),
    *(event("robot", "post", "viewed", at(2, hour)) for hour in range(1, 5)),
]
LATER = [
    event("ann", "clip", "watch", at(9, 12), 1.5, "A"),
    event("dan", "film", "viewed", at(10, 12), 99_999.0),
    event("bob", "new", "watch", at(16, 8), 0.25, "B"),
    event("eve", "film", "shown", at(17, 10), variant="A"),
    event("eve", "clip", "viewed", at(17, 10, 1), variant="B"),
    event("ann", "film", "shown", at(24, 9), variant="A"),
]


def put_log(engine: sa.Engine, data: Path) -> None:
    """The first week is sealed, the rest isn't."""
    came = datetime(2026, 3, 1, tzinfo=UTC)
    lasts = {"film": 3600.0, "clip": 600.0, "post": None, "gone": None}
    items = [Item(id=id, title=id, published=came, duration=duration) for id, duration in lasts.items()]
    items.append(Item(id="new", title="new", published=datetime(2026, 3, 16, tzinfo=UTC)))
    ingest.store_items(engine, items, NOW, understand=False)
    week = datetime(2026, 3, 8, tzinfo=UTC)
    with writing(engine) as connection:
        catalog.delete(connection, "gone", NOW)
        events.append(connection, FIRST_WEEK, week)
        keys = identities.user_keys(connection, ["ann", "ann-phone"], NOW)
        identities.join(connection, keys["ann-phone"], keys["ann"])
    assert retention.seal(engine, data / "events", week + timedelta(days=1), 10**9)
    with writing(engine) as connection:
        events.append(connection, LATER, NOW)


def report(engine: sa.Engine, data: Path, scratch: Path) -> Report:
    return figures.report(
        engine,
        data / "events",
        ReportParams(lifetime=LIFETIME),
        InteractionParams(max_events_per_day=3),
        NOW,
        scratch=scratch,
        threads=1,
        random=np.random.default_rng(1),
    )


@pytest.fixture(scope="module")
def found(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """The report of the log, made once: nobody changes it."""
    data = tmp_path_factory.mktemp("reported")
    shutil.copy(sqlite_template, data / "palate.sqlite")
    engine = connect(None, data)
    put_log(engine, data)
    yield report(engine, data, data / "scratch")
    engine.dispose()


def values(line: Line) -> dict[str, float | None]:
    return {name: None if figure.value is None else round(figure.value, 6) for name, figure in line.figures.items()}


def weeks(found: Report, variant: str) -> list[Line]:
    return [line for line in found.weeks if line.variant == variant]


def test_every_figure_of_a_week(found: Report) -> None:
    assert [line.period for line in weeks(found, EVERYBODY)] == ["2026-03-02", "2026-03-09", "2026-03-16", "2026-03-23"]
    assert [line.complete for line in weeks(found, EVERYBODY)] == [True, True, True, False]
    first, second, third, fourth = weeks(found, EVERYBODY)
    assert (first.people, first.visits) == (3, 4)  # cid was sent a film by the bot, and did nothing
    assert values(first) == {
        "retention": round(2 / 3, 6),
        "hours_per_person": round((60 + 1800 + 90) / 3600 / 3, 6),
        "visits_per_person": round(4 / 3, 6),
        "visits_without_view": 0.5,
        "views_per_visit": 0.5,  # a film that is viewed and watched is one view
        "likes_per_view": 1.0,
        "reach": 0.0,
        "recommended": round(2 / 3, 6),  # film and post of film, post and clip
        "watched": round(2 / 3, 6),
    }
    assert values(second) == {
        "retention": 0.0,
        "hours_per_person": round((600 + 3600) / 3600 / 2, 6),  # a fraction is at most 1, a stay at most an hour
        "visits_per_person": 1.0,
        "visits_without_view": 0.0,
        "views_per_visit": 1.0,
        "likes_per_view": 0.0,
        "reach": 0.5,
        "recommended": 0.0,
        "watched": round(2 / 3, 6),
    }
    assert (third.figures["retention"].value, third.figures["reach"].value) == (None, 0.5)  # the next isn't complete
    assert (third.figures["recommended"].value, third.figures["watched"].value) == (0.25, 0.5)
    assert (fourth.people, fourth.visits, fourth.figures["likes_per_view"].value) == (1, 1, None)


def test_a_visit_belongs_to_the_day_on_which_it_begins(found: Report) -> None:
    days = {line.period: line for line in found.days if line.variant == EVERYBODY}
    assert (days["2026-03-03"].visits, days["2026-03-04"].visits) == (1, 1)  # bob's goes on after midnight; dan's
    assert days["2026-03-03"].figures["visits_without_view"].value == 0
    assert days["2026-03-03"].figures["retention"].value == 1
    assert days["2026-03-03"].figures["views_per_visit"].value == 1
    assert days["2026-03-03"].figures["likes_per_view"].value == 0
    assert (days["2026-03-05"].people, days["2026-03-05"].figures["reach"].value) == (0, None)
    assert len(days) == 23  # up to the last day on which anything happened


def test_all_of_it_by_variant(found: Report) -> None:
    total = {line.variant: line for line in found.total}
    assert found.variants == [EVERYBODY, "A", "B", "none", "several"]
    assert {variant: line.people for variant, line in total.items()} == {"": 4, "A": 1, "B": 1, "none": 1, "several": 1}
    assert {variant: line.figures["retention"].value for variant, line in total.items()} == {
        "": 0.4,
        "A": 0.5,
        "B": 0.0,
        "none": 0.5,
        "several": None,
    }
    assert values(total[""]) == {
        "retention": 0.4,
        "hours_per_person": round(6150 / 3600 / 4, 6),
        "visits_per_person": 2.25,
        "visits_without_view": round(3 / 9, 6),
        "views_per_visit": round(6 / 9, 6),
        "likes_per_view": round(2 / 6, 6),
        "reach": 0.5,
        "recommended": 0.5,
        "watched": 1.0,
    }
    assert (found.catalogue, found.machines, found.events) == (4, 1, len(FIRST_WEEK) + len(LATER))


def test_both_databases_give_the_same(found: Report, engine: sa.Engine, data: Path, tmp_path: Path) -> None:
    put_log(engine, data)
    again = report(engine, data, tmp_path / "scratch")
    assert [(line.variant, values(line)) for line in again.total] == [
        (line.variant, values(line)) for line in found.total
    ]


def test_cohorts_and_what_a_person_is_worth(found: Report) -> None:
    own = [row for row in found.cohorts if row["variant"] == EVERYBODY]
    assert [(row["week"], row["people"], row["active"]) for row in own] == [
        ("2026-03-02", 3, [1.0, 0.666667, 0.333333]),
        ("2026-03-16", 1, [1.0]),
    ]
    worth = found.lifetimes[EVERYBODY]
    assert (worth.weeks, worth.ratio) == (3, 0.5)
    assert worth.seen == pytest.approx(1 + 2 / 3 + 1 / 3)
    assert worth.value.value == pytest.approx(2 + 1 / 3 * (1 / 2 + 1 / 4))
    bounds = worth.value.low, worth.value.value, worth.value.high
    assert sorted(one for one in bounds if one is not None) == list(bounds)


def test_with_prices_the_value_is_money() -> None:
    active = np.zeros((2, 3, 3))
    active[0, 0], active[1, 2] = [3, 2, 1], [1, 0, 0]
    priced = LifetimeParams(value_per_week=2.0, value_per_hour=3.0, yearly_discount=0.0, horizon_weeks=5)
    hours = np.array([[1.0, 6.0], [0.5, 2.0]])  # of eight active weeks
    found = lifetime.value(lifetime.Cohorts(0, active), hours, priced, np.random.default_rng(0))
    assert found.value.value == pytest.approx(2.25 * (2 + 3 * 1.5 / 8))


def test_what_comes_later_counts_less() -> None:
    active = np.zeros((2, 2, 2))
    active[0, 0], active[1, 0] = [3, 1], [1, 1]
    params = LifetimeParams(yearly_discount=0.5, horizon_weeks=50)
    cohorts = lifetime.Cohorts(0, active)
    found = lifetime.value(cohorts, np.ones((2, 2)), params, np.random.default_rng(0))
    assert found.value.value == pytest.approx(1 + 0.5 * 1.5 ** (-1 / 52))
    assert found.ratio is None  # of two weeks nothing can be said of what follows


def test_intervals_are_about_as_wide_as_the_binomial_says(sqlite_engine: sa.Engine, data: Path, tmp_path: Path) -> None:
    people = [f"p{n}" for n in range(400)]
    first = [event(user, "film", "viewed", at(2, 10)) for user in people]
    back = [event(user, "film", "viewed", at(9, 10)) for user in people[:100]]
    with writing(sqlite_engine) as connection:
        events.append(connection, [*first, *back, event(people[0], "film", "viewed", at(24, 10))], NOW)
    figure = weeks(report(sqlite_engine, data, tmp_path / "s"), EVERYBODY)[0].figures["retention"]
    half = 1.96 * (0.25 * 0.75 / 400) ** 0.5
    assert figure.value == 0.25
    assert figure.low == pytest.approx(0.25 - half, abs=0.012)
    assert figure.high == pytest.approx(0.25 + half, abs=0.012)


MOMENTS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.integers(0, 20 * 24 * 12).map(lambda five: five * 300_000) | st.integers(0, 20 * queries.DAY),
        st.sampled_from((None, 7, 8)),
    ),
    max_size=40,
)


@settings(max_examples=25)
@given(moments=MOMENTS)
def test_visits_and_retention_are_those_of_the_readable_twin(
    moments: list[tuple[int, int, int | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    start = at(2, 0)
    rules = figures._rules(ReportParams(), InteractionParams(), start, start + 22 * queries.DAY, 52)
    with connected(tmp_path_factory.getbasetemp() / "twin", 1, 256) as connection:
        rows = [(user, start + time, seen) for user, time, seen in moments]
        made = ", ".join(
            f"({user}, {seen or 9}, {time}, {time // queries.DAY}, {seen is not None})" for user, time, seen in rows
        )
        connection.execute(
            "CREATE TEMP TABLE acts AS SELECT *, FALSE AS shown, TRUE AS present, FALSE AS liked, 0::FLOAT AS seconds, "
            "NULL::VARCHAR AS variant FROM (VALUES (0::BIGINT, 7::BIGINT, 0::BIGINT, 0, FALSE)"
            + (f", {made}" if made else "")
            + ") AS given (person, item, time, day, viewed) WHERE time > 0"
        )
        for name, query in queries.tables(rules):
            if name not in ("everything", "machines", "acts"):
                connection.execute(f"CREATE TEMP TABLE {name} AS {query}")
        visits = connection.execute("SELECT person, day, views FROM visits ORDER BY ALL").fetchall()
        cells = figures._sums(connection, "week", rules)
    assert visits == visits_of(rows)
    for (week, variant), cell in cells.items():
        if variant == EVERYBODY:
            told = cell.sum(axis=0)[:3].tolist()
            assert told == list(retention_of(rows, week, rules.last("week")))


def visits_of(rows: list[tuple[int, int, int | None]]) -> list[tuple[int, int, int]]:
    """Person, day and number of items viewed of each visit."""
    found = []
    for person in sorted({user for user, _, _ in rows}):
        own = sorted(((time, seen) for user, time, seen in rows if user == person), key=lambda one: one[0])
        visit = [own[0]]
        for before, one in zip(own, [*own[1:], None], strict=True):
            if one is not None and one[0] - before[0] <= 30 * 60_000:
                visit.append(one)
                continue
            found.append((person, visit[0][0] // queries.DAY, len({seen for _, seen in visit} - {None})))
            visit = [one] if one is not None else []
    return sorted(found)


def retention_of(rows: list[tuple[int, int, int | None]], week: int, last: int) -> tuple[int, int, int]:
    """People of a week, those of them who come in the next, and of how many that can be said."""
    of = {
        number: {user for user, time, _ in rows if (time // queries.DAY + 3) // 7 == number}
        for number in (week, week + 1)
    }
    known = week < last
    return len(of[week]), len(of[week] & of[week + 1]) if known else 0, len(of[week]) if known else 0


def test_a_log_that_ended_is_reported_to_its_end(sqlite_engine: sa.Engine, data: Path, tmp_path: Path) -> None:
    with writing(sqlite_engine) as connection:
        events.append(connection, [event("ann", "film", "viewed", at(2, 10) - 365 * queries.DAY)], NOW)
    found = report(sqlite_engine, data, tmp_path / "scratch")
    assert (found.first, found.end) == ("2025-02-24", "2025-03-02T10:00+00:00")
    assert found.lifetimes == {} or found.lifetimes[EVERYBODY].value.value is None


def test_an_empty_log_and_a_missing_file_are_said_in_a_sentence(
    sqlite_engine: sa.Engine, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="no events yet"):
        report(sqlite_engine, data, tmp_path / "scratch")
    put_log(sqlite_engine, data)
    for file in (data / "events").glob("day=*/*.parquet"):
        file.unlink()
    with pytest.raises(DataFolderError, match="can't be read"):
        report(sqlite_engine, data, tmp_path / "scratch")


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    sqlite_engine: sa.Engine, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_log(sqlite_engine, data)
    tables, before = queries.tables, list((data / "events").glob("day=*/*.parquet"))
    times: list[int] = []

    def forget_first(rules: queries.Rules) -> list[tuple[str, str]]:
        times.append(len(times))
        if len(times) == 1:
            with reading(sqlite_engine) as connection:
                keys = identities.user_keys(connection, ["robot"], None)
            retention.forget(sqlite_engine, data / "events", list(keys.values()))
        return tables(rules)

    monkeypatch.setattr(queries, "tables", forget_first)
    found = report(sqlite_engine, data, tmp_path / "scratch")
    assert (len(times), any(path.exists() for path in before)) == (2, False)
    assert (found.machines, found.total[0].people) == (0, 4)


def test_the_command_answers_as_json_as_a_table_and_as_one_page(sqlite_engine: sa.Engine, data: Path) -> None:
    put_log(sqlite_engine, data)
    run = CliRunner()
    told = run.invoke(app, ["report", "--data", str(data), "--html", str(data / "r.html"), "--json", "--threads", "1"])
    assert told.exit_code == 0, told.output
    answer = json.loads(told.stdout)
    assert {"retention", "people", "reach"} <= set(answer["weeks"][0])
    assert [line["variant"] for line in answer["total"]] == [None, "A", "B", "none", "several"]
    with reading(sqlite_engine) as connection:
        assert answer["events"] == events.last_seq(connection)
    written = (data / "r.html").read_text()
    assert written.count("<svg") >= 20
    assert "http" not in written
    assert not list(data.glob("report-*"))
    shown = run.invoke(app, ["report", "--data", str(data), "--threads", "1"]).stdout
    assert "visits without a view" in shown
    assert "Lifetime value = " in shown


def test_ids_of_variants_are_data_in_the_page(sqlite_engine: sa.Engine, data: Path, tmp_path: Path) -> None:
    hostile = [
        event("a", "x", "viewed", at(day, 10), variant=name)
        for day in (3, 10)
        for name in ("<script>alert(1)</script>",)
    ]
    with writing(sqlite_engine) as connection:
        events.append(connection, [*hostile, event("b", "x", "viewed", at(17, 1))], NOW)
    written = page.to_html(report(sqlite_engine, data, tmp_path / "scratch"), "x")
    assert "<script>" not in written
    assert "&lt;script&gt;" in written
