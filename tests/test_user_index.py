from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import database, events, retention, user_index
from palate.database import connect, migrate, reading, writing
from palate.domain import Event

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
USERS = ("ann", "bob", "cid")


def append(connection: sa.Connection, users: list[str]) -> None:
    events.append(connection, [Event(user=user, item="duck", type="like") for user in users], NOW)


def write_beside(connection: sa.Connection, users: list[str]) -> None:
    """As a program does that knows nothing of runs."""
    keys = known(connection)
    rows = [{"user": keys[user], "item": 1, "type": "like", "time": 5, "received": 5} for user in users if user in keys]
    if rows:
        connection.execute(sa.insert(database.events), rows)


def lose(connection: sa.Connection, users: list[str]) -> None:
    """An append whose process dies before its commit."""
    with connection.begin_nested() as step:
        append(connection, users)
        step.rollback()


def seal(connection: sa.Connection, count: int) -> None:
    """The oldest events leave the table as sealing takes them."""
    table = database.events.c
    oldest = sa.select(table.seq).order_by(table.seq).limit(count)
    connection.execute(sa.delete(database.events).where(table.seq.in_(oldest)))
    user_index.drop_sealed(connection)


def forget(connection: sa.Connection, user: str) -> None:
    key = known(connection).get(user)
    if key is not None:
        retention._forget_hot(connection, [key])
        held = [
            np.frombuffer(block, np.int64) for (block,) in connection.execute(sa.select(user_index.blocks.c.entries))
        ]
        assert key not in np.concatenate([np.zeros(0, np.int64), *held]) // user_index.SPAN


def known(connection: sa.Connection) -> dict[str, int]:
    return {row.id: row.key for row in connection.execute(sa.select(database.users.c.id, database.users.c.key))}


def agrees(connection: sa.Connection, after: int) -> None:
    """What the index finds is what looking through the whole table finds."""
    table = database.events.c
    rows = connection.execute(sa.select(table.seq, table.user).where(table.seq > after).order_by(table.seq)).all()
    for users in [[key] for key in known(connection).values()] + [list(known(connection).values())[:2]]:
        theirs = user_index.of_users(connection, users, after)
        found = connection.scalars(sa.select(table.seq).where(theirs).order_by(table.seq)).all()
        assert found == [row.seq for row in rows if row.user in users]


def uncovered_from(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.max(user_index.runs.c.last_seq))) or 0


several = st.lists(st.sampled_from(USERS), max_size=6).map(lambda users: users * len(users))
steps = st.one_of(
    *[st.tuples(st.just(append), several)] * 4,
    st.tuples(st.just(write_beside), several),
    st.tuples(st.just(lose), several),
    st.tuples(st.just(seal), st.integers(1, 30)),
    st.tuples(st.just(forget), st.sampled_from(USERS)),
)


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few events are many."""
    for name, value in (("TAIL", 4), ("FAN_OUT", 3), ("LARGEST", 50), ("BLOCK", 5)):
        monkeypatch.setattr(user_index, name, value)


@pytest.mark.usefixtures("small_runs")
def test_runs_and_tail_find_what_an_index_finds_whatever_happens() -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)

    @sa.event.listens_for(engine, "connect")
    def plainly(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        connection.isolation_level = None  # savepoints as SQLite has them

    @given(st.lists(steps, min_size=8, max_size=30), st.integers(0, 200))
    @settings(max_examples=20, deadline=None)
    def check(done: list[tuple[object, object]], after: int) -> None:
        with engine.connect() as connection, connection.begin() as transaction:
            connection.exec_driver_sql("BEGIN")
            database.metadata.create_all(connection)
            for step, what in done:
                step(connection, what)  # type: ignore[operator]
                agrees(connection, after)
                agrees(connection, 0)
            append(connection, ["ann"])
            assert events.last_seq(connection) - uncovered_from(connection) < user_index.TAIL
            transaction.rollback()

    check()
    engine.dispose()


@pytest.mark.usefixtures("small_runs")
def test_a_run_goes_once_its_last_event_is_sealed_and_not_before(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as connection:
        for count in (60, 20, 6, 2):  # each a run, the first two of several blocks; the last stays in the tail
            append(connection, ["ann", "bob"] * (count // 2))
        first, second, third = (1, 60), (61, 80), (81, 86)
        for sealed, left in (
            (0, [first, second, third]),
            (59, [first, second, third]),  # one of its events is there yet
            (1, [second, third]),
            (1, [second, third]),
            (18, [second, third]),
            (1, [third]),
            (6, []),
            (2, []),  # the log is empty
        ):
            seal(connection, sealed)
            runs = connection.execute(sa.select(user_index.runs.c.first_seq, user_index.runs.c.last_seq)).all()
            assert sorted(tuple(run) for run in runs) == left
            assert blocks_of_runs(connection) == {run[0]: run[1] - run[0] + 1 for run in left}
            agrees(connection, 0)
        append(connection, ["ann"] * 9)
        agrees(connection, 0)
        assert uncovered_from(connection) == events.last_seq(connection)


def blocks_of_runs(connection: sa.Connection) -> dict[int, int]:
    """By the first place of each run that has blocks, how many entries they hold."""
    found: dict[int, int] = {}
    for run, entries in connection.execute(sa.select(user_index.blocks.c.run, user_index.blocks.c.entries)):
        found[run] = found.get(run, 0) + len(entries) // 8
    return found


def test_an_empty_log_leaves_no_run(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as connection:
        append(connection, ["ann"] * user_index.TAIL)
        assert blocks_of_runs(connection) == {1: user_index.TAIL}
        seal(connection, user_index.TAIL)
        assert connection.scalar(sa.select(sa.func.count()).select_from(user_index.runs)) == 0
        assert blocks_of_runs(connection) == {}


@given(st.lists(st.integers(1, 3000), max_size=300))
def test_runs_stay_few_and_are_seldom_written_anew(sizes: list[int]) -> None:
    runs, moved = list[int](), 0
    for size in sizes:
        taken = user_index.merged(runs, size)
        moved += sum(runs[:taken])
        runs = [size + sum(runs[:taken]), *runs[taken:]]
    orders = [user_index._order(size) for size in runs]
    assert orders == sorted(orders)
    assert all(orders.count(order) < user_index.FAN_OUT for order in orders)
    assert moved <= sum(sizes) * 2 * (1 + max(orders, default=0))


def test_a_run_that_is_large_stays_as_it_is() -> None:
    assert user_index.merged([user_index.LARGEST] * 10, user_index.LARGEST) == 0
    assert user_index.merged([100, user_index.LARGEST], user_index.LARGEST) == 1


@pytest.fixture
def migrated(data: Path) -> Iterator[sa.Engine]:
    engine = connect(None, data)
    migrate(engine)
    yield engine
    engine.dispose()


def test_what_was_written_before_the_migration_is_found_after_it(migrated: sa.Engine) -> None:
    with writing(migrated) as connection:
        for table in (user_index.runs, user_index.blocks):
            table.drop(connection)
        connection.exec_driver_sql('CREATE INDEX events_user ON events ("user", seq)')
        rows = [{"user": n % 7, "item": 1, "type": "like", "time": 5, "received": 5} for n in range(1500)]
        connection.execute(sa.insert(database.events), rows)
        connection.exec_driver_sql("DELETE FROM events WHERE seq % 5 = 0")
        script = __import__("importlib").import_module("palate.migrations.versions.0018_user_index")
        with Operations.context(MigrationContext.configure(connection)):
            script.upgrade()
    with reading(migrated) as connection:
        assert connection.execute(sa.select(user_index.runs)).all() == [(1, 1499, 1200)]
        assert user_index.seqs(connection, [3]).tolist() == [n for n in range(1, 1501) if n % 5 and (n - 1) % 7 == 3]


def test_every_process_finds_at_once_what_another_committed(data: Path, migrated: sa.Engine) -> None:
    other = connect(None, data)
    for count in (1, 300, 2, 1200, 5):
        with writing(migrated) as connection:
            append(connection, ["ann", *["bob"] * count])
        with reading(other) as connection:
            seqs = user_index.seqs(connection, [known(connection)["ann"]])
            assert seqs[-1] == events.last_seq(connection) - count
    assert len(seqs) == 5
    other.dispose()
