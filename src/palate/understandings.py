"""What was found out about items' texts, kept beside the catalog: language, classes and vectors.

Made when an item comes or changes, and again when what makes it has a new version. What counts of it stands with the item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from palate import database, identities
from palate.domain import Understanding, to_milliseconds

_VECTOR = np.dtype("<f2")
_PROBABILITIES = np.dtype("<f4")


class Versions(NamedTuple):
    """Of what makes understandings: others are out of date."""

    understanding: int
    vector: int
    model: str = ""
    """This installation's own of classes; empty: the shipped one."""


class Unread(NamedTuple):
    """A live item about whose text nothing, or nothing of this version, is known."""

    key: int
    title: str | None
    text: str | None
    language: str | None
    """As its source says."""
    updated: int
    """When anything of it last changed, milliseconds since 1970."""


def unread(
    connection: sa.Connection,
    versions: Versions,
    limit: int,
    keys: Iterable[int] | None = None,
    since: int = 0,
    recent: int = 0,
) -> list[Unread]:
    """At most `limit` live items (among `keys`; None: of all) about which nothing of these versions is known, newest first.

    `since`: only those that changed at this time or later, in milliseconds since 1970. Items whose text was never stored stay
    with what was found out when it came, and those received before `recent` with what another model of classes said of them.
    """
    items, found, vectors = database.items, database.understandings, database.item_vectors
    told = (found.c.model == versions.model) | (items.c.received < recent)
    known = sa.exists().where(found.c.item == items.c.key, found.c.version == versions.understanding, told)
    has = sa.exists().where(vectors.c.item == items.c.key, vectors.c.version == versions.vector)
    ours = sa.exists().where(found.c.item == items.c.key, found.c.language == items.c.language)
    said = sa.case((ours, None), else_=items.c.language)
    query = sa.select(items.c.key, items.c.title, items.c.text, said.label("language"), items.c.updated)
    any_version = sa.exists().where(found.c.item == items.c.key)
    textless = items.c.title.is_(None) & items.c.text.is_(None) & any_version
    query = query.where(items.c.state == "live", items.c.updated >= since, ~(known & has), ~textless)
    query = query.order_by(items.c.key.desc()).limit(limit)
    if keys is None:
        return [Unread._make(row) for row in connection.execute(query)]
    chunks = identities.chunks(sorted(set(keys)))
    rows = [row for chunk in chunks for row in connection.execute(query.where(items.c.key.in_(chunk)))]
    return [Unread._make(row) for row in rows[:limit]]


def put(
    connection: sa.Connection, read: Sequence[Unread], found: Sequence[Understanding], versions: Versions, now: datetime
) -> None:
    """Keep what was found out about each item that was read, in the place of what was known; followers see the item changed.

    An item that has changed since it was read stays without.
    """
    items = database.items
    change = sa.update(items).where(items.c.key == sa.bindparam("of"), items.c.updated == sa.bindparam("seen"))
    change = change.values({name: sa.bindparam(name) for name in ("language", "category", "updated")})
    same: list[tuple[int, Understanding]] = []
    for one, told in sorted(zip(read, found, strict=True), key=lambda pair: pair[0].key):
        values = {"language": told.language, "category": told.category, "updated": to_milliseconds(now)}
        if connection.execute(change, values | {"of": one.key, "seen": one.updated}).rowcount:
            same.append((one.key, told))
    if same:
        _upsert(connection, database.understandings, [_row(*one, versions) for one in same])
        _upsert(connection, database.item_vectors, [_vector_row(*one, versions.vector) for one in same])


def keep(connection: sa.Connection, found: Mapping[int, Understanding], versions: Versions, now: datetime) -> None:
    """Keep what was found out about texts that aren't stored, by the item's key; what says nothing new isn't written."""
    items = database.items
    for keys in identities.chunks(sorted(found)):
        known = _known(connection, keys)
        news = [key for key in keys if known.get(key) != _said(key, found[key], versions)]
        query = sa.select(items.c.key, items.c.updated).where(items.c.key.in_(news)).order_by(items.c.key)
        unread = [Unread(row.key, None, None, None, row.updated) for row in connection.execute(query)]
        put(connection, unread, [found[one.key] for one in unread], versions, now)


def known(connection: sa.Connection, keys: Iterable[int]) -> set[int]:
    """Those of these items about which something is known, of any version."""
    item, found = database.understandings.c.item, set[int]()
    for chunk in identities.chunks(sorted(set(keys))):
        found |= set(connection.scalars(sa.select(item).where(item.in_(chunk))))
    return found


def _known(connection: sa.Connection, keys: Sequence[int]) -> dict[int, tuple[Any, ...]]:
    """What is kept of each item, in the form of `_said`."""
    found, vectors = database.understandings.c, database.item_vectors.c
    joined = database.understandings.join(database.item_vectors, vectors.item == found.item)
    columns = (
        found.item,
        found.version,
        found.language,
        found.lead,
        vectors.version.label("of_vector"),
        vectors.vector,
    )
    rows = connection.execute(sa.select(*columns).select_from(joined).where(found.item.in_(keys)))
    return {row.item: tuple(row[1:]) for row in rows}


def _said(key: int, found: Understanding, versions: Versions) -> tuple[Any, ...]:
    row, vector = _row(key, found, versions), _vector_row(key, found, versions.vector)
    return row["version"], row["language"], row["lead"], vector["version"], vector["vector"]


def drop(connection: sa.Connection, keys: Iterable[int], now: datetime, said: Iterable[int] = ()) -> None:
    """Forget what was found out about these items: their text has changed or is gone. Followers see them changed.

    Of those in `said` the source has just named the language: it stays, as does any that wasn't detected.
    """
    items, found = database.items, database.understandings
    ours = sa.exists().where(found.c.item == items.c.key, found.c.language == items.c.language)
    named = set(said)
    for chunk in identities.chunks(sorted(set(keys))):
        own = [key for key in chunk if key not in named]
        connection.execute(sa.update(items).where(items.c.key.in_(own), ours).values(language=None))
        told = items.c.key.in_(chunk) & items.c.category.is_not(None)
        connection.execute(sa.update(items).where(told).values(category=None))
        changed = sa.update(items).where(items.c.key.in_(chunk))
        connection.execute(changed.values(updated=to_milliseconds(now)))
        for table in (found, database.item_vectors):
            connection.execute(sa.delete(table).where(table.c.item.in_(chunk)))


def _row(key: int, found: Understanding, versions: Versions) -> dict[str, Any]:
    likely = found.probabilities
    return {
        "item": key,
        "version": versions.understanding,
        "model": versions.model,
        "language": found.detected,
        "confidence": found.confidence,
        "probabilities": None if likely is None else likely.astype(_PROBABILITIES).tobytes(),
        "lead": found.lead,
    }


def _vector_row(key: int, found: Understanding, version: int) -> dict[str, Any]:
    content = found.vector.astype(_VECTOR).tobytes() if found.vector.any() else b""
    return {"item": key, "version": version, "vector": content}


def _upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    insert = identities.insert_new(connection, table)
    replaced = {name: insert.excluded[name] for name in rows[0] if name != "item"}
    connection.execute(insert.on_conflict_do_update(index_elements=["item"], set_=replaced), rows)
