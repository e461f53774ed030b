"""Which item to ask a new person about: the one whose answer says most about all the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate import greedy
from palate.candidates import personal
from palate.candidates.filters import Mask
from palate.models.factorization_machine import Loss
from palate.pool import Pool
from palate.ranking.scoring import Judgement
from palate.ranking.taste import Features, Taste, TasteParams, design, strengths

Rows = NDArray[np.int64]

LIKELY = 60
"""So many items, those that the person likes best as far as is known, may be asked about."""

POPULATION = 200
"""So many of all items stand for what answers are to tell about."""


def find(
    pool: Pool,
    judgement: Judgement,
    allowed: Mask,
    values: NDArray[np.float32],
    least: float,
    count: int,
    compiled: bool = False,
) -> Rows:
    """Rows of up to `count` allowed items to ask about, best question first, given what the person has voted on.

    Asked about is what may well be liked, by `values` (n,), and what enough people have judged for its vector to mean something:
    `least` is the evidence that it must have. `compiled`: in machine code.
    """
    everything = np.flatnonzero(allowed)
    rows = everything[pool.evidence[everything] >= least]
    likely = np.sort(personal.find(values[rows], rows, LIKELY))
    population = everything[np.linspace(0, len(everything) - 1, min(POPULATION, len(everything))).astype(np.int64)]
    plain = Features(pool.vectors, np.zeros(len(pool), np.float32), pool.source, pool.label_offsets, pool.labels)
    told, answered = plain.take(np.concatenate((likely, population))), len(judgement.labels)
    told = judgement.voted.and_then(told) if answered else told
    items, scale, params = answered + len(likely), judgement.scale, judgement.params
    if compiled:
        best = order_by_machine(told, items, pool.model.loss, scale, params, count, answered)
    else:
        nothing = Taste(loss=pool.model.loss, base=0.0, vector=np.zeros(pool.vectors.shape[1], np.float32))
        asked, others = told.take(np.arange(items)), told.take(np.arange(items, len(told)))
        best = order(nothing, asked, others, scale, params, count, answered)
    return likely[best - answered]


def order(
    prior: Taste,
    items: Features,
    population: Features,
    scale: float,
    params: TasteParams,
    count: int,
    answered: int = 0,
) -> Rows:
    """The first `count` of the `items` to ask about, as rows of them; the first `answered` of them were asked about before.

    Each is the one after whose answer the scores of the `population` vary least, given those before it: the expected reduction of
    variance in a linear model (Cohn, Ghahramani and Jordan, "Active Learning with Statistical Models", 1996). It doesn't depend
    on what the answers are, only on what was asked.
    """
    of_items, l2 = design(prior, items, items, scale, params)
    of_all, _ = design(prior, population, items, scale, params)
    own = of_items / l2 @ of_items.T
    shared = of_items / l2 @ of_all.T
    for row in range(answered):
        _answer(own, shared, row)
    chosen = list(range(answered))
    for _ in range(min(count, len(items) - answered)):
        gain = np.square(shared).sum(axis=1) / (1 + own.diagonal())
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
        _answer(own, shared, chosen[-1])
    return np.array(chosen[answered:], np.int64)


def order_by_machine(
    told: Features, items: int, loss: Loss, scale: float, params: TasteParams, count: int, answered: int = 0
) -> Rows:
    """What `order` gives, of the same numbers but for their last digits; `told` are the items, then the population."""
    columns = told.vectors, told.source, told.label_offsets, told.labels
    return greedy.questions(*columns, items, strengths(loss, scale, params), answered, count)


def _answer(own: NDArray[np.float64], shared: NDArray[np.float64], row: int) -> None:
    """What the covariances of the items' scores, (n, n) with each other and (n, m) with the population's, are after the answer
    about one of the items, whose noise has variance 1."""
    part = own[:, row] / (1 + own[row, row])
    shared -= np.outer(part, shared[row])
    own -= np.outer(part, own[row])
