"""What the heavy ranker makes of a log in which hardly anybody looks further down: its true nDCG@10 on simulated lists.

    python benchmarks/bench_position.py [--seed 1]

2,000 lists of 20 items are shown in the order of a plain score that knows half of what makes an item good; place p (from 0) is looked at
with probability 1 / (1 + p / 2). Judged are 1,000 other lists, by the true chances. Compared: the plain score; trees without the place; with
the place as a column (what is served); positives weighted by one over the chance of being looked at, as it is, and as the trees tell it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from palate import feature_log, heavy_learning
from palate.feature_log import NAMES
from palate.heavy_learning import HeavyParams
from palate.impressions import Impressions
from palate.models import trees
from palate.models.trees import TreeParams

SIZE = 20
PARAMS = HeavyParams(trees=TreeParams(trees=100))


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("--seed", type=int, default=1)
    random = np.random.default_rng(given.parse_args().seed)
    part, _, looked = shown(random, 2000)
    late, truth, _ = shown(random, 1000)
    placed = heavy_learning.fitted(part, PARAMS, 1).trees
    told = heavy_learning.propensities(placed, part, ())
    models = {
        "without the place": heavy_learning.fitted(
            replace(part, position=np.zeros_like(part.position)), PARAMS, 1
        ).trees,
        "place as a column": placed,
        "weighted by the true chances": weighted(part, looked),
        "weighted by the trees' chances": weighted(part, told),
    }
    print(f"plain score: {quality(late, truth, late.features[:, feature_log.SCORE].astype(float)):.3f}")
    for name, model in models.items():
        print(f"{name}: {quality(late, truth, model.raw(heavy_learning.at_place(late.features, 0))):.3f}")


def shown(random: np.random.Generator, lists: int) -> tuple[Impressions, np.ndarray, np.ndarray]:
    """Impressions, the true chance of each to be liked by who looks at it, and that of being looked at."""
    n = lists * SIZE
    features, request = np.full((n, len(NAMES)), np.nan, np.float32), np.repeat(np.arange(lists), SIZE)
    popular, near = random.standard_normal(n), random.standard_normal(n)
    truth = 1 / (1 + np.exp(1.5 - popular - 1.5 * np.maximum(near, 0)))
    plain = popular + 0.5 * random.standard_normal(n)
    for name, column in (("popularity", popular), ("text_near_liked", near), ("score", plain)):
        features[:, NAMES.index(name)] = column
    position = np.empty(n, np.int64)
    position[np.lexsort((-plain, request))] = np.tile(np.arange(SIZE), lists)
    looked = 1 / (1 + position / 2)
    part = Impressions(
        user=request % 500,
        item=np.arange(n),
        time=1_000_000 + request * 60_000,
        request=request,
        position=position,
        probability=np.ones(n, np.float32),
        features=features,
        gain=(random.random(n) < looked * truth).astype(np.float32),
    )
    return part, truth, looked


def weighted(part: Impressions, looked: np.ndarray) -> trees.Trees:
    labels = (part.gain > 0).astype(np.float32)
    weights = np.where(labels > 0, 1 / looked, 1).astype(np.float32)
    return trees.fit(heavy_learning.at_place(part.features, 0), labels, weights, PARAMS.trees, 1)


def quality(part: Impressions, truth: np.ndarray, scores: np.ndarray) -> float:
    own, best = (heavy_learning.dcg(part.request, order, truth, 10) for order in (scores, truth))
    return float((own / best).mean())


if __name__ == "__main__":
    main()
