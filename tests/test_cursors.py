from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate import cursors
from palate.errors import InvalidCursor

NOW = datetime(2024, 11, 22, 12, tzinfo=UTC)
SECRET = b"only here"
SESSION = cursors.start("ann", "session", NOW).after([30, 5], False, 17, NOW)


@given(st.lists(st.integers(1, 2**62), max_size=300), st.text(min_size=1, max_size=200), st.booleans())
def test_a_session_goes_on_where_it_was(keys: list[int], user: str, log: bool) -> None:
    session = cursors.start(user, "session", NOW).after(keys, log, None, NOW)
    again = cursors.read(cursors.write(session, SECRET), SECRET, user, (), NOW + timedelta(hours=23))
    assert again == session
    assert again.keys == (() if log else tuple(sorted(set(keys))))
    assert again.places == len(keys)


def test_places_add_up_and_the_beginning_stays() -> None:
    later = SESSION.after([7], True, 17, NOW + timedelta(hours=1))
    assert (later.places, later.keys, later.started) == (3, (5, 30), NOW)


def test_without_logging_a_session_ends_before_its_cursor_grows_too_long() -> None:
    assert SESSION.room(False) == cursors.UNLOGGED_ITEMS - 2
    full = SESSION.after([2**62 + 2**40 * step for step in range(cursors.UNLOGGED_ITEMS)], False, 17, NOW)
    assert full.room(False) == 0
    assert cursors.read(cursors.write(full, SECRET), SECRET, "ann", (), NOW) == full


@pytest.mark.parametrize("place", [0, 5, 20, -1, -10])
def test_a_changed_cursor_is_refused(place: int) -> None:
    cursor = list(cursors.write(SESSION, SECRET))
    cursor[place] = "A" if cursor[place] != "A" else "B"
    with pytest.raises(InvalidCursor, match="not one that was given here"):
        cursors.read("".join(cursor), SECRET, "ann", (), NOW)


@pytest.mark.parametrize("cursor", ["", ".", "a.b", "\udc00", "ж" * 50, "x" * 100_000, "\x00"])
def test_what_never_was_a_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor, match="not one that was given here"):
        cursors.read(cursor, SECRET, "ann", (), NOW)


def test_another_installation_does_not_take_it() -> None:
    with pytest.raises(InvalidCursor):
        cursors.read(cursors.write(SESSION, SECRET), b"elsewhere", "ann", (), NOW)


def test_only_the_same_person_may_go_on() -> None:
    cursor = cursors.write(SESSION, SECRET)
    assert cursors.read(cursor, SECRET, "ann at work", (4, 17), NOW) == SESSION
    with pytest.raises(InvalidCursor, match="somebody else"):
        cursors.read(cursor, SECRET, "bob", (4, 18), NOW)


def test_a_cursor_of_nobody_in_particular_is_not_everybodys() -> None:
    cursor = cursors.write(cursors.start("ann", "session", NOW).after([], True, None, NOW), SECRET)
    with pytest.raises(InvalidCursor, match="somebody else"):
        cursors.read(cursor, SECRET, "bob", (), NOW)


def test_after_a_day_it_is_too_old() -> None:
    cursor = cursors.write(SESSION, SECRET)
    with pytest.raises(InvalidCursor, match="a day old"):
        cursors.read(cursor, SECRET, "ann", (), NOW + timedelta(hours=25))
