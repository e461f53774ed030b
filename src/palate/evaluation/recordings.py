"""Files of recorded events as columns: every format that an import reads, with fewer columns if need be, and lists of pairs.

Beside the formats of `sources.archive` there are *pairs* (`user item item …` on a line, as LightGCN's files) and *rows* (user,
item, rating, seconds, with tabs between, as NCF's). `user` and `item` are all that a file must have: a row without a type is a
`rating` when it has a value, else a `positive`; a row without a time is of 1970.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from palate.domain import Event, EventColumns
from palate.errors import ArchiveError, PalateError
from palate.models.content import Contents, label_keys
from palate.models.factorization_machine import NO_SOURCES, ItemSources
from palate.sources import archive
from palate.sources.archive import BadRow
from palate.text import embedding
from palate.text.cleaning import to_plain

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

Format = Literal["auto", "jsonl", "csv", "parquet", "movielens", "deskdrop", "gorse", "pairs", "rows"]
FORMATS: tuple[str, ...] = get_args(Format)

POSITIVE, RATING = "positive", "rating"
"""Types of rows that have none."""

COLUMNS = ("user", "item", "type", "value", "time", "probability")


@dataclass(frozen=True, eq=False)
class Recording:
    """The events of one or several files; users and items are numbered as `user_ids` and `item_ids` name them."""

    events: EventColumns
    probability: NDArray[np.float32]
    """With which each event's item was chosen to be shown; NaN where that isn't known."""
    user_ids: list[str]
    item_ids: list[str]
    part: NDArray[np.uint8]
    """Number of the file that each event is from."""
    left_out: list[str] = field(default_factory=list)
    """What could not be read, one sentence a file."""

    def __len__(self) -> int:
        return len(self.events)

    def item_names(self) -> dict[str, int]:
        """Key of each item id."""
        return {id: key for key, id in enumerate(self.item_ids)}


@dataclass(frozen=True, eq=False)
class _Columns:
    """One file; names in order of first appearance."""

    user: _Names
    item: _Names
    type: _Names
    value: NDArray[np.float32]
    time: NDArray[np.int64]
    probability: NDArray[np.float32]
    left_out: list[str]


@dataclass(frozen=True, eq=False)
class _Names:
    """A column of strings as numbers of `names`."""

    codes: NDArray[np.int64]
    names: list[str]


def read(paths: Sequence[Path], format: Format = "auto") -> Recording:
    """All events of these files, in the order of the files and of their rows; ids mean the same in all of them.

    Rows that can't be read are left out and told of. Raises ArchiveError when a file has none that can.
    """
    return _joined([_read(path, format) for path in paths])


def of_log(batches: Iterator[list[Event]]) -> Recording:
    """The events of an installation's own log, in its order."""
    return _joined([_of_rows(batches, "the log")])


def of_table(table: pa.Table, what: str) -> Recording:
    """The rows of a table with the columns of a file of events; `what` names it where something is wrong. Raises ArchiveError."""
    return _joined([_of_table(table, Path(what), 0)])


def read_candidates(path: Path, recording: Recording) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who is to be ranked what: user key and item key of each candidate of a file of negatives, −1 for ids nobody knows.

    A line holds a user and candidate items with blanks between; NCF's `(user,item)` at its head is read as that user, and the
    item in it is none of the negatives. Raises ArchiveError.
    """
    users = {id: key for key, id in enumerate(recording.user_ids)}
    items = recording.item_names()
    owner: list[int] = []
    candidates: list[int] = []
    for number, line in _lines(path):
        head, *names = line.split()
        if not names:
            raise ArchiveError(f"{path}, line {number} must hold a user and at least one item, with blanks between.")
        pair = re.fullmatch(r"\((.+),(.+)\)", head)
        owner += [users.get(pair[1] if pair else head, -1)] * len(names)
        candidates += [items.get(name, -1) for name in names]
    if not owner:
        raise ArchiveError(f"{path} is empty.")
    return np.array(owner, np.int64), np.array(candidates, np.int64)


# --- one file -------------------------------------------------------------------------------------------------------------


def _read(path: Path, format: Format) -> _Columns:
    columns = _reader(path, format)(path)
    if not len(columns.value):
        reason = columns.left_out[0] if columns.left_out else "it is empty"
        raise ArchiveError(f"{path} has no event that can be read: {reason}")
    return columns


def _reader(path: Path, format: Format) -> Callable[[Path], _Columns]:
    if format == "auto":
        format = _detect(path)
    readers: dict[str, Callable[[Path], _Columns]] = {
        "csv": _read_csv,
        "parquet": _read_parquet,
        "pairs": _read_pairs,
        "rows": _read_rows,
        "movielens": _read_movielens,
        "deskdrop": _read_deskdrop,
        "jsonl": _read_jsonl,
        "gorse": lambda path: _of_archive(path, "gorse"),
    }
    return readers[format]


def _detect(path: Path) -> Format:
    """By the first line; what `archive` knows it decides."""
    try:
        return archive.detect(path)
    except ArchiveError:
        head = next((line for _, line in _lines(path)), "")
        if re.fullmatch(r"[^\t,]+\t[^\t,]+\t-?[\d.]+(\t\d+)?", head):
            return "rows"
        if re.fullmatch(r"[^\s,{\"]+(\s+[^\s,{\"]+)*", head):
            return "pairs"
        raise


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line.strip()) for number, line in archive.lines(path) if line.strip())


def _read_pairs(path: Path) -> _Columns:
    """A user alone on a line has no items."""
    users: list[str] = []
    counts: list[int] = []
    items: list[str] = []
    for _, line in _lines(path):
        user, *names = line.split()
        users.append(user)
        counts.append(len(names))
        items += names
    owner = np.repeat(np.arange(len(users)), counts)
    columns = {"user": _numbered(users, owner), "item": _numbered(items)}
    return _columns(columns, path, 0)


def _read_rows(path: Path) -> _Columns:
    return _plain(path, "\t", milliseconds=1000)


def _read_movielens(path: Path) -> _Columns:
    first = next((line for _, line in _lines(path)), "")
    if "userId" in first:
        table, bad = _table(path)
        names = {"user": "userId", "item": "movieId", "value": "rating", "time": "timestamp"}
        table = table.select([name for name in names.values() if name in table.column_names])
        table = table.rename_columns([ours for ours, theirs in names.items() if theirs in table.column_names])
        return _of_table(table, path, bad, milliseconds=1000)
    return _plain(path, "::" if "::" in first else "\t", milliseconds=1000)


def _read_deskdrop(path: Path) -> _Columns:
    table, bad = _table(path)
    names = {"user": "personId", "item": "contentId", "type": "eventType", "time": "timestamp"}
    table = table.select(list(names.values())).rename_columns(list(names))
    found = _of_table(table, path, bad, milliseconds=1000)
    ours = [archive.DESKDROP_TYPES.get(name, name.lower().replace(" ", "-")) for name in found.type.names]
    return _Columns(
        found.user,
        found.item,
        _Names(found.type.codes, ours),
        found.value,
        found.time,
        found.probability,
        found.left_out,
    )


def _plain(path: Path, separator: str, milliseconds: int) -> _Columns:
    """user, item, rating, time without a header."""
    rows = [line.split(separator) for _, line in _lines(path)]
    good = [row for row in rows if 2 <= len(row) <= 4]
    width = max(map(len, good), default=2)
    fields = list(zip(*(row + [""] * (width - len(row)) for row in good), strict=True)) or [(), ()]
    columns: dict[str, Any] = {"user": _numbered(list(fields[0])), "item": _numbered(list(fields[1]))}
    for name, texts in zip(("value", "time"), fields[2:], strict=False):
        columns[name] = np.array([_number(text) for text in texts], np.float64)
    if "time" in columns:
        columns["time"] = columns["time"] * milliseconds
    return _columns(columns, path, len(rows) - len(good))


def _read_csv(path: Path) -> _Columns:
    table, bad = _table(path)
    return _of_table(table, path, bad)


def _read_parquet(path: Path) -> _Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in COLUMNS if name in file.schema_arrow.names]
            table = file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{path} is no whole Parquet file: {str(error).splitlines()[0]}.") from error
    return _of_table(table, path, 0)


def _read_jsonl(path: Path) -> _Columns:
    """Through a typed decoder, one line at a time: lines that aren't rows are left out."""
    import msgspec
    import pyarrow as pa

    class Row(msgspec.Struct):
        user: str | int
        item: str | int
        type: str | None = None
        value: float | None = None
        time: int | float | str | None = None
        probability: float | None = None

    decoder = msgspec.json.Decoder(Row)
    fields: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    bad = 0
    for _, line in _lines(path):
        try:
            row = decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeError):
            bad += 1
            continue
        for name, values in fields.items():
            values.append(getattr(row, name))
    fields["time"] = [round(time) if isinstance(time, float) else time for time in fields["time"]]
    for name in ("user", "item", "time"):
        fields[name] = [None if value is None else str(value) for value in fields[name]]
    kinds = {"value": pa.float64(), "probability": pa.float64()}
    table = pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in fields.items()})
    return _of_table(table, path, bad)


def _of_archive(path: Path, format: archive.Format) -> _Columns:
    return _of_rows(archive.read_events(path, format), str(path))


def _of_rows(batches: Iterator[list[Event | BadRow]] | Iterator[list[Event]], where: str) -> _Columns:
    import pyarrow as pa

    fields: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    bad = 0
    for batch in batches:
        for row in batch:
            if isinstance(row, BadRow):
                bad += 1
                continue
            for name, values in fields.items():
                values.append(getattr(row, name))
    kinds = {"value": pa.float64(), "probability": pa.float64(), "time": pa.int64()}
    table = pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in fields.items()})
    return _of_table(table, Path(where), bad)


# --- tables to columns ----------------------------------------------------------------------------------------------------


def _table(path: Path) -> tuple[pa.Table, int]:
    """All columns of a CSV file as text, and the number of rows that have too many or too few values."""
    import pyarrow as pa
    import pyarrow.csv as pc

    bad = 0

    def skip(_: Any) -> str:
        nonlocal bad
        bad += 1
        return "skip"

    try:
        with archive.opened(path) as file:
            header = file.readline(archive.LONGEST_LINE).decode("utf-8-sig", "replace").strip()
        names = [name.strip().strip('"') for name in header.split(",")]
        with archive.opened(path) as file:
            table = pc.read_csv(
                pa.PythonFile(cast(Any, file), "r"),
                read_options=pc.ReadOptions(column_names=names, skip_rows=1),
                parse_options=pc.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
                convert_options=pc.ConvertOptions(
                    column_types={name: pa.string() for name in names},
                    strings_can_be_null=True,
                    null_values=[""],
                    quoted_strings_can_be_null=True,
                ),
            )
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{path} is no CSV: {str(error).splitlines()[0].rstrip('.')}.") from error
    return table, bad


def _of_table(table: pa.Table, path: Path, bad: int, milliseconds: int = 1) -> _Columns:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in ("user", "item"):
        if name not in table.column_names:
            raise ArchiveError(f"{path} has no column {name}: it has {', '.join(table.column_names) or 'none'}.")
    filled = pc.and_(pc.is_valid(table["user"]), pc.is_valid(table["item"]))
    if not pc.all(filled).as_py():
        kept = table.filter(filled)
        bad += len(table) - len(kept)
        table = kept
    columns: dict[str, Any] = {name: _named(table[name]) for name in ("user", "item")}
    if "type" in table.column_names:
        columns["type"] = _named(table["type"].cast(pa.string()).fill_null(""))
    for name in ("value", "probability"):
        if name in table.column_names:
            columns[name] = _floats(table[name])
    if "time" in table.column_names:
        columns["time"] = _times(table["time"], path) * milliseconds
    return _columns(columns, path, bad)


def _named(column: pa.ChunkedArray) -> _Names:
    import pyarrow as pa

    if not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    encoded = column.dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # of no rows
        return _Names(np.empty(0, np.int64), [])
    return _Names(encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist())


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """NaN where there is no number."""
    import pyarrow as pa

    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid:
        return np.array([_number(text) for text in column.to_pylist()], np.float64)


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else np.nan
    except ValueError:
        return np.nan


def _times(column: pa.ChunkedArray, path: Path) -> NDArray[np.float64]:
    """Milliseconds, as float: NaN where there is none, exact to beyond the year 200,000."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    try:
        return np.asarray(column.cast(pa.int64()).cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid:
        pass
    known: dict[Any, float] = {}
    for value in column.unique().to_pylist():
        try:
            known[value] = np.nan if value is None else archive.milliseconds(value)
        except (ValueError, OverflowError, TypeError) as error:
            raise ArchiveError(
                f"{path} has the time {value!r}, which is none: give milliseconds or RFC 3339."
            ) from error
    return np.array([known[value] for value in column.to_pylist()], np.float64)


def _numbered(names: list[str], rows: NDArray[np.int64] | None = None) -> _Names:
    """Of each name, or of the name at each of `rows`, its number."""
    import pyarrow as pa

    found = _named(pa.chunked_array([pa.array(names, pa.string())]))
    return found if rows is None else _Names(found.codes[rows], found.names)


def _columns(columns: dict[str, Any], path: Path, bad: int) -> _Columns:
    """What a file gives, with the defaults for what it lacks; rows whose value is infinite are left out."""
    n = len(columns["user"].codes)
    value = np.asarray(columns.get("value", np.full(n, np.nan)), np.float64)
    time = np.nan_to_num(np.asarray(columns.get("time", np.zeros(n)), np.float64))
    probability = np.asarray(columns.get("probability", np.full(n, np.nan)), np.float64)
    kept = ~np.isinf(value) & (np.abs(time) < 2**62)
    type_ = columns.get("type", _Names(np.zeros(n, np.int64), [""]))
    bad += n - int(kept.sum())
    return _Columns(
        user=_Names(columns["user"].codes[kept], columns["user"].names),
        item=_Names(columns["item"].codes[kept], columns["item"].names),
        type=_with_types(type_, ~np.isnan(value), kept),
        value=value[kept].astype(np.float32),
        time=time[kept].astype(np.int64),
        probability=probability[kept].astype(np.float32),
        left_out=_bad_rows(bad, int(kept.sum()), path),
    )


def _bad_rows(bad: int, good: int, path: Path) -> list[str]:
    return [f"{bad} of {bad + good} rows of {path} could not be read and were left out."] if bad else []


def _with_types(type_: _Names, valued: NDArray[np.bool_], kept: NDArray[np.bool_]) -> _Names:
    names = [*type_.names, POSITIVE, RATING]
    untyped = np.array([name == "" for name in names], bool)[type_.codes]
    codes = np.where(untyped, np.where(valued, len(names) - 1, len(names) - 2), type_.codes)
    return _Names(codes[kept], names)


# --- several files --------------------------------------------------------------------------------------------------------


def _joined(parts: Sequence[_Columns]) -> Recording:
    user, item, type_ = (_united([getattr(part, name) for part in parts]) for name in ("user", "item", "type"))
    used, codes = np.unique(type_.codes, return_inverse=True)
    if len(used) > np.iinfo(np.uint16).max:
        raise PalateError(f"The files have {len(used)} types of events: the column type holds something else.")
    rows = sum(len(part.value) for part in parts)
    events = EventColumns(
        seq=np.arange(rows, dtype=np.int64),
        user=user.codes,
        item=item.codes,
        type=codes.astype(np.uint16),
        value=np.concatenate([part.value for part in parts]),
        time=np.concatenate([part.time for part in parts]),
        types=tuple(type_.names[code] for code in used),
    )
    return Recording(
        events,
        np.concatenate([part.probability for part in parts]),
        user.names,
        item.names,
        np.repeat(np.arange(len(parts)), [len(part.value) for part in parts]).astype(np.uint8),
        [reason for part in parts for reason in part.left_out],
    )


def _united(columns: Sequence[_Names]) -> _Names:
    numbers: dict[str, int] = {}
    codes = []
    for column in columns:
        own = np.array([numbers.setdefault(name, len(numbers)) for name in column.names], np.int64)
        codes.append(own[column.codes] if len(own) else column.codes)
    return _Names(np.concatenate(codes), list(numbers))


@dataclass(frozen=True, eq=False)
class KnownItems:
    """What a file of items says of those of a recording, by their keys."""

    titles: dict[int, str]
    words: dict[int, tuple[str, ...]]
    """Labels and source of each, by which they are alike."""
    sources: ItemSources


NAMED = ("source", "author", "language")
"""What may be known of an item beside its text and labels, as `Contents` name it."""

NO_ITEMS = KnownItems({}, {}, NO_SOURCES)


def read_items(path: Path, recording: Recording) -> KnownItems:
    """Titles, labels and sources from a file of items, in any format that an import reads. Raises ArchiveError."""
    keys = recording.item_names()
    titles: dict[int, str] = {}
    words: dict[int, tuple[str, ...]] = {}
    source: dict[int, str] = {}
    for batch in archive.read_items(path):
        for item in batch:
            if isinstance(item, BadRow) or (key := keys.get(item.id)) is None:
                continue
            titles[key] = item.title or item.id
            words[key] = (
                *(f"label {label}" for label in item.labels),
                *([f"source {item.source}"] if item.source else []),
            )
            if item.source:
                source[key] = item.source
    names = {name: number for number, name in enumerate(sorted(set(source.values())))}
    of_items = np.array(sorted(source), np.int64)
    return KnownItems(
        titles, words, ItemSources(of_items, np.array([names[source[key]] for key in sorted(source)], np.int64))
    )


def read_contents(path: Path, recording: Recording) -> Contents:
    """What a file of items says of each of a recording, in the order of their keys; texts as vectors. Raises ArchiveError."""
    keys, n = recording.item_names(), len(recording.item_ids)
    text = np.zeros((n, embedding.LENGTH), np.float16)
    labels: list[tuple[str, ...]] = [()] * n
    named = {name: np.full(n, -1) for name in NAMED}
    for batch in archive.read_items(path):
        found = [(keys[item.id], item) for item in batch if not isinstance(item, BadRow) and item.id in keys]
        texts = embedding.embed((item.title or "", to_plain(item.text or "")) for _, item in found)
        text[[key for key, _ in found]] = texts
        for key, item in found:
            labels[key] = item.labels
            for name, own in named.items():
                own[key] = label_keys([getattr(item, name)])[0] if getattr(item, name) else -1
    offsets = np.cumsum([0, *map(len, labels)]).astype(np.int64)
    return Contents(text, named.pop("source"), offsets, label_keys([label for own in labels for label in own]), named)
