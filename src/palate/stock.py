"""The items that may be served where there are very many: nearly all stay as they are, few came or changed since.

What costs a look at every item is found out about those that stay, once; what came since is small enough to be looked at whole at
each request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from palate.orders import Orders
from palate.pool import CatalogRow, Pool, joined, of_keys, settled, take, with_changes, with_model, with_snapshot
from palate.pool_model import Strangers
from palate.snapshots import Snapshot
from palate.spaces import Spaces

SPLIT = 20_000
"""Items from which on what comes is kept beside the others."""

SIDE = 4_000
"""Items that came or went, at which those that are left are joined."""

Keys = NDArray[np.int64]
Told = Callable[[Keys], Strangers | None]
"""What is known of those items that the snapshot doesn't know."""


@dataclass(frozen=True, eq=False)
class Stock:
    """Servable items: `base` without those `gone`, and `side`. Rows below len(base) are of the base, others of the side."""

    base: Pool
    side: Pool
    gone: NDArray[np.int64]
    """Rows of the base, ascending, whose items changed or aren't served any more."""
    orders: Orders
    """Of the base."""
    spaces: Spaces | None = None
    """In which its items are near each other, by texts and behaviour; None before the first snapshot."""

    def __len__(self) -> int:
        return len(self.base) - len(self.gone) + len(self.side)

    def rows(self, keys: Keys) -> NDArray[np.int64]:
        """Row of each item, −1 for those that can't be served."""
        if not len(self.side) and not len(self.gone):
            return self.base.rows(keys)
        below, beside = self.base.rows(keys), self.side.rows(keys)
        below = np.where(np.isin(below, self.gone), -1, below)
        return np.where(beside >= 0, beside + len(self.base), below)

    def keys(self, rows: NDArray[np.int64]) -> Keys:
        """Keys of the items of these rows."""
        below = rows < len(self.base)
        result = np.empty(len(rows), np.int64)
        result[below] = self.base.keys[rows[below]]
        result[~below] = self.side.keys[rows[~below] - len(self.base)]
        return result

    def take(self, rows: NDArray[np.int64]) -> Pool:
        """The items of these rows, sorted by key."""
        below, beside = np.sort(rows[rows < len(self.base)]), np.sort(rows[rows >= len(self.base)]) - len(self.base)
        found = take(self.base, below)
        return joined(found, take(self.side, beside)) if len(beside) else found

    def of_keys(self, keys: Keys, snapshot: Snapshot | None) -> Pool:
        """These items, in this order and as often as they are named. Of those that aren't here only the model's part is known."""
        rows = self.rows(keys)
        return of_keys(self.take(np.unique(rows[rows >= 0])), keys, snapshot)

    def stories_of(self, keys: Keys) -> NDArray[np.int64]:
        """Keys of the stories of these items."""
        rows = self.rows(keys)
        below = self.base.story[rows[(rows >= 0) & (rows < len(self.base))]]
        beside = self.side.story[rows[rows >= len(self.base)] - len(self.base)]
        told = np.concatenate((below, beside))
        return np.unique(told[told >= 0])

    def of_stories(self, stories: Keys) -> NDArray[np.int64]:
        """Rows of all items of these stories (keys)."""
        if not len(stories):
            return np.zeros(0, np.int64)
        below = self.orders.of_stories(stories)
        if len(self.gone):
            below = below[~np.isin(below, self.gone)]
        beside = np.flatnonzero(np.isin(self.side.story, stories)) + len(self.base)
        return np.concatenate((below, beside))

    @cached_property
    def whole(self) -> Pool:
        """All items in one pool: as it was before it was split, at the price of a copy."""
        if not len(self.side) and not len(self.gone):
            return self.base
        kept = np.ones(len(self.base), bool)
        kept[self.gone] = False
        return settled(joined(take(self.base, np.flatnonzero(kept)), self.side))


def stock(pool: Pool) -> Stock:
    """These items, all of which stay."""
    return Stock(pool, take(pool, np.zeros(0, np.int64)), np.zeros(0, np.int64), Orders(pool))


def as_known(items: Stock, snapshot: Snapshot, served: str, told: Told) -> Stock:
    """The same items as this snapshot knows them, by the model named; all of them stay from now on."""
    pool = items.whole
    return stock(with_snapshot(pool, snapshot, served, told(pool.keys)))


def changed(
    items: Stock, rows: Sequence[CatalogRow], snapshot: Snapshot | None, told: Told, split: int = SPLIT
) -> Stock:
    """The items after these rows of the catalog: live ones are among them as they are now, all others are not."""
    if not rows:
        return items
    live = np.array([row.key for row in rows if row.state == "live"], np.int64)
    if len(items.base) < split or len(items.side) + len(items.gone) + len(rows) > SIDE:
        return stock(with_changes(items.whole, rows, snapshot, told(live)))
    places = items.base.rows(np.array([row.key for row in rows], np.int64))
    side = with_changes(items.side, rows, snapshot, told(live))
    return replace(items, side=side, gone=np.union1d(items.gone, places[places >= 0]))


def like(items: Stock, before: Stock | None, snapshot: Snapshot, served: str, told: Told) -> Stock:
    """The same items by another model of the same snapshot; `before` are those that it knew, of which what stays is kept."""
    if before is None or before.base.keys is not items.base.keys:
        base = with_snapshot(items.base, snapshot, served, told(items.base.keys))
        before = Stock(base, take(base, np.zeros(0, np.int64)), items.gone, Orders(base))
    side = with_model(items.side, before.base.model, snapshot, told(items.side.keys))
    return replace(before, side=side, gone=items.gone, spaces=items.spaces)


def prepare(items: Stock, split: int = SPLIT) -> None:
    """Where there are very many items, find out now what requests would else have to wait for."""
    if len(items.base) >= split:
        items.orders.prepare()
        items.base.pieces, items.base.vocabulary.places  # noqa: B018 - kept once they are asked for
