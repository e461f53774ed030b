"""What too few people have judged: served now and then, or it would never be known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.candidates import fresh
from palate.candidates.filters import Mask
from palate.pool import Pool


def find(pool: Pool, allowed: Mask, limit: int, evidence: float) -> NDArray[np.int64]:
    """Rows of the at most `limit` newest allowed items with less evidence than this, newest first."""
    return fresh.newest(pool, np.flatnonzero(allowed & (pool.evidence < evidence)), limit)
