"""Items join their stories as they come, change and go, just as if all had come at one time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
import sqlalchemy as sa

from palate import catalog, database, identities, ingest, story_window
from palate.database import reading, writing
from palate.domain import Item, to_milliseconds
from palate.errors import NotDurable
from palate.sources.fetching import FetchParams
from palate.story_window import StoryParams, StoryWindow

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARAMS = StoryParams()
EVENTS = {
    "storm": "A hurricane destroyed hundreds of houses on the coast, thousands fled from the flooded villages",
    "bank": "The central bank raised interest rates again because inflation remains far above its target this year",
    "match": "The national football team won the world cup final after penalties against the defending champions",
}


def told(id: str, event: str, source: str | None, hours: float = 1, title: str | None = None, **more: str) -> Item:
    published = NOW - timedelta(hours=hours)
    text = f"{EVENTS[event]}, {source} reports."
    return Item(id=id, title=title or EVENTS[event][:60], text=text, source=source, published=published, **more)  # type: ignore[arg-type]


@dataclass
class Desk:
    """An installation whose window is followed."""

    engine: sa.Engine
    window: StoryWindow | None = None
    now: datetime = NOW
    params: StoryParams = field(default_factory=StoryParams)

    def store(self, *items: Item) -> None:
        ingest.store_items(self.engine, items, self.now)

    def look(self, seconds: float = 5) -> StoryWindow:
        self.now += timedelta(seconds=seconds)
        if self.window is None:
            self.window = story_window.opened(self.engine, self.params, self.now)
        else:
            self.window = story_window.followed(self.engine, self.window, self.now)
        return self.window

    def stories(self) -> dict[str, list[str]]:
        """Ids of the items of each story by the id of its first, as the catalog says, the headline marked."""
        table, found = database.items, dict[str, list[str]]()
        with reading(self.engine) as connection:
            rows = connection.execute(sa.select(table).where(table.c.state == "live").order_by(table.c.id)).all()
        ids = {row.key: row.id for row in rows}
        for row in rows:
            if row.story is not None:
                found.setdefault(ids[row.story], []).append(row.id + "*" * (row.leads or 0))
        return found

    def written(self) -> dict[str, int]:
        with reading(self.engine) as connection:
            return {
                row.id: row.updated
                for row in connection.execute(sa.select(database.items.c.id, database.items.c.updated))
            }


@pytest.fixture
def desk(engine: sa.Engine) -> Desk:
    return Desk(engine)


def test_what_several_sources_tell_of_one_event_is_a_story(desk: Desk) -> None:
    desk.store(told("a", "storm", "s1", 3), told("b", "bank", "s1", 2), told("c", "storm", "s2"))
    assert len(desk.look()) == 3
    assert list(desk.stories()) == ["a"]
    assert [id.strip("*") for id in desk.stories()["a"]] == ["a", "c"]
    assert sum(id.endswith("*") for id in desk.stories()["a"]) == 1


def test_an_item_joins_when_it_comes_and_leaves_when_it_goes(desk: Desk) -> None:
    desk.store(told("a", "storm", "s1", 3))
    desk.look()
    assert desk.stories() == {}
    desk.store(told("c", "storm", "s2", 2), told("d", "storm", "s3", 4))
    desk.look()
    assert [id.strip("*") for id in desk.stories()["d"]] == ["a", "c", "d"]  # the first is the earliest
    with writing(desk.engine) as connection:
        catalog.delete(connection, "d", desk.now)
    desk.look()
    assert [id.strip("*") for id in desk.stories()["a"]] == ["a", "c"]
    desk.store(told("c", "bank", "s2", 2))
    desk.look()
    assert desk.stories() == {}


def test_only_rows_that_change_are_written(desk: Desk) -> None:
    desk.store(*(told(f"{event} {n}", event, f"s{n}", 5 - n) for event in EVENTS for n in range(2)))
    desk.look()
    before = desk.written()
    desk.look()
    assert desk.written() == before
    desk.store(told("storm 9", "storm", "s9"))
    desk.look()
    changed = {id for id, time in desk.written().items() if before.get(id) != time}
    assert changed <= {"storm 0", "storm 1", "storm 9"}
    assert "storm 9" in changed
    before = desk.written()
    desk.look(120)
    assert desk.written() == before


def test_items_that_others_stored_join_too_once_they_are_understood(desk: Desk) -> None:
    desk.store(told("a", "storm", "s1", 3))
    desk.look()
    ingest.store_items(desk.engine, [told("b", "storm", "s2")], desk.now, understand=False)
    desk.look()
    assert desk.stories() == {}
    ingest.understand_some(desk.engine, desk.now)
    desk.look()
    assert list(desk.stories()) == ["a"]


def test_languages_and_what_is_no_news_stay_apart(desk: Desk) -> None:
    recipe = "Mix the flour with butter and sugar. Bake the apple pie for 40 minutes. Enjoy it warm with cream."
    pies = [
        Item(id=f"pie {n}", title="How to bake apple pie", text=recipe, source=f"s{n}", published=NOW) for n in (1, 2)
    ]
    desk.store(
        told("a", "storm", "s1"),
        told("b", "storm", "s2", language="nl"),
        told("c", "storm", "s3", language="nl"),
        *pies,
    )
    desk.look()
    assert [{id.strip("*") for id in ids} for ids in desk.stories().values()] == [
        {"b", "c"}
    ]  # of Dutch no model can tell


def test_one_source_does_not_make_a_story_but_callers_without_one_do(desk: Desk) -> None:
    first = told("a", "storm", "s1")
    other = Item(
        id="b",
        title="Hurricane on the coast",
        text="Hundreds of houses were destroyed, villages flooded",
        source="s1",
        published=NOW,
    )
    desk.store(first, other)
    desk.look()
    assert desk.stories() == {}
    desk.store(told("c", "bank", None), told("d", "bank", None, 2))
    desk.look()
    assert list(desk.stories()) == ["d"]


def test_the_better_title_leads_the_story(desk: Desk) -> None:
    desk.store(
        told("a", "storm", "s1", 2, title="SHOCKING: HURRICANE DESTROYED HUNDREDS OF HOUSES!"),
        told("b", "storm", "s2", 2),
    )
    desk.look()
    assert desk.stories() == {"a": ["a", "b*"]}


def test_what_has_grown_too_old_stays_as_it_is(desk: Desk) -> None:
    desk.params = StoryParams(window_days=2)
    desk.store(told("a", "storm", "s1", 40), told("b", "storm", "s2", 30), told("c", "storm", "s3", 20))
    desk.look()
    assert [id.strip("*") for id in desk.stories()["a"]] == ["a", "b", "c"]
    desk.look(12 * 3600)
    assert [id.strip("*") for id in desk.stories()["a"]] == ["a"]
    assert [id.strip("*") for id in desk.stories()["b"]] == ["b", "c"]
    assert len(desk.look()) == 2


def test_a_restart_finds_the_same_whatever_came_and_went(desk: Desk) -> None:
    chance = Random(5)
    sources = [f"s{n}" for n in range(4)]
    for step in range(25):
        id = f"i{chance.randrange(14)}"
        if chance.random() < 0.25:
            with writing(desk.engine) as connection:
                catalog.delete(connection, id, desk.now)
        else:
            desk.store(told(id, chance.choice(list(EVENTS)), chance.choice(sources), chance.randrange(1, 60)))
        if step % 3 == 0:
            desk.look(chance.choice([1, 5, 100]))
    desk.look()
    followed, before = desk.stories(), desk.written()
    assert followed
    story_window.opened(desk.engine, desk.params, desk.now)
    assert desk.stories() == followed
    assert desk.written() == before


def test_a_failed_write_is_made_up_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.store(told("a", "storm", "s1", 3))
    desk.look()
    desk.store(told("b", "storm", "s2"))
    with monkeypatch.context() as patch:
        patch.setattr(story_window, "writing", lambda _: (_ for _ in ()).throw(NotDurable("The disk is full.")))
        with pytest.raises(NotDurable):
            desk.look()
    assert desk.stories() == {}
    desk.look()
    assert list(desk.stories()) == ["a"]


def test_the_loop_understands_and_joins(desk: Desk) -> None:
    ingest.store_items(desk.engine, [told("a", "storm", "s1"), told("b", "storm", "s2")], NOW, understand=False)
    ingest.run_once(desk.engine, ingest.IngestParams(), FetchParams(), desk.now)
    assert len(desk.stories()) == 1


def test_what_owners_mark_leads_its_story_as_soon_as_it_is_marked(desk: Desk) -> None:
    desk.store(told("a", "storm", "s1", 2, title="Hurricane on the coast!"), told("b", "storm", "s2", 2))
    desk.store(told("c", "bank", "s1", 2), told("d", "bank", "s2", 2, title="Shocking: interest rates rise again!"))
    desk.look()
    assert desk.stories() == {"a": ["a", "b*"], "c": ["c*", "d"]}
    mark(desk, "a", 4.0)
    desk.look()
    assert desk.stories() == {"a": ["a*", "b"], "c": ["c*", "d"]}
    story_window.opened(desk.engine, desk.params, desk.now)
    assert desk.stories() == {"a": ["a*", "b"], "c": ["c*", "d"]}
    mark(desk, "a", None)
    desk.look()
    assert desk.stories() == {"a": ["a", "b*"], "c": ["c*", "d"]}


def mark(desk: Desk, id: str, value: float | None) -> None:
    desk.now += timedelta(seconds=1)
    change = sa.update(database.items).where(database.items.c.id == id)
    with writing(desk.engine) as connection:
        connection.execute(change.values(mark=value, updated=to_milliseconds(desk.now)))


def test_the_source_that_others_link_to_leads(desk: Desk) -> None:
    def both() -> list[Item]:
        return [told(id, event, id[0], url=f"https://{id[0]}.example/{id}") for id, event in EVENT_OF.items()]

    EVENT_OF = {"a 1": "storm", "b 1": "storm"}
    desk.store(*both())
    desk.look()
    assert desk.stories() == {"a 1": ["a 1*", "b 1"]}
    link = '<p>As <a href="https://b.example/7">they say</a>: rates of banks</p>'
    desk.store(
        *(Item(id=f"l{n}", title=None, text=link, url=f"https://l{n}.example", published=desk.now) for n in range(9))
    )
    EVENT_OF = {"a 2": "bank", "b 2": "bank"}
    desk.store(*both())
    desk.look(3700)
    assert desk.stories()["a 2"] == ["a 2", "b 2*"]


def test_keys_name_items(desk: Desk) -> None:
    desk.store(told("a", "storm", "s1", 3), told("b", "storm", "s2"))
    desk.look()
    with reading(desk.engine) as connection:
        key = identities.item_keys(connection, ["a"], None)["a"]
        stored = catalog.get(connection, "b")
    assert stored is not None
    assert stored.story == key
