"""Implicit ALS on many machines: the rows of one side in parts, each with the whole other side, by the kernels of one machine.

For a half-step the driver sums the Gramian of the side that stays, sends that side to every executor once, and gets the vectors
of the other side back: of the cells nothing moves after the first shuffle. Rows are solved exactly (`als_steps`), so that the
result doesn't depend on the parts. Every minute an epoch is written: a fit whose driver died goes on from there, and an executor
that dies takes nothing along that Spark can't make again.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.matrix import Sparse
from palate.models import als_steps, als_update, implicit_als
from palate.models.als_steps import Evidence, Fixed, Losses, padded
from palate.models.implicit_als import UNOBSERVED, ImplicitALS, ImplicitALSParams
from palate.spark import blocks, stores
from palate.spark.blocks import Block, Counted, Numbers, Part, Sent
from palate.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pyspark import RDD
    from pyspark.sql import DataFrame, SparkSession

Floats = NDArray[np.float32]
Kind = Literal["user", "item"]

TURNS = 2
"""Parts for each task that runs at a time, so that one that is late doesn't keep the others waiting for long; few cells have one,
since then starting a task costs more."""
WRITTEN = 1 << 16
"""Vectors in a row of a checkpoint's table."""
CHECKPOINT_SECONDS = 60.0
"""How much work a driver that dies may lose: an epoch is written when the last one that was is so old."""


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
class Matrix:
    """Some partitions of a table of blocks, kept on the executors."""

    blocks: RDD[Block]
    parts: range


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
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_epoch: Callable[[int, float], object] | None = None,
) -> ImplicitALS:
    """Learn from the columns `user`, `item` (keys, each pair once) and `weight` of a table; NaN and 0 are no evidence.

    What `implicit_als.fit` learns with the solver `exact`, but for rounding. `folder` (an address that all machines reach) keeps
    an epoch every so many seconds, until the fit is done; the same call goes on from there. `users` and `items` have a row each,
    None: those of the table. `parts` None: by the cluster's processors. `on_epoch` is told the epoch's number and loss.
    """
    count = parts or _parts(spark, interactions)
    cells = _in_parts(interactions, ("user", "item"), params, count, 2)
    sides, total = _sides(cells, count, (users, items))
    params = _settled(total, params, sides)
    work = f"{folder}/als-{_fingerprint(params, seed, sides):08x}"
    numbers = spark.sparkContext.broadcast((sides[0].numbers, sides[1].numbers))
    matrices = [_in_blocks(cells, numbers, side, count) for side in (0, 1)]
    evidence, written = implicit_als.evidence(params), time.monotonic()
    with ThreadPoolExecutor(implicit_als.threads(params)) as pool:
        state = _resumed(spark, work, sides, params) or _begun(sides, params, seed)
        while state.epoch < params.epochs:
            state = _epoch(spark, matrices, sides, state, evidence, pool)
            if state.epoch < params.epochs and time.monotonic() - written >= checkpoint_seconds:
                _write(spark, work, state)
                written = time.monotonic()
            cells.unpersist()  # the blocks are made
            if on_epoch is not None:
                on_epoch(state.epoch, state.losses[-1])
    for matrix in matrices:
        matrix.blocks.unpersist()
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


def fold_rows(spark: SparkSession, model: ImplicitALS, weights: Sparse, kind: Kind) -> Floats:
    """(n, F): the vector of each row of users (or items), from the weights of the model's items (or users), which stay.

    What `implicit_als.fold_in_users` and `fold_in_items` give, for rows that the driver holds.
    """
    params, other = model.params, model.item_vectors if kind == "user" else model.user_vectors
    cells = implicit_als.evident(weights, params)
    told, count = implicit_als.evidence(params), spark.sparkContext.defaultParallelism
    with ThreadPoolExecutor(implicit_als.threads(params)) as pool:
        known = als_steps.fixed(padded(other, params.factors), cells.counts, told, pool)
    made = list(blocks.cut(np.arange(len(cells), dtype=np.int32), cells))
    parts = range(min(count, len(made)))
    matrix = Matrix(spark.sparkContext.parallelize(made, max(len(parts), 1)), parts)
    result, _ = _solved(spark, matrix, known, told, len(cells))
    return np.ascontiguousarray(result[:, : params.factors])


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
    count = parts or spark.sparkContext.defaultParallelism
    cells = _in_parts(interactions, (kind, other), params, count, 1)
    (own, _), _ = _sides(cells, count, (None, stays))
    fixed = Side(stays, np.zeros(len(stays), np.int64), np.arange(len(stays)))
    numbers = spark.sparkContext.broadcast((own.numbers, fixed.numbers))
    evidence = implicit_als.evidence(params)
    with ThreadPoolExecutor(implicit_als.threads(params)) as pool:
        known = als_steps.fixed(padded(vectors, params.factors), own.counts, evidence, pool)
    by_own = _in_blocks(cells, numbers, 0, count)
    result, _ = _solved(spark, by_own, known, evidence, len(own.of))
    for kept in (cells, by_own.blocks):
        kept.unpersist()
    return own, _in_order(result[:, : params.factors], own.order)


# --- the matrix -----------------------------------------------------------------------------------------------------------


def _in_parts(
    interactions: DataFrame, names: tuple[str, str], params: ImplicitALSParams, count: int, sides: int
) -> RDD[Part]:
    """All that is evidence, kept on the executors by parts of the first side, and with two `sides` of the other side too.

    That is the one shuffle of a fit.
    """
    from pyspark import StorageLevel

    told = interactions.where("weight <> 0 AND NOT isnan(weight)")
    keys = [f"CAST(`{name}` AS LONG) AS `{name}`" for name in names]
    split = partial(blocks.split, params=params, parts=count, sides=sides)
    found = told.selectExpr(*keys, "CAST(weight AS FLOAT) AS weight").mapInArrow(split, blocks.SPLIT)
    parts = found.repartitionById(sides * count, "part").rdd.mapPartitions(blocks.gathered)
    return parts.persist(StorageLevel.MEMORY_AND_DISK)


def _sides(
    cells: RDD[Part], count: int, of: tuple[Vocabulary | None, Vocabulary | None]
) -> tuple[tuple[Side, Side], float]:
    """Users and items, and the sum of all strengths."""
    found = sorted(cells.map(blocks.counted).collect(), key=lambda part: part.number)
    sides = ([part for part in found if part.number < count], [part for part in found if part.number >= count])
    users, items = (_side(parts, own) for parts, own in zip(sides, of, strict=True))
    return (users, items), sum(part.total for part in sides[0])


def _side(parts: Sequence[Counted], of: Vocabulary | None) -> Side:
    """All keys and how many cells each has; `of` None: those that have cells."""
    keys, counts = (
        np.concatenate([np.zeros(0, np.int64), *(getattr(part, name) for part in parts)]) for name in ("keys", "counts")
    )
    order = np.argsort(keys)
    keys, counts = keys[order], counts[order]
    if of is not None:
        rows = of.rows(keys)
        every = np.zeros(len(of), np.int64)
        every[rows[rows >= 0]] = counts[rows >= 0]
        keys, counts = of.keys, every
    return Side(of or Vocabulary(keys), counts, np.argsort(-counts, kind="stable"))


def _settled(total: float, params: ImplicitALSParams, sides: tuple[Side, Side]) -> ImplicitALSParams:
    """With a number for what the unobserved weigh, as in `implicit_als.fit`."""
    if params.unobserved_weight is not None:
        return params
    pairs = int(np.count_nonzero(sides[0].counts)) * int(np.count_nonzero(sides[1].counts))
    return msgspec.structs.replace(params, unobserved_weight=UNOBSERVED * total / max(pairs, 1))


def _fingerprint(params: ImplicitALSParams, seed: int, sides: tuple[Side, Side]) -> int:
    """Of what the result depends on: checkpoints of another fit are none of ours."""
    settings = msgspec.structs.replace(params, threads=None, epochs=1)
    found = zlib.crc32(msgspec.json.encode([settings, seed]))
    for side in sides:
        found = zlib.crc32(side.counts.tobytes(), zlib.crc32(side.of.keys.tobytes(), found))
    return found


def _parts(spark: SparkSession, interactions: DataFrame) -> int:
    """As many as tasks run at a time; where Spark reads more pieces (of 128 MB: millions of cells), several for each task."""
    tasks, pieces = spark.sparkContext.defaultParallelism, interactions.rdd.getNumPartitions()
    return tasks if pieces <= tasks else max(TURNS * tasks, TURNS * pieces)


def _in_blocks(cells: RDD[Part], numbers: Sent[tuple[Numbers, Numbers]], side: int, count: int) -> Matrix:
    """The matrix whose rows are of the side 0 or 1; made when it is first asked for."""
    from pyspark import StorageLevel

    made = cells.mapPartitions(partial(blocks.to_blocks, numbers=numbers, of=side))
    return Matrix(made.persist(StorageLevel.MEMORY_AND_DISK), range(side * count, (side + 1) * count))


# --- the steps ------------------------------------------------------------------------------------------------------------


def _begun(sides: tuple[Side, Side], params: ImplicitALSParams, seed: int) -> _State:
    """With the vectors that `implicit_als.fit` begins with."""
    items = implicit_als.drawn(len(sides[1].of), params, np.random.default_rng(seed))
    users = np.zeros((len(sides[0].of), 0), np.float32)
    return _State(0, padded(users, params.factors), padded(items, params.factors, sides[1].order), ())


def _epoch(
    spark: SparkSession,
    matrices: Sequence[Matrix],
    sides: tuple[Side, Side],
    state: _State,
    evidence: Evidence,
    pool: ThreadPoolExecutor,
) -> _State:
    """Solve all users, then all items."""
    known = als_steps.fixed(state.items, sides[0].counts, evidence, pool, turn=True)
    users, (_, ridges) = _solved(spark, matrices[0], known, evidence, len(sides[0].of))
    known = als_steps.fixed(users, sides[1].counts, evidence, pool, turn=True)
    items, (loss, _) = _solved(spark, matrices[1], known, evidence, len(sides[1].of))
    return _State(state.epoch + 1, users, items, (*state.losses, loss + ridges))


def _solved(spark: SparkSession, matrix: Matrix, known: Fixed, evidence: Evidence, rows: int) -> tuple[Floats, Losses]:
    """(rows, F), `padded`, and the losses, summed in one order; rows without cells are zero."""
    shared = spark.sparkContext.broadcast(known)
    try:
        solve = partial(blocks.solved, other=shared, evidence=evidence)
        found = spark.sparkContext.runJob(matrix.blocks, solve, list(matrix.parts))
    finally:
        shared.destroy()
    result = als_steps.aligned(rows, known.vectors.shape[1])
    for part in found:
        result[part.rows] = part.vectors
    found.sort(key=lambda part: part.place)
    return result, (sum(part.loss for part in found), sum(part.ridges for part in found))


# --- checkpoints ----------------------------------------------------------------------------------------------------------


def _write(spark: SparkSession, work: str, state: _State) -> None:
    """Keep an epoch, which is whole when its losses are there, and no older one."""
    import pyarrow as pa

    for name, vectors in (("users", state.users), ("items", state.items)):
        parts = [(first, vectors[first : first + WRITTEN].tobytes()) for first in range(0, len(vectors), WRITTEN)]
        places, told = zip(*parts, strict=True) if parts else ((), ())
        table = pa.table({"place": pa.array(places, pa.int64()), "vectors": pa.array(told, pa.binary())})
        spark.createDataFrame(table).write.mode("overwrite").parquet(f"{work}/{state.epoch:04}/{name}")
    stores.write(spark, f"{work}/{state.epoch:04}/losses.json", msgspec.json.encode(state.losses))
    for epoch in range(1, state.epoch):
        stores.delete(spark, f"{work}/{epoch:04}")


def _resumed(spark: SparkSession, work: str, sides: tuple[Side, Side], params: ImplicitALSParams) -> _State | None:
    """After the last epoch that was written whole; None when there is none."""
    for epoch in range(params.epochs, 0, -1):
        folder = f"{work}/{epoch:04}"
        told = stores.read(spark, f"{folder}/losses.json")
        if told is not None:
            users, items = (
                _read(spark, f"{folder}/{name}", len(side.of), params.factors)
                for name, side in zip(("users", "items"), sides, strict=True)
            )
            return _State(epoch, users, items, tuple(msgspec.json.decode(told, type=list[float])))
    return None


def _read(spark: SparkSession, address: str, rows: int, factors: int) -> Floats:
    result = als_steps.aligned(rows, -(-factors // als_steps.WIDTH) * als_steps.WIDTH)
    for batch in spark.read.schema("place long, vectors binary").parquet(address).toArrow().to_batches():
        for part in batch.to_pylist():
            vectors = np.frombuffer(part["vectors"], np.float32).reshape(-1, result.shape[1])
            result[part["place"] : part["place"] + len(vectors)] = vectors
    return result


# --- the model ------------------------------------------------------------------------------------------------------------


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
