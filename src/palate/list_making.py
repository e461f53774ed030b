"""From a surface to its lists for everybody: computed, written as Parquet, and put into the database for serving."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities, lists, recommending
from palate.database import reading
from palate.domain import to_milliseconds
from palate.errors import InvalidInput
from palate.interactions import InteractionParams
from palate.list_files import Writer, is_ours
from palate.lists import PersonList
from palate.live import Live
from palate.models.registry import Name
from palate.recommending import ListParams, Progress, Wanted
from palate.rules import RuleParams
from palate.surface_params import SurfaceParams

EVERYWHERE = "default"
"""Name of the lists that are made for no surface in particular."""


class ListMaking(msgspec.Struct, frozen=True, kw_only=True):
    """The Params of every part that lists are made by."""

    model: Name = "fm"
    """Of the feed: for surfaces that name none."""
    window_days: float = 7.0
    """Of the feed."""
    lists: ListParams = ListParams()
    surfaces: dict[str, SurfaceParams] = {}
    rules: RuleParams = RuleParams()
    interactions: InteractionParams = InteractionParams()


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    name: str
    model: str
    """By which the lists were made: the one that was wanted, or what is served in its place."""
    snapshot: str
    people: int
    """Who have a list."""
    items: int
    """How many different ones are in the lists."""
    limit: int
    seconds: float
    folder: str


def params_of(settings: Any) -> ListMaking:
    """The Params of making lists among the sections of the settings."""
    return ListMaking(
        model=settings.feed.model,
        window_days=settings.feed.window_days,
        lists=settings.lists,
        surfaces=settings.surfaces,
        rules=settings.rules,
        interactions=settings.interactions,
    )


def renew(engine: sa.Engine, data: Path, params: ListMaking, now: datetime) -> list[Made]:
    """The lists of all surfaces that name some, each once."""
    surfaces = {surface.lists: surface for surface in params.surfaces.values() if surface.lists is not None}
    live = opened(engine, data, params, now)
    return [
        make(live, name, wanted_of(surface, params), data / "lists" / name, now, _untold)
        for name, surface in surfaces.items()
    ]


def opened(engine: sa.Engine, data: Path, params: ListMaking, now: datetime) -> Live:
    """What serving would know now."""
    live = Live(engine, data, params.interactions, params.model, rules=params.rules, surfaces=params.surfaces)
    live.refresh(now)
    return live


def wanted_of(surface: SurfaceParams, params: ListMaking, limit: int | None = None) -> Wanted:
    """The lists of a surface, of the settings' length if none is named."""
    length, window = limit or params.lists.limit, timedelta(days=params.window_days)
    return Wanted(surface, length, window, params.rules, params.lists.threads, params.lists.min_items)


def make(live: Live, name: str, wanted: Wanted, folder: Path, now: datetime, progress: Progress) -> Made:
    """Lists of this name for everybody, in `folder` and in the database, where each takes the place of the person's old one.

    Raises NotFound where nothing was learned yet, InvalidInput for a folder of something else, DataFolderError, NotDurable.
    """
    if not is_ours(folder):
        raise InvalidInput(f"{folder} holds something else than lists: name a folder of their own.")
    begin, pool = time.perf_counter(), live.state.by(wanted.surface.model).pool
    with reading(live.engine) as connection:
        ids = _item_ids(connection, pool.keys)
    recommended, version = np.zeros(len(pool), bool), ""
    with Writer(folder) as writer:
        for found in recommending.for_everybody(live, wanted, now, progress):
            lists.write(live.engine, name, found, now)
            recommended[pool.rows(_put(writer, live.engine, found, pool.keys, ids))] = True
            version = found[0].snapshot if found else version
        made = Made(
            name=name,
            model=pool.model.name,
            snapshot=version or str(pool.model.version),
            people=writer.people,
            items=int(recommended.sum()),
            limit=wanted.limit,
            seconds=round(time.perf_counter() - begin, 3),
            folder=str(folder),
        )
        writer.finish({"created": to_milliseconds(now), **_header(made)})
    lists.drop_older(live.engine, name, now)
    return made


def _header(made: Made) -> Mapping[str, Any]:
    return {name: getattr(made, name) for name in ("name", "model", "snapshot", "items", "limit")}


def _put(
    writer: Writer,
    engine: sa.Engine,
    found: Sequence[PersonList],
    keys: NDArray[np.int64],
    ids: NDArray[np.object_],
) -> NDArray[np.int64]:
    """Add these lists to the files, those of people who were deleted meanwhile left out; return the keys of their items."""
    with reading(engine) as connection:
        names = _user_ids(connection, [one.person for one in found])
    kept = [one for one in found if one.person in names]
    if not kept:
        return keys[:0]
    items = np.concatenate([one.items for one in kept])
    counts = np.array([len(one.items) for one in kept], np.int64)
    scores = np.concatenate([one.scores for one in kept])
    writer.add([names[one.person] for one in kept], ids[np.searchsorted(keys, items)], counts, scores)
    return items


def _item_ids(connection: sa.Connection, keys: NDArray[np.int64]) -> NDArray[np.object_]:
    """(n,) the id of each of these items (keys, ascending)."""
    table = database.items
    rows = database.plain_rows(connection.execute(sa.select(table.c.key, table.c.id)))
    names = dict(rows)
    return np.array([names.get(key) for key in keys.tolist()], object)


def _user_ids(connection: sa.Connection, keys: Sequence[int]) -> dict[int, str]:
    users = database.users
    found: dict[int, str] = {}
    for chunk in identities.chunks(keys):
        query = sa.select(users.c.key, users.c.id).where(users.c.key.in_(chunk))
        found.update(database.plain_rows(connection.execute(query)))
    return found


def _untold(done: int, of: int) -> None:
    pass
