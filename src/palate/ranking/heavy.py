"""The order by the snapshot's rankers: the light one chooses among the candidates, the heavy one puts its choice in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from palate.rankers import Rankers
from palate.ranking import features, light
from palate.ranking.considered import Considered
from palate.ranking.features import Scene

BEHIND = 1e-6
"""What is left of the value of an item that doesn't come before the heavy ranker: less than any that does."""


def ranked(scene: Scene, wanted: NDArray[np.bool_], rankers: Rankers) -> Considered:
    """The scene's candidates with new scores (probabilities of a positive at the first place) and values.

    Of the `wanted` ones (n,) those that the light ranker chooses; all others stand behind them in the order that they had. An
    item's age is among what the trees know: nothing more is taken off for it.
    """
    looked = scene.looked
    rows = light.find(looked, np.flatnonzero(wanted), rankers)
    if not len(rows):
        return looked
    raw = rankers.raw(features.of(replace(scene, looked=looked.take(rows))))
    said = rankers.calibration(raw)
    scores, values = np.minimum(looked.scores, said.min()), looked.values * np.float32(BEHIND)
    scores[rows], values[rows] = said, 1 / (1 + np.exp(-raw))
    return replace(looked, scores=scores, values=values)
