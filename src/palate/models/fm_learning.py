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
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from palate import machine_code
from palate.matrix import Sparse
from palate.models.fields import NO_TAGS, Tags

BATCH = 512
"""Examples whose mean loss makes one entry of the loss curve."""

LANES = 8
"""Floats of a vector register as the kernels see it."""

BLOCKS, FEWEST = 4, 1 << 16
"""Blocks of users and of items, and the fewest examples that are cut into blocks."""

PRIMES = np.array([1000000007, 1073741827, 1300000003, 1500000001, 1618033999, 1900000043, 2147483647])
"""Above any count of examples of one user, so that steps of one come to all of them: see `fm_kernels.places`."""

RUN = 32
"""Neighbours that are learned one after the other."""

CHUNK = 1 << 17
"""Rows that NumPy takes at a time, so that no array of all is copied."""

SHORT = 32
"""Cells of a row up to which they are best put in order one by one."""

Floats = NDArray[np.float32]
Counts = NDArray[np.int32]
Learn = Callable[..., int]
Loss = Literal["squared", "logistic", "bpr"]
LOSSES: tuple[Loss, ...] = ("squared", "logistic", "bpr")


@dataclass(frozen=True)
class Plan:
    """How passes are made."""

    loss: Loss
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
    l2_bias: float | Floats
    """For all rows, or (n,) for each; likewise `l2`."""
    l2: float | Floats
    steps: Floats
    """(n, 4): see `fm_kernels.readable_pairs`."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What is learned from: a row for each user, a column for each item, a weight for each cell (or none for 1)."""

    labels: Sparse
    weights: Floats
    events: Tags = NO_TAGS
    """The labels of each cell."""
    own: bool = False
    """Whether they may be changed: nobody else has them."""


class Task(Protocol):
    """One kernel at work: learns from some users' examples with items in `bounds`, in the order of `turn`, as the thread of this
    block; returns the mean losses of its batches."""

    def __call__(
        self,
        examples: Examples,
        visit: Counts,
        bounds: tuple[int, int],
        turn: tuple[int, int],
        block: int,
        only_look: bool = False,
    ) -> Floats: ...


def side(
    bias: Floats,
    vectors: Floats,
    here: Counts,
    shaped: Counts,
    l2_bias: float | Floats,
    l2: float | Floats,
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


def plan(examples: int, loss: Loss, adagrad: bool, blocks: int | None, threads: int | None, racing: bool) -> Plan:
    """The numbers of blocks and threads that weren't given: by the number of examples and by that of processors."""
    if blocks is None:
        blocks = BLOCKS if examples >= FEWEST else 1
    return Plan(loss, adagrad, blocks, threads or len(os.sched_getaffinity(0)), racing)


def pairs(users: Side, items: Side, base: float, plan: Plan) -> Task:
    """The task of a machine of users and items alone."""
    from palate.models import fm_kernels  # here: most processes only score, and numba takes half a second and 60 MB

    width = users.rows.shape[1]
    learn = compiled(lambda keep: fm_kernels.pairs(width, plan.adagrad, keep), _no_pairs(width))

    def task(
        examples: Examples,
        visit: Counts,
        bounds: tuple[int, int],
        turn: tuple[int, int],
        block: int,
        only_look: bool = False,
    ) -> Floats:
        labels, steps = examples.labels, [still(len(one.rows)) if only_look else one.steps for one in (users, items)]
        losses = room_for_losses(labels, visit)
        # fmt: off
        count = learn(
            visit, labels.offsets, labels.columns, labels.values, examples.weights, bounds, turn, np.float32(base),
            users.rows, items.rows, *steps, plan.loss == "logistic", losses,
        )
        # fmt: on
        return losses[:count]

    return task


def _no_pairs(width: int) -> tuple[Any, ...]:
    """Arguments of `fm_kernels.pairs` that say nothing."""
    whole, numbers, rows = np.zeros(1, np.int64), np.zeros(0, np.float32), np.zeros((0, width), np.float32)
    short, steps, none = np.zeros(0, np.int32), np.zeros((0, 4), np.float32), (0, 0)
    return short, whole, short, numbers, numbers, none, none, np.float32(0), rows, rows, steps, steps, True, numbers


def compiled(kernel: Callable[[bool], Learn], nothing: tuple[Any, ...]) -> Learn:
    """The kernel, compiled by arguments that say nothing before threads use it; kept on disk where that can be."""
    try:
        learn = kernel(True)
        learn(*nothing)
    except OSError:  # the folder of the compiled code can't be written
        learn = kernel(False)
    return learn


def still(rows: int) -> Floats:
    """Steps that leave rows where they are."""
    return np.tile(np.array([0, 1, 1, 1], np.float32), (rows, 1))


def room_for_losses(labels: Sparse, visit: Counts) -> Floats:
    """An entry for each batch that these users' examples can make."""
    cells = labels.offsets[visit + 1] - labels.offsets[visit]
    return np.empty(int(cells.sum()) // BATCH + 1, np.float32)


def passes(
    task: Task,
    examples: Examples,
    by_item: Counts,
    plan: Plan,
    rates: Floats,
    random: np.random.Generator,
    sides: Sequence[Side],
    meet: Callable[[], None] | None = None,
) -> Iterator[Floats]:
    """One pass over all examples for each rate, by steps of these sides; after each pass the mean losses of its batches.

    `meet` is called when the threads of a round have ended.
    """
    active = np.flatnonzero(np.diff(examples.labels.offsets)).astype(np.int32)
    with ThreadPoolExecutor(plan.threads) as pool:
        for rate in rates:
            for side in sides:
                set_steps(side, rate, plan.adagrad)
            turn, order = _turn(random), _mixed(active, random)
            found = [np.empty(0, np.float32)]
            for one in _rounds(examples, order, by_item, plan, random):
                found += pool.map(lambda part: task(examples, part[0], part[1], turn, part[2]), one)  # noqa: B023
                if meet is not None:
                    meet()
            yield np.concatenate(found)


def _mixed(users: Counts, random: np.random.Generator) -> Counts:
    """The users in an order by chance, where they are many in runs of neighbours: what lies together is fetched together."""
    length = int(np.clip(len(users) // 1024, 1, RUN))
    starts = length * random.permutation(-(-len(users) // length)).astype(np.int32)
    order = (starts[:, np.newaxis] + np.arange(length, dtype=np.int32)).reshape(-1)
    mixed: Counts = users[order[order < len(users)]]
    return mixed


def _turn(random: np.random.Generator) -> tuple[int, int]:
    return int(random.choice(PRIMES)), int(random.integers(1 << 30))


Part = tuple[Counts, tuple[int, int], int]
"""Users, a range of items, and the number of the block."""


def _rounds(
    examples: Examples, order: Counts, by_item: Counts, plan: Plan, random: np.random.Generator
) -> Iterator[list[Part]]:
    """For each round of a pass its parts, which may be learned at the same time."""
    by_user = np.diff(examples.labels.offsets)[order]
    whole = (0, len(by_item))
    if plan.racing:
        yield [(visit, whole, 0) for visit in np.split(order, cuts(by_user, 4 * plan.threads)[1:-1])]
        return
    if plan.blocks == 1:
        yield [(order, whole, 0)]
        return
    blocks = np.split(order, cuts(by_user, plan.blocks)[1:-1])
    ranges = list(pairwise(cuts(by_item, plan.blocks).tolist()))
    for turn in random.permutation(plan.blocks).tolist():
        turned = ranges[turn:] + ranges[:turn]
        yield [(visit, bounds, block) for block, (visit, bounds) in enumerate(zip(blocks, turned, strict=True))]


def mean_loss(task: Task, examples: Examples) -> float:
    """The loss as things are, without learning."""
    labels = examples.labels
    visit = np.flatnonzero(np.diff(labels.offsets)).astype(np.int32)
    losses = task(examples, visit, (0, labels.width), (int(PRIMES[0]), 0), 0, True).astype(np.float64)
    return float(losses.mean()) if len(losses) else 0.0


def cuts(counts: NDArray[Any], parts: int) -> NDArray[np.int64]:
    """(parts + 1,) where to cut rows with these counts so that each part has about as many examples.

    >>> cuts(np.array([5, 1, 1, 1, 1, 1]), 2).tolist()
    [0, 1, 6]
    """
    total = np.cumsum(counts, dtype=np.int64)
    inner = np.searchsorted(total, total[-1] * np.arange(1, parts) // parts) + 1 if len(total) else np.zeros(parts - 1)
    return np.concatenate(([0], np.minimum(inner, len(counts)), [len(counts)])).astype(np.int64)


def set_steps(side: Side, rate: np.float32, adagrad: bool) -> None:
    """The length of each row's steps, and what regularisation does to it.

    A row of which most examples were learned before takes short steps; the square was measured: it keeps rows still that a
    small sample would carry away.
    """
    n = len(side.rows)
    l2s = [np.broadcast_to(np.asarray(l2, np.float32), n) for l2 in (side.l2_bias, side.l2)]
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        steps, share = side.steps[part], 1 / np.maximum(side.shaped[part], 1).astype(np.float32)
        steps[:, 0] = rate * np.square(side.here[part] * share)
        for column, l2 in enumerate(l2s, 1):
            if adagrad:  # the lengths are divided by what the kernel has summed up
                steps[:, column] = l2[part] * share
            else:
                steps[:, column] = 1 / (1 + l2[part] * steps[:, 0] * share)


def relabel(examples: Examples, places: NDArray[np.int32]) -> None:
    """Exchange the columns in place: column c becomes `places[c]`."""
    labels = examples.labels
    machine_code.compiled(_relabel, labels.offsets, labels.columns, labels.values, examples.weights, places)


def _relabel(offsets: NDArray[np.int64], columns: Counts, values: Floats, weights: Floats, places: Counts) -> None:
    """… and keep each row's cells in the order of their columns; `weights` may be empty."""
    for row in range(len(offsets) - 1):
        first, end = offsets[row], offsets[row + 1]
        for cell in range(first, end):
            columns[cell] = places[columns[cell]]
        if end - first > SHORT:
            order = np.argsort(columns[first:end])
            columns[first:end], values[first:end] = columns[first:end][order], values[first:end][order]
            if len(weights):
                weights[first:end] = weights[first:end][order]
            continue
        for cell in range(first + 1, end):
            place = cell
            while place > first and columns[place - 1] > columns[place]:
                columns[place - 1], columns[place] = columns[place], columns[place - 1]
                values[place - 1], values[place] = values[place], values[place - 1]
                if len(weights):
                    weights[place - 1], weights[place] = weights[place], weights[place - 1]
                place -= 1


def column_counts(labels: Sparse) -> Counts:
    """(width,) cells of each column."""
    counts = np.zeros(labels.width, np.int32)
    machine_code.compiled(_count, labels.columns, counts)
    return counts


def _count(columns: Counts, counts: Counts) -> None:
    for column in columns:
        counts[column] += 1


def moments(labels: Sparse) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """(2, rows) and (2, width): cells and sum of the values of each row and of each column; and the sum of all squares."""
    by_row, by_column = np.zeros((2, len(labels))), np.zeros((2, labels.width))
    squares = machine_code.compiled(_add_up, labels.offsets, labels.columns, labels.values, by_row, by_column)
    return by_row, by_column, float(squares)


def _add_up(
    offsets: NDArray[np.int64],
    columns: Counts,
    values: Floats,
    by_row: NDArray[np.float64],
    by_column: NDArray[np.float64],
) -> float:
    squares = 0.0
    for row in range(len(offsets) - 1):
        for cell in range(offsets[row], offsets[row + 1]):
            value, column = np.float64(values[cell]), columns[cell]
            by_row[0, row] += 1
            by_row[1, row] += value
            by_column[0, column] += 1
            by_column[1, column] += value
            squares += value * value
    return squares


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
