"""Items that came after the model had learned, and of which it can't say anything by their content: by how much they are viewed.

Without that they stand at the mean of all, below whatever the person may like, and in the order in which they came.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palate.activity import VIEWED
from palate.models.factorization_machine import Floats
from palate.ranking.considered import Considered
from palate.ranking.features import Scene

LIFT = 2.0
"""By which power of one more than the views of about the last hour the odds of a like are higher."""


def lifted(scene: Scene) -> Considered:
    """The scene's candidates, those that the model knows nothing of with other scores and values."""
    looked, pool = scene.looked, scene.looked.pool
    ranker = pool.model.ranker
    if ranker is None or ranker.content is not None:  # the columns of the pool, or content, place such items
        return looked
    new = np.flatnonzero(pool.learned < 0)
    if not len(new):
        return looked
    viewed = scene.happenings.of_items(pool.keys[new], scene.second, pool.learned[new])[:, VIEWED, 0]
    scores, values = looked.scores.copy(), looked.values.copy()
    for column in (scores, values):
        column[new] = _likelier(column[new], (1 + viewed) ** np.float32(LIFT))
    return replace(looked, scores=scores, values=values, best=float(values.max()))


def _likelier(probabilities: Floats, times: Floats) -> Floats:
    """With odds so many times as high."""
    inside = np.clip(probabilities, 1e-6, 1 - 1e-6)
    odds = inside / (1 - inside) * times
    return np.asarray(odds / (1 + odds), np.float32)
