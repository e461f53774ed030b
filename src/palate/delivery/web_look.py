"""For owners: what a person watched and read, and beside it what each model would give them, by title and picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import sqlalchemy as sa
from starlette.responses import Response

from palate import catalog, identities, lists
from palate.catalog import StoredItem
from palate.database import reading
from palate.delivery.web_cards import Card, card
from palate.delivery.web_page import Visit, draw, needs_owner
from palate.delivery.web_training import some_people
from palate.live import History, Person
from palate.ranking import side_by_side
from palate.ranking.side_by_side import Column, Looked

SHOWN = 12
"""Items of each list."""


@dataclass(frozen=True)
class Seen:
    """An item of a column, and a word about it."""

    card: Card
    word: str


@dataclass(frozen=True)
class Shelf:
    """One column."""

    title: str
    about: str
    items: tuple[Seen, ...]


def look(visit: Visit) -> Response:
    """The page of one person."""
    needs_owner(visit)
    user = identities.check_id(visit.query.get("person", "").strip() or visit.user, "the person")
    live = visit.serving.live
    state = live.state
    with reading(visit.serving.engine) as connection:
        person = live.person(connection, user, state.snapshot)
        columns = (
            list(side_by_side.columns(state.pool, state.snapshot, _looked(visit, person))) if state.snapshot else []
        )
        shelves = _drawn(visit, connection, person, columns)
        people = some_people(connection)
    return draw(
        visit, "look.html", here="/training", person=user, known=person.key is not None, people=people, shelves=shelves
    )


def _looked(visit: Visit, person: Person) -> Looked:
    params = visit.serving.params.feed
    window = person.window or timedelta(days=params.window_days)
    return Looked(person, visit.now, window, SHOWN, params.first_items, params.taste)


def _drawn(visit: Visit, connection: sa.Connection, person: Person, columns: Sequence[Column]) -> list[Shelf]:
    """History first, then lists that were made beforehand, then each model."""
    newest = person.history.of_items(np.arange(len(person.history)) >= len(person.history) - SHOWN)
    made = [
        (name, found)
        for name in (lists.counts(connection) if person.key is not None else ())
        if (found := lists.read(connection, name, person.key or 0, person.keys)) is not None
    ]
    keys = {*newest.items.tolist(), *(pick.key for column in columns for pick in column.picks)}
    keys |= {key for _, found in made for key in found.items[:SHOWN].tolist()}
    stored = catalog.get_many(connection, keys)
    shelves = [Shelf("History", "the newest first", _history(visit, newest, stored))]
    shelves += [
        Shelf(
            f"List {name}",
            "made beforehand",
            _cards(visit, stored, zip(found.items.tolist(), found.scores.tolist(), strict=True)),
        )
        for name, found in made
    ]
    return [*shelves, *(_shelf(visit, column, stored) for column in columns)]


def _history(visit: Visit, history: History, stored: Mapping[int, StoredItem]) -> tuple[Seen, ...]:
    told = zip(history.items.tolist(), history.labels.tolist(), history.weights.tolist(), strict=True)
    found = [(key, _said(label, weight)) for key, label, weight in told if key in stored]
    return tuple(Seen(_card(visit, stored[key]), word) for key, word in reversed(found))


def _said(label: float, weight: float) -> str:
    if label == label:  # not NaN: there was a vote
        return f"vote {label:g}"
    return "refused" if weight < 0 else f"weight {weight:.2f}" if weight else "shown"


def _shelf(visit: Visit, column: Column, stored: Mapping[int, StoredItem]) -> Shelf:
    title = column.member or column.model
    about = f"a member of {column.model}" if column.member else "as the feed would order them, exploration aside"
    return Shelf(title, about, _cards(visit, stored, column.picks))


def _cards(
    visit: Visit, stored: Mapping[int, StoredItem], picks: Iterable[tuple[int, float | None]]
) -> tuple[Seen, ...]:
    found = [(key, score) for key, score in picks if key in stored][:SHOWN]
    return tuple(Seen(_card(visit, stored[key]), "" if score is None else f"{score:.2f}") for key, score in found)


def _card(visit: Visit, one: StoredItem) -> Card:
    return card(one.item, one.key, one.source_title, visit.now, visit.root)
