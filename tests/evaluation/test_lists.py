"""Figures of lists, worked out by hand on five people and four items."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from palate.domain import Interactions
from palate.evaluation import lists
from palate.machine_code import compiled
from palate.models.material import Known, known
from palate.vocabulary import Vocabulary

# item 0: people 1, 2, 3, 4; item 1: people 1, 2; item 2: person 3; item 3: nobody
TOOK = [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 2), (4, 0), (5, 3)]
WEIGHTS = [1.0] * 7 + [0.0]
ITEMS = Vocabulary(np.arange(4))


def history(pairs: list[tuple[int, int]], weights: list[float], labels: list[float] | None = None) -> Interactions:
    user, item = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    label = np.array(labels or [np.nan] * len(pairs), np.float32)
    return Interactions(user, item, label, np.array(weights, np.float32), np.zeros(len(pairs), np.int64))


def of(pairs: list[tuple[int, int]], weights: list[float], labels: list[float] | None = None, user: int = 1) -> Known:
    return known(history(pairs, weights, labels), np.array([user]), ITEMS)


BEHAVIOUR = lists.by_behaviour(history(TOOK, WEIGHTS), ITEMS)


def test_popularity_is_the_share_of_people_and_half_a_person_for_none() -> None:
    assert BEHAVIOUR.popularity.tolist() == pytest.approx([4 / 5, 2 / 5, 1 / 5, 0.5 / 5])


def test_novelty_is_the_mean_surprise_in_bits() -> None:
    found = lists.novelty(np.array([[0, 2], [1, -1], [-1, -1]], np.int32), BEHAVIOUR)
    assert found[:2].tolist() == pytest.approx([(-math.log2(0.8) - math.log2(0.2)) / 2, -math.log2(0.4)])
    assert math.isnan(found[2])


def test_diversity_is_one_minus_the_mean_cosine_of_all_pairs() -> None:
    cosines = {(0, 1): 2 / math.sqrt(4 * 2), (0, 2): 1 / math.sqrt(4), (1, 2): 0.0}
    found = lists.diversity(np.array([[0, 1, 2], [0, 1, -1], [2, 3, -1], [1, -1, -1]], np.int32), BEHAVIOUR)
    assert found[:3].tolist() == pytest.approx([1 - sum(cosines.values()) / 3, 1 - cosines[0, 1], 1], abs=1e-6)
    assert math.isnan(found[3])


def test_popularity_bias_compares_the_list_with_what_they_took_before() -> None:
    person = of([(1, 1), (1, 2)], [1.0, 1.0])
    found = lists.popularity_bias(np.array([[0, 1]], np.int32), person, BEHAVIOUR)
    assert found.tolist() == pytest.approx([(0.8 + 0.4) / (0.4 + 0.2)])
    nobody = of([(2, 1)], [1.0])
    assert math.isnan(lists.popularity_bias(np.array([[0, 1]], np.int32), nobody, BEHAVIOUR)[0])


@pytest.mark.parametrize(("weights", "labels"), [([1.0, -1.0], None), ([1.0, 0.0], [np.nan, 0.0]), ([1.0, 0.1], None)])
def test_like_what_they_abandoned_is_what_is_nearer_to_it(weights: list[float], labels: list[float] | None) -> None:
    words = {0: ("sport",), 1: ("sport",), 2: ("art",), 3: ("art", "sport")}
    content = lists.by_content(history(TOOK, WEIGHTS), ITEMS, words)
    person = of([(1, 0), (1, 2)], weights, labels)  # took to sport, walked away from art
    found = lists.like_abandoned(np.array([[1, 2], [1, 1]], np.int32)[:1], person, content)
    assert found.tolist() == [0.5]


def test_without_anything_abandoned_there_is_no_answer() -> None:
    found = lists.like_abandoned(np.array([[1, 2]], np.int32), of([(1, 0), (1, 2)], [1.0, 1.0]), BEHAVIOUR)
    assert math.isnan(found[0])


def test_the_compiled_sums_equal_the_readable_ones() -> None:
    random = np.random.default_rng(2)
    pairs = sorted({(int(user), int(item)) for user, item in random.integers(0, [30, 4], (80, 2))})
    features = lists.by_behaviour(history(pairs, [1.0] * len(pairs)), ITEMS).features
    own, items = np.array([0, 3, 3, 7]), random.integers(0, 4, 7).astype(np.int32)
    some, weights = random.integers(-1, 4, (3, 5)).astype(np.int32), random.normal(size=7)
    answers = []
    for kernel in (partial(compiled, lists._loops), lists._readable):
        found = np.zeros(some.shape)
        kernel(features.offsets, features.columns, features.values, features.width, own, items, weights, some, found)
        answers.append(found)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-12)
    assert answers[0].any()
