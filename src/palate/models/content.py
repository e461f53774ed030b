"""What an item's text, source, labels and author say of its vector: where it starts before anybody has seen it.

A ridge regression from content to the vectors that a fit has learned (Gantner et al., "Learning Attribute-to-Feature Mappings for
Cold-Start Recommendations", ICDM 2010), weighted by how much is known of each item.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.vocabulary import Vocabulary

Floats = NDArray[np.float32]

BLOCK = 4_096
SEPARATE = 500
"""Sources, labels and so on that get weights of their own: the commonest of each."""
FEATURES = ("source", "label", "author", "language", "category")
"""What may be known of an item beside its text."""


class ContentParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the vectors of new items are told from their content."""

    l2_text: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """How strongly the weights of the text's vector are held at zero, in items."""
    l2_source: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """The same for what a source adds."""
    l2_label: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """The same for what a label adds."""
    l2_others: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """The same for what an author, a language or a category adds."""
    l2_scores: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """How strongly what content says of a person's scores is held at their mean, in items: for items of which a model that
    ranks has learned nothing."""
    directions: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    """Numbers that stand for an item's content there."""
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
    others: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """By name (`author`, `language`, `category`): (n,) a key for each item, −1 where it isn't known."""

    def __len__(self) -> int:
        return len(self.source)

    def tags(self, feature: str) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """The place of an item, a key of this feature that it has, and the share of that: those of one item have length 1."""
        if feature == "label":
            counts = np.diff(self.label_offsets)
            places = np.repeat(np.arange(len(self)), counts)
            return places, self.labels, (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)[places]
        keys = self.source if feature == "source" else self.others.get(feature, np.full(len(self), -1))
        places = np.flatnonzero(keys >= 0)
        return places, keys[places], np.ones(len(places), np.float32)


@dataclass(frozen=True, eq=False)
class Weights:
    """What each of the K keys of a feature adds to T numbers."""

    keys: Vocabulary
    values: Floats
    """(K, T)"""


@dataclass(frozen=True, eq=False)
class ContentMap:
    """Linear from content to T numbers of an item: its vector, or its vector and its bias."""

    mean: Floats
    """(T,)"""
    text: Floats
    """(length of a text's vector, T)"""
    features: Mapping[str, Weights]
    """Of each of `FEATURES`."""


def taken(contents: Contents, rows: NDArray[np.int64]) -> Contents:
    """The items of these rows, in this order."""
    starts, ends = contents.label_offsets[rows], contents.label_offsets[rows + 1]
    offsets = np.concatenate(([0], np.cumsum(ends - starts)))
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    others = {name: keys[rows] for name, keys in contents.others.items()}
    return Contents(contents.text[rows], contents.source[rows], offsets, contents.labels[places], others)


def together(first: Contents, second: Contents) -> Contents:
    """The items of both, one after the other."""
    names = first.others.keys() | second.others.keys()
    return Contents(
        np.concatenate((first.text, second.text)),
        np.concatenate((first.source, second.source)),
        np.concatenate((first.label_offsets, first.label_offsets[-1] + second.label_offsets[1:])),
        np.concatenate((first.labels, second.labels)),
        {
            name: np.concatenate([one.others.get(name, np.full(len(one), -1)) for one in (first, second)])
            for name in names
        },
    )


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
    known = vocabularies(contents, SEPARATE)
    weights = examples / (examples + params.trust)
    mean = np.average(targets, axis=0, weights=weights) if weights.any() else np.zeros(targets.shape[1])
    sizes = [contents.text.shape[1], *map(len, known.values())]
    each = np.array([params.l2_text, params.l2_source, params.l2_label, *[params.l2_others] * 3], np.float64)
    l2 = np.repeat(each, sizes)
    left, right = np.diag(l2), np.zeros((len(l2), targets.shape[1]))
    for rows in _blocks(np.flatnonzero(weights)):
        columns = design(taken(contents, rows), known)
        weighted = columns * weights[rows, np.newaxis].astype(np.float32)
        left += weighted.T @ columns
        right += weighted.T @ (targets[rows] - mean)
    found = np.linalg.solve(left, right).astype(np.float32)
    text, *others = np.split(found, np.cumsum(sizes)[:-1])
    features = {name: Weights(keys, own) for (name, keys), own in zip(known.items(), others, strict=True)}
    return ContentMap(mean.astype(np.float32), text, features)


def predicted(content_map: ContentMap, contents: Contents) -> Floats:
    """(n, T) what the content of each item says; of sources, labels and so on that the fit hasn't seen nothing."""
    result = content_map.mean + contents.text.astype(np.float32) @ content_map.text
    for name, weights in content_map.features.items():
        places, rows, share = _known(contents, name, weights.keys)
        np.add.at(result, places, weights.values[rows] * share[:, np.newaxis])
    return np.asarray(result, np.float32)


def mixed(learned: Floats, said: Floats, examples: NDArray[np.integer[Any]], trust: float) -> Floats:
    """(n, T) the vectors of items of which `examples` (n,) are known, between what their content says and what was learned.

    A vector that was learned from n examples under l2 lies at n / (n + l2) of its length, as one that is drawn to zero; drawn
    to `said` instead it would lie l2 / (n + l2) of that further on: so nothing jumps when the first examples come. For a
    vector that was drawn elsewhere, `said` is how far from there.
    """
    return np.asarray(learned + said * (trust / (trust + examples))[:, np.newaxis], np.float32)


def to_arrays(content_map: ContentMap, prefix: str) -> dict[str, NDArray[Any]]:
    """What a snapshot holds of it; the names start with `prefix`."""
    start = f"{prefix}_content"
    arrays: dict[str, NDArray[Any]] = {
        f"{start}_mean": content_map.mean,
        f"{start}_text": content_map.text.astype(np.float16),
    }
    for name, weights in content_map.features.items():
        arrays |= {
            f"{start}_{name}_keys": weights.keys.keys,
            f"{start}_{name}_weights": weights.values.astype(np.float16),
        }
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[Any]], prefix: str) -> ContentMap | None:
    """The map that a snapshot holds; None when it holds none of this prefix, or one of another Palate."""
    start = f"{prefix}_content"
    if not all(f"{start}_{name}_weights" in arrays for name in FEATURES):
        return None
    features = {
        name: Weights(
            Vocabulary(arrays[f"{start}_{name}_keys"]), np.asarray(arrays[f"{start}_{name}_weights"], np.float32)
        )
        for name in FEATURES
    }
    mean, text = (np.asarray(arrays[f"{start}_{name}"], np.float32) for name in ("mean", "text"))
    return ContentMap(mean, text, features)


def design(contents: Contents, known: Mapping[str, Vocabulary]) -> Floats:
    """(n, length of a text's vector + all known keys): the text, then each feature's shares of its keys."""
    parts = [contents.text.astype(np.float32)]
    for name, keys in known.items():
        part = np.zeros((len(contents), len(keys)), np.float32)
        places, rows, share = _known(contents, name, keys)
        part[places, rows] = share
        parts.append(part)
    return np.hstack(parts)


def vocabularies(contents: Contents, limit: int) -> dict[str, Vocabulary]:
    """Of each feature the keys that most items have, at most so many."""
    return {name: _commonest(contents.tags(name)[1], limit) for name in FEATURES}


def _commonest(keys: NDArray[np.int64], limit: int) -> Vocabulary:
    found, counts = np.unique(keys, return_counts=True)
    return Vocabulary(np.sort(found[np.argsort(-counts, kind="stable")[:limit]]))


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """So many at a time that what a row knows fits the memory of a small server."""
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def _known(
    contents: Contents, feature: str, keys: Vocabulary
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Item, row in `keys` and share of each tag of the feature that is in them."""
    places, found, share = contents.tags(feature)
    rows = keys.rows(found)
    return places[rows >= 0], rows[rows >= 0], share[rows >= 0]
