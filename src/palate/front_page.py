"""The stories of the last hours or days, the most important first: what the news are, for everybody alike but for closed items.

items of the period → their stories → order of stories → headline and timeline of those that are shown
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities, labels, source_links
from palate.candidates import filters
from palate.database import reading
from palate.domain import from_milliseconds, to_milliseconds
from palate.live import Live
from palate.pool import NO_DATE, Pool
from palate.rules import EVERYTHING, Viewer
from palate.stories import importance
from palate.stories.clustering import Stories
from palate.stories.importance import StoryStanding
from palate.stories.neighbours import Placed
from palate.story_window import StoryParams
from palate.text import category

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """Which stories. None: of any language, of any category."""

    now: datetime
    period: timedelta
    """Items published so long before `now` count."""
    language: str | None = None
    category: str | None = None
    limit: int = 50
    viewer: Viewer = EVERYTHING
    """As the rules see who asks: items that they may not see are in no story."""


@dataclass(frozen=True)
class Told:
    """An item of a story."""

    key: int
    id: str
    title: str | None
    url: str | None
    source: str | None
    source_title: str | None
    time: datetime
    """Of publication, else of arrival."""


@dataclass(frozen=True)
class Story:
    """What happened, and who tells it."""

    id: str
    language: str | None
    category: str | None
    """That most of its items have; None in languages for which there is no model."""
    headline: Told
    items: tuple[Told, ...]
    """In the order of time."""
    standing: StoryStanding
    """Why it stands where it stands."""


def read(live: Live, asked: Asked, params: StoryParams) -> list[Story]:
    """The stories that were asked for, the most important first. Raises DatabaseError."""
    pool = live.pool
    rows = _rows(pool, asked)
    if not len(rows):
        return []
    stories = _stories(pool, rows, params)
    rows = pool.rows(stories.documents.keys)
    standings = importance.rank(
        stories,
        _weights(live, stories.documents.keys, asked.now, params),
        to_milliseconds(asked.now),
        params.importance,
        marks=_marks(live, stories.documents.keys),
        readers=live.readership.of(stories.documents.keys, asked.now),
    )
    members = _members(stories, rows)
    chosen = [one for one in standings if asked.category in (None, _category(pool, members[one.story]))]
    return _told(live, pool, chosen[: asked.limit], members)


def _times(pool: Pool, rows: Rows) -> NDArray[np.int64]:
    return np.where(pool.published[rows] == NO_DATE, pool.received[rows], pool.published[rows])


def _rows(pool: Pool, asked: Asked) -> Rows:
    """Rows of the news of the period; of languages for which no model tells what is news, of all items."""
    latest = to_milliseconds(asked.now)
    times = _times(pool, np.arange(len(pool)))
    mask = (times <= latest) & (times >= latest - asked.period // timedelta(milliseconds=1))
    judged = np.isin(pool.language, np.append(pool.languages.find(category.LANGUAGES), -1))
    mask &= (pool.category >= 0) | ~judged
    mask &= filters.open_to(pool, asked.viewer, asked.now)
    if asked.language is not None:
        mask &= np.isin(pool.language, pool.languages.find([asked.language]))
    return np.flatnonzero(mask)


def _stories(pool: Pool, rows: Rows, params: StoryParams) -> Stories:
    """The stories as the catalog has them; an item that is alone is one."""
    keys, times = pool.keys[rows], _times(pool, rows)
    order = np.lexsort((keys, times))
    rows, keys, times = rows[order], keys[order], times[order]
    labels = np.where(pool.story[rows] >= 0, pool.story[rows], keys)
    sources = np.where(pool.source[rows] >= 0, pool.source[rows], -1 - keys)  # without one each is its own
    placed = Placed(keys, np.zeros((len(keys), 0), np.int8), sources, times, np.zeros((len(keys), 0), np.uint16))
    return Stories(params.clustering, placed, labels, labels)


def _weights(live: Live, keys: NDArray[np.int64], now: datetime, params: StoryParams) -> NDArray[np.float64]:
    """(n,) how much the site of each item weighs."""
    items, addresses = database.items, dict[int, str | None]()
    with reading(live.engine) as connection:
        for chunk in identities.chunks(sorted(keys.tolist())):
            found = connection.execute(sa.select(items.c.key, items.c.url).where(items.c.key.in_(chunk)))
            addresses |= {row.key: row.url for row in found}
    ranks = live.source_ranks.of(params.sources, timedelta(days=params.window_days), now)
    weights = source_links.weights((None, *addresses.values()), ranks, params.sources)
    return np.array([weights[addresses.get(key)] for key in keys.tolist()], np.float64)


def _marks(live: Live, keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) what owners take the story of each item times."""
    with reading(live.engine) as connection:
        marked = labels.marks(connection, keys.tolist())
    return np.array([marked.get(key, 1.0) for key in keys.tolist()], np.float64)


def _members(stories: Stories, rows: Rows) -> dict[int, list[int]]:
    """Rows of the pool of each story's items, in the order of time."""
    members: dict[int, list[int]] = {}
    for label, row in zip(stories.labels.tolist(), rows.tolist(), strict=True):
        members.setdefault(label, []).append(row)
    return members


def _category(pool: Pool, rows: Sequence[int]) -> str | None:
    """What most of the items have; of equals the first by name."""
    found = [pool.categories.values[number] for number in pool.category[rows].tolist() if number >= 0]
    return min(found, key=lambda name: (-found.count(name), name), default=None)


def _told(
    live: Live, pool: Pool, standings: Sequence[StoryStanding], members: Mapping[int, Sequence[int]]
) -> list[Story]:
    items = _items(live, [int(pool.keys[row]) for one in standings for row in members[one.story]])
    found = []
    for standing in standings:
        rows = [row for row in members[standing.story] if int(pool.keys[row]) in items]
        if rows:  # the others were deleted a moment ago
            leads = max(rows, key=lambda row: (bool(pool.leads[row]), pool.keys[row]))
            number = int(pool.language[leads])
            story = Story(
                id=str(standing.story),
                language=pool.languages.values[number] if number >= 0 else None,
                category=_category(pool, rows),
                headline=items[int(pool.keys[leads])],
                items=tuple(items[int(pool.keys[row])] for row in rows),
                standing=standing,
            )
            found.append(story)
    return found


def _items(live: Live, keys: Sequence[int]) -> dict[int, Told]:
    items, sources = database.items, database.sources
    time = sa.func.coalesce(items.c.published, items.c.received)
    columns = (items.c.key, items.c.id, items.c.title, items.c.url, sources.c.id, sources.c.title, time)
    query = sa.select(*columns).select_from(items.outerjoin(sources, items.c.source == sources.c.key))
    found: dict[int, Told] = {}
    with reading(live.engine) as connection:
        for chunk in identities.chunks(sorted(keys)):
            for row in connection.execute(query.where(items.c.state == "live", items.c.key.in_(chunk))):
                key, id, title, url, source, source_title, milliseconds = row
                found[key] = Told(key, id, title, url, source, source_title, from_milliseconds(milliseconds))
    return found
