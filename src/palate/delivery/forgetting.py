"""The end of a person here: out of the log, the published models and the tables."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import sqlalchemy as sa

from palate import chats, outbox, people, replica, retention
from palate.database import connect, reading, store_of, writing


def delete_person(engine: sa.Engine, data: Path, user: str) -> bool:
    """Delete the person behind a user id, under all ids they are known by. False when nobody has this id.

    Their row goes last, so that a deletion that was cut off can be asked for again. Raises StoreError, NotDurable.
    """
    if store_of(engine) is None:
        return _deleted(engine, data, user)
    # In a process of its own: what reads object stores would stay in the memory of this one.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        url = engine.url.render_as_string(hide_password=False)
        return pool.submit(_deleted_by_child, url, data, store_of(engine), user).result()


def _deleted_by_child(url: str, data: Path, store: str | None, user: str) -> bool:
    engine = connect(url, data, store)
    try:
        return _deleted(engine, data, user)
    finally:
        engine.dispose()


def _deleted(engine: sa.Engine, data: Path, user: str) -> bool:
    with reading(engine) as connection:
        person = people.get(connection, user)
    if person is None:
        return False
    retention.forget(engine, data / "events", person.keys)
    replica.forget(engine, data, person.keys)
    with writing(engine) as connection:
        people.delete(connection, user)
        talked = chats.of_users(person.ids)
        chats.forget(connection, talked)
        outbox.forget(connection, talked)
    # What came in meanwhile, and a snapshot that was published meanwhile.
    retention.forget(engine, data / "events", person.keys)
    replica.forget(engine, data, person.keys)
    return True
