from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np

from palate.domain import Event, Item, to_milliseconds
from palate.evaluation.simulation import Reader, affinities, readers, simulate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sample(count: int) -> list[Item]:
    """Items of five topics, three sources and two languages (three in four English), one an hour, the newest now."""
    return [
        Item(
            id=f"item-{number}",
            source=f"source-{number % 3}",
            labels=(("sport", "art", "science", "food", "travel")[number % 5],),
            language="ru" if number % 4 == 0 else "en",
            published=NOW - timedelta(hours=number),
        )
        for number in range(count)
    ]


def simulated(seed: int, count: int = 40) -> tuple[list[Item], list[Reader], list[Event]]:
    rng, items = np.random.default_rng(seed), sample(200)
    people = readers(rng, count, items)
    return items, people, simulate(items, people, rng, NOW, days=7)


def test_the_same_seed_gives_the_same_events() -> None:
    assert simulated(3)[2] == simulated(3)[2]
    assert simulated(3)[2] != simulated(4)[2]


def test_events_lie_in_the_given_days_in_order_and_after_the_item_was_published() -> None:
    items, _, events = simulated(1)
    published = {item.id: to_milliseconds(item.published) for item in items if item.published}
    times = [event.time for event in events if event.time is not None]
    assert len(times) == len(events)
    assert times == sorted(times)
    assert to_milliseconds(NOW - timedelta(days=7)) <= times[0]
    assert times[-1] <= to_milliseconds(NOW)
    assert all(event.time is not None and event.time >= published[event.item] for event in events)


def test_everything_starts_with_being_shown_once() -> None:
    _, _, events = simulated(1)
    seen: dict[tuple[str, str], list[str]] = defaultdict(list)
    for event in events:
        seen[event.user, event.item].append(event.type)
    assert {types[0] for types in seen.values()} == {"shown"}
    assert all(types.count("shown") == 1 for types in seen.values())
    assert all(types[1] == "viewed" for types in seen.values() if len(types) > 1)
    assert {type for types in seen.values() for type in types} == {
        "shown",
        "viewed",
        "opened",
        "like",
        "dislike",
        "save",
    }


def test_views_have_a_dwell_and_shows_a_position() -> None:
    _, _, events = simulated(1)
    assert all(0 < (event.value or 0) <= 90 for event in events if event.type == "viewed")
    assert {event.position for event in events if event.type == "shown"} == set(range(20))


def test_likes_follow_the_ground_truth() -> None:
    items, people, events = simulated(2, count=150)
    truth = affinities(people, items)
    rows = {reader.id: row for row, reader in enumerate(people)}
    places = {item.id: place for place, item in enumerate(items)}
    votes = [event for event in events if event.type in ("like", "dislike")]
    chance = np.array([truth[rows[event.user], places[event.item]] for event in votes])
    liked = np.array([event.type == "like" for event in votes])
    assert len(votes) > 2000
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        band = (chance >= low) & (chance < high)
        assert abs(liked[band].mean() - chance[band].mean()) < 0.08


def test_a_favourite_topic_is_liked_more_and_a_foreign_language_less() -> None:
    items = sample(60)
    fan = Reader(
        id="fan",
        labels=frozenset({"sport"}),
        disliked_labels=frozenset({"art"}),
        sources=frozenset(),
        languages=frozenset({"en"}),
        generosity=0.0,
        activity=1.0,
    )
    (truth,) = affinities([fan], items)
    by_kind = defaultdict(list)
    for item, chance in zip(items, truth, strict=True):
        by_kind[item.labels[0] if item.language == "en" else "foreign"].append(chance)
    assert np.mean(by_kind["sport"]) > 0.7 > 0.65 > np.mean(by_kind["food"]) > 0.35 > np.mean(by_kind["art"])
    assert np.mean(by_kind["foreign"]) < 0.25


def test_items_that_say_nothing_about_themselves_can_be_simulated() -> None:
    rng, items = np.random.default_rng(5), [Item(id=f"bare-{number}") for number in range(30)]
    people = readers(rng, 3, items)
    assert affinities(people, items).shape == (3, 30)
    assert {event.item for event in simulate(items, people, rng, NOW, days=3)} <= {item.id for item in items}


def test_nobody_and_nothing_give_no_events() -> None:
    rng = np.random.default_rng(6)
    assert readers(rng, 0, sample(3)) == []
    assert simulate([], readers(rng, 2, []), rng, NOW, days=3) == []
