"""Whose an object store is: one installation's alone, since what no table of it names is removed from the store."""

from __future__ import annotations

import secrets
from functools import cache

import sqlalchemy as sa

from palate.database import meta, reading, store_of, writing
from palate.errors import StoreError
from palate.identities import insert_new
from palate.store import Store, opened

OWNER = "OWNER"
"""The file in the store that names the installation."""


def owned(engine: sa.Engine) -> Store | None:
    """The store of this installation; None without one. Not for use within a transaction.

    Raises StoreError when it can't be reached, or holds another installation's files; SettingsError.
    """
    address = store_of(engine)
    return None if address is None else _owned(address, _installation(engine))


@cache
def _owned(address: str, installation: str) -> Store:
    """Asked once in a process."""
    store = opened(address)
    owner = store.read(OWNER)
    if owner is None:
        store.write(OWNER, installation.encode())
    elif owner.decode("utf-8", "replace") != installation:
        raise StoreError(
            f"The store {store.address} belongs to another installation: give this one a bucket or prefix of its own."
        )
    return store


def _installation(engine: sa.Engine) -> str:
    """A word of this database's own."""
    known = sa.select(meta.c.value).where(meta.c.name == "installation")
    with reading(engine) as connection:
        found = connection.scalar(known)
    if found is None:
        with writing(engine) as connection:
            values = {"name": "installation", "value": secrets.token_hex(8)}
            connection.execute(insert_new(connection, meta).values(**values).on_conflict_do_nothing())
            found = connection.execute(known).scalar_one()
    return str(found)
