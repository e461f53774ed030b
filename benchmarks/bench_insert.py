"""What SQLite itself takes of rows such as events, by rows in a commit, with and without the index by person: the bound of batches.

python benchmarks/bench_insert.py [--rows 200000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from palate import database
from palate.database import connect, migrate, writing

TOGETHER = 100
NAMES = '(id, "user", item, type, value, time, received)'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    count = parser.parse_args().rows
    rng = np.random.default_rng(1)
    pairs = zip(rng.integers(1, 10_000, count).tolist(), rng.integers(1, 5_000, count).tolist(), strict=True)
    rows = [(None, user, item, "viewed", 1.5, 1_795_377_600_000, 1_795_377_600_000) for user, item in pairs]
    for indexed in (True, False):
        for size in (500, 5_000, 20_000):
            seconds = inserted(rows, size, indexed)
            print(f"{size:6,} a commit, index {indexed!s:5} {count / seconds:9,.0f} rows a second", flush=True)


def inserted(rows: Sequence[tuple[object, ...]], size: int, indexed: bool) -> float:
    """Seconds that it takes to make all rows durable, `size` a commit."""
    with tempfile.TemporaryDirectory() as folder:
        engine = connect(None, Path(folder))
        migrate(engine)
        with writing(engine) as connection:
            if not indexed:
                connection.execute(sa.text(f"DROP INDEX {next(iter(database.events.indexes)).name}"))
        started = time.perf_counter()
        for first in range(0, len(rows), size):
            with writing(engine) as connection:
                for start in range(first, min(first + size, len(rows)), TOGETHER):
                    several = rows[start : start + TOGETHER]
                    marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(several))
                    given = tuple(chain.from_iterable(several))
                    connection.exec_driver_sql(f"INSERT INTO events {NAMES} VALUES {marks}", given)
        seconds = time.perf_counter() - started
        engine.dispose()
        return seconds


if __name__ == "__main__":
    main()
