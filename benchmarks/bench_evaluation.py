"""Full rankings beside the evaluators of `implicit` and irspack, in turn in one run, from the same vectors: seconds and results.

    PALATE_DATA=… python benchmarks/bench_evaluation.py [--factors 64] [--rounds 5] [--data movielens-1m …]

Reads feedback/movielens-1m and feedback/gowalla-lightgcn below PALATE_DATA and leaves out what isn't there; without PALATE_DATA it
makes a set of MovieLens 1M's size. Each evaluator ranks all items for all users of the test, without those of the training, and
gives nDCG and recall at 20; ours also the intervals of both by 1,000 bootstrap samples. Peers that aren't installed are named.
"""

from __future__ import annotations

import os

os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from palate import matrix
from palate.domain import Interactions
from palate.evaluation import measuring, ranking, recordings
from palate.matrix import Sparse
from palate.vocabulary import Vocabulary

THREADS, K = 2, 20
WANTED = measuring.wanted(f"ndcg@{K},recall@{K}")


@dataclass(frozen=True)
class Case:
    """Pairs of training and test, and vectors of users and items."""

    name: str
    train: Interactions
    test: Interactions
    users: int
    items: int
    vectors: tuple[Any, Any]


def pairs(user: Any, item: Any) -> Interactions:
    order = np.lexsort((item, user))
    ones = np.ones(len(order), np.float32)
    return Interactions(user[order], item[order], ones, ones, np.zeros(len(order), np.int64))


def case(name: str, train: tuple[Any, Any], test: tuple[Any, Any], users: int, items: int, factors: int) -> Case:
    """With vectors of the length of a model's: a rough factorisation, so that scores are like scores."""
    random = np.random.default_rng(0)
    known = pairs(*train)
    cells = matrix.of_interactions(known, known.weight, Vocabulary(np.arange(users)), Vocabulary(np.arange(items)))
    item = random.normal(size=(items, factors)).astype(np.float32)
    for _ in range(2):  # power iteration
        user = product(cells, item)
        item = np.linalg.qr(product(matrix.transposed(cells), user))[0].astype(np.float32)
    return Case(name, known, pairs(*test), users, items, (product(cells, item), item))


def product(cells: Sparse, vectors: Any) -> Any:
    sums = np.zeros((len(cells), vectors.shape[1]), np.float32)
    np.add.at(sums, np.repeat(np.arange(len(cells)), cells.counts), vectors[cells.columns] * cells.values[:, None])
    return sums


def synthetic(factors: int) -> Case:
    random = np.random.default_rng(1)
    users, items, count = 6_040, 3_706, 1_000_000
    popularity = 1 / (np.arange(items) + 30.0) ** 0.9
    user, item = random.integers(0, users, count), random.choice(items, count, p=popularity / popularity.sum())
    code = np.unique(user * items + item)
    late = random.random(len(code)) < 0.2
    train, test = code[~late], code[late]
    return case("synthetic", (train // items, train % items), (test // items, test % items), users, items, factors)


def movielens(folder: Path, factors: int) -> Case:
    """One in five pairs, by chance: the set has no times."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "pairs.parquet")
    user, item = (np.unique(table[name].to_pylist(), return_inverse=True)[1] for name in ("userID", "movieID"))
    late = np.random.default_rng(0).random(len(user)) < 0.2
    sizes = int(user.max()) + 1, int(item.max()) + 1
    return case("MovieLens 1M", (user[~late], item[~late]), (user[late], item[late]), *sizes, factors)


def gowalla(folder: Path, factors: int) -> Case:
    read = recordings.read([folder / "train.rebuilt.txt", folder / "test.txt"])
    user, item, late = read.events.user, read.events.item, read.part == 1
    sizes = len(read.user_ids), len(read.item_ids)
    return case("Gowalla", (user[~late], item[~late]), (user[late], item[late]), *sizes, factors)


SETS = {"movielens-1m": movielens, "gowalla-lightgcn": gowalla}


# --- evaluators: each returns nDCG and recall -----------------------------------------------------------------------------

Evaluator = Callable[[], tuple[float, float]]


def ours(case: Case) -> Evaluator:
    items = Vocabulary(np.arange(case.items))
    user_vectors, item_vectors = case.vectors
    across = np.ascontiguousarray(item_vectors.T)

    def run() -> tuple[float, float]:
        relevant = case.test, np.ones(len(case.test))
        asked = ranking.questions(np.unique(case.test.user), case.train, relevant, case.test, items)
        ranked = ranking.rank(lambda known: user_vectors[known.users] @ across, asked, K, threads=THREADS)
        measured = measuring.measure(ranked, asked, WANTED, None, expected=None)
        figures = measured.figures(np.random.default_rng(0))
        return tuple(figures[metric.name].value for metric in WANTED)  # type: ignore[return-value]

    return run


def of_scipy(case: Case, part: Interactions) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((part.weight, (part.user, part.item)), shape=(case.users, case.items))


def by_implicit(case: Case) -> Evaluator:
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.evaluation import ranking_metrics_at_k

    model = AlternatingLeastSquares(factors=case.vectors[1].shape[1], num_threads=THREADS)
    model.user_factors, model.item_factors = case.vectors
    train, test = of_scipy(case, case.train), of_scipy(case, case.test)

    def run() -> tuple[float, float]:
        found = ranking_metrics_at_k(model, train, test, K=K, show_progress=False, num_threads=THREADS)
        return found["ndcg"], float("nan")  # it has no recall

    return run


def by_irspack(case: Case) -> Evaluator:
    from irspack import Evaluator as Irspack
    from irspack.recommenders import TopPopRecommender

    user_vectors, item_vectors = case.vectors

    class Given(TopPopRecommender):  # type: ignore[misc]
        """A recommender with vectors that it is given."""

        def get_score_block(self, begin: int, end: int) -> Any:
            return user_vectors[begin:end] @ item_vectors.T

    model = Given(of_scipy(case, case.train)).learn()
    judge = Irspack(of_scipy(case, case.test), cutoff=K, n_threads=THREADS)

    def run() -> tuple[float, float]:
        found = judge.get_score(model)
        return found["ndcg"], found["recall"]

    return run


def compare(case: Case, rounds: int) -> None:
    print(
        f"\n{case.name}: {case.users:,} users × {case.items:,} items, {len(case.test):,} test pairs, {THREADS} threads"
    )
    runs: dict[str, Evaluator] = {"palate": ours(case)}
    for name, make in (("implicit", by_implicit), ("irspack", by_irspack)):
        try:
            runs[name] = make(case)
        except ImportError as error:
            print(f"   {name} is left out: {error}")
    found = {"palate": runs["palate"]()}  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            found[name] = run()
            seconds[name].append(time.perf_counter() - start)
    for name, took in seconds.items():
        ratios = [theirs / own for theirs, own in zip(took, seconds["palate"], strict=True)]
        ndcg, recall = found[name]
        print(
            f"   {name:9} {median(took):6.2f} s   {median(ratios):5.1f} × ours   nDCG@{K} {ndcg:.4f}   recall@{K} {recall:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    data = Path(os.environ.get("PALATE_DATA", "none")) / "feedback"
    there = {name: SETS[name] for name in options.data if (data / name).is_dir()}
    if not there:
        compare(synthetic(options.factors), options.rounds)
    for name, read in there.items():
        compare(read(data / name, options.factors), options.rounds)
    print(f"\nlargest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
