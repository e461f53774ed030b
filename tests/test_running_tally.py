from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import examples, pair_kernels, pairs, running_tally
from palate.columns import from_rows, persons
from palate.domain import from_milliseconds
from palate.examples import Memory
from palate.interactions import DAY, InteractionParams
from palate.models import popularity
from palate.models.popularity import Clock
from palate.window import resident
from palate.window.joining import NOTHING_SAID
from palate.window.resident import appended, empty

PARAMS = InteractionParams(max_events_per_day=5)
HALF_LIFE = 1.5

steps = st.lists(
    st.tuples(
        st.lists(
            st.tuples(
                st.integers(1, 5),
                st.integers(10, 16),
                st.sampled_from(["like", "dislike", "viewed", "save", "rating", "retract", "retract:like"]),
                st.sampled_from([None, 1.0, 5.0]),
                st.integers(-20, 8).map(lambda part: part * DAY // 16),
            ),
            max_size=12,
        ),
        st.integers(0, 3),
        st.frozensets(st.integers(1, 6), max_size=1),
        st.frozensets(st.integers(1, 6), max_size=1),
        st.dictionaries(st.integers(4, 5), st.integers(1, 3), max_size=1),
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=25)
@given(steps, st.sampled_from([1, 2]), st.booleans())
def test_sums_that_are_kept_are_those_that_counting_anew_gives(
    history: list[tuple[Any, ...]], threads: int, own: bool
) -> None:
    memory, seq, cut = Memory(window=empty(PARAMS)), 0, 0
    for step, (rows, expired, forgotten, left_out, joined) in enumerate(history, 2):
        now = step * DAY
        events = from_rows([(seq + n, *row[:4], now + row[4]) for n, row in enumerate(rows, 1)])
        seq, cut = seq + len(rows), max(cut, expired * DAY // 2)
        assert memory.window is not None
        memory.window, change = resident.followed(
            appended(memory.window, [events]),
            memory.looked.said if memory.looked else NOTHING_SAID,
            earliest=cut,
            persons=persons(joined),
            forgotten=forgotten,
            threads=threads,
            own=own,
        )
        kept = memory.looked is not None and (len(memory.looked.said.label) > 0 or not len(change.content.columns))
        tally = memory.tally
        before = memory.looked.view.rating_range if memory.looked else None
        looked = examples._look(memory, change, set(left_out), 1.0)
        assert (memory.tally is not None) == (kept and tally is not None and before == looked.view.rating_range)
        given_, fresh = pairs.of_view(looked.view, looked.said), pairs.said_of(looked.view)
        np.testing.assert_array_equal(looked.said.label, fresh.label)
        np.testing.assert_array_equal(looked.said.time, fresh.time)
        every = examples.saying(given_, looked.taught)
        clock, until = running_tally.progress(tally.clock if tally else young(now), *every, now)
        anew = running_tally.counted(given_, every.which, clock, HALF_LIFE)
        memory.tally = running_tally.proceeded(memory.tally, *every, clock) if memory.tally else anew
        same = [running_tally.as_of(one, until, *every, given_.items) for one in (memory.tally, anew)]
        for name in ("evidence", "positive", "count", "labels", "sums", "squares", "taken", "differ"):
            np.testing.assert_allclose(getattr(same[0], name), getattr(same[1], name), rtol=1e-9, atol=1e-8)
        direct = popularity.tally(given_.rows(every.which), given_.items, from_milliseconds(until), SETTLED, clock)
        np.testing.assert_allclose(same[0].evidence, direct.evidence, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(same[0].count, direct.count, rtol=1e-6, atol=1e-8)


SETTLED = popularity.PopularityParams(half_life_days=HALF_LIFE)


def young(now: int) -> Clock:
    """That of ten examples on the day before."""
    return popularity.clock(np.array([now // DAY - 1]), np.array([10]), now - 7_000)


def test_a_clock_goes_on_as_fast_as_examples_come_but_no_faster_than_days() -> None:
    old = popularity.clock(np.array([100, 101]), np.array([10, 10]), 102 * DAY)
    assert old.at(np.array([100, 101, 102, 300]) * DAY).tolist() == [0, 1, 2, 2]
    slow = popularity.going_on(old, 106 * DAY, 10)
    assert slow.at(np.array([102, 104, 106]) * DAY).tolist() == [2, 2.5, 3]
    assert popularity.going_on(slow, 107 * DAY, 1000).at(107 * DAY) == 4
    later = popularity.going_on(slow, 107 * DAY - 1000, 1000)
    assert popularity.going_on(later, 107 * DAY, 5) is later
    assert later.until == 107 * DAY - 1000


def test_what_a_clock_said_stays_when_it_goes_on() -> None:
    old = popularity.clock(np.array([3, 5, 6]), np.array([4, 8, 2]), 6 * DAY + DAY // 2)
    moments = np.arange(2 * DAY, 6 * DAY + DAY // 2, 777_777)
    on = popularity.going_on(old, 9 * DAY + 123, 3)
    np.testing.assert_array_equal(on.at(moments), old.at(moments))
    assert on.at(9 * DAY) > old.at(9 * DAY)


@pytest.mark.parametrize("until", [5 * DAY, 7 * DAY, 7 * DAY + 100_000])
def test_what_is_left_is_looked_up_as_the_clock_says(until: int) -> None:
    passing = popularity.going_on(popularity.clock(np.array([3, 5, 6]), np.array([4, 8, 2]), 6 * DAY), 7 * DAY, 3)
    times = np.random.default_rng(1).integers(2 * DAY // 1000, 8 * DAY // 1000, 400).astype(np.uint32)
    found = pairs.faded(passing, until, 0.4)
    own = [float(pair_kernels._left(*found, np.int64(time))) for time in times]
    expected = np.exp2(np.minimum(passing.at(times.astype(np.int64) * 1000) - passing.at(until), 0) / 0.4)
    np.testing.assert_allclose(own, expected, rtol=1e-9)
