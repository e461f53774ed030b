"""Processor time of one call for a feed, and of refreshing what serving knows, over pools of several sizes.

The catalog is read from SQLite; the times of a call leave out the writing of what was shown. Run:
python benchmarks/bench_feed.py [--items 1000 --items 100000 …] [--calls 100] [--model fm|ials|itemknn]
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as in a process that serves: threads that wait for each other cost more

import numpy as np
import sqlalchemy as sa

from palate import database, events, feed, snapshots
from palate.database import connect, migrate, reading, writing
from palate.domain import Event, FeedRequest, to_milliseconds
from palate.feed_params import FeedParams
from palate.live import Live
from palate.matrix import Sparse
from palate.models import content, content_scores, registry, stored
from palate.models.content import ContentParams
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.models.neighbours import Neighbours
from palate.text import embedding
from palate.vocabulary import Vocabulary

NOW = datetime(2024, 11, 22, 12, tzinfo=UTC)
FACTORS, SOURCES, LABELS, VOTES = 13, 300, 2000, 200
UNLEARNED = 0.25
"""Share of the items that nobody has taken to: a model that ranks scores them by their content."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, action="append")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--model", choices=("fm", "ials", "itemknn"), default="fm", help="which serves")
    parser.add_argument("--profile", action="store_true", help="show where the time of the calls goes")
    asked = parser.parse_args()
    print(
        f"{'items':>9} {'bytes/item':>10} {'full ms':>8} {'10 new ms':>9} {'idle ms':>8}   call ms p50/p99: new, {VOTES} votes; model 1 vote"
    )
    for items in asked.items or (1_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), items, asked.calls, asked.profile, asked.model)


def measure(data: Path, items: int, calls: int, profile: bool, model: str) -> None:
    rng = np.random.default_rng(1)
    engine = connect(None, data)
    migrate(engine)
    fill(engine, 1, items, rng, NOW)
    publish(data, items, rng, model)
    vote(engine, items, rng)
    live = Live(engine, data, model=model)
    full = timed(lambda: live.refresh(NOW))
    fill(engine, items + 1, 10, rng, NOW + timedelta(seconds=1))
    few = timed(lambda: live.refresh(NOW + timedelta(seconds=1)))
    assert live.pool.keys[-1] == items + 10, "The new items are in the pool."
    assert live.pool.model.name == model, "The model asked for is what is measured."
    idle = np.median([timed(lambda: live.refresh(NOW + timedelta(seconds=2))) for _ in range(20)])
    users = ("nobody", "reader", "beginner")
    parts = [percentiles(live, user, calls) for user in users]
    size = live.pool.nbytes / len(live.pool)
    print(
        f"{items:>9} {size:>10.0f} {full:>8.0f} {few:>9.1f} {idle:>8.2f}   "
        + ", ".join(f"{p50:.2f}/{p99:.2f}" for p50, p99 in parts)
    )
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(percentiles, live, "reader", calls)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(18)
    engine.dispose()


def timed(function: object) -> float:
    begun = time.process_time()
    function()  # type: ignore[operator]
    return 1000 * (time.process_time() - begun)


def percentiles(live: Live, user: str, calls: int) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    taken = []
    for _ in range(calls):
        request = FeedRequest(user=user, limit=20, now=NOW + timedelta(seconds=1))
        begun = time.process_time()
        served = feed.serve(live, request, FeedParams(), rng, lambda _: None)
        taken.append(1000 * (time.process_time() - begun))
        assert len(served.items) == 20, "A full page is what is measured."
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99))


def fill(engine: sa.Engine, first: int, count: int, rng: np.random.Generator, now: datetime) -> None:
    time, ages = to_milliseconds(now), rng.integers(0, 7 * 86_400_000 - 10_000, count).tolist()
    sources, labels = (
        rng.integers(1, SOURCES + 1, count).tolist(),
        (LABELS * rng.random((count, 3)) ** 3).astype(int).tolist(),
    )
    rows = [
        {
            "key": key,
            "id": f"item {key}",
            "state": "live",
            "source": sources[key - first],
            "title": f"Title of item {key}",
            "text": "Some text. " * 20,
            "published": time - ages[key - first],
            "received": time - ages[key - first],
            "updated": time - (ages[key - first] // 100 if count > 10 else 0),
            "language": "en",
            "kind": "post",
            "media": [],
            "labels": [f"label {label}" for label in labels[key - first]],
        }
        for key in range(first, first + count)
    ]
    with writing(engine) as connection:
        connection.execute(sa.insert(database.items), rows)


def publish(data: Path, items: int, rng: np.random.Generator, model: str) -> None:
    def vectors(n: int) -> np.ndarray:
        return rng.normal(0, 0.2, (n, FACTORS)).astype(np.float16)

    arrays = {
        "items": np.arange(1, items + 1, dtype=np.int64),
        "item_vectors": vectors(items),
        "item_bias": rng.normal(0, 0.1, items).astype(np.float32),
        "popularity": rng.beta(5, 5, items).astype(np.float32),
        "popularity_evidence": rng.exponential(8, items).astype(np.float32),
        "users": np.array([1], np.int64),
        "user_vectors": vectors(1),
        "user_bias": np.zeros(1, np.float32),
        "sources": np.arange(1, SOURCES + 1, dtype=np.int64),
        "source_vectors": vectors(SOURCES),
        "source_bias": np.zeros(SOURCES, np.float32),
        "history_offsets": np.array([0, 500], np.int64),
        "history_items": rng.permutation(items)[:500].astype(np.int32),
        "history_labels": np.where(rng.random(500) < 0.3, 1, np.nan).astype(np.float16),
    }
    models: dict[str, object] = {
        "fm": {"loss": "squared", "base": 0.5, "factors": FACTORS},
        "popularity": {"mean": 0.5, "strength": 4.0},
    }
    if model != "fm":
        made = ranker(model, items, rng)
        arrays |= stored.arrays(model, made) | by_content(items, rng)
        arrays["item_positives"] = (rng.random(items) >= UNLEARNED).astype(np.int32)
        arrays["history_weights"] = np.where(np.isnan(arrays["history_labels"]), 0, 2).astype(np.float16)
        models[model] = registry.entry(model).header(made) | {"calibration": [1.0, 0.0]}
    header = {
        "created": to_milliseconds(NOW),
        "seq": 0,
        "rule": "votes",
        "rating_range": None,
        "models": models,
        "quality": {},
    }
    snapshots.publish(data / "snapshots", header, arrays)


def by_content(items: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Numbers by chance for what places items that the model has learned nothing of, as many as after training."""
    known = min(items, content_scores.KNOWN)
    width = ContentParams().directions
    text = rng.normal(0, 0.06, (embedding.LENGTH, width)).astype(np.float32)
    none = content.Weights(Vocabulary(np.zeros(0, np.int64)), np.zeros((0, width), np.float32))
    basis = content.ContentMap(np.zeros(width, np.float32), text, dict.fromkeys(content.FEATURES, none))
    return content.to_arrays(basis, content_scores.PREFIX) | {
        "scores_rows": np.sort(rng.permutation(items)[:known]).astype(np.int32),
        "scores_weights": (rng.normal(size=(width + 1, known)) / known).astype(np.float32),
        "scores_values": rng.normal(0, 0.2, (items, width)).astype(np.float16),
    }


def ranker(name: str, items: int, rng: np.random.Generator) -> object:
    """A model of numbers by chance, as large as a learned one: 64 factors, or 100 neighbours of each item."""
    keys, nobody = Vocabulary(np.arange(1, items + 1)), Vocabulary(np.ones(1, np.int64))
    if name == "ials":
        vectors = rng.normal(0, 0.1, (items, 64)).astype(np.float32)
        one, many = np.ones(1, np.int32), np.ones(items, np.int32)
        return ImplicitALS(
            ImplicitALSParams(unobserved_weight=0.3), nobody, vectors[:1], one, keys, vectors, many, vectors.T @ vectors
        )
    columns = rng.integers(items, size=100 * items).astype(np.int32)
    values = rng.random(len(columns), np.float32)
    weights = Sparse(np.arange(0, len(columns) + 1, 100), columns, values, items)
    return Neighbours(weights, rng.random(items, np.float32), 1.0, 1e-3)


def vote(engine: sa.Engine, items: int, rng: np.random.Generator) -> None:
    chosen = (rng.permutation(items)[:VOTES] + 1).tolist()
    types = np.where(rng.random(VOTES) < 0.6, "like", "dislike").tolist()
    made = [Event(user="reader", item=f"item {key}", type=type) for key, type in zip(chosen, types, strict=True)]
    with writing(engine) as connection:
        events.append(connection, made, NOW)
        events.append(connection, [Event(user="beginner", item="item 7", type="like")], NOW)
    with reading(engine) as connection:
        assert events.last_seq(connection) == VOTES + 1, "All votes are in the log."


if __name__ == "__main__":
    main()
