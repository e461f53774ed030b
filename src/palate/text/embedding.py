"""A vector for a text, so that texts about the same are near each other: weighted words, projected at random.

Random projections keep dot products (Johnson and Lindenstrauss, 1984; with signs: Achlioptas, "Database-friendly random
projections", 2003), so the vectors compare as the tf-idf vectors of the texts' words would, in any language, in fixed length.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Of what `embed` computes: vectors of different versions don't compare."""

LENGTH = 256

BUCKETS = 2**15
"""Words are numbered by a hash; two that share a bucket are one word to us."""

STEM = 6
"""Letters of a word that count: in most languages the ending says less than its changes cost."""

TEXT_LIMIT = 20_000
"""Characters of a text that are read."""

TITLE_TIMES = 3
"""A word of the title counts as so many of the text."""

_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def embed(texts: Iterable[tuple[str, str]]) -> NDArray[np.float16]:
    """(n, LENGTH) a vector of length 1 for each (title, plain text); zero where there is no word."""
    rows = [_projected(_counts(title, text)) for title, text in texts]
    return np.array(rows, np.float16).reshape(-1, LENGTH)


def words(text: str) -> Iterator[str]:
    """The words as they are counted: without case and endings, of scripts without spaces each pair of letters."""
    for found in _WORD.findall(text[:TEXT_LIMIT].casefold()):
        if _UNSPACED.match(found):
            yield from (found[place : place + 2] for place in range(max(len(found) - 1, 1)))
        elif len(found) > 1:
            yield found[:STEM]


def bucket(word: str) -> int:
    """The word's number, 0 to BUCKETS − 1."""
    return zlib.crc32(word.encode()) % BUCKETS


def rarity(documents: Sequence[Sequence[str]]) -> NDArray[np.uint8]:
    """(BUCKETS,) how much a word tells, in sixteenths of −ln(share of documents with it), the largest share of any language.

    `documents`: for each language its texts. A bucket that no text has is as rare as one text in the largest language.
    """
    share = np.full(BUCKETS, 1 / max(map(len, documents)))
    for texts in documents:
        having = Counter(number for text in texts for number in {bucket(word) for word in words(text)})
        numbers = np.fromiter(having, np.int64, len(having))
        share[numbers] = np.maximum(share[numbers], np.fromiter(having.values(), float, len(having)) / len(texts))
    weights: NDArray[np.uint8] = np.clip(np.rint(-16 * np.log(share)), 0, 255).astype(np.uint8)
    return weights


def _counts(title: str, text: str) -> Counter[int]:
    counts = Counter(map(bucket, words(text)))
    for word in words(title):
        counts[bucket(word)] += TITLE_TIMES
    return counts


def _projected(counts: Counter[int]) -> NDArray[np.float32]:
    numbers = np.fromiter(counts, np.int64, len(counts))
    times = np.fromiter(counts.values(), np.float32, len(counts))
    vector = ((1 + np.log(times)) * _weights()[numbers]) @ _signs()[numbers].astype(np.float32)
    length = np.linalg.norm(vector)
    return np.asarray(vector / length if length > 0 else np.zeros(LENGTH), np.float32)


@cache
def _weights() -> NDArray[np.float32]:
    """Of each bucket, as `training/word_weights.py` made them."""
    content = (resources.files("palate.text") / "word_weights.bin").read_bytes()
    return np.asarray(np.frombuffer(content, np.uint8) / 16, np.float32)


@cache
def _signs() -> NDArray[np.int8]:
    """(BUCKETS, LENGTH) 1 or −1 by chance, the same everywhere and always."""
    drawn = np.frombuffer(hashlib.shake_128(b"palate").digest(BUCKETS * LENGTH // 8), np.uint8)
    signs: NDArray[np.int8] = (2 * np.unpackbits(drawn).astype(np.int8) - 1).reshape(BUCKETS, LENGTH)
    return signs
