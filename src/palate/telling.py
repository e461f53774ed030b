"""What a served item comes with: its text, why it was served, and what else its story has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import catalog
from palate.candidates import filters, found
from palate.candidates.filters import Mask
from palate.domain import Also, Item, RankedItem
from palate.models.factorization_machine import Floats
from palate.pool import Pool, take
from palate.ranking import considered, explanation
from palate.ranking.arranging import Place
from palate.ranking.considered import Considered
from palate.stock import Stock

ALSO = 5
"""Others of its story that are named with an item at most."""


def explained(
    connection: sa.Connection,
    cards: catalog.Cards,
    stock: Stock,
    looked: Considered,
    places: Sequence[Place],
    first: int,
) -> tuple[RankedItem, ...]:
    """The places with their items and reasons; an item that was deleted a moment ago is left out. `cards` are items that were
    read before."""
    if not places:
        return ()
    rows = np.array([place.row for place in places], np.int64)
    grounds = explanation.grounds(looked.judgement, looked.pool, rows)
    keys, liked = looked.pool.keys[rows].tolist(), explanation.liked_keys(grounds)
    stored = catalog.remembered(connection, {*keys, *liked}, cards)
    also = _also(connection, stock, looked, rows)
    titles = {item.source_key: item.source_title or item.item.source for item in stored.values()}
    named = {key: (stored[key].item.id, _name(stored[key].item)) for key in liked if key in stored}
    scores, ways = looked.scores[rows].tolist(), looked.found[rows].tolist()
    items: list[RankedItem] = []
    for place, (key, chosen) in enumerate(zip(keys, places, strict=True)):
        card = stored.get(key)
        if card is None or card.state != "live":
            continue
        ranked = RankedItem(
            key=key,
            item=card.item,
            source_title=card.source_title,
            score=scores[place],
            probability=chosen.probability,
            position=first + len(items),
            reasons=explanation.reasons(grounds, place, chosen, named, titles.get),
            story=grounds.pool.story_id(place),
            also=also[place],
            found=found.names(ways[place]),
        )
        items.append(ranked)
    return tuple(items)


def _also(
    connection: sa.Connection, stock: Stock, looked: Considered, rows: NDArray[np.int64]
) -> list[tuple[Also, ...]]:
    """For each row the best others of its story, those from sources that the person hides left out."""
    told = looked.pool.story[rows]
    if not (told >= 0).any():
        return [()] * len(rows)
    beside = stock.take(stock.of_stories(np.unique(told[told >= 0])))
    pool = take(beside, np.flatnonzero(_may_see(looked, beside)))
    values = considered.others(looked, pool).values
    best = [
        _beside(pool, values, int(key), int(story)) for key, story in zip(looked.pool.keys[rows], told, strict=True)
    ]
    named = catalog.others(connection, {key for keys in best for key in keys})
    return [tuple(named[key] for key in keys if key in named) for keys in best]


def _may_see(looked: Considered, pool: Pool) -> Mask:
    mask = looked.pool.rules.allows(looked.person.viewer, looked.judgement.now)[pool.rule]
    return mask & ~filters.from_sources(pool, looked.person.hidden)


def _beside(pool: Pool, values: Floats, key: int, story: int) -> list[int]:
    """Keys of the best others of a story, which is below 0 for an item that is alone."""
    rows = np.flatnonzero((pool.story == story) & (pool.keys != key)) if story >= 0 else np.zeros(0, np.int64)
    best: list[int] = pool.keys[rows[np.argsort(-values[rows], kind="stable")][:ALSO]].tolist()
    return best


def _name(item: Item) -> str:
    """What to call an item in a sentence."""
    return item.title or item.url or item.id
