"""Lists for a new person after 0, 1, 3, 10, 30 and 100 of their events, by each model, against popularity: full ranking.

    PALATE_DATA=… python benchmarks/bench_cold_start_lists.py [SET …]

Held-out people are unknown to the model, which folds their first events in; what they took to later has to be found among all
items. MovieLens 1M, Gowalla and Electronics have no times: there the order of a person's events is by chance. Numbers of events
that fewer than 100 people have are left out. Intervals are 95 %, bootstrapped over people; settings are the defaults.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from palate.domain import Interactions
from palate.evaluation import protocols, recordings
from palate.evaluation.cold_start import ColdStartParams, cold_start
from palate.interactions import InteractionParams, merge
from palate.models.blend import BlendParams
from palate.models.ease import EaseParams
from palate.models.implicit_als import ImplicitALSParams
from palate.models.item_knn import ItemKnnParams

EVENTS = (0, 1, 3, 10, 30, 100)
LATER, PEOPLE, FEWEST = 5, 300, 200
MODELS = {
    "ials": ("ials", ImplicitALSParams()),
    "itemknn": ("itemknn", ItemKnnParams()),
    "ease": ("ease", EaseParams()),
    "blend": ("blend", BlendParams(members=("popularity", "itemknn", "ease", "ials"))),
}


def main(names: list[str]) -> None:
    folder = os.environ.get("PALATE_DATA")
    if folder is None:
        print("This needs PALATE_DATA, the folder of real data.")
        return
    for name, read in SETS.items():
        if not names or name in names:
            report(name, read(Path(folder) / "feedback"))


def report(name: str, pairs: Interactions) -> None:
    counts = np.unique(pairs.user[pairs.weight > 0], return_counts=True)[1]
    events = tuple(number for number in EVENTS if (counts >= number + LATER).sum() >= FEWEST)
    params = ColdStartParams(events=events, later=LATER, people=PEOPLE)
    found = {
        title: cold_start(pairs, name, settings, params, np.random.default_rng(0))
        for title, (name, settings) in MODELS.items()
    }
    print(f"\n{name}: nDCG@10\n\n| events | popularity | {' | '.join(MODELS)} |\n|--:|--:|{'--:|' * len(MODELS)}")
    for place, number in enumerate(events):
        rows = [found[model][place] for model in MODELS]
        base = span(rows[0].popularity, rows[0].popularity_interval)
        print(f"| {number} | {base} | {' | '.join(span(row.model, row.model_interval) for row in rows)} |", flush=True)


def span(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} … {interval[1]:.3f})"


def merged(*paths: Path) -> Interactions:
    meaning = InteractionParams(max_events_per_day=None, types={recordings.POSITIVE: protocols.ALWAYS_POSITIVE})
    return merge(recordings.read(paths).events, meaning)


def movielens_1m(folder: Path) -> Interactions:
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "movielens-1m" / "pairs.parquet").rename_columns(["user", "item"])
    with tempfile.TemporaryDirectory() as place:
        pq.write_table(table, Path(place) / "pairs.parquet")
        return merged(Path(place) / "pairs.parquet")


def globo(folder: Path) -> Interactions:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(
        folder / "globo-clicks" / "clicks.parquet", columns=["user_id", "click_article_id", "click_timestamp"]
    ).rename_columns(["user", "item", "time"])
    table = table.set_column(0, "user", table["user"].cast(pa.string())).set_column(
        1, "item", table["item"].cast(pa.string())
    )
    with tempfile.TemporaryDirectory() as place:
        pq.write_table(table, Path(place) / "clicks.parquet")
        return merged(Path(place) / "clicks.parquet")


SETS: dict[str, Callable[[Path], Interactions]] = {
    "Electronics": lambda folder: merged(
        *((folder / "ultragcn-electronics" / f"{part}.txt") for part in ("train", "test"))
    ),
    "Deskdrop": lambda folder: merged(folder / "deskdrop" / "users_interactions.csv"),
    "MovieLens 1M": movielens_1m,
    "Gowalla": lambda folder: merged(
        *((folder / "gowalla-lightgcn" / part) for part in ("train.rebuilt.txt", "test.txt"))
    ),
    "Globo clicks": globo,
}

if __name__ == "__main__":
    main(sys.argv[1:])
