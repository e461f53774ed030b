"""Labels with their texts out of an installation and into another, as lines of JSON: annotator, task, item, other, value, gold.

With each goes the item's title, text and language, so that it can be learned from where the item was never seen. `time` is
written, and not read: an answer is of the time at which it came in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from palate import database, identities, labels, people
from palate.database import reading, writing
from palate.errors import ArchiveError, PalateError
from palate.labels import ALONE, Answer, LabelParams, Task, Text
from palate.sources import archive
from palate.sources.archive import BadRow
from palate.text.understanding import TEXT_LIMIT
from palate.transfer import Report

BATCH = 500
"""Labels taken in one transaction."""


class LabelRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the file."""

    annotator: str
    task: Task
    item: str
    value: str
    other: str | None = None
    gold: bool = False
    time: int | None = None
    """Milliseconds since 1970."""
    title: str = ""
    text: str = ""
    """Plain."""
    language: str | None = None


def export_labels(engine: sa.Engine, path: Path) -> int:
    """Every answer that wasn't skipped, to a file of lines of JSON. Returns how many. Raises ArchiveError, DatabaseError."""
    with reading(engine) as connection:
        rows = list(_rows(connection))
    if path.suffix != ".jsonl":
        raise ArchiveError(f"{path.name} must end in .jsonl: labels are written as lines of JSON.")
    return archive.write_rows(path, LabelRow.__struct_fields__, [msgspec.structs.asdict(row) for row in rows])


def import_labels(engine: sa.Engine, path: Path, params: LabelParams, now: datetime) -> Report:
    """Take the answers of a file as if they were given now. Raises ArchiveError, NotDurable."""
    report, batch = Report(), list[LabelRow]()
    for number, line in archive.lines(path):
        row = _read(number, line)
        if isinstance(row, BadRow):
            report.leave_out(row)
            continue
        batch.append(row)
        if len(batch) == BATCH:
            report.taken += _store(engine, batch, params, now)
            batch = []
    report.taken += _store(engine, batch, params, now)
    return report


def _rows(connection: sa.Connection) -> Iterator[LabelRow]:
    said, users, items, texts = (
        database.label_answers,
        database.users,
        database.items,
        database.labelled_items,
    )
    second = items.alias()
    query = (
        sa.select(said, users.c.id, items.c.id.label("item_id"), second.c.id.label("other_id"))
        .add_columns(texts.c.title, texts.c.text, texts.c.language)
        .select_from(
            said.join(users, users.c.key == said.c.annotator)
            .join(items, items.c.key == said.c.item)
            .outerjoin(second, second.c.key == said.c.other)
            .outerjoin(texts, texts.c.item == said.c.item)
        )
        .where(said.c.value != labels.SKIPPED)
        .order_by(said.c.time, said.c.task, said.c.item, said.c.other, said.c.annotator)
    )
    for row in connection.execute(query):
        yield LabelRow(
            annotator=row.id,
            task=row.task,
            item=row.item_id,
            value=row.value,
            other=row.other_id,
            gold=bool(row.gold),
            time=row.time,
            title=row.title or "",
            text=row.text or "",
            language=row.language,
        )


def _read(number: int, line: str) -> LabelRow | BadRow:
    """The row of a line, checked as far as it can be by itself."""
    try:
        row = msgspec.json.decode(line, type=LabelRow)
        for id, what in (
            (row.annotator, "the annotator"),
            (row.item, "the item"),
            (row.other or "-", "the other item"),
        ):
            identities.check_id(id, what)
        labels.question(row.task, 1, 2 if row.other is not None else ALONE)
        labels.check_value(row.task, row.value)
    except (msgspec.DecodeError, UnicodeError, PalateError) as error:
        return BadRow(number, str(error).rstrip("."))
    return row


def _store(engine: sa.Engine, rows: Sequence[LabelRow], params: LabelParams, now: datetime) -> int:
    with writing(engine) as connection:
        ids = {id for row in rows for id in (row.item, row.other) if id is not None}
        keys = identities.item_keys(connection, ids, now)
        given = {keys[row.other]: Text("", "", None) for row in rows if row.other}
        given |= {keys[row.item]: Text(row.title, row.text[:TEXT_LIMIT], row.language) for row in rows}
        labels.keep_texts(connection, given)
        persons = {
            name: (people.get(connection, name) or people.upsert_user(connection, name, {}, now)).key
            for name in sorted({row.annotator for row in rows})
        }
        said = [_answer(row, keys, persons) for row in rows if row.item != row.other]
        labels.put(connection, said, params, now)
    return len(said)


def _answer(row: LabelRow, keys: dict[str, int], persons: dict[str, Any]) -> Answer:
    other = ALONE if row.other is None else keys[row.other]
    return Answer(persons[row.annotator], labels.question(row.task, keys[row.item], other), row.value, row.gold)
