"""The rate of positive labels of each item, shrunk to that of all: the score for somebody nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate.domain import Interactions, to_milliseconds
from palate.vocabulary import Vocabulary, vocabulary

Floats = NDArray[np.float32]

DAY = 24 * 3600 * 1000
WEAKEST, STRONGEST = 1.0, 1000.0


class PopularityParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How popularity is counted."""

    half_life_days: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """After so many days an example counts half."""
    strength: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """How many examples the rate of all items weighs in the rate of one; none means estimated from how items differ."""


@dataclass(frozen=True, eq=False)
class Popularity:
    """What is known of each of I items; the prior is Beta(strength · prior_mean, strength · (1 − prior_mean))."""

    items: Vocabulary
    mean: Floats
    """(I,): posterior mean of the positive rate"""
    evidence: Floats
    """(I,): number of examples behind it, each decayed by its age"""
    prior_mean: float
    strength: float


def fit(interactions: Interactions, now: datetime, params: PopularityParams) -> Popularity:
    """Count the labels (0..1; NaN is no example) of each item, old ones less. Items without an example are at the prior."""
    items = vocabulary(interactions.item)
    known = ~np.isnan(interactions.label)
    rows, labels = items.rows(interactions.item[known]), interactions.label[known].astype(np.float64)
    weights = _decay(interactions.time[known], now, params.half_life_days)
    evidence = np.bincount(rows, weights, minlength=len(items))
    positive = np.bincount(rows, weights * labels, minlength=len(items))
    # half an example of each kind: a rate of 0 or 1 would be a prior that no evidence moves
    prior_mean = float((positive.sum() + 0.5) / (evidence.sum() + 1))
    strength = params.strength or _strength(rows, labels)
    mean = (positive + strength * prior_mean) / (evidence + strength)
    return Popularity(items, mean.astype(np.float32), evidence.astype(np.float32), prior_mean, strength)


def score(popularity: Popularity, items: ArrayLike) -> Floats:
    """Expected label (0..1) of each item key; those it doesn't know are at the prior."""
    rows = popularity.items.rows(items)
    result = np.full(rows.shape, popularity.prior_mean, np.float32)
    result[rows >= 0] = popularity.mean[rows[rows >= 0]]
    return result


def _decay(times: NDArray[np.int64], now: datetime, half_life_days: float) -> NDArray[np.float64]:
    ages = np.maximum(to_milliseconds(now) - times, 0)
    return np.exp2(-ages / (half_life_days * DAY))


def _strength(rows: NDArray[np.int64], labels: NDArray[np.float64]) -> float:
    """Variance of labels within an item over that of the items' rates, by the method of moments.

    For labels 0 and 1 that is the strength of the Beta prior; for grades it is what Bühlmann and Straub, "Glaubwürdigkeit
    für Schadensätze" (1970), weigh a group's mean with. Age does not count here: it changes how much is known of the items,
    not how they differ.
    """
    counts = np.bincount(rows)
    counts, sums = counts[counts > 0], np.bincount(rows, labels)[counts > 0]
    n, groups = len(labels), len(counts)
    if n <= groups:
        return WEAKEST if not n else STRONGEST
    between = float((sums**2 / counts).sum() - labels.sum() ** 2 / n)
    within = (float((labels**2).sum()) - float((sums**2 / counts).sum())) / (n - groups)
    spread = (between - (groups - 1) * within) / max(n - float((counts**2).sum()) / n, 1e-9)
    if spread <= 0:
        return STRONGEST
    return float(np.clip(within / spread, WEAKEST, STRONGEST))
