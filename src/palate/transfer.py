"""Whole files of items and events into an installation and out of it, beside whatever runs on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from palate import catalog, events, ingest
from palate.database import reading, writing
from palate.domain import Item
from palate.identities import check_id
from palate.sources import archive
from palate.sources.archive import BadRow, Format

T = TypeVar("T")

SHOWN_FAULTS = 5
"""Bad rows that a report names; the others are only counted."""


@dataclass
class Report:
    """What an import took, and what it had to leave out."""

    taken: int = 0
    left_out: int = 0
    faults: list[BadRow] = field(default_factory=list)

    def leave_out(self, fault: BadRow) -> None:
        """Count a row that was not taken; the first few are kept to be shown."""
        self.left_out += 1
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append(fault)


Progress = Callable[[int], None]
"""Told the number of rows taken so far."""


def import_events(
    engine: sa.Engine, path: Path, format: Format, now: datetime, progress: Progress = lambda _: None
) -> Report:
    """Append the events of a file to the log, durable batch by batch; items that only they name can be served from then on.

    Raises ArchiveError when the file can't be read, NotDurable when the database can't be written.
    """
    report = Report()
    for batch in archive.read_events(path, format, lambda event: events.check(event, None, now)):
        good = _good(batch, report)
        with writing(engine) as connection:
            report.taken += events.append(connection, good, now)
            catalog.admit(connection, {event.item for event in good}, now)
        progress(report.taken)
    return report


def import_items(
    engine: sa.Engine, path: Path, format: Format, now: datetime, progress: Progress = lambda _: None
) -> Report:
    """Store the items of a file, as if a source had given them. Raises ArchiveError, NotDurable."""
    report = Report()
    for batch in archive.read_items(path, format, _check_item):
        report.taken += len(ingest.store_items(engine, _good(batch, report), now))
        progress(report.taken)
    return report


def export_events(engine: sa.Engine, folder: Path, path: Path, progress: Progress = lambda _: None) -> int:
    """Every durable event once, in the order of the log, to a file by its ending; `folder` holds the sealed days."""
    return archive.write_events(path, _counted(events.stream(engine, folder), progress))


def export_items(engine: sa.Engine, path: Path, progress: Progress = lambda _: None) -> int:
    """Every live item, in the order of its key, to a file by its ending."""
    with reading(engine) as connection:
        return archive.write_items(path, _counted(catalog.stream(connection), progress))


def _check_item(item: Item) -> Item:
    check_id(item.id, "an item's id")
    if item.source is not None:
        check_id(item.source, "a source's id")
    return item


def _good(rows: list[T | BadRow], report: Report) -> list[T]:
    for row in rows:
        if isinstance(row, BadRow):
            report.leave_out(row)
    return [row for row in rows if not isinstance(row, BadRow)]


def _counted(batches: Iterable[list[T]], progress: Progress) -> Iterator[list[T]]:
    rows = 0
    for batch in batches:
        yield batch
        rows += len(batch)
        progress(rows)
