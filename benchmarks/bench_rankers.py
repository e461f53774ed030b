"""What the rankers cost of a call: features, trees and the light ranker for one person, in milliseconds of processor time.

    chrt -f 50 python benchmarks/bench_rankers.py

20,000 items of 300 sources with two labels each, 60 people with 60 events each, `fm`; medians of 15. The trees have the default number and
depth and are fitted to noise, which changes nothing of what asking them costs. Memory: what importing CatBoost adds to a process.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from palate import catalog, database, events, feature_log, feed, finding, light_learning, rankers, train
from palate.database import reading, writing
from palate.domain import Event, Item, to_milliseconds
from palate.feed_params import FeedParams
from palate.heavy_learning import Lean
from palate.light_learning import Taught
from palate.list_making import ListMaking
from palate.live import Live
from palate.models import additive, trees
from palate.models.additive import Additive
from palate.models.calibration import Calibration
from palate.models.trees import TreeParams
from palate.ranker_training import RankerTraining
from palate.rankers import Rankers
from palate.ranking import features, light
from palate.ranking.considered import Considered
from palate.ranking.features import Scene

NOW, ITEMS = datetime(2026, 1, 1, tzinfo=UTC), 20_000


def main() -> None:
    before = memory()
    import catboost

    assert catboost
    print(f"importing catboost: {memory() - before} MB")
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        live, looked = installation(Path(folder), random)
        state = live.state
        scene = Scene(
            looked.take(np.arange(0, ITEMS, ITEMS // 1000)), state.happenings, state.pool, state.snapshot, NOW
        )
        table = features.of(scene)
        model = noise(random)
        whole = Scene(looked, state.happenings, state.pool, state.snapshot, NOW)
        flat, asked = Calibration(np.zeros(1), np.zeros(1)), rankers.as_asked(model)
        chosen = distilled(whole, random)
        loaded = Rankers(model.to_bytes(), asked, Lean(0.5, 0.0), flat, (), chosen, 1000)
        served = Scene(scene.looked.take(np.arange(20)), state.happenings, state.pool, state.snapshot, NOW)
        tell("features of 1,000 items", lambda: features.of(scene))
        tell("trees over 1,000 items", lambda: loaded.raw(table))
        tell(f"light ranker, {ITEMS} to 1,000", lambda: light.find(whole, np.arange(ITEMS), loaded))
        table_of_all = light.given(whole)
        tell("  columns that it is given of each", lambda: light.given(whole))
        tell("  its lines and trees", lambda: additive.said(chosen, table_of_all, *light.hot(whole)))
        tell("features of 20 served items, written", lambda: features.written(served))
        print(f"{len(features.written(served)[0])} bytes for each")


def memory() -> int:
    """Megabytes of this process, its share of what is mapped by several."""
    with open("/proc/self/smaps_rollup") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("Pss:")) // 1024


def tell(what: str, act: Callable[[], object], times: int = 15) -> None:
    spent = []
    for _ in range(times):
        begin = time.thread_time()
        act()
        spent.append(time.thread_time() - begin)
    print(f"{what}: {1000 * float(np.median(spent)):.2f} ms", file=sys.stdout, flush=True)


def installation(data: Path, random: np.random.Generator) -> tuple[Live, Considered]:
    engine = database.connect(None, data)
    database.migrate(engine)
    items = [
        Item(id=f"i{n}", source=f"s{n % 300}", labels=(f"l{n % 40}", f"m{n % 7}"), published=NOW) for n in range(ITEMS)
    ]
    happened = [
        Event(user=f"u{user}", item=f"i{n}", type=("like", "dislike", "viewed")[n % 3], time=to_milliseconds(NOW))
        for user in range(60)
        for n in random.choice(ITEMS, 60, replace=False)
    ]
    with writing(engine) as connection:
        catalog.upsert(connection, items, NOW)
        events.append(connection, happened, NOW)
    later = NOW + timedelta(hours=1)
    train.learn(engine, data, train.Params(), later, ListMaking(), rankers=RankerTraining())
    live = Live(engine, data, ranking=True)
    live.refresh(later)
    with reading(engine) as connection:
        person = live.person(connection, "u1", live.snapshot)
    params = FeedParams()
    judgement = feed._judge(live.state, person, later, params)
    return live, feed._considered(finding.everything(live.pool), person, judgement, params)


def noise(random: np.random.Generator) -> trees.Trees:
    table = random.standard_normal((4000, len(feature_log.NAMES))).astype(np.float32)
    labels = (random.random(4000) < 0.3).astype(np.float32)
    return trees.fit(table, labels, np.ones(4000, np.float32), TreeParams(), 1)


def distilled(scene: Scene, random: np.random.Generator) -> Additive:
    """Of noise: its trees ask about any column."""
    some = light.columns(scene)[:, :3000]
    return light_learning.learn([Taught(some, random.standard_normal(3000))])


if __name__ == "__main__":
    main()
