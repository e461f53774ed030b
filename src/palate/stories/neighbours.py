"""Which documents are near each other: pairs of similar vectors within a window of time that share a word that says much.

Whoever shares no such word is hardly ever similar, so documents are compared word by word: work grows with how many share one,
not with all there are. What is a pair depends on its two documents alone, whatever else there is, and however it was found.

Vectors are rounded to whole numbers first. Sums of their products stay below 2**24, so float32 holds them exactly: a similarity
is the same number on every machine, in every order, in one product of matrices or alone, and so is all that is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.stories import room as growing
from palate.stories.room import Room

SCALE = 400
"""A vector of length 1 is rounded to whole numbers after it was made so long."""

LENGTH = 256
"""Numbers of a vector."""

_BLOCK = 512
_WIDTH = 4096  # documents that a block is compared with at one time
_MANY, _LARGE = 512, 16_384  # asking documents, and documents in all, from which on it pays to sort all by their words
_SLAB = 32_768  # documents whose words are sorted at one time, with those of the window around them
_FEW = 12  # documents with a word up to which pairs by themselves are faster than products of blocks
_HOUR = 3_600_000


class ClusteringParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which documents make one story."""

    similarity: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.32
    """Mean cosine between the documents of two groups from which on they are one story."""
    duplicate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    """Cosine from which on two documents of one source are nearly the same text; others of one source never share a story."""
    window_hours: Annotated[float, msgspec.Meta(gt=0, le=720)] = 24
    """Hours between two documents up to which they are compared."""
    span_hours: Annotated[float, msgspec.Meta(gt=0, le=8760)] = 96
    """Hours between the first and the last document of a story at most; no shorter than `window_hours` has any effect."""
    largest: Annotated[int, msgspec.Meta(ge=2, le=20_000)] = 1000
    """Documents that hang together by similar pairs and are divided into stories at one time; more are parted by their weakest
    links first. Time and memory grow with its square."""

    @property
    def window(self) -> int:
        """Milliseconds."""
        return int(self.window_hours * _HOUR)

    @property
    def span(self) -> int:
        """Milliseconds."""
        return int(max(self.span_hours, self.window_hours) * _HOUR)


@dataclass(frozen=True)
class Documents:
    """Columns of equal length. Whoever has several languages clusters each for itself."""

    keys: NDArray[np.int64]
    """Each once."""
    vectors: NDArray[np.float16]
    """(n, LENGTH) of length 1, or zero for a document about which nothing is known: it stays alone."""
    sources: NDArray[np.int64]
    times: NDArray[np.int64]
    """Milliseconds since 1970."""
    keywords: NDArray[np.uint16]
    """(n, k) numbers of the words that say most of each, ascending; those that repeat count once."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Placed:
    """Documents ready to be compared. To be compared with `near` they stand in order of time (then key)."""

    keys: NDArray[np.int64]
    codes: NDArray[np.int8]
    """(n, LENGTH) the vectors as whole numbers."""
    sources: NDArray[np.int64]
    times: NDArray[np.int64]
    keywords: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Placed:
        return Placed(*(getattr(self, field.name)[rows] for field in fields(self)))


class Pairs(NamedTuple):
    """Similar documents by their rows in a `Placed`: `first` stands before `second`, `products` is their similarity × SCALE²."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    products: NDArray[np.int32]


NO_PAIRS = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32))


def together(parts: Sequence[Pairs]) -> Pairs:
    first, second, products = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Pairs(first, second, products)


def chosen(pairs: Pairs, rows: NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.first[rows], pairs.second[rows], pairs.products[rows])


def place(documents: Documents) -> Placed:
    assert len(np.unique(documents.keys)) == len(documents), "a key stands for one document"
    order = np.lexsort((documents.keys, documents.times))
    codes = np.empty((len(order), LENGTH), np.int8)
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        scaled = documents.vectors[rows].astype(np.float32) * SCALE
        codes[start : start + _BLOCK] = np.clip(np.rint(scaled), -127, 127)
    sources, times, keywords = documents.sources[order], documents.times[order], documents.keywords[order]
    return Placed(documents.keys[order], codes, sources, times, keywords)


def in_order(placed: Placed, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows in order of time (then key)."""
    return rows[np.lexsort((placed.keys[rows], placed.times[rows]))]


def extended(one: Placed, other: Placed, room: Room | None) -> tuple[Placed, Room]:
    """The documents of both, those of `one` in their rows and the others behind them; `room` is where `one` lies."""
    columns, more = ([getattr(each, field.name) for field in fields(Placed)] for each in (one, other))
    found, room = growing.extended(columns, more, room)
    return Placed(*found), room


def near_newest(documents: Placed, start: int, params: ClusteringParams) -> Pairs:
    """The pairs as `near` has them with a document from row `start` on, in whatever order documents are."""
    new = np.arange(start, len(documents))
    if not len(new):
        return NO_PAIRS
    times, words = documents.times, np.zeros(np.iinfo(np.uint16).max + 1, np.float32)
    words[documents.keywords[new]] = 1
    low, high = times[new].min() - params.window, times[new].max() + params.window
    close = np.flatnonzero((times[:start] >= low) & (times[:start] <= high))
    shared = words.take(documents.keywords[close]) @ np.ones(documents.keywords.shape[1], np.float32)
    asked = close[shared > 0]
    rows = in_order(documents, np.concatenate((asked, new)))
    found = near(documents[rows], rows >= start, params)
    one, other = rows[found.first], rows[found.second]
    return Pairs(np.minimum(one, other), np.maximum(one, other), found.products)


def near(placed: Placed, new: NDArray[np.bool_], params: ClusteringParams) -> Pairs:
    """The pairs with a `new` document that are similar enough, share a keyword, are near in time and not of one source.

    Of one source they are a pair too where they are nearly the same text. Each pair stands once.
    """
    asking = np.flatnonzero(new)
    is_large = len(asking) >= _MANY and len(placed) >= _LARGE
    step, find = (_SLAB, _near_by_words) if is_large else (_BLOCK, _near_all)
    found = [NO_PAIRS]
    for start in range(0, len(asking), step):
        rows = asking[start : start + step]
        low = int(np.searchsorted(placed.times, placed.times[rows[0]] - params.window))
        high = int(np.searchsorted(placed.times, placed.times[rows[-1]] + params.window, side="right"))
        if new[low:high].all():
            high = int(rows[-1]) + 1  # whoever is later asks for itself
        found += find(placed, new, rows, range(low, high), params)
    return together(found)


def _near_all(
    placed: Placed, new: NDArray[np.bool_], asking: NDArray[np.int64], within: range, params: ClusteringParams
) -> Iterator[Pairs]:
    """Each compared with all: to sort the words of all would take longer."""
    for column in range(within.start, within.stop, _WIDTH):
        asked = np.arange(column, min(column + _WIDTH, within.stop))
        pairs = _near_block(placed, new, asking, asked, params)
        yield chosen(pairs, _share_keyword(placed.keywords[pairs.first], placed.keywords[pairs.second]))


def _near_by_words(
    placed: Placed, new: NDArray[np.bool_], asking: NDArray[np.int64], within: range, params: ClusteringParams
) -> Iterator[Pairs]:
    """Each compared with those that share a keyword, word by word."""
    asks = np.zeros(len(within), np.bool_)
    asks[asking - within.start] = True
    words, rows = _by_word(placed, within)
    starts = np.flatnonzero(np.diff(words, prepend=-1))
    sizes = np.diff(starts, append=len(words))
    few = np.repeat(sizes <= _FEW, sizes)
    parts = [_near_few(placed, new, asks, words[few], rows[few], within, params)]
    for start, size in zip(starts[sizes > _FEW].tolist(), sizes[sizes > _FEW].tolist(), strict=True):
        parts.append(_near_word(placed, new, asks, rows[start : start + size], within, params))
    pairs = together(parts)
    _, once = np.unique(pairs.first * len(placed) + pairs.second, return_index=True)
    yield chosen(pairs, once)


def _by_word(placed: Placed, within: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Words in ascending order, and of each the rows that have it, ascending too."""
    keywords = placed.keywords[within.start : within.stop]
    first = np.ones(keywords.shape, np.bool_)
    first[:, 1:] = keywords[:, 1:] != keywords[:, :-1]
    words = keywords[first]
    order = np.argsort(words, kind="stable")
    return words[order].astype(np.int64), np.nonzero(first)[0][order] + within.start


def _near_few(
    placed: Placed,
    new: NDArray[np.bool_],
    asks: NDArray[np.bool_],
    words: NDArray[np.int64],
    rows: NDArray[np.int64],
    within: range,
    params: ClusteringParams,
) -> Pairs:
    """The pairs by words that few share: each pair by itself."""
    found = [NO_PAIRS]
    for step in range(1, _FEW):
        places = np.flatnonzero(words[step:] == words[:-step])
        one, other = rows[places + step], rows[places]
        wanted = placed.times[one] - placed.times[other] <= params.window
        wanted &= asks[one - within.start] | (asks[other - within.start] & ~new[one])
        one, other = one[wanted], other[wanted]
        for start in range(0, len(one), _WIDTH):
            pair = slice(start, start + _WIDTH)
            codes, others = (placed.codes[ends[pair]].astype(np.float32) for ends in (one, other))
            found.append(_kept(placed, one[pair], other[pair], np.einsum("ij,ij->i", codes, others), params))
    return together(found)


def _near_word(
    placed: Placed,
    new: NDArray[np.bool_],
    asks: NDArray[np.bool_],
    rows: NDArray[np.int64],
    within: range,
    params: ClusteringParams,
) -> Pairs:
    """The pairs of the documents that share a word."""
    asking = rows[asks[rows - within.start]]
    found = [NO_PAIRS]
    times = placed.times[rows]
    for start in range(0, len(asking), _BLOCK):
        block = asking[start : start + _BLOCK]
        low = int(np.searchsorted(times, placed.times[block[0]] - params.window))
        high = int(np.searchsorted(times, placed.times[block[-1]] + params.window, side="right"))
        for column in range(low, high, _WIDTH):
            found.append(_near_block(placed, new, block, rows[column : min(column + _WIDTH, high)], params))
    return together(found)


def _share_keyword(keywords: NDArray[np.uint16], others: NDArray[np.uint16]) -> NDArray[np.bool_]:
    shares = np.zeros(len(keywords), np.bool_)
    for word in keywords.T:
        shares |= (others == word[:, np.newaxis]).any(axis=1)
    return shares


def _near_block(
    placed: Placed,
    new: NDArray[np.bool_],
    asking: NDArray[np.int64],
    asked: NDArray[np.int64],
    params: ClusteringParams,
) -> Pairs:
    products = products_of(placed.codes[asking], placed.codes[asked])
    places = np.flatnonzero(products >= params.similarity * SCALE**2)
    rows, others, values = asking[places // len(asked)], asked[places % len(asked)], products.ravel()[places]
    once = (others < rows) | ((others > rows) & ~new[others])
    return _kept(placed, rows[once], others[once], values[once], params)


def _kept(
    placed: Placed,
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    products: NDArray[np.float32],
    params: ClusteringParams,
) -> Pairs:
    """Those that are pairs."""
    different = placed.sources[rows] != placed.sources[others]
    kept = (products >= params.similarity * SCALE**2) & (different | (products >= params.duplicate * SCALE**2))
    kept &= np.abs(placed.times[rows] - placed.times[others]) <= params.window
    rows, others = rows[kept], others[kept]
    return Pairs(np.minimum(rows, others), np.maximum(rows, others), products[kept].astype(np.int32))


def products_of(codes: NDArray[np.int8], others: NDArray[np.int8]) -> NDArray[np.float32]:
    """(n, m) whole numbers: similarities × SCALE²."""
    return codes.astype(np.float32) @ others.astype(np.float32).T
