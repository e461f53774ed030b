"""Events as they are appended: runs of records by user, each small enough to be sorted at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.domain import EventColumns
from palate.errors import InvalidInput
from palate.machine_code import compiled
from palate.window import kernels
from palate.window.kernels import Records

CHUNK = 1 << 23
"""Events that are sorted together."""

MOST_KEYS = 2**32
LARGEST_VALUE = 65_504.0
"""Of a float16."""

SPAN = 1 << 24
"""Keys that lie within so many numbers, or are not much rarer than that, are told apart by a table."""


@dataclass(frozen=True, eq=False)
class Run:
    """Events that were appended together: by user, and of one user in the order of the log."""

    records: Records
    """(n, 2): see `kernels`."""
    users: NDArray[np.int64]
    """Keys, ascending."""
    starts: NDArray[np.int64]
    """(users + 1,): where each user's records begin."""
    items: NDArray[np.int64]
    """Keys, ascending."""

    def __len__(self) -> int:
        return len(self.records)


def packed(batches: Iterable[EventColumns], codes: dict[str, int]) -> Iterator[tuple[Records, int]]:
    """The events as records, at most CHUNK at a time, with the seq up to which they reach."""
    room, size, seq = np.empty((CHUNK, 2), np.uint64), 0, 0
    for batch in batches:
        records = _records(batch, codes)
        for start in range(0, len(records), CHUNK):
            part = records[start : start + CHUNK]
            if size + len(part) > CHUNK:
                yield room[:size].copy(), seq
                size = 0
            room[size : size + len(part)] = part
            size, seq = size + len(part), int(batch.seq[start + len(part) - 1])
    if size:
        yield room[:size].copy(), seq


def _records(batch: EventColumns, codes: dict[str, int]) -> Records:
    for keys, what in ((batch.user, "user"), (batch.item, "item")):
        if len(keys) and not 0 <= keys.min() <= keys.max() < MOST_KEYS:
            raise InvalidInput(
                f"a key of an {what} is beyond {MOST_KEYS - 1:,}, the last that the window of training holds"
            )
    code = np.array([codes.get(name, 0) for name in batch.types], np.uint64)[batch.type]
    known = np.isfinite(batch.value).any()  # most types have none, and the clipping takes time
    values = batch.value.clip(-LARGEST_VALUE, LARGEST_VALUE) if known else batch.value
    value = values.astype(np.float16).view(np.uint16).astype(np.uint64)
    time = (batch.time // 1000).clip(0, MOST_KEYS - 1).astype(np.uint64)
    records = np.empty((len(batch), 2), np.uint64)
    records[:, 0] = (batch.user.astype(np.uint64) << np.uint64(32)) | batch.item.astype(np.uint64)
    records[:, 1] = (time << np.uint64(32)) | (value << np.uint64(16)) | code
    return records


def make_run(records: Records) -> Run:
    """The records by user; changes the array."""
    bits = (int(records[:, 0].max(initial=0)) >> 32).bit_length()
    compiled(kernels.sort, records, np.empty_like(records), 32, bits)
    starts = np.empty(len(records) + 1, np.int64)
    items = records[:, 0] & np.uint64(MOST_KEYS - 1)
    low, high = int(items.min(initial=MOST_KEYS)), int(items.max(initial=0))
    seen = np.zeros(high - low + 1 if is_dense(low, high, len(records)) else 0, bool)
    starts = starts[: compiled(kernels.index, records, starts, low, seen) + 1].copy()
    starts[-1] = len(records)
    users = (records[starts[:-1], 0] >> np.uint64(32)).astype(np.int64)
    return Run(records, users, starts, np.flatnonzero(seen) + low if len(seen) else np.unique(items).astype(np.int64))


def with_runs(tail: tuple[Run, ...], runs: Sequence[Run]) -> tuple[Run, ...]:
    """With runs at the end. Short ones become one with those before: many small appendings are no many runs."""
    result = list(tail)
    for run in runs:
        while result and len(result[-1]) <= len(run) <= CHUNK - len(result[-1]):
            run = make_run(np.concatenate((result.pop().records, run.records)))
        result.append(run)
    return tuple(result)


def distinct(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The keys that occur, ascending."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return np.empty(0, np.int64)
    low, high = min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
    if not is_dense(low, high, sum(map(len, parts))):
        return np.unique(np.concatenate(parts))
    seen = np.zeros(high - low + 1, bool)
    for part in parts:
        seen[part - low] = True
    return np.flatnonzero(seen) + low


def is_dense(low: int, high: int, count: int) -> bool:
    """Whether a table from `low` to `high` is no waste for so many keys."""
    return 0 <= high - low <= max(SPAN, 8 * count)
