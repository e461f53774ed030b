"""The rules on this machine, by DuckDB: within a stated memory, spilling to disk what is more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from palate.errors import ArchiveError, SettingsError
from palate.watching import rules
from palate.watching.rules import WatchParams

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_MB = 4096
"""What DuckDB may use before it spills."""

MILLIS = """CREATE OR REPLACE MACRO millis(given) AS CASE
    WHEN regexp_full_match(given, '[0-9]{9,11}') THEN 1000 * CAST(given AS BIGINT)
    WHEN regexp_full_match(given, '[0-9]{12,14}') THEN CAST(given AS BIGINT)
    ELSE epoch_ms(TRY_CAST(given AS TIMESTAMPTZ)) END"""
"""A time in seconds or milliseconds since 1970 or in ISO 8601, UTC where it names no zone; NULL for what is none."""


@contextmanager
def connected(scratch: Path, threads: int | None = None, memory_mb: int = MEMORY_MB) -> Iterator[DuckDBPyConnection]:
    """A DuckDB that keeps nothing and spills to `scratch`. Raises SettingsError when the package isn't installed."""
    try:
        import duckdb
    except ImportError as error:
        raise SettingsError("Watch archives are read by DuckDB: install `palate[watch]`.") from error
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


def stage(
    connection: DuckDBPyConnection,
    archive: Path,
    kind: str,
    date: int | None,
    names: Mapping[str, str],
    target: Path,
    label: str,
    params: WatchParams,
) -> dict[int, int]:
    """Read an archive to `target/day=N/LABEL.parquet`, in place of what an earlier reading of it left; rows by day.

    `names` gives the archive's own name of a column of ours where it differs. Raises ArchiveError when it can't be read to its
    end, or lacks a column; nothing is changed then.
    """
    import duckdb

    part = target.parent / f".{target.name}-{label}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW rows AS SELECT * FROM {_csv(archive)}")
        found = [str(row[0]) for row in connection.execute("DESCRIBE rows").fetchall()]
        query = rules.staged(kind, columns_of(archive, kind, found, names), date, params)
        connection.execute(
            f"COPY ({query}) TO {quoted(part)} (FORMAT parquet, PARTITION_BY (day), FILENAME_PATTERN 'part{{i}}')"
        )
        rows = _rows_by_day(connection, part)
        _replace(part, target, label)
    except duckdb.Error as error:
        raise ArchiveError(f"{archive.name} can't be read to its end: {_first_line(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return rows


def columns_of(archive: Path, kind: str, found: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """The archive's name of each of our columns that it has. Raises ArchiveError naming what it lacks."""
    wanted = rules.SESSION_COLUMNS if kind == "sessions" else rules.TICK_COLUMNS
    by_small = {name.strip().lower(): name for name in found}
    own = {
        name: by_small[names.get(name, name).lower()] for name in wanted if names.get(name, name).lower() in by_small
    }
    lacking = [name for name in wanted if name not in own and name not in rules.OPTIONAL]
    if lacking:
        raise ArchiveError(
            f"{archive.name} has no column {lacking[0]!r} (it has {', '.join(found)[:200]}): name it with --column "
            f"{lacking[0]}=ITS_NAME."
        )
    return own


def build(connection: DuckDBPyConnection, stage: Path, day: int, params: WatchParams, target: Path) -> dict[str, int]:
    """A day's views to the file `target`, whole or not at all; what was counted. Its sessions may have ticks of the next day."""
    _view(
        connection,
        "sessions",
        stage / "sessions",
        (day - 1, day),
        "session VARCHAR, viewer VARCHAR, item VARCHAR, start BIGINT, device VARCHAR, duration DOUBLE",
    )
    _view(connection, "ticks", stage / "ticks", (day, day + 1), "session VARCHAR, time BIGINT")
    for name, query in rules.day_tables(params, day):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}")
    query = 'SELECT * FROM day_views ORDER BY "user", item, time'
    connection.execute(f"COPY ({query}) TO {quoted(part)} (FORMAT parquet)")
    row = connection.execute(rules.day_counts(params, day)).fetchone()
    assert row is not None, "a query of counts has one row"
    names = [str(column[0]) for column in connection.description or ()]
    os.replace(part, target)
    for name, _ in rules.day_tables(params, day):
        connection.execute(f"DROP TABLE {name}")
    return {name: int(value) for name, value in zip(names, row, strict=True)}


def _view(connection: DuckDBPyConnection, name: str, folder: Path, days: Sequence[int], columns: str) -> None:
    files = [str(file) for day in days for file in sorted((folder / f"day={day}").glob("*.parquet"))]
    if not files:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name}_empty ({columns})")
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {name}_empty")
        return
    listed = ", ".join(quoted(file) for file in files)
    kept = ", ".join(column.split()[0] for column in columns.split(", "))
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT {kept} FROM read_parquet([{listed}], hive_partitioning = false)"
    )


def _csv(archive: Path) -> str:
    return (
        f"read_csv({quoted(archive)}, all_varchar = true, header = true, null_padding = true, strict_mode = false, "
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


def _replace(part: Path, target: Path, label: str) -> None:
    """Put the new files of an archive where its old ones were. Killed in the middle, it is read again: the manifest's line comes
    after."""
    for old in target.glob(f"day=*/{label}-*.parquet"):
        old.unlink()
    for file in part.glob("day=*/*.parquet"):
        folder = target / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(file, folder / f"{label}-{file.name}")


def quoted(path: object) -> str:
    """A path as a literal of SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
