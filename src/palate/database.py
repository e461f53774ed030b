"""SQLite or PostgreSQL: the engine, the tables, the migrations, and the two ways to use a connection.

`reading(engine)` sees one consistent state; `writing(engine)` is one transaction that is either wholly durable or not there.
SQL stays in the open: SQLAlchemy Core, no ORM.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

from palate.errors import DatabaseError, DatabaseTooNew, DataFolderError, NotDurable
from palate.turns import Turns

Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows itself only for INTEGER
Json = sa.JSON()

metadata = MetaData()

PATIENCE = 15
"""Seconds that a write to SQLite waits for other writers."""

REVISION = "0018"
"""The last step in `migrations/versions`; known here so that a start without migrations need not load Alembic."""

meta = Table(  # facts about this installation, such as its signing secret
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

sources = Table(
    "sources",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),  # feed, folder, api, archive, sample …
    Column("address", Text, nullable=False),
    Column("title", Text),
    Column("site", Text),
    Column("language", Text),
    Column("options", Json, nullable=False),  # the owner's choices for this source, such as full_text
    Column("state", Json, nullable=False),  # what its next reading needs
    Column("status", Text, nullable=False),  # active, paused
    Column("created", BigInteger, nullable=False),
    Column("next_fetch", BigInteger),  # None: is not fetched, but pushed
    Column("last_fetch", BigInteger),
    Column("last_success", BigInteger),
    Column("last_error", Text),
    Column("failures", Integer, nullable=False),  # in a row
    sa.UniqueConstraint("kind", "address"),
    sqlite_autoincrement=True,
)

items = Table(
    "items",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),  # stub (named by an event only), live, hidden (source removed), deleted
    Column("source", BigInteger),
    Column("url", Text),
    Column("canonical_url", Text, unique=True),
    Column("title", Text),
    Column("text", Text),
    Column("author", Text),
    Column("published", BigInteger),
    Column("received", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("language", Text),
    Column("kind", Text, nullable=False),
    Column("duration", Float),
    Column("media", Json, nullable=False),
    Column("labels", Json, nullable=False),
    Column("license", Text),
    Column("category", Text),  # one of `text.category.CATEGORIES`; None: no news, or in a language without a model
    Column("story", BigInteger),  # key of the story's first item; None: alone
    Column("leads", SmallInteger),  # 1 for the item that is its story's headline
    Column("mark", Float),  # what owners take its story's importance times; None: 1
    Index("items_updated", "updated"),
    Index("items_source", "source"),
    sqlite_autoincrement=True,
)

item_vectors = Table(  # of the items' texts, made by `text.embedding`
    "item_vectors",
    metadata,
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),  # of what made it: others don't compare
    Column("vector", LargeBinary, nullable=False),  # float16; empty where the text has no words
)

understandings = Table(  # what `text.understanding` found out about items; what counts stands in `items`
    "understandings",
    metadata,
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),  # of what found it out
    Column(
        "model", Text, nullable=False, server_default=""
    ),  # of classes: this installation's own; empty: the shipped one
    Column("language", Text),  # None where the source said it, or nothing could tell it
    Column("confidence", Float, nullable=False),  # in the language
    Column("probabilities", LargeBinary),  # float32 of `text.category.CLASSES`; None: no model of the language
    Column("lead", LargeBinary),  # of its beginning, packed by `embedding`: by it the story is found; None: of no words
)

label_answers = Table(  # what annotators said of items' texts: see `labels`
    "label_answers",
    metadata,
    Column("annotator", BigInteger, primary_key=True, autoincrement=False),
    Column("task", Text, primary_key=True),  # category, news, story, importance
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("other", BigInteger, primary_key=True, autoincrement=False),  # of the same story? 0: no pair is asked about
    Column("value", Text, nullable=False),  # empty: skipped
    Column("gold", SmallInteger, nullable=False),  # 1: an owner is certain; others are tested by it
    Column("time", BigInteger, nullable=False),
    Index("label_answers_item", "item"),
)

agreed_labels = Table(  # what follows from the answers and holds for the items
    "agreed_labels",
    metadata,
    Column("task", Text, primary_key=True),
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("other", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Text, nullable=False),
    Index("agreed_labels_item", "item"),
)

labelled_items = Table(  # the texts as they were when they were labelled: labels outlive their items
    "labelled_items",
    metadata,
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),  # plain
    Column("language", Text),
)

news_documents = Table(  # what `tgnews server` holds of its articles; their texts are items
    "news_documents",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),  # the item's id
    Column("expires", BigInteger, nullable=False),  # when the newest article is of a later time, it is gone
    Column("document", LargeBinary, nullable=False),  # `news.Document` as MessagePack
    Column("vector", LargeBinary, nullable=False),  # of its beginning, packed by `embedding`
    sqlite_autoincrement=True,
)

source_links = Table(  # how often the texts of a site's items link to another site
    "source_links",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),  # on which they were published, since 1970
    Column("origin", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("count", Integer, nullable=False),
    sqlite_with_rowid=False,
)

item_origins = Table(  # every source that gave an item, under the source's own id for it
    "item_origins",
    metadata,
    Column("guid", Text, primary_key=True),  # first, so that an id is found without its source
    Column("source", BigInteger, primary_key=True),  # 0: a caller that named none
    Column("item", BigInteger, nullable=False),
    Index("item_origins_item", "item"),
)

item_counters = Table(  # what sources count themselves: views, forwards …
    "item_counters",
    metadata,
    Column("item", BigInteger, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Float(53), nullable=False),
    Column("time", BigInteger, nullable=False),  # when it was so
    sqlite_with_rowid=False,
)

users = Table(  # an id that somebody is known by; ids of one person share `person`
    "users",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("person", BigInteger),  # None: this row's own key
    Column("labels", Json, nullable=False),
    Column("choices", Json, nullable=False),
    Column("created", BigInteger, nullable=False),
    Index("users_person", "person"),
    sqlite_autoincrement=True,
)

source_choices = Table(
    "source_choices",
    metadata,
    Column("person", BigInteger, primary_key=True),
    Column("source", BigInteger, primary_key=True),
    Column("choice", Text, nullable=False),  # hidden, followed
    Column("time", BigInteger, nullable=False),
)

lists = Table(  # precomputed for each person, by `palate recommend --all`
    "lists",
    metadata,
    Column("name", Text, primary_key=True),
    Column("person", BigInteger, primary_key=True),
    Column("created", BigInteger, nullable=False),
    Column("snapshot", Text, nullable=False),
    Column("items", LargeBinary, nullable=False),  # keys as 64-bit whole numbers, best first
    Column("scores", LargeBinary, nullable=False),  # float32
    Index("lists_person", "person"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),  # the part of the key that may be shown
    Column("hash", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # read, write, admin; blank-separated
    Column("note", Text),
    Column("created", BigInteger, nullable=False),
    Column("revoked", BigInteger),
)

logins = Table(  # links that log a browser in, each good once
    "logins",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("person", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
)

events = Table(  # the hot tail of the log; older days lie sealed in Parquet
    "events",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("id", Text),
    Column("user", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("value", Float(53)),
    Column("time", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("request", Text),
    Column("surface", Text),
    Column("position", Integer),
    Column("snapshot", Text),
    Column("variant", Text),
    Column("probability", Float(53)),
    Column("features", Text),
    Index("events_user", "user", "seq").ddl_if(dialect="postgresql"),  # on SQLite see `user_index`
    sqlite_autoincrement=True,
)

event_ids = Table(  # client ids of the last seven days, for exactly-once
    "event_ids",
    metadata,
    Column("id", Text, primary_key=True),
    Column("received", BigInteger, nullable=False),
    Index("event_ids_received", "received"),
    sqlite_with_rowid=False,
)

editions = Table(  # the best of what came lately, as it was told every few hours: see `editions`
    "editions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("released", BigInteger, primary_key=True),
    Column("items", LargeBinary, nullable=False),  # keys, best first: int64
    Column("rates", LargeBinary, nullable=False),  # share of people who like each: float32
    Column("lower", LargeBinary, nullable=False),  # the lower end of its interval: float32
)

sealed = Table(  # the Parquet files that belong to the log
    "sealed",
    metadata,
    Column("path", Text, primary_key=True),  # relative to the data folder's events/
    Column("day", Text, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
)

item_counts = Table(  # events in sealed files, those since expired included
    "item_counts",
    metadata,
    Column("item", BigInteger, primary_key=True),
    Column("type", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("taken", Float(53), nullable=False, server_default="0"),  # sum of their values, each within 0 and 1
    sqlite_with_rowid=False,
)

daily_figures = Table(  # what was counted of each day of incoming data
    "daily_figures",
    metadata,
    Column("origin", Text, primary_key=True),  # log, player
    Column("day", Text, primary_key=True),  # UTC, YYYY-MM-DD
    Column("name", Text, primary_key=True),
    Column("subject", Text, primary_key=True),  # a type of event, a source's id; "" for all
    Column("count", Float(53), nullable=False),
    Column("out_of", Float(53)),  # None for a plain count
    sqlite_with_rowid=False,
)

experiments = Table(  # what is tried on whom
    "experiments",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("definition", Text, nullable=False),  # JSON, see experiments.Experiment
    Column("started", BigInteger, nullable=False),
    Column("stopped", BigInteger),  # None: runs
    Column("reason", Text),  # why it was stopped
    sqlite_autoincrement=True,
)

experiment_looks = Table(  # what was seen of an experiment at the end of a day
    "experiment_looks",
    metadata,
    Column("experiment", BigInteger, primary_key=True),
    Column("day", Text, primary_key=True),  # UTC, YYYY-MM-DD
    Column("look", Text, nullable=False),  # JSON, see experiment_judging.Look
    sqlite_with_rowid=False,
)

cycles = Table(  # what the training loop did
    "cycles",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # full, incremental
    Column("reason", Text, nullable=False),  # why it ran, and for a refused one why it was refused
    Column("started", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("seq", BigInteger, nullable=False),  # the last event it had read
    Column("examples", BigInteger, nullable=False),
    Column("version", Text),  # of the snapshot; None when it was refused
    Column("loss", Float),  # on the newest held-out events
    Column("prior_loss", Float),  # of the prior, on the same events
    Column("losses", LargeBinary, nullable=False),  # float32, one a mini-batch
    Column("warm", SmallInteger, nullable=False),  # 1 when it went on from the last model
    sqlite_autoincrement=True,
)

alerts = Table(  # what somebody should look at
    "alerts",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("ended", BigInteger),  # None: still so
    sqlite_autoincrement=True,
)


def connect(url: str | None, data: Path, store: str | None = None) -> sa.Engine:
    """An engine for `url`, or for `palate.sqlite` in the data folder when `url` is None.

    `store` is the address of the object store that several machines share, for `store_of`. Raises DatabaseError for an address
    of a database that isn't one, DataFolderError when the folder can't be made.
    """
    engine = _connect(url, data)
    engine.update_execution_options(palate_store=store)
    return engine


def store_of(engine: sa.Engine) -> str | None:
    """The address of the object store where sealed events and snapshots lie for all machines; None: in the data folder alone."""
    found: str | None = engine.get_execution_options().get("palate_store")
    return found


def _connect(url: str | None, data: Path) -> sa.Engine:
    if url is None:
        return _sqlite_engine(data / "palate.sqlite")
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise DatabaseError("The database address isn't a URL such as postgresql://user@host/name.") from error
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(Path(parsed.database or "palate.sqlite"))
    if parsed.get_backend_name() != "postgresql":
        raise DatabaseError(f"Palate runs on SQLite and PostgreSQL, not on {parsed.get_backend_name()}.")
    try:
        parsed = parsed.set(drivername="postgresql+psycopg")
        return sa.create_engine(parsed, pool_pre_ping=True, json_deserializer=msgspec.json.decode)
    except ImportError as error:
        raise DatabaseError("PostgreSQL needs its driver: pip install 'palate[postgres]'.") from error


def _sqlite_engine(path: Path) -> sa.Engine:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFolderError(f"The data folder {path.parent} can't be made: {error.strerror}.") from error
    engine = sa.create_engine(
        f"sqlite:///{path}",
        # Patience is for the rare lock of a program that takes no turns; of statements, those that add events are very many.
        connect_args={"timeout": PATIENCE, "cached_statements": 500},
        json_deserializer=msgspec.json.decode,
        execution_options={"palate_turns": Turns(path, PATIENCE)},
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin in _begin_sqlite, not by the driver's guess
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-8000", "journal_size_limit=67108864"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("palate_write", False)
    if write:  # a transaction that turns from reading to writing midway can fail at once with "database is locked"
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.connection.cursor().execute("BEGIN")  # takes no lock yet, so that nothing can go wrong


def plain_rows(result: sa.CursorResult[Any]) -> list[tuple[Any, ...]]:
    """The rows as the driver gives them: an object of SQLAlchemy around each takes as long as reading it."""
    with result:
        rows = list(result.cursor.fetchall())
    return rows


def driver_rows(
    connection: sa.Connection, statement: sa.Select[Any], parameters: dict[str, Any]
) -> list[tuple[Any, ...]]:
    """The rows of a statement as the driver gives them, JSON columns too: for the few that each request asks, since what
    SQLAlchemy does around a statement takes several times what it takes itself. No parameter may be a list that expands.
    """
    text, order = _written(statement, connection.dialect)
    with driver_cursor(connection) as cursor:
        cursor.execute(text, parameters if order is None else tuple(parameters[name] for name in order))
        return list(cursor.fetchall())


@contextmanager
def driver_cursor(connection: sa.Connection) -> Iterator[Any]:
    """A cursor of the driver within the connection's transaction, whose failures come as SQLAlchemy's."""
    cursor = connection.connection.cursor()
    try:
        yield cursor
    except connection.dialect.loaded_dbapi.OperationalError as error:
        raise sa.exc.OperationalError("by the driver's cursor", None, error) from error
    finally:
        cursor.close()


@lru_cache(maxsize=100)
def _written(statement: sa.Select[Any], dialect: sa.Dialect) -> tuple[str, tuple[str, ...] | None]:
    """The text of a statement, and the order of its parameters where they go by their places."""
    compiled = statement.compile(dialect=dialect)
    order = getattr(compiled, "positiontup", None)
    return str(compiled), None if order is None else tuple(order)


def plain_json(value: Any) -> Any:
    """The value of a JSON column as a driver gives it: SQLite's as a text, PostgreSQL's already read."""
    return msgspec.json.decode(value) if isinstance(value, str) else value


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that sees one consistent state throughout. Raises DatabaseError when the database can't be reached."""
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection
    except sa.exc.OperationalError as error:
        raise DatabaseError(f"The database can't be read: {_cause(error)}.") from error


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction, durable when the block has ended without an error. Raises NotDurable when it can't be made so."""
    turns = engine.get_execution_options().get("palate_turns")
    # A connection is taken only within the turn: those who wait for one must not empty the pool.
    with durably(), turns.turn() if turns else nullcontext(), engine.connect() as connection:
        connection = connection.execution_options(palate_write=True)
        with connection.begin():
            yield connection


@contextmanager
def durably() -> Iterator[None]:
    """Raises NotDurable for what the driver raises within the block."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InternalError) as error:
        raise NotDurable(f"The database can't be written: {_cause(error)}.") from error


def _cause(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0].rstrip(".")


def migrate(engine: sa.Engine) -> None:
    """Bring the tables to this program's state in one transaction; processes that start together take turns.

    Raises DatabaseTooNew when a newer Palate has already migrated this database.
    """
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7073617)"))  # until the commit
        found = _revision(connection)
        if found != REVISION:
            _run_steps(connection, found)


@contextmanager
def opened(url: str | None, data: Path, store: str | None = None) -> Iterator[sa.Engine]:
    """The database at `url`, or (None) in the data folder, migrated; closed afterwards. Raises as both do."""
    engine = connect(url, data, store)
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()


def _run_steps(connection: sa.Connection, found: str | None) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "palate:migrations")
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    if found is not None and found not in {step.revision for step in script.walk_revisions()}:
        raise DatabaseTooNew(
            "This database was made by a newer Palate: update the program, or point it at another data folder."
        )
    with EnvironmentContext(config, script, fn=lambda at, _: script._upgrade_revs(REVISION, at)) as steps:
        steps.configure(connection=connection, target_metadata=metadata)
        steps.run_migrations()


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
