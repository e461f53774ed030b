"""What a model that ranks (`ials`, `itemknn`, `ease`, `blend`) says of every item to one person, as a probability.

It is asked what evaluation measures, `registry.Entry.score_all`, for one person with all that is known of them at this moment, so
that their latest events count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.live import History, Person
from palate.models import content_scores, registry
from palate.models.factorization_machine import Floats, link
from palate.models.material import Known
from palate.pool import Pool
from palate.pool_model import Ranker

MANY = 50_000
"""Items from which on a model is asked about those alone whose score is wanted."""

EVERY = slice(None)
"""Rows of a pool: all, without a copy."""

TIES = 0.01
"""Part of an item's popularity that is added to what the model says: of equals the more popular wins."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says to one person. I: the model's items, R: directions of content."""

    ranker: Ranker
    name: str
    known: Known
    """The person's history, as the model was given it."""
    items: Floats | None
    """(I,) log-odds; None where there are so many that only those are asked about whose score is wanted."""
    others: Floats
    """(R + 1,): what the scores say of items that the model has learned nothing of, by their content; see `content_scores`."""


def ask(pool: Pool, person: Person) -> Answer | None:
    """The model's answer; None when none is asked, or when it could say nothing: the person has taken to nothing yet."""
    ranker = pool.model.ranker
    if ranker is None or not (person.history.weights > 0).any():
        return None
    known = as_known(person.history, person.key or 0, ranker)
    entry, name = registry.entry(pool.model.name), pool.model.name
    if entry.some is not None and len(ranker.items) >= MANY:
        return Answer(ranker, name, known, None, _others_of_some(entry.some, known, ranker))
    found = entry.scores(ranker.model, known)
    items, explained = (np.asarray(ranker.slope * scores[0] + ranker.intercept, np.float32) for scores in found)
    return Answer(ranker, name, known, items, _others(explained, ranker))


def width(pool: Pool) -> int:
    """Numbers that an answer of this pool's model holds for each item; 0 where it holds none."""
    ranker = pool.model.ranker
    if ranker is None or (registry.entry(pool.model.name).some is not None and len(ranker.items) >= MANY):
        return 0
    return len(ranker.items)


def as_known(history: History, key: int, ranker: Ranker) -> Known:
    """One person's history as models take it, without items that the model has no row for."""
    rows = ranker.items.rows(history.items)
    order = np.argsort(rows, kind="stable")
    order = order[rows[order] >= 0]
    voted = order[history.voted[order]]
    evidence = history.weights != 0
    newer = (evidence.sum() - np.cumsum(evidence)).astype(np.float32)  # the history is told oldest first
    width = len(ranker.items)
    return Known(
        users=np.array([key], np.int64),
        weights=_row(rows[order], history.weights[order], width),
        labels=_row(rows[voted], history.labels[voted], width),
        newer=_row(rows[order], newer[order], width),
    )


def likely(answer: Answer | None, pool: Pool, rows: NDArray[np.int64] | slice = EVERY) -> Floats:
    """(n,) the probability that the person likes each item of these rows; by popularity alone where there is no answer."""
    popularity = pool.popularity[rows]
    if answer is None:
        return popularity
    ties = np.float32(TIES) * (popularity - np.float32(pool.model.prior))
    odds = _log_odds(answer, pool.row[rows], pool.content[rows])
    return np.asarray(link(odds, "logistic") + ties, np.float32)


def _log_odds(answer: Answer, row: NDArray[np.int32], content: NDArray[np.float16]) -> Floats:
    found = np.zeros(len(row), np.float32)
    learned = np.flatnonzero(row >= 0)
    found[learned] = _of_rows(answer, row[learned])
    cold = np.flatnonzero(row < 0)
    found[cold] = content_scores.scored(answer.others, content[cold])
    return found


def _of_rows(answer: Answer, rows: NDArray[np.int32]) -> Floats:
    """(w,) log-odds of these rows of the model."""
    if answer.items is not None:
        return np.asarray(answer.items[rows], np.float32)
    some = registry.entry(answer.name).some
    assert some is not None, "Without it all items are asked about."
    return _odds(some(answer.ranker.model, answer.known, rows.astype(np.int64)), answer.ranker)


def contributions(answer: Answer, pool: Pool) -> tuple[NDArray[np.int64], Floats]:
    """Keys (m,) of what the person took to, and (n, m) how much each of it adds to the scores of the pool's items.

    In probability as it would be at ½, where a quarter of what is added to the log-odds is added to it. There are no keys for
    a model whose score doesn't split.
    """
    split = registry.entry(answer.name).contributions
    if split is None:
        return np.zeros(0, np.int64), np.zeros((len(pool), 0), np.float32)
    rows, weights = answer.known.weights.row(0)
    liked = np.flatnonzero(weights > 0)
    parts = np.zeros((len(pool), len(liked)), np.float32)
    learned, cold = np.flatnonzero(pool.row >= 0), np.flatnonzero(pool.row < 0)
    parts[learned] = split(answer.ranker.model, answer.known, pool.row[learned])[:, liked]
    by_content = answer.ranker.content
    if len(cold) and by_content is not None:
        mixed = registry.entry(answer.name).mixed_contributions
        if mixed is not None:
            told = mixed(answer.ranker.model, answer.known, by_content.rows, by_content.weights)
        else:
            told = by_content.weights @ split(answer.ranker.model, answer.known, by_content.rows)
        parts[cold] = content_scores.scored(told[:, liked], pool.content[cold])
    return answer.ranker.items.keys[rows[liked]], np.float32(answer.ranker.slope / 4) * parts


def _others(items: Floats, ranker: Ranker) -> Floats:
    """Without anything known of content the mean of what the model has learned of."""
    if ranker.content is not None:
        return content_scores.told(ranker.content, items)
    learned = items[ranker.known]
    return np.array([learned.mean() if len(learned) else ranker.intercept], np.float32)


def _others_of_some(some: registry.Some, known: Known, ranker: Ranker) -> Floats:
    """What `_others` finds; the mean is that of some thousand items."""
    if ranker.content is None:
        learned = np.flatnonzero(ranker.known)[:: max(int(ranker.known.sum()) // content_scores.KNOWN, 1)]
        said = _odds(some(ranker.model, known, learned), ranker)
        return np.array([said.mean() if len(said) else ranker.intercept], np.float32)
    if ranker.content_products is not None:
        product = registry.entry(ranker.name).product
        assert product is not None, "There are no vectors without it."
        return _odds_of_mixes(ranker.content_products @ product.person(ranker.model, known), ranker)
    said = some(ranker.model, known, ranker.content.rows.astype(np.int64))
    return _odds_of_mixes(np.asarray(ranker.content.weights @ said, np.float32), ranker)


def _odds(scores: Floats, ranker: Ranker) -> Floats:
    return np.asarray(ranker.slope * scores + ranker.intercept, np.float32)


def _odds_of_mixes(mixes: Floats, ranker: Ranker) -> Floats:
    """(R + 1,): of mixes of scores, of which the first alone is a mean, the others are differences."""
    found = np.asarray(ranker.slope * mixes, np.float32)
    found[0] += np.float32(ranker.intercept)
    return found


def _row(columns: NDArray[np.int64], values: Floats, width: int) -> matrix.Sparse:
    return matrix.Sparse(np.array([0, len(columns)], np.int64), columns.astype(np.int32), values, width)
