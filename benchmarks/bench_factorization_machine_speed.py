"""How fast the factorization machine learns, beside PyTorch and LightFM, and how it does with a week of a large service.

    python benchmarks/bench_factorization_machine_speed.py [--examples 5] [--rounds 5] [--factors 13 64]
    python benchmarks/bench_factorization_machine_speed.py --week 200

The first: examples a second with logistic loss at 13 and 64 factors on synthetic views (138,000 users, 27,000 items, power laws),
everyone in turn, medians of the rounds; millions of examples for ours, one million for the others. PyTorch runs the same model as a
loop over batches of sparse embeddings with SGD at its best batch size. What isn't installed is left out.

The second: that many million examples of a million users and 50,000 items as rows in memory, until the loss of newer ones falls
no more; then a cycle of a million new ones with three million old ones. Threads: as many as there are processors.
"""

from __future__ import annotations

import os

os.environ.pop("OPENBLAS_CORETYPE", None)

import argparse
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from palate.matrix import Sparse
from palate.models import factorization_machine as fm
from palate.models.factorization_machine import FactorizationMachineParams
from palate.vocabulary import Vocabulary

SEED = 1
PEER_EXAMPLES = 1_000_000
BATCHES = (4_096, 16_384, 65_536, 262_144)


def views(millions: float, users: int, items: int, seed: int = SEED, per: int = 2_000, truth: int = SEED) -> Sparse:
    """What people made of what they viewed, by rows: 8 true factors; `per` users at a time, so that nothing large is copied."""
    world, random = np.random.default_rng(truth), np.random.default_rng([seed, 1])
    shares = world.lognormal(0, 1.2, users)
    fame = world.permutation(1 / np.arange(1, items + 1) ** 0.8)
    tastes, traits = (world.normal(0, 0.6, (n, 8)).astype(np.float32) for n in (users, items))
    moods, merits = (world.normal(0, 0.7, n).astype(np.float32) for n in (users, items))
    counts = random.multinomial(int(millions * 1e6), shares / shares.sum())
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    columns, labels = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.float32)
    edges = np.cumsum(fame) / fame.sum()
    for start in range(0, users, per):
        end = min(start + per, users)
        cells, rows = slice(offsets[start], offsets[end]), np.repeat(np.arange(start, end), counts[start:end])
        chosen = np.minimum(np.searchsorted(edges, random.random(len(rows))), items - 1)
        chosen = np.sort(rows * items + chosen) - rows * items
        raw = moods[rows] + merits[chosen] + np.einsum("nf,nf->n", tastes[rows], traits[chosen]) - 0.5
        columns[cells], labels[cells] = chosen, random.random(len(rows)) < 1 / (1 + np.exp(-raw))
    return Sparse(offsets, columns, labels, items)


def speeds(millions: float, rounds: int, sizes: list[int]) -> None:
    cells = views(millions, 138_000, 27_000)
    print(
        f"{len(cells.columns)} examples of 138,000 users and 27,000 items; millions a second, medians of {rounds} rounds"
    )
    for factors in sizes:
        runs: dict[str, Callable[[], float]] = {
            "ours, reproducible": lambda: ours(cells, factors, racing=False),  # noqa: B023
            "ours, racing": lambda: ours(cells, factors, racing=True),  # noqa: B023
        }
        runs |= torch_loops(cells, factors) | lightfm(cells, factors)
        for run in runs.values():
            run()
        found = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                found[name].append(run())
        report(factors, found)


def report(factors: int, found: dict[str, list[float]]) -> None:
    print(f"   {factors} factors")
    first = found["ours, reproducible"]
    for name, speed in found.items():
        ratio = median([a / b for a, b in zip(first, speed, strict=True)])
        print(
            f"      {name:28} {median(speed) / 1e6:6.2f}   {min(speed) / 1e6:.2f} to {max(speed) / 1e6:.2f}   ours are {ratio:.1f} ×"
        )


def ours(cells: Sparse, factors: int, racing: bool) -> float:
    """With everything that a fit does beside its passes."""
    params = FactorizationMachineParams(loss="logistic", factors=factors, epochs=5, racing=racing)
    users, items = Vocabulary(np.arange(len(cells))), Vocabulary(np.arange(cells.width))
    took, _ = seconds(lambda: fm.fit_rows(cells, users, items, params, SEED))
    return params.epochs * len(cells.columns) / took


def shuffled(cells: Sparse) -> tuple[Any, Any, Any]:
    order = np.random.default_rng(SEED).permutation(len(cells.columns))[:PEER_EXAMPLES]
    rows = np.repeat(np.arange(len(cells)), cells.counts)
    return rows[order], cells.columns[order].astype(np.int64), cells.values[order]


def torch_loops(cells: Sparse, factors: int) -> dict[str, Callable[[], float]]:
    """The best of a few batch sizes; all are tried once."""
    try:
        import torch
    except ImportError:
        print("   PyTorch is not installed: left out")
        return {}
    users, items, labels = (torch.from_numpy(part) for part in shuffled(cells))

    def run(batch: int, count: int = PEER_EXAMPLES) -> float:
        torch.manual_seed(SEED)
        sizes = ((len(cells), factors), (cells.width, factors), (len(cells), 1), (cells.width, 1))
        tables = [torch.nn.Embedding(*size, sparse=True) for size in sizes]
        optimizer = torch.optim.SGD([table.weight for table in tables], lr=0.1)
        start = time.perf_counter()
        for at in range(0, count, batch):
            u, i = users[at : at + batch], items[at : at + batch]
            raw = (tables[0](u) * tables[1](i)).sum(1) + tables[2](u)[:, 0] + tables[3](i)[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(raw, labels[at : at + batch], reduction="sum")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return count / (time.perf_counter() - start)

    tried = {batch: max(run(batch, 2 * BATCHES[-1]) for _ in range(2)) for batch in BATCHES}
    best = max(tried, key=lambda batch: tried[batch])
    return {f"PyTorch, batches of {best}": lambda: run(best)}


def lightfm(cells: Sparse, factors: int) -> dict[str, Callable[[], float]]:
    try:
        from lightfm import LightFM
        from scipy.sparse import coo_matrix
    except ImportError:
        print("   LightFM is not installed: left out")
        return {}
    users, items, labels = shuffled(cells)
    shape = (len(cells), cells.width)
    matrix = coo_matrix((np.where(labels > 0.5, 1, -1).astype(np.float32), (users, items)), shape)
    model = LightFM(no_components=factors, loss="logistic", random_state=SEED)

    def run() -> float:
        took, _ = seconds(lambda: model.fit_partial(matrix, epochs=1, num_threads=os.cpu_count()))
        return matrix.nnz / took

    return {"LightFM": run}


def week(millions: float) -> None:
    users, items = 1_000_000, 50_000
    took, cells = seconds(lambda: views(millions, users, items))
    newer = views(1, users, items, seed=SEED + 1)
    bound = views(0.5, users, items, seed=SEED + 2)
    data = sum(part.nbytes for part in (cells.offsets, cells.columns, cells.values)) / 2**30
    print(f"{len(cells.columns)} examples of {users} users and {items} items made in {took:.0f} s: {data:.2f} GiB")
    keys = Vocabulary(np.arange(users)), Vocabulary(np.arange(items))
    tiny = views(0.01, users, items)
    params = FactorizationMachineParams(loss="logistic", epochs=5, patience=1, blocks=4)
    fm.fit_rows(tiny, *keys, params, SEED, validation=tiny)
    before = peak()
    took, (model, losses) = seconds(lambda: fm.fit_rows(cells, *keys, params, SEED, validation=newer))
    passes = np.array_split(losses, max(round(len(losses) * 512 / len(cells.columns)), 1))
    print(f"   fitted in {took:.1f} s: best after {model.epochs} passes, {len(passes)} made")
    print(f"   mean loss of each pass {', '.join(f'{part.mean():.4f}' for part in passes)}")
    print(
        f"   log loss of others that are newer {log_loss(model, bound):.4f}; the mean label's {log_loss(None, bound):.4f}"
    )
    print(f"   memory of the process {before:.2f} GiB before the fit, at most {peak():.2f} GiB in it")
    mixture = views(4, users, items, seed=SEED + 3)
    took, _ = seconds(
        lambda: fm.partial_fit_rows(model, mixture, *keys, FactorizationMachineParams(loss="logistic"), SEED)
    )
    print(f"   a cycle of 4 million examples, 10 passes: {took:.1f} s")


def log_loss(model: Any, cells: Sparse) -> float:
    rows = np.repeat(np.arange(len(cells)), cells.counts)
    guess = np.full(len(rows), cells.values.mean()) if model is None else fm.score(model, rows, cells.columns)
    guess = np.clip(guess.astype(np.float64), 1e-6, 1 - 1e-6)
    return float(-np.mean(cells.values * np.log(guess) + (1 - cells.values) * np.log(1 - guess)))


def peak() -> float:
    """GiB that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=float, default=5, help="millions, for the comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--factors", type=int, nargs="*", default=[13, 64])
    parser.add_argument("--week", type=float, help="millions of examples of a week")
    options = parser.parse_args()
    if options.week:
        week(options.week)
    else:
        speeds(options.examples, options.rounds, options.factors)


if __name__ == "__main__":
    main()
