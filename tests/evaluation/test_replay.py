from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate import splits
from palate.domain import Interactions
from palate.evaluation.replay import Items, Quality, ReplayParams, replay
from palate.models import content
from palate.models.factorization_machine import FactorizationMachineParams
from palate.ranking.taste import TasteParams
from palate.vocabulary import Vocabulary

PEOPLE, ITEMS = 90, 60
KEYS = np.arange(ITEMS)
UNKNOWN = Items(Vocabulary(KEYS), content.nothing_known(ITEMS))
"""Of the items nothing is known but votes."""


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
    found = replay(camps(), UNKNOWN, params, np.random.default_rng(1))
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
    names = ["even" if item % 2 == 0 else "odd" for item in range(ITEMS)]
    labelled = replace(UNKNOWN.contents, label_offsets=np.arange(ITEMS + 1), labels=content.label_keys(names))
    params = ReplayParams(votes=(0, 1), people=20, factorization_machine=FactorizationMachineParams(factors=0))
    quality = by_votes(replay(camps(), replace(UNKNOWN, contents=labelled), params, np.random.default_rng(1)), "auc")
    assert quality[1].gain_interval[0] > 0.1


def test_sources_help_from_the_first_vote_where_the_model_has_learned_nothing() -> None:
    of_camps = replace(UNKNOWN.contents, source=KEYS % 2 + 7)
    params = ReplayParams(votes=(0, 1), people=20, factorization_machine=FactorizationMachineParams(factors=0))
    quality = by_votes(replay(camps(), replace(UNKNOWN, contents=of_camps), params, np.random.default_rng(1)), "auc")
    assert quality[1].gain_interval[0] > 0.1


def test_an_item_without_votes_stands_where_its_text_says() -> None:
    """Held-out people judge items that nobody else has met; their texts alone tell the two kinds apart."""
    votes, common = camps(noise=0.0), 20
    held_out = votes.user >= PEOPLE - 20
    votes = splits.rows(votes, np.where(held_out, (votes.item < 4) | (votes.item >= common), votes.item < common))
    text = (KEYS[:, np.newaxis] % 2 == [0, 1]).astype(np.float16)
    known = replace(UNKNOWN, contents=replace(UNKNOWN.contents, text=text))
    params = ReplayParams(votes=(0, 3), later=20, people=20, taste=TasteParams(l2_vector=0.1))
    aucs = [by_votes(replay(votes, items, params, np.random.default_rng(3)), "auc")[3] for items in (known, UNKNOWN)]
    assert aucs[0].model > 0.9 > 0.6 > aucs[1].model


def test_the_same_seed_gives_the_same_numbers() -> None:
    params = ReplayParams(votes=(0, 3), people=5)
    first, second = (replay(camps(20), UNKNOWN, params, np.random.default_rng(4)) for _ in range(2))
    assert first == second


def test_people_whose_later_votes_are_all_alike_have_no_auc() -> None:
    params = ReplayParams(votes=(0, 50), later=2, people=20)
    found = replay(camps(40, noise=0.5), UNKNOWN, params, np.random.default_rng(2))
    assert by_votes(found, "auc")[0].people < by_votes(found, "ndcg")[0].people == 20


def test_too_few_votes_are_said() -> None:
    with pytest.raises(ValueError, match="Too few people have 200 votes"):
        replay(camps(), UNKNOWN, ReplayParams(later=170), np.random.default_rng(1))
