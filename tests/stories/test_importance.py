"""The order of stories: more and weightier sources, lately; wrong dates, silence and the order of input change nothing."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.stories import importance
from palate.stories.clustering import Stories
from palate.stories.importance import ImportanceParams, Readers, StoryStanding
from palate.stories.neighbours import LENGTH, ClusteringParams, Placed

PARAMS = ImportanceParams(least_source=0.5, window_hours=8, half_life_hours=4, readers=1.0)
HOUR = 3_600_000
NOW = 100 * HOUR


def told(*documents: tuple[int, int, float]) -> Stories:
    """Documents of (story, source, hour), ascending by hour; a story's label is the key of its first."""
    ordered = sorted(documents, key=lambda one: one[2])
    keys = np.arange(len(ordered)) + 10
    first: dict[int, int] = {}
    labels = np.array([first.setdefault(story, int(key)) for key, (story, _, _) in zip(keys, ordered, strict=True)])
    placed = Placed(
        keys,
        np.zeros((len(keys), LENGTH), np.int8),
        np.array([source for _, source, _ in ordered], np.int64),
        np.array([hour * HOUR for _, _, hour in ordered], np.int64),
        np.zeros((len(keys), 0), np.uint16),
    )
    return Stories(ClusteringParams(), placed, labels, labels)


def ranked(stories: Stories, now: int = NOW, **given: object) -> list[StoryStanding]:
    weights = given.pop("weights", np.zeros(len(stories)))
    return importance.rank(stories, weights, now, PARAMS, **given)  # type: ignore[arg-type]


def test_more_sources_come_first_and_each_counts_once() -> None:
    stories = told((1, 1, 99), (1, 1, 99), (1, 1, 99), (2, 1, 99), (2, 2, 99))
    first, second = ranked(stories)
    assert (first.sources, first.coverage, second.sources, second.coverage) == (2, 1.0, 1, 0.5)
    assert second.documents == 3


def test_weighty_sources_count_more() -> None:
    stories = told((1, 1, 98), (2, 2, 99))
    assert [one.coverage for one in ranked(stories, weights=np.array([1.0, 0.2]))] == [1.0, 0.6]


def test_a_story_is_judged_by_its_best_window() -> None:
    (one,) = ranked(told((1, 1, 50), (1, 2, 55), (1, 3, 58), (1, 4, 80)))
    assert (one.coverage, one.best_time, one.sources) == (1.5, 58 * HOUR, 4)


def test_of_equal_windows_the_latest_counts() -> None:
    (one,) = ranked(told((1, 1, 50), (1, 2, 51), (1, 3, 80), (1, 4, 81)))
    assert (one.coverage, one.best_time) == (1.0, 81 * HOUR)


def test_age_halves_after_the_window() -> None:
    stories = told((1, 1, 80), (2, 2, 93), (3, 3, 88))
    assert {one.story: one.freshness for one in ranked(stories)} == {10: 0.5**3, 11: 0.5, 12: 1.0}


def test_dates_from_the_future_do_not_come_first() -> None:
    stories = told((1, 1, 99), (1, 2, 99), (2, 3, 10**6))
    first, second = ranked(stories)
    assert (first.sources, second.freshness, second.best_time) == (2, 1.0, NOW)


def test_now_is_the_99th_percentile() -> None:
    times = np.arange(1000)
    assert importance.data_clock(times) == 989
    assert importance.data_clock(np.append(np.full(500, 7), 4_102_444_800_000)) == 7
    assert importance.data_clock(np.array([5, 10**15])) == 5
    assert importance.data_clock(np.array([5])) == 5
    with pytest.raises(ValueError, match="no document"):
        importance.data_clock(np.zeros(0, np.int64))


def test_a_mark_of_the_owner_counts_for_the_story() -> None:
    stories = told((1, 1, 99), (1, 2, 99), (2, 3, 99))
    first, second = ranked(stories, marks=np.array([1.0, 1.0, 5.0]))
    assert (first.documents, first.mark, second.mark) == (1, 5.0, 1.0)
    hidden = ranked(stories, marks=np.array([0.0, 1.0, 1.0]))[-1]
    assert (hidden.documents, hidden.score) == (2, 0.0)


def test_silence_of_few_is_not_hate_and_of_many_is() -> None:
    stories = told((1, 1, 99), (2, 2, 99), (3, 3, 99), (4, 4, 99))
    shown = np.array([0.0, 2.0, 1000.0, 1000.0])
    none = np.zeros(4)
    standings = ranked(stories, readers=Readers(shown, np.array([0.0, 0.0, 0.0, 200.0]), none, none))
    rates = {one.story: one.readers for one in standings}
    assert rates[10] == 1.0
    assert 0.95 < rates[11] < 1
    assert rates[12] < 0.1
    assert rates[13] == pytest.approx((200 + 2.5) / 1050 / 0.05)


def test_what_was_opened_was_shown_and_likes_count_more() -> None:
    stories = told((1, 1, 99), (2, 2, 99))
    none = np.zeros(2)
    one, other = ranked(stories, readers=Readers(none, np.array([10.0, 10.0]), np.array([0.0, 5.0]), none))
    assert one.story == 11
    assert other.readers == pytest.approx((10 + 2.5) / 60 / 0.05)


def test_the_score_is_the_product_of_its_factors() -> None:
    stories = told((1, 1, 80), (1, 2, 81), (2, 3, 99))
    shown = np.full(3, 20.0)
    given = Readers(shown, np.array([1.0, 5.0, 0.0]), np.array([0.0, 1.0, 0.0]), shown / 10)
    for one in ranked(stories, marks=np.array([1.0, 2.0, 3.0]), readers=given):
        assert one.score == pytest.approx(one.coverage * one.freshness * one.readers * one.mark)


def test_nothing_has_no_order() -> None:
    assert ranked(told()) == []


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 120)), max_size=25))
def test_the_best_window_is_that_of_all_windows(documents: list[tuple[int, int, int]]) -> None:
    """The readable twin: each window that ends with a document, one by one."""
    stories = told(*documents)
    weights = (stories.documents.sources % 3) / 2
    for one in ranked(stories, weights=weights):
        rows = np.flatnonzero(stories.labels == one.story)
        times = np.minimum(stories.documents.times[rows], NOW)
        windows = [rows[: row + 1][times[: row + 1] >= times[row] - 8 * HOUR] for row in range(len(rows))]
        sums = [
            sum(
                0.5 + 0.5 * weight
                for weight in dict(zip(stories.documents.sources[part], weights[part], strict=True)).values()
            )
            for part in windows
        ]
        assert one.coverage == pytest.approx(max(sums))


def test_params_that_make_no_sense_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"prior_rate": 0}, ImportanceParams)
