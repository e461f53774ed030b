"""What a served item comes with: its text, why it was served, and what else its story has."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import catalog
from palate.candidates import found
from palate.domain import Also, Item, RankedItem
from palate.ranking import explanation
from palate.ranking.arranging import Place
from palate.ranking.considered import Considered

ALSO = 5
"""Others of its story that are named with an item at most."""


def explained(
    connection: sa.Connection, looked: Considered, places: list[Place], first: int, now: datetime
) -> tuple[RankedItem, ...]:
    """The places with their items and reasons; an item that was deleted a moment ago is left out."""
    rows = np.array([place.row for place in places], np.int64)
    grounds = explanation.grounds(looked.judgement, looked.pool, rows)
    keys, liked = looked.pool.keys[rows].tolist(), explanation.liked_keys(grounds)
    stored = catalog.get_many(connection, {*keys, *liked})
    also = _also(connection, looked, rows)
    titles = {item.source_key: item.source_title or item.item.source for item in stored.values()}
    named = {key: (stored[key].item.id, _name(stored[key].item)) for key in liked if key in stored}
    items: list[RankedItem] = []
    for place, (key, chosen) in enumerate(zip(keys, places, strict=True)):
        if key not in stored or stored[key].state != "live":
            continue
        ranked = RankedItem(
            key=key,
            item=stored[key].item,
            source_title=stored[key].source_title,
            score=float(looked.scores[chosen.row]),
            probability=chosen.probability,
            position=first + len(items),
            reasons=explanation.reasons(grounds, place, chosen, now, named, titles.get),
            story=looked.pool.story_id(chosen.row),
            also=also[place],
            found=found.names(int(looked.found[chosen.row])),
        )
        items.append(ranked)
    return tuple(items)


def _also(connection: sa.Connection, looked: Considered, rows: NDArray[np.int64]) -> list[tuple[Also, ...]]:
    """For each row the best others of its story, those from sources that the person hides left out."""
    pool = looked.pool
    told = pool.stories.of_row[rows] >= 0
    best = [_beside(looked, row) if several else [] for row, several in zip(rows.tolist(), told.tolist(), strict=True)]
    named = catalog.others(connection, {key for keys in best for key in keys})
    return [tuple(named[key] for key in keys if key in named) for keys in best]


def _beside(looked: Considered, row: int) -> list[int]:
    pool = looked.pool
    rows = pool.stories.beside(row)
    if looked.person.hidden:
        rows = rows[~np.isin(pool.source[rows], pool.sources.find(looked.person.hidden))]
    rows = rows[pool.rules.allows(looked.person.viewer, looked.judgement.now)[pool.rule[rows]]]
    best: list[int] = pool.keys[rows[np.argsort(-looked.values[rows], kind="stable")][:ALSO]].tolist()
    return best


def _name(item: Item) -> str:
    """What to call an item in a sentence."""
    return item.title or item.url or item.id
