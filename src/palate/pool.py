"""The items that may be served, as frozen columns with what the model knows of each, so that scoring all is one product."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from palate.errors import SnapshotBroken
from palate.models import content, content_scores, fields, stored
from palate.models.content import Contents
from palate.models.content_scores import ContentScores
from palate.models.fields import LearnedField
from palate.rules import Rulebook, is_rule
from palate.snapshots import Snapshot
from palate.vocabulary import Vocabulary

log = logging.getLogger(__name__)

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
class Ranker:
    """A model that is asked for a person's score of every item at once, by `registry.Entry.score_all`."""

    model: Any
    items: Vocabulary
    """Of its rows (I)."""
    known: NDArray[np.bool_]
    """(I,): of which items it has learned anything."""
    content: ContentScores | None
    """What it would say of others by their content; None in snapshots that hold nothing of that."""
    slope: float
    intercept: float
    """slope · score + intercept: the log-odds that somebody likes the item."""

    def rows(self, keys: NDArray[np.int64]) -> NDArray[np.int32]:
        """Row of each item, −1 for those that it has learned nothing of."""
        rows = self.items.rows(keys)
        return np.where((rows >= 0) & np.append(self.known, False)[rows], rows, -1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Model:
    """What a snapshot says beside its arrays; by default what holds before the first one."""

    version: str | None = None
    name: str = "popularity"
    """Of the model that is served."""
    ranker: Ranker | None = None
    """None for `popularity` and `fm`, whose part of a score is in the columns of the pool."""
    loss: Literal["squared", "logistic"] = "squared"
    base: float = 0.5
    factors: int = 0
    scale: float = 1.0
    """Mean squared length of the item vectors."""
    hours: LearnedField | None = None
    """What the hour of the day adds, where the model has learned it."""
    prior: float = 0.5
    """Probability that somebody likes an item that nobody has judged."""


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
        return Vocabulary(self.keys).rows(keys)

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
    rows = told[np.argsort(story[told], kind="stable")]
    first = np.diff(story[rows], prepend=-1) != 0
    sizes = np.diff(np.flatnonzero(first), append=len(rows))
    several = np.repeat(sizes > 1, sizes)
    rows, sizes = rows[several], sizes[sizes > 1]
    numbers = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    of_row = np.full(len(story), -1, np.int32)
    of_row[rows] = numbers
    return Stories(rows, np.cumsum(sizes) - sizes, numbers, of_row)


_PLAIN = (
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
    "row",
    "content",
    "vectors",
    "bias",
    "popularity",
    "evidence",
)


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


@dataclass(frozen=True, eq=False)
class Strangers:
    """Items that a snapshot doesn't know, with what is known of them all the same."""

    items: Vocabulary
    contents: Contents
    """In the order of the items."""


def strangers(keys: NDArray[np.int64], snapshot: Snapshot | None) -> NDArray[np.int64]:
    """Which of the items the snapshot's models could place by their content; none where they have learned nothing of content."""
    if snapshot is None or not {"fm_content_mean", "scores_weights"} & set(snapshot.arrays):
        return keys[:0]
    return keys[Vocabulary(np.asarray(snapshot.arrays["items"])).rows(keys) < 0]


def with_snapshot(pool: Pool, snapshot: Snapshot, served: str = "fm", strangers: Strangers | None = None) -> Pool:
    """The same items as this snapshot knows them, by the model named, or what stands in for it: see `served_name`."""
    model = _model(snapshot, served)
    return replace(pool, model=model, **_known(pool.keys, pool.source, pool.sources, model, snapshot, strangers))


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
    return _limited(_joined(pool, fresh))


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
    """The items of these rows, in this order."""
    starts, counts = pool.label_offsets[rows], np.diff(pool.label_offsets)[rows]
    offsets = _offsets(counts)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    plain: dict[str, Any] = {name: getattr(pool, name)[rows] for name in _PLAIN}
    return replace(pool, label_offsets=offsets, labels=pool.labels[places], **plain)


def _appended(pool: Pool, fresh: Pool) -> Pool:
    plain: dict[str, Any] = {name: np.concatenate((getattr(pool, name), getattr(fresh, name))) for name in _PLAIN}
    return replace(
        pool,
        label_offsets=np.concatenate((pool.label_offsets, pool.label_offsets[-1] + fresh.label_offsets[1:])),
        labels=np.concatenate((pool.labels, fresh.labels)),
        **plain,
    )


def _joined(pool: Pool, fresh: Pool) -> Pool:
    joined = _appended(pool, fresh)
    if not len(pool) or not len(fresh) or pool.keys[-1] < fresh.keys[0]:
        return joined
    return take(joined, np.argsort(joined.keys, kind="stable"))


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
        **_known(keys, source, pool.sources, pool.model, snapshot, strangers),
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
        **_known(keys, source, pool.sources, pool.model, snapshot),
    )


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def served_name(snapshot: Snapshot, wanted: str) -> str:
    """The model that is served when `wanted` is: itself, unless the snapshot lacks it or says that it is worse than popularity;
    then `fm`, then `popularity`.
    """
    quality = snapshot.header.get("quality", {})
    for name in (wanted, "fm"):
        if name in stored.names(snapshot) and not (quality.get(name) or {}).get("worse", False):
            return name
    return "popularity"


def _model(snapshot: Snapshot, wanted: str) -> Model:
    name = served_name(snapshot, wanted)
    try:
        return _of_name(snapshot, name)
    except (SnapshotBroken, KeyError, ValueError, TypeError) as error:  # whole, but not as this Palate writes it
        log.warning("Popularity is served, since model %s of snapshot %s can't be: %r", name, snapshot.version, error)
        return _of_name(snapshot, "popularity")


def _of_name(snapshot: Snapshot, name: str) -> Model:
    models, arrays = snapshot.header["models"], snapshot.arrays
    popular = models["popularity"]
    prior = 0.0 if popular.get("by_count") else float(popular["mean"])
    model = Model(version=snapshot.version, name=name, base=0.0, prior=prior)
    if name == "popularity":
        return model
    if name != "fm":
        return replace(model, ranker=_ranker(snapshot, name))
    vectors = np.asarray(arrays["item_vectors"], np.float32)
    return replace(
        model,
        loss=models["fm"]["loss"],
        base=float(models["fm"]["base"]),
        factors=int(models["fm"]["factors"]),
        scale=float(np.square(vectors).sum(axis=1).mean()) if len(vectors) else 1.0,
        hours=_hours(snapshot),
    )


def _hours(snapshot: Snapshot) -> LearnedField | None:
    known = fields.of_arrays(snapshot.arrays, snapshot.header["models"]["fm"].get("fields", ()))
    return next((field for field in known if field.name == "hour"), None)


def _ranker(snapshot: Snapshot, name: str) -> Ranker:
    slope, intercept = map(float, snapshot.header["models"][name]["calibration"])
    items, known = Vocabulary(np.asarray(snapshot.arrays["items"])), np.asarray(snapshot.arrays["item_positives"]) > 0
    if f"{name}_content_mean" in snapshot.arrays:
        known = np.ones(len(items), bool)  # content says something of all
    by_content = content_scores.from_arrays(snapshot.arrays)
    return Ranker(stored.load(snapshot, name), items, known, by_content, slope, intercept)


def _known(
    keys: NDArray[np.int64],
    source: NDArray[np.int32],
    sources: Numbering[int],
    model: Model,
    snapshot: Snapshot | None,
    strangers: Strangers | None = None,
) -> dict[str, Any]:
    """The columns that come from the model."""
    n = len(keys)
    nothing = {
        "row": np.full(n, -1, np.int32),
        "content": np.zeros((n, 0), np.float16),
        "vectors": np.zeros((n, 0), np.float32),
        "bias": np.zeros(n, np.float32),
        "popularity": np.full(n, model.prior, np.float32),
        "evidence": np.zeros(n, np.float32),
    }
    if snapshot is None:
        return nothing
    arrays = snapshot.arrays
    rows = Vocabulary(np.asarray(arrays["items"])).rows(keys)
    popularity, evidence = _popularity(snapshot)
    popularity = _found(popularity, rows, model.prior)
    found = nothing | {"popularity": popularity, "evidence": _found(evidence, rows, 0.0)}
    if model.ranker is not None:
        stands = _stands(keys, rows, strangers, model.ranker, snapshot)
        return found | {"row": model.ranker.rows(keys), "content": stands}
    if model.name == "popularity":
        return found | {"bias": popularity}
    by_number = Vocabulary(np.asarray(arrays["sources"])).rows(np.array(sources.values, np.int64))
    source_rows = np.append(by_number, -1)[source]  # −1, no source, finds the last
    vectors = _gathered(arrays["item_vectors"], rows, arrays["source_vectors"], source_rows)
    bias = _gathered(arrays["item_bias"], rows, arrays["source_bias"], source_rows)
    if strangers is not None:
        _place(keys, vectors, bias, strangers, snapshot)
    return found | {"vectors": vectors, "bias": bias}


def _stands(
    keys: NDArray[np.int64],
    rows: NDArray[np.int64],
    strangers: Strangers | None,
    ranker: Ranker,
    snapshot: Snapshot,
) -> NDArray[np.float16]:
    """(n, R) where items stand by their content: as the snapshot says, or as is known of strangers."""
    if ranker.content is None:
        return np.zeros((len(keys), 0), np.float16)
    result = _found(snapshot.arrays["scores_values"], rows, 0.0).astype(np.float16)
    if strangers is not None:
        places = strangers.items.rows(keys)
        met = np.flatnonzero(places >= 0)
        result[met] = content_scores.values(ranker.content, content.taken(strangers.contents, places[met]))
    return result


def _place(
    keys: NDArray[np.int64],
    vectors: NDArray[np.float32],
    bias: NDArray[np.float32],
    strangers: Strangers,
    snapshot: Snapshot,
) -> None:
    """Put strangers where their content says."""
    content_map = content.from_arrays(snapshot.arrays, "fm")
    rows = strangers.items.rows(keys)
    met = np.flatnonzero(rows >= 0)
    if content_map is not None and len(met):
        said = content.predicted(content_map, content.taken(strangers.contents, rows[met]))
        vectors[met], bias[met] = said[:, :-1], said[:, -1]


def _popularity(snapshot: Snapshot) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(I,) how likely somebody unknown likes each item, and how much is known of it.

    Where nobody votes items go by how much they were taken to: one that was as often as the mean of them stands at ½.
    """
    arrays = snapshot.arrays
    if not snapshot.header["models"]["popularity"].get("by_count"):
        return arrays["popularity"], arrays["popularity_evidence"]
    count = np.maximum(np.asarray(arrays["popularity_count"], np.float32), 0)
    typical = np.float32(max(float(count.mean()) if len(count) else 0.0, 1e-9))
    return np.asarray(count / (count + typical), np.float32), count


def _gathered(
    own: NDArray[Any], rows: NDArray[np.int64], means: NDArray[Any], source_rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """For each item its own values, else its source's mean, else zero."""
    result = _found(own, rows, 0.0)
    cold = np.flatnonzero((rows < 0) & (source_rows >= 0))
    result[cold] = means[source_rows[cold]]
    return result


def _found(values: NDArray[Any], rows: NDArray[np.int64], missing: float) -> NDArray[np.float32]:
    result = np.full((len(rows), *values.shape[1:]), missing, np.float32)
    known = np.flatnonzero(rows >= 0)
    result[known] = values[rows[known]]
    return result
