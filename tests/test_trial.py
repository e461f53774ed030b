from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from palate import pairs, trial
from palate.domain import Interactions
from palate.examples import Examples
from palate.models.content import nothing_known
from palate.models.factorization_machine import NO_SOURCES
from palate.models.popularity import Popularity
from palate.trial import LEAST_SLOPE, RankingTest
from palate.vocabulary import Vocabulary

PEOPLE, ITEMS = 20, 30


def examples() -> tuple[Examples, NDArray[np.bool_]]:
    """Everybody took to items 0 to 4; held out is that the even people took to item 20 and refused item 21."""
    users = np.repeat(np.arange(PEOPLE), 7)
    items = np.tile([0, 1, 2, 3, 4, 20, 21], PEOPLE)
    kept = (items < 5) | (users % 2 == 0)
    users, items = users[kept], items[kept]
    label = np.where(items == 21, 0, 1).astype(np.float32)
    weight = np.where(items == 21, -1, 2).astype(np.float32)
    merged = Interactions(users, items, label, weight, np.where(items >= 5, 9, 1).astype(np.int64))
    everybody, every = np.ones(PEOPLE, bool), np.ones(len(merged), bool)
    rows = Vocabulary(np.arange(PEOPLE)), Vocabulary(np.arange(ITEMS))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Examples(
        9, None, now, pairs.of_interactions(merged), everybody, every, *rows, NO_SOURCES, nothing_known(ITEMS)
    ), items >= 5


def ordered(*best: int) -> Popularity:
    """A model that puts these items first, for everybody."""
    mean = np.zeros(ITEMS, np.float32)
    mean[list(best)] = np.linspace(1, 0.5, len(best))
    return Popularity(Vocabulary(np.arange(ITEMS)), mean, mean, 0.5, 1.0, mean, False)


def tried(model: Popularity) -> RankingTest:
    found = trial.run("popularity", model, *examples(), 1.5, np.random.default_rng(1))
    assert found is not None
    return found


def test_a_model_that_puts_what_was_held_out_first_has_all_there_is_to_gain() -> None:
    found = tried(ordered(0, 1, 2, 3, 4, 20))  # what people had met before doesn't stand in its way
    assert (found.ndcg, found.hit_rate, found.people, found.held_out) == (1, 1, 10, 10)
    assert found.popularity_ndcg == 0  # nobody took to it before: of equals the wanted comes last
    assert not found.worse


def test_a_model_that_is_no_better_than_popularity_is_not_called_worse() -> None:
    found = tried(ordered(*range(5, 20)))
    assert (found.ndcg, found.hit_rate) == (0, 0)
    assert not found.worse


def test_a_model_below_popularity_is_called_worse() -> None:
    given, held = examples()
    merged = given.pairs.rows(np.ones(len(given.pairs), bool))
    known = merged.item == 20
    popular = merged.user % 4 == 0
    found = trial.run(
        "popularity", ordered(*range(5, 20)), given, held & ~(known & popular), 1.5, np.random.default_rng(1)
    )
    assert found is not None
    assert found.popularity_ndcg == 1
    assert found.worse


def test_without_a_positive_there_is_no_test() -> None:
    given, held = examples()
    refused = held & (given.pairs.weight < 0)
    assert trial.run("popularity", ordered(20), given, refused, 1.5, np.random.default_rng(1)) is None


def test_calibration_finds_the_slope_of_many_examples() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(5, 2, 20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-(1.5 * scores - 8)))
    found = trial.calibrated(scores, labels.astype(np.float64))
    assert found.slope == pytest.approx(1.5, rel=0.05)
    assert found.intercept == pytest.approx(-8, rel=0.05)


def test_calibration_never_turns_the_order_round_and_few_examples_move_it_little() -> None:
    scores, labels = np.linspace(0, 1, 1000), np.linspace(1, 0, 1000)
    assert trial.calibrated(scores, labels).slope == pytest.approx(LEAST_SLOPE / scores.std())
    few = trial.calibrated(scores[::500], labels[::500])
    assert few.slope * scores[::500].std() == pytest.approx(1, abs=0.1)
    assert np.isfinite(trial.calibrated(np.ones(3), np.ones(3)).slope)


def test_without_a_test_the_best_items_lie_well_above_one_half() -> None:
    given, _ = examples()
    found = trial.untested("popularity", ordered(*range(30)), given, np.random.default_rng(1)).calibration
    assert found.slope * 0.75 + found.intercept == pytest.approx(0, abs=0.05)  # the mean score
    assert 1.5 < found.slope * 1 + found.intercept < 3
