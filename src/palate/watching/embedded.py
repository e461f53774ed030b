"""The rules on this machine, by DuckDB: within a stated memory, spilling to disk what is more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from palate.errors import ArchiveError, SettingsError
from palate.watching import engines, rules
from palate.watching.archives import Archive
from palate.watching.engines import Engine
from palate.watching.rules import WatchParams

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_MB = 4096
"""What DuckDB may use before it spills."""

NEEDS = "Watch archives are read by DuckDB: install `palate[watch]`."

MILLIS = """CREATE OR REPLACE MACRO millis(given) AS CASE
    WHEN regexp_full_match(given, '[0-9]{9,11}') THEN 1000 * CAST(given AS BIGINT)
    WHEN regexp_full_match(given, '[0-9]{12,14}') THEN CAST(given AS BIGINT)
    ELSE epoch_ms(TRY_CAST(given AS TIMESTAMPTZ)) END"""
"""A time in seconds or milliseconds since 1970 or in ISO 8601, UTC where it names no zone; NULL for what is none."""


@contextmanager
def connected(
    scratch: Path, threads: int | None = None, memory_mb: int = MEMORY_MB, needs: str = NEEDS
) -> Iterator[DuckDBPyConnection]:
    """A DuckDB that keeps nothing and spills to `scratch`. Raises SettingsError, by `needs`, when it isn't installed."""
    try:
        import duckdb
    except ImportError as error:
        raise SettingsError(needs) from error
    scratch.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(
        config={
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": str(scratch),
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
            **({"threads": str(threads)} if threads else {}),
        }
    )
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(MILLIS)
        yield connection
    finally:
        connection.close()


@contextmanager
def engine(scratch: Path, threads: int | None = None) -> Iterator[Engine]:
    """This machine. `threads` None: all processors. Raises SettingsError when DuckDB isn't installed."""
    with connected(scratch, threads) as connection:
        yield Engine(partial(stage, connection), partial(build, connection), partial(find_heavy, connection))


def stage(
    connection: DuckDBPyConnection, archive: Archive, names: Mapping[str, str], target: Path, params: WatchParams
) -> dict[int, int]:
    """See `Engine.stage`."""
    import duckdb

    part = target.parent / f".{target.name}-{archive.label}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW rows AS SELECT * FROM {_csv(archive.path)}")
        found = [str(row[0]) for row in connection.execute("DESCRIBE rows").fetchall()]
        own = engines.columns_of(archive.path, archive.kind, found, names)
        query = rules.staged(archive.kind, own, archive.date, params)
        connection.execute(
            f"COPY ({query}) TO {quoted(part)} (FORMAT parquet, PARTITION_BY (day), FILENAME_PATTERN 'part{{i}}')"
        )
        rows = _rows_by_day(connection, part)
        engines.put_in_place(part, target, archive.label)
    except duckdb.Error as error:
        raise ArchiveError(f"{archive.path.name} can't be read to its end: {_first_line(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return rows


def build(connection: DuckDBPyConnection, staged: Path, day: int, params: WatchParams, target: Path) -> dict[str, int]:
    """See `Engine.build`. The day's sessions may have ticks of the next day."""
    _view(connection, "sessions", staged / "sessions", (day - 1, day), engines.SESSIONS)
    _view(connection, "ticks", staged / "ticks", (day, day + 1), engines.TICKS)
    tables = [
        (name, "TABLE" if name in rules.USED_AGAIN else "VIEW", query) for name, query in rules.day_tables(params, day)
    ]
    for name, kind, query in tables:
        connection.execute(f"CREATE OR REPLACE TEMP {kind} {name} AS {query}")
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(connection, 'SELECT * FROM day_views ORDER BY "user", item, time', target)
    row = connection.execute(rules.day_counts(params, day)).fetchone()
    assert row is not None, "a query of counts has one row"
    names = [str(column[0]) for column in connection.description or ()]
    for name, kind, _ in reversed(tables):
        connection.execute(f"DROP {kind} {name}")
    return {name: int(value) for name, value in zip(names, row, strict=True)}


def find_heavy(connection: DuckDBPyConnection, views: Sequence[Path], params: WatchParams, target: Path) -> int:
    """See `Engine.find_heavy`."""
    files = ", ".join(quoted(file) for file in views)
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW views AS SELECT * FROM read_parquet([{files}], hive_partitioning = false)"
    )
    _write(connection, rules.heavy(params), target)
    row = connection.execute(f"SELECT count(*) FROM read_parquet({quoted(target)})").fetchone()
    assert row is not None, "a count is one row"
    return int(row[0])


def _write(connection: DuckDBPyConnection, query: str, target: Path) -> None:
    """Whole or not at all."""
    part = target.with_name(f".{target.name}")
    connection.execute(f"COPY ({query}) TO {quoted(part)} (FORMAT parquet)")
    os.replace(part, target)


def _view(
    connection: DuckDBPyConnection, name: str, folder: Path, days: Sequence[int], columns: Mapping[str, str]
) -> None:
    files = engines.staged_files(folder, days)
    if not files:
        typed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name}_empty ({typed})")
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {name}_empty")
        return
    listed = ", ".join(quoted(file) for file in files)
    connection.execute(
        f"""CREATE OR REPLACE TEMP VIEW {name} AS
            SELECT {", ".join(columns)} FROM read_parquet([{listed}], hive_partitioning = false)"""
    )


def _csv(archive: Path) -> str:
    return (
        f"read_csv({quoted(archive)}, all_varchar = true, header = true, null_padding = true, strict_mode = false, "
        "quote = '\"', escape = '\"', "
        "ignore_errors = true, max_line_size = 1000000, parallel = true)"
    )


def _rows_by_day(connection: DuckDBPyConnection, part: Path) -> dict[int, int]:
    if not any(part.glob("day=*/*.parquet")):
        return {}
    files = quoted(part / "day=*" / "*.parquet")
    rows = connection.execute(f"SELECT file_name, num_rows FROM parquet_file_metadata({files})").fetchall()
    found: dict[int, int] = {}
    for name, count in rows:
        day = int(Path(str(name)).parent.name.removeprefix("day="))
        found[day] = found.get(day, 0) + int(count)
    return found


def quoted(path: object) -> str:
    """A path as a literal of SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
