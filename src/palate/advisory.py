"""Locks of PostgreSQL, for machines that share nothing but the database; on SQLite a lock on a file in the data folder does.

Each is held by a session: the server frees it when the session ends, and what is committed in that session is committed under it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial

import sqlalchemy as sa

from palate.database import durably, writing
from palate.errors import AlreadyRunning, DatabaseError

log = logging.getLogger(__name__)

OURS = 7073619
"""The first half of each lock's number; the other locks of Palate are of another kind, of one number."""

LOOK = 5.0
"""Seconds between two looks at whether a role is still ours."""

_KEEPALIVE = {"tcp_keepalives_idle": 20, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 4}
"""So that the lock of a machine that lost its power is free within a minute, not after two hours."""

Writing = Callable[[], AbstractContextManager[sa.Connection]]
"""Opens a transaction, as `database.writing` does."""


@contextmanager
def held(engine: sa.Engine, name: str) -> Iterator[Writing]:
    """Hold a lock, after others who wait for it; gives what opens transactions that can be committed only while it is held.

    On SQLite nothing is locked. Raises NotDurable.
    """
    if engine.dialect.name != "postgresql":
        yield partial(writing, engine)
        return
    with closing(_session(engine)) as session:
        with durably(), session.begin():
            session.execute(sa.text("SELECT pg_advisory_lock(:ours, :name)"), _number(name))
        yield partial(_transaction, session)


@contextmanager
def _transaction(session: sa.Connection) -> Iterator[sa.Connection]:
    with durably(), session.begin():
        yield session


@contextmanager
def role(engine: sa.Engine, name: str, command: str) -> Iterator[None]:
    """Hold a role of this installation on all machines for as long as the block runs; on SQLite its lock file does.

    When the server was away and another machine took the role meanwhile, this process gets SIGTERM, as if somebody stopped it.
    Raises AlreadyRunning when another process has the role, NotDurable.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    take, stop = partial(_taken, engine, name, command), threading.Event()
    keeper = threading.Thread(target=_keep, args=(take, take(), stop), name=f"role {name}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


def _taken(engine: sa.Engine, name: str, command: str) -> sa.Connection:
    """A session that has the role."""
    session = _session(engine)
    with durably(), session.begin():
        if not session.scalar(sa.text("SELECT pg_try_advisory_lock(:ours, :name)"), _number(f"role {name}")):
            session.close()
            raise AlreadyRunning(
                f"`{command}` is already running on this database, here or on another machine: stop it first."
            )
    return session


def _keep(take: Callable[[], sa.Connection], session: sa.Connection, stop: threading.Event) -> None:
    """Look after the session, and take the role anew when it was lost with it."""
    while not stop.wait(LOOK):
        try:
            session = session if _lives(session) else take()
        except AlreadyRunning as error:
            log.error("The database was away, and the role with it: %s", error)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        except DatabaseError:
            continue  # it is away
    session.close()


def _lives(session: sa.Connection) -> bool:
    try:
        with session.begin():
            session.execute(sa.text("SELECT 1"))
        return True
    except sa.exc.SQLAlchemyError:
        session.close()
        return False


def _session(engine: sa.Engine) -> sa.Connection:
    """A session of its own, which ends when it is closed."""
    with durably():
        session = engine.connect()
        session.detach()
        with session.begin():
            for setting, seconds in _KEEPALIVE.items():
                session.execute(sa.text(f"SET {setting} = {seconds}"))
    return session


def _number(name: str) -> dict[str, int]:
    return {"ours": OURS, "name": zlib.crc32(name.encode()) - 2**31}
