"""Snapshots on several machines: published through the object store, copied into each data folder, then mapped from there.

The store holds `snapshots/VERSION/` as a data folder does, and `snapshots/CURRENT`: arrays first, then their header, `CURRENT`
last. A line in the database tells the other machines when to look. Without a store all of this does nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import advisory, database, identities, retention, snapshots
from palate.advisory import Writing
from palate.database import reading, store_of
from palate.errors import DataFolderError, PalateError, SnapshotBroken, StoreError
from palate.ownership import owned
from palate.store import Store

log = logging.getLogger(__name__)

STORED = "snapshots"
CURRENT = f"{STORED}/CURRENT"

LOOK = 1.0
"""Seconds between two looks at the line in the database."""

LONGEST_PAUSE = 60.0
"""Seconds between attempts when one after the other fails; the first pause is 2, then it doubles."""

_LINE = "store"
"""Its name in the table `meta`."""


class News(NamedTuple):
    """What the line in the database says."""

    current: str
    """Version and revision of what is current in the store; empty: nothing was ever published there."""
    forgotten: str
    """Another word each time that somebody was deleted: other machines have copies to clean."""


def news(engine: sa.Engine) -> News:
    """What other machines did. Raises DatabaseError."""
    with reading(engine) as connection:
        return _news(connection)


def _news(connection: sa.Connection) -> News:
    line = connection.scalar(sa.select(database.meta.c.value).where(database.meta.c.name == _LINE))
    current, _, forgotten = (line or "").partition("/")
    return News(current, forgotten)


def _tell(connection: sa.Connection, told: News) -> None:
    insert = identities.insert_new(connection, database.meta).values(name=_LINE, value="/".join(told))
    changed = insert.on_conflict_do_update(index_elements=["name"], set_={"value": insert.excluded.value})
    connection.execute(changed)


# --- into the store -------------------------------------------------------------------------------------------------------


def push(engine: sa.Engine, data: Path) -> None:
    """Make the current snapshot of the data folder the current one of the store. Raises StoreError, NotDurable, SnapshotError.

    Nobody who was deleted while it was on its way stays in it.
    """
    folder = data / "snapshots"
    if not is_pending(engine, data):
        return
    with _alone(engine, folder) as (store, writing):
        version = snapshots.current(folder)
        if version is None or not is_pending(engine, data):
            return  # another process did it while we waited
        _upload(store, folder, version)
        while len(gone := _deleted(engine, folder, version)):
            snapshots.forget_user(folder, gone)
            _upload(store, folder, version)
        store.write(CURRENT, f"{version}\n".encode())
        with writing() as connection:
            _tell(connection, _news(connection)._replace(current=_state(folder, version)))


def is_pending(engine: sa.Engine, data: Path) -> bool:
    """Whether the data folder has another current snapshot than the store. Raises DatabaseError."""
    version = snapshots.current(data / "snapshots")
    if store_of(engine) is None or version is None:
        return False
    return news(engine).current != _state(data / "snapshots", version)


def prune(engine: sa.Engine, data: Path, keep: int) -> None:
    """Delete all but the `keep` newest snapshots and the current one, in the data folder and in the store. Raises StoreError."""
    snapshots.prune(data / "snapshots", keep)
    if store_of(engine) is None:
        return
    with _alone(engine, data / "snapshots") as (store, _):
        served = _served(store)
        for version in _versions(store)[:-keep]:
            if version != served:
                _drop(store, version)


def forget(engine: sa.Engine, data: Path, user_keys: Collection[int]) -> None:
    """Take people out of every snapshot, here and in the store, and tell the other machines.

    Raises StoreError, DataFolderError, NotDurable.
    """
    folder = data / "snapshots"
    if store_of(engine) is None:
        snapshots.forget_user(folder, list(user_keys))
        return
    with _alone(engine, folder) as (store, writing):
        stored = [version for version in _versions(store) if _copied_or_dropped(store, folder, version)]
        snapshots.forget_user(folder, list(user_keys))
        for version in stored:
            _upload(store, folder, version)
        served = _served(store)
        with writing() as connection:
            current = _state(folder, served) if served in stored else _news(connection).current
            _tell(connection, News(current, secrets.token_hex(4)))


def _copied_or_dropped(store: Store, folder: Path, version: str) -> bool:
    """Bring a snapshot here as it is in the store; one that can't be read is deleted there: nobody can be taken out of it."""
    try:
        _copy(store, folder, version)
        return True
    except SnapshotBroken as error:
        log.error("%s; it is deleted.", error)
        _drop(store, version)
        return False


def _upload(store: Store, folder: Path, version: str) -> None:
    """Bring a snapshot into the store, or what changed of it since it was brought there."""
    content = (folder / version / "header.json").read_bytes()
    header, there = snapshots.header_of(content, version), _header(store, version)
    if there is not None and there.get("revision", 0) >= header.get("revision", 0):
        return
    served = _served(store)
    last = _header(store, served) if served is not None and there is None else None
    shared = {} if last is None else snapshots.shared_files(header, last)
    known = set() if there is None else set(snapshots.files(there))
    for file in snapshots.files(header):
        if file in shared:
            store.copy(f"{STORED}/{served}/{shared[file]}", f"{STORED}/{version}/{file}")
        elif file not in known:
            store.put(f"{STORED}/{version}/{file}", folder / version / file)
    store.write(f"{STORED}/{version}/header.json", content)
    for file in known - set(snapshots.files(header)):
        store.delete(f"{STORED}/{version}/{file}")


def _deleted(engine: sa.Engine, folder: Path, version: str) -> Any:
    """Keys of those in a snapshot who are no longer there."""
    arrays = snapshots.load(folder, version, verify=False).arrays
    if "users" not in arrays:
        return np.zeros(0, np.int64)
    with reading(engine) as connection:
        return identities.missing(connection, np.union1d(arrays["users"], snapshots.people_of_histories(arrays)))


def _drop(store: Store, version: str) -> None:
    """Delete a version from the store: its header first, so that at no moment half of it looks like a whole one."""
    names = store.names(f"{STORED}/{version}")
    for name in sorted(names, key=lambda name: not name.endswith("/header.json")):
        store.delete(name)


# --- out of the store -----------------------------------------------------------------------------------------------------


def fetch(engine: sa.Engine, data: Path) -> None:
    """Bring here what is current in the store, and make copies forget who was deleted on other machines.

    Where that can't be used and nothing is served here yet, the next older one that can is taken. Raises SnapshotBroken,
    SnapshotTooNew, StoreError, DataFolderError; what was served before still is.
    """
    folder, store = data / "snapshots", owned(engine)
    if store is None:
        return
    with _copying(folder):
        version = _served(store)
        if version is None:
            _explain(store)
        elif not _is_ahead(store, folder, version):
            _take_up(store, folder, version)
            _follow_others(store, folder, version)
    retention.evict(engine, data / "events")


def _explain(store: Store) -> None:
    """Why the store has no current snapshot: raises StoreError, SnapshotBroken; nothing when none was published yet."""
    store.check()
    if store.read(CURRENT) is not None:
        raise SnapshotBroken(f"{CURRENT} in the store {store.address} names no version of a snapshot")


def _is_ahead(store: Store, folder: Path, version: str) -> bool:
    """Whether this machine serves a newer one, which it published and the store hasn't got yet."""
    served = snapshots.current(folder)
    newer = served is not None and served.isdecimal() and int(served) > int(version)
    return newer and _header(store, str(served)) is None


def _take_up(store: Store, folder: Path, version: str) -> None:
    try:
        _copy(store, folder, version, verify=True)
    except SnapshotBroken:
        if snapshots.current(folder) is None:
            _take_up_older(store, folder, version)
        raise
    if snapshots.current(folder) != version:
        snapshots.make_current(folder, version)


def _take_up_older(store: Store, folder: Path, version: str) -> None:
    for older in reversed([each for each in _versions(store) if int(each) < int(version)]):
        try:
            _copy(store, folder, older)
        except SnapshotBroken:
            continue
        snapshots.make_current(folder, older)
        return


def _follow_others(store: Store, folder: Path, current: str) -> None:
    """Bring other versions that are here to what they are in the store; older ones that it no longer has are deleted."""
    stored = set(_versions(store))
    for version in snapshots.versions(folder):
        if version in stored:
            _copy(store, folder, version)
        elif int(version) < int(current):
            snapshots.remove(folder, version)


def _copy(store: Store, folder: Path, version: str, *, verify: bool = False) -> None:
    """Have a snapshot here as it is in the store; what is copied is compared with its header, with `verify` what was here too."""
    name = f"{STORED}/{version}"
    content = store.read(f"{name}/header.json")
    if content is None:
        raise SnapshotBroken(f"snapshot {version} isn't in the store {store.address}")
    header = snapshots.header_of(content, version)
    if _is_here(folder, version, header, verify):
        return
    served = snapshots.current(folder)
    last = None if served in (None, version) else _load(folder, str(served))
    shared = {} if last is None else snapshots.shared_files(header, last.header)

    def bring(file: str, target: Path) -> None:
        if last is not None and file in shared and snapshots.linked(last.path / shared[file], target):
            return
        try:
            store.get(f"{name}/{file}", target)
        except FileNotFoundError as error:
            raise SnapshotBroken(f"snapshot {version} lacks {file} in the store {store.address}") from error

    snapshots.adopt(folder, version, content, bring)


def _is_here(folder: Path, version: str, header: dict[str, Any], verify: bool) -> bool:
    """Whether it is here in this revision or, because we have just forgotten somebody, a later one; a broken one is removed."""
    revision = snapshots.revision(folder, version)
    if revision is None or _load(folder, version, verify=verify) is None:
        snapshots.remove(folder, version)
        return False
    return revision >= int(header.get("revision", 0))


def _load(folder: Path, version: str, *, verify: bool = False) -> snapshots.Snapshot | None:
    try:
        return snapshots.load(folder, version, verify=verify)
    except SnapshotBroken:
        return None


# --- what both need -------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(engine: sa.Engine, folder: Path) -> Iterator[tuple[Store, Writing]]:
    """One machine at a time changes the snapshots of the store."""
    store = owned(engine)
    assert store is not None, "Who changes a store has one."
    with advisory.held(engine, "snapshots") as writing, _copying(folder):
        yield store, writing


@contextmanager
def _copying(folder: Path) -> Iterator[None]:
    """One process of a machine at a time copies; the others then find it done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".store", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataFolderError(f"Snapshots can't be copied into {folder}: {error.strerror}.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # freed by the system when the process dies
        yield
    finally:
        os.close(handle)


def _served(store: Store) -> str | None:
    """The version that is current in the store; None when none is."""
    version = (store.read(CURRENT) or b"").decode("utf-8", "replace").strip()
    return version if snapshots.is_version(version) else None


def _versions(store: Store) -> list[str]:
    """Those in the store that have a header, oldest first."""
    parts = [name.split("/") for name in store.names(STORED)]
    found = {part[1] for part in parts if len(part) == 3 and part[2] == "header.json" and snapshots.is_version(part[1])}
    return sorted(found, key=int)


def _header(store: Store, version: str) -> dict[str, Any] | None:
    """Of a version in the store; None where there is none that can be read."""
    content = store.read(f"{STORED}/{version}/header.json")
    try:
        return None if content is None else snapshots.header_of(content, version)
    except SnapshotBroken:
        return None


def _state(folder: Path, version: str) -> str:
    return f"{version} {snapshots.revision(folder, version)}"


# --- in the background ----------------------------------------------------------------------------------------------------


@contextmanager
def following(engine: sa.Engine, data: Path, *, publishes: bool = False) -> Iterator[threading.Event]:
    """Keep up with the other machines by a thread for as long as the block runs; without a store nothing is done.

    Gives what is set when it has looked for the first time, however that went. What goes wrong is logged and tried again later.
    """
    looked, stop = threading.Event(), threading.Event()
    if store_of(engine) is None:
        looked.set()
        yield looked
        return
    given = (engine, data, publishes, looked, stop)
    follower = threading.Thread(target=_follow, args=given, name="replica", daemon=True)
    follower.start()
    try:
        yield looked
    finally:
        stop.set()
        follower.join()


def _follow(engine: sa.Engine, data: Path, publishes: bool, looked: threading.Event, stop: threading.Event) -> None:
    seen: News | None = None
    said, failures = "", 0
    while not stop.is_set():
        try:
            seen = keep_up(engine, data, seen, stop, publishes=publishes)
            said, failures = "", 0
        except PalateError as error:
            if str(error) != said:
                log.error("%s; what is here is served.", str(error).rstrip("."))
            said, failures = str(error), failures + 1
        looked.set()
        stop.wait(min(LONGEST_PAUSE, 2.0**failures) if failures else LOOK)


def keep_up(
    engine: sa.Engine, data: Path, seen: News | None, stop: threading.Event, *, publishes: bool = False
) -> News | None:
    """Do what the news ask for, in a process of its own: what reads object stores is large. `seen` are those of last time.

    Who `publishes` brings the current snapshot to the store where that has another. Raises StoreError with whatever failed,
    DatabaseError.
    """
    if store_of(engine) is None:
        return None
    told = news(engine)
    if seen is None or told.forgotten != seen.forgotten or (told != seen and not publishes):
        _in_child(engine, data, "fetch", stop)
    if publishes and is_pending(engine, data):
        _in_child(engine, data, "push", stop)
    return told


class _Order(msgspec.Struct, frozen=True):
    """What the child is to do."""

    database_url: str
    data: str
    store: str
    act: Literal["fetch", "push"]


def _in_child(engine: sa.Engine, data: Path, act: Literal["fetch", "push"], stop: threading.Event) -> None:
    """Raises StoreError with what the child says; nothing when `stop` was set before it ended."""
    order = _Order(engine.url.render_as_string(hide_password=False), str(data), str(store_of(engine)), act)
    command = [sys.executable, "-m", "palate.replica"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None, "It is a pipe."
        child.stdin.write(msgspec.json.encode(order) + b"\n")
        child.stdin.flush()  # and left open: its end tells the child that we are gone
        while child.poll() is None and not stop.wait(0.05):
            pass
        child.kill()
        answer = b"" if child.stdout is None else child.stdout.read()
    if child.returncode and not stop.is_set():
        raise StoreError(answer.decode().strip() or f"The copying of snapshots ended with status {child.returncode}.")


def _work_as_ordered() -> int:
    """The child: does what a line on stdin says, and says in a sentence on stdout what went wrong; the exit status."""
    line = b""
    while not line.endswith(b"\n") and (more := os.read(0, 1 << 16)):
        line += more
    order = msgspec.json.decode(line, type=_Order)
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()  # at its end we are alone
    engine = database.connect(order.database_url, Path(order.data), order.store)
    try:
        (fetch if order.act == "fetch" else push)(engine, Path(order.data))
    except PalateError as error:
        print(error, flush=True)
        return 1
    finally:
        engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(_work_as_ordered())
