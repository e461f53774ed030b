"""The heavy ranker on recorded events (Deskdrop), replayed in the order of time through the log, the trainer and `feed.rank`.

    PALATE_DATA=… python benchmarks/bench_heavy.py [--share 0.12] [--weeks 4] [--model itemknn]

At some of what people really did the items of the last week that they hadn't met are ranked and logged as shown, with the features of
that moment; then the event itself is posted. Each day a cycle learns from the log, and every four weeks a heavy ranker. Over the last third of the time, nDCG@10 of
the item that was really taken is told by five orders of the same lists: the heavy ranker, the plain score, popularity over a week and over
an hour, and age; then what each join of columns is worth, by a ranker that is learned without it (from the log up to that third).
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
import zlib
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np

from palate import catalog, database, events, feature_log, feed, heavy_learning, impressions, metrics, train
from palate.database import writing
from palate.domain import Event, Item, from_milliseconds
from palate.feed_params import FeedParams
from palate.heavy_learning import HeavyParams
from palate.interactions import InteractionParams
from palate.list_making import ListMaking
from palate.live import Live
from palate.models.trees import TreeParams
from palate.ranker_training import RankerTraining

TYPES = {"VIEW": "viewed", "LIKE": "like", "BOOKMARK": "save", "COMMENT CREATED": "comment", "FOLLOW": "save"}
WEEK, DAY = 7 * 86_400_000, 86_400_000
GAINS = {"viewed": 1.0, "like": 1.0, "save": 1.0, "comment": 2.0}
K = 10


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("--share", type=float, default=0.12)
    given.add_argument("--weeks", type=float, default=4, help="between two heavy rankers")
    given.add_argument("--hours", type=float, default=24, help="between two cycles")
    given.add_argument("--model", default="ials")
    given.add_argument("--trees", type=int, default=150)
    asked = given.parse_args()
    happened = recorded(Path(os.environ["PALATE_DATA"]) / "feedback/deskdrop/users_interactions.csv")
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay(Path(folder), asked)
        replay.run(happened)
        replay.tell()


def recorded(path: Path) -> list[tuple[int, str, str, str]]:
    """(milliseconds, user, item, type) in the order of time."""
    with open(path, newline="") as stream:
        rows = [
            (1000 * int(row["timestamp"]), row["personId"], row["contentId"], TYPES[row["eventType"]])
            for row in csv.DictReader(stream)
        ]
    return sorted(rows)


class Replay:
    def __init__(self, data: Path, asked: argparse.Namespace) -> None:
        self.asked, self.data = asked, data
        self.engine = database.connect(None, data)
        database.migrate(self.engine)
        self.interactions = InteractionParams(rule="views")
        self.feed = FeedParams(model=asked.model)
        self.live = Live(self.engine, data, self.interactions, asked.model, ranking=True)
        every = asked.weeks * 7 * 24 * 60
        heavy = HeavyParams(
            gains=GAINS, every_minutes=every, trees=TreeParams(trees=asked.trees), max_impressions=150_000
        )
        self.rankers = RankerTraining(heavy=heavy, feed=self.feed, interactions=self.interactions)
        self.random = np.random.default_rng(1)
        self.lists: list[tuple[int, str, bool, dict[str, float]]] = []
        self.spent: list[float] = []
        self.logged = self.cycles = 0

    def run(self, happened: list[tuple[int, str, str, str]]) -> None:
        first: dict[str, int] = {}
        for moment, _, item, _ in happened:
            first.setdefault(item, moment)
        order, at = sorted(first, key=lambda item: first[item]), 0
        fresh: list[str] = []
        met: dict[str, set[str]] = defaultdict(set)
        learn_at, look_at = happened[0][0] + WEEK, 0
        self.late = happened[0][0] + (happened[-1][0] - happened[0][0]) * 2 // 3
        waiting: list[Event] = []
        for moment, user, item, type in happened:
            if moment >= learn_at:
                self.learn(learn_at)
                learn_at += int(self.asked.hours * 3_600_000)
            if at < len(order) and first[order[at]] <= moment:
                until = at
                while until < len(order) and first[order[until]] <= moment + DAY:
                    until += 1
                self.add(order[at:until], first, moment)
                fresh, at = fresh + order[at:until], until
            there = moment - WEEK <= first[item] < moment
            if there and item not in met[user] and self.random.random() < self.asked.share:
                self.post(waiting, moment)
                waiting = []
                if moment >= look_at:
                    self.live.refresh(from_milliseconds(moment))
                    look_at = moment + 1_800_000
                fresh = [one for one in fresh if first[one] >= moment - WEEK]
                self.ask(user, item, [one for one in fresh if first[one] < moment and one not in met[user]], moment)
            met[user].add(item)
            waiting.append(Event(user=user, item=item, type=type, time=moment + 1))

    def add(self, items: list[str], first: dict[str, int], moment: int) -> None:
        with writing(self.engine) as connection:
            now = from_milliseconds(moment)
            catalog.upsert(connection, [Item(id=id, published=from_milliseconds(first[id])) for id in items], now)

    def post(self, happened: list[Event], moment: int) -> None:
        if happened:
            with writing(self.engine) as connection:
                events.append(connection, happened, from_milliseconds(moment))

    def ask(self, user: str, item: str, candidates: list[str], moment: int) -> None:
        shown: list[Event] = []
        begin = time.perf_counter()
        feed.rank(self.live, user, candidates, from_milliseconds(moment), self.feed, append=shown.extend)
        self.spent.append(time.perf_counter() - begin)
        self.post(shown, moment)
        self.logged += sum(len(event.features or "") for event in shown)
        target = next((place for place, event in enumerate(shown) if event.item == item), None)
        if moment >= self.late and target is not None:
            self.lists.append((moment, user, self.live.state.rankers is not None, places(shown, target)))

    def learn(self, moment: int) -> None:
        begin, now = time.perf_counter(), from_milliseconds(moment)
        params = msgspec.structs.replace(
            train.Params(served=self.asked.model),
            interactions=self.interactions,
            train=train.TrainParams(models=(self.asked.model,)),
        )
        self.cycles += 1
        kind = "full" if self.cycles % 20 == 1 else "incremental"
        cycle = train.learn(self.engine, self.data, params, now, ListMaking(), kind=kind, rankers=self.rankers)
        self.live.refresh(now)
        snapshot = self.live.snapshot
        found = {} if snapshot is None else snapshot.header.get("rankers", {})
        if found.get("learned", 0) != moment:
            return
        words = {
            name: found.get(name)
            for name in (
                "served",
                "learned_from",
                "lists",
                "ndcg",
                "plain_ndcg",
                "gain_error",
                "loss",
                "plain_loss",
                "calibration_error",
                "recall",
            )
        }
        print(f"{now:%d %B}: {cycle.summary()} {time.perf_counter() - begin:.1f} s; {words}", flush=True)
        print("  ", dict(list(found.get("importances", {}).items())[:12]), flush=True)

    def tell(self) -> None:
        print(
            f"rank with its logging: {1000 * float(np.median(self.spent)):.1f} ms a list in the median; {self.logged / 1e6:.1f} MB of features"
        )
        ranked = [one for one in self.lists if one[2]]
        print(f"{len(self.lists)} lists of the last third, {len(ranked)} of them by a heavy ranker")
        people = np.array([user for _, user, _, _ in ranked])
        values = {name: np.array([found[name] for _, _, _, found in ranked]) for name in ranked[0][3]}
        random = np.random.default_rng(2)
        for name, found in values.items():
            low, high = metrics.bootstrap_interval(found, random, groups=people)
            gain = values["heavy"] - found
            worse, better = metrics.bootstrap_interval(gain, random, groups=people)
            print(
                f"nDCG@{K} {name:12} {found.mean():.4f} [{low:.4f}, {high:.4f}]; heavy is above it by {gain.mean():+.4f} [{worse:+.4f}, {better:+.4f}]"
            )
        self.without()

    def without(self) -> None:
        """What each join of columns is worth: learned up to the last third, judged on it."""
        heavy = self.rankers.heavy
        now = from_milliseconds(max(moment for moment, _, _, _ in self.lists) + DAY)
        found = impressions.read(self.engine, self.data / "events", heavy.gains, timedelta(hours=1), now, 300_000)
        random = np.random.default_rng(3)
        old, late = found.rows(found.time < self.late), found.rows(found.time >= self.late)
        late = late.rows(np.argsort(late.request, kind="stable"))
        people = heavy_learning.people(late)
        whole: np.ndarray | None = None
        for join in (None, *(name for name in feature_log.JOINS if name != "context")):
            params = msgspec.structs.replace(heavy, without=() if join is None else (join,))
            model = heavy_learning.fitted(old, params, 1)
            scores = heavy_learning.raw(model, late.features, params.without)
            own = heavy_learning.ndcg(late, scores, np.ones(len(late)))
            whole = own if whole is None else whole
            low, high = metrics.bootstrap_interval(own - whole, random, groups=people)
            print(
                f"without {join or 'nothing':9}: nDCG@{K} {own.mean():.4f}, {(own - whole).mean():+.4f} [{low:+.4f}, {high:+.4f}]",
                flush=True,
            )


def places(shown: list[Event], target: int) -> dict[str, float]:
    """nDCG@10 of the one item that was taken, by each order of the list."""
    table, _ = feature_log.read([event.features for event in shown])
    return by_each_order("heavy", table, target, shown[target].item)


def by_each_order(own: str, table: np.ndarray, target: int, item: str) -> dict[str, float]:
    """nDCG@10 of the row `target` of a list, `item` by its id: as the list stands, which is called `own`, and by other orders; of
    equals chance decides."""
    column = {name: table[:, number] for number, name in enumerate(feature_log.NAMES)}
    orders = {
        own: -np.arange(len(table), dtype=float),
        "plain score": column["score"],
        "popularity": column["item_viewed_week"],
        "of the hour": column["item_viewed_hour"],
        "recency": -column["age"],
    }
    found = {}
    for name, score in orders.items():
        before, equal = int((score > score[target]).sum()), int((score == score[target]).sum())
        place = before + zlib.crc32(item.encode()) % max(equal, 1)
        found[name] = float(1 / np.log2(place + 2)) if place < K else 0.0
    return found


if __name__ == "__main__":
    main()
