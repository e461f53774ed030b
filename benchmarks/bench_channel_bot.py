"""A small bot's whole life: 11,115 posts of 60 channels, 36 people, their likes and dislikes, and the cycles that learn from them.

    python benchmarks/bench_channel_bot.py [--data DIR] [--report FILE]

The size is that of the channel-feed bot that Palate set out to beat (full training in 1 to 2 s, 13 factors). Votes arrive over ten
days, simulated from known tastes; after every 150 of them the trainer runs a cycle as `palate train` does, a full one at first and
after every four incremental ones. Printed: seconds of each kind of cycle, and how well the last snapshot orders the posts that each
person hasn't seen, against their true taste. The peer, where PyTorch is installed, is its model as published: 1.05 · sigmoid of a
dot product with biases, mean squared error, plain SGD at a rate of 100 in batches of 512, 35 epochs, on the same votes.

The report is one HTML file: the loss with its restarts, the predicted scores of a person's posts, and who gets which post next.
With `--data` the installation stays, and `palate api --data DIR` shows the same on its training page.
"""

from __future__ import annotations

import os

os.environ.pop("OPENBLAS_CORETYPE", None)

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import catalog, charts, database, events, feed, identities, train
from palate.charts import Axis, Series
from palate.cycle import Cycle, run_cycle
from palate.database import reading, writing
from palate.domain import Event, Item
from palate.evaluation import report, simulation
from palate.evaluation.simulation import Reader, SimulationParams
from palate.examples import Memory
from palate.live import Live
from palate.metrics import auc
from palate.settings import Settings

POSTS, CHANNELS, PEOPLE, DAYS, SEED = 11_115, 60, 36, 10, 5
FACTORS = 13
"""The peer's; ours is the product's default, the same."""
VOTES_A_CYCLE = 150
FULL_EVERY = 4
STYLE = (
    ".loss .dot { display: none } .loss .line { stroke-width: .5 } .loss .chart { max-width: 760px } .dot { r: 1px }"
)
"""Beside the report's own: thousands of points in a chart that is meant for a few dozen."""
TOPICS = (
    "politics",
    "economy",
    "science",
    "technology",
    "sports",
    "music",
    "cinema",
    "books",
    "travel",
    "food",
    "humour",
    "art",
)
VOTES = ("like", "dislike")


@dataclass(frozen=True)
class Bot:
    """Who is there, what there is to read, and what happened, oldest first."""

    posts: list[Item]
    people: list[Reader]
    happened: list[Event]


def invented(now: datetime) -> Bot:
    rng = np.random.default_rng(SEED)
    topics = [TOPICS[number] for number in rng.integers(0, len(TOPICS), CHANNELS)]
    posts = [_post(number, topics, rng, now) for number in range(POSTS)]
    people = simulation.readers(rng, PEOPLE, posts)
    params = SimulationParams(sessions=12, page=20, vote_share=0.9)
    return Bot(posts, people, simulation.simulate(posts, people, rng, now, DAYS, params))


def _post(number: int, topics: Sequence[str], rng: np.random.Generator, now: datetime) -> Item:
    channel = int(len(topics) * rng.random() ** 2)
    return Item(
        id=f"post-{number}",
        title=f"Post {number} of channel {channel} ({topics[channel]})",
        source=f"channel-{channel}",
        kind="post",
        labels=(topics[channel],),
        published=now - timedelta(days=DAYS) * (1 - number / POSTS),
    )


def arrivals(happened: Sequence[Event]) -> Iterator[list[Event]]:
    """What happened, in parts of VOTES_A_CYCLE votes."""
    part: list[Event] = []
    votes = 0
    for event in happened:
        part.append(event)
        votes += event.type in VOTES
        if votes == VOTES_A_CYCLE:
            yield part
            part, votes = [], 0
    if part:
        yield part


def live_through(bot: Bot, engine: sa.Engine, data: Path, settings: Settings, now: datetime) -> list[Cycle]:
    """Let everything happen, with a cycle after each part of it."""
    with writing(engine) as connection:
        catalog.upsert(connection, bot.posts, now)
    params, memory, cycles = train.params_of(settings, settings.feed.model), Memory(), list[Cycle]()
    for number, part in enumerate(arrivals(bot.happened)):
        with writing(engine) as connection:
            events.append(connection, part, now)
        kind = "full" if number % (FULL_EVERY + 1) == 0 else "incremental"
        cycles.append(run_cycle(engine, data, params, now, kind=kind, reason="votes came", memory=memory))
    return cycles


def told(cycles: Sequence[Cycle], votes: int) -> list[str]:
    lines = [f"{votes:,} votes of {PEOPLE} people on {POSTS:,} posts; {FACTORS} factors; {len(cycles)} cycles"]
    for kind in ("full", "incremental"):
        # The first of its kind compiles what it needs.
        seconds = [cycle.seconds for cycle in cycles if cycle.kind == kind][1:]
        lines.append(
            f"{kind} cycle, log to published snapshot: median {median(seconds):.2f} s, longest {max(seconds):.2f} s"
        )
    return lines


def unseen_auc(bot: Bot, scores: Sequence[NDArray[np.float32]]) -> float:
    """Mean over people of the AUC with which scores order what they haven't seen: true likes (drawn from the taste) above the rest."""
    rng = np.random.default_rng(SEED)
    truth = simulation.affinities(bot.people, bot.posts)
    place = {post.id: number for number, post in enumerate(bot.posts)}
    seen = {reader.id: np.zeros(len(bot.posts), bool) for reader in bot.people}
    for event in bot.happened:
        seen[event.user][place[event.item]] = True
    found = []
    for reader, taste, score in zip(bot.people, truth, scores, strict=True):
        fresh = ~seen[reader.id]
        liked = rng.random(fresh.sum()) < taste[fresh]
        found.append(auc(liked, score[fresh]))
    return float(np.mean(found))


def our_scores(bot: Bot, live: Live, settings: Settings, now: datetime) -> list[feed.Prediction]:
    return [feed.predicted(live, reader.id, now, settings.feed, limit=5) for reader in bot.people]


def in_order_of_posts(bot: Bot, live: Live, prediction: feed.Prediction) -> NDArray[np.float32]:
    keys = keys_of_posts(bot, live)
    scores = dict(zip(prediction.keys.tolist(), prediction.scores.tolist(), strict=True))
    return np.array([scores[key] for key in keys], np.float32)


def keys_of_posts(bot: Bot, live: Live) -> list[int]:
    with reading(live.engine) as connection:
        known = {}
        for start in range(0, len(bot.posts), 500):
            ids = [post.id for post in bot.posts[start : start + 500]]
            known.update(identities.item_keys(connection, ids, None))
    return [known[post.id] for post in bot.posts]


def peer(bot: Bot) -> tuple[float, list[NDArray[np.float32]]] | None:
    """Seconds of the peer's full training and its scores of all posts for each person; None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    torch.manual_seed(SEED)
    people = {reader.id: number for number, reader in enumerate(bot.people)}
    posts = {post.id: number for number, post in enumerate(bot.posts)}
    voted = {
        (people[event.user], posts[event.item]): event.type == "like" for event in bot.happened if event.type in VOTES
    }
    user, item = (torch.tensor([pair[side] for pair in voted]) for side in (0, 1))
    label = torch.tensor([float(liked) for liked in voted.values()])
    begin = time.perf_counter()
    tables = [torch.randn(size, width, requires_grad=True) for size in (PEOPLE, POSTS) for width in (FACTORS, 1)]
    of_user, user_bias, of_item, item_bias = tables

    def predicted(user: Any, item: Any) -> Any:
        return 1.05 * torch.sigmoid((of_user[user] * of_item[item]).sum(1) + user_bias[user, 0] + item_bias[item, 0])

    optimiser = torch.optim.SGD(tables, lr=100.0)
    for _ in range(35):
        for rows in torch.randperm(len(label)).split(512):
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(predicted(user[rows], item[rows]), label[rows]).backward()
            optimiser.step()
    seconds = time.perf_counter() - begin
    _place_unvoted(bot, of_item, item_bias, {pair[1] for pair in voted})
    every = torch.arange(POSTS)
    with torch.no_grad():
        return seconds, [predicted(torch.full((POSTS,), row), every).numpy() for row in range(PEOPLE)]


def _place_unvoted(bot: Bot, of_item: Any, item_bias: Any, voted: set[int]) -> None:
    """As the peer does: a post that nobody rated stands at its channel's mean, with a little noise."""
    import torch

    with torch.no_grad():
        for channel in {post.source for post in bot.posts}:
            rows = [row for row, post in enumerate(bot.posts) if post.source == channel]
            known, unknown = [row for row in rows if row in voted], [row for row in rows if row not in voted]
            if known and unknown:
                of_item[unknown] = of_item[known].mean(0) + 0.05 * torch.randn(len(unknown), FACTORS)
                item_bias[unknown] = item_bias[known].mean(0)


def loss_chart(engine: sa.Engine) -> str:
    """All cycles after one another; a restart is where a full cycle begins."""
    table = database.cycles
    points, shaded = list[tuple[float, float]](), list[tuple[float, float]]()
    with reading(engine) as connection:
        rows = connection.execute(sa.select(table.c.kind, table.c.losses).order_by(table.c.key)).all()
    for kind, packed in rows:
        losses, start = np.frombuffer(packed, np.float32), float(len(points))
        points += [(start + step, float(loss)) for step, loss in enumerate(losses)]
        if kind == "full":
            shaded.append((start, float(len(points))))
    x, y = charts.axis([0.0, float(len(points))], margin=0.0), charts.axis([loss for _, loss in points])
    return charts.chart(
        x, y, [Series("validation", tuple(points), line=True)], "loss of each block of examples", shaded
    )


def score_chart(bot: Bot, live: Live, prediction: feed.Prediction) -> str:
    """The newest posts of one person: predicted probability by age, what comes next filled."""
    scores = in_order_of_posts(bot, live, prediction)
    next_ones = dict(zip(prediction.keys.tolist(), prediction.served.tolist(), strict=True))
    served = np.array([next_ones[key] for key in keys_of_posts(bot, live)])
    rows = np.flatnonzero(served | (np.arange(POSTS) % 8 == 0))
    kinds = (("training", rows[~served[rows]]), ("validation", rows[served[rows]]))
    series = [
        Series(
            name,
            tuple((float(row), float(scores[row])) for row in chosen),
            titles=tuple(str(bot.posts[row].title) for row in chosen),
        )
        for name, chosen in kinds
    ]
    return charts.chart(charts.axis([0.0, float(POSTS)]), Axis(0.0, 1.0), series, "predicted scores")


def who_gets_what(bot: Bot, live: Live, predictions: Sequence[feed.Prediction]) -> str:
    truth, keys = simulation.affinities(bot.people, bot.posts), keys_of_posts(bot, live)
    place = {key: number for number, key in enumerate(keys)}
    rows = []
    for number, (reader, prediction) in enumerate(zip(bot.people, predictions, strict=True)):
        best = sorted(np.flatnonzero(prediction.served), key=lambda row: -prediction.scores[row])
        posts = [place[int(prediction.keys[row])] for row in best]
        cells = "".join(
            f"<td>{escape(str(bot.posts[post].title))}<small>{prediction.scores[row]:.2f}, truly {truth[number, post]:.2f}</small></td>"
            for row, post in zip(best, posts, strict=True)
        )
        rows.append(
            f"<tr><th>{escape(reader.id)}<small>{escape(', '.join(sorted(reader.labels)))}</small></th>{cells}</tr>"
        )
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def page(bot: Bot, engine: sa.Engine, live: Live, predictions: Sequence[feed.Prediction], lines: Sequence[str]) -> str:
    panels = "".join(
        f"<figure><figcaption>{escape(reader.id)} likes {escape(', '.join(sorted(reader.labels)))}</figcaption>"
        f"{score_chart(bot, live, prediction)}</figure>"
        for reader, prediction in list(zip(bot.people, predictions, strict=True))[:6]
    )
    sections = [
        f"<style>{STYLE}</style>",
        "".join(f"<p>{escape(line)}</p>" for line in lines),
        f'<h2>The loss, with its restarts</h2><p>Shaded: full cycles, which begin anew.</p><div class="loss">{loss_chart(engine)}</div>',
        "<h2>Predicted scores</h2><p>Posts from the oldest to the newest, the probability of a like upwards; filled is what comes "
        f'next.</p><div class="panels">{panels}</div>',
        f"<h2>Who gets which post</h2><p>Topics that they like; the next five, predicted and true.</p>{who_gets_what(bot, live, predictions)}",
    ]
    return report.page("A bot for a few dozen people", sections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="keep the installation in this folder")
    parser.add_argument("--report", type=Path, default=Path("channel_bot.html"), help="the HTML file to write")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(asked.data or Path(folder), asked.report)


def run(data: Path, file: Path) -> None:
    now = datetime.now(UTC)
    data.mkdir(parents=True, exist_ok=True)
    settings = Settings()
    bot, engine = invented(now), database.connect(None, data)
    database.migrate(engine)
    cycles = live_through(bot, engine, data, settings, now)
    live = Live(engine, data, settings.interactions)
    live.refresh(now)
    predictions = our_scores(bot, live, settings, now)
    ours = [in_order_of_posts(bot, live, prediction) for prediction in predictions]
    lines = told(cycles, sum(event.type in VOTES for event in bot.happened))
    lines.append(
        f"AUC over what each hasn't seen: {unseen_auc(bot, ours):.3f}; the truth itself {unseen_auc(bot, list(simulation.affinities(bot.people, bot.posts))):.3f}"
    )
    if (theirs := peer(bot)) is not None:
        lines.append(
            f"the peer's model in PyTorch: {theirs[0]:.2f} s of training alone, AUC {unseen_auc(bot, theirs[1]):.3f}"
        )
    print("\n".join(lines))
    report.write(file, page(bot, engine, live, predictions, lines))
    print(f"report: {file}")


if __name__ == "__main__":
    main()
