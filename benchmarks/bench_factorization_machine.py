"""The factorization machine's quality, speed and size, beside scikit-surprise's SVD where it is installed.

    PALATE_DATA=… python benchmarks/bench_factorization_machine.py

Reads feedback/movielens-latest-small and feedback/deskdrop below PALATE_DATA and leaves out what isn't there. All models run with
the product's defaults (and `loss`). These were chosen on validation splits drawn with another seed: of MovieLens's ratings, and of
the older four fifths of Deskdrop. Neighbouring settings differ there by about 0.002 stars.
"""

from __future__ import annotations

import os

os.environ.pop("OPENBLAS_CORETYPE", None)

import csv
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from palate import metrics, snapshots
from palate.domain import Interactions, from_milliseconds
from palate.models import factorization_machine as fm
from palate.models import fold_in, popularity
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachineParams
from palate.models.popularity import PopularityParams
from palate.splits import by_time, k_fold, rows

FOLDS, SEED = 5, 0


def interactions(user: Any, item: Any, label: Any, time: Any) -> Interactions:
    user, item, label, time = (np.asarray(part) for part in (user, item, label, time))
    order = np.lexsort((item, user))
    columns = (
        user.astype(np.int64),
        item.astype(np.int64),
        label.astype(np.float32),
        np.ones(len(user), np.float32),
        time.astype(np.int64),
    )
    return Interactions(*(column[order] for column in columns))


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def movielens(path: Path) -> None:
    print("\n1. RMSE in stars on MovieLens latest-small, 5 folds")
    columns = np.loadtxt(path, delimiter=",", skiprows=1)
    data = interactions(columns[:, 0], columns[:, 1], (columns[:, 2] - 0.5) / 4.5, columns[:, 3] * 1000)
    fold, found = k_fold(len(data), FOLDS, SEED), []
    peer = surprise_svd()
    fm.fit(rows(data, np.arange(1000)), NO_SOURCES, FactorizationMachineParams(), SEED)  # compiles
    for number in range(FOLDS):
        train, test = rows(data, fold != number), rows(data, fold == number)
        ours = seconds(lambda: fm.fit(train, NO_SOURCES, FactorizationMachineParams(), SEED)[0])  # noqa: B023
        results = [(4.5 * metrics.rmse(test.label, fm.score(ours[1], test.user, test.item)), ours[0])]
        if peer:
            results.append(peer(train, test))
        found.append(results)
        print(f"   fold {number}: " + "   ".join(f"{error:.4f} in {took:.2f} s" for error, took in results))
    means = np.mean(found, axis=0)
    print(f"   ours {means[0, 0]:.4f}, training {means[0, 1]:.2f} s, 13 factors")
    if peer:
        differences = np.array([results[0][0] - results[1][0] for results in found])
        print(f"   scikit-surprise SVD() {means[1, 0]:.4f}, training {means[1, 1]:.2f} s, 100 factors")
        print(
            f"   ours less theirs {differences.mean():+.4f} (worst fold {differences.max():+.4f}), time ratio {means[1, 1] / means[0, 1]:.1f} ×"
        )


def surprise_svd() -> Callable[[Interactions, Interactions], tuple[float, float]] | None:
    """Surprise's SVD with its defaults on the same folds; None when it isn't installed."""
    try:
        from surprise import SVD, Dataset, Reader
    except ImportError:
        print("   scikit-surprise is not installed (uv sync --group bench): ours alone")
        return None

    def run(train: Interactions, test: Interactions) -> tuple[float, float]:
        stars = (train.label.astype(float) * 4.5 + 0.5).tolist()
        ratings = [(u, i, r, None) for u, i, r in zip(train.user.tolist(), train.item.tolist(), stars, strict=True)]
        trainset = Dataset(Reader(rating_scale=(0.5, 5))).construct_trainset(ratings)
        took, model = seconds(lambda: SVD(random_state=SEED).fit(trainset))
        guesses = [
            model.predict(u, i).est for u, i in zip(test.user.tolist(), test.item.tolist(), strict=True)
        ]  # clipped by default
        return metrics.rmse(test.label * 4.5 + 0.5, guesses), took

    return run


def deskdrop(path: Path) -> None:
    print("\n2. AUC on Deskdrop, the newest fifth; 95 % intervals by drawing users (in brackets)")
    train, test = by_time(read_deskdrop(path), 0.2)
    now = from_milliseconds(int(train.time.max()))
    model = fm.fit(train, NO_SOURCES, FactorizationMachineParams(loss="logistic"), SEED)[0]
    scores = [fm.score(model, test.user, test.item)] + [by_popularity(train, test, now, days) for days in (30.0, 1e6)]
    warm = np.isin(test.item, train.item) & np.isin(test.user, train.user)
    print(f"   {len(train)} to learn from, {len(test)} asked for, {warm.sum()} of them of a known user and item")
    names = ("factorization machine", "popularity (half-life 30 days)", "popularity (no decay)")
    for title, chosen in (("all", np.ones(len(test), bool)), ("known user and item", warm)):
        table = np.column_stack([test.label, *scores])[chosen]
        print(f"   {title}: one AUC over all pairs")
        report(table, test.user[chosen], names, lambda table, column: metrics.auc(table[:, 0], table[:, column]))
    table, users = per_user(np.column_stack([test.label, *scores])[warm], test.user[warm])
    print(f"   known user and item: mean AUC within each of {len(table)} users")
    report(table, users, names, lambda table, column: float(np.mean(table[:, column])))


def read_deskdrop(path: Path) -> Interactions:
    """Views: 1 with a like, bookmark, comment or follow of the same person, else 0; the time is that of the last event."""
    positive, last = set(), {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pair = int(row["personId"]), int(row["contentId"])
            last[pair] = max(int(row["timestamp"]) * 1000, last.get(pair, 0))
            if row["eventType"] != "VIEW":
                positive.add(pair)
    users, items = zip(*last, strict=True)
    return interactions(users, items, [pair in positive for pair in last], list(last.values()))


def by_popularity(
    train: Interactions, test: Interactions, now: datetime, half_life_days: float
) -> np.ndarray[Any, Any]:
    found = popularity.fit(train, now, PopularityParams(half_life_days=half_life_days))
    return popularity.score(found, test.item)


def per_user(
    table: np.ndarray[Any, Any], users: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    found = {}
    for user in np.unique(users):
        own = table[users == user]
        aucs = [metrics.auc(own[:, 0], own[:, column]) for column in range(1, table.shape[1])]
        if not np.isnan(aucs[0]):
            found[user] = [0.0, *aucs]
    return np.array(list(found.values())), np.array(list(found))


def report(
    table: np.ndarray[Any, Any],
    users: np.ndarray[Any, Any],
    names: tuple[str, ...],
    statistic: Callable[[Any, int], float],
) -> None:
    for column, name in enumerate(names, 1):
        low, high = interval(table, users, lambda drawn: statistic(drawn, column))  # noqa: B023
        print(f"      {name:32} {statistic(table, column):.4f} [{low:.4f}, {high:.4f}]")
    for column, name in enumerate(names[1:], 2):
        low, high = interval(table, users, lambda drawn: statistic(drawn, 1) - statistic(drawn, column))  # noqa: B023
        print(f"      over {name:27} {statistic(table, 1) - statistic(table, column):+.4f} [{low:+.4f}, {high:+.4f}]")


def interval(
    table: np.ndarray[Any, Any], users: np.ndarray[Any, Any], statistic: Callable[[Any], float]
) -> tuple[float, float]:
    return metrics.bootstrap_interval(
        table, np.random.default_rng(SEED), statistic=statistic, groups=users, samples=300
    )


def training_time() -> None:
    print("\n3. Full training of 100,000 interactions, 13 factors, 30 epochs, after warm-up")
    random = np.random.default_rng(SEED)
    pairs = random.choice(2000 * 10_000, 100_000, replace=False)
    for loss in ("squared", "logistic"):
        params = FactorizationMachineParams(loss=loss)
        data = interactions(pairs // 10_000, pairs % 10_000, random.integers(0, 2, len(pairs)), np.zeros(len(pairs)))
        fm.fit(rows(data, np.arange(1000)), NO_SOURCES, params, SEED)
        took = [seconds(lambda: fm.fit(data, NO_SOURCES, params, SEED))[0] for _ in range(5)]  # noqa: B023
        print(
            f"   {loss}: median {median(took):.2f} s of 5, {min(took):.2f} to {max(took):.2f} s; {3 / median(took):.1f} M examples/s"
        )


def size() -> None:
    print("\n4. A model of 1,000,000 items × 13 factors")
    n = 1_000_000
    data = interactions(np.arange(n) % 1000, np.arange(n) + 1, np.arange(n) % 3 == 0, np.zeros(n))
    params = FactorizationMachineParams(epochs=1)
    took, (model, _) = seconds(lambda: fm.fit(data, NO_SOURCES, params, SEED))
    popular = popularity.fit(data, from_milliseconds(0), PopularityParams())
    arrays = fm.to_arrays(model) | {"popularity": popular.mean, "popularity_evidence": popular.evidence}
    with tempfile.TemporaryDirectory() as folder:
        wrote, version = seconds(lambda: snapshots.publish(Path(folder), {"created": 0}, arrays))
        read, snapshot = seconds(lambda: snapshots.load(Path(folder)))
        on_disk = sum(file.stat().st_size for file in (Path(folder) / version).iterdir())
        mapped = sum(array.nbytes for array in snapshot.arrays.values())
    print(f"   {on_disk / 1e6:.1f} MB on disk, {mapped / 1e6:.1f} MB of arrays when mapped (limit 56)")
    print(
        f"   one pass over 1,000,000 examples {took:.2f} s, published in {wrote:.2f} s, loaded and verified in {read:.2f} s"
    )


def folding() -> None:
    print("\n5. Fold-in of a user from 100 events, bias and 13 factors")
    random = np.random.default_rng(SEED)
    features = np.column_stack((np.ones(100), random.normal(0, 0.3, (100, 13)))).astype(np.float32)
    labels, offsets, l2 = random.integers(0, 2, 100).astype(np.float32), np.full(100, 0.4, np.float32), np.full(14, 3.0)
    for loss in ("squared", "logistic"):
        took = [seconds(lambda: fold_in.solve(features, labels, offsets, l2, loss))[0] for _ in range(2000)]  # noqa: B023
        print(f"   {loss}: median {1e6 * median(took):.0f} µs")


def main() -> None:
    data = Path(os.environ.get("PALATE_DATA", ""))
    for run, path in ((movielens, "movielens-latest-small/ratings.csv"), (deskdrop, "deskdrop/users_interactions.csv")):
        if (data / "feedback" / path).is_file():
            run(data / "feedback" / path)
        else:
            print(f"\n{path} is not below PALATE_DATA/feedback: left out")
    training_time()
    size()
    folding()


if __name__ == "__main__":
    main()
