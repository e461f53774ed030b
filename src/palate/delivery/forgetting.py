"""The end of a person here: out of the log, the published models and the tables."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from palate import chats, events, outbox, people, snapshots
from palate.database import reading, writing


def delete_person(engine: sa.Engine, data: Path, user: str) -> bool:
    """Delete the person behind a user id, under all ids they are known by. False when nobody has this id.

    Their row goes last, so that a deletion that was cut off can be asked for again.
    """
    with reading(engine) as connection:
        person = people.get(connection, user)
    if person is None:
        return False
    events.forget(engine, data / "events", person.keys)
    snapshots.forget_user(data / "snapshots", person.keys)
    with writing(engine) as connection:
        people.delete(connection, user)
        talked = chats.of_users(person.ids)
        chats.forget(connection, talked)
        outbox.forget(connection, talked)
    events.forget(engine, data / "events", person.keys)  # what came in meanwhile
    return True
