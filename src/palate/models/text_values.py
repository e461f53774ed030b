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

from palate.machine_code import compiled

Floats = NDArray[np.float32]

DIRECTIONS = 32
"""Of what a snapshot holds of each item."""
INDEXED = 128
"""Of its index."""
SAMPLE = 20_000
"""Texts by which directions are found."""
TURNS = 6
WIDENED = np.float32(2.0**112)
"""What a 16-bit float is times less, once its bits are put at the places that they have in one of 32 bits."""
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


# --- nearness of many to one ----------------------------------------------------------------------------------------------


def products(stored: NDArray[np.float16], rows: NDArray[np.integer], vector: Floats) -> Floats:
    """(n,) of these rows of what a snapshot holds with a vector (d,); 0 for the row −1."""
    found = np.zeros(len(rows), np.float32)
    bits = np.asarray(stored).view(np.uint16)
    bits.flags.writeable = False  # as an array of a snapshot is
    given = np.asarray(rows, np.int64), (np.asarray(vector, np.float32) * WIDENED).astype(np.float32)
    compiled(_products, bits, *given, found, fastmath=frozenset(("reassoc", "contract", "nsz")))
    return found


def readable_products(stored: NDArray[np.float16], rows: NDArray[np.integer], vector: Floats) -> Floats:
    """What `products` gives, as it reads."""
    return np.where(rows >= 0, stored[rows].astype(np.float32) @ vector, np.float32(0))


def _products(stored: Any, rows: Any, vector: Any, found: Any) -> None:
    """Machine code has no floats of 16 bits: theirs are widened by hand, the vector by what that leaves out."""
    wide = len(vector)
    bits = np.empty(wide, np.uint32)
    values = bits.view(np.float32)
    for place in range(len(rows)):
        row = rows[place]
        if row < 0:
            continue
        for at in range(wide):
            half = np.uint32(stored[row, at])
            bits[at] = ((half & np.uint32(0x7FFF)) << np.uint32(13)) | ((half & np.uint32(0x8000)) << np.uint32(16))
        total = np.float32(0)
        for at in range(wide):
            total += values[at] * vector[at]
        found[place] = total
