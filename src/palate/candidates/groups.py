"""Which groups of items (sources, labels, categories) are nearest to a person, by what they did with items of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEWEST = 500
"""Items of a history that count."""


def nearest(group: NDArray[np.integer], positive: NDArray[np.bool_], limit: int) -> NDArray[np.int64]:
    """The at most `limit` groups of a history (n,) of which the person took to more items than to as many of all, the farthest
    above first. `group` is below 0 for an item without one; the history is told oldest first."""
    group, positive = group[-NEWEST:], positive[-NEWEST:]
    told = group >= 0
    if not positive[told].any():
        return np.zeros(0, np.int64)
    above = np.bincount(group[told], positive[told] - _share(positive[told]))
    best = np.argsort(-above, kind="stable")[:limit]
    return best[above[best] > 0]


def _share(positive: NDArray[np.bool_]) -> float:
    """Of the history that was taken to; as if one more item had not been, for where all were."""
    return float(positive.sum() / (len(positive) + 1))


def weightiest(groups: NDArray[np.int32], weights: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """The at most `limit` groups of the greatest weights above 0."""
    best = np.argsort(-weights, kind="stable")[:limit]
    return groups[best[weights[best] > 0]].astype(np.int64)
