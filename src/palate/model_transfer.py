"""The vectors of implicit ALS into an installation and out of it, in the files of `implicit` and of Spark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import catalog, contents, database, examples, identities, publishing, snapshots, trial
from palate.database import reading, writing
from palate.errors import ArchiveError, NotFound
from palate.examples import Examples, Params
from palate.identities import check_id
from palate.lessons import Lesson
from palate.models import als_update, exchange, stored
from palate.models.exchange import Factors
from palate.models.implicit_als import ImplicitALS
from palate.vocabulary import Vocabulary

Format = Literal["implicit", "spark"]
NAME = "ials"


def export_model(engine: sa.Engine, data: Path, path: Path, format: Format, now: datetime) -> Factors:
    """Write the published vectors and their ids: a file for `implicit`, a folder for Spark.

    Raises NotFound when no such model is published, ArchiveError when the file can't be written.
    """
    snapshot = snapshots.load_newest_good(data / "snapshots")
    if snapshot is None or NAME not in stored.names(snapshot):
        raise NotFound(
            'No model of implicit ALS is published: set [train] models = ["ials"] and run `palate train --full`.'
        )
    model: ImplicitALS = stored.load(snapshot, NAME)
    with reading(engine) as connection:
        users = _ids(connection, database.users, model.users)
        items = _ids(connection, database.items, model.items)
    factors = exchange.of_model(model, users, items)
    if format == "implicit":
        exchange.write_implicit(path, factors)
    else:
        exchange.write_spark(path, factors, now)
    return factors


def import_model(
    engine: sa.Engine, data: Path, path: Path, format: Format, params: Params, now: datetime
) -> tuple[Factors, str]:
    """Publish the vectors of a file or folder as the model `ials`; return them and the version of the snapshot.

    People are scored by what the log says of them, under the l2 and alpha that the other program names. Ids that nobody knows
    become users and items. Raises ArchiveError when it can't be read, NotDurable or DataFolderError when it can't be kept.
    """
    factors = exchange.read_implicit(path) if format == "implicit" else exchange.read_spark(path)
    _check(path, factors)
    with writing(engine) as connection:
        users = identities.user_keys(connection, factors.users, now)
        items = identities.item_keys(connection, factors.items, now)
        catalog.admit(connection, factors.items, now)
    user_keys, item_keys = (
        np.array([keys[id] for id in ids], np.int64) for keys, ids in ((users, factors.users), (items, factors.items))
    )
    if len(np.unique(item_keys)) < len(item_keys):
        raise ArchiveError(f"{path} names one item by two ids that were merged here: leave one of them out.")
    known = _with_all(engine, examples.read(engine, data, params, now, 0), user_keys, item_keys)
    model = als_update.with_rows(exchange.to_model(factors, user_keys, item_keys), known.users, known.items)
    test = trial.RankingTest(trial.around(model.user_vectors[: trial.SAMPLE] @ model.item_vectors.T))
    lesson = Lesson(NAME, model, 0, False, test, np.zeros(0, np.float32))
    return factors, publishing.publish(engine, data, known, [lesson], known.seq, params, now)


def _ids(connection: sa.Connection, table: sa.Table, rows: Vocabulary) -> list[str]:
    found: dict[int, str] = {}
    for chunk in identities.chunks(rows.keys.tolist()):
        query = sa.select(table.c.key, table.c.id).where(table.c.key.in_(chunk))
        found.update((row.key, row.id) for row in connection.execute(query))
    return [found.get(key, f"deleted-{key}") for key in rows.keys.tolist()]


def _check(path: Path, factors: Factors) -> None:
    """Ids come from outside."""
    for what, ids in (("a user's id", factors.users), ("an item's id", factors.items)):
        for id in ids:
            check_id(id, f"{path}: {what}")
        _refuse_repeats(path, ids)


def _refuse_repeats(path: Path, ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        raise ArchiveError(f"{path} has two rows of vectors for one id.")


def _with_all(
    engine: sa.Engine, known: Examples, user_keys: NDArray[np.int64], item_keys: NDArray[np.int64]
) -> Examples:
    users, items = known.users.extended(user_keys), known.items.extended(item_keys)
    with reading(engine) as connection:
        return replace(known, users=users, items=items, contents=contents.read(connection, items.keys))
