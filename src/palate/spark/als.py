"""Implicit ALS on many machines: the rows of one side in parts, each with the whole other side, by the kernels of one machine.

For a half-step the driver sums the Gramian of the side that stays, sends that side to every executor once, and gets the vectors
of the other side back: of the cells nothing moves after the first shuffle. Rows are solved exactly (`als_steps`), so that the
result doesn't depend on the parts. Every half-step is written before the next begins: a fit whose driver died goes on from the
last whole epoch, and an executor that dies takes nothing along that Spark can't make again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.models import als_steps, als_update, implicit_als
from palate.models.als_steps import Evidence, Fixed, Losses, padded
from palate.models.implicit_als import UNOBSERVED, ImplicitALS, ImplicitALSParams
from palate.spark import blocks, stores
from palate.spark.blocks import Numbers
from palate.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Floats = NDArray[np.float32]
Kind = Literal["user", "item"]

PART = 20_000_000
"""Cells of a part at most, where there is no other reason for their number: an executor holds one part a task."""
TURNS = 2
"""Parts for each processor, so that one that is late doesn't keep the others waiting for long."""


@dataclass(frozen=True, eq=False)
class Side:
    """Users or items."""

    of: Vocabulary
    """(n,)"""
    counts: NDArray[np.int64]
    """(n,) cells of each"""
    order: NDArray[np.int64]
    """(n,) in the order of falling counts, in which the matrix has them: rows asked for most lie together in the cache"""

    @property
    def numbers(self) -> Numbers:
        """Where each key is in the matrix."""
        rows = np.empty(len(self.of), np.int32)
        rows[self.order] = np.arange(len(self.of), dtype=np.int32)
        return Numbers(self.of.keys, rows)


@dataclass(frozen=True, eq=False)
class _State:
    """Where a fit is; vectors are in the order of their sides, padded."""

    epoch: int
    users: Floats
    items: Floats
    losses: tuple[float, ...]


def fit(
    spark: SparkSession,
    interactions: DataFrame,
    params: ImplicitALSParams,
    seed: int,
    *,
    folder: str,
    users: Vocabulary | None = None,
    items: Vocabulary | None = None,
    parts: int | None = None,
    on_epoch: Callable[[int, float], object] | None = None,
) -> ImplicitALS:
    """Learn from the columns `user`, `item` (keys, each pair once) and `weight` of a table; NaN and 0 are no evidence.

    What `implicit_als.fit` learns with the solver `exact`, but for rounding. `folder` (an address that all machines reach) keeps
    what is done, until the fit is; the same call goes on from there. `users` and `items` have a row each, None: those of the
    table. `parts` None: by the cluster's processors. `on_epoch` is told the epoch's number and loss.
    """
    cells = _evident(interactions, params)
    sides = _side(cells, "user", users), _side(cells, "item", items)
    params = _settled(cells, params, sides)
    work = f"{folder}/als-{_fingerprint(params, seed, sides):08x}"
    count = parts or _parts(spark, int(sides[0].counts.sum()))
    by_user = _in_blocks(spark, cells, ("user", "item"), sides, params, count)
    by_item = _in_blocks(spark, cells, ("item", "user"), sides[::-1], params, count)
    evidence = implicit_als.evidence(params)
    with ThreadPoolExecutor(implicit_als.threads(params)) as pool:
        state = _resumed(spark, work, sides, params, pool) or _begun(sides, params, seed)
        while state.epoch < params.epochs:
            state = _epoch(spark, (by_user, by_item), sides, state, evidence, f"{work}/{state.epoch + 1:04}", pool)
            stores.delete(spark, f"{work}/{state.epoch - 1:04}")
            if on_epoch is not None:
                on_epoch(state.epoch, state.losses[-1])
    for side in (by_user, by_item):
        side.unpersist()
    stores.delete(spark, work)
    return _model(params, sides, state)


def update(
    spark: SparkSession, model: ImplicitALS, interactions: DataFrame, kind: Kind, *, parts: int | None = None
) -> ImplicitALS:
    """The model with a vector for each item (or user) of the table, which has all that is known of them; all others stay.

    Items new since the fit, or of another kind that the same people use, find their place among the people's vectors by one
    half-step; users among the items' likewise. Columns as in `fit`.
    """
    found, vectors = fold(spark, model, interactions, kind, parts=parts)
    own = {"user": model.users, "item": model.items}[kind].extended(found.of.keys)
    rows = own.rows(found.of.keys)
    if kind == "user":
        model = als_update.with_rows(model, own, model.items)
        changed = _put(np.asarray(model.user_vectors, np.float32), rows, vectors)
        return replace(model, user_vectors=changed, user_examples=_put(model.user_examples, rows, found.counts))
    model = als_update.with_rows(model, model.users, own)
    changed = _put(model.item_vectors, rows, vectors)
    return replace(
        model,
        item_vectors=changed,
        item_examples=_put(model.item_examples, rows, found.counts),
        item_matrix=implicit_als.item_matrix(changed, model.params),
    )


def _put(values: NDArray[Any], rows: NDArray[np.int64], others: NDArray[Any]) -> NDArray[Any]:
    result = values.copy()
    result[rows] = others
    return result


def fold(
    spark: SparkSession, model: ImplicitALS, interactions: DataFrame, kind: Kind, *, parts: int | None = None
) -> tuple[Side, Floats]:
    """The items (or users) of the table and their vectors (n, F), with the model's other side as it is."""
    params, other = model.params, "item" if kind == "user" else "user"
    stays, vectors = (
        (model.items, model.item_vectors)
        if kind == "user"
        else (model.users, np.asarray(model.user_vectors, np.float32))
    )
    cells = _evident(interactions, params)
    sides = _side(cells, kind, None), Side(stays, np.zeros(len(stays), np.int64), np.arange(len(stays)))
    by_own = _in_blocks(spark, cells, (kind, other), sides, params, parts or spark.sparkContext.defaultParallelism)
    evidence = implicit_als.evidence(params)
    with ThreadPoolExecutor(implicit_als.threads(params)) as pool:
        known = als_steps.fixed(padded(vectors, params.factors), sides[0].counts, evidence, pool)
    with _solved(spark, by_own, known, evidence) as solved:
        result, _ = _gathered(solved, len(sides[0].of), known.vectors.shape[1])
    by_own.unpersist()
    own = np.empty((len(result), params.factors), np.float32)
    own[sides[0].order] = result[:, : params.factors]
    return sides[0], own


# --- the matrix -----------------------------------------------------------------------------------------------------------


def _evident(interactions: DataFrame, params: ImplicitALSParams) -> DataFrame:
    """Without what is no evidence; `strength` is alpha · |weight|^power, to be summed."""
    power = f"CAST({params.alpha!r} * pow(abs(CAST(weight AS DOUBLE)), {params.power!r}) AS FLOAT)"
    told = "weight <> 0 AND NOT isnan(weight)"
    if params.form == "weighted":
        told += f" AND {power} > 0"
    return interactions.where(told).selectExpr(
        "CAST(`user` AS LONG) AS `user`",
        "CAST(item AS LONG) AS item",
        "CAST(weight AS FLOAT) AS weight",
        f"{power} AS strength",
    )


def _side(cells: DataFrame, kind: Kind, of: Vocabulary | None) -> Side:
    """All keys of a kind and how many cells each has."""
    found = cells.groupBy(kind).count().toArrow()
    keys, counts = (np.asarray(found.column(n), np.int64) for n in range(2))
    order = np.argsort(keys)
    keys, counts = keys[order], counts[order]
    if of is not None:
        rows = of.rows(keys)
        every = np.zeros(len(of), np.int64)
        every[rows[rows >= 0]] = counts[rows >= 0]
        keys, counts = of.keys, every
    return Side(of or Vocabulary(keys), counts, np.argsort(-counts, kind="stable"))


def _settled(cells: DataFrame, params: ImplicitALSParams, sides: tuple[Side, Side]) -> ImplicitALSParams:
    """With a number for what the unobserved weigh, as in `implicit_als.fit`."""
    if params.unobserved_weight is not None:
        return params
    row = cells.selectExpr("sum(CAST(strength AS DOUBLE)) AS total").first()
    total = float(row[0] or 0) if row is not None else 0.0
    pairs = int(np.count_nonzero(sides[0].counts)) * int(np.count_nonzero(sides[1].counts))
    return msgspec.structs.replace(params, unobserved_weight=UNOBSERVED * total / max(pairs, 1))


def _fingerprint(params: ImplicitALSParams, seed: int, sides: tuple[Side, Side]) -> int:
    """Of what the result depends on: checkpoints of another fit are none of ours."""
    settings = msgspec.structs.replace(params, threads=None, epochs=1)
    found = zlib.crc32(msgspec.json.encode([settings, seed]))
    for side in sides:
        found = zlib.crc32(side.counts.tobytes(), zlib.crc32(side.of.keys.tobytes(), found))
    return found


def _parts(spark: SparkSession, cells: int) -> int:
    return max(TURNS * spark.sparkContext.defaultParallelism, -(-cells // PART))


def _in_blocks(
    spark: SparkSession,
    cells: DataFrame,
    names: tuple[str, str],
    sides: tuple[Side, Side],
    params: ImplicitALSParams,
    parts: int,
) -> DataFrame:
    """The matrix whose rows are of the first side, kept on the executors in so many parts by the hash of the row."""
    own, other = (spark.sparkContext.broadcast(side.numbers) for side in sides)
    rows = partial(blocks.numbered, own=own, other=other, params=params)
    found = cells.select(*names, "weight").mapInArrow(rows, blocks.CELLS)
    part = partial(blocks.to_blocks, width=len(sides[1].of))
    return found.repartition(parts, "row").mapInArrow(part, blocks.BLOCKS).persist()


# --- the steps ------------------------------------------------------------------------------------------------------------


def _begun(sides: tuple[Side, Side], params: ImplicitALSParams, seed: int) -> _State:
    """With the vectors that `implicit_als.fit` begins with."""
    items = implicit_als.drawn(len(sides[1].of), params, np.random.default_rng(seed))
    users = np.zeros((len(sides[0].of), 0), np.float32)
    return _State(0, padded(users, params.factors), padded(items, params.factors, sides[1].order), ())


def _epoch(
    spark: SparkSession,
    matrices: tuple[DataFrame, DataFrame],
    sides: tuple[Side, Side],
    state: _State,
    evidence: Evidence,
    folder: str,
    pool: ThreadPoolExecutor,
) -> _State:
    """Solve all users, then all items; all that is left of it in the folder is whole when it has losses."""
    known = als_steps.fixed(state.items, sides[0].counts, evidence, pool, turn=True)
    with _solved(spark, matrices[0], known, evidence) as solved:
        solved.write.mode("overwrite").parquet(f"{folder}/users")
    users, (_, ridges) = _read(spark, f"{folder}/users", sides[0], state.items.shape[1])
    known = als_steps.fixed(users, sides[1].counts, evidence, pool, turn=True)
    with _solved(spark, matrices[1], known, evidence) as solved:
        solved.write.mode("overwrite").parquet(f"{folder}/items")
    items, (loss, _) = _read(spark, f"{folder}/items", sides[1], state.items.shape[1])
    losses = (*state.losses, loss + ridges)
    stores.write(spark, f"{folder}/losses.json", msgspec.json.encode(losses))
    return _State(state.epoch + 1, users, items, losses)


def _resumed(
    spark: SparkSession, work: str, sides: tuple[Side, Side], params: ImplicitALSParams, pool: ThreadPoolExecutor
) -> _State | None:
    """After the last whole epoch that a driver left; None when there is none."""
    for epoch in range(params.epochs, 0, -1):
        told = stores.read(spark, f"{work}/{epoch:04}/losses.json")
        if told is None:
            continue
        factors = padded(np.empty((0, 0), np.float32), params.factors).shape[1]
        users, _ = _read(spark, f"{work}/{epoch:04}/users", sides[0], factors)
        items, _ = _read(spark, f"{work}/{epoch:04}/items", sides[1], factors)
        # turned once more, as they were when the items were solved
        als_steps.fixed(users, sides[1].counts, implicit_als.evidence(params), pool, turn=True)
        return _State(epoch, users, items, tuple(msgspec.json.decode(told, type=list[float])))
    return None


@contextmanager
def _solved(spark: SparkSession, matrix: DataFrame, known: Fixed, evidence: Evidence) -> Iterator[DataFrame]:
    """The vectors of the matrix's rows, while the executors have the other side."""
    shared = spark.sparkContext.broadcast(known)
    try:
        yield matrix.mapInArrow(partial(blocks.solved, other=shared, evidence=evidence), blocks.VECTORS)
    finally:
        shared.destroy()


def _read(spark: SparkSession, address: str, side: Side, factors: int) -> tuple[Floats, Losses]:
    return _gathered(spark.read.schema(blocks.VECTORS).parquet(address), len(side.of), factors)


def _gathered(solved: DataFrame, rows: int, factors: int) -> tuple[Floats, Losses]:
    """(rows, factors) and the losses, summed in one order; rows without cells are zero."""
    result, losses = als_steps.aligned(rows, factors), {}
    for batch in solved.toArrow().to_batches():
        for block in batch.to_pylist():
            places = np.frombuffer(block["rows"], np.int32)
            result[places] = np.frombuffer(block["vectors"], np.float32).reshape(len(places), factors)
            losses[block["place"]] = (block["loss"], block["ridges"])
    told = [losses[place] for place in sorted(losses)]
    return result, (sum(loss for loss, _ in told), sum(ridges for _, ridges in told))


def _model(params: ImplicitALSParams, sides: tuple[Side, Side], state: _State) -> ImplicitALS:
    users, items = (
        _in_order(vectors[:, : params.factors], side.order)
        for vectors, side in zip((state.users, state.items), sides, strict=True)
    )
    return ImplicitALS(
        params=params,
        users=sides[0].of,
        user_vectors=users,
        user_examples=sides[0].counts.astype(np.int32),
        items=sides[1].of,
        item_vectors=items,
        item_examples=sides[1].counts.astype(np.int32),
        item_matrix=implicit_als.item_matrix(items, params),
        losses=state.losses,
    )


def _in_order(values: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    result = np.empty_like(values, order="C")
    result[order] = values
    return result
