"""In what items are near each other: their texts, and what people did with them; as the snapshot says, and of what came since.

A snapshot holds where its items stand by their texts, in a few directions, and an index of that. What came later is put into
the same directions by its own text, a while after it came, and is compared one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import pool_model, vectors
from palate.models import indexing, text_values
from palate.models.nearest import Located
from palate.pool import Pool
from palate.snapshots import Snapshot
from palate.text import embedding
from palate.vocabulary import Vocabulary

YOUNG = 10_000
"""Items that came after the snapshot, the newest, which are compared one by one."""
LEARNED = ("ials", "fm")
"""Models by whose vectors items are alike; the first of them that there is."""

Keys = NDArray[np.int64]
Floats = NDArray[np.float32]


def _no_items() -> Vocabulary:
    return Vocabulary(np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class Spaces:
    """Of the items of one stock: rows below the length of its base are of the base, others of what is beside it."""

    snapshot: Snapshot
    base: Pool
    side: Pool
    known: Vocabulary
    """Items of the snapshot."""
    by_behaviour: Located | None
    """By the vectors of the first of LEARNED; None without an index of them."""
    by_text: Located | None
    directions: Floats | None
    """(length of a text's vector, d) those of the index, of which the first are those in which the snapshot holds texts; None
    where it knows of no text."""
    new: Vocabulary = field(default_factory=_no_items)
    """Items with a text that the snapshot doesn't know."""
    new_texts: NDArray[np.float16] = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    """(new, d)"""
    young: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(y,) rows of items with a text that the index doesn't have, or not where they are now."""
    young_texts: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(y, d)"""

    def texts(self, keys: Keys, rows: NDArray[np.integer] | None = None) -> Floats | None:
        """(n, DIRECTIONS) where these items stand by their texts, of length 1, or zero for those without words; None where no
        text is known. `rows` are theirs in the snapshot, −1 for none."""
        if self.directions is None:
            return None
        stored = self.snapshot.arrays["text_values"]
        rows = self.known.rows(keys) if rows is None else rows
        known = rows >= 0
        if not len(self.new) and known.all():
            return np.asarray(stored.take(rows, axis=0), np.float32)
        found = np.zeros((len(keys), stored.shape[1]), np.float32)
        found[known] = stored[rows[known]]
        new = self.new.rows(keys)
        if (new >= 0).any():
            texts = self.new_texts[new[new >= 0], : stored.shape[1]].astype(np.float32)
            found[new >= 0] = text_values.of_length_1(texts)
        return found

    def near(self, keys: Keys, rows: NDArray[np.integer], vector: Floats) -> Floats:
        """(n,) the products of what `texts` gives, which is known, with a vector (DIRECTIONS,); 0 for those without words."""
        found = text_values.products(self.snapshot.arrays["text_values"], rows, vector)
        unknown = np.flatnonzero(rows < 0)
        texts = self.texts(keys[unknown])
        assert texts is not None, "Texts are known."
        found[unknown] = texts @ vector
        return found

    def asking(self, keys: Keys) -> Floats:
        """(n, d) the same in the directions by which items are looked for: those of the index, as precise as it keeps them, or
        without one those of `texts`."""
        found = self.texts(keys)
        assert found is not None, "Texts are known."
        if self.by_text is None:
            return found
        rows, new, told = self.known.rows(keys), self.new.rows(keys), found.any(axis=1)
        found, known = np.zeros((len(keys), self.by_text.index.width), np.float32), told & (rows >= 0)
        found[known] = text_values.of_length_1(self.by_text.index.vectors(rows[known]))
        found[new >= 0] = self.new_texts[new[new >= 0]]
        return found

    def turned(self, texts: NDArray[np.float16]) -> Floats | None:
        """(n, d) where texts of these vectors stand in the same directions."""
        if self.directions is None:
            return None
        asked = self.directions if self.by_text is not None else self.directions[:, : text_values.DIRECTIONS]
        return text_values.values(asked, texts).astype(np.float32)


def refreshed(
    before: Spaces | None, connection: sa.Connection, snapshot: Snapshot | None, base: Pool, side: Pool
) -> Spaces | None:
    """The spaces of these items by this snapshot; what was there is taken along where it still holds. None without a snapshot."""
    if snapshot is None:
        return None
    if before is None or before.snapshot is not snapshot or before.base.keys is not base.keys:
        before = _taken_up(snapshot, base, side, before)
    found = replace(before, base=base, side=side)
    if found.directions is None:
        return found
    rows, keys = _young_of(found)
    found = _with_new_texts(found, connection, keys)
    texts = found.asking(keys)
    told = np.flatnonzero(texts.any(axis=1))
    return replace(found, young=rows[told], young_texts=texts[told])


def _taken_up(snapshot: Snapshot, base: Pool, side: Pool, before: Spaces | None) -> Spaces:
    """What the snapshot says, and the texts that were read since, if it isn't a new one."""
    known = Vocabulary(np.asarray(snapshot.arrays["items"]))
    directions = text_values.directions_of(snapshot.arrays)
    width = 0 if directions is None else directions.shape[1]
    found = Spaces(
        snapshot=snapshot,
        base=base,
        side=side,
        known=known,
        by_behaviour=_located(base, snapshot, learned(snapshot)),
        by_text=None if directions is None else _located(base, snapshot, indexing.TEXT),
        directions=None if directions is None else np.asarray(directions),
        new_texts=np.zeros((0, width), np.float16),
    )
    if before is None or before.snapshot is not snapshot:
        return found
    return replace(found, new=before.new, new_texts=before.new_texts)


def learned(snapshot: Snapshot) -> str | None:
    """Of which model the vectors are by which items are alike; None where there are none."""
    return next((name for name in LEARNED if array_of(name) in snapshot.arrays), None)


def array_of(name: str) -> str:
    """Of the snapshot, the vectors of its items by this model."""
    return "item_vectors" if name == "fm" else f"{name}_item_vectors"


def _located(base: Pool, snapshot: Snapshot, name: str | None) -> Located | None:
    """An index of the snapshot in these items; what the model that is served by has of it is shared."""
    there = base.space if base.model.version == snapshot.version else None
    if there is not None and base.model.name == name:
        return there
    index = None if name == base.model.name else pool_model.index_of(snapshot, name)
    if index is None:
        return None
    return Located(index, base.rows(np.asarray(snapshot.arrays["items"])) if there is None else there.rows)


def _young_of(found: Spaces) -> tuple[NDArray[np.int64], Keys]:
    """Rows and keys of the newest items of the base that the snapshot doesn't know, and of all beside it."""
    keys = found.base.keys
    newest = int(found.known.keys[-1]) if len(found.known) else -1
    late = np.arange(np.searchsorted(keys, newest, side="right"), len(keys))[-YOUNG:]
    beside = np.arange(len(found.side)) + len(keys)
    return np.concatenate((late, beside)), np.concatenate((keys[late], found.side.keys))


def _with_new_texts(found: Spaces, connection: sa.Connection, keys: Keys) -> Spaces:
    """With the texts of those of these items whose place the snapshot doesn't know."""
    assert found.directions is not None, "Texts are known."
    known = found.texts(keys)
    assert known is not None, "Texts are known."
    missing = keys[~known.any(axis=1)]
    read, texts = vectors.read(connection, embedding.VERSION, embedding.LENGTH, missing)
    if not len(read):
        return found
    every = np.concatenate((found.new.keys, read))
    order = np.argsort(every)
    turned = np.concatenate((found.new_texts, text_values.values(found.directions, texts)))
    return replace(found, new=Vocabulary(every[order]), new_texts=turned[order])
