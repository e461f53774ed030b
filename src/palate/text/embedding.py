"""A vector for a text, so that texts about the same are near each other: weighted words, projected.

Words are numbered by a hash and each number has a row of signs by chance; a text's vector is the weighted sum of its words' rows,
so that dot products of texts stay what they were (Achlioptas, "Database-friendly random projections", 2003), in any language and
for names that nobody met before. A word's weight is how rare it is (`training/word_weights.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.text import letters

VERSION = 2
"""Of what `embed` computes: vectors of different versions don't compare."""

LENGTH = 256

BUCKETS = 2**16
"""Words are numbered by a hash; two that share a bucket are one word to us."""

STEM = 6
"""Letters of a word that count: in most languages the ending says less than its changes cost."""

TITLE_LIMIT = 500

BATCH = 256
"""Texts whose words are found at one time."""

KEYWORDS = 16
"""Words of a text that weigh most, kept beside the vector of its lead."""

_HALVES, _NUMBERS = np.dtype("<f2"), np.dtype("<u2")
PACKED = LENGTH * _HALVES.itemsize + KEYWORDS * _NUMBERS.itemsize
"""Bytes of a packed lead."""

_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF))
_FACTORS = np.array([pow(0x9E3779B1, power, 1 << 32) for power in range(1, STEM + 1)], np.uint32)


class Reading(NamedTuple):
    """What of a text counts."""

    text_limit: int
    """Characters of the text that are read."""
    title_times: int
    """A word of the title counts as so many of the text."""
    rarity: float
    """Power of a word's rarity in its weight."""


WHOLE = Reading(20_000, 3, 0.25)
"""To tell what kind of thing a text is about, for what a person likes: words that many such texts share say that."""

LEAD = Reading(1_000, 5, 1.0)
"""To tell which event it is about: rare words say that, names above all, and news say it first. For stories."""


class Words(NamedTuple):
    """The words of texts: those of text i are at offsets[i] to offsets[i + 1]."""

    offsets: NDArray[np.int64]
    buckets: NDArray[np.int64]
    """Each once a text, ascending."""
    counts: NDArray[np.float32]
    """ln(1 + how often), with those of the title counted several times."""


class Leads(NamedTuple):
    """What tells the events of n texts."""

    vectors: NDArray[np.float16]
    """(n, LENGTH) as `embed` makes them of their leads."""
    keywords: NDArray[np.uint16]
    """(n, KEYWORDS) buckets of the words that weigh most in each, ascending; of a text with fewer words its least again."""


def embed(texts: Iterable[tuple[str, str]], reading: Reading = WHOLE) -> NDArray[np.float16]:
    """(n, LENGTH) a vector of length 1 for each (title, plain text); zero where there is no word.

    Vectors of different readings don't compare.
    """
    rest, weights = iter(texts), _weights() ** np.float32(reading.rarity)
    parts = [np.zeros((0, LENGTH), np.float16)]
    while batch := list(islice(rest, BATCH)):
        parts.append(_projected(words(batch, reading), weights))
    return np.concatenate(parts)


def leads(texts: Iterable[tuple[str, str]]) -> Leads:
    """Vector and keywords of each (title, plain text); zero where there is no word."""
    rest, vectors, keywords = iter(texts), [np.zeros((0, LENGTH), np.float16)], [np.zeros((0, KEYWORDS), np.uint16)]
    while batch := list(islice(rest, BATCH)):
        found = words(batch, LEAD)
        vectors.append(_projected(found, _weights()))
        keywords.append(_keywords(found, _weights()))
    return Leads(np.concatenate(vectors), np.concatenate(keywords))


def packed(found: Leads) -> list[bytes]:
    """Of each text PACKED bytes."""
    pairs = zip(found.vectors.astype(_HALVES), found.keywords.astype(_NUMBERS), strict=True)
    return [vector.tobytes() + keywords.tobytes() for vector, keywords in pairs]


def unpacked(rows: Sequence[bytes]) -> Leads:
    """The leads of texts that were packed."""
    content = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, PACKED)
    vectors, keywords = np.split(content, [LENGTH * _HALVES.itemsize], axis=1)
    return Leads(
        np.ascontiguousarray(vectors).view(_HALVES).astype(np.float16, copy=False),
        np.ascontiguousarray(keywords).view(_NUMBERS).astype(np.uint16, copy=False),
    )


def words(texts: Sequence[tuple[str, str]], reading: Reading = WHOLE) -> Words:
    """The words as they are counted: without case and endings, of scripts without spaces each pair of letters."""
    titles = _found([title[:TITLE_LIMIT] for title, _ in texts])
    bodies = _found([text[: reading.text_limit] for _, text in texts])
    keys = np.concatenate((2 * titles + 1, 2 * bodies))
    keys.sort()
    places, last = keys >> 1, np.flatnonzero(np.diff(keys >> 1, append=-1))
    unique = places[last]
    times = np.cumsum(1 + (keys & 1) * (reading.title_times - 1))[last]
    counts = np.log1p(np.diff(times, prepend=0).astype(np.float64)).astype(np.float32)
    offsets = np.searchsorted(unique, np.arange(len(texts) + 1) * BUCKETS)
    return Words(offsets, unique % BUCKETS, counts)


def _found(texts: Sequence[str]) -> NDArray[np.int64]:
    """For each word in order the number of its text × BUCKETS + its bucket."""
    units, ends = letters.joined(texts)
    folded = np.take(letters.folded(), units)
    starts, lengths = _spans(folded)
    buckets = letters.mixed(letters.sums(folded, starts, lengths, _FACTORS)) % np.uint32(BUCKETS)
    numbers: NDArray[np.int64] = np.searchsorted(ends, starts, side="right") * BUCKETS + buckets
    return numbers


def _spans(folded: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the words start, and how many letters each has: two or more, or a pair in a script without spaces."""
    inside = folded > 0
    if not folded.max(initial=0) >= _UNSPACED[0][0]:
        return _long_runs(inside)
    unspaced = _is_unspaced()[folded]
    starts, lengths = _long_runs(inside & ~unspaced)
    pairs = np.flatnonzero(unspaced[:-1] & unspaced[1:])
    lonely = np.flatnonzero(unspaced & ~np.roll(unspaced, 1) & ~np.roll(unspaced, -1))
    starts = np.concatenate((starts, pairs, lonely))
    return starts, np.concatenate((lengths, np.full(len(pairs), 2), np.full(len(lonely), 1)))


def _long_runs(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    starts, lengths = letters.runs(inside)
    long = lengths > 1
    return starts[long], lengths[long]


def _projected(found: Words, weights: NDArray[np.float32]) -> NDArray[np.float16]:
    """`weights`: (BUCKETS,) of each word."""
    weighted = found.counts * weights[found.buckets]
    vectors = np.zeros((len(found.offsets) - 1, LENGTH), np.float32)
    for row, (start, end) in enumerate(pairwise(found.offsets.tolist())):
        ones = np.unpackbits(_signs()[found.buckets[start:end]], axis=1)
        vectors[row] = 2 * (weighted[start:end] @ ones.astype(np.float32)) - weighted[start:end].sum()
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float16)


def _keywords(found: Words, weights: NDArray[np.float32]) -> NDArray[np.uint16]:
    weighted = found.counts * weights[found.buckets]
    keywords = np.zeros((len(found.offsets) - 1, KEYWORDS), np.uint16)
    for row, (start, end) in enumerate(pairwise(found.offsets.tolist())):
        if start < end:
            heaviest = np.argsort(-weighted[start:end], kind="stable")[:KEYWORDS]
            own = np.sort(found.buckets[start:end][heaviest])
            keywords[row] = own[0]
            keywords[row, -len(own) :] = own
    return keywords


@cache
def _is_unspaced() -> NDArray[np.bool_]:
    marked = np.zeros(2**16, np.bool_)
    for first, last in _UNSPACED:
        marked[first : last + 1] = True
    return marked


@cache
def _weights() -> NDArray[np.float32]:
    """(BUCKETS,)"""
    content = (resources.files("palate.text") / "word_weights.bin").read_bytes()
    return np.frombuffer(content, "<f2").astype(np.float32)


@cache
def _signs() -> NDArray[np.uint8]:
    """(BUCKETS, LENGTH / 8) a bit for each number, 1 for 1 and 0 for −1: by chance, the same everywhere and always."""
    drawn = np.frombuffer(hashlib.shake_128(b"palate").digest(BUCKETS * LENGTH // 8), np.uint8)
    return drawn.reshape(BUCKETS, LENGTH // 8)
