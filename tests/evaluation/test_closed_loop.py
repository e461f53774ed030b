from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from palate import database, events
from palate.database import reading
from palate.domain import to_milliseconds
from palate.evaluation import closed_loop, policies
from palate.evaluation import world as worlds
from palate.evaluation.closed_loop import Order, Policy, Record
from palate.evaluation.policies import Outcome
from palate.evaluation.world import DAY_HOURS, HOUR, WorldParams
from palate.feed_params import FeedParams
from palate.train import Params, TrainParams

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
"""Before the hours at which most people come."""
TINY = WorldParams(readers=8, visits_per_day=10, items_per_hour=4, backlog_hours=6)
CLEAR = WorldParams(
    readers=25,
    visits_per_day=12,
    items_per_hour=15,
    backlog_hours=24,
    topics=3,
    sources=3,
    taste_spread=3.0,
    vote_share=1.0,
)
"""Readers who say much about few, strong likings."""
HOURS = 6
SERVED = Policy("served", feed=FeedParams(exploration=0.05, questions=0, source_spread=0, freshness=0))


def run(params: WorldParams, policy: Policy, data: Path, hours: int, seed: int = 1) -> Record:
    return closed_loop.run(worlds.create(params, seed, START), policy, data, hours)


def reference(order: Order, params: WorldParams = TINY, hours: int = 12) -> Record:
    return run(params, Policy(order, order), Path("nothing is written there"), hours)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    data = tmp_path_factory.mktemp("learned")
    return run(CLEAR, SERVED, data, HOURS), data


def test_the_oracle_has_nothing_to_regret() -> None:
    found = reference("oracle")
    assert len(found.value) > 20
    assert found.value == pytest.approx(found.best, rel=1e-12)


def test_every_other_order_regrets_something_and_none_gains_on_the_oracle() -> None:
    for order in ("random", "newest", "popular"):
        found = reference(order)
        assert (found.value <= found.best + 1e-12).all()
        assert found.value.sum() < 0.8 * found.best.sum()


def test_nobody_is_shown_an_item_twice_by_an_order() -> None:
    plenty = WorldParams(readers=8, items_per_hour=30)
    found = reference("newest", plenty)
    reader = np.repeat(found.reader, plenty.page)
    assert len(found.shown) == len(reader)
    assert len(np.unique(np.stack((reader, found.shown)), axis=1).T) == len(found.shown)


def test_all_policies_meet_the_same_visits() -> None:
    one, other = reference("oracle"), reference("random")
    assert one.reader[one.first].tolist() == other.reader[other.first].tolist()
    assert one.published.tolist() == other.published.tolist()


def test_the_same_seed_gives_the_same_record(tmp_path: Path) -> None:
    policy = Policy("served", feed=FeedParams(exploration=0.3))
    first, second = (run(TINY, policy, tmp_path / name, 3) for name in ("a", "b"))
    for field in fields(Record):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name
    assert first.cycles
    assert len(first.shown) > 50


def test_what_learns_beats_chance_by_the_truth(learned: tuple[Record, Path], tmp_path: Path) -> None:
    seeds = (2, 3)  # 25 readers of one world can't tell
    ours = Outcome(SERVED, (learned[0], *(run(CLEAR, SERVED, tmp_path / str(seed), HOURS, seed) for seed in seeds)))
    by_chance = Policy("random", "random")
    nowhere = Path("nothing is written there")
    chance = Outcome(by_chance, tuple(run(CLEAR, by_chance, nowhere, HOURS, seed) for seed in (1, *seeds)))
    assert learned[0].cycles >= 5
    more = policies.differences(ours, chance)["liked"]
    assert more.low is not None
    assert more.low > 0.02


def test_the_log_holds_what_was_simulated(learned: tuple[Record, Path]) -> None:
    record, data = learned
    engine = database.connect(None, data)
    logged = [event for batch in events.stream(engine, data / "events") for event in batch]
    with reading(engine) as connection:
        assert events.count(connection, None) == len(logged)
    engine.dispose()
    shown = [event for event in logged if event.type == "shown"]
    assert len(shown) == len(record.shown)
    assert sum(event.type == "like" for event in logged) == record.likes.sum()
    assert sum(event.type == "viewed" for event in logged) == record.views.sum()
    begin = to_milliseconds(START)
    assert all(begin <= (event.received or 0) < begin + HOURS * HOUR for event in logged)
    assert {event.surface for event in shown} == {closed_loop.SURFACE}
    drawn = [event.probability for event in shown if event.probability is not None and event.probability < 1]
    assert drawn
    assert any(event.snapshot is not None for event in shown)


def test_readers_who_like_what_they_see_ask_for_more() -> None:
    assert len(reference("oracle").value) > len(reference("random").value)


@pytest.mark.soak
def test_four_weeks_unattended_end_no_worse_than_they_began(tmp_path: Path) -> None:
    """By regret, which knows how good the best was that week."""
    params = WorldParams(readers=40, items_per_hour=5)
    training = Params(train=TrainParams(min_pause=14_000))
    week = 7 * DAY_HOURS
    found = Outcome(Policy("served"), (run(params, Policy("served", training=training), tmp_path, 4 * week),))
    change = policies.change(found, range(week), range(3 * week, 4 * week))["regret"]
    assert change.low is not None
    assert change.low <= 0
    assert found.records[0].cycles > 100
