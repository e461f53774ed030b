"""How well documents are divided into stories, and what that costs.

    PALATE_DATA=… python benchmarks/bench_stories.py [gold] [silver] [uci] [topics] [scale] [arrival] [--largest N]

gold: pairs that people judged, among the silver articles as their surroundings; silver: the threads of the contest's winner of 2–3
May 2020, whose agreement isn't truth; uci: headlines of March 2014 with the stories of an aggregator; topics: Wikipedia's portal of
current events, weak groups of one day and topic. scale: articles varied to any number, at 33,000 a day; arrival: one document more.

How rare words are was counted in the silver texts among others, not in the gold pairs nor uci; what was chosen on what is printed
with each table. Intervals are 95 %, bootstrapped over pairs. Times are processor seconds.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.stories import clustering
from palate.stories.neighbours import ClusteringParams, Documents
from palate.text import embedding

DATA = Path(os.environ.get("PALATE_DATA", "."))
GRID = np.arange(0.16, 0.56, 0.02)
A_DAY = 33_000
DAY = 86_400_000
FOLDS = 10
SHOWN = 12
COLUMNS = ("keys", "vectors", "sources", "times", "keywords")


@dataclass(frozen=True)
class Texts:
    """Titles with texts, their sources, times in milliseconds, and the group that each is said to be of."""

    texts: list[tuple[str, str]]
    sources: list[str]
    times: list[int]
    groups: list[Any]

    def __len__(self) -> int:
        return len(self.texts)


def main(chosen: Sequence[str]) -> None:
    parts: dict[str, Callable[[], None]] = {
        "gold": lambda: [gold(language) for language in ("ru", "en")] and None,
        "silver": lambda: [silver(language) for language in ("ru", "en")] and None,
        "uci": uci,
        "topics": topics,
        "scale": scale,
        "arrival": arrival,
    }
    for name, part in parts.items():
        if not chosen or name in chosen:
            print(f"\n## {name}\n", flush=True)
            part()


# Quality


def gold(language: str) -> None:
    """Pairs judged by people. The threshold of each fold is the best of the other folds; the default's was chosen on silver."""
    pairs = rows(f"news/gold/gold_pairs_{language}.jsonl")
    around = silver_texts(language)
    middle = int(np.median(around.times))
    texts = [(pair[f"{side}_title"], pair[f"{side}_text"]) for pair in pairs for side in ("first", "second")]
    sources = [host(pair[f"{side}_url"]) for pair in pairs for side in ("first", "second")]
    unique = {text: place for place, text in enumerate(texts)}
    kept = sorted(unique.values())
    new = {place: len(around) + rank for rank, place in enumerate(kept)}
    every = Texts(
        around.texts + [texts[place] for place in kept],
        around.sources + [sources[place] for place in kept],
        [middle] * (len(around) + len(kept)),
        [],
    )
    rows_of = np.array([new[unique[text]] for text in texts]).reshape(-1, 2)
    truth = np.array([pair["quality"] == "OK" for pair in pairs])
    documents = documents_of(every)
    said = {level: same(labels(documents, similarity=level), rows_of) for level in (*GRID, default())}
    folds = np.random.default_rng(1).permutation(len(truth)) % FOLDS
    crossed = np.zeros(len(truth), np.bool_)
    for fold in range(FOLDS):
        inside = folds != fold
        level = max(GRID, key=lambda level: (f1(said[level][inside], truth[inside]), -level))
        crossed[~inside] = said[level][~inside]
    missing = int((~documents.vectors[rows_of].any(axis=2)).any(axis=1).sum())
    print(
        f"{language}: {len(truth)} pairs, {truth.sum()} of them one event; {missing} pairs with a document without words;"
    )
    print(
        f"{len(around)} silver articles around them.\n\n| threshold | precision | recall | F1 of 'one event' | accuracy |"
    )
    print("|---|--:|--:|--:|--:|")
    line(f"default, {default():.2f}", said[default()], truth)
    line(f"cross-validated, {FOLDS} folds", crossed, truth)
    best = max(GRID, key=lambda level: f1(said[level], truth))
    line(f"best of these pairs, {best:.2f} (too good)", said[best], truth)


def silver(language: str) -> None:
    """Agreement with the winner's threads, and pairs on which we differ."""
    articles = silver_texts(language)
    documents = documents_of(articles)
    print(
        f"{language}: {len(articles)} articles, {len(set(articles.groups))} threads. The default threshold was chosen here.\n"
    )
    agreement(documents, articles.groups, np.arange(0.2, 0.5, 0.05))
    found = labels(documents)
    truth = np.unique(np.array([str(group) for group in articles.groups]), return_inverse=True)[1]
    rng = np.random.default_rng(2)
    one, other = np.triu_indices(len(articles), 1)
    for name, differ in (
        ("we join, the winner parts", (found[one] == found[other]) & (truth[one] != truth[other])),
        ("we part, the winner joins", (found[one] != found[other]) & (truth[one] == truth[other])),
    ):
        places = np.flatnonzero(differ)
        print(f"\n{name}: {len(places)} pairs, some of them:\n")
        for place in rng.choice(places, min(SHOWN, len(places)), replace=False):
            print(f"- {articles.texts[one[place]][0]} | {articles.texts[other[place]][0]}")


def uci() -> None:
    """Headlines without texts; nothing was chosen on them."""
    with open(DATA / "news/uci-stories.csv", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    texts = Texts(
        [(row["TITLE"], "") for row in read],
        [row["HOSTNAME"] for row in read],
        [int(row["TIMESTAMP"]) for row in read],
        [row["STORY"] for row in read],
    )
    print(
        f"{len(texts)} headlines, {len(set(texts.groups))} stories, the largest of {max(Counter(texts.groups).values())}.\n"
    )
    agreement(documents_of(texts, one_source=False), texts.groups, np.arange(0.1, 0.45, 0.05))


def topics() -> None:
    """Groups of one day and the closest topic with two items or more; a topic can hold several stories."""
    read = [row for row in rows("free/wp-current-events/items.jsonl.gz") if row["topics"]]
    texts = Texts(
        [("", row["text"]) for row in read],
        [row["outlet"] or "" for row in read],
        [to_milliseconds(row["published"]) for row in read],
        [(row["published"], row["topics"][-1]) for row in read],
    )
    print(f"{len(texts)} items, {len(set(texts.groups))} groups. Items of one group are often different events.\n")
    agreement(documents_of(texts, one_source=False), texts.groups, np.arange(0.1, 0.45, 0.05))


def agreement(documents: Documents, groups: Sequence[Any], levels: NDArray[np.float64]) -> None:
    truth = np.unique(np.array([str(group) for group in groups]), return_inverse=True)[1]
    print("| threshold | stories | largest | pairs: precision | recall | F1 | B-cubed: precision | recall | F1 |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for level in sorted({*levels.round(2).tolist(), default()}):
        found = np.unique(labels(documents, similarity=level), return_inverse=True)[1]
        figures = " | ".join(f"{value:.3f}" for value in (*pair_scores(truth, found), *b_cubed(truth, found)))
        mark = " (default)" if level == default() else ""
        print(f"| {level:.2f}{mark} | {found.max() + 1} | {np.bincount(found).max()} | {figures} |", flush=True)


def pair_scores(truth: NDArray[np.int64], found: NDArray[np.int64]) -> tuple[float, float, float]:
    def pairs(names: NDArray[np.int64]) -> int:
        sizes = np.unique(names, return_counts=True)[1]
        return int((sizes * (sizes - 1) // 2).sum())

    both = pairs(truth * (found.max() + 1) + found)
    precision, recall = both / max(pairs(found), 1), both / max(pairs(truth), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def b_cubed(truth: NDArray[np.int64], found: NDArray[np.int64]) -> tuple[float, float, float]:
    """Bagga and Baldwin, "Entity-based cross-document coreferencing using the vector space model" (1998)."""
    _, place, sizes = np.unique(truth * (found.max() + 1) + found, return_inverse=True, return_counts=True)
    both = sizes[place]
    precision = float((both / np.bincount(found)[found]).mean())
    recall = float((both / np.bincount(truth)[truth]).mean())
    return precision, recall, 2 * precision * recall / (precision + recall)


def line(name: str, said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    rng = np.random.default_rng(3)
    draws = [rng.integers(len(truth), size=len(truth)) for _ in range(2000)]
    low, high = np.quantile([f1(said[draw], truth[draw]) for draw in draws], [0.025, 0.975])
    hits = (said & truth).sum()
    precision, recall = hits / max(said.sum(), 1), hits / truth.sum()
    accuracy = (said == truth).mean()
    print(
        f"| {name} | {precision:.3f} | {recall:.3f} | {f1(said, truth):.3f} ({low:.3f} … {high:.3f}) | {accuracy:.3f} |"
    )


def f1(said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (said & truth).sum() / max(said.sum() + truth.sum(), 1))


def same(names: NDArray[np.int64], rows_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(names[rows_of[:, 0]] == names[rows_of[:, 1]])


def default() -> float:
    return ClusteringParams().similarity


def labels(documents: Documents, **chosen: Any) -> NDArray[np.int64]:
    """For each document, in the order of the keys 0, 1, 2 …, the name of its story."""
    return labels_of(clustering.cluster(documents, msgspec.structs.replace(ClusteringParams(), **chosen)))


# Speed


def scale() -> None:
    """Each size in a process of its own, so that its peak of memory is its own."""
    print(
        f"{A_DAY} documents a day, of the silver articles with all but the commonest words exchanged. Vectors are ready.\n"
    )
    print("| documents | days | seconds | processor, µs a document | peak above the input, MB | stories | largest |")
    print("|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    most = largest(1_000_000)
    with TemporaryDirectory() as folder:
        documents = varied(most)
        for name in COLUMNS:
            np.save(Path(folder) / name, getattr(documents, name))
        del documents
        for count in (1_000, 10_000, 100_000, 1_000_000):
            if count <= most:
                command = [sys.executable, __file__, "--measure", folder, str(count)]
                print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="", flush=True)


def measure(folder: Path, count: int) -> None:
    columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r")[:count] for name in COLUMNS}
    documents = Documents(**{name: np.array(column) for name, column in columns.items()})
    clustering.cluster(chosen(documents, np.arange(300)), ClusteringParams())
    before, start, wall = peak(), time.process_time(), time.perf_counter()
    stories = clustering.cluster(documents, ClusteringParams())
    took, passed, memory = time.process_time() - start, time.perf_counter() - wall, peak() - before
    sizes = np.unique(stories.labels, return_counts=True)[1]
    print(
        f"| {count:,} | {count / A_DAY:.2f} | {passed:.2f} | {took / count * 1e6:.0f} | {memory / 1e6:.0f} "
        f"| {len(sizes):,} | {sizes.max():,} |"
    )


def arrival() -> None:
    """Milliseconds of processor time for one document more: the newest, one after the other, and any of the last days."""
    print("| documents | what comes | median ms | 90th percentile | 99th percentile |\n|--:|---|--:|--:|--:|")
    for count in [size for size in (10_000, 100_000, 1_000_000) if size <= largest(100_000)]:
        documents = varied(count + 200)
        order = np.argsort(documents.times, kind="stable")
        late = np.random.default_rng(7).choice(order[-min(count, A_DAY) :], 200, replace=False)
        for name, rows_of in (("the newest", order[count:]), ("any of the last day", late)):
            stories = clustering.cluster(chosen(documents, np.setdiff1d(order, rows_of)), ClusteringParams())
            took = []
            for row in rows_of:
                start = time.process_time()
                stories = clustering.joined(stories, chosen(documents, np.array([row])))
                took.append((time.process_time() - start) * 1000)
            median, most, worst = np.quantile(took, [0.5, 0.9, 0.99])
            print(f"| {count:,} | {name} | {median:.1f} | {most:.1f} | {worst:.1f} |", flush=True)
            together = clustering.cluster(documents, ClusteringParams())
            assert (labels_of(stories) == labels_of(together)).all(), "one after the other as all at one time"


def labels_of(stories: clustering.Stories) -> NDArray[np.int64]:
    """By the keys 0, 1, 2 …"""
    return stories.labels[np.argsort(stories.documents.keys)]


def largest(default: int) -> int:
    return int(sys.argv[sys.argv.index("--largest") + 1]) if "--largest" in sys.argv else default


def varied(count: int) -> Documents:
    """Real articles again and again; each time all but the commonest words are others, so that the events are too."""
    texts = [*silver_texts("ru").texts, *silver_texts("en").texts]
    rng, parts, keywords = np.random.default_rng(4), [], []
    weights = embedding._weights()
    rare = np.flatnonzero(weights > 2.5)  # that fewer than 8 of 100 texts have
    articles = [embedding.words(texts[start : start + 256], embedding.LEAD) for start in range(0, len(texts), 256)]
    for _ in range(0, count, len(texts)):
        others = np.arange(embedding.BUCKETS)
        others[rare] = rng.permutation(rare)
        for part in articles:
            exchanged = part._replace(buckets=others[part.buckets])
            parts.append(embedding._projected(exchanged, weights))
            keywords.append(embedding._keywords(exchanged, weights))
    vectors = np.concatenate(parts)[:count]
    round_of = np.arange(count) // len(texts)
    a_round = len(texts) / A_DAY * DAY
    times = (round_of * a_round + np.random.default_rng(5).random(count) * a_round).astype(np.int64)
    sources = np.random.default_rng(6).integers(1_000, size=count)
    return Documents(np.arange(count), vectors, sources, times, np.concatenate(keywords)[:count])


def chosen(documents: Documents, rows_of: NDArray[np.int64]) -> Documents:
    return Documents(**{name: getattr(documents, name)[rows_of] for name in COLUMNS})


def peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Data


def documents_of(texts: Texts, *, one_source: bool = True) -> Documents:
    """`one_source` False: every document is of a source of its own, where sources aren't what wrote the text."""
    names = np.unique(np.array(texts.sources), return_inverse=True)[1]
    leads = embedding.leads(texts.texts)
    return Documents(
        np.arange(len(texts)),
        leads.vectors,
        names.astype(np.int64) if one_source else np.arange(len(texts)),
        np.array(texts.times, np.int64),
        leads.keywords,
    )


def silver_texts(language: str) -> Texts:
    """Each article once; those of 2–3 May without a year are of 2020."""
    found: dict[str, tuple[Any, ...]] = {}
    for number, thread in enumerate(rows(f"news/silver/winner_threads_{language}.jsonl.gz")):
        for article in thread["articles"]:
            when = datetime.strptime(f"2020 {article['date']}", "%Y %d %b %H:%M").replace(tzinfo=UTC)
            text = (article["title"], article["text"])
            found.setdefault(article["url"], (text, host(article["url"]), int(when.timestamp() * 1000), number))
    return Texts(*(list(column) for column in zip(*found.values(), strict=True)))


def rows(name: str) -> list[Any]:
    content = (DATA / name).read_bytes()
    text = gzip.decompress(content) if name.endswith(".gz") else content
    return [json.loads(row) for row in text.decode().splitlines()]


def host(url: str) -> str:
    return url.split("/")[2].lower().removeprefix("www.")


def to_milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def arguments() -> Iterator[str]:
    values = iter(sys.argv[1:])
    for value in values:
        if value == "--largest":
            next(values)
        else:
            yield value


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(Path(sys.argv[-2]), int(sys.argv[-1]))
    else:
        main(list(arguments()))
