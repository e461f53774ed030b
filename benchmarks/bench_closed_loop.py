"""Are the verdicts of experiments right in the closed loop? Real serving, logging and learning, readers whose taste is known.

    python benchmarks/bench_closed_loop.py [--readers 240] [--days 4] [--bold 0.9] [--assignments 1000]

Three simulated installations in the same world: everybody served plainly, everybody with another share of exploration, and an
experiment that serves half of the people each way. Printed is what the report says of the experiment beside what the other two
show to be true; how often people who are all served alike are called different when they are assigned again by other salts, looked
at every day; and what the plain log's probabilities say that the other share would do, beside what it did.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import database, experiment_estimates, experiment_judging
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
from palate.train import Params, TrainParams

START = datetime(2026, 3, 2, tzinfo=UTC)
BEFORE = 0.1
JUDGING = Judging()
CONTROL, SAME = Variant(name="control"), Variant(name="same", settings={"feed.limit_max": 200})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=240)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--bold", type=float, default=0.9)
    parser.add_argument("--assignments", type=int, default=1000)
    asked = parser.parse_args()
    world = WorldParams(readers=asked.readers, visits_per_day=4, items_per_hour=8, more=0.3)
    bold = Variant(name="bold", settings={"feed.exploration": asked.bold})
    with tempfile.TemporaryDirectory() as folder:
        data, hours = Path(folder), 24 * asked.days
        plain = _run(world, data / "plain", hours, BEFORE, Experiment(name="aa", variants=(CONTROL, SAME), salt="0"))
        other = _run(world, data / "bold", hours, asked.bold, None)
        both = Experiment(name="ab", variants=(CONTROL, bold), salt="pepper", lift=0.1)
        _run(world, data / "both", hours, BEFORE, both)
        _told(data / "both", both, hours, plain, other)
        _alike(data / "plain", plain, asked.assignments)
        _estimated(data / "plain", asked.bold, hours, other)


def _run(params: WorldParams, data: Path, hours: int, exploration: float, tried: Experiment | None) -> Record:
    begin, training = time.perf_counter(), Params(train=TrainParams(min_pause=10_000))
    policy = Policy(data.name, feed=FeedParams(exploration=exploration), training=training, experiment=tried)
    record = closed_loop.run(worlds.create(params, 1, START), policy, data, hours)
    print(
        f"{data.name}: {len(record.shown):,} items shown, likes per view {_rate(record):.4f}, per item shown "
        f"{record.likes.sum() / len(record.shown):.4f}, truly liked {record.value.sum() / record.looks.sum():.4f} of what was "
        f"looked at; {time.perf_counter() - begin:.0f} s"
    )
    return record


def _rate(record: Record) -> float:
    return float(record.likes.sum() / record.views.sum())


def _told(data: Path, tried: Experiment, hours: int, plain: Record, other: Record) -> None:
    """What the report says, day by day, beside the lift between everybody served one way and everybody the other."""
    stored = Stored(key=1, experiment=tried, started=START, stopped=None, reason=None)
    engine = database.connect(None, data)
    looks = list(experiment_judging.looks(engine, data, stored, JUDGING, START + timedelta(hours=hours)))
    engine.dispose()
    print(f"experiment: the true lift of likes per view is {_percent(_rate(other) / _rate(plain) - 1)}")
    for look in looks:
        one = look.figures["likes_per_view"]["bold"]
        print(f"  {look.day} {look.people}: {_percent(one.relative)} [{_percent(one.low)}, {_percent(one.high)}]")
    stopped = next((why for look in looks if (why := experiment_judging.worse(look, tried, JUDGING.experiments))), None)
    print(f"  the guards: {stopped}")


def _percent(lift: float | None) -> str:
    return "unknown" if lift is None else f"{100 * lift:+.1f} %"


def _alike(data: Path, record: Record, assignments: int) -> None:
    """People who are all served alike, assigned again and again by other salts; each day is a look."""
    engine = database.connect(None, data)
    alike = Experiment(name="aa", variants=(CONTROL, SAME), lift=0.1)
    stored = Stored(key=1, experiment=alike, started=START, stopped=None, reason=None)
    rules = rules_of(JUDGING.experiments, JUDGING.report, JUDGING.interactions)
    days = list(by_day(engine, data / "events", stored, rules, START + timedelta(hours=record.hours)))
    came = _came(engine, record)
    engine.dispose()
    alarms = stopped = 0
    for salt in range(assignments):
        tried = msgspec.structs.replace(alike, salt=str(salt))
        again = assigned_again(days, tried, came)
        looks = [experiment_judging.look(tried, day, JUDGING.experiments) for day in again]
        alarms += experiment_judging.first_clear(looks, "likes_per_view", "same") is not None
        stopped += any(experiment_judging.worse(look, tried, JUDGING.experiments) is not None for look in looks)
    print(
        f"A/A: of {assignments:,} assignments {alarms} called different by likes per view, {stopped} stopped by a guard"
    )


def _came(engine: sa.Engine, record: Record) -> Mapping[str, int]:
    """Ids of people in the order of their keys, and the number of the day on which each was first shown something."""
    first = {reader: int(record.hour[record.reader == reader].min()) // 24 for reader in np.unique(record.reader)}
    ids = worlds.create(WorldParams(readers=record.readers), 1, START).ids
    days = {ids[reader]: day for reader, day in first.items()}
    with reading(engine) as connection:
        query = sa.select(database.users.c.id).order_by(database.users.c.key)
        return {id: days[id] for id in connection.scalars(query) if id in days}


def _estimated(data: Path, bold: float, hours: int, other: Record) -> None:
    engine, settings = database.connect(None, data), {experiment_estimates.SETTING: bold}
    end = START + timedelta(hours=hours)
    found = experiment_estimates.estimate(engine, data / "events", settings, BEFORE, ("like",), hours / 24, end)
    engine.dispose()
    print(experiment_estimates.text(found))
    print(f"  what it was, for everybody served that way: {other.likes.sum() / len(other.shown):.4f}")


if __name__ == "__main__":
    main()
