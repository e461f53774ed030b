"""Half-steps of implicit ALS: one side solved with the other fixed, exactly or by conjugate gradients, and what each means.

The machine code is in `als_kernels` and `als_conjugate`; a function named readable says the same in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.machine_code import compiled
from palate.matrix import Sparse

Floats = NDArray[np.float32]
Losses = tuple[float, float]
"""Of the rows over all cells, with their ridges; the ridges alone."""

WIDTH = 16
"""Factors are padded to a multiple of this for the kernels; the padding stays zero."""
MOVED = 4096
"""Rows that are put into another order at a time."""
TASKS = 64
"""Parts of about equal work into which a half-step is cut. Not by threads: sums must not depend on their number."""
WIDEST_TURN = 192
"""Above it LAPACK finds a Gramian's axes in several threads, and other bits with another number of them."""


@dataclass(frozen=True)
class Evidence:
    """How strengths and counts enter the loss: all that a half-step has to know of the parameters."""

    unobserved: float
    """What each cell weighs that was not seen."""
    shift: float
    """What a positive pulls beyond its weight: 1 in the form `confidence`."""
    l2: float
    exponent: float

    def ridge(self, cells: int, others: int) -> float:
        """λ of a row with so many interactions, where the other side has `others` rows."""
        return float(self.l2 * (cells + self.unobserved * others) ** self.exponent)


def aligned(*shape: int) -> Floats:
    """An array of zeros that begins on a line of the cache, so that no row of 16 factors lies across two."""
    whole = np.zeros(int(np.prod(shape)) + WIDTH, np.float32)
    start = -whole.ctypes.data % 64 // 4
    return whole[start : start + int(np.prod(shape))].reshape(shape)


def padded(vectors: NDArray[Any], factors: int, order: NDArray[np.int64] | None = None) -> Floats:
    """The vectors (of these rows, in this order) for the kernels: `factors` rounded up, what is missing zero."""
    rows = len(vectors) if order is None else len(order)
    result = aligned(rows, -(-factors // WIDTH) * WIDTH)
    own = result[:, : vectors.shape[1]]
    for first in range(0, rows, MOVED):  # so that no copy of all is made
        part = slice(first, first + MOVED)
        own[part] = vectors[part if order is None else order[part]]
    return result


@dataclass(frozen=True, eq=False)
class Fixed:
    """The side that stays, as rows of the other side are solved against it."""

    vectors: Floats
    """(m, F), `padded`"""
    weighted: Floats
    """(F, F): its Gramian times the unobserved weight."""
    short: int
    """Rows of up to so many cells are solved in as many unknowns; above 0 the Gramian is a diagonal."""


def half_step(
    cells: Sparse,
    other: Floats,
    evidence: Evidence,
    prior: Floats,
    result: Floats,
    pool: ThreadPoolExecutor,
    *,
    turn: bool = False,
) -> Losses:
    """Solve each row of `cells` against the fixed `other` side into `result`; return the loss of the rows and their ridges.

    The loss is Σ over all cells of the row plus its ridge; what it has beyond that is the other side's ridge alone. It comes
    without a pass over the data: at the solution x of Ax = b the quadratic is its constant − ⟨b, x⟩. `other`, `prior` (or none of
    its rows) and `result` are `padded`. With `turn` the other side may be rotated in place, so that its Gramian is a diagonal and
    short rows cost less; no score changes. That needs a prior without rows.
    """
    return solve(cells, fixed(other, cells.counts, evidence, pool, turn=turn), evidence, prior, result, pool)


def fixed(
    vectors: Floats, counts: NDArray[np.int64], evidence: Evidence, pool: ThreadPoolExecutor, *, turn: bool = False
) -> Fixed:
    """What `solve` has to know of the side that stays; `counts` are the cells of each of the rows to solve.

    The vectors are `padded`. With `turn` they may be rotated in place.
    """
    factors = vectors.shape[1]
    found, short = gramian(vectors, pool), factors // 2 // WIDTH * WIDTH if turn and factors <= WIDEST_TURN else 0
    if short and np.count_nonzero(counts <= short) > len(counts) // WIDTH:
        found = np.diag(_turned(found, pool, vectors))
    else:
        short = 0
    return Fixed(vectors, (evidence.unobserved * found).astype(np.float32), short)


def solve(
    cells: Sparse, other: Fixed, evidence: Evidence, prior: Floats, result: Floats, pool: ThreadPoolExecutor
) -> Losses:
    """`half_step` of some or all of the rows, when the other side is ready: no row depends on those beside it."""
    from palate.models import als_kernels, als_tiles  # numba: see machine_code

    factors, wide = other.vectors.shape[1], als_tiles.has_wide_registers()

    def part(first: int, last: int, buffer: Floats) -> Losses:
        whole = (*_of(cells, other.vectors, other.weighted, evidence), prior, other.short, result, buffer, wide)
        losses: Losses = compiled(als_kernels.half_step, first, last, *whole, fastmath=als_kernels.FREEDOMS)
        return losses

    costs = cells.counts * factors + factors**2 // 2
    return _summed(part, costs, als_kernels.buffer_size(factors), pool)


def conjugate_step(
    cells: Sparse, other: Floats, evidence: Evidence, result: Floats, steps: int, pool: ThreadPoolExecutor
) -> Losses:
    """Bring each row of `result` nearer to what `half_step` solves, by so many steps of preconditioned conjugate gradients.

    Returns what `half_step` does, for the rows as they are then. Both sides are rotated in place, so that the Gramian of the
    `other` is a diagonal; no score changes. Up to `WIDEST_TURN` factors.
    """
    from palate.models import als_conjugate, als_kernels  # numba: see machine_code

    diagonal = _turned(gramian(other, pool), pool, other, result)
    weighted = (evidence.unobserved * diagonal).astype(np.float32)

    def solve(first: int, last: int, buffer: Floats) -> Losses:
        arguments = (*_of(cells, other, weighted, evidence), steps, result, buffer)
        losses: Losses = compiled(als_conjugate.half_step, first, last, *arguments, fastmath=als_kernels.FREEDOMS)
        return losses

    return _summed(solve, cells.counts + WIDTH, als_conjugate.buffer_size(other.shape[1]), pool)


def _of(cells: Sparse, other: Floats, weighted: Floats, evidence: Evidence) -> tuple[Any, ...]:
    """What the kernels of both take alike."""
    floor = evidence.unobserved * len(other)
    data = (cells.offsets, cells.columns, cells.values, other, weighted)
    return (*data, np.float32(evidence.shift), evidence.l2, floor, evidence.exponent)


def _summed(
    solve: Callable[[int, int, Floats], Losses], costs: NDArray[np.int64], size: int, pool: ThreadPoolExecutor
) -> Losses:
    """What `solve(first, last, scratch)` gives for parts of the rows, summed in their order; scratch of `size` floats."""
    spare: list[Floats] = []  # fresh memory costs more than a short part

    def part(rows: tuple[int, int]) -> Losses:
        try:
            buffer = spare.pop()
        except IndexError:
            buffer = aligned(size)
        losses = solve(*rows, buffer)
        spare.append(buffer)
        return losses

    found = list(pool.map(part, _parts(costs)))
    return sum(loss for loss, _ in found), sum(ridge for _, ridge in found)


def readable_half_step(
    cells: Sparse, other: NDArray[np.float64], evidence: Evidence, prior: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """What `half_step` solves, as it is meant: (n, F) from the other side's (m, F). `prior` (n, F), None means zero."""
    result = np.zeros((len(cells), other.shape[1]))
    unobserved = evidence.unobserved * other.T @ other
    for row in range(len(cells)):
        columns, weights = cells.row(row)
        if not len(columns) and prior is None:
            continue
        seen, ridge = other[columns], evidence.ridge(len(columns), len(other))
        pulls = np.where(weights > 0, weights + evidence.shift, 0)
        left = unobserved + (seen.T * np.abs(weights)) @ seen + ridge * np.eye(other.shape[1])
        right = seen.T @ pulls + (0 if prior is None else ridge * prior[row])
        result[row] = np.linalg.solve(left, right)
    return result


def readable_conjugate_step(
    cells: Sparse, other: NDArray[np.float64], evidence: Evidence, start: NDArray[np.float64], steps: int
) -> NDArray[np.float64]:
    """What `conjugate_step` does, as it is meant: (n, F) from `start` (n, F), if the Gramian of `other` is a diagonal."""
    result = np.zeros_like(start)
    unobserved = evidence.unobserved * other.T @ other
    for row in np.flatnonzero(cells.counts).tolist():
        columns, weights = cells.row(row)
        seen, x = other[columns], start[row]
        pulls = np.where(weights > 0, weights + evidence.shift, 0)
        ridge = evidence.ridge(len(columns), len(other)) * np.eye(len(x))
        left = unobserved + (seen.T * np.abs(weights)) @ seen + ridge
        residual = seen.T @ pulls - left @ x
        direction = residual / np.diag(left)
        for _ in range(steps):
            length = residual @ (residual / np.diag(left)) / (direction @ left @ direction)
            x, after = x + length * direction, residual - length * left @ direction
            better = after @ (after / np.diag(left)) / (residual @ (residual / np.diag(left)))
            residual, direction = after, after / np.diag(left) + better * direction
        result[row] = x
    return result


def _turned(gramian: NDArray[np.float64], pool: ThreadPoolExecutor, *sides: Floats) -> NDArray[np.float64]:
    """(F,): the lengths of the Gramian's axes, into which the vectors of these sides are rotated in place."""
    from palate.models import als_kernels, als_tiles

    factors = len(gramian)
    used = len(np.trim_zeros(np.diag(gramian), "b"))  # what pads the vectors stays zero
    lengths, rotation = np.zeros(factors), np.eye(factors, dtype=np.float32)
    lengths[:used], rotation[:used, :used] = np.linalg.eigh(gramian[:used, :used])
    panels = aligned(factors // WIDTH, factors, WIDTH)
    panels[:] = rotation.reshape(factors, -1, WIDTH).swapaxes(0, 1)
    wide = als_tiles.has_wide_registers()

    def part(side: Floats, first: int, last: int) -> None:
        buffer = aligned(als_kernels.buffer_size(factors))
        compiled(als_kernels.turn, side, first, last, panels, buffer, wide, fastmath=als_kernels.FREEDOMS)

    parts = [(side, *rows) for side in sides for rows in _parts(np.ones(len(side), np.int64))]
    list(pool.map(part, *zip(*parts, strict=True)))
    return np.maximum(lengths, 0)


def _parts(costs: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(first, last) of consecutive rows that cost about as much as those of each other part."""
    total = np.concatenate(([0], np.cumsum(costs)))
    cuts = np.searchsorted(total, np.linspace(0, total[-1], TASKS + 1))
    cuts[0], cuts[-1] = 0, len(costs)
    return [(first, last) for first, last in pairwise(cuts.tolist()) if first < last]


def gramian(vectors: Floats, pool: ThreadPoolExecutor) -> NDArray[np.float64]:
    """vectorsᵀ vectors, summed in float64."""
    from palate.models import als_kernels, als_tiles  # numba: see machine_code

    factors = vectors.shape[1]
    size, wide = als_kernels.buffer_size(factors), als_tiles.has_wide_registers()
    cuts = np.linspace(0, len(vectors), 1 + min(WIDTH, 1 + len(vectors) // 512)).astype(int)

    def part(first: int, last: int) -> NDArray[np.float64]:
        total = np.empty((factors, factors))
        rows = (vectors, first, last)
        compiled(als_kernels.gramian, *rows, aligned(size), total, wide, fastmath=als_kernels.FREEDOMS)
        return total

    parts = pool.map(part, cuts[:-1].tolist(), cuts[1:].tolist())
    upper = np.triu(sum(parts, np.zeros((factors, factors))))
    return np.asarray(upper + np.triu(upper, 1).T)
