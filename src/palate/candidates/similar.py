"""Items like a given one, by what people did with both and by what both say; and people like a given one.

    score = w · behaviour + (1 − w) · text,   w = s / (s + TRUST)

`behaviour` is the cosine of the two items' learned vectors, `text` that of their texts, both within −1..1; the support `s` is
the evidence (recent examples) of that of the two items of which less is known. So what few have seen is compared by its text, and
what many have seen by what they made of it. Without a learned vector w is 0; without words the text's part is 0.

Of few items all are compared, of many those that the indexes of the snapshot hold near the one, and those that came since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import identities, people, vectors
from palate.candidates import by_text, openness, personal, walking
from palate.candidates import wanted as of_wanted
from palate.candidates.openness import Open
from palate.candidates.wanted import Wanted
from palate.live import Live
from palate.snapshots import Snapshot
from palate.spaces import Spaces, array_of, learned
from palate.stock import Stock
from palate.text import embedding
from palate.vocabulary import Vocabulary

TRUST = 5.0
"""Examples with which behaviour counts as much as text."""
FEW = 5_000
"""Items up to which all are compared."""
NEAR = 2_000
"""The nearest by behaviour, as many by text, and as many by text of what came since, which are looked at among more."""
COMPARED = 400
"""Those of them that seem to be most like it, which are compared by their whole texts."""
PROBES = 48
"""Lists of the index of behaviour that are looked into."""
TEXT_PROBES = 48
"""Of texts."""
BLOCK = 65_536

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Similar:
    """Items (m), the most similar first."""

    keys: NDArray[np.int64]
    scores: Floats
    behaviour: Floats
    """−1..1; NaN where one of the two items has no learned vector."""
    text: Floats
    """−1..1; NaN where one of the two has no words."""
    support: Floats
    """Examples of that of the two of which less is known."""


def find(connection: sa.Connection, live: Live, item: int, wanted: Wanted, limit: int) -> Similar:
    """The at most `limit` items most like this one (by key) among what is wanted."""
    snapshot, stock = live.state.snapshot, live.state.stock
    pool = stock.take(_candidates(connection, stock, item, wanted))
    kept = of_wanted.allowed(pool, wanted) & (pool.keys != item)
    keys = pool.keys[kept]
    behaviour, support = _behaviour(snapshot, item, keys)
    text = _text(connection, item, keys)
    scores = blended(behaviour, text, support)
    best = np.lexsort((-keys, -scores))  # of equals the newest
    best = best[scores[best] > 0][:limit]
    return Similar(keys[best], scores[best], behaviour[best], text[best], support[best])


def blended(behaviour: Floats, text: Floats, support: Floats) -> Floats:
    """(m,) the formula at the head of this module; NaN stands for what isn't known."""
    weight = np.where(np.isnan(behaviour), 0, support / (support + TRUST))
    score: Floats = weight * np.nan_to_num(behaviour) + (1 - weight) * np.nan_to_num(text)
    return score.astype(np.float32, copy=False)


def users(connection: sa.Connection, live: Live, user: str, limit: int) -> list[tuple[str, float]]:
    """Ids of the people whose learned vectors are nearest to this one's, with the cosine; none for somebody unlearned."""
    snapshot, person = live.snapshot, people.identify(connection, user)
    if snapshot is None or person is None or "user_vectors" not in snapshot.arrays:
        return []
    keys = np.asarray(snapshot.arrays["users"], np.int64)
    own = Vocabulary(keys).rows(np.array([person.key, *person.keys], np.int64))
    own = own[own >= 0]
    if not len(own):
        return []
    cosines = _cosines(snapshot.arrays["user_vectors"], np.arange(len(keys)), int(own[0]))
    cosines[own] = np.nan
    best = np.argsort(-np.nan_to_num(cosines, nan=-2), kind="stable")[:limit]
    best = best[cosines[best] > 0]
    ids = identities.user_ids(connection, keys[best].tolist())
    return [(ids[key], float(cosines[row])) for key, row in zip(keys[best].tolist(), best, strict=True) if key in ids]


def _candidates(connection: sa.Connection, stock: Stock, item: int, wanted: Wanted) -> Rows:
    """Rows that are worth comparing."""
    if len(stock) <= FEW:
        return np.setdiff1d(np.arange(len(stock.base) + len(stock.side)), stock.gone)
    allowed, told = openness.find(stock, wanted, unseen=False), stock.of_stories(stock.stories_of(np.array([item])))
    _, text = vectors.read(connection, embedding.VERSION, embedding.LENGTH, np.array([item]))
    near = [told, *_by_behaviour(stock, item, allowed)]
    own = stock.spaces.turned(text) if stock.spaces is not None and len(text) else None
    if own is None:
        return np.unique(np.concatenate((*near, *_first_to_hand(stock, item, allowed))).astype(np.int64))
    by_words = _by_text(stock, own, allowed)
    rows = np.unique(np.concatenate((*near, by_words.rows)))
    return personal.find(_estimated(stock, item, own, rows, by_words), rows, COMPARED)


class _Near(NamedTuple):
    rows: Rows
    cosines: Floats


def _by_text(stock: Stock, text: Floats, allowed: Open) -> _Near:
    """The nearest to a text (1, d) of what the snapshot knows, and of what came since."""
    spaces = stock.spaces
    assert spaces is not None, "It has a place for texts."
    if spaces.by_text is not None:
        old = _Near(*by_text.old(spaces, text, allowed, TEXT_PROBES, NEAR)[0])
    else:
        rows = allowed.rows(len(stock.base))
        old = _best(rows, spaces.asking(stock.keys(rows)) @ text[0])
    rows, cosines = by_text.young(spaces, text, allowed)
    young = _best(rows, cosines[:, 0])
    return _Near(np.concatenate((old.rows, young.rows)), np.concatenate((old.cosines, young.cosines)))


def _best(rows: Rows, cosines: Floats) -> _Near:
    places = personal.find(cosines, np.arange(len(rows)), NEAR)
    return _Near(rows[places], cosines[places])


def _estimated(stock: Stock, item: int, text: Floats, rows: Rows, near: _Near) -> Floats:
    """(r,) about how much like the item these rows are, by their texts as the index keeps them."""
    spaces, keys = stock.spaces, stock.keys(rows)
    assert spaces is not None, "It has a place for texts."
    likeness, others = np.empty(len(rows), np.float32), np.ones(len(rows), bool)
    places = np.searchsorted(rows, near.rows)
    likeness[places], others[places] = near.cosines, False
    likeness[others] = spaces.asking(keys[others]) @ text[0]
    behaviour, support = _behaviour(spaces.snapshot, item, keys)
    return blended(behaviour, likeness, support)


def _first_to_hand(stock: Stock, item: int, allowed: Open) -> Iterator[NDArray[np.integer]]:
    """Where nothing says whose texts are near: those that share a label, and the newest."""
    orders, row = stock.orders, stock.rows(np.array([item]))
    labels = stock.take(row[row >= 0]).labels
    yield walking.of_groups(orders.by_label_newest, labels, allowed.bits, FEW // max(2 * len(labels), 1))
    yield walking.first(orders.newest, allowed.bits, FEW // 2)
    yield np.flatnonzero(allowed.side) + len(stock.base)


def _by_behaviour(stock: Stock, item: int, allowed: Open) -> Iterator[Rows]:
    """The nearest by behaviour."""
    spaces = stock.spaces
    name = None if spaces is None else learned(spaces.snapshot)
    if spaces is None or name is None:
        return
    own = int(spaces.known.rows(np.array([item]))[0])
    if own < 0:
        return
    array = spaces.snapshot.arrays[array_of(name)]
    rows, known = _around(stock, spaces, np.asarray(array[own], np.float32), allowed)
    cosines = np.nan_to_num(_cosines(array, known, own), nan=-2)
    yield _best(rows, cosines).rows


def _around(stock: Stock, spaces: Spaces, vector: Floats, allowed: Open) -> tuple[Rows, Rows]:
    """Open rows that are worth comparing with a learned vector, and their rows in the snapshot."""
    base, located = len(stock.base), spaces.by_behaviour
    if located is None or not located.index.cluster_count:
        rows = allowed.rows(base)
        known = spaces.known.rows(stock.keys(rows))
        return rows[known >= 0], known[known >= 0]
    known = located.index.alike(vector, PROBES)
    rows = located.rows[known]
    inside = openness.is_open(allowed.bits, rows)
    beside = np.flatnonzero(allowed.side)
    of_side = spaces.known.rows(stock.side.keys[beside])
    rows = np.concatenate((rows[inside], beside[of_side >= 0] + base))
    return rows, np.concatenate((known[inside], of_side[of_side >= 0]))


def _behaviour(snapshot: Snapshot | None, item: int, keys: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(n,) cosine of the learned vectors, and how many examples of the lesser known of the two there are."""
    unknown, support = np.full(len(keys), np.nan, np.float32), np.zeros(len(keys), np.float32)
    name = None if snapshot is None else learned(snapshot)
    if snapshot is None or name is None:
        return unknown, support
    known = Vocabulary(np.asarray(snapshot.arrays["items"]))
    own, rows = int(known.rows(np.array([item]))[0]), known.rows(keys)
    if own < 0:
        return unknown, support
    inside = np.flatnonzero(rows >= 0)
    if "popularity_evidence" in snapshot.arrays:
        evidence = snapshot.arrays["popularity_evidence"]
        support[inside] = np.minimum(evidence[rows[inside]], evidence[own])
    unknown[inside] = _cosines(snapshot.arrays[array_of(name)], rows[inside], own)
    return unknown, support


def _cosines(vectors: NDArray[np.floating], rows: NDArray[np.integer], own: int) -> Floats:
    """(r,) between the rows and one of them; NaN where either is zero."""
    this = np.asarray(vectors[own], np.float32)
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = np.asarray(vectors[rows[start : start + BLOCK]], np.float32)
        lengths = np.sqrt(np.square(part).sum(axis=1)) * np.sqrt(np.square(this).sum())
        found[start : start + BLOCK] = np.where(lengths > 0, part @ this / np.maximum(lengths, 1e-12), np.nan)
    return found


def _text(connection: sa.Connection, item: int, keys: NDArray[np.int64]) -> Floats:
    """(m,) cosine of the texts; NaN where one has no words."""
    found, rows = vectors.read(connection, embedding.VERSION, embedding.LENGTH, np.append(keys, item))
    own = np.flatnonzero(found == item)
    text = np.full(len(keys), np.nan, np.float32)
    if len(own):
        places = Vocabulary(found).rows(keys)
        inside = np.flatnonzero(places >= 0)
        text[inside] = _cosines(rows, places[inside], int(own[0]))
    return text
