"""How strongly a factorization machine's vectors are to be held: the multiple of the settings' l2 that foretells best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Loss = Callable[[Rows, Rows, float], Floats]
"""Losses (newer,) of newer examples by a model that has learned older ones with this multiple, given the places of both."""

SHARE = 0.1
"""Of each person's examples: what one test asks about."""

FEW, TESTS = 20_000, 3
"""With fewer examples each multiple is tested so often, on what people said last, on what they said before that, and so on."""

FEWEST = 50
"""Examples to be asked about: with fewer nothing is told."""


def best(users: Rows, times: Rows, scales: Sequence[float], loss: Loss) -> float:
    """The multiple to learn with, for examples of these users at these times, both (n,): the strongest whose mean loss exceeds
    the least by no more than a standard error of that difference (Breiman, Friedman, Olshen and Stone, "Classification and
    Regression Trees", 1984, §3.4.3). The first of `scales` where it is the only one, or where there are too few examples to tell.

    What is asked about is later than all that is learned of the same person, as when it is served: by chance a model would learn
    from the future, and the newest of all are mostly of people of whom nothing is known. Stronger is safer where neither is
    clearly better, since feeds are made of the items whose scores are furthest off.
    """
    cuts = list(_cuts(users, times)) if len(scales) > 1 else []
    if sum(len(newer) for _, newer in cuts) < FEWEST:
        return scales[0]
    losses = [np.concatenate([loss(older, newer, scale) for older, newer in cuts]) for scale in scales]
    least = losses[int(np.argmin([_mean(one) for one in losses]))]
    return max((scale for scale, one in zip(scales, losses, strict=True) if _as_good(one - least)), default=scales[0])


def _mean(losses: Floats) -> float:
    """Endless where a fit gave no numbers."""
    return float(np.nan_to_num(losses.mean(dtype=np.float64), nan=np.inf))


def _as_good(excess: Floats) -> bool:
    return bool(excess.mean(dtype=np.float64) <= excess.std(dtype=np.float64) / np.sqrt(len(excess)))


def _cuts(users: Rows, times: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Places of older and of newer examples, the newest first; of one moment chance decides."""
    order = np.lexsort((np.random.default_rng(0).random(len(users)), times, users))
    starts = np.flatnonzero(np.append(True, users[order][1:] != users[order][:-1])[: len(users)])
    counts = np.diff(np.append(starts, len(users)))
    before_last, count = np.empty(len(users), np.int64), np.empty(len(users), np.int64)
    before_last[order] = np.repeat(starts + counts, counts) - 1 - np.arange(len(users))
    count[order] = np.repeat(counts, counts)
    for number in range(TESTS if len(users) < FEW else 1):
        first, end = (np.round(SHARE * tests * count) for tests in (number, number + 1))
        yield np.flatnonzero(before_last >= end), np.flatnonzero((before_last >= first) & (before_last < end))
