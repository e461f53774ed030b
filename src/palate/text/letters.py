"""Texts as one array of letters, and the words in it as numbers: what vectors and classes are counted from.

All is done for many texts at a time in NumPy, a few nanoseconds a letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GAP = 12
"""Places without a letter behind each text: so many letters of a word can be read wherever it starts."""


class Letters(NamedTuple):
    """Texts, each followed by a gap."""

    units: NDArray[np.uint16]
    """UTF-16 units."""
    ends: NDArray[np.int64]
    """(n,) where each text's gap ends."""


def joined(texts: Sequence[str]) -> Letters:
    """The texts as they are, one after the other."""
    raw = [text.encode("utf-16-le", "surrogatepass") for text in texts]
    units = np.frombuffer((b"\0\0" * GAP).join([*raw, b""]), np.uint16)
    return Letters(units, np.cumsum([len(one) // 2 + GAP for one in raw], dtype=np.int64))


def runs(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where runs of True start, and their lengths."""
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    return edges[::2], edges[1::2] - edges[::2]


def sums(
    letters: NDArray[np.uint16], starts: NDArray[np.int64], lengths: NDArray[np.int64], factors: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """Of each word the sum of its first letters times their factors, as many as there are (GAP at most), modulo 2³²."""
    total = np.zeros(len(starts), np.uint32)
    for place, factor in enumerate(factors):
        total += letters[starts + place] * factor * (lengths > place)
    return total


def mixed(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Sums over letters mixed by multiplications and shifts, so that each letter moves each bit."""
    for shift, factor in ((15, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = (numbers ^ (numbers >> np.uint32(shift))) * np.uint32(factor)
    return numbers ^ (numbers >> np.uint32(16))


@cache
def folded() -> NDArray[np.uint16]:
    """Of each UTF-16 unit the letter or digit as it is compared; 0 for what is no part of a word."""
    letters = np.zeros(2**16, np.uint16)
    for code in range(2**16):
        if chr(code).isalnum():
            letters[code] = ord(chr(code).casefold()[0]) & 0xFFFF
    letters[[0x401, 0x451]] = 0x435  # ё is often written е
    return letters
