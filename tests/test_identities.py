from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from palate import identities
from palate.database import reading, writing
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
