"""Snapshots on several machines: what one publishes the others serve, whole or not at all, and nobody who was deleted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from palate import database, identities, people, replica, snapshots, store
from palate.database import writing
from palate.errors import SnapshotBroken, SnapshotTooNew, StoreError
from palate.store import Store

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Machine:
    """A data folder of its own on a database and a store that others use too."""

    engine: sa.Engine
    data: Path

    @property
    def folder(self) -> Path:
        return self.data / "snapshots"

    def publish(self, value: float = 1.0, last: snapshots.Snapshot | None = None, **header: Any) -> str:
        """A snapshot of three people, with histories; those of `last`, if it is given."""
        same = {} if last is None else {name: name for name in HISTORIES}
        arrays = {name: array for name, array in content(value).items() if name not in same}
        return snapshots.publish(self.folder, {"created": 1_700_000_000_000, "seq": 5} | header, arrays, last, same)

    def push(self) -> None:
        replica.push(self.engine, self.data)

    def fetch(self) -> None:
        replica.fetch(self.engine, self.data)

    def served(self) -> snapshots.Snapshot:
        found = snapshots.load(self.folder)
        assert found.version == snapshots.current(self.folder)
        return found

    @property
    def store(self) -> Store:
        return store.opened(database.store_of(self.engine) or "")


HISTORIES = ("history_offsets", "history_items", "history_labels")


def content(value: float) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "items": np.array([3, 5, 2**40], np.int64),
        "item_bias": np.full(3, value, np.float32),
        "users": np.array([1, 2, 3], np.int64),
        "user_bias": np.array([1, 2, 3], np.float32),
        "history_offsets": np.array([0, 2, 2, 5], np.int64),
        "history_items": np.array([0, 1, 0, 1, 2], np.int32),
        "history_labels": np.array([1, np.nan, 0, 1, 1], np.float16),
    }


def listed(snapshot: snapshots.Snapshot) -> dict[str, str]:
    return {name: str(array.tolist()) for name, array in snapshot.arrays.items()}


def expected(value: float) -> dict[str, str]:
    return {name: str(array.tolist()) for name, array in content(value).items()}


@pytest.fixture
def machines(sqlite_engine: sa.Engine, tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Machines by name, all on one database with three people, and one store."""
    (tmp_path / "shared").mkdir()
    with writing(sqlite_engine) as connection:
        keys = identities.user_keys(connection, ["ann", "bob", "cy"], NOW)
    assert sorted(keys.values()) == [1, 2, 3]
    engines = []

    def machine(name: str) -> Machine:
        url = sqlite_engine.url.render_as_string()
        engines.append(database.connect(url, tmp_path / name, f"file://{tmp_path}/shared"))
        return Machine(engines[-1], tmp_path / name)

    yield machine
    for engine in engines:
        engine.dispose()


def test_what_one_machine_publishes_the_others_serve(machines: Callable[[str], Machine]) -> None:
    trainer, api = machines("trainer"), machines("api")
    api.fetch()
    assert snapshots.current(api.folder) is None
    for value in (1.0, 2.0):
        version = trainer.publish(value)
        assert replica.is_pending(trainer.engine, trainer.data)
        trainer.push()
        assert not replica.is_pending(trainer.engine, trainer.data)
        api.fetch()
        assert api.served().version == version
        assert listed(api.served()) == expected(value)


def test_a_bucket_serves_as_a_folder_does(sqlite_engine: sa.Engine, bucket: str, tmp_path: Path) -> None:
    with writing(sqlite_engine) as connection:
        identities.user_keys(connection, ["ann", "bob", "cy"], NOW)
    url = sqlite_engine.url.render_as_string()
    trainer, api = (
        Machine(database.connect(url, tmp_path / name, bucket), tmp_path / name) for name in ("trainer", "api")
    )
    first = trainer.publish(1.0)
    trainer.push()
    second = trainer.publish(2.0, snapshots.load(trainer.folder), history_seq=5)
    trainer.push()
    api.fetch()
    assert listed(api.served()) == expected(2.0)
    assert trainer.store.read(f"snapshots/{second}/history_items.npy") is not None
    replica.forget(api.engine, api.data, [1])
    trainer.fetch()
    assert trainer.served().arrays["users"].tolist() == [2, 3]
    replica.prune(trainer.engine, trainer.data, 1)
    assert not trainer.store.names(f"snapshots/{first}")
    for machine in (trainer, api):
        machine.engine.dispose()


def noting(moved: list[str], whole: Callable[..., None]) -> Callable[..., None]:
    """What moves a file, and notes which."""

    def moving(self: Store, name: str, path: Path) -> None:
        moved.append(name.split("/")[-1])
        whole(self, name, path)

    return moving


def test_histories_that_are_shared_are_not_moved_again(
    machines: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, api = machines("trainer"), machines("api")
    trainer.publish(1.0)
    trainer.push()
    api.fetch()
    moved = list[str]()
    for act in ("put", "get"):
        monkeypatch.setattr(store.Folder, act, noting(moved, getattr(store.Folder, act)))
    monkeypatch.setattr(store.Folder, "copy", lambda self, name, to: self.write(to, self.read(name)))
    trainer.publish(2.0, snapshots.load(trainer.folder), history_seq=5)
    trainer.push()
    api.fetch()
    assert listed(api.served()) == expected(2.0)
    assert {"items.npy", "users.npy", "item_bias.npy", "user_bias.npy"} == set(moved)


def test_what_has_no_header_yet_is_not_served(machines: Callable[[str], Machine]) -> None:
    trainer, api = machines("trainer"), machines("api")
    good = trainer.publish(1.0)
    trainer.push()
    api.fetch()
    trainer.publish(2.0)
    trainer.push()
    half = trainer.served().version
    trainer.store.delete(f"snapshots/{half}/header.json")
    with pytest.raises(SnapshotBroken, match=f"snapshot {half} isn't in the store"):
        api.fetch()
    assert api.served().version == good
    fresh = machines("fresh")
    with pytest.raises(SnapshotBroken):
        fresh.fetch()
    assert listed(fresh.served()) == expected(1.0)


@pytest.mark.parametrize("file", ["item_bias.npy", "history_items.npy"])
@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_what_is_damaged_in_the_store_is_never_served(
    machines: Callable[[str], Machine], file: str, damage: str
) -> None:
    trainer, api = machines("trainer"), machines("api")
    good = trainer.publish(1.0)
    trainer.push()
    api.fetch()
    bad = trainer.publish(2.0)
    trainer.push()
    name = f"snapshots/{bad}/{file}"
    whole = trainer.store.read(name) or b""
    trainer.store.delete(name)
    if damage != "missing":
        trainer.store.write(name, whole[:-1] if damage == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SnapshotBroken):
        api.fetch()
    assert api.served().version == good
    assert snapshots.versions(api.folder) == [good]
    trainer.store.write(name, whole)
    api.fetch()
    assert listed(api.served()) == expected(2.0)


@pytest.mark.parametrize("said", ["../../etc", "", "12345678901234567890123", "\xff"])
def test_a_current_version_that_is_none_is_said_and_not_followed(machines: Callable[[str], Machine], said: str) -> None:
    trainer, api = machines("trainer"), machines("api")
    trainer.publish()
    trainer.push()
    trainer.store.write("snapshots/CURRENT", said.encode("latin-1"))
    with pytest.raises(SnapshotBroken, match="names no version"):
        api.fetch()
    trainer.publish()
    trainer.push()
    api.fetch()
    assert api.served().version == trainer.served().version


def test_a_header_that_leads_out_of_the_folder_is_refused(machines: Callable[[str], Machine]) -> None:
    trainer, api = machines("trainer"), machines("api")
    version = trainer.publish()
    trainer.push()
    name = f"snapshots/{version}/header.json"
    header = trainer.store.read(name) or b""
    trainer.store.write(name, header.replace(b'"items.npy"', b'"../../items.npy"'))
    with pytest.raises(SnapshotBroken, match="names no files"):
        api.fetch()
    trainer.store.write(name, header.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(SnapshotTooNew):
        api.fetch()
    assert snapshots.current(api.folder) is None


def test_a_copy_that_broke_here_is_copied_again(machines: Callable[[str], Machine]) -> None:
    trainer, api = machines("trainer"), machines("api")
    version = trainer.publish()
    trainer.push()
    api.fetch()
    (api.folder / version / "item_bias.npy").write_bytes(b"rubbish")
    api.fetch()
    assert listed(api.served()) == expected(1.0)


def test_an_older_version_comes_back_everywhere(machines: Callable[[str], Machine]) -> None:
    trainer, api = machines("trainer"), machines("api")
    old = trainer.publish(1.0)
    trainer.push()
    trainer.publish(2.0)
    trainer.push()
    api.fetch()
    snapshots.make_current(trainer.folder, old)
    trainer.push()
    api.fetch()
    assert api.served().version == old
    assert listed(api.served()) == expected(1.0)


def test_what_is_not_in_the_store_yet_is_served_where_it_was_made(machines: Callable[[str], Machine]) -> None:
    trainer = machines("trainer")
    trainer.publish(1.0)
    trainer.push()
    newer = trainer.publish(2.0)
    trainer.fetch()
    assert trainer.served().version == newer


def test_pruning_reaches_the_store_and_then_the_copies(machines: Callable[[str], Machine]) -> None:
    trainer, api = machines("trainer"), machines("api")
    made = []
    for value in (1.0, 2.0, 3.0):
        made.append(trainer.publish(value))
        trainer.push()
        api.fetch()
    assert snapshots.versions(api.folder) == made
    replica.prune(trainer.engine, trainer.data, 2)
    assert {name.split("/")[1] for name in trainer.store.names("snapshots")} == {"CURRENT", *made[1:]}
    api.fetch()
    assert snapshots.versions(api.folder) == made[1:]


class Crash(BaseException):
    """Stands for the end of the process."""


def test_a_crash_at_any_moment_leaves_the_old_or_the_new(
    machines: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, api = machines("trainer"), machines("api")
    trainer.publish(0.0)
    trainer.push()
    moments = 0
    for value in range(1, 100):
        steps, done = value, False
        new = trainer.publish(float(value))

        def step(whole: Any, *given: Any) -> Any:
            nonlocal steps
            steps -= 1
            if steps < 0:
                raise Crash
            return whole(*given)

        with monkeypatch.context() as patched:
            for act in ("put", "write"):
                whole = getattr(store.Folder, act)
                patched.setattr(store.Folder, act, lambda *given, whole=whole: step(whole, *given))
            try:
                trainer.push()
                done = True
            except Crash:
                moments += 1
        api.fetch()
        told = float(api.served().arrays["item_bias"][0])
        assert told == value if done else told < value
        trainer.push()
        api.fetch()
        assert api.served().version == new
        replica.prune(trainer.engine, trainer.data, 1)
        if done:
            break
    assert moments >= 8  # each of seven arrays and the header


def delete(machine: Machine, user: str, key: int) -> None:
    replica.forget(machine.engine, machine.data, [key])
    with writing(machine.engine) as connection:
        people.delete(connection, user)
    replica.forget(machine.engine, machine.data, [key])


def test_who_is_deleted_on_one_machine_is_gone_from_the_store_and_from_all_copies(
    machines: Callable[[str], Machine],
) -> None:
    trainer, api, other = machines("trainer"), machines("api"), machines("other")
    for value in (1.0, 2.0):
        trainer.publish(value)
        trainer.push()
    other.fetch()
    before = replica.news(other.engine)
    delete(api, "bob", 2)
    assert replica.news(other.engine).forgotten != before.forgotten
    assert not replica.is_pending(api.engine, api.data)
    for machine in (trainer, api, other, machines("later")):
        machine.fetch()
        for version in snapshots.versions(machine.folder):
            arrays = snapshots.load(machine.folder, version).arrays
            assert (arrays["users"].tolist(), arrays["user_bias"].tolist()) == ([1, 3], [1, 3])
            assert arrays["history_offsets"].tolist() == [0, 2, 5]
    assert len(snapshots.versions(trainer.folder)) == 2
    assert not [name for name in trainer.store.names("snapshots") if name.endswith("/users.npy")]
    trainer.push()
    assert trainer.served().version == api.served().version


def test_who_is_deleted_while_a_snapshot_is_on_its_way_is_not_in_it(
    machines: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, api = machines("trainer"), machines("api")
    trainer.publish()
    whole = store.Folder.put

    def put(self: store.Folder, name: str, source: Path) -> None:
        whole(self, name, source)
        if name.endswith("/users.npy"):
            with writing(api.engine) as connection:
                people.delete(connection, "cy")

    monkeypatch.setattr(store.Folder, "put", put)
    trainer.push()
    api.fetch()
    assert api.served().arrays["users"].tolist() == [1, 2]
    assert api.served().arrays["history_items"].tolist() == [0, 1]


def test_what_cannot_be_read_in_the_store_is_deleted_with_somebody_in_it(machines: Callable[[str], Machine]) -> None:
    trainer, api = machines("trainer"), machines("api")
    bad = trainer.publish(1.0)
    trainer.push()
    good = trainer.publish(2.0)
    trainer.push()
    trainer.store.write(f"snapshots/{bad}/users.npy", b"rubbish")
    replica.forget(api.engine, api.data, [1])
    assert {name.split("/")[1] for name in trainer.store.names("snapshots")} == {"CURRENT", good}


def test_without_a_store_only_the_folder_is_changed(sqlite_engine: sa.Engine, data: Path) -> None:
    machine = Machine(sqlite_engine, data)
    machine.publish()
    machine.push()
    machine.fetch()
    assert not replica.is_pending(sqlite_engine, data)
    assert replica.keep_up(sqlite_engine, data, None, threading.Event(), publishes=True) is None
    replica.forget(sqlite_engine, data, [1])
    assert machine.served().arrays["users"].tolist() == [2, 3]


def test_a_machine_keeps_up_by_a_process_of_its_own(machines: Callable[[str], Machine]) -> None:
    trainer, api, stop = machines("trainer"), machines("api"), threading.Event()
    trainer.publish()
    seen = replica.keep_up(trainer.engine, trainer.data, None, stop, publishes=True)
    assert replica.keep_up(trainer.engine, trainer.data, seen, stop, publishes=True) == replica.news(trainer.engine)
    seen = replica.keep_up(api.engine, api.data, None, stop)
    assert seen == replica.news(api.engine)
    assert listed(api.served()) == expected(1.0)
    assert replica.keep_up(api.engine, api.data, seen, stop) == seen
    trainer.store.delete(f"snapshots/{api.served().version}/header.json")
    with pytest.raises(StoreError, match="isn't in the store file://"):
        replica.keep_up(api.engine, api.data, None, stop)
    assert listed(api.served()) == expected(1.0)
