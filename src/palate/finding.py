"""Which few of very many items a call looks at closely: what several ways find, each fast, and all that came since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate import scanning
from palate.candidates import by_text, groups, openness, personal, walking
from palate.candidates import wanted as of_wanted
from palate.candidates.candidate_params import CandidateParams
from palate.candidates.found import bit
from palate.candidates.openness import Open
from palate.candidates.wanted import Wanted
from palate.feed_params import FeedParams
from palate.live import History
from palate.models import neighbours, registry
from palate.models.factorization_machine import Floats
from palate.models.nearest import Located
from palate.models.neighbours import Neighbours
from palate.orders import Bits
from palate.pool import Pool, take
from palate.ranking import scoring
from palate.ranking.by_model import Answer
from palate.ranking.considered import Age, freshness
from palate.ranking.scoring import Judgement
from palate.ranking.taste import Taste, at
from palate.scanning import Weights
from palate.stock import Stock

Rows = NDArray[np.integer]

AGES = (0.1, 0.4, 1.0)
"""Parts of the half-life of an item's value; what came since is searched apart."""
GREAT = 200
"""Items of one label or source that are scored."""
MET = 3
"""Items that somebody has met, for so many of which one more list is looked into …"""
DEEPEST = 8
"""… up to so many times as many: years of reading don't make a call look at every item."""
LOOKED = 2_000
"""Items that an index without lists finds at most, which are then scored."""


@dataclass(frozen=True, eq=False)
class Found:
    """Candidates (n)."""

    pool: Pool
    """Of them alone, sorted by key."""
    by: NDArray[np.uint16]
    """(n,) the bits of the ways that found each; 0 where all items were looked at."""
    rows: NDArray[np.int64] | None = None
    """(n,) of the stock, in the order of the pool; None where all items were looked at."""


def find(stock: Stock, wanted: Wanted, judgement: Judgement, params: FeedParams) -> Found:
    """All that may be served and that the person hasn't met, where that is little, else the candidates for their list.

    Where there are few items at all, all of them, whether they may be served or not.
    """
    if len(stock) <= params.find.exact:
        return everything(stock.whole)
    allowed, hits = openness.find(stock, wanted, unseen=True), _hits(stock, wanted, params)
    if allowed.count() <= params.find.exact:
        return everything(stock.take(np.union1d(allowed.rows(len(stock.base)), hits)))
    return _joined(stock, [*_ways(stock, wanted, judgement, allowed, params), ("popular", hits)])


def everything(pool: Pool) -> Found:
    """All items of a pool, found by no way."""
    return Found(pool, np.zeros(len(pool), np.uint16))


def _ways(
    stock: Stock, wanted: Wanted, judgement: Judgement, allowed: Open, params: FeedParams
) -> Iterator[tuple[str, Rows]]:
    """What each way finds, as rows of the stock."""
    bits, orders, count = allowed.bits, stock.orders, params.find
    yield "new", np.flatnonzero(allowed.side)[::-1][: count.new] + len(stock.base)
    yield "new", walking.first(orders.unindexed, bits, count.new)
    for part in _by_age(stock, wanted, params):
        yield "popular", walking.first(orders.popular, bits & part, max(count.popular, params.candidates))
    yield "trending", walking.first(orders.trending, bits, count.trending)
    yield "fresh", walking.first(orders.newest, bits, max(count.fresh, params.candidates))
    yield "exploration", _little_known(stock, allowed, params)
    near = _near(stock, wanted, judgement, count)
    yield from _of_groups(stock, wanted, near, bits, count)
    yield from _nearest(stock, judgement, bits, params, _probes(wanted.person.history, count))
    yield (
        "text",
        by_text.find(stock, wanted.person.history, allowed, count.text, partial(_kept, stock.base, judgement, params)),
    )


def _hits(stock: Stock, wanted: Wanted, params: FeedParams) -> Rows:
    """What everybody likes most whatever the surface's theme, where some places are for it."""
    if not wanted.surface.hits:
        return stock.orders.popular[:0]
    allowed = openness.find(stock, of_wanted.of_all_themes(wanted), unseen=True)
    return walking.first(stock.orders.popular, allowed.bits, max(params.find.popular, 2 * params.limit_max))


def _little_known(stock: Stock, allowed: Open, params: FeedParams) -> Rows:
    """The newest of those that too few have judged."""
    if not params.exploration:
        return stock.orders.newest[:0]
    return walking.first(stock.orders.little_known(params.exploration_evidence), allowed.bits, params.exploration_pool)


class _Near(NamedTuple):
    """Numbers of the groups nearest to a person."""

    sources: NDArray[np.int64]
    labels: NDArray[np.int64]
    categories: NDArray[np.int64]


def _near(stock: Stock, wanted: Wanted, judgement: Judgement, count: CandidateParams) -> _Near:
    taste = judgement.taste
    rows, positive = _met(stock, wanted.person.history)
    by_weight = groups.weightiest(taste.sources, taste.source_weights, count.sources)
    by_history = groups.nearest(stock.base.source[rows], positive, count.sources)
    return _Near(
        sources=np.union1d(by_weight, by_history),
        labels=groups.weightiest(taste.labels, taste.label_weights, count.labels),
        categories=groups.nearest(stock.base.category[rows], positive, count.categories),
    )


def _of_groups(
    stock: Stock, wanted: Wanted, near: _Near, bits: Bits, count: CandidateParams
) -> Iterator[tuple[str, Rows]]:
    """The newest of followed sources, and the most popular of the groups nearest to the person."""
    orders, each = stock.orders, count.of_group
    followed = stock.base.sources.find(wanted.person.followed)
    yield (
        "followed",
        walking.of_groups(orders.by_source_newest, followed, bits, -(-count.followed // max(len(followed), 1))),
    )
    yield "sources", walking.of_groups(orders.by_source, near.sources, bits, each)
    yield "labels", walking.of_groups(orders.by_label, near.labels, bits, each)
    yield "categories", walking.of_groups(orders.by_category, near.categories, bits, each)


def _met(stock: Stock, history: History) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of the base of what the person has met lately, and which of it they took to."""
    rows = stock.base.rows(history.items[-groups.NEWEST :])
    positive = (history.labels[-groups.NEWEST :] > 0.5) | (history.weights[-groups.NEWEST :] > 0)
    return rows[rows >= 0], positive[rows >= 0]


def _probes(history: History, count: CandidateParams) -> int:
    """Lists to look into: where the best were met already, what is left of the best lies farther off."""
    return min(count.probes + len(history) // MET, DEEPEST * count.probes)


def _nearest(
    stock: Stock, judgement: Judgement, bits: Bits, params: FeedParams, probes: int
) -> Iterator[tuple[str, Rows]]:
    """What the person's own score puts first: of all, and of what their own weights lift."""
    space, query, count = stock.base.space, vector(stock.base, judgement), params.find
    if space is not None and query is not None:
        yield from _of_index(stock, space, query, judgement, bits, params, probes)
        clusters = space.index.nearest_clusters(query, count.clusters)
        yield "clusters", walking.of_groups(stock.orders.by_cluster, clusters, bits, count.of_group)
    elif judgement.answer is not None:
        yield "behaviour", _best_said(stock.base, judgement.answer, bits, count.behaviour)


def _of_index(
    stock: Stock, space: Located, query: Floats, judgement: Judgement, bits: Bits, params: FeedParams, probes: int
) -> Iterator[tuple[str, Rows]]:
    """The best by value, age included: of the items whose vectors lie well, of those with the labels and of the sources that the
    person's own weights lift most, and of those that the model lifts for everybody."""
    count, listed = params.find, stock.orders.listed
    lifted = stock.orders.by_bias if judgement.answer is None else stock.orders.by_bias[:0]
    beside = np.concatenate([lifted, *_own_groups(stock, judgement.taste, count)])
    if listed is None:
        found = space.search(query, LOOKED, bits, probes)
        looked = np.union1d(found, beside[openness.is_open(bits, beside)]).astype(np.int64)
        yield "behaviour", _best_of(stock.base, judgement, looked, count.behaviour + count.near, params)
        return
    asked, places = listed.index.asked(query, probes), np.sort(listed.places[beside])
    age = scanning.age(judgement.now, params.freshness, params.half_life_days)
    limits = count.behaviour, count.near
    best = scanning.best(listed, asked, _weights(stock.base, judgement), age, bits, places, limits)
    yield "behaviour", listed.items[best.every, scanning.ROW]
    yield "near", listed.items[best.lifted, scanning.ROW]


def _best_of(pool: Pool, judgement: Judgement, rows: NDArray[np.int64], limit: int, params: FeedParams) -> Rows:
    """The best of these rows."""
    values = scoring.order_values_of(scoring.measure(judgement), pool, rows, judgement.now)[1]
    return personal.find(values * _kept(pool, judgement, params, rows), rows, limit)


def _kept(pool: Pool, judgement: Judgement, params: FeedParams, rows: Rows) -> Floats:
    """What the age of rows leaves of their worth."""
    return freshness(pool.published[rows], judgement.now, Age(params.freshness, params.half_life_days))


def _own_groups(stock: Stock, taste: Taste, count: CandidateParams) -> Iterator[Rows]:
    """The newest with the labels, and of the sources, that the person's own weights lift most."""
    orders = stock.orders
    for groups_, numbers in (
        (orders.by_label_newest, groups.weightiest(taste.labels, taste.label_weights, count.labels)),
        (orders.by_source_newest, groups.weightiest(taste.sources, taste.source_weights, count.sources)),
    ):
        yield from (groups_.of(number)[:GREAT] for number in numbers.tolist() if number < len(groups_))


def _weights(pool: Pool, judgement: Judgement) -> Weights:
    """What `scoring.order_values` adds to the products, as a scan reads it."""
    taste, answer = judgement.taste, judgement.answer
    return Weights(
        squared=taste.loss == "squared",
        start=float(taste.base + taste.bias),
        sources=_spread(taste.sources, taste.source_weights, len(pool.sources)),
        labels=_spread(taste.labels, taste.label_weights, len(pool.label_names)),
        curved=answer is not None,
        slope=1.0 if answer is None else float(answer.ranker.slope),
        intercept=0.0 if answer is None else float(answer.ranker.intercept),
    )


def _spread(numbers: NDArray[np.int32], weights: Floats, count: int) -> Floats:
    """(count + 1,) the weight of each number, behind that of none."""
    table = np.zeros(count + 1, np.float32)
    table[numbers + 1] = weights
    return table


def _by_age(stock: Stock, wanted: Wanted, params: FeedParams) -> Iterator[Bits]:
    """All items, and the newer ones: where age takes off much an old item that is better doesn't come before them."""
    yield openness.published_within(stock, wanted, wanted.window)
    for share in AGES if params.freshness else ():
        window = timedelta(days=params.half_life_days * share)
        if window < wanted.window:
            yield openness.published_within(stock, wanted, window)


def vector(pool: Pool, judgement: Judgement) -> Floats | None:
    """(d,) by which the model's index is asked for the person: its products with items' vectors order these as the model does.

    None for somebody of whom it knows nothing, and for a model whose scores are no products.
    """
    if judgement.answer is not None:
        product = registry.entry(judgement.answer.name).product
        return None if product is None else product.person(judgement.answer.ranker.model, judgement.answer.known)
    if judgement.by_popularity or pool.model.name != "fm":
        return None
    return np.append(at(judgement.taste, pool.model.hours, judgement.now).vector, np.float32(1)).astype(np.float32)


def _best_said(pool: Pool, answer: Answer, bits: Bits, limit: int) -> Rows:
    """Of a model without vectors: from what it said of all items, or what is near to those that the person took to."""
    if answer.items is None:
        assert isinstance(answer.ranker.model, Neighbours), "Other models that say little at a time have vectors."
        near, sums = neighbours.near_items(answer.ranker.model, answer.known)
    else:
        near, sums = np.flatnonzero(answer.ranker.known), answer.items[answer.ranker.known]
    rows = pool.of_model[near]
    inside = np.flatnonzero(openness.is_open(bits, rows))
    if len(inside) > limit:
        inside = inside[np.argpartition(-sums[inside], limit - 1)[:limit]] if limit else inside[:0]
    return rows[inside]


def _joined(stock: Stock, ways: list[tuple[str, Rows]]) -> Found:
    """What was found once or more, with the bits of all ways that found it."""
    every = np.concatenate([rows for _, rows in ways]).astype(np.int64)
    by = np.repeat([bit(name) for name, _ in ways], [len(rows) for _, rows in ways])
    both = np.sort(every << 16 | by)
    every, by = both >> 16, (both & 0xFFFF).astype(np.uint16)
    first = np.flatnonzero(np.diff(every, prepend=-1))
    return of_rows(stock, every[first], np.bitwise_or.reduceat(by, first) if len(first) else by)


def of_rows(stock: Stock, rows: NDArray[np.int64], by: NDArray[np.uint16]) -> Found:
    """These rows as candidates, those of the base first and ascending, with the bits of the ways that found each."""
    if not len(rows) or rows[-1] < len(stock.base):
        return Found(take(stock.base, rows), by, rows)
    order = np.argsort(stock.keys(rows))
    return Found(stock.take(rows), by[order], rows[order])
