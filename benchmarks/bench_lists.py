"""Lists for everybody: people a second, ours and implicit's, on the same vectors, with what each person has met left out.

    python benchmarks/bench_lists.py make lists.npz [--people 1000000] [--items 100000] [--factors 64]
    python benchmarks/bench_lists.py ours lists.npz [--take 20000] [--threads 2]
    python benchmarks/bench_lists.py implicit lists.npz [--take 20000]      # where implicit is installed

Vectors are normal numbers; the lengths of the items' are log-normal of the deviation `--spread` (0.25; 0: as alike as chance makes
them, 0.5: as after a fit to a catalog with a long tail). Twenty items a person were met, and a tenth of the items is closed by rules.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
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
    from palate.matrix import Sparse, sparse
    from palate.models import top_lists

    rows = np.flatnonzero(~data["closed"])
    column = np.full(len(data["items"]), -1)
    column[rows] = np.arange(len(rows))
    users, met, items = data["users"][:take], data["met"][:take], data["items"]

    def lists(count: int) -> np.ndarray:
        offsets, columns = cells(met[:count])
        person, open_ = np.repeat(np.arange(count), np.diff(offsets)), column[columns] >= 0
        ones = np.ones(int(open_.sum()), np.float32)
        seen: Sparse = sparse(person[open_], column[columns[open_]], ones, (count, len(rows)))
        found = top_lists.best(users[:count], items[rows], LIMIT, seen, threads)
        return rows[found.rows]

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("make", "ours", "implicit"))
    parser.add_argument("file", type=Path)
    for name, default in (("people", 1_000_000), ("items", 100_000), ("factors", 64), ("take", 20_000), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--spread", type=float, default=0.25)
    asked = parser.parse_args()
    if asked.what == "make":
        make(asked.file, asked.people, asked.items, asked.factors, asked.spread)
        return
    data = dict(np.load(asked.file))
    lists = (ours if asked.what == "ours" else implicit)(data, asked.take, asked.threads)
    lists(64)
    begin = time.perf_counter()
    found = lists(asked.take)
    seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    said = f"{asked.take / seconds:,.0f} people a second ({seconds:.1f} s for {asked.take:,}), {memory:.1f} GiB"
    print(f"{asked.what}: {said}; check {int(found.sum())}")


if __name__ == "__main__":
    main()
