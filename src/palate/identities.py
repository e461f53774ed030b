"""Public ids and the 64-bit keys that the database gives them.

Users and items get their row, and so their key, when something first names them: an event may come before its item. Several
ids of one person (a cookie, a chat, an id of the API) keep rows and keys of their own and share `person`, so that joining them
rewrites no event.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql, sqlite

from palate import database
from palate.domain import MAX_ID_LENGTH, to_milliseconds
from palate.errors import InvalidInput
from palate.lately import Lately

T = TypeVar("T")

CHUNK = 500
"""Ids in one statement: SQLite and PostgreSQL both limit its parameters."""

KNOWN = 200_000
"""Ids whose keys are remembered, some 30 MB."""


def check_id(id: str, what: str) -> str:
    """The id as it is, when it is one: 1 to 200 characters, any but NUL and lone surrogates. Raises InvalidInput."""
    if not 0 < len(id) <= MAX_ID_LENGTH:
        raise InvalidInput(f"{what} must have 1 to {MAX_ID_LENGTH} characters, this has {len(id)}")
    if "\x00" in id or not (id.isascii() or _is_unicode(id)):
        raise InvalidInput(f"{what} holds a character that no text may hold")
    return id


KnownKeys = Lately[str, int]
"""Keys of ids that were looked up before; only for those that stay the keys of their ids."""


class WriterKeys:
    """What one writer of events knows of ids, so that it asks the database for new ones alone.

    What a transaction looked up or made is `kept` once that is committed, or `dropped`. Items keep their rows for ever, so that
    others may know and tell of the same `items`; when a user was deleted anywhere, all users are asked for anew.
    """

    def __init__(self, items: KnownKeys | None = None) -> None:
        self._users, self._items = KnownKeys(KNOWN), KnownKeys(KNOWN) if items is None else items
        self._deleted: str | None = None
        self._found: list[tuple[KnownKeys, dict[str, int]]] = []

    def users(self, connection: sa.Connection, ids: Sequence[str], now: datetime) -> list[int]:
        """What the function `user_keys` gives for each of these ids."""
        told = database.driver_rows(connection, _DELETED, {"one": "users_deleted"})
        deleted = told[0][0] if told else None
        if deleted != self._deleted:
            self._users.clear()
            self._deleted = deleted
        return self._all(self._users, ids, lambda new: (user_keys(connection, new, now), {}))

    def items(self, connection: sa.Connection, ids: Sequence[str], now: datetime) -> list[int]:
        """What the function `item_keys` gives for each of these ids."""
        return self._all(self._items, ids, lambda new: _item_keys(connection, new, now))

    def _all(
        self, known: KnownKeys, ids: Sequence[str], ask: Callable[[set[str]], tuple[dict[str, int], dict[str, int]]]
    ) -> list[int]:
        remembered = known.all_of(ids)
        if remembered is not None:
            return remembered
        different = set(ids)
        found = known.find(different)
        lasting, passing = ask(different - found.keys())
        self._found.append((known, lasting))
        keys = found | lasting | passing
        return [keys[id] for id in ids]

    def kept(self) -> None:
        """The transaction is committed."""
        for known, keys in self._found:
            known.add(keys)
        self._found = []

    def dropped(self) -> None:
        """It is not: what it made is gone."""
        self._found = []


def user_keys(connection: sa.Connection, ids: Iterable[str], now: datetime | None) -> dict[str, int]:
    """Key of each user id. Unknown ones get a row when `now` is given, and are left out when it is None."""
    wanted = set(ids)
    found = _find(connection, database.users, wanted)
    if now is None:
        return found
    fresh = {"labels": {}, "choices": {}, "created": to_milliseconds(now)}
    return found | _create(connection, database.users, wanted - found.keys(), fresh)


def item_keys(connection: sa.Connection, ids: Iterable[str], now: datetime | None) -> dict[str, int]:
    """Key of each item id; of an id that was merged into another item, that item's key.

    Unknown ones get a stub row when `now` is given, and are left out when it is None.
    """
    own, merged = _item_keys(connection, set(ids), now)
    return own | merged


def known_item_keys(connection: sa.Connection, ids: Collection[str], known: KnownKeys) -> dict[str, int]:
    """What `item_keys` gives without `now`; items that were asked for before cost no question."""
    found = known.find(ids)
    if len(found) < len(ids):
        own, merged = _item_keys(connection, set(ids) - found.keys(), None)
        known.add(own)
        found |= own | merged
    return found


def _item_keys(
    connection: sa.Connection, wanted: set[str], now: datetime | None
) -> tuple[dict[str, int], dict[str, int]]:
    """Keys of ids with a row of their own, which they keep for ever, and of those that were merged into another item."""
    found = _find(connection, database.items, wanted)
    merged = _find_merged(connection, wanted - found.keys())
    if now is None:
        return found, merged
    time = to_milliseconds(now)
    fresh = {"state": "stub", "received": time, "updated": time, "kind": "post", "media": [], "labels": []}
    return found | _create(connection, database.items, wanted - found.keys() - merged.keys(), fresh), merged


def note_deletion(connection: sa.Connection) -> None:
    """Tell all writers that a user was deleted."""
    insert = insert_new(connection, database.meta).values(name="users_deleted", value=uuid.uuid4().hex)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": insert.excluded.value}))


def item_ids(connection: sa.Connection, keys: Iterable[int]) -> dict[int, str]:
    """Public id of each item key that there is."""
    return _ids(connection, database.items, keys)


def user_ids(connection: sa.Connection, keys: Iterable[int]) -> dict[int, str]:
    """Public id of each user key that there is."""
    return _ids(connection, database.users, keys)


def persons(connection: sa.Connection, keys: Iterable[int]) -> dict[int, int]:
    """The person behind each user key: the key itself unless it was joined to another."""
    users, found = database.users, {}
    for chunk in chunks(keys):
        query = sa.select(users.c.key, users.c.person).where(users.c.key.in_(chunk))
        found.update({row.key: row.person or row.key for row in connection.execute(query)})
    return found


def missing(connection: sa.Connection, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of these user keys (ascending) that nobody has any more."""
    if not len(keys):
        return keys
    users, span = database.users.c.key, (int(keys[0]), int(keys[-1]))
    count, within = sa.select(sa.func.count()).select_from(database.users), users.between(*span)
    low, high = (connection.scalar(sa.select(bound(users))) for bound in (sa.func.min, sa.func.max))
    inside = low is not None and low <= span[0] and span[1] <= high
    if inside and connection.scalar(count) == high - low + 1:  # all are counted by an index alone, a tenth of the time
        return keys[:0]
    if inside and connection.scalar(count.where(within)) == span[1] - span[0] + 1:
        return keys[:0]  # as long as nobody of these was ever deleted: told in a hundredth of the time
    rows = database.plain_rows(connection.execute(sa.select(users).where(within)))
    known = np.fromiter((row[0] for row in rows), np.int64, len(rows))
    return np.setdiff1d(keys, known, assume_unique=True)


def aliases(connection: sa.Connection, person: int) -> list[int]:
    """All user keys of one person, their own included, in order."""
    users = database.users
    query = sa.select(users.c.key).where((users.c.key == person) | (users.c.person == person))
    return sorted(connection.scalars(query))


def joined(connection: sa.Connection) -> dict[int, int]:
    """Person of every user key that was joined to another; all others are their own person."""
    users = database.users
    query = sa.select(users.c.key, users.c.person).where(users.c.person.is_not(None))
    return {row.key: row.person for row in connection.execute(query) if row.key != row.person}


def join(connection: sa.Connection, alias: int, person: int) -> None:
    """Make the user key `alias`, and all that were joined to it, ids of `person`."""
    users = database.users
    alias, person = (persons(connection, [key])[key] for key in (alias, person))
    if alias != person:
        moved = (users.c.key == alias) | (users.c.person == alias)
        connection.execute(sa.update(users).where(moved).values(person=person))


def insert_new(connection: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT for which `on_conflict_do_nothing` and `on_conflict_do_update` exist, whichever database it is."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """The values in lists of at most `size`."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _given(dialect: str) -> sa.Select[Any]:
    """The ids as a query with one parameter, `ids`: half the time of a parameter for each."""
    if dialect == "postgresql":
        return sa.select(sa.func.unnest(sa.bindparam("ids", type_=sa.ARRAY(sa.Text))))
    return sa.select(sa.column("value", sa.Text)).select_from(sa.func.json_each(sa.bindparam("ids", type_=sa.Text)))


DIALECTS = ("sqlite", "postgresql")
_KEYS_OF = {  # made once: to make a statement takes as long as to run it
    (table, dialect): sa.select(table.c.id, table.c.key).where(table.c.id.in_(_given(dialect)))
    for table in (database.users, database.items)
    for dialect in DIALECTS
}
_MERGED = {
    dialect: sa.select(database.item_origins.c.guid, database.items.c.key)
    .join_from(database.item_origins, database.items, database.items.c.key == database.item_origins.c.item)
    .where(database.item_origins.c.guid.in_(_given(dialect)))
    .order_by(database.items.c.state == sa.literal_column("'live'"), database.items.c.key.desc())
    for dialect in DIALECTS
}


_DELETED = sa.select(database.meta.c.value).where(database.meta.c.name == sa.bindparam("one"))


def _create(
    connection: sa.Connection, table: sa.Table, ids: Collection[str], fresh: Mapping[str, object]
) -> dict[str, int]:
    for chunk in chunks(sorted(ids)):  # sorted: two writers that insert the same ids in one order can't deadlock
        rows = [{"id": id, **fresh} for id in chunk]
        connection.execute(insert_new(connection, table).on_conflict_do_nothing(index_elements=["id"]), rows)
    return _find(connection, table, ids)


def _find(connection: sa.Connection, table: sa.Table, ids: Collection[str]) -> dict[str, int]:
    if not ids:
        return {}
    return dict(_asked(connection, _KEYS_OF[table, connection.dialect.name], ids))


def _ids(connection: sa.Connection, table: sa.Table, keys: Iterable[int]) -> dict[int, str]:
    found = dict[int, str]()
    for chunk in chunks(keys):
        rows = connection.execute(sa.select(table.c.key, table.c.id).where(table.c.key.in_(chunk)))
        found.update({row.key: row.id for row in rows})
    return found


def _find_merged(connection: sa.Connection, ids: Collection[str]) -> dict[str, int]:
    """Key of the item that each id was merged into; of several a live one, and of those the oldest."""
    if not ids:
        return {}
    return dict(_asked(connection, _MERGED[connection.dialect.name], ids))  # the last of an id wins


def _asked(connection: sa.Connection, statement: sa.Select[Any], ids: Collection[str]) -> list[tuple[Any, ...]]:
    given = sorted(ids)
    listed = given if connection.dialect.name == "postgresql" else msgspec.json.encode(given).decode()
    return database.driver_rows(connection, statement, {"ids": listed})
