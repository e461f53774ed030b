"""Lists for everybody: people a second, ours and implicit's, on the same vectors, with what each person has met left out.

    python benchmarks/bench_lists.py make lists.npz [--people 1000000] [--items 100000] [--factors 64]
    python benchmarks/bench_lists.py ours lists.npz [--take 20000] [--threads 2]
    python benchmarks/bench_lists.py implicit lists.npz [--take 20000]      # where implicit is installed
    python benchmarks/bench_lists.py spark lists.npz [--take 20000]         # ours on Spark: local[threads]
    python benchmarks/bench_lists.py mllib lists.npz [--take 20000]         # its recommendForAllUsers, which can leave nothing out

Vectors are normal numbers; the lengths of the items' are log-normal of the deviation `--spread` (0.25; 0: as alike as chance makes
them, 0.5: as after a fit to a catalog with a long tail). Twenty items a person were met, and a tenth of the items is closed by rules.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

MET = 20
LIMIT = 100
CLOSED = 0.1
BATCH = 1_024
"""People whom implicit is asked about at a time: its best of 256, 1,024 and 8,192."""


def make(file: Path, people: int, items: int, factors: int, spread: float) -> None:
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(0, spread, items)).astype(np.float32)
    vectors = rng.standard_normal((items, factors), np.float32) * lengths[:, np.newaxis] / np.float32(factors**0.5)
    users = rng.standard_normal((people, factors), np.float32)
    met = np.sort(rng.integers(0, items, (people, MET), np.int32), axis=1)
    np.savez(file, users=users, items=vectors, met=met, closed=rng.random(items) < CLOSED)


def cells(met: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n + 1,) and (N,): each person's items once."""
    fresh = np.column_stack((np.ones(len(met), bool), met[:, 1:] != met[:, :-1]))
    return np.concatenate(([0], np.cumsum(fresh.sum(axis=1)))), met[fresh]


def ours(data: Any, take: int, threads: int) -> Callable[[int], np.ndarray]:
    from palate.models import top_lists

    def lists(count: int) -> np.ndarray:
        seen, rows = open_cells(data, count)
        return rows[top_lists.best(data["users"][:count], data["items"][rows], LIMIT, seen, threads).rows]

    return lists


def implicit(data: Any, take: int, threads: int) -> Callable[[int], np.ndarray]:
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    model = AlternatingLeastSquares(factors=data["items"].shape[1], use_gpu=False, num_threads=threads)
    model.user_factors, model.item_factors = data["users"][:take], data["items"]
    offsets, columns = cells(data["met"][:take])
    seen = csr_matrix((np.ones(len(columns), np.float32), columns, offsets), (take, len(data["items"])))
    closed = np.flatnonzero(data["closed"])

    def lists(count: int) -> np.ndarray:
        parts = []
        for first in range(0, count, BATCH):
            ids = np.arange(first, min(first + BATCH, count))
            parts.append(model.recommend(ids, seen[ids], N=LIMIT, filter_items=closed)[0])
        return np.concatenate(parts)

    return lists


def open_cells(data: Any, count: int) -> tuple[Any, np.ndarray]:
    """What each person has met of the items that are open, and the rows of those."""
    from palate.matrix import sparse

    rows = np.flatnonzero(~data["closed"])
    column = np.full(len(data["items"]), -1)
    column[rows] = np.arange(len(rows))
    offsets, columns = cells(data["met"][:count])
    person, open_ = np.repeat(np.arange(count), np.diff(offsets)), column[columns] >= 0
    ones = np.ones(int(open_.sum()), np.float32)
    return sparse(person[open_], column[columns[open_]], ones, (count, len(rows))), rows


@contextmanager
def spark_session(threads: int) -> Iterator[Any]:
    from palate.spark import sessions

    with sessions.connected(f"local[{threads}]", "lists", {"spark.driver.memory": "6g"}) as session:
        yield session


@contextmanager
def on_spark(data: Any, take: int, threads: int) -> Iterator[Callable[[int], np.ndarray]]:
    from palate.spark import lists

    with spark_session(threads) as session:

        def found(count: int) -> np.ndarray:
            seen, rows = open_cells(data, count)
            return rows[lists.best(session)(data["users"][:count], data["items"][rows], LIMIT, seen, 1).rows]

        yield found


@contextmanager
def by_mllib(data: Any, take: int, threads: int) -> Iterator[Callable[[int], np.ndarray]]:
    """A model of Spark's own with these vectors, by the files that it saves; of the open items, with nothing left out."""
    import pyarrow as pa
    from pyspark.ml.recommendation import ALS, ALSModel
    from pyspark.sql import functions as of

    with spark_session(threads) as session, tempfile.TemporaryDirectory() as folder:
        table = session.createDataFrame([(0, 0, 1.0), (1, 1, 1.0)], "user int, item int, rating float")
        ALS(rank=data["items"].shape[1], maxIter=1, implicitPrefs=True).fit(table).save(f"{folder}/model")
        rows = np.flatnonzero(~data["closed"])

        def written(name: str, ids: np.ndarray, vectors: np.ndarray) -> None:
            flat = pa.array(vectors.ravel(), pa.float32())
            features = pa.ListArray.from_arrays(
                np.arange(0, flat.__len__() + 1, vectors.shape[1], dtype=np.int32), flat
            )
            given = session.createDataFrame(pa.table({"id": pa.array(ids, pa.int32()), "features": features}))
            given.repartition(threads * 4).write.mode("overwrite").parquet(f"{folder}/model/{name}")

        written("itemFactors", rows, data["items"][rows])

        def lists(count: int) -> np.ndarray:
            written("userFactors", np.arange(count), data["users"][:count])
            found = ALSModel.load(f"{folder}/model").recommendForAllUsers(LIMIT)
            told = found.select("user", of.col("recommendations.item").alias("items")).toArrow()
            items = np.array(told.column("items").combine_chunks().values).reshape(-1, LIMIT)
            return items[np.argsort(np.array(told.column("user")))]

        yield lists


WAYS: dict[str, Any] = {
    "ours": lambda *given: nullcontext(ours(*given)),
    "implicit": lambda *given: nullcontext(implicit(*given)),
    "spark": on_spark,
    "mllib": by_mllib,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("make", "ours", "implicit", "spark", "mllib"))
    parser.add_argument("file", type=Path)
    for name, default in (("people", 1_000_000), ("items", 100_000), ("factors", 64), ("take", 20_000), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--spread", type=float, default=0.25)
    asked = parser.parse_args()
    if asked.what == "make":
        make(asked.file, asked.people, asked.items, asked.factors, asked.spread)
        return
    data = dict(np.load(asked.file))
    with WAYS[asked.what](data, asked.take, asked.threads) as lists:
        lists(64)
        begin = time.perf_counter()
        found = lists(asked.take)
        seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    said = f"{asked.take / seconds:,.0f} people a second ({seconds:.1f} s for {asked.take:,}), {memory:.1f} GiB"
    print(f"{asked.what}: {said}; check {int(found.sum())}")


if __name__ == "__main__":
    main()
