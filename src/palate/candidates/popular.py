"""What everybody likes most: for somebody of whom nothing is known yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.candidates import personal
from palate.candidates.filters import Mask
from palate.pool import Pool


def find(pool: Pool, allowed: Mask, limit: int) -> NDArray[np.int64]:
    """Rows of the at most `limit` allowed items with the highest popularity, in no order.

    Popularity is a posterior mean: already shrunk towards the mean of all by how little is known, so one lucky like puts
    nothing on top. Taking off standard deviations as well was tried and made the first items no better.
    """
    rows = np.flatnonzero(allowed)
    return personal.find(pool.popularity[rows], rows, limit)


def best(pool: Pool, allowed: Mask, limit: int) -> NDArray[np.int64]:
    """The same, the most popular first; of equals the newest."""
    rows = find(pool, allowed, limit)
    return rows[np.lexsort((-rows, -pool.popularity[rows]))]
