"""Implicit ALS on a real Spark cluster of this machine: a master and workers as processes of their own, on loopback.

    python benchmarks/bench_spark.py mllib      # our fit and MLlib's, both on two executors of one core
    python benchmarks/bench_spark.py scaling    # seconds an epoch against executors and cells
    python benchmarks/bench_spark.py kill       # an executor is killed in the middle
    python benchmarks/bench_spark.py documents  # 10,000 new documents, on Spark and on one machine

Needs the extra `spark`. The data is invented: people and items of a power law, in clusters of taste.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyspark
from pyarrow import parquet

from palate import matrix
from palate.domain import Interactions
from palate.models import implicit_als
from palate.models.implicit_als import ImplicitALSParams
from palate.models.material import material
from palate.spark import als, sessions
from palate.vocabulary import vocabulary

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTORS, EPOCHS = 64, 5
ALPHA, REG = 10.0, 0.1


def cells(people: int, items: int, count: int, seed: int = 1) -> Interactions:
    """About `count` pairs, each once, most of them of a person's own cluster of 20."""
    random = np.random.default_rng(seed)
    user = (people * random.random(count) ** 1.5).astype(np.int64)
    inside = random.random(count) < 0.7
    own = (items * random.random(count) ** 2.0).astype(np.int64) // 20 * 20 + user % 20
    item = np.minimum(np.where(inside, own, (items * random.random(count) ** 2.0).astype(np.int64)), items - 1)
    code = np.unique(user * items + item)
    weight = random.integers(1, 4, len(code)).astype(np.float32)
    none, zeros = np.full(len(code), np.nan, np.float32), np.zeros(len(code), np.int64)
    return Interactions(user=code // items + 1, item=code % items + 1, label=none, weight=weight, time=zeros)


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """The address of a standalone cluster of so many workers, each of one core, while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, home = f"spark://127.0.0.1:{port}", Path(pyspark.__file__).parent
    with tempfile.TemporaryDirectory() as scratch, sessions._environment("local"):
        start = [str(home / "bin" / "spark-class")]
        named = ["--host", "127.0.0.1", "--webui-port", "0"]
        environment = os.environ | {
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_LOG_DIR": scratch,
            "OPENBLAS_NUM_THREADS": "1",
        }
        commands = [["org.apache.spark.deploy.master.Master", *named, "--port", str(port)]] + [
            [
                "org.apache.spark.deploy.worker.Worker",
                *named,
                "--cores",
                "1",
                "--memory",
                "3g",
                "--work-dir",
                f"{scratch}/{n}",
                address,
            ]
            for n in range(workers)
        ]
        with open(Path(scratch) / "log", "wb") as log:
            processes = [
                subprocess.Popen([*start, *command], env=environment, stdout=log, stderr=log) for command in commands
            ]
            try:
                yield address
            finally:
                for process in reversed(processes):
                    process.terminate()
                for process in processes:
                    process.wait()


@contextmanager
def session(address: str) -> Iterator[Any]:
    options = {"spark.executor.memory": "2g", "spark.executor.cores": "1", "spark.sql.shuffle.partitions": "4"}
    with sessions.connected(address, "bench", options | sessions.HERE) as spark:
        wait_for_executors(spark)
        yield spark


def wait_for_executors(spark: Any) -> None:
    spark.range(100, numPartitions=8).mapInArrow(warm, "id long").count()


def warm(batches: Iterator[Any]) -> Iterator[Any]:
    """In an executor: load the kernels."""
    random = np.random.default_rng(1)
    implicit_als.fit(
        material(cells(50, 40, 500), NOW), ImplicitALSParams(factors=FACTORS, epochs=1, solver="exact", threads=1), 1
    )
    assert random is not None
    yield from batches


def table(spark: Any, of: Interactions) -> Any:
    folder = Path(tempfile.mkdtemp(prefix="palate-bench-"))
    atexit.register(shutil.rmtree, folder)
    for n, rows in enumerate(np.array_split(np.arange(len(of.user)), 4)):
        part = {"user": of.user[rows], "item": of.item[rows], "weight": of.weight[rows]}
        parquet.write_table(pa.table(part), folder / f"part-{n}.parquet")
    return spark.read.parquet(f"file://{folder}")


def params(epochs: int = EPOCHS) -> ImplicitALSParams:
    """MLlib's confidence 1 + alpha · r; its ridge grows with a row's cells, ours here is that of a row of middling length."""
    return ImplicitALSParams(
        factors=FACTORS,
        epochs=epochs,
        solver="exact",
        form="confidence",
        alpha=ALPHA,
        l2=REG * 60,
        l2_exponent=0,
        threads=1,
    )


def fitted(spark: Any, of: Interactions, epochs: int = EPOCHS, on_epoch: Any = None) -> tuple[Any, float, list[float]]:
    """The model, its seconds in all, and those of each epoch."""
    stamps = [time.perf_counter()]

    def told(number: int, loss: float) -> None:
        stamps.append(time.perf_counter())
        if on_epoch is not None:
            on_epoch(number)

    given = table(spark, of)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        model = als.fit(spark, given, params(epochs), 1, folder=f"file://{folder}", on_epoch=told)
        took = time.perf_counter() - begin
    return model, took, np.diff(stamps).tolist()


def loss(of: Interactions, users: Any, items: Any, user_keys: Any, item_keys: Any) -> float:
    """Σ over all pairs of c (p − s)², without ridges, a pair."""
    u, i = np.searchsorted(user_keys, of.user), np.searchsorted(item_keys, of.item)
    gram = float(np.sum((users.T @ users).astype(float) * (items.T @ items)))
    total = gram
    for first in range(0, len(u), 1 << 18):
        part = slice(first, first + (1 << 18))
        score = np.einsum("nf,nf->n", users[u[part]], items[i[part]]).astype(float)
        total += float(np.sum((1 + ALPHA * of.weight[part]) * (1 - score) ** 2 - score**2))
    return total / len(u)


def against_mllib(people: int, items: int, count: int) -> None:
    from pyspark.ml.recommendation import ALS

    of = cells(people, items, count)
    print(
        f"{len(of.user):,} cells, {len(np.unique(of.user)):,} people, {len(np.unique(of.item)):,} items, {FACTORS} factors"
    )
    small = cells(500, 200, 20_000)
    with cluster(2) as address, session(address) as spark:
        fitted(spark, small, epochs=2)  # so that both find the executors warm
        model, took, epochs = fitted(spark, of)
        ours = loss(of, model.user_vectors, model.item_vectors, model.users.keys, model.items.keys)
        print(
            f"palate  {EPOCHS} epochs {took:6.1f} s in all, {np.median(epochs[1:]):.2f} s an epoch, loss {ours:.4f}",
            flush=True,
        )
        ratings = (
            table(spark, of).selectExpr("CAST(`user` AS INT) AS user", "CAST(item AS INT) AS item", "weight").persist()
        )
        ratings.count()
        learner = ALS(
            rank=FACTORS,
            maxIter=EPOCHS,
            regParam=REG,
            implicitPrefs=True,
            alpha=ALPHA,
            userCol="user",
            itemCol="item",
            ratingCol="weight",
            numUserBlocks=4,
            numItemBlocks=4,
            seed=1,
        )
        learner.fit(
            table(spark, small).selectExpr("CAST(`user` AS INT) AS user", "CAST(item AS INT) AS item", "weight")
        )
        begin = time.perf_counter()
        found = learner.fit(ratings)
        factors = [rows.orderBy("id").toArrow() for rows in (found.userFactors, found.itemFactors)]
        took = time.perf_counter() - begin
        sides = [np.array(rows.column("features").to_pylist(), np.float32) for rows in factors]
        keys = [np.asarray(rows.column("id"), np.int64) for rows in factors]
        theirs = loss(of, *sides, *keys)
        print(
            f"MLlib   {EPOCHS} iterations {took:6.1f} s in all, {took / EPOCHS:.2f} s an iteration, loss {theirs:.4f}"
        )


def scaling() -> None:
    for workers in (1, 2):
        with cluster(workers) as address, session(address) as spark:
            for count in (1_000_000, 4_000_000):
                of = cells(count // 75, count // 200, count)
                _, took, epochs = fitted(spark, of, epochs=4)
                print(
                    f"{workers} executors, {len(of.user):,} cells: {np.median(epochs[1:]):.2f} s an epoch, {took:.1f} s in all",
                    flush=True,
                )


def killed() -> None:
    of = cells(10_000, 4_000, 500_000)
    with cluster(2) as address, session(address) as spark:
        whole, took, _ = fitted(spark, of)
        print(f"undisturbed: {took:.1f} s, loss {whole.losses[-1]:.6f}", flush=True)

        def kill(number: int) -> None:
            if number == 2:
                named = [(one, " ".join(one.info["cmdline"] or [])) for one in psutil.process_iter(["cmdline"])]
                mine = [
                    one
                    for one, line in named
                    if "CoarseGrainedExecutorBackend" in line and spark.sparkContext.applicationId in line
                ]
                os.kill(min(mine, key=lambda one: one.create_time()).pid, signal.SIGKILL)
                print("an executor was killed after epoch 2", flush=True)

        model, took, epochs = fitted(spark, of, on_epoch=kill)
        print(f"with one killed: {took:.1f} s, the longest epoch {max(epochs[1:]):.1f} s, loss {model.losses[-1]:.6f}")
        assert abs(model.losses[-1] - whole.losses[-1]) <= 1e-6 * whole.losses[-1], "the fit ended otherwise"


def documents(people: int, fresh: int, events: int) -> None:
    of = cells(people, 20_000, 2_000_000)
    local = implicit_als.fit(material(of, NOW), params(3), 1)
    random = np.random.default_rng(2)
    code = np.unique(random.integers(0, people, events) * fresh + (fresh * random.random(events) ** 2).astype(np.int64))
    none, zeros = np.full(len(code), np.nan, np.float32), np.zeros(len(code), np.int64)
    new = Interactions(code // fresh + 1, code % fresh + 1_000_000, none, np.ones(len(code), np.float32), zeros)
    keys = vocabulary(new.item)
    for _ in range(2):
        begin = time.perf_counter()
        by_item = matrix.transposed(matrix.of_interactions(new, new.weight, local.users, keys))
        here = implicit_als.fold_in_items(local, by_item)
        took = time.perf_counter() - begin
    print(f"{len(keys):,} new documents with {len(code):,} events: {took:.2f} s on one machine", flush=True)
    with cluster(2) as address, session(address) as spark:
        given = table(spark, new)
        for _ in range(2):
            begin = time.perf_counter()
            grown = als.update(spark, local, given, "item")
            took = time.perf_counter() - begin
        there = grown.item_vectors[grown.items.rows(keys.keys)]
        print(f"{took:.2f} s on Spark, two executors; they differ by {np.abs(there - here).max():.1e}")


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["mllib", "scaling", "kill", "documents"])
    for what in parser.parse_args(given).what:
        if what == "mllib":
            against_mllib(30_000, 10_000, 2_000_000)
        elif what == "scaling":
            scaling()
        elif what == "kill":
            killed()
        else:
            documents(60_000, 10_000, 500_000)


if __name__ == "__main__":
    main(sys.argv[1:])
