"""The order by the snapshot's rankers: the light one chooses among the candidates, the heavy one puts its choice in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from palate.candidates import found
from palate.feature_log import NAMES
from palate.rankers import Rankers
from palate.ranking import feature_kernels, features, light, unlearned
from palate.ranking.considered import Considered
from palate.ranking.features import Floats, Scene

EXPLORATION = found.bit("exploration")

BEHIND = 1e-6
"""What is left of the value of an item that doesn't come before the heavy ranker: less than any that does."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """Candidates in their order, and what the heavy ranker was told of those that came before it."""

    looked: Considered
    scene: Scene
    """The same candidates by the plain score."""
    rows: NDArray[np.int64]
    """(k,) ascending: those that came before it."""
    told: Floats
    """(k, F)"""
    told_by: Callable[[Scene], Floats]
    """What finds the columns of others."""

    def features_of(self, rows: NDArray[np.int64]) -> Floats:
        """(n, F) the columns of these candidates; those that it wasn't told are found now."""
        table = np.empty((len(rows), len(NAMES)), np.float32)
        places = np.searchsorted(self.rows, rows)
        known = np.append(self.rows, -1)[places] == rows
        table[known] = self.told[places[known]]
        if not known.all():
            table[~known] = self.told_by(replace(self.scene, looked=self.scene.looked.take(rows[~known])))
        return table


def ranked(scene: Scene, wanted: NDArray[np.bool_], rankers: Rankers | None) -> Ranked:
    """The scene's candidates with new scores (probabilities of a positive at the first place) and values; without rankers as they
    were, save for those that `unlearned` lifts.

    Of the `wanted` ones (n,) those that the light ranker chooses, and what was found to learn of; all others stand behind them in
    the order that they had. An item's age is among what the trees know: nothing more is taken off for it.
    """
    looked = scene.looked
    rows = np.zeros(0, np.int64) if rankers is None else _chosen(scene, wanted, rankers)
    if rankers is None or not len(rows):
        looked = unlearned.lifted(scene) if rankers is None else looked
        told_by = feature_kernels.of if looked.pool.of_many else features.of
        return Ranked(looked, scene, rows[:0], np.zeros((0, len(NAMES)), np.float32), told_by)
    told = feature_kernels.of(replace(scene, looked=looked.take(rows)))
    raw = rankers.raw(told)
    said = rankers.calibration(raw)
    scores, values = np.minimum(looked.scores, said.min()), looked.values * np.float32(BEHIND)
    scores[rows], values[rows] = said, 1 / (1 + np.exp(-raw))
    return Ranked(replace(looked, scores=scores, values=values), scene, rows, told, feature_kernels.of)


def _chosen(scene: Scene, wanted: NDArray[np.bool_], rankers: Rankers) -> NDArray[np.int64]:
    """Those that the light ranker chooses, and those that were found to learn of: whoever explores serves some of them."""
    chosen = wanted & (scene.looked.found & EXPLORATION > 0)
    chosen[light.find(scene, np.flatnonzero(wanted), rankers)] = True
    return np.flatnonzero(chosen)
