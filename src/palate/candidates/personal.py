"""What the person's own taste puts on top."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def find(values: NDArray[np.float32], rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """The at most `limit` rows of the highest values (one a row), in no order; of equals those further back."""
    if len(rows) <= limit:
        return rows
    least = np.partition(values, -limit)[-limit] if limit else np.inf
    above, equal = rows[values > least], rows[values == least]
    return np.concatenate((above, equal[len(equal) - (limit - len(above)) :]))
