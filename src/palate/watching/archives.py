"""The daily archives in a folder, and what is remembered of those that were read."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import msgspec

from palate.errors import ArchiveError, DataFolderError

ENDINGS = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz")
KINDS = {"session": "sessions", "tick": "ticks"}
"""What an archive's name must contain, and what it then holds."""
_DATE = re.compile(r"(20\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)")


@dataclass(frozen=True)
class Archive:
    """One file of sessions or of ticks."""

    path: Path
    name: str
    """Its path inside the folder."""
    kind: str
    """sessions or ticks."""
    date: int | None
    """Number of the day in its name since 1970; None when there is none."""
    fingerprint: str
    """Changes when the file does."""

    @property
    def label(self) -> str:
        """What its staged files are called."""
        return f"{zlib.crc32(self.name.encode()):08x}"


class Read(msgspec.Struct, kw_only=True):
    """What is remembered of an archive."""

    kind: str
    fingerprint: str
    rows: dict[int, int] = {}
    """By the number of the day; −1 for rows that say nothing, −2 for those of a clock that is off."""
    error: str | None = None
    """Why nothing was taken of it; None when all was."""


class Built(msgspec.Struct, kw_only=True):
    """What is remembered of a day."""

    inputs: list[str]
    """What it was made of: names and fingerprints of the archives, and the rules."""
    counts: dict[str, int]
    logged: bool = False
    """Whether its views are in the event log."""


class Manifest(msgspec.Struct, kw_only=True):
    """All that was done so far."""

    archives: dict[str, Read] = {}
    days: dict[int, Built] = {}


@dataclass(frozen=True)
class Found:
    """What lies in a folder."""

    archives: list[Archive] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Files whose name says neither session nor tick, or that are no CSV."""


def find(folder: Path) -> Found:
    """The archives of a folder and the folders in it, by name. Raises ArchiveError when it can't be read."""
    if not folder.is_dir():
        raise ArchiveError(f"{folder} is no folder: name the one that holds the daily archives.")
    found = Found()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        name = str(path.relative_to(folder))
        kinds = {kind for word, kind in KINDS.items() if word in path.name.lower()}
        if len(kinds) != 1 or not path.name.lower().endswith(ENDINGS):
            found.ignored.append(name)
            continue
        state = path.stat()
        fingerprint = f"{state.st_size}-{state.st_mtime_ns}"
        found.archives.append(Archive(path, name, kinds.pop(), day_in(path.name), fingerprint))
    return found


def day_in(name: str) -> int | None:
    """The number of the day that a file's name tells, since 1970."""
    found = _DATE.search(name)
    try:
        return (date(*map(int, found.groups())) - date(1970, 1, 1)).days if found else None
    except ValueError:
        return None


def load(path: Path) -> Manifest:
    """What was done so far; nothing where there is no file. Raises DataFolderError for one that can't be understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except (OSError, msgspec.MsgspecError) as error:
        raise DataFolderError(f"{path} can't be read ({error}): delete it to read all archives again.") from error


def save(path: Path, manifest: Manifest) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    os.replace(part, path)


def inputs_of(manifest: Manifest, day: int, rules: str) -> list[str]:
    """What a day is made of: each archive with sessions of this day or the one before, or ticks of this one or the next."""
    wanted = {"sessions": (day - 1, day), "ticks": (day, day + 1)}
    used = [
        f"{name} {read.fingerprint}"
        for name, read in manifest.archives.items()
        if any(day in read.rows for day in wanted[read.kind])
    ]
    return [*sorted(used), rules]


def days_with_sessions(archives: Mapping[str, Read]) -> list[int]:
    """Days of which there is at least one session, in order."""
    return sorted({day for read in archives.values() if read.kind == "sessions" for day in read.rows if day >= 0})
