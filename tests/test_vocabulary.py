"""Rows of keys: known-answer cases, and the round trip for any keys."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.vocabulary import moved, vocabulary

keys = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30)


@given(keys | st.lists(st.integers(40, 90), max_size=30), keys, st.booleans())
def test_rows_finds_exactly_the_keys_that_are_in_it(known: list[int], others: list[int], prepared: bool) -> None:
    words = vocabulary(np.array(known, np.int64))
    if prepared:
        words.places  # noqa: B018 - kept once it is asked for
    rows = words.rows(np.array(known + others, np.int64))
    for key, row in zip(known + others, rows.tolist(), strict=True):
        assert (row == -1) if key not in known else (words.keys[row] == key)


@given(keys, keys)
def test_extended_has_both_and_keeps_every_row_of_values(old: list[int], new: list[int]) -> None:
    before = vocabulary(np.array(old, np.int64))
    after = before.extended(np.array(new, np.int64))
    assert after.keys.tolist() == sorted({*old, *new})
    values = np.arange(1, len(before) + 1, dtype=np.float32)
    here = moved(values, before, after)
    assert here[after.rows(before.keys)].tolist() == values.tolist()
    assert np.count_nonzero(here) == len(before)


def test_extended_by_nothing_new_is_the_same_object() -> None:
    words = vocabulary([5, 9])
    assert words.extended([9]) is words


def test_an_empty_vocabulary_knows_nothing() -> None:
    assert vocabulary([]).rows([1, 2]).tolist() == [-1, -1]


def test_within_leaves_out_what_the_other_hasnt() -> None:
    own = vocabulary([2, 3, 5, 9])
    assert own.within(vocabulary([1, 3, 9])).keys.tolist() == [3, 9]
    assert own.within(vocabulary([1, 2, 3, 5, 9])) is own


def test_keys_that_come_between_others_are_put_between_them() -> None:
    own = vocabulary([2, 5, 9])
    assert own.extended([7, 1, 7, 5]).keys.tolist() == [1, 2, 5, 7, 9]
    assert own.extended([9, 2]) is own
    assert own.rows([2, 5, 9]).tolist() == [0, 1, 2]
