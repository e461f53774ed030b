"""Processor time of one call for a feed, and of refreshing what serving knows, over pools of several sizes.

The catalog is read from SQLite; the times of a call leave out the writing of what was shown. Run:
python benchmarks/bench_feed.py [--items 1000 --items 100000 …] [--calls 100] [--model fm|ials|itemknn]

With --rate it asks a service of its own over HTTP, so many times a second whether it keeps up or not (an open loop), for 200
people of lopsided histories, each of whom comes back for the next page; a time counts from when the request was due. --data keeps what was filled in for the next run:
python benchmarks/bench_feed.py --items 1000000 --rate 50 [--workers 1] [--seconds 20] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import dataclasses
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as in a process that serves: threads that wait for each other cost more

import msgspec
import numpy as np
import psutil
import sqlalchemy as sa
from bench_soak import Connections, request

from palate import activity, database, events, feature_log, feed, light_learning, rankers, snapshots
from palate.candidates.candidate_params import CandidateParams
from palate.database import connect, migrate, reading, writing
from palate.domain import Event, FeedRequest, to_milliseconds
from palate.feed_params import FeedParams
from palate.heavy_learning import UPRIGHT, Heavy, Ranker
from palate.light_learning import LightParams, Taught
from palate.live import Live
from palate.matrix import Sparse
from palate.models import content, content_scores, indexing, registry, stored, text_values, trees
from palate.models.calibration import Calibration
from palate.models.content import ContentParams
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.models.nearest import IndexParams
from palate.models.neighbours import Neighbours
from palate.models.trees import TreeParams
from palate.rankers import LIGHT_COLUMNS
from palate.text import embedding
from palate.vocabulary import Vocabulary

NOW = datetime(2024, 11, 22, 12, tzinfo=UTC)
FACTORS, SOURCES, LABELS, VOTES, PEOPLE = 13, 300, 2000, 200, 200
UNLEARNED = 0.25
"""Share of the items that nobody has taken to: a model that ranks scores them by their content."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, action="append")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--model", choices=("fm", "ials", "itemknn"), default="fm", help="which serves")
    parser.add_argument("--profile", action="store_true", help="show where the time of the calls goes")
    parser.add_argument("--recall", action="store_true", help="compare candidates with looking at everything")
    parser.add_argument("--pages", type=int, default=1, help="of 20 items that each person sees, with --recall")
    parser.add_argument("--probes", type=int, default=CandidateParams().probes, help="lists looked into, with --recall")
    parser.add_argument("--rate", type=float, help="requests a second over HTTP, in an open loop")
    parser.add_argument(
        "--anew", action="store_true", help="no page is of candidates that were found for the one before"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--data", type=Path, help="a folder for what is filled in")
    asked = parser.parse_args()
    if asked.recall:
        with tempfile.TemporaryDirectory() as folder:
            return recall(asked.data or Path(folder), asked)
    if asked.rate:
        with tempfile.TemporaryDirectory() as folder:
            return open_loop(asked.data or Path(folder), asked)
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
    live = Live(engine, data, model=model, ranking=True)
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


# --- an open loop over HTTP -----------------------------------------------------------------------------------------------

PORT = 18_080


def open_loop(data: Path, asked: argparse.Namespace) -> None:
    items = (asked.items or [1_000_000])[0]
    if not (data / "snapshots").exists():
        populate(data, items, asked.model)
    command = [
        sys.executable,
        "-m",
        "palate",
        "api",
        "--data",
        str(data),
        "--port",
        str(PORT),
        "--workers",
        str(asked.workers),
    ]
    environment = os.environ | {"PALATE_SERVER__ACCESS_LOG": "false", "PALATE_FEED__MODEL": asked.model}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as service:
        try:
            begun = time.perf_counter()
            asyncio.run(ready())
            print(f"ready after {time.perf_counter() - begun:.1f} s")
            asyncio.run(load(20, 5.0, "warm"))
            before = used(service.pid)[0]
            taken, failed = asyncio.run(load(asked.rate, asked.seconds, "load", asked.anew))
            cpu, peak = used(service.pid)
            p50, p90, p99 = np.percentile(taken, (50, 90, 99))
            print(
                f"{items} items, {asked.workers} workers, {asked.rate:.0f}/s: p50 {p50:.1f} p90 {p90:.1f} p99 {p99:.1f} ms of {len(taken)}, "
                f"{failed} failed; {1000 * (cpu - before) / max(len(taken), 1):.1f} ms of CPU a request; peak memory {peak / 2**30:.2f} GiB"
            )
            print(f"a posted item is found after {1000 * asyncio.run(until_found()):.0f} ms")
        finally:
            service.terminate()


def populate(data: Path, items: int, model: str) -> None:
    now, rng, engine = datetime.now(UTC), np.random.default_rng(1), connect(None, data)
    migrate(engine)
    fill(engine, 1, items, rng, now)
    publish(data, items, rng, model)
    sizes = np.minimum(rng.pareto(0.8, PEOPLE) * 4, 200).astype(int)
    with writing(engine) as connection:
        for person, size in enumerate(sizes):
            liked = rng.integers(1, items + 1, size).tolist()
            told = [
                Event(user=f"p{person}", item=f"item {key}", type="like" if rng.random() < 0.7 else "dislike")
                for key in liked
            ]
            events.append(connection, told, now)
    print(
        "votes of a person:", dict(zip(("p10", "p50", "p90"), np.percentile(sizes, (10, 50, 90)).tolist(), strict=True))
    )
    engine.dispose()


def recall(data: Path, asked: argparse.Namespace) -> None:
    """Share of the 20 items that looking at everything puts first that candidates hold, and of the worth of those served, page by
    page: what is served is logged, so that each page but the first is of candidates that were found before."""
    items = (asked.items or [100_000])[0]
    if not (data / "snapshots").exists():
        populate(data, items, asked.model)
    engine, now = connect(None, data), datetime.now(UTC)
    live = Live(engine, data, model=asked.model)
    live.refresh(now)
    assert live.pool.model.index is not None, "There is an index."
    plain = FeedParams(
        exploration=0,
        questions=0,
        source_spread=0,
        label_spread=0,
        category_spread=0,
        model=asked.model,
        ranker="score",
    )
    plain = msgspec.structs.replace(plain, find=CandidateParams(probes=asked.probes))
    every = msgspec.structs.replace(plain, find=CandidateParams(exact=10**9))

    def write(happened: Sequence[Event]) -> None:
        with writing(engine) as connection:
            events.append(connection, happened, now)

    for page in range(asked.pages):
        shares, worth = [], []
        for person in range(60):
            request = FeedRequest(user=f"p{person}", limit=20, now=now + timedelta(seconds=5 * page), log=False)
            best = feed.serve(live, request, every, np.random.default_rng(1), write)
            logged = dataclasses.replace(request, log=asked.pages > 1)
            near = feed.serve(live, logged, plain, np.random.default_rng(1), write)
            keys = {place.key for place in best.items}
            shares.append(len(keys & {place.key for place in near.items}) / len(keys))
            worth.append(sum(place.score for place in near.items) / sum(place.score for place in best.items))
        print(
            f"page {page + 1}, {items} items, {asked.model}, {asked.probes} lists: {np.mean(shares):.3f} of the exact 20 served (least {min(shares):.2f}), their probabilities {np.mean(worth):.4f} of the exact ones (least {min(worth):.3f})"
        )


async def ask(line: str, body: bytes = b"") -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(
        f"{line} HTTP/1.1\r\nHost: localhost:{PORT}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    answer = await reader.read()
    writer.close()
    return int(answer[9:12]), answer.partition(b"\r\n\r\n")[2]


async def ready() -> None:
    while True:
        try:
            if (await ask("GET /readyz"))[0] == 200:
                return
        except OSError:
            pass
        await asyncio.sleep(0.2)


async def load(rate: float, seconds: float, name: str, anew: bool = False) -> tuple[list[float], int]:
    """Milliseconds from when each request was due to the end of its answer, and how many failed.

    `anew`: each names an item that it doesn't want, and gets none of the candidates that are at hand.
    """
    taken: list[float] = []
    failed, open_ones = 0, Connections(PORT)
    rng = np.random.default_rng(2)
    begun = time.perf_counter()

    async def one(due: float, person: int, number: int) -> None:
        nonlocal failed
        but = f"&exclude=item%20{number + 1}" if anew else ""
        status, body = await open_ones.ask(request("GET", f"/v1/feed?user=p{person}&limit=20&surface={name}{but}"))
        taken.append(1000 * (time.perf_counter() - due))
        failed += status != 200 or body.count(b'"position"') != 20

    running = []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        running.append(asyncio.create_task(one(due, int(rng.integers(PEOPLE)), number)))
    await asyncio.gather(*running)
    return taken, failed


async def until_found() -> float:
    """Seconds from the post of an item until it is among what somebody gets whom it fits."""
    body = b'{"id": "the news", "title": "News", "text": "All that is new", "labels": ["label 0"], "kind": "post"}'
    vote = b'[{"user": "keen", "item": "item 1", "type": "like"}]'
    await ask("POST /v1/events", vote)
    begun = time.perf_counter()
    status, _ = await ask("POST /v1/items", body)
    assert status == 200, "The item is accepted."
    while time.perf_counter() - begun < 30:
        _, answer = await ask("GET /v1/feed?user=keen&limit=200&log=false")
        if b'"the news"' in answer:
            return time.perf_counter() - begun
    return float("nan")


def used(pid: int) -> tuple[float, float]:
    """Seconds of CPU, and the greatest memory, of a service with all its processes."""
    every = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    times = [process.cpu_times() for process in every]
    told = [line for process in every for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()]
    peak = sum(int(line.split()[1]) * 1024 for line in told if line.startswith("VmHWM"))
    return sum(one.user + one.system for one in times), peak


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
        "users": np.arange(1, PEOPLE + 1, dtype=np.int64),
        "user_vectors": vectors(PEOPLE),
        "user_bias": np.zeros(PEOPLE, np.float32),
        "sources": np.arange(1, SOURCES + 1, dtype=np.int64),
        "source_vectors": vectors(SOURCES),
        "source_bias": np.zeros(SOURCES, np.float32),
        "history_offsets": np.append(0, np.full(PEOPLE, 500)).astype(np.int64),
        "history_items": rng.permutation(items)[:500].astype(np.int32),
        "history_labels": np.where(rng.random(500) < 0.3, 1, np.nan).astype(np.float16),
    }
    models: dict[str, object] = {
        "fm": {"loss": "squared", "base": 0.5, "factors": FACTORS},
        "popularity": {"mean": 0.5, "strength": 4.0},
    }
    made: object = None
    if model != "fm":
        made = ranker(model, items, rng)
        arrays |= stored.arrays(model, made) | by_content(items, rng)
        arrays["item_positives"] = (rng.random(items) >= UNLEARNED).astype(np.int32)
        arrays["history_weights"] = np.where(np.isnan(arrays["history_labels"]), 0, 2).astype(np.float16)
        models[model] = registry.entry(model).header(made) | {"calibration": [1.0, 0.0]}
    begun = time.perf_counter()
    arrays |= indexing.arrays(
        {name: made if name == model else None for name in models if name != "popularity"}, arrays, IndexParams()
    )
    arrays |= of_rankers(arrays, rng)
    print(
        f"index built in {time.perf_counter() - begun:.1f} s",
        {name: f"{array.nbytes / 1e6:.0f} MB" for name, array in arrays.items() if name.startswith("index_")},
    )
    header = {
        "created": to_milliseconds(NOW),
        "seq": 0,
        "rule": "votes",
        "rating_range": None,
        "models": models,
        "quality": {},
        "activity_time": to_milliseconds(NOW),
        "rankers": {
            "served": True,
            "scheme": feature_log.SCHEME,
            "without": [],
            "keep": LightParams().keep,
            "share": LightParams().share,
        },
    }
    snapshots.publish(data / "snapshots", header, arrays)


def of_rankers(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Rankers of the default size that know nothing, and what they are told of items: texts, and counts of a part of them.

    The trees of both are fitted to noise with a slope in the plain score.
    """
    items, people = len(arrays["items"]), len(arrays["users"])
    table = rng.standard_normal((20_000, len(feature_log.NAMES))).astype(np.float32)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(1 - 2 * table[:, feature_log.SCORE]))).astype(np.float32)
    model = trees.fit(table, labels, np.ones(20_000, np.float32), TreeParams(), 1)
    heavy = Heavy(Ranker(model, UPRIGHT), Calibration(np.array([-4.0, 4.0]), np.array([0.02, 0.98])), {})
    columns = rng.standard_normal((len(LIGHT_COLUMNS), 3_000)).astype(np.float32)
    light = light_learning.learn([Taught(columns, 2 * columns[0] + rng.standard_normal(3_000))])
    texts = rng.standard_normal((items, text_values.DIRECTIONS)).astype(np.float32)
    kinds = (len(activity.KINDS), len(activity.HALF_LIVES))
    counted = np.sort(rng.permutation(items)[: items // 3])
    return rankers.to_arrays(heavy, light) | {
        "text_values": (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float16),
        "text_directions": np.zeros((embedding.LENGTH, text_values.DIRECTIONS), np.float32),
        "activity_item_keys": arrays["items"][counted],
        "activity_items": rng.exponential(2, (len(counted), *kinds)).astype(np.float32),
        "activity_users": rng.exponential(5, (people, *kinds)).astype(np.float32),
    }


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
