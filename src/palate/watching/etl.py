"""Archives of a folder to views by day: find → read what is new → build the days that it touches → report.

Each step can be killed at any moment and goes on with the next run: what an archive gave is remembered after its rows are in
place, and a day after its file is. A day is built again exactly when an archive with rows of it came, changed or was mended.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import msgspec

from palate.errors import ArchiveError
from palate.watching import archives, embedded
from palate.watching.archives import Archive, Built, Manifest, Read
from palate.watching.engines import Engine
from palate.watching.rules import WatchParams

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Report:
    """What a run did, and what is there now."""

    read: dict[str, Read]
    """Archives that this run read, or failed to."""
    built: dict[str, dict[str, int]]
    """Counts of the days that this run built, by date."""
    failed: dict[str, str]
    """Archives of which nothing was taken, with the reason, of this run and before."""
    ignored: list[str]
    heavy: int
    """People with more views in 30 days than a person has."""
    days: int = 0
    """Days that are there in all."""
    totals: dict[str, int] = field(default_factory=dict)
    """Counts of all days."""


@dataclass(frozen=True)
class Place:
    """Where what was made of the archives lies."""

    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def staged(self) -> Path:
        return self.folder / "staged"

    def views(self, day: int) -> Path:
        """The file of a day's views."""
        return self.folder / "views" / f"day={iso(day)}" / "views.parquet"

    @property
    def heavy(self) -> Path:
        """The file of people who have more views than a person has: their keys are in its column `user`."""
        return self.folder / "heavy.parquet"


def run(
    folder: Path,
    place: Place,
    params: WatchParams,
    names: Mapping[str, str] | None = None,
    progress: Progress = lambda _what, _done, _all: None,
    threads: int | None = None,
    engine: Engine | None = None,
) -> Report:
    """Bring the views up to the archives. `names` gives an archive's own name of a column of ours.

    `engine` None: this machine's, with so many `threads` (None: all processors). Raises ArchiveError when the folder can't be
    read, DataFolderError for a broken manifest; an archive that can't be read is named in the report, and the others are used.
    """
    found, manifest = archives.find(folder), archives.load(place.manifest)
    with embedded.engine(place.folder / "spill", threads) if engine is None else nullcontext(engine) as runs:
        read = _read_new(runs, found.archives, place, manifest, params, names or {}, progress)
        built = _build_touched(runs, place, manifest, params, progress)
        views = [place.views(day) for day in sorted(manifest.days)]
        heavy = runs.find_heavy(views, params, place.heavy) if views else 0
    _drop_old(place, manifest, params)
    shutil.rmtree(place.folder / "spill", ignore_errors=True)
    return _report(manifest, read, built, found.ignored, heavy)


def iso(day: int) -> str:
    """The date of a day's number."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _read_new(
    engine: Engine,
    found: list[Archive],
    place: Place,
    manifest: Manifest,
    params: WatchParams,
    names: Mapping[str, str],
    progress: Progress,
) -> list[str]:
    """Names of the archives that were read now."""
    new = [archive for archive in found if _is_new(archive, manifest)]
    for number, archive in enumerate(new):
        progress(f"reading {archive.name}", number, len(new))
        manifest.archives[archive.name] = _read(engine, archive, place, manifest, params, names)
        archives.save(place.manifest, manifest)
    return [archive.name for archive in new]


def _is_new(archive: Archive, manifest: Manifest) -> bool:
    known = manifest.archives.get(archive.name)
    return known is None or known.fingerprint != archive.fingerprint or known.error is not None


def _read(
    engine: Engine,
    archive: Archive,
    place: Place,
    manifest: Manifest,
    params: WatchParams,
    names: Mapping[str, str],
) -> Read:
    target, known = place.staged / archive.kind, manifest.archives.get(archive.name)
    try:
        rows = engine.stage(archive, names, target, params)
    except ArchiveError as error:  # what an earlier, whole version of it gave stays
        kept = known or Read(kind=archive.kind, fingerprint="")
        return msgspec.structs.replace(kept, error=str(error))
    return Read(kind=archive.kind, fingerprint=archive.fingerprint, rows=rows)


def _build_touched(
    engine: Engine, place: Place, manifest: Manifest, params: WatchParams, progress: Progress
) -> list[int]:
    """Days that were built now."""
    rules = msgspec.json.encode(params, order="sorted").decode()
    inputs = {day: archives.inputs_of(manifest, day, rules) for day in archives.days_with_sessions(manifest.archives)}
    kept = _oldest_kept(manifest, params)
    touched = [
        day
        for day, used in inputs.items()
        if day >= kept and (day not in manifest.days or manifest.days[day].inputs != used)
    ]
    _remove_emptied(place, manifest, [day for day in manifest.days if day >= kept and day not in inputs])
    for number, day in enumerate(touched):
        progress(f"building {iso(day)}", number, len(touched))
        counts = engine.build(place.staged, day, params, place.views(day))
        logged = manifest.days[day].logged if day in manifest.days else False
        manifest.days[day] = Built(inputs=inputs[day], counts=counts, logged=logged)
        archives.save(place.manifest, manifest)
    return touched


def _remove_emptied(place: Place, manifest: Manifest, days: list[int]) -> None:
    """Days whose sessions a changed archive took back."""
    for day in days:
        place.views(day).unlink(missing_ok=True)
        del manifest.days[day]
    if days:
        archives.save(place.manifest, manifest)


def _oldest_kept(manifest: Manifest, params: WatchParams) -> int:
    """Rows of a day before this can't come any more: those would have a wrong clock."""
    days = archives.days_with_sessions(manifest.archives)
    return max(days, default=0) - params.latest_days - 1


def _drop_old(place: Place, manifest: Manifest, params: WatchParams) -> None:
    """Staged rows that no day needs any more, so that the folder doesn't grow without end; views stay."""
    oldest = _oldest_kept(manifest, params)
    for folder in place.staged.glob("*/day=*"):
        if 0 <= int(folder.name.removeprefix("day=")) < oldest - 1:
            shutil.rmtree(folder)


def _report(manifest: Manifest, read: list[str], built: list[int], ignored: list[str], heavy: int) -> Report:
    totals: dict[str, int] = {}
    for day in manifest.days.values():
        for name, count in day.counts.items():
            totals[name] = totals.get(name, 0) + count
    return Report(
        read={name: manifest.archives[name] for name in read},
        built={iso(day): manifest.days[day].counts for day in built},
        failed={name: one.error for name, one in manifest.archives.items() if one.error is not None},
        ignored=ignored,
        heavy=heavy,
        days=len(manifest.days),
        totals=totals,
    )
