"""What people corrected, learned on top of the shipped model of `text/category.py`, close to which it stays.

Softmax regression whose weights are the shipped ones and a difference; the difference is small by a Gaussian prior, and texts
that nobody labelled hold it where it was (Li and Hoiem, "Learning without forgetting", 2016): so a few labels already count, and
spoil nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.text import category, tokens
from palate.text.category import CLASSES, Weights
from palate.text.learning import minimise, transposed

Floats = NDArray[np.float64]


class CorrectionParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model of categories learns from labels of this installation."""

    l2: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 0.3
    """How strongly the shipped weights hold; the labels of one text count 1."""
    held: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 1000
    """Newest texts without a label that hold the model where it was."""
    hold: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.3
    """What each of them counts."""
    rounds: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 60
    """Steps of learning at most."""


class Labelled(NamedTuple):
    """A text, and the classes that it may have: one, or several where somebody only said what it is not."""

    title: str
    text: str
    allowed: tuple[str, ...]


class Correction(NamedTuple):
    """What is added to the shipped model of one language."""

    numbers: NDArray[np.int64]
    """(m,) of the features."""
    table: NDArray[np.float32]
    """(m, 8) what is added to their weights."""
    bias: NDArray[np.float32]
    """(8,)"""


def learn(
    shipped: Weights, labelled: Sequence[Labelled], others: Sequence[tuple[str, str]], params: CorrectionParams
) -> Correction:
    """The correction that follows from labelled texts; `others` are texts (title, text) about which nothing was said.

    The same on every run.
    """
    documents = [(one.title, one.text) for one in labelled] + list(others)
    found = tokens.features(documents)
    told = category.probabilities(found, shipped).astype(np.float64)
    targets = told.copy()
    for row, one in enumerate(labelled):
        targets[row] = np.isin(CLASSES, one.allowed) * (told[row] + 1e-6)
    targets /= targets.sum(axis=1, keepdims=True)
    counts = np.where(np.arange(len(documents)) < len(labelled), 1.0, params.hold)
    used, columns = np.unique(found.numbers, return_inverse=True)
    known = tokens.Features(found.offsets, columns.astype(np.int64), found.values)
    by_feature = transposed(known, len(used))
    start = np.log(np.maximum(told, 1e-12))

    def loss(flat: Floats) -> tuple[float, Floats]:
        return _loss(flat.reshape(-1, len(CLASSES)), known, by_feature, start, targets, counts, params.l2)

    change = minimise(loss, np.zeros((len(used) + 1) * len(CLASSES)), params.rounds)
    table = change.reshape(-1, len(CLASSES)).astype(np.float32)
    return Correction(used, table[:-1], table[-1])


def corrected(shipped: Weights, correction: Correction) -> Weights:
    """The model with its correction; exact, so its table is no longer of bytes."""
    table = shipped.table.astype(np.float32)
    table[correction.numbers] += correction.table / shipped.step
    return shipped._replace(bias=shipped.bias + correction.bias, table=table)


def _loss(
    change: Floats,
    known: tokens.Features,
    by_feature: tokens.Features,
    start: Floats,
    targets: Floats,
    counts: Floats,
    l2: float,
) -> tuple[float, Floats]:
    """Cross entropy and prior, with their gradient in the difference (features, then bias)."""
    from palate.text import learning_kernels

    logits = start + learning_kernels.product(*known, change[:-1].astype(np.float32)) + change[-1]
    logits -= logits.max(axis=1, keepdims=True)
    log_likely = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    error = (np.exp(log_likely) - targets) * counts[:, None]
    lost = -(counts * (targets * log_likely).sum(axis=1)).sum() + 0.5 * l2 * (change**2).sum()
    slope = (
        np.vstack((learning_kernels.product(*by_feature, error.astype(np.float32)), error.sum(axis=0))) + l2 * change
    )
    return float(lost), slope.ravel()
