"""What a news text is about, in seven categories, or that it isn't news: a small linear model for English and Russian.

Softmax regression over hashed words (`text/tokens.py`), one table a language with a whole number of a byte for each feature and
class, made by `training/text_models.py`. Of other languages it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.text import tokens

CATEGORIES = ("society", "economy", "technology", "sports", "entertainment", "science", "other")
NOT_NEWS = "not_news"
CLASSES = (*CATEGORIES, NOT_NEWS)
LANGUAGES = ("en", "ru")
"""For which there is a model."""


class Weights(NamedTuple):
    """A model of one language: logits are step · (values @ table) + bias."""

    bias: NDArray[np.float32]
    step: np.float32
    table: NDArray[np.int8] | NDArray[np.float32]
    """(tokens.SIZE, 8); of bytes as it is stored."""


def classify(
    documents: Sequence[tuple[str, str]], language: str, weights: Weights | None = None
) -> NDArray[np.float32]:
    """(n, 8) the probabilities of CLASSES for each (title, plain text) in one of LANGUAGES; each row sums to 1.

    `weights`: a model to take instead of the shipped one. A document's row doesn't depend on the others. Where there is not one
    word, all classes are as likely as they are in news.
    """
    assert language in LANGUAGES, "There is no model of other languages."
    return probabilities(tokens.features(documents), weights or shipped(language))


def probabilities(features: tokens.Features, weights: Weights) -> NDArray[np.float32]:
    """(n, 8) of what the model says of each document's features."""
    weighted = np.take(weights.table, features.numbers, axis=0).astype(np.float32)
    weighted *= features.values[:, None]
    sums = np.add.reduceat(weighted, features.offsets[:-1], axis=0)
    logits = weights.step * sums + weights.bias
    logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
    likely = np.exp(logits)
    return np.asarray(likely / likely.sum(axis=1, keepdims=True), np.float32)


def to_bytes(weights: Weights) -> bytes:
    """The model as it is stored: bias, step, table."""
    return weights.bias.tobytes() + np.float32(weights.step).tobytes() + weights.table.tobytes()


def from_bytes(content: bytes) -> Weights:
    """The model of stored bytes; its table is read in place."""
    head = np.frombuffer(content, np.float32, len(CLASSES) + 1)
    table = np.frombuffer(content, np.int8, offset=head.nbytes).reshape(tokens.SIZE, len(CLASSES))
    return Weights(head[:-1], head[-1], table)


@cache
def shipped(language: str) -> Weights:
    """The model of one of LANGUAGES that comes with the program."""
    return from_bytes((resources.files("palate.text") / f"category_{language}.bin").read_bytes())
