from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.stories import company
from palate.stories.neighbours import NO_PAIRS, SCALE, ClusteringParams, Pairs, chosen

PARAMS = ClusteringParams(similarity=0.5, largest=3)


def pairs(*found: tuple[int, int, float]) -> Pairs:
    first, second, similarity = zip(*found, strict=True)
    return Pairs(np.array(first), np.array(second), np.rint(np.array(similarity) * SCALE**2).astype(np.int32))


CHAIN = pairs((0, 1, 0.9), (1, 2, 0.51), (2, 3, 0.9), (4, 5, 0.6))


def test_a_chain_too_long_breaks_where_it_is_weak() -> None:
    levels = company.found(7, CHAIN, PARAMS)
    assert [level.tolist() for level in levels] == [[0, 0, 0, 0, 4, 4, 6], [0, 0, 2, 2, 4, 4, 6]]


def test_a_chain_that_is_short_enough_holds_by_its_weakest_pair() -> None:
    [only] = company.found(7, CHAIN, ClusteringParams(similarity=0.5, largest=4))
    assert only.tolist() == [0, 0, 0, 0, 4, 4, 6]


def test_texts_that_are_all_the_same_stay_together_however_many_they_are() -> None:
    same = pairs(*((0, other, 1.0) for other in range(1, 6)))
    assert company.found(6, same, PARAMS)[-1].tolist() == [0] * 6


def test_whoever_comes_touches_the_companies_that_they_are_near_to() -> None:
    before = company.found(6, CHAIN, PARAMS)
    moved = company.grown(before, CHAIN, pairs((3, 6, 0.9)), 7, PARAMS)
    assert moved.levels[-1].tolist() == [0, 0, 2, 2, 4, 4, 2]
    assert not {4, 5} & set(moved.touched.tolist())
    assert company.changed(before[-1], np.array([0, 1, 2, 3, 4, 5, -1]), moved).tolist() == [2, 3, 6]


def test_whoever_goes_leaves_the_others_as_if_they_had_never_been() -> None:
    stays = np.array([True, True, False, True, True, True, True])
    rest = pairs((0, 1, 0.9), (3, 4, 0.6))
    moved = company.without(company.found(7, CHAIN, PARAMS), stays, rest, PARAMS)
    assert moved.levels[-1].tolist() == company.found(6, rest, PARAMS)[-1].tolist()


@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.sampled_from([0.5, 0.52, 0.6, 1.0]))),
    st.integers(1, 12),
)
def test_companies_are_the_same_in_one_run_and_as_documents_come(
    found: list[tuple[int, int, float]], before: int
) -> None:
    told = [(min(a, b), max(a, b), similarity) for a, b, similarity in found if a != b]
    every = pairs(*told) if told else NO_PAIRS
    old = every.second < before
    levels = company.found(before, chosen(every, old), PARAMS)
    moved = company.grown(levels, chosen(every, old), chosen(every, ~old), 12, PARAMS)
    whole = company.found(12, every, PARAMS)
    assert as_sets(moved.levels[-1]) == as_sets(whole[-1])


def as_sets(names: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(names == name).tolist()) for name in names}
