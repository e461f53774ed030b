"""How well items are ranked that nobody has seen, by their content, against the mean of their source and against popularity.

    PALATE_DATA=… python benchmarks/bench_new_items.py

Two sets: the bundled sample, and the news of Telegram's contest of May 2020 below PALATE_DATA. Simulated readers of known taste
(`evaluation.simulation`) vote on four fifths of the items; each new item is then scored for each reader, who likes it or not by
chance as their taste says. In the news the taste goes by the category that the contest's winner gave, which no model sees: it has
the text and the source. The factorization machine has its default settings; intervals are 95 %, bootstrapped over readers.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palate import demo, metrics
from palate.domain import Interactions, Item
from palate.evaluation.simulation import SimulationParams, affinities, readers, simulate
from palate.models import content, popularity
from palate.models import factorization_machine as fm
from palate.models.content import ContentParams, Contents
from palate.models.factorization_machine import FactorizationMachine, FactorizationMachineParams, ItemSources
from palate.models.popularity import PopularityParams
from palate.text import embedding
from palate.text.cleaning import to_plain

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW_SHARE = 0.2
READERS = 300


@dataclass(frozen=True)
class World:
    """Items with what a model may know of them, and what truly decides who likes them."""

    items: list[Item]
    contents: Contents
    sources: NDArray[np.int64]


def main() -> None:
    for name, world in worlds():
        print(f"\n{name}: {len(world.items)} items, {len(np.unique(world.sources))} sources\n")
        print("| new items by | AUC | nDCG@10 | AUC, against the first |\n|---|--:|--:|--:|")
        measured = measure(world, np.random.default_rng(1))
        base = next(iter(measured.values()))
        for way, values in measured.items():
            auc, ndcg = (span(values[:, place]) for place in (0, 1))
            print(f"| {way} | {auc} | {ndcg} | {span(values[:, 0] - base[:, 0])} |")


def worlds() -> Iterator[tuple[str, World]]:
    sample = demo.sample_items(NOW)
    yield "Sample", World(sample, contents(sample, [item.labels for item in sample]), source_keys(sample))
    folder = os.environ.get("PALATE_DATA")
    if folder is None:
        print("The contest's news are left out: PALATE_DATA is not set.")
        return
    news = list(contest_items(Path(folder) / "news" / "silver"))
    yield "News of the contest", World(news, contents(news, [()] * len(news)), source_keys(news))


def contest_items(folder: Path) -> Iterator[Item]:
    """Each article with its category as the label, published at random in the last week."""
    rng = np.random.default_rng(3)
    for path in sorted(folder.glob("winner_threads_*.jsonl.gz")):
        for thread in map(json.loads, gzip.decompress(path.read_bytes()).splitlines()):
            for number, article in enumerate(thread["articles"]):
                yield Item(
                    id=f"{path.name} {thread['rank']} {number} {article['url']}",
                    title=article["title"],
                    text=article["text"],
                    source=article["site_name"],
                    language=thread["lang"],
                    labels=(thread["category"],),
                    published=NOW - timedelta(days=7 * float(rng.random())),
                )


def contents(items: list[Item], labels: list[tuple[str, ...]]) -> Contents:
    text = embedding.embed((item.title or "", to_plain(item.text or "")) for item in items)
    offsets = np.cumsum([0, *map(len, labels)]).astype(np.int64)
    return Contents(text, source_keys(items), offsets, content.label_keys([name for own in labels for name in own]))


def source_keys(items: list[Item]) -> NDArray[np.int64]:
    return np.unique([item.source or "" for item in items], return_inverse=True)[1].astype(np.int64)


def measure(world: World, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """AUC and nDCG@10 of each reader over the new items, by each way: (readers, 2)."""
    people = readers(rng, READERS, world.items)
    new = rng.random(len(world.items)) < NEW_SHARE
    votes = voted(world, people, ~new, rng)
    model, _ = fm.fit(votes, ItemSources(np.arange(len(new)), world.sources), FactorizationMachineParams(), seed=1)
    truth = rng.random((len(people), new.sum())) < affinities(people, [world.items[row] for row in np.flatnonzero(new)])
    known = model.users.rows(np.arange(1, READERS + 1)) >= 0
    users = np.arange(1, READERS + 1)[known]
    ways: dict[str, Callable[[], NDArray[np.float32]]] = {
        "popularity of the source": lambda: by_popularity(world, votes, new, len(users)),
        "mean of the source": lambda: scores(model, users, *by_source(world, model, new)),
        "content": lambda: scores(model, users, *by_content(world, model, new, ("text", "source", "labels"))),
        "content without text": lambda: scores(model, users, *by_content(world, model, new, ("source", "labels"))),
        "content without source": lambda: scores(model, users, *by_content(world, model, new, ("text", "labels"))),
        "content without labels": lambda: scores(model, users, *by_content(world, model, new, ("text", "source"))),
    }
    # items of one source are alike to the first two ways: chance, not the worst case, decides among them
    chance = 1e-6 * rng.random((len(users), new.sum())).astype(np.float32)
    return {name: quality(truth[known], way() + chance) for name, way in ways.items()}


def voted(world: World, people: list, shown: NDArray[np.bool_], rng: np.random.Generator) -> Interactions:
    rows = np.flatnonzero(shown)
    happened = simulate([world.items[row] for row in rows], people, rng, NOW, 7, SimulationParams(sessions=8))
    key_of = {world.items[row].id: row for row in rows}
    votes = {
        (int(event.user.removeprefix("reader-")), key_of[event.item]): event.type == "like"
        for event in happened
        if event.type in ("like", "dislike")
    }
    pairs = np.array(sorted(votes), np.int64)
    label = np.array([votes[user, item] for user, item in pairs.tolist()], np.float32)
    ones = np.ones(len(pairs), np.float32)
    return Interactions(pairs[:, 0].copy(), pairs[:, 1].copy(), label, ones, np.zeros(len(pairs), np.int64))


def by_popularity(world: World, votes: Interactions, new: NDArray[np.bool_], people: int) -> NDArray[np.float32]:
    as_sources = Interactions(votes.user, world.sources[votes.item], votes.label, votes.weight, votes.time)
    found = popularity.fit(as_sources, datetime(1970, 1, 1, tzinfo=UTC), PopularityParams())
    return np.tile(popularity.score(found, world.sources[new]), (people, 1))


def by_source(world: World, model: FactorizationMachine, new: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    rows = model.sources.rows(world.sources[new])
    vectors, bias = model.source_vectors[rows], model.source_bias[rows]
    vectors[rows < 0], bias[rows < 0] = 0, 0
    return vectors, bias


def by_content(
    world: World, model: FactorizationMachine, new: NDArray[np.bool_], parts: tuple[str, ...]
) -> tuple[NDArray, NDArray]:
    known = with_parts(content.taken(world.contents, model.items.keys), parts)
    targets = np.column_stack([model.item_vectors, model.item_bias])
    content_map = content.fit(known, targets, model.item_examples, ContentParams())
    told = content.predicted(content_map, with_parts(content.taken(world.contents, np.flatnonzero(new)), parts))
    return told[:, :-1], told[:, -1]


def with_parts(given: Contents, parts: tuple[str, ...]) -> Contents:
    return Contents(
        text=given.text if "text" in parts else np.zeros_like(given.text),
        source=given.source if "source" in parts else np.full(len(given), -1),
        label_offsets=given.label_offsets if "labels" in parts else np.zeros_like(given.label_offsets),
        labels=given.labels if "labels" in parts else given.labels[:0],
    )


def scores(model: FactorizationMachine, users: NDArray, vectors: NDArray, bias: NDArray) -> NDArray[np.float32]:
    return model.user_vectors[model.users.rows(users)] @ vectors.T + bias


def quality(truth: NDArray[np.bool_], found: NDArray[np.float32]) -> NDArray[np.float64]:
    ndcg = metrics.ndcg_at(metrics.relevance(truth, found), 10)
    return np.column_stack([[metrics.auc(*pair) for pair in zip(truth, found, strict=True)], ndcg])


def span(values: NDArray[np.float64]) -> str:
    values = values[~np.isnan(values)]
    low, high = metrics.bootstrap_interval(values, np.random.default_rng(0))
    return f"{values.mean():.3f} ({low:.3f} … {high:.3f})"


if __name__ == "__main__":
    main()
