from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import pairs
from palate.columns import from_rows
from palate.domain import EventColumns, to_milliseconds
from palate.interactions import DAY, InteractionParams, counted, merge
from palate.models.popularity import PopularityParams
from palate.pairs import Pairs
from palate.places import mask
from palate.vocabulary import vocabulary
from palate.window.resident import appended, compacted, empty
from palate.window.view import view

NOW = datetime(1970, 1, 5, tzinfo=UTC)
PARAMS = InteractionParams(max_events_per_day=6)

happened = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.integers(10, 16),
        st.sampled_from(["like", "dislike", "viewed", "shown", "save", "rating", "retract"]),
        st.sampled_from([None, 1.0, 4.5, 5.0]),
        st.integers(0, 30).map(lambda step: step * DAY // 8),
    ),
    max_size=40,
)


def log(rows: list[tuple[Any, ...]]) -> EventColumns:
    return from_rows([(seq, *row) for seq, row in enumerate(rows, 1)])


def both(rows: list[tuple[Any, ...]], left_out: frozenset[int] = frozenset(), threads: int = 2) -> tuple[Pairs, Pairs]:
    """The pairs of these events by `merge`, and those of a window: people who are left out are still in it."""
    events = log(rows)
    window = compacted(appended(empty(PARAMS), [events]))
    merged = merge(counted(events, PARAMS, left_out), PARAMS)
    return pairs.of_interactions(merged), pairs.of_view(view(window, left_out, threads))


def kept(large: Pairs) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return large.of_people(large.kept)


@settings(max_examples=60)
@given(happened, st.frozensets(st.integers(1, 5), max_size=1), st.randoms(), st.sampled_from([1, 2]))
def test_many_pairs_say_what_few_say(
    rows: list[tuple[Any, ...]], left_out: frozenset[int], chance: Any, threads: int
) -> None:
    small, large = both(rows, left_out, threads)
    own = kept(large)
    assert small.users.keys.tolist() == large.users.keys.tolist()
    every = small.rows(np.ones(len(small), bool)), large.rows(np.ones(len(large), bool))
    for name in ("user", "item", "label", "weight", "time"):
        np.testing.assert_allclose(getattr(every[0], name), getattr(every[1], name), rtol=1e-6, err_msg=name)
    some = np.array([chance.random() < 0.7 for _ in range(len(small))], bool) & ~np.isnan(small.label)
    same = np.zeros(len(large), bool)
    same[own] = some
    asked = some & (np.arange(len(small)) % 3 > 0)
    same_asked = np.zeros(len(large), bool)
    same_asked[own] = asked
    assert small.counts(some).tolist() == large.counts(same)[large.kept].tolist()
    for late in (large.late(same, same_asked), large.late(same, np.flatnonzero(same_asked))):
        assert mask(small.late(some, asked), len(small)).tolist() == mask(late, len(large))[own].tolist()
    for wanted in (0, int(some.sum()) // 2, int(some.sum())):
        newest = mask(large.newest(same, wanted), len(large))[own]
        assert mask(small.newest(some, wanted), len(small)).tolist() == newest.tolist()
        one, other = (
            mask(given_.drawn(which, wanted, np.random.default_rng(5)), len(given_))
            for given_, which in ((small, some), (large, same))
        )
        assert one.tolist() == other[own].tolist()
        assert one.sum() == wanted
        assert not (one & ~some).any()
    assert large.counts(np.flatnonzero(same)).tolist() == large.counts(same).tolist()
    few, many = small.labels(some), large.labels(same if threads == 1 else np.flatnonzero(same))
    assert few.offsets.tolist() == many.offsets.tolist()
    assert small.items.keys[few.columns].tolist() == large.items.keys[many.columns].tolist()
    assert few.values.tolist() == many.values.tolist()


@settings(max_examples=40)
@given(happened, st.frozensets(st.integers(1, 5), max_size=1), st.integers(1, 4), st.sampled_from([None, 2.0]))
def test_histories_and_sums_by_item_are_those_of_few_pairs(
    rows: list[tuple[Any, ...]], left_out: frozenset[int], limit: int, window_days: float | None
) -> None:
    small, large = both(rows, left_out)
    users, items = small.users.extended([3, 9]), vocabulary(np.arange(8, 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "PIECE", 2)
        found = [given_.history(users, items, limit) for given_ in (small, large)]
    for name in ("offsets", "columns", "labels", "weights"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name), err_msg=name)
    params = PopularityParams(window_days=window_days, half_life_days=1.5)
    says = [~np.isnan(given_.label) | (given_.weight != 0) for given_ in (small, large)]
    until = to_milliseconds(NOW)
    clocks = [given_.clock(which, until, params) for given_, which in zip((small, large), says, strict=True)]
    for name in ("moments", "passed", "typical", "until"):
        np.testing.assert_array_equal(getattr(clocks[0], name), getattr(clocks[1], name))
    sums = [
        given_.tally(which, items, until, params, clocks[0]) for given_, which in zip((small, large), says, strict=True)
    ]
    for name in ("evidence", "positive", "count", "labels", "sums", "squares", "taken", "differ"):
        np.testing.assert_allclose(getattr(sums[0], name), getattr(sums[1], name), rtol=1e-6, err_msg=name)


def test_the_later_half_of_each_person_is_rounded_down() -> None:
    rows = [(1, item, "like", None, 1000 * item) for item in (10, 11, 12)] + [(2, 10, "like", None, 9000)]
    for given_ in both(rows):
        every = np.ones(len(given_), bool)
        assert given_.late(every, every).tolist() == [2]


def test_a_draw_takes_one_of_each_neighbourhood() -> None:
    rows = [(user, item, "like", None, 1000) for user in (1, 2) for item in range(10, 15)]
    for given_ in both(rows):
        drawn = given_.drawn(np.ones(10, bool), 5, np.random.default_rng(3))
        assert (drawn // 2).tolist() == [0, 1, 2, 3, 4]


def test_the_newest_of_equal_times_are_those_of_later_people() -> None:
    rows = [(user, item, "like", None, 1000) for user in (1, 2) for item in (10, 11)] + [(1, 12, "like", None, 5000)]
    for given_ in both(rows):
        newest = given_.newest(np.ones(5, bool), 3)
        assert newest.tolist() == [2, 3, 4]
