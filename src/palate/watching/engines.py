"""What runs the rules: an engine reads archives and joins them, DuckDB on this machine or Spark on many."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from palate.errors import ArchiveError
from palate.watching import rules
from palate.watching.archives import Archive
from palate.watching.rules import WatchParams


@dataclass(frozen=True)
class Engine:
    """Three steps; each leaves its result whole or not at all, and those of all engines are the same rows."""

    stage: Callable[[Archive, Mapping[str, str], Path, WatchParams], dict[int, int]]
    """(archive, its names of our columns, folder) → rows by day, in `folder/day=N/LABEL-….parquet` in place of what an earlier
    reading of the archive left there. Raises ArchiveError when it can't be read to its end, or lacks a column; nothing is changed
    then."""
    build: Callable[[Path, int, WatchParams, Path], dict[str, int]]
    """(folder of staged rows, day, file) → what was counted, with the day's views in the file, in order."""
    find_heavy: Callable[[Sequence[Path], WatchParams, Path], int]
    """(files of views, file) → how many people have more of them than a person has; their keys are in the file."""


SESSIONS = {
    "session": "string",
    "viewer": "string",
    "item": "string",
    "start": "long",
    "device": "string",
    "duration": "double",
}
TICKS = {"session": "string", "time": "long"}
"""Columns of staged rows."""


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


def staged_files(folder: Path, days: Sequence[int]) -> list[str]:
    """The files of these days' staged rows, absolute."""
    return [str(file.resolve()) for day in days for file in sorted((folder / f"day={day}").glob("*.parquet"))]


def put_in_place(part: Path, target: Path, label: str) -> None:
    """Move the new files of an archive where its old ones were. Killed in the middle, it is read again: the manifest's line comes
    after."""
    for old in target.glob(f"day=*/{label}-*.parquet"):
        old.unlink()
    for file in part.glob("day=*/*.parquet"):
        folder = target / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(file, folder / f"{label}-{file.name}")
