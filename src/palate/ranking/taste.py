"""What one person likes, as weights over an item's vector, source and labels, solved from their votes at request time.

A person's own weights for sources and labels work from the first vote on, also where nobody else's votes have taught the model
anything; with few votes all weights stay near the prior, and the score near what everybody likes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate.domain import to_milliseconds
from palate.lately import Lately
from palate.machine_code import compiled
from palate.models import fold_in
from palate.models.factorization_machine import Floats, Loss, link
from palate.models.fields import LearnedField
from palate.models.fields import hours as hours_of

CURVATURE = {"squared": 1.0, "logistic": 0.25}
"""Of the loss at its middle: dividing `l2` by it makes one vote weigh the same under either."""


class TasteParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast a person's own votes move their feed. Each l2 counts in votes: after as many on one feature alone, half of
    what the votes say is believed."""

    l2_vector: Annotated[float, msgspec.Meta(gt=0)] = 40.0
    """Regularisation of the person's vector, for items with vectors of the mean length."""
    l2_bias: Annotated[float, msgspec.Meta(gt=0)] = 8.0
    """… of their readiness to like anything at all."""
    l2_source: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    """… of their taste for a source."""
    l2_label: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """… of their taste for a label."""
    max_votes: Annotated[int, msgspec.Meta(ge=1, le=2048)] = 256
    """Votes that are taken, newest first."""
    chosen: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.15
    """Head start, in probability, of items from followed sources and on chosen topics."""


@dataclass(frozen=True, eq=False)
class Features:
    """What is known of n items. Sources and labels are numbers from 0; −1 means no source."""

    vectors: Floats
    """(n, factors)."""
    bias: Floats
    """(n,), in the model's own unit (probability for the squared loss, log-odds for the logistic one)."""
    source: NDArray[np.int32]
    """(n,)."""
    label_offsets: NDArray[np.int64]
    """(n + 1,); the labels of item i are `labels[label_offsets[i]:label_offsets[i + 1]]`."""
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.bias)

    def and_then(self, others: Features) -> Features:
        """These items, then the others."""
        return Features(
            np.concatenate((self.vectors, others.vectors)),
            np.concatenate((self.bias, others.bias)),
            np.concatenate((self.source, others.source)),
            np.concatenate((self.label_offsets, self.label_offsets[-1] + others.label_offsets[1:])),
            np.concatenate((self.labels, others.labels)),
        )

    def take(self, rows: NDArray[np.int64]) -> Features:
        """The items of these rows, in this order."""
        offsets, labels = labels_of(self.label_offsets, self.labels, rows)
        return Features(self.vectors[rows], self.bias[rows], self.source[rows], offsets, labels)


def labels_of(
    offsets: NDArray[np.int64], labels: NDArray[np.int32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offsets and labels of the items of these rows, in this order."""
    starts, ends = offsets[rows], offsets[rows + 1]
    taken = np.concatenate(([0], np.cumsum(ends - starts)))
    places = np.arange(taken[-1]) + np.repeat(starts - taken[:-1], ends - starts)
    return taken, labels[places]


@dataclass(frozen=True, eq=False)
class Taste:
    """Weights of one person; with `base` they give a score for any item."""

    loss: Loss
    base: float
    """The model's constant, in its own unit."""
    vector: Floats
    """(factors,)."""
    bias: float = 0.0
    sources: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Sorted; those without a weight are left out."""
    source_weights: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Sorted; those without a weight are left out."""
    label_weights: Floats = field(default_factory=lambda: np.zeros(0, np.float32))


def with_choices(taste: Taste, sources: NDArray[np.int32], labels: NDArray[np.int32], params: TasteParams) -> Taste:
    """The taste of somebody who said beforehand which sources and topics they want; takes the place of other weights."""
    sources, labels = np.unique(sources).astype(np.int32), np.unique(labels).astype(np.int32)
    start = params.chosen / CURVATURE[taste.loss]
    return Taste(
        loss=taste.loss,
        base=taste.base,
        vector=taste.vector,
        bias=taste.bias,
        sources=sources,
        source_weights=np.full(len(sources), start, np.float32),
        labels=labels,
        label_weights=np.full(len(labels), start, np.float32),
    )


def at(taste: Taste, hours: LearnedField | None, now: datetime) -> Taste:
    """The taste at this hour: what the hour adds to a person's scores, to those of all items and to those of each."""
    if hours is None:
        return taste
    row = hours.labels.rows(hours_of(np.array([to_milliseconds(now)])))[0]
    if row < 0:
        return taste
    vector = hours.vectors[row]
    bias = taste.bias + float(hours.bias[row] + vector @ taste.vector)
    return replace(taste, vector=taste.vector + vector, bias=bias)


def linear(taste: Taste, items: Features) -> Floats:
    """Score of each item in the model's own unit: base + biases + ⟨p, q⟩ + weight of the source + weights of the labels."""
    scores = items.vectors @ taste.vector + (items.bias + np.float32(taste.base + taste.bias))
    if len(taste.sources):
        scores += source_part(taste, items.source)
    if len(taste.labels):
        scores += label_part(taste, items.label_offsets, items.labels)
    return scores


def prepare() -> None:
    """Make the machine code that requests would else wait for; kept on disk it is made once for all processes."""
    numbers, weights = np.zeros(0, np.int32), np.zeros(0, np.float32)
    nothing = Features(np.zeros((0, 0), np.float32), weights, numbers, np.zeros(1, np.int64), numbers)
    linear_of_many(Taste("squared", 0.0, weights), nothing)


def linear_of_many(taste: Taste, items: Features) -> Floats:
    """What `linear` gives, in machine code."""
    scores = items.vectors @ taste.vector + (items.bias + np.float32(taste.base + taste.bias))
    tables = [
        spread(known, weights, int(max(known.max(initial=0), values.max(initial=0))) + 1)
        for known, weights, values in (
            (taste.sources, taste.source_weights, items.source),
            (taste.labels, taste.label_weights, items.labels),
        )
    ]
    compiled(_add_own, scores, items.source, items.label_offsets, items.labels, *tables)
    return scores


def _add_own(scores: Any, source: Any, offsets: Any, labels: Any, of_source: Any, of_label: Any) -> None:
    for item in range(len(scores)):
        own, count = np.float32(0), offsets[item + 1] - offsets[item]
        for place in range(offsets[item], offsets[item + 1]):
            own += of_label[labels[place]]
        scores[item] += of_source[source[item]] + own / np.float32(np.sqrt(max(count, 1)))


def source_part(taste: Taste, source: NDArray[np.int32]) -> Floats:
    """(n,) what the person's weights for sources add to items of these."""
    return _lookup(taste.sources, taste.source_weights, source)


def label_part(taste: Taste, offsets: NDArray[np.int64], labels: NDArray[np.int32]) -> Floats:
    """(n,) what the person's weights for labels add; the labels of item i are `labels[offsets[i]:offsets[i + 1]]`."""
    counts = np.diff(offsets)
    filled = np.flatnonzero(counts)
    part = np.zeros(len(counts), np.float32)
    if len(filled):
        weights = _lookup(taste.labels, taste.label_weights, labels)
        part[filled] = np.add.reduceat(weights, offsets[filled]) / np.sqrt(counts[filled])
    return part


def score(taste: Taste, items: Features) -> Floats:
    """(n,) estimated probability, 0..1, that the person likes each item."""
    return link(linear(taste, items), taste.loss)


def solve(prior: Taste, items: Features, labels: Floats, scale: float, params: TasteParams) -> Taste:
    """The person's weights after these votes: `labels` (n,) in 0..1 for the n items.

    `scale` is the mean squared length of the model's item vectors, so that `l2_vector` means the same for any model. What is
    solved, about the prior, is the ridge or the logistic regression of `models.fold_in`.
    """
    if not len(labels):
        return prior
    sources, tags = _seen(items.source, prior.sources), _seen(items.labels, prior.labels)
    features = _design(items, sources, tags)
    l2 = _l2(prior, len(sources), len(tags), scale, params)
    change = fold_in.solve(features, labels, linear(prior, items), l2, prior.loss)
    vector, bias, by_source, by_label = np.split(change, np.cumsum([len(prior.vector), 1, len(sources)]))
    return Taste(
        loss=prior.loss,
        base=prior.base,
        vector=(prior.vector + vector).astype(np.float32),
        bias=prior.bias + float(bias[0]),
        sources=sources,
        source_weights=_lookup(prior.sources, prior.source_weights, sources) + by_source.astype(np.float32),
        labels=tags,
        label_weights=_lookup(prior.labels, prior.label_weights, tags) + by_label.astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class Votes:
    """All that `solve` needs."""

    prior: Taste
    items: Features
    labels: Floats
    scale: float
    params: TasteParams

    def is_same(self, other: Votes) -> bool:
        """Whether every number is."""
        settled = (self.scale, self.params, self.prior.loss) == (other.scale, other.params, other.prior.loss)
        return settled and all(map(np.array_equal, self._numbers(), other._numbers()))

    def _numbers(self) -> list[ArrayLike]:
        return [self.labels, *_values(self.items), *_values(self.prior)]


def _values(of: Features | Taste) -> list[ArrayLike]:
    return [value for name, value in vars(of).items() if name != "loss"]


Tastes = Lately[tuple[int, ...], tuple[Votes, Taste]]
"""What was solved last for people, by the keys of their ids."""


def remembered(tastes: Tastes | None, person: tuple[int, ...], votes: Votes) -> Taste:
    """What `solve` gives, found anew only where anything is other than it was for the person last."""
    if tastes is None or not person:
        return solve(votes.prior, votes.items, votes.labels, votes.scale, votes.params)
    before = tastes.get(person)
    if before is not None and before[0].is_same(votes):
        return before[1]
    taste = solve(votes.prior, votes.items, votes.labels, votes.scale, votes.params)
    tastes.add({person: (votes, taste)})
    return taste


@dataclass(frozen=True, eq=False)
class Solution:
    """What votes were solved to, with what tells which of the likes is behind a score: found out once."""

    votes: Votes
    taste: Taste

    @cached_property
    def likes(self) -> NDArray[np.int64]:
        """Places of the likes among the votes."""
        return np.flatnonzero(self.votes.labels > 0.5)

    @cached_property
    def of_likes(self) -> Influence:
        """What the likes add to scores."""
        return self.influence(self.likes)

    def influence(self, chosen: NDArray[np.int64]) -> Influence:
        """What these of the votes add to scores."""
        votes, taste = self.votes, self.taste
        scores = linear(taste, votes.items)
        residuals = votes.labels - (scores if taste.loss == "squared" else link(scores, taste.loss))
        items = votes.items.take(chosen)
        tags = np.unique(items.labels)
        by_vector, _, by_source, by_label = strengths(votes.prior.loss, votes.scale, votes.params)
        return Influence(
            prior=votes.prior.vector,
            liked=votes.labels[chosen] > 0.5,
            vectors=np.ascontiguousarray(items.vectors.T),
            by_vector=residuals[chosen] / np.float32(by_vector),
            source=items.source,
            by_source=residuals[chosen] * (items.source >= 0).astype(np.float32) / np.float32(by_source),
            tags=tags,
            by_tag=(_by_label(items, tags) * (residuals[chosen] / by_label)[:, np.newaxis]).T.astype(np.float32),
        )


@dataclass(frozen=True, eq=False)
class Influence:
    """What m votes add to the scores of items, each in so far as they have something in common."""

    prior: Floats
    """(factors,) the vector before the votes."""
    liked: NDArray[np.bool_]
    """(m,)"""
    vectors: Floats
    """(factors, m)"""
    by_vector: Floats
    """(m,) what a vote adds for a product of 1; likewise `by_source` for the same source."""
    source: NDArray[np.int32]
    by_source: Floats
    tags: NDArray[np.int32]
    """Sorted labels."""
    by_tag: Floats
    """(labels, m) what is added for each label of an item that has one alone."""

    def on(self, items: Features) -> Floats:
        """(items, m)"""
        products = items.vectors @ self.vectors
        parts: Floats = products * self.by_vector
        parts += (items.source[:, np.newaxis] == self.source) * self.by_source
        if len(self.tags):
            parts += _by_label(items, self.tags).astype(np.float32) @ self.by_tag
        pulled = np.maximum(items.vectors @ self.prior, 0)
        if pulled.any():
            alike = np.maximum(products, 0) * self.liked
            total = alike.sum(axis=1)
            parts += alike * np.divide(pulled, total, out=np.zeros_like(pulled), where=total > 0)[:, np.newaxis]
        return parts


def influence(
    prior: Taste, taste: Taste, voted: Features, labels: Floats, items: Features, scale: float, params: TasteParams
) -> Floats:
    """(items, votes) how much each vote adds to each item's score, in the model's own unit, the person's bias left out.

    At the solution a weight is Σ residual·feature / l2 over the votes (the representer theorem), so what `solve` has added
    splits exactly. What the prior's vector adds was learned from votes too: it is split over the likes by how alike they are.
    """
    return Solution(Votes(prior, voted, labels, scale, params), taste).influence(np.arange(len(labels))).on(items)


def design(
    prior: Taste, items: Features, among: Features, scale: float, params: TasteParams
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, d) what `solve` would learn from votes on these items, and (d,) the l2 of each column.

    The columns are the vector, the bias, and the sources and labels of the items `among`.
    """
    sources, tags = _seen(among.source, prior.sources), _seen(among.labels, prior.labels)
    return _design(items, sources, tags), _l2(prior, len(sources), len(tags), scale, params)


def strengths(loss: Loss, scale: float, params: TasteParams) -> tuple[float, float, float, float]:
    """The l2 of a vector's column, of the bias, of a source's weight and of a label's."""
    part = CURVATURE[loss]
    vector = params.l2_vector * max(scale, 1e-6)
    return vector * part, params.l2_bias * part, params.l2_source * part, params.l2_label * part


def _seen(values: NDArray[np.int32], prior: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.union1d(values[values >= 0], prior).astype(np.int32)


def _l2(prior: Taste, sources: int, labels: int, scale: float, params: TasteParams) -> NDArray[np.float64]:
    each = strengths(prior.loss, scale, params)
    repeated: NDArray[np.float64] = np.repeat(each, [len(prior.vector), 1, sources, labels])
    return repeated


def _design(items: Features, sources: NDArray[np.int32], labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """(n, factors + 1 + sources + labels) [vector ‖ 1 ‖ source ‖ labels], the labels of an item scaled to length 1."""
    by_source = items.source[:, np.newaxis] == sources
    return np.hstack([items.vectors, np.ones((len(items), 1)), by_source, _by_label(items, labels)])


def _by_label(items: Features, labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """(n, labels) those of each item, of length 1 together."""
    n = len(items)
    found = np.zeros((n, len(labels) + 1))
    counts = np.diff(items.label_offsets)
    rows = np.repeat(np.arange(n), counts)
    found[rows, _places(labels, items.labels)] = 1 / np.sqrt(np.maximum(counts, 1))[rows]
    return found[:, :-1]


def _places(known: NDArray[np.int32], values: NDArray[np.int32]) -> NDArray[np.int64]:
    """Place of each value in `known` (sorted), −1 for those that aren't in it."""
    if not len(known):
        return np.full(len(values), -1, np.int64)
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[places] == values, places, -1)


def spread(numbers: NDArray[np.int32], weights: Floats | np.float32, count: int) -> Floats:
    """(count + 1,) the weight of each number from 0, 0 for those without one; the last is what −1 finds."""
    table = np.zeros(count + 1, np.float32)
    table[numbers] = weights
    return table


def _lookup(known: NDArray[np.int32], weights: Floats, values: NDArray[np.int32]) -> Floats:
    """Weight of each value, 0 for those that have none. A table beats a search when there are many values."""
    if not len(known) or not len(values):
        return np.zeros(len(values), np.float32)
    table = np.zeros(max(int(known[-1]), int(values.max())) + 2, np.float32)  # the last is what −1 finds
    table[known] = weights
    return table[values]
