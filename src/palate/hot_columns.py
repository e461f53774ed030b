"""The unsealed events as columns of numbers, a page at a time.

The driver makes a Python object of every value, which takes four times as long as all the rest of reading. So the database joins
each column of a page to one text, and machine code reads the numbers out of it. A process that serves has no machine code, but
gains more: the driver would hand the interpreter over to another thread at every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate.domain import EventColumns
from palate.machine_code import compiled

PAGE = 50_000
"""Numbers of events that a page spans: no more types occur in it than 16 bits tell apart."""

SMALL_PAGE = 10_000
"""The same, where others wait for the interpreter meanwhile: it takes some milliseconds."""

END = 2**63 - 1
"""No event has this seq."""

COMMA, MINUS, ZERO = ord(","), ord("-"), ord("0")

NUMBERS = ("seq", "user", "item", "time")


Reader = Callable[[str, int], NDArray[np.int64]]
"""Reads as many whole numbers out of a text with commas."""


def pages(connection: sa.Connection, after_seq: int) -> Iterator[EventColumns]:
    """The unsealed events with a greater seq than `after_seq`, in their order; users as they are written."""
    for first, last in _spans(connection, after_seq, PAGE):
        page = _page(connection, first, last, whole_numbers)
        yield _in_order(replace(page, value=_values(connection, first, last, len(page))))


def small_pages(connection: sa.Connection, after_seq: int, before_seq: int = END) -> Iterator[EventColumns]:
    """What `pages` gives but their values (all NaN), read a little at a time and without machine code: for a process that
    serves meanwhile."""
    for first, last in _spans(connection, after_seq, SMALL_PAGE, before_seq):
        yield _in_order(_page(connection, first, last, decoded_numbers))


def _spans(connection: sa.Connection, after_seq: int, size: int, before_seq: int = END) -> Iterator[tuple[int, int]]:
    """The first and the last seq of pages."""
    while (first := connection.scalar(_FIRST, {"after": after_seq, "before": before_seq})) is not None:
        after_seq = min(first + size, before_seq) - 1
        yield first, after_seq


def _page(connection: sa.Connection, first: int, last: int, read: Reader) -> EventColumns:
    row = connection.execute(_JOINED[connection.dialect.name], {"first": first, "last": last}).one()
    count, names, *numbers = row
    type, types = _coded(names.split(","))
    found = {name: read(text, count) for name, text in zip(NUMBERS, numbers, strict=True)}
    return EventColumns(**found, type=type, value=np.full(count, np.nan, np.float32), types=types)


def _values(connection: sa.Connection, first: int, last: int, count: int) -> NDArray[np.float32]:
    statement = _VALUES[connection.dialect.name]
    valued, joined = connection.execute(statement, {"first": first, "last": last}).one()
    if not valued:
        return np.full(count, np.nan, np.float32)
    return np.fromiter(map(float, joined.split(",")), np.float32, count)


def _statements(columns: Sequence[str]) -> dict[str, sa.TextClause]:
    """By dialect. Made once: SQLAlchemy takes longer to make one than the database to read a few events."""
    text = f"SELECT {', '.join(columns)} FROM events WHERE seq BETWEEN :first AND :last"
    joins = {"sqlite": "group_concat", "postgresql": "string_agg"}
    return {dialect: sa.text(text.replace("joined", join)) for dialect, join in joins.items()}


_FIRST = sa.text("SELECT min(seq) FROM events WHERE seq > :after AND seq < :before")
_JOINED = _statements(
    ["count(*)", "joined(type, ',')", *(f"joined(CAST(\"{name}\" AS text), ',')" for name in NUMBERS)]
)
_VALUES = _statements(["count(value)", "joined(coalesce(CAST(value AS text), 'nan'), ',')"])


def whole_numbers(text: str, count: int) -> NDArray[np.int64]:
    """The `count` numbers of a text that commas divide.

    >>> whole_numbers("7,-12", 2).tolist()
    [7, -12]
    """
    found = np.empty(count, np.int64)
    compiled(_read, np.frombuffer(text.encode(), np.uint8), found)
    return found


def decoded_numbers(text: str, count: int) -> NDArray[np.int64]:
    """What `whole_numbers` gives, more slowly."""
    found = np.fromstring(text, np.int64, sep=",")
    assert len(found) == count, "The database joined other numbers than it counted."
    return found


def _read(text: NDArray[np.uint8], found: NDArray[np.int64]) -> None:
    place, number, sign = 0, np.int64(0), 1
    for byte in text:
        if byte == COMMA:
            found[place] = sign * number
            place, number, sign = place + 1, np.int64(0), 1
        elif byte == MINUS:
            sign = -1
        else:
            number = 10 * number + np.int64(byte) - ZERO
    found[place] = sign * number


def _coded(names: list[str]) -> tuple[NDArray[np.uint16], tuple[str, ...]]:
    types = tuple(dict.fromkeys(names))
    code = {name: number for number, name in enumerate(types)}
    return np.fromiter(map(code.__getitem__, names), np.uint16, len(names)), types


def _in_order(page: EventColumns) -> EventColumns:
    """By seq: in which order a database joins rows it doesn't promise, but it is one for all columns."""
    if (page.seq[1:] > page.seq[:-1]).all():
        return page
    order = np.argsort(page.seq)
    return replace(
        page, **{field.name: getattr(page, field.name)[order] for field in fields(page) if field.name != "types"}
    )
