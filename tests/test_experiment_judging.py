"""What people of an experiment did, worked out by hand, and what becomes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from palate import alerts, events, experiment_judging, experiment_page, experiments, identities, ingest, retention
from palate.cli import app
from palate.database import reading, writing
from palate.domain import Event, Item, to_milliseconds
from palate.evaluation.experiment_simulation import PopulationParams, run
from palate.experiment_judging import Judging, Look, judge
from palate.experiment_sums import SUMS, Day, by_day, rules_of
from palate.experiments import Experiment, ExperimentParams, Stored, Variant
from palate.interactions import InteractionParams
from palate.report_params import ReportParams

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
VARIANTS = (Variant(name="control"), Variant(name="bold", settings={"feed.exploration": 0.3}))
PARAMS = Judging(interactions=InteractionParams(max_events_per_day=10))
RULES = rules_of(PARAMS.experiments, PARAMS.report, PARAMS.interactions)


def begin(engine: sa.Engine, **given: object) -> Stored:
    with writing(engine) as connection:
        one = msgspec.convert({"name": "try", "variants": msgspec.to_builtins(VARIANTS), **given}, Experiment)
        return experiments.start(connection, one, START)


def happen(
    engine: sa.Engine, time: datetime, user: str, type: str, item: str, variant: str | None = None, **more: object
) -> None:
    said = None if variant is None else f"other:x;try:{variant}"
    event = Event(user=user, item=item, type=type, time=to_milliseconds(time), variant=said, **more)  # type: ignore[arg-type]
    with writing(engine) as connection:
        events.append(connection, [event], time)


def of(day: Day, number: int) -> list[dict[str, float]]:
    """What each person of a variant did, without what is 0."""
    return [
        {name: value for name, value in zip(SUMS, row, strict=True) if value}
        for row in day.sums[day.variant == number].tolist()
    ]


@pytest.fixture
def small(engine: sa.Engine, data: Path) -> Stored:
    """Ann (control) reads on three days; Bob (bold) looks and leaves; Cid is served both; a robot; Dan before the start."""
    ingest.store_items(
        engine, [Item(id="film", title="film", duration=3600.0), Item(id="post", title="post")], START, understand=False
    )
    happen(engine, START - MINUTE, "dan", "shown", "film", "bold")
    stored = begin(engine)
    happen(engine, START + MINUTE, "ann", "like", "post")  # before she was served
    for item in ("film", "post"):
        happen(engine, START + 2 * MINUTE, "ann", "shown", item, "control")
    happen(engine, START + 3 * MINUTE, "ann-phone", "watch", "film", value=0.5)
    happen(engine, START + 3 * MINUTE, "ann", "opened", "film")  # the same look
    happen(engine, START + 20 * MINUTE, "ann", "like", "film")
    happen(engine, START + 60 * MINUTE, "ann", "shown", "post", "control")
    happen(engine, START + 5 * MINUTE, "bob", "shown", "post", "bold", surface="bot")
    happen(engine, START + 6 * MINUTE, "cid", "shown", "post", "bold")
    happen(engine, START + 7 * MINUTE, "cid", "shown", "film", "control")
    happen(engine, START + 8 * MINUTE, "robot", "shown", "film", "bold")
    for second in range(11):
        happen(engine, START + 9 * MINUTE + timedelta(seconds=second), "robot", "viewed", "film")
    midnight = START.replace(hour=0) + DAY
    happen(engine, midnight - MINUTE, "bob", "shown", "film", "bold")
    happen(engine, midnight + MINUTE, "bob", "viewed", "film", value=30.0)
    happen(engine, midnight + 2 * DAY, "ann", "comment", "film")
    with writing(engine) as connection:
        keys = identities.user_keys(connection, ["ann", "ann-phone"], START)
        identities.join(connection, keys["ann-phone"], keys["ann"])
        last = events.last_seq(connection)
    retention.seal(engine, data / "events", midnight, last)
    return stored


def test_each_person_counts_from_when_they_were_served(small: Stored, engine: sa.Engine, data: Path) -> None:
    first, second, third, today = by_day(engine, data / "events", small, RULES, START + 3 * DAY)
    assert [one.day for one in (first, second, third, today)] == [f"2026-03-0{day}" for day in range(2, 6)]
    assert [first.complete, today.complete] == [True, False]
    assert of(first, 0) == [
        {"people": 1, "shown": 3, "views": 1, "likes": 1, "opens": 1, "visits": 2, "empty_visits": 1, "hours": 0.5}
    ]
    assert of(first, 1) == [{"people": 1, "shown": 2, "visits": 1, "empty_visits": 1}]
    [bob] = of(second, 1)
    assert bob == {  # the visit went on after midnight, and so it isn't empty
        "people": 1, "shown": 2, "views": 1, "visits": 1, "hours": 30 / 3600, "followed_days": 1, "kept_days": 1,
    }  # fmt: skip
    [ann] = of(today, 0)
    assert (ann["comments"], ann["visits"], ann["followed_days"]) == (1, 3, 1)
    assert "kept_days" not in ann
    assert (first.several, first.machines, first.reached, first.catalogue) == (1, 1, (2, 2), 2)


def test_a_look_counts_once_in_a_visit_that_goes_on_after_midnight(sqlite_engine: sa.Engine, data: Path) -> None:
    stored, midnight = begin(sqlite_engine), START.replace(hour=0) + DAY
    happen(sqlite_engine, midnight - 2 * MINUTE, "bob", "shown", "post", "bold")
    for minutes, type, item in (
        (-1, "viewed", "post"), (1, "opened", "post"), (1, "viewed", "film"), (20, "viewed", "post"),
        (60, "viewed", "post"), (1439, "opened", "film"), (1441, "viewed", "film"),
    ):  # fmt: skip
        happen(sqlite_engine, midnight + minutes * MINUTE, "bob", type, item)
    views = [
        of(day, 1)[0]["views"] for day in by_day(sqlite_engine, data / "events", stored, RULES, midnight + 2 * DAY)
    ]
    assert views == [1, 4, 4]


def test_days_that_were_told_are_not_told_again(small: Stored, engine: sa.Engine, data: Path) -> None:
    found = by_day(engine, data / "events", small, RULES, START + 3 * DAY, "2026-03-03")
    assert [one.day for one in found] == ["2026-03-04", "2026-03-05"]


def test_an_experiment_that_nobody_was_served_by_has_no_days(engine: sa.Engine, data: Path) -> None:
    assert list(by_day(engine, data / "events", begin(engine), RULES, START + DAY)) == []


def test_weeks_are_kept_by_who_comes_back_in_the_next(sqlite_engine: sa.Engine, data: Path) -> None:
    stored = begin(sqlite_engine)
    for day, user in ((0, "ann"), (0, "bob"), (9, "ann"), (16, "bob")):
        happen(sqlite_engine, START + day * DAY, user, "shown", "post", "control")
    *_, last = by_day(sqlite_engine, data / "events", stored, RULES, START + 20 * DAY + DAY / 2)
    place = [SUMS.index(name) for name in ("followed_weeks", "kept_weeks")]
    assert last.sums[:, place].tolist() == [[2, 1], [1, 0]]


def day_of(likes: tuple[float, float], people: int = 3000, seed: int = 1) -> Day:
    """A day on which each variant's people like this share of what they view."""
    rng = np.random.default_rng(seed)
    variant = np.arange(2 * people) % 2
    sums = np.ones((2 * people, len(SUMS)))
    sums[:, SUMS.index("views")] = 20
    sums[:, SUMS.index("likes")] = rng.binomial(20, np.array(likes)[variant])
    return Day("2026-03-02", True, variant, sums, 0, 0, (5, 10), 20)


def looked(likes: tuple[float, float], **given: object) -> Look:
    one = Experiment(name="try", variants=VARIANTS)
    return experiment_judging.look(one, day_of(likes, **given), ExperimentParams())  # type: ignore[arg-type]


def test_a_look_tells_lifts_and_how_many_people_they_take() -> None:
    found = looked((0.2, 0.25)).figures["likes_per_view"]["bold"]
    assert found.relative == pytest.approx(0.25, abs=0.03)
    assert found.absolute == pytest.approx(0.05, abs=0.005)
    assert found.low is not None
    assert found.low > 0
    same = looked((0.2, 0.2))
    assert same.recommended == {"control": 0.25, "bold": 0.5}
    needed = {one.lift: one.people or 0 for one in same.needed}
    assert needed[0.01] > 3 * needed[0.02] > 9 * needed[0.05] > 0


def test_guards_fall_in_either_direction_of_good() -> None:
    params, one = ExperimentParams(), Experiment(name="try", variants=VARIANTS)
    assert experiment_judging.worse(looked((0.25, 0.2)), one, params) is not None
    assert experiment_judging.worse(looked((0.2, 0.25)), one, params) is None
    bad = day_of((0.2, 0.2))
    bad.sums[:, SUMS.index("empty_visits")] = np.where(
        bad.variant == 1, np.arange(6000) % 4 > 1, np.arange(6000) % 8 > 5
    )
    told = experiment_judging.worse(experiment_judging.look(one, bad, params), one, params)
    assert told is not None
    assert "bold does worse than the control in visits without view" in told
    lenient = msgspec.structs.replace(params, margin=0.9)
    assert experiment_judging.worse(looked((0.25, 0.2)), one, lenient) is None


def fill(engine: sa.Engine, likes: tuple[int, int], people: int = 160) -> None:
    """Two days of people who view ten posts each and like so many of them, by variant."""
    happened = []
    for number in range(people):
        variant, user = number % 2, f"p{number}"
        time = to_milliseconds(START + number * timedelta(seconds=1))
        name = f"try:{VARIANTS[variant].name}"
        happened.append(Event(user=user, item="i0", type="shown", time=time, variant=name))
        for place in range(10):
            happened.append(Event(user=user, item=f"i{place}", type="viewed", time=time + 1))
            if place < likes[variant] + (number // 2) % 2:
                happened.append(Event(user=user, item=f"i{place}", type="like", time=time + 2))
    with writing(engine) as connection:
        events.append(connection, happened, START + timedelta(hours=1))


def told(engine: sa.Engine) -> dict[str, str]:
    with reading(engine) as connection:
        return {one.kind: one.text for one in alerts.list_alerts(connection)}


def test_an_experiment_that_does_harm_stops_by_itself_on_the_next_day(sqlite_engine: sa.Engine, data: Path) -> None:
    begin(sqlite_engine, lift=0.3)
    fill(sqlite_engine, (6, 2), people=300)
    judge(sqlite_engine, data, PARAMS, START + timedelta(hours=11))
    assert told(sqlite_engine) == {}
    judge(sqlite_engine, data, msgspec.structs.replace(PARAMS, interactions=InteractionParams()), START + DAY)
    with reading(sqlite_engine) as connection:
        stored = experiments.find(connection, "try")
        [look] = experiment_judging.kept_looks(connection, stored)
    assert stored.reason is not None
    assert stored.reason.startswith("by itself: bold does worse than the control in likes per view")
    assert look.people == {"control": 150, "bold": 150}
    assert "Experiment try was stopped" in told(sqlite_engine)["experiment_stopped"]
    with writing(sqlite_engine) as connection:
        experiments.stop(connection, "try", "seen", START + DAY)
    assert told(sqlite_engine) == {}


def test_people_who_come_unevenly_are_an_alarm(sqlite_engine: sa.Engine, data: Path) -> None:
    begin(sqlite_engine)
    fill(sqlite_engine, (3, 3))
    with writing(sqlite_engine) as connection:
        more = [
            Event(user=f"q{number}", item="i0", type="shown", time=to_milliseconds(START), variant="try:bold")
            for number in range(900)
        ]
        events.append(connection, more, START)
    judge(sqlite_engine, data, Judging(), START + DAY)
    assert "aren't split as they should be (control 80, bold 980)" in told(sqlite_engine)["experiment_uneven"]


def test_a_model_that_the_snapshot_lost_stops_it(sqlite_engine: sa.Engine, data: Path) -> None:
    begin(sqlite_engine, variants=[{"name": "control"}, {"name": "bold", "settings": {"feed.model": "ials"}}])
    fill(sqlite_engine, (3, 3), people=8)
    judge(sqlite_engine, data, Judging(), START + DAY)
    assert "the newest snapshot has no model ials" in told(sqlite_engine)["experiment_stopped"]


def test_a_day_is_looked_at_once_by_a_process_of_its_own(sqlite_engine: sa.Engine, data: Path) -> None:
    begin(sqlite_engine)
    fill(sqlite_engine, (3, 3), people=4)
    with reading(sqlite_engine) as connection:
        assert experiment_judging.due(connection, START + timedelta(hours=11)) == []
        assert len(experiment_judging.due(connection, START + DAY)) == 1
    experiment_judging.watch(sqlite_engine, data, Judging(), START + DAY)
    with writing(sqlite_engine) as connection:
        assert experiment_judging.due(connection, START + DAY) == []
        assert len(experiment_judging.due(connection, START + 2 * DAY)) == 1
        experiments.stop(connection, "try", "enough", START + DAY + MINUTE)
        assert len(experiment_judging.due(connection, START + 2 * DAY)) == 1  # the day on which it was stopped
    judge(sqlite_engine, data, Judging(), START + 2 * DAY)
    with reading(sqlite_engine) as connection:
        assert experiment_judging.due(connection, START + 9 * DAY) == []
        [first, second] = experiment_judging.kept_looks(connection, experiments.find(connection, "try"))
    assert (first.day, second.day) == ("2026-03-02", "2026-03-03")
    assert first.people == second.people == {"control": 2, "bold": 2}


def test_a_day_on_which_nobody_was_served_is_looked_at_once(sqlite_engine: sa.Engine, data: Path) -> None:
    begin(sqlite_engine)
    judge(sqlite_engine, data, Judging(), START + DAY)
    with reading(sqlite_engine) as connection:
        assert experiment_judging.due(connection, START + DAY) == []
        found = experiments.find(connection, "try")
        looks = experiment_judging.kept_looks(connection, found)
    assert experiment_page.verdicts(found, looks, ExperimentParams()) == ["Nobody has been served by it yet."]


def test_the_daily_looks_of_nothing_rarely_alarm_and_those_of_much_find_it() -> None:
    one = Experiment(name="try", variants=VARIANTS, lift=0.5)
    people, params = PopulationParams(people=500, days=8), ExperimentParams()
    alarms, found = list[bool](), list[bool]()
    for seed in range(40):
        for effect, verdicts in ((0.0, alarms), (1.0, found)):
            days = run(one, people, {"bold": effect}, np.random.default_rng(seed))
            looks = [experiment_judging.look(one, day, params) for day in days]
            clear = experiment_judging.first_clear(looks, "likes_per_view", "bold")
            verdicts.append(clear is not None)
    assert np.mean(alarms) <= 0.05
    assert np.mean(found) >= 0.95


def test_the_report_says_what_is_clear_and_what_is_missing(small: Stored) -> None:
    stored, params = small, ExperimentParams()
    clear = [looked((0.2, 0.2)), msgspec.structs.replace(looked((0.2, 0.25)), day="2026-03-03")]
    [verdict] = experiment_page.verdicts(stored, clear, params)
    assert verdict.startswith("bold: likes per view +2")
    assert verdict.endswith("It does better than the control; that was clear on 2026-03-03.")
    [verdict] = experiment_page.verdicts(stored, clear[:1], params)
    assert "Not decided: a lift of 5 % is found with" in verdict
    html, text = experiment_page.body(stored, clear, params), experiment_page.text(stored, clear, params)
    assert html.count("<svg") == 2  # likes, and people
    assert "<td>feed.exploration = 0.3</td>" in html
    assert "catalogue recommended" in text


def test_the_commands_start_report_and_stop(data: Path) -> None:
    def palate(*arguments: str) -> str:
        found = CliRunner().invoke(app, ["experiment", *arguments, "--data", str(data)])
        assert found.exception is None, found.output
        return found.stdout

    palate(
        "start",
        "try",
        "--variant",
        "bold feed.exploration=0.3",
        "--ramp",
        "0:50",
        "--lift",
        "0.1",
        "--guard",
        "likes_per_view",
    )
    [row] = json.loads(palate("list", "--json"))
    assert [one["name"] for one in row["experiment"]["variants"]] == ["control", "bold"]
    assert (row["experiment"]["lift"], row["experiment"]["ramp"], row["stopped"]) == (0.1, [[0.0, 0.5]], None)
    assert "50 % of all people" in palate("list")
    assert "Nobody has been served by it yet." in palate("report", "try")
    assert json.loads(palate("report", "try", "--json", "--html", str(data / "try.html")))["looks"] == []
    assert "Experiment try" in (data / "try.html").read_text()
    assert "stopped" in palate("stop", "try")
    for arguments, why in (
        (["start", "x", "--variant", "b feed.model=ials"], "The newest snapshot has no model ials"),
        (["start", "x", "--variant", "b feed.nothing=1"], "There is no setting feed.nothing"),
        (["start", "x", "--variant", "b feed.ranker=score"], "The newest snapshot has no rankers"),
        (["start", "X", "--variant", "b feed.questions=1"], "this can't be an experiment"),
        (["estimate", "--variant", "b feed.questions=1"], "only feed.exploration can be estimated"),
        (["estimate", "--variant", "b feed.exploration=0.2"], "Nothing was shown"),
    ):
        found = CliRunner().invoke(app, ["experiment", *arguments, "--data", str(data)])
        assert why in str(found.exception)


def test_a_variant_is_estimated_from_what_was_shown_by_chance(sqlite_engine: sa.Engine, data: Path) -> None:
    from palate import experiment_estimates

    happened = []
    for number in range(200):
        explored = number % 10 == 0
        shown = Event(user=f"u{number % 20}", item=f"i{number}", type="shown", probability=0.02 if explored else 0.9)
        happened += [shown, Event(user=shown.user, item=shown.item, type="like")][
            : 2 if not explored and number % 2 else 1
        ]
    happened.append(Event(user="u1", item="i1", type="shown", probability=0.5))
    with writing(sqlite_engine) as connection:
        events.append(
            connection, [msgspec.structs.replace(one, time=to_milliseconds(START)) for one in happened], START
        )
    found = experiment_estimates.estimate(
        sqlite_engine, data / "events", {"feed.exploration": 0.2}, 0.1, ReportParams().liked, 2, START + DAY
    )
    assert found.left_out == 1
    one = found.likes_per_shown
    assert one.logged.value == pytest.approx(0.5)
    assert one.snips.value == pytest.approx(100 * (0.8 / 0.9) / (180 * (0.8 / 0.9) + 20 * 2))
    assert one.warning is not None
    assert "0.4444 [" in experiment_estimates.text(found)
