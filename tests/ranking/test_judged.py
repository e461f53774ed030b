"""Judgements that are remembered as long as they hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from palate.catalog import Change
from palate.lately import Lately
from palate.live import History, Person, State
from palate.pool import empty_pool, with_changes
from palate.ranking import judged, scoring
from palate.ranking.judged import Memory
from palate.ranking.scoring import Judgement
from palate.ranking.taste import TasteParams, influence
from palate.stock import changed, stock

NOW = datetime(2026, 5, 1, tzinfo=UTC)
PARAMS = TasteParams()


def item(key: int, source: int, *labels: str) -> Change:
    return Change(key, "live", source, key * 1000, key * 1000, "en", labels)


STATE = State(None, stock(with_changes(empty_pool(), [item(key, key % 3, "a", "b") for key in range(1, 9)], None)))


def history(*votes: tuple[int, float]) -> History:
    items, labels = zip(*votes, strict=True)
    return History(np.array(items, np.int64), np.array(labels, np.float32), np.zeros(len(votes), np.float32))


PERSON = Person(key=7, keys=(7,), history=history((2, 1.0), (5, 0.0), (6, float("nan"))))


def after(*rows: Change) -> State:
    """With these items beside the others, as where there are very many."""
    return replace(STATE, stock=changed(STATE.stock, rows, None, lambda _: None, split=1))


def person(history: History) -> Person:
    return replace(PERSON, history=history)


def same(one: Judgement, other: Judgement) -> bool:
    votes = np.array_equal(one.voted_keys, other.voted_keys) and np.array_equal(one.labels, other.labels)
    return (one.now, one.by_popularity) == (other.now, other.by_popularity) and votes and alike(one, other)


def alike(one: Judgement, other: Judgement) -> bool:
    return all(
        np.array_equal(getattr(one.taste, name), getattr(other.taste, name))
        for name in ("bias", "vector", "sources", "source_weights", "labels", "label_weights")
    )


@pytest.mark.parametrize(
    ("state", "who"),
    [
        (STATE, PERSON),
        (STATE, person(history((2, 1.0), (5, 0.0), (6, float("nan")), (7, float("nan"))))),
        (after(item(20, 0, "a")), PERSON),
    ],
)
def test_who_only_saw_more_is_judged_as_before_at_another_moment(state: State, who: Person) -> None:
    memory: Memory = Lately(8)
    first = judged.find(memory, STATE, PERSON, NOW, 3, PARAMS)
    second = judged.find(memory, state, who, NOW + timedelta(hours=1), 3, PARAMS)
    assert second.solution is first.solution
    assert same(second, scoring.judge_in(state, who, NOW + timedelta(hours=1), 3, PARAMS))


@pytest.mark.parametrize(
    ("state", "who", "params"),
    [
        (STATE, person(history((2, 1.0), (5, 1.0), (6, float("nan")))), PARAMS),
        (STATE, person(history((2, 1.0), (5, 0.0), (6, 1.0))), PARAMS),
        (STATE, replace(PERSON, followed=(2,)), PARAMS),
        (STATE, replace(PERSON, topics=("b",)), PARAMS),
        (STATE, replace(PERSON, bias=0.5, vector=np.zeros(0, np.float32)), PARAMS),
        (STATE, PERSON, TasteParams(l2_source=1.0)),
        (after(item(2, 1, "c")), PERSON, PARAMS),
        (replace(STATE, stock=stock(replace(STATE.pool))), PERSON, PARAMS),
    ],
)
def test_whatever_else_is_other_is_judged_anew(state: State, who: Person, params: TasteParams) -> None:
    memory: Memory = Lately(8)
    first = judged.find(memory, STATE, PERSON, NOW, 3, PARAMS)
    second = judged.find(memory, state, who, NOW, 3, params)
    assert second.solution is not first.solution
    assert same(second, scoring.judge_in(state, who, NOW, 3, params))


def test_who_has_met_enough_is_new_no_longer() -> None:
    memory: Memory = Lately(8)

    def seen(count: int) -> Person:
        return person(history(*((key, float("nan")) for key in range(1, count + 1))))

    assert judged.find(memory, STATE, seen(2), NOW, 3, PARAMS).by_popularity
    assert not judged.find(memory, STATE, seen(3), NOW, 3, PARAMS).by_popularity


def test_a_stock_that_was_given_up_is_not_kept() -> None:
    memory: Memory = Lately(8)
    state = after(item(20, 0, "a"))
    judged.find(memory, state, PERSON, NOW, 3, PARAMS)
    found = memory.get(PERSON.keys)
    assert found is not None
    assert found.stock() is state.stock
    del state
    assert found.stock() is None


def test_what_is_kept_of_the_likes_says_what_all_votes_say_of_them() -> None:
    who = person(history((2, 1.0), (5, 0.0), (3, 1.0), (6, 1.0)))
    found = judged.find(Lately(8), STATE, who, NOW, 3, PARAMS)
    items = scoring.features(STATE.pool)
    parts = influence(found.prior, found.taste, found.voted, found.labels, items, found.scale, found.params)
    assert parts[:, found.labels > 0.5] == pytest.approx(found.solution.of_likes.on(items), abs=1e-6)
    assert (
        found.solution.of_likes.on(items)[1, 0] > found.solution.of_likes.on(items)[1, 1] > 0
    )  # source and labels, or labels
