"""The items that may be served, as frozen columns with what the model knows of each, so that scoring all is one product."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from palate.machine_code import compiled
from palate.models.nearest import Located
from palate.pool_model import Model, Strangers, columns
from palate.pool_model import model as of_snapshot
from palate.rules import Rulebook, is_rule
from palate.snapshots import Snapshot
from palate.vocabulary import Vocabulary

Value = TypeVar("Value", bound=Hashable)

NO_DATE = int(np.iinfo(np.int64).max)
"""Stands for `published` where an item has none: it never goes stale."""

POOL_LIMIT = 1_000_000
"""Items kept for serving; beyond it those that came first are left out."""

LABELS_PER_ITEM = 16
"""Labels of one item that count."""


class CatalogRow(Protocol):
    """What the catalog says of an item; times in milliseconds since 1970."""

    @property
    def key(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def source(self) -> int | None: ...
    @property
    def published(self) -> int | None: ...
    @property
    def received(self) -> int: ...
    @property
    def language(self) -> str | None: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def category(self) -> str | None: ...
    @property
    def story(self) -> int | None: ...
    @property
    def leads(self) -> int | None: ...
    @property
    def kind(self) -> str: ...


class Numbering(Generic[Value]):
    """Numbers from 0 for values in the order in which they first came. It only grows, so that old numbers stay true."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self._numbers: dict[Value, int] = {}

    def __len__(self) -> int:
        return len(self.values)

    def number(self, value: Value) -> int:
        """The value's number, a new one if it has none."""
        found = self._numbers.get(value)
        if found is None:
            self.values.append(value)  # first, so that whoever sees the number finds the value
            found = self._numbers[value] = len(self.values) - 1
        return found

    def number_all(self, values: Sequence[Value]) -> NDArray[np.int32]:
        """The number of each value, new ones for those that have none."""
        for value in dict.fromkeys(values):
            self.number(value)
        return np.fromiter(map(self._numbers.__getitem__, values), np.int32, len(values))

    def find(self, values: Iterable[Value]) -> NDArray[np.int32]:
        """Numbers of those values that have one."""
        return np.array([self._numbers[value] for value in values if value in self._numbers], np.int32)


@dataclass(frozen=True, eq=False)
class Pool:
    """Servable items as columns of equal length n, sorted by key. None of its arrays is ever written to."""

    model: Model
    keys: NDArray[np.int64]
    published: NDArray[np.int64]
    """Milliseconds since 1970, NO_DATE where it is not known."""
    received: NDArray[np.int64]
    source: NDArray[np.int32]
    """Number of the source in `sources`, −1 for none."""
    language: NDArray[np.int16]
    """Number of the language in `languages`, −1 where it is not known."""
    category: NDArray[np.int16]
    """Number of the category in `categories`, −1 where there is none."""
    story: NDArray[np.int64]
    """Key of the first item of its story, −1 for an item that is alone."""
    leads: NDArray[np.bool_]
    """Whether it is its story's headline."""
    kind: NDArray[np.int8]
    """Number of the kind in `kinds`."""
    rule: NDArray[np.int32]
    """Number of what its labels say of whom it may be shown to, in `rules`."""
    label_offsets: NDArray[np.int64]
    """(n + 1,); the labels of row i are `labels[label_offsets[i]:label_offsets[i + 1]]`."""
    labels: NDArray[np.int32]
    """Numbers in `label_names`."""
    learned: NDArray[np.int32]
    """Row among the snapshot's items, −1 for one that it doesn't know."""
    row: NDArray[np.int32]
    """Of the model's ranker, −1 where it has learned nothing of the item; all −1 without a ranker."""
    content: NDArray[np.float16]
    """(n, R): where the item stands by its content, by which a ranker scores those that it has learned nothing of; R is 0
    without one."""
    vectors: NDArray[np.float32]
    """(n, factors): of the snapshot, else the mean of the item's source, else zero; likewise `bias`."""
    bias: NDArray[np.float32]
    """In the model's own unit."""
    popularity: NDArray[np.float32]
    """Probability that somebody unknown likes the item."""
    evidence: NDArray[np.float32]
    """Decayed number of examples behind `popularity`."""
    sources: Numbering[int]
    """Keys of sources."""
    languages: Numbering[str]
    categories: Numbering[str]
    label_names: Numbering[str]
    kinds: Numbering[str]
    rules: Rulebook

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each key, −1 for those that aren't in the pool."""
        return self.vocabulary.rows(keys)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of `keys`."""
        return Vocabulary(self.keys)

    def labels_of(self, row: int) -> NDArray[np.int32]:
        """Numbers of one item's labels."""
        return self.labels[self.label_offsets[row] : self.label_offsets[row + 1]]

    def story_id(self, row: int) -> str | None:
        """Id of an item's story; None for an item that is alone."""
        return str(self.story[row]) if self.story[row] >= 0 else None

    @cached_property
    def stories(self) -> Stories:
        """The stories of several items."""
        return _stories(self.story)

    @cached_property
    def pieces(self) -> NDArray[np.void]:
        """(n,) all that is known of an item, but its content and its labels, in one piece of memory.

        Whoever gathers a few of very many items waits for memory once for each item, instead of for each of its columns.
        """
        columns = {name: getattr(self, name) for name in _IN_PIECES}
        columns |= {LABELS_FROM: self.label_offsets[:-1], LABELS_TO: self.label_offsets[1:]}
        kinds = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
        found = np.empty(len(self), np.dtype(kinds, align=True))
        for name, column in columns.items():
            found[name] = column
        nothing = np.zeros(0, np.int64)
        _labels_at(nothing, nothing, self.labels)  # so that no request waits until it is machine code
        return found

    @cached_property
    def space(self) -> Located | None:
        """Where the model's index has these items; None without one."""
        index, keys = self.model.index, self.model.indexed
        return None if index is None or keys is None else Located(index, self.rows(keys))

    @cached_property
    def of_model(self) -> NDArray[np.int64]:
        """Row of each item of the model that ranks, −1 for those that aren't in the pool."""
        assert self.model.ranker is not None, "A model that ranks is served."
        return self.rows(self.model.ranker.items.keys)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NDArray[Any]:
            """A column that wasn't looked at before, of a pool that was made of another."""
            if name not in _COLUMNS or "_make" not in vars(self):
                raise AttributeError(name)
            vars(self)[name] = column = vars(self)["_make"](name)
            return column

    @property
    def of_many(self) -> bool:
        """Whether these are a few of very many items."""
        whole = vars(vars(self).get("_rows_of", (self,))[0])
        return "pieces" in whole or whole.get("_of_many", False)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))


@dataclass(frozen=True, eq=False)
class Stories:
    """Stories of which the pool has several items; each has a number from 0."""

    rows: NDArray[np.int64]
    """(m,) of their items, story by story; ascending in each."""
    starts: NDArray[np.int64]
    """(stories,) the place in `rows` at which each begins."""
    numbers: NDArray[np.int32]
    """(m,) the story of each of the `rows`."""
    of_row: NDArray[np.int32]
    """(n,) the story of each row of the pool, −1 for an item that is alone."""

    def __len__(self) -> int:
        return len(self.starts)

    def beside(self, row: int) -> NDArray[np.int64]:
        """Rows of the other items of an item's story."""
        number = int(self.of_row[row])
        if number < 0:
            return self.rows[:0]
        start = int(self.starts[number])
        end = int(self.starts[number + 1]) if number + 1 < len(self) else len(self.rows)
        own = self.rows[start:end]
        others: NDArray[np.int64] = own[own != row]
        return others


def _stories(story: NDArray[np.int64]) -> Stories:
    told = np.flatnonzero(story >= 0)
    if not len(told):
        return Stories(told, told, told.astype(np.int32), np.full(len(story), -1, np.int32))
    rows = told[np.argsort(story[told], kind="stable")]
    first = np.diff(story[rows], prepend=-1) != 0
    sizes = np.diff(np.flatnonzero(first), append=len(rows))
    several = np.repeat(sizes > 1, sizes)
    rows, sizes = rows[several], sizes[sizes > 1]
    numbers = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    of_row = np.full(len(story), -1, np.int32)
    of_row[rows] = numbers
    return Stories(rows, np.cumsum(sizes) - sizes, numbers, of_row)


_COLUMNS = frozenset(
    (
        "keys",
        "published",
        "received",
        "source",
        "language",
        "category",
        "story",
        "leads",
        "kind",
        "rule",
        "learned",
        "row",
        "content",
        "vectors",
        "bias",
        "popularity",
        "evidence",
        "label_offsets",
        "labels",
    )
)

LABELS_FROM, LABELS_TO = "labels_from", "labels_to"
"""Of a piece: where its item's labels lie."""

_OF_LABELS = ("labels", "label_offsets")
_IN_PIECES = tuple(sorted(_COLUMNS - {"content", *_OF_LABELS}))

_SHARED = ("model", "sources", "languages", "categories", "label_names", "kinds", "rules")


def empty_pool() -> Pool:
    """A pool without items and without a model."""
    whole, short = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return Pool(
        model=Model(),
        keys=whole,
        published=whole,
        received=whole,
        source=np.zeros(0, np.int32),
        language=np.zeros(0, np.int16),
        category=np.zeros(0, np.int16),
        story=whole,
        leads=np.zeros(0, np.bool_),
        kind=np.zeros(0, np.int8),
        rule=np.zeros(0, np.int32),
        learned=np.zeros(0, np.int32),
        row=np.zeros(0, np.int32),
        label_offsets=np.zeros(1, np.int64),
        labels=np.zeros(0, np.int32),
        content=np.zeros((0, 0), np.float16),
        vectors=np.zeros((0, 0), np.float32),
        bias=short,
        popularity=short,
        evidence=short,
        sources=Numbering(),
        languages=Numbering(),
        categories=Numbering(),
        label_names=Numbering(),
        kinds=Numbering(),
        rules=Rulebook(),
    )


def with_snapshot(pool: Pool, snapshot: Snapshot, served: str = "fm", strangers: Strangers | None = None) -> Pool:
    """The same items as this snapshot knows them, by the model named, or what stands in for it: see `served_name`."""
    return with_model(pool, of_snapshot(snapshot, served), snapshot, strangers)


def with_model(pool: Pool, model: Model, snapshot: Snapshot, strangers: Strangers | None = None) -> Pool:
    """The same items as this model of this snapshot knows them."""
    return replace(
        pool, model=model, **columns(pool.keys, pool.source, pool.sources.values, model, snapshot, strangers)
    )


def with_changes(
    pool: Pool, rows: Sequence[CatalogRow], snapshot: Snapshot | None, strangers: Strangers | None = None
) -> Pool:
    """The pool after these rows of the catalog: live ones are in it as they are now, all others are not."""
    if not rows:
        return pool
    changed = np.array([row.key for row in rows], np.int64)
    fresh = _piece(pool, [row for row in rows if row.state == "live"], snapshot, strangers)
    if len(pool) and (len(fresh) < len(rows) or fresh.keys[0] <= pool.keys[-1]):
        kept = np.ones(len(pool), bool)
        places = pool.rows(changed)
        kept[places[places >= 0]] = False
        pool = take(pool, np.flatnonzero(kept))
    return settled(_limited(joined(pool, fresh)))


def of_keys(pool: Pool, keys: NDArray[np.int64], snapshot: Snapshot | None) -> Pool:
    """These items, in this order and as often as they are named. Of those outside the pool only the model's part is known."""
    rows = pool.rows(keys)
    inside, outside = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    found = take(pool, rows[inside])
    if not len(outside):
        return found
    both = _appended(found, _bare(pool, keys[outside], snapshot))
    return take(both, np.argsort(np.concatenate((inside, outside))))


def take(pool: Pool, rows: NDArray[np.int64]) -> Pool:
    """The items of these rows, in this order. A column is gathered when it is first looked at: of thousands of candidates most
    are left out again for what one or two columns say."""
    whole, chosen = vars(pool).get("_rows_of", (pool, None))
    chosen = rows if chosen is None else chosen[rows]

    def make(name: str) -> NDArray[Any]:
        if "pieces" not in vars(whole) or name == "content":
            return _gathered(pool, rows, name) if name in vars(pool) else _gathered(whole, chosen, name)
        if name in _OF_LABELS:
            both = _labels_at(*label_places(), pool.labels if gathered("labels") else whole.labels)
            vars(part).update(both)
            return both[name]
        return vars(pool)[name].take(rows, axis=0) if gathered(name) else np.ascontiguousarray(_pieces()[name])

    def gathered(name: str) -> bool:
        """Whether the column lies side by side already, of few items."""
        return pool is not whole and name in vars(pool)

    def label_places() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if gathered("labels"):
            return pool.label_offsets.take(rows), pool.label_offsets.take(rows + 1)
        return np.ascontiguousarray(_pieces()[LABELS_FROM]), np.ascontiguousarray(_pieces()[LABELS_TO])

    def _pieces() -> NDArray[np.void]:
        if "pieces" not in vars(part):
            vars(part)["pieces"] = pool.pieces.take(rows) if "pieces" in vars(pool) else whole.pieces.take(chosen)
        return part.pieces

    part = _later(pool, make)
    vars(part)["_rows_of"] = whole, chosen
    return part


def _gathered(pool: Pool, rows: NDArray[np.int64], name: str) -> NDArray[Any]:
    if name in _OF_LABELS:
        return _labels(pool.label_offsets[rows], pool.label_offsets[rows + 1], pool.labels, name)
    found: NDArray[Any] = getattr(pool, name)[rows]
    return found


def _labels_at(
    starts: NDArray[np.int64], ends: NDArray[np.int64], labels: NDArray[np.int32]
) -> dict[str, NDArray[Any]]:
    """The labels of items that lie there among these, and their offsets."""
    offsets = _offsets(ends - starts)
    found = np.empty(offsets[-1], np.int32)
    compiled(_gather, labels, starts, offsets, found)
    return {"label_offsets": offsets, "labels": found}


def _gather(labels: Any, starts: Any, offsets: Any, found: Any) -> None:
    for item in range(len(starts)):
        for place in range(offsets[item], offsets[item + 1]):
            found[place] = labels[starts[item] + place - offsets[item]]


def _labels(starts: NDArray[np.int64], ends: NDArray[np.int64], labels: NDArray[np.int32], name: str) -> NDArray[Any]:
    """The labels of items that lie there, or their offsets."""
    counts = ends - starts
    offsets = _offsets(counts)
    if name == "label_offsets":
        return offsets
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    return np.asarray(labels[places])


def _later(pool: Pool, make: Callable[[str], NDArray[Any]]) -> Pool:
    """A pool with what is no column of this one, and the columns that `make` gives by their names."""
    part = object.__new__(Pool)
    vars(part).update({name: vars(pool)[name] for name in _SHARED}, _make=make)
    return part


def _appended(pool: Pool, fresh: Pool) -> Pool:
    def make(name: str) -> NDArray[Any]:
        if name == "label_offsets":
            return np.concatenate((pool.label_offsets, pool.label_offsets[-1] + fresh.label_offsets[1:]))
        return np.concatenate((getattr(pool, name), getattr(fresh, name)))

    both = _later(pool, make)
    vars(both)["_of_many"] = pool.of_many
    return both


def joined(pool: Pool, fresh: Pool) -> Pool:
    """The items of both, none of which is in both, sorted by key."""
    both = _appended(pool, fresh)
    if not len(pool) or not len(fresh) or pool.keys[-1] < fresh.keys[0]:
        return both
    return take(both, np.argsort(both.keys, kind="stable"))


def settled(pool: Pool) -> Pool:
    """The same with all its columns, so that it needs none of the pools that it was made of."""
    return replace(pool)


def _limited(pool: Pool) -> Pool:
    if len(pool) <= POOL_LIMIT:
        return pool
    return take(pool, np.arange(len(pool) - POOL_LIMIT, len(pool)))


def _piece(pool: Pool, rows: Sequence[CatalogRow], snapshot: Snapshot | None, strangers: Strangers | None) -> Pool:
    """A pool of these rows alone, with the numbers and the model of `pool`."""
    rows = sorted(rows, key=lambda row: row.key)
    labels = [_of_taste(row.labels) for row in rows]
    keys = np.array([row.key for row in rows], np.int64)
    source = _numbers(pool.sources, [row.source for row in rows])
    return replace(
        pool,
        keys=keys,
        published=np.array([NO_DATE if row.published is None else row.published for row in rows], np.int64),
        received=np.array([row.received for row in rows], np.int64),
        source=source,
        language=_numbers(pool.languages, [row.language for row in rows]).astype(np.int16),
        category=_numbers(pool.categories, [row.category for row in rows]).astype(np.int16),
        story=np.array([-1 if row.story is None else row.story for row in rows], np.int64),
        leads=np.array([bool(row.leads) for row in rows], np.bool_),
        kind=pool.kinds.number_all([row.kind for row in rows]).astype(np.int8),
        rule=np.array([pool.rules.number(row.labels) for row in rows], np.int32),
        label_offsets=_offsets(np.array([len(own) for own in labels], np.int64)),
        labels=pool.label_names.number_all(list(chain.from_iterable(labels))),
        **columns(keys, source, pool.sources.values, pool.model, snapshot, strangers),
    )


def _of_taste(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels that say what an item is, not whom it may be shown to."""
    return tuple(dict.fromkeys([label for label in labels if not is_rule(label)][:LABELS_PER_ITEM]))


def _numbers(numbering: Numbering[Value], values: Sequence[Value | None]) -> NDArray[np.int32]:
    """The number of each value, −1 for None."""
    known = np.array([value is not None for value in values], bool)
    numbers = np.full(len(values), -1, np.int32)
    numbers[known] = numbering.number_all([value for value in values if value is not None])
    return numbers


def _bare(pool: Pool, keys: NDArray[np.int64], snapshot: Snapshot | None) -> Pool:
    """Items of which the catalog's part is not known."""
    n = len(keys)
    source = np.full(n, -1, np.int32)
    return replace(
        pool,
        keys=keys,
        published=np.full(n, NO_DATE),
        received=np.zeros(n, np.int64),
        source=source,
        language=np.full(n, -1, np.int16),
        category=np.full(n, -1, np.int16),
        story=np.full(n, -1),
        leads=np.zeros(n, np.bool_),
        kind=np.full(n, -1, np.int8),
        rule=np.zeros(n, np.int32),
        label_offsets=np.zeros(n + 1, np.int64),
        labels=np.zeros(0, np.int32),
        **columns(keys, source, pool.sources.values, pool.model, snapshot),
    )


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
