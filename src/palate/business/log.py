"""The event log as tables of DuckDB: sealed days from their files, the unsealed tail copied beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from palate import database, identities, sealing
from palate.database import reading
from palate.domain import to_milliseconds
from palate.errors import DataFolderError
from palate.watching.embedded import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PAGE = 50_000
"""Rows of the database in memory at a time."""

COLUMNS = {
    "seq": "int64",
    "user_key": "int64",
    "item_key": "int64",
    "type": "string",
    "value": "float64",
    "time": "int64",
    "surface": "string",
    "variant": "string",
}
"""Of an event, as figures need it, and their Arrow types."""


def attach(connection: DuckDBPyConnection, engine: sa.Engine, folder: Path, scratch: Path, now: datetime) -> None:
    """Make the view `log` (COLUMNS) and the tables `aliases` (alias, person) and `items` (item, duration, came).

    All are of one moment. `folder` holds the sealed days, `scratch` takes the copy of the others. An item came when it was
    published or received, whichever was first; deleted and hidden ones, and those of later than `now`, aren't among them.
    Raises DataFolderError when a sealed file is missing or broken.
    """
    import duckdb

    with reading(engine) as reader:
        listed = _sealed(reader)
        hot = _copied(_events(reader), COLUMNS, scratch / "hot.parquet")
        aliases = _copied(_aliases(reader), {"alias": "int64", "person": "int64"}, scratch / "aliases.parquet")
        known = {"item": "int64", "duration": "float64", "came": "int64"}
        items = _copied(_items(reader, to_milliseconds(now)), known, scratch / "items.parquet")
    names = ", ".join(COLUMNS)
    paths = _at_hand(engine, folder, listed)
    files = "[" + ", ".join(quoted(path) for path in [*paths, hot]) + "]"
    try:
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW log AS SELECT {names} FROM read_parquet({files}, hive_partitioning = false)"
        )
        connection.execute(f"CREATE OR REPLACE TEMP TABLE aliases AS FROM read_parquet({quoted(aliases)})")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE items AS FROM read_parquet({quoted(items)})")
    except duckdb.Error as error:
        raise broken(error) from error


def sealed(engine: sa.Engine) -> list[str]:
    """The files of sealed days: a day of which somebody is forgotten has another file afterwards, and the old one goes."""
    with reading(engine) as reader:
        return _sealed(reader)


def broken(error: Exception) -> DataFolderError:
    """What is said of a file that can't be read."""
    first = str(error).strip().splitlines()[0]
    return DataFolderError(f"The event log can't be read: {first}. Restore the file from a backup.")


def _sealed(reader: sa.Connection) -> list[str]:
    return sorted(reader.scalars(sa.select(database.sealed.c.path)))


def _at_hand(engine: sa.Engine, folder: Path, listed: Iterable[str]) -> list[Path]:
    try:
        return [sealing.at_hand(engine, folder, path) for path in listed]
    except FileNotFoundError as error:
        raise broken(error) from error


def _events(reader: sa.Connection) -> Iterator[list[tuple[Any, ...]]]:
    """The unsealed events in the order of COLUMNS."""
    table = database.events.c
    named = {"user_key": "user", "item_key": "item"}
    query = sa.select(*(table[named.get(name, name)] for name in COLUMNS))
    yield from _pages(reader, query, table.seq)


def _items(reader: sa.Connection, now: int) -> Iterator[list[tuple[Any, ...]]]:
    table = database.items.c
    came = sa.case((table.published < table.received, table.published), else_=table.received)
    query = sa.select(table.key, table.duration, came).where(table.state == "live", came <= now)
    yield from _pages(reader, query, table.key)


def _pages(reader: sa.Connection, query: sa.Select[Any], key: sa.ColumnElement[int]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of a query whose first column is a key, by it."""
    after = -(2**62)
    while rows := database.plain_rows(reader.execute(query.where(key > after).order_by(key).limit(PAGE))):
        yield rows
        after = rows[-1][0]


def _aliases(reader: sa.Connection) -> Iterator[list[tuple[Any, ...]]]:
    yield list(identities.joined(reader).items())


def _copied(pages: Iterator[list[tuple[Any, ...]]], columns: dict[str, str], path: Path) -> Path:
    """Rows as a Parquet file; where there are none, one without rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, type)()) for name, type in columns.items()])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in pages:
            if rows:
                arrays = [
                    pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)
                ]
                writer.write_table(pa.table(arrays, schema))
    return path
