"""Views of the watch archives into the event log: each day once, when nothing more is to be expected of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa

from palate import catalog, events
from palate.database import writing
from palate.domain import Event
from palate.errors import ArchiveError
from palate.sources import archive
from palate.sources.archive import BadRow
from palate.watching import archives
from palate.watching.archives import Manifest
from palate.watching.etl import Place, iso
from palate.watching.rules import WatchParams

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def enter(engine: sa.Engine, place: Place, params: WatchParams, now: datetime, progress: Progress) -> int:
    """Append the views of all settled days that aren't in the log yet; how many were handed to it.

    Videos that only they name can be served from then on.

    People with more views than a person has are left out. Killed in the middle it goes on with the next run, and each view counts
    once: an event's id is its day and place. Raises NotDurable, ArchiveError.
    """
    manifest, heavy = archives.load(place.manifest), _heavy(place.heavy)
    days = settled(manifest, params)
    entered = 0
    for number, day in enumerate(days):
        progress(f"entering {iso(day)} into the log", number, len(days))
        for batch in _events(place.views(day), day, heavy):
            with writing(engine) as connection:
                entered += events.append(connection, batch, now)
                catalog.admit(connection, {event.item for event in batch}, now)
        manifest.days[day].logged = True
        archives.save(place.manifest, manifest)
    return entered


def settled(manifest: Manifest, params: WatchParams) -> list[int]:
    """Days that are to enter the log: built, not entered, and `settled_days` or more before the newest day of any archive."""
    newest = max((max(read.rows, default=-1) for read in manifest.archives.values()), default=-1)
    return sorted(
        day for day, built in manifest.days.items() if not built.logged and day <= newest - params.settled_days
    )


def _events(path: Path, day: int, heavy: frozenset[str]) -> Iterator[list[Event]]:
    place = 0
    for batch in archive.read_events(path, "parquet"):
        happened = []
        for event in batch:
            if isinstance(event, BadRow):
                raise ArchiveError(
                    f"{path} was changed by another program ({event.reason}): delete it, and it is made again."
                )
            happened.append(msgspec.structs.replace(event, id=f"watch-{day}-{place}", surface="player"))
            place += 1
        yield [event for event in happened if event.user not in heavy]


def _heavy(path: Path) -> frozenset[str]:
    if not path.exists():
        return frozenset()
    from pyarrow import parquet

    return frozenset(parquet.read_table(path).column("user").to_pylist())
