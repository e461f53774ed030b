"""Candidates by text and items like one among very many: their time, and how much of the exact answer they find.

Texts are about topics, some of them far more frequent, and differ as much in their first directions as articles do; what people did
goes by groups of items. Catalog and snapshot hold both, as after training. Run:
python benchmarks/bench_similar.py [--items 1000000] [--calls 100] [--data FOLDER]

With --texts FOLDER (articles in HTML) it says instead how many of the nearest by whole vectors are near in a few directions.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as in a process that serves

import numpy as np
import sqlalchemy as sa
from bench_feed import fill

from palate import database, snapshots
from palate.candidates import by_text, openness, personal, similar
from palate.candidates.candidate_params import CandidateParams
from palate.candidates.wanted import Wanted
from palate.database import connect, migrate, reading, writing
from palate.domain import to_milliseconds
from palate.live import History, Live, Person
from palate.models import indexing, text_values
from palate.models.nearest import IndexParams
from palate.sources import article_files
from palate.text import embedding

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FACTORS, TOPICS, GROUPS, YOUNG = 13, 3_000, 500, 3_000
FADING = 0.35
"""Power by which the directions of texts fade: 32 of 256 then have about the share that they have in news."""
FOREVER = timedelta(days=36_500)
BLOCK = 50_000
COMPARED = 15
"""Calls whose answer is compared with the exact one, which takes long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--data", type=Path, help="a folder for what is filled in")
    parser.add_argument("--texts", type=Path, help="a folder of articles")
    asked = parser.parse_args()
    if asked.texts:
        return directions(asked.texts)
    with tempfile.TemporaryDirectory() as folder:
        measure(asked.data or Path(folder), asked.items, asked.calls)


def directions(folder: Path) -> None:
    pages = [article_files.open_page(source)[1] for source in article_files.sources(str(folder))]
    texts = embedding.embed((page.title or "", page.text) for page in pages)
    exact = texts.astype(np.float32) @ texts.T.astype(np.float32)
    np.fill_diagonal(exact, -1)
    best = np.argsort(-exact, axis=1)[:, :20]
    every = text_values.fit(texts)
    for width in (text_values.DIRECTIONS, text_values.INDEXED):
        values = text_values.values(every[:, :width], texts).astype(np.float32)
        near = values @ values.T
        np.fill_diagonal(near, -1)
        near = np.argsort(-near, axis=1)[:, :100]
        shares = [len(np.intersect1d(one, other)) / 20 for one, other in zip(best, near, strict=True)]
        print(f"{len(texts)} articles: of the nearest 20 {np.mean(shares):.3f} are among 100 in {width} directions")


def measure(data: Path, items: int, calls: int) -> None:
    if not (data / "snapshots").exists():
        populate(data, items)
    live = Live(connect(None, data), data)
    live.refresh(NOW)
    stock = live.state.stock
    print(f"{len(stock)} items, {len(stock.spaces.young)} of them younger than the snapshot")
    rng = np.random.default_rng(5)
    of_persons(live, rng, calls)
    of_items(live, rng.integers(1, items + 1, calls), "known")
    of_items(live, rng.integers(items + 1, items + YOUNG + 1, calls), "young")


def of_persons(live: Live, rng: np.random.Generator, calls: int) -> None:
    """People who took to 30 items of three topics."""
    stock, limit, nobody = live.state.stock, CandidateParams().text, Wanted(Person(), NOW, timedelta(days=14))
    spaces, allowed, taken, shares = stock.spaces, openness.find(stock, nobody, unseen=True), [], []
    whole = np.asarray(np.load(live.events_folder.parent / "texts.npy", "r"))
    topics = np.load(live.events_folder.parent / "topics.npy")
    for _ in range(calls):
        liked = np.concatenate(
            [rng.choice(np.flatnonzero(topics == topic), 10) for topic in rng.choice(topics, 3, replace=False)]
        )
        history = History(rng.permutation(liked) + 1, np.ones(30, np.float32), np.zeros(30, np.float32))
        begun = time.process_time()
        found = by_text.find(stock, history, allowed, limit, lambda rows: np.ones(len(rows), np.float32))
        taken.append(1000 * (time.process_time() - begun))
        texts = whole[history.items[-by_text.LATELY :] - 1].astype(np.float32)
        middle = texts.mean(axis=0)
        for text in (middle, *texts[-by_text.LAST :]) if len(taken) <= COMPARED else ():
            near = personal.find(whole[: len(topics)] @ text, np.arange(len(topics)), 20)
            shares.append(np.isin(near + 1, stock.keys(found)).mean())
    print(
        f"by text: {np.median(taken):.2f} ms of CPU (p99 {np.percentile(taken, 99):.2f}); of the exact 20 of a text {np.mean(shares):.3f}, young: {len(spaces.young)}"
    )


def of_items(live: Live, keys: np.ndarray, name: str) -> None:
    taken, shares = [], []
    wanted = Wanted(Person(), NOW, FOREVER)
    with reading(live.engine) as connection:
        for key in keys.tolist():
            begun, clock = time.process_time(), time.perf_counter()
            found = similar.find(connection, live, key, wanted, 20)
            taken.append((1000 * (time.process_time() - begun), 1000 * (time.perf_counter() - clock)))
            if len(shares) < COMPARED:
                best = exact(live, key, wanted)
                shares.append(len(np.intersect1d(found.keys, best)) / len(best))
    cpu, wall = np.array(taken).T
    print(
        f"like one, {name}: {np.median(cpu):.1f} ms of CPU (p99 {np.percentile(cpu, 99):.1f}), p50 {np.median(wall):.1f} ms; {np.mean(shares):.3f} of the exact 20"
    )


def exact(live: Live, key: int, wanted: Wanted) -> np.ndarray:
    """Keys of the 20 items most like one when all are compared."""
    whole = np.load(live.events_folder.parent / "texts.npy", "r")
    keys = np.arange(1, len(whole) + 1)
    behaviour, support = similar._behaviour(live.state.snapshot, key, keys)
    text = np.concatenate([whole[start : start + BLOCK] @ whole[key - 1] for start in range(0, len(whole), BLOCK)])
    scores = similar.blended(behaviour, text.astype(np.float32), support)
    scores[key - 1] = -1
    return keys[np.argsort(-scores)[:20]]


def populate(data: Path, items: int) -> None:
    rng, engine = np.random.default_rng(1), connect(None, data)
    migrate(engine)
    fill(engine, 1, items + YOUNG, rng, NOW)
    topics = np.minimum(rng.pareto(0.7, items + YOUNG) * 5, TOPICS - 1).astype(int)
    texts = written(topics, rng)
    np.save(data / "texts.npy", texts)
    np.save(data / "topics.npy", topics[:items])
    with writing(engine) as connection:
        for start in range(0, len(texts), BLOCK):
            part = texts[start : start + BLOCK]
            rows = [
                {"item": start + place + 1, "version": embedding.VERSION, "vector": text.tobytes()}
                for place, text in enumerate(part)
            ]
            connection.execute(sa.insert(database.item_vectors), rows)
    publish(data, items, texts[:items], rng)
    engine.dispose()


def written(topics: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, LENGTH) of length 1."""
    spread = (np.arange(embedding.LENGTH) + 1.0) ** -FADING
    turn = np.linalg.qr(rng.normal(size=(embedding.LENGTH, embedding.LENGTH)))[0] * spread[:, np.newaxis]
    middles = rng.normal(size=(TOPICS, embedding.LENGTH))
    parts = []
    for start in range(0, len(topics), BLOCK):
        own = topics[start : start + BLOCK]
        part = (middles[own] + rng.normal(size=(len(own), embedding.LENGTH))) @ turn
        parts.append((part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float16))
    return np.concatenate(parts)


def publish(data: Path, items: int, texts: np.ndarray, rng: np.random.Generator) -> None:
    middles, groups = rng.normal(0, 0.2, (GROUPS, FACTORS)), rng.integers(GROUPS, size=items)
    arrays = {
        "items": np.arange(1, items + 1, dtype=np.int64),
        "item_vectors": (middles[groups] + rng.normal(0, 0.15, (items, FACTORS))).astype(np.float16),
        "item_bias": rng.normal(0, 0.1, items).astype(np.float32),
        "popularity": rng.beta(5, 5, items).astype(np.float32),
        "popularity_evidence": rng.exponential(8, items).astype(np.float32),
        "users": np.arange(1, 1_001, dtype=np.int64),
        "user_vectors": rng.normal(0, 0.2, (1_000, FACTORS)).astype(np.float16),
        "user_bias": np.zeros(1_000, np.float32),
        "sources": np.zeros(0, np.int64),
        "source_vectors": np.zeros((0, FACTORS), np.float16),
        "source_bias": np.zeros(0, np.float32),
        "history_offsets": np.zeros(1_001, np.int64),
        "history_items": np.zeros(0, np.int32),
        "history_labels": np.zeros(0, np.float16),
    }
    arrays |= text_values.to_arrays(texts)
    for name, models, own in (("behaviour", {"fm": None}, None), ("texts", {}, texts)):
        seconds, made = timed(lambda: indexing.arrays(models, arrays, IndexParams(), own))  # noqa: B023
        arrays |= made
        print(f"index of {name} in {seconds:.1f} s, {sum(array.nbytes for array in made.values()) / 1e6:.0f} MB")
    models = {
        "fm": {"loss": "squared", "base": 0.5, "factors": FACTORS},
        "popularity": {"mean": 0.5, "strength": 4.0},
    }
    header = {"created": to_milliseconds(NOW), "seq": 0, "rule": "votes", "rating_range": None, "models": models}
    snapshots.publish(data / "snapshots", header | {"quality": {}}, arrays)


def timed(function: Callable[[], dict[str, np.ndarray]]) -> tuple[float, dict[str, np.ndarray]]:
    begun = time.process_time()
    found = function()
    return time.process_time() - begun, found


if __name__ == "__main__":
    main()
