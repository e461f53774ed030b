import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from palate import database, events, identities, people
from palate.database import reading, writing
from palate.domain import Event
from palate.errors import NotDurable, Overloaded
from palate.events import EventParams
from palate.group_commit import GroupCommit

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def like(user: str, **more: Any) -> Event:
    return Event(**{"user": user, "item": "duck", "type": "like", "time": 5, **more})


def read(engine: sa.Engine, folder: Path) -> list[Event]:
    return [event for some in events.stream(engine, folder) for event in some]


@pytest.fixture
def folder(data: Path) -> Path:
    """Where the sealed files lie."""
    return data / "events"


@pytest.fixture
def commits(engine: sa.Engine) -> Iterator[GroupCommit]:
    log = GroupCommit(engine)
    yield log
    log.close()


def test_what_is_submitted_is_durable_when_the_future_says_so(
    engine: sa.Engine, folder: Path, commits: GroupCommit
) -> None:
    futures = [commits.submit([like(f"u{n}"), like(f"u{n}", id="same")], NOW) for n in range(50)]
    assert [future.result(20) for future in futures] == [2] * 50
    assert Counter(event.id for event in read(engine, folder)) == {None: 50, "same": 1}


def test_one_submission_that_cannot_be_written_does_not_harm_the_others(
    engine: sa.Engine, folder: Path, commits: GroupCommit
) -> None:
    unchecked = Event(user="\ud800", item="duck", type="like")
    given = [[like("ann")], [unchecked], [like("bob")], [], [like("cid")]]
    with writing(engine) if engine.dialect.name == "sqlite" else reading(engine):  # so that they gather behind it
        futures = [commits.submit(some, NOW) for some in given]
    assert futures[1].exception(20) is not None
    assert [futures[place].result(20) for place in (0, 2, 3, 4)] == [1, 1, 0, 1]
    assert sorted(event.user for event in read(engine, folder)) == ["ann", "bob", "cid"]


def test_every_caller_hears_that_nothing_is_durable_and_the_next_write_works(data: Path) -> None:
    engine = database.connect(None, data)
    database.migrate(engine)
    refuse = True

    @sa.event.listens_for(engine, "commit")
    def fail(_: sa.Connection) -> None:
        if refuse:
            raise sa.exc.OperationalError("COMMIT", {}, Exception("database or disk is full"))

    commits = GroupCommit(engine)
    futures = [commits.submit([like("ann")], NOW) for _ in range(5)]
    for future in futures:
        with pytest.raises(NotDurable, match="disk is full"):
            future.result(20)
    refuse = False
    assert commits.submit([like("bob")], NOW).result(20) == 1
    commits.close()
    assert [event.user for event in read(engine, data / "events")] == ["bob"]
    engine.dispose()


def test_too_many_waiting_events_are_refused_and_the_waiting_ones_kept(data: Path) -> None:
    engine = database.connect(None, data)
    database.migrate(engine)
    commits = GroupCommit(engine, EventParams(max_waiting=10, max_commit=4))
    futures: list[Future[int]] = []
    with writing(engine), pytest.raises(Overloaded, match="wait"):
        for _ in range(30):
            futures.append(commits.submit([like("ann")], NOW))
    assert len(futures) >= 10
    assert sum(future.result(20) for future in futures) == len(futures)
    commits.close()
    assert len(read(engine, data / "events")) == len(futures)
    engine.dispose()


def test_a_submission_given_up_before_its_commit_is_not_written(data: Path) -> None:
    engine = database.connect(None, data)
    database.migrate(engine)
    commits = GroupCommit(engine)
    with writing(engine):
        futures = [commits.submit([like(f"u{n}")], NOW) for n in range(5)]
        assert futures[-1].cancel()
    commits.close()
    assert [future.result() for future in futures[:-1]] == [1] * 4
    assert len(read(engine, data / "events")) == 4
    engine.dispose()


def test_closing_writes_what_waits_and_refuses_the_rest(engine: sa.Engine, folder: Path) -> None:
    commits = GroupCommit(engine)
    futures = [commits.submit([like("ann")] * 3, NOW) for _ in range(20)]
    commits.close()
    assert all(future.done() for future in futures)
    assert len(read(engine, folder)) == 60
    with pytest.raises(NotDurable, match="closed"):
        commits.submit([like("ann")], NOW)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_future_is_left_open_when_the_writer_dies(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = database.connect(None, data)
    database.migrate(engine)
    reached, go = threading.Event(), threading.Event()

    def die(*_: object) -> None:
        reached.set()
        go.wait(20)
        raise MemoryError

    monkeypatch.setattr(GroupCommit, "_commit", die)
    commits = GroupCommit(engine)
    first = commits.submit([like("ann")], NOW)
    assert reached.wait(20)
    second = commits.submit([like("ann")], NOW)
    go.set()
    for future in (first, second):
        with pytest.raises(NotDurable, match="stopped"):
            future.result(20)
    with pytest.raises(NotDurable):
        commits.submit([like("ann")], NOW)
    engine.dispose()


def test_who_was_deleted_and_comes_again_is_somebody_new(engine: sa.Engine, folder: Path, commits: GroupCommit) -> None:
    assert commits.submit([like("ann"), like("bob")], NOW).result(20) == 2
    with writing(engine) as connection:
        gone = people.delete(connection, "ann")
    assert commits.submit([like("ann"), like("bob")], NOW).result(20) == 2
    assert [event.user for event in read(engine, folder)] == ["bob", "ann", "bob"]
    with reading(engine) as connection:
        assert identities.user_keys(connection, ["ann"], None)["ann"] not in gone


def test_ids_of_a_commit_that_failed_are_not_believed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a mistake")

    engine = database.connect(None, data)
    database.migrate(engine)
    commits = GroupCommit(engine)
    with monkeypatch.context() as patched:
        patched.setattr(events, "_insert_rows", fail)  # when the ids have their keys already
        with pytest.raises(ValueError, match="mistake"):
            commits.submit([like("ann")], NOW).result(20)
    assert commits.submit([like("ann")], NOW).result(20) == 1
    commits.close()
    assert [event.user for event in read(engine, data / "events")] == ["ann"]
    engine.dispose()
