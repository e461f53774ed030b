"""Precomputed lists in the database: for each person the keys of the best items by one name, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities
from palate.database import writing
from palate.domain import to_milliseconds

BATCH = 2_000
"""Lists in one transaction: others write between them."""

_TABLE = database.lists
_OF_NAME = sa.select(_TABLE.c.snapshot, _TABLE.c["items"], _TABLE.c.scores).where(_TABLE.c.name == sa.bindparam("one"))
_OF_KEYS = _OF_NAME.where(_TABLE.c.person.in_(sa.bindparam("keys", expanding=True))).order_by(_TABLE.c.created.desc())
_OF_KEY = _OF_NAME.where(_TABLE.c.person == sa.bindparam("key"))  # of most people, and made in half the time


@dataclass(frozen=True, eq=False)
class PersonList:
    """The list of one person."""

    person: int
    items: NDArray[np.int64]
    """(n,) keys, best first."""
    scores: NDArray[np.float32]
    """(n,) estimated probabilities, 0..1, that the person likes each."""
    snapshot: str
    """Version of the model that made it."""


def read(connection: sa.Connection, name: str, person: int, keys: Sequence[int]) -> PersonList | None:
    """The newest list of this name of a person, who is known by all these keys; None when there is none."""
    if len(keys) == 1:
        rows = database.driver_rows(connection, _OF_KEY, {"one": name, "key": keys[0]})
    else:
        rows = database.plain_rows(connection.execute(_OF_KEYS, {"one": name, "keys": list(keys)}))
    if not rows:
        return None
    snapshot, items, scores = rows[0]
    return PersonList(person, np.frombuffer(items, "<i8"), np.frombuffer(scores, "<f4"), snapshot)


def write(engine: sa.Engine, name: str, found: Sequence[PersonList], made: datetime) -> None:
    """Put these lists in the place of the old ones, each at once. Raises NotDurable."""
    for batch in identities.chunks(found, BATCH):
        rows = [
            {
                "name": name,
                "person": one.person,
                "created": to_milliseconds(made),
                "snapshot": one.snapshot,
                "items": np.asarray(one.items, "<i8").tobytes(),
                "scores": np.asarray(one.scores, "<f4").tobytes(),
            }
            for one in batch
        ]
        with writing(engine) as connection:
            insert = identities.insert_new(connection, _TABLE)
            new = {column: insert.excluded[column] for column in ("created", "snapshot", "items", "scores")}
            connection.execute(insert.on_conflict_do_update(index_elements=["name", "person"], set_=new), rows)


def drop_older(engine: sa.Engine, name: str, made: datetime) -> int:
    """Drop the lists of this name that are older, and those of people who were deleted meanwhile; how many. Raises NotDurable."""
    known = sa.select(database.users.c.key)
    old = (_TABLE.c.created < to_milliseconds(made)) | _TABLE.c.person.not_in(known)
    with writing(engine) as connection:
        return connection.execute(sa.delete(_TABLE).where(_TABLE.c.name == name, old)).rowcount


def counts(connection: sa.Connection) -> dict[str, int]:
    """How many people have a list of each name."""
    query = sa.select(_TABLE.c.name, sa.func.count()).group_by(_TABLE.c.name).order_by(_TABLE.c.name)
    return dict(database.plain_rows(connection.execute(query)))
