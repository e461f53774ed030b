"""A week of events in memory, from the sealed log to a trained model: `python benchmarks/bench_interactions.py [--events 20_000_000]`.

The week is synthetic: users of log-normal activity, tens of thousands of new posts a day of which a power law is seen and the
freshest most, views, and likes that follow from a taste of eight dimensions. It is sealed through Palate's own format into a
temporary folder (`--folder` keeps it for the next run), which is not measured. Then: load, sort and merge, appending, full
training to the least loss on the newest hundredth, and a cycle of a million new events. For the merge, polars takes its turn
where it is installed. One user in 100 events, as at 2 million users and 200 million events a week.
"""

from __future__ import annotations

import os

os.environ.pop("OPENBLAS_CORETYPE", None)

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, events, sealing
from palate.database import connect, migrate, writing
from palate.domain import EventColumns, to_milliseconds
from palate.interactions import InteractionParams
from palate.matrix import Sparse
from palate.models import factorization_machine as fm
from palate.models.factorization_machine import FactorizationMachineParams
from palate.vocabulary import Vocabulary
from palate.window.resident import Window, appended, compacted, empty, learned
from palate.window.view import View, view

MONDAY = datetime(2026, 3, 9, tzinfo=UTC)
DAY, DAYS = 86_400_000, 7
POSTS, FACTORS, NEW = 30_000, 8, 1_000_000
PARAMS = InteractionParams(rule="views", max_events_per_day=None)
MODEL = FactorizationMachineParams(loss="logistic", learning_rate=0.1, epochs=6, patience=1, partial_epochs=2)
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
    parts = max(DAYS, -(-count // events.PART)) // DAYS * DAYS
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
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="keeps the week for the next run with as many events")
    parser.add_argument("--only", choices=["seal", "data"], help="make the week and stop; or leave training out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        known = world(max(1000, options.events // 100))
        engine = connect(None, folder)
        if not (folder / "events").exists():
            migrate(engine)
            seconds, _ = timed(lambda: sealed(engine, folder / "events", known, options.events))
            print(f"made and sealed in {seconds:.0f} s")
        if options.only != "seal":
            measure(engine, folder, known, options.threads, options.only != "data")
        engine.dispose()


def measure(engine: sa.Engine, folder: Path, known: World, threads: int, train: bool) -> None:
    warm_up(known, threads)
    peak = Peak()
    begun = time.perf_counter(), time.process_time()
    seconds, window = timed(lambda: appended(empty(PARAMS), events.batches(engine, folder / "events")))
    size = len(window)
    print(f"{size:,} events on {threads} threads")
    say("load from sealed Parquet", seconds, peak, f"{size / seconds / 1e6:.1f} M events/s")
    seconds, window = timed(lambda: compacted(window, threads=threads))
    say("sort by (user, item)", seconds, peak, f"{size / seconds / 1e6:.1f} M events/s")
    found = view(window, threads=threads)
    seconds, labels = timed(found.labels)
    resident = (window.sorted.nbytes + labels.values.nbytes) / size
    pairs = len(labels.columns)
    say("merge: labels", seconds, peak, f"{pairs / size:.2f} pairs an event; {resident:.1f} bytes an event with labels")
    seconds, times = timed(found.times)
    say("times of pairs", seconds, peak)
    seconds, weights = timed(found.weights)
    say("weights of pairs", seconds, peak)
    del weights
    if train:
        del labels
        model = trained(found, times, begun, peak)
        del times, found
        cycle(engine, folder, known, learned(window), model, threads, peak)
    append_often(known, peak)
    against_polars(known, threads)


def warm_up(known: World, threads: int) -> None:
    """Compile, so that it isn't measured: a process keeps what it has compiled, and a machine keeps it on disk."""
    window = compacted(appended(empty(PARAMS), [made(known, 0, DAY, 100_000, 1)]), threads=threads)
    window = compacted(appended(learned(window), [made(known, 0, DAY, 1000, 10**6)]), threads=threads)
    found = view(window, threads=threads)
    found.times(), found.weights(), found.labels(found.touched())
    labels = found.labels()
    few = FactorizationMachineParams(loss=MODEL.loss, factors=MODEL.factors, epochs=1, patience=1, partial_epochs=1)
    model = fm.fit_rows(labels, found.users, found.items, few, 1, validation=found.labels(found.touched()))[0]
    fm.partial_fit_rows(model, labels, found.users, found.items, few, 1)


def trained(found: View, times: NDArray[np.uint32], begun: tuple[float, float], peak: Peak) -> fm.FactorizationMachine:
    """A full fit that stops when the loss on the newest hundredth falls no more."""
    some = np.sort(times[:: max(1, len(times) // 10**6)])
    cut = some[len(some) * 99 // 100]
    older, newer = found.labels(times < cut), found.labels(times >= cut)
    seconds, (model, _) = timed(lambda: fm.fit_rows(older, found.users, found.items, MODEL, 1, validation=newer))
    examples = len(older.columns)
    mean = float(older.values.mean(dtype=np.float64))
    prior = -float(np.mean(newer.values * np.log(mean) + (1 - newer.values) * np.log1p(-mean)))
    users = np.repeat(found.users.keys, newer.counts)
    scores = np.clip(fm.score(model, users, found.items.keys[newer.columns]), 1e-6, 1 - 1e-6)
    loss = -float(np.mean(newer.values * np.log(scores) + (1 - newer.values) * np.log1p(-scores)))
    say(
        f"full training, {examples:,} examples, {model.epochs} passes kept",
        seconds,
        peak,
        f"validation loss {loss:.4f}, of the mean {prior:.4f}",
    )
    minutes, cpu = (time.perf_counter() - begun[0]) / 60, (time.process_time() - begun[1]) / 60
    print(
        f"from the log to the model: {minutes:.2f} minutes, {cpu:.2f} CPU minutes; load of the machine {os.getloadavg()[0]:.1f}"
    )
    return model


def cycle(
    engine: sa.Engine,
    folder: Path,
    known: World,
    window: Window,
    model: fm.FactorizationMachine,
    threads: int,
    peak: Peak,
) -> None:
    """A million new events, from the database to the model: read, sorted in, and learned among five times as many old ones."""
    fresh = made(known, DAYS * DAY, DAYS * DAY + 3_600_000, NEW, window.seq + 1)
    add_unsealed(engine, fresh)
    peak.take()
    begun = time.perf_counter(), time.process_time()
    seconds, window = timed(lambda: appended(window, events.batches(engine, folder / "events", after_seq=window.seq)))
    say(f"cycle: {len(fresh):,} new events read", seconds, peak)
    seconds, window = timed(lambda: compacted(window, threads=threads))
    say("cycle: sorted in", seconds, peak)
    seconds, mixture = timed(lambda: mixed(view(window, threads=threads)))
    say("cycle: mixture of new and old pairs", seconds, peak, f"{len(mixture[0].columns):,} pairs")
    seconds, _ = timed(lambda: fm.partial_fit_rows(model, *mixture, MODEL, 1))
    say("cycle: partial fit", seconds, peak)
    print(f"the cycle: {time.perf_counter() - begun[0]:.2f} s, {time.process_time() - begun[1]:.2f} CPU s")
    with writing(engine) as connection:
        connection.execute(sa.delete(database.events))


def mixed(found: View) -> tuple[Sparse, Vocabulary, Vocabulary]:
    touched = found.touched()
    random = np.random.default_rng(1)
    touched[random.integers(0, len(touched), 5 * int(touched.sum()))] = True
    return found.labels(touched), found.users, found.items


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
        return view(
            compacted(appended(empty(PARAMS), pieces(columns, 50_000)), threads=threads), threads=threads
        ).labels()

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
