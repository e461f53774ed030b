"""The vectors of items' texts, kept beside the catalog: made when an item comes or changes, and again for a new version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities
from palate.domain import to_milliseconds

_TYPE = np.dtype("<f2")


class Unread(NamedTuple):
    """A live item whose text has no vector yet."""

    key: int
    title: str | None
    text: str | None
    updated: int
    """When anything of it last changed, milliseconds since 1970."""


def unread(connection: sa.Connection, version: int, limit: int, keys: Iterable[int] | None = None) -> list[Unread]:
    """At most `limit` live items (among `keys`; None: of all) without a vector of this version, newest first."""
    items, vectors = database.items, database.item_vectors
    has = sa.exists().where(vectors.c.item == items.c.key, vectors.c.version == version)
    query = sa.select(*(items.c[name] for name in Unread._fields)).where(items.c.state == "live", ~has)
    query = query.order_by(items.c.key.desc()).limit(limit)
    if keys is None:
        return [Unread._make(row) for row in connection.execute(query)]
    chunks = identities.chunks(sorted(set(keys)))
    found = [row for chunk in chunks for row in connection.execute(query.where(items.c.key.in_(chunk)))]
    return [Unread._make(row) for row in found[:limit]]


def put(
    connection: sa.Connection, read: Sequence[Unread], vectors: NDArray[np.float16], version: int, now: datetime
) -> None:
    """Keep the vector of each item that was read, in the place of an older one; whoever follows the catalog sees it changed.

    An item that has changed since it was read stays without.
    """
    table, items = database.item_vectors, database.items
    contents = {
        one.key: vector.astype(_TYPE).tobytes() if vector.any() else b""
        for one, vector in zip(read, vectors, strict=True)
    }
    touch = sa.update(items).where(items.c.key == sa.bindparam("of"), items.c.updated == sa.bindparam("seen"))
    same = [
        one.key
        for one in sorted(read)
        if connection.execute(touch.values(updated=to_milliseconds(now)), {"of": one.key, "seen": one.updated}).rowcount
    ]
    insert = identities.insert_new(connection, table)
    insert = insert.on_conflict_do_update(
        index_elements=["item"], set_={name: insert.excluded[name] for name in ("version", "vector")}
    )
    if same:
        connection.execute(insert, [{"item": key, "version": version, "vector": contents[key]} for key in same])


def drop(connection: sa.Connection, keys: Iterable[int]) -> None:
    """Forget the vectors of these items: their text has changed or is gone."""
    for chunk in identities.chunks(sorted(set(keys))):
        connection.execute(sa.delete(database.item_vectors).where(database.item_vectors.c.item.in_(chunk)))


def read(
    connection: sa.Connection, version: int, length: int, keys: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Keys (n,), ascending, and vectors (n, length) of this version; those of items without words are left out.

    `keys`: of these items alone; None: of all.
    """
    table = database.item_vectors
    query = sa.select(table.c.item, table.c.vector).where(table.c.version == version).order_by(table.c.item)
    rows: list[Any] = []
    if keys is None:
        rows += connection.execute(query)
    else:
        for chunk in identities.chunks(np.unique(keys).tolist()):
            rows += connection.execute(query.where(table.c.item.in_(chunk)))
    full = [row for row in rows if len(row.vector) == length * _TYPE.itemsize]
    vectors = np.frombuffer(b"".join(row.vector for row in full), _TYPE).reshape(-1, length)
    return np.array([row.item for row in full], np.int64), vectors.astype(np.float16, copy=False)
