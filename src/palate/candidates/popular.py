"""What everybody likes most: for somebody of whom nothing is known yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.candidates import personal
from palate.candidates.filters import Mask
from palate.pool import Pool


def find(pool: Pool, allowed: Mask, limit: int) -> NDArray[np.int64]:
    """Rows of the at most `limit` allowed items with the highest popularity, in no order.

    Popularity is shrunk towards the mean by how little is known, so one lucky like puts nothing on top.
    """
    rows = np.flatnonzero(allowed)
    return personal.find(pool.popularity[rows], rows, limit)
