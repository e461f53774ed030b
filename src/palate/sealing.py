"""Parquet files of the event log: written so that a crash leaves no torn file, read column by column.

Which files belong to the log stands in the database (`events.py`); here are only the files.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from palate.domain import Event, EventColumns
from palate.errors import DataFolderError
from palate.ownership import owned

COLUMNS = {
    "user": "string",
    "item": "string",
    "type": "string",
    "value": "float64",
    "time": "int64",
    "seq": "int64",
    "id": "string",
    "user_key": "int64",
    "item_key": "int64",
    "received": "int64",
    "request": "string",
    "surface": "string",
    "position": "int64",
    "snapshot": "string",
    "variant": "string",
    "probability": "float64",
    "features": "string",
}
"""Columns of a sealed file and their Arrow types: an export's five first; times in milliseconds since 1970."""

PACKED = ("time", "seq", "user_key", "item_key", "received")
"""Columns of whole numbers that hardly repeat: stored as differences in as few bits as they need, they are read 2.5 times as
fast as through a dictionary, and a file takes 15 bytes an event instead of 24."""

STORED = "events"
"""What the names of sealed files begin with in the store."""

BATCH = 50_000
"""Rows in one row group: what has to fit into memory at a time."""


_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [name for name in COLUMNS if name not in PACKED],
    "column_encoding": dict.fromkeys(PACKED, "DELTA_BINARY_PACKED"),
}


@dataclass(frozen=True)
class Rewritten:
    """A sealed file without some people's rows."""

    path: str | None
    """Of the new file, relative to the folder; None when nothing was left."""
    rows: int
    removed: int
    ids: list[str]
    """Client ids of the removed events."""
    counts: Counter[tuple[int, str]]
    """Removed events by item key and type."""
    taken: Counter[tuple[int, str]]
    """Sums of their values, each within 0 and 1."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the right to add and remove sealed files; others, in this process or another, wait.

    Raises DataFolderError when the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # freed by the system when the process dies
        yield
    finally:
        os.close(handle)


def new_path(day: str, first_seq: int) -> str:
    """A path that no file has had yet, relative to the folder. Readers see only whole files: a new state, a new name."""
    return f"day={day}/{first_seq:012d}-{secrets.token_hex(4)}.parquet"


def write(folder: Path, path: str, batches: Iterable[Sequence[Sequence[Any]]]) -> int:
    """Write rows in the order of COLUMNS as one file that is durable when this returns; returns their number.

    Without a row there is no file. Raises DataFolderError when it can't be written; then
    nothing is left behind but a `.tmp` file at most.
    """
    import pyarrow as pa

    schema = arrow_schema()
    tables = (
        pa.table(
            [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)],
            schema,
        )
        for rows in batches
        if rows
    )
    return write_tables(folder, path, tables)


def arrow_schema() -> Any:
    """COLUMNS as Arrow has them."""
    import pyarrow as pa

    return pa.schema([(name, getattr(pa, type)()) for name, type in COLUMNS.items()])


def read_columns(path: Path, after_seq: int) -> Iterator[EventColumns]:
    """Batches of the rows with a greater seq than `after_seq`, users as they are written.

    Raises FileNotFoundError when the file is gone, DataFolderError when it is broken.
    """
    for batch in _batches(
        path, ["seq", "user_key", "item_key", "value", "time", "type"], after_seq, text_as_codes=True
    ):
        seq, user, item, value, time = (batch.column(at).to_numpy(zero_copy_only=False) for at in range(5))
        type = batch.column(5)
        start = int(np.searchsorted(seq, after_seq, side="right"))
        yield EventColumns(
            seq=seq[start:],
            user=user[start:],
            item=item[start:],
            type=type.indices.to_numpy(zero_copy_only=False)[start:].astype(np.uint16),
            value=value[start:].astype(np.float32),
            time=time[start:],
            types=tuple(type.dictionary.to_pylist()),
        )


def read_rows(path: Path, after_seq: int, before_seq: int) -> Iterator[tuple[Any, ...]]:
    """Rows in the order of COLUMNS with `after_seq` < seq < `before_seq`. Raises as `read_columns` does."""
    at = list(COLUMNS).index("seq")
    for batch in _batches(path, list(COLUMNS), after_seq, before_seq):
        columns = batch.to_pydict()
        for row in zip(*(columns[name] for name in COLUMNS), strict=True):
            if after_seq < row[at] < before_seq:
                yield row


def read_shown(path: Path, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """These columns of the events of type `shown` that have features. Raises as `read_columns` does."""
    import pyarrow.compute as pc

    for batch in _batches(path, [*names, "type"]):
        wanted = pc.and_(pc.equal(batch.column("type"), "shown"), pc.is_valid(batch.column("features")))
        columns = batch.filter(wanted).to_pydict()
        yield from zip(*(columns[name] for name in names), strict=True)


def to_event(row: Sequence[Any]) -> Event:
    """The event of a row in the order of COLUMNS."""
    return Event(**{name: field for name, field in zip(COLUMNS, row, strict=True) if name in Event.__struct_fields__})


def holds(path: Path, user_keys: Collection[int]) -> bool:
    """Whether a row belongs to one of these users."""
    wanted = np.array(sorted(user_keys), np.int64)
    return any(np.isin(batch.column("user_key").to_numpy(), wanted).any() for batch in _batches(path, ["user_key"]))


def rewrite(folder: Path, path: str, user_keys: Collection[int]) -> Rewritten:
    """Write what a file holds of everybody else to a new file; the old one stays."""
    import pyarrow as pa

    wanted = np.array(sorted(user_keys), np.int64)
    kept, ids, counts, taken = [], [], Counter[tuple[int, str]](), Counter[tuple[int, str]]()
    for batch in _batches(folder / path, list(COLUMNS)):
        gone = np.isin(batch.column("user_key").to_numpy(), wanted)
        kept.append(pa.Table.from_batches([batch.filter(pa.array(~gone))]))
        dropped = batch.filter(pa.array(gone)).to_pydict()
        ids += [id for id in dropped["id"] if id is not None]
        pairs = list(zip(dropped["item_key"], dropped["type"], strict=True))
        counts.update(pairs)
        for pair, value in zip(pairs, dropped["value"], strict=True):
            taken[pair] += within(value)
    rows = sum(len(table) for table in kept)
    name = None
    if rows:
        first = next(table.column("seq")[0].as_py() for table in kept if len(table))
        name = new_path(path.split("/")[0].removeprefix("day="), first)
        write_tables(folder, name, (table for table in kept if len(table)))
    return Rewritten(name, rows, counts.total(), ids, counts, taken)


def within(value: float | None) -> Any:
    """What an event's value counts for how much was taken in: a fraction, 0 where there is none."""
    return min(max(value or 0.0, 0.0), 1.0)


def at_hand(engine: sa.Engine, folder: Path, path: str) -> Path:
    """Where a file lies here, fetched from the store if there is one and it isn't here yet.

    Raises StoreError; FileNotFoundError, here or when it is read, when it is nowhere.
    """
    if not (folder / path).exists() and (shared := owned(engine)) is not None:
        shared.get(_stored(path), folder / path)
    return folder / path


def store(engine: sa.Engine, folder: Path, path: str) -> None:
    """Bring a file into the store, if there is one. Raises StoreError."""
    if (shared := owned(engine)) is not None:
        shared.put(_stored(path), folder / path)


def remove(engine: sa.Engine, folder: Path, path: str) -> None:
    """Remove a file from the folder, with the folder of its day when that is empty, and from the store."""
    if (shared := owned(engine)) is not None:
        shared.delete(_stored(path))
    _remove_copy(folder, path)


def remove_strangers(engine: sa.Engine, folder: Path, known: Collection[str]) -> None:
    """Remove the files that a crash left behind: all but those in `known`. Only for one who alone may add files."""
    if (shared := owned(engine)) is not None:
        names = {_stored(path) for path in known}
        for name in shared.names(STORED):
            if name not in names:
                shared.delete(name)
    remove_copies(folder, known)


def remove_copies(folder: Path, known: Collection[str]) -> None:
    """Remove from the folder what isn't `known`. Only under `locked`."""
    for file in [*folder.glob("day=*/*.parquet"), *folder.glob("day=*/*.tmp"), *folder.glob("day=*/*.new")]:
        path = file.relative_to(folder).as_posix()
        if path not in known:
            _remove_copy(folder, path)


def _remove_copy(folder: Path, path: str) -> None:
    (folder / path).unlink(missing_ok=True)
    try:
        (folder / path).parent.rmdir()
    except OSError:
        return  # other files of the day are left


def _stored(path: str) -> str:
    return f"{STORED}/{path}"


def _batches(
    path: Path, names: list[str], after_seq: int = 0, before_seq: int = 2**63, *, text_as_codes: bool = False
) -> Iterator[Any]:
    """Record batches of `names`, without those that hold no seq in between. Others of its rows may lie outside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, read_dictionary=["type"] if text_as_codes else None) as file:
            at = file.schema_arrow.names.index("seq")
            spans = [file.metadata.row_group(number).column(at).statistics for number in range(file.num_row_groups)]
            wanted = [number for number, span in enumerate(spans) if span.max > after_seq and span.min < before_seq]
            yield from file.iter_batches(BATCH, row_groups=wanted, columns=names, use_threads=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataFolderError(f"The sealed events in {path} can't be read: {error}. Restore the file.") from error


def write_tables(folder: Path, path: str, tables: Iterable[Any]) -> int:
    """What `write` does, for Arrow tables of COLUMNS that have rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = folder / path
    try:
        fresh = not target.parent.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, arrow_schema(), **_ENCODING) as writer:
                rows = sum(_add_group(writer, table) for table in tables)
            file.flush()
            os.fsync(file.fileno())
        if not rows:
            temporary.unlink()
            return 0
        temporary.rename(target)
        _sync_folder(target.parent)
        if fresh:
            _sync_folder(folder)
            _sync_folder(folder.parent)
        return rows
    except (pa.ArrowException, OSError) as error:
        raise _unwritable(folder, error) from error


def _add_group(writer: Any, table: Any) -> int:
    writer.write_table(table, row_group_size=BATCH)
    return len(table)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(folder: Path, error: BaseException) -> DataFolderError:
    return DataFolderError(f"Events can't be sealed into {folder}: {error}.")
