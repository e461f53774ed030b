"""What is found out once about the items of a pool that stays for long: who is first, who belongs together, who may be shown."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from palate import scanning
from palate.pool import NO_DATE, Pool
from palate.scanning import Listed

Rows = NDArray[np.int32]
Bits = NDArray[np.uint8]
"""A bit for each row of a pool, the lowest of a byte first."""

BEST = 1_000
"""Items that are lifted most, which are always looked at."""

PARTS = 64
"""Filters that are remembered for one pool."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows of a pool, group by group, those of one group in the order in which they are worth looking at."""

    rows: Rows
    offsets: NDArray[np.int64]
    """(groups + 1,): group g has `rows[offsets[g]:offsets[g + 1]]`."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, group: int) -> Rows:
        """All rows of a group."""
        return self.rows[self.offsets[group] : self.offsets[group + 1]]


def grouped(order: Rows, group: NDArray[np.integer], count: int) -> Groups:
    """The rows of an order by their group (n,); what has a group below 0 is in none."""
    groups = group[order]
    told = np.flatnonzero(groups >= 0)
    rows = order[told[np.argsort(groups[told], kind="stable")]]
    sizes = np.bincount(groups[told], minlength=count)
    return Groups(rows, np.concatenate(([0], np.cumsum(sizes))).astype(np.int64))


class Orders:
    """Of one pool; each is made when it is first asked for."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parts: OrderedDict[Hashable, Bits] = OrderedDict()
        self._little: tuple[float, Rows] | None = None
        self._lock = threading.Lock()

    @cached_property
    def popular(self) -> Rows:
        """All rows, those first that everybody likes most; of equals the newer."""
        return _descending(self._pool.popularity)

    @cached_property
    def trending(self) -> Rows:
        """All rows that are liked more than the mean, those first that lately most people liked."""
        pool = self._pool
        worth = pool.evidence * (pool.popularity - np.float32(pool.model.prior))
        order = _descending(worth)
        return order[: int(np.count_nonzero(worth > 0))]

    @cached_property
    def newest(self) -> Rows:
        """All rows, the newest first; undated ones count from when they came to us."""
        pool = self._pool
        times = np.where(pool.published == NO_DATE, pool.received, pool.published)
        return _descending(times)

    @cached_property
    def by_bias(self) -> Rows:
        """The `BEST` rows whose items the model itself lifts most for everybody."""
        return _descending(self._pool.bias)[:BEST].copy()

    @cached_property
    def listed(self) -> Listed | None:
        """The model's index with what a scan reads of its items; None where there is no inverted file."""
        space = self._pool.space
        if space is None or not space.index.cluster_count:
            return None
        return scanning.listed(self._pool, space.index, space.rows)

    def little_known(self, evidence: float) -> Rows:
        """Rows with less evidence than this, the newest first; remembered for one number."""
        with self._lock:
            known = self._little
        if known is None or known[0] != evidence:
            known = evidence, self.newest[self._pool.evidence[self.newest] < evidence]
            with self._lock:
                self._little = known
        return known[1]

    @cached_property
    def by_source(self) -> Groups:
        """By popularity, like all groups but the next."""
        return grouped(self.popular, self._pool.source, len(self._pool.sources))

    @cached_property
    def by_source_newest(self) -> Groups:
        """The newest of each source first."""
        return grouped(self.newest, self._pool.source, len(self._pool.sources))

    @cached_property
    def by_category(self) -> Groups:
        """By number of the category."""
        return grouped(self.popular, self._pool.category, len(self._pool.categories))

    @cached_property
    def by_label(self) -> Groups:
        """By number of the label."""
        return self._labelled(self.popular)

    @cached_property
    def by_label_newest(self) -> Groups:
        """The newest with each label first."""
        return self._labelled(self.newest)

    def _labelled(self, rows: Rows) -> Groups:
        pool = self._pool
        rank = np.empty(len(pool), np.int32)
        rank[rows] = np.arange(len(pool), dtype=np.int32)
        owner = np.repeat(np.arange(len(pool), dtype=np.int32), np.diff(pool.label_offsets))
        order = np.argsort(rank[owner], kind="stable")
        entries = grouped(order.astype(np.int32), pool.labels, len(pool.label_names))
        return Groups(owner[entries.rows], entries.offsets)

    @cached_property
    def by_cluster(self) -> Groups:
        """By the cluster of the model's index; no groups where there is none."""
        space = self._pool.space
        cluster = np.full(len(self._pool), -1, np.int32)
        if space is None:
            return grouped(self.popular, cluster, 0)
        clusters = space.index.clusters()
        known = space.rows >= 0
        cluster[space.rows[known]] = clusters[known]
        return grouped(self.popular, cluster, space.index.cluster_count)

    @cached_property
    def stories(self) -> tuple[NDArray[np.int64], Rows]:
        """Stories (ascending keys), and beside each a row of it; a story is there once for each of its items."""
        told = np.flatnonzero(self._pool.story >= 0)
        order = told[np.argsort(self._pool.story[told], kind="stable")]
        return self._pool.story[order], order.astype(np.int32)

    def of_stories(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of all items of these stories."""
        known, rows = self.stories
        starts, ends = np.searchsorted(known, keys, "left"), np.searchsorted(known, keys, "right")
        counts = ends - starts
        places = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        found: NDArray[np.int64] = rows[places].astype(np.int64)
        return found

    @cached_property
    def unindexed(self) -> Rows:
        """Rows that the model's index doesn't have, the newest first."""
        if self._pool.space is None:
            return self.newest[:0]
        inside = np.zeros(len(self._pool), bool)
        rows = self._pool.space.rows
        inside[rows[rows >= 0]] = True
        return self.newest[~inside[self.newest]]

    def part(self, key: Hashable, make: Callable[[Pool], NDArray[np.bool_]]) -> Bits:
        """The bits of the mask that `make` finds for the pool; remembered by this key."""
        with self._lock:
            found = self._parts.get(key)
            if found is not None:
                self._parts.move_to_end(key)
                return found
        found = packed(make(self._pool))
        with self._lock:
            self._parts[key] = found
            while len(self._parts) > PARTS:
                self._parts.popitem(last=False)
        return found

    def prepare(self) -> None:
        """Find out everything now, so that no request has to wait for it."""
        for name in (
            "popular",
            "trending",
            "newest",
            "by_source",
            "by_source_newest",
            "by_category",
            "by_label",
            "by_label_newest",
            "by_cluster",
            "stories",
            "unindexed",
            "by_bias",
            "listed",
        ):
            getattr(self, name)
        if self.listed is not None:
            scanning.prepare()


def packed(mask: NDArray[np.bool_]) -> Bits:
    """The bits of a mask, as many bytes as make whole words of 8."""
    bits = np.zeros(-(-len(mask) // 64) * 8, np.uint8)
    bits[: -(-len(mask) // 8)] = np.packbits(mask, bitorder="little")
    return bits


def _descending(values: NDArray[np.float32] | NDArray[np.int64]) -> Rows:
    """Rows by falling values, of equals the later first."""
    return np.argsort(values, kind="stable")[::-1].astype(np.int32)
