from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate import places

masks = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40)


@given(masks, st.booleans(), st.integers(0, 200))
def test_places_and_masks_say_the_same(pairs: list[tuple[bool, bool]], sparse: bool, more: int) -> None:
    one, other = (np.array([pair[n] for pair in pairs] + [False] * more, bool) for n in (0, 1))
    at = places.places(one[int(sparse) :])
    assert at.tolist() == np.flatnonzero(one[int(sparse) :]).tolist()
    both = np.flatnonzero(one), np.flatnonzero(other)
    for some in (one, both[0]):
        assert places.size(some) == one.sum()
        assert places.mask(some, len(one)).tolist() == one.tolist()
        assert places.places(places.within(some, other)).tolist() == np.flatnonzero(one & other).tolist()
        for others in (other, both[1]):
            left = places.without(some, others)
            assert places.is_mask(left) == places.is_mask(some)
            assert places.places(left).tolist() == np.flatnonzero(one & ~other).tolist()
    assert places.together(places.without(one, both[1]), other).tolist() == np.flatnonzero(one | other).tolist()
