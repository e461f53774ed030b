"""How likely a person is to like each item: by what everybody likes while they are new, by their own taste afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.live import Person
from palate.models.factorization_machine import Floats, link
from palate.pool import Pool, of_keys
from palate.ranking.taste import Features, Taste, TasteParams, linear, solve, with_choices
from palate.snapshots import Snapshot


@dataclass(frozen=True, eq=False)
class Judgement:
    """By what a person's items are scored."""

    taste: Taste
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


def judge(pool: Pool, snapshot: Snapshot | None, person: Person, first_items: int, params: TasteParams) -> Judgement:
    """The person's taste from the snapshot and all their votes. New is who has no votes and met fewer than `first_items`."""
    votes = person.history.of_items(person.history.voted)
    keys, labels = votes.items[-params.max_votes :], votes.labels[-params.max_votes :]
    by_popularity = not len(keys) and len(person.history) < first_items
    start = _everybody(pool) if by_popularity else _learned(pool, person)
    prior = with_choices(start, pool.sources.find(person.followed), pool.label_names.find(person.topics), params)
    voted = features(of_keys(pool, keys, snapshot), by_popularity)
    scale = pool.model.scale
    taste = solve(prior, voted, labels, scale, params)
    return Judgement(taste, prior, by_popularity, voted, keys, labels, scale, params)


def features(pool: Pool, by_popularity: bool = False) -> Features:
    """What scoring reads of every item in the pool; no copies."""
    if by_popularity:
        nothing = np.zeros((len(pool), 0), np.float32)
        return Features(nothing, pool.popularity, pool.source, pool.label_offsets, pool.labels)
    return Features(pool.vectors, pool.bias, pool.source, pool.label_offsets, pool.labels)


def order_values(judgement: Judgement, pool: Pool) -> tuple[Floats, Floats]:
    """(n,) estimated probabilities, 0..1, that the person likes each item, and (n,) positive values that order them alike.

    The values still tell well apart what a squared loss puts above 1, where the probabilities lie close together.
    """
    values = linear(judgement.taste, features(pool, judgement.by_popularity))
    scores = link(values, judgement.taste.loss)
    return scores, np.maximum(values, scores) if judgement.taste.loss == "squared" else scores


def _everybody(pool: Pool) -> Taste:
    return Taste(loss="squared", base=0.0, vector=np.zeros(0, np.float32))


def _learned(pool: Pool, person: Person) -> Taste:
    model = pool.model
    vector = np.zeros(model.factors, np.float32) if person.vector is None else person.vector
    return Taste(loss=model.loss, base=model.base, vector=vector, bias=person.bias)
