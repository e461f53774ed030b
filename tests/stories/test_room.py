from __future__ import annotations

import numpy as np

from palate.stories.room import extended


def test_what_comes_behind_the_newest_version_is_written_where_it_lies() -> None:
    first, room = extended([np.array([1, 2]), np.array([[1.0], [2.0]])], [np.array([3]), np.array([[3.0]])], None)
    more = [np.array([9]), np.array([[9.0]])]
    while room.is_free(len(first[0]), len(first[0]) + 1):
        second, same = extended(first, more, room)
        assert same is room
        assert all(np.shares_memory(one, other) for one, other in zip(first, second, strict=True))
        first = second
    moved, new = extended(first, more, room)
    assert new is not room
    assert moved[0].tolist() == [*first[0].tolist(), 9]


def test_two_that_come_behind_one_version_do_not_meet() -> None:
    start, room = extended([np.arange(8)], [np.array([8])], None)
    one, room = extended(start, [np.array([10])], room)
    other, elsewhere = extended(start, [np.array([20])], room)
    assert elsewhere is not room
    assert (one[0][-1], other[0][-1], start[0].tolist()) == (10, 20, list(range(9)))
