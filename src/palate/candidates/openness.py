"""What may be served in a call, as a bit for each item: what `wanted` says, found without a look at every item.

What depends on the moment, the surface or the language alone is found once for all calls of a minute; a call puts these together
and takes out what its person has met, hides or excludes. So the bits let items in that come into the window within that minute:
whoever takes items by them compares these few with `wanted` itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from palate.candidates import filters, stories
from palate.candidates import wanted as of_wanted
from palate.candidates.filters import Mask
from palate.candidates.wanted import ANYWHERE, Wanted
from palate.domain import from_milliseconds, to_milliseconds
from palate.orders import Bits, packed
from palate.stock import Stock

MINUTE = 60_000

_BIT = np.left_shift(1, np.arange(8)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Open:
    """Which rows of a stock may be served."""

    bits: Bits
    """Of the base's rows."""
    side: Mask
    """(s,) of those beside them."""

    def count(self) -> int:
        """How many they are."""
        return int(np.bitwise_count(self.bits.view(np.uint64)).sum()) + int(np.count_nonzero(self.side))

    def rows(self, base: int) -> NDArray[np.int64]:
        """All of them, of a stock with so many rows in its base."""
        below = np.flatnonzero(np.unpackbits(self.bits, bitorder="little"))
        return np.concatenate((below, np.flatnonzero(self.side) + base))


def find(stock: Stock, wanted: Wanted, unseen: bool) -> Open:
    """What may be served; `unseen`: without what the person has met, and the stories of it."""
    out, told = left_out(stock, wanted, unseen)
    bits = np.bitwise_and.reduce(list(_parts(stock, wanted)))
    clear(bits, _closed(stock, wanted, out, told))
    if not len(stock.side):
        return Open(bits, np.zeros(0, bool))
    side = of_wanted.narrowed(stock.side, _fitting(stock, wanted), wanted)
    side &= ~np.isin(stock.side.keys, out) & ~np.isin(stock.side.story, told)
    return Open(bits, side)


def is_open(bits: Bits, rows: NDArray[np.integer]) -> Mask:
    """Which of the rows have their bits set; none of those below 0."""
    found: Mask = (bits[rows >> 3] & _BIT[rows & 7]) != 0
    return found & (rows >= 0)


def clear(bits: Bits, rows: NDArray[np.integer]) -> None:
    """Take the bits of these rows away."""
    np.bitwise_and.at(bits, rows >> 3, ~_BIT[rows & 7])


def published_within(stock: Stock, wanted: Wanted, window: timedelta) -> Bits:
    """The bits of what was published within the window before now, or up to a minute beside it, and of what has no date."""
    minute = -(-to_milliseconds(wanted.now) // MINUTE)
    end, wide = from_milliseconds(minute * MINUTE), window + timedelta(milliseconds=MINUTE)
    return stock.orders.part(("window", minute, wide), lambda pool: filters.in_window(pool, end, wide))


def _parts(stock: Stock, wanted: Wanted) -> Iterator[Bits]:
    orders, person, surface = stock.orders, wanted.person, wanted.surface
    yield published_within(stock, wanted, wanted.window)
    if person.languages:
        yield orders.part(("read", person.languages), lambda pool: filters.in_languages(pool, person.languages))
    rules = stock.base.rules.allows(person.viewer, wanted.now)
    if not rules.all():
        yield orders.part(("rules", rules.tobytes()), lambda pool: rules[pool.rule])
    if surface is not ANYWHERE:
        yield orders.part(("surface", surface), lambda pool: filters.of_surface(pool, surface))
    if wanted.among is not None:
        yield _only(stock, wanted.among)
    about = wanted.language, wanted.category
    if about != (None, None):
        yield orders.part(("about", about), lambda pool: filters.about(pool, *about))
    if wanted.labels:
        yield orders.part(("labels", wanted.labels), lambda pool: filters.with_all_labels(pool, wanted.labels))


def _only(stock: Stock, keys: NDArray[np.int64]) -> Bits:
    mask, rows = np.zeros(len(stock.base), bool), stock.base.rows(keys)
    mask[rows[rows >= 0]] = True
    return packed(mask)


def left_out(stock: Stock, wanted: Wanted, unseen: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys of items, and of stories all of whose items stay out."""
    history = wanted.person.history
    if unseen:
        met = np.concatenate((history.items, wanted.given))
        return np.concatenate((met, wanted.excluded)), stock.stories_of(met)
    voted = history.of_items(history.voted)
    votes = stock.rows(voted.items)
    refused = stories.refused(stock.take(votes[votes >= 0]), history)
    told = stock.stories_of(np.concatenate((refused, wanted.given)))
    return np.concatenate((wanted.given, wanted.excluded, refused)), told


def _closed(stock: Stock, wanted: Wanted, out: NDArray[np.int64], told: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the base."""
    hidden = stock.base.sources.find(wanted.person.hidden)
    by_source = stock.orders.by_source
    rows: list[NDArray[np.integer]] = [by_source.of(group) for group in hidden.tolist() if group < len(by_source)]
    rows += [stock.gone, stock.rows(out), stock.of_stories(told)]
    together = np.concatenate(rows).astype(np.int64)
    return together[(together >= 0) & (together < len(stock.base))]


def _fitting(stock: Stock, wanted: Wanted) -> Mask:
    return filters.allowed(stock.side, wanted.person, wanted.now, wanted.window)
