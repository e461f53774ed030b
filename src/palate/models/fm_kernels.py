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
from palate.models.fm_tiles import add, blend, prefetch, products, step

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


@njit(inline="always", **fast)
def _loaded(own: Any, rows: Any, row: int, last: int) -> Any:
    """Copy the factors of a row; its bias, and the square of its factors."""
    square = np.float32(0)
    for f in range(last):
        own[f] = rows[row, f]
        square += own[f] * own[f]
    return rows[row, last], square


@njit(inline="always", **fast)
def _turned(place: int, stride: int, count: int) -> int:
    """The place that comes next: see `places`."""
    place += stride
    return place - count if place >= count else place


@njit(inline="always", **fast)
def _judged(raw: Any, y: Any, weight: Any, weighted: bool, logistic: bool, total: float, product: float) -> Any:
    """The error of a score, and what the batch comes to with its loss: `total` plus the logarithm of `product`."""
    if not logistic:
        error = y - raw
        return error, total + weight * (error * error), product
    one, zero = np.float32(1), np.float32(0)
    tail = np.exp(-abs(raw))
    error = y - (one if raw >= zero else tail) / (one + tail)
    total += weight * (max(raw, zero) - y * raw)
    if weighted:
        return error, total + weight * np.log(one + tail), product
    return error, total, product * (one + tail)  # one logarithm a batch: 2 to the 512 is still a number


@cache
def _pairs(width: int, adagrad: bool, keep: bool) -> Kernel:
    last, bytes_of_row, share_of_square = width - 1, 4 * width, np.float32(1 / width)

    # fmt: off
    def learn(
        visit: Any, offsets: Any, columns: Any, labels: Any, weights: Any, bounds: Any, turn: Any, base: Any,
        users: Any, items: Any, user_steps: Any, item_steps: Any, logistic: Any, losses: Any,
    ) -> int:
        # fmt: on
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
            own_bias, own_square = _loaded(own, users, u, last)
            for _ in range(count):
                prefetch(theirs + np.int64(columns[first + ahead]) * bytes_of_row, width)
                i, y = np.int64(columns[first + place]), labels[first + place]
                weight = np.float32(weights[first + place]) if weighted else one
                place, ahead = _turned(place, stride, count), _turned(ahead, stride, count)
                row = theirs + i * bytes_of_row
                dot, square = products(mine, row, width)
                bias = items[i, last]
                raw = base + own_bias + bias + dot
                error, total, product = _judged(raw, y, weight, weighted, logistic, total, product)
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
            own[last] = own_bias
            for f in range(width):
                users[u, f] = own[f]
            own[last] = zero
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


SQUARED, LOGISTIC, PAIRWISE = 0, 1, 2
"""The losses, as kernels have them."""

TRIES = 8
"""Draws of an item that the person likes less than theirs; after so many that they like as well, the example is left out."""


def readable_fields(
    visit: NDArray[np.int32],
    offsets: NDArray[np.int64],
    columns: NDArray[np.int32],
    labels: Floats,
    weights: Floats,
    bounds: tuple[int, int],
    turn: tuple[int, int],
    base: np.float32,
    rows: Floats,
    steps: Floats,
    starts: tuple[int, int],
    user_tags: tuple[Any, Any, Any],
    item_tags: tuple[Any, Any, Any],
    event_tags: tuple[Any, Any, Any],
    room: int,
    touched: Floats,
    loss: int,
    losses: Floats,
    adagrad: bool = False,
) -> int:
    """One pass of a factorization machine with any fields over these examples, as it is meant.

    All rows are in one table: those of the users, from `starts[0]` those of the items, from `starts[1]` those of the labels.
    Tags are (offsets, rows, shares) by user, by item, by example: see `fields.Tags`. The score is
    base + Σ x b + ½(|Σ x v|² − Σ x²|v|²) over the rows of an example with their shares x, which is the sum of the products of
    all pairs (Rendle, 2010). `touched` counts the examples of each row. With PAIRWISE the score of an item with a label above
    a half is compared with that of another in `bounds`, drawn by chance (Rendle, Freudenthaler, Gantner and Schmidt-Thieme,
    "BPR: Bayesian Personalized Ranking from Implicit Feedback", 2009). `room` is the most rows of one example.
    """
    entries = []
    for u in visit:
        first, end = offsets[u] + np.searchsorted(columns[offsets[u] : offsets[u + 1]], bounds)
        state = _seeded(turn[1], int(u))
        for place in first + places(int(end - first), *turn):
            y, weight = float(labels[place]), weights[place] if len(weights) else 1.0
            takes = [_taken(rows, u, columns[place], place, starts, user_tags, item_tags, event_tags)]
            if loss == PAIRWISE:
                other, state = (
                    _other(state, columns[first:end], labels[first:end], y, bounds) if y > 0.5 else (-1, state)
                )
                if other < 0:
                    continue
                takes.append(_taken(rows, u, other, place, starts, user_tags, item_tags, event_tags))
            raws = [float(base) + _machine(rows, *take)[0] for take in takes]
            raw = raws[0] - raws[1] if loss == PAIRWISE else raws[0]
            y = 1.0 if loss == PAIRWISE else y
            error = y - (raw if loss == SQUARED else 1 / (1 + np.exp(-raw)))
            value = error * error if loss == SQUARED else np.logaddexp(0, raw) - y * raw
            entries.append((weight * value, weight))
            error *= weight
            forces = [_forces(rows, steps, *take, error, adagrad) for take in takes]
            curvature = weight * (1.0 if loss == SQUARED else 0.25)
            error /= 1 + curvature * sum(float(length @ force) for _, (length, _, _), force in forces)
            for sign, (chosen, shares), (total, rates, _) in zip((1, -1), takes, forces, strict=False):
                _move(rows, chosen, shares, total, rates, sign * error)
                np.add.at(touched, chosen, 1)
    return _batches(entries, losses)


def _taken(rows: Floats, u: int, i: int, place: int, starts: tuple[int, int], *tags: Any) -> tuple[Any, Any]:
    """The rows of an example, and their shares: user, the user's labels, item, the item's labels, the event's labels."""
    found: list[tuple[int, float]] = [(u, 1.0)]
    for number, (owner, (offsets, of, shares)) in enumerate(zip((u, i, place), tags, strict=True)):
        found += [(starts[0] + i, 1.0)] if number == 1 else []
        if len(offsets) > 1:
            cells = slice(offsets[owner], offsets[owner + 1])
            found += zip((starts[1] + of[cells]).tolist(), shares[cells].tolist(), strict=True)
    return np.array([row for row, _ in found]), np.array([share for _, share in found])


def _machine(rows: Floats, chosen: Any, shares: Any) -> tuple[float, Any]:
    """The score without its base, and the sum of the vectors."""
    vectors, biases = rows[chosen, :-1] * shares[:, np.newaxis], rows[chosen, -1] * shares
    total = vectors.sum(axis=0, dtype=np.float64)
    return float(biases.sum() + (total @ total - (vectors**2).sum()) / 2), total


def _forces(rows: Floats, steps: Floats, chosen: Any, shares: Any, error: float, adagrad: bool) -> tuple[Any, Any, Any]:
    """The sum of the vectors, the rates of each row, and the square of the score's gradient by each row."""
    total = _machine(rows, chosen, shares)[1]
    force = shares**2 * (1 + ((total - shares[:, np.newaxis] * rows[chosen, :-1]) ** 2).sum(axis=1))
    squares = error * error * force / rows.shape[1]
    rates = np.array([_rate(steps[row], square, adagrad) for row, square in zip(chosen, squares, strict=True)]).T
    return total, rates, force


def _move(rows: Floats, chosen: Any, shares: Any, total: Any, rates: Any, error: float) -> None:
    for row, share, length, bias_kept, kept in zip(chosen, shares, *rates, strict=True):
        vector, bias = rows[row, :-1].astype(np.float64), rows[row, -1]
        rows[row, :-1] = (vector + length * error * share * (total - share * vector)) * kept
        rows[row, -1] = (bias + length * error * share) * bias_kept


def _other(state: int, columns: Any, labels: Floats, label: float, bounds: tuple[int, int]) -> tuple[int, int]:
    """An item that the person likes less than one with this label, −1 if there seems to be none; and the next state."""
    for _ in range(TRIES):
        state = _next(state)
        item = bounds[0] + (((state * 2685821657736338717 % 2**64) >> 32) * (bounds[1] - bounds[0]) >> 32)
        place = int(np.searchsorted(columns, item))
        if place == len(columns) or columns[place] != item or labels[place] < label:
            return item, state
    return -1, state


def _seeded(turn: int, user: int) -> int:
    return ((turn + 1) * 0x9E3779B97F4A7C15 + (user + 1) * 0xBF58476D1CE4E5B9) % 2**64 | 1


def _next(state: int) -> int:
    """Xorshift* (Marsaglia 2003, Vigna 2016)."""
    state ^= state >> 12
    state ^= (state << 25) % 2**64
    return state ^ state >> 27


@njit(inline="always", **fast)
def _first_state(turn: int, user: int) -> Any:
    """`_seeded`"""
    seed = np.uint64(turn + 1) * np.uint64(0x9E3779B97F4A7C15)
    return (seed + np.uint64(user + 1) * np.uint64(0xBF58476D1CE4E5B9)) | np.uint64(1)


@njit(inline="always", **fast)
def _shifted(state: Any) -> Any:
    """`_next`"""
    state ^= state >> np.uint64(12)
    state ^= state << np.uint64(25)
    return state ^ (state >> np.uint64(27))


@njit(inline="always", **fast)
def _add_tags(chosen: Any, shares: Any, count: int, owner: int, start: int, tags: Any) -> int:
    """The number of rows after the tags of this owner are added."""
    if len(tags[0]) > 1:
        for place in range(tags[0][owner], tags[0][owner + 1]):
            chosen[count] = start + tags[1][place]
            shares[count] = tags[2][place]
            count += 1
    return count


@njit(inline="always", **fast)
def _evaluated(rows: Any, chosen: Any, shares: Any, count: int, total: Any, width: int) -> Any:
    """`_machine`, with the sum of the vectors in `total`; and its square."""
    for f in range(width):
        total[f] = 0
    address, table, biases, own = total.ctypes.data, rows.ctypes.data, np.float32(0), np.float32(0)
    for m in range(count):
        share = shares[m]
        own += share * share * add(address, table + chosen[m] * (4 * width), share, width)
        biases += share * rows[chosen[m], width - 1]
    square, _ = products(address, address, width)
    return biases + np.float32(0.5) * (square - own), square


@njit(inline="always", **fast)
def _paced_forces(example: Any, square: Any, error: Any, rates: Any, adagrad: bool, width: int) -> Any:
    """`_forces`, with the rates in `rates`; Σ length · force."""
    rows, steps, chosen, shares, count, total = example
    one, two, zero, found = np.float32(1), np.float32(2), np.float32(0), np.float32(0)
    address, table = total.ctypes.data, rows.ctypes.data
    for m in range(count):
        share = shares[m]
        dot, own = products(address, table + chosen[m] * (4 * width), width)
        force = share * share * (one + max(square + share * (share * own - two * dot), zero))
        length, bias_kept, kept = _paced(steps, chosen[m], error * error * force / np.float32(width), adagrad)
        rates[m, 0], rates[m, 1], rates[m, 2] = length, bias_kept, kept
        found += length * force
    return found


@njit(inline="always", **fast)
def _moved(
    rows: Any, chosen: Any, shares: Any, count: int, total: Any, rates: Any, error: Any, touched: Any, width: int
) -> None:
    """`_move`, and what was moved is counted."""
    address, table, one = total.ctypes.data, rows.ctypes.data, np.float32(1)
    for m in range(count):
        by, kept = rates[m, 0] * error * shares[m], rates[m, 2]
        bias = (rows[chosen[m], width - 1] + by) * rates[m, 1]
        blend(table + chosen[m] * (4 * width), address, kept * (one - by * shares[m]), kept * by, bias, width)
        touched[chosen[m]] += one


@njit(**fast)
def _drawn(states: Any, columns: Any, labels: Any, first: int, end: int, label: Any, bounds: Any) -> Any:
    """`_other`"""
    for _ in range(TRIES):
        states[0] = _shifted(states[0])
        draw = (states[0] * np.uint64(2685821657736338717)) >> np.uint64(32)
        item = bounds[0] + np.int64((draw * np.uint64(bounds[1] - bounds[0])) >> np.uint64(32))
        place, after = _range(columns, first, end, item, item + 1)
        if place == after or labels[place] < label:
            return np.int64(item)
    return np.int64(-1)


@njit(inline="always", **fast)
def _residual(raw: Any, y: Any, loss: int) -> Any:
    """The error, and the loss."""
    if loss == SQUARED:
        return y - raw, (y - raw) * (y - raw)
    one, zero = np.float32(1), np.float32(0)
    tail = np.exp(-abs(raw))
    return y - (one if raw >= zero else tail) / (one + tail), max(raw, zero) - y * raw + np.log(one + tail)


def fields(width: int, adagrad: bool, keep: bool = True) -> Kernel:
    """`readable_fields` in machine code for rows of this width."""
    return _fields(width, adagrad, keep)


@cache
def _fields(width: int, adagrad: bool, keep: bool) -> Kernel:
    # fmt: off
    def learn(
        visit: Any, offsets: Any, columns: Any, labels: Any, weights: Any, bounds: Any, turn: Any, base: Any, rows: Any,
        steps: Any, starts: Any, user_tags: Any, item_tags: Any, event_tags: Any, room: Any, touched: Any, loss: Any, losses: Any,
    ) -> int:
        # fmt: on
        one, curvature = np.float32(1), np.float32(1 if loss == SQUARED else 0.25)
        chosen, shares = np.zeros((2, room), np.int64), np.ones((2, room), np.float32)
        rates, totals = np.zeros((2, room, 3), np.float32), np.zeros((2, width), np.float32)
        sizes, squares, states = np.zeros(2, np.int64), np.zeros(2, np.float32), np.zeros(1, np.uint64)
        compared = 2 if loss == PAIRWISE else 1
        total, weighed, done, batch = 0.0, 0.0, 0, 0
        for u in visit:
            first, end = _range(columns, offsets[u], offsets[u + 1], bounds[0], bounds[1])
            count = end - first
            if not count:
                continue
            stride, at = turn[0] % count, turn[1] % count
            states[0] = _first_state(turn[1], u)
            for side in range(compared):
                chosen[side, 0] = u
                of_user = _add_tags(chosen[side], shares[side], 1, u, starts[1], user_tags)
            for _ in range(count):
                place = first + at
                at = _turned(at, stride, count)
                y, weight = labels[place], np.float32(weights[place]) if len(weights) else one
                item, raw, force = np.int64(columns[place]), np.float32(0), np.float32(0)
                for side in range(compared):
                    if side == 1:
                        item = _drawn(states, columns, labels, first, end, y, bounds) if y > 0.5 else np.int64(-1)
                        if item < 0:
                            break
                    chosen[side, of_user], shares[side, of_user] = starts[0] + item, one
                    size = _add_tags(chosen[side], shares[side], of_user + 1, item, starts[1], item_tags)
                    sizes[side] = _add_tags(chosen[side], shares[side], size, place, starts[1], event_tags)
                    score, squares[side] = _evaluated(rows, chosen[side], shares[side], sizes[side], totals[side], width)
                    raw += score if side == 0 else -score
                if item < 0:
                    continue
                error, value = _residual(raw, one, loss) if compared == 2 else _residual(base + raw, y, loss)
                total, weighed, done = total + weight * value, weighed + float(weight), done + 1
                if done == BATCH:
                    losses[batch] = total / max(weighed, 1e-30)
                    batch += 1
                    total, weighed, done = 0.0, 0.0, 0
                error *= weight
                for side in range(compared):
                    own = rows, steps, chosen[side], shares[side], sizes[side], totals[side]
                    force += _paced_forces(own, squares[side], error, rates[side], adagrad, width)
                error /= one + curvature * weight * force
                for side in range(compared):
                    by = error if side == 0 else -error
                    _moved(rows, chosen[side], shares[side], sizes[side], totals[side], rates[side], by, touched, width)
        if done:
            losses[batch] = total / max(weighed, 1e-30)
            batch += 1
        return batch

    return _in_machine_code(learn, keep)
