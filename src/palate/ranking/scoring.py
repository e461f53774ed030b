"""How likely a person is to like each item: by what everybody likes while they are new, by their own taste afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from palate.candidates import stories
from palate.live import Person, State
from palate.models.factorization_machine import Floats, link
from palate.pool import Pool, of_keys
from palate.ranking import by_model
from palate.ranking.by_model import EVERY, Answer
from palate.ranking.taste import (
    Features,
    Solution,
    Taste,
    TasteParams,
    Tastes,
    Votes,
    at,
    labels_of,
    linear,
    linear_of_many,
    remembered,
    with_choices,
)
from palate.snapshots import Snapshot


@dataclass(frozen=True, eq=False)
class Judgement:
    """By what a person's items are scored."""

    taste: Taste
    """Without what the hour adds, of which no vote is the reason."""
    now: datetime
    prior: Taste
    """The taste before their own votes were counted."""
    by_popularity: bool
    """True for somebody new: the item's part of a score is its popularity."""
    voted: Features
    """The items behind `labels`."""
    voted_keys: NDArray[np.int64]
    labels: Floats
    scale: float
    params: TasteParams
    solution: Solution
    """By which the votes were solved to the taste."""
    answer: Answer | None = None
    """Of the model that ranks, if one is served and can say anything; None also where its part is in the pool's columns."""


def judge(
    pool: Pool,
    snapshot: Snapshot | None,
    person: Person,
    now: datetime,
    first_items: int,
    params: TasteParams,
    tastes: Tastes | None = None,
) -> Judgement:
    """The person's taste from the snapshot and all their votes, one for each story.

    New is who has no votes and met fewer than `first_items`; with a model that ranks, who has also taken to nothing yet.
    `tastes` are what was found before.
    """
    votes = stories.one_verdict(pool, person.history.of_items(person.history.voted))
    keys, labels = votes.items[-params.max_votes :], votes.labels[-params.max_votes :]
    answer = by_model.ask(pool, person)
    by_popularity = not len(keys) and len(person.history) < first_items and answer is None
    start = _everybody() if by_popularity else _learned(pool, person)
    prior = with_choices(start, pool.sources.find(person.followed), pool.label_names.find(person.topics), params)
    voted = features(of_keys(pool, keys, snapshot), by_popularity, answer)
    scale = pool.model.scale
    solved = Votes(prior, voted, labels, scale, params)
    taste = remembered(tastes, person.keys, solved)
    solution = Solution(solved, taste)
    return Judgement(taste, now, prior, by_popularity, voted, keys, labels, scale, params, solution, answer)


def judge_in(
    state: State,
    person: Person,
    now: datetime,
    first_items: int,
    params: TasteParams,
    tastes: Tastes | None = None,
) -> Judgement:
    """What `judge` gives, where only what the person has voted on is looked at."""
    voted = state.stock.rows(person.history.items[person.history.voted])
    pool = state.stock.take(np.unique(voted[voted >= 0]))
    return judge(pool, state.snapshot, person, now, first_items, params, tastes)


def features(pool: Pool, by_popularity: bool = False, answer: Answer | None = None) -> Features:
    """What scoring reads of every item in the pool; no copies of columns."""
    vectors, bias = _vectors_and_bias(pool, by_popularity, answer, EVERY)
    return Features(vectors, bias, pool.source, pool.label_offsets, pool.labels)


@dataclass(frozen=True, eq=False)
class Measure:
    """What scores a person's items at any hour: a judgement without its reasons."""

    taste: Taste
    by_popularity: bool
    answer: Answer | None


def measure(judgement: Judgement) -> Measure:
    """What of a judgement is worth keeping for the next list of items."""
    return Measure(judgement.taste, judgement.by_popularity, judgement.answer)


def order_values(judgement: Judgement, pool: Pool) -> tuple[Floats, Floats]:
    """(n,) estimated probabilities, 0..1, that the person likes each item, and (n,) positive values that order them alike.

    The values still tell well apart what a squared loss puts above 1, where the probabilities lie close together.
    """
    items = features(pool, judgement.by_popularity, judgement.answer)
    how = linear_of_many if pool.of_many else linear
    return _order_values(measure(judgement), pool, items, judgement.now, how)


def order_values_of(measure: Measure, pool: Pool, rows: NDArray[np.int64], now: datetime) -> tuple[Floats, Floats]:
    """What `order_values` gives, of the items of these rows alone."""
    return _order_values(measure, pool, _features_of(measure, pool, rows), now)


def _order_values(
    measure: Measure, pool: Pool, items: Features, now: datetime, how: Callable[[Taste, Features], Floats] = linear
) -> tuple[Floats, Floats]:
    taste = measure.taste if measure.by_popularity else at(measure.taste, pool.model.hours, now)
    values = how(taste, items)
    scores = link(values, taste.loss)
    return scores, np.maximum(values, scores) if taste.loss == "squared" else scores


def _features_of(measure: Measure, pool: Pool, rows: NDArray[np.int64]) -> Features:
    """Those of `features` that this person's taste reads: to copy the others would take longer than all else."""
    vectors, bias = _vectors_and_bias(pool, measure.by_popularity, measure.answer, rows)
    source = pool.source[rows] if len(measure.taste.sources) else np.zeros(0, np.int32)
    if not len(measure.taste.labels):
        return Features(vectors, bias, source, np.zeros(len(rows) + 1, np.int64), pool.labels[:0])
    return Features(vectors, bias, source, *labels_of(pool.label_offsets, pool.labels, rows))


def _vectors_and_bias(
    pool: Pool, by_popularity: bool, answer: Answer | None, rows: NDArray[np.int64] | slice
) -> tuple[Floats, Floats]:
    if by_popularity:
        popularity = pool.popularity[rows]
        return np.zeros((len(popularity), 0), np.float32), popularity
    learned = pool.model.ranker is not None
    return pool.vectors[rows], by_model.likely(answer, pool, rows) if learned else pool.bias[rows]


def _everybody() -> Taste:
    return Taste(loss="squared", base=0.0, vector=np.zeros(0, np.float32))


def _learned(pool: Pool, person: Person) -> Taste:
    model = pool.model
    if model.name != "fm" or person.vector is None:
        return Taste(loss=model.loss, base=model.base, vector=np.zeros(model.factors, np.float32))
    return Taste(loss=model.loss, base=model.base, vector=person.vector, bias=person.bias)
