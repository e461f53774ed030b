"""The few items that a call looks at closely, with all that is known of each: what the rankers are given and give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

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


class Age(NamedTuple):
    """What age takes from an item's value."""

    most: float
    """The part that it loses at most."""
    half_life_days: float
    """In which half of that is lost."""


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
    age: Age
    best: float
    """The greatest value of all that were considered: still that of all when some are taken out."""

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


def considered(pool: Pool, found: NDArray[np.uint16], person: Person, judgement: Judgement, age: Age) -> Considered:
    """The items of a pool as the person's own taste sees them."""
    scores, values = scoring.order_values(judgement, pool)
    fresh = freshness(pool.published, judgement.now, age)
    return scored(pool, found, person, judgement, scores, values * fresh, age)


def scored(
    pool: Pool,
    found: NDArray[np.uint16],
    person: Person,
    judgement: Judgement,
    scores: Floats,
    values: Floats,
    age: Age,
) -> Considered:
    """The items of a pool with these scores and values."""
    return Considered(pool, person, judgement, found, scores, values, age, float(values.max(initial=0)))


def others(looked: Considered, pool: Pool) -> Considered:
    """Other items, as the same person's own taste sees them."""
    return considered(pool, np.zeros(len(pool), np.uint16), looked.person, looked.judgement, looked.age)


def freshness(published: NDArray[np.int64], now: datetime, age: Age) -> Floats:
    """(n,) the part of its value that an item keeps: from 1 when it is new or undated down to 1 − `most`."""
    old = np.maximum(to_milliseconds(now) - published, 0).astype(np.float32)  # undated lies beyond any now
    kept: Floats = np.exp2(-old / np.float32(age.half_life_days * DAY))
    return 1 - np.float32(age.most) * (1 - kept)
