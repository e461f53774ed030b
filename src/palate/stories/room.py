"""Arrays that grow at their ends without a copy of what they hold: versions that agree on their beginning share it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPARE = 0.25
"""By so much more than is needed arrays are made larger."""

Columns = Sequence[NDArray[Any]]


class Room:
    """Space for columns of equal length, of which the first rows are in use. What is in use never changes."""

    def __init__(self, columns: Columns, capacity: int) -> None:
        self._columns = [np.empty((capacity, *one.shape[1:]), one.dtype) for one in columns]
        self._used = 0
        self.add(columns)

    def is_free(self, start: int, end: int) -> bool:
        """Whether nothing but the rows before `start` is in use, and there is space up to `end`."""
        return self._used == start and end <= len(self._columns[0])

    def add(self, rows: Columns) -> list[NDArray[Any]]:
        """All that is in use now."""
        end = self._used + len(rows[0])
        for own, more in zip(self._columns, rows, strict=True):
            own[self._used : end] = more
        self._used = end
        return [own[:end] for own in self._columns]


def extended(columns: Columns, more: Columns, room: Room | None) -> tuple[list[NDArray[Any]], Room]:
    """The columns with more rows behind, and where they lie now.

    `room` is where the columns lie (None: in no such space). Who comes from the newest version finds the space behind it free;
    from an older one the columns move.
    """
    start, end = len(columns[0]), len(columns[0]) + len(more[0])
    if room is None or not room.is_free(start, end):
        room = Room(columns, end + int(SPARE * end))
    return room.add(more), room
