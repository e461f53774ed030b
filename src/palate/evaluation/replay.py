"""How good a feed is for a new person after so many votes: recorded people are held out, and their votes replayed in order.

The model learns from everybody else. A held-out person's first votes are folded in as serving folds them in
(`ranking.taste.solve`); what is ranked are their later votes, always the same ones, so that all numbers of votes compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np

from palate import metrics, splits
from palate.domain import Interactions, from_milliseconds
from palate.models import popularity, registry
from palate.models.content import Contents
from palate.models.factorization_machine import FactorizationMachine, FactorizationMachineParams, ItemSources
from palate.models.material import Material
from palate.models.popularity import PopularityParams
from palate.ranking import asking, taste
from palate.ranking.taste import Features, Taste, TasteParams
from palate.vocabulary import Vocabulary, vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ReplayParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is held out, and what is asked of the model."""

    votes: tuple[int, ...] = (0, 1, 3, 10, 30)
    """After how many votes quality is measured, ascending."""
    order: Literal["time", "information"] = "time"
    """In which order a person's first votes are taken: as they came, or each time the one that tells most about all items
    (`ranking.asking`), among those that came before the later votes."""
    people: Annotated[int, msgspec.Meta(ge=2)] = 200
    """People held out, chosen by chance among those with enough votes; at most half of them."""
    later: Annotated[int, msgspec.Meta(ge=2)] = 10
    """Votes beyond those that are folded in that a held-out person must at least have."""
    k: Annotated[int, msgspec.Meta(ge=1)] = 10
    """Length of the list that nDCG looks at."""
    factorization_machine: FactorizationMachineParams = FactorizationMachineParams()
    popularity: PopularityParams = PopularityParams()
    taste: TasteParams = TasteParams()


@dataclass(frozen=True)
class Items:
    """What is known of items beside votes."""

    keys: Vocabulary
    """Of all items that may be voted on."""
    contents: Contents
    """Of each of these."""


@dataclass(frozen=True)
class Quality:
    """The mean of a metric over people, with 95 % intervals (bootstrap over people)."""

    votes: int
    metric: str
    """`auc`, `ndcg` or the like; 0..1, more is better."""
    people: int
    """Those it is the mean of: the AUC leaves out whose later votes are all likes or all dislikes."""
    model: float
    model_interval: tuple[float, float]
    popularity: float
    """Of the same later votes ordered by popularity."""
    popularity_interval: tuple[float, float]
    gain_interval: tuple[float, float]
    """Of model − popularity."""


def replay(pairs: Interactions, items: Items, params: ReplayParams, rng: np.random.Generator) -> list[Quality]:
    """Quality after each number of votes. Labels above ½ are likes; pairs without a label are left out.

    Items stand where serving would put them: an item of few votes or none where its content says. Without votes the feed is
    ordered by popularity, as serving orders it. Ties within a millisecond are in random order. Raises ValueError when too few
    people have enough votes.
    """
    pairs = splits.rows(pairs, ~np.isnan(pairs.label))
    held = _hold_out(pairs, params, rng)
    others = splits.rows(pairs, ~np.isin(pairs.user, held))
    now, sources = from_milliseconds(int(others.time.max())), ItemSources(items.keys.keys, items.contents.source)
    learned = Material(others, vocabulary(others.user), items.keys, now, sources, contents=items.contents)
    model = registry.entry("fm").fit(learned, params.factorization_machine, int(rng.integers(2**31)))
    features = _features(model, items.contents)
    by_popularity = popularity.score(popularity.fit(others, now, params.popularity), items.keys.keys)
    rows = items.keys.rows(pairs.item)
    assert rows.min() >= 0, "Of each item that was voted on it is known what it is."
    values = []
    for user in held:
        own = _in_order(pairs, user, rng)
        values.append(_measure(rows[own], pairs.label[own], model, features, by_popularity, params))
    return summary(np.array(values), params.votes, ("auc", "ndcg"), rng)


def _hold_out(pairs: Interactions, params: ReplayParams, rng: np.random.Generator) -> NDArray[np.int64]:
    users, counts = np.unique(pairs.user, return_counts=True)
    able = users[counts >= max(params.votes) + params.later]
    count = min(params.people, len(users) // 2, len(able))
    if count < 2:
        raise ValueError(f"Too few people have {max(params.votes) + params.later} votes.")
    return np.sort(rng.choice(able, count, replace=False))


def _in_order(pairs: Interactions, user: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of one person's votes, oldest first."""
    own = np.flatnonzero(pairs.user == user)
    return own[np.lexsort((rng.random(len(own)), pairs.time[own]))]


def _features(model: FactorizationMachine, contents: Contents) -> Features:
    """Of each item what serving would know."""
    labels, sources = np.unique(contents.labels), np.unique(contents.source[contents.source >= 0])
    return Features(
        vectors=model.item_vectors,
        bias=model.item_bias,
        source=Vocabulary(sources).rows(contents.source).astype(np.int32),
        label_offsets=contents.label_offsets,
        labels=Vocabulary(labels).rows(contents.labels).astype(np.int32),
    )


def _measure(
    rows: NDArray[np.int64],
    labels: NDArray[np.float32],
    model: FactorizationMachine,
    features: Features,
    by_popularity: NDArray[np.float32],
    params: ReplayParams,
) -> NDArray[np.float64]:
    """AUC and nDCG of one person's later votes: (numbers of votes + 1, 2), the last row by popularity alone."""
    nobody = Taste(loss=model.loss, base=model.base, vector=np.zeros(features.vectors.shape[1], np.float32))
    scale = float(np.square(features.vectors).sum(axis=1).mean())
    later = rows[max(params.votes) :]
    taken = np.arange(max(params.votes))
    if params.order == "information":
        taken = asking.order(nobody, features.take(rows[taken]), features, scale, params.taste, len(taken))
    orders = []
    for votes in params.votes:
        first = taken[:votes]
        own = taste.solve(nobody, features.take(rows[first]), labels[first], scale, params.taste)
        orders.append(taste.linear(own, features.take(later)) if votes else by_popularity[later])
    liked = labels[max(params.votes) :] > 0.5
    return np.array([_metrics(liked, scores, params.k) for scores in (*orders, by_popularity[later])])


def _metrics(liked: NDArray[np.bool_], scores: NDArray[np.float32], k: int) -> tuple[float, float]:
    return metrics.auc(liked, scores), float(metrics.ndcg_at(metrics.relevance(liked, scores), k))


def summary(
    values: NDArray[np.float64], votes: Sequence[int], names: Sequence[str], rng: np.random.Generator
) -> list[Quality]:
    """Means and intervals of `values` (people, numbers of votes + 1, metrics), the last number being popularity.

    NaN stands where a person has no answer.
    """
    found = []
    for place, metric in enumerate(names):
        answered = values[~np.isnan(values[:, -1, place]), :, place]
        base = answered[:, -1]
        for column, count in enumerate(votes):
            model = answered[:, column]
            found.append(
                Quality(
                    votes=count,
                    metric=metric,
                    people=len(answered),
                    model=float(model.mean()),
                    model_interval=metrics.bootstrap_interval(model, rng),
                    popularity=float(base.mean()),
                    popularity_interval=metrics.bootstrap_interval(base, rng),
                    gain_interval=metrics.bootstrap_interval(model - base, rng),
                )
            )
    return found
