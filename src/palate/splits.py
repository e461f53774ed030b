"""Cutting interactions into what is learned from and what is asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from palate.domain import Interactions


def by_time(interactions: Interactions, share: float) -> tuple[Interactions, Interactions]:
    """What came before a moment, and the newest `share` (0..1) of all.

    Nothing in the first part is as late as anything in the second: what happened in the same millisecond as the cut is in
    the second, which can so be a little larger than asked for.
    """
    assert 0 <= share <= 1, "A share lies between 0 and 1."
    newest = round(len(interactions) * share)
    if not newest:
        return interactions, rows(interactions, np.zeros(len(interactions), bool))
    cut = np.partition(interactions.time, len(interactions) - newest)[len(interactions) - newest]
    late = interactions.time >= cut
    return rows(interactions, ~late), rows(interactions, late)


def k_fold(n: int, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (0 … folds − 1) of each of n rows, by chance; sizes differ by one at most."""
    assert folds >= 2, "With one fold there is nothing to learn from."
    return np.random.default_rng(seed).permutation(n) % folds


def rows(interactions: Interactions, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Interactions:
    """The chosen rows (a mask, or row numbers in ascending order)."""
    fields = {field.name: getattr(interactions, field.name) for field in dataclasses.fields(interactions)}
    return Interactions(**{name: values[chosen] for name, values in fields.items()})
