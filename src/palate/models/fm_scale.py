"""How strongly a factorization machine's vectors are to be held: the multiple of the settings' l2 that foretells best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from palate import metrics

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Loss = Callable[[Rows, Rows, float], Floats]
"""Losses (newer,) of newer examples by a model that has learned older ones with this multiple, given the places of both."""

SHARE = 0.1
"""Of each person's examples, the newest: what is asked about."""

FEWEST = 50
"""Examples to be asked about: with fewer nothing is told."""

SURE = 2.0
"""Standard errors by which another multiple has to foretell better than the first."""


def best(users: Rows, times: Rows, scales: Sequence[float], loss: Loss) -> float:
    """The multiple to learn with, for examples of these users at these times, both (n,): the strongest whose mean loss is below
    that of the first of `scales` by more than `SURE` standard errors of the difference; the first where none is, where it is
    the only one, or where there are too few examples to tell.

    What is asked about is later than all that is learned of the same person, as when it is served: by chance a model would
    learn from the future, and the newest of all are mostly of people of whom nothing is known. The others have to prove
    themselves, since the test is unfair to the loosest: it learns from fewer examples than the model that is wanted, and there is
    a number of them below which vectors say nothing, and a little above which they say nearly all.
    """
    first = scales[0]
    if len(scales) == 1:
        return first
    older, newer = _cut(users, times)
    if len(newer) < FEWEST:
        return first
    known, people = loss(older, newer, first), users[newer]
    return max((scale for scale in scales[1:] if _surely(known - loss(older, newer, scale), people)), default=first)


def _surely(gain: Floats, people: Rows) -> bool:
    return bool(gain.mean(dtype=np.float64) > SURE * metrics.standard_error(gain, people))


def _cut(users: Rows, times: Rows) -> tuple[Rows, Rows]:
    """Places of older and of newer examples; of one moment chance decides."""
    order = np.lexsort((np.random.default_rng(0).random(len(users)), times, users))
    starts = np.flatnonzero(np.append(True, users[order][1:] != users[order][:-1])[: len(users)])
    counts = np.diff(np.append(starts, len(users)))
    asked = np.zeros(len(users), bool)
    place = np.arange(len(users)) - np.repeat(starts, counts)
    asked[order] = place >= np.repeat(counts - np.round(SHARE * counts), counts)
    return np.flatnonzero(~asked), np.flatnonzero(asked)
