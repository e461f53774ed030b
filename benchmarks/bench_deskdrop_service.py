"""Deskdrop replayed in the order of time through the running service: posted, asked and answered over HTTP, learned by `palate train`.

    PALATE_DATA=… python benchmarks/bench_deskdrop_service.py [--share 0.1] [--days 7] [--weeks 4] [--minutes 12]

`palate api` serves a data folder, and every `--days` days of the replay `palate train --increment` learns from it; both are told the time of
the replay in place of the machine's, as age, windows, counts and what is old enough to be learned go by it. Each item is posted just before
the first question after it was first met, and then what people did up to that question. At some of what people really did
(`--share`) the service is asked by `POST /v1/rank` with `log` for the order of all items of the last week that this person hasn't met; the
item that they took must be among them. From the first heavy ranker on (learned, whether or not it is served), or from `--since`, nDCG@10 of
that item is told by five orders of the same lists: the answer, and by what the service logged with it the plain score, popularity over a week
and over an hour, and age. Lists are told apart by whether the snapshot knew the item that was taken; but an order that rightly puts the new
first loses where the item is an old one, and the other way round. So each kind is also judged with the other kind's items taken out of the
lists. The feed itself is asked at the same moments, `GET /v1/feed` of the whole catalogue without logging: by the cascade, by the plain score
(a second service of the same folder, `feed.ranker = "score"`), by popularity and by age (surfaces of these orders); nDCG@10 and hit rate of
the item that was taken, beside its place among the given items. What was logged as shown a feed doesn't bring again as long as there is
anything else, and here everything was logged that somebody was asked about: so those who had no list in the week before, whose feed may
hold all that was given, are told apart.
"""

from __future__ import annotations

import argparse
import http.client
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from bench_heavy import GAINS, WEEK, K, by_each_order, recorded

from palate import database, feature_log, impressions, metrics, snapshots
from palate.domain import from_milliseconds

SETTINGS = """
[server]
access_log = false
refresh_seconds = 0.02
[interactions]
rule = "views"
[feed]
model = "{model}"
limit_max = 1000
ranker = "{ranker}"
exploration = 0
questions = 0
[surfaces.popular]
order = "rate"
[surfaces.newest]
order = "time"
[train]
models = ["{model}"]
[heavy]
every_minutes = {minutes}
max_impressions = {impressions}
gains = {{ viewed = {viewed}, like = {like}, save = {save}, comment = {comment} }}
[heavy.trees]
trees = {trees}
"""

FEEDS = {
    "cascade": ("heavy", "cascade"),
    "plain score": ("score", "plain"),
    "popularity": ("heavy", "popular"),
    "recency": ("heavy", "newest"),
}
"""Ranker of the service that is asked, and the surface."""


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("--share", type=float, default=0.1)
    given.add_argument("--days", type=float, default=7, help="between two cycles")
    given.add_argument("--weeks", type=float, default=4, help="between two heavy rankers")
    given.add_argument("--model", default="ials")
    given.add_argument("--trees", type=int, default=100)
    given.add_argument("--impressions", type=int, default=60_000, help="that a heavy ranker learns from at most")
    given.add_argument("--minutes", type=float, default=1e9, help="after which the replay ends, wherever it is")
    given.add_argument(
        "--since", type=date.fromisoformat, help="the day, such as 2016-05-13, from which lists are judged"
    )
    given.add_argument("--keep", type=Path, help="a new folder in which the data folder stays")
    asked = given.parse_args()
    happened = recorded(Path(os.environ["PALATE_DATA"]) / "feedback/deskdrop/users_interactions.csv")
    with tempfile.TemporaryDirectory() if asked.keep is None else nullcontext(asked.keep) as folder:
        Path(folder).mkdir(exist_ok=True)
        replay = Replay(Path(folder), asked)
        with replay.serving():
            replay.run(happened)
        replay.tell()


# --- a process of Palate that is told the time ----------------------------------------------------------------------------


def palate_at(clock: Path, arguments: list[str]) -> None:
    """The command line of Palate, in this process, in which it is as late as this file says."""
    with open(clock, "rb") as stream:
        shared = mmap.mmap(stream.fileno(), 8, access=mmap.ACCESS_READ)
    from palate import command_line
    from palate.delivery import context

    for module in (command_line, context):  # before anything takes the function from them
        vars(module)["utc_now"] = lambda: from_milliseconds(struct.unpack("<q", shared[:8])[0])
    from palate import cli

    cli.main(arguments)


# --- the replay -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    moment: int
    user: str
    item: str
    place: int
    """Of the item that was taken, in the answer."""
    length: int
    ranked: bool
    """Whether the snapshot held a heavy ranker."""
    feeds: Mapping[str, int | None] = field(default_factory=dict)
    """By the name of each feed the place of the item; None where it wasn't among its first K."""
    known: bool = False
    """Whether a model had learned anything of the item that was taken."""
    fresh: bool = True
    """Whether nothing was logged as shown to this person in the week before."""


class Replay:
    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.asked, self.data, self.clock = asked, folder / "data", folder / "clock"
        self.clock.write_bytes(bytes(8))
        words = {"model": asked.model, "minutes": asked.weeks * 7 * 24 * 60, "trees": asked.trees}
        self.configs = {ranker: folder / f"{ranker}.toml" for ranker in ("heavy", "score")}
        for ranker, path in self.configs.items():
            path.write_text(SETTINGS.format(**words, **GAINS, impressions=asked.impressions, ranker=ranker))
        self.ports = {ranker: free_port() for ranker in self.configs}
        self.connections = {
            ranker: http.client.HTTPConnection("127.0.0.1", port, timeout=60) for ranker, port in self.ports.items()
        }
        self.random = np.random.default_rng(1)
        self.questions: list[Question] = []
        self.spent: list[float] = []
        self.begin, self.learning, self.calls, self.cycles, self.ranked = time.perf_counter(), 0.0, 0, 0, False
        self.tried, self.asked_at = False, 0
        self.listed: dict[str, int] = {}
        """When somebody's last list was logged."""

    @contextmanager
    def serving(self) -> Iterator[None]:
        with ExitStack() as stack:
            for ranker, port in self.ports.items():
                server = stack.enter_context(
                    subprocess.Popen(self.palate("api", "--port", str(port), config=self.configs[ranker]))
                )
                stack.callback(server.terminate)
                self.wait_for(ranker)
            yield

    def wait_for(self, ranker: str) -> None:
        for _ in range(600):
            try:
                self.call("GET", "/readyz", ranker=ranker)
                return
            except OSError:
                self.connections[ranker].close()
                time.sleep(0.1)

    def palate(self, command: str, *more: str, config: Path | None = None) -> list[str]:
        own = [sys.executable, __file__, "--palate", str(self.clock)]
        return [*own, command, "--data", str(self.data), "--config", str(config or self.configs["heavy"]), *more]

    def call(self, method: str, path: str, body: Any = None, ranker: str = "heavy") -> Any:
        connection = self.connections[ranker]
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        self.calls += 1
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text)

    def run(self, happened: list[tuple[int, str, str, str]]) -> None:
        first: dict[str, int] = {}
        for moment, _, item, _ in happened:
            first.setdefault(item, moment)
        coming = sorted(first, key=lambda item: first[item])
        fresh: list[str] = []
        met: dict[str, set[str]] = defaultdict(set)
        waiting: list[dict[str, Any]] = []
        pause = int(self.asked.days * 86_400_000)
        learn_at = happened[0][0] + WEEK
        for moment, user, item, type in happened:
            if time.perf_counter() - self.begin > 60 * self.asked.minutes:
                break
            if moment >= learn_at:
                learn_at += (moment - learn_at) // pause * pause  # after quiet days once
                self.at(learn_at)
                come, coming = self.post_items(coming, learn_at, first)
                fresh += come
                waiting = self.post_events(waiting)
                self.learn(learn_at)
                learn_at += pause
            there = moment - WEEK <= first[item] < moment and item not in met[user]
            if there and self.random.random() < self.asked.share:
                # a moment has one question, which the log knows by it
                now = self.asked_at = max(moment, self.asked_at + 1)
                self.at(now)
                come, coming = self.post_items(coming, moment, first)
                fresh = [one for one in fresh + come if first[one] >= moment - WEEK]
                waiting = self.post_events(waiting)
                self.ask(user, item, [one for one in fresh if one not in met[user]], now)
            met[user].add(item)
            waiting.append({"user": user, "item": item, "type": type, "time": max(moment, self.asked_at) + 1})

    def at(self, moment: int) -> None:
        with open(self.clock, "r+b") as stream:
            stream.write(struct.pack("<q", moment))

    def post_events(self, happened: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Nothing is left waiting."""
        for start in range(0, len(happened), 500):
            self.call("POST", "/v1/events", happened[start : start + 500])
        return []

    def post_items(self, coming: list[str], until: int, first: dict[str, int]) -> tuple[list[str], list[str]]:
        """Those that were first met before this moment are posted, before anything that people did with them: had an event named one, it would
        be there as a mere name, and become an item within the same millisecond of this clock, which services don't notice. Gives them,
        and the rest."""
        items = coming[: bisect_left(coming, until, key=lambda one: first[one])]
        for start in range(0, len(items), 500):
            some = [{"id": id, "published": first[id]} for id in items[start : start + 500]]
            self.call("POST", "/v1/items", some)
        return items, coming[len(items) :]

    def ask(self, user: str, item: str, candidates: list[str], now: int) -> None:
        feeds = self.places_in_feeds(user, item) if self.tried else {}
        self.random.shuffle(candidates)  # of equals the one that was named first comes first
        begin = time.perf_counter()
        answer = self.call("POST", "/v1/rank", {"user": user, "items": candidates, "log": True})
        self.spent.append(time.perf_counter() - begin)
        if len(self.spent) % 250 == 0:
            print(
                f"{from_milliseconds(now):%d %B}: {len(self.spent)} lists, {time.perf_counter() - self.begin:.0f} s",
                flush=True,
            )
        place = next(place for place, one in enumerate(answer["items"]) if one["item"] == item)
        if self.tried:
            fresh = self.listed.get(user, 0) < now - WEEK
            self.questions.append(Question(now, user, item, place, len(candidates), self.ranked, feeds, fresh=fresh))
        self.listed[user] = now

    def places_in_feeds(self, user: str, item: str) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        self.connections["score"].close()  # it may have been idle for longer than a server keeps one
        time.sleep(0.15)  # what was posted a moment ago is looked for every 20 ms, by both services
        for name, (ranker, surface) in FEEDS.items():
            asked = urllib.parse.urlencode({"user": user, "limit": K, "surface": surface, "log": "false"})
            ids = [one["item"] for one in self.call("GET", f"/v1/feed?{asked}", ranker=ranker)["items"]]
            found[name] = ids.index(item) if item in ids else None
        return found

    def learn(self, moment: int) -> None:
        begin, self.cycles = time.perf_counter(), self.cycles + 1
        kind = "--full" if self.cycles % 10 == 1 else "--increment"
        subprocess.run(
            self.palate("train", kind, "--json"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for connection in self.connections.values():
            connection.close()  # it was idle for longer than a server keeps one
        snapshot = snapshots.load_newest_good(self.data / "snapshots", verify=False)
        assert snapshot is not None, "a cycle that says that all went well has published"
        for ranker in self.connections:
            while self.call("POST", "/v1/rank", {"user": "nobody", "items": []}, ranker)["model"] != snapshot.version:
                time.sleep(0.05)
        self.learning += time.perf_counter() - begin
        found = snapshot.header.get("rankers", {})
        self.tried, self.ranked = bool(found.get("learned")), bool(found.get("served"))
        if found.get("learned") == moment:
            names = (
                "served",
                "learned_from",
                "lists",
                "ndcg",
                "plain_ndcg",
                "gain_error",
                "loss",
                "plain_loss",
                "recall",
            )
            words = {name: found.get(name) for name in names}
            print(f"{from_milliseconds(moment):%d %B}: {words} at {time.perf_counter() - self.begin:.0f} s", flush=True)

    # --- what came out ----------------------------------------------------------------------------------------------------

    def tell(self) -> None:
        print(
            f"Replayed up to {from_milliseconds(self.asked_at):%d %B %Y}: {self.calls} calls, {len(self.spent)} of them lists, each in "
            f"{1000 * float(np.median(self.spent)):.1f} ms in the median; "
            f"{self.cycles} cycles in {self.learning:.0f} s; {time.perf_counter() - self.begin:.0f} s in all"
        )
        lists = self.judged()
        people = np.array([question.user for question, _, _ in lists])
        ranked = np.array([question.ranked for question, _, _ in lists])
        length = np.median([question.length for question, _, _ in lists])
        print(
            f"{len(lists)} lists since the first heavy ranker was learned, of {len(set(people.tolist()))} people, {int(ranked.sum())} of them by a heavy "
            f"ranker, of {length:.0f} items in the median"
        )
        for words, fresh in (("all", (True, False)), ("no list in the week before", (True,)), ("the others", (False,))):
            tell_feeds(words, [question for question, _, _ in lists if question.fresh in fresh])
        known = np.array([question.known for question, _, _ in lists])
        for words, chosen, which in (
            ("all", np.ones(len(lists), bool), 1),
            ("those whose item the snapshot knew", known, 1),
            ("those, among the items that it knew", known, 2),
            ("the others", ~known, 1),
            ("the others, among the items that it didn't know", ~known, 2),
        ):
            print(f"{words}: {int(chosen.sum())} lists")
            compare([one[which] for one, asked in zip(lists, chosen, strict=True) if asked], people[chosen])

    def judged(self) -> list[tuple[Question, dict[str, float], dict[str, float]]]:
        """Each question with the nDCG of each order of its list, by the columns that the service logged: of the whole list, and of what
        is in it of the same kind, new or known, as the item that was taken."""
        engine = database.connect(None, self.data)
        now = from_milliseconds(self.questions[-1].moment) + timedelta(days=1)
        found = impressions.read(engine, self.data / "events", GAINS, timedelta(hours=1), now, 10_000_000)
        order = np.argsort(found.time, kind="stable")
        times = found.time[order]
        lists = []
        since = datetime.combine(self.asked.since or date.min, datetime.min.time(), UTC)
        for question in self.questions:
            if from_milliseconds(question.moment) < since:
                continue
            rows = order[slice(*np.searchsorted(times, [question.moment, question.moment + 1]))]
            rows = rows[np.argsort(found.position[rows], kind="stable")]
            assert len(rows) == question.length, "every list was logged whole"
            table, place = found.features[rows], question.place
            known = table[:, feature_log.NAMES.index("evidence")] > 0
            alike = np.flatnonzero(known == known[place])
            among = by_each_order("service", table[alike], int(np.searchsorted(alike, place)), question.item)
            whole = by_each_order("service", table, place, question.item)
            lists.append((replace(question, known=bool(known[place])), whole, among))
        return lists


def tell_feeds(words: str, questions: list[Question]) -> None:
    """Print nDCG and the hit rate of the item that was taken, in each feed of the whole catalogue and among the given items, and the
    cascade's lead."""
    people, random = np.array([question.user for question in questions]), np.random.default_rng(3)
    print(f"feeds, {words}: {len(questions)} questions")
    for metric in ("nDCG", "HR"):
        values = {name: np.array([gain(one.feeds[name], metric) for one in questions]) for name in FEEDS}
        given = (one.place if one.place < K else None for one in questions)
        values["given items"] = np.array([gain(place, metric) for place in given])
        for name, own in values.items():
            low, high = metrics.bootstrap_interval(own, random, groups=people)
            lead = values["cascade"] - own
            worse, better = metrics.bootstrap_interval(lead, random, groups=people)
            print(
                f"  feed: {metric}@{K} {name:12} {own.mean():.4f} [{low:.4f}, {high:.4f}]; "
                f"the cascade is above it by {lead.mean():+.4f} [{worse:+.4f}, {better:+.4f}]"
            )


def gain(place: int | None, metric: str) -> float:
    if place is None:
        return 0.0
    return float(1 / np.log2(place + 2)) if metric == "nDCG" else 1.0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def compare(lists: list[dict[str, float]], people: np.ndarray) -> None:
    """Print the mean of each order, and by how much the service is above it."""
    random = np.random.default_rng(2)
    own = np.array([found["service"] for found in lists])
    for name in lists[0]:
        values = np.array([found[name] for found in lists])
        low, high = metrics.bootstrap_interval(values, random, groups=people)
        worse, better = metrics.bootstrap_interval(own - values, random, groups=people)
        print(
            f"  nDCG@{K} {name:12} {values.mean():.4f} [{low:.4f}, {high:.4f}]; "
            f"the service is above it by {(own - values).mean():+.4f} [{worse:+.4f}, {better:+.4f}]"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--palate"]:
        palate_at(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
