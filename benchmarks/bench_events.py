"""Durable appends per second, beside the limit of the disk: `python benchmarks/bench_events.py [--seconds 2]`.

The limit is a raw file: the same number of bytes appended, then fdatasync, on the same disk in the same run. The log also gives
every event its keys, remembers client ids and keeps an index, so its ratio is below 1. Then: how fast the log is read.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import sqlalchemy as sa

from palate import events, retention
from palate.database import connect, migrate, reading
from palate.domain import Event
from palate.group_commit import GroupCommit

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def made(start: int, count: int, ids: bool) -> list[Event]:
    return [
        Event(
            user=f"user-{n % 9973}",
            item=f"item-{n * 7 % 49_999}",
            type="viewed",
            value=1.0,
            id=f"client-{n}" if ids else None,
        )
        for n in range(start, start + count)
    ]


def rate(seconds: float, batch: int, step: Callable[[int], object]) -> float:
    """Events a second of `step`, called with the number of the first event of each batch."""
    begun, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begun) < seconds:
        step(done)
        done += batch
    return done / elapsed


def raw(folder: Path, seconds: float, batch: int) -> float:
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in made(0, batch, True))
    handle = os.open(folder / f"raw-{batch}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def step(_: int) -> None:
        os.write(handle, lines)
        os.fdatasync(handle)

    try:
        return rate(seconds, batch, step)
    finally:
        os.close(handle)


def grouped(commits: GroupCommit, seconds: float, batch: int, waiting: int, ids: bool, first: int) -> float:
    """`waiting` callers that each submit `batch` events and wait for them before the next."""
    open_: deque[Future[int]] = deque()

    def step(done: int) -> None:
        if len(open_) >= waiting:
            open_.popleft().result()
        open_.append(commits.submit(made(first + done, batch, ids), NOW))

    speed = rate(seconds, batch, step)
    for future in open_:
        future.result()
    return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure(Path(name), options.seconds)


def measure(folder: Path, seconds: float) -> None:
    engine = connect(None, folder)
    migrate(engine)
    commits = GroupCommit(engine)
    limits = {batch: raw(folder, seconds / 2, batch) for batch in (1, 64, 100, 500, 1000)}
    print(f"raw file, append + fdatasync of 1 event: {limits[1]:10,.0f} events/s")
    print(f"{'':44}{'log':>12}{'raw file':>12}{'ratio':>8}   (events/s)")
    first = 0
    for batch, waiting in ((1, 64), (100, 2), (500, 2), (1000, 2)):
        for ids in (False, True):
            speed = grouped(commits, seconds, batch, waiting, ids, first)
            first += 10_000_000
            limit = limits[64 if batch == 1 else batch]
            what = f"{waiting} callers, {batch} each, {'with' if ids else 'without'} client ids"
            print(f"{what:44}{speed:12,.0f}{limit:12,.0f}{speed / limit:8.3f}")
    commits.close()
    read(engine, folder / "events")
    engine.dispose()


def read(engine: sa.Engine, folder: Path) -> None:
    for state in ("unsealed", "sealed"):
        begun = time.perf_counter()
        columns = events.read_columns(engine, folder)
        elapsed = time.perf_counter() - begun
        print(f"{state + ' log read as columns':44}{len(columns) / elapsed:12,.0f}")
        if state == "unsealed":
            with reading(engine) as connection:
                last = events.last_seq(connection)
            begun = time.perf_counter()
            retention.seal(engine, folder, NOW + timedelta(days=1), last)
            print(f"{'sealing':44}{len(columns) / (time.perf_counter() - begun):12,.0f}")
    begun = time.perf_counter()
    count = sum(map(len, events.stream(engine, folder)))
    print(f"{'sealed log streamed as events':44}{count / (time.perf_counter() - begun):12,.0f}")


if __name__ == "__main__":
    main()
