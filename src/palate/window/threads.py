"""Kernels that work on ranges of users, some of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.machine_code import compiled


def offsets_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))


def by_users(events: NDArray[np.int64], threads: int, call: Callable[[int, int], tuple[Any, ...]]) -> None:
    """Run the calls of kernels that `call` makes for ranges of users with about as many events each."""
    parts = 1 if threads == 1 else 8 * threads
    bounds = np.searchsorted(events, np.linspace(0, events[-1], parts + 1))
    bounds[-1] = len(events) - 1
    in_threads(lambda part: compiled(*call(int(bounds[part]), int(bounds[part + 1]))), range(parts), threads)


def in_threads(work: Callable[[int], object], parts: Sequence[int], threads: int) -> None:
    if threads == 1 or len(parts) < 2:
        for part in parts:
            work(part)
        return
    work(parts[0])  # alone: numba compiles here, once
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, parts[1:]):
            pass
