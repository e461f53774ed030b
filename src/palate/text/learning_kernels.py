"""The product of sparse rows and a table in machine code, for `text/learning.py`, which says the same in NumPy.

Imported when learning begins, not before: numba takes half a second and 60 MB.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def product(
    offsets: NDArray[np.int64], numbers: NDArray[np.int64], values: NDArray[np.float32], table: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(n, width) the sum of each row's values times the table's rows of their numbers."""
    sums = np.zeros((len(offsets) - 1, table.shape[1]), np.float32)
    for row in range(len(offsets) - 1):
        total = sums[row]
        for place in range(offsets[row], offsets[row + 1]):
            value, weights = values[place], table[numbers[place]]
            for column in range(table.shape[1]):
                total[column] += value * weights[column]
    return sums
