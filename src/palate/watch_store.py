"""A player's archives in an object store, and what became of them put back: copies of what is new, before and after the ETL."""

from __future__ import annotations

from pathlib import Path

import msgspec

from palate.store import Store
from palate.watching.etl import Place

STAMPS = ".stamps.json"
"""The file beside the copies that says of which version in the store each is."""


def fetch(files: Store, folder: Path) -> list[str]:
    """Bring the folder up to the store: names of the files that were new or had changed. What is gone there goes here too.

    Hidden files, and names that lead out of the folder, are passed over. Killed at any moment it goes on with the next call.
    Raises StoreError.
    """
    there, here = {name: stamp for name, stamp in files.stamps().items() if _is_plain(name)}, _stamps(folder)
    for name in [name for name in here if name not in there]:
        (folder / name).unlink(missing_ok=True)
        del here[name]
    new = [name for name, stamp in there.items() if here.get(name) != stamp]
    for name in new:
        files.get(name, folder / name)
        here[name] = there[name]
        _keep(folder, here)
    _keep(folder, here)
    return new


def publish(files: Store, place: Place, built: list[str]) -> int:
    """Put the views of these dates, and of those that the store lacks, into it, and take out what is no more; how many were put.

    A view is `views/day=DATE/views.parquet` there as here. Raises StoreError.
    """
    there = set(files.names("views"))
    here = {path.relative_to(place.folder).as_posix(): path for path in place.folder.glob("views/day=*/views.parquet")}
    new = [name for name in sorted(here) if name not in there or name.split("/")[1].removeprefix("day=") in built]
    for name in new:
        files.put(name, here[name])
    for name in sorted(there - set(here)):
        files.delete(name)
    return len(new)


def _is_plain(name: str) -> bool:
    return not any(part.startswith(".") or not part for part in name.split("/"))


def _stamps(folder: Path) -> dict[str, str]:
    """Those of the copies that are still there."""
    try:
        known = msgspec.json.decode((folder / STAMPS).read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}
    return {name: stamp for name, stamp in known.items() if (folder / name).is_file()}


def _keep(folder: Path, stamps: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{STAMPS}.new"
    fresh.write_bytes(msgspec.json.encode(stamps))
    fresh.replace(folder / STAMPS)
