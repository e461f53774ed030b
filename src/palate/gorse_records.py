"""Items and users exactly as callers of Gorse's surface gave them, beside what the rest of Palate keeps of them.

Gorse's labels are any JSON and its categories are apart from them; an item here has flat labels, a person a flat map. A record
holds what was given, together with what was stored of it: once something else changes that, what is stored is the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from palate import identities

Record = dict[str, Any]


def keep(connection: sa.Connection, table: sa.Table, records: Mapping[int, tuple[Record, Any]]) -> None:
    """Keep records by key, each with what was stored of it (plain JSON), in place of older ones."""
    if not records:
        return
    column = _key(table)
    insert = identities.insert_new(connection, table)
    new = {name: insert.excluded[name] for name in ("record", "stored")}
    rows = [
        {column.name: key, "record": _text(record), "stored": _text(stored)}
        for key, (record, stored) in sorted(records.items())
    ]
    connection.execute(insert.on_conflict_do_update(index_elements=[column.name], set_=new), rows)


def read(connection: sa.Connection, table: sa.Table, stored: Mapping[int, Any]) -> dict[int, Record]:
    """The records of those keys of which still the same is stored."""
    column, found = _key(table), dict[int, Record]()
    for chunk in identities.chunks(sorted(stored)):
        for row in connection.execute(sa.select(table).where(column.in_(chunk))):
            if row.stored == _text(stored[row._mapping[column]]):
                found[row._mapping[column]] = msgspec.json.decode(row.record)
    return found


def forget(connection: sa.Connection, table: sa.Table, keys: Iterable[int]) -> None:
    """Drop the records of these keys."""
    for chunk in identities.chunks(keys):
        connection.execute(sa.delete(table).where(_key(table).in_(chunk)))


def _key(table: sa.Table) -> sa.Column[Any]:
    return next(iter(table.primary_key.columns))


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
