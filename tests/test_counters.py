"""What sources count of items: the newest numbers, of items that are there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from palate import catalog, counters, ingest
from palate.database import reading, writing
from palate.domain import Item

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def counted(engine: sa.Engine, key: int) -> dict[str, float]:
    with reading(engine) as connection:
        return counters.of_item(connection, key)


def test_the_newest_numbers_stay_and_what_is_not_named_stays_as_it_was(engine: sa.Engine) -> None:
    [one, other] = [
        stored.key for stored in ingest.store_items(engine, [Item(id="a", title="A"), Item(id="b", title="B")], NOW)
    ]
    with writing(engine) as connection:
        counters.put(
            connection, {"a": {"views": 10.0, "forwards": 1.0}, "b": {"views": 7.0}, "unknown": {"views": 1.0}}, NOW
        )
        counters.put(connection, {"a": {"views": 25.0}}, NOW + timedelta(hours=1))
    assert counted(engine, one) == {"views": 25.0, "forwards": 1.0}
    assert counted(engine, other) == {"views": 7.0}


def test_numbers_go_with_their_item(engine: sa.Engine) -> None:
    [key] = [stored.key for stored in ingest.store_items(engine, [Item(id="a", title="A")], NOW)]
    with writing(engine) as connection:
        counters.put(connection, {"a": {"views": 10.0}}, NOW)
        catalog.withdraw(connection, ["a"], NOW)
    assert counted(engine, key) == {}
