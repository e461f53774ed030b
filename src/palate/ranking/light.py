"""The light ranker: of tens of thousands of candidates the thousand among which the heavy one finds its best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.domain import to_milliseconds
from palate.models.factorization_machine import Floats
from palate.pool import NO_DATE
from palate.rankers import LIGHT_COLUMNS, Rankers
from palate.ranking.considered import Considered
from palate.ranking.features import DAYS_LONG, HOUR, log_odds
from palate.ranking.taste import label_part, source_part


def find(looked: Considered, rows: NDArray[np.int64], rankers: Rankers) -> NDArray[np.int64]:
    """At most `rankers.keep` of these rows (ascending) of the candidates, ascending."""
    if len(rows) <= rankers.keep:
        return rows
    some = looked if len(rows) == len(looked) else looked.take(rows)
    value = some.values if rankers.light is None else rankers.light(columns(some))
    return np.sort(rows[np.argpartition(-value, rankers.keep)[: rankers.keep]])


def columns(looked: Considered) -> list[Floats]:
    """C of (n,): `LIGHT_COLUMNS`, as `features.of` gives them."""
    pool, taste, now = looked.pool, looked.judgement.taste, to_milliseconds(looked.judgement.now)
    undated = np.int64(now - DAYS_LONG * 24 * HOUR)
    since = np.where(pool.published == NO_DATE, undated, pool.published)
    found = {
        "score": log_odds(looked.values),
        "likely": log_odds(looked.scores),
        "popularity": log_odds(pool.popularity),
        "evidence": np.log1p(pool.evidence),
        "item_bias": pool.bias,
        "source_weight": source_part(taste, pool.source),
        "label_weight": label_part(taste, pool.label_offsets, pool.labels),
        "age": _age(now - since),
        "age_here": _age(now - pool.received),
        "leads": pool.leads.astype(np.float32),
    }
    return [found[name] for name in LIGHT_COLUMNS]


def _age(milliseconds: NDArray[np.int64]) -> Floats:
    hours = np.maximum(milliseconds, 0).astype(np.float32) / np.float32(HOUR)
    return np.asarray(np.log1p(hours), np.float32)
