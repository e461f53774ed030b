"""What the catalog knows of items without anybody's judgement, in the form from which models tell where new items belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, compress
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities, vectors
from palate.domain import to_milliseconds
from palate.models import content
from palate.models.content import Contents, label_keys
from palate.text import embedding
from palate.vocabulary import Vocabulary

OTHERS = ("author", "language", "category")
"""Columns of the catalog whose values are taken as they are."""
MANY = 20_000
"""Items from which on all rows of the catalog are read instead of those that are asked for."""
OVERLAP = timedelta(minutes=10)
"""An item's time of change is set before it is committed, maybe by another clock."""


@dataclass(frozen=True, eq=False)
class Known:
    """What the catalog says of all its items, so that next time only what has changed has to be read."""

    items: Vocabulary
    contents: Contents
    """Of each of them."""
    read: int
    """When, milliseconds since 1970."""

    def of(self, keys: NDArray[np.int64]) -> Contents:
        """As `read` gives them."""
        if np.array_equal(keys, self.items.keys):
            return self.contents
        rows, whole = self.items.rows(keys), self.contents
        if (rows < 0).any():
            whole = content.together(whole, content.nothing_known(1, embedding.LENGTH))
            rows = np.where(rows < 0, len(whole) - 1, rows)
        return content.taken(whole, rows)

    def sources(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The items that have a source, and its key."""
        told = self.contents.source >= 0
        return self.items.keys[told], self.contents.source[told]


def known(connection: sa.Connection, now: datetime, before: Known | None = None) -> Known:
    """All that the catalog says by now. What changed since `before` is read alone, unless the clock went back.

    No row ever leaves the catalog, and every change of one says when it was.
    """
    table, time = database.items, to_milliseconds(now)
    if before is not None and time < before.read:
        before = None
    query = sa.select(table.c.key).order_by(table.c.key)
    if before is not None:
        query = query.where(table.c.updated >= before.read - OVERLAP // timedelta(milliseconds=1))
    keys = np.array(list(connection.scalars(query)), np.int64)
    if before is None:
        return Known(Vocabulary(keys), read(connection, keys), time)
    items = before.items.extended(keys)
    if len(items) != connection.scalar(sa.select(sa.func.count()).select_from(table)):
        return known(connection, now)  # some say that they came long ago
    if not len(keys):
        return Known(items, before.contents, time)
    rows, news = before.items.rows(items.keys), Vocabulary(keys).rows(items.keys)
    both = content.together(before.contents, read(connection, keys))
    return Known(items, content.taken(both, np.where(news < 0, rows, len(before.items) + news)), time)


def read(connection: sa.Connection, keys: NDArray[np.int64]) -> Contents:
    """The contents of these items, in this order, each key once; of items that the catalog doesn't have nothing is known."""
    wanted = None if len(keys) > MANY else keys
    items, order = Vocabulary(np.sort(keys)), np.argsort(np.argsort(keys))
    # by columns, of which most say little: a look at each row takes longer than reading it
    key, source, lists, *others = list(zip(*_rows(connection, wanted), strict=True)) or [()] * (3 + len(OTHERS))
    place = items.rows(np.array(key, np.int64))
    at, texts = _told(place, lists, but="[]")
    labels = {one: msgspec.json.decode(text, type=list[str]) for one, text in zip(at.tolist(), texts, strict=True)}
    counts = np.zeros(len(items), np.int64)
    counts[list(labels)] = [len(own) for own in labels.values()]
    named = [labels[one] for one in order.tolist() if one in labels] if labels else []
    return Contents(
        text=_text(connection, items, wanted)[order],
        source=_column(items, *_told(place, source))[order],
        label_offsets=np.concatenate(([0], np.cumsum(counts[order]))).astype(np.int64),
        labels=label_keys(list(chain.from_iterable(named))),
        others={name: _named(items, place, column)[order] for name, column in zip(OTHERS, others, strict=True)},
    )


def _told(place: NDArray[np.int64], column: Sequence[Any], but: object = None) -> tuple[NDArray[np.int64], list[Any]]:
    """The places at which this column says anything `but` that, and what it says; places below 0 are none."""
    given = np.fromiter((value != but for value in column), bool, len(column)) & (place >= 0)
    return place[given], list(compress(column, given.tolist()))


def _column(items: Vocabulary, at: NDArray[np.int64], values: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """(items,): the value at each of these places, −1 elsewhere."""
    found = np.full(len(items), -1, np.int64)
    found[at] = values
    return found


def _named(items: Vocabulary, place: NDArray[np.int64], column: Sequence[str | None]) -> NDArray[np.int64]:
    """(items,): a key for what stands in this column, −1 where nothing does."""
    at, names = _told(place, column)
    return _column(items, at, label_keys(names))


Row = tuple[Any, ...]


def _rows(connection: sa.Connection, keys: NDArray[np.int64] | None) -> list[Row]:
    """(key, source, labels as JSON, … OTHERS)"""
    items = database.items
    labels = sa.cast(items.c.labels, sa.Text)
    query = sa.select(items.c.key, items.c.source, labels, *(items.c[name] for name in OTHERS))
    if keys is None:
        return database.plain_rows(connection.execute(query))
    chunks = identities.chunks(np.sort(keys).tolist())
    parts = (connection.execute(query.where(items.c.key.in_(chunk))) for chunk in chunks)
    return [row for part in parts for row in database.plain_rows(part)]


def _text(connection: sa.Connection, items: Vocabulary, wanted: NDArray[np.int64] | None) -> NDArray[np.float16]:
    found, rows = vectors.read(connection, embedding.VERSION, embedding.LENGTH, wanted)
    result = np.zeros((len(items), embedding.LENGTH), np.float16)
    places = items.rows(found)
    result[places[places >= 0]] = rows[places >= 0]
    return result
