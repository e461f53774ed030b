"""Blends of members whose worth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate.domain import Interactions
from palate.errors import NotFound, SettingsError
from palate.models import blend, blend_weights, registry
from palate.models.blend import BlendParams
from palate.models.material import Known, Material, known, material
from palate.models.registry import Entry
from palate.vocabulary import Vocabulary

NOW = datetime(1970, 1, 11, tzinfo=UTC)
DAY = 24 * 3600 * 1000
ITEMS = 30


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the models made for these tests."""

    scale: float = 1.0
    half_life_days: float = 30.0


def told(users: int = 60, each: int = 8, seed: int = 2) -> Interactions:
    """The even users take to even items and the odd to odd ones, over ten days in an order of chance; the first items more."""
    random = np.random.default_rng(seed)
    cells = []
    for user in range(users):
        own = np.arange(user % 2, ITEMS, 2)
        chances = 1 / (1 + np.arange(len(own)))
        cells += [(user, item) for item in random.choice(own, each, replace=False, p=chances / chances.sum())]
    user, item = np.array(sorted(cells)).T
    time = random.integers(0, 10 * DAY, len(user))
    return Interactions(user, item, np.full(len(user), np.nan, np.float32), np.ones(len(user), np.float32), time)


DATA = told()
ITEM_ROWS = Vocabulary(np.unique(DATA.item))
Scores = Callable[[Known], NDArray[np.float32]]


def knows(people: Known) -> NDArray[np.float32]:
    """The kind of item that they took to first, even or odd ones; nothing of people who took to nothing."""
    first = np.array([np.append(people.weights.row(row)[0], -1)[0] for row in range(len(people.users))])[:, None]
    return np.asarray((first >= 0) & (np.arange(ITEMS) % 2 == first % 2), np.float32)


def order(people: Known) -> NDArray[np.float32]:
    """What comes first among the right ones, of no use alone: −item."""
    return np.broadcast_to(-np.arange(ITEMS, dtype=np.float32), (len(people.users), ITEMS))


def best(people: Known) -> NDArray[np.float32]:
    return 100 * knows(people) + order(people)


def noise(people: Known) -> NDArray[np.float32]:
    seeds = np.where(people.users >= 0, people.users, 1000 + np.arange(len(people.users)))
    return np.stack([np.random.default_rng(seed).random(ITEMS, np.float32) for seed in seeds])


def table(**scores: Scores) -> blend.Lookup:
    """Models that know what they say from the start; what they were fitted on is their model."""

    def lookup(name: str) -> Entry:
        return Entry(
            params=Params,
            fit=lambda material, params, seed: (material, params),
            score_all=lambda model, people: scores[name](people),
            to_arrays=lambda model: {},
            header=lambda model: {},
            from_arrays=lambda arrays, header, items: None,
        )

    return lookup


def mixed(lookup: blend.Lookup, *members: str, data: Interactions = DATA, **params: Any) -> blend.Blend:
    return blend.fit(material(data, NOW), BlendParams(members=members, **params), 0, lookup)


def weights(model: blend.Blend) -> dict[str, float]:
    """Of those whose history is known."""
    return {member.name: float(weight) for member, weight in zip(model.members, model.weights[-1], strict=True)}


def test_a_member_that_says_nothing_gets_no_weight_and_is_not_kept() -> None:
    found = mixed(table(best=best, noise=noise), "noise", "best")
    assert weights(found) == {"best": 1}


@pytest.mark.parametrize("by", ["rank", "score", "auto"])
def test_members_that_know_different_things_are_better_together(by: str) -> None:
    lookup = table(knows=knows, order=order, noise=noise)
    both = mixed(lookup, "knows", "noise", "order", by=by)
    assert set(weights(both)) == {"knows", "order"}
    assert both.quality > 1.15 * max(mixed(lookup, "knows", by=by).quality, mixed(lookup, "order", by=by).quality)
    people = known(DATA, np.array([0, 1]), material(DATA, NOW).items)
    assert np.argsort(-blend.score_all(both, people))[:, :3].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_people_of_whom_nothing_is_known_have_weights_of_their_own() -> None:
    """Half of the people come in the held-out slices for the first time: what `old` says is right for the others alone."""
    late = DATA.user % 4 > 1
    data = replace(DATA, time=np.where(late, 9 * DAY + DATA.time // 10, DATA.time // 2))

    def of_old_ones(people: Known) -> NDArray[np.float32]:
        return np.where((people.weights.counts > 0)[:, None], knows(people), -order(people))

    lookup = table(old=of_old_ones, popularity=order)
    found = mixed(lookup, "old", "popularity", data=data, slices=1, held_out_share=0.7)
    by_name = {member.name: found.weights[:, place] for place, member in enumerate(found.members)}
    assert by_name["old"][0] == 0 < by_name["popularity"][0]
    assert by_name["old"][1] > 0


def hasty(people: Known) -> NDArray[np.float32]:
    """Right about people of whom four items are known, wrong about those of whom fewer are."""
    return np.where((people.weights.counts >= 4)[:, None], 1, -1) * knows(people)


@pytest.mark.parametrize("by", ["rank", "score"])
def test_those_of_whom_little_is_known_get_what_all_get_until_more_is_told(by: str) -> None:
    shy = mixed(table(popularity=order, hasty=hasty), "popularity", "hasty", by=by)
    bold = mixed(table(popularity=order, knows=knows), "popularity", "knows", by=by)
    assert shy.halfway > bold.halfway
    assert [member.name for member, weight in zip(shy.members, shy.weights[0], strict=True) if weight] == ["popularity"]
    few, many = known(of_one(1), np.array([0]), ITEM_ROWS), known(of_one(8), np.array([0]), ITEM_ROWS)
    assert np.argsort(-blend.score_all(shy, few)[0])[0] == 0
    assert np.argsort(-blend.score_all(bold, few)[0])[:3].tolist() == [1, 3, 5]
    assert np.argsort(-blend.score_all(shy, many)[0])[:3].tolist() == [1, 3, 5]


def of_one(count: int) -> Interactions:
    """The first odd items, taken to by somebody."""
    ones = np.ones(count, np.float32)
    return Interactions(np.zeros(count, np.int64), 1 + 2 * np.arange(count), ones, ones, np.arange(count))


def test_with_as_many_items_as_said_weights_lie_half_way() -> None:
    found = mixed(table(popularity=order, knows=knows), "popularity", "knows", by="score", halfway=3)
    ends = replace(found, weights=np.array([[1, 0], [0, 1]], np.float32))
    people = known(DATA, np.array([0, 999]), material(DATA, NOW).items)
    alone = [replace(ends, weights=np.array([row, row], np.float32)) for row in ([1, 0], [0, 1])]
    popular, personal = (blend.score_all(model, people)[0] for model in alone)
    scores = blend.score_all(replace(ends, halfway=8.0), people)  # 8 are known of the first, none of the second
    np.testing.assert_allclose(scores[0], (popular + personal) / 2, rtol=1e-5)
    np.testing.assert_allclose(scores[1], popular, rtol=1e-5)


def test_a_beginner_is_somebody_else_with_less_told_and_asked_for_nothing_that_they_met() -> None:
    learned = material(DATA, NOW)
    early, newer = next(blend._slices(learned, BlendParams(), 0))
    people, beginners = blend._asked(early.interactions, newer, learned.items, BlendParams(), 0)
    assert set(beginners.known.users.tolist()) == {blend.NOBODY}
    assert (beginners.known.weights.counts <= np.maximum(people.known.weights.counts - 1, 0)).all()
    assert set(beginners.known.weights.counts.tolist()) >= {0, 1, 2, 3}
    assert np.array_equal(beginners.met.counts, people.known.weights.counts)
    for row, counts in enumerate(beginners.known.weights.counts.tolist()):
        own = early.interactions.user == people.known.users[row]
        newest = np.argsort(-early.interactions.time[own])[:counts]
        told = early.interactions.item[own][newest]
        assert set(learned.items.keys[beginners.known.weights.row(row)[0]]) == set(told.tolist())


def test_each_slice_is_asked_of_members_that_learned_what_came_before_it() -> None:
    asked: list[Material] = []

    def lookup(name: str) -> Entry:
        def fit(learned: Material, params: Any, seed: int) -> None:
            asked.append(learned)

        return replace(table(m=noise)(name), fit=fit)

    blend.fit(material(DATA, NOW), BlendParams(members=("m",), slices=2, held_out_share=0.25), 0, lookup)
    newest, before, whole = asked
    assert [len(each.interactions) for each in asked] == [360, 240, 480]
    assert before.interactions.time.max() <= newest.interactions.time.max() < DATA.time.max()
    assert before.now < newest.now < whole.now == NOW
    assert all(np.array_equal(each.items.keys, whole.items.keys) for each in asked)


def test_a_window_tells_what_is_newer_and_fading_weakens_what_is_older() -> None:
    even = replace(DATA, time=np.arange(len(DATA)) * 10 * DAY // len(DATA))
    found = mixed(table(m=order), "m@2d", "m~48h", "m", data=even, by="rank")
    models = {
        name: blend._member(name, material(even, NOW), BlendParams(), 0, table(m=order)) for name in ("m@2d", "m~48h")
    }
    ages = 10 - even.time / DAY
    window, fading = (member.model[0].interactions.weight for member in models.values())
    assert (window > 0).sum() == pytest.approx(len(even) / 5, abs=1)
    np.testing.assert_allclose(fading, 0.5 ** (ages / 2), rtol=0.02)
    assert len(found.members) == 1


def test_a_member_by_recency_is_the_same_model_with_a_shorter_memory() -> None:
    params = BlendParams(members=("itemknn", "itemknn~3i"))
    plain, recent = (
        blend._member(name, material(DATA, NOW), params, 0, registry.entry).model for name in params.members
    )
    assert (plain.recent_items, recent.recent_items) == (None, 3)
    assert plain.weights.values.tobytes() == recent.weights.values.tobytes()
    for name in ("popularity~3i", "itemknn~0i"):
        with pytest.raises(SettingsError, match=f"no {name}"):
            blend.fit(material(DATA, NOW), BlendParams(members=(name,)), 0, registry.entry)


def test_where_items_are_new_popularity_has_no_say_and_others_speak_by_score() -> None:
    lookup = table(popularity=order, best=best)
    people = known(DATA, np.array([0, 999]), ITEM_ROWS)
    for way in ("rank", "score"):
        fitted = mixed(lookup, "popularity", "best", by=way, halfway=4)
        model = replace(
            fitted, members=_all(lookup, "popularity", "best"), weights=np.array([[1, 0], [2, 1]], np.float32)
        )
        whole, explained = blend.scored(model, people)
        np.testing.assert_array_equal(whole, blend.score_all(model, people))
        np.testing.assert_array_equal(explained[1], whole[1])  # nothing is known of them: popularity alone
        np.testing.assert_allclose(explained[0].mean(), whole[0].mean(), rtol=1e-4, atol=1e-5)
        alike = np.corrcoef(explained[0], best(people)[0])[0, 1]
        assert alike > 0.9999


def _all(lookup: blend.Lookup, *names: str) -> tuple[blend.Member, ...]:
    return tuple(blend._member(name, material(DATA, NOW), BlendParams(), 0, lookup) for name in names)


def test_without_times_members_that_come_to_the_same_are_one() -> None:
    found = mixed(
        table(knows=knows), "knows", "knows~1d", "knows@3d", data=replace(DATA, time=np.zeros(len(DATA), np.int64))
    )
    assert weights(found) == {"knows": 1}
    assert found.quality > 0.3


def test_a_member_once_more_is_the_same_model_by_another_seed() -> None:
    timeless = material(replace(DATA, time=np.zeros(len(DATA), np.int64)), NOW)
    assert blend._different(["m~1d", "m@3d", "m~1d#2", "m#2", "m#3"], timeless) == ["m", "m#2", "m#3"]
    params = BlendParams(members=("ials", "ials#2", "ials#3"), settings={"ials": {"factors": 3, "epochs": 1}})
    first, *others = (
        blend._member(name, material(DATA, NOW), params, 0, registry.entry).model for name in params.members
    )
    again = blend._member("ials#2", material(DATA, NOW), params, 0, registry.entry).model
    assert {first.params} == {other.params for other in others}
    different = {model.item_vectors.tobytes() for model in (first, *others)}
    assert len(different) == 3
    assert again.item_vectors.tobytes() in different


def test_a_blend_of_one_member_is_that_model_with_settings_of_its_own() -> None:
    own = {"factors": 3, "epochs": 2}
    found = mixed(registry.entry, "ials", settings={"ials": own})
    entry, all_known = registry.entry("ials"), known(DATA, np.unique(DATA.user), ITEM_ROWS)
    alone = entry.fit(material(DATA, NOW), msgspec.convert(own, entry.params), 0)
    assert weights(found) == {"ials": 1}
    ranked = blend.score_all(found, all_known).argsort(axis=1, kind="stable")
    np.testing.assert_array_equal(ranked, entry.score_all(alone, all_known).argsort(axis=1, kind="stable"))


def test_several_fits_of_a_member_have_one_weight_together() -> None:
    def lookup(name: str) -> Entry:
        """Of `noisy` each fit knows the right kind, and says something of its own about each item."""

        def score_all(model: tuple[str, int], people: Known) -> NDArray[np.float32]:
            own = np.random.default_rng(model[1]).standard_normal(ITEMS).astype(np.float32)
            return knows(people) + own if name == "noisy" else order(people)

        return replace(table(m=order)("m"), fit=lambda learned, params, seed: (name, seed), score_all=score_all)

    names = ("order", *("noisy", "noisy#2", "noisy#3", "noisy#4"))
    found = mixed(lookup, *names, by="score")
    alike = weights(found)
    assert len({alike.pop(f"noisy{fit}") for fit in ("", "#2", "#3", "#4")}) == 1
    assert set(alike) <= {"order"}
    assert found.quality > mixed(lookup, "order", "noisy", by="score").quality


def test_nothing_to_ask_leaves_all_members_alike() -> None:
    key, weight = np.array([1]), np.ones(1, np.float32)
    one = Interactions(key, key, weight, weight, key)
    found = blend.fit(material(one, NOW), BlendParams(members=("a", "b")), 0, table(a=noise, b=noise))
    assert found.weights.tolist() == [[1, 1], [1, 1]]
    assert np.isnan(found.quality)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.sampled_from(["rank", "score"]))
def test_equal_scores_share_the_first_of_their_places(values: list[int], way: blend_weights.Way) -> None:
    scores, last = np.array(values, np.float32), np.array([len(values) - 1])
    of_all = blend_weights.comparable(scores[None], way, 5.0)[0]
    np.testing.assert_allclose(blend_weights.comparable_of(scores, last, way, 5.0), of_all[last], rtol=1e-5, atol=1e-5)
    assert blend_weights._places(scores).tolist() == [1 + sum(other > value for other in values) for value in values]


def test_members_steer_by_their_own_settings_or_those_of_their_model() -> None:
    lookup = table(a=knows, b=knows)
    steered = {"a": {"scale": 2.0}, "a~3d": {"scale": 3.0}}
    params = BlendParams(members=("a", "a~3d", "a~1d", "b"), settings=steered)
    scales = [blend._member(name, material(DATA, NOW), params, 0, lookup).model[1].scale for name in params.members]
    assert scales == [2, 3, 2, 1]
    with pytest.raises(SettingsError, match="settings of b in the blend"):
        mixed(lookup, "b", settings={"b": {"depth": 1}})


@pytest.mark.parametrize(
    "member", ["blend", "ials@", "ials~2", "ials@3w", "@3d", "blend~3d", "IALS", "ials#", "ials#2~3d"]
)
def test_names_that_are_no_members_are_refused(member: str) -> None:
    with pytest.raises(ValueError, match="is no model"):
        BlendParams(members=(member,))


def test_other_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"members": ()}, {"held_out_share": 0.4, "slices": 3}):
        with pytest.raises(ValueError, match=r"must"):
            BlendParams(**wrong)


def test_a_member_that_is_no_model_is_named() -> None:
    with pytest.raises(NotFound, match="nonsense"):
        registry.entry("blend").fit(material(DATA, NOW), BlendParams(members=("nonsense~3d",)), 0)


def test_real_members_survive_a_snapshot() -> None:
    entry = registry.entry("blend")
    members = ("popularity~2d", "itemknn", "ials~3d#2")
    params = BlendParams(members=members, settings={"ials": {"factors": 4, "epochs": 2}})
    learned = material(DATA, NOW)
    model = entry.fit(learned, params, 3)
    # every member, whatever the search left of them
    everyone = replace(
        model,
        members=tuple(blend._member(name, learned, params, 3, registry.entry) for name in params.members),
        weights=np.array([[1, 0.5, 0.25], [0.5, 1, 0.5]], np.float32),
    )
    read = entry.from_arrays(entry.to_arrays(everyone), entry.header(everyone), learned.items)
    people = known(DATA, np.array([0, 1, 999]), learned.items)
    np.testing.assert_allclose(entry.score_all(read, people), entry.score_all(everyone, people), atol=0.02)
    assert [member.name for member in read.members] == list(params.members)
    assert read.halfway == everyone.halfway
    before = {name: value for name, value in entry.header(everyone).items() if name != "halfway"}
    assert entry.from_arrays(entry.to_arrays(everyone), before, learned.items).halfway == 0
