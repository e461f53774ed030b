"""Sessions and ticks to views: the embedded engine, Spark on the same machine (local[2]), and a plain pandas script.

    python benchmarks/bench_watching.py                        # 1 M sessions, about 20 M ticks, by all three
    python benchmarks/bench_watching.py --sessions 10000000 --archives DIR --only embedded    # made in DIR, unless they are there
    python benchmarks/bench_watching.py --few 100000                                # the rows of both engines compared, alone

Needs the extras `watch` and `spark`. The archives are invented, with everything that goes wrong with real ones, and are made first; a
hundredth of them is made apart, on which the rows of both engines are compared. Each engine runs in a process of its own, of which the
highest memory (with its children's: Spark's is a JVM) is told.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from palate.watching import etl, invented
from palate.watching.etl import Place
from palate.watching.rules import WatchParams

DAYS = 3


def make(folder: Path, sessions: int, scratch: Path) -> None:
    world = invented.World(
        sessions=sessions, days=DAYS, people=max(sessions // 10, 100), videos=max(sessions // 200, 50)
    )
    invented.write(folder, world, scratch)


def embedded(given: Path, made: Path) -> None:
    etl.run(given, Place(made), WatchParams())


def spark(given: Path, made: Path) -> None:
    from palate.spark import sessions, watching

    options = {"spark.driver.memory": "4g", "spark.sql.shuffle.partitions": "8"}
    with sessions.connected("local[2]", "bench", options) as session:
        etl.run(given, Place(made), WatchParams(), engine=watching.engine(session))


def pandas(given: Path, made: Path) -> None:
    """What one writes by hand: duplicates, ticks joined to sessions, gaps summed, restarts merged; no manifest, no report."""
    import numpy as np
    import pandas as pd

    sessions = pd.concat(pd.read_csv(path) for path in sorted(given.glob("sessions-*")))
    ticks = pd.concat(pd.read_csv(path) for path in sorted(given.glob("ticks-*"))).drop_duplicates()
    sessions = sessions.dropna(subset=["session", "user", "video", "start"]).drop_duplicates("session")
    sessions = sessions[sessions.start > 1_000_000_000]
    joined = ticks.merge(sessions[["session", "start"]], on="session")
    joined = joined[(joined.time >= joined.start - 60) & (joined.time < joined.start + 86_400)].sort_values(
        ["session", "time"]
    )
    before = joined.groupby("session").time.shift().fillna(joined.start)
    gap = (joined.time - before).clip(lower=0)
    joined["watched"] = np.where(gap <= 90, gap, 60)
    played = joined.groupby("session").agg(watched=("watched", "sum"), ended=("time", "max")).reset_index()
    views = sessions.merge(played, on="session", how="left").fillna({"watched": 0})
    views = views[views.watched <= 8 * 3600].sort_values(["user", "video", "start"])
    views["ended"] = views.ended.fillna(views.start)
    views["before"] = views.groupby(["user", "video"]).ended.transform(lambda ended: ended.cummax().shift())
    views["number"] = ((views.start - views.before).fillna(np.inf) > 1800).cumsum()
    whole = views.groupby(["user", "video", "number"]).agg(
        start=("start", "min"), watched=("watched", "sum"), duration=("duration", "max")
    )
    whole = whole[(whole.watched >= 5) & (whole.duration > 0)].reset_index()
    whole["value"] = (whole.watched / whole.duration).clip(upper=1)
    made.mkdir(parents=True)
    whole.to_parquet(made / "views.parquet")


ENGINES: dict[str, Any] = {"embedded": embedded, "spark": spark, "pandas": pandas}


def timed(name: str, given: Path, made: Path) -> tuple[float, float]:
    """Seconds, and the most gigabytes that the process and its children had."""
    begin, most = time.perf_counter(), 0.0
    process = subprocess.Popen([sys.executable, __file__, "--run", name, str(given), str(made)])
    watched, over = psutil.Process(process.pid), threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.1):
            try:
                family = [watched, *watched.children(recursive=True)]
                most = max(most, sum(one.memory_info().rss for one in family) / 1e9)
            except psutil.Error:
                continue

    looker = threading.Thread(target=look)
    looker.start()
    status = process.wait()
    over.set()
    looker.join()
    assert status == 0, f"{name} ended with status {status}"
    return time.perf_counter() - begin, most


def rows(made: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return [
        row
        for file in sorted(made.glob("views/*/*.parquet"))
        for row in parquet.read_table(file, partitioning=None).to_pylist()
    ]


def compare(sessions: int) -> None:
    """Whether both engines give the same rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "in", sessions, folder / "spill")
        for engine in ("embedded", "spark"):
            ENGINES[engine](folder / "in", folder / engine)
        ours, theirs = rows(folder / "embedded"), rows(folder / "spark")
        print(f"of {sessions:,} sessions {len(ours):,} views: {'the same rows' if ours == theirs else 'OTHER ROWS'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--only", choices=list(ENGINES))
    parser.add_argument("--archives", type=Path)
    parser.add_argument("--few", type=int)
    parser.add_argument("--run", nargs=3)
    given = parser.parse_args()
    if given.run:
        ENGINES[given.run[0]](Path(given.run[1]), Path(given.run[2]))
        return
    if given.few:
        compare(given.few)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archives = given.archives or folder / "in"
        if not archives.exists():
            make(archives, given.sessions, folder / "spill")
        size = sum(file.stat().st_size for file in archives.iterdir()) / 1e6
        print(
            f"{given.sessions:,} sessions, about {20 * given.sessions:,} ticks in {DAYS} days, {size:,.0f} MB packed",
            flush=True,
        )
        for engine in [given.only] if given.only else ENGINES:
            took, most = timed(engine, archives, folder / engine)
            print(
                f"{engine:9} {took:7.1f} s, {21 * given.sessions / took / 1e6:6.2f} M rows/s, {most:.2f} GB", flush=True
            )
    if not given.only:
        compare(given.sessions // 100)


if __name__ == "__main__":
    main()
