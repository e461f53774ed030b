"""Implicit ALS beside `implicit`, irspack's iALS++ and Spark, in turn in one run: seconds an iteration and to equal loss.

    PALATE_DATA=… python benchmarks/bench_implicit_als.py [--data synthetic small ml-1m gowalla] [--factors 64 128]
        [--peers implicit implicit-exact irspack spark] [--iterations 6] [--quality | --memory]

Peers that aren't installed are named and left out (dependency group `bench`; Spark needs Java). All minimise the loss of Hu, Koren
and Volinsky with c = 1 + 10 · count and l2 = 5, from the same vectors on the same threads; Spark multiplies l2 by each row's count,
so only its time for an iteration is compared. After each iteration of one comes one of the next, so that all see the same machine.
`--quality` gives HR@10 and nDCG@10 on MovieLens 1M (the protocol of NCF) and Recall@20 and nDCG@20 on Gowalla; `--memory` the
largest memory of a fit on the synthetic matrix beside data + 2 × factors.
"""

from __future__ import annotations

import os

os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import msgspec
import numpy as np

from palate import matrix
from palate.domain import Interactions
from palate.machine_code import compiled
from palate.matrix import Sparse
from palate.models import als_steps, implicit_als
from palate.models.implicit_als import ImplicitALSParams
from palate.models.material import Material, known, material

ALPHA, L2, SCALE = 10.0, 5.0, 0.1
THREADS = 2
PARAMS = ImplicitALSParams(form="confidence", alpha=ALPHA, l2=L2, l2_exponent=0.0, threads=THREADS)
SIZES = {"synthetic": (138_493, 26_744, 18_400_000), "small": (6_040, 3_706, 560_000)}
PACKAGES = {"implicit": "implicit", "implicit-exact": "implicit", "irspack": "irspack", "spark": "pyspark"}
NOW = datetime(2026, 11, 1, tzinfo=UTC)

Step = tuple[float, float, Any, Any]
"""Seconds of one iteration, of all threads' processors as well, and the vectors of users and items after it."""


def synthetic(users: int, items: int, cells: int, clusters: int = 200) -> tuple[Any, Any, Any]:
    """Rows, columns and counts of a power law: activity is log-normal, popularity Zipf's; six in ten take of four clusters."""
    random = np.random.default_rng(0)
    activity, popularity = random.lognormal(0, 1.1, users), 1 / (np.arange(items) + 30.0) ** 0.9
    draws = int(cells * 1.45)
    user = random.choice(users, draws, p=activity / activity.sum()).astype(np.int64)
    item = np.searchsorted(np.cumsum(popularity / popularity.sum()), random.random(draws)).clip(max=items - 1)
    group = random.integers(0, clusters, items)
    order = np.argsort(group, kind="stable")
    starts, total = np.searchsorted(group[order], np.arange(clusters + 1)), np.append(0, np.cumsum(popularity[order]))
    own = random.random(draws) < 0.6
    taste = random.integers(0, clusters, (users, 4))[user[own], random.integers(0, 4, own.sum())]
    low, high = total[starts[taste]], total[starts[taste + 1]]
    place = np.searchsorted(total[1:], low + (high - low) * random.random(own.sum())).clip(max=items - 1)
    item[own] = order[place]
    code, count = np.unique(user * items + item, return_counts=True)
    if len(code) > cells:
        kept = np.sort(random.choice(len(code), cells, replace=False))
        code, count = code[kept], count[kept]
    return code // items, code % items, count.astype(np.float32)


def movielens(folder: Path) -> tuple[Any, Any, Any, Any]:
    """Users and items of the train set of NCF, the test pairs (6040, 2) and their negatives (6040, 99)."""
    import pyarrow.parquet as pq

    pairs = pq.read_table(folder / "pairs.parquet")
    user, movie = (pairs[name].to_numpy(zero_copy_only=False).astype(np.int64) for name in ("userID", "movieID"))
    _, first, inverse = np.unique(movie, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    test = np.loadtxt(folder / "ncf.ml-1m.test.rating", dtype=np.int64)[:, :2]
    lines = (folder / "ncf.ml-1m.test.negative").read_text().splitlines()
    negatives = np.array([[int(item) for item in line.split("\t")[1:]] for line in lines])
    user, item = user - 1, rank[inverse]
    kept = ~np.isin(user * 10_000 + item, test @ [10_000, 1])
    return user[kept], item[kept], test, negatives


def lists(file: Path) -> tuple[Any, Any]:
    """Users and items of lines `user item item …`."""
    rows = [np.array(line.split(), np.int64) for line in file.read_text().splitlines()]
    return np.repeat([row[0] for row in rows], [len(row) - 1 for row in rows]), np.concatenate([r[1:] for r in rows])


def material_of(user: Any, item: Any, count: Any) -> Material:
    order = np.lexsort((item, user))
    nothing = np.zeros(len(user), np.int64)
    columns = user[order].astype(np.int64), item[order].astype(np.int64)
    return material(Interactions(*columns, np.ones(len(user), np.float32), count[order], nothing), NOW)


def cells_of(name: str, data: Path) -> tuple[Any, Any, Any]:
    if name in SIZES:
        return synthetic(*SIZES[name])
    if name == "ml-1m":
        user, item, *_ = movielens(data / "feedback/movielens-1m")
    else:
        user, item = lists(data / "feedback/gowalla-lightgcn/train.rebuilt.txt")
    return user, item, np.ones(len(user), np.float32)


def ours(data: Material, params: ImplicitALSParams, start: Any) -> Iterator[Step]:
    parts = implicit_als.sides(data, params)
    items = als_steps.padded(start, params.factors, parts.item_order)
    users = als_steps.padded(np.zeros((len(data.users), 0), np.float32), params.factors)
    places = [np.argsort(order) for order in (parts.user_order, parts.item_order)]
    evidence = implicit_als.evidence(params)
    with ThreadPoolExecutor(THREADS) as pool:

        def step(cells: Sparse, other: Any, result: Any) -> None:
            if params.solver == "cg":
                als_steps.conjugate_step(cells, other, evidence, result, params.cg_steps, pool)
            else:
                als_steps.half_step(cells, other, evidence, other[:0], result, pool, turn=True)

        def iteration() -> None:
            step(parts.by_user, items, users)
            step(parts.by_item, users, items)

        while True:
            yield *timed(iteration), users[places[0], : params.factors], items[places[1], : params.factors]


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds on the wall and of the processor, which other programs on the machine change less."""
    begin, before = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - begin, time.process_time() - before


def by_implicit(exact: bool) -> Callable[[Sparse, ImplicitALSParams, Any], Iterator[Step]]:
    def run(cells: Sparse, params: ImplicitALSParams, start: Any) -> Iterator[Step]:
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix

        model = AlternatingLeastSquares(params.factors, use_native=True, use_cg=not exact, num_threads=THREADS)
        items, users = start.copy(), np.zeros((len(cells), params.factors), np.float32)
        by_user = csr_matrix((1 + cells.values, cells.columns, cells.offsets), (len(cells), cells.width))
        by_item = by_user.T.tocsr()

        def iteration() -> None:
            model.solver(by_user, users, items, L2, num_threads=THREADS)
            model.solver(by_item, items, users, L2, num_threads=THREADS)

        while True:
            yield *timed(iteration), users, items

    return run


def by_irspack(cells: Sparse, params: ImplicitALSParams, start: Any) -> Iterator[Step]:
    from irspack.recommenders import _ials_core as core
    from scipy.sparse import csr_matrix

    config = core.IALSModelConfigBuilder().set_K(params.factors).set_alpha0(1.0).set_reg(L2).set_nu(0.0)
    config = config.set_init_stdev(SCALE).set_random_seed(0).set_loss_type(core.LossType.ORIGINAL)
    solver = core.IALSSolverConfigBuilder().set_n_threads(THREADS).set_solver_type(core.SolverType.IALSPP)
    solver = solver.set_ialspp_subspace_dimension(32).set_ialspp_iteration(1).build()
    trainer = core.IALSTrainer(
        config.build(), csr_matrix((cells.values, cells.columns, cells.offsets), (len(cells), cells.width))
    )
    trainer.item, trainer.user = start, np.zeros((len(cells), params.factors), np.float32)
    while True:
        yield *timed(lambda: trainer.step(solver)), trainer.user, trainer.item


def by_spark(cells: Sparse, params: ImplicitALSParams) -> float:
    """Seconds of an iteration: of a fit with 3 less one with 1, over 2."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master(f"local[{THREADS}]").config("spark.driver.memory", "6g").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        rows = np.repeat(np.arange(len(cells), dtype=np.int32), cells.counts)
        pq.write_table(
            pa.table({"user": rows, "item": cells.columns, "rating": cells.values}), f"{folder}/cells.parquet"
        )
        frame = spark.read.parquet(f"{folder}/cells.parquet").cache()
        frame.count()

        def fit(iterations: int) -> float:
            begin = time.perf_counter()
            ALS(rank=params.factors, maxIter=iterations, regParam=L2, implicitPrefs=True, alpha=1.0, seed=1).fit(frame)
            return time.perf_counter() - begin

        fit(1)
        seconds = (fit(3) - fit(1)) / 2
    spark.stop()
    return seconds


def _observed(offsets: Any, columns: Any, values: Any, users: Any, items: Any) -> float:
    total = 0.0
    for row in range(len(offsets) - 1):
        for cell in range(offsets[row], offsets[row + 1]):
            score = np.float32(0)
            for f in range(users.shape[1]):
                score += users[row, f] * items[columns[cell], f]
            total += (1.0 + values[cell]) * (1.0 - score) ** 2 - score**2
    return total


def loss(cells: Sparse, users: Any, items: Any) -> float:
    """Of Hu, Koren and Volinsky, per user."""
    users, items = np.ascontiguousarray(users), np.ascontiguousarray(items)
    freedoms = frozenset({"contract", "reassoc", "nsz"})
    seen = compiled(_observed, cells.offsets, cells.columns, cells.values, users, items, fastmath=freedoms)
    gramians = [part.T.astype(float) @ part for part in (users, items)]
    return float(seen + (gramians[0] * gramians[1]).sum() + L2 * sum(g.trace() for g in gramians)) / len(cells)


def roof() -> float:
    """GFLOP/s of a large product of matrices, of each processor-second, times the threads that fits have."""
    part = np.random.default_rng(0).random((1500, 1500), np.float32)
    return max(THREADS * 2 * 1.5**3 / timed(lambda: part @ part)[1] for _ in range(4))


def work(cells: Sparse, factors: int) -> float:
    """GFLOP of an exact iteration in as many unknowns as factors: half of each Gramian, Cholesky, two triangular solutions."""
    rows = len(cells) + cells.width
    return (2 * len(cells.columns) * factors * (factors + 1) + rows * (factors**3 / 3 + 2 * factors**2)) / 1e9


def compare(name: str, data: Material, factors: int, peers: list[str], iterations: int) -> None:
    params = msgspec.structs.replace(PARAMS, factors=factors)
    weights = implicit_als.strengths(data.interactions.weight, params)
    cells = matrix.of_interactions(data.interactions, weights, data.users, data.items)
    start = np.random.default_rng(1).standard_normal((len(data.items), factors), np.float32) * SCALE / factors**0.5
    exact = msgspec.structs.replace(params, solver="exact")
    runs: dict[str, Iterator[Step]] = {"palate": ours(data, params, start), "palate, exact": ours(data, exact, start)}
    makers = {"implicit": by_implicit(False), "implicit-exact": by_implicit(True), "irspack": by_irspack}
    runs |= {peer: makers[peer](cells, params, start) for peer in peers if peer in makers}
    for each in (params, exact):
        next(ours(data, each, start))  # the compiler's time is none of the fit's
    seconds: dict[str, list[float]] = {run: [] for run in runs}
    processors: dict[str, list[float]] = {run: [] for run in runs}
    losses: dict[str, list[float]] = {run: [] for run in runs}
    roofs = [roof()]
    for n in range(iterations):
        for run, steps in runs.items():
            if run == "implicit-exact" and n >= 2:
                continue
            took, processor, users, items = next(steps)
            seconds[run].append(took)
            processors[run].append(processor)
            losses[run].append(loss(cells, users, items))
        roofs.append(roof())
    best = min(values[-1] for run, values in losses.items() if run != "palate")
    # where a peer is further, go on to see by how many iterations
    while losses["palate"][-1] > best and len(losses["palate"]) < 3 * iterations:
        losses["palate"].append(loss(cells, *next(runs["palate"])[2:]))
    print(
        f"\n{name}: {len(cells):,} × {cells.width:,}, {len(cells.columns):,} cells, {factors} factors, {THREADS} threads"
    )
    table(seconds, processors, losses)
    reached = THREADS * work(cells, factors) / median(processors["palate, exact"])
    print(
        f"  palate, exact: {reached:.0f} GFLOP/s of {max(roofs):.0f} that sgemm reached ({median(roofs):.0f} median): {reached / max(roofs):.0%}"
    )
    if "spark" in peers:
        took = by_spark(cells, params)
        print(f"  spark            {took:8.2f} s an iteration: {took / median(seconds['palate']):.1f} × palate")


def table(seconds: dict[str, list[float]], processors: dict[str, list[float]], losses: dict[str, list[float]]) -> None:
    """Of each: median seconds an iteration, and how many times ours, on the wall and of the processor; the same to equal loss."""
    wall, processor = ({run: median(values) for run, values in each.items()} for each in (seconds, processors))
    for run, each in losses.items():
        ratios = [median(a / b for a, b in zip(times[run], times["palate"])) for times in (seconds, processors)]  # noqa: B905
        fewer = len(each) / iterations_to(losses["palate"], each[-1])
        equal = (
            f"to equal loss {ratios[0] * fewer:5.1f} × wall, {ratios[1] * fewer:5.1f} × CPU" if run != "palate" else ""
        )
        print(
            f"  {run:15}{wall[run]:8.3f} s, {processor[run]:8.3f} CPU-s an iteration: {ratios[0]:5.1f} ×, {ratios[1]:5.1f} ×; {equal}"
        )
        print(f"    loss {' '.join(f'{value:.2f}' for value in each)}", flush=True)


def iterations_to(losses: list[float], target: float) -> float:
    """Iterations after which the loss is at the target, between two of them in a straight line."""
    for n, value in enumerate(losses):
        if value <= target * (1 + 1e-6):
            before = losses[n - 1] if n else value
            return n + 1 if n == 0 or before <= value else n + (before - max(target, value)) / (before - value)
    return float(len(losses))  # it isn't there yet: the ratio is a lower bound of the other's lead


def ranks(scores: Any, test: Any, negatives: Any) -> tuple[float, float]:
    """HR@10 and nDCG@10 among the given negatives; copies of the test item are dropped, ties count against it."""
    places = []
    for (user, item), others in zip(test, negatives, strict=True):
        places.append((scores[user, others[others != item]] >= scores[user, item]).sum())
    place = np.array(places)
    return float((place < 10).mean()), float(np.where(place < 10, 1 / np.log2(place + 2.0), 0).mean())


def quality_movielens(folder: Path, seeds: int) -> None:
    user, item, test, negatives = movielens(folder)
    data = material_of(user, item, np.ones(len(user), np.float32))
    people = known(data.interactions, data.users.keys, data.items)
    columns = data.items.rows(np.arange(item.max() + 1))
    for factors in (64, 192):
        params = ImplicitALSParams(factors=factors, l2=0.007, unobserved_weight=0.3, initial_scale=0.1, epochs=12)
        found: dict[str, list[tuple[float, float]]] = {"folded in": [], "of the fit": [], "in 16 bits": []}
        for seed in range(seeds):
            model = implicit_als.fit(data, params, seed)
            short = implicit_als.from_arrays(implicit_als.to_arrays(model), implicit_als.header(model), model.items)
            for name, scores in (
                ("folded in", implicit_als.score_all(model, people)),
                ("of the fit", model.user_vectors @ model.item_vectors.T),
                ("in 16 bits", implicit_als.score_all(short, people)),
            ):
                found[name].append(ranks(np.where(columns >= 0, scores[:, columns], -9), test, negatives))
        for name, values in found.items():
            rates, gains = zip(*values, strict=True)
            print(
                f"  ml-1m, {factors} factors, users {name}: HR@10 {interval(rates)}, nDCG@10 {interval(gains)}, {seeds} seeds",
                flush=True,
            )


def interval(values: Any) -> str:
    spread = 2.776 * stdev(values) / len(values) ** 0.5 if len(values) == 5 else float("nan")
    return f"{mean(values):.4f} ± {spread:.4f}"


def full_ranking(users: Any, items: Any, train: Sparse, test: Sparse, k: int = 20) -> tuple[float, float]:
    """Recall@k and nDCG@k over all items that the person doesn't have yet, as the tables of LightGCN count them."""
    recalls, gains = [], []
    discounts = 1 / np.log2(np.arange(2, k + 2))
    for start in range(0, len(test), 512):
        block = users[start : start + 512] @ items.T
        for row, mine in enumerate(block, start):
            wanted = test.row(row)[0]
            if not len(wanted):
                continue
            mine[train.row(row)[0]] = -np.inf
            best = np.argpartition(-mine, k)[:k]
            hits = np.isin(best[np.argsort(-mine[best])], wanted)
            recalls.append(hits.sum() / len(wanted))
            gains.append((hits * discounts).sum() / discounts[: min(len(wanted), k)].sum())
    return mean(recalls), mean(gains)


def quality_gowalla(folder: Path, settings: list[ImplicitALSParams], held_out: bool) -> None:
    """Of these settings: on a tenth of the train set's cells (`held_out`) or on the test set."""
    user, item = lists(folder / "train.rebuilt.txt")
    test_user, test_item = lists(folder / "test.txt")
    if held_out:
        away = np.random.default_rng(0).random(len(user)) < 0.1
        test_user, test_item, user, item = user[away], item[away], user[~away], item[~away]
    shape = 29_858, 40_981
    data = material_of(user, item, np.ones(len(user), np.float32))
    train, test = (
        matrix.sparse(u, i, np.ones(len(u), np.float32), shape) for u, i in ((user, item), (test_user, test_item))
    )
    for params in settings:
        begin = time.perf_counter()
        model = implicit_als.fit(data, params, 0)
        took = time.perf_counter() - begin
        vectors = np.zeros((shape[1], params.factors), np.float32)
        vectors[data.items.keys] = model.item_vectors
        people = np.zeros((shape[0], params.factors), np.float32)
        people[data.users.keys] = model.user_vectors
        recall, gain = full_ranking(people, vectors, train, test)
        where = "a tenth of the train set" if held_out else "the test set"
        print(f"  gowalla, {where}: Recall@20 {recall:.4f}, nDCG@20 {gain:.4f}, fit {took:.1f} s, {params}", flush=True)


def memory() -> None:
    """Largest memory of a fit above that of its material, beside both orientations of the matrix and both sides' vectors."""
    data = material_of(*synthetic(*SIZES["synthetic"]))
    for solver in ("cg", "exact"):  # the compiler's memory is none of the fit's
        implicit_als.fit(material_of(*synthetic(60, 40, 500)), msgspec.structs.replace(PARAMS, solver=solver), 0)
    cells, rows = len(data.interactions), len(data.users) + len(data.items)
    for solver, factors in itertools.product(("cg", "exact"), (64, 128)):
        Path("/proc/self/clear_refs").write_text("5")  # from here on a new largest
        before = _status("VmRSS")
        implicit_als.fit(data, msgspec.structs.replace(PARAMS, solver=solver, factors=factors, epochs=1), 0)
        allowed = 16 * cells + 8 * rows + 4 * rows * factors
        used = _status("VmHWM") - before
        print(
            f"  {solver}, {factors} factors: {used / 1e6:.0f} MB above the material; data + factors {allowed / 1e6:.0f} MB ({used / allowed:.2f} ×)"
        )


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


GOWALLA = [
    ImplicitALSParams(factors=64, epochs=16, l2=0.003, unobserved_weight=0.01),
    ImplicitALSParams(factors=256, epochs=16, l2=0.003, unobserved_weight=0.01),
]
"""The best of a grid (l2, unobserved weight) on a tenth of the train set's cells."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["small", "ml-1m", "gowalla", "synthetic"])
    parser.add_argument("--factors", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--peers", nargs="*", default=list(PACKAGES))
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    folder = Path(os.environ.get("PALATE_DATA", "."))
    missing = [peer for peer in options.peers if find_spec(PACKAGES[peer]) is None]
    if missing:
        print(f"not installed and left out: {', '.join(missing)}")
    if options.memory:
        memory()
    elif options.quality:
        quality_movielens(folder / "feedback/movielens-1m", options.seeds)
        quality_gowalla(folder / "feedback/gowalla-lightgcn", GOWALLA, held_out=False)
    else:
        for name in options.data:
            data = material_of(*cells_of(name, folder))
            for factors in options.factors:
                compare(
                    name, data, factors, [peer for peer in options.peers if peer not in missing], options.iterations
                )


if __name__ == "__main__":
    main()
