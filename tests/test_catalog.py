from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate import catalog, database, identities
from palate.database import reading, writing
from palate.domain import Item, Media, to_milliseconds

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
PAGE = "https://site.example/a"


def store(engine: sa.Engine, *items: Item, now: datetime = NOW, **options: Any) -> list[tuple[str, str]]:
    with writing(engine) as connection:
        return [(one.id, one.outcome) for one in catalog.upsert(connection, items, now, **options)]


def found(engine: sa.Engine, id: str) -> catalog.StoredItem:
    with reading(engine) as connection:
        stored = catalog.get(connection, id)
    assert stored is not None
    return stored


def rows(engine: sa.Engine, table: sa.Table) -> int:
    with reading(engine) as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def full(**fields: Any) -> Item:
    item = Item(
        id="a",
        title="Название 🦆",
        text="<p>Text</p>",
        url=PAGE,
        source="feed",
        author="Ann",
        published=NOW - timedelta(milliseconds=1),
        language="ru",
        kind="video",
        duration=12.5,
        media=(Media(url="https://site.example/a.jpg", width=3), Media(url="https://site.example/b.mp4", type="video")),
        labels=("Art", "Кино"),
        license="CC BY 4.0",
    )
    return msgspec.structs.replace(item, **fields)


def test_an_item_comes_back_as_it_was_given(engine: sa.Engine) -> None:
    assert store(engine, full()) == [("a", "new")]
    stored = found(engine, "a")
    assert stored.item == full()
    assert (stored.state, stored.received, stored.updated, stored.source_title) == ("live", NOW, NOW, None)


def test_an_item_may_have_nothing_but_an_id(engine: sa.Engine) -> None:
    store(engine, Item(id="line\nbreak 🦆 %s :x"))
    assert found(engine, "line\nbreak 🦆 %s :x").item == Item(id="line\nbreak 🦆 %s :x")


def test_an_unknown_source_becomes_one_that_is_pushed(engine: sa.Engine) -> None:
    store(engine, full(source="shop"), full(id="b", url=None, source="shop"))
    with reading(engine) as connection:
        [row] = connection.execute(sa.select(database.sources)).all()
    assert (row.id, row.kind, row.address, row.next_fetch, row.status) == ("shop", "api", "shop", None, "active")


def test_an_edit_changes_what_is_given_and_leaves_the_rest(engine: sa.Engine) -> None:
    store(engine, full())
    assert store(engine, Item(id="a", title="New", labels=("X",)), now=LATER) == [("a", "updated")]
    stored = found(engine, "a")
    assert stored.item == full(title="New", labels=("X",))
    assert (stored.received, stored.updated) == (NOW, LATER)


def test_what_is_unchanged_is_not_written(engine: sa.Engine) -> None:
    store(engine, full())
    assert store(engine, full(), Item(id="a"), now=LATER) == [("a", "unchanged"), ("a", "unchanged")]
    assert found(engine, "a").updated == NOW


def test_one_address_is_one_item_whatever_source_it_came_by(engine: sa.Engine) -> None:
    store(engine, Item(id="a", title="First", url=PAGE, source="one"))
    assert store(engine, full(id="b", source="two"), now=LATER) == [("a", "merged")]
    stored = found(engine, "a")
    assert stored.item == full(title="First", source="one", kind="post")
    assert stored.updated == LATER
    assert found(engine, "b") == stored
    assert store(engine, full(id="b", source="two", url=None)) == [("a", "merged")]
    assert (rows(engine, database.items), rows(engine, database.item_origins)) == (1, 2)
    assert found(engine, "a") == stored


def test_the_canonical_address_is_the_one_that_counts(engine: sa.Engine) -> None:
    first, second = full(url=PAGE + "#x"), full(id="b", url=PAGE + "#y", source="two")
    assert store(engine, first, second, canonical=[PAGE, PAGE]) == [("a", "new"), ("a", "merged")]
    assert store(engine, full(id="c"), full(id="d"), canonical=[None, None]) == [("c", "new"), ("d", "new")]
    assert found(engine, "d").item.url == PAGE


def test_clashes_within_one_batch_are_settled_in_its_order(engine: sa.Engine) -> None:
    outcomes = store(
        engine,
        Item(id="a", title="One", url=PAGE),
        Item(id="b", text="Two", url=PAGE),
        Item(id="a", title="Three"),
        Item(id="c", url=PAGE + "/c"),
        Item(id="c", url=PAGE),
    )
    assert outcomes == [("a", "new"), ("a", "merged"), ("a", "updated"), ("c", "new"), ("c", "unchanged")]
    assert found(engine, "b").item == Item(id="a", title="Three", text="Two", url=PAGE)
    assert found(engine, "c").item.url == PAGE + "/c"


def test_an_item_may_move_to_another_address(engine: sa.Engine) -> None:
    store(engine, full())
    batch = [full(url=PAGE + "/moved"), full(id="b", url=PAGE + "/moved"), full(id="c", url=PAGE)]
    assert store(engine, *batch) == [("a", "updated"), ("a", "merged"), ("c", "new")]


def test_an_event_may_come_before_its_item(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        key = identities.item_keys(connection, ["a"], NOW)["a"]
        assert catalog.get(connection, "a") is None
        assert catalog.changed_since(connection, 0) == []
    assert store(engine, full(), now=LATER) == [("a", "new")]
    stored = found(engine, "a")
    assert (stored.key, stored.item, stored.received) == (key, full(), LATER)


def test_the_events_own_item_may_turn_out_to_be_another(engine: sa.Engine) -> None:
    store(engine, full())
    with writing(engine) as connection:
        identities.item_keys(connection, ["b"], NOW)
    assert store(engine, full(id="b", source="two")) == [("a", "merged")]
    assert found(engine, "b").item.id == "a"


def test_items_that_only_events_name_can_be_admitted(engine: sa.Engine) -> None:
    store(engine, full())
    with writing(engine) as connection:
        identities.item_keys(connection, ["b", "c"], NOW)
        assert catalog.admit(connection, ["a", "b", "c", "unknown"], LATER) == 2
    assert found(engine, "b").item == Item(id="b")
    assert found(engine, "a").updated == NOW


def test_a_deleted_item_is_gone_and_no_source_brings_it_back(engine: sa.Engine) -> None:
    store(engine, full(), full(id="b", source="two"))
    with writing(engine) as connection:
        assert catalog.delete(connection, "b", LATER)
        assert not catalog.delete(connection, "a", LATER)
        assert not catalog.delete(connection, "unknown", LATER)
        assert catalog.get(connection, "a") is None
        row = connection.execute(sa.select(database.items)).one()
        assert (row.title, row.text, row.url, row.media, row.labels, row.updated) == (
            None, None, None, [], [], to_milliseconds(LATER),
        )  # fmt: skip
    assert store(engine, full(), full(id="b", source="two"), full(id="c"), revive=False) == [
        ("a", "unchanged"),
        ("a", "merged"),
        ("a", "merged"),
    ]
    with reading(engine) as connection:
        assert catalog.get(connection, "a") is None


def test_a_caller_may_store_a_deleted_item_again(engine: sa.Engine) -> None:
    store(engine, full())
    with writing(engine) as connection:
        catalog.delete(connection, "a", NOW)
    assert store(engine, Item(id="a", title="Back"), now=LATER) == [("a", "new")]
    stored = found(engine, "a")
    assert (stored.item.title, stored.item.text, stored.received) == ("Back", None, LATER)


def test_serving_learns_of_every_change(engine: sa.Engine) -> None:
    store(engine, full(), Item(id="b"))
    store(engine, Item(id="c", labels=("x",)), now=LATER)
    with writing(engine) as connection:
        catalog.delete(connection, "a", LATER)
    keys = {id: key for key, id in enumerate(["a", "b", "c"], 1)}
    with reading(engine) as connection:
        assert [change.key for change in catalog.changed_since(connection, 0)] == [1, 2, 3]
        changes = catalog.changed_since(connection, to_milliseconds(LATER))
        assert [(change.key, change.state) for change in changes] == [(keys["a"], "deleted"), (keys["c"], "live")]
        assert changes[1] == catalog.Change(3, "live", None, None, to_milliseconds(LATER), None, ("x",))


def test_an_export_has_every_live_item_once(engine: sa.Engine) -> None:
    store(engine, full(), *(Item(id=str(n)) for n in range(7)))
    with writing(engine) as connection:
        catalog.delete(connection, "3", NOW)
    with reading(engine) as connection:
        batches = list(catalog.stream(connection, batch=3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert {item.id for batch in batches for item in batch} == {"a", "0", "1", "2", "4", "5", "6"}
    assert full() in batches[2]


def test_several_items_are_read_at_once(engine: sa.Engine) -> None:
    store(engine, full(), Item(id="b"))
    with reading(engine) as connection:
        stored = catalog.get_many(connection, [1, 2, 99])
        assert {key: one.item.id for key, one in stored.items()} == {1: "a", 2: "b"}


def test_an_item_is_known_by_its_id_or_by_its_address(engine: sa.Engine) -> None:
    store(engine, full(), Item(id="b"))
    asked = [Item(id="b"), Item(id="x"), Item(id="y")]
    with reading(engine) as connection:
        known = catalog.already_stored(connection, asked, [None, PAGE, None])
    assert {id: stored.item.id for id, stored in known.items()} == {"b": "b", "x": "a"}


def test_an_item_that_its_source_took_back_comes_back_with_it(engine: sa.Engine) -> None:
    store(engine, full(), Item(id="b"))
    with writing(engine) as connection:
        assert catalog.withdraw(connection, ["a", "unknown"], LATER) == 1
        assert catalog.withdraw(connection, ["a"], LATER) == 0
        assert catalog.get(connection, "a") is None
        assert [change.state for change in catalog.changed_since(connection, to_milliseconds(LATER))] == ["withdrawn"]
    assert store(engine, full(), revive=False) == [("a", "new")]
    assert found(engine, "a").item == full()


def test_a_source_that_takes_a_copy_back_leaves_the_item_of_another(engine: sa.Engine) -> None:
    store(engine, full(), full(id="copy", source="two"))
    with writing(engine) as connection:
        assert catalog.withdraw(connection, ["copy"], LATER) == 0
    assert found(engine, "a").state == "live"


def test_writers_at_one_time_make_one_item(engine: sa.Engine) -> None:
    def write(name: str) -> None:
        for n in range(10):
            items = [Item(id=f"{name}{page}", url=f"{PAGE}/{page}", source=name) for page in range(20)]
            store(engine, *(items if n % 2 else reversed(items)))

    writers = [threading.Thread(target=write, args=(name,)) for name in "xyz"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (rows(engine, database.items), rows(engine, database.item_origins)) == (20, 60)


TEXTS = st.sampled_from([None, "x", "y"])
ITEMS = st.builds(
    Item,
    id=st.sampled_from(["a", "b", "c", "d"]),
    title=TEXTS,
    text=TEXTS,
    url=st.sampled_from([None, PAGE, PAGE + "/2"]),
    source=st.sampled_from([None, "one", "two"]),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> sa.Engine:
    engine = database.connect(None, tmp_path_factory.mktemp("scratch"))
    database.migrate(engine)
    return engine


@given(st.lists(st.lists(ITEMS, max_size=6), max_size=4))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_every_item_is_found_and_addresses_are_unique(
    scratch: sa.Engine, batches: list[list[Item]]
) -> None:
    with scratch.connect() as connection:
        for number, batch in enumerate(batches):
            stored = catalog.upsert(connection, batch, NOW + timedelta(seconds=number))
            for item, one in zip(batch, stored, strict=True):
                kept = catalog.get(connection, item.id)
                assert kept is not None
                assert (kept.key, kept.item.id) == (one.key, one.id)
                assert (one.outcome == "merged") == (one.id != item.id)
                assert item.title is None or kept.item.title is not None
            assert [one.outcome for one in catalog.upsert(connection, batch[-1:], NOW)] in (
                [],
                ["unchanged"],
                ["merged"],
            )
        urls = list(connection.scalars(sa.select(database.items.c.canonical_url)))
        assert len([url for url in urls if url]) == len({url for url in urls if url})
        connection.rollback()
