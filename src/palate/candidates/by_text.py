"""Nearest to the texts of what the person took to lately."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from palate.candidates import personal
from palate.candidates.openness import Open, is_open
from palate.live import History
from palate.spaces import Spaces
from palate.stock import Stock

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

LATELY = 30
"""Items that a person took to, the newest, whose middle is compared."""
LAST = 2
"""Of these, the newest, each of which is compared by itself."""
PROBES = 3
"""Lists of the index that are looked into for each text that is compared with."""
DEEP = 3
"""Times as many items are looked at as are taken when their age counts."""


def find(stock: Stock, history: History, allowed: Open, limit: int, fresh: Callable[[Rows], Floats]) -> Rows:
    """Rows: the at most `limit` nearest of what the index holds, and as many of what came since, of which all are compared.

    `fresh` says of rows of the base what their age leaves of their worth.
    """
    spaces = stock.spaces
    if spaces is None or spaces.directions is None or not limit:
        return np.zeros(0, np.int64)
    texts = asked(spaces, history)
    if not len(texts):
        return np.zeros(0, np.int64)
    share = -(-limit // len(texts))
    return np.concatenate([*_old(spaces, texts, allowed, share, fresh), *_young(spaces, texts, allowed, share)])


def _old(spaces: Spaces, texts: Floats, allowed: Open, limit: int, fresh: Callable[[Rows], Floats]) -> Iterator[Rows]:
    for rows, cosines in old(spaces, texts, allowed, PROBES, DEEP * limit):
        yield personal.find(cosines * fresh(rows), rows, limit)


def _young(spaces: Spaces, texts: Floats, allowed: Open, limit: int) -> Iterator[Rows]:
    rows, cosines = young(spaces, texts, allowed)
    yield from (personal.find(own, rows, limit) for own in cosines.T)


def asked(spaces: Spaces, history: History) -> Floats:
    """(q, d) the texts to compare with: the middle of those that the person took to lately, and the last of them."""
    positive = (history.labels > 0.5) | (history.weights > 0)
    texts = spaces.asking(history.items[positive][-LATELY:])
    texts = texts[texts.any(axis=1)]
    if not len(texts):
        return texts
    middle = texts.mean(axis=0)
    return np.vstack((middle / max(float(np.linalg.norm(middle)), 1e-6), texts[-LAST:])).astype(np.float32)


def old(spaces: Spaces, texts: Floats, allowed: Open, probes: int, limit: int) -> list[tuple[Rows, Floats]]:
    """For each of some texts (q, d) the at most `limit` rows that the index has nearest to it, and their cosines; none without an
    index."""
    return [] if spaces.by_text is None else spaces.by_text.searches(texts, limit, allowed.bits, probes)


def young(spaces: Spaces, texts: Floats, allowed: Open) -> tuple[Rows, Floats]:
    """Rows (y,) of what came since the snapshot, and the cosine of each with these texts (q, d): (y, q)."""
    rows, base = spaces.young, len(spaces.base)
    beside = rows >= base
    kept = is_open(allowed.bits, np.where(beside, 0, rows)) & ~beside
    kept[beside] = allowed.side[rows[beside] - base]
    cosines: Floats = (spaces.young_texts @ texts.T)[kept]  # a product of all takes less than a copy of some
    return rows[kept], cosines
