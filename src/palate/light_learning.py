"""Learning the light ranker: which of many candidates the heavy one would put on top, told from a few columns that cost little.

A ridge regression of what the heavy ranker says on bent columns, each a few straight pieces, and small trees of what that leaves
(distillation: Tang and Wang, "Ranking Distillation", KDD 2018). What stands at the top of a person's candidates counts more than
the rest. It learns from candidates whether they were ever shown or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.models import additive, trees
from palate.models.additive import Additive
from palate.models.forest import Forest
from palate.models.trees import TreeParams

Floats = NDArray[np.float32]

PREFIX = "light_"
"""How the names of its arrays in a snapshot begin."""
BENDS = 6
"""Points at which a column's line may bend, by quantile."""
APART = 0.01
"""Of a column's spread, between two bends at least."""
L2 = 1e-3
"""Per row."""
TOP = 50
"""Of a person's candidates: they count …"""
WEIGHT = 30.0
"""… so many times."""
BEST = 300
"""Of a person's candidates, all of which are learned from, where others are drawn."""
TREES = TreeParams(trees=20, depth=additive.DEPTH, learning_rate=0.4, l2=3.0, column_share=1.0)


class LightParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The light ranker, which leaves the heavy one few candidates."""

    keep: Annotated[int, msgspec.Meta(ge=10, le=20_000)] = 1_000
    """So many candidates come before the heavy ranker at most …"""
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    """… and this part of them, or 400 where that is more. With no more than that there is nothing to do for the light one, and
    where none was learned all of `keep` come through."""
    people: Annotated[int, msgspec.Meta(ge=1)] = 60
    """For so many people, those that came last, candidates are scored to learn from."""
    candidates: Annotated[int, msgspec.Meta(ge=100)] = 3_000
    """So many of each one's candidates are learned from: the best and, of the others, some by chance."""


@dataclass(frozen=True, eq=False)
class Taught:
    """One person's candidates (n), as the heavy ranker sees them."""

    columns: Floats
    """(C, n)"""
    raw: NDArray[np.float64]
    """(n,) what it says."""

    def thinned(self, count: int, random: np.random.Generator) -> Taught:
        """So many of them: the best, and others by chance."""
        if len(self.raw) <= count:
            return self
        order = np.argsort(-self.raw, kind="stable")
        others = random.choice(order[BEST:], max(count - BEST, 0), replace=False)
        rows = np.sort(np.concatenate((order[:BEST], others)))
        return Taught(np.ascontiguousarray(self.columns[:, rows]), self.raw[rows])


def learn(taught: Sequence[Taught], seed: int = 1) -> Additive:
    """What tells best what the heavy ranker says; the same arguments give the same."""
    lines = _lines(taught)
    # of each person the differences count alone: whom the heavy ranker thinks more of altogether makes no order
    rest = np.concatenate([_centred(one.raw - additive.lines(lines, one.columns)) for one in taught])
    table = np.concatenate([one.columns for one in taught], axis=1).T
    weights = np.concatenate([_weights(one) for one in taught])
    if np.ptp(rest) < 1e-9:
        return lines
    found = trees.regression(table, rest.astype(np.float32), weights.astype(np.float32), TREES, seed)
    return replace(lines, trees=additive.of_depth(found.forest()))


def _lines(taught: Sequence[Taught]) -> Additive:
    bends, told = _all_bends(taught)
    wide = bends.size
    square, target = np.zeros((wide, wide)), np.zeros(wide)
    weight = 0.0
    for design, weights, raw in _designs(taught, bends):
        weighted = design * weights[:, np.newaxis]
        square += weighted.T @ design
        target += weighted.T @ raw
        weight += float(weights.sum())
    heights = np.linalg.solve(square + L2 * weight * np.eye(wide), target).reshape(bends.shape)
    return Additive(bends, np.where(told[:, np.newaxis], heights, 0).astype(np.float32), NO_TREES)


NO_TREES = Forest(
    np.zeros((0, additive.DEPTH), np.int32),
    np.zeros((0, additive.DEPTH), np.float32),
    np.zeros((0, 2**additive.DEPTH)),
    0.0,
)


def _all_bends(taught: Sequence[Taught]) -> tuple[Floats, NDArray[np.bool_]]:
    """(C, BENDS), and (C,) which columns aren't all the same."""
    columns = range(len(taught[0].columns))
    bends = np.stack([_bends(np.concatenate([one.columns[column] for one in taught])) for column in columns])
    spread = bends[:, -1:] - bends[:, :1]
    bends += np.arange(BENDS, dtype=np.float32) * np.maximum(APART * spread, 1e-6)  # so that no line stands upright
    return bends, spread[:, 0] > 0


def _bends(column: Floats) -> Floats:
    """(BENDS,) where a line may bend: as often as not among what few items have, such as counts."""
    values = np.unique(column)
    places = np.linspace(0.02, 0.98, BENDS)
    return np.sort((np.quantile(column, places) + np.quantile(values, places)) / 2).astype(np.float32)


def _designs(
    taught: Sequence[Taught], bends: Floats
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Of each person the share (n, C · BENDS) of each bend in the value of bent lines, weights (n,) and what is told (n,)."""
    for one in taught:
        parts = [_hats(column, own) for column, own in zip(one.columns, bends, strict=True)]
        design = np.concatenate(parts, axis=1)
        yield design - design.mean(axis=0), _weights(one), _centred(one.raw)


def _hats(column: Floats, bends: Floats) -> NDArray[np.float64]:
    """(n, BENDS): the share of each bend in the value of a bent line there."""
    return np.stack([np.interp(column, bends, row) for row in np.eye(BENDS)], axis=1)


def _weights(one: Taught) -> NDArray[np.float64]:
    weights = np.ones(len(one.raw))
    weights[np.argsort(-one.raw, kind="stable")[:TOP]] = WEIGHT
    return weights


def _centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values - values.mean(), np.float64)


def recall(light: Additive | None, one: Taught, keep: int, given: int, k: int = 20) -> float:
    """How much of the heavy ranker's best k of somebody's candidates is among the `keep` that come through.

    `given`: so many of the columns are of each item, others are looked up. None stands for the plain score, the first column.
    """
    order = np.argsort(-one.columns[0] if light is None else -_said(light, one, given), kind="stable")[:keep]
    best = np.argsort(-one.raw, kind="stable")[:k]
    return float(np.isin(best, order).mean())


def _said(light: Additive, one: Taught, given: int) -> Floats:
    return additive.said(light, one.columns[:given], one.columns[given:], np.arange(len(one.raw)))


def to_arrays(light: Additive) -> dict[str, NDArray[Any]]:
    """What a snapshot holds of it."""
    return {f"{PREFIX}{name}": array for name, array in additive.to_arrays(light).items()}


def from_arrays(arrays: Mapping[str, NDArray[Any]], columns: int) -> Additive | None:
    """What a snapshot holds; None where it holds none of so many columns."""
    if f"{PREFIX}{additive.FOREST}columns" not in arrays or len(arrays[f"{PREFIX}bends"]) != columns:
        return None
    return additive.from_arrays(arrays, PREFIX, columns)
