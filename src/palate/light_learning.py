"""Learning the light ranker: which of many candidates the heavy one would put on top, told from a few columns that cost little.

A ridge regression of what the heavy ranker says on bent columns, each a few straight pieces (distillation: Tang and Wang,
"Ranking Distillation", KDD 2018). What stands at the top of a person's candidates counts more than the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BENDS = 5
"""Points at which a column's line may bend, by quantile."""
APART = 0.01
"""Of a column's spread, between two bends at least."""
L2 = 1e-3
"""Per row."""
TOP = 100
"""Of a person's candidates: they count …"""
WEIGHT = 10.0
"""… so many times."""


class LightParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The light ranker, which leaves the heavy one few candidates."""

    keep: Annotated[int, msgspec.Meta(ge=10, le=20_000)] = 1_000
    """So many candidates come before the heavy ranker; with no more there is nothing to do for the light one."""
    people: Annotated[int, msgspec.Meta(ge=1)] = 60
    """For so many people, those that came last, candidates are scored to learn from."""
    candidates: Annotated[int, msgspec.Meta(ge=100)] = 3_000
    """So many of each one's candidates."""


@dataclass(frozen=True, eq=False)
class Light:
    """A sum of bent lines, one for each of C columns."""

    bends: Floats
    """(C, BENDS), ascending in each row."""
    heights: Floats
    """(C, BENDS): what each column adds there; between them straight, beyond them level."""

    def __call__(self, columns: Sequence[Floats], first: int = 0) -> Floats:
        """(n,) the larger the likelier to be on top; of C columns (n,), or what some of them add, those from the one numbered
        `first` on."""
        mine = slice(first, first + len(columns))
        bends, heights = self.bends[mine], self.heights[mine]
        told = np.flatnonzero(heights.any(axis=1))
        if not len(told):
            return np.zeros(len(columns[0]), np.float32)
        table = np.stack([columns[at] for at in told.tolist()])
        return _lines(table, bends[told], heights[told])


def _lines(table: Floats, bends: Floats, heights: Floats) -> Floats:
    """(n,) the sum over rows of (c, n) of each one's bent line."""
    inside = np.clip(table, bends[:, :1], bends[:, -1:])
    changes = np.diff(np.diff(heights) / np.diff(bends), axis=1, prepend=np.float32(0))
    total = np.full(table.shape[1], heights[:, 0].sum(), np.float32)
    for bend, change in zip(bends.T, changes.T, strict=False):
        total += change @ np.maximum(inside - bend[:, np.newaxis], 0)
    return total


@dataclass(frozen=True, eq=False)
class Taught:
    """One person's candidates (n), as the heavy ranker sees them."""

    columns: Sequence[Floats]
    """C of (n,)."""
    raw: NDArray[np.float64]
    """(n,) what it says."""


def learn(taught: Sequence[Taught]) -> Light:
    """The line of each column that tells best what the heavy ranker says."""
    wide = len(taught[0].columns)
    table = np.stack([np.concatenate([one.columns[at] for one in taught]) for at in range(wide)], axis=1)
    bends = np.stack([_bends(column) for column in table.T])
    spread = bends[:, -1:] - bends[:, :1]
    bends += np.arange(BENDS, dtype=np.float32) * np.maximum(APART * spread, 1e-6)  # so that no line stands upright
    design = np.concatenate([_hats(table[:, at], bends[at]) for at in range(wide)], axis=1)
    # of each person the differences count alone: whom the heavy ranker thinks more of altogether makes no order
    starts = np.cumsum([0, *(len(one.raw) for one in taught)])
    target, weights = np.concatenate([one.raw - one.raw.mean() for one in taught]), np.ones(len(table))
    for one, start, end in zip(taught, starts, starts[1:], strict=False):
        design[start:end] -= design[start:end].mean(axis=0)
        weights[start + np.argsort(-one.raw, kind="stable")[:TOP]] = WEIGHT
    square = (design * weights[:, np.newaxis]).T @ design + L2 * weights.sum() * np.eye(design.shape[1])
    heights = np.linalg.solve(square, (design * weights[:, np.newaxis]).T @ target)
    lines = np.where(spread > 0, heights.reshape(wide, BENDS), 0)
    return Light(bends, lines.astype(np.float32))


def _bends(column: Floats) -> Floats:
    """(BENDS,) where a line may bend: as often as not among what few items have, such as counts."""
    values = np.unique(column)
    places = np.linspace(0.02, 0.98, BENDS)
    return np.sort((np.quantile(column, places) + np.quantile(values, places)) / 2).astype(np.float32)


def _hats(column: Floats, bends: Floats) -> NDArray[np.float64]:
    """(n, BENDS): the share of each bend in the value of a bent line there."""
    return np.stack([np.interp(column, bends, row) for row in np.eye(BENDS)], axis=1)


def recall(light: Light | None, taught: Sequence[Taught], keep: int, k: int = 20) -> float:
    """How much of the heavy ranker's best k of each one's candidates is among the `keep` that come through, in the mean.

    None stands for the plain score, the first column.
    """
    found = []
    for one in taught:
        order = np.argsort(-(light(one.columns) if light else one.columns[0]), kind="stable")[:keep]
        best = np.argsort(-one.raw, kind="stable")[:k]
        found.append(float(np.isin(best, order).mean()))
    return float(np.mean(found)) if found else float("nan")


def to_arrays(light: Light) -> dict[str, NDArray[Any]]:
    """What a snapshot holds of it."""
    return {"light_bends": light.bends, "light_heights": light.heights}


def from_arrays(arrays: Mapping[str, NDArray[Any]], columns: int) -> Light | None:
    """What a snapshot holds; None where there is none for so many columns."""
    if "light_bends" not in arrays or len(arrays["light_bends"]) != columns:
        return None
    return Light(np.asarray(arrays["light_bends"]), np.asarray(arrays["light_heights"]))
