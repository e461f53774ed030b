"""Published models: a folder of `.npy` arrays and a `header.json` each, made whole or not at all, and read by memory map.

    snapshots/
      CURRENT              the version that is served, one line
      1732243355000/       a version: when it was made, in milliseconds since 1970
        header.json        what it is, and name, type, shape and CRC-32 of each array: written last
        items.npy …
      1732243380000.partial/   being written, or left by a crash

Every change becomes visible by one rename, after everything it names is on the disk.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate.errors import DataFolderError, SnapshotBroken, SnapshotError, SnapshotTooNew
from palate.vocabulary import Vocabulary

FORMAT = 1
"""Raised when older code could misread what we write."""

Arrays = dict[str, NDArray[Any]]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FILE = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[0-9]{1,9})?\.npy")
_BY_USER = re.compile(r"(^|_)users?(_|$)")
_VERSION = re.compile(r"[0-9]{13,19}")
_HEADER, _CURRENT, _PARTIAL = "header.json", "CURRENT", ".partial"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A published model as it lies on the disk; the arrays are read-only memory maps."""

    version: str
    header: dict[str, Any]
    arrays: Arrays
    path: Path
    stamp: tuple[int, int] | None
    """Of the header's file: another one means that the snapshot was rewritten (see `is_current`)."""


def publish(
    folder: Path,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    last: Snapshot | None = None,
    same: Mapping[str, str] | None = None,
) -> str:
    """Write a snapshot and make it the current one; return its version. A crash at any moment leaves the old one current.

    `header` holds whatever readers need, `created` (milliseconds since 1970) among it, as JSON; `format`, `version` and
    `arrays` are added. `same` names further arrays and which of the `last` snapshot each of them is: those are not written
    again, the file gets a second name. One process publishes at a time. Raises DataFolderError when it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        version, partial = _claim(folder, int(header["created"]))
        try:
            described = (
                {} if last is None else {name: _linked(partial, name, last, old) for name, old in (same or {}).items()}
            )
            _write(partial, version, header, arrays, described)
            os.rename(partial, folder / version)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        make_current(folder, version)
    except OSError as error:
        raise DataFolderError(f"the snapshot could not be written to {folder}: {error.strerror or error}") from error
    return version


def make_current(folder: Path, version: str) -> None:
    """Let readers see this version from now on; so an older one comes back."""
    _replace(folder / _CURRENT, f"{version}\n".encode())


def current(folder: Path) -> str | None:
    """The version that is served; None when none was published."""
    try:
        return (folder / _CURRENT).read_text("utf-8", "replace").strip() or None
    except FileNotFoundError:
        return None


def versions(folder: Path) -> list[str]:
    """All versions that were written to their end, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path.name for path in folder.iterdir() if _VERSION.fullmatch(path.name)), key=int)


def is_version(name: str) -> bool:
    """Whether this could be a snapshot's version."""
    return _VERSION.fullmatch(name) is not None


def is_current(folder: Path, snapshot: Snapshot) -> bool:
    """Whether this is what `load` would give now: the same version, and nobody was forgotten in it since."""
    return current(folder) == snapshot.version and _stamp(snapshot.path) == snapshot.stamp


def load(folder: Path, version: str | None = None, *, verify: bool = True) -> Snapshot:
    """The snapshot of a version, or the current one. `verify` reads every byte and compares its CRC-32.

    Raises SnapshotBroken when anything of it is missing, cut short, changed, or not as its header says, and SnapshotTooNew
    when a newer Palate wrote it.
    """
    while True:
        wanted = version or current(folder)
        if wanted is None:
            raise SnapshotBroken(f"no snapshot was published in {folder}")
        before = _stamp(folder / wanted)
        try:
            return _load(folder, wanted, verify)
        except SnapshotBroken:
            # pruned or rewritten while we read: what is there now may be good
            if (version or current(folder)) == wanted and _stamp(folder / wanted) == before:
                raise


def load_newest_good(folder: Path, *, verify: bool = True) -> Snapshot | None:
    """The current snapshot; when it can't be used, the next older one that can, then a newer; None when there is none."""
    served, found = current(folder), versions(folder)[::-1]
    older = [
        version for version in found if served is None or not _VERSION.fullmatch(served) or int(version) <= int(served)
    ]
    for version in older + [version for version in found if version not in older]:
        try:
            return load(folder, version, verify=verify)
        except SnapshotError:
            continue
    return None


def history_seq(snapshot: Snapshot) -> int:
    """The last event that its histories know."""
    return int(snapshot.header.get("history_seq", snapshot.header["seq"]))


def prune(folder: Path, keep: int) -> list[str]:
    """Delete all but the `keep` newest snapshots and the current one, and what crashes left; return the deleted versions.

    Called by the one process that publishes. Who has a deleted snapshot mapped can go on reading it.
    """
    assert keep >= 1, "The newest snapshot stays."
    with _locked(folder):
        served, found = current(folder), versions(folder)
        gone = [version for version in found[:-keep] if version != served]
        for version in gone:
            _remove(folder / version)
        for path in list(folder.glob(f"*{_PARTIAL}")):
            shutil.rmtree(path, ignore_errors=True)
        for version in versions(folder):
            _remove_unnamed(folder / version)
    return gone


def revision(folder: Path, version: str) -> int | None:
    """How often people were taken out of a snapshot; None when it isn't there, or can't be read."""
    try:
        return int(_read_header(folder / version, version).get("revision", 0))
    except SnapshotError:
        return None


def header_of(content: bytes, version: str) -> dict[str, Any]:
    """What a `header.json` says. Raises SnapshotBroken when it is none of this version, SnapshotTooNew."""
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SnapshotBroken(f"the header of snapshot {version} can't be read: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise SnapshotBroken(f"the header of snapshot {version} says no format")
    if header["format"] > FORMAT:
        raise SnapshotTooNew(
            f"snapshot {version} has format {header['format']}, this Palate reads {FORMAT}: update Palate"
        )
    if header.get("version") != version or not isinstance(header.get("arrays"), dict):
        raise SnapshotBroken(f"the header of snapshot {version} is that of another, or names no arrays")
    return header


def files(header: Mapping[str, Any]) -> list[str]:
    """Names of the files that a header names, itself not among them. Raises SnapshotBroken for what is no name of one."""
    found = [str(described.get("file")) for described in header["arrays"].values() if isinstance(described, dict)]
    if len(found) < len(header["arrays"]) or not all(_FILE.fullmatch(file) for file in found):
        raise SnapshotBroken(f"the header of snapshot {header['version']} names no files")
    return found


def shared_files(header: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """The files of a snapshot that are those of another, by which they are there: histories that both share."""
    if "history_seq" not in header or header["history_seq"] != other.get("history_seq", other.get("seq")):
        return {}
    there = {_content(described): described["file"] for described in other["arrays"].values()}
    ours = {name: described for name, described in header["arrays"].items() if name.startswith("history_")}
    return {
        described["file"]: there[_content(described)] for described in ours.values() if _content(described) in there
    }


def _content(described: Mapping[str, Any]) -> tuple[Any, ...]:
    return described["crc32"], described["dtype"], tuple(described["shape"])


def adopt(folder: Path, version: str, content: bytes, bring: Callable[[str, Path], None]) -> None:
    """Take in a snapshot that was published elsewhere, or a later revision of one that is here; it isn't made the current one.

    `content` is its header; `bring` puts a file of it, by name, to a path. Every byte is compared with the header before
    anything is taken in: raises SnapshotBroken, SnapshotTooNew, DataFolderError, and what `bring` raises.
    """
    header, ours, partial = header_of(content, version), folder / version, folder / f"{version}{_PARTIAL}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file in files(header):
            if not linked(ours / file, partial / file):
                bring(file, partial / file)
        for name, described in header["arrays"].items():
            _map(partial, name, described, verify=True)
        with _locked(folder):
            _take_in(partial, ours, content)
    except OSError as error:
        raise DataFolderError(f"the snapshot could not be copied to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _take_in(partial: Path, ours: Path, content: bytes) -> None:
    """Put the files of a whole snapshot in its place: its header last, where others may be reading."""
    if not ours.is_dir():
        _replace(partial / _HEADER, content)
        os.rename(partial, ours)
        _sync_folder(ours.parent)
        return
    for path in list(partial.iterdir()):
        os.rename(path, ours / path.name)
    _replace(ours / _HEADER, content)
    _remove_unnamed(ours)


def linked(source: Path, target: Path) -> bool:
    """Give a file a second name; False where that can't be."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def remove(folder: Path, version: str) -> None:
    """Delete a version; who has it mapped can go on reading it."""
    with _locked(folder):
        if (folder / version).is_dir():
            _remove(folder / version)


def forget_user(folder: Path, keys: ArrayLike) -> int:
    """Take people (user keys) out of every kept snapshot: their key, vectors, biases and history. Returns rows taken out.

    Arrays by user are those with the word `user` or `users` in their name, such as `user_bias` and `ials_user_vectors`;
    `history_offsets` cuts all that begin with `history_`, by the people of `history_users` where there are such. A crash leaves
    each snapshot either as it was or without them; do it again then. Snapshots that can't be read are deleted: what is in them
    can't be taken out otherwise.
    """
    taken = 0
    if not folder.is_dir():
        return taken
    with _locked(folder):
        for version in versions(folder):
            try:
                snapshot = _load(folder, version, verify=False)
            except SnapshotTooNew:
                raise
            except SnapshotBroken:
                _remove(folder / version)
                continue
            taken += _forget(snapshot, np.unique(np.asarray(keys, np.int64)))
            _remove_unnamed(snapshot.path)
    return taken


def without_users(arrays: Arrays, keys: NDArray[np.int64]) -> Arrays:
    """The arrays of a snapshot without these people (user keys): what `forget_user` makes of them."""
    return arrays | _without(arrays, keys)


def people_of_histories(arrays: Arrays) -> NDArray[np.int64]:
    """Keys of those whose histories a snapshot holds: its users, or those of the snapshot from which it has them."""
    return np.asarray(arrays.get("history_users", arrays["users"]))


def _forget(snapshot: Snapshot, keys: NDArray[np.int64]) -> int:
    arrays = snapshot.arrays
    if "users" not in arrays:
        return 0
    changed = _without(arrays, keys)
    if not changed:
        return 0
    revision = int(snapshot.header.get("revision", 0)) + 1
    described = dict(snapshot.header["arrays"])
    for name, array in changed.items():
        described[name] = _write_array(snapshot.path, name, f"{name}.{revision}.npy", array)
    _write_header(snapshot.path, {**snapshot.header, "revision": revision, "arrays": described})
    return int(np.isin(keys, np.union1d(arrays["users"], people_of_histories(arrays))).sum())


def _without(arrays: Arrays, keys: NDArray[np.int64]) -> Arrays:
    """The arrays that change when these people are taken out, changed."""
    changed: Arrays = {}
    kept = _others(arrays["users"], keys)
    if not kept.all():
        changed = {name: array[kept] for name, array in arrays.items() if _by_user(name)}
    kept = _others(people_of_histories(arrays), keys)
    if "history_offsets" in arrays and not kept.all():
        lengths = np.diff(arrays["history_offsets"])
        changed["history_offsets"] = np.concatenate(([0], np.cumsum(lengths[kept]))).astype(np.int64)
        if "history_users" in arrays:
            changed["history_users"] = arrays["history_users"][kept]
        entries = np.repeat(kept, lengths)
        changed |= {name: array[entries] for name, array in arrays.items() if _by_entry(name)}
    return changed


def _others(users: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the users aren't among the keys."""
    rows = Vocabulary(np.asarray(users)).rows(keys)
    kept = np.ones(len(users), bool)
    kept[rows[rows >= 0]] = False
    return kept


def _by_user(name: str) -> bool:
    return _BY_USER.search(name) is not None and not name.startswith("history_")


def _by_entry(name: str) -> bool:
    return name.startswith("history_") and name not in ("history_offsets", "history_users", "history_item_keys")


def _claim(folder: Path, created: int) -> tuple[str, Path]:
    """A version that is newer than all others, and its empty folder to write into."""
    taken = [path.name.removesuffix(_PARTIAL) for path in folder.iterdir()]
    newest = max((int(name) for name in taken if _VERSION.fullmatch(name)), default=0)
    version = f"{max(created, newest + 1):013d}"
    partial = folder / f"{version}{_PARTIAL}"
    partial.mkdir()
    return version, partial


def _write(
    folder: Path,
    version: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    linked: Mapping[str, dict[str, Any]],
) -> None:
    described = {name: _write_array(folder, name, f"{name}.npy", array) for name, array in arrays.items()}
    _write_header(folder, {**header, "format": FORMAT, "version": version, "arrays": {**described, **linked}})


def _write_array(folder: Path, name: str, file: str, array: NDArray[Any]) -> dict[str, Any]:
    """Write one array and bring it to the disk; return what the header says of it."""
    assert _NAME.fullmatch(name), f"{name!r} is no name for an array."
    assert not array.dtype.hasobject, f"Array {name} holds Python objects."
    array = np.ascontiguousarray(array)
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    content = array.reshape(-1).view(np.uint8).data
    with open(folder / file, "wb") as stream:
        stream.write(head.getvalue())
        stream.write(content)
        _sync(stream)
    crc32 = zlib.crc32(content, zlib.crc32(head.getvalue()))
    return {"file": file, "dtype": array.dtype.str, "shape": list(array.shape), "crc32": crc32}


def _linked(folder: Path, name: str, last: Snapshot, old: str) -> dict[str, Any]:
    """Give an array of another snapshot a place in this one; return what the header says of it."""
    described: dict[str, Any] = last.header["arrays"][old]
    file = f"{name}.npy"
    try:
        os.link(last.path / described["file"], folder / file)
    except OSError:  # a file system without links
        with open(last.path / described["file"], "rb") as source, open(folder / file, "wb") as stream:
            shutil.copyfileobj(source, stream)
            _sync(stream)
    return {**described, "file": file}


def _write_header(folder: Path, header: Mapping[str, Any]) -> None:
    _replace(folder / _HEADER, json.dumps(header, indent=1, allow_nan=False).encode())


def _replace(path: Path, content: bytes) -> None:
    """Put a file in the place of another in one step that lasts."""
    fresh = path.with_name(f"{path.name}.new")
    with open(fresh, "wb") as stream:
        stream.write(content)
        _sync(stream)
    _sync_folder(path.parent)  # what the file names has to last before the file does
    os.rename(fresh, path)
    _sync_folder(path.parent)


def _sync(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _load(folder: Path, version: str, verify: bool) -> Snapshot:
    path = folder / version
    if not _VERSION.fullmatch(version):
        raise SnapshotBroken(f"{folder / _CURRENT} names no version of a snapshot: {version[:40]!r}")
    stamp = _stamp(path)
    header = _read_header(path, version)
    arrays = {name: _map(path, name, described, verify) for name, described in header["arrays"].items()}
    return Snapshot(version, header, arrays, path, stamp)


def _read_header(path: Path, version: str) -> dict[str, Any]:
    try:
        content = (path / _HEADER).read_bytes()
    except OSError as error:
        raise SnapshotBroken(f"the header of snapshot {version} can't be read: {error}") from error
    return header_of(content, version)


def _map(path: Path, name: str, described: Any, verify: bool) -> NDArray[Any]:
    """Map one array and compare it with what the header says of it."""
    try:
        file = str(described["file"])
        expected = np.dtype(described["dtype"]), tuple(described["shape"])
        if not _FILE.fullmatch(file):
            raise ValueError(f"{file!r} is no name for its file")
        if verify and zlib.crc32(np.memmap(path / file, np.uint8, "r").data) != described["crc32"]:
            raise ValueError("its bytes are not those that were written")
        array: NDArray[Any] = np.asarray(np.lib.format.open_memmap(path / file, "r"))
        if (array.dtype, array.shape) != expected or not array.flags.c_contiguous:
            raise ValueError(f"it is {array.dtype} {array.shape}, the header says {expected[0]} {expected[1]}")
        return array
    except (OSError, ValueError, TypeError, KeyError, EOFError, OverflowError) as error:
        raise SnapshotBroken(f"array {name} of snapshot {path.name} can't be used: {error}") from error


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = (path / _HEADER).stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns


def _remove(path: Path) -> None:
    """Delete a version; at no moment does half of it look like a whole one."""
    gone = path.with_name(f"{path.name}{_PARTIAL}")
    os.rename(path, gone)
    shutil.rmtree(gone)


def _remove_unnamed(path: Path) -> None:
    """Delete what a rewrite left beside the arrays that the header names."""
    try:
        header = _read_header(path, path.name)
        named = {_HEADER, *(str(described["file"]) for described in header["arrays"].values())}
    except (SnapshotError, TypeError, KeyError):
        return
    for file in path.iterdir():
        if file.name not in named:
            file.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time changes or deletes what is published."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise DataFolderError(f"the snapshots in {folder} could not be changed: {error.strerror or error}") from error
