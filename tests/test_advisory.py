"""Locks of PostgreSQL that machines take turns by: what is lost with a session can't be committed any more."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from palate import advisory, database
from palate.database import reading, writing
from palate.errors import AlreadyRunning, NotDurable


@pytest.fixture
def machines(postgres_url: str, tmp_path: Path) -> Iterator[tuple[sa.Engine, sa.Engine]]:
    """Two engines of one database."""
    one, other = database.connect(postgres_url, tmp_path / "one"), database.connect(postgres_url, tmp_path / "other")
    yield one, other
    one.dispose()
    other.dispose()


def end_sessions(engine: sa.Engine) -> None:
    """What a restart of the server does to everybody who holds a lock."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = :ours"
    with reading(engine) as connection:
        assert connection.scalars(sa.text(query), {"ours": advisory.OURS}).all() == [True]


def put(connection: sa.Connection, name: str) -> None:
    connection.execute(sa.insert(database.meta).values(name=name, value=""))


def names(engine: sa.Engine) -> set[str]:
    with reading(engine) as connection:
        return set(connection.scalars(sa.select(database.meta.c.name)))


def test_a_role_is_one_process_of_all_machines(machines: tuple[sa.Engine, sa.Engine]) -> None:
    one, other = machines
    with (
        advisory.role(one, "train", "palate train"),
        advisory.role(other, "ingest", "palate ingest"),
        pytest.raises(AlreadyRunning, match="`palate train` is already running on this database"),
        advisory.role(other, "train", "palate train"),
    ):
        raise AssertionError("two have the role")
    with advisory.role(other, "train", "palate train"):
        pass


def test_on_sqlite_the_file_in_the_folder_does(sqlite_engine: sa.Engine) -> None:
    with (
        advisory.role(sqlite_engine, "train", "palate train"),
        advisory.role(sqlite_engine, "train", "palate train"),
        advisory.held(sqlite_engine, "sealing") as write,
        write() as connection,
    ):
        put(connection, "written")
    assert "written" in names(sqlite_engine)


def test_a_role_that_was_lost_is_taken_again(
    machines: tuple[sa.Engine, sa.Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory, "LOOK", 0.01)
    one, other = machines
    taken, take = threading.Semaphore(0), advisory._taken

    def told(engine: sa.Engine, name: str, command: str) -> sa.Connection:
        session = take(engine, name, command)
        taken.release()
        return session

    monkeypatch.setattr(advisory, "_taken", told)
    with advisory.role(one, "train", "palate train"):
        assert taken.acquire(timeout=20)
        end_sessions(other)
        assert taken.acquire(timeout=20)
        with pytest.raises(AlreadyRunning), advisory.role(other, "train", "palate train"):
            raise AssertionError("two have the role")


def test_who_lost_a_role_to_another_machine_stops(
    machines: tuple[sa.Engine, sa.Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machines
    stopped, before = threading.Event(), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    monkeypatch.setattr(advisory, "LOOK", 0.3)
    try:
        with advisory.role(one, "train", "palate train"):
            end_sessions(other)
            with advisory.role(other, "train", "palate train"):
                assert stopped.wait(20)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_who_holds_a_lock_goes_first(machines: tuple[sa.Engine, sa.Engine]) -> None:
    one, other = machines
    begun, order = threading.Event(), list[str]()

    def second() -> None:
        begun.set()
        with advisory.held(other, "sealing"):
            order.append("second")

    with advisory.held(one, "sealing"), advisory.held(other, "snapshots"):
        waiting = threading.Thread(target=second)
        waiting.start()
        begun.wait()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_nothing_is_committed_under_a_lock_that_was_lost(machines: tuple[sa.Engine, sa.Engine]) -> None:
    one, other = machines
    with advisory.held(one, "sealing") as write:
        with write() as connection:
            put(connection, "under the lock")
        end_sessions(other)
        with advisory.held(other, "sealing"), pytest.raises(NotDurable), write() as connection:
            put(connection, "after it")
    with writing(one) as connection:
        put(connection, "by another way")
    assert {"under the lock", "by another way"} <= names(other)
    assert "after it" not in names(other)
