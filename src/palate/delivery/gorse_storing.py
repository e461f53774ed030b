"""Users and items of Gorse's surface on their way in: stored as from any caller, and kept exactly as they were given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from palate import catalog, gorse_records, gorse_tables, identities, ingest, people
from palate.database import writing
from palate.delivery.gorse_messages import (
    GorseItem,
    GorseUser,
    item_record,
    person_labels,
    stored_of_item,
    to_item,
)
from palate.errors import InvalidInput
from palate.text.cleaning import clean

T = TypeVar("T")

TICK = timedelta(milliseconds=1)
"""Whoever follows the catalog sees by its time that an item changed: a second change needs a later one."""


def put_users(engine: sa.Engine, given: Sequence[GorseUser], now: datetime) -> int:
    """Store users in place of what was known of them. Raises InvalidInput with the place of a bad one, before any is kept."""
    for index, user in enumerate(given):
        at(index, lambda user=user: identities.check_id(user.user_id, "UserId"))  # type: ignore[misc]
    with writing(engine) as connection:
        for user in given:
            person = people.upsert_user(connection, user.user_id, person_labels(user.labels), now)
            record = {"Labels": user.labels, "Comment": user.comment or ""}
            gorse_records.keep(connection, gorse_tables.users, {person.key: (record, person.labels)})
    return len(given)


def put_items(engine: sa.Engine, given: Sequence[GorseItem], now: datetime) -> int:
    """Store items in place of what was known of them: what a caller leaves out is gone. Raises as `put_users`."""
    items = []
    for index, one in enumerate(given):
        at(index, lambda one=one: identities.check_id(one.item_id, "ItemId"))  # type: ignore[misc]
        items.append(at(index, lambda one=one: to_item(one)))  # type: ignore[misc]
    stored = ingest.store_items(engine, items, now, understand=False)
    with writing(engine) as connection:
        for one, item, known in zip(given, items, stored, strict=True):
            exact = msgspec.structs.replace(clean(item, now), id=known.id)
            catalog.amend(connection, exact, bool(one.is_hidden), now + TICK)
            kept = {known.key: (item_record(one), stored_of_item(exact))}
            gorse_records.keep(connection, gorse_tables.items, kept)
    return len(given)


def at(index: int, make: Callable[[], T]) -> T:
    """What is made, or the refusal with its place in the list."""
    try:
        return make()
    except InvalidInput as error:
        raise InvalidInput(error.reason, index) from None
