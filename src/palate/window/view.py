"""What the events of a window say of each pair, as models take it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.machine_code import compiled
from palate.places import Some, places
from palate.vocabulary import Vocabulary
from palate.window import kernels
from palate.window.meaning import halves, rules_of
from palate.window.resident import Window
from palate.window.runs import MOST_KEYS
from palate.window.sorting import picked, with_spare
from palate.window.threads import by_users


@dataclass(frozen=True, eq=False)
class View:
    """What the events of a compacted window say of each pair, as models take it; nothing here changes any more.

    Arrays of (P,) have a place for each pair of the window, also for those of people who are left out.
    """

    window: Window
    users: Vocabulary
    """Without those who are left out."""
    items: Vocabulary
    kept: NDArray[np.bool_]
    """Which users of the window are in `users`."""
    rating_range: tuple[float, float] | None
    threads: int

    def labels_and_times(self) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        """(P,) label of each pair, NaN for none, and the second since 1970 of what decided it, or else of its newest event."""
        params, size = self.window.params, len(self.window.sorted.columns)
        found = with_spare(size, np.float32), with_spare(size, np.uint32)
        lowest, highest = (np.nan, np.nan) if self.rating_range is None else self.rating_range
        self._run(kernels.label, rules_of(params), params.rule == "votes", float(lowest), float(highest), *found)
        return found

    def weights(self) -> NDArray[np.float32]:
        """(P,) weight of each pair."""
        weights = np.empty(len(self.window.sorted.columns), np.float32)
        self._run(kernels.weigh, rules_of(self.window.params), weights)
        return weights

    def only(self, which: Some) -> View:
        """Of these pairs alone."""
        content = picked(self.window.sorted, places(which), self.threads)
        return replace(self, window=replace(self.window, sorted=content))

    def touched(self) -> Some:
        """The pairs that have had an event since `learned`."""
        content, unlearned = self.window.sorted, self.window.unlearned
        if unlearned is None:
            return np.ones(len(content.columns), bool)
        found = [np.empty(0, np.int64)]
        for pairs in unlearned:
            users = content.users.rows((pairs >> np.uint64(32)).astype(np.int64))
            items = content.items.rows((pairs & np.uint64(MOST_KEYS - 1)).astype(np.int64))
            found.append(np.empty(len(pairs), np.int64))
            compiled(kernels.find, users, items, content.pairs, content.columns, found[-1])
        every = np.sort(np.concatenate(found))  # np.unique's table of them takes twenty times as long
        news: NDArray[np.int64] = every[(every >= 0) & np.append(True, every[1:] > every[:-1])[: len(every)]]
        return news

    def _run(self, kernel: Callable[..., None], *rest: Any) -> None:
        content = self.window.sorted
        arrays = content.pairs, content.events, content.times, content.codes, content.values, halves()
        by_users(content.events, self.threads, lambda first, last: (kernel, first, last, *arrays, *rest))


def view(window: Window, leave_out: Collection[int] = frozenset(), threads: int = 1) -> View:
    """What a compacted window says, without the people `leave_out` (keys) and accounts with too many events on one day."""
    assert not window.tail, "A window is compacted before it is looked at."
    content = window.sorted
    kept = ~content.hyperactive
    left_out = content.users.rows(np.fromiter(leave_out, np.int64))
    kept[left_out[left_out >= 0]] = False
    bounds = window.params.rating_range
    if bounds is None and (content.low[kept] <= content.high[kept]).any():
        bounds = float(content.low[kept].min()), float(content.high[kept].max())
    users = content.users if kept.all() else Vocabulary(content.users.keys[kept])
    return View(window, users, content.items, kept, bounds, threads)
