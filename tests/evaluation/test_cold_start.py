"""Lists for new people, by hand: the held-out are found out by few of their events."""

from __future__ import annotations

import numpy as np
import pytest

from palate.domain import Interactions
from palate.evaluation.cold_start import ColdStartParams, cold_start
from palate.models.factorization_machine import FactorizationMachineParams
from palate.models.popularity import PopularityParams

PARAMS = ColdStartParams(events=(0, 1, 5), people=20, later=3, k=5)


def two_camps() -> Interactions:
    """40 people of whom each takes all of 12 items of one camp, in an order of their own; a thirteenth of the other camp too."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(40), 12)
    item = np.concatenate([rng.permutation(12) + (100 if person % 2 else 0) for person in range(40)])
    order = np.lexsort((item, user))
    time = np.tile(np.arange(12), 40)[order].astype(np.int64)
    ones = np.ones(len(user), np.float32)
    return Interactions(user[order], item[order], ones, ones, time)


def test_without_events_everybody_gets_popularity_and_with_one_their_camp() -> None:
    found = cold_start(two_camps(), "popularity", PopularityParams(), PARAMS, np.random.default_rng(0))
    assert [row.votes for row in found] == [0, 1, 5]
    assert all(row.model == row.popularity for row in found)


def test_too_few_people_are_refused() -> None:
    with pytest.raises(ValueError, match="Too few people"):
        cold_start(
            two_camps(), "fm", FactorizationMachineParams(), ColdStartParams(events=(0, 100)), np.random.default_rng(0)
        )
