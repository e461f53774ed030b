"""Nearest to the texts of what the person took to lately."""

from __future__ import annotations

from collections.abc import Callable

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
PROBES = 6
"""Lists of the index that are looked into for each text that is compared with."""
FOUND = 1_000
"""Items that an index without lists finds at most for each of them."""


def find(stock: Stock, history: History, allowed: Open, limit: int, fresh: Callable[[Rows], Floats]) -> Rows:
    """Rows: the at most `limit` nearest of what the index holds, and as many of what came since, of which all are compared.

    `fresh` says of rows of the base what their age leaves of their worth.
    """
    spaces = stock.spaces
    texts = None if spaces is None or not limit else asked(spaces, history)
    if spaces is None or texts is None or not len(texts):
        return np.zeros(0, np.int64)
    found = [old(spaces, text, allowed, PROBES, FOUND) for text in texts]
    rows, cosines = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return np.concatenate((best(rows, cosines * fresh(rows), limit), best(*young(spaces, texts, allowed), limit)))


def asked(spaces: Spaces, history: History) -> Floats | None:
    """(q, d) the texts to compare with: the middle of those that the person took to lately, and the last of them; None where no
    text is known."""
    positive = (history.labels > 0.5) | (history.weights > 0)
    texts = spaces.texts(history.items[positive][-LATELY:])
    if texts is None:
        return None
    texts = texts[texts.any(axis=1)]
    if not len(texts):
        return texts
    middle = texts.mean(axis=0)
    return np.vstack((middle / max(float(np.linalg.norm(middle)), 1e-6), texts[-LAST:])).astype(np.float32)


def old(spaces: Spaces, text: Floats, allowed: Open, probes: int, limit: int) -> tuple[Rows, Floats]:
    """Rows that the index has near a text (d,), and the cosine of each, above 0; none without an index.

    An inverted file gives all in so many of its lists, another kind of index at most `limit`.
    """
    if spaces.by_text is None:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    rows, cosines = spaces.by_text.products(text, limit, allowed.bits, probes)
    kept = (cosines > 0) & is_open(allowed.bits, rows)
    return rows[kept], cosines[kept]


def young(spaces: Spaces, texts: Floats, allowed: Open) -> tuple[Rows, Floats]:
    """Rows of what came since the snapshot, and the cosine of each with the nearest of these texts (q, d), above 0."""
    rows, base = spaces.young, len(spaces.base)
    cosines = (spaces.young_texts @ texts.T).max(axis=1)
    beside = rows >= base
    kept = np.where(beside, False, is_open(allowed.bits, np.where(beside, 0, rows)))
    kept[beside] = allowed.side[rows[beside] - base]
    kept &= cosines > 0
    return rows[kept], cosines[kept]


def best(rows: Rows, values: Floats, limit: int) -> Rows:
    """The at most `limit` rows of the greatest values, where a row may be there once for each text."""
    order = personal.find(values, np.arange(len(rows)), (1 + LAST) * limit)
    order = order[np.lexsort((-values[order], rows[order]))]
    once = order[np.diff(rows[order], prepend=-1) != 0]
    found: Rows = rows[once[personal.find(values[once], np.arange(len(once)), limit)]]
    return found
