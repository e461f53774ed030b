"""Which of the candidates get which place of the list: the best by value, new ones to learn of, questions to who is new."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate.candidates import exploration, filters, fresh, openness, personal, popular, stories
from palate.candidates import wanted as of_wanted
from palate.candidates.wanted import Wanted
from palate.cursors import Session
from palate.feed_params import FeedParams
from palate.happenings import Happenings
from palate.live import Live
from palate.pool import Pool, take
from palate.ranking import arranging, asking
from palate.ranking.arranging import Likeness, Place, Spread
from palate.ranking.considered import Considered
from palate.stock import Stock
from palate.surface_params import Order

NOTHING_HAPPENED = Happenings()


def unseen(looked: Considered, allowed: filters.Mask) -> filters.Mask:
    """One item of each story of which the person has met none."""
    mask = of_wanted.unseen(looked.pool, allowed, looked.person)
    return stories.one_of_each(looked.pool, mask, looked.values, looked.judgement.by_popularity)


def brought_back(
    connection: sa.Connection,
    live: Live,
    stock: Stock,
    asked: Wanted,
    session: Session,
    chosen: NDArray[np.int64],
    params: FeedParams,
) -> Pool:
    """What may come when nothing new is left: items shown without an answer, and others of stories that were met.

    All of it long enough ago and before this session: within one, nothing comes twice. `chosen` are keys that come already.
    """
    person = asked.person
    before = min(asked.now - timedelta(minutes=params.bring_back_minutes), session.started)
    unanswered = live.unanswered(connection, person, before)
    beside = stock.of_stories(stock.stories_of(person.history.items))
    beside = beside[~np.isin(stock.keys(beside), person.history.items)]
    rows = np.union1d(stock.rows(unanswered), beside)
    pool = stock.take(rows[rows >= 0])
    late = np.concatenate((live.shown_since(connection, person, before), chosen))
    told = np.union1d(stock.stories_of(late), openness.left_out(stock, asked, unseen=False)[1])
    kept = of_wanted.allowed(pool, asked) & ~np.isin(pool.story, told)
    return take(pool, np.flatnonzero(kept))


def one_of_each_story(looked: Considered) -> filters.Mask:
    """All that is considered, but of each story the best."""
    every = np.ones(len(looked), bool)
    return stories.one_of_each(looked.pool, every, looked.values, looked.judgement.by_popularity)


def fill(
    looked: Considered,
    allowed: filters.Mask,
    limit: int,
    first: int,
    order: Order,
    params: FeedParams,
    rng: np.random.Generator,
    happened: Happenings,
    compiled: bool = False,
) -> list[Place]:
    """Up to `limit` places of a list that begins at place `first` of a session; `happened` tells how often items were shown.
    `compiled`: in machine code, which takes a process some memory; the places are the same."""
    if order != "own":
        return _plain(looked.pool, allowed, limit, order)
    places = arrange(looked, allowed, limit, params.exploration, params, rng, happened, compiled)
    return with_questions(looked, allowed, places, first, params, compiled)


def _plain(pool: Pool, allowed: filters.Mask, limit: int, order: Order) -> list[Place]:
    """By time or by what everybody likes alone."""
    rows = fresh.find(pool, allowed, limit) if order == "time" else popular.best(pool, allowed, limit)
    return [Place(row, probability=1.0, explored=False) for row in rows.tolist()]


def with_hits(looked: Considered, wanted: Wanted, places: list[Place], first: int, limit: int) -> list[Place]:
    """The list with the share of places that its surface gives to what everybody likes, whatever its theme."""
    share = wanted.surface.hits
    if not share:
        return places
    allowed = of_wanted.allowed(looked.pool, of_wanted.of_all_themes(wanted))
    hits = popular.best(looked.pool, unseen(looked, allowed), 2 * limit)  # some of them have a place already
    return arranging.with_hits(places, hits, share, first, limit)


def with_questions(
    looked: Considered,
    allowed: filters.Mask,
    places: list[Place],
    first: int,
    params: FeedParams,
    compiled: bool = False,
) -> list[Place]:
    """The same list, beginning at place `first` of a session, with questions in it for somebody who hasn't voted much yet.

    What stands at its head stays there.
    """
    left = params.questions - len(looked.judgement.labels)
    count = min(left, sum(map(arranging.asks, range(first, first + len(places)))))
    if count <= 0 or looked.pool.model.version is None:
        return places
    pool, least = looked.pool, params.exploration_evidence
    allowed = allowed & ~_marked(pool, [place.row for place in places[:1]])
    asked = asking.find(pool, looked.judgement, allowed, looked.values, least, count, compiled)
    return arranging.with_questions(places, asked, first)


def arrange(
    looked: Considered,
    allowed: filters.Mask,
    limit: int,
    share: float,
    params: FeedParams,
    rng: np.random.Generator,
    happened: Happenings = NOTHING_HAPPENED,
    compiled: bool = False,
) -> list[Place]:
    """The best of what is allowed and, for the share that explores, what little is known of, as a list."""
    if limit <= 0:
        return []
    pool, new = looked.pool, looked.judgement.by_popularity
    topics = pool.label_names.find(looked.person.topics) if new else np.zeros(0, np.int32)
    found, values = _find(looked, allowed, topics, limit, max(params.candidates, limit))
    learnable = np.zeros(0, np.int64)
    if share:
        learnable = exploration.find(pool, allowed, params.exploration_pool, params.exploration_evidence)
    spread = params.first_spread if new else params.source_spread
    drawable = _marked(pool, learnable)
    rows = np.flatnonzero(drawable | _marked(pool, found))[::-1]  # of equal values the newest wins
    by_label = Spread(filters.main_label(pool, rows), params.label_spread)
    if len(topics):
        by_label = Spread(filters.first_label(pool, rows, topics), spread)
    few = take(pool, rows)
    by_category = Spread(few.category.astype(np.int32), params.category_spread)
    spreads = [Spread(few.source, spread, params.source_cap), by_label, by_category]
    return arranging.arrange(
        rows,
        values[rows],
        drawable[rows],
        spreads,
        share,
        limit,
        rng,
        likeness=Likeness(_directions(pool, rows), params.likeness_spread) if params.likeness_spread else None,
        owed=_marked(pool, _hardly_shown(pool, learnable, happened, params.impressions_floor))[rows],
        compiled=compiled,
    )


def _marked(pool: Pool, rows: NDArray[np.int64] | list[int]) -> filters.Mask:
    """(n,) these rows."""
    mask = np.zeros(len(pool), bool)
    mask[rows] = True
    return mask


def _hardly_shown(pool: Pool, rows: NDArray[np.int64], happened: Happenings, floor: int) -> NDArray[np.int64]:
    """Those of the rows that were shown fewer times than the floor."""
    few = take(pool, rows)
    return rows[happened.shown(few.keys, None if happened.snapshot is None else few.learned) < floor]


def _directions(pool: Pool, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, factors) the vectors of these rows at length 1; 0 where nothing is known."""
    vectors = pool.vectors[rows]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: NDArray[np.float32] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return directions


def _find(
    looked: Considered, allowed: filters.Mask, topics: NDArray[np.int32], limit: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """At most `size` candidates for `limit` places, and the values (n,) of the pool to order them by."""
    pool = looked.pool
    if not looked.judgement.by_popularity:
        rows = np.flatnonzero(allowed)
        return personal.find(looked.values[rows], rows, size), looked.values
    if len(topics):
        on_topic = allowed & filters.with_labels(pool, topics)
        allowed = on_topic if np.count_nonzero(on_topic) >= limit else allowed
    if pool.model.version is not None:
        return popular.find(pool, allowed, size), looked.values
    rows = fresh.find(pool, allowed, size)
    values = np.zeros(len(pool), np.float32)
    values[rows] = np.linspace(1, 0.5, len(rows))
    return rows, values
