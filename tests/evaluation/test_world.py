from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from palate.domain import to_milliseconds
from palate.evaluation import world as worlds
from palate.evaluation.world import HOUR, Page, Truths, WorldParams

START = datetime(2026, 3, 2, tzinfo=UTC)
SMALL = WorldParams(readers=40, sources=5, topics=4, items_per_hour=8)


def truths(topics: list[list[float]], promise: list[float] | None = None) -> Truths:
    count = len(topics)
    return Truths(
        topics=np.array(topics),
        quality=np.zeros(count),
        promise=np.array(promise or [0.0] * count),
        source=np.zeros(count, np.int64),
        published=np.full(count, to_milliseconds(START)),
    )


def test_the_seed_decides_everything() -> None:
    def told(seed: int) -> tuple[object, ...]:
        world = worlds.create(SMALL, seed, START)
        items, _ = worlds.published(world, 3)
        return items, worlds.visits(world, 3), worlds.drifted(world, worlds.tastes(world), 1).tolist()

    assert told(5) == told(5)
    assert all(one != other for one, other in zip(told(5), told(6), strict=True))


def test_hours_follow_one_another_also_before_the_start() -> None:
    world = worlds.create(SMALL, 1, START)
    for hour in (-2, 0, 7):
        _, found = worlds.published(world, hour)
        begin = to_milliseconds(START) + hour * HOUR
        times = [*found.published.tolist(), *(visit.time for visit in worlds.visits(world, hour))]
        assert times
        assert all(begin <= time < begin + HOUR for time in times)


def test_people_come_by_day_more_than_by_night() -> None:
    world = worlds.create(WorldParams(readers=400), 1, START)
    by_hour = [len(worlds.visits(world, hour)) for hour in range(24)]
    assert by_hour[15] > 4 * by_hour[3]
    assert sum(by_hour) == pytest.approx(400 * world.params.visits_per_day, rel=0.1)


def test_tastes_move_half_way_in_the_given_days_and_stay_as_various() -> None:
    world = worlds.create(WorldParams(readers=500, drift_days=1.0, taste_spread=1.5), 1, START)
    first = tastes = worlds.tastes(world)
    for hour in range(1, 25):
        tastes = worlds.drifted(world, tastes, hour)
    assert np.corrcoef(first.ravel(), tastes.ravel())[0, 1] == pytest.approx(0.5, abs=0.03)
    assert tastes.std() == pytest.approx(1.5, rel=0.03)


def test_a_world_that_hardly_drifts_keeps_its_tastes() -> None:
    world = worlds.create(WorldParams(readers=20, drift_days=1e6), 1, START)
    before = worlds.tastes(world)
    assert np.abs(worlds.drifted(world, before, 1) - before).max() < 0.05


def test_liking_is_the_log_odds_of_generosity_taste_and_age() -> None:
    params = WorldParams(readers=2, topics=2, sources=1, generosity_spread=0, loyalty_spread=0, ageing=0.5)
    world, tastes = worlds.create(params, 1, START), np.array([[2.0, -1.0], [0.0, 0.0]])
    two_days = to_milliseconds(START) + 48 * HOUR
    items = truths([[1.0, 0.0], [0.5, 1.0]])
    odds = np.exp([-1.0 + 2.0 - 1.0, -1.0 + 1.0 - 1.0 - 1.0])
    assert worlds.liking(world, tastes, 0, items, two_days) == pytest.approx(odds / (1 + odds))


def test_what_promises_more_is_taken_up_more_and_no_better_liked() -> None:
    liked = np.array([0.5, 0.5, 0.2])
    items = truths([[1.0, 0.0]] * 3, promise=[0.0, np.log(3), 0.0])
    assert worlds.attraction(liked, items) == pytest.approx([0.5, 0.75, 0.2])


def test_places_are_looked_at_by_the_power_law() -> None:
    params = WorldParams(position_bias=1.0)
    assert worlds.examination(params, np.array([0, 1, 3])) == pytest.approx([1, 1 / 2, 1 / 4])
    assert worlds.examination(WorldParams(position_bias=0), np.array([0, 9])) == pytest.approx([1, 1])


def test_views_are_looks_times_attraction_and_votes_tell_the_liking() -> None:
    page = Page("ann", "r", "s", to_milliseconds(START), ("top", "low", "dull", "hidden"))
    looks, taken, liked = np.array([1, 0.5, 1, 0]), np.array([0.8, 0.8, 0.1, 1]), np.array([0.9, 0.9, 0.2, 1])
    rng, rounds = np.random.default_rng(1), 2_000
    done = [
        (event.item, event.type)
        for _ in range(rounds)
        for event in worlds.deeds(page, looks, taken, liked, WorldParams(vote_share=0.5), rng)
    ]
    views = [done.count((item, "viewed")) / rounds for item in page.items]
    assert views == pytest.approx([0.8, 0.4, 0.1, 0], abs=0.03)
    likes, dislikes = done.count(("top", "like")), done.count(("top", "dislike"))
    assert likes / (likes + dislikes) == pytest.approx(0.9, abs=0.03)
    assert (likes + dislikes) / rounds == pytest.approx(0.5 * 0.8, abs=0.03)


def test_texts_of_one_topic_share_words() -> None:
    world = worlds.create(SMALL, 1, START)
    found = [worlds.published(world, hour) for hour in range(12)]
    words = [set(f"{item.title} {item.text}".split()) for items, _ in found for item in items]
    main = np.concatenate([one.topics.argmax(axis=1) for _, one in found])
    shared = np.array([[len(one & other) for other in words] for one in words])
    same, own = main[:, None] == main, np.eye(len(words), dtype=bool)
    assert shared[same & ~own].mean() > 1.2 * shared[~same].mean()
