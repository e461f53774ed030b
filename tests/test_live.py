from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import NOW, World, item

from palate import catalog, identities, people
from palate.database import reading, writing
from palate.domain import to_milliseconds
from palate.interactions import InteractionParams
from palate.live import Live, Person
from palate.pool import NO_DATE, Pool


@pytest.fixture
def world(engine: sa.Engine, data: Path) -> World:
    return World(engine, data)


def person(world: World, user: str) -> Person:
    with reading(world.engine) as connection:
        return world.live.person(connection, user, world.live.snapshot)


def history(world: World, user: str) -> dict[int, float | None]:
    """Label by item key, None for one that was only seen; oldest first."""
    own = person(world, user).history
    return {
        int(key): None if np.isnan(label) else float(label) for key, label in zip(own.items, own.labels, strict=True)
    }


def labels(pool: Pool, row: int) -> list[str]:
    return [pool.label_names.values[number] for number in pool.labels_of(row)]


def test_the_pool_has_what_the_catalog_has(world: World) -> None:
    world.add(item("a", "s1", "x", "y", language="en"), item("b", None, hours=None), item("c", "s2", "y"))
    pool = world.live.pool
    assert pool.keys.tolist() == world.keys("a", "b", "c")
    hour_ago = to_milliseconds(NOW - timedelta(hours=1))
    assert pool.published.tolist() == [hour_ago, NO_DATE, hour_ago]
    assert [labels(pool, row) for row in range(3)] == [["x", "y"], [], ["y"]]
    assert [pool.languages.values[number] if number >= 0 else None for number in pool.language] == ["en", None, None]
    assert pool.source[1] == -1
    assert pool.source[0] != pool.source[2]


def test_changed_and_deleted_items_take_the_place_of_the_old_ones(world: World) -> None:
    world.add(item("a", "s1", "x"), item("b", "s1", "x"), item("c", "s1", "x", "z"))
    before = world.live.pool
    world.add(item("a", "s1", "w", "v"), item("d", "s2"), now=NOW + timedelta(seconds=1))
    with writing(world.engine) as connection:
        catalog.delete(connection, "b", NOW + timedelta(seconds=2))
    world.live.refresh(NOW + timedelta(seconds=2))
    pool = world.live.pool
    assert pool.keys.tolist() == world.keys("a", "c", "d")
    assert [labels(pool, row) for row in range(3)] == [["w", "v"], ["x", "z"], []]
    assert len(before) == 3  # who works with the old one still has it whole


def test_a_transaction_that_becomes_visible_late_is_not_missed(world: World) -> None:
    world.add(item("a", "s1"))
    for seconds in (10, 20, 40):
        world.live.refresh(NOW + timedelta(seconds=seconds))
    with writing(world.engine) as connection:
        catalog.upsert(connection, [item("late", "s1")], NOW + timedelta(seconds=5))
    world.live.refresh(NOW + timedelta(seconds=41))
    assert world.live.pool.keys.tolist() == world.keys("a", "late")


def test_nothing_new_leaves_the_pool_as_it_is(world: World) -> None:
    world.add(item("a", "s1"))
    pool = world.live.pool
    world.live.refresh(NOW + timedelta(minutes=10))
    assert world.live.pool is pool


def test_a_snapshot_brings_vectors_and_unknown_items_start_at_their_source(world: World) -> None:
    world.add(item("a", "s1"), item("b", "s1"), item("c", "s2"))
    world.publish({"a": [1.0, 0.0], "b": [0.0, 1.0]}, bias={"a": 0.2}, popularity={"b": (0.75, 8.0)})
    world.add(item("d", "s1"), now=NOW + timedelta(seconds=1))
    pool = world.live.pool
    assert pool.vectors.tolist() == [[1, 0], [0, 1], [0, 0], [0.5, 0.5]]
    assert pool.bias.tolist() == pytest.approx([0.2, 0, 0, 0.1])
    assert pool.popularity.tolist() == pytest.approx([0.5, 0.75, 0.5, 0.5])
    assert pool.evidence.tolist() == [0, 8, 0, 0]
    assert pool.model.version == world.live.snapshot.version if world.live.snapshot else False


def test_a_broken_snapshot_is_not_used(world: World) -> None:
    world.add(item("a", "s1"))
    world.publish({"a": [1.0]})
    good = world.live.snapshot
    world.publish({"a": [2.0]}, created=to_milliseconds(NOW) + 5)
    assert world.live.pool.vectors.tolist() == [[2.0]]
    newer = world.live.snapshot
    assert newer is not None
    assert good is not None
    path = newer.path / "item_vectors.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # the mapped one stays whole
    path.write_bytes(content)
    fresh = Live(world.engine, world.data)
    fresh.refresh(NOW)
    assert fresh.snapshot is not None
    assert fresh.snapshot.version == good.version
    assert fresh.pool.vectors.tolist() == [[1.0]]


def test_serving_goes_on_when_all_snapshots_are_gone(world: World) -> None:
    world.add(item("a", "s1"))
    world.publish({"a": [1.0]})
    shutil.rmtree(world.data / "snapshots")
    world.live.refresh(NOW)
    assert world.live.pool.vectors.tolist() == [[1.0]]


def test_nobody_is_a_person_without_anything(world: World) -> None:
    unknown = person(world, "nobody")
    assert unknown.key is None
    assert len(unknown.history) == 0


def test_newer_events_continue_the_history_of_the_snapshot(world: World) -> None:
    world.add(*(item(id, "s1") for id in "abcde"))
    a, b, c, d, e = world.keys(*"abcde")
    world.publish({id: [0.0] for id in "abcde"}, users={"ann": ([0.5], 0.1, {"a": 1.0, "b": 0.0, "c": np.nan})})
    assert history(world, "ann") == {a: 1, b: 0, c: None}
    assert person(world, "ann").bias == pytest.approx(0.1)
    world.act("ann", "shown", "d")
    world.act("ann", "like", "b", now=NOW + timedelta(seconds=1))
    world.act("ann", "dislike", "e", now=NOW + timedelta(seconds=2))
    assert history(world, "ann") == {a: 1, b: 1, c: None, d: None, e: 0}
    assert list(history(world, "ann"))[-1] == e


def test_a_retraction_takes_back_what_the_snapshot_learned(world: World) -> None:
    world.add(item("a", "s1"))
    (a,) = world.keys("a")
    world.publish({"a": [0.0]}, users={"ann": ([0.5], 0.0, {"a": 1.0})})
    world.act("ann", "retract:like", "a")
    assert history(world, "ann") == {a: None}


def test_a_history_that_is_continued_is_the_one_that_is_read_anew(world: World, engine: sa.Engine, data: Path) -> None:
    ids = "abcdefghijklmnopqrst"
    world.add(*(item(id, "s1") for id in ids))
    world.publish({id: [0.0] for id in ids}, users={"ann": ([0.5], 0.1, {"a": 1.0, "b": 0.0, "c": np.nan})})
    random = np.random.default_rng(3)
    for second in range(60):
        type = random.choice(["shown", "shown", "like", "dislike", "viewed", "retract:like"])
        several = random.choice(list(ids), size=3 if type == "shown" else 1, replace=False)
        world.act("ann", str(type), *map(str, several), now=NOW + timedelta(seconds=second))
        other = Live(engine, data)
        other.refresh(NOW)
        continued, anew = history(world, "ann"), history(World(engine, data, other), "ann")
        assert list(continued.items()) == list(anew.items())


def test_a_view_does_not_undo_the_vote_that_the_snapshot_knows(world: World, engine: sa.Engine, data: Path) -> None:
    for rule in ("votes", "views"):
        live = Live(engine, data, InteractionParams(rule=rule))
        world = World(engine, data, live)
        world.add(item("a", "s1"))
        (a,) = world.keys("a")
        world.publish({"a": [0.0]}, users={"ann": ([0.5], 0.0, {"a": 1.0})})
        world.act("ann", "viewed", "a")
        assert history(world, "ann") == {a: 1}


def test_events_that_the_snapshot_knows_count_again_when_their_item_is_touched(world: World) -> None:
    world.add(item("a", "s1"))
    (a,) = world.keys("a")
    world.act("ann", "like", "a")
    world.act("ann", "dislike", "a", now=NOW + timedelta(seconds=1))
    world.publish({"a": [0.0]}, users={"ann": ([0.5], 0.0, {"a": 0.0})}, seq=2)
    world.act("ann", "retract:dislike", "a", now=NOW + timedelta(seconds=2))
    assert history(world, "ann") == {a: 1}  # the like before it holds again


def test_ratings_are_read_on_the_scale_that_training_found(world: World) -> None:
    world.add(item("a", "s1"), item("b", "s1"))
    a, b = world.keys("a", "b")
    world.publish({"a": [0.0], "b": [0.0]}, rating_range=[1.0, 5.0])
    world.act("ann", "rating", "a", value=4.0)
    world.act("ann", "rating", "b", value=3.0, now=NOW + timedelta(seconds=1))
    assert history(world, "ann") == {a: 0.75, b: 0.5}


def test_ids_of_one_person_share_what_was_seen_and_chosen(world: World) -> None:
    world.add(*(item(id, "s1") for id in "abc"))
    a, b, c = world.keys(*"abc")
    world.publish(
        {id: [0.0] for id in "abc"},
        users={"cookie": ([0.5], 0.0, {"a": 1.0}), "ann": ([0.25], 0.0, {"a": np.nan, "b": 0.0})},
    )
    world.act("cookie", "like", "c")
    with writing(world.engine) as connection:
        keys = identities.user_keys(connection, ["cookie", "ann"], None)
        identities.join(connection, keys["cookie"], keys["ann"])
        people.set_choices(connection, keys["ann"], people.Choices(topics=("x",), languages=("en",), window_days=2))
        people.choose_source(connection, keys["ann"], 7, "hidden", NOW)
        people.choose_source(connection, keys["ann"], 8, "followed", NOW)
    for user in ("cookie", "ann"):
        assert history(world, user) == {a: 1, b: 0, c: 1}
        own = person(world, user)
        assert (own.key, own.topics, own.languages, own.window) == (keys["ann"], ("x",), ("en",), timedelta(days=2))
        assert (own.hidden, own.followed) == ((7,), (8,))
        assert own.vector is not None
        assert own.vector.tolist() == [0.25]


def test_only_what_was_shown_long_ago_and_not_answered_is_unanswered(world: World) -> None:
    world.add(*(item(id, "s1") for id in "abcd"))
    early, late = NOW - timedelta(hours=3), NOW - timedelta(minutes=5)
    world.act("ann", "shown", "a", "b", now=early)
    world.act("ann", "shown", "c", now=early - timedelta(hours=1))
    world.act("ann", "viewed", "b", now=early)
    world.act("ann", "shown", "d", now=early)
    world.act("ann", "shown", "d", now=late)
    with reading(world.engine) as connection:
        ann = world.live.person(connection, "ann", None)
        waiting = world.live.unanswered(connection, ann, NOW - timedelta(hours=1))
        nobody = world.live.unanswered(connection, Person(), NOW)
    assert waiting.tolist() == world.keys("c", "a")
    assert len(nobody) == 0
