"""The sealed log in an object store: every machine reads all of it, loses nothing of it, and keeps nothing that was deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from palate import database, events, identities, retention, store
from palate.database import reading, writing
from palate.domain import Event
from palate.errors import DataFolderError, StoreError
from palate.store import Store

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
EVERYTHING = 10**9

Machine = tuple[sa.Engine, Path]
"""An engine, and the folder of its copies of sealed files."""


@pytest.fixture
def machines(migrated_url: str | None, data: Path, tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Machines by name: each with a folder of its own, all with one database and one store."""
    (tmp_path / "shared").mkdir()
    url = migrated_url or f"sqlite:///{data}/palate.sqlite"
    engines = []

    def machine(name: str) -> Machine:
        engines.append(database.connect(url, tmp_path / name, f"file://{tmp_path}/shared"))
        return engines[-1], tmp_path / name / "events"

    yield machine
    for engine in engines:
        engine.dispose()


@pytest.fixture
def shared(tmp_path: Path) -> Store:
    return store.opened(f"file://{tmp_path}/shared")


def add(engine: sa.Engine, users: str, now: datetime = NOW) -> None:
    """One event of each user, a letter each."""
    with writing(engine) as connection:
        events.append(
            connection, [Event(user=user, item="duck", type="like", id=f"{user}{now}") for user in users], now
        )


def log_of(machine: Machine) -> str:
    engine, folder = machine
    read = "".join(event.user for some in events.stream(engine, folder) for event in some)
    assert len(events.read_columns(engine, folder)) == len(read)
    assert sum(map(len, events.batches(engine, folder))) == len(read)
    return read


def key_of(engine: sa.Engine, user: str) -> int:
    with reading(engine) as connection:
        return identities.user_keys(connection, [user], None)[user]


def test_every_machine_reads_what_one_has_sealed(machines: Callable[[str], Machine], shared: Store) -> None:
    trainer, api = machines("trainer"), machines("api")
    add(trainer[0], "abc")
    add(api[0], "de", NOW + DAY)
    files = retention.seal(*trainer, NOW + DAY, EVERYTHING)
    add(api[0], "f", NOW + 2 * DAY)
    assert [f"events/{file.relative_to(trainer[1])}" for file in files] == shared.names("events")
    assert log_of(api) == log_of(trainer) == "abcdef"
    assert [file.name for file in api[1].glob("day=*/*")] == [file.name for file in files]
    retention.seal(*api, NOW + 3 * DAY, EVERYTHING)  # by another machine
    assert log_of(trainer) == log_of(machines("later")) == "abcdef"


@pytest.mark.parametrize("bad", ["put", "names"])
def test_without_the_store_nothing_is_sealed_and_nothing_lost(
    machines: Callable[[str], Machine], shared: Store, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    trainer = machines("trainer")
    add(trainer[0], "abc")

    def refuse(*_: object) -> None:
        raise StoreError("The store is away.")

    with monkeypatch.context() as patched, pytest.raises(StoreError):
        patched.setattr(store.Folder, bad, refuse)
        retention.seal(*trainer, NOW + DAY, EVERYTHING)
    assert log_of(trainer) == log_of(machines("api")) == "abc"
    assert len(retention.seal(*trainer, NOW + DAY, EVERYTHING)) == 1
    assert log_of(machines("another")) == "abc"
    assert len(shared.names("events")) == 1


def test_what_a_crash_left_in_the_store_goes_with_the_next_sealing(
    machines: Callable[[str], Machine], shared: Store
) -> None:
    trainer = machines("trainer")
    add(trainer[0], "abc")
    shared.write("events/day=2026-03-01/000000000001-ffffffff.parquet", b"of a sealing that was killed")
    retention.seal(*trainer, NOW + DAY, EVERYTHING)
    assert [name[-21:-8] != "1-ffffffff" for name in shared.names("events")] == [True]
    assert log_of(machines("api")) == "abc"


def test_who_is_forgotten_is_gone_from_the_store_and_then_from_the_copies(
    machines: Callable[[str], Machine], shared: Store
) -> None:
    trainer, api, other = machines("trainer"), machines("api"), machines("other")
    add(trainer[0], "abc")
    add(trainer[0], "b", NOW + DAY)
    retention.seal(*trainer, NOW + 2 * DAY, EVERYTHING)
    assert log_of(other) == log_of(trainer) == "abcb"
    old = set(shared.names("events"))
    assert retention.forget(*api, [key_of(api[0], "b")]) == 2
    assert not old & set(shared.names("events"))
    assert len(shared.names("events")) == 1  # the day on which only they were there is gone
    for engine, folder in (trainer, other):
        retention.evict(engine, folder)
        assert log_of((engine, folder)) == "ac"
        assert {f"events/{file.relative_to(folder)}" for file in folder.glob("*/*")} == set(shared.names("events"))


def test_days_that_are_over_leave_the_store_and_the_copies(machines: Callable[[str], Machine], shared: Store) -> None:
    trainer, api = machines("trainer"), machines("api")
    add(trainer[0], "abc")
    add(trainer[0], "de", NOW + DAY)
    retention.seal(*trainer, NOW + 2 * DAY, EVERYTHING)
    assert log_of(api) == "abcde"
    assert retention.expire(*trainer, NOW + DAY) == 3
    assert len(shared.names("events")) == 1
    retention.evict(*api)
    assert log_of(api) == "de"
    assert len(list(api[1].glob("*/*"))) == 1


def test_a_reader_goes_on_when_a_file_is_replaced_under_it(machines: Callable[[str], Machine]) -> None:
    trainer, api = machines("trainer"), machines("api")
    add(trainer[0], "abc")
    retention.seal(*trainer, NOW + DAY, EVERYTHING)
    reader = events.batches(*api)
    retention.forget(*trainer, [key_of(trainer[0], "b")])
    assert sum(map(len, reader)) == 2


def test_a_sealed_file_that_is_nowhere_is_named(machines: Callable[[str], Machine], shared: Store) -> None:
    trainer, api = machines("trainer"), machines("api")
    add(trainer[0], "abc")
    retention.seal(*trainer, NOW + DAY, EVERYTHING)
    (name,) = shared.names("events")
    shared.delete(name)
    with pytest.raises(DataFolderError, match=name.split("/")[-1]):
        log_of(api)
    assert log_of(trainer) == "abc"
