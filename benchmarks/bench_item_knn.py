"""Item-kNN beside implicit's nearest neighbours, in time; and item-kNN, EASE and popularity on published protocols.

    PALATE_DATA=… python benchmarks/bench_item_knn.py [--quality | --truncation] [movielens] [gowalla]

Reads feedback/gowalla-lightgcn and feedback/movielens-1m below PALATE_DATA. Time: similarities of all items from the same cells by
the same formula (checked to be the same numbers), ours and implicit's fit in turn, all cores each; `implicit` has to be installed.
`--quality`: HR@10 and nDCG@10 with the given 99 negatives (MovieLens 1M, leave-one-out of the NCF paper), Recall@20 and nDCG@20 of
all items (Gowalla). `--truncation`: EASE by how many weights an item keeps. Parameters other than the defaults were chosen on pairs
cut from training (MovieLens: one of each user against 99 items by chance; Gowalla: a fifth of all).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from palate import matrix
from palate.domain import Interactions
from palate.evaluation import evaluating, measuring
from palate.evaluation.evaluating import Conditions, Plan
from palate.evaluation.protocols import Split
from palate.models import item_knn, neighbours, registry
from palate.models.item_knn import ItemKnnParams
from palate.models.material import material
from palate.models.neighbours import Neighbours

NOW, TURNS = datetime(1970, 1, 1, tzinfo=UTC), 5
GOWALLA = {"itemknn": {"neighbours": 300, "target_exponent": 0.2, "source_exponent": 0.4}, "popularity": {}}
MOVIELENS = {"itemknn": {"neighbours": 50, "target_exponent": 0.4}, "ease": {"l2": 2000.0}, "popularity": {}}


def ones(user: Any, item: Any) -> Interactions:
    user, item = np.asarray(user, np.int64), np.asarray(item, np.int64)
    order = np.lexsort((item, user))
    weight = np.ones(len(user), np.float32)
    return Interactions(
        user[order], item[order], np.full(len(user), np.nan, np.float32), weight, np.zeros(len(user), np.int64)
    )


def pairs(path: Path) -> Interactions:
    lines = [np.array(line.split(), np.int64) for line in path.read_text().splitlines()]
    return ones(
        np.concatenate([np.full(len(line) - 1, line[0]) for line in lines]),
        np.concatenate([line[1:] for line in lines]),
    )


def gowalla(data: Path) -> tuple[Interactions, Interactions]:
    folder = data / "feedback/gowalla-lightgcn"
    return pairs(folder / "train.rebuilt.txt"), pairs(folder / "test.txt")


def movielens(data: Path) -> tuple[Interactions, Interactions, tuple[Any, Any]]:
    """Training, test, and users and items of the candidates; as the folder's notes say how to rebuild them."""
    import pyarrow.parquet as pq

    folder = data / "feedback/movielens-1m"
    table = pq.read_table(folder / "pairs.parquet")
    user = table["userID"].to_numpy().astype(np.int64) - 1
    names: dict[str, int] = {}
    item = np.array([names.setdefault(name, len(names)) for name in table["movieID"].to_pylist()])
    test = np.loadtxt(folder / "ncf.ml-1m.test.rating", dtype=np.int64)[:, :2]
    kept = ~np.isin(user * 10_000 + item, test[:, 0] * 10_000 + test[:, 1])
    negatives = np.array(
        [line.split()[1:] for line in (folder / "ncf.ml-1m.test.negative").read_text().splitlines()], np.int64
    )
    candidates = np.repeat(test[:, 0], negatives.shape[1]), negatives.reshape(-1)
    return ones(user[kept], item[kept]), ones(*test.T), candidates


def times(name: str, train: Interactions) -> None:
    learned = material(train, NOW)
    cells = neighbours.by_users(learned, 1, 10**9)
    for k in (20, 100):
        for weighting in ("cosine", "bm25"):
            ours = our_fit(learned, weighting, k)
            fits: dict[str, Callable[[], Any]] = {"ours": ours}
            if peer := their_fit(cells, weighting, k):
                fits["implicit"] = peer
            found: dict[str, list[float]] = {key: [] for key in fits}
            models = {key: fit() for key, fit in fits.items()}  # compiles
            for _ in range(TURNS):
                for key, fit in fits.items():
                    start = time.perf_counter()
                    fit()
                    found[key].append(time.perf_counter() - start)
            medians = {key: median(values) for key, values in found.items()}
            told = "  ".join(f"{key} {seconds:.3f} s" for key, seconds in medians.items())
            ratio = f"  ratio {medians['implicit'] / medians['ours']:.2f} ×" if "implicit" in medians else ""
            same = (
                f"  largest difference {difference(models):.1e}"
                if weighting == "cosine" and "implicit" in models
                else ""
            )
            print(f"   {name}, {weighting}, {k} neighbours: {told}{ratio}{same}", flush=True)


def our_fit(learned: Any, weighting: str, k: int) -> Callable[[], Neighbours]:
    exponents = {"cosine": 0.5, "bm25": 0.0}[weighting]
    params = ItemKnnParams(
        weighting="count" if weighting == "cosine" else "bm25",
        neighbours=k,
        source_exponent=exponents,
        target_exponent=exponents,
        history_limit=10**9,
    )
    return lambda: item_knn.fit(learned, params)


def their_fit(cells: matrix.Sparse, weighting: str, k: int) -> Callable[[], Any] | None:
    try:
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
        from scipy.sparse import csr_matrix
    except ImportError:
        print("   implicit is not installed: ours alone")
        return None
    warnings.filterwarnings("ignore", module="implicit")
    users = csr_matrix((cells.values.astype(np.float64), cells.columns, cells.offsets), (len(cells), cells.width))
    kind = CosineRecommender if weighting == "cosine" else BM25Recommender

    def fit() -> Any:
        model = kind(K=k)
        model.fit(users, show_progress=False)
        return model

    return fit


def difference(models: dict[str, Any]) -> float:
    """Between the similarities of some items; implicit keeps an item as its own first neighbour, so it has one less."""
    ours, theirs = matrix.transposed(models["ours"].weights), models["implicit"].similarity
    worst = 0.0
    for item in range(0, len(ours), 37):
        own = np.sort(ours.row(item)[1])[::-1]
        row = theirs[item]
        their = np.sort(row.data[row.indices != item])[::-1]
        shared = min(len(own), len(their))
        worst = max(worst, float(np.abs(own[:shared] - their[:shared]).max(initial=0)))
    return worst


def ask(model: str, settings: dict[str, Any], split: Split, conditions: Conditions) -> str:
    outcome = evaluating.evaluate(
        split, Plan(model, msgspec.convert(settings, registry.entry(model).params)), conditions, [0]
    )
    figures = "  ".join(
        f"{name} {each.value:.4f} [{each.low:.4f}, {each.high:.4f}]" for name, each in outcome.figures.items()
    )
    return f"{figures}   fit {outcome.seconds['fit']:.1f} s"


def given(train: Interactions, test: Interactions) -> Split:
    return Split(train, train, test, np.ones(len(test)), "given", np.ones(len(train), bool))


def splits_of(data: Path) -> Iterator[tuple[str, Split, Conditions, dict[str, dict[str, Any]]]]:
    train, test, candidates = movielens(data)
    wanted = measuring.wanted("hr@10,ndcg@10")
    yield (
        "MovieLens 1M",
        given(train, test),
        Conditions(wanted, candidates),
        MOVIELENS,
    )
    train, test = gowalla(data)
    wanted = measuring.wanted("recall@20,ndcg@20")
    yield "Gowalla", given(train, test), Conditions(wanted), GOWALLA


def quality(data: Path) -> None:
    for name, split, conditions, tuned in splits_of(data):
        for model, settings in tuned.items():
            print(f"   {name}, {model}, defaults: {ask(model, {}, split, conditions)}", flush=True)
            if settings:
                print(f"   {name}, {model}, {settings}: {ask(model, settings, split, conditions)}", flush=True)


def truncation(data: Path) -> None:
    name, split, conditions, _ = next(splits_of(data))
    for kept in (25, 50, 100, 200, 500, 4000):
        print(f"   {name}, ease, {kept} weights: {ask('ease', {'neighbours': kept}, split, conditions)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--truncation", action="store_true")
    parser.add_argument("sets", nargs="*", default=["movielens", "gowalla"], help="what is timed")
    options = parser.parse_args()
    if "PALATE_DATA" not in os.environ:
        raise SystemExit("Set PALATE_DATA to the folder with the data.")
    data = Path(os.environ["PALATE_DATA"])
    if options.quality:
        quality(data)
    elif options.truncation:
        truncation(data)
    else:
        for name, read in (("movielens", movielens), ("gowalla", gowalla)):
            if name in options.sets:
                times(name, read(data)[0])


if __name__ == "__main__":
    main()
