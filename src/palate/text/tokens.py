"""A document as numbers of words: what it says and how its title is made, for linear models over hashed features.

Features are hashed into a table of a fixed length (Weinberger et al., "Feature hashing for large scale multitask learning",
2009): words, beginnings of words, pairs of neighbours, those of the title once more by themselves, and the title's shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.text import letters

BITS = 18
SIZE = 2**BITS
"""Numbers that a feature can have."""

TITLE_LENGTH = 300
TEXT_LENGTH = 1_500
"""Characters that are read of a title and of a text."""

STEM = 5
"""Letters of a word's beginning: in Russian the ending says less than its changes cost."""

BATCH = 64
"""Documents whose features are found at one time."""

TITLE_VALUE = 2.0
"""A feature of the title counts as so many of the text."""

_LINE_END = re.compile(r"\n|\s{2,}|(?<=[.!?…])\s")
_MARKS = ("?", "!", ":", "«", '"', "“", "‘", "|", "…", "(", ",")
_LETTER, _DIGIT, _SIGN = 1, 2, 3
_SIGNS = "?!%$€₽#"
_TITLE, _PAIR, _SHAPE = (np.uint32(number) for number in (0x51ED270B, 0x9E3779B1, 0x7F4A7C15))
_FACTORS = np.array([pow(0x85EBCA77, power, 1 << 32) for power in range(1, letters.GAP + 1)], np.uint32)
_LENGTH = np.uint32(0xC2B2AE3D)


class Features(NamedTuple):
    """The features of documents: those of document i are at offsets[i] to offsets[i + 1]."""

    offsets: NDArray[np.int64]
    numbers: NDArray[np.int64]
    """Each at most once a document, 0 to SIZE − 1."""
    values: NDArray[np.float32]
    """Of each document together of length 1."""


class Words(NamedTuple):
    """The words of texts, in order."""

    places: NDArray[np.int64]
    """The number of each one's text."""
    whole: NDArray[np.uint32]
    """Its number, by its first letters (`letters.GAP`) and its length."""
    stems: NDArray[np.uint32]
    """The number of its beginning."""


def features(documents: Iterable[tuple[str, str]]) -> Features:
    """Of each (title, plain text); a text without a title lends it its first line."""
    rest = iter(documents)
    parts = [_features([])]
    while batch := list(islice(rest, BATCH)):
        parts.append(_features([titled(title, text) for title, text in batch]))
    lengths = np.concatenate([[0], *(np.diff(part.offsets) for part in parts)])
    numbers, values = (np.concatenate([part[column] for part in parts]) for column in (1, 2))
    return Features(np.cumsum(lengths), numbers, values)


def titled(title: str, text: str) -> tuple[str, str]:
    """What is read of title and text; when there is no title, the text's first line or sentence takes its place."""
    title, text = title[:TITLE_LENGTH].strip(), text[: TEXT_LENGTH + TITLE_LENGTH].strip()
    if not title:
        end = _LINE_END.search(text)
        cut = min(end.start() if end else len(text), TITLE_LENGTH)
        title, text = text[:cut], text[cut:]
    return title, text[:TEXT_LENGTH]


def words(texts: Sequence[str]) -> Words:
    """Words without case, numbers (all of one length are one) and signs that tell."""
    units, ends = letters.joined(texts)
    folded, kinds = np.take(_folded(), units), np.take(_kinds(), units)
    starts, lengths = _spans(kinds)
    stems = letters.sums(folded, starts, lengths, _FACTORS[:STEM])
    whole = (
        stems
        + letters.sums(folded, starts + STEM, lengths - STEM, _FACTORS[STEM:])
        + lengths.astype(np.uint32) * _LENGTH
    )
    return Words(np.searchsorted(ends, starts, side="right"), letters.mixed(whole), letters.mixed(stems))


def _spans(kinds: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where words, numbers and signs start, and how many letters each has."""
    edges = np.flatnonzero((kinds[1:] != kinds[:-1]) | (kinds[1:] == _SIGN)) + 1
    edges = np.concatenate([np.zeros(1, np.int64), edges]) if len(kinds) and kinds[0] else edges
    inside = kinds[edges] > 0
    lengths = np.diff(edges, append=len(kinds))
    return edges[inside], lengths[inside]


def _features(documents: Sequence[tuple[str, str]]) -> Features:
    """Of each (title, text), all at once: keys are a document's number, then the feature's, then whether it's the title's."""
    titles, texts = words([title for title, _ in documents]), words([text for _, text in documents])
    of_titles = _numbers(titles)
    parts = [(places, numbers, 0) for places, numbers in of_titles]
    parts += [(places, numbers ^ _TITLE, 0) for places, numbers in of_titles]
    parts += [(*_shapes(documents), 0)]
    parts += [(places, numbers, 1) for places, numbers in _numbers(texts)]
    keys = np.concatenate([(places * SIZE + numbers % SIZE) * 2 + quiet for places, numbers, quiet in parts])
    keys.sort()  # of one number the title's comes first, and stays
    both = keys >> 1
    first = np.flatnonzero(np.diff(both, prepend=-1))
    values = np.where(keys[first] & 1, np.float32(1), np.float32(TITLE_VALUE))
    offsets = np.searchsorted(both[first], np.arange(len(documents) + 1) * SIZE)
    squares = np.concatenate([np.zeros(1), np.cumsum(values.astype(np.float64) ** 2)])[offsets]
    lengths = np.sqrt(np.diff(squares)).astype(np.float32)
    return Features(offsets, both[first] % SIZE, values / np.repeat(lengths, np.diff(offsets)))


def _numbers(found: Words) -> list[tuple[NDArray[np.int64], NDArray[np.uint32]]]:
    """Of each word, its beginning and each pair of neighbours: the number of its text, and its own."""
    near = np.flatnonzero(found.places[1:] == found.places[:-1])
    pairs = letters.mixed(found.stems[near] * _PAIR + found.stems[near + 1])
    return [(found.places, found.whole), (found.places, found.stems), (found.places[near], pairs)]


def _shapes(documents: Sequence[tuple[str, str]]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Of each title its signs, of it and of the text the length."""
    shapes = [_shape(title, text) for title, text in documents]
    places = np.repeat(np.arange(len(shapes)), [len(shape) for shape in shapes])
    numbers = np.array([number for shape in shapes for number in shape], np.uint32)
    return places, letters.mixed(numbers * _SHAPE)


def _shape(title: str, text: str) -> list[int]:
    marks = [number for number, mark in enumerate(_MARKS) if mark in title]
    counts = (len(title).bit_length(), min(title.count(" "), 15), len(text).bit_length(), title[:1].isdigit())
    last = ord(title[-1]) if title and not title[-1].isalnum() else 0
    return [*marks, *(100 * place + count for place, count in enumerate(counts, 1)), 1000 + last]


@cache
def _folded() -> NDArray[np.uint16]:
    """Of each UTF-16 unit the letter as it is compared; all digits are one."""
    folded = letters.folded().copy()
    folded[[ord(sign) for sign in _SIGNS]] = [ord(sign) for sign in _SIGNS]
    folded[ord("0") : ord("9") + 1] = ord("0")
    return folded


@cache
def _kinds() -> NDArray[np.uint8]:
    """Of each UTF-16 unit whether it is a letter, a digit, a sign that tells, or none of them (0)."""
    kinds = np.where(letters.folded() > 0, np.uint8(_LETTER), np.uint8(0))
    kinds[ord("0") : ord("9") + 1] = _DIGIT
    kinds[[ord(sign) for sign in _SIGNS]] = _SIGN
    return kinds
