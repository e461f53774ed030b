"""The report of an experiment on what simulated readers did, against what the simulation knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from palate import database, experiment_estimates, experiment_judging, experiments, lifts
from palate.database import reading
from palate.evaluation import closed_loop
from palate.evaluation import world as worlds
from palate.evaluation.closed_loop import Policy, Record
from palate.evaluation.experiment_simulation import assigned_again
from palate.evaluation.world import WorldParams
from palate.experiment_judging import Judging
from palate.experiment_sums import by_day, rules_of
from palate.experiments import Experiment, Stored, Variant
from palate.feed_params import FeedParams

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
HOURS = 3
SMALL = WorldParams(readers=30, visits_per_day=12, items_per_hour=10, backlog_hours=12)
VARIANTS = (Variant(name="control"), Variant(name="same", settings={"feed.limit_max": 200}))


def test_the_report_counts_what_the_simulation_counted(tmp_path: Path) -> None:
    bold = Variant(name="bold", settings={"feed.exploration": 0.9})
    experiment = Experiment(name="chance", variants=(Variant(name="control"), bold), salt="pepper")
    world = worlds.create(SMALL, 1, START)
    record = closed_loop.run(world, Policy("both", experiment=experiment), tmp_path, HOURS)
    engine = database.connect(None, tmp_path)
    stored = Stored(key=1, experiment=experiment, started=START, stopped=None, reason=None)
    *_, look = experiment_judging.looks(engine, tmp_path, stored, Judging(), START + timedelta(hours=HOURS))
    engine.dispose()
    own = np.array([experiments.variant_of(experiment, id).name for id in world.ids])
    for name in ("control", "bold"):
        pages = own[record.reader] == name
        assert look.people[name] == len(np.unique(record.reader[pages]))
        found = look.figures["likes_per_view"][name].value
        assert found == pytest.approx(record.likes[pages].sum() / record.views[pages].sum())
    assert min(look.people.values()) > 5


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, sa.Engine, Path]:
    """Everybody is served alike, with much chance in it, and counted as of two variants."""
    data = tmp_path_factory.mktemp("alike")
    policy = Policy(
        "alike", feed=FeedParams(exploration=0.4), experiment=Experiment(name="aa", variants=VARIANTS, salt="0")
    )
    record = closed_loop.run(worlds.create(SMALL, 1, START), policy, data, HOURS)
    return record, database.connect(None, data), data


def test_people_who_are_served_alike_are_told_apart_by_few_assignments(
    alike: tuple[Record, sa.Engine, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifts, "FEWEST", 8)
    record, engine, data = alike
    tried = Experiment(name="aa", variants=VARIANTS, lift=0.3)
    stored, params = Stored(key=1, experiment=tried, started=START, stopped=None, reason=None), Judging()
    rules = rules_of(params.experiments, params.report, params.interactions)
    days = list(by_day(engine, data / "events", stored, rules, START + timedelta(hours=HOURS)))
    with reading(engine) as connection:
        came = dict.fromkeys(connection.scalars(sa.select(database.users.c.id).order_by(database.users.c.key)), 0)
    assert len(came) == len(np.unique(record.reader))
    told, alarms = 0, 0
    for salt in range(100):
        other = msgspec.structs.replace(tried, salt=str(salt))
        [day] = assigned_again(days, other, came)
        found = experiment_judging.look(other, day, params.experiments).figures["likes_per_view"]["same"]
        told += found.low is not None
        alarms += found.low is not None and found.high is not None and not found.low <= 0 <= found.high
    assert told > 80
    assert alarms <= 5


def test_what_less_chance_would_do_is_estimated_from_the_log_and_true(
    alike: tuple[Record, sa.Engine, Path], tmp_path: Path
) -> None:
    record, engine, data = alike
    wanted, end = {experiment_estimates.SETTING: 0.05}, START + timedelta(hours=HOURS)
    found = experiment_estimates.estimate(engine, data / "events", wanted, 0.4, ("like",), 1, end).likes_per_shown
    policy = Policy("calmer", feed=FeedParams(exploration=0.05))
    truly = closed_loop.run(worlds.create(SMALL, 1, START), policy, tmp_path, HOURS)
    assert found.choices == len(record.shown)
    assert found.snips.low is not None
    assert found.snips.high is not None
    assert found.snips.low < truly.likes.sum() / len(truly.shown) < found.snips.high
