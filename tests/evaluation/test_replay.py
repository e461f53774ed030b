from __future__ import annotations

import numpy as np
import pytest

from palate.domain import Interactions
from palate.evaluation.replay import Items, Quality, ReplayParams, replay
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachineParams, ItemSources

PEOPLE, ITEMS = 90, 60


def camps(people: int = PEOPLE, noise: float = 0.1) -> Interactions:
    """Even people like even items, odd people odd ones, with some noise; everybody votes on all but a few, in random order."""
    rng = np.random.default_rng(0)
    user, item = (part.ravel() for part in np.meshgrid(np.arange(people), np.arange(ITEMS), indexing="ij"))
    kept = rng.random(len(user)) < 0.9
    user, item = user[kept], item[kept]
    label = ((user + item) % 2 == 0) ^ (rng.random(len(user)) < noise)
    time = rng.permutation(len(user)) + 1_000_000
    weight = np.ones(len(user), np.float32)
    return Interactions(
        user.astype(np.int64), item.astype(np.int64), label.astype(np.float32), weight, time.astype(np.int64)
    )


def by_votes(found: list[Quality], metric: str) -> dict[int, Quality]:
    return {quality.votes: quality for quality in found if quality.metric == metric}


def test_quality_rises_with_votes_from_that_of_popularity() -> None:
    params = ReplayParams(people=20, factorization_machine=FactorizationMachineParams(factors=4, initial_scale=0.3))
    found = replay(camps(), Items(NO_SOURCES, {}), params, np.random.default_rng(1))
    for metric in ("auc", "ndcg"):
        quality = by_votes(found, metric)
        assert list(quality) == [0, 1, 3, 10, 30]
        assert quality[0].model == quality[0].popularity
        assert quality[0].gain_interval == pytest.approx((0, 0))
        assert quality[0].model + 0.1 < quality[3].model < quality[30].model + 0.02
        assert quality[30].gain_interval[0] > 0.15
        low, high = quality[30].model_interval
        assert low < quality[30].model < high


def test_labels_help_from_the_first_vote_where_the_model_has_learned_nothing() -> None:
    labels = {item: ("even" if item % 2 == 0 else "odd",) for item in range(ITEMS)}
    params = ReplayParams(votes=(0, 1), people=20, factorization_machine=FactorizationMachineParams(factors=0))
    quality = by_votes(replay(camps(), Items(NO_SOURCES, labels), params, np.random.default_rng(1)), "auc")
    assert quality[1].gain_interval[0] > 0.1


def test_sources_help_from_the_first_vote_where_the_model_has_learned_nothing() -> None:
    items = np.arange(ITEMS, dtype=np.int64)
    sources = ItemSources(items, items % 2 + 7)
    params = ReplayParams(votes=(0, 1), people=20, factorization_machine=FactorizationMachineParams(factors=0))
    quality = by_votes(replay(camps(), Items(sources, {}), params, np.random.default_rng(1)), "auc")
    assert quality[1].gain_interval[0] > 0.1


def test_the_same_seed_gives_the_same_numbers() -> None:
    params = ReplayParams(votes=(0, 3), people=5)
    first, second = (replay(camps(20), Items(NO_SOURCES, {}), params, np.random.default_rng(4)) for _ in range(2))
    assert first == second


def test_people_whose_later_votes_are_all_alike_have_no_auc() -> None:
    params = ReplayParams(votes=(0, 50), later=2, people=20)
    found = replay(camps(40, noise=0.5), Items(NO_SOURCES, {}), params, np.random.default_rng(2))
    assert by_votes(found, "auc")[0].people < by_votes(found, "ndcg")[0].people == 20


def test_too_few_votes_are_said() -> None:
    with pytest.raises(ValueError, match="Too few people have 200 votes"):
        replay(camps(), Items(NO_SOURCES, {}), ReplayParams(later=170), np.random.default_rng(1))
