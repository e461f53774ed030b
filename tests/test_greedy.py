"""That machine code and what reads as it does choose alike."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate.ranking import asking
from palate.ranking.arranging import Likeness, Spread, arrange
from palate.ranking.taste import Features, Taste, TasteParams


def some_spreads(random: np.random.Generator, n: int, cap: int | None) -> list[Spread]:
    return [
        Spread(random.integers(-1, 5, n).astype(np.int32), 0.1, cap),
        Spread(random.integers(-1, 3, n).astype(np.int32), 0.5),
    ]


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 60),
    limit=st.integers(0, 40),
    share=st.sampled_from([0.0, 0.1, 0.9]),
    kinds=st.integers(0, 2),
    cap=st.sampled_from([None, 1, 4]),
    strength=st.sampled_from([None, 0.5, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_a_list_is_the_same_in_machine_code(
    n: int, limit: int, share: float, kinds: int, cap: int | None, strength: float | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    values = (random.integers(1, 16, n) / 16).astype(np.float32)  # many are equal
    explorable, owed = random.random((2, n)) < 0.5
    vectors = (random.integers(-4, 5, (n, 3)) / 4).astype(np.float32)  # whose products no rounding touches
    lists = [
        arrange(
            np.arange(n)[::-1],
            values,
            explorable,
            some_spreads(np.random.default_rng(seed), n, cap)[:kinds],
            share,
            limit,
            np.random.default_rng(seed),
            likeness=None if strength is None else Likeness(vectors, strength),
            owed=owed,
            compiled=compiled,
        )
        for compiled in (False, True)
    ]
    assert lists[0] == lists[1]
    assert len(lists[0]) == min(n, limit)


def test_what_a_list_is_made_of_stays_as_it_was() -> None:
    values, explorable = np.array([0.5, 0.7], np.float32), np.ones(2, bool)
    for array in (values, explorable):
        array.flags.writeable = False  # as a column of a snapshot is
    places = arrange(np.arange(2), values, explorable, [], 0.5, 2, np.random.default_rng(1), compiled=True)
    assert {place.row for place in places} == {0, 1}
    assert values.tolist() == [0.5, 0.699999988079071]
    assert explorable.all()


def some_items(random: np.random.Generator, n: int) -> Features:
    counts = random.integers(0, 4, n)
    labels: NDArray[np.int64] = np.concatenate(
        [np.zeros(0, np.int64), *(random.permutation(7)[:count] for count in counts)]
    )
    return Features(
        vectors=random.normal(size=(n, 3)).astype(np.float32),
        bias=np.zeros(n, np.float32),
        source=random.integers(-1, 4, n).astype(np.int32),
        label_offsets=np.append(0, np.cumsum(counts)),
        labels=labels.astype(np.int32),
    )


@settings(deadline=None, max_examples=60)
@given(
    items=st.integers(1, 12),
    answered=st.integers(0, 6),
    population=st.integers(1, 40),
    count=st.integers(1, 14),
    seed=st.integers(0, 10_000),
)
def test_the_same_is_asked_in_machine_code(items: int, answered: int, population: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    asked, told = some_items(random, items), some_items(random, population)
    nobody = Taste(loss="logistic", base=0.0, vector=np.zeros(3, np.float32))
    given = 0.7, TasteParams(l2_vector=3.0), count, min(answered, items)
    found = asking.order_by_machine(asked.and_then(told), items, "logistic", *given)
    assert found.tolist() == asking.order(nobody, asked, told, *given).tolist()


def test_items_without_labels_and_sources_are_asked_about_alike() -> None:
    vectors = np.array([[0, 1], [1, 0], [0.1, 0]], np.float32)
    bare = Features(
        vectors, np.zeros(3, np.float32), np.full(3, -1, np.int32), np.zeros(4, np.int64), np.zeros(0, np.int32)
    )
    nobody = Taste(loss="squared", base=0.5, vector=np.zeros(2, np.float32))
    told = bare.take(np.array([0, 1, 1, 1]))
    given = 1.0, TasteParams(l2_vector=1.0, l2_bias=1.0), 2
    assert asking.order_by_machine(bare.and_then(told), 3, "squared", *given).tolist() == [1, 0]
    assert asking.order(nobody, bare, told, *given).tolist() == [1, 0]
