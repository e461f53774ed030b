"""What a snapshot knows of items: the model that is served, and the columns of a pool that come from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import SnapshotBroken
from palate.models import content, content_scores, fields, nearest, registry, stored
from palate.models.content import Contents
from palate.models.content_scores import ContentScores
from palate.models.fields import LearnedField
from palate.models.nearest import Index
from palate.snapshots import Snapshot
from palate.vocabulary import Vocabulary

log = logging.getLogger(__name__)


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
    name: str = ""
    """Of the model."""
    content_products: NDArray[np.float32] | None = None
    """(R + 1, F) what `content` makes of the item vectors of a model whose scores are inner products; None for others."""

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
    index: Index | None = None
    """Of the vectors of the snapshot's items, whose products with a person's say what the model does; None where there are few
    items, or where the model's scores are no products."""
    indexed: NDArray[np.int64] | None = None
    """Keys of the items of the index."""


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


def served_name(snapshot: Snapshot, wanted: str) -> str:
    """The model that is served when `wanted` is: itself, unless the snapshot lacks it or says that it is worse than popularity;
    then `fm`, then `popularity`.
    """
    quality = snapshot.header.get("quality", {})
    for name in (wanted, "fm"):
        if name in stored.names(snapshot) and not (quality.get(name) or {}).get("worse", False):
            return name
    return "popularity"


def model(snapshot: Snapshot, wanted: str) -> Model:
    """The model that is served when `wanted` is: see `served_name`."""
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
    found = Model(version=snapshot.version, name=name, base=0.0, prior=prior)
    if name == "popularity":
        return found
    if name != "fm":
        return _with_index(replace(found, ranker=_ranker(snapshot, name)), snapshot)
    vectors = np.asarray(arrays["item_vectors"], np.float32)
    machine = replace(
        found,
        loss=models["fm"]["loss"],
        base=float(models["fm"]["base"]),
        factors=int(models["fm"]["factors"]),
        scale=float(np.square(vectors).sum(axis=1).mean()) if len(vectors) else 1.0,
        hours=_hours(snapshot),
    )
    return _with_index(machine, snapshot)


def _with_index(model: Model, snapshot: Snapshot) -> Model:
    """Without one that can't be read candidates are found in other ways."""
    index = index_of(snapshot, model.name)
    return model if index is None else replace(model, index=index, indexed=np.asarray(snapshot.arrays["items"]))


def index_of(snapshot: Snapshot, name: str | None) -> Index | None:
    """The index of a snapshot by this model, or by `indexing.TEXT`; None where it holds none, or none that can be read."""
    memory = snapshot.arrays.get(f"{nearest.PREFIX}{name}")
    if memory is None:
        return None
    try:
        return nearest.read(memory, snapshot.arrays[f"{nearest.TURN}{name}"])
    except (SnapshotBroken, KeyError) as error:
        log.warning("Candidates are found without the index of snapshot %s by %s: %s", snapshot.version, name, error)
        return None


def _hours(snapshot: Snapshot) -> LearnedField | None:
    known = fields.of_arrays(snapshot.arrays, snapshot.header["models"]["fm"].get("fields", ()))
    return next((field for field in known if field.name == "hour"), None)


def _ranker(snapshot: Snapshot, name: str) -> Ranker:
    slope, intercept = map(float, snapshot.header["models"][name]["calibration"])
    items, known = Vocabulary(np.asarray(snapshot.arrays["items"])), np.asarray(snapshot.arrays["item_positives"]) > 0
    if f"{name}_content_mean" in snapshot.arrays:
        known = np.ones(len(items), bool)  # content says something of all
    by_content = content_scores.from_arrays(snapshot.arrays)
    model, product = stored.load(snapshot, name), registry.entry(name).product
    products = None
    if by_content is not None and product is not None and len(items):
        products = content_scores.told(by_content, product.items(model))
    return Ranker(model, items, known, by_content, slope, intercept, name, products)


def columns(
    keys: NDArray[np.int64],
    source: NDArray[np.int32],
    sources: Sequence[int],
    model: Model,
    snapshot: Snapshot | None,
    strangers: Strangers | None = None,
) -> dict[str, Any]:
    """The columns of these items that come from the model; `source` (n,) are numbers in `sources`, −1 for none."""
    n = len(keys)
    nothing = {
        "learned": np.full(n, -1, np.int32),
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
    found = nothing | {"learned": rows.astype(np.int32)}
    found |= {"popularity": popularity, "evidence": _found(evidence, rows, 0.0)}
    if model.ranker is not None:
        stands = _stands(keys, rows, strangers, model.ranker, snapshot)
        return found | {"row": model.ranker.rows(keys), "content": stands}
    if model.name == "popularity":
        return found | {"bias": popularity}
    by_number = Vocabulary(np.asarray(arrays["sources"])).rows(np.array(sources, np.int64))
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
