from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.columns import OVERLAP, first, from_rows, in_order, persons
from palate.domain import EventColumns


def numbered(seqs: list[int], type: str = "like") -> EventColumns:
    """One event a number, whose user is the number as well."""
    return from_rows([(seq, seq, 1, type, None, 0) for seq in seqs])


def test_an_alias_is_read_as_its_person_and_everybody_else_as_themselves() -> None:
    known = persons({7: 3, 5: 3, 3: 3, 9: 1})
    assert known.of(np.array([9, 5, 4, 3, 7, 100])).tolist() == [1, 3, 4, 3, 3, 100]
    assert persons({}).of(np.array([2, 1])).tolist() == [2, 1]


def test_the_first_events_keep_their_types() -> None:
    some = first(numbered([4, 6, 8]), 2)
    assert (some.seq.tolist(), some.types) == ([4, 6], ("like",))


@given(cuts=st.lists(st.integers(0, 30), max_size=6), swaps=st.lists(st.integers(0, 29), max_size=6))
def test_batches_that_overlap_come_out_in_order(cuts: list[int], swaps: list[int]) -> None:
    seqs = list(range(1, 31))
    for at in swaps:  # events that were written into the file of the day after
        seqs[at : at + 3] = reversed(seqs[at : at + 3])
    bounds = [0, *sorted(cuts), 30]
    given_ = [numbered(sorted(seqs[low:high]), f"type-{low % 2}") for low, high in pairwise(bounds)]
    found = list(in_order(batch for batch in given_))
    assert [seq for batch in found for seq in batch.seq.tolist()] == list(range(1, 31))
    types = {seq: batch.types[0] for batch in given_ for seq in batch.seq.tolist()}
    assert {
        seq: batch.types[code] for batch in found for seq, code in zip(batch.seq.tolist(), batch.type, strict=True)
    } == types


@pytest.mark.parametrize("overlap", [1, 3])
def test_only_batches_that_overlap_are_copied(overlap: int) -> None:
    long = numbered(list(range(OVERLAP)))
    late = numbered(list(range(OVERLAP, 2 * OVERLAP)))
    assert [batch is given_ for batch, given_ in zip(in_order([long, late]), [long, late], strict=True)] == [True, True]
    early = numbered([OVERLAP - overlap - 1, 2 * OVERLAP])
    early = EventColumns(early.seq * 2 - 1, early.user, early.item, early.type, early.value, early.time, early.types)
    doubled = EventColumns(long.seq * 2, long.user, long.item, long.type, long.value, long.time, long.types)
    (joined,) = in_order([doubled, early])
    assert len(joined) == OVERLAP + 2
    assert (np.diff(joined.seq) > 0).all()
