import functools
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from palate import database, telegram_tables, user_index
from palate.errors import DatabaseError, DatabaseTooNew, NotDurable


def test_migrations_make_exactly_the_tables_of_the_program(engine: sa.Engine) -> None:
    [metadata] = {telegram_tables.accounts.metadata, user_index.runs.metadata}  # one, which modules add tables to
    with engine.connect() as connection:
        meant = functools.partial(_is_meant, connection.dialect.name)
        context = MigrationContext.configure(connection, opts={"include_object": meant})
        assert compare_metadata(context, metadata) == []


def _is_meant(dialect: str, _thing: object, name: str, _kind: str, reflected: bool, _other: object) -> bool:
    """Whether this database is to have a thing of the program's tables."""
    return reflected or name != "events_user" or dialect == "postgresql"


def test_the_known_revision_is_the_last_step() -> None:
    steps = ScriptDirectory(str(Path(database.__file__).parent / "migrations"))
    assert steps.get_current_head() == database.REVISION


def test_migrating_twice_changes_nothing(engine: sa.Engine) -> None:
    with database.writing(engine) as connection:
        connection.execute(sa.insert(database.meta).values(name="kept", value="yes"))
    database.migrate(engine)
    with database.reading(engine) as connection:
        assert connection.scalar(sa.select(database.meta.c.value)) == "yes"


def test_a_newer_database_is_refused_and_left_alone(engine: sa.Engine) -> None:
    with database.writing(engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew, match="newer Palate"):
        database.migrate(engine)


def test_a_failed_step_leaves_nothing_behind(
    database_url: str | None, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.connect(database_url, data)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("torn")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.operations.Operations.create_index", fail)
        patch.setattr("alembic.op.create_index", fail, raising=False)
        with pytest.raises(RuntimeError):
            database.migrate(engine)
    assert sa.inspect(engine).get_table_names() == []
    database.migrate(engine)
    assert "events" in sa.inspect(engine).get_table_names()
    engine.dispose()


def test_keys_are_never_given_twice(engine: sa.Engine) -> None:
    row = {"id": "a", "labels": {}, "choices": {}, "created": 0}
    with database.writing(engine) as connection:
        first = connection.execute(sa.insert(database.users).values(row)).inserted_primary_key
        connection.execute(sa.delete(database.users))
        second = connection.execute(sa.insert(database.users).values(row)).inserted_primary_key
    assert first is not None
    assert second is not None
    assert second[0] > first[0]


def test_a_block_that_fails_writes_nothing(engine: sa.Engine) -> None:
    with pytest.raises(KeyError), database.writing(engine) as connection:
        connection.execute(sa.insert(database.meta).values(name="a", value="b"))
        raise KeyError
    with database.reading(engine) as connection:
        assert connection.execute(sa.select(database.meta)).all() == []


def test_a_full_database_is_not_durable_and_says_so(data: Path) -> None:
    engine = database.connect(None, data)
    database.migrate(engine)
    with pytest.raises(NotDurable, match="full"), database.writing(engine) as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        connection.execute(sa.insert(database.meta).values(name="a", value="x" * 100_000))
    engine.dispose()


@pytest.mark.parametrize("url", ["mysql://localhost/x", "nonsense", "oracle://x"])
def test_other_databases_are_refused_in_one_sentence(url: str, data: Path) -> None:
    with pytest.raises(DatabaseError) as caught:
        database.connect(url, data)
    assert str(caught.value).count(".") == 1 or "://" in str(caught.value)


def test_an_unreachable_server_is_named() -> None:
    engine = database.connect("postgresql://nobody@127.0.0.1:1/none", Path())
    with pytest.raises(DatabaseError, match="can't be read"), database.reading(engine):
        pass
