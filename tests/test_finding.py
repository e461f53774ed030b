from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import NOW, PLAIN, World, item
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import catalog, feed, finding, live, people, returning, snapshots, stock
from palate.candidates import found, groups, walking
from palate.candidates.candidate_params import CandidateParams
from palate.candidates.wanted import Wanted
from palate.database import reading, writing
from palate.domain import RankedItem
from palate.models import indexing
from palate.models.nearest import IndexParams
from palate.orders import grouped, packed
from palate.ranking import features
from palate.ranking.scoring import Judgement

ITEMS = 240
PUBLISH = snapshots.publish
FEW = CandidateParams(exact=0, behaviour=80, popular=10, trending=10, fresh=10, followed=10, new=10, of_group=3)
NEAR = msgspec.structs.replace(PLAIN, find=FEW, candidates=20, window_days=30.0, questions=0)
ALL = msgspec.structs.replace(NEAR, find=CandidateParams())


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Items of eight sources in a circle of tastes, kept as if they were very many."""
    monkeypatch.setattr(stock, "SPLIT", 1)
    monkeypatch.setattr(live, "prepare", lambda items: stock.prepare(items, 1))
    monkeypatch.setattr(live, "changed", partial(stock.changed, split=1))

    def with_index(folder: Path, header: dict[str, object], arrays: dict[str, np.ndarray]) -> str:
        made = indexing.arrays({"fm": None}, arrays, IndexParams(least=1, flat_below=1, lists=6))
        assert list(made) == ["index_fm", "turn_fm"]
        return PUBLISH(folder, header, arrays | made)

    monkeypatch.setattr(snapshots, "publish", with_index)
    made = World(engine, tmp_path)
    made.add(*(item(f"i{n}", f"s{n % 8}", f"l{n % 3}", hours=1 + n / 10) for n in range(ITEMS)))
    angles = np.arange(ITEMS) * 0.61
    vectors = {f"i{n}": [float(np.cos(angle)) / 4, float(np.sin(angle)) / 4] for n, angle in enumerate(angles)}
    popularity = {f"i{n}": (0.3 + n % 50 / 100, float(n % 9)) for n in range(ITEMS)}
    users = {"ann": ([0.9, 0.4], 0.0, {"i5": 1.0, "i13": 1.0, "i77": 0.0})}
    made.publish(vectors, popularity=popularity, users=users)
    return made


def ids(places: Sequence[RankedItem]) -> list[str]:
    return [place.item.id for place in places]


def test_candidates_hold_what_looking_at_everything_would_serve(world: World) -> None:
    every = world.serve("ann", 10, ALL, log=False)
    near = world.serve("ann", 10, NEAR, log=False)
    assert ids(near.items) == ids(every.items)
    assert not any(place.found for place in every.items)
    assert all(set(place.found) <= set(found.NAMES) and place.found for place in near.items)
    assert sum("behaviour" in place.found for place in near.items) >= 6
    looked = len(finding.find(world.live.state.stock, *asked(world, "ann"), NEAR).pool)
    assert looked < ITEMS


def asked(world: World, user: str) -> tuple[Wanted, Judgement]:
    with reading(world.engine) as connection:
        person = world.live.person(connection, user, world.live.snapshot)
    judged = feed._judge(world.live.state, person, NOW, NEAR)
    return Wanted(person, NOW, timedelta(days=30)), judged


def test_somebody_new_gets_what_everybody_likes_as_if_all_had_been_looked_at(world: World) -> None:
    assert ids(world.serve("eve", 10, NEAR, log=False).items) == ids(world.serve("eve", 10, ALL, log=False).items)


def test_a_new_item_is_found_by_the_people_it_fits_at_once(world: World) -> None:
    world.act("bob", "like", "i5", "i13", "i21", "i29")
    world.add(item("news", "s5", "l2", hours=0.1), now=NOW + timedelta(seconds=1))
    assert len(world.live.state.stock.side) == 1
    served = world.serve("bob", 10, NEAR, now=NOW + timedelta(seconds=2)).items
    (news,) = (place for place in served if place.item.id == "news")
    assert "new" in news.found


def test_what_was_deleted_or_met_is_no_candidate(world: World) -> None:
    first = ids(world.serve("ann", 5, NEAR).items)
    second = ids(world.serve("ann", 5, NEAR).items)
    assert not set(first) & set(second)
    late = NOW + timedelta(minutes=5)
    world.live.refresh(late)
    gone = ids(world.serve("ann", 1, NEAR, log=False).items)[0]
    with writing(world.engine) as connection:
        catalog.delete(connection, gone, late)
    world.live.refresh(late)
    assert len(world.live.state.stock) == ITEMS - 1
    assert gone not in ids(world.serve("ann", 20, NEAR).items)


def test_a_session_goes_on_until_everything_was_given(world: World) -> None:
    given: list[str] = []
    cursor = None
    for _ in range(30):
        page = world.serve("ann", 10, NEAR, cursor=cursor)
        given, cursor = given + ids(page.items), page.cursor
        if not page.items:
            break
    assert len(given) == len(set(given))
    assert len(given) >= ITEMS - 3 - 60  # ways look no deeper than they are told


def test_the_feed_goes_on_without_an_index_that_cant_be_read(world: World, caplog: pytest.LogCaptureFixture) -> None:
    snapshot = world.live.snapshot
    assert snapshot is not None
    arrays = {name: np.array(array) for name, array in snapshot.arrays.items() if not name.startswith("index_")}
    broken = np.frombuffer(b"what another version of the library wrote" * 9, np.uint8)
    header = {name: value for name, value in snapshot.header.items() if name not in ("arrays", "version", "format")}
    PUBLISH(world.data / "snapshots", header, arrays | {"index_fm": broken})
    world.live.refresh(NOW)
    assert world.live.state.stock.base.space is None
    assert caplog.text.count("without the index") == 1
    assert len(world.serve("ann", 10, NEAR).items) == 10


def test_every_way_is_told_to_the_rankers() -> None:
    assert {way for ways in features.FOUND.values() for way in ways} == set(found.NAMES)


def test_groups_are_near_of_which_more_was_taken_to_than_of_all() -> None:
    source = np.array([0, 0, 0, 1, 1, 2, 2, 2, -1])
    positive = np.array([1, 1, 0, 0, 0, 1, 0, 0, 1], bool)
    assert groups.nearest(source, positive, 1).tolist() == [0]
    assert 1 not in groups.nearest(source, positive, 3)
    assert not len(groups.nearest(source, np.zeros(9, bool), 2))
    assert groups.nearest(np.array([4, 4]), np.ones(2, bool), 2).tolist() == [4]


def test_an_order_is_walked_only_as_far_as_it_takes() -> None:
    order = np.array([4, 0, 3, 1, 2], np.int32)
    bits = packed(np.array([True, False, True, True, False]))
    assert walking.first(order, bits, 2).tolist() == [0, 3]
    assert walking.first(order, bits, 9).tolist() == [0, 3, 2]
    together = grouped(order, np.array([0, 1, 0, 1, 1]), 2)
    assert together.of(1).tolist() == [4, 3, 1]
    assert walking.of_groups(together, np.array([1, 0, 7]), bits, 1).tolist() == [3, 0]


@given(seed=st.integers(0, 2**32 - 1), limit=st.integers(0, 12), closed=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_walking_in_machine_code_finds_what_reading_finds(seed: int, limit: int, closed: float) -> None:
    random = np.random.default_rng(seed)
    order, bits = random.permutation(90).astype(np.int32), packed(random.random(90) > closed)
    np.testing.assert_array_equal(walking.first(order, bits, limit), walking.readable_first(order, bits, limit))
    together, numbers = grouped(order, random.integers(-1, 5, 90), 5), random.permutation(7) - 1
    plain = walking.readable_of_groups(together, numbers, bits, limit)
    np.testing.assert_array_equal(walking.of_groups(together, numbers, bits, limit), plain)


def test_ways_that_are_switched_off_find_nothing(world: World) -> None:
    names = set(CandidateParams.__struct_fields__) - {"exact", "probes"}
    none = msgspec.structs.replace(FEW, **dict.fromkeys(names, 0))
    served = world.serve("ann", 10, msgspec.structs.replace(NEAR, find=none)).items
    assert {way for place in served for way in place.found} <= {"popular", "fresh"}  # of which lists need some


def test_what_a_persons_own_labels_lift_is_found_though_it_is_old_and_lies_badly(world: World) -> None:
    world.act("cleo", "like", *(f"i{n}" for n in range(0, 60, 3)))
    world.act("cleo", "dislike", *(f"i{n}" for n in range(1, 60, 3)))
    few = msgspec.structs.replace(NEAR, find=msgspec.structs.replace(FEW, probes=1, behaviour=20))
    every, near = (world.serve("cleo", 8, params, log=False).items for params in (ALL, few))
    assert len(set(ids(every)) & set(ids(near))) >= 7
    assert any("near" in place.found for place in near)


def test_who_was_shown_much_is_still_served_the_best_of_what_is_left(world: World) -> None:
    world.act("ann", "shown", *ids(world.serve("ann", 60, ALL, log=False).items))
    every, near = (world.serve("ann", 10, params, log=False).items for params in (ALL, NEAR))
    assert ids(near) == ids(every)


def test_who_has_met_much_is_looked_for_in_more_lists_but_never_in_all() -> None:
    def probes(met: int) -> int:
        return finding._probes(live.History(np.arange(met), np.zeros(met, np.float32), np.zeros(met, np.float32)), FEW)

    assert [probes(met) - FEW.probes for met in (0, 2, 3, 300)] == [0, 0, 1, 100]
    assert probes(1_000_000) == 8 * FEW.probes


# --- who comes again a moment later ---------------------------------------------------------------------------------------


@pytest.fixture
def sought(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for each time that candidates were sought anew."""
    times: list[str] = []
    real = finding.find

    def find(*given: object) -> finding.Found:
        times.append("sought")
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(finding, "find", find)
    return times


def test_the_next_pages_of_a_moment_are_those_that_seeking_anew_would_serve(world: World, sought: list[str]) -> None:
    for second in range(5):
        now = NOW + timedelta(seconds=second)
        every = ids(world.serve("ann", 10, ALL, now=now, log=False).items)
        assert ids(world.serve("ann", 10, NEAR, now=now).items) == every
    assert len(sought) == 5 + 1, "Pages beyond the first are of what was found for it."


@pytest.mark.parametrize("what", ["a vote", "a view", "a language", "a minute", "a hidden source", "named items"])
def test_candidates_are_sought_anew_after(what: str, world: World, sought: list[str]) -> None:
    world.serve("ann", 5, NEAR)
    later, asked = NOW + timedelta(seconds=5), dict[str, Any]()
    match what:
        case "a vote":
            world.act("ann", "like", "i30")
        case "a view":
            world.act("ann", "viewed", "i30")
        case "a language":
            asked = {"language": "en"}
        case "a minute":
            later = NOW + timedelta(seconds=61)
        case "a hidden source":
            with writing(world.engine) as connection:
                key = people.identify(connection, "ann").key  # type: ignore[union-attr]
                people.choose_source(connection, key, world.live.pool.sources.values[2], "hidden", NOW)
        case "named items":
            asked = {"exclude": frozenset({"i3"})}
    served = world.serve("ann", 5, NEAR, now=later, **asked)
    assert len(sought) == 2
    assert what != "a hidden source" or all(place.item.source != "s2" for place in served.items)


def test_what_comes_and_goes_between_two_pages_is_seen_in_the_next(world: World, sought: list[str]) -> None:
    moment, later = (NOW + timedelta(minutes=5, seconds=second) for second in (0, 3))
    world.add(item("old news", "s5", "l2", hours=200), now=moment)  # after which what came before isn't read again
    first = ids(world.serve("ann", 5, NEAR, now=moment).items)
    second = ids(world.serve("ann", 2, NEAR, now=moment, log=False).items)
    gone, stays = world.keys(*second)
    sought.clear()
    with writing(world.engine) as connection:
        catalog.delete(connection, second[0], later)
    world.add(item("news", "s5", "l2", hours=0.1), now=later)
    wanted, state = replace(asked(world, "ann")[0], now=later), world.live.state
    judgement = feed._judge_again(world.live, state, wanted.person, later, NEAR)
    keys = returning.find(world.live.candidates, state.stock, wanted, judgement, NEAR).pool.keys.tolist()
    assert {stays, *world.keys("news")} <= set(keys)
    assert gone not in keys
    assert not set(first) & set(ids(world.serve("ann", 5, NEAR, now=later).items))
    assert not sought


def test_nothing_keeps_a_snapshot_that_was_replaced(world: World) -> None:
    names = [f"i{n}" for n in range(ITEMS)]
    for user in ("ann", "bob"):
        world.act(user, "like", "i5", "i30")
        world.serve(user, 10, NEAR)
        feed.rank(world.live, user, names[:20], NOW, NEAR)
    assert world.live.snapshot is not None
    old = [weakref.ref(array) for array in world.live.snapshot.arrays.values()]
    world.publish({id: [0.1, 0.2] for id in names})
    world.serve("eve", 10, NEAR)
    gc.collect()
    assert not [array for array in old if array() is not None], "Its files stay on the disk as long as they are mapped."
