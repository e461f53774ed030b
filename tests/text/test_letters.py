"""Texts as arrays of letters: what is found there is what Python finds letter by letter."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.text import letters

FACTORS = np.array([3, 5, 7], np.uint32)


def test_each_text_is_followed_by_a_gap() -> None:
    found = letters.joined(["ab", "", "é"])
    assert found.ends.tolist() == [2 + letters.GAP, 2 + 2 * letters.GAP, 3 + 3 * letters.GAP]
    assert [place for place, unit in enumerate(found.units) if unit] == [0, 1, 2 + 2 * letters.GAP]


@given(st.lists(st.booleans()))
def test_runs_are_where_something_begins_and_how_long_it_lasts(inside: list[bool]) -> None:
    starts, lengths = letters.runs(np.array(inside, bool))
    told = [False] * len(inside)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        assert start == 0 or not inside[start - 1]
        told[start : start + length] = [True] * length
    assert told == inside


@given(st.lists(st.text("abcде", max_size=6), min_size=1, max_size=5))
def test_a_sum_counts_the_first_letters_of_its_word_alone(words: list[str]) -> None:
    found = letters.joined(words)
    starts = np.concatenate([[0], found.ends[:-1]]).astype(np.int64)
    sums = letters.sums(found.units, starts, np.array([len(word) for word in words]), FACTORS)
    assert sums.tolist() == [
        sum(ord(letter) * int(factor) for letter, factor in zip(word, FACTORS, strict=False)) for word in words
    ]


def test_mixing_keeps_numbers_apart_and_moves_high_bits_too() -> None:
    mixed = letters.mixed(np.arange(10_000, dtype=np.uint32))
    assert len(set(mixed.tolist())) == 10_000
    assert len(set((mixed >> np.uint32(20)).tolist())) > 3000  # of 4096


def test_letters_are_compared_without_case_and_others_are_none() -> None:
    folded = letters.folded()
    assert [folded[ord(letter)] for letter in "Aaß9Ёё"] == [ord(letter) for letter in "aas9ее"]
    assert not folded[[ord(sign) for sign in " .,—«»!…"]].any()
