"""What is newest: all there is to go by before anybody has judged anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.candidates.filters import Mask
from palate.pool import NO_DATE, Pool


def find(pool: Pool, allowed: Mask, limit: int) -> NDArray[np.int64]:
    """Rows of the at most `limit` newest allowed items, newest first; undated ones count from when they came to us."""
    return newest(pool, np.flatnonzero(allowed), limit)


def newest(pool: Pool, rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """The `limit` newest of the rows, newest first."""
    times = pool.published[rows]
    undated = np.flatnonzero(times == NO_DATE)
    if len(undated):
        times[undated] = pool.received[rows[undated]]
    if len(rows) > limit:
        part = np.argpartition(times, -limit)[-limit:] if limit else np.zeros(0, np.int64)
        rows, times = rows[part], times[part]
    return rows[np.lexsort((-pool.keys[rows], -times))]
