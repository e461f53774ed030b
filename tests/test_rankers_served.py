"""The rankers from what was shown to what is served: logged, learned, published, asked, taken over, left out."""

from __future__ import annotations

import gc
import logging
import weakref
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from feed_world import NOW, PLAIN, World, item

from palate import activity, database, feature_log, feed, rankers, snapshots, train
from palate.database import reading
from palate.domain import Event, to_milliseconds
from palate.feed_params import FeedParams
from palate.heavy_learning import HeavyParams
from palate.light_learning import LightParams
from palate.list_making import ListMaking
from palate.live import Live
from palate.models import trees
from palate.models.trees import TreeParams
from palate.ranker_training import RankerTraining
from palate.ranking import considered, feature_kernels, features, heavy, light, scoring
from palate.ranking.considered import Age
from palate.ranking.features import Scene

pytest.importorskip("catboost")
TRAINING = RankerTraining(
    heavy=HeavyParams(
        min_impressions=100,
        min_positives=20,
        plenty=20,
        trees=TreeParams(trees=20, depth=3, learning_rate=0.3),
        every_minutes=90,
    ),
    light=LightParams(candidates=100, people=4),
)
HOUR = timedelta(hours=1)


class Shelf(World):
    """People open what has two labels, and nothing else; no model of taste knows of labels' number."""

    def __init__(self, data: Path) -> None:
        engine = database.connect(None, data)
        database.migrate(engine)
        super().__init__(engine, data, Live(engine, data, ranking=True))
        of_one = [item(f"one-{number}", f"s{number % 3}", "tea") for number in range(20)]
        of_two = [item(f"two-{number}", f"s{number % 3}", "tea", "cup") for number in range(20)]
        self.add(*of_one, *of_two)
        for number in range(30):
            self.visit(f"u{number}", number)

    def visit(self, user: str, number: int) -> None:
        now, chosen = NOW + timedelta(minutes=number), self.rng.permutation(20)[:8]
        ids = [f"{kind}-{one}" for one in chosen for kind in ("one", "two")]
        self.live.refresh(now)
        happened: list[Event] = []
        feed.rank(self.live, user, ids, now, PLAIN, append=happened.extend)
        acts = [("opened", id) for id in ids if id.startswith("two")] + [("like", ids[number % 2])]
        happened += [Event(user=user, item=id, type=type, time=to_milliseconds(now)) for type, id in acts]
        self.append(happened, now)

    def learn(self, after: timedelta, training: RankerTraining = TRAINING) -> None:
        train.learn(self.engine, self.data, train.Params(), NOW + after, ListMaking(), rankers=training)
        self.live.refresh(NOW + after)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    shelf = Shelf(tmp_path_factory.mktemp("shelf") / "data")
    shelf.learn(3 * HOUR)
    shelf.learn(5 * HOUR)
    return shelf


def shown(shelf: World, request: str | None = None) -> list[Event]:
    return [event for event in shelf.logged if event.type == "shown" and request in (None, event.request)]


def test_what_is_shown_is_logged_with_what_was_known_of_it(shelf: Shelf) -> None:
    found, good = feature_log.read([event.features for event in shown(shelf)])
    assert good.all()
    labels = found[:, feature_log.NAMES.index("labels")]
    assert labels.tolist() == [1 + event.item.startswith("two") for event in shown(shelf)]


def test_the_log_knows_no_later_than_the_moment(shelf: Shelf) -> None:
    first = shown(shelf)[:16]
    found, _ = feature_log.read([event.features for event in first])
    for name in ("item_viewed_ever", "item_shown_ever", "item_liked_ever", "history_length"):
        assert not found[:, feature_log.NAMES.index(name)].any()
    last, _ = feature_log.read([event.features for event in shown(shelf)[-16:]])
    assert last[:, feature_log.NAMES.index("item_shown_ever")].all()


def test_the_snapshot_holds_rankers_and_how_they_did(shelf: Shelf) -> None:
    snapshot = shelf.live.snapshot
    assert snapshot is not None
    found = snapshot.header["rankers"]
    assert found["served"]
    assert found["ndcg"] > found["plain_ndcg"]
    assert next(iter(found["importances"])) in ("labels", "same_label_met", "same_label_liked")
    assert snapshot.arrays["heavy_trees"].dtype == np.uint8


def test_the_feed_and_given_items_are_in_their_order(shelf: Shelf) -> None:
    asks_nothing = FeedParams(exploration=0, questions=0)
    served = shelf.serve("somebody else", 8, asks_nothing, NOW + 5 * HOUR, log=False).items
    assert [place.item.id[:3] for place in served] == ["two"] * 8
    ranked, _ = feed.rank(shelf.live, "u1", ["one-3", "two-3", "one-4", "two-4"], NOW + 5 * HOUR, PLAIN)
    assert [id[:3] for id, _ in ranked] == ["two", "two", "one", "one"]
    scores = [score for _, score in ranked]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.7 > scores[-1]


def test_whether_and_how_far_the_rankers_are_asked_is_a_setting_of_each_call(shelf: Shelf) -> None:
    every = [f"{kind}-{number}" for number in range(20) for kind in ("one", "two")]

    def ranked(**settings: Any) -> list[tuple[str, float]]:
        return feed.rank(shelf.live, "u1", every, NOW + 5 * HOUR, msgspec.structs.replace(PLAIN, **settings))[0]

    state, heavy = shelf.live.state, ranked()
    assert ranked(keep=40) == heavy
    three = ranked(keep=3)
    assert all(score == pytest.approx(dict(heavy)[id]) for id, score in three[:3])
    assert max(score for _, score in three[3:]) <= min(score for _, score in three[:3])
    assert three != heavy
    try:
        shelf.live.state = replace(state, rankers=None)
        plain = ranked()
    finally:
        shelf.live.state = state
    assert ranked(ranker="score") == plain != heavy


def scene_of(shelf: Shelf, user: str) -> Scene:
    """All items before somebody who comes an hour after the last cycle."""
    state, now = shelf.live.state, NOW + 6 * HOUR
    with reading(shelf.engine) as connection:
        person = shelf.live.person(connection, user, state.snapshot)
    judgement = scoring.judge(state.pool, state.snapshot, person, now, 0, PLAIN.taste)
    unfound = np.zeros(len(state.pool), np.uint16)
    looked = considered.considered(state.pool, unfound, person, judgement, Age(0.3, 2.0))
    return Scene(looked, state.happenings, state.pool, state.snapshot, now)


def test_the_light_ranker_is_told_what_the_heavy_one_is(shelf: Shelf) -> None:
    scene = scene_of(shelf, "u3")
    places = feature_log.columns(rankers.LIGHT_COLUMNS)
    expected = np.nan_to_num(features.of(scene)[:, places]).T
    np.testing.assert_allclose(light.columns(scene), expected, rtol=1e-5, atol=1e-5)
    bits = np.arange(len(scene.looked)).astype(np.uint16) * 37
    found = replace(scene, looked=replace(scene.looked, found=bits))
    expected = np.nan_to_num(features.of(found)[:, places]).T
    np.testing.assert_allclose(light.columns(found), expected, rtol=1e-5, atol=1e-5)
    cold = replace(scene.happenings, hot=activity.nothing())
    told = dict(zip(rankers.LIGHT_COLUMNS, light.columns(replace(scene, happenings=cold)), strict=True))
    assert not told["item_viewed_day"].any()


def test_without_rankers_what_the_model_cant_know_goes_by_what_is_viewed(shelf: Shelf) -> None:
    scene = scene_of(shelf, "u3")
    pool, hour = scene.looked.pool, feature_log.NAMES.index("item_viewed_hour")
    said: Any = SimpleNamespace(content=None)
    learned = np.where(np.arange(len(pool)) % 2, pool.learned, -1).astype(np.int32)
    unknown = replace(pool, model=replace(pool.model, ranker=said), learned=learned)
    flat = np.full(len(pool), 0.2, np.float32)
    blind = replace(scene, looked=replace(scene.looked, pool=unknown, scores=flat, values=flat))
    found = heavy.ranked(blind, np.ones(len(pool), bool), None).looked
    assert (found.values[1::2] == flat[1::2]).all()
    viewed = features.of(scene)[::2, hour]
    assert np.ptp(viewed) > 0
    np.testing.assert_allclose(
        features.log_odds(found.values[::2]) - features.log_odds(flat[::2]), 2 * viewed, atol=1e-3
    )
    assert heavy.ranked(scene, np.ones(len(pool), bool), None).looked is scene.looked


def test_shares_are_of_all_that_is_viewed(shelf: Shelf) -> None:
    share = features.of(scene_of(shelf, "u3"))[:, feature_log.NAMES.index("item_share_day")]
    assert np.exp(share).sum() == pytest.approx(1, abs=0.05)


def test_what_the_light_ranker_leaves_out_stands_behind(shelf: Shelf) -> None:
    every = [f"{kind}-{number}" for number in range(20) for kind in ("one", "two")]
    state, whole = shelf.live.state, feed.rank(shelf.live, "u1", every, NOW + 5 * HOUR, PLAIN)[0]
    assert state.rankers is not None
    try:
        shelf.live.state = replace(state, rankers=replace(state.rankers, keep=10))
        ranked, _ = feed.rank(shelf.live, "u1", every, NOW + 5 * HOUR, PLAIN)
    finally:
        shelf.live.state = state
    chosen, left = dict(ranked[:10]), dict(ranked[10:])
    assert set(chosen) | set(left) == set(every)
    assert all(score == pytest.approx(dict(whole)[id]) for id, score in chosen.items())
    assert max(left.values()) <= min(chosen.values())


def test_the_light_ranker_lets_a_part_through_but_never_very_few(shelf: Shelf) -> None:
    found = shelf.live.state.rankers
    assert found is not None
    assert found.light is not None
    given = replace(found, keep=1_000, share=0.05)
    assert [given.let_through(count) for count in (30, 3_000, 15_000, 90_000)] == [400, 400, 750, 1_000]
    assert replace(given, light=None).let_through(3_000) == 1_000, "By the plain score more is let through."


def test_nothing_of_a_snapshot_with_rankers_stays_when_the_next_one_comes(shelf: Shelf) -> None:
    before = shelf.live.snapshot
    assert before is not None
    shelf.serve("u4", 5, log=False)
    feed.rank(shelf.live, "u5", ["one-3", "two-3"], NOW, PLAIN)
    arrays = {name: np.array(array) for name, array in before.arrays.items()}
    old = [weakref.ref(array) for array in before.arrays.values()]
    snapshots.publish(shelf.data / "snapshots", before.header | {"created": before.header["created"] + 1}, arrays)
    shelf.live.refresh(NOW + 5 * HOUR)
    assert shelf.live.snapshot is not before
    del before
    gc.collect()
    assert not [array for array in old if array() is not None]


def test_an_answer_that_is_shown_is_logged_in_its_order(shelf: Shelf) -> None:
    before, taken = len(shelf.logged), list[Event]()
    ranked, _ = feed.rank(shelf.live, "u2", ["one-3", "two-3", "nobody knows it"], NOW, PLAIN, append=taken.extend)
    assert [event.item for event in taken] == [id for id, _ in ranked]
    assert [event.position for event in taken] == [0, 1, 2]
    assert len({event.request for event in taken}) == 1
    assert all(event.features for event in taken)
    assert len(shelf.logged) == before


def test_the_next_snapshot_takes_them_over_until_they_are_due(shelf: Shelf) -> None:
    first = shelf.live.snapshot
    shelf.learn(6 * HOUR)
    second = shelf.live.snapshot
    assert first is not None
    assert second is not None
    assert second.version != first.version
    assert second.header["rankers"] == first.header["rankers"]
    np.testing.assert_array_equal(second.arrays["heavy_trees"], first.arrays["heavy_trees"])


def test_counts_of_a_snapshot_and_of_what_came_since_are_those_of_all(shelf: Shelf) -> None:
    key, moment = shelf.keys("two-5")[0], int((NOW + 6 * HOUR).timestamp() * 1000)
    before = shelf.live.state.happenings.of_items(np.array([key]), moment)[0, 2, 3]
    shelf.act("u3", "like", "two-5", now=NOW + 6 * HOUR)
    shelf.live.refresh(NOW + 6 * HOUR)
    assert shelf.live.state.happenings.of_items(np.array([key]), moment)[0, 2, 3] == pytest.approx(before + 1)
    shelf.act("u3", "retract:like", "two-5", now=NOW + 6 * HOUR)
    shelf.live.refresh(NOW + 6 * HOUR)
    found = shelf.live.state.happenings.of_items(np.array([key]), moment)
    assert found[0, 2, 3] == pytest.approx(before)
    assert (found >= 0).all()


def test_who_is_deleted_is_counted_no_more(shelf: Shelf) -> None:
    folder = shelf.data / "snapshots"
    snapshot = snapshots.load(folder)
    assert len(snapshot.arrays["activity_users"]) == len(snapshot.arrays["users"])
    snapshots.forget_user(folder, snapshot.arrays["users"][:1])
    after = snapshots.load(folder)
    assert len(after.arrays["activity_users"]) == len(after.arrays["users"]) == len(snapshot.arrays["users"]) - 1
    np.testing.assert_array_equal(after.arrays["activity_users"], snapshot.arrays["activity_users"][1:])


def test_rankers_that_cant_be_asked_leave_the_plain_score(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    snapshot = snapshots.load(shelf.data / "snapshots")
    assert rankers.load(snapshot) is not None
    other = snapshot.header["rankers"] | {"scheme": 0}
    assert rankers.load(_with(snapshot, header=snapshot.header | {"rankers": other})) is None
    older = {name: array for name, array in snapshot.arrays.items() if name != "heavy_lean"}
    found = rankers.load(_with(snapshot, arrays=older))
    assert found is not None
    assert found.lean.slope == 0
    broken = snapshot.arrays | {"heavy_forest_leaves": snapshot.arrays["heavy_forest_leaves"][:1]}
    with caplog.at_level(logging.WARNING):
        assert rankers.load(_with(snapshot, arrays=broken)) is None
    assert "can't be used" in caplog.text
    assert rankers.load(None) is None


def test_who_serves_needs_no_catboost_but_for_the_parts(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "installed", lambda: False)
    found = rankers.load(shelf.live.snapshot)
    assert found is not None
    told = np.zeros((2, len(feature_log.NAMES)), np.float32)
    assert found.raw(told).tolist() == [found.raw(told)[0]] * 2
    assert found.parts(told) == [(), ()]


def _with(snapshot: snapshots.Snapshot, **changed: Any) -> snapshots.Snapshot:
    return snapshots.Snapshot(**{**vars(snapshot), **changed})


def test_switched_off_nothing_is_logged_or_learned(tmp_path: Path) -> None:
    engine = database.connect(None, tmp_path)
    database.migrate(engine)
    world = World(engine, tmp_path, Live(engine, tmp_path))
    world.add(item("tea", "s1"))
    world.serve("ann")
    assert [event.features for event in shown(world)] == [None]
    world.act("ann", "like", "tea")
    off = msgspec.structs.replace(TRAINING, heavy=HeavyParams(enabled=False))
    train.learn(engine, tmp_path, train.Params(), NOW + HOUR, ListMaking(), rankers=off)
    assert not [name for name in snapshots.load(tmp_path / "snapshots").arrays if name.startswith("activity")]


def test_the_parts_of_an_items_score_say_what_sets_it_apart(shelf: Shelf) -> None:
    served = shelf.serve("u3", 6, now=NOW + 5 * HOUR, explain=True, log=False)
    found = rankers.load(shelf.live.snapshot)
    assert found is not None
    told, _ = feature_log.read([place.features for place in served.items])
    raw, sums = found.raw(told), np.array([sum(part.adds for part in place.parts) for place in served.items])
    assert raw - sums == pytest.approx((raw - sums).mean(), abs=1e-6)
    weights = [abs(part.adds) for part in served.items[0].parts]
    assert weights == sorted(weights, reverse=True)
    assert all(not place.parts for place in shelf.serve("u3", 6, now=NOW + 5 * HOUR, log=False).items)


@pytest.mark.parametrize("user", ["u3", "somebody else", "nobody"])
def test_machine_code_tells_the_columns_that_reading_tells(shelf: Shelf, user: str) -> None:
    scene = scene_of(shelf, user)
    pool, found = scene.looked.pool, np.arange(len(scene.looked), dtype=np.uint16) % 64
    choosy = replace(
        scene.looked.person,
        followed=(pool.sources.values[-1],),
        topics=tuple(pool.label_names.values[:1]),
        languages=tuple(pool.languages.values[:1]) or ("en",),
    )
    chosen = replace(scene.looked, found=found, person=choosy)
    for looked in (scene.looked, chosen, scene.looked.take(np.arange(0, 40, 7))):
        some = replace(scene, looked=looked)
        told, plain = feature_kernels.of(some), features.of(some)
        for place, name in enumerate(feature_log.NAMES):
            np.testing.assert_allclose(told[:, place], plain[:, place], rtol=1e-4, atol=1e-5, err_msg=name)
