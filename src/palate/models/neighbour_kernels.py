"""The loops of item-kNN in machine code; `neighbours.readable` says in NumPy what they do.

Importing this module imports numba. Places come as unsigned numbers: with signed ones the loops ask at each step whether a
place counts from the end, and take twice the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function) -> Function:
    """In machine code, kept on disk between processes where there is a folder for it."""
    try:
        return cast(Function, njit(function, cache=True, nogil=True))
    except RuntimeError:  # numba found no folder that it may write
        return cast(Function, njit(function, nogil=True))


@_compiled
def strongest(
    first: int,
    last: int,
    item_offsets: Any,
    item_users: Any,
    item_values: Any,
    user_offsets: Any,
    user_items: Any,
    user_values: Any,
    row_norms: Any,
    column_norms: Any,
    shrinkage: float,
    columns: Any,
    values: Any,
    counts: Any,
) -> None:
    """Fill the rows `first` to `last` − 1 of `columns` and `values` (I, k) and of `counts` (I,)."""
    sums = np.zeros(len(counts), np.float64)
    touched = np.empty(len(counts), np.uint32)
    for item in range(first, last):
        users = item_users[item_offsets[item] : item_offsets[item + 1]]
        weights = item_values[item_offsets[item] : item_offsets[item + 1]]
        n = _summed(users, weights, user_offsets, user_items, user_values, sums, touched)
        sums[item] = 0
        counts[item] = _kept(touched[:n], sums, row_norms[item], column_norms, shrinkage, columns[item], values[item])


@_compiled
def _summed(
    users: Any, weights: Any, user_offsets: Any, user_items: Any, user_values: Any, sums: Any, touched: Any
) -> int:
    """Add up what the users of one item did with all others; return how many items `touched` names."""
    work = np.uint64(0)
    for user in users:
        work += user_offsets[user + np.uint64(1)] - user_offsets[user]
    every = work > len(sums) // 2  # then noting which are touched costs more than going through all
    n = np.uint64(0)
    for place in range(len(users)):
        user, weight = users[place], weights[place]
        cells = range(user_offsets[user], user_offsets[user + np.uint64(1)])
        if every:
            for cell in cells:
                sums[user_items[cell]] += weight * user_values[cell]
        else:
            for cell in cells:
                item = user_items[cell]
                before = sums[item]
                touched[n] = item
                n += np.uint64(before == 0)
                sums[item] = before + weight * user_values[cell]
    if every:
        for item in range(len(sums)):
            touched[item] = item
    return len(sums) if every else int(n)


@_compiled
def _kept(
    items: Any, sums: Any, row_norm: float, column_norms: Any, shrinkage: float, columns: Any, values: Any
) -> int:
    """Put the strongest into a heap, the weakest on top, and the sums back to 0; return how many there are."""
    size = 0
    for item in items:
        total, sums[item] = sums[item], 0.0
        # without shrinkage the columns' norms are in the users' values: looking them up here is what would take longest
        similar = np.float32(
            total / row_norm if shrinkage == 0 else total / (row_norm * column_norms[item] + shrinkage)
        )
        if similar == 0:
            continue
        if size < len(columns):
            _rise(columns, values, size, item, similar)
            size += 1
        elif _is_weaker(values[0], columns[0], similar, item):
            _sink(columns, values, item, similar)
    return size


@_compiled
def _is_weaker(value: Any, column: Any, other: Any, other_column: Any) -> Any:
    """By size; of equal ones the later column is the weaker."""
    return abs(value) < abs(other) or (abs(value) == abs(other) and column > other_column)


@_compiled
def _rise(columns: Any, values: Any, size: int, column: Any, value: Any) -> None:
    """Add to a heap of `size`."""
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if _is_weaker(values[parent], columns[parent], value, column):
            break
        columns[place], values[place] = columns[parent], values[parent]
        place = parent
    columns[place], values[place] = column, value


@_compiled
def _sink(columns: Any, values: Any, column: Any, value: Any) -> None:
    """Take the place of the top of a full heap."""
    place, child = 0, 1
    while child < len(columns):
        other = child + 1
        if other < len(columns) and _is_weaker(values[other], columns[other], values[child], columns[child]):
            child = other
        if not _is_weaker(values[child], columns[child], value, column):
            break
        columns[place], values[place] = columns[child], values[child]
        place, child = child, 2 * child + 1
    columns[place], values[place] = column, value


@_compiled
def gramian(
    first: int,
    last: int,
    item_offsets: Any,
    item_users: Any,
    item_values: Any,
    user_offsets: Any,
    user_items: Any,
    user_values: Any,
    result: Any,
) -> None:
    """Fill the rows `first` to `last` − 1 of XᵀX."""
    sums = np.zeros(len(result), np.float64)
    for item in range(first, last):
        for place in range(item_offsets[item], item_offsets[item + 1]):
            user, weight = item_users[place], item_values[place]
            for cell in range(user_offsets[user], user_offsets[user + np.uint64(1)]):
                sums[user_items[cell]] += weight * user_values[cell]
        result[item] = sums
        sums[:] = 0
