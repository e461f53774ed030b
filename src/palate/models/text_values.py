"""Where items stand by their texts, in few numbers: by these serving tells how near two texts are.

The first directions of a principal component analysis of the texts' vectors, found by orthogonal iteration (Golub and Van Loan,
"Matrix Computations", 7.3); the products of two texts' numbers are nearly those of their vectors. In a few directions a snapshot
holds where each of its items stands, for whoever compares a few with many; in more of them it holds an index, by which the
nearest are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DIRECTIONS = 32
"""Of what a snapshot holds of each item."""
INDEXED = 128
"""Of its index."""
SAMPLE = 20_000
"""Texts by which directions are found."""
TURNS = 6
BLOCK = 65_536
"""Texts that are turned at a time."""


def fit(texts: NDArray[np.float16]) -> Floats:
    """(length, INDEXED) orthonormal, those in which the texts (n, length) differ most first; the same texts give the same."""
    told = np.flatnonzero(texts[:, 0] != 0)
    some = texts[told[np.linspace(0, len(told) - 1, min(len(told), SAMPLE)).astype(np.int64)]].astype(np.float32)
    square = some.T @ some
    wide = texts.shape[1]
    found = np.random.default_rng(0).standard_normal((wide, min(INDEXED, wide)), np.float32)
    for _ in range(TURNS):
        found = np.linalg.qr(square @ found + 1e-6 * found)[0]
    return np.asarray(found, np.float32)


def values(directions: Floats, texts: NDArray[np.float16]) -> NDArray[np.float16]:
    """(n, d) of length 1; zero for an item without words."""
    found = np.zeros((len(texts), directions.shape[1]), np.float16)
    for start in range(0, len(texts), BLOCK):
        found[start : start + BLOCK] = of_length_1(texts[start : start + BLOCK].astype(np.float32) @ directions)
    return found


def of_length_1(found: Floats) -> Floats:
    """The rows, each of length 1 or zero."""
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(length > 0, length, 1), np.float32)


def to_arrays(texts: NDArray[np.float16], directions: Floats | None = None) -> dict[str, NDArray[Any]]:
    """What a snapshot holds of its items' texts, in these directions, None: their own; nothing where none has words."""
    if not texts.size or not texts[:, 0].any():
        return {}
    directions = fit(texts) if directions is None else directions
    return {"text_directions": directions, "text_values": values(directions[:, :DIRECTIONS], texts)}


def directions_of(arrays: Mapping[str, NDArray[Any]]) -> Floats | None:
    """Those of a snapshot; None where it holds none."""
    return arrays.get("text_directions")
