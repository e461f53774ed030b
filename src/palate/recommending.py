"""Lists for everybody, computed beforehand: the best items by a model for each person of whom it knows something.

What a person has met, and what rules, languages, age of items and hidden sources leave out, is left out of the search itself, so
that lists are as long as they can be. The feed looks at all of that once more when it serves a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, events, matrix, snapshots
from palate.candidates import filters
from palate.database import reading
from palate.errors import NotFound
from palate.lists import PersonList
from palate.live import Live, Person, State
from palate.matrix import Sparse
from palate.models import top_lists
from palate.models.material import Known
from palate.models.top_lists import Tops
from palate.people import Choices
from palate.pool import Pool
from palate.ranking import everybody
from palate.ranking.everybody import Products, Scores
from palate.rules import RuleParams, Viewer, viewer
from palate.snapshots import Snapshot
from palate.surface_params import SurfaceParams
from palate.vocabulary import Vocabulary

Keys = NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Told how many people have a list now, and how many will."""

Best = Callable[[NDArray[np.float32], NDArray[np.float32], int, Sparse, int | None], Tops]
"""`top_lists.best`, or what does the same elsewhere."""
PEOPLE = 8_192
"""Whose lists are made at a time."""
SCORES = 1 << 25
"""Scores that are held at a time where a model's aren't products."""


class ListParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lists that are computed for everybody beforehand."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    """Items in each list, unless the command names another length."""
    min_items: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Who took to fewer has no list, and is scored when they ask."""
    renew: bool = False
    """Whether the lists of all surfaces that name some are made anew after each full cycle of training."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    """Of the search; none means one a core. They don't change the lists."""


@dataclass(frozen=True)
class Wanted:
    """Which lists are to be made."""

    surface: SurfaceParams
    limit: int
    window: timedelta
    """Items published longer ago stay out, unless a person wants another window."""
    rules: RuleParams
    threads: int | None = None
    min_items: int = 1
    best: Best = top_lists.best
    """Who searches where scores are products."""
    people: int = PEOPLE
    """Whose lists are searched for at a time."""


class _Wishes(NamedTuple):
    """What a person may and wants to be shown; most people's are the same."""

    viewer: Viewer
    languages: tuple[str, ...] = ()
    window: timedelta | None = None


@dataclass(frozen=True, eq=False)
class _Past:
    """What n people have met: P pairs, person by person, oldest first."""

    people: Keys
    """(n,) keys, ascending."""
    offsets: Keys
    """(n + 1,)"""
    items: Keys
    """(P,) places in `item_keys`."""
    item_keys: Keys
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    later: Sparse
    """(n, pool): what they met since the snapshot."""
    hidden: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """By the place of a person the sources that they hide."""


def for_everybody(live: Live, wanted: Wanted, now: datetime, progress: Progress) -> Iterator[list[PersonList]]:
    """Lists of all people of whom the newest snapshot knows something, some thousands at a time; the empty ones are left out.

    The same snapshot, events and settings give the same lists, with any number of threads. Raises NotFound before the first
    snapshot.
    """
    state = live.state.by(wanted.surface.model)
    if state.snapshot is None:
        raise NotFound("Nothing was learned yet, so there is nothing to recommend by: run palate train --full first.")
    with reading(live.engine) as connection:
        wishes, hidden = _wishes(connection, wanted.rules), _hidden(connection)
    past = _past(live, state.pool, state.snapshot, hidden)
    known = np.flatnonzero(_told(past, state.pool) >= wanted.min_items)
    model, done = everybody.ask(state.pool, state.snapshot), 0
    progress(done, len(known))
    for wish, places in _groups(past.people, known, wishes, _Wishes(viewer({}, wanted.rules))):
        search = _search(state, wish, wanted, now, model)
        for first in range(0, len(places), search.height):
            own = places[first : first + search.height]
            yield _lists(search, past, own)
            done += len(own)
            progress(done, len(known))


# --- people ---------------------------------------------------------------------------------------------------------------


def _wishes(connection: sa.Connection, rules: RuleParams) -> dict[int, _Wishes]:
    """Of people (by key) who have labels or made choices; all others are alike."""
    users = database.users
    labels, choices = (sa.cast(users.c[name], sa.Text) for name in ("labels", "choices"))
    rows = connection.execute(sa.select(users.c.key, labels, choices).where((labels != "{}") | (choices != "{}")))
    found = {}
    for key, told, chosen in rows:
        own = msgspec.json.decode(chosen, type=Choices)
        window = None if own.window_days is None else timedelta(days=own.window_days)
        found[key] = _Wishes(viewer(msgspec.json.decode(told), rules), own.languages, window)
    return found


def _hidden(connection: sa.Connection) -> dict[int, list[int]]:
    table, found = database.source_choices, dict[int, list[int]]()
    for person, source in connection.execute(
        sa.select(table.c.person, table.c.source).where(table.c.choice == "hidden")
    ):
        found.setdefault(person, []).append(source)
    return found


def _groups(people: Keys, known: Keys, wishes: Mapping[int, _Wishes], usual: _Wishes) -> Iterator[tuple[_Wishes, Keys]]:
    """Places of people with the same wishes: one search serves them all."""
    groups: dict[_Wishes, list[int]] = {}
    own = {
        place: wishes[key] for place, key in zip(known.tolist(), people[known].tolist(), strict=True) if key in wishes
    }
    for place, wish in own.items():
        groups.setdefault(wish, []).append(place)
    others = known[~np.isin(known, np.array(list(own), np.int64))]
    if len(others):
        yield usual, np.union1d(others, np.array(groups.pop(usual, []), np.int64))
    for wish, places in groups.items():
        yield wish, np.array(places, np.int64)


def _past(live: Live, pool: Pool, snapshot: Snapshot, hidden: Mapping[int, Sequence[int]]) -> _Past:
    arrays = snapshot.arrays
    people = snapshots.people_of_histories(arrays)
    items = np.asarray(arrays["history_items"], np.int64)
    weights = arrays["history_weights"] if "history_weights" in arrays else np.zeros(len(items))
    rows = Vocabulary(people)
    since = events.read_columns(live.engine, live.events_folder, after_seq=snapshots.history_seq(snapshot))
    person, item = rows.rows(since.user), pool.rows(since.item)
    met = (person >= 0) & (item >= 0)
    ones = np.ones(int(met.sum()), np.float32)
    places = {int(rows.rows(np.array([key]))[0]): sources for key, sources in hidden.items()}
    return _Past(
        people=people,
        offsets=np.asarray(arrays["history_offsets"], np.int64),
        items=items,
        item_keys=np.asarray(arrays.get("history_item_keys", arrays["items"])),
        labels=np.asarray(arrays["history_labels"], np.float32),
        weights=np.asarray(weights, np.float32),
        later=matrix.sparse(person[met], item[met], ones, (len(people), len(pool))),
        hidden=places,
    )


def _told(past: _Past, pool: Pool) -> Keys:
    """(n,) of how many items the model knows what each thinks of them."""
    says = ~np.isnan(past.labels) if pool.model.name == "fm" else past.weights > 0
    ends = np.concatenate(([0], np.cumsum(says)))[past.offsets]
    return np.diff(ends)


# --- the search -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Search:
    """What is searched for people of the same wishes."""

    pool: Pool
    snapshot: Snapshot
    model: Products | Scores
    rows: Keys
    """(m,) of the pool: what they may be shown."""
    column: Keys
    """(pool + 1,) the place of each row among these, −1 for the others."""
    items: NDArray[np.float32] | None
    """(m, F) where scores are products."""
    height: int
    """People at a time."""
    wanted: Wanted


def _search(state: State, wish: _Wishes, wanted: Wanted, now: datetime, model: Products | Scores) -> _Search:
    pool, snapshot = state.pool, state.snapshot
    assert snapshot is not None, "There is one."
    person = Person(languages=wish.languages, viewer=wish.viewer)
    allowed = filters.allowed(pool, person, now, wish.window or wanted.window) & filters.of_surface(
        pool, wanted.surface
    )
    rows = np.flatnonzero(allowed)
    column = np.full(len(pool) + 1, -1, np.int64)
    column[rows] = np.arange(len(rows))
    if isinstance(model, Products):
        return _Search(pool, snapshot, model, rows, column, model.items[rows], wanted.people, wanted)
    height = max(1, min(PEOPLE, SCORES // max(len(snapshot.arrays["items"]), len(rows), 1)))
    return _Search(pool, snapshot, model, rows, column, None, height, wanted)


def _lists(search: _Search, past: _Past, places: Keys) -> list[PersonList]:
    known, seen = _known(search, past, places), _seen(search, past, places)
    tops = _tops(search, known, seen)
    likely = search.model.likely(known, tops.scores)
    keys = search.pool.keys[search.rows]
    counts = (tops.rows >= 0).sum(axis=1).tolist()
    version = search.snapshot.version
    return [
        PersonList(int(person), keys[rows[:count]], scores[:count], version)
        for person, rows, scores, count in zip(known.users, tops.rows, likely, counts, strict=True)
        if count
    ]


def _tops(search: _Search, known: Known, seen: Sparse) -> Tops:
    if isinstance(search.model, Products):
        assert search.items is not None, "Products have vectors."
        people = search.model.people(known)
        return search.wanted.best(people, search.items, search.wanted.limit, seen, search.wanted.threads)
    return top_lists.best_of_scores(search.model.scores(known, search.rows), search.wanted.limit, seen)


def _cells(past: _Past, places: Keys) -> tuple[Keys, Keys]:
    """The pairs of these people, and which of them each is of."""
    counts = past.offsets[places + 1] - past.offsets[places]
    ends = np.cumsum(counts)
    cells = np.arange(int(counts.sum())) + np.repeat(past.offsets[places] - (ends - counts), counts)
    return cells, np.repeat(np.arange(len(places)), counts)


def _known(search: _Search, past: _Past, places: Keys) -> Known:
    """As models take it; items that they have no row for are left out."""
    cells, person = _cells(past, places)
    items = Vocabulary(np.asarray(search.snapshot.arrays["items"]))
    column, shape = items.rows(past.item_keys)[past.items[cells]], (len(places), len(items))
    weights, labels = past.weights[cells], past.labels[cells]
    met, voted = column >= 0, (column >= 0) & ~np.isnan(labels)
    newer = _newer(weights != 0, past, places)

    def told(kept: NDArray[np.bool_], values: NDArray[np.float32]) -> Sparse:
        return matrix.sparse(person[kept], column[kept], values[kept], shape)

    return Known(past.people[places], told(met, weights), told(voted, labels), told(met, newer))


def _newer(evidence: NDArray[np.bool_], past: _Past, places: Keys) -> NDArray[np.float32]:
    """How many of the person's pairs that are evidence come after each."""
    counts = past.offsets[places + 1] - past.offsets[places]
    passed = np.cumsum(evidence)
    ends = np.append(0, passed)[np.cumsum(counts)]
    return (np.repeat(ends, counts) - passed).astype(np.float32)


def _seen(search: _Search, past: _Past, places: Keys) -> Sparse:
    """(p, m): what is left out for each, since they have met it or hide its source."""
    cells, person = _cells(past, places)
    row = search.pool.rows(past.item_keys)[past.items[cells]]
    later = matrix.taken(past.later, places)
    of_hidden: list[Keys] = [
        _of_sources(search.pool, past.hidden[place]) if place in past.hidden else past.people[:0]
        for place in places.tolist()
    ]
    columns = search.column[np.concatenate([row, later.columns, *of_hidden]).astype(np.int64)]
    counts = [len(rows) for rows in of_hidden]
    numbers = np.arange(len(places))
    people = np.concatenate([person, np.repeat(numbers, later.counts), np.repeat(numbers, counts)])
    met = columns >= 0
    return matrix.sparse(
        people[met], columns[met], np.ones(int(met.sum()), np.float32), (len(places), len(search.rows))
    )


def _of_sources(pool: Pool, sources: Sequence[int]) -> Keys:
    return np.flatnonzero(filters.from_sources(pool, tuple(sources)))
