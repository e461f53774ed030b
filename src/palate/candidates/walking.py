"""The first of an order, or of several, that may be served: what an order is worth is looked at only as far as it takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.candidates.openness import is_open
from palate.orders import Bits, Groups, Rows

FARTHEST = 200_000
"""Rows of one order that are looked at."""
DEEP = 4
"""Times as many rows of a group are looked at as are wanted."""


def first(order: Rows, bits: Bits, limit: int) -> Rows:
    """The at most `limit` first rows of an order whose bits are set."""
    found: list[Rows] = []
    start, left, block = 0, limit, 2 * limit
    while left > 0 and start < min(len(order), FARTHEST):
        part = order[start : start + block]
        part = part[is_open(bits, part)][:left]
        found.append(part)
        start, left, block = start + block, left - len(part), 2 * block
    return np.concatenate(found) if found else order[:0]


def of_groups(groups: Groups, numbers: NDArray[np.integer], bits: Bits, limit: int) -> Rows:
    """The at most `limit` first rows of each of these groups whose bits are set; those far behind aren't looked at."""
    known = numbers[(numbers >= 0) & (numbers < len(groups))]
    if not len(known) or not limit:
        return groups.rows[:0]
    heads = groups.heads(known, DEEP * limit)
    inside = is_open(bits, heads)
    return heads[inside & (np.cumsum(inside, axis=1) <= limit)]
