"""The order of stories: who tells them, how lately, and what readers did with them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from feed_world import NOW, World, item

from palate import catalog, events, front_page, ingest, retention
from palate.database import writing
from palate.domain import Item
from palate.front_page import Asked, Story
from palate.story_window import StoryParams

DAY = timedelta(days=1)


@pytest.fixture
def world(engine: sa.Engine, data: Path) -> World:
    world = World(engine, data)
    world.add(
        *(item(f"storm-{n}", f"paper-{n}", hours=n, language="en") for n in (1, 2, 3)),
        *(item(f"vote-{n}", f"paper-{n}", hours=n, language="en") for n in (1, 2)),
        item("alone", "paper-1", hours=1, language="en"),
        item("blog", "paper-1", hours=1, language="en"),
        item("rad", "blatt", hours=1, language="de"),
        item("unknown", "paper-1", hours=1),
    )
    world.tell("storm-2 storm-1 storm-3", category="society")
    world.tell("vote-1 vote-2", category="economy")
    with writing(engine) as connection:
        connection.execute(sa.text("UPDATE items SET category = 'sports', updated = updated + 9 WHERE id = 'alone'"))
    world.live.refresh(NOW + timedelta(minutes=1))
    return world


def read(world: World, now: timedelta = timedelta(), period: timedelta = DAY, **asked: str) -> list[Story]:
    return front_page.read(world.live, Asked(NOW + now, period, **asked), StoryParams())  # type: ignore[arg-type]


def ids(stories: list[Story]) -> list[str]:
    return [story.headline.id for story in stories]


def test_what_most_sources_tell_comes_first(world: World) -> None:
    found = read(world)
    assert ids(found)[:2] == ["storm-2", "vote-1"]
    assert set(ids(found)[2:]) == {"alone", "rad"}  # what is no news, or in no known language, is no story
    storm = found[0]
    assert [told.id for told in storm.items] == ["storm-3", "storm-2", "storm-1"]
    assert (storm.id, storm.category, storm.language) == (str(world.keys("storm-1")[0]), "society", "en")
    assert (storm.standing.sources, storm.standing.documents) == (3, 3)


def test_language_category_and_period_leave_others_out(world: World) -> None:
    assert ids(read(world, language="de")) == ["rad"]
    assert ids(read(world, category="economy")) == ["vote-1"]
    assert ids(read(world, language="de", category="economy")) == []
    assert [told.id for told in read(world, period=timedelta(hours=1.5), category="society")[0].items] == ["storm-1"]
    assert read(world, now=-timedelta(days=3)) == []


def test_only_as_many_as_asked_for(world: World) -> None:
    found = front_page.read(world.live, Asked(NOW, DAY, limit=1), StoryParams())
    assert ids(found) == ["storm-2"]


def test_a_deleted_item_is_no_part_of_its_story(world: World) -> None:
    with writing(world.engine) as connection:
        catalog.delete(connection, "storm-2", NOW)
    assert [told.id for told in read(world)[0].items] == ["storm-3", "storm-1"]


def test_readers_move_a_story_up_and_silence_down(world: World) -> None:
    for n in range(100):
        world.act(f"u{n}", "shown", "vote-1", "storm-1")
        world.act(f"u{n}", "opened", "vote-1")
        world.act(f"u{n}", "like", "vote-2")
    found = read(world)
    assert ids(found)[0] == "vote-1"
    assert found[0].standing.readers > 1 > found[1].standing.readers


def test_a_source_that_many_others_link_to_rises(engine: sa.Engine, data: Path) -> None:
    world = World(engine, data)
    world.add(
        item("here", "paper-1", hours=2, language="de", url="https://one.example/1"),
        item("there", "paper-2", hours=1, language="de", url="https://two.example/1"),
    )
    assert ids(read(world)) == ["there", "here"]
    link = 'So <a href="https://www.one.example/1">we read</a>'
    linking = [Item(id=f"l{n}", title="Elsewhere", text=link, url=f"https://s{n}.example/") for n in range(8)]
    ingest.store_items(engine, linking, NOW, understand=False)
    first, second = read(world, now=timedelta(hours=1))
    assert ids([first, second]) == ["here", "there"]
    assert first.standing.coverage > second.standing.coverage == pytest.approx(0.3)


def test_what_owners_mark_moves_a_story(world: World) -> None:
    with writing(world.engine) as connection:
        connection.execute(sa.text("UPDATE items SET mark = 4 WHERE id = 'vote-2'"))
    first, second, *_ = read(world)
    assert (first.headline.id, first.standing.mark, second.standing.mark) == ("vote-1", 4.0, 1.0)


def test_what_readers_did_is_followed_and_counts_once_when_it_is_sealed(world: World) -> None:
    import numpy as np

    key = np.array(world.keys("vote-1"), np.int64)
    readership = world.live.readership

    def counts(minutes: int) -> list[float]:
        found = readership.of(key, NOW + timedelta(minutes=minutes))
        return [float(values[0]) for values in (found.shown, found.opened, found.liked, found.watched)]

    world.act("ann", "shown", "vote-1")
    world.act("ann", "like", "vote-1")
    world.act("ann", "watch", "vote-1", value=0.5)
    world.act("bob", "watch", "vote-1", value=7.0)
    assert counts(0) == [1, 0, 1, 1.5]
    world.act("ann", "retract:like", "vote-1")
    world.act("bob", "opened", "vote-1")
    assert counts(0) == [1, 0, 1, 1.5]  # within five seconds nobody looks again
    assert counts(1) == [1, 1, 0, 1.5]
    with world.engine.connect() as connection:
        last = events.last_seq(connection)
    retention.seal(world.engine, world.data / "events", NOW + timedelta(days=3), last)
    assert counts(2) == [1, 1, 0, 1.5]
    world.act("cid", "shown", "vote-1")
    world.act("cid", "watch", "vote-1", value=0.25)
    assert counts(3) == [2, 1, 0, 1.75]
    with world.engine.connect() as connection:
        ann = connection.scalars(sa.text("SELECT key FROM users WHERE id = 'ann'")).one()
    retention.forget(world.engine, world.data / "events", [ann])
    assert counts(4)[3] == 1.25  # her half is gone from the sealed days, too
