"""How well items are ranked that nobody has seen, by their content, against the mean of their source and against popularity.

    PALATE_DATA=… python benchmarks/bench_new_items.py [--seed 1] [--model fm --model ials …]

Three sets: the bundled sample, the news of Telegram's contest of May 2020 below PALATE_DATA, and these with authors drawn by chance, a
few of each site. Simulated readers of known taste (`evaluation.simulation`) vote on four fifths of the items; each new item is then
scored for each reader, who likes it or not by chance as their taste says. In the news the taste goes by the category that the contest's
winner gave, which no model sees (it has the text and the source), in the third set by that and the author. Models have their default
settings, `ials` 32 factors; intervals are 95 %, bootstrapped over readers. Defaults were chosen with --seed 2.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import demo, metrics
from palate.domain import Interactions, Item
from palate.evaluation.simulation import SimulationParams, affinities, readers, simulate
from palate.models import content, content_scores, popularity, registry
from palate.models import factorization_machine as fm
from palate.models.content import Contents
from palate.models.factorization_machine import FactorizationMachine, FactorizationMachineParams, ItemSources
from palate.models.material import Material, known
from palate.models.popularity import PopularityParams
from palate.text import embedding
from palate.text.cleaning import to_plain
from palate.vocabulary import Vocabulary, vocabulary

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW_SHARE = 0.2
READERS = 300
RANKERS = ("ials", "itemknn", "ease", "svd", "blend")
PARTS = ("text", "source", "labels", "others")
FACTORS = {"ials": {"factors": 32}}


@dataclass(frozen=True)
class World:
    """Items with what a model may know of them, and what truly decides who likes them."""

    items: list[Item]
    contents: Contents
    sources: NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", action="append", choices=("fm", *RANKERS))
    asked = parser.parse_args()
    for name, world in worlds():
        print(f"\n{name}: {len(world.items)} items, {len(np.unique(world.sources))} sources\n")
        print("| new items by | AUC | nDCG@10 | AUC, against the first |\n|---|--:|--:|--:|")
        for model in asked.model or ("fm", *RANKERS):
            report(measure(world, model, np.random.default_rng(asked.seed)))


def report(measured: dict[str, NDArray[np.float64]]) -> None:
    base = next(iter(measured.values()))
    for way, values in measured.items():
        auc, ndcg = (span(values[:, place]) for place in (0, 1))
        print(f"| {way} | {auc} | {ndcg} | {span(values[:, 0] - base[:, 0])} |", flush=True)


def worlds() -> Iterator[tuple[str, World]]:
    sample = demo.sample_items(NOW)
    yield "Sample", World(sample, contents(sample, [item.labels for item in sample]), source_keys(sample))
    folder = os.environ.get("PALATE_DATA")
    if folder is None:
        print("The contest's news are left out: PALATE_DATA is not set.")
        return
    news = list(contest_items(Path(folder) / "news" / "silver"))
    yield "News of the contest", World(news, contents(news, [()] * len(news)), source_keys(news))
    signed = with_authors(news, np.random.default_rng(4))
    truth = [msgspec.structs.replace(item, labels=(*item.labels, str(item.author))) for item in signed]
    yield "News, taste by authors too", World(truth, contents(signed, [()] * len(news)), source_keys(news))


def with_authors(items: list[Item], rng: np.random.Generator) -> list[Item]:
    """Each item with one of its site's authors, of whom there is one for 40 items."""
    sources, sizes = source_keys(items), np.bincount(source_keys(items))
    number = (rng.random(len(items)) * np.maximum(sizes[sources] // 40, 1)).astype(int)
    return [
        msgspec.structs.replace(item, author=f"{item.source} {one}") for item, one in zip(items, number, strict=True)
    ]


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
    names = {name: [getattr(item, name) for item in items] for name in ("author", "language")}
    others = {name: np.where([one is None for one in own], -1, keys_of(own)) for name, own in names.items()}
    return Contents(text, source_keys(items), offsets, keys_of([name for own in labels for name in own]), others)


def keys_of(names: list[str | None]) -> NDArray[np.int64]:
    return content.label_keys([name or "" for name in names])


def source_keys(items: list[Item]) -> NDArray[np.int64]:
    return np.unique([item.source or "" for item in items], return_inverse=True)[1].astype(np.int64)


def measure(world: World, model: str, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """AUC and nDCG@10 of each reader over the new items, by each way: (readers, 2)."""
    people = readers(rng, READERS, world.items)
    new = rng.random(len(world.items)) < NEW_SHARE
    votes = voted(world, people, ~new, rng)
    truth = rng.random((len(people), new.sum())) < affinities(people, [world.items[row] for row in np.flatnonzero(new)])
    users = np.unique(votes.user)
    ways = of_machine(world, votes, new, users) if model == "fm" else of_ranker(world, votes, new, users, model)
    # items of one source are alike to the first ways: chance, not the worst case, decides among them
    chance = rng.random((len(users), new.sum()))
    found = {name: way() for name, way in ways.items()}
    return {name: quality(truth[users - 1], own + 1e-6 * own.std() * chance) for name, own in found.items()}


Ways = dict[str, Callable[[], NDArray[np.float32]]]
"""Each gives a score for every reader and new item."""


def of_machine(world: World, votes: Interactions, new: NDArray[np.bool_], users: NDArray[np.int64]) -> Ways:
    plain = FactorizationMachineParams(fields=())
    model, _ = fm.fit(votes, ItemSources(np.arange(len(new)), world.sources), plain, seed=1)
    ways: Ways = {
        "popularity of the source": lambda: by_popularity(world, votes, new, len(users)),
        "fm: mean of the source": lambda: scores(model, users, *by_source(world, model, new)),
        "**fm: content**": lambda: scored(world, votes, "fm", PARTS)[1][0][:, new],
        "fm: content, without fields in the machine": lambda: scored(world, votes, "fm", PARTS, plain)[1][0][:, new],
    }
    return ways | {f"fm: content without {part}": without(world, votes, new, part) for part in PARTS}


def without(world: World, votes: Interactions, new: NDArray[np.bool_], part: str) -> Callable[[], NDArray[np.float32]]:
    return lambda: scored(world, votes, "fm", tuple(other for other in PARTS if other != part))[1][0][:, new]


def of_ranker(world: World, votes: Interactions, new: NDArray[np.bool_], users: NDArray[np.int64], name: str) -> Ways:
    """As serving scores what the model has learned nothing of; "its own": as a model that knows of content does itself."""
    material, (all_scores, explained) = scored(world, votes, name, PARTS)
    positives = np.bincount(votes.item[votes.weight > 0], minlength=len(new))

    def by_content(parts: tuple[str, ...]) -> NDArray[np.float32]:
        given = with_parts(world.contents, parts)
        found = content_scores.fit(given, positives, material.content)
        assert found is not None, "Somebody took to something."
        stand = content_scores.values(found, content.taken(given, np.flatnonzero(new)))
        return content_scores.scored(content_scores.told(found, explained.T), stand).T

    ways: Ways = {
        f"{name}: mean of the source": lambda: mean_of_source(world, all_scores, positives > 0, new),
        f"**{name}: content**": lambda: by_content(PARTS),
        f"{name}: content without text": lambda: by_content(PARTS[1:]),
    }
    return ways | ({f"{name}: its own": lambda: all_scores[:, new]} if name in ("ials", "blend") else {})


def scored(
    world: World,
    votes: Interactions,
    name: str,
    parts: tuple[str, ...],
    params: msgspec.Struct | None = None,
) -> tuple[Material, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The scores (users, items) of a model that is given these parts of the contents, and what content explains of them."""
    items, users, entry = Vocabulary(np.arange(len(world.items))), vocabulary(votes.user), registry.entry(name)
    sources = ItemSources(items.keys, world.sources)
    material = Material(votes, users, items, NOW, sources, contents=with_parts(world.contents, parts))
    steered = params or msgspec.convert(FACTORS.get(name, {}), entry.params)
    return material, entry.scores(entry.fit(material, steered, 1), known(votes, users.keys, items))


def mean_of_source(
    world: World, found: NDArray[np.float32], learned: NDArray[np.bool_], new: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The mean score of the source's learned items, or of all where it has none."""
    sources, of_new = world.sources[learned], world.sources[new]
    counts = np.bincount(sources, minlength=world.sources.max() + 1)
    sums = np.stack([np.bincount(sources, row, minlength=len(counts)) for row in found[:, learned].astype(float)])
    means = np.where(counts > 0, sums / np.maximum(counts, 1), found[:, learned].mean(axis=1, keepdims=True))
    return means[:, of_new].astype(np.float32)


def voted(world: World, people: list, shown: NDArray[np.bool_], rng: np.random.Generator) -> Interactions:
    rows = np.flatnonzero(shown)
    happened = simulate([world.items[row] for row in rows], people, rng, NOW, 7, SimulationParams(sessions=8))
    key_of = {world.items[row].id: row for row in rows}
    votes = {
        (int(event.user.removeprefix("reader-")), key_of[event.item]): (event.type == "like", event.time)
        for event in happened
        if event.type in ("like", "dislike")
    }
    pairs = np.array(sorted(votes), np.int64)
    told = np.array([votes[user, item] for user, item in pairs.tolist()], np.int64)
    label = told[:, 0].astype(np.float32)
    return Interactions(pairs[:, 0].copy(), pairs[:, 1].copy(), label, 2 * label - 1, told[:, 1].copy())


def by_popularity(world: World, votes: Interactions, new: NDArray[np.bool_], people: int) -> NDArray[np.float32]:
    as_sources = Interactions(votes.user, world.sources[votes.item], votes.label, votes.weight, votes.time)
    found = popularity.fit(as_sources, NOW, PopularityParams())
    return np.tile(popularity.score(found, world.sources[new]), (people, 1))


def by_source(world: World, model: FactorizationMachine, new: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    rows = model.sources.rows(world.sources[new])
    vectors, bias = model.source_vectors[rows], model.source_bias[rows]
    vectors[rows < 0], bias[rows < 0] = 0, 0
    return vectors, bias


def with_parts(given: Contents, parts: tuple[str, ...]) -> Contents:
    return Contents(
        text=given.text if "text" in parts else np.zeros_like(given.text),
        source=given.source if "source" in parts else np.full(len(given), -1),
        label_offsets=given.label_offsets if "labels" in parts else np.zeros_like(given.label_offsets),
        labels=given.labels if "labels" in parts else given.labels[:0],
        others=given.others if "others" in parts else {},
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
