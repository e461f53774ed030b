"""How a model that ranks does on positives that it hasn't learned, and what its scores mean as probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from palate import matrix, metrics
from palate.matrix import Sparse
from palate.models import fold_in, material, registry
from palate.models.material import Known
from palate.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from palate.examples import Examples, Mask

    Values = NDArray[np.float64]

K = 10
"""Length of the lists that are measured."""
PEOPLE = 1_000
"""People asked about at most, drawn by chance."""
SAMPLE = 50
"""People by whose scores the scale of an untested model is told."""
CELLS = 2**23
"""Scores held in memory at a time."""
CAUTION = 10.0
"""How firmly a calibration is held where it starts, in examples."""
LEAST_SLOPE = 0.1
"""Of a calibration, in log-odds per standard deviation of the scores: it never turns the order round."""


@dataclass(frozen=True)
class Calibration:
    """slope · score + intercept: the log-odds that somebody likes an item."""

    slope: float
    intercept: float


@dataclass(frozen=True)
class RankingTest:
    """Means over people of how the held-out positives are ranked among all items that they hadn't met."""

    calibration: Calibration
    held_out: int = 0
    """Positives; 0 when there were too few for a test."""
    people: int = 0
    ndcg: float | None = None
    """At 10; None without a test. Of equal scores the positive comes last."""
    popularity_ndcg: float | None = None
    """Of the items ordered by how many people took to them."""
    hit_rate: float | None = None
    popularity_hit_rate: float | None = None
    worse: bool = False
    """Whether its nDCG is below popularity's by more than chance explains."""

    def to_json(self) -> dict[str, Any]:
        """What the header says of it."""
        names = ("held_out", "people", "ndcg", "popularity_ndcg", "hit_rate", "popularity_hit_rate", "worse")
        return {name: getattr(self, name) for name in names}


def run(
    name: str, model: Any, examples: Examples, held: Mask, doubt: float, random: np.random.Generator
) -> RankingTest | None:
    """The test on the held-out interactions, of which the model has learned nothing; None when none is a positive."""
    asked = _asked(examples, held, random)
    if asked is None:
        return None
    parts = [_measure(name, model, part, random) for part in asked.parts(len(examples.items))]
    own, popular, scores, labels, chance = (np.concatenate(column) for column in zip(*parts, strict=True))
    difference = own[:, 0] - popular[:, 0]
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0
    if not (labels < 0.5).any():
        scores, labels = np.concatenate((scores, chance)), np.append(labels, np.zeros(len(chance)))
    return RankingTest(
        calibration=calibrated(scores, labels),
        held_out=len(asked.positives.columns),
        people=len(difference),
        ndcg=float(own[:, 0].mean()),
        popularity_ndcg=float(popular[:, 0].mean()),
        hit_rate=float(own[:, 1].mean()),
        popularity_hit_rate=float(popular[:, 1].mean()),
        worse=bool(difference.mean() + doubt * error < 0),
    )


@dataclass(frozen=True, eq=False)
class _Asked:
    """People who are asked about (n), what is known of them, and what is held out."""

    known: Known
    positives: Sparse
    """(n, I)"""
    verdicts: Sparse
    """(n, I): what each said of all that is held out, 0..1."""
    popularity: Values
    """(I,): how many people took to each item."""

    def parts(self, items: int) -> Iterator[_Asked]:
        """So many people at a time that their scores fit into memory."""
        size = max(CELLS // max(items, 1), 1)
        for start in range(0, len(self.positives), size):
            rows = np.arange(start, min(start + size, len(self.positives)))
            held = matrix.taken(self.positives, rows), matrix.taken(self.verdicts, rows)
            yield _Asked(self.known.of(rows), *held, self.popularity)


def _asked(examples: Examples, held: Mask, random: np.random.Generator) -> _Asked | None:
    pairs, positive = examples.pairs, held & (examples.pairs.weight > 0)
    people = pairs.people.keys[pairs.counts(positive) > 0]
    if not len(people):
        return None
    people = np.sort(random.choice(people, min(PEOPLE, len(people)), replace=False))
    theirs, users = pairs.places(people), Vocabulary(people)
    said, own = pairs.rows(theirs[held[theirs]]), pairs.rows(theirs[positive[theirs]])
    verdicts = np.where(np.isnan(said.label), said.weight > 0, said.label).astype(np.float32)
    learned = examples.taught & ~held & (pairs.weight > 0)
    counts = np.bincount(pairs.columns[learned], minlength=len(pairs.items)).astype(float)
    popularity = np.zeros(len(examples.items))
    popularity[examples.items.rows(pairs.items.keys)] = counts
    return _Asked(
        known=material.known(pairs.rows(theirs[~held[theirs]]), people, examples.items),
        positives=matrix.of_interactions(own, own.weight, users, examples.items),
        verdicts=matrix.of_interactions(said, verdicts, users, examples.items),
        popularity=popularity,
    )


def _measure(
    name: str, model: Any, asked: _Asked, random: np.random.Generator
) -> tuple[Values, Values, Values, Values, Values]:
    """Of these people: nDCG and hit rate (n, 2) by the model and by popularity; scores and verdicts of what is held out; scores
    of as many items drawn by chance as there are positives.
    """
    scores = registry.entry(name).score_all(model, asked.known)
    own, popular = np.zeros((len(scores), 2)), np.zeros((len(scores), 2))
    chance = []
    for person, row in enumerate(scores):
        met, positives = asked.known.weights.row(person)[0], asked.positives.row(person)[0]
        own[person] = _quality(row, met, positives)
        popular[person] = _quality(asked.popularity, met, positives)
        drawn = random.integers(len(row), size=len(positives))
        chance.append(row[drawn[~np.isin(drawn, np.concatenate((met, positives)))]])
    people = np.repeat(np.arange(len(scores)), asked.verdicts.counts)
    said = scores[people, asked.verdicts.columns]
    return own, popular, _wide(said), _wide(asked.verdicts.values), _wide(np.concatenate(chance))


def _wide(values: NDArray[Any]) -> Values:
    return values.astype(np.float64)


def _quality(scores: NDArray[Any], met: NDArray[np.int32], positives: NDArray[np.int32]) -> tuple[float, float]:
    """nDCG and hit rate of one list; of equal scores a positive comes last."""
    others = scores.astype(np.float64)
    others[met] = others[positives] = -np.inf
    wanted = -np.sort(-scores[positives].astype(np.float64))
    places = np.array([np.count_nonzero(others >= score) for score in wanted]) + np.arange(len(wanted))
    relevance = np.zeros(K)
    relevance[places[places < K]] = 1
    return float(metrics.ndcg_at(relevance, K, len(wanted))), float(metrics.hit_rate_at(relevance, K))


def calibrated(scores: Values, labels: Values) -> Calibration:
    """The logistic map of scores to labels 0..1 (Platt, "Probabilistic Outputs for Support Vector Machines", 1999).

    It starts at one unit of log-odds for each standard deviation of the scores, which few examples don't move far.
    """
    middle, spread = float(scores.mean()), float(scores.std()) or 1.0
    z = (scores - middle) / spread
    mean = (labels.sum() + 0.5) / (len(labels) + 1)
    start = float(np.log(mean / (1 - mean)))
    features = np.stack((z, np.ones_like(z)), axis=1)
    change = fold_in.solve(features, labels, z + start, [CAUTION, CAUTION], "logistic")
    slope = max(1 + float(change[0]), LEAST_SLOPE) / spread
    return Calibration(slope, start + float(change[1]) - slope * middle)


def carried_over(
    calibration: Calibration, name: str, tested: Any, fitted: Any, examples: Examples, random: np.random.Generator
) -> Calibration:
    """What was found of the model that was tested, for the one that was fitted anew since: by mean and spread of their scores,
    which may be of quite another size where a mix changed its mind.
    """
    (before, spread), (after, new_spread) = (
        (float(scores.mean()), float(scores.std())) for scores in _sampled((tested, fitted), name, examples, random)
    )
    slope = calibration.slope * spread / new_spread if spread and new_spread else calibration.slope
    return Calibration(slope, calibration.intercept + calibration.slope * before - slope * after)


def untested(name: str, model: Any, examples: Examples, random: np.random.Generator) -> RankingTest:
    """What stands for a test where there is too little for one: the mean score means ½, the best hundredth 0.88 and more."""
    (scores,) = _sampled((model,), name, examples, random)
    return RankingTest(around(scores))


def around(scores: NDArray[np.floating[Any]]) -> Calibration:
    """The mean of these scores means ½, the best hundredth 0.88 and more; of none anything means ½."""
    if not scores.size:
        return Calibration(0.0, 0.0)
    middle = float(scores.mean(dtype=np.float64))
    slope = 2 / (float(np.quantile(scores, 0.99)) - middle or 1.0)
    return Calibration(slope, -slope * middle)


def _sampled(models: Sequence[Any], name: str, examples: Examples, random: np.random.Generator) -> list[Values]:
    """The scores by each model of all items for the same people, drawn by chance."""
    pairs = examples.pairs
    people = pairs.people.keys[pairs.counts(examples.taught & (pairs.weight > 0)) > 0]
    people = np.sort(random.choice(people, min(SAMPLE, len(people)), replace=False))
    known = material.known(pairs.rows(pairs.places(people)), people, examples.items)
    return [_wide(registry.entry(name).score_all(model, known)) for model in models]
