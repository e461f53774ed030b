"""The threads in which one process answers what waits for the database or computes a feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from palate.errors import Overloaded

T = TypeVar("T")


class Threads:
    """So many threads, before which at most so many calls wait; all calls come from one event loop.

    What comes beside them is sent away at once: a queue that grows while calls come faster than they are answered makes all of
    them wait longer than anybody does, and takes memory.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._most = threads + waiting
        self._inside = 0

    async def run(self, function: Callable[[], T]) -> T:
        """What the function returns, or raises. Raises Overloaded when too many wait."""
        if self._inside >= self._most:
            raise Overloaded(f"{self._inside} requests are being answered already: try again in a second.")
        self._inside += 1
        try:
            return await anyio.to_thread.run_sync(function, limiter=self._limiter)
        finally:
            self._inside -= 1
