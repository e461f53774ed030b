from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from palate import catalog, database, identities
from palate.database import reading, writing
from palate.domain import Item
from palate.errors import InvalidInput

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_an_id_keeps_its_key(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        first = identities.item_keys(connection, ["b", "a", "b"], NOW)
        second = identities.item_keys(connection, ["a", "c"], NOW)
    assert first["a"] == second["a"]
    assert len({*first.values(), *second.values()}) == 3


def test_unknown_ids_are_left_out_when_nothing_may_be_made(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        known = identities.user_keys(connection, ["ann"], NOW)
    with reading(engine) as connection:
        assert identities.user_keys(connection, ["ann", "bob"], None) == known


def test_more_ids_than_one_statement_takes(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        assert len(identities.user_keys(connection, (f"u{n}" for n in range(1234)), NOW)) == 1234


def test_ids_are_data(engine: sa.Engine) -> None:
    odd = ["'; DROP TABLE users; --", "line\nbreak", "🦆", "a" * 200, "%s", ":name"]
    with writing(engine) as connection:
        keys = identities.user_keys(connection, odd, NOW)
        assert identities.user_keys(connection, odd, None) == keys


def test_an_id_that_was_merged_names_the_item_that_it_was_merged_into(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        store(connection, Item(id="first", url="https://a.example/1"), Item(id="other", url="https://a.example/2"))
        store(connection, Item(id="again", url="https://a.example/1"))
        known = identities.item_keys(connection, ["first"], None)
        keys = identities.item_keys(connection, ["again", "first", "new"], NOW)
        assert keys["again"] == keys["first"] == known["first"]
        assert identities.item_keys(connection, ["again", "unknown"], None) == {"again": known["first"]}
        assert sorted(connection.scalars(sa.select(database.items.c.id))) == ["first", "new", "other"]


@pytest.mark.parametrize(("gone", "named"), [((), "i1"), (("i1",), "i2"), (("i1", "i2", "i3"), "i1")])
def test_an_id_that_was_merged_into_several_names_the_oldest_that_lives(
    engine: sa.Engine, gone: tuple[str, ...], named: str
) -> None:
    with writing(engine) as connection:
        store(connection, *(Item(id=f"i{n}") for n in (1, 2, 3)))
        keys = identities.item_keys(connection, ["i1", "i2", "i3"], None)
        origins = [{"guid": "x", "source": n, "item": keys[f"i{4 - n}"]} for n in (1, 2, 3)]
        connection.execute(sa.insert(database.item_origins), origins)
        for id in gone:
            catalog.delete(connection, id, NOW)
        assert identities.item_keys(connection, ["x"], None) == {"x": keys[named]}


def store(connection: sa.Connection, *items: Item) -> None:
    catalog.upsert(connection, items, NOW)


def test_joined_ids_are_one_person_and_keep_their_keys(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        keys = identities.user_keys(connection, ["cookie", "chat", "ann", "bob"], NOW)
        identities.join(connection, keys["cookie"], keys["chat"])
        identities.join(connection, keys["chat"], keys["ann"])
        identities.join(connection, keys["cookie"], keys["ann"])
        assert identities.persons(connection, keys.values()) == {
            keys["cookie"]: keys["ann"],
            keys["chat"]: keys["ann"],
            keys["ann"]: keys["ann"],
            keys["bob"]: keys["bob"],
        }
        assert identities.aliases(connection, keys["ann"]) == sorted(keys[id] for id in ("cookie", "chat", "ann"))
        assert identities.joined(connection) == {keys["cookie"]: keys["ann"], keys["chat"]: keys["ann"]}


@pytest.mark.parametrize("id", ["", "a" * 201, "a\x00b", "\ud800"])
def test_what_is_no_id_is_refused(id: str) -> None:
    with pytest.raises(InvalidInput, match="item id"):
        identities.check_id(id, "an item id")


@given(st.text(min_size=1, max_size=200, alphabet=st.characters(exclude_characters="\x00", codec="utf-8")))
def test_any_other_text_is_an_id(id: str) -> None:
    assert identities.check_id(id, "an item id") == id
