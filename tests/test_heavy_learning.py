"""The heavy ranker on simulated impressions of known worth, shown in the order of a plain score that knows half of it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from palate import feature_log, heavy_learning
from palate.feature_log import NAMES
from palate.heavy_learning import UPRIGHT, HeavyParams
from palate.impressions import Impressions
from palate.models.trees import TreeParams

pytest.importorskip("catboost")
TREES = TreeParams(trees=30, depth=4, learning_rate=0.2)
PARAMS = HeavyParams(min_impressions=100, min_positives=10, plenty=100, trees=TREES)
SIZE = 20
LISTS = 1500
KNOWN, UNKNOWN = NAMES.index("popularity"), NAMES.index("text_near_liked")


def shown(
    lists: int, seed: int, blind: float = 0.5, sense: float = 1.5, blur: float = 0.3
) -> tuple[Impressions, np.ndarray]:
    """Impressions and the true chance of each to be liked by who looks at it; down the list ever fewer look. Of what makes an
    item good the plain score knows the popularity alone, with some `blur`; `sense` is what the text adds."""
    random, n = np.random.default_rng(seed), lists * SIZE
    features, request = np.full((n, len(NAMES)), np.nan, np.float32), np.repeat(np.arange(lists), SIZE)
    popular, near = random.standard_normal((2, n))
    truth = 1 / (1 + np.exp(1.5 - popular - sense * np.maximum(near, 0)))
    plain = popular + blur * random.standard_normal(n)
    features[:, KNOWN], features[:, UNKNOWN], features[:, feature_log.SCORE] = popular, near, plain
    position = np.empty(n, np.int64)
    position[np.lexsort((-plain, request))] = np.tile(np.arange(SIZE), lists)
    liked = random.random(n) < truth / (1 + blind * position)
    return Impressions(
        user=request % 90,
        item=np.arange(n),
        time=1_000_000 + request * 1000,
        request=request,
        position=position,
        probability=np.ones(n, np.float32),
        features=features,
        gain=liked.astype(np.float32),
    ), truth


def quality(part: Impressions, truth: np.ndarray, scores: np.ndarray) -> float:
    """True nDCG of an order."""
    gains = [heavy_learning.dcg(part.request, order, truth, 10) for order in (scores, truth)]
    return float((gains[0] / gains[1]).mean())


@pytest.fixture(scope="module")
def learned() -> heavy_learning.Heavy:
    return heavy_learning.learn(shown(LISTS, 1)[0], PARAMS, 1)


def test_it_orders_what_it_never_saw_better_than_the_plain_score(learned: heavy_learning.Heavy) -> None:
    part, truth = shown(100, 2)
    own = quality(part, truth, heavy_learning.raw(learned.ranker, part.features))
    assert own > quality(part, truth, part.features[:, feature_log.SCORE].astype(float)) + 0.05
    assert learned.quality["served"]
    assert learned.quality["ndcg"] > learned.quality["plain_ndcg"]
    assert learned.quality["calibration_error"] < 0.03


def test_places_explain_a_part_that_else_is_put_down_to_items() -> None:
    part, _ = shown(500, 1)
    late, truth = shown(100, 2)
    nowhere = Impressions(**{**vars(part), "position": np.zeros(len(part), np.int64)})
    orders = (heavy_learning.raw(heavy_learning.fitted(one, PARAMS, 1), late.features) for one in (part, nowhere))
    with_place, without = (quality(late, truth, order) for order in orders)
    assert with_place > without


def test_what_trees_make_of_very_little_leans_on_the_plain_score() -> None:
    part, _ = shown(8, 1)
    part.features[:, KNOWN] = np.nan
    everything, truth = shown(100, 2)
    few, many = (
        heavy_learning.fitted(part, msgspec.structs.replace(PARAMS, plenty=plenty), 1) for plenty in (10_000, 1)
    )
    assert few.lean.slope > 0.5 > 0.1 > many.lean.slope
    leaning, alone = (
        quality(everything, truth, heavy_learning.raw(replace(few, lean=lean), everything.features))
        for lean in (few.lean, UPRIGHT)
    )
    assert leaning > alone + 0.01


def test_on_a_score_that_says_nothing_it_doesnt_lean() -> None:
    part, _ = shown(300, 1)
    part.features[:, feature_log.SCORE] *= -1
    assert heavy_learning.fitted(part, PARAMS, 1).lean.slope == 0
    unknown = msgspec.structs.replace(PARAMS, without=("model",))
    ranker = heavy_learning.fitted(shown(300, 1)[0], unknown, 1)
    assert not ranker.lean(part.features).any()


def test_what_columns_add_is_what_it_says(learned: heavy_learning.Heavy) -> None:
    part, _ = shown(10, 2)
    added = heavy_learning.contributions(learned.ranker, part.features).sum(axis=1)
    said = heavy_learning.raw(learned.ranker, part.features)
    np.testing.assert_allclose(said - added, (said - added)[0], atol=1e-6)


def test_further_down_fewer_look(learned: heavy_learning.Heavy) -> None:
    part, _ = shown(100, 2)
    looked = heavy_learning.propensities(learned.ranker.trees, part, ())
    first, tenth = (looked[part.position == place][0] for place in (0, 9))
    assert first == 1
    assert 0.1 <= tenth < 0.4


def test_what_is_no_better_isnt_served() -> None:
    found = heavy_learning.learn(shown(300, 3, sense=0.0, blind=0.0, blur=0.0)[0], PARAMS, 1)
    assert not found.quality["served"]


def test_the_same_impressions_give_the_same_bytes() -> None:
    first, second = (heavy_learning.learn(shown(200, 1)[0], PARAMS, 1) for _ in range(2))
    np.testing.assert_array_equal(first.ranker.trees.to_bytes(), second.ranker.trees.to_bytes())
    assert first.quality == second.quality


def test_what_is_switched_off_isnt_asked(learned: heavy_learning.Heavy) -> None:
    params = msgspec.structs.replace(PARAMS, without=("text",))
    found = heavy_learning.learn(shown(LISTS, 1)[0], params, 1)
    assert "text_near_liked" in learned.quality["importances"]
    assert "text_near_liked" not in found.quality["importances"]
    assert found.quality["ndcg"] < learned.quality["ndcg"]


def test_too_few_teach_nothing() -> None:
    part, _ = shown(5, 1)
    assert heavy_learning.too_few(part, HeavyParams()) is not None
    assert heavy_learning.too_few(part.rows(part.gain <= 0), PARAMS) is not None
    assert heavy_learning.too_few(shown(20, 1)[0], PARAMS) is None


def test_of_few_positives_trees_are_plain_and_of_many_as_set() -> None:
    part, _ = shown(200, 3)
    positives = int((part.gain > 0).sum())
    enough, scarce, hardly = (
        heavy_learning.fitted(part, msgspec.structs.replace(PARAMS, plenty=plenty), 1).trees.forest().columns.shape[1]
        for plenty in (positives, 2 * positives, 1_000 * positives)
    )
    assert (enough, scarce, hardly) == (4, 3, 2)


def test_ndcg_of_a_known_list() -> None:
    part, _ = shown(1, 1)
    part = part.rows(np.arange(4))
    gains = np.array([0, 2, 0, -1], np.float32)
    part = Impressions(**{**vars(part), "gain": gains})
    scores = np.array([3.0, 2.0, 1.0, 0.0])
    assert heavy_learning.ndcg(part, scores, np.ones(4)).tolist() == pytest.approx([1 / np.log2(3)])
    assert heavy_learning.ndcg(part, -scores, np.ones(4), k=2).tolist() == [0]


def test_lists_in_which_all_are_alike_tell_nothing() -> None:
    part, _ = shown(2, 1)
    part = Impressions(**{**vars(part), "gain": np.ones(len(part), np.float32)})
    assert not len(heavy_learning.ndcg(part, np.zeros(len(part)), np.ones(len(part))))


def test_nothing_is_learned_while_all_that_is_old_came_to_nothing() -> None:
    part, _ = shown(100, 1)
    late = np.where(part.request >= 80, part.gain, 0).astype(np.float32)
    assert heavy_learning.too_few(Impressions(**{**vars(part), "gain": late}), PARAMS) is not None
