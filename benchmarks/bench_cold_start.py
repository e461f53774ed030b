"""Quality for a new person after 0, 1, 3, 10 and 30 votes, against popularity: a table, and docs/images/cold_start.svg.

    PALATE_DATA=… python benchmarks/bench_cold_start.py

Two sets: 240 simulated readers of the bundled sample (their likes are drawn from known tastes), and MovieLens latest-small below
PALATE_DATA (a rating of 4 or more is a like, of 2.5 or less a dislike, others are no vote; genres are the labels, there are no
sources). Held-out people are unknown to the model; all numbers of votes are measured on the same later votes. Bars and bands are
95 % intervals, bootstrapped over people. Everything has the product's default settings but one: in MovieLens, whose votes cover
twenty years, popularity does not fade, or it would be too weak a rival.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from palate import demo
from palate.domain import Interactions
from palate.evaluation.replay import Items, Quality, ReplayParams, replay
from palate.evaluation.simulation import SimulationParams, readers, simulate
from palate.models.factorization_machine import NO_SOURCES, ItemSources
from palate.models.popularity import PopularityParams

SEED = 0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "cold_start.svg"
LASTING = ReplayParams(popularity=PopularityParams(half_life_days=36_500))
METRICS = {"auc": "AUC", "ndcg": "nDCG@10"}


def main() -> None:
    results = {name: replay(*case, np.random.default_rng(SEED)) for name, *case in data()}
    for name, found in results.items():
        print_table(name, found)
    draw(results, IMAGE)


def data() -> Iterator[tuple[str, Interactions, Items, ReplayParams]]:
    yield "Simulated readers", *simulated(), ReplayParams()
    folder = os.environ.get("PALATE_DATA")
    if folder is None:
        print("MovieLens is left out: PALATE_DATA is not set.")
    else:
        yield "MovieLens latest-small", *movielens(Path(folder) / "feedback" / "movielens-latest-small"), LASTING


def simulated() -> tuple[Interactions, Items]:
    items, rng = demo.sample_items(NOW), np.random.default_rng(SEED)
    people = readers(rng, 240, items)
    happened = simulate(items, people, rng, NOW, 7, SimulationParams(sessions=12))
    votes = [event for event in happened if event.type in ("like", "dislike")]
    key_of = {item.id: key for key, item in enumerate(items)}
    source_keys = {name: key for key, name in enumerate(sorted({item.source or "" for item in items}))}
    pairs = interactions(
        np.array([int(event.user.removeprefix("reader-")) for event in votes]),
        np.array([key_of[event.item] for event in votes]),
        np.array([event.type == "like" for event in votes]),
        np.array([event.time for event in votes]),
    )
    sources = ItemSources(np.arange(len(items)), np.array([source_keys[item.source or ""] for item in items]))
    return pairs, Items(sources, {key_of[item.id]: item.labels for item in items})


def movielens(folder: Path) -> tuple[Interactions, Items]:
    with (folder / "ratings.csv").open(encoding="utf-8") as file:
        rows = [
            (int(r["userId"]), int(r["movieId"]), float(r["rating"]), int(r["timestamp"])) for r in csv.DictReader(file)
        ]
    user, item, rating, seconds = (np.array(column) for column in zip(*rows, strict=True))
    voted = (rating >= 4) | (rating <= 2.5)
    pairs = interactions(user[voted], item[voted], rating[voted] >= 4, 1000 * seconds[voted])
    with (folder / "movies.csv").open(encoding="utf-8") as file:
        labels = {int(row["movieId"]): row["genres"].split("|") for row in csv.DictReader(file)}
    return pairs, Items(NO_SOURCES, labels)


def interactions(user: np.ndarray, item: np.ndarray, liked: np.ndarray, time: np.ndarray) -> Interactions:
    order = np.lexsort((item, user))
    label, weight = liked[order].astype(np.float32), np.ones(len(user), np.float32)
    return Interactions(user[order], item[order], label, weight, time[order].astype(np.int64))


def print_table(name: str, found: list[Quality]) -> None:
    print(f"\n{name}\n\n| metric | people | votes | Palate | popularity | gain |\n|---|--:|--:|--:|--:|--:|")
    for row in found:
        model, base = span(row.model, row.model_interval), span(row.popularity, row.popularity_interval)
        gain = span(row.model - row.popularity, row.gain_interval)
        print(f"| {METRICS[row.metric]} | {row.people} | {row.votes} | {model} | {base} | {gain} |")


def span(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} … {interval[1]:.3f})"


def draw(results: dict[str, list[Quality]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "cold start"})
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(len(METRICS), len(results), figsize=(4.6 * len(results), 6.4), squeeze=False)
    for (name, found), column in zip(results.items(), rows.T, strict=True):
        for (metric, title), axes in zip(METRICS.items(), column, strict=True):
            draw_panel(axes, [row for row in found if row.metric == metric])
            axes.set_title(f"{name}: {title}", fontsize=10, loc="left")
    rows[0, 0].legend(frameon=False, loc="upper left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white", metadata={"Date": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def draw_panel(axes, found: list[Quality]) -> None:
    places, model = np.arange(len(found)), np.array([row.model for row in found])
    ends = np.array([row.model_interval for row in found]).T
    base, (low, high) = found[0].popularity, found[0].popularity_interval
    axes.axhspan(low, high, color="#999999", alpha=0.2, linewidth=0)
    axes.axhline(base, color="#666666", linestyle="--", label="popularity")
    bars = np.abs(ends - model)
    axes.errorbar(places, model, yerr=bars, color="#0b6e99", marker="o", capsize=3, linewidth=1.8, label="Palate")
    axes.set_xticks(places, [str(row.votes) for row in found])
    axes.set_xlabel("votes of a new person")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
