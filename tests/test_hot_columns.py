from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from palate import database, hot_columns
from palate.columns import from_rows
from palate.database import reading, writing
from palate.domain import EventColumns

ROWS = [
    (3, 7, 12, "like", None, 1_773_014_400_000),
    (4, 2**40, 5, "retract:like", None, 0),
    (9, 7, 5, "rating", 4.5, 17),
    (10, 8, 5, "watch", 1 / 3, 18),
    (31, 8, 12, "rating", -1e30, 19),
]


def write(engine: sa.Engine) -> None:
    names = ("seq", "user", "item", "type", "value", "time")
    with writing(engine) as connection:
        rows = [dict(zip(names, row, strict=True)) | {"received": 0} for row in ROWS]
        connection.execute(sa.insert(database.events), rows)


@pytest.mark.parametrize("read", [hot_columns.pages, hot_columns.small_pages])
@pytest.mark.parametrize("page", [1, 7, 50_000])
@pytest.mark.parametrize("after", [0, 3, 9, 31])
def test_columns_hold_what_the_rows_hold(
    engine: sa.Engine,
    after: int,
    page: int,
    read: Callable[[sa.Connection, int], Iterator[EventColumns]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(engine)
    monkeypatch.setattr(hot_columns, "PAGE", page)
    monkeypatch.setattr(hot_columns, "SMALL_PAGE", page)
    with reading(engine) as connection:
        pages = list(read(connection, after))
    wanted = [row for row in ROWS if row[0] > after]
    assert sum(map(len, pages)) == len(wanted)
    assert all(len(found) for found in pages)
    expected = from_rows(wanted)
    for name in ("seq", "user", "item", "time", *(["value"] if read is hot_columns.pages else [])):
        found = [getattr(one, name) for one in pages]
        np.testing.assert_array_equal(np.concatenate([getattr(expected, name)[:0], *found]), getattr(expected, name))
    assert [one.types[code] for one in pages for code in one.type] == [row[3] for row in wanted]


def test_a_page_comes_in_the_order_of_the_log_however_it_is_read() -> None:
    mixed = from_rows([ROWS[place] for place in (2, 0, 4, 1, 3)])
    found = hot_columns._in_order(mixed)
    assert found.seq.tolist() == [3, 4, 9, 10, 31]
    assert [found.types[code] for code in found.type] == [row[3] for row in ROWS]


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_numbers_are_read_as_python_writes_them(numbers: list[int]) -> None:
    for read in (hot_columns.whole_numbers, hot_columns.decoded_numbers):
        assert read(",".join(map(str, numbers)), len(numbers)).tolist() == numbers
