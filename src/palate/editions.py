"""Editions: every few hours the best of what came since, as those who met it by chance have judged it; the same for everybody.

Each person reads the editions they have missed, their *backlog*, in an order of their own (`[surfaces.NAME] edition`). What is
best is told by the share of people who saw an item and took to it. People are mostly shown what they are thought to like, which
flatters the items of small circles; so each counts by one over the probability with which they were shown it (self-normalised
inverse propensity: Swaminathan and Joachims, "The Self-Normalized Estimator for Counterfactual Learning", NIPS 2015), and an item
is judged by the lower end of the interval of that share (Wilson, 1927), at the number of people that the weighted ones are worth.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import columns, database, identities
from palate.database import reading, writing
from palate.domain import EPOCH, EventColumns, from_milliseconds, to_milliseconds
from palate.errors import DatabaseError
from palate.interactions import InteractionParams, merge

log = logging.getLogger(__name__)

MOST = 1_000.0
"""How often one person may count at most."""

PAGE = 50_000
"""Events read at a time."""

_POLL = 20.0
"""Seconds between two looks at the clock."""

Floats = NDArray[np.float64]
Keys = NDArray[np.int64]


class EditionParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an edition comes out, and what is in it."""

    every_hours: Annotated[float, msgspec.Meta(ge=0.1, le=168)] = 3.5
    """Hours between two editions, counted from the beginning of 1970 in UTC: about seven a day."""
    of_hours: Annotated[float, msgspec.Meta(gt=0, le=24)] = 24.0
    """Hours within which an item must have come to be in one; it is in one edition of a name at most."""
    least: Annotated[int, msgspec.Meta(ge=0, le=500)] = 30
    """Items that an edition has where so many were judged; beyond these come only such as are surely liked more than most."""
    most: Annotated[int, msgspec.Meta(ge=1, le=500)] = 60
    """Items in one edition at most."""
    judged_by: Annotated[float, msgspec.Meta(ge=1)] = 5.0
    """People who must have seen an item, before it can be in an edition."""
    confidence: Annotated[float, msgspec.Meta(ge=0, le=5)] = 1.645
    """Standard deviations that the share of people who like an item is lowered by; 1.645 is 95 % on one side."""
    languages: tuple[str, ...] = ()
    """Only items in these languages (ISO 639-1); empty: all."""
    categories: tuple[str, ...] = ()
    """Only news of these categories."""
    keep_days: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    """Days for which an edition can be read."""

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError("least must not be above most")


@dataclass(frozen=True, eq=False)
class Judged:
    """What people made of some items (n)."""

    items: Keys
    """Ascending."""
    people: Floats
    """That the weighted ones are worth: (Σw)² / Σw² (Kish)."""
    rates: Floats
    """Weighted share of them who took to the item, 0..1."""
    overall: float
    """The same share of all people and items together; NaN when there is nobody."""


@dataclass(frozen=True, eq=False)
class Edition:
    """One edition; its arrays have one length, best first."""

    name: str
    released: datetime
    items: Keys
    rates: NDArray[np.float32]
    """Estimated share of people who like each."""
    lower: NDArray[np.float32]
    """The lower end of that share's interval, by which they are ordered."""


def release_due(
    engine: sa.Engine, editions: Mapping[str, EditionParams], interactions: InteractionParams, now: datetime
) -> list[Edition]:
    """Bring out each edition whose hour has come, once however many processes try; those that came out.

    An hour in which nothing new was judged by enough people has no edition. Raises NotDurable.
    """
    found = []
    for name, params in editions.items():
        slot = _slot(now, params)
        with reading(engine) as connection:
            if _newest(connection, name) >= to_milliseconds(slot):
                continue
            new = _new_items(connection, name, params, now)
            judged = judge(*_read(connection, new, now, params), interactions)
        edition = chosen(name, judged, params, slot)
        if _store(engine, edition, params, now) and len(edition.items):
            log.info("edition %r: %d items of %d new ones", name, len(edition.items), len(new))
            found.append(edition)
    return found


def follow(
    engine: sa.Engine,
    editions: Mapping[str, EditionParams],
    interactions: InteractionParams,
    stop: threading.Event,
    clock: Callable[[], datetime],
) -> None:
    """Bring out editions when their hours come, until `stop`."""
    while not stop.is_set():
        try:
            release_due(engine, editions, interactions, clock())
        except DatabaseError as error:
            log.warning("no edition could be made: %s Trying again in %.0f s.", error, _POLL)
        stop.wait(_POLL)


def backlog(connection: sa.Connection, name: str, limit: int) -> Keys:
    """Items of the newest editions of a name, `limit` at most: the newest edition first, in each the best first."""
    table = database.editions
    query = sa.select(table.c["items"]).where(table.c.name == name).order_by(table.c.released.desc())
    found, missing = [], limit
    for blob in connection.execute(query).scalars():
        found.append(np.frombuffer(blob, "<i8")[:missing])
        missing -= len(found[-1])
        if missing <= 0:
            break
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def read(connection: sa.Connection, name: str, limit: int) -> list[Edition]:
    """The newest editions of a name, newest first; those without items left out."""
    table = database.editions
    query = sa.select(table).where(table.c.name == name, sa.func.length(table.c["items"]) > 0)
    return [
        Edition(
            name,
            from_milliseconds(row.released),
            np.frombuffer(row.items, "<i8"),
            np.frombuffer(row.rates, "<f4"),
            np.frombuffer(row.lower, "<f4"),
        )
        for row in connection.execute(query.order_by(table.c.released.desc()).limit(limit))
    ]


def judge(events: EventColumns, probabilities: Mapping[tuple[int, int], float], params: InteractionParams) -> Judged:
    """What the people of these events made of the items.

    Whoever viewed an item has judged it, with 1 if they did something positive with it and 0 if not, whatever the installation's
    own rule of labels. `probabilities`: with which a user (key) was last shown an item (key); 1 where that isn't known.
    """
    pairs = merge(events, msgspec.structs.replace(params, rule="views"))
    seen = ~np.isnan(pairs.label)
    item, liked = pairs.item[seen], pairs.label[seen].astype(np.float64)
    whom = zip(pairs.user[seen].tolist(), item.tolist(), strict=True)
    weights = np.array([min(1 / max(probabilities.get(pair, 1.0), 1 / MOST), MOST) for pair in whom], np.float64)
    items, place = np.unique(item, return_inverse=True)
    total = np.bincount(place, weights, len(items))
    positive = np.bincount(place, weights * liked, len(items))
    people = total**2 / np.bincount(place, weights**2, len(items))
    overall = float(positive.sum() / total.sum()) if len(items) else float("nan")
    return Judged(items, people, positive / total, overall)


def lower_bounds(rates: Floats, people: Floats, confidence: float) -> Floats:
    """The lower end of Wilson's interval of a share among so many people (Wilson, JASA 22, 1927, 209–212)."""
    square = confidence**2
    middle = rates + square / (2 * people)
    spread = confidence * np.sqrt(rates * (1 - rates) / people + square / (4 * people**2))
    lower: Floats = np.maximum((middle - spread) / (1 + square / people), 0.0)
    return lower


def chosen(name: str, judged: Judged, params: EditionParams, released: datetime) -> Edition:
    """The best of the judged items: `least` of them, and up to `most` as long as they are surely above what is usual."""
    enough = np.flatnonzero(judged.people >= params.judged_by)
    lower = lower_bounds(judged.rates[enough], judged.people[enough], params.confidence)
    order = np.lexsort((judged.items[enough], -lower))
    wanted = max(params.least, int(np.count_nonzero(lower > judged.overall)))
    best = order[: min(wanted, params.most)]
    rates = judged.rates[enough][best].astype(np.float32)
    return Edition(name, released, judged.items[enough][best], rates, lower[best].astype(np.float32))


def _slot(now: datetime, params: EditionParams) -> datetime:
    every = timedelta(hours=params.every_hours)
    return EPOCH + (now - EPOCH) // every * every


def _newest(connection: sa.Connection, name: str) -> int:
    """When the last edition of a name came out, −1 before the first."""
    table = database.editions
    newest = connection.scalar(sa.select(sa.func.max(table.c.released)).where(table.c.name == name))
    return -1 if newest is None else int(newest)


def _new_items(connection: sa.Connection, name: str, params: EditionParams, now: datetime) -> Keys:
    """Keys (ascending) of live items that came lately and were in no edition of the name."""
    table = database.items
    since = to_milliseconds(now - timedelta(hours=params.of_hours))
    wanted = [table.c.received >= since, table.c.state == "live"]
    if params.languages:
        wanted.append(table.c.language.in_(params.languages))
    if params.categories:
        wanted.append(table.c.category.in_(params.categories))
    keys = np.array(connection.execute(sa.select(table.c.key).where(*wanted)).scalars().all(), np.int64)
    old = sa.select(database.editions.c["items"]).where(
        database.editions.c.name == name, database.editions.c.released >= since
    )
    before = [np.frombuffer(blob, "<i8") for blob in connection.execute(old).scalars()]
    return np.setdiff1d(keys, np.concatenate(before) if before else keys[:0])


def _read(
    connection: sa.Connection, items: Keys, now: datetime, params: EditionParams
) -> tuple[EventColumns, dict[tuple[int, int], float]]:
    """Events of these items in their order, by person, and the probability with which each was last shown one.

    Only the unsealed part of the log is looked at, which reaches back further than any edition does.
    """
    persons = columns.persons(identities.joined(connection))
    room = connection.scalar(sa.select(sa.func.count()).select_from(database.events)) if len(items) else 0
    gathered = columns.Log(int(room or 0), persons)
    probabilities: dict[tuple[int, int], float] = {}
    for rows in _pages(connection, items, to_milliseconds(now - timedelta(hours=params.of_hours))):
        gathered.add(columns.from_rows([row[:6] for row in rows]))
        drawn = [row for row in rows if row[3] == "shown" and row[6] is not None]
        people = persons.of(np.array([row[1] for row in drawn], np.int64)).tolist()
        probabilities |= {(person, row[2]): row[6] for person, row in zip(people, drawn, strict=True)}
    return gathered.columns(), probabilities


def _pages(connection: sa.Connection, items: Keys, since: int) -> Iterator[list[tuple[Any, ...]]]:
    """Rows (seq, user, item, type, value, time, probability) of the unsealed events of these items, in their order."""
    if not len(items):
        return
    table, wanted, after = database.events.c, set(items.tolist()), 0
    names = ("seq", "user", "item", "type", "value", "time", "probability")
    recent = sa.select(*(table[name] for name in names)).where(table.received >= since, table.item >= int(items[0]))
    while True:
        page = recent.where(table.seq > after).order_by(table.seq).limit(PAGE)
        rows = database.plain_rows(connection.execute(page))
        yield [row for row in rows if row[2] in wanted]
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def _store(engine: sa.Engine, edition: Edition, params: EditionParams, now: datetime) -> bool:
    """Whether it was ours to bring out: another process may have been quicker. Editions too old to be read are dropped."""
    table = database.editions
    row = {
        "name": edition.name,
        "released": to_milliseconds(edition.released),
        "items": np.asarray(edition.items, "<i8").tobytes(),
        "rates": np.asarray(edition.rates, "<f4").tobytes(),
        "lower": np.asarray(edition.lower, "<f4").tobytes(),
    }
    old = to_milliseconds(now - timedelta(days=params.keep_days))
    with writing(engine) as connection:
        connection.execute(sa.delete(table).where(table.c.name == edition.name, table.c.released < old))
        insert = identities.insert_new(connection, table).on_conflict_do_nothing().returning(table.c.released)
        return connection.execute(insert, row).first() is not None
