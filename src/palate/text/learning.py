"""Learns the model of `text/category.py` from documents whose classes are known, or known in part.

Softmax regression with a Gaussian prior by limited-memory BFGS (Nocedal, "Updating quasi-Newton matrices with limited
storage", 1980). Targets are probabilities, so that a document may count for several classes: what a teacher says of it, or
what remains when somebody only said what it is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from palate.text import tokens
from palate.text.category import CLASSES, Weights

Number = TypeVar("Number", np.float32, np.float64)

MEMORY = 6
"""Steps whose curvature is kept."""

CALIBRATION_ROUNDS = 30

_SHORTEST = 1e-4
_ARMIJO = 1e-4


def fit(
    features: tokens.Features,
    targets: NDArray[np.float32],
    importance: NDArray[np.float32],
    *,
    l2: float,
    rounds: int,
    least: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The bias (8,) and the table (tokens.SIZE, 8), before it is stored in bytes.

    `targets`: (n, 8) rows that sum to 1. `importance`: (n,) how much a document counts. Features of fewer than `least` documents
    are left out. Each number is the same on every run.
    """
    used, known = _known(features, least)
    count, by_feature = len(used), transposed(known, len(used))

    def loss(flat: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        return _loss(known, by_feature, targets, importance, flat.reshape(count + 1, len(CLASSES)), l2)

    found = minimise(loss, np.zeros((count + 1) * len(CLASSES), np.float32), rounds).reshape(count + 1, len(CLASSES))
    table = np.zeros((tokens.SIZE, len(CLASSES)), np.float32)
    table[used] = found[:-1]
    return found[-1].astype(np.float32), table


def stored(bias: NDArray[np.float32], table: NDArray[np.float32]) -> Weights:
    """The model with each number of the table in a byte."""
    step = np.float32(max(float(np.abs(table).max()), 1e-9) / 127)
    return Weights(bias.astype(np.float32), step, np.rint(table / step).astype(np.int8))


def calibration(likely: NDArray[np.float32], allowed: NDArray[np.bool_], importance: NDArray[np.float64]) -> float:
    """The scale of a model's logits by which its probabilities come true.

    `likely`: (n, 8) what it says of documents that it hasn't learned from; `allowed`: (n, 8) the classes that each may have
    (Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", 2017).
    """
    logits = np.log(np.maximum(likely, 1e-9)).astype(np.float64)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scaled = logits * np.exp(flat[0])
        probable = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probable /= probable.sum(axis=1, keepdims=True)
        right = probable * allowed
        sums = np.maximum(right.sum(axis=1), 1e-12)
        error = (probable - right / sums[:, None]) * importance[:, None]
        return float(-(importance * np.log(sums)).sum()), np.array([(error * scaled).sum()])

    return float(np.exp(minimise(loss, np.zeros(1), CALIBRATION_ROUNDS)[0]))


def calibrated(weights: Weights, scale: float) -> Weights:
    """The model with such a scale in it."""
    return Weights(weights.bias * np.float32(scale), np.float32(weights.step * scale), weights.table)


def minimise(
    loss: Callable[[NDArray[Number]], tuple[float, NDArray[Number]]], start: NDArray[Number], rounds: int
) -> NDArray[Number]:
    """Where a smooth function, given with its gradient, is about smallest after so many rounds."""
    place, (value, slope) = start, loss(start)
    pairs: deque[tuple[NDArray[Number], NDArray[Number]]] = deque(maxlen=MEMORY)
    for _ in range(rounds):
        direction = -_newton(slope, pairs)
        length = 1.0 if pairs else 1.0 / max(float(np.sqrt(slope @ slope)), 1.0)
        descent = float(slope @ direction)
        while True:
            there = place + place.dtype.type(length) * direction
            next_value, next_slope = loss(there)
            if next_value <= value + _ARMIJO * length * descent or length < _SHORTEST:
                break
            length /= 2
        if next_value >= value:
            break
        moved, turned = there - place, next_slope - slope
        if moved @ turned > 0:
            pairs.append((moved, turned))
        place, value, slope = there, next_value, next_slope
    return place


def _newton(slope: NDArray[Number], pairs: deque[tuple[NDArray[Number], NDArray[Number]]]) -> NDArray[Number]:
    """The slope times the inverse curvature that the last steps showed: the two-loop recursion."""
    slope = slope.copy()
    shares: list[float] = []
    for moved, turned in reversed(pairs):
        share = float(moved @ slope) / float(moved @ turned)
        slope -= slope.dtype.type(share) * turned
        shares.append(share)
    if pairs:
        moved, turned = pairs[-1]
        slope *= slope.dtype.type(float(moved @ turned) / float(turned @ turned))
    for (moved, turned), share in zip(pairs, reversed(shares), strict=True):
        slope += slope.dtype.type(share - float(turned @ slope) / float(moved @ turned)) * moved
    return slope


def _known(features: tokens.Features, least: int) -> tuple[NDArray[np.int64], tokens.Features]:
    """The features that enough documents have, and the documents with those alone, renumbered."""
    counts = np.bincount(features.numbers, minlength=tokens.SIZE)
    used = np.argsort(-counts, kind="stable")[: int((counts >= least).sum())]  # those that are read often lie together
    place = np.full(tokens.SIZE, -1, np.int64)
    place[used] = np.arange(len(used))
    kept = place[features.numbers] >= 0
    offsets = np.concatenate([[0], np.cumsum(kept)])[features.offsets]
    return used, tokens.Features(offsets, place[features.numbers[kept]], features.values[kept])


def transposed(features: tokens.Features, count: int) -> tokens.Features:
    """The same with the roles of documents and features exchanged."""
    order = np.argsort(features.numbers, kind="stable")
    documents = np.repeat(np.arange(len(features.offsets) - 1), np.diff(features.offsets))
    offsets = np.searchsorted(features.numbers[order], np.arange(count + 1))
    return tokens.Features(offsets, documents[order], features.values[order])


def _loss(
    features: tokens.Features,
    by_feature: tokens.Features,
    targets: NDArray[np.float32],
    importance: NDArray[np.float32],
    weights: NDArray[np.float32],
    l2: float,
) -> tuple[float, NDArray[np.float32]]:
    """Cross entropy and prior, with their gradient in the weights (features then bias)."""
    from palate.text import learning_kernels

    table = weights[:-1]
    logits = learning_kernels.product(*features, table) + weights[-1]
    logits -= logits.max(axis=1, keepdims=True)
    log_likely = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    error = ((np.exp(log_likely) - targets) * importance[:, None]).astype(np.float32)
    lost = -(importance * (targets * log_likely).sum(axis=1)).sum(dtype=np.float64) + 0.5 * l2 * float(
        np.vdot(table, table)
    )
    slope = np.vstack([learning_kernels.product(*by_feature, error) + np.float32(l2) * table, error.sum(axis=0)])
    return float(lost), slope.ravel()


def readable_product(features: tokens.Features, table: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the kernel `product` computes, in NumPy."""
    rows = np.repeat(np.arange(len(features.offsets) - 1), np.diff(features.offsets))
    sums = np.zeros((len(features.offsets) - 1, table.shape[1]), np.float32)
    np.add.at(sums, rows, features.values[:, None] * table[features.numbers])
    return sums
