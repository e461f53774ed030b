"""Editions: who judged what, what is surely liked more than most, and when it comes out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import NOW, World, item
from hypothesis import given
from hypothesis import strategies as st

from palate import editions, events, identities
from palate.database import reading, writing
from palate.domain import Event, to_milliseconds
from palate.editions import EditionParams, Judged
from palate.interactions import InteractionParams

HOURLY = EditionParams(every_hours=1, least=0, most=60, judged_by=1)


def told(world: World, id: str, likes: int, views: int, *, probability: float = 1.0, now: datetime = NOW) -> None:
    """So many readers were shown the item with this probability and viewed it, the first of them liked it."""
    time = to_milliseconds(now)
    happened = []
    for reader in range(views):
        user = f"{id}-{probability}-{reader}"
        happened.append(Event(user=user, item=id, type="shown", time=time, probability=probability))
        happened.append(Event(user=user, item=id, type="viewed", time=time))
        if reader < likes:
            happened.append(Event(user=user, item=id, type="like", time=time))
    with writing(world.engine) as connection:
        events.append(connection, happened, now)


def release(world: World, params: EditionParams, now: datetime = NOW) -> list[str] | None:
    """Ids of what came out, best first; None when nothing did."""
    found = editions.release_due(world.engine, {"morning": params}, InteractionParams(), now)
    return _ids(world, found[0].items.tolist()) if found else None


def _ids(world: World, keys: Sequence[int]) -> list[str]:
    with reading(world.engine) as connection:
        names = identities.item_ids(connection, keys)
    return [names[key] for key in keys]


@pytest.fixture
def world(engine: sa.Engine, data: Path) -> World:
    world = World(engine, data)
    world.add(*(item(name) for name in ("loved", "lucky", "plain", "unseen")))
    told(world, "loved", 40, 50)
    told(world, "lucky", 1, 1)
    told(world, "plain", 5, 50)
    return world


def test_what_many_surely_like_comes_before_one_lucky_like(world: World) -> None:
    assert release(world, EditionParams(every_hours=1, least=3, judged_by=1)) == ["loved", "lucky", "plain"]


def test_beyond_the_least_only_what_is_surely_above_the_usual_is_in(world: World) -> None:
    assert release(world, HOURLY) == ["loved"]


def test_what_too_few_have_judged_waits(world: World) -> None:
    assert release(world, EditionParams(every_hours=1, least=3, judged_by=5)) == ["loved", "plain"]


def test_an_item_is_in_one_edition_and_each_hour_has_one(world: World) -> None:
    assert release(world, HOURLY) == ["loved"]
    assert release(world, HOURLY) is None
    world.add(item("late"))
    told(world, "late", 30, 30, now=NOW + timedelta(minutes=30))
    assert release(world, HOURLY, NOW + timedelta(minutes=30)) is None
    assert release(world, HOURLY, NOW + timedelta(hours=1)) == ["late"]


def test_the_backlog_has_the_newest_edition_first(world: World) -> None:
    release(world, EditionParams(every_hours=1, least=2, judged_by=5))
    world.add(item("late"))
    told(world, "late", 30, 30)
    release(world, EditionParams(every_hours=1, least=1, judged_by=5), NOW + timedelta(hours=1))
    with reading(world.engine) as connection:
        assert _ids(world, editions.backlog(connection, "morning", 10).tolist()) == ["late", "loved", "plain"]
        assert _ids(world, editions.backlog(connection, "morning", 2).tolist()) == ["late", "loved"]
        assert not len(editions.backlog(connection, "evening", 10))
        newest, first = editions.read(connection, "morning", 5)
    assert newest.released == first.released + timedelta(hours=1)
    assert first.rates == pytest.approx([0.8, 0.1])


def test_people_of_a_small_circle_count_less_than_those_who_met_it_by_chance(world: World) -> None:
    world.add(item("fans"), item("honest"))
    told(world, "fans", 30, 30)
    told(world, "fans", 0, 10, probability=0.01)
    told(world, "honest", 9, 20, probability=0.01)
    found = release(world, EditionParams(every_hours=1, least=5, judged_by=5))
    assert found is not None
    assert found.index("honest") < found.index("fans")


def test_what_came_long_ago_is_no_news(world: World) -> None:
    assert release(world, HOURLY, NOW + timedelta(hours=25)) is None


def test_old_editions_are_dropped(world: World) -> None:
    params = EditionParams(every_hours=1, least=1, judged_by=1, keep_days=1)
    assert release(world, params) is not None
    release(world, params, NOW + timedelta(days=2))
    with reading(world.engine) as connection:
        assert not len(editions.backlog(connection, "morning", 10))


def test_an_edition_of_one_language_leaves_out_the_others(world: World) -> None:
    world.add(item("deutsch", language="de"))
    told(world, "deutsch", 9, 10)
    assert release(world, EditionParams(every_hours=1, least=9, judged_by=1, languages=("de",))) == ["deutsch"]


def test_a_loop_brings_them_out_until_it_is_stopped(world: World) -> None:
    stop = threading.Event()

    def clock() -> datetime:
        stop.set()
        return NOW

    editions.follow(world.engine, {"morning": HOURLY}, InteractionParams(), stop, clock)
    with reading(world.engine) as connection:
        assert len(editions.backlog(connection, "morning", 10)) == 1


def test_another_process_may_be_quicker(world: World) -> None:
    empty = Judged(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), float("nan"))
    assert editions._store(world.engine, editions.chosen("morning", empty, HOURLY, NOW), HOURLY, NOW)
    assert not editions._store(world.engine, editions.chosen("morning", empty, HOURLY, NOW), HOURLY, NOW)
    assert release(world, HOURLY) is None


@given(
    likes=st.integers(0, 200),
    views=st.integers(1, 200),
    confidence=st.floats(0, 5, allow_nan=False, allow_infinity=False),
)
def test_the_lower_bound_lies_below_the_rate_and_rises_with_evidence(likes: int, views: int, confidence: float) -> None:
    rate = np.array([min(likes, views) / views])
    few = editions.lower_bounds(rate, np.array([float(views)]), confidence)
    many = editions.lower_bounds(rate, np.array([views * 10.0]), confidence)
    assert 0 <= few[0] <= rate[0] + 1e-9
    assert many[0] >= few[0] - 1e-9


def test_the_lower_bound_is_wilsons() -> None:
    found = editions.lower_bounds(np.array([0.8]), np.array([50.0]), 1.96)
    assert found == pytest.approx([0.66964], abs=1e-4)


def test_all_events_are_read_whatever_the_size_of_a_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editions, "PAGE", 7)
    assert release(world, EditionParams(every_hours=1, least=3, judged_by=1)) == ["loved", "lucky", "plain"]


def test_a_least_above_the_most_is_refused() -> None:
    with pytest.raises(ValueError, match="least"):
        EditionParams(least=61)
