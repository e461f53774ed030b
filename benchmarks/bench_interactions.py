"""A week of events, from the sealed log to published models: `python benchmarks/bench_interactions.py [--events 20_000_000]`.

The week is synthetic: users of log-normal activity, tens of thousands of new posts a day of which a power law is seen and the
freshest most, views, and likes that follow from a taste of eight dimensions. It is sealed through Palate's own format into a
temporary folder (`--folder` keeps it for the next run), which is not measured. Then the trainer's own cycles run on that data
folder, in this process: a full one, which loads the window and stops at the least loss on the newest hundredth, and incremental
ones of a million new events each, an hour apart. For the merge, polars takes its turn where it is installed. One user in 100
events, as at 2 million users and 200 million events a week.
"""

from __future__ import annotations

import os

os.environ.pop("OPENBLAS_CORETYPE", None)

import argparse
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, TypeVar
from unittest import mock

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import cycle, database, events, examples, lessons, pairs, publishing, retention, sealing, snapshots
from palate.cycle import Cycle, Memory, Params, TrainParams, run_cycle
from palate.database import connect, migrate, reading, writing
from palate.domain import EventColumns, to_milliseconds
from palate.examples import Kind
from palate.interactions import InteractionParams
from palate.matrix import Sparse
from palate.models import factorization_machine
from palate.models.factorization_machine import FactorizationMachineParams
from palate.window import resident
from palate.window.resident import appended, compacted, empty
from palate.window.view import view

MONDAY = datetime(2026, 3, 9, tzinfo=UTC)
DAY, DAYS = 86_400_000, 7
POSTS, FACTORS, NEW = 30_000, 8, 1_000_000
PARAMS = InteractionParams(rule="views", max_events_per_day=None)
TRAIN = TrainParams(window_days=DAYS, resident_events=1, max_old=2_000_000)
MODEL = FactorizationMachineParams(
    loss="logistic", learning_rate=0.1, epochs=6, patience=1, validation_share=0.01, partial_epochs=2
)
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Who reads what: U users, and posts that appear evenly over time, the first a day before the week."""

    users: NDArray[np.int64]
    """(2^22,) user keys, each as often as it reads."""
    tastes: NDArray[np.float32]
    leanings: NDArray[np.float32]
    appeal: NDArray[np.float32]
    """(all posts, FACTORS + 1): taste vector and bias."""
    appearances: NDArray[np.int64]
    """(2^16,) places among the posts of an hour, each as often as it is seen."""


def world(users: int) -> World:
    random = np.random.default_rng(1)
    activity = np.cumsum(random.lognormal(0, 1.2, users))
    table = np.searchsorted(activity, (np.arange(1 << 22) + 0.5) / (1 << 22) * activity[-1]) + 1
    posts = POSTS * (DAYS + 2)
    appeal = random.standard_normal((posts, FACTORS + 1), np.float32) * np.float32(0.7)
    hourly = POSTS // 24
    share = np.cumsum(1 / np.arange(1, hourly + 1) ** 0.8)
    seen = np.searchsorted(share, (np.arange(1 << 16) + 0.5) / (1 << 16) * share[-1])
    tastes = random.standard_normal((users + 1, FACTORS), np.float32) * np.float32(0.7)
    return World(table, tastes, random.standard_normal(users + 1).astype(np.float32) * np.float32(0.8), appeal, seen)


def made(known: World, start: int, end: int, count: int, first_seq: int) -> EventColumns:
    """Events between two milliseconds of the week: views, and a like right after about every fourth."""
    random = np.random.default_rng([2, first_seq])
    views = count * 4 // 5
    when = np.sort(random.integers(start, end, views))
    user = known.users[random.integers(0, len(known.users), views)]
    age = np.minimum(random.exponential(8 * 3_600_000, views), DAY).astype(np.int64)  # a post of the last hours
    hour = (when - age + DAY) // 3_600_000
    item = hour * (POSTS // 24) + known.appearances[random.integers(0, len(known.appearances), views)]
    raw = np.einsum("nf,nf->n", known.tastes[user], known.appeal[item, :FACTORS]) + known.appeal[item, FACTORS]
    liked = random.random(views, np.float32) < 1 / (1 + np.exp(1.6 - raw - known.leanings[user]))
    place = np.sort(np.concatenate((np.arange(views), np.flatnonzero(liked))))
    like = np.concatenate(([False], place[1:] == place[:-1]))
    base = to_milliseconds(MONDAY)
    return EventColumns(
        seq=np.arange(first_seq, first_seq + len(place)),
        user=user[place].astype(np.int64),
        item=item[place].astype(np.int64) + 1,
        type=like.astype(np.uint16),
        value=np.full(len(place), np.nan, np.float32),
        time=when[place] + base + like * 3_000,
        types=("viewed", "like"),
    )


# the log


def sealed(engine: sa.Engine, folder: Path, known: World, count: int) -> None:
    """Seal a week of about `count` events, as many threads as there are processors making parts."""
    parts = max(DAYS, -(-count // retention.PART)) // DAYS * DAYS
    size, span = count // parts, DAYS * DAY // parts

    def seal(part: int) -> dict[str, Any]:
        columns = made(known, part * span, (part + 1) * span, size, part * 2 * size + 1)
        day = (MONDAY + timedelta(milliseconds=part * span)).date().isoformat()
        path = sealing.new_path(day, int(columns.seq[0]))
        rows = sealing.write_tables(folder, path, [table(columns)])
        return {
            "path": path,
            "day": day,
            "first_seq": int(columns.seq[0]),
            "last_seq": int(columns.seq[-1]),
            "rows": rows,
        }

    with ThreadPoolExecutor(os.cpu_count()) as pool, writing(engine) as connection:
        connection.execute(sa.insert(database.sealed), list(pool.map(seal, range(parts))))


def table(columns: EventColumns) -> pa.Table:
    own = {
        "user": pc.cast(pa.array(columns.user), pa.string()),
        "item": pc.cast(pa.array(columns.item), pa.string()),
        "type": pa.array(columns.types).take(pa.array(columns.type)),
        "time": pa.array(columns.time),
        "seq": pa.array(columns.seq),
        "user_key": pa.array(columns.user),
        "item_key": pa.array(columns.item),
        "received": pa.array(columns.time),
    }
    schema = sealing.arrow_schema()
    return pa.table([own.get(field.name, pa.nulls(len(columns), field.type)) for field in schema], schema)


def add_unsealed(engine: sa.Engine, columns: EventColumns) -> None:
    names = [column.name for column in database.events.c]
    given = {
        "user": columns.user,
        "item": columns.item,
        "time": columns.time,
        "received": columns.time,
        "seq": columns.seq,
    }
    lists: dict[str, list[Any]] = {name: values.tolist() for name, values in given.items()}
    lists["type"] = [columns.types[code] for code in columns.type]
    rows = zip(*(lists.get(name, [None] * len(columns)) for name in names), strict=True)
    with writing(engine) as connection:
        quoted = ", ".join(f'"{name}"' for name in names)
        connection.exec_driver_sql(f"INSERT INTO events ({quoted}) VALUES ({', '.join('?' * len(names))})", list(rows))


# measuring


class Peak:
    """The most memory that the process held, since it was last asked."""

    def __init__(self) -> None:
        self._most = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, rss())
            time.sleep(0.05)

    def take(self) -> float:
        most, self._most = max(self._most, rss()), rss()
        return most / 2**30


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Seconds(float):
    """By the clock; and of the processors, which tells what a busy machine would need when it has nothing else to do."""

    cpu: float


def timed(run: Callable[[], T]) -> tuple[Seconds, T]:
    start, cpu = time.perf_counter(), time.process_time()
    result = run()
    seconds = Seconds(time.perf_counter() - start)
    seconds.cpu = time.process_time() - cpu
    return seconds, result


def say(what: str, seconds: Seconds, peak: Peak, more: str = "") -> None:
    print(f"{what:58}{seconds:8.2f} s {seconds.cpu:8.2f} CPU s   peak {peak.take():5.2f} GiB   {more}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--cycles", type=int, default=3, help="incremental ones")
    parser.add_argument(
        "--old", type=int, default=TRAIN.max_old, help="old examples that each of them learns once more"
    )
    parser.add_argument("--new", type=int, default=NEW, help="events before each of them")
    parser.add_argument("--folder", type=Path, help="keeps the week for the next run with as many events")
    parser.add_argument("--only", choices=["seal", "train", "merge"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        known = world(max(1000, options.events // 100))
        engine = connect(None, folder)
        if not (folder / "events").exists():
            migrate(engine)
            seconds, _ = timed(lambda: sealed(engine, folder / "events", known, options.events))
            add_catalog(engine, len(known.tastes) - 1, len(known.appeal))
            print(f"made and sealed in {seconds:.0f} s")
        if options.only in (None, "train"):
            train = msgspec.structs.replace(TRAIN, max_old=options.old)
            params = Params(train=train, interactions=PARAMS, factorization_machine=MODEL)
            warm_up(params)
            measure(engine, folder, known, params, options.cycles, options.new)
        if options.only in (None, "merge"):
            append_often(known, Peak())
            against_polars(known, len(os.sched_getaffinity(0)))
        engine.dispose()


def measure(engine: sa.Engine, folder: Path, known: World, params: Params, cycles: int, new: int) -> None:
    """One full cycle and some incremental ones; what they add to the folder is taken out again."""
    memory, peak, end = Memory(), Peak(), MONDAY + timedelta(days=DAYS)
    shutil.rmtree(folder / "snapshots", ignore_errors=True)
    try:
        report(peak, lambda: run_cycle(engine, folder, params, end, memory=memory))
        assert memory.window is not None
        size = len(memory.window)
        print(f"{size:,} events in {memory.window.sorted.nbytes / size:.1f} bytes each, without labels", flush=True)
        for hour in range(cycles):
            with reading(engine) as connection:
                first = events.last_seq(connection) + 1
            start = DAYS * DAY + hour * 3_600_000
            add_unsealed(engine, made(known, start, start + 3_600_000, new, first))
            now = end + timedelta(hours=hour + 1)
            report(peak, lambda now=now: run_cycle(engine, folder, params, now, kind="incremental", memory=memory))
    finally:
        with writing(engine) as connection:
            connection.execute(sa.delete(database.events))
            connection.execute(sa.delete(database.cycles))


def report(peak: Peak, run: Callable[[], Cycle]) -> None:
    """Run a cycle, and say how long it and its stages took."""
    peak.take()
    seconds, cycle = timed(lambda: staged(run, peak))
    say(f"{cycle.kind} cycle, {cycle.examples:,} examples", seconds, peak, cycle.summary())


def staged(run: Callable[[], Cycle], peak: Peak) -> Cycle:
    """What `run` gives, with the time that each stage takes in it said as it ends."""
    with ExitStack() as patched:
        for module, name in STAGES:
            patched.enter_context(mock.patch.object(module, name, watched(name, getattr(module, name), peak)))
        return run()


STAGES: list[tuple[Any, str]] = [
    (cycle, "_last_models"),
    (resident, "appended"),
    (resident, "followed"),
    (examples, "_look"),
    (cycle, "read"),
    (lessons, "held_out"),
    (factorization_machine, "fit_rows"),
    (factorization_machine, "partial_fit_rows"),
    (lessons, "learn"),
    (publishing, "_popularity"),
    (publishing, "_arrays"),
    (publishing, "_histories"),
    (snapshots, "publish"),
    (cycle, "publish"),
    (cycle, "_tidy"),
]


def watched(name: str, function: Callable[..., Any], peak: Peak) -> Callable[..., Any]:
    def run(*given: Any, **named: Any) -> Any:
        seconds, result = timed(lambda: function(*given, **named))
        say(f"    {name.strip('_')}", seconds, peak)
        return result

    return run


def warm_up(params: Params) -> None:
    """Compile, so that it isn't measured: a process keeps what it has compiled, and a machine keeps it on disk."""
    known = world(1000)
    with tempfile.TemporaryDirectory() as name:
        engine, folder, memory = connect(None, Path(name)), Path(name), Memory()
        migrate(engine)
        add_catalog(engine, len(known.tastes) - 1, len(known.appeal))
        kinds: tuple[Kind, ...] = ("full", "incremental")
        for day, kind in enumerate(kinds):
            add_unsealed(engine, made(known, day * DAY, (day + 1) * DAY, 100_000, 10**6 * (day + 1)))
            run_cycle(engine, folder, params, MONDAY + timedelta(days=day + 1), kind=kind, memory=memory)
        engine.dispose()


def add_catalog(engine: sa.Engine, users: int, items: int) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql(
            "INSERT INTO users (\"key\", id, labels, choices, created) VALUES (?, ?, '{}', '{}', 0)",
            [(key, f"u{key}") for key in range(1, users + 1)],
        )
        connection.exec_driver_sql(
            'INSERT INTO items ("key", id, state, received, updated, kind, media, labels) '
            "VALUES (?, ?, 'live', 0, 0, 'post', '[]', '[]')",
            [(key, f"i{key}") for key in range(1, items + 1)],
        )


def append_often(known: World, peak: Peak) -> None:
    """Appending while nobody sorts: 1,000 batches of 1,000 events, each of which makes a new window."""
    columns = made(known, 0, DAY, NEW, 1)
    parts = list(pieces(columns, 1000))
    window = empty(PARAMS)

    def run() -> None:
        nonlocal window
        for part in parts:
            window = appended(window, [part])

    seconds, _ = timed(run)
    say("append in batches of 1,000", seconds, peak, f"{len(columns) / seconds / 1e6:.2f} M events/s")


def pieces(columns: EventColumns, size: int) -> Iterator[EventColumns]:
    for start in range(0, len(columns), size):
        yield EventColumns(
            *(
                getattr(columns, name)[start : start + size]
                for name in ("seq", "user", "item", "type", "value", "time")
            ),
            columns.types,
        )


def against_polars(known: World, threads: int) -> None:
    """The same merge of 5 million events in memory: the newest label, time and count of each pair, sorted by user and item."""
    try:
        import polars as pl
    except ImportError:
        print("polars is not installed: no comparison of the merge")
        return
    columns = made(known, 0, DAY, 5_000_000, 1)
    frame = pl.DataFrame({"user": columns.user, "item": columns.item, "liked": columns.type, "time": columns.time})

    def ours() -> Sparse:
        window = compacted(appended(empty(PARAMS), pieces(columns, 50_000)), threads=threads)
        found = pairs.of_view(view(window, threads=threads))
        return found.labels(found.labelled(found.kept))

    def theirs() -> Any:
        merged = frame.group_by("user", "item").agg(pl.col("liked").max(), pl.col("time").max())
        return merged.sort("user", "item")

    runs = [(timed(ours)[0], timed(theirs)[0]) for _ in range(5)]
    our, their = (median(column) for column in zip(*runs, strict=True))
    ratio = median(b / a for a, b in runs)
    print(
        f"merge of {len(columns):,} events: {our:.2f} s, polars {their:.2f} s, ratio {ratio:.2f} (5 runs in turn, medians)"
    )


if __name__ == "__main__":
    main()
