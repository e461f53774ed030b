from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate import happenings
from palate.activity import HOUR, LIKED, SHOWN, VIEWED
from palate.columns import from_rows
from palate.domain import EventColumns
from palate.happenings import Happenings
from palate.interactions import BUILT_IN_TYPES
from palate.pool import Pool, empty_pool

START = datetime(2026, 3, 10, tzinfo=UTC)
MOMENT = int(START.timestamp()) * 1000
TYPES = ("viewed", "like", "retract:like", "shown", "unheard")
ITEMS = np.arange(1, 13)
POOL = replace(
    empty_pool(),
    keys=ITEMS[:9],
    source=np.array([0, 0, 1, 1, 1, 2, -1, 2, 0], np.int32),
    category=np.array([0, 1, 0, 1, 0, 1, 0, 1, -1], np.int16),
    story=np.array([1, 1, -1, -1, 5, 5, 5, -1, -1], np.int64),
)
"""Items 10 to 12 aren't served."""

Happened = list[tuple[int, int, int, int]]
"""User, item, type, hour."""


def columns(happened: Happened, first: int) -> EventColumns:
    return from_rows(
        [
            (first + n, user, item, TYPES[type], None, MOMENT + hour * HOUR)
            for n, (user, item, type, hour) in enumerate(happened)
        ]
    )


def counted(parts: list[tuple[Happened, Pool]]) -> Happenings:
    """An hour passes from part to part."""
    found, seq = Happenings(), 1
    for hour, (part, pool) in enumerate(parts):
        now = START + timedelta(hours=hour)
        found = happenings.continued(found, columns(part, seq), pool, BUILT_IN_TYPES, now)
        seq += len(part)
    return found


EVENTS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(0, 4), st.integers(-30, 0)), max_size=12)


@given(st.lists(EVENTS, min_size=1, max_size=20), st.integers(0, 19))
def test_counts_continued_part_by_part_are_those_of_a_full_count(parts: list[Happened], at: int) -> None:
    now = MOMENT + (len(parts) - 1) * HOUR
    with patch.object(happenings, "NEW", 3), patch.object(happenings, "HOT", 4):
        pools = [replace(POOL) if place < at else POOL for place in range(len(parts))]
        own = counted(list(zip(parts, pools, strict=True)))
        whole = counted([([], POOL)] * (len(parts) - 1) + [([one for part in parts for one in part], POOL)])
    assert own.seq == whole.seq
    same = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    same(own.of_items(ITEMS, now), whole.of_items(ITEMS, now))
    same(own.shown(ITEMS), whole.of_items(ITEMS, now)[:, SHOWN, 3])
    same(own.of_all(now), whole.of_all(now))
    for user in range(1, 6):
        same(own.of_user(user, now), whole.of_user(user, now))
    for name in happenings.GROUPS:
        keys = np.arange(-1, 8)
        same(own.groups[name].of(keys, now), whole.groups[name].of(keys, now))
    loudest = [np.sort(found.hot.of(found.loud.keys, now)[:, :, 1].sum(axis=1)) for found in (own, whole)]
    same(loudest[0], loudest[1])


def test_an_item_that_comes_late_brings_its_counts_to_its_groups() -> None:
    before = replace(POOL, keys=ITEMS[:0], source=POOL.source[:0], category=POOL.category[:0], story=POOL.story[:0])
    viewed = [(1, 3, 0, 0), (2, 4, 0, 0), (2, 3, 1, 0)]
    found = counted([(viewed, before), ([], POOL)])
    assert found.groups["source"].of(np.array([0, 1]), MOMENT)[:, VIEWED, 3].tolist() == [0, 2]
    assert found.groups["category"].of(np.array([0]), MOMENT)[0, [VIEWED, LIKED], 3].tolist() == [1, 1]


def test_after_very_long_silence_old_counts_are_nothing_but_what_never_fades() -> None:
    first = happenings.continued(Happenings(), columns([(1, 3, 0, 0)], 1), POOL, BUILT_IN_TYPES, START)
    later = START + timedelta(days=3650)
    again = [(1, 3, 0, 24 * 3650)]
    found = happenings.continued(first, columns(again, 2), POOL, BUILT_IN_TYPES, later)
    [[hour, day, week, ever]] = found.of_items(np.array([3]), MOMENT + 24 * 3650 * HOUR)[:, VIEWED]
    assert [hour, day, ever] == [1, 1, 2]
    assert week == 1
