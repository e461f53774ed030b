"""How good scores are. Every function says what it does with ties and with cases that have no answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]


def rmse(labels: ArrayLike, scores: ArrayLike) -> float:
    """Root of the mean squared error; NaN of nothing."""
    errors = squared_errors(labels, scores)
    return float(np.sqrt(np.mean(errors))) if errors.size else float("nan")


def squared_errors(labels: ArrayLike, scores: ArrayLike) -> Values:
    """What `rmse` is the root of the mean of."""
    return _float((_float(labels) - _float(scores)) ** 2)


def log_loss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean cross-entropy in nats of labels 0..1; NaN of nothing."""
    losses = log_losses(labels, scores)
    return float(np.mean(losses)) if losses.size else float("nan")


def log_losses(labels: ArrayLike, scores: ArrayLike) -> Values:
    """What `log_loss` is the mean of. Scores are held 1e-7 off 0 and 1, so that all are finite."""
    y, p = _float(labels), np.clip(_float(scores), 1e-7, 1 - 1e-7)
    return _float(-(y * np.log(p) + (1 - y) * np.log1p(-p)))


def auc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None) -> float:
    """Probability that a positive (label above ½) is scored above a negative; a tie counts half.

    With `groups` (a user for each pair) the mean over the groups that have both kinds, each counting once. NaN when there is
    no pair to compare.
    """
    y, s = _float(labels) > 0.5, _float(scores)
    cell = np.zeros(len(y), np.int64) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    order = np.lexsort((s, cell))
    y, s, cell = y[order], s[order], cell[order]
    ranks = _ranks(cell, s)
    positives, sizes = np.bincount(cell, y), np.bincount(cell)
    starts = np.cumsum(sizes) - sizes
    won = np.bincount(cell, np.where(y, ranks - starts[cell], 0)) - positives * (positives + 1) / 2
    pairs = positives * (sizes - positives)
    return float(np.mean(won[pairs > 0] / pairs[pairs > 0])) if (pairs > 0).any() else float("nan")


def relevance(labels: ArrayLike, scores: ArrayLike) -> Values:
    """Labels in the order of their scores, best first: what the functions below take. Shape (n,) or (lists, n).

    Among equal scores the lower label comes first, so that a model that can't tell gains nothing by it.

    >>> relevance([1, 0, 0], [0.5, 0.5, 0.9]).tolist()
    [0.0, 0.0, 1.0]
    """
    y, s = _float(labels), _float(scores)
    return _float(np.take_along_axis(y, np.lexsort((y, -s), axis=-1), axis=-1))


def ndcg_at(relevance: ArrayLike, k: int, total: ArrayLike | None = None) -> Values:
    """Discounted gain of the first k of each list over that of the best possible list; 0 for a list with nothing relevant.

    Gain is the relevance itself, the discount 1 / log2(place + 1). `total` is the number of relevant items where not all are
    in the list (relevance 0 or 1); None means that the list holds them all. Järvelin and Kekäläinen, "Cumulated Gain-Based
    Evaluation of IR Techniques" (2002).
    """
    gains = _float(relevance)
    best = -np.sort(-gains, axis=-1) if total is None else np.arange(k) < _float(total)[..., None]
    return _share(_discounted(gains[..., :k]), _discounted(_float(best)[..., :k]))


def hit_rate_at(relevance: ArrayLike, k: int) -> Values:
    """1 for each list with anything relevant among its first k, else 0."""
    return _float((_float(relevance)[..., :k] > 0).any(axis=-1))


def recall_at(relevance: ArrayLike, k: int, total: ArrayLike | None = None) -> Values:
    """Share of the relevant items that are among the first k; 0 for a list with nothing relevant. `total` as in `ndcg_at`."""
    hits = _float(relevance) > 0
    return _share(hits[..., :k].sum(axis=-1), hits.sum(axis=-1) if total is None else _float(total))


def average_precision_at(relevance: ArrayLike, k: int, total: ArrayLike | None = None) -> Values:
    """Precision at the place of each relevant item of the first k, summed, over min(k, relevant items); 0 if there is none.

    Its mean over lists is MAP@k. `total` as in `ndcg_at`.
    """
    hits = _float(relevance) > 0
    relevant = hits.sum(axis=-1) if total is None else _float(total)
    first = hits[..., :k]
    precision = np.cumsum(first, axis=-1) / np.arange(1, first.shape[-1] + 1)
    return _share((precision * first).sum(axis=-1), np.minimum(relevant, k))


def bootstrap_interval(
    values: ArrayLike,
    random: np.random.Generator,
    *,
    statistic: Callable[[Values], float] = np.mean,
    groups: ArrayLike | None = None,
    samples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Where a statistic of the rows of `values` lies with probability `level`, by drawing rows with replacement.

    With `groups` (one for each row) whole groups are drawn, as rows of one user are not independent. For two models compared
    on the same cases, give a statistic that is their difference. Samples for which the statistic is NaN are left out.
    Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979).
    """
    rows = _float(values)
    members = _members(np.arange(len(rows)) if groups is None else np.asarray(groups))
    found = np.empty(samples)
    for sample in range(samples):
        drawn = random.integers(len(members), size=len(members))
        found[sample] = statistic(rows[np.concatenate([members[group] for group in drawn])])
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _float(values: ArrayLike) -> Values:
    return np.asarray(values, np.float64)


def _ranks(cell: NDArray[np.int64], scores: Values) -> Values:
    """Rank (from 1) of each of sorted cells and scores; equal ones share the mean of their ranks."""
    first = np.ones(len(scores), bool)
    first[1:] = (cell[1:] != cell[:-1]) | (scores[1:] != scores[:-1])
    run = np.cumsum(first) - 1
    lengths = np.bincount(run)
    return _float(np.cumsum(lengths) - (lengths - 1) / 2).take(run)


def _discounted(gains: Values) -> Values:
    discounts = 1 / np.log2(np.arange(gains.shape[-1]) + 2)
    return _float((gains * discounts).sum(axis=-1))


def _share(part: ArrayLike, whole: ArrayLike) -> Values:
    part, whole = _float(part), _float(whole)
    return _float(np.where(whole > 0, part / np.where(whole > 0, whole, 1), 0.0))


def _members(groups: NDArray[np.generic]) -> list[NDArray[np.int64]]:
    """Rows of each group."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(groups[order][1:] != groups[order][:-1]) + 1)
