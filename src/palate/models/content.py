"""What an item's text, source and labels say of its vector: where it starts before anybody has seen it.

A ridge regression from content to the vectors that a fit has learned (Gantner et al., "Learning Attribute-to-Feature Mappings for
Cold-Start Recommendations", ICDM 2010), weighted by how much is known of each item.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.vocabulary import Vocabulary

Floats = NDArray[np.float32]

BLOCK = 4_096
SEPARATE = 500
"""Sources, and labels, that get weights of their own: the commonest."""


class ContentParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the vectors of new items are told from their content."""

    l2_text: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    """How strongly the weights of the text's vector are held at zero, in items."""
    l2_source: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    """The same for what a source adds."""
    l2_label: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    """The same for what a label adds."""
    trust: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """After so many examples an item's vector is half its content's and half what its readers taught."""


@dataclass(frozen=True, eq=False)
class Contents:
    """What is known of n items without anybody's judgement."""

    text: NDArray[np.float16]
    """(n, length of a text's vector); zero where there is no text."""
    source: NDArray[np.int64]
    """(n,) key of each item's source; −1 for none."""
    label_offsets: NDArray[np.int64]
    """(n + 1,); the labels of item i are `labels[label_offsets[i]:label_offsets[i + 1]]`."""
    labels: NDArray[np.int64]
    """As `label_keys` gives them."""

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True, eq=False)
class ContentMap:
    """Linear from content to T numbers of an item: its vector, or its vector and its bias."""

    mean: Floats
    """(T,)"""
    text: Floats
    """(length of a text's vector, T)"""
    sources: Vocabulary
    source_weights: Floats
    """(S, T)"""
    labels: Vocabulary
    label_weights: Floats
    """(L, T)"""


def taken(contents: Contents, rows: NDArray[np.int64]) -> Contents:
    """The items of these rows, in this order."""
    starts, ends = contents.label_offsets[rows], contents.label_offsets[rows + 1]
    offsets = np.concatenate(([0], np.cumsum(ends - starts)))
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    return Contents(contents.text[rows], contents.source[rows], offsets, contents.labels[places])


def nothing_known(items: int, length: int = 0) -> Contents:
    """Contents of so many items of which nothing is known."""
    return Contents(
        np.zeros((items, length), np.float16), np.full(items, -1), np.zeros(items + 1, np.int64), np.zeros(0, np.int64)
    )


def label_keys(names: Sequence[str]) -> NDArray[np.int64]:
    """A number for each label's name, the same everywhere: two of some billions share one."""
    return np.fromiter((zlib.crc32(name.encode()) for name in names), np.int64, len(names))


def fit(contents: Contents, targets: Floats, examples: NDArray[np.integer[Any]], params: ContentParams) -> ContentMap:
    """The map that explains the `targets` (n, T) best; an item counts n / (n + trust), n being its `examples` (n,)."""
    sources, labels = _commonest(contents.source), _commonest(contents.labels)
    weights = examples / (examples + params.trust)
    mean = np.average(targets, axis=0, weights=weights) if weights.any() else np.zeros(targets.shape[1])
    sizes = contents.text.shape[1], len(sources), len(labels)
    l2 = np.repeat([params.l2_text, params.l2_source, params.l2_label], sizes)
    left, right = np.diag(l2), np.zeros((len(l2), targets.shape[1]))
    for rows in _blocks(np.flatnonzero(weights)):
        design = _design(taken(contents, rows), sources, labels)
        weighted = design * weights[rows, np.newaxis].astype(np.float32)
        left += weighted.T @ design
        right += weighted.T @ (targets[rows] - mean)
    found = np.linalg.solve(left, right).astype(np.float32)
    text, by_source, by_label = np.split(found, np.cumsum(sizes)[:-1])
    return ContentMap(mean.astype(np.float32), text, sources, by_source, labels, by_label)


def predicted(content_map: ContentMap, contents: Contents) -> Floats:
    """(n, T) what the content of each item says; of sources and labels that the fit hasn't seen nothing."""
    result = content_map.mean + contents.text.astype(np.float32) @ content_map.text
    rows = content_map.sources.rows(contents.source)
    result[rows >= 0] += content_map.source_weights[rows[rows >= 0]]
    places, rows, share = _known_labels(contents, content_map.labels)
    np.add.at(result, places, content_map.label_weights[rows] * share[:, np.newaxis])
    return np.asarray(result, np.float32)


def mixed(learned: Floats, said: Floats, examples: NDArray[np.integer[Any]], trust: float) -> Floats:
    """(n, T) the vectors of items of which `examples` (n,) are known, between what their content says and what was learned.

    A vector that was learned from n examples under l2 lies at n / (n + l2) of its length, as one that is drawn to zero; drawn
    to `said` instead it would lie l2 / (n + l2) of that further on: so nothing jumps when the first examples come.
    """
    return np.asarray(learned + said * (trust / (trust + examples))[:, np.newaxis], np.float32)


def to_arrays(content_map: ContentMap, prefix: str) -> dict[str, NDArray[Any]]:
    """What a snapshot holds of it; the names start with `prefix`."""
    return {
        f"{prefix}_content_mean": content_map.mean,
        f"{prefix}_content_text": content_map.text.astype(np.float16),
        f"{prefix}_content_sources": content_map.sources.keys,
        f"{prefix}_content_source_weights": content_map.source_weights.astype(np.float16),
        f"{prefix}_content_labels": content_map.labels.keys,
        f"{prefix}_content_label_weights": content_map.label_weights.astype(np.float16),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]], prefix: str) -> ContentMap | None:
    """The map that a snapshot holds; None when it holds none of this prefix."""
    if f"{prefix}_content_mean" not in arrays:
        return None
    of = {name: arrays[f"{prefix}_content_{name}"] for name in ("mean", "text", "sources", "labels")}
    weights = (np.asarray(arrays[f"{prefix}_content_{name}_weights"], np.float32) for name in ("source", "label"))
    by_source, by_label = weights
    mean, text = np.asarray(of["mean"], np.float32), np.asarray(of["text"], np.float32)
    return ContentMap(mean, text, Vocabulary(of["sources"]), by_source, Vocabulary(of["labels"]), by_label)


def _commonest(keys: NDArray[np.int64]) -> Vocabulary:
    found, counts = np.unique(keys[keys >= 0], return_counts=True)
    return Vocabulary(np.sort(found[np.argsort(-counts, kind="stable")[:SEPARATE]]))


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """So many at a time that what a row knows fits the memory of a small server."""
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def _design(contents: Contents, sources: Vocabulary, labels: Vocabulary) -> Floats:
    """(n, text + S + L)"""
    by_source = np.zeros((len(contents), len(sources)), np.float32)
    rows = sources.rows(contents.source)
    by_source[rows >= 0, rows[rows >= 0]] = 1
    by_label = np.zeros((len(contents), len(labels)), np.float32)
    places, rows, share = _known_labels(contents, labels)
    by_label[places, rows] = share
    return np.hstack([contents.text.astype(np.float32), by_source, by_label])


def _known_labels(
    contents: Contents, labels: Vocabulary
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Item, row in `labels` and share of each label that is in it; an item's shares have length 1 if all are."""
    counts = np.diff(contents.label_offsets)
    places = np.repeat(np.arange(len(contents)), counts)
    rows = labels.rows(contents.labels)
    share = (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)[places]
    return places[rows >= 0], rows[rows >= 0], share[rows >= 0]
