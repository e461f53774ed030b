from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.ranking.arranging import REACH, Likeness, Place, Spread, arrange, asks, with_questions

ROWS = np.array([40, 30, 20, 10], np.int64)
VALUES = np.array([0.5, 0.8, 0.7, 0.6], np.float32)
NONE = np.zeros(4, bool)


def spread(strength: float, *groups: int) -> list[Spread]:
    return [Spread(np.array(groups, np.int32), strength)]


def order(places: list[Place]) -> list[int]:
    return [place.row for place in places]


def test_without_spread_and_exploration_the_order_is_by_value() -> None:
    places = arrange(ROWS, VALUES, NONE, [], 0.0, 3, np.random.default_rng(1))
    assert order(places) == [30, 20, 10]
    assert [place.probability for place in places] == [1, 1, 1]


def test_a_source_that_was_just_there_gives_way_to_others() -> None:
    places = arrange(ROWS, VALUES, NONE, spread(0.3, 2, 1, 1, 1), 0.0, 4, np.random.default_rng(1))
    assert order(places) == [30, 40, 20, 10]  # 0.7 · 0.7 < 0.5


def test_items_without_a_group_are_never_alike() -> None:
    places = arrange(ROWS, VALUES, NONE, spread(0.9, -1, -1, -1, -1), 0.0, 4, np.random.default_rng(1))
    assert order(places) == [30, 20, 10, 40]


def test_what_lies_far_back_in_the_list_counts_no_longer() -> None:
    rows = np.arange(14, dtype=np.int64)
    values = np.linspace(1, 0.9, 14, dtype=np.float32)
    values[12:] = 0.1
    groups = np.array([1, *range(100, 111), 1, 2], np.int32)
    places = arrange(rows, values, np.zeros(14, bool), [Spread(groups, 0.9)], 0.0, 14, np.random.default_rng(1))
    assert order(places)[-2:] == [12, 13]


def test_exploration_takes_its_share_and_says_how_likely_it_was() -> None:
    explorable = np.array([True, False, False, True])
    rng = np.random.default_rng(5)
    first = Counter(arrange(ROWS, VALUES, explorable, [], 0.4, 1, rng)[0] for _ in range(4000))
    by_row = {place.row: (place, count / 4000) for place, count in first.items()}
    assert {row: place.explored for row, (place, _) in by_row.items()} == {30: False, 40: True, 10: True}
    assert {row: place.probability for row, (place, _) in by_row.items()} == pytest.approx({30: 0.6, 40: 0.2, 10: 0.2})
    for place, share in by_row.values():
        assert share == pytest.approx(place.probability, abs=0.03)


def test_the_same_chance_gives_the_same_list() -> None:
    lists = [arrange(ROWS, VALUES, ~NONE, [], 0.5, 4, np.random.default_rng(9)) for _ in range(2)]
    assert lists[0] == lists[1]


@given(
    values=st.lists(st.floats(0.03125, 1, width=32), max_size=30),
    limit=st.integers(0, 40),
    share=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 1000),
)
def test_every_place_has_another_item_and_a_possible_probability(
    values: list[float], limit: int, share: float, seed: int
) -> None:
    n = len(values)
    rows = np.arange(n, dtype=np.int64) * 7
    groups = Spread((np.arange(n) % 3 - 1).astype(np.int32), 0.5)
    explorable = np.arange(n) % 2 == 0
    places = arrange(
        rows, np.array(values, np.float32), explorable, [groups], share, limit, np.random.default_rng(seed)
    )
    assert len(places) == len({place.row for place in places}) == min(limit, n)
    assert all(0 < place.probability <= 1 for place in places)
    assert share or all(place.probability == 1 for place in places)


@given(st.integers(0, 20), st.integers(0, 20), st.data())
def test_questions_stand_at_their_places_and_push_out_the_last(first: int, length: int, data: st.DataObject) -> None:
    places = [Place(row, 0.5, explored=False) for row in range(length)]
    turns = [number - first for number in range(first, first + length) if asks(number)]
    rows = data.draw(st.lists(st.integers(0, 40), max_size=len(turns), unique=True))
    together = with_questions(places, np.array(rows, np.int64), first)
    assert [(turn, together[turn].row) for turn in turns if together[turn].asked] == list(
        zip(turns, rows, strict=False)
    )
    others = [place.row for place in together if not place.asked]
    assert others == [row for row in range(length) if row not in rows][: length - len(rows)]
    assert len(together) == length


def test_a_source_has_no_more_places_than_its_cap_while_there_are_others() -> None:
    capped = [Spread(np.array([2, 1, 1, 1], np.int32), 0.0, cap=1)]
    assert order(arrange(ROWS, VALUES, NONE, capped, 0.0, 2, np.random.default_rng(1))) == [30, 40]
    assert order(arrange(ROWS, VALUES, NONE, capped, 0.0, 4, np.random.default_rng(1))) == [30, 40, 20, 10]


def test_what_says_the_same_in_other_words_gives_way() -> None:
    vectors = np.array([[0, 1], [1, 0], [0.96, 0.28], [0, 0]], np.float32)
    places = arrange(ROWS, VALUES, NONE, [], 0.0, 4, np.random.default_rng(1), likeness=Likeness(vectors, 0.5))
    assert order(places) == [30, 10, 40, 20]  # 0.7 · (1 − 0.5 · 0.96) < 0.5 · (1 − 0)


def test_items_that_are_owed_impressions_are_explored_first_and_alike_often() -> None:
    owed = np.array([True, False, False, True])
    rng = np.random.default_rng(5)
    first = Counter(arrange(ROWS, VALUES, ~NONE, [], 0.4, 1, rng, owed=owed)[0] for _ in range(4000))
    assert {place.row: place.probability for place in first} == pytest.approx({30: 0.6, 40: 0.2, 10: 0.2})
    for place, count in first.items():
        assert count / 4000 == pytest.approx(place.probability, abs=0.03)


@given(
    n=st.integers(1, 40),
    strengths=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0, 1)),
    cap=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 1000),
)
def test_the_neighbours_are_counted_as_the_formula_says(
    n: int, strengths: tuple[float, float, float], cap: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.1, 1, n).astype(np.float32)
    spreads = [Spread(rng.integers(-1, 4, n).astype(np.int32), strength) for strength in strengths[:2]]
    spreads[0] = Spread(spreads[0].group, strengths[0], cap)
    vectors = rng.normal(size=(n, 3)).astype(np.float32)
    likeness = Likeness(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strengths[2])
    found = arrange(np.arange(n), values, np.zeros(n, bool), spreads, 0.0, n, rng, likeness=likeness)
    chosen = order(found)
    for place, row in enumerate(chosen):
        left = [other for other in range(n) if other not in chosen[:place]]
        below = [other for other in left if not _full(spreads[0], other, chosen[:place])] or left
        worth = {other: _worth(other, chosen[:place], values, spreads, likeness) for other in below}
        assert worth[row] == pytest.approx(max(worth.values()), rel=1e-4)


def _full(spread: Spread, row: int, before: list[int]) -> bool:
    group = spread.group[row]
    return spread.cap is not None and group >= 0 and sum(spread.group[before] == group) >= spread.cap


def _worth(row: int, before: list[int], values: np.ndarray, spreads: list[Spread], likeness: Likeness) -> float:
    worth, near = float(values[row]), before[-REACH:]
    for spread in spreads:
        for other in near:
            if spread.group[other] == spread.group[row] >= 0:
                worth *= 1 - spread.strength
    cosines = [float(likeness.vectors[row] @ likeness.vectors[other]) for other in near]
    return worth * (1 - likeness.strength * max([0.0, *cosines]))
