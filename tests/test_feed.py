from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import NOW, PLAIN, World, item, of_kinds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate import catalog, editions, feed, identities, people
from palate.database import reading, writing
from palate.domain import Event, Feed, FeedRequest, Item
from palate.editions import EditionParams
from palate.errors import InvalidCursor, InvalidInput, NotDurable
from palate.feed_params import FeedParams
from palate.interactions import InteractionParams
from palate.live import Live
from palate.surface_params import SurfaceParams


@pytest.fixture
def world(engine: sa.Engine, data: Path) -> World:
    return World(engine, data)


def kinds(ids: list[str]) -> list[str]:
    return [id.split("-")[0] for id in ids]


def choose(world: World, user: str, **choices: Any) -> int:
    with writing(world.engine) as connection:
        key = identities.user_keys(connection, [user], NOW)[user]
        people.set_choices(connection, key, people.Choices(**choices))
    return key


def source_key(world: World, id: str) -> int:
    with reading(world.engine) as connection:
        stored = catalog.get(connection, id)
    assert stored is not None
    assert stored.source_key is not None
    return stored.source_key


# Before anybody has judged anything


def test_without_a_model_the_newest_come_first_spread_over_sources(world: World) -> None:
    world.add(
        *(item(f"a{n}", "loud", hours=1 + n / 100) for n in range(8)),
        *(item(f"b{n}", "quiet", hours=2 + n) for n in range(3)),
    )
    served = world.serve("ann", 5)
    assert served.items[0].item.id == "a0"
    assert {place.item.source for place in served.items[:4]} == {"loud", "quiet"}
    assert served.snapshot is None


def test_an_empty_installation_gives_an_empty_feed(world: World) -> None:
    served = world.serve("ann")
    assert served.items == ()
    assert world.logged == []
    assert world.serve("ann", cursor=served.cursor).items == ()


def test_one_like_bends_the_very_next_call_without_any_model(world: World) -> None:
    world.add(*of_kinds(30, "cats", "cars", "code"))
    before = kinds(world.ids("ann", log=False))
    first = next(id for id in world.ids("ann") if id.startswith("cats"))
    world.act("ann", "like", first)
    after = kinds(world.ids("ann"))
    assert after.count("cats") > before.count("cats")


def test_one_like_does_not_fill_the_page_with_its_kind_and_five_bring_more(world: World) -> None:
    world.add(*of_kinds(40, "cats", "cars", "code"))
    world.act("ann", "like", "cats-0")
    assert 8 <= kinds(world.ids("ann", log=False)).count("cats") <= 13
    world.act("ann", "like", "cats-1", "cats-2", "cats-3", "cats-4")
    assert kinds(world.ids("ann", log=False)).count("cats") > 13


def test_a_dislike_lowers_what_is_alike(world: World) -> None:
    world.add(*of_kinds(30, "cats", "cars"))
    world.act("ann", "like", "cats-0")
    world.act("ann", "dislike", "cars-0")
    after = kinds(world.ids("ann"))
    assert after.count("cats") > 2 * after.count("cars")


def test_taking_a_like_back_restores_the_scores(world: World) -> None:
    world.add(*of_kinds(5, "cats", "cars"))
    ids = ["cats-1", "cars-1", "cars-2"]
    world.act("ann", "shown", "cats-0")
    before, _ = feed.rank(world.live, "ann", ids, NOW, PLAIN)
    world.act("ann", "like", "cats-0")
    liked, _ = feed.rank(world.live, "ann", ids, NOW, PLAIN)
    world.act("ann", "retract:like", "cats-0", now=NOW + timedelta(seconds=1))
    after, _ = feed.rank(world.live, "ann", ids, NOW, PLAIN)
    assert liked != before
    assert after == before


# With a model


def trained(world: World, count: int = 30) -> None:
    """Two kinds that only their vectors tell apart."""
    items = [item(f"{kind}-{n}", f"s{n % 3}", hours=1 + n / 10) for n in range(count) for kind in ("tea", "rum", "ale")]
    world.add(*items)
    corner = {"tea": [1.0, 0.0, 0.0], "rum": [0.0, 1.0, 0.0], "ale": [0.0, 0.0, 1.0]}
    world.publish({one.id: corner[one.id.split("-")[0]] for one in items}, users={"old": ([0.0, 0.3, 0.0], 0.0, {})})


def test_a_like_raises_the_share_of_its_kind_by_the_vectors_alone(world: World) -> None:
    trained(world)
    before = kinds(world.ids("ann", log=False))
    world.act("ann", "like", "tea-0", "tea-1", "tea-2", "tea-3", "tea-4")
    after = kinds(world.ids("ann"))
    assert after.count("tea") > 15 > before.count("tea")


def test_the_vector_of_the_snapshot_is_where_a_known_person_starts(world: World) -> None:
    trained(world)
    world.act("old", "dislike", "ale-29")  # by their votes, not by what everybody likes
    assert kinds(world.ids("old", 10)) == ["rum"] * 10


def test_the_score_is_a_probability_and_near_what_was_learned(world: World) -> None:
    trained(world)
    world.act("old", "dislike", "ale-29")
    ranked, version = feed.rank(world.live, "old", ["tea-5", "rum-5"], NOW, PLAIN)
    assert version == world.live.pool.model.version
    scores = dict(ranked)
    assert 0.6 < scores["rum-5"] < 0.8
    assert 0.3 < scores["tea-5"] < 0.5


# Somebody new


def test_a_new_person_gets_what_everybody_likes_spread_over_sources(world: World) -> None:
    items = [item(f"{source}{n}", source) for source in ("x", "y", "z") for n in range(30)]
    world.add(*items)
    liked = {one.id: (0.9 if one.source == "x" else 0.7, 20.0) for one in items if int(one.id[1:]) < 10}
    world.publish({one.id: [0.0] for one in items}, popularity=liked)
    ids = world.ids("ann", 12)
    assert set(ids) <= set(liked)
    assert ids[0].startswith("x")
    assert {id[0] for id in ids[:4]} == {"x", "y", "z"}
    assert sum(id[0] == "x" for id in ids) < 8


def test_after_the_first_items_a_person_without_votes_is_new_no_longer(world: World) -> None:
    items = [item(f"i{n}", "s") for n in range(60)]
    world.add(*items)
    world.publish({one.id: [0.0] for one in items}, popularity={"i58": (0.9, 9.0)}, bias={"i59": 0.3})
    params = FeedParams(exploration=0, first_items=30)
    assert world.ids("ann", 1, params=params, log=False) == ["i58"]
    world.act("ann", "shown", *(f"i{n}" for n in range(29)))
    assert world.ids("ann", 1, params=params, log=False) == ["i58"]
    world.act("ann", "shown", "i29")
    assert world.ids("ann", 1, params=params, log=False) == ["i59"]


def test_a_new_person_starts_with_all_the_topics_they_chose(world: World) -> None:
    world.add(*of_kinds(20, "cats", "cars", "code", "cake"))
    choose(world, "ann", topics=("cats", "code"))
    served = kinds(world.ids("ann", 12))
    assert set(served) == {"cats", "code"}
    assert 4 <= served.count("cats") <= 8


def test_when_chosen_topics_run_out_the_rest_follows(world: World) -> None:
    world.add(*of_kinds(3, "cats", "cars"))
    choose(world, "ann", topics=("cats",))
    assert sorted(kinds(world.ids("ann", 6))) == ["cars"] * 3 + ["cats"] * 3


# Questions to a new person


def known_kinds(world: World, **counts: int) -> None:
    """So many items of each kind, well known; kinds differ by their vectors alone, and each is liked less than the one before."""
    items = [item(f"{kind}-{n}", f"s{n % 3}", hours=5) for kind, count in counts.items() for n in range(count)]
    world.add(*items)
    corner = dict(zip(counts, np.eye(len(counts)).tolist(), strict=True))
    liked = {kind: 0.9 - 0.1 * place for place, kind in enumerate(counts)}
    kind_of = {one.id: one.id.split("-")[0] for one in items}
    world.publish(
        {id: corner[kind] for id, kind in kind_of.items()},
        bias={id: liked[kind] - 0.5 for id, kind in kind_of.items()},
        popularity={id: (liked[kind], 20.0) for id, kind in kind_of.items()},
    )


def questions(served: Feed) -> list[str]:
    return [place.item.id for place in served.items if place.reasons[0].kind == "ask"]


def test_one_item_in_three_asks_a_new_person_and_says_so(world: World) -> None:
    known_kinds(world, tea=12, rum=8, ale=4)
    first = world.serve("ann", 4)
    asked = [place for place in first.items if place.reasons[0].kind == "ask"]
    assert [place.position for place in asked] == [1]
    assert asked[0].reasons[0].text == "Your vote on it tells much about what else you like"
    second = world.serve("ann", 4, cursor=first.cursor)
    assert [place.position for place in second.items if place.reasons[0].kind == "ask"] == [4, 7]
    assert len({place.item.id for page in (first, second) for place in page.items}) == 8
    assert questions(world.serve("ann", 8, FeedParams(exploration=0, questions=0), log=False)) == []


def test_different_first_votes_lead_to_different_next_questions(world: World) -> None:
    known_kinds(world, tea=12, rum=8, ale=4)
    world.act("ann", "like", "tea-0", "tea-1", "tea-2", "tea-3")
    world.act("bob", "like", "rum-0", "rum-1", "rum-2", "rum-3")
    assert kinds(questions(world.serve("ann", 3))) == ["rum"]
    assert kinds(questions(world.serve("bob", 3))) == ["tea"]


def test_who_has_voted_enough_is_asked_nothing_and_nothing_is_asked_that_few_have_judged(world: World) -> None:
    known_kinds(world, tea=12, rum=8)
    world.add(item("new", "s1"))
    world.act("ann", "like", "tea-0", "tea-1")
    assert len(questions(world.serve("ann", 9, FeedParams(exploration=0, questions=2), log=False))) == 0
    asked = questions(world.serve("ann", 9, FeedParams(exploration=0, questions=3), log=False))
    assert len(asked) == 1
    assert asked != ["new"]


def votes_until_found(world: World, user: str, wanted: str, params: FeedParams) -> int:
    """How many votes on the very next item it takes until something of the only wanted kind is served."""
    cursor = None
    for votes in range(40):
        served = world.serve(user, 1, params, cursor=cursor)
        id = served.items[0].item.id
        if id.startswith(wanted):
            return votes
        world.act(user, "dislike", id, now=NOW + timedelta(seconds=votes))
        cursor = served.cursor
    return 40


def test_asking_finds_a_lopsided_taste_in_fewer_votes_than_what_everybody_likes(world: World) -> None:
    known_kinds(world, tea=12, rum=8, ale=6, gin=20)
    asking = votes_until_found(world, "ann", "gin", FeedParams(exploration=0))
    popular = votes_until_found(world, "bob", "gin", FeedParams(exploration=0, questions=0))
    assert asking < popular


# What stays out


def test_nothing_that_a_person_does_not_want_is_served(world: World) -> None:
    world.add(
        item("good", "s1", language="en"),
        item("unknown tongue", "s1"),
        item("hidden", "s2", language="en"),
        item("foreign", "s1", language="ru"),
        item("stale", "s1", hours=24 * 6),
        item("early", "s1", hours=-1),
        item("excluded", "s1"),
        item("timeless", "s1", hours=None),
        item("gone", "s1"),
    )
    key = choose(world, "ann", languages=("en",), window_days=2)
    with writing(world.engine) as connection:
        people.choose_source(connection, key, source_key(world, "hidden"), "hidden", NOW)
        catalog.delete(connection, "gone", NOW)
    world.live.refresh(NOW)
    served = world.ids("ann", exclude=frozenset(("excluded", "never heard of", "")), log=False)
    assert set(served) == {"good", "unknown tongue", "timeless"}
    everything = world.ids("bob", window=timedelta(days=30), log=False)
    assert set(everything) == {"good", "unknown tongue", "hidden", "foreign", "stale", "excluded", "timeless"}


def test_a_hidden_source_never_appears_however_much_it_was_liked(world: World) -> None:
    world.add(*(item(f"a{n}", "a") for n in range(9)), *(item(f"b{n}", "b") for n in range(9)))
    world.act("ann", "like", "a0", "a1", "a2")
    with writing(world.engine) as connection:
        key = identities.user_keys(connection, ["ann"], None)["ann"]
        people.choose_source(connection, key, source_key(world, "a0"), "hidden", NOW)
    assert {id[0] for id in world.ids("ann", params=FeedParams(exploration=0.5))} == {"b"}


def test_an_item_that_was_deleted_a_moment_ago_is_left_out(world: World) -> None:
    world.add(item("a", "s"), item("b", "s"))
    with writing(world.engine) as connection:
        catalog.delete(connection, "a", NOW)
    served = world.serve("ann")
    assert [(place.item.id, place.position) for place in served.items] == [("b", 0)]


# Sessions


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> World:
    """37 items on SQLite, for many examples."""
    from palate.database import connect, migrate

    data = tmp_path_factory.mktemp("shelf")
    engine = connect(None, data)
    migrate(engine)
    world = World(engine, data)
    world.add(*(item(f"i{n}", f"s{n % 4}", f"l{n % 5}") for n in range(37)))
    return world


READERS = count()


def chain(world: World, user: str, limits: list[int], **asked: Any) -> list[Feed]:
    pages: list[Feed] = []
    for limit in [*limits, 40, 40]:
        cursor = pages[-1].cursor if pages else None
        pages.append(world.serve(user, limit, FeedParams(exploration=0.2), cursor=cursor, **asked))
    return pages


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=st.lists(st.integers(1, 15), max_size=5), log=st.booleans(), votes=st.integers(0, 3))
def test_a_session_brings_every_item_once_and_then_ends(shelf: World, limits: list[int], log: bool, votes: int) -> None:
    user = f"reader {next(READERS)}"
    shelf.act(user, "like", *(f"i{n}" for n in range(votes)))
    pages = chain(shelf, user, limits, log=log)
    places = [place for page in pages for place in page.items]
    assert sorted(int(place.item.id[1:]) for place in places) == list(range(votes, 37))
    assert [place.position for place in places] == list(range(37 - votes))
    assert pages[-1].items == ()


def test_without_logging_nothing_is_written_or_used_up(world: World) -> None:
    world.add(*of_kinds(4, "cats", "cars"))
    first = world.serve("ann", 5, log=False)
    assert world.serve("ann", 5, log=False).items == first.items
    assert world.logged == []
    with reading(world.engine) as connection:
        assert identities.user_keys(connection, ["ann"], None) == {}


def test_what_is_shown_is_in_the_log_before_the_answer(world: World) -> None:
    world.add(*of_kinds(4, "cats"))
    trained(world, 2)
    first = world.serve("ann", 3, surface="page")
    second = world.serve("ann", 2, cursor=first.cursor)
    assert [event.position for event in world.logged] == [0, 1, 2, 3, 4]
    assert {event.type for event in world.logged} == {"shown"}
    assert {event.snapshot for event in world.logged} == {world.live.pool.model.version}
    assert [event.item for event in world.logged] == [place.item.id for page in (first, second) for place in page.items]
    assert [event.request for event in world.logged] == [first.request] * 3 + [second.request] * 2
    assert {event.surface for event in world.logged[:3]} == {"page"}


def test_when_the_log_cannot_be_written_nothing_is_shown(world: World) -> None:
    world.add(item("a", "s"))

    def refuse(_: object) -> None:
        raise NotDurable("The disk is full.")

    request = FeedRequest(user="ann", limit=5, now=NOW)
    with pytest.raises(NotDurable):
        feed.serve(world.live, request, PLAIN, world.rng, refuse)


def test_unanswered_items_come_back_after_an_hour_and_only_when_nothing_new_is_left(world: World) -> None:
    world.add(*(item(id, "s") for id in "abcd"))
    world.act("ann", "shown", "a", "b", now=NOW - timedelta(hours=2))
    world.act("ann", "viewed", "b", now=NOW - timedelta(hours=2))
    world.act("ann", "shown", "c", now=NOW - timedelta(minutes=30))
    first = world.serve("ann", 10)
    assert [place.item.id for place in first.items] == ["d", "a"]
    assert world.ids("ann", 10, cursor=first.cursor) == []
    assert world.ids("ann", 10) == []
    assert set(world.ids("ann", 10, now=NOW + timedelta(hours=2))) == {"a", "c", "d"}


def test_within_a_session_nothing_comes_back_even_after_hours(world: World) -> None:
    world.add(*(item(id, "s") for id in "ab"))
    first = world.serve("ann", 2)
    assert len(first.items) == 2
    assert world.ids("ann", 2, cursor=first.cursor, now=NOW + timedelta(hours=3)) == []
    assert len(world.ids("ann", 2, now=NOW + timedelta(hours=3))) == 2


def test_what_one_id_of_a_person_has_seen_no_other_id_gets(world: World) -> None:
    world.add(*(item(id, "s") for id in "abcd"))
    first = world.serve("cookie", 2)
    with writing(world.engine) as connection:
        keys = identities.user_keys(connection, ["cookie", "ann"], NOW)
        identities.join(connection, keys["cookie"], keys["ann"])
    seen = {place.item.id for place in first.items}
    assert set(world.ids("ann", 4, cursor=world.serve("cookie", 1, log=False).cursor, log=False)) < set("abcd") - seen
    assert set(world.ids("ann", 4)) == set("abcd") - seen


def test_a_cursor_of_somebody_else_is_refused(world: World) -> None:
    world.add(item("a", "s"))
    cursor = world.serve("ann").cursor
    for user, wrong in (("bob", cursor), ("ann", cursor[:-1]), ("ann", "")):
        with pytest.raises(InvalidCursor):
            world.serve(user, cursor=wrong)


@pytest.mark.parametrize("user", ["", "x" * 201, "a\x00b", "\ud800"])
def test_what_cannot_be_an_id_is_refused(shelf: World, user: str) -> None:
    with pytest.raises(InvalidInput):
        shelf.serve(user)
    with pytest.raises(InvalidInput):
        feed.rank(shelf.live, user, ["i1"], NOW, PLAIN)


def test_the_answer_is_never_longer_than_the_installation_allows(shelf: World) -> None:
    assert len(shelf.ids("greedy", 1000, params=FeedParams(limit_max=7), log=False)) == 7
    assert shelf.ids("greedy", 0, log=False) == []


# Exploration


def test_exploration_goes_to_what_nobody_has_judged_and_is_logged_with_its_probability(world: World) -> None:
    known = [item(f"k{n}", f"s{n % 5}", hours=5) for n in range(40)]
    world.add(*known, *(item(f"n{n}", f"s{n % 5}") for n in range(10)))
    world.publish({one.id: [0.0] for one in known}, popularity={one.id: (0.8, 50.0) for one in known})
    places = [
        place
        for reader in range(40)
        for place in world.serve(f"reader {reader}", 10, FeedParams(exploration=0.2, questions=0), log=False).items
    ]
    explored = [place for place in places if place.item.id.startswith("n")]
    assert 40 < len(explored) < 125  # 80 expected
    assert all(place.reasons[0].kind == "explore" for place in explored)
    assert {round(place.probability, 3) for place in places if place not in explored} == {0.8}
    assert all(0.02 <= place.probability <= 0.2 for place in explored)


def test_the_same_request_explores_the_same(shelf: World) -> None:
    request = FeedRequest(user="curious", limit=10, now=NOW, log=False)
    answers = [
        feed.serve(shelf.live, request, FeedParams(exploration=0.5), feed.generator(request), lambda _: None)
        for _ in range(2)
    ]
    assert answers[0] == answers[1]


# Order by age


def test_of_equals_the_fresher_wins_and_what_has_no_date_does_not_age(world: World) -> None:
    world.add(item("old", "a", hours=150), item("new", "b", hours=2), item("timeless", "c", hours=None))
    world.act("ann", "like", "never served")
    assert world.ids("ann", 3) == ["timeless", "new", "old"]


def test_age_costs_at_most_its_share(world: World) -> None:
    world.add(*(item(f"cats-{n}", f"s{n}", "cats", hours=160) for n in range(3)), item("cars-0", "s5", "cars"))
    world.act("ann", "like", "cats-0", "cats-1")
    assert world.ids("ann", 1, params=FeedParams(exploration=0, freshness=0.1)) == ["cats-2"]
    assert world.ids("ann", 1, params=FeedParams(exploration=0, freshness=0.9), log=False) == ["cars-0"]


# Reasons


def test_reasons_name_what_the_score_came_from(world: World) -> None:
    world.add(*of_kinds(12, "cats", "cars"))
    world.act("ann", "like", "cats-0")
    top = world.serve("ann", 1, log=False).items[0]
    assert top.reasons[0].kind == "liked"
    assert top.reasons[0].subject == "cats-0"
    assert top.reasons[0].text == "Because you liked «Title of cats-0»"
    assert len(top.reasons) <= 3
    world.act("ann", "like", *(f"cats-{n}" for n in range(1, 8)))
    top = world.serve("ann", 1, log=False).items[0]
    assert (top.reasons[0].kind, top.reasons[0].subject) == ("label", "cats")
    strengths = [reason.strength for reason in top.reasons]
    assert strengths == sorted(strengths, reverse=True)


def test_reasons_of_a_new_person_are_everybodys(world: World) -> None:
    world.add(item("hit", "s1"), item("quiet", "s2", hours=100), item("bare", None, hours=None))
    world.publish({"hit": [0.0], "quiet": [0.0]}, popularity={"hit": (0.8, 30.0)})
    reasons = {place.item.id: [reason.kind for reason in place.reasons] for place in world.serve("ann").items}
    assert reasons == {"hit": ["popular", "fresh"], "quiet": ["explore"], "bare": ["explore"]}


# Ranking what somebody else picked


def test_ranking_keeps_unknown_ids_at_the_prior_and_names_each_once(world: World) -> None:
    trained(world, 3)
    world.act("ann", "like", "tea-0")
    world.act("ann", "dislike", "rum-0")
    wanted = ["?", "rum-1", "tea-1", "??", "tea-1", "no\x00id", "x" * 300]
    ranked, _ = feed.rank(world.live, "ann", wanted, NOW, PLAIN)
    assert [id for id, _ in ranked] == ["tea-1", "?", "??", "no\x00id", "x" * 300, "rum-1"]
    scores = dict(ranked)
    assert scores["?"] == scores["??"] == pytest.approx(0.5, abs=0.05)


def test_an_id_that_was_merged_is_voted_for_and_ranked_as_its_item(world: World) -> None:
    trained(world, 3)
    for id in ("tea-0", "rum-0"):
        world.add(Item(id=id, url=f"https://pub.example/{id}"))
        world.add(Item(id=f"copy of {id}", url=f"https://pub.example/{id}"))
    world.act("ann", "like", "copy of tea-0")
    world.act("bob", "like", "tea-0")
    asked = ["copy of rum-0", "rum-0", "rum-1", "copy of tea-0", "tea-0"]
    ranked = [dict(feed.rank(world.live, user, asked, NOW, PLAIN)[0]) for user in ("ann", "bob")]
    assert ranked[0] == ranked[1]
    assert ranked[0]["copy of tea-0"] == ranked[0]["tea-0"] > ranked[0]["rum-0"] > ranked[0]["rum-1"]
    assert ranked[0]["copy of rum-0"] == ranked[0]["rum-0"]


def test_ranking_for_somebody_unknown_is_by_popularity(world: World) -> None:
    trained(world, 2)
    world.publish({"tea-0": [0.0], "rum-0": [0.0]}, popularity={"tea-0": (0.4, 9.0), "rum-0": (0.6, 9.0)})
    ranked, _ = feed.rank(world.live, "nobody", ["tea-0", "ale-0", "rum-0"], NOW, PLAIN)
    assert [id for id, _ in ranked] == ["rum-0", "ale-0", "tea-0"]
    assert [score for _, score in ranked] == pytest.approx([0.6, 0.5, 0.4])
    assert feed.rank(world.live, "nobody", [], NOW, PLAIN)[0] == []


SURE = {"most": 1.6, "more": 1.3, "much": 1.05, "some": 0.5, "little": -0.05, "less": -0.3, "least": -0.6}
"""What a model of the squared loss says of items: 0.5 and so much that no probability can be it."""


def sure(world: World) -> None:
    """Items of equal age, each of its own source, and somebody who is known by one vote."""
    world.add(*(item(id, f"of {id}", hours=1) for id in (*reversed(SURE), "other")))
    world.publish({id: [0.0] for id in (*SURE, "other")}, bias={id: raw - 0.5 for id, raw in SURE.items()})
    world.act("ann", "dislike", "other")


def test_scores_beyond_what_a_probability_can_be_keep_their_order_when_ranked(world: World) -> None:
    sure(world)
    ranked, _ = feed.rank(world.live, "ann", list(reversed(SURE)), NOW, PLAIN)
    assert [id for id, _ in ranked] == list(SURE)
    scores = [score for _, score in ranked]
    assert scores == sorted(set(scores), reverse=True)
    assert 0 < scores[-1] < scores[0] < 1


def test_scores_beyond_what_a_probability_can_be_keep_their_order_in_the_feed(world: World) -> None:
    sure(world)
    places = world.serve("ann").items
    assert [place.item.id for place in places] == list(SURE)
    assert len({place.score for place in places}) == len(SURE)


def test_an_item_that_left_the_pool_is_still_ranked_by_its_vector(world: World) -> None:
    trained(world, 2)
    with writing(world.engine) as connection:
        catalog.delete(connection, "rum-1", NOW)
    world.live.refresh(NOW)
    world.act("old", "dislike", "ale-0")
    ranked, _ = feed.rank(world.live, "old", ["tea-0", "rum-1"], NOW, PLAIN)
    assert ranked[0][0] == "rum-1"


# The training page


def test_prediction_marks_what_would_be_served_and_where_the_line_runs(world: World) -> None:
    trained(world, 5)
    world.act("old", "dislike", "ale-0")
    prediction = feed.predicted(world.live, "old", NOW, PLAIN, limit=4)
    assert prediction.keys.tolist() == world.live.pool.keys.tolist()
    assert prediction.served.sum() == 4
    assert prediction.threshold == prediction.scores[prediction.served].min()
    served = {place.key for place in world.serve("old", 4).items}
    assert set(prediction.keys[prediction.served].tolist()) == served


def test_prediction_over_nothing_has_no_line(world: World) -> None:
    prediction = feed.predicted(world.live, "nobody", NOW, PLAIN)
    assert prediction.threshold is None
    assert len(prediction.scores) == 0


def test_the_event_of_a_shown_item_may_enter_the_log(shelf: World) -> None:
    from palate.events import check

    shelf.serve("careful", 5, FeedParams(exploration=0.9))
    own: list[Event] = [event for event in shelf.logged if event.user == "careful"]
    assert len(own) == 5
    assert [check(event, None, NOW) for event in own] == own
    assert np.isfinite([event.probability for event in own if event.probability is not None]).all()


# Surfaces: orders, themes and editions


def on(world: World, **surface: Any) -> World:
    """The same installation with a surface `place`."""
    world.live = Live(world.engine, world.data, surfaces={"place": SurfaceParams(**surface)})
    world.live.refresh(NOW)
    return world


def judged(world: World) -> None:
    """Ten of each kind, of which the tea is liked less the newer it is, and nothing else is liked at all."""
    items = [item(f"{kind}-{n}", f"s{n % 3}", kind, hours=1 + n) for n in range(10) for kind in ("tea", "rum")]
    world.add(*items)
    liked = {one.id: (0.9 - 0.01 * index if "tea" in one.id else 0.2, 50.0) for index, one in enumerate(items)}
    world.publish({one.id: [1.0, 0.0] for one in items}, popularity=liked)


@pytest.mark.parametrize(("order", "first"), [("time", ["tea-0", "rum-0"]), ("rate", ["tea-0", "tea-1"])])
def test_a_surface_may_be_ordered_alike_for_everybody(world: World, order: Any, first: list[str]) -> None:
    judged(world)
    world.act("ann", "like", "rum-9")
    exploring = FeedParams(exploration=0.9)
    served = on(world, order=order).serve("ann", 2, exploring, surface="place", log=False)
    assert sorted(place.item.id for place in served.items) == sorted(first)
    assert {place.probability for place in served.items} == {1.0}


def test_an_order_may_be_set_for_every_feed(world: World) -> None:
    judged(world)
    world.act("ann", "like", "rum-9")
    served = world.serve("ann", 3, FeedParams(order="rate"), log=False)
    assert [place.item.id for place in served.items] == ["tea-0", "tea-1", "tea-2"]


def test_a_theme_shows_its_labels_alone_but_for_its_share_of_hits(world: World) -> None:
    judged(world)
    theme = on(world, labels=("rum",), hits=0.25)
    page = theme.serve("ann", 8, surface="place")
    assert kinds([place.item.id for place in page.items]) == ["rum", "rum", "rum", "tea"] * 2
    assert [page.items[3].item.id, page.items[7].item.id] == ["tea-0", "tea-1"]
    following = theme.serve("ann", 4, surface="place", cursor=page.cursor)
    assert kinds([place.item.id for place in following.items]) == ["rum", "rum", "rum", "tea"]
    assert following.items[3].item.id == "tea-2"


def test_an_edition_is_served_in_each_persons_own_order_for_as_long_as_it_waits(world: World) -> None:
    judged(world)
    for reader in range(5):
        world.act(f"reader-{reader}", "viewed", "tea-1", "rum-1", "tea-8")
    assert editions.release_due(world.engine, {"best": EditionParams()}, InteractionParams(), NOW)
    world.act("ann", "like", *(f"rum-{n}" for n in range(2, 8)))
    late = NOW + timedelta(days=40)
    reading_it = on(world, edition="best")
    served = reading_it.serve("ann", 5, surface="place", now=late)
    assert served.items[0].item.id == "rum-1"
    assert {place.item.id for place in served.items} == {"tea-1", "rum-1", "tea-8"}
    assert reading_it.ids("ann", surface="place", now=late) == []


def test_nothing_is_served_of_an_edition_that_never_came_out(world: World) -> None:
    judged(world)
    assert on(world, edition="best").ids("ann", surface="place") == []


def test_no_source_has_more_places_than_its_cap_while_there_are_others(world: World) -> None:
    judged(world)
    served = world.serve("ann", 9, FeedParams(exploration=0, questions=0, source_cap=3), log=False)
    assert Counter(place.item.source for place in served.items) == {"s0": 3, "s1": 3, "s2": 3}


def test_what_the_model_takes_for_the_same_is_spread(world: World) -> None:
    items = [item(f"{kind}-{n}", hours=1) for n in range(4) for kind in ("tea", "rum")]
    world.add(*items)
    liked = {one.id: (0.9 if "tea" in one.id else 0.7, 50.0) for one in items}
    world.publish({one.id: [1.0, 0.0] if "tea" in one.id else [0.0, 1.0] for one in items}, popularity=liked)
    plain = FeedParams(exploration=0, questions=0)
    spread = FeedParams(exploration=0, questions=0, likeness_spread=0.5)
    assert kinds([place.item.id for place in world.serve("ann", 4, plain, log=False).items]) == ["tea"] * 4
    assert kinds([place.item.id for place in world.serve("ann", 4, spread, log=False).items]) == [
        "tea",
        "rum",
        "tea",
        "tea",
    ]


def test_of_what_is_hardly_known_that_is_explored_first_which_was_hardly_shown(world: World) -> None:
    world.add(*(item(f"seen-{n}", hours=1) for n in range(20)), *(item(f"new-{n}", hours=2) for n in range(5)))
    world.publish({f"seen-{n}": [1.0] for n in range(20)})
    world.live = Live(world.engine, world.data, ranking=True)
    for reader in range(3):
        world.act(f"reader-{reader}", "shown", *(f"seen-{n}" for n in range(20)))
    world.live.refresh(NOW)
    exploring = FeedParams(exploration=0.99, impressions_floor=3, questions=0)
    served = world.serve("ann", 5, exploring).items
    drawn = [place.item.id for place in served if place.probability < 0.9]
    assert drawn
    assert set(kinds(drawn)) == {"new"}
    assert {place.probability for place in served if place.item.id in drawn} <= {0.99 / n for n in range(1, 6)}
