"""Popularity on counts whose posterior is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from palate.domain import Interactions, to_milliseconds
from palate.models import popularity
from palate.models.popularity import PopularityParams

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def interactions(votes: list[tuple[int, float, float]]) -> Interactions:
    """Item, label, age in days."""
    items = np.array([vote[0] for vote in votes], np.int64)
    labels = np.array([vote[1] for vote in votes], np.float32)
    times = np.array([to_milliseconds(NOW - timedelta(days=vote[2])) for vote in votes], np.int64)
    return Interactions(np.arange(len(votes)), items, labels, np.ones(len(votes), np.float32), times)


def test_the_posterior_mean_of_known_votes() -> None:
    votes = interactions([(7, 1, 0), (7, 1, 0), (7, 0, 0), (9, 0, 0)])
    found = popularity.fit(votes, NOW, PopularityParams(strength=2))
    prior = 2.5 / 5
    assert found.prior_mean == pytest.approx(prior)
    assert found.mean.tolist() == pytest.approx([(2 + 2 * prior) / 5, (0 + 2 * prior) / 3])
    assert found.evidence.tolist() == [3, 1]


def test_an_example_counts_half_after_a_half_life_and_whole_when_it_is_from_the_future() -> None:
    votes = interactions([(1, 1, 10), (2, 1, 20), (3, 1, -5)])
    found = popularity.fit(votes, NOW, PopularityParams(half_life_days=10))
    assert found.evidence.tolist() == [0.5, 0.25, 1]


def test_items_that_were_only_seen_are_at_the_prior() -> None:
    found = popularity.fit(interactions([(1, 1, 0), (2, np.nan, 0)]), NOW, PopularityParams(strength=3))
    assert found.evidence.tolist() == [1, 0]
    assert found.mean[1] == pytest.approx(found.prior_mean)


def test_scoring_unknown_items_gives_the_prior() -> None:
    found = popularity.fit(interactions([(2**40, 1, 0)]), NOW, PopularityParams(strength=1))
    assert popularity.score(found, [5, 2**40]).tolist() == pytest.approx([found.prior_mean, found.mean[0]])


def test_no_votes_at_all_give_a_prior_of_one_half() -> None:
    found = popularity.fit(interactions([]), NOW, PopularityParams())
    assert (found.prior_mean, len(found.items)) == (0.5, 0)
    assert popularity.score(found, [1]).tolist() == [0.5]


@pytest.mark.parametrize("strength", [3.0, 30.0])
def test_the_strength_of_the_prior_is_recovered_from_the_spread_of_items(strength: float) -> None:
    random = np.random.default_rng(0)
    rates = random.beta(0.3 * strength, 0.7 * strength, 3000)
    items = np.repeat(np.arange(3000), random.integers(1, 40, 3000))
    votes = (random.random(len(items)) < rates[items]).astype(np.float32)
    data = Interactions(np.arange(len(items)), items, votes, votes, np.zeros(len(items), np.int64))
    assert popularity.fit(data, NOW, PopularityParams()).strength == pytest.approx(strength, rel=0.15)


def test_items_that_do_not_differ_make_the_prior_strong() -> None:
    data = interactions([(item, label, 0) for item in range(20) for label in (0, 1)])
    assert popularity.fit(data, NOW, PopularityParams()).strength == popularity.STRONGEST
