"""Passes of a factorization machine over its examples, by several threads that never touch the same row at the same time.

Users and items are cut into as many blocks each as `Plan.blocks` says, so the examples into blocks × blocks. A round takes one
block of each row and column of that square, which have no user and no item in common, and after as many rounds all were taken
once (Gemulla, Nijkamp, Haas and Sismanis, "Large-Scale Matrix Factorization with Distributed Stochastic Gradient Descent", 2011).
So the result depends on the number of blocks, never on the number of threads or on which was faster.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.matrix import Sparse

BATCH = 512
"""Examples whose mean loss makes one entry of the loss curve."""

LANES = 8
"""Floats of a vector register as the kernels see it."""

BLOCKS, FEWEST = 4, 1 << 16
"""Blocks of users and of items, and the fewest examples that are cut into blocks."""

PRIMES = np.array([1000000007, 1073741827, 1300000003, 1500000001, 1618033999, 1900000043, 2147483647])
"""Above any count of examples of one user, so that steps of one come to all of them: see `fm_kernels.places`."""

CHUNK = 1 << 20
"""Examples that NumPy takes at a time, so that no array of all examples is copied."""

Floats = NDArray[np.float32]
Counts = NDArray[np.int32]
Learn = Callable[..., int]


@dataclass(frozen=True)
class Plan:
    """How passes are made."""

    logistic: bool
    adagrad: bool
    blocks: int
    threads: int
    racing: bool


@dataclass(frozen=True, eq=False)
class Side:
    """The users or the items while they are learned, n rows."""

    rows: Floats
    """(n, width): see `fm_kernels`."""
    here: Counts
    """(n,) examples of the row in these data."""
    shaped: Counts
    """(n,) examples that ever shaped it, these among them."""
    l2_bias: float
    l2: float
    steps: Floats
    """(n, 4): see `fm_kernels.readable_pairs`."""


def side(
    bias: Floats,
    vectors: Floats,
    here: Counts,
    shaped: Counts,
    l2_bias: float,
    l2: float,
    places: NDArray[np.int64] | None = None,
) -> Side:
    """A side that starts with these biases and vectors; they are copied. `places` are the rows of each, None: as they are.

    `here` is by place already, `shaped` is not.
    """
    n, factors = vectors.shape
    rows = np.zeros((n, width_of(factors)), np.float32)
    to = slice(None) if places is None else places
    rows[to, :factors], rows[to, -1] = vectors, bias
    placed = np.empty_like(shaped)
    placed[to] = shaped
    return Side(rows, here, placed, l2_bias, l2, np.zeros((n, 4), np.float32))


def width_of(factors: int) -> int:
    """Floats of a row: the factors and the bias, rounded up."""
    return -(-(factors + 1) // LANES) * LANES


def plan(examples: int, logistic: bool, adagrad: bool, blocks: int | None, threads: int | None, racing: bool) -> Plan:
    """The numbers of blocks and threads that weren't given: by the number of examples and by that of processors."""
    if blocks is None:
        blocks = BLOCKS if examples >= FEWEST else 1
    return Plan(logistic, adagrad, blocks, threads or len(os.sched_getaffinity(0)), racing)


def passes(
    labels: Sparse,
    weights: Floats,
    base: float,
    users: Side,
    items: Side,
    plan: Plan,
    rates: Floats,
    random: np.random.Generator,
) -> Iterator[Floats]:
    """Change the rows by one pass over all examples for each rate; after each pass the mean losses of its batches."""
    active = np.flatnonzero(np.diff(labels.offsets)).astype(np.int32)
    learn = _kernel(users.rows.shape[1], plan.adagrad)
    with ThreadPoolExecutor(plan.threads) as pool:
        for rate in rates:
            for one in (users, items):
                _set_steps(one, rate, plan.adagrad)
            turn = int(random.choice(PRIMES)), int(random.integers(1 << 30))
            order = active[random.permutation(len(active))]

            def task(visit: Counts, bounds: tuple[int, int], turn: tuple[int, int] = turn) -> Floats:
                losses = np.empty(int(users.here[visit].sum(dtype=np.int64)) // BATCH + 1, np.float32)
                count = learn(
                    visit,
                    labels.offsets,
                    labels.columns,
                    labels.values,
                    weights,
                    bounds,
                    turn,
                    np.float32(base),
                    users.rows,
                    items.rows,
                    users.steps,
                    items.steps,
                    plan.logistic,
                    losses,
                )
                return losses[:count]

            turns = random.permutation(plan.blocks).tolist()
            found = _rounds(task, order, users.here, items.here, plan, turns, pool)
            yield np.concatenate([np.empty(0, np.float32), *found])


def _rounds(
    task: Callable[[Counts, tuple[int, int]], Floats],
    order: Counts,
    by_user: Counts,
    by_item: Counts,
    plan: Plan,
    turns: list[int],
    pool: ThreadPoolExecutor,
) -> list[Floats]:
    """One pass: for each round the losses of its tasks."""
    if plan.racing and plan.threads > 1:
        parts = np.split(order, cuts(by_user[order], 4 * plan.threads)[1:-1])
        return list(pool.map(lambda visit: task(visit, (0, len(by_item))), parts))
    if plan.blocks == 1:
        return [task(order, (0, len(by_item)))]
    parts = np.split(order, cuts(by_user[order], plan.blocks)[1:-1])
    ends = cuts(by_item, plan.blocks).tolist()
    ranges = list(pairwise(ends))
    found: list[Floats] = []
    for turn in turns:
        found += pool.map(task, parts, ranges[turn:] + ranges[:turn])
    return found


def cuts(counts: NDArray[Any], parts: int) -> NDArray[np.int64]:
    """(parts + 1,) where to cut rows with these counts so that each part has about as many examples.

    >>> cuts(np.array([5, 1, 1, 1, 1, 1]), 2).tolist()
    [0, 1, 6]
    """
    total = np.cumsum(counts, dtype=np.int64)
    inner = np.searchsorted(total, total[-1] * np.arange(1, parts) // parts) + 1 if len(total) else np.zeros(parts - 1)
    return np.concatenate(([0], np.minimum(inner, len(counts)), [len(counts)])).astype(np.int64)


def _set_steps(side: Side, rate: np.float32, adagrad: bool) -> None:
    """The length of each row's steps, and what regularisation does to it.

    A row of which most examples were learned before takes short steps; the square was measured: it keeps rows still that a
    small sample would carry away.
    """
    share = 1 / np.maximum(side.shaped, 1).astype(np.float32)
    pace = np.square(side.here * share, dtype=np.float32)
    if adagrad:  # the lengths are divided by what the kernel has summed up
        side.steps[:, 0], side.steps[:, 1], side.steps[:, 2] = rate * pace, side.l2_bias * share, side.l2 * share
        return
    lengths = rate * pace
    side.steps[:, 0] = lengths
    for column, l2 in ((1, side.l2_bias), (2, side.l2)):
        side.steps[:, column] = 1 / (1 + np.float32(l2) * lengths * share)


def _kernel(width: int, adagrad: bool) -> Learn:
    """The kernel, compiled before threads use it; kept on disk where there is a folder that can be written."""
    from palate.models import fm_kernels  # here: most processes only score, and numba takes half a second and 60 MB

    whole, numbers, rows = np.zeros(1, np.int64), np.zeros(0, np.float32), np.zeros((0, width), np.float32)
    short, steps, none = np.zeros(0, np.int32), np.zeros((0, 4), np.float32), (0, 0)
    nothing = (
        short,
        whole,
        short,
        numbers,
        numbers,
        none,
        none,
        np.float32(0),
        rows,
        rows,
        steps,
        steps,
        True,
        numbers,
    )
    try:
        learn = fm_kernels.pairs(width, adagrad)
        learn(*nothing)
    except OSError:  # the folder of the compiled code can't be written
        learn = fm_kernels.pairs(width, adagrad, keep=False)
    return learn


def chunks(labels: Sparse) -> Iterator[tuple[Counts, slice]]:
    """The row of each cell, and where the cells are, some at a time."""
    start = 0
    while start < len(labels):
        end = int(np.searchsorted(labels.offsets, labels.offsets[start] + CHUNK, side="right"))
        end = min(max(end - 1, start + 1), len(labels))
        counts = np.diff(labels.offsets[start : end + 1])
        yield np.repeat(np.arange(start, end, dtype=np.int32), counts), slice(*labels.offsets[[start, end]].tolist())
        start = end


def relabel(labels: Sparse, weights: Floats, places: NDArray[np.int32]) -> None:
    """Exchange the columns in place: column c becomes `places[c]`."""
    for rows, cells in chunks(labels):
        columns = places[labels.columns[cells]]
        order = np.argsort(rows.astype(np.int64) * labels.width + columns)
        labels.columns[cells], labels.values[cells] = columns[order], labels.values[cells][order]
        if len(weights):
            weights[cells] = weights[cells][order]


def column_counts(labels: Sparse) -> Counts:
    """(width,) cells of each column."""
    counts = np.zeros(labels.width, np.int32)
    for _, cells in chunks(labels):
        counts += np.bincount(labels.columns[cells], minlength=labels.width).astype(np.int32)
    return counts


def moments(labels: Sparse) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """(2, rows) and (2, width): cells and sum of the values of each row and of each column; and the sum of all squares."""
    by_row, by_column, squares = np.zeros((2, len(labels))), np.zeros((2, labels.width)), 0.0
    for rows, cells in chunks(labels):
        columns, values = labels.columns[cells], labels.values[cells].astype(np.float64)
        squares += float(values @ values)
        if len(rows):
            part = by_row[:, rows[0] : rows[-1] + 1]
            for sums, places in ((part, rows - rows[0]), (by_column, columns)):
                sums[0] += np.bincount(places, minlength=sums.shape[1])
                sums[1] += np.bincount(places, values, minlength=sums.shape[1])
    return by_row, by_column, squares


def mean_loss(labels: Sparse, weights: Floats, base: float, users: Side, items: Side, logistic: bool) -> float:
    """The loss as things are, without learning."""
    total = weighed = 0.0
    for rows, cells in chunks(labels):
        own, other, y = users.rows[rows], items.rows[labels.columns[cells]], labels.values[cells]
        weight = weights[cells] if len(weights) else np.ones(len(y), np.float32)
        raw = base + own[:, -1] + other[:, -1] + np.einsum("nf,nf->n", own[:, :-1], other[:, :-1])
        losses = np.logaddexp(0, raw) - y * raw if logistic else np.square(y - raw)
        total, weighed = total + float(weight @ losses), weighed + float(weight.sum(dtype=np.float64))
    return total / max(weighed, 1e-30)


def until_worse(
    done: Iterator[Floats], loss: Callable[[], float], patience: int, kept: Sequence[Floats]
) -> tuple[list[Floats], int]:
    """Make passes until `loss` hasn't fallen for `patience` of them; bring back the best state of the arrays `kept`.

    Returns the losses of all passes that were made, and how many made the best state.
    """
    made: list[Floats] = []
    best, best_epoch, state = loss(), 0, [array.copy() for array in kept]
    for losses in done:
        made.append(losses)
        if (now := loss()) < best:
            best, best_epoch, state = now, len(made), [array.copy() for array in kept]
        elif len(made) - best_epoch >= patience:
            break
    for array, old in zip(kept, state, strict=True):
        array[...] = old
    return made, best_epoch
