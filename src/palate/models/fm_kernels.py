"""The loops of the factorization machine in machine code, and beside each its twin, which says the same in NumPy.

Importing this module imports numba. Examples lie by user (`palate.matrix.Sparse`); a kernel takes some users (`visit`) and of
each the examples whose item is in a range of rows, so that two threads that share neither users nor ranges share no row. A row
is (width,): its factors, zeros, its bias (see `fm_tiles`).

Steps are implicit (Toulis and Airoldi, "Asymptotic and Finite-Sample Properties of Estimators Based on Stochastic Gradients",
2017): the error counts as it will be after the step, to first order, and regularisation divides instead of subtracting, so that
no rate and no l2 overshoots.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from palate.models.fm_learning import BATCH
from palate.models.fm_tiles import prefetch, products, step

AHEAD = 6
"""Examples between asking for the row of an item and using it."""

Floats = NDArray[np.float32]
Kernel = Callable[..., int]

fast: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}


def pairs(width: int, adagrad: bool, keep: bool = True) -> Kernel:
    """`readable_pairs` in machine code for rows of this width, kept on disk between processes if `keep` and if it can be."""
    return _pairs(width, adagrad, keep)


def readable_pairs(
    visit: NDArray[np.int32],
    offsets: NDArray[np.int64],
    columns: NDArray[np.int32],
    labels: Floats,
    weights: Floats,
    bounds: tuple[int, int],
    turn: tuple[int, int],
    base: np.float32,
    users: Floats,
    items: Floats,
    user_steps: Floats,
    item_steps: Floats,
    logistic: bool,
    losses: Floats,
    adagrad: bool = False,
) -> int:
    """One pass of stochastic gradient descent over the examples of these users with items in `bounds`, as it is meant.

    base + user's bias + item's bias + ⟨user, item⟩. `weights` is (N,) or empty for 1 everywhere. `user_steps` and `item_steps`
    (rows, 4) say for each row the length of its steps, what regularisation leaves of its bias and of its factors, and 0. With
    Adagrad they are the length, what regularisation takes of either at length 1, and the sum of the mean squares of the
    gradients so far, which is updated: one sum a row (Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011, with a
    row's coordinates in common). `turn` orders a user's examples, see `places`. Writes the mean loss of each batch to `losses`
    and returns how many.
    """
    factors = users.shape[1] - 1
    curvature = 0.25 if logistic else 1.0  # the largest second derivative of the loss
    entries = []
    for u in visit:
        first, end = offsets[u] + np.searchsorted(columns[offsets[u] : offsets[u + 1]], bounds)
        for place in first + places(int(end - first), *turn):
            i, y, weight = columns[place], labels[place], weights[place] if len(weights) else 1.0
            user, item = users[u].astype(np.float64), items[i].astype(np.float64)
            (p, user_bias), (q, item_bias) = (user[:-1], user[-1]), (item[:-1], item[-1])
            raw = base + user_bias + item_bias + p @ q
            error = y - (1 / (1 + np.exp(-raw)) if logistic else raw)
            loss = np.logaddexp(0, raw) - y * raw if logistic else error * error
            entries.append((weight * loss, weight))
            error *= weight
            squares = error * error * np.array([1 + q @ q, 1 + p @ p]) / (factors + 1)
            rates = [
                _rate(steps, square, adagrad)
                for steps, square in zip((user_steps[u], item_steps[i]), squares, strict=True)
            ]
            (length, bias_kept, kept), (its_length, its_bias_kept, its_kept) = rates
            error /= 1 + curvature * weight * (length * (1 + q @ q) + its_length * (1 + p @ p))
            users[u] = [*(p + length * error * q) * kept, (user_bias + length * error) * bias_kept]
            items[i] = [*(q + its_length * error * p) * its_kept, (item_bias + its_length * error) * its_bias_kept]
    return _batches(entries, losses)


def places(count: int, prime: int, start: int) -> NDArray[np.int64]:
    """The order in which `count` examples are taken: every (prime mod count)th, round and round, each once.

    >>> places(5, 1_000_000_007, 3).tolist()
    [3, 0, 2, 4, 1]
    """
    assert count < prime, "A prime that divides the count would not come to all."
    return (start + np.arange(count) * (prime % max(count, 1))) % max(count, 1)


def _rate(steps: Floats, square: float, adagrad: bool) -> tuple[float, float, float]:
    """Length of a step, and what is left of bias and factors."""
    length, bias, factors, _ = steps.tolist()
    if not adagrad:
        return length, bias, factors
    steps[3] += square
    length /= np.sqrt(steps[3])
    return length, 1 / (1 + length * bias), 1 / (1 + length * factors)


def _batches(entries: list[tuple[float, float]], losses: Floats) -> int:
    batches = [np.array(entries[start : start + BATCH]) for start in range(0, len(entries), BATCH)]
    losses[: len(batches)] = [batch[:, 0].sum() / max(batch[:, 1].sum(), 1e-30) for batch in batches]
    return len(batches)


@njit(inline="always", **fast)
def _range(columns: Any, first: int, end: int, low: int, high: int) -> Any:
    """Where the columns from `low` to below `high` are among the ascending ones from `first` to below `end`."""
    low_end = end
    while first < low_end:
        middle = (first + low_end) >> 1
        if columns[middle] < low:
            first = middle + 1
        else:
            low_end = middle
    start = first
    while first < end:
        middle = (first + end) >> 1
        if columns[middle] < high:
            first = middle + 1
        else:
            end = middle
    return start, end


@njit(inline="always", **fast)
def _paced(steps: Any, row: int, square: float, adagrad: bool) -> Any:
    """`_rate`"""
    length, bias, factors = steps[row, 0], steps[row, 1], steps[row, 2]
    if adagrad:
        one = np.float32(1)
        steps[row, 3] += square
        length /= np.sqrt(steps[row, 3])
        bias, factors = one / (one + length * bias), one / (one + length * factors)
    return length, bias, factors


@cache
def _pairs(width: int, adagrad: bool, keep: bool) -> Kernel:
    last, bytes_of_row, share_of_square = width - 1, 4 * width, np.float32(1 / width)

    def learn(
        visit: Any,
        offsets: Any,
        columns: Any,
        labels: Any,
        weights: Any,
        bounds: Any,
        turn: Any,
        base: Any,
        users: Any,
        items: Any,
        user_steps: Any,
        item_steps: Any,
        logistic: Any,
        losses: Any,
    ) -> int:
        zero, one, two = np.float32(0), np.float32(1), np.float32(2)
        curvature = np.float32(0.25) if logistic else one
        weighted = len(weights) > 0
        own = np.zeros(width, np.float32)
        mine, theirs = own.ctypes.data, items.ctypes.data
        total, weighed, product, done, batch = 0.0, 0.0, 1.0, 0, 0
        for u in visit:
            first, end = _range(columns, offsets[u], offsets[u + 1], bounds[0], bounds[1])
            count = end - first
            if not count:
                continue
            stride = turn[0] % count
            place, ahead = turn[1] % count, (turn[1] + AHEAD * stride) % count
            own_square = zero
            for f in range(last):
                own[f] = users[u, f]
                own_square += own[f] * own[f]
            own_bias = users[u, last]
            for _ in range(count):
                prefetch(theirs + np.int64(columns[first + ahead]) * bytes_of_row, width)
                ahead += stride
                ahead -= count if ahead >= count else 0
                i, y = np.int64(columns[first + place]), labels[first + place]
                weight = np.float32(weights[first + place]) if weighted else one
                place += stride
                place -= count if place >= count else 0
                row = theirs + i * bytes_of_row
                dot, square = products(mine, row, width)
                bias = items[i, last]
                raw = base + own_bias + bias + dot
                if logistic:
                    tail = np.exp(-abs(raw))
                    error = y - (one if raw >= zero else tail) / (one + tail)
                    total += weight * (max(raw, zero) - y * raw)
                    if weighted:
                        total += weight * np.log(one + tail)
                    else:
                        product *= one + tail  # one logarithm a batch: 2 to the 512 is still a number
                else:
                    error = y - raw
                    total += weight * (error * error)
                weighed += float(weight)
                done += 1
                if done == BATCH:
                    losses[batch] = (total + np.log(product)) / max(weighed, 1e-30)
                    batch += 1
                    total, weighed, product, done = 0.0, 0.0, 1.0, 0
                error *= weight
                spread = share_of_square * error * error
                length, bias_kept, kept = _paced(user_steps, u, spread * (one + square), adagrad)
                its_length, its_bias_kept, its_kept = _paced(item_steps, i, spread * (one + own_square), adagrad)
                error /= one + curvature * weight * (length * (one + square) + its_length * (one + own_square))
                by, its_by = length * error, its_length * error
                own_bias = (own_bias + by) * bias_kept
                # the square of the moved row, without going over it once more
                own_square = max(kept * kept * (own_square + by * (two * dot + by * square)), zero)
                step(mine, row, by, its_by, kept, its_kept, (bias + its_by) * its_bias_kept, width)
            for f in range(last):
                users[u, f] = own[f]
            users[u, last] = own_bias
        if done:
            losses[batch] = (total + np.log(product)) / max(weighed, 1e-30)
            batch += 1
        return batch

    return _in_machine_code(learn, keep)


def _in_machine_code(function: Kernel, keep: bool) -> Kernel:
    try:
        return cast(Kernel, njit(function, cache=keep, **fast))
    except RuntimeError:  # numba found no folder at all that it may write
        return cast(Kernel, njit(function, **fast))
