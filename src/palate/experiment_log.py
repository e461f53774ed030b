"""The event log as experiments read it: columns of a stretch of time, sealed days from files, the others from the database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import columns, database, identities, sealing
from palate.domain import from_milliseconds
from palate.errors import DataFolderError

DAY = 86_400_000
"""Milliseconds."""

PAGE = 50_000
"""Rows of the database in memory at a time."""

_COLUMNS = ("user_key", "item_key", "type", "value", "time", "received", "surface", "variant", "probability")

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Part(NamedTuple):
    """Some events, and the names of the texts in them."""

    user: Numbers
    item: Numbers
    type: Numbers
    value: NDArray[np.float64]
    time: Numbers
    received: Numbers
    surface: Numbers
    probability: NDArray[np.float64]
    """NaN for none."""
    variant: Numbers
    """Places in `variants`; 0 for none. `type` and `surface` likewise."""
    types: Sequence[str | None]
    surfaces: Sequence[str | None]
    variants: Sequence[str | None]


def chosen(part: Part, rows: Mask) -> Part:
    """These of its events."""
    return part._replace(**{name: getattr(part, name)[rows] for name in Part._fields[:9]})


def of_names(names: Sequence[str | None], codes: Numbers, wanted: Collection[str]) -> Mask:
    """Which of the codes stand for one of the names."""
    return np.array([name in wanted for name in names], bool)[codes]


def date_of(number: int) -> str:
    """The day of this number since 1970, as YYYY-MM-DD."""
    return from_milliseconds(number * DAY).date().isoformat()


class Log:
    """The events of a stretch of time, to be read twice: sealed files, then the unsealed ones of the same moment."""

    def __init__(self, connection: sa.Connection, folder: Path, start: int, end: int) -> None:
        self._connection, self._folder, self._start, self._end = connection, folder, start, end
        table = database.sealed
        query = sa.select(table.c.path).where(table.c.day >= date_of(start // DAY)).order_by(table.c.first_seq)
        self._paths = list(connection.scalars(query))
        self._persons = columns.persons(identities.joined(connection))

    def parts(self, named_only: bool = False) -> Iterator[Part]:
        """All of it, users as persons; with `named_only` only what names a variant."""
        for part in chain(self._sealed(named_only), self._hot(named_only)):
            inside = (part.time >= self._start) & (part.time < self._end) & (part.received < self._end)
            kept = chosen(part, inside)
            if len(kept.user):
                yield kept._replace(user=self._persons.of(kept.user))

    def _sealed(self, named_only: bool) -> Iterator[Part]:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        for path in self._paths:
            try:
                here = sealing.at_hand(self._connection.engine, self._folder, path)
                with pq.ParquetFile(here, read_dictionary=["type", "surface", "variant"]) as file:
                    for batch in file.iter_batches(PAGE, columns=list(_COLUMNS), use_threads=False):
                        found = batch.filter(pc.is_valid(batch.column("variant"))) if named_only else batch
                        yield _from_batch(found)
            except (pa.ArrowException, OSError) as error:
                raise DataFolderError(
                    f"The sealed events in {path} can't be read: {error}. Try again; if it stays so, restore the file."
                ) from error

    def _hot(self, named_only: bool) -> Iterator[Part]:
        table, after = database.events.c, 0
        named = {"user_key": "user", "item_key": "item"}
        query = sa.select(table.seq, *(table[named.get(name, name)] for name in _COLUMNS))
        if named_only:
            query = query.where(table.variant.is_not(None))
        while True:
            page = query.where(table.seq > after).order_by(table.seq).limit(PAGE)
            rows = database.plain_rows(self._connection.execute(page))
            if rows:
                yield _from_rows(rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]


def _from_batch(batch: Any) -> Part:
    numbers = {name: batch.column(name) for name in _COLUMNS}
    coded = {name: _coded(numbers[name]) for name in ("type", "surface", "variant")}
    plain = {
        name: numbers[name].to_numpy(zero_copy_only=False).astype(np.int64)
        for name in ("user_key", "item_key", "time", "received")
    }
    return Part(
        user=plain["user_key"],
        item=plain["item_key"],
        type=coded["type"][0],
        value=numbers["value"].to_numpy(zero_copy_only=False).astype(np.float64),
        time=plain["time"],
        received=plain["received"],
        surface=coded["surface"][0],
        variant=coded["variant"][0],
        probability=numbers["probability"].to_numpy(zero_copy_only=False).astype(np.float64),
        types=coded["type"][1],
        surfaces=coded["surface"][1],
        variants=coded["variant"][1],
    )


def _coded(column: Any) -> tuple[Numbers, list[str | None]]:
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    return codes, [None, *column.dictionary.to_pylist()]


def _from_rows(rows: Sequence[tuple[Any, ...]]) -> Part:
    _, user, item, type, value, time, received, surface, variant, probability = zip(*rows, strict=True)
    coded = [_numbered(column) for column in (type, surface, variant)]
    return Part(
        user=np.array(user, np.int64),
        item=np.array(item, np.int64),
        type=coded[0][0],
        value=np.array(value, np.float64),  # None becomes NaN
        time=np.array(time, np.int64),
        received=np.array(received, np.int64),
        surface=coded[1][0],
        variant=coded[2][0],
        probability=np.array(probability, np.float64),
        types=coded[0][1],
        surfaces=coded[1][1],
        variants=coded[2][1],
    )


def _numbered(texts: Iterable[str | None]) -> tuple[Numbers, list[str | None]]:
    names: dict[str | None, int] = {None: 0}
    codes = np.array([names.setdefault(text, len(names)) for text in texts], np.int64)
    return codes, list(names)
