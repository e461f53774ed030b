"""The vectors of items' texts, kept beside the catalog; `understandings` makes them when an item comes or changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities

TYPE = np.dtype("<f2")
"""Of the stored numbers."""


def read(
    connection: sa.Connection, version: int, length: int, keys: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Keys (n,), ascending, and vectors (n, length) of this version; those of items without words are left out.

    `keys`: of these items alone; None: of all.
    """
    table = database.item_vectors
    query = sa.select(table.c.item, table.c.vector).where(table.c.version == version).order_by(table.c.item)
    rows: list[Any] = []
    if keys is None:
        rows += database.plain_rows(connection.execute(query))
    else:
        for chunk in identities.chunks(np.unique(keys).tolist()):
            rows += database.plain_rows(connection.execute(query.where(table.c.item.in_(chunk))))
    full = [(item, vector) for item, vector in rows if len(vector) == length * TYPE.itemsize]
    vectors = np.frombuffer(b"".join([vector for _, vector in full]), TYPE).reshape(-1, length)
    return np.array([item for item, _ in full], np.int64), vectors.astype(np.float16, copy=False)
