"""What the cascade loses against asking the heavy ranker of everything: lists for simulated readers, judged by what they truly like.

    python benchmarks/bench_cascade.py [--days 2] [--readers 100] [--items-per-hour 100] [--keep 200] [--exact 500]

A simulated installation serves and learns for some days, with more items than are looked at one by one (`--exact`). Then rankers are
learned from all that was logged, whether or not they would be served, and each reader is asked for 20 items in several ways from one and
the same state: candidates → light → heavy with `--keep` let through, the heavy ranker on all that may be served, the two halves of the
cascade one at a time, the plain score, and the same trees without their leaning on it. A list's gain is the true chance that its reader
likes each item (nDCG@20; the best is what all that is out would give, whatever the reader met), so that no served log has a say. Also
told: how much of the 20 of the heavy ranker on everything is in each list. 95 % by drawing readers. The world's numbers are those of
`palate simulate`; none was chosen by these figures.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np

from palate import database, feed, heavy_learning, impressions, metrics, ranker_training, rankers, train
from palate.database import reading
from palate.domain import FeedRequest, to_milliseconds
from palate.evaluation import closed_loop, world
from palate.evaluation.closed_loop import Policy
from palate.feed_params import FeedParams
from palate.heavy_learning import UPRIGHT, HeavyParams
from palate.light_learning import LightParams
from palate.live import Live
from palate.ranker_training import RankerTraining
from palate.rankers import Rankers
from palate.train import TrainParams

START = datetime(2026, 1, 5, tzinfo=UTC)
EVERYTHING = 100_000
LENGTH = 20


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("--days", type=float, default=2)
    given.add_argument("--readers", type=int, default=100)
    given.add_argument("--items-per-hour", type=float, default=100)
    given.add_argument("--keep", type=int, default=200)
    given.add_argument("--exact", type=int, default=500)
    given.add_argument("--pause", type=float, default=10_000, help="seconds between two cycles")
    given.add_argument("--seed", type=int, default=1)
    asked = given.parse_args()
    params = world.WorldParams(readers=asked.readers, items_per_hour=asked.items_per_hour)
    made, hours = world.create(params, asked.seed, START), round(24 * asked.days)
    policy = policy_of(asked)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        closed_loop.run(made, policy, Path(folder) / "data", hours)
        print(f"{hours} hours in {time.perf_counter() - begin:.0f} s", flush=True)
        compare(made, policy, Path(folder) / "data", hours, asked)


def policy_of(asked: argparse.Namespace) -> Policy:
    serving = FeedParams(exploration=0.1)
    serving = msgspec.structs.replace(serving, find=msgspec.structs.replace(serving.find, exact=asked.exact))
    training = msgspec.structs.replace(
        train.Params(served=serving.model), train=TrainParams(min_pause=asked.pause, models=(serving.model,))
    )
    rankers = RankerTraining(
        heavy=HeavyParams(every_minutes=1200, max_impressions=100_000),
        light=LightParams(share=asked.keep / 3_000, candidates=3_000),  # what is let through of 3,000 is `keep`
        feed=serving,
        interactions=training.interactions,
    )
    return Policy("served", feed=serving, training=training, rankers=rankers)


def ways(asked: argparse.Namespace, serving: FeedParams) -> dict[str, FeedParams]:
    """Settings by name: nothing that explores, asks or spreads."""
    still = msgspec.structs.replace(
        serving, exploration=0.0, questions=0, source_spread=0, label_spread=0, category_spread=0, first_spread=0
    )

    def way(exact: int, keep: int, ranker: str = "heavy") -> FeedParams:
        return msgspec.structs.replace(
            still, keep=keep, ranker=ranker, find=msgspec.structs.replace(still.find, exact=exact)
        )

    return {
        "heavy on everything": way(EVERYTHING, EVERYTHING),
        "candidates, light, heavy": way(asked.exact, asked.keep),
        "candidates, heavy": way(asked.exact, EVERYTHING),
        "light, heavy": way(EVERYTHING, asked.keep),
        "candidates, plain score": way(asked.exact, asked.keep, "score"),
    }


def compare(made: world.World, policy: Policy, data: Path, hours: int, asked: argparse.Namespace) -> None:
    now = made.start + timedelta(hours=hours)
    live = Live(database.connect(None, data), data, policy.training.interactions, policy.feed.model, ranking=True)
    live.refresh(now)
    assert live.snapshot is not None, "cycles ran"
    live.state = replace(live.state, rankers=rankers_of_all(live, policy, data, now))
    likings, rows = truths(made, hours, to_milliseconds(now))
    tried = ways(asked, policy.feed)
    lists = {name: served(live, made, params, now, rows) for name, params in tried.items()}
    live.state = replace(live.state, rankers=replace(live.state.rankers, lean=UPRIGHT))
    for name in ("heavy on everything", "candidates, light, heavy"):
        lists[f"{name}: trees alone"] = served(live, made, tried[name], now, rows)
    tell(lists, likings)


def rankers_of_all(live: Live, policy: Policy, data: Path, now: datetime) -> Rankers:
    """Learned from all that was logged, whether or not they would be served: here it's only asked what the cascade takes from them."""
    assert policy.rankers is not None, "it is what is tried"
    params = policy.rankers
    answer = timedelta(minutes=params.heavy.answer_minutes)
    found = impressions.read(
        live.engine, data / "events", params.heavy.gains, answer, now, params.heavy.max_impressions
    )
    heavy = heavy_learning.learn(found, params.heavy, params.seed)
    light, recall = ranker_training.distilled(live.engine, data, found, heavy, params, now)
    told = {name: heavy.quality[name] for name in ("served", "impressions", "ndcg", "plain_ndcg", "gain_error")}
    print(
        f"{len(live.pool)} items; {len(found)} impressions: {told}; light: {light is not None}, recall {recall}",
        flush=True,
    )
    learned, asked = heavy.ranker, rankers.as_asked(heavy.ranker.trees)
    return Rankers(learned.trees.to_bytes(), asked, learned.lean, heavy.calibration, (), light, params.light.keep)


def truths(made: world.World, hours: int, now: int) -> tuple[np.ndarray, dict[str, int]]:
    """(R, I) true chances of a like now, and the column of each item."""
    tastes = world.tastes(made)
    for hour in range(1, hours):
        tastes = world.drifted(made, tastes, hour)
    parts = [world.published(made, hour) for hour in range(-made.params.backlog_hours, hours - 1)]
    items = world.joined([part for _, part in parts])
    ids = [item.id for some, _ in parts for item in some]
    likings = np.stack([world.liking(made, tastes, reader, items, now) for reader in range(made.params.readers)])
    return likings, {id: place for place, id in enumerate(ids)}


def served(live: Live, made: world.World, params: FeedParams, now: datetime, rows: dict[str, int]) -> list[list[int]]:
    """Of each reader, the columns of what they get."""
    lists, begin = [], time.process_time()
    with reading(live.engine) as connection:
        for user in made.ids:
            request = FeedRequest(user=user, limit=LENGTH, now=now, log=False)
            answer = feed.serve(live, request, params, np.random.default_rng(1), lambda _: None, connection)
            lists.append([rows[item.item.id] for item in answer.items])
    print(f"  {1000 * (time.process_time() - begin) / len(made.ids):.0f} ms a list", flush=True)
    return lists


def tell(lists: dict[str, list[list[int]]], likings: np.ndarray) -> None:
    discounts = 1 / np.log2(np.arange(LENGTH) + 2)
    best = -np.sort(-likings, axis=1)[:, :LENGTH] @ discounts
    first = next(iter(lists))
    values = {
        name: np.array([likings[reader, one] @ discounts[: len(one)] for reader, one in enumerate(found)]) / best
        for name, found in lists.items()
    }
    for name, own in values.items():
        there = np.mean([np.isin(wanted, one).mean() for wanted, one in zip(lists[first], lists[name], strict=True)])
        parts, both = np.stack((own, values[first]), axis=1), np.random.default_rng(2)
        drawn = both.integers(len(own), size=(2_000, len(own)))
        sums = parts[drawn].sum(axis=1)
        low, high = np.quantile(sums[:, 0] / sums[:, 1] - 1, (0.025, 0.975))
        worse, better = metrics.bootstrap_interval(own, both)
        print(
            f"{name:37} nDCG@{LENGTH} {own.mean():.4f} [{worse:.4f}, {better:.4f}]; beside the first "
            f"{100 * (own.sum() / values[first].sum() - 1):+.2f} % [{100 * low:+.2f}, {100 * high:+.2f}]; {there:.3f} of its {LENGTH}"
        )


if __name__ == "__main__":
    main()
