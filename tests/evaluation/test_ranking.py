"""Places of what people took to: by hand, and the compiled pass against the readable one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate.domain import Interactions
from palate.evaluation import ranking
from palate.evaluation.ranking import Questions, Ranked, questions, rank
from palate.machine_code import compiled
from palate.vocabulary import Vocabulary

NOTHING = -np.inf


def interactions(pairs: list[tuple[int, int]], labels: list[float] | None = None) -> Interactions:
    user, item = (
        (np.array(column, np.int64) for column in zip(*pairs, strict=True)) if pairs else (np.empty(0, int),) * 2
    )
    label = np.array(labels if labels is not None else [1.0] * len(pairs), np.float32)
    return Interactions(user, item, label, np.ones(len(pairs), np.float32), np.zeros(len(pairs), np.int64))


def asked(
    known: list[tuple[int, int]], relevant: list[tuple[int, int]], worth: list[float] | None = None, **more: Any
) -> Questions:
    """Of users 10, 20, … and items 0 … 5."""
    found = interactions(relevant)
    users = np.unique(found.user)
    gains = np.array(worth if worth is not None else [1.0] * len(relevant))
    return questions(users, interactions(known), (found, gains), found, Vocabulary(np.arange(6)), **more)


def ranked(scores: list[list[float]], questions: Questions, k: int, *, whole: bool = False) -> Ranked:
    table = {int(user): row for user, row in zip(questions.known.users, scores, strict=True)}
    blocks = list(
        rank(lambda known: np.array([table[int(user)] for user in known.users], np.float32), questions, k, whole=whole)
    )
    assert len(blocks) == 1
    return blocks[0]


def test_a_list_holds_the_best_and_nothing_that_was_seen() -> None:
    found = ranked([[9, 1, 2, 3, 4, 5]], asked([(10, 0), (10, 4)], [(10, 3)]), 3)
    assert found.lists.tolist() == [[5, 3, 2]]
    assert found.relevance.tolist() == [[0, 1, 0]]
    assert found.total.tolist() == [1]


def test_seen_items_can_be_ranked_too() -> None:
    found = ranked([[9, 1, 2, 3, 4, 5]], asked([(10, 0)], [(10, 5)], leave_out_seen=False), 3)
    assert found.lists.tolist() == [[0, 5, 4]]
    assert found.relevance.tolist() == [[0, 1, 0]]


def test_given_candidates_alone_are_ranked_with_the_test_item_and_without_its_copies() -> None:
    candidates = np.array([10, 10, 10, 20]), np.array([1, 3, 2, 0])
    found = ranked([[9, 1, 2, 3, 4, 5]], asked([(10, 1)], [(10, 3)], candidates=candidates), 4)
    assert found.lists.tolist() == [[3, 2, 1, -1]]
    assert found.relevance.tolist() == [[1, 0, 0, 0]]


def test_an_item_that_the_model_does_not_know_is_asked_for_and_missed() -> None:
    found = ranked([[9, 1, 2, 3, 4, 5]], asked([], [(10, 0), (10, 77)]), 3, whole=True)
    assert found.relevance.tolist() == [[1, 0, 0]]
    assert found.total.tolist() == [2]
    assert found.auc.tolist() == [0.5]  # the known one is before all others, the unknown one behind


def test_test_items_stand_behind_others_of_equal_score() -> None:
    found = ranked([[1, 1, 1, 1, 0, 0]], asked([], [(10, 0), (10, 1), (10, 4)]), 6)
    assert found.relevance.tolist() == [[0, 0, 1, 1, 0, 1]]


def test_a_model_that_tells_nothing_gains_nothing() -> None:
    found = ranked([[7, 7, 7, 7, 7, 7]], asked([], [(10, 0)]), 5, whole=True)
    assert found.relevance.sum() == 0
    assert found.first_hit.tolist() == [6]
    assert found.auc.tolist() == [0.5]


def test_worth_is_at_its_place_and_the_rest_behind() -> None:
    found = ranked([[9, 8, 7, 6, 5, 4]], asked([], [(10, 1), (10, 4), (10, 5)], [4.0, 2.0, 3.0]), 2)
    assert found.complete
    assert found.relevance.tolist() == [[0, 4, 2, 3]]


def test_place_and_auc_of_the_whole_ranking() -> None:
    found = ranked([[9, 8, 7, 6, 5, 4]], asked([(10, 0)], [(10, 2), (10, 5)]), 1, whole=True)
    assert found.first_hit.tolist() == [2]
    assert found.auc.tolist() == [(2 + 0) / (2 * 3)]


def test_scores_of_judged_pairs_are_those_of_the_model_also_when_seen() -> None:
    given = asked([(10, 1)], [(10, 1), (10, 3), (20, 99), (20, 0)])
    found = ranked([[9, 1, 2, 3, 4, 5], [7, 0, 0, 0, 0, 0]], given, 2)
    np.testing.assert_array_equal(found.judged, [1, 3, np.nan, 7])


def test_a_model_that_gives_no_numbers_is_found_out() -> None:
    with pytest.raises(AssertionError, match="finite"):
        ranked([[np.nan] * 6], asked([], [(10, 0)]), 3)


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    pairs = [(10 * user, int(item)) for user in range(1, 40) for item in random.choice(6, 3, replace=False)]
    given = asked(pairs[::3], [pair for place, pair in enumerate(pairs) if place % 3])
    table = {user: random.normal(size=6).astype(np.float32) for user in given.known.users.tolist()}

    def run(threads: int) -> list[Ranked]:
        score = lambda known: np.array([table[user] for user in known.users.tolist()])  # noqa: E731
        return list(rank(score, given, 3, whole=True, threads=threads))

    whole = run(1)
    monkeypatch.setattr(ranking, "BLOCK", 6 * 4)
    blocks = run(3)
    assert [block.first for block in blocks] == list(range(0, 39, 4))
    for name in ("relevance", "lists", "first_hit", "auc", "judged", "total"):
        parts = np.concatenate([getattr(block, name) for block in blocks])
        np.testing.assert_array_equal(parts, getattr(whole[0], name))


@st.composite
def tables(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], int]:
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 150))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([1, 2, 5, 10_000]))
    scores = random.integers(0, levels, (rows, width)).astype(np.float32)
    scores[random.random(scores.shape) < 0.2] = NOTHING
    own = [random.choice(width, random.integers(0, min(width, 9) + 1), replace=False) for _ in range(rows)]
    offsets = np.cumsum([0, *map(len, own)]).astype(np.int64)
    columns = np.concatenate(own).astype(np.int64)
    columns[random.random(len(columns)) < 0.1] = -1
    return scores, offsets, columns, draw(st.integers(1, 20))


@given(tables())
def test_the_compiled_pass_equals_the_readable_one(
    table: tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], int],
) -> None:
    scores, offsets, columns, k = table
    answers = []
    for kernel in (partial(compiled, ranking._loops), ranking._readable):
        lists, places = np.full((len(scores), k), -1, np.int32), np.full(len(columns), -1, np.int64)
        kernel(scores, offsets, columns, lists, places)
        order = np.lexsort((places, np.repeat(np.arange(len(scores)), np.diff(offsets))))
        answers.append((lists.tolist(), places[order].tolist()))  # who stands where among equals doesn't matter
    assert answers[0] == answers[1]
