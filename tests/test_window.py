from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import matrix, pairs
from palate.columns import from_rows, persons
from palate.domain import EventColumns, Interactions
from palate.errors import InvalidInput
from palate.interactions import DAY, EventType, InteractionParams, merge
from palate.machine_code import compiled
from palate.places import mask, size
from palate.window import join_kernels, joining, kernels, runs, sorting
from palate.window.joining import NOTHING_SAID
from palate.window.resident import Window, appended, compacted, empty, followed, learned
from palate.window.view import View, view

VOTES = InteractionParams(rule="votes")
VIEWS = InteractionParams(rule="views")

Row = tuple[int, int, int, str, float | None, int]
"""seq, user, item, type, value, time"""


def log(*given: tuple[Any, ...], first: int = 1) -> EventColumns:
    """Events of (user, item, type[, value[, second]]), their seq and by default their second counted from `first`."""
    rows = [(*event, None, None)[:5] for event in given]
    return from_rows(
        [
            (seq, user, item, type, value, (seq if second is None else second) * 1000)
            for seq, (user, item, type, value, second) in enumerate(rows, first)
        ]
    )


def window_of(params: InteractionParams, *batches: EventColumns) -> Window:
    return compacted(appended(empty(params), batches))


def interactions(found: View) -> Interactions:
    every = pairs.of_view(found)
    return every.rows(np.ones(len(every), bool))


def labels(found: View, which: np.ndarray[Any, np.dtype[np.bool_]] | None = None) -> matrix.Sparse:
    every = pairs.of_view(found)
    labelled = every.labelled(every.kept)
    return every.labels(labelled if which is None else labelled & which)


def as_numbers(made: Interactions) -> list[tuple[int, int, float | None, float, int]]:
    """The pairs as plain numbers, None for no label; rounded, since the order of adding weights is free."""
    columns = (made.user, made.item, made.label, made.weight, made.time)
    return [
        (user, item, None if label != label else round(label, 6), round(weight, 4), time)
        for user, item, label, weight, time in zip(*(column.tolist() for column in columns), strict=True)
    ]


def dense(cells: matrix.Sparse, users: Sequence[int], items: Sequence[int]) -> dict[tuple[int, int], float]:
    return {
        (user, items[column]): value
        for row, user in enumerate(users)
        for column, value in zip(*(part.tolist() for part in cells.row(row)), strict=True)
    }


OWN_TYPES = {
    "nod": EventType(label=0.75, weight=0.5, positive=True),
    "leave": EventType(weight=-0.5, positive=False),
}
TYPES = ["shown", "viewed", "opened", "like", "dislike", "save", "hide", "rating", "watch", *OWN_TYPES, "unheard_of"]
RETRACTIONS = ["retract", "retract:like", "retract:viewed", "retract:rating", "retract:never"]
event_rows = st.tuples(
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([*TYPES, *RETRACTIONS]),
    st.sampled_from([None, 1.0, 2.0, 5.0]),
    st.integers(0, 6).map(lambda step: step * DAY // 2000),
)
histories = st.lists(st.tuples(st.lists(event_rows, max_size=12), st.booleans(), st.integers(0, 3)), max_size=6)


@settings(max_examples=80)
@given(
    history=histories,
    rule=st.sampled_from(["votes", "views"]),
    bounds=st.sampled_from([None, (0.0, 4.0)]),
    limit=st.sampled_from([None, 3]),
    cut=st.integers(0, 3),
    forgotten=st.frozensets(st.integers(1, 5), max_size=2),
    leave_out=st.frozensets(st.integers(1, 5), max_size=1),
    threads=st.sampled_from([1, 2]),
    own=st.booleans(),
    spare=st.sampled_from([1, 16]),
)
def test_a_window_says_what_its_readable_twin_says(
    history: list[tuple[list[tuple[Any, ...]], bool, int]],
    rule: Literal["votes", "views"],
    bounds: tuple[float, float] | None,
    limit: int | None,
    cut: int,
    forgotten: frozenset[int],
    leave_out: frozenset[int],
    threads: int,
    own: bool,
    spare: int,
) -> None:
    params = InteractionParams(rule=rule, types=OWN_TYPES, rating_range=bounds, max_events_per_day=limit)
    window, seq, all_rows = empty(params), 1, list[Row]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "CHUNK", 8)
        patch.setattr(joining, "BLOCK", 6)
        patch.setattr(joining, "LARGE", 9)
        patch.setattr(joining, "SPARE", spare)
        patch.setattr(sorting, "SPARE", spare)
        for given_, compact, earlier in history:
            batch = log(*given_, first=seq)
            seq += len(batch)
            all_rows += [(*row[:3], row[3], row[4], row[5] * 1000) for row in _numbered(given_, seq - len(batch))]
            window = appended(window, [batch])
            if compact:
                earliest = min(earlier, cut) * DAY // 2
                window = followed(window, NOTHING_SAID, earliest=earliest, threads=threads, own=own)[0]
        assert len(window) >= len([row for row in all_rows if row[5] >= cut * DAY // 2])
        window = compacted(window, earliest=cut * DAY // 2, forgotten=forgotten, threads=threads)
        found = view(window, leave_out, threads)
    kept = [row for row in all_rows if row[5] >= cut * DAY // 2 and row[1] not in forgotten]
    expected = merge(from_rows(kept), params, leave_out)
    assert as_numbers(interactions(found)) == as_numbers(expected)
    assert window.sorted.items.keys.tolist() == sorted({row[2] for row in kept})
    assert found.users.keys.tolist() == sorted(set(expected.user.tolist()))
    same = matrix.of_interactions(expected, expected.label, found.users, found.items)
    np.testing.assert_array_equal(labels(found).offsets, same.offsets)
    np.testing.assert_array_equal(labels(found).columns, same.columns)
    np.testing.assert_allclose(labels(found).values, same.values, rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_long_histories_are_joined_and_picked_as_short_ones(threads: int) -> None:
    random, rows, window = np.random.default_rng(4), list[tuple[Any, ...]](), empty(VIEWS)
    for step in range(3):
        fresh = [(int(who), int(what), "like", None, 100 * step + n // 9)
                 for n, (who, what) in enumerate(random.integers((1, 1 + 40 * step), (4, 300), (900, 2)))]  # fmt: skip
        window = compacted(
            appended(window, [log(*fresh, first=1 + len(rows))]), earliest=70_000 * step, threads=threads
        )
        rows += fresh
    found = view(window, threads=threads)
    kept = [(seq, *row[:4], 1000 * row[4]) for seq, row in enumerate(rows, 1) if row[4] >= 140]
    assert as_numbers(interactions(found)) == as_numbers(merge(from_rows(kept), VIEWS))
    which = random.random(len(window.sorted.columns)) < 0.1
    merged, some = interactions(found), interactions(found.only(which))
    assert as_numbers(some) == [row for row, chosen in zip(as_numbers(merged), which, strict=True) if chosen]


def _numbered(given_: list[tuple[Any, ...]], first: int) -> list[Row]:
    return [(seq, *row) for seq, row in enumerate(given_, first)]


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 40)), max_size=60), st.booleans())
def test_records_are_sorted_as_numpy_sorts_them(given_: list[tuple[int, int]], by_user: bool) -> None:
    keys = np.array([user << 32 | item for user, item in given_], np.uint64)
    records = np.stack((keys, np.arange(len(keys), dtype=np.uint64)), axis=1)
    by = keys >> np.uint64(32) if by_user else keys & np.uint64(2**32 - 1)
    expected = records[np.argsort(by, kind="stable")]
    shift, bits = (32, 32) if by_user else (0, 6)
    compiled(kernels.sort, records, np.empty_like(records), shift, bits)
    np.testing.assert_array_equal(records, expected)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 3)), max_size=12), st.integers(0, 9))
def test_spans_are_moved_within_an_array_as_between_two(gaps: list[tuple[int, int, int]], room: int) -> None:
    starts, goals, before, after = list[int](), list[int](), 0, 0
    for left, length, new in gaps:
        starts, goals = [*starts, before + left], [*goals, after + new]
        before, after = before + left + length, after + new + length
    ends = [start + length for start, (_, length, _) in zip(starts, gaps, strict=True)]
    array = np.arange(max(before, after) + room, dtype=np.uint16)
    expected = array.copy()
    for start, end, goal in zip(starts, ends, goals, strict=True):
        expected[goal : goal + end - start] = array[start:end]
    compiled(join_kernels.shift, array, *(np.array(part, np.int64) for part in (starts, ends, goals)))
    kept = [n for goal, (_, length, _) in zip(goals, gaps, strict=True) for n in range(goal, goal + length)]
    np.testing.assert_array_equal(array[kept], expected[kept])


def test_a_view_stays_as_it_is_while_events_come_and_go() -> None:
    window = window_of(VIEWS, log((1, 5, "like"), (2, 5, "viewed"), (2, 6, "hide")))
    found = view(window)
    before = as_numbers(interactions(found))
    later = compacted(appended(window, [log((1, 5, "hide"), (3, 4, "like"), first=10)]), earliest=2000, forgotten=[2])
    assert as_numbers(interactions(found)) == before
    assert as_numbers(interactions(view(later))) == [(1, 5, 0.0, -1.0, 10_000), (3, 4, 1.0, 2.0, 11_000)]


def test_times_count_in_seconds_and_of_one_second_the_order_of_the_log() -> None:
    milliseconds = from_rows([(1, 1, 5, "like", None, 7_900), (2, 1, 5, "dislike", None, 7_100)])
    assert as_numbers(interactions(view(window_of(VOTES, milliseconds)))) == [(1, 5, 0.0, -1.0, 7_000)]


def test_events_leave_by_whole_seconds() -> None:
    events = from_rows([(1, 1, 5, "like", None, 7_900), (2, 2, 5, "like", None, 8_000)])
    window = compacted(appended(empty(VOTES), [events]), earliest=7_001)
    assert view(window).users.keys.tolist() == [2]


def test_values_are_cut_to_what_half_precision_holds() -> None:
    window = window_of(VOTES, log((1, 5, "watch", 0.3), (1, 6, "watch", 1e6), (1, 7, "watch", -1e6)))
    np.testing.assert_allclose(view(window).weights(), [0.3, 65_504, 0], rtol=5e-4)


def test_only_the_pairs_that_were_asked_for_are_given() -> None:
    found = view(window_of(VIEWS, log((1, 5, "like"), (1, 6, "shown"), (1, 7, "viewed"), (2, 5, "viewed"))))
    times = found.labels_and_times()[1]
    assert times.tolist() == [1, 2, 3, 4]
    assert dense(labels(found), [1, 2], [5, 6, 7]) == {(1, 5): 1.0, (1, 7): 0.0, (2, 5): 0.0}
    assert dense(labels(found, times < 3), [1, 2], [5, 6, 7]) == {(1, 5): 1.0}


def test_some_pairs_of_a_window_are_a_window_of_those_pairs() -> None:
    twice = log((1, 5, "like"), (1, 6, "shown"), (1, 6, "like"), (3, 5, "viewed"), (3, 6, "hide"), (1, 5, "viewed"))
    found = view(window_of(VIEWS, twice))
    some = found.only(np.array([False, True, True, False]))
    assert as_numbers(interactions(some)) == [(1, 6, 1.0, 2.0, 3_000), (3, 5, 0.0, 1.0, 4_000)]
    assert some.users is found.users
    assert some.items is found.items


def test_who_is_left_out_has_no_row() -> None:
    found = view(window_of(VIEWS, log((1, 5, "like"), (2, 6, "like"), (3, 5, "viewed"))), leave_out=[2, 99])
    assert found.users.keys.tolist() == [1, 3]
    assert dense(labels(found), [1, 3], [5, 6]) == {(1, 5): 1.0, (3, 5): 0.0}


def test_what_came_since_the_last_lesson_is_told() -> None:
    window = window_of(VIEWS, log((1, 5, "viewed"), (1, 6, "viewed"), (3, 5, "viewed")))
    assert view(window).touched().tolist() == [True] * 3
    window = compacted(appended(learned(window), [log((3, 5, "like"), (2, 6, "like"), first=10)]))
    found = view(window)
    assert found.touched().tolist() == [2, 3]
    assert dense(labels(found, mask(found.touched(), 4)), [1, 2, 3], [5, 6]) == {(2, 6): 1.0, (3, 5): 1.0}
    assert not size(view(learned(window)).touched())
    assert window.seq == 11


@pytest.mark.parametrize("compact_first", [True, False])
def test_the_events_of_an_alias_go_to_the_person(compact_first: bool) -> None:
    window = appended(
        learned(empty(VIEWS)), [log((7, 5, "like"), (2, 5, "viewed"), (7, 6, "viewed"), (4, 6, "viewed"))]
    )
    window = compacted(window) if compact_first else window
    window = appended(window, [log((2, 5, "hide"), (9, 5, "viewed"), first=20)])
    window = compacted(window, persons=persons({7: 2, 9: 8, 77: 4}))
    assert as_numbers(interactions(view(window))) == [
        (2, 5, 0.0, -1.0, 20_000),
        (2, 6, 0.0, 1.0, 3_000),
        (4, 6, 0.0, 1.0, 4_000),
        (8, 5, 0.0, 1.0, 21_000),
    ]
    assert view(window).touched().tolist() == [0, 1, 2, 3]


@settings(max_examples=40)
@given(
    st.lists(event_rows, max_size=30),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.dictionaries(st.integers(3, 4), st.integers(1, 2), max_size=2),
)
def test_a_joined_log_in_the_order_of_time_means_what_it_would_have_meant_from_the_start(
    given_: list[tuple[Any, ...]], compact: list[bool], joined: dict[int, int]
) -> None:
    # of one second the window doesn't know the order between two people, so each event has its own
    ordered = [(*row[:4], 1000 * place) for place, row in enumerate(given_)]
    window = empty(VIEWS)
    for part, compacts in enumerate(compact):
        start, end = part * len(ordered) // 3, (part + 1) * len(ordered) // 3
        window = appended(window, [log(*ordered[start:end], first=start + 1)])
        window = compacted(window) if compacts else window
    resolved = log(*((joined.get(row[0], row[0]), *row[1:]) for row in ordered))
    found = view(compacted(window, persons=persons(joined)))
    assert as_numbers(interactions(found)) == as_numbers(merge(resolved, VIEWS))


@pytest.mark.parametrize("keys", [[3, 2**31, 2**32 - 1], [0, 1, 2]])
def test_keys_may_lie_anywhere_in_32_bits(keys: list[int]) -> None:
    events = log(*((user, item, "like") for user in keys for item in reversed(keys)))
    found = view(window_of(VOTES, events, log((keys[0], keys[2], "dislike"), first=50)))
    assert found.users.keys.tolist() == found.items.keys.tolist() == keys
    assert labels(found).values.tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("event", [(2**32, 5, "like"), (1, 2**32, "like"), (-1, 5, "like")])
def test_keys_beyond_that_are_refused(event: tuple[int, int, str]) -> None:
    with pytest.raises(InvalidInput, match=r"key of an? (user|item)"):
        appended(empty(VOTES), [log((1, 1, "like"), event)])


def test_more_types_than_the_window_tells_apart_are_refused() -> None:
    own = {f"type-{n}": EventType(weight=1.0) for n in range(60)}
    with pytest.raises(InvalidInput, match="71 types"):
        empty(InteractionParams(types=own))
    window = window_of(InteractionParams(types={f"type-{n}": EventType() for n in range(60)}), log((1, 5, "type-3")))
    assert as_numbers(interactions(view(window))) == [(1, 5, None, 0.0, 1000)]


def test_an_account_with_too_much_on_one_day_is_left_out_until_that_day_is_gone() -> None:
    params = InteractionParams(rule="views", max_events_per_day=2)
    events = log(*[(1, item, "viewed", None, 50) for item in (5, 6, 7)], (1, 8, "viewed", None, 90_000), (2, 5, "like"))
    window = window_of(params, events)
    assert view(window).users.keys.tolist() == [2]
    assert view(compacted(window, earliest=60_000)).users.keys.tolist() == [1]


def test_an_empty_window_says_nothing() -> None:
    for window in (
        compacted(empty(VIEWS)),
        window_of(VIEWS, log()),
        compacted(window_of(VIEWS, log((1, 5, "like"))), forgotten=[1]),
    ):
        found = view(window)
        assert (len(found.users), len(found.items), len(labels(found)), len(found.weights())) == (0, 0, 0, 0)
        assert len(interactions(found)) == len(found.touched()) == len(window) == 0


def test_an_event_and_its_pair_take_15_bytes_with_the_label() -> None:
    users, items = np.divmod(np.arange(20_000), 1_000)
    events = log((1, 1, "like"))
    type, value, time = (np.resize(getattr(events, name), 20_000) for name in ("type", "value", "time"))
    many = EventColumns(np.arange(1, 20_001), users, items, type, value, time, events.types)
    window = window_of(VIEWS, many)
    assert window.sorted.nbytes + view(window).labels_and_times()[0].nbytes - 20_000 * 15 == 20 * 33 + 16 + 1_000 * 8


def test_a_pair_may_have_very_many_events() -> None:
    n = 30_000
    one = log((1, 5, "viewed"), (1, 5, "like"))
    user, item, type, value, time = (
        np.repeat(getattr(one, name), n) for name in ("user", "item", "type", "value", "time")
    )
    many = EventColumns(np.arange(1, 2 * n + 1), user, item, type, value, time, one.types)
    assert as_numbers(interactions(view(window_of(VIEWS, many)))) == []
    free = InteractionParams(rule="views", max_events_per_day=None)
    assert as_numbers(interactions(view(window_of(free, many)))) == [(1, 5, 1.0, 3.0, 2_000)]


def test_importing_the_window_loads_no_numba() -> None:
    code = "import sys, palate.window.view; print('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
