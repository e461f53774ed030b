"""Items like a given one, by what people did with both and by what both say; and people like a given one.

    score = w · behaviour + (1 − w) · text,   w = s / (s + TRUST)

`behaviour` is the cosine of the two items' learned vectors, `text` that of their texts, both within −1..1; the support `s` is
the evidence (recent examples) of that of the two items of which less is known. So what few have seen is compared by its text, and
what many have seen by what they made of it. Without a learned vector w is 0; without words the text's part is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import identities, people, vectors
from palate.candidates.filters import Mask, with_labels
from palate.live import Live
from palate.pool import NO_DATE, Pool
from palate.snapshots import Snapshot
from palate.text import embedding
from palate.vocabulary import Vocabulary

TRUST = 5.0
"""Examples with which behaviour counts as much as text."""
BY_TEXT = 5_000
"""Items whose texts are compared: all where there are no more, else those of its story, with its labels, and the newest."""
BY_BEHAVIOUR = 500
"""The nearest by behaviour, which are compared by text as well."""
BLOCK = 65_536

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


def find(connection: sa.Connection, live: Live, item: int, allowed: Mask, limit: int) -> Similar:
    """The at most `limit` items of the pool most like this one (by key) among what is `allowed` (n,)."""
    state = live.state
    rows = np.flatnonzero(allowed & (state.pool.keys != item))
    behaviour, support = _behaviour(state.snapshot, item, state.pool.keys[rows])
    chosen = np.union1d(_nearest(behaviour), _alike(state.pool, item, rows))
    keys, behaviour, support = state.pool.keys[rows[chosen]], behaviour[chosen], support[chosen]
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


def _behaviour(snapshot: Snapshot | None, item: int, keys: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(n,) cosine of the learned vectors, and how many examples of the lesser known of the two there are."""
    unknown, none = np.full(len(keys), np.nan, np.float32), np.zeros(len(keys), np.float32)
    if snapshot is None:
        return unknown, none
    arrays = snapshot.arrays
    learned = next((arrays[name] for name in ("ials_item_vectors", "item_vectors") if name in arrays), None)
    known = Vocabulary(np.asarray(arrays["items"]))
    own = int(known.rows(np.array([item], np.int64))[0])
    if learned is None or own < 0:
        return unknown, none
    rows = known.rows(keys)
    evidence = np.append(np.asarray(arrays.get("popularity_evidence", np.zeros(len(known))), np.float32), 0)
    support = np.minimum(evidence[rows], evidence[own])  # −1, not known, finds the last
    inside = np.flatnonzero(rows >= 0)
    unknown[inside] = _cosines(learned, rows[inside], own)
    return unknown, support.astype(np.float32)


def _cosines(vectors: NDArray[np.floating], rows: NDArray[np.integer], own: int) -> Floats:
    """(r,) between the rows and one of them; NaN where either is zero."""
    this = np.asarray(vectors[own], np.float32)
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = np.asarray(vectors[rows[start : start + BLOCK]], np.float32)
        lengths = np.sqrt(np.square(part).sum(axis=1)) * np.sqrt(np.square(this).sum())
        found[start : start + BLOCK] = np.where(lengths > 0, part @ this / np.maximum(lengths, 1e-12), np.nan)
    return found


def _nearest(behaviour: Floats) -> NDArray[np.int64]:
    """Places of the nearest by behaviour."""
    known = np.flatnonzero(~np.isnan(behaviour))
    if len(known) <= BY_BEHAVIOUR:
        return known
    return known[np.argpartition(-behaviour[known], BY_BEHAVIOUR)[:BY_BEHAVIOUR]]


def _alike(pool: Pool, item: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the rows whose texts are worth comparing."""
    if len(rows) <= BY_TEXT:
        return np.arange(len(rows))
    own = int(pool.rows(np.array([item], np.int64))[0])
    times = np.where(pool.published == NO_DATE, pool.received, pool.published)[rows]
    labelled, told = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    if own >= 0:
        labelled = with_labels(pool, pool.labels_of(own))[rows]
        told = (pool.story[rows] == pool.story[own]) & (pool.story[own] >= 0)
    order = np.lexsort((-times, ~labelled, ~told))
    return order[:BY_TEXT]


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
