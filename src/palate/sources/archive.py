"""Files of items and events, in and out: JSONL, CSV and Parquet, and the named formats of known data sets and of Gorse.

Reading is lazy, in lists of at most `BATCH` rows; a row that breaks a rule comes out as a `BadRow` with its place, and the rest
goes on. Columns of events: user, item, type, value, time (milliseconds since 1970 or RFC 3339; empty for now), and whatever else
`domain.Event` has; `seq` and `received` are written but not read. Columns of items: item, title, text, url, source, published,
kind, labels, and the other fields of `domain.Item`; in CSV labels are joined by `|` (a JSON list where one holds a `|`) and media
are JSON.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, cast

import msgspec

from palate.domain import Event, Item, Media, from_milliseconds, to_milliseconds
from palate.errors import ArchiveError, PalateError

BATCH = 5_000
LONGEST_LINE = 16 * 1024 * 1024
"""Characters: a longer line is an attack or another kind of file."""

Format = Literal["auto", "jsonl", "csv", "parquet", "movielens", "deskdrop", "gorse"]
Row = Mapping[str, Any]

EVENT_COLUMNS = tuple(Event.__struct_fields__)
GIVEN_BY_THE_LOG = ("seq", "received")
"""Columns of events that are written, and ignored when read: a log gives its own."""
ITEM_COLUMNS = ("item", *(name for name in Item.__struct_fields__ if name != "id"))

DESKDROP_TYPES = {
    "VIEW": "viewed",
    "LIKE": "like",
    "BOOKMARK": "save",
    "COMMENT CREATED": "comment",
    "FOLLOW": "follow",
}
GORSE_TYPES = {"read": "viewed"}
MOVIELENS_GENRES = [
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
"""The columns of `u.item`, in order."""


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read: its place in the file, counted from 1 as an editor does, and why."""

    line: int
    reason: str


def read_events(
    path: Path, format: Format = "auto", check: Callable[[Event], Event] = lambda event: event
) -> Iterator[list[Event | BadRow]]:
    """The events of a file; one that `check` refuses with a PalateError comes out as a BadRow.

    Raises ArchiveError when the file as a whole can't be read.
    """
    return _batches(_convert(_rows(path, format, "events"), lambda row: check(_event(row))))


def read_items(
    path: Path, format: Format = "auto", check: Callable[[Item], Item] = lambda item: item
) -> Iterator[list[Item | BadRow]]:
    """The items of a file; one that `check` refuses with a PalateError comes out as a BadRow.

    Raises ArchiveError when the file as a whole can't be read.
    """
    return _batches(_convert(_rows(path, format, "items"), lambda row: check(_item(row))))


def write_events(path: Path, batches: Iterable[list[Event]]) -> int:
    """Write events to a file by its ending; it appears whole or not at all. Returns the number of rows."""
    return _write(path, EVENT_COLUMNS, ([msgspec.to_builtins(event) for event in batch] for batch in batches))


def write_items(path: Path, batches: Iterable[list[Item]]) -> int:
    """Write items to a file by its ending; it appears whole or not at all. Returns the number of rows."""
    return _write(path, ITEM_COLUMNS, ([_item_row(item) for item in batch] for batch in batches))


def write_rows(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> int:
    """Write plain rows with these columns to a file by its ending; it appears whole or not at all. Returns their number."""
    return _write(path, columns, [rows])


# --- finding the format ---------------------------------------------------------------------------------------------------


def _rows(path: Path, format: Format, what: Literal["events", "items"]) -> Iterator[tuple[int, Row]]:
    """Place and columns of each row, under our own names."""
    if format == "auto":
        format = detect(path)
    if format == "parquet":
        return _parquet_rows(path)
    if format == "movielens":
        return _movielens_events(path) if what == "events" else _movielens_items(path)
    if format == "deskdrop":
        return _mapped(_csv_rows(path), _deskdrop_event if what == "events" else _deskdrop_item)
    if format == "gorse":
        return _mapped(_json_rows(path), _gorse_event if what == "events" else _gorse_item)
    return _json_rows(path) if format == "jsonl" else _csv_rows(path)


def detect(path: Path) -> Format:
    """The format of a file, by its beginning and its name. Raises ArchiveError when it is none of them."""
    with opened(path) as file:
        head = file.read(4096)
    if head.startswith(b"PAR1"):
        return "parquet"
    first = head.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip()
    columns = {name.strip().strip('"') for name in first.split(",")}
    if first.startswith("{"):
        return "gorse" if re.search(r'"(UserId|ItemId)"\s*:', first) else "jsonl"
    if "movieId" in columns or "::" in first or path.name in ("u.data", "u.item"):
        return "movielens"
    if {"contentId", "eventType"} <= columns:
        return "deskdrop"
    if {"item", "user"} & columns:
        return "csv"
    raise ArchiveError(
        f"{path} is in no format that Palate knows: name one with --format, or give the file a header of columns."
    )


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if it is gzip. Raises ArchiveError, also for what goes wrong while it is read."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            yield cast(IO[bytes], file)
    except (OSError, EOFError, zlib.error) as error:  # also a gzip file that was damaged or cut short
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ArchiveError(f"{path} can't be read: {reason}.") from error


def lines(path: Path, encoding: str = "utf-8-sig") -> Iterator[tuple[int, str]]:
    """Number, counted from 1, and text of each line. Raises ArchiveError, also for a line beyond `LONGEST_LINE`."""
    with opened(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
            if len(line) == LONGEST_LINE:
                raise ArchiveError(f"{path}, line {number} is longer than {LONGEST_LINE} bytes.")
            yield number, line.decode(encoding, "replace")


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in lines(path):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else {"": "the line is no JSON object"}


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.DictReader(line for _, line in lines(path))
    try:
        for row in reader:
            if None in row:
                yield reader.line_num, {"": "the line has more values than the header has columns"}
            else:
                yield reader.line_num, {name: value for name, value in row.items() if value}
    except csv.Error as error:
        raise ArchiveError(f"{path}, line {reader.line_num} is no CSV: {error}.") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: value for name, value in row.items() if value is not None}
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{path} is no whole Parquet file: {str(error).splitlines()[0]}.") from error


# --- known data sets ------------------------------------------------------------------------------------------------------


def _mapped(rows: Iterator[tuple[int, Row]], change: Callable[[Row], Row]) -> Iterator[tuple[int, Row]]:
    for number, row in rows:
        try:
            yield number, change(row)
        except (KeyError, ValueError, TypeError) as error:
            yield number, {"": f"the column {error} is missing or wrong"}


def _movielens_events(path: Path) -> Iterator[tuple[int, Row]]:
    """`ratings.csv` (latest), `ratings.dat` (1M), `u.data` (100K): user, item, rating, seconds since 1970."""
    for number, line in lines(path, "latin-1"):
        if number == 1 and "userId" in line:
            continue
        separator = "::" if "::" in line else "\t" if "\t" in line else ","
        try:
            user, item, rating, seconds = line.strip().split(separator)
            yield (
                number,
                {"user": user, "item": item, "type": "rating", "value": float(rating), "time": 1000 * int(seconds)},
            )
        except ValueError:
            yield number, {"": "a rating has a user, an item, a number and whole seconds"}


def _movielens_items(path: Path) -> Iterator[tuple[int, Row]]:
    """`movies.csv` (latest), `movies.dat` (1M), `u.item` (100K): item, title, genres."""
    if path.suffix == ".csv":
        for number, row in _csv_rows(path):
            yield number, _movie(row.get("movieId", ""), row.get("title", ""), row.get("genres", "").split("|"))
        return
    for number, line in lines(path, "latin-1"):
        fields = line.rstrip("\r\n").split("::" if "::" in line else "|")
        if len(fields) == 3:
            yield number, _movie(fields[0], fields[1], fields[2].split("|"))
        elif len(fields) == 24:
            flags = zip(MOVIELENS_GENRES, fields[5:], strict=True)
            yield number, _movie(fields[0], fields[1], [genre for genre, flag in flags if flag == "1"])
        else:
            yield number, {"": "a film has an id, a title and genres"}


def _movie(id: str, title: str, genres: list[str]) -> Row:
    labels = [genre for genre in genres if genre and genre != "(no genres listed)"]
    return {"item": id, "title": title, "source": "MovieLens", "kind": "video", "labels": labels, "language": "en"}


def _deskdrop_event(row: Row) -> Row:
    type_ = row["eventType"]
    return {
        "user": row["personId"],
        "item": row["contentId"],
        "type": DESKDROP_TYPES.get(type_, type_.lower().replace(" ", "-")),
        "time": 1000 * int(row["timestamp"]),
    }


def _deskdrop_item(row: Row) -> Row:
    fields = {"title": "title", "text": "text", "url": "url", "language": "lang"}
    return {
        "item": row["contentId"],
        "published": 1000 * int(row["timestamp"]),
        "kind": "video" if row.get("contentType") == "VIDEO" else "article",
        "source": "Deskdrop",
        **{ours: row[theirs] for ours, theirs in fields.items() if row.get(theirs)},
    }


def _gorse_event(row: Row) -> Row:
    event = {"user": row["UserId"], "item": row["ItemId"], "value": row.get("Value"), "time": row.get("Timestamp")}
    type_ = str(row["FeedbackType"])
    return {**event, "type": GORSE_TYPES.get(type_, type_)}


def _gorse_item(row: Row) -> Row:
    labels = [*(row.get("Categories") or []), *gorse_strings(row.get("Labels"))]
    item = {"item": row["ItemId"], "title": row.get("Comment"), "published": row.get("Timestamp"), "labels": labels}
    return {name: value for name, value in item.items() if value}


def gorse_strings(value: Any) -> Iterator[str]:
    """Every string inside Gorse's free-form labels; numbers are embeddings, which Palate learns by itself."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from gorse_strings(part)


# --- rows to values -------------------------------------------------------------------------------------------------------


def _convert(rows: Iterator[tuple[int, Row]], make: Callable[[Row], Any]) -> Iterator[Any]:
    for number, row in rows:
        try:
            yield make(row)
        except (PalateError, msgspec.ValidationError, ValueError, OverflowError, TypeError) as error:
            yield BadRow(number, str(error).replace(" - at `$", " in `").rstrip("."))


def _event(row: Row) -> Event:
    _require(row, "user", "item", "type")
    fields = {name: row[name] for name in EVENT_COLUMNS if name not in GIVEN_BY_THE_LOG and row.get(name) is not None}
    if "time" in fields:
        fields["time"] = milliseconds(fields["time"])
    fields.update({name: str(fields[name]) for name in ("user", "item") if not isinstance(fields[name], str)})
    event = msgspec.convert(fields, Event, strict=False)
    if event.value is not None and not math.isfinite(event.value):
        raise ValueError("the value is no finite number")
    return event


def _item(row: Row) -> Item:
    _require(row, "item")
    fields = {name: row[name] for name in ITEM_COLUMNS if row.get(name) is not None}
    fields["id"] = str(fields.pop("item"))
    if "published" in fields:
        fields["published"] = _time(fields["published"])
    if isinstance(fields.get("labels"), str):
        fields["labels"] = _labels(fields["labels"])
    if isinstance(fields.get("media"), str):
        fields["media"] = msgspec.json.decode(fields["media"], type=tuple[Media, ...])
    return msgspec.convert(fields, Item, strict=False)


def _labels(text: str) -> list[str]:
    if text.startswith("["):
        return msgspec.json.decode(text, type=list[str])
    return [label for label in text.split("|") if label]


def _require(row: Row, *names: str) -> None:
    if "" in row:
        raise ValueError(row[""])
    for name in names:
        if row.get(name) in (None, ""):
            raise ValueError(f"the column {name} is missing or empty")


def milliseconds(value: Any) -> int:
    """Milliseconds since 1970 of a time as files give it. Raises ValueError, OverflowError or TypeError."""
    return to_milliseconds(_time(value))


def _time(value: Any) -> datetime:
    """An aware time from milliseconds since 1970, from RFC 3339 text or from a time; without a zone it is UTC."""
    if isinstance(value, str) and not value.lstrip("-").isdigit():
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return from_milliseconds(int(value))


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


# --- writing --------------------------------------------------------------------------------------------------------------


def _item_row(item: Item) -> dict[str, Any]:
    row = msgspec.to_builtins(item, builtin_types=(datetime,))
    row["item"] = row.pop("id")
    row["published"] = None if item.published is None else to_milliseconds(item.published)
    return cast(dict[str, Any], row)


def _write(path: Path, columns: tuple[str, ...], batches: Iterable[list[dict[str, Any]]]) -> int:
    writers = {".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise ArchiveError(f"{path.name} must end in .jsonl, .csv or .parquet: the ending chooses the format.")
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            rows = writers[path.suffix](file, columns, batches)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise ArchiveError(f"{path} can't be written: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _write_jsonl(file: IO[bytes], columns: tuple[str, ...], batches: Iterable[list[dict[str, Any]]]) -> int:
    rows = 0
    for batch in batches:
        for row in batch:
            kept = {name: row[name] for name in columns if row[name] not in (None, [], ())}
            file.write(msgspec.json.encode(kept) + b"\n")
        rows += len(batch)
    return rows


def _write_csv(file: IO[bytes], columns: tuple[str, ...], batches: Iterable[list[dict[str, Any]]]) -> int:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, columns, lineterminator="\r\n")  # as RFC 4180; quotes a lone \r too
    writer.writeheader()
    rows = 0
    for batch in batches:
        writer.writerows([_flat(row) for row in batch])
        rows += len(batch)
    text.detach()
    return rows


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat = dict(row)
    if "labels" in row:
        plain = all(label and "|" not in label and label[0] != "[" for label in row["labels"])
        flat["labels"] = "|".join(row["labels"]) if plain else msgspec.json.encode(row["labels"]).decode()
        flat["media"] = msgspec.json.encode(row["media"]).decode() if row["media"] else None
    return flat


def _write_parquet(file: IO[bytes], columns: tuple[str, ...], batches: Iterable[list[dict[str, Any]]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"value": pa.float64(), "probability": pa.float64(), "duration": pa.float64(), "time": pa.int64()}
    kinds |= {"published": pa.int64(), "position": pa.int32(), "labels": pa.list_(pa.string())}
    kinds |= {name: pa.int64() for name in GIVEN_BY_THE_LOG}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            table = [
                {**row, "media": msgspec.json.encode(row["media"]).decode()} if "media" in row else row for row in batch
            ]
            writer.write_table(pa.Table.from_pylist(table, schema))
            rows += len(batch)
    return rows
