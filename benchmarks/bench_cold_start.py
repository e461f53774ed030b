"""Quality for a new person after 0, 1, 3, 10, 30 and 100 votes, against popularity: tables, and docs/images/cold_start.svg.

    PALATE_DATA=… python benchmarks/bench_cold_start.py [--without-fields]

Two sets: 240 simulated readers of the bundled sample (their likes are drawn from known tastes), and MovieLens latest-small below
PALATE_DATA (a rating of 4 or more is a like, of 2.5 or less a dislike, others are no vote; genres are the labels, there are no
sources and no texts). Items stand where training and serving put them, those of few votes by their content. Held-out people are unknown to the model; all numbers of votes are measured on the same later votes. The votes come in the order
in which they were given, or as the feed would ask for them: each time the one that tells most about all items, among the same votes. Bars
and bands are 95 % intervals, bootstrapped over people; gains are paired. Simulated readers have no 100 votes. Everything has the product's default settings but one: in MovieLens, whose votes cover
twenty years, popularity does not fade, or it would be too weak a rival. `--without-fields` asks a machine that learns of users and items
alone, and draws nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import bench_new_items
import msgspec
import numpy as np

from palate import demo
from palate.domain import Interactions
from palate.evaluation.replay import Items, Quality, ReplayParams, replay
from palate.evaluation.simulation import SimulationParams, readers, simulate
from palate.models import content
from palate.models.factorization_machine import FactorizationMachineParams
from palate.models.popularity import PopularityParams
from palate.vocabulary import Vocabulary

SEED = 0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "cold_start.svg"
VOTES = (0, 1, 3, 10, 30, 100)
LASTING = ReplayParams(votes=VOTES, popularity=PopularityParams(half_life_days=36_500))
ORDERS = {"time": "votes as they came", "information": "votes chosen for their information"}
COLOURS = {"time": "#0b6e99", "information": "#c4591b"}
METRICS = {"auc": "AUC", "ndcg": "nDCG@10"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-fields", action="store_true")
    bare = parser.parse_args().without_fields
    results = {}
    for name, pairs, items, params in data():
        for order, words in ORDERS.items():
            asked = msgspec.structs.replace(params, order=order)
            if bare:
                asked = msgspec.structs.replace(asked, factorization_machine=FactorizationMachineParams(fields=()))
            found = results[name, order] = replay(pairs, items, asked, np.random.default_rng(SEED))
            print_table(f"{name}, {words}", found)
    if not bare:
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
    known = bench_new_items.contents(items, [item.labels for item in items])
    pairs = interactions(
        np.array([int(event.user.removeprefix("reader-")) for event in votes]),
        np.array([key_of[event.item] for event in votes]),
        np.array([event.type == "like" for event in votes]),
        np.array([event.time for event in votes]),
    )
    return pairs, Items(Vocabulary(np.arange(len(items))), known)


def movielens(folder: Path) -> tuple[Interactions, Items]:
    with (folder / "ratings.csv").open(encoding="utf-8") as file:
        rows = [
            (int(r["userId"]), int(r["movieId"]), float(r["rating"]), int(r["timestamp"])) for r in csv.DictReader(file)
        ]
    user, item, rating, seconds = (np.array(column) for column in zip(*rows, strict=True))
    voted = (rating >= 4) | (rating <= 2.5)
    pairs = interactions(user[voted], item[voted], rating[voted] >= 4, 1000 * seconds[voted])
    with (folder / "movies.csv").open(encoding="utf-8") as file:
        genres = dict(sorted((int(row["movieId"]), row["genres"].split("|")) for row in csv.DictReader(file)))
    offsets = np.cumsum([0, *map(len, genres.values())])
    labels = content.label_keys([name for own in genres.values() for name in own])
    known = replace(content.nothing_known(len(genres)), label_offsets=offsets, labels=labels)
    return pairs, Items(Vocabulary(np.array(list(genres))), known)


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


def draw(results: dict[tuple[str, str], list[Quality]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "cold start"})
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for name, _ in results))
    figure, rows = pyplot.subplots(len(METRICS), len(names), figsize=(4.6 * len(names), 6.4), squeeze=False)
    for name, column in zip(names, rows.T, strict=True):
        for (metric, title), axes in zip(METRICS.items(), column, strict=True):
            draw_panel(axes, {order: [row for row in results[name, order] if row.metric == metric] for order in ORDERS})
            axes.set_title(f"{name}: {title}", fontsize=10, loc="left")
    figure.legend(*rows[0, 0].get_legend_handles_labels(), frameon=False, loc="upper center", ncol=3)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white", metadata={"Date": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def draw_panel(axes, by_order: dict[str, list[Quality]]) -> None:
    found = by_order["time"]
    places = np.arange(len(found))
    base, (low, high) = found[0].popularity, found[0].popularity_interval
    axes.axhspan(low, high, color="#999999", alpha=0.2, linewidth=0)
    axes.axhline(base, color="#666666", linestyle="--", label="popularity")
    for shift, (order, rows) in zip((-0.06, 0.06), by_order.items(), strict=True):
        model = np.array([row.model for row in rows])
        bars = np.abs(np.array([row.model_interval for row in rows]).T - model)
        style = {"color": COLOURS[order], "marker": "o", "capsize": 3, "linewidth": 1.8, "markersize": 4}
        axes.errorbar(places + shift, model, yerr=bars, label=f"Palate, {ORDERS[order]}", **style)
    axes.set_xticks(places, [str(row.votes) for row in found])
    axes.set_xlabel("votes of a new person")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
