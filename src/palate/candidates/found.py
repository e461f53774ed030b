"""By which ways an item became a candidate, as a bit for each."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

NAMES = (
    "popular",
    "trending",
    "fresh",
    "exploration",
    "followed",
    "sources",
    "labels",
    "categories",
    "clusters",
    "behaviour",
    "near",
    "new",
    "text",
)
"""Of the ways; a way's place is its bit."""


@lru_cache
def bit(name: str) -> np.uint16:
    """The number whose only bit is this way's."""
    return np.uint16(1 << NAMES.index(name))


@lru_cache
def names(bits: int) -> tuple[str, ...]:
    """The ways whose bits are set.

    >>> names(0b101)
    ('popular', 'fresh')
    """
    return tuple(name for place, name in enumerate(NAMES) if bits >> place & 1)
