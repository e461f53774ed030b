"""The light ranker: of tens of thousands of candidates the thousand among which the heavy one finds its best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from palate.light_learning import Light
from palate.models.factorization_machine import Floats
from palate.pool import NO_DATE
from palate.rankers import HOT_COLUMNS, POOL_COLUMNS, Rankers
from palate.ranking import features
from palate.ranking.features import DAYS_LONG, HOUR, Scene, log_odds
from palate.ranking.taste import label_part, source_part


def find(scene: Scene, rows: NDArray[np.int64], rankers: Rankers) -> NDArray[np.int64]:
    """At most `rankers.keep` of these rows (ascending) of the scene's candidates, ascending."""
    if len(rows) <= rankers.keep:
        return rows
    looked = scene.looked
    some = looked if len(rows) == len(looked) else looked.take(rows)
    value = some.values if rankers.light is None else _values(replace(scene, looked=some), rankers.light)
    return np.sort(rows[np.argpartition(-value, rankers.keep)[: rankers.keep]])


def _values(scene: Scene, light: Light) -> Floats:
    """(n,) what the light ranker says; what it makes of the counts is worked out once for each hot item."""
    counted, rows = features.hot_columns(scene)
    return light(_of_pool(scene)) + light([counted[name] for name in HOT_COLUMNS], len(POOL_COLUMNS))[rows]


def columns(scene: Scene) -> list[Floats]:
    """C of (n,): `LIGHT_COLUMNS`, as `features.of` gives them, save that only of hot items anything was counted."""
    counted, rows = features.hot_columns(scene)
    return [*_of_pool(scene), *(counted[name][rows] for name in HOT_COLUMNS)]


def _of_pool(scene: Scene) -> list[Floats]:
    looked, pool, now = scene.looked, scene.looked.pool, scene.moment
    taste = looked.judgement.taste
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
    return [found[name] for name in POOL_COLUMNS]


def _age(milliseconds: NDArray[np.int64]) -> Floats:
    hours = np.maximum(milliseconds, 0).astype(np.float32) / np.float32(HOUR)
    return np.asarray(np.log1p(hours), np.float32)
