"""What the disk and SQLite themselves take of rows such as events, with and without an index by person, and what the log takes.

    python benchmarks/bench_insert.py [--rows 200000]

The bounds of writing: how often a second the disk makes a page durable, and how many plain rows SQLite inserts by their number in a
commit. The log beside them also checks who and what each event names, and keeps whose it is (`user_index`).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np

from palate import events, identities
from palate.database import opened, reading, writing
from palate.domain import Event, to_milliseconds

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
TOGETHER = 100
Rows = Sequence[tuple[object, ...]]
NAMES = '(id, "user", item, type, value, time, received)'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    count = parser.parse_args().rows
    rng = np.random.default_rng(1)
    pairs = zip(rng.integers(1, 10_000, count).tolist(), rng.integers(1, 5_000, count).tolist(), strict=True)
    rows = [(None, user, item, "viewed", 1.5, 1_795_377_600_000, 1_795_377_600_000) for user, item in pairs]
    print(f"{'a page made durable by fdatasync':45} {synced(1.0):9,.0f} a second", flush=True)
    ways = {"rows, index by (user, seq)": indexed, "rows alone": plain, "events into the log": logged}
    for name, way in ways.items():
        for size in (64, 500, 5_000):
            few = rows[: size * 400]
            print(f"{name:26} {size:6,} a commit {len(few) / way(few, size):14,.0f} a second", flush=True)
    for share in (10, 1):
        few = rows[::share]
        print(f"{f'the events of one person among {len(few):,}':45} {found(few) * 1e6:9,.0f} µs", flush=True)


def synced(seconds: float) -> float:
    with tempfile.NamedTemporaryFile() as file:
        done, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            done += 1
    return done / seconds


def indexed(rows: Rows, size: int) -> float:
    return inserted(rows, size, 'CREATE INDEX by_user ON events ("user", seq)')


def plain(rows: Rows, size: int) -> float:
    return inserted(rows, size, "SELECT 1")


def logged(rows: Rows, size: int) -> float:
    """Seconds that the log takes for as many events of as many people, who are all known."""
    given = [Event(user=f"user {row[1]}", item=f"item {row[2]}", type="viewed", value=1.5) for row in rows]
    keys, received = identities.WriterKeys(), to_milliseconds(NOW)
    with tempfile.TemporaryDirectory() as folder, opened(None, Path(folder)) as engine:
        with writing(engine) as connection:
            keys.users(connection, [event.user for event in given], NOW)
            keys.items(connection, [event.item for event in given], NOW)
        keys.kept()
        started = time.perf_counter()
        for first in range(0, len(given), size):
            part = given[first : first + size]
            with writing(engine) as connection:
                events.append_received(connection, events.in_columns(part), [received] * len(part), NOW, keys)
            keys.kept()
        return time.perf_counter() - started


def found(rows: Rows) -> float:
    """Median seconds to read what one person did, of people with 20 events each."""
    given = [Event(user=f"user {n % (len(rows) // 20)}", item="one", type="viewed") for n in range(len(rows))]
    seconds = []
    with tempfile.TemporaryDirectory() as folder, opened(None, Path(folder)) as engine:
        for first in range(0, len(given), 5_000):
            with writing(engine) as connection:
                events.append(connection, given[first : first + 5_000], NOW)
        with reading(engine) as connection:
            for user in range(1, 200):
                started = time.perf_counter()
                assert len(events.of_user(connection, [user], 0, user)) == 20
                seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def inserted(rows: Rows, size: int, before: str) -> float:
    """Seconds that it takes to make all rows durable, `size` a commit."""
    with tempfile.TemporaryDirectory() as folder, opened(None, Path(folder)) as engine:
        with writing(engine) as connection:
            connection.exec_driver_sql(before)
        started = time.perf_counter()
        for first in range(0, len(rows), size):
            with writing(engine) as connection:
                for start in range(first, min(first + size, len(rows)), TOGETHER):
                    several = rows[start : start + TOGETHER]
                    marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(several))
                    given = tuple(chain.from_iterable(several))
                    connection.exec_driver_sql(f"INSERT INTO events {NAMES} VALUES {marks}", given)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
