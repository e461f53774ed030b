"""Answers from the lists that were made beforehand, without what a person has met since."""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import catalog, lists
from palate.candidates import filters
from palate.candidates import wanted as of_wanted
from palate.candidates.filters import Mask
from palate.candidates.wanted import Wanted
from palate.domain import RankedItem
from palate.pool import Pool
from palate.stock import Stock


def find(
    connection: sa.Connection, stock: Stock, wanted: Wanted, limit: int, first: int, cards: catalog.Cards
) -> tuple[tuple[RankedItem, ...], str | None] | None:
    """From the person's list `limit` items that they haven't met and may still be shown, the first at place `first` of the
    session, and the version of the model that scored them; None where there is no list, or too little of it left. `cards` are
    items that were read before."""
    person, name = wanted.person, wanted.surface.lists
    if name is None or person.key is None or limit <= 0:
        return None
    found = lists.read(connection, name, person.key, person.keys)
    if found is None:
        return None
    rows = stock.rows(found.items)
    part = stock.of_keys(found.items[rows >= 0], None)
    mask = of_wanted.narrowed(part, filters.allowed(part, person, wanted.now, wanted.window), wanted)
    met = np.concatenate((person.history.items, wanted.given, wanted.excluded))
    mask &= ~np.isin(part.keys, met) & ~_told_before(part, stock, met)
    chosen = np.flatnonzero(mask)[:limit]
    if len(chosen) < limit:
        return None
    return _unexplained(connection, part, chosen, found.scores[rows >= 0][chosen], first, cards), found.snapshot


def _told_before(part: Pool, stock: Stock, met: NDArray[np.int64]) -> Mask:
    """(n,) items of stories that the person has met, or that an item before them tells."""
    told = part.story >= 0
    mask = told & np.isin(part.story, stock.stories_of(met))
    first = np.zeros(len(part), bool)
    first[np.unique(part.story, return_index=True)[1]] = True
    return mask | (told & ~first)


def _unexplained(
    connection: sa.Connection,
    pool: Pool,
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    first: int,
    cards: catalog.Cards,
) -> tuple[RankedItem, ...]:
    """The items of these rows as they lie in a list, whose making knew no reasons."""
    keys = pool.keys[rows].tolist()
    stored = catalog.remembered(connection, keys, cards)
    there = [place for place, key in enumerate(keys) if key in stored and stored[key].state == "live"]
    return tuple(
        RankedItem(
            key=keys[place],
            item=stored[keys[place]].item,
            source_title=stored[keys[place]].source_title,
            score=float(scores[place]),
            probability=1.0,
            position=first + number,
            reasons=(),
            story=pool.story_id(int(rows[place])),
        )
        for number, place in enumerate(there)
    )
