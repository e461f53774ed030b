"""`palate report` on a long log: `python benchmarks/bench_report.py [--events 10000000] [--threads 2] [--keep DIR]`.

Twelve weeks of a service that doesn't exist: people come, stay for some weeks, and open, watch and like things in visits of six
events; every second one is of the variant `new`, which keeps people a little longer. All days but the last two are sealed as the log
seals them. Prints the seconds of the report, the peak memory of its process, and how much the log takes on the disk.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import sqlalchemy as sa

from palate import database, sealing

DAY = 86_400_000
WEEKS = 12
ITEMS = 20_000
PER_VISIT = 6
HOT_DAYS = 2


def make(data: Path, events: int, now: datetime) -> None:
    """The installation, as serving and training would have left it."""
    data.mkdir(parents=True, exist_ok=True)
    with database.opened(None, data) as engine, duckdb.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        first = (int(now.timestamp() * 1000) // DAY // 7 - WEEKS) * 7 - 3
        connection.execute(f"CREATE TABLE log AS {query(events, first, int(now.timestamp() * 1000))}")
        put_items(engine, first * DAY)
        seq = 0
        days = [row[0] for row in connection.execute("SELECT DISTINCT time // 86400000 FROM log ORDER BY 1").fetchall()]
        for day in days:
            rows = f"FROM (SELECT *, row_number() OVER (ORDER BY time) + {seq} AS seq FROM log WHERE time // {DAY} = {day})"
            seq += store(engine, data, connection, rows, day, sealed=day < days[-HOT_DAYS])


def query(events: int, first: int, now: int) -> str:
    """Events in no order: visits of people who came in some week and are there for some weeks."""
    people = events // 40
    return f"""
        WITH visits AS (
            SELECT n, CAST(floor(random() * random() * {people}) AS BIGINT) AS person, random() AS a, random() AS b
            FROM range({events // PER_VISIT}) AS visits (n)),
        placed AS (
            SELECT n, person, hash(person, 1) % {WEEKS + 1} AS came, person % 2 = 1 AS fresh, b,
                CAST(floor(ln(1 - a) / ln(CASE WHEN person % 2 = 1 THEN 0.75 ELSE 0.7 END)) AS INTEGER) AS age FROM visits),
        timed AS (
            SELECT n, person, fresh, {first * DAY} + CAST((came + age + b) * 7 * {DAY} AS BIGINT) AS start
            FROM placed WHERE came + age <= {WEEKS}),
        steps AS (
            SELECT person, fresh, unnest(range({PER_VISIT})) AS step, start, random() AS c, random() AS d FROM timed)
        SELECT person + 1 AS user_key, CAST(floor(d * d * {ITEMS}) AS BIGINT) + 1 AS item_key, start + step * 40000 AS time,
            CASE WHEN step < 3 OR c < .2 THEN 'shown' WHEN c < .6 THEN 'viewed' WHEN c < .85 THEN 'watch'
                 WHEN c < (CASE WHEN fresh THEN .95 ELSE .93 END) THEN 'like' ELSE 'dislike' END AS type,
            CASE WHEN step < 3 OR c < .2 THEN NULL WHEN c < .6 THEN 20 + 100 * d WHEN c < .85 THEN d END AS value,
            CASE WHEN fresh THEN 'new' ELSE 'old' END AS variant
        FROM steps WHERE start + step * 40000 < {now}"""


def put_items(engine: sa.Engine, came: int) -> None:
    rows = [
        {
            "id": f"item-{n}", "state": "live", "kind": "video", "duration": float(60 + n % 3000), "published": came, "received": came,
            "updated": came, "media": [], "labels": [],
        }
        for n in range(ITEMS)
    ]  # fmt: skip
    with database.writing(engine) as connection:
        connection.execute(sa.insert(database.items), rows)


def store(
    engine: sa.Engine, data: Path, connection: duckdb.DuckDBPyConnection, rows: str, day: int, sealed: bool
) -> int:
    """A day's events, sealed or not; how many they are."""
    own = {
        "user": "'user-' || user_key", "item": "'item-' || item_key", "type": "type", "value": "value", "time": "time", "seq": "seq",
        "user_key": "user_key", "item_key": "item_key", "received": "time", "surface": "'web'", "variant": "variant",
    }  # fmt: skip
    columns = ", ".join(
        f'CAST({own.get(name, "NULL")} AS {KINDS[kind]}) AS "{name}"' for name, kind in sealing.COLUMNS.items()
    )
    table = connection.sql(f"SELECT {columns} {rows} ORDER BY seq").to_arrow_table()
    table = table.cast(sealing.arrow_schema())
    first, last = table.column("seq")[0].as_py(), table.column("seq")[-1].as_py()
    with database.writing(engine) as writer:
        if sealed:
            date = datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
            path = sealing.new_path(date, first)
            sealing.write_tables(data / "events", path, [table])
            row = {"path": path, "day": date, "first_seq": first, "last_seq": last, "rows": len(table)}
            writer.execute(sa.insert(database.sealed).values(row))
        else:
            names = [column.name for column in database.events.c]
            named = {"user": "user_key", "item": "item_key"}
            lists = [table.column(named.get(name, name)).to_pylist() for name in names]
            listed = ", ".join(f'"{name}"' for name in names)
            writer.exec_driver_sql(
                f"INSERT INTO events ({listed}) VALUES ({', '.join('?' * len(names))})", list(zip(*lists, strict=True))
            )
    return len(table)


KINDS = {"string": "VARCHAR", "float64": "DOUBLE", "int64": "BIGINT"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="Make the log there, and leave it; one that is there is used.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.keep or Path(folder) / "data"
        if not (data / "palate.sqlite").exists():
            make(data, arguments.events, datetime.now(UTC))
        size = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
        html = data / "report.html"
        command = [sys.executable, "-m", "palate", "report", "--data", str(data), "--html", str(html), "--threads"]
        begun = time.perf_counter()
        told = subprocess.run([*command, str(arguments.threads)], capture_output=True, text=True, check=True).stdout
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(told)
    print(
        f"{seconds:.1f} s on {arguments.threads} threads, {peak:,.0f} MB at its peak; the installation takes {size / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
