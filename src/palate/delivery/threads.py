"""The threads in which one process answers what waits for the database or computes a feed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from palate.errors import Overloaded

T = TypeVar("T")

gone: ContextVar[Callable[[], bool]] = ContextVar("gone", default=lambda: False)
"""Tells whether the client of the request that is being answered has gone."""

NEWEST = 0.1
"""The weight of the newest call in the mean of the seconds that calls take."""


class Threads:
    """So many threads, before which at most so many calls wait; all calls come from one event loop.

    Whoever would wait longer than `longest_wait` seconds, by what calls took lately, is sent away at once: a queue that grows
    while calls come faster than they are answered makes all of them wait longer than anybody does. Nothing is computed for those
    who waited longer all the same, nor for those who have gone. What is short goes `beside` all this, by a thread of its own.
    """

    def __init__(
        self, threads: int, waiting: int, longest_wait: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limiter, self._beside = anyio.CapacityLimiter(threads), anyio.CapacityLimiter(1)
        self._threads = threads
        self._waiting = waiting
        self._longest_wait = longest_wait
        self._clock = clock
        self._inside = 0
        self._mean = 0.0

    async def run(self, function: Callable[[], T]) -> T:
        """What the function returns, or raises. Raises Overloaded when too many wait, or too long."""
        before = self._inside + 1 - self._threads
        """Calls that have to end before this one begins."""
        if before > self._waiting or (before > 0 and before * self._mean > self._longest_wait * self._threads):
            raise _overloaded(f"{self._inside} requests are being answered already")
        self._inside += 1
        try:
            return await anyio.to_thread.run_sync(partial(self._begin, function, self._clock()), limiter=self._limiter)
        finally:
            self._inside -= 1

    async def beside(self, function: Callable[[], T]) -> T:
        """What the function returns, or raises, however many calls wait."""
        return await anyio.to_thread.run_sync(function, limiter=self._beside)

    def _begin(self, function: Callable[[], T], came: float) -> T:
        """In a thread, when it is this call's turn."""
        begun = self._clock()
        if begun - came > self._longest_wait or gone.get()():
            raise _overloaded("the request waited too long")
        try:
            return function()
        finally:
            took = min(
                self._clock() - begun, self._longest_wait
            )  # one call that takes very long says little of the next
            self._mean += NEWEST * (took - self._mean)


def _overloaded(why: str) -> Overloaded:
    return Overloaded(f"{why[0].upper()}{why[1:]}: try again in a second.")
