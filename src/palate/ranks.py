"""The order of given items for people who ask again and again: what was learned of a person is kept as long as it holds.

`feed.rank` says the same, asking the database each time. Here SQLite is asked one thing, whether anybody has committed since.
Only then is what is known of the person read anew, and only when that has changed is their taste solved again.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import identities
from palate.database import reading
from palate.errors import DatabaseError
from palate.feed_params import FeedParams
from palate.lately import Lately
from palate.live import Live, Person, State
from palate.models.factorization_machine import Floats
from palate.ranking import by_model, scoring
from palate.ranking.scoring import Measure
from palate.stock import Stock

PEOPLE = 4_000
"""People of whom is kept by what their items are scored …"""

NUMBERS = 25_000_000
"""… and how many numbers all of it may hold, where a model tells each of them a number for every item."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """Items in a person's order, best first, with the estimated probabilities (0..1) that they like them."""

    ids: list[str]
    scores: list[float]
    model: str | None
    """Version of the snapshot that scored; None before the first."""


@dataclass(frozen=True, eq=False)
class _Told:
    """What was found out about a person."""

    commits: int
    """As the database counted when it was found out."""
    stock: Stock
    params: FeedParams
    person: Person
    measure: Measure


class Ranks:
    """What is kept of people; one for a process that serves, to be asked by one thread."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._stocks: tuple[Stock, ...] = ()
        self._people = Lately[str, _Told](0)
        self._connection: sa.Connection | None = None

    def find(self, user_id: str, item_ids: Sequence[str], now: datetime, params: FeedParams) -> Ranked | None:
        """What `feed.rank` gives; None where more has to be found out than about the person: on PostgreSQL, where a snapshot
        holds rankers, and when an item comes twice, can't be served or wasn't asked for lately.

        Raises InvalidInput for a user id that can't be one, DatabaseError.
        """
        state = self._live.state.by(params.model)
        keys = self._live.known_items.all_of(item_ids)
        if not keys or len(set(keys)) < len(keys) or not self._is_simple(state):
            return None
        rows = state.stock.rows(np.array(keys, np.int64))
        if rows.min() < 0:
            return None
        measure = self._measure(user_id, state, now, params)
        scores, values = _order_values(measure, state.stock, rows, now)
        best = np.argsort(-values, kind="stable")
        return Ranked(
            [item_ids[place] for place in best.tolist()], scores[best].tolist(), state.stock.base.model.version
        )

    def _is_simple(self, state: State) -> bool:
        return state.rankers is None and self._live.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Give back the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _measure(self, user_id: str, state: State, now: datetime, params: FeedParams) -> Measure:
        """By what the person's items are scored, as everything that was committed before says."""
        stocks = self._live.state.stocks
        if not _are_same(stocks, self._stocks):
            self._stocks, self._people = stocks, Lately(_room(stocks))
        commits, told = self._commits(), self._people.get(user_id)
        if told is not None and (told.stock is not state.stock or told.params != params):
            told = None
        if told is None or told.commits != commits:
            person = self._person(user_id, state)
            same = told is not None and _is_alike(told.person, person)
            measure = told.measure if told is not None and same else _judged(state, person, now, params)
            told = _Told(commits, state.stock, params, person, measure)
            self._people.add({user_id: told})
        return told.measure

    def _commits(self) -> int:
        """A number that is another one as soon as anybody else has committed."""
        if self._connection is None:
            self._connection = self._live.engine.connect()
        cursor = self._connection.connection.cursor()
        try:
            return int(cursor.execute("PRAGMA data_version").fetchone()[0])
        except self._connection.dialect.loaded_dbapi.OperationalError as error:
            raise DatabaseError(f"The database can't be read: {error}.") from error
        finally:
            cursor.close()

    def _person(self, user_id: str, state: State) -> Person:
        id = identities.check_id(user_id, "the user id")
        with reading(self._live.engine) as connection:
            return self._live.person(connection, id, state.snapshot)


def _order_values(measure: Measure, stock: Stock, rows: NDArray[np.int64], now: datetime) -> tuple[Floats, Floats]:
    below = rows < len(stock.base)
    if below.all():
        return scoring.order_values_of(measure, stock.base, rows, now)
    found = np.empty((2, len(rows)), np.float32)
    found[:, below] = scoring.order_values_of(measure, stock.base, rows[below], now)
    found[:, ~below] = scoring.order_values_of(measure, stock.side, rows[~below] - len(stock.base), now)
    return found[0], found[1]


def _are_same(some: Sequence[Stock], others: Sequence[Stock]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _room(stocks: Sequence[Stock]) -> int:
    widest = max(by_model.width(stock.base) for stock in stocks)
    return PEOPLE if not widest else min(PEOPLE, max(2, NUMBERS // widest))


def _judged(state: State, person: Person, now: datetime, params: FeedParams) -> Measure:
    return scoring.measure(scoring.judge_in(state, person, now, params.first_items, params.taste))


def _is_alike(one: Person, other: Person) -> bool:
    """Whether what scoring reads of a person is the same. A history that nothing was added to is the same object."""
    own = (one.keys, one.followed, one.topics) == (other.keys, other.followed, other.topics)
    return own and (one.history is other.history or not len(one.history) + len(other.history))
