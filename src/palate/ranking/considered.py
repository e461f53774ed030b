"""The few items that a call looks at closely, with all that is known of each: what the rankers are given and give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from palate.domain import to_milliseconds
from palate.live import Person
from palate.models.factorization_machine import Floats
from palate.pool import Pool, take
from palate.ranking import scoring
from palate.ranking.scoring import Judgement

DAY = 86_400_000
"""Milliseconds."""


@dataclass(frozen=True, eq=False)
class Considered:
    """Candidates (n) on their way through the rankers."""

    pool: Pool
    """Of these items alone, sorted by key."""
    person: Person
    judgement: Judgement
    """By what the person's own taste scores items."""
    found: NDArray[np.uint16]
    """(n,) a bit for each way by which an item was found: see `candidates.found`; 0 where every item was looked at."""
    scores: Floats
    """(n,) probabilities, 0..1, that the person likes each."""
    values: Floats
    """(n,) positive: what the order goes by, which is the scores, less for old items."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64]) -> Considered:
        """The candidates of these rows (ascending)."""
        return replace(
            self,
            pool=take(self.pool, rows),
            found=self.found[rows],
            scores=self.scores[rows],
            values=self.values[rows],
        )


def considered(
    pool: Pool,
    found: NDArray[np.uint16],
    person: Person,
    judgement: Judgement,
    freshness: float,
    half_life_days: float,
) -> Considered:
    """The items of a pool as the person's own taste sees them. `freshness` is the part of its value that an item loses with age
    at most, half of that in `half_life_days`."""
    scores, values = scoring.order_values(judgement, pool)
    fresh = _freshness(pool, judgement.now, freshness, half_life_days)
    return Considered(pool, person, judgement, found, scores, values * fresh)


def _freshness(pool: Pool, now: datetime, most: float, half_life_days: float) -> Floats:
    """(n,) the part of its value that an item keeps: from 1 when it is new or undated down to 1 − `most`."""
    age = np.maximum(to_milliseconds(now) - pool.published, 0).astype(np.float32)  # undated lies beyond any now
    kept: Floats = np.exp2(-age / np.float32(half_life_days * DAY))
    return 1 - np.float32(most) * (1 - kept)
