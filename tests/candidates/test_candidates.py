from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.candidates import exploration, filters, fresh, personal, popular
from palate.domain import to_milliseconds
from palate.live import Person
from palate.pool import NO_DATE, Pool, empty_pool, of_keys, take, with_changes

NOW = datetime(2024, 11, 22, 12, tzinfo=UTC)


class Row:
    """A row of the catalog."""

    def __init__(
        self,
        key: int,
        hours: float | None,
        *labels: str,
        source: int | None = None,
        language: str | None = None,
        category: str | None = None,
        story: int | None = None,
        leads: int | None = None,
    ):
        self.category, self.story, self.leads = category, story, leads
        self.key, self.source, self.language, self.labels = key, source, language, labels
        self.state, self.kind = "live", "post"
        self.published = None if hours is None else to_milliseconds(NOW - timedelta(hours=hours))
        self.received = to_milliseconds(NOW - timedelta(hours=key))


POOL = with_changes(
    empty_pool(),
    [
        Row(1, 1, "x", "y", source=70, language="en"),
        Row(2, 30, "y", source=80, language="ru"),
        Row(3, None, source=80),
        Row(4, -1, "z", source=70),
        Row(5, 24, "z", "x"),
    ],
    None,
)


def keys(mask: filters.Mask) -> list[int]:
    return [int(key) for key in POOL.keys[mask]]


def test_the_window_keeps_what_is_neither_stale_nor_from_the_future() -> None:
    assert keys(filters.in_window(POOL, NOW, timedelta(days=1))) == [1, 3, 5]
    assert keys(filters.in_window(POOL, NOW, timedelta(hours=23))) == [1, 3]


def test_languages_let_the_unknown_pass() -> None:
    assert keys(filters.in_languages(POOL, ("ru", "xx"))) == [2, 3, 4, 5]
    assert keys(filters.in_languages(POOL, ())) == [1, 2, 3, 4, 5]


def test_sources_are_named_by_key_and_no_source_is_none_of_them() -> None:
    assert keys(filters.from_sources(POOL, (80, 999))) == [2, 3]
    assert keys(filters.from_sources(POOL, ())) == []


def test_everything_a_person_does_not_want_is_filtered_at_once() -> None:
    person = Person(hidden=(80,), languages=("en",))
    assert keys(filters.allowed(POOL, person, NOW, timedelta(days=2))) == [1, 5]


def test_items_are_taken_out_and_picked_by_key() -> None:
    wanted = np.array([2, 5, 99], np.int64)
    assert keys(filters.without(POOL, np.ones(5, bool), wanted)) == [1, 3, 4]
    assert keys(filters.only(POOL, wanted)) == [2, 5]


def test_labels_are_found_on_items() -> None:
    numbers = POOL.label_names.find(["x", "z", "never"])
    assert keys(filters.with_labels(POOL, numbers)) == [1, 4, 5]
    assert keys(filters.with_labels(POOL, numbers[:0])) == []
    first = filters.first_label(POOL, np.arange(5), numbers)
    assert [POOL.label_names.values[number] if number >= 0 else None for number in first] == ["x", None, None, "z", "z"]


def test_the_first_label_of_an_item_is_its_main_one() -> None:
    main = filters.main_label(POOL, np.array([4, 2, 0], np.int64))
    assert [POOL.label_names.values[number] if number >= 0 else None for number in main] == ["z", None, "x"]


def test_the_newest_come_first_and_undated_ones_count_from_their_arrival() -> None:
    everything = np.ones(5, bool)
    assert POOL.keys[fresh.find(POOL, everything, 9)].tolist() == [4, 1, 3, 5, 2]
    assert POOL.keys[fresh.find(POOL, everything, 2)].tolist() == [4, 1]
    assert len(fresh.find(POOL, everything, 0)) == 0


def test_the_most_popular_of_the_allowed_are_found() -> None:
    pool = replace(POOL, popularity=np.array([0.2, 0.9, 0.5, 0.7, 0.5], np.float32))
    allowed = np.array([True, False, True, True, True])
    assert sorted(pool.keys[popular.find(pool, allowed, 2)].tolist()) == [4, 5]  # of equals the later one


def test_only_what_few_have_judged_is_explored() -> None:
    pool = replace(POOL, evidence=np.array([9, 1, 0, 4.9, 5], np.float32))
    assert pool.keys[exploration.find(pool, np.ones(5, bool), 2, 5.0)].tolist() == [4, 3]


@given(st.lists(st.floats(0, 1, width=16), max_size=40), st.integers(0, 45))
def test_no_value_that_is_left_out_is_above_one_that_is_in(values: list[float], limit: int) -> None:
    own = np.array(values, np.float32)
    found = personal.find(own, np.arange(len(own)), limit)
    assert len(set(found.tolist())) == min(limit, len(own))
    assert sorted(own[found].tolist()) == sorted(values)[len(values) - len(found) :]


@pytest.fixture
def changed() -> Pool:
    gone = Row(2, 0)
    gone.state = "deleted"
    return with_changes(POOL, [gone, Row(5, 2, "w"), Row(6, 3, "x")], None)


def test_a_changed_pool_holds_new_items_new_versions_and_no_dead_ones(changed: Pool) -> None:
    assert changed.keys.tolist() == [1, 3, 4, 5, 6]
    names = changed.label_names.values
    assert [[names[number] for number in changed.labels_of(row)] for row in range(5)] == [
        ["x", "y"],
        [],
        ["z"],
        ["w"],
        ["x"],
    ]
    assert changed.source[changed.rows(np.array([1, 4, 5]))].tolist() == [0, 0, -1]


def test_items_outside_the_pool_are_bare(changed: Pool) -> None:
    found = of_keys(changed, np.array([6, 2, 1, 6], np.int64), None)
    assert found.keys.tolist() == [6, 2, 1, 6]
    assert found.published[1] == NO_DATE
    assert [len(found.labels_of(row)) for row in range(4)] == [1, 0, 2, 1]
    assert found.source[1] == -1


def test_an_item_weighs_no_more_than_it_may() -> None:
    rows = [Row(key, 1, "x", "y", "z", source=key % 7, language="en") for key in range(1, 1001)]
    pool = replace(with_changes(empty_pool(), rows, None), vectors=np.zeros((1000, 13), np.float32))
    assert pool.nbytes / len(pool) <= 200


def test_taking_rows_orders_them(changed: Pool) -> None:
    assert take(changed, np.array([3, 0])).keys.tolist() == [5, 1]
