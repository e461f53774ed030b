"""What the sources themselves count of items: views, forwards, reactions. Only the newest numbers are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from palate import database, identities
from palate.domain import to_milliseconds

_TABLE = database.item_counters
_MAX_NAME = 40


def put(connection: sa.Connection, counted: Mapping[str, Mapping[str, float]], now: datetime) -> None:
    """Remember the numbers of items, by item id and name; those of unknown items are left out, others stay as they are."""
    keys = _keys(connection, counted)
    rows = [
        {"item": key, "name": name[:_MAX_NAME], "value": value, "time": to_milliseconds(now)}
        for id, key in sorted(keys.items())
        for name, value in sorted(counted[id].items())
    ]
    if rows:
        insert = identities.insert_new(connection, _TABLE)
        newer = {name: insert.excluded[name] for name in ("value", "time")}
        connection.execute(insert.on_conflict_do_update(index_elements=["item", "name"], set_=newer), rows)


def of_item(connection: sa.Connection, key: int) -> dict[str, float]:
    """The numbers of one item, by name."""
    query = sa.select(_TABLE.c.name, _TABLE.c.value).where(_TABLE.c.item == key).order_by(_TABLE.c.name)
    return {row.name: row.value for row in connection.execute(query)}


def _keys(connection: sa.Connection, ids: Mapping[str, object]) -> dict[str, int]:
    items, found = database.items, dict[str, int]()
    for chunk in identities.chunks(sorted(ids)):
        query = sa.select(items.c.id, items.c.key).where(items.c.id.in_(chunk), items.c.state == "live")
        found |= {row.id: row.key for row in connection.execute(query)}
    return found
