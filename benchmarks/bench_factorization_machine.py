"""The factorization machine's quality, speed and size, beside scikit-surprise's SVD and SVD++ where it is installed.

    PALATE_DATA=… python benchmarks/bench_factorization_machine.py [--fold N | --tune | --losses]

Speed beside others is in bench_factorization_machine_speed.py. SVD++ takes a minute or more a fold: `--fold` runs one fold alone.
Reads feedback/movielens-latest-small and feedback/deskdrop below PALATE_DATA and leaves out what isn't there. All models run with
the product's defaults (and `loss`). `--tune` compares these with a grid around them, on the part of MovieLens that fold 0 learns
from and on no other: of 30 epochs they are the best; 60 epochs would gain 0.002 stars for twice the time. `--losses` compares the
two losses on votes.
"""

from __future__ import annotations

import os

os.environ.pop("OPENBLAS_CORETYPE", None)

import argparse
import csv
import itertools
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from palate import metrics, snapshots
from palate.domain import Interactions, from_milliseconds
from palate.models import factorization_machine as fm
from palate.models import fold_in, popularity, stored
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachineParams, ItemSources
from palate.models.fields import Field
from palate.models.popularity import PopularityParams
from palate.splits import by_time, k_fold, rows

FOLDS, SEED = 5, 0
LOSSES: tuple[fm.Loss, ...] = ("squared", "logistic")
MOVIELENS, DESKDROP = "feedback/movielens-latest-small/ratings.csv", "feedback/deskdrop/users_interactions.csv"


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


def read_movielens(path: Path) -> Interactions:
    columns = np.loadtxt(path, delimiter=",", skiprows=1)
    return interactions(columns[:, 0], columns[:, 1], (columns[:, 2] - 0.5) / 4.5, columns[:, 3] * 1000)


def movielens(path: Path, only: int | None = None) -> None:
    print("\n1. RMSE in stars on MovieLens latest-small, 5 folds")
    data = read_movielens(path)
    fold, found = k_fold(len(data), FOLDS, SEED), []
    contenders = rating_models(path)
    for name, run in contenders.items():
        if name.startswith("ours"):
            run(rows(data, np.arange(1000)), rows(data, np.arange(9)))  # compiles
    for number in range(FOLDS) if only is None else [only]:
        train, test = rows(data, fold != number), rows(data, fold == number)
        found.append([run(train, test) for run in contenders.values()])
        print(f"   fold {number}: " + "   ".join(f"{error:.4f} in {took:.2f} s" for error, took in found[-1]))
    results = np.array(found)
    for place, name in enumerate(contenders):
        error, took = results[:, place].T
        less, times = results[:, 0, 0] - error, took / results[:, 0, 1]
        print(
            f"   {name:46} {error.mean():.4f}, training {took.mean():.2f} s; the first less this {less.mean():+.4f}"
            f" (worst fold {less.max():+.4f}), time {np.median(times):.1f} × the first's"
        )


Run = Callable[[Interactions, Interactions], tuple[float, float]]
"""(train, test) → error in stars and seconds of training."""


def rating_models(path: Path) -> dict[str, Run]:
    films = film_fields(path.with_name("movies.csv"))
    longer = FactorizationMachineParams(epochs=60)
    ours: dict[str, Run] = {
        "ours, 13 factors": lambda train, test: machine(train, test, FactorizationMachineParams(), ()),
        "ours, 60 epochs": lambda train, test: machine(train, test, longer, ()),
        "ours, 60 epochs, fields genre and year": lambda train, test: machine(train, test, longer, films),
    }
    try:
        from surprise import SVD, SVDpp
    except ImportError:
        print("   scikit-surprise is not installed (uv sync --group bench): ours alone")
        return ours
    return ours | {
        "scikit-surprise SVD(), 100 factors": lambda train, test: surprise(train, test, SVD(random_state=SEED)),
        "scikit-surprise SVDpp(), 20 factors": lambda train, test: surprise(train, test, SVDpp(random_state=SEED)),
    }


def film_fields(path: Path) -> tuple[Field, ...]:
    """Genres and the year of each film."""
    genres, years, names = [], [], {}
    with open(path, encoding="utf-8", newline="") as file:
        for film in csv.DictReader(file):
            key, year = int(film["movieId"]), re.search(r"\((\d{4})\)\s*$", film["title"])
            genres += [(key, names.setdefault(genre, len(names))) for genre in film["genres"].split("|")]
            years += [(key, int(year[1]))] if year else []
    pairs = {"genre": np.array(genres), "year": np.array(years)}
    return tuple(Field(name, "item", found[:, 0], found[:, 1]) for name, found in pairs.items())


def machine(
    train: Interactions, test: Interactions, params: FactorizationMachineParams, fields: tuple[Field, ...]
) -> tuple[float, float]:
    took, (model, _) = seconds(lambda: fm.fit(train, NO_SOURCES, params, SEED, fields=fields))
    return 4.5 * metrics.rmse(test.label, fm.score(model, test.user, test.item)), took


def surprise(train: Interactions, test: Interactions, algorithm: Any) -> tuple[float, float]:
    """A model of scikit-surprise with its defaults; it clips by itself."""
    from surprise import Dataset, Reader

    stars = (train.label.astype(float) * 4.5 + 0.5).tolist()
    ratings = [(u, i, r, None) for u, i, r in zip(train.user.tolist(), train.item.tolist(), stars, strict=True)]
    trainset = Dataset(Reader(rating_scale=(0.5, 5))).construct_trainset(ratings)
    took, model = seconds(lambda: algorithm.fit(trainset))
    guesses = [model.predict(u, i).est for u, i in zip(test.user.tolist(), test.item.tolist(), strict=True)]
    return metrics.rmse(test.label * 4.5 + 0.5, guesses), took


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
    table = np.column_stack([test.label, *scores])[warm]
    table, users = per_user(table, test.user[warm], lambda own, column: metrics.auc(own[:, 0], own[:, column]))
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
    table: np.ndarray[Any, Any], users: np.ndarray[Any, Any], statistic: Callable[[Any, int], float]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A row for each user: 0, then the statistic of each column of scores; users for whom there is none are left out."""
    found = {}
    for user in np.unique(users):
        own = table[users == user]
        values = [statistic(own, column) for column in range(1, table.shape[1])]
        if not np.isnan(values[0]):
            found[user] = [0.0, *values]
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
        busy = time.process_time()
        took = [seconds(lambda: fm.fit(data, NO_SOURCES, params, SEED))[0] for _ in range(5)]  # noqa: B023
        busy = (time.process_time() - busy) / len(took)
        print(f"   {loss}: median {median(took):.2f} s of 5, {min(took):.2f} to {max(took):.2f} s; {busy:.2f} s of CPU")


def size() -> None:
    print("\n4. A model of 1,000,000 items × 13 factors")
    n = 1_000_000
    data = interactions(np.arange(n) % 1000, np.arange(n) + 1, np.arange(n) % 3 == 0, np.zeros(n))
    params = FactorizationMachineParams(epochs=1)
    took, (model, _) = seconds(lambda: fm.fit(data, NO_SOURCES, params, SEED))
    popular = popularity.fit(data, from_milliseconds(0), PopularityParams())
    keys = {"users": model.users.keys, "items": model.items.keys}
    arrays = keys | stored.arrays("fm", model) | stored.arrays("popularity", popular)
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


def tune(path: Path) -> None:
    """Every setting of the grid on three splits of what fold 0 learns from; its difference to the defaults is paired by split."""
    data = read_movielens(path)
    learnable = rows(data, k_fold(len(data), FOLDS, SEED) != 0)
    default = FactorizationMachineParams()
    grid = list(grid_around(default))
    print(f"\nRMSE in stars within the training part of fold 0, {len(grid)} settings, 3 splits of 4 to 1")
    errors = np.array([[validated(learnable, params, seed) for seed in range(1, 4)] for params in grid])
    base = errors[grid.index(default)]
    print("   rate  l2 of vectors  of biases  epochs   RMSE    over the defaults (standard error)")
    for place in np.argsort(errors.mean(axis=1)):
        params, difference = grid[place], errors[place] - base
        print(
            f"   {params.learning_rate:<5} {params.l2_users:<14} {params.l2_user_bias!s:<10} {params.epochs:<7} "
            f"{errors[place].mean():.4f}  {difference.mean():+.4f} ({difference.std(ddof=1) / 3**0.5:.4f})"
            + (" the defaults" if params == default else "")
        )


def grid_around(default: FactorizationMachineParams) -> Iterator[FactorizationMachineParams]:
    change = msgspec.structs.replace
    yield default
    for rate, vectors, biases in itertools.product((0.1, 0.2, 0.4), (1.5, 3.0, 6.0), (1.5, 3.0, 6.0)):
        yield change(
            default, learning_rate=rate, l2_users=vectors, l2_items=vectors, l2_user_bias=biases, l2_item_bias=biases
        )
    for epochs in (15, 60):
        yield change(default, epochs=epochs)


def validated(learnable: Interactions, params: FactorizationMachineParams, seed: int) -> float:
    fold = k_fold(len(learnable), FOLDS, seed)
    train, test = rows(learnable, fold != 0), rows(learnable, fold == 0)
    model, _ = fm.fit(train, NO_SOURCES, params, SEED)
    return 4.5 * metrics.rmse(test.label, fm.score(model, test.user, test.item))


def losses(data: Path) -> None:
    """Both losses on the same votes. What is below 1 explains more than the mean label does."""
    print("\n95 % intervals by drawing users; log loss and squared error are relative to those of the mean label")
    for name, sources, train, test in vote_sets(data):
        models = [fm.fit(train, sources, FactorizationMachineParams(loss=loss), SEED)[0] for loss in LOSSES]
        prior = np.full(len(test), train.label.mean())
        table = np.column_stack([test.label, *(fm.score(model, test.user, test.item) for model in models), prior])
        print(f"   {name}: {len(train)} to learn from, {len(test)} asked for")
        compare("log loss", table, test.user, relative(metrics.log_losses))
        compare("squared error", table, test.user, relative(metrics.squared_errors))
        compare("AUC", table, test.user, lambda rows, column: metrics.auc(rows[:, 0], rows[:, column]))
        lists, users = per_user(table, test.user, lambda own, column: ndcg(own[:, 0], own[:, column]))
        compare("nDCG@10 of a user", lists, users, lambda rows, column: float(np.mean(rows[:, column])))


def vote_sets(data: Path) -> Iterator[tuple[str, ItemSources, Interactions, Interactions]]:
    """Name, sources, what is learned from and what is asked for."""
    yield "200 simulated readers of the sample, the newest fifth", *simulated()
    if (path := data / DESKDROP).is_file():
        yield "Deskdrop, the newest fifth", NO_SOURCES, *by_time(read_deskdrop(path), 0.2)
    if (path := data / MOVIELENS).is_file():
        rated = read_movielens(path)
        liked = replace(rated, label=(rated.label >= np.float32(3.5 / 4.5)).astype(np.float32))
        fold = k_fold(len(liked), FOLDS, SEED)
        yield (
            "MovieLens, a like is a rating of 4 or more, fold 0",
            NO_SOURCES,
            rows(liked, fold != 0),
            rows(liked, fold == 0),
        )


def simulated() -> tuple[ItemSources, Interactions, Interactions]:
    from palate import demo  # here: the comparison with others runs where the rest of Palate isn't installed
    from palate.evaluation.simulation import readers, simulate

    now, random = datetime(2026, 1, 1, tzinfo=UTC), np.random.default_rng(SEED)
    items = demo.sample_items(now)
    happened = simulate(items, readers(random, demo.READERS, items), random, now, demo.SPAN.days)
    votes = [event for event in happened if event.type in ("like", "dislike")]
    keys = {item.id: key for key, item in enumerate(items)}
    sources = np.unique([item.source or "" for item in items], return_inverse=True)[1]
    user = [int(event.user.rpartition("-")[2]) for event in votes]
    liked, times = [event.type == "like" for event in votes], [event.time for event in votes]
    pairs = interactions(user, [keys[event.item] for event in votes], liked, times)
    return ItemSources(np.arange(len(items)), sources), *by_time(pairs, 0.2)


def relative(errors: Callable[[Any, Any], Any]) -> Callable[[Any, int], float]:
    return lambda table, column: float(
        np.mean(errors(table[:, 0], table[:, column])) / np.mean(errors(table[:, 0], table[:, 3]))
    )


def ndcg(labels: Any, scores: Any) -> float:
    """NaN where any order is as good."""
    if labels.min() == labels.max():
        return float("nan")
    return float(metrics.ndcg_at(metrics.relevance(labels, scores), 10))


def compare(name: str, table: Any, users: Any, statistic: Callable[[Any, int], float]) -> None:
    found = [f"{statistic(table, column):.4f}" for column in (1, 2)]
    low, high = interval(table, users, lambda drawn: statistic(drawn, 2) - statistic(drawn, 1))
    difference = statistic(table, 2) - statistic(table, 1)
    print(
        f"      {name:18} squared {found[0]}   logistic {found[1]}   difference {difference:+.4f} [{low:+.4f}, {high:+.4f}]"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", type=int, choices=range(FOLDS), help="of MovieLens, alone")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--losses", action="store_true")
    options, data = parser.parse_args(), Path(os.environ.get("PALATE_DATA", ""))
    if options.tune:
        return (
            tune(data / MOVIELENS) if (data / MOVIELENS).is_file() else print(f"{MOVIELENS} is not below PALATE_DATA")
        )
    if options.losses:
        return losses(data)
    if options.fold is not None:
        return movielens(data / MOVIELENS, options.fold)
    for run, path in ((movielens, data / MOVIELENS), (deskdrop, data / DESKDROP)):
        if path.is_file():
            run(path)
        else:
            print(f"\n{path.relative_to(data)} is not below PALATE_DATA: left out")
    training_time()
    size()
    folding()


if __name__ == "__main__":
    main()
