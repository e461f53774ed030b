from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.lately import Lately
from palate.models.factorization_machine import Floats, Loss
from palate.ranking.taste import (
    Features,
    Taste,
    TasteParams,
    Tastes,
    Votes,
    influence,
    linear,
    linear_of_many,
    remembered,
    score,
    solve,
    with_choices,
)

PARAMS = TasteParams()


def features(vectors: list[list[float]], sources: list[int], labels: list[list[int]]) -> Features:
    return Features(
        vectors=np.array(vectors, np.float32).reshape(len(sources), -1),
        bias=np.linspace(0, 0.1, len(sources), dtype=np.float32),
        source=np.array(sources, np.int32),
        label_offsets=np.cumsum([0, *map(len, labels)], dtype=np.int64),
        labels=np.array([label for own in labels for label in own], np.int32),
    )


ITEMS = features(
    [[1, 0], [0.9, 0.1], [0, 1], [0, 0], [-1, 0.5]], [0, 0, 1, -1, 2], [[0, 1], [1], [2], [], [0, 1, 2, 3]]
)


def prior(loss: Loss = "squared", vector: tuple[float, float] = (0.0, 0.0)) -> Taste:
    return Taste(loss=loss, base=0.5 if loss == "squared" else 0.0, vector=np.array(vector, np.float32))


def rows(*places: int) -> Features:
    return ITEMS.take(np.array(places, np.int64))


def labels(*values: float) -> Floats:
    return np.array(values, np.float32)


def test_taking_rows_keeps_each_items_labels() -> None:
    taken = rows(4, 3, 0)
    assert taken.label_offsets.tolist() == [0, 4, 4, 6]
    assert taken.labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert taken.source.tolist() == [2, -1, 0]


def test_many_items_are_scored_in_machine_code_as_few_are() -> None:
    voted = solve(prior(vector=(0.3, -0.2)), rows(0, 1, 3), labels(1, 0, 1), 1.0, PARAMS)
    chosen = with_choices(prior(), np.array([9], np.int32), np.array([1, 40], np.int32), PARAMS)
    for own in (prior(), voted, chosen):
        np.testing.assert_allclose(linear_of_many(own, ITEMS), linear(own, ITEMS), rtol=1e-6)
    assert not len(linear_of_many(voted, ITEMS.take(np.zeros(0, np.int64))))


def test_without_votes_the_prior_stays() -> None:
    start = prior(vector=(0.2, -0.1))
    assert solve(start, rows(), labels(), 1.0, PARAMS) is start


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_one_like_raises_what_is_alike_and_a_dislike_lowers_it(loss: Loss) -> None:
    before = score(prior(loss), ITEMS)
    liked = score(solve(prior(loss), rows(0), labels(1), 1.0, PARAMS), ITEMS) - before
    disliked = score(solve(prior(loss), rows(0), labels(0), 1.0, PARAMS), ITEMS) - before
    assert liked[0] > liked[1] > liked[2] > 0  # the readiness to like anything rises as well
    assert disliked[0] < disliked[1] < disliked[2] < 0


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_source_and_labels_teach_also_where_vectors_say_nothing(loss: Loss) -> None:
    blind = Features(np.zeros((5, 0), np.float32), ITEMS.bias, ITEMS.source, ITEMS.label_offsets, ITEMS.labels)
    start = Taste(loss=loss, base=prior(loss).base, vector=np.zeros(0, np.float32))
    voted = blind.take(np.array([0], np.int64))
    gained = score(solve(start, voted, labels(1), 1.0, PARAMS), blind) - score(start, blind)
    assert gained[0] > gained[1] > gained[2]
    assert gained[2] == pytest.approx(gained[3], abs=0.005)


def test_a_vote_counts_alike_whatever_the_loss() -> None:
    gained = []
    for loss in ("squared", "logistic"):
        start: Taste = prior(loss)
        gained.append(score(solve(start, rows(2), labels(1), 1.0, PARAMS), ITEMS)[2] - score(start, ITEMS)[2])
    assert gained[0] == pytest.approx(gained[1], rel=0.25)


def test_the_length_of_the_models_vectors_does_not_matter() -> None:
    longer = Features(ITEMS.vectors * 10, ITEMS.bias, ITEMS.source, ITEMS.label_offsets, ITEMS.labels)
    one = score(solve(prior(), rows(0, 2), labels(1, 0), 1.0, PARAMS), ITEMS)
    ten = score(solve(prior(), longer.take(np.array([0, 2])), labels(1, 0), 100.0, PARAMS), longer)
    assert ten == pytest.approx(one, abs=1e-5)


def test_an_item_with_many_labels_is_not_louder_than_one_with_one() -> None:
    bare = Features(
        np.zeros((2, 0), np.float32),
        labels(0, 0),
        np.full(2, -1, np.int32),
        np.array([0, 1, 5]),
        np.arange(5, dtype=np.int32),
    )
    start = Taste(loss="squared", base=0.5, vector=np.zeros(0, np.float32))
    gains = []
    for place in (0, 1):
        own = bare.take(np.array([place]))
        gains.append(float(score(solve(start, own, labels(1), 1.0, PARAMS), own)[0]))
    assert gains[0] == pytest.approx(gains[1], abs=1e-5)


def test_choices_are_a_head_start_that_votes_can_undo() -> None:
    start = with_choices(prior(), np.array([1], np.int32), np.array([3, 1], np.int32), PARAMS)
    raised = score(start, ITEMS) - score(prior(), ITEMS)
    assert raised.tolist() == pytest.approx([0.15 / 2**0.5, 0.15, 0.15, 0, 2 * 0.15 / 4**0.5], abs=1e-5)
    undone = solve(start, rows(2, 2, 2, 2, 2), labels(0, 0, 0, 0, 0), 1.0, PARAMS)
    assert score(undone, ITEMS)[2] < 0.3


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_influence_splits_exactly_what_the_votes_have_added(data: st.DataObject) -> None:
    loss: Loss = data.draw(st.sampled_from(["squared", "logistic"]))
    places = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=8))
    given_labels = labels(
        *data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(places), max_size=len(places)))
    )
    start = prior(loss)
    taste = solve(start, rows(*places), given_labels, 2.0, PARAMS)
    parts = influence(start, taste, rows(*places), given_labels, ITEMS, 2.0, PARAMS)
    added = linear(taste, ITEMS) - linear(start, ITEMS) - np.float32(taste.bias - start.bias)
    assert parts.shape == (5, len(places))
    assert parts.sum(axis=1) == pytest.approx(added, abs=2e-3)


def test_what_the_snapshot_learned_is_owed_to_the_like_most_alike() -> None:
    start = prior(vector=(0.4, 0.3))
    voted, given_labels = rows(0, 2, 3), labels(1, 1, 0)
    parts = influence(start, start, voted, given_labels, rows(1), 1.0, PARAMS)
    assert parts[0].argmax() == 0


@given(st.lists(st.integers(0, 4), max_size=6))
def test_votes_far_beyond_any_dimension_are_solved_too(places: list[int]) -> None:
    many = rows(*places * 20)
    taste = solve(prior("logistic"), many, np.ones(len(many), np.float32), 1.0, PARAMS)
    assert np.isfinite(score(taste, ITEMS)).all()


def test_a_remembered_taste_is_solved_anew_as_soon_as_anything_is_other() -> None:
    tastes: Tastes = Lately(8)
    first = remembered(tastes, (7,), Votes(prior(), rows(0, 2), labels(1, 0), 1.0, PARAMS))
    assert first.vector[0] > 0
    assert remembered(tastes, (7,), Votes(prior(), rows(0, 2), labels(1, 0), 1.0, PARAMS)) is first
    others = [
        Votes(prior(), rows(0, 2), labels(0, 1), 1.0, PARAMS),
        Votes(prior(vector=(0.5, 0)), rows(0, 2), labels(1, 0), 1.0, PARAMS),
        Votes(prior(), rows(0, 4), labels(1, 0), 1.0, PARAMS),
        Votes(prior(), rows(0, 2), labels(1, 0), 1.0, TasteParams(l2_vector=1)),
    ]
    for votes in others:
        found = remembered(tastes, (7,), votes)
        assert found is not first
        exact = solve(votes.prior, votes.items, votes.labels, votes.scale, votes.params)
        assert np.array_equal(found.vector, exact.vector)
    assert remembered(tastes, (8,), others[0]) is not remembered(tastes, (7,), others[0])
