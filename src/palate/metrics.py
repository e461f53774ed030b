"""How good scores are. Every function says what it does with ties and with cases that have no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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
    n = len(_float(labels))
    cell = np.zeros(n, np.int64) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    found = auc_of_each(labels, scores, cell, int(cell.max(initial=-1)) + 1)
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def auc_of_each(labels: ArrayLike, scores: ArrayLike, group: NDArray[np.int64], groups: int) -> Values:
    """The AUC of each group 0 … groups − 1; NaN for one without a positive or without a negative."""
    y, s = _float(labels) > 0.5, _float(scores)
    order = np.lexsort((s, group))
    y, s, cell = y[order], s[order], group[order]
    ranks = _ranks(cell, s)
    positives, sizes = np.bincount(cell, y, groups), np.bincount(cell, minlength=groups)
    starts = np.cumsum(sizes) - sizes
    won = np.bincount(cell, np.where(y, ranks - starts[cell], 0), groups) - positives * (positives + 1) / 2
    pairs = positives * (sizes - positives)
    return _float(np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan))


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
    """Share of the relevance that is among the first k: of the relevant items, where all weigh 1. 0 for a list without any.

    `total` as in `ndcg_at`.
    """
    gains = _float(relevance)
    return _share(gains[..., :k].sum(axis=-1), gains.sum(axis=-1) if total is None else _float(total))


def precision_at(relevance: ArrayLike, k: int) -> Values:
    """Share of the first k places that hold something relevant; a place that is empty holds nothing."""
    return _float((_float(relevance)[..., :k] > 0).sum(axis=-1) / k)


def reciprocal_rank_at(relevance: ArrayLike, k: int) -> Values:
    """One over the place of the first relevant item among the first k; 0 if there is none. Its mean over lists is MRR@k."""
    hits = _float(relevance)[..., :k] > 0
    return _float(np.where(hits.any(axis=-1), 1 / (hits.argmax(axis=-1) + 1), 0))


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


def standard_error(values: ArrayLike, groups: ArrayLike) -> float:
    """Standard error of the mean of values (n,), of which those of one group (n,), such as a person, err together.

    Liang and Zeger, "Longitudinal Data Analysis Using Generalized Linear Models" (1986).
    """
    found = _float(values)
    by_group = np.bincount(np.unique(groups, return_inverse=True)[1], found - found.mean())
    return float(np.sqrt((by_group**2).sum())) / len(found)


def calibration_error(labels: ArrayLike, scores: ArrayLike, bins: int = 10) -> float:
    """Mean distance between label and score in bins of equally many scores, each bin counting by its size; NaN of nothing.

    Labels and scores are 0..1. Equal scores are in one bin. Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated
    Probabilities Using Bayesian Binning" (2015), with bins by quantile.
    """
    y, s = _float(labels), _float(scores)
    cell = calibration_bins(s, bins)
    gaps = np.bincount(cell, y - s, minlength=bins) if len(s) else np.empty(0)
    return float(np.abs(gaps).sum() / len(s)) if len(s) else float("nan")


def calibration_bins(scores: ArrayLike, bins: int) -> NDArray[np.int64]:
    """The bin (0 … bins − 1) of each score: as equally full as equal scores, which share one, let them be."""
    s = _float(scores)
    edges = np.quantile(s, np.arange(1, bins) / bins) if len(s) else np.empty(0)
    return np.searchsorted(edges, s, side="right").astype(np.int64)


BOOTSTRAP_GROUPS = 10_000
"""Of more cases than these, groups by chance are drawn: the interval is the same, as far as chance lets it."""

Finish = Callable[[Values], Values]
"""From sums of parts, (…, P), to the statistic, (…)."""


def mean_of(sums: Values) -> Values:
    """The commonest `Finish`: the sum of a value over the number of cases that have one; NaN of none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return _float(np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan))


def intervals_of_sums(
    cases: Sequence[tuple[ArrayLike, Finish]], random: np.random.Generator, *, samples: int = 1000, level: float = 0.95
) -> list[tuple[float, float]]:
    """Where statistics of sums over the same n users lie with probability `level`, by drawing users with replacement.

    Each of `cases` has its parts (n, P), which are summed, and the function of the sums; with a mean, the parts are its value and
    1 for each user (0 and 0 for one who has none). All samples of all statistics are one product of matrices. For two models
    on the same users, put the parts of both side by side and take the difference of their statistics. NaN where nothing can
    be told.
    """
    parts = [_float(part) for part, _ in cases]
    if not parts or not len(parts[0]):
        return [(float("nan"), float("nan"))] * len(parts)
    edges = np.cumsum([0, *(part.shape[1] for part in parts)])
    rows = _in_groups(np.concatenate(parts, axis=1), random)
    sums = np.concatenate([drawn @ rows for drawn in _draws(len(rows), samples, random)])
    return [
        _middle(finish(sums[:, first:last]), level)
        for (_, finish), first, last in zip(cases, edges, edges[1:], strict=False)
    ]


def _middle(found: Values, level: float) -> tuple[float, float]:
    found = found[~np.isnan(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _in_groups(parts: Values, random: np.random.Generator) -> Values:
    if len(parts) <= BOOTSTRAP_GROUPS:
        return parts
    group = random.permutation(len(parts)) % BOOTSTRAP_GROUPS
    return np.stack([np.bincount(group, column) for column in parts.T], axis=1)


def _draws(cases: int, samples: int, random: np.random.Generator) -> Iterator[Values]:
    """How often each sample holds each case, some samples at a time: (s, cases)."""
    step = max(1, 2**22 // cases)
    for start in range(0, samples, step):
        some = min(step, samples - start)
        drawn = random.integers(cases, size=(some, cases)) + np.arange(some)[:, None] * cases
        yield _float(np.bincount(drawn.ravel(), minlength=some * cases).reshape(some, cases))


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
