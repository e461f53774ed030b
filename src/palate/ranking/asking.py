"""Which item to ask a new person about: the one whose answer says most about all the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.ranking.taste import Features, Taste, TasteParams, design

Rows = NDArray[np.int64]


def order(prior: Taste, items: Features, population: Features, scale: float, params: TasteParams, count: int) -> Rows:
    """The first `count` of the `items` to ask about, as rows of them; `population` are the items that answers are to tell about.

    Each is the one after whose answer the scores of the population vary least, given those before it: the expected reduction of
    variance in a linear model (Cohn, Ghahramani and Jordan, "Active Learning with Statistical Models", 1996). It doesn't depend
    on what the answers are, only on what was asked.
    """
    asked, l2 = design(prior, items, items, scale, params)
    told, _ = design(prior, population, items, scale, params)
    covariance = np.diag(1 / l2)
    wanted = told.T @ told / max(len(told), 1)
    chosen: list[int] = []
    for _ in range(min(count, len(items))):
        spread = asked @ covariance
        variance = np.einsum("nd,nd->n", spread, asked)
        gain = np.einsum("nd,nd->n", spread @ wanted, spread) / (1 + variance)
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        covariance -= np.outer(spread[best], spread[best]) / (1 + variance[best])
    return np.array(chosen, np.int64)
