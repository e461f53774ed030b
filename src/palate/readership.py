"""What readers did with items, all of them together: how often each was shown, opened, liked, and taken in to its end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities
from palate.database import reading
from palate.stories.importance import Readers

PAUSE = timedelta(seconds=5)
"""Between two looks into the log."""

_COUNTED = {"shown": (0, 1), "opened": (1, 1), "like": (2, 1), "retract:like": (2, -1)}
"""The column that an event of a type counts in, and what it counts."""
_WATCHED = 3
_WATCH = "watch"


class Readership:
    """The counts of one installation, followed along the log; one for a process, shared by its threads.

    Of the hot tail of the log they are held in memory, of sealed days the catalog counts.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._hot: dict[int, NDArray[np.float64]] = {}
        self._seq = self._sealed = 0
        self._looked: datetime | None = None

    def of(self, keys: NDArray[np.int64], now: datetime) -> Readers:
        """What readers did with each of these items (n), as of the last five seconds. Raises DatabaseError."""
        with self._lock, reading(self._engine) as connection:
            if self._looked is None or now - self._looked > PAUSE:
                self._follow(connection)
                self._looked = now
            counts = _of_sealed_days(connection, keys.tolist())
            for row, key in enumerate(keys.tolist()):
                if key in self._hot:
                    counts[row] += self._hot[key]
        shown, opened, liked, watched = np.maximum(counts, 0).T
        return Readers(shown, opened, liked, watched)

    def _follow(self, connection: sa.Connection) -> None:
        sealed = connection.scalar(sa.select(sa.func.max(database.sealed.c.last_seq))) or 0
        if sealed != self._sealed:  # what was counted here is counted there now
            self._hot, self._seq, self._sealed = {}, 0, sealed
        table = database.events
        last = connection.scalar(sa.select(sa.func.max(table.c.seq))) or self._seq
        types = (*_COUNTED, _WATCH)
        within = sa.case((table.c.value > 1, 1.0), (table.c.value < 0, 0.0), else_=table.c.value)
        query = sa.select(table.c.item, table.c.type, sa.func.count(), sa.func.coalesce(sa.func.sum(within), 0.0))
        query = query.where(table.c.seq > self._seq, table.c.seq <= last, table.c.type.in_(types))
        for item, type, count, value in connection.execute(query.group_by(table.c.item, table.c.type)):
            column, sign = _COUNTED.get(type, (_WATCHED, 0))
            counts = self._hot.setdefault(item, np.zeros(4))
            counts[column] += value if type == _WATCH else sign * count
        self._seq = last


def _of_sealed_days(connection: sa.Connection, keys: Sequence[int]) -> NDArray[np.float64]:
    """(n, 4)"""
    table, counts = database.item_counts, np.zeros((len(keys), 4))
    rows = {key: row for row, key in enumerate(keys)}
    query = sa.select(table.c.item, table.c.type, table.c.count, table.c.taken)
    query = query.where(table.c.type.in_((*_COUNTED, _WATCH)))
    for chunk in identities.chunks(sorted(rows)):
        for item, type, count, taken in connection.execute(query.where(table.c.item.in_(chunk))):
            column, sign = _COUNTED.get(type, (_WATCHED, 0))
            counts[rows[item], column] += taken if type == _WATCH else sign * count
    return counts
