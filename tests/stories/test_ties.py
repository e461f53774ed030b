"""What people said of pairs holds over what was found, and nothing else moves."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clustering import PARAMS, documents, groups, plane

from palate.stories.clustering import cluster, joined
from palate.stories.ties import Ties, tied


def test_two_of_the_same_story_join_their_stories_whole() -> None:
    found = cluster(documents(plane(0, 5, 95, 100, 190)), PARAMS)
    assert groups(found) == {frozenset({1, 2}), frozenset({3, 4}), frozenset({5})}
    assert groups(tied(found, Ties(same=((2, 3),)))) == {frozenset({1, 2, 3, 4}), frozenset({5})}
    assert groups(found) == {frozenset({1, 2}), frozenset({3, 4}), frozenset({5})}


def test_of_two_that_are_not_of_one_story_the_one_closer_to_the_whole_stays() -> None:
    found = cluster(documents(plane(0, 5, 10, 40)), PARAMS)
    assert groups(found) == {frozenset({1, 2, 3, 4})}
    assert groups(tied(found, Ties(different=((2, 4),)))) == {frozenset({1, 2, 3}), frozenset({4})}


def test_a_story_that_loses_its_first_document_has_a_new_first() -> None:
    found = cluster(documents(plane(40, 0, 5, 10)), PARAMS)
    assert groups(tied(found, Ties(different=((1, 3),)))) == {frozenset({1}), frozenset({2, 3, 4})}


def test_what_is_tied_leaves_together() -> None:
    found = cluster(documents(plane(0, 5, 10, 40, 42)), PARAMS)
    apart = tied(found, Ties(same=((4, 5),), different=((2, 4),)))
    assert groups(apart) == {frozenset({1, 2, 3}), frozenset({4, 5})}


def test_of_contradictions_those_who_part_are_right() -> None:
    found = cluster(documents(plane(0, 95, 190)), PARAMS)
    contradicting = Ties(same=((1, 2), (2, 3)), different=((1, 3),))
    assert groups(tied(found, contradicting)) == {frozenset({1, 2}), frozenset({3})}


def test_pairs_of_documents_that_are_not_there_change_nothing() -> None:
    found = cluster(documents(plane(0, 5, 95)), PARAMS)
    assert tied(found, Ties(same=((1, 77),), different=((78, 2),))) is found
    assert tied(found, Ties()) is found


pairs = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)).filter(lambda two: two[0] < two[1]), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(range(0, 180, 12)), min_size=8, max_size=8), pairs, pairs, st.integers(1, 7))
def test_parted_pairs_are_never_of_one_story_and_the_order_of_arrival_changes_nothing(
    degrees: list[int], same: list[tuple[int, int]], different: list[tuple[int, int]], first: int
) -> None:
    ties = Ties(tuple(same), tuple(different))
    vectors = plane(*degrees)
    found = tied(cluster(documents(vectors), PARAMS), ties)
    label = dict(zip(found.documents.keys.tolist(), found.labels.tolist(), strict=True))
    assert all(label[one] != label[other] for one, other in different)
    if not different:
        assert all(label[one] == label[other] for one, other in same)
    groups(found)
    apart = cluster(documents(vectors[:first]), PARAMS)
    later = joined(apart, documents(vectors[first:], start=first + 1, sources=list(range(first, 8))))
    np.testing.assert_array_equal(tied(later, ties).labels, found.labels)
