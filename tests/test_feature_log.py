from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from palate import feature_log
from palate.feature_log import NAMES


def test_names_are_unlike_and_within_what_a_heavy_ranker_is_meant_for() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert 50 <= len(NAMES) <= 100


@given(arrays.arrays(np.float32, (3, len(NAMES)), elements=st.floats(width=32, allow_infinity=False)))
def test_what_is_read_is_what_was_written_to_sixteen_bits(features: np.ndarray) -> None:
    found, good = feature_log.read(feature_log.written(features))
    assert good.all()
    np.testing.assert_array_equal(found, feature_log.rounded(features))


@given(st.floats(-65504, 65504, width=32), st.floats(width=16, allow_nan=False), st.integers(-2, 2))
def test_unrounded_borders_part_numbers_as_the_borders_part_what_they_are_rounded_to(
    border: float, half: float, steps: int
) -> None:
    parted = feature_log.unrounded(np.array([border], np.float32))
    beside = parted.copy()  # the numbers that rounding could put on the wrong side
    for _ in range(abs(steps)):
        beside = np.nextafter(beside, np.float32(np.copysign(np.inf, steps)))
    for value in (np.float32(half), np.float32(border), beside[0]):
        rounded = feature_log.rounded(np.array([value], np.float32))
        assert (value > parted[0]) == (rounded[0] > np.float32(border))


def test_a_row_is_a_short_json_string() -> None:
    (text,) = feature_log.written(np.full((1, len(NAMES)), np.pi, np.float32))
    assert isinstance(json.loads(text), str)
    assert len(text) <= 256


def test_what_isnt_of_this_scheme_is_not_read() -> None:
    (text,) = feature_log.written(np.zeros((1, len(NAMES)), np.float32))
    other = text.replace(f'"{feature_log.SCHEME}:', '"0:')
    _, good = feature_log.read([None, "", "{}", other, text[:-3], text[:20] + "!" + text[21:], text])
    assert good.tolist() == [False, False, False, False, False, False, True]
