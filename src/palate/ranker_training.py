"""What a cycle adds to a snapshot for ranking: counts of what happened, where texts stand, and the heavy and the light ranker.

The rankers are learned anew now and then; in between each snapshot takes over those of the last one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import (
    activity,
    events,
    feature_log,
    finding,
    heavy_learning,
    identities,
    impressions,
    light_learning,
    rankers,
    snapshots,
)
from palate.activity import Activity
from palate.candidates import wanted
from palate.candidates.wanted import Wanted
from palate.database import reading
from palate.domain import from_milliseconds, to_milliseconds
from palate.examples import Examples
from palate.feed_params import FeedParams
from palate.heavy_learning import Heavy, HeavyParams
from palate.impressions import Impressions
from palate.interactions import InteractionParams
from palate.light_learning import LightParams, Taught
from palate.live import Live, Person, State
from palate.models import trees
from palate.models.additive import Additive
from palate.publishing import Addition
from palate.rankers import GIVEN_COLUMNS, Rankers
from palate.ranking import considered, features, light, scoring
from palate.ranking.considered import Age, Considered
from palate.ranking.features import Scene
from palate.rules import RuleParams
from palate.snapshots import Snapshot

log = logging.getLogger(__name__)


class RankerTraining(msgspec.Struct, frozen=True, kw_only=True):
    """All that this is steered by."""

    heavy: HeavyParams = HeavyParams()
    light: LightParams = LightParams()
    feed: FeedParams = FeedParams()
    interactions: InteractionParams = InteractionParams()
    rules: RuleParams = RuleParams()
    seed: int = 1


def params_of(settings: Any) -> RankerTraining:
    """The Params of ranking among the sections of the settings."""
    return RankerTraining(
        heavy=settings.heavy,
        light=settings.light,
        feed=settings.feed,
        interactions=settings.interactions,
        rules=settings.rules,
        seed=settings.train.seed,
    )


def addition(engine: sa.Engine, data: Path, examples: Examples, params: RankerTraining, now: datetime) -> Addition:
    """What the next snapshot, made of these examples, holds for ranking; nothing where that isn't wanted or can't be had.

    Raises DataFolderError, DatabaseError.
    """
    if not (params.heavy.enabled and trees.installed()):
        return Addition({}, {})
    last = snapshots.load_newest_good(data / "snapshots", verify=False)
    counted = _counted(engine, data, last, examples.seq, params, now)
    header: dict[str, Any] = {"activity_time": counted.time}
    arrays = activity.to_arrays(counted, examples.users.keys)
    more, others = _rankers(engine, data, last, params, now)
    return Addition(header | more, arrays | others)


def _counted(
    engine: sa.Engine, data: Path, last: Snapshot | None, seq: int, params: RankerTraining, now: datetime
) -> Activity:
    """All that happened up to an event; what the last snapshot has counted isn't counted again."""
    before, after = None, 0
    if last is not None and "activity_time" in last.header:
        after = int(last.header["seq"])
        before = activity.from_arrays(last.arrays, int(last.header["activity_time"]))
    found = before or Activity(activity.nothing(), activity.nothing())
    for batch in events.batches(engine, data / "events", after_seq=after if before else 0, up_to_seq=seq):
        found = activity.counted(found, batch, params.interactions.types, to_milliseconds(now))
    return found


# --- the rankers ----------------------------------------------------------------------------------------------------------


def _rankers(
    engine: sa.Engine, data: Path, last: Snapshot | None, params: RankerTraining, now: datetime
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    if last is None:
        return {}, {}
    learned = int(last.header.get("rankers", {}).get("learned", 0))
    if now < from_milliseconds(learned) + timedelta(minutes=params.heavy.every_minutes):
        return rankers.carried(last)
    answer = timedelta(minutes=params.heavy.answer_minutes)
    found = impressions.read(engine, data / "events", params.heavy.gains, answer, now, params.heavy.max_impressions)
    if (why := heavy_learning.too_few(found, params.heavy)) is not None:
        log.info("No heavy ranker is learned: %s.", why)
        return rankers.carried(last)
    return _learned(engine, data, found, params, now)


def _learned(
    engine: sa.Engine, data: Path, found: Impressions, params: RankerTraining, now: datetime
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    heavy = heavy_learning.learn(found, params.heavy, params.seed)
    header = {
        "scheme": feature_log.SCHEME,
        "learned": to_milliseconds(now),
        "learned_from": len(found),
        "without": list(params.heavy.without),
        "keep": params.light.keep,
        "share": params.light.share,
        **heavy.quality,
    }
    log.info("%s", summary(header))
    if not header["served"]:
        return {"rankers": header}, {}
    chosen, recall = distilled(engine, data, found, heavy, params, now)
    return {"rankers": header | {"recall": recall}}, rankers.to_arrays(heavy, chosen)


def summary(header: Mapping[str, Any]) -> str:
    """What came out, in one sentence."""
    verdict = "is served" if header["served"] else "isn't served, since it is no better"
    return (
        f"The heavy ranker of {header['learned_from']} impressions {verdict}: nDCG@10 {header['ndcg'] or 0:.3f}, "
        f"by the plain score {header['plain_ndcg'] or 0:.3f}; log loss {header['loss']:.4f} and {header['plain_loss']:.4f}"
    )


def distilled(
    engine: sa.Engine, data: Path, found: Impressions, heavy: Heavy, params: RankerTraining, now: datetime
) -> tuple[Additive | None, float | None]:
    """The light ranker, and how much of the heavy one's best comes through it, for people that it didn't learn from."""
    random, learned, asked = np.random.default_rng(params.seed), [], list[Taught]()
    users = _newest_people(found, params.light.people)
    for number, one in enumerate(_scored(engine, data, users, heavy, params, now)):
        if number % 2:
            asked.append(one)
        else:
            learned.append(one.thinned(params.light.candidates, random))
    if len(asked) < 2:
        return None, None
    model = light_learning.learn(learned, params.seed)
    recall, plain = (_recall(one, asked, params.light.share) for one in (model, None))
    if recall <= plain:
        return None, plain
    asked = [one.thinned(params.light.candidates, random) for one in asked]
    return light_learning.learn(learned + asked, params.seed), recall


def _recall(light: Additive | None, asked: Sequence[Taught], share: float) -> float:
    """With this part of each one's candidates let through, however few they are: else there would be nothing to compare."""
    found = []
    for one in asked:
        part = max(int(share * len(one.raw)), 20)
        found.append(light_learning.recall(light, one, part, len(GIVEN_COLUMNS)))
    return float(np.mean(found))


def _newest_people(found: Impressions, count: int) -> NDArray[np.int64]:
    """Keys of those who were shown something last."""
    users, first = np.unique(found.user[::-1], return_index=True)
    return users[np.argsort(first, kind="stable")[:count]]


def _scored(
    engine: sa.Engine, data: Path, users: NDArray[np.int64], heavy: Heavy, params: RankerTraining, now: datetime
) -> Iterator[Taught]:
    """What the heavy ranker says of all that these people may be served."""
    live = Live(engine, data, params.interactions, params.feed.model, rules=params.rules, ranking=True)
    live.refresh(now)
    learned, keep = heavy.ranker, params.light.keep
    asked = rankers.as_asked(learned.trees)
    loaded = Rankers(learned.trees.to_bytes(), asked, learned.lean, heavy.calibration, params.heavy.without, None, keep)
    with reading(engine) as connection:
        names = identities.user_ids(connection, users.tolist())
        for key in users.tolist():
            if key not in names:
                continue
            looked = _candidates(live, live.person(connection, names[key], live.snapshot), params.feed, now)
            if len(looked) >= params.light.candidates // 10:
                yield _taught(live.state, looked, loaded, now)


def _candidates(live: Live, person: Person, feed: FeedParams, now: datetime) -> Considered:
    """What a call for this person's feed would look at."""
    state, window = live.state, person.window or timedelta(days=feed.window_days)
    asked = Wanted(person, now, window)
    judgement = scoring.judge_in(state, person, now, feed.first_items, feed.taste)
    found = finding.find(state.stock, asked, judgement, feed)
    age = Age(feed.freshness, feed.half_life_days)
    looked = considered.considered(found.pool, found.by, person, judgement, age)
    return looked.take(np.flatnonzero(wanted.allowed(found.pool, asked)))


def _taught(state: State, looked: Considered, loaded: Rankers, now: datetime) -> Taught:
    scene = Scene(looked, state.happenings, state.pool, state.snapshot, now)
    return Taught(light.columns(scene), loaded.raw(features.of(scene)))
