"""Stories: what is near belongs together, chains don't, and the order of arrival changes nothing."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate.stories import clustering, neighbours, regrouping
from palate.stories.agglomeration import agglomerate, divide, heads_of
from palate.stories.clustering import Stories, cluster, expired, joined, removed
from palate.stories.neighbours import LENGTH, SCALE, ClusteringParams, Documents

HOUR = 3_600_000
PARAMS = ClusteringParams(similarity=0.5, duplicate=0.9, window_hours=24, span_hours=48)


def documents(
    vectors: NDArray[np.floating],
    *,
    sources: list[int] | None = None,
    hours: list[float] | None = None,
    keywords: list[list[int]] | None = None,
    start: int = 1,
) -> Documents:
    """Each of a source of its own, all of one time and with one keyword, if nothing else is said; keys count from `start`."""
    count = len(vectors)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return Documents(
        np.arange(start, start + count),
        (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float16),
        np.array(range(count) if sources is None else sources, np.int64),
        (np.array([0.0] * count if hours is None else hours) * HOUR).astype(np.int64),
        np.array([[7]] * count if keywords is None else keywords, np.uint16).reshape(count, -1 if count else 1),
    )


def plane(*degrees: float) -> NDArray[np.float64]:
    """Vectors in one plane: their cosines are those of the angles between them. Spread over all numbers, as real ones are."""
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(LENGTH, 2)))[0].T
    angles = np.radians(degrees)
    return np.outer(np.cos(angles), axes[0]) + np.outer(np.sin(angles), axes[1])


def groups(stories: Stories) -> set[frozenset[int]]:
    found: dict[int, set[int]] = {}
    for key, label in zip(stories.documents.keys.tolist(), stories.labels.tolist(), strict=True):
        found.setdefault(label, set()).add(key)
    assert all(label in members for label, members in found.items())
    return {frozenset(members) for members in found.values()}


def test_similar_documents_are_one_story_and_others_alone() -> None:
    assert groups(cluster(documents(plane(0, 20, 95)), PARAMS)) == {frozenset({1, 2}), frozenset({3})}


def test_a_chain_does_not_make_one_story() -> None:
    """Each is near the next (cosine 0.64), the first and the last have nothing in common."""
    found = groups(cluster(documents(plane(0, 50, 100, 150)), PARAMS))
    assert found == {frozenset({1, 2}), frozenset({3, 4})}


def test_groups_join_by_the_mean_of_their_similarities() -> None:
    close = documents(plane(0, 10, 58, 68))  # means of cos 58°, 68°, 48°, 58°: 0.526
    assert groups(cluster(close, PARAMS)) == {frozenset({1, 2, 3, 4})}
    apart = documents(plane(0, 10, 62, 72))  # 0.465, though the nearest two have 0.616
    assert groups(cluster(apart, PARAMS)) == {frozenset({1, 2}), frozenset({3, 4})}


def test_one_source_joins_only_with_nearly_the_same_text() -> None:
    assert groups(cluster(documents(plane(0, 30), sources=[7, 7]), PARAMS)) == {frozenset({1}), frozenset({2})}
    assert groups(cluster(documents(plane(0, 10), sources=[7, 7]), PARAMS)) == {frozenset({1, 2})}


def test_of_each_source_the_closest_stays_and_the_others_are_divided_among_themselves() -> None:
    """Two sources write thrice about one event; the middle ones are closest to all."""
    events = documents(plane(0, 30, 60, 2, 32, 62), sources=[1, 1, 1, 2, 2, 2])
    assert groups(cluster(events, PARAMS)) == {frozenset({2, 5}), frozenset({1, 4}), frozenset({3, 6})}


def test_two_documents_of_one_source_do_not_part_the_story_of_others() -> None:
    many = documents(plane(0, 5, 10, 15, 20, 25), sources=[1, 2, 3, 9, 4, 9])
    alike = msgspec.structs.replace(PARAMS, duplicate=0.995)
    assert groups(cluster(many, alike)) == {frozenset({1, 2, 3, 4, 5}), frozenset({6})}


def test_documents_without_a_common_keyword_do_not_meet() -> None:
    apart = documents(plane(0, 1, 2), keywords=[[3, 5], [5, 9], [8, 8]])
    assert groups(cluster(apart, PARAMS)) == {frozenset({1, 2}), frozenset({3})}


@given(st.data())
def test_the_pairs_are_the_same_by_words_and_by_comparing_all(data: st.DataObject) -> None:
    """Few ask and many do, words that few have and words that many have, blocks that are full and that aren't."""
    world = data.draw(worlds())
    placed = neighbours.place(world)
    new = np.array(data.draw(st.lists(st.booleans(), min_size=len(world), max_size=len(world))))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_BLOCK", "_WIDTH", "_SLAB", "_FEW"):
            patch.setattr(neighbours, name, data.draw(st.integers(1, 9)))
        found = []
        for least in (0, 1000):
            patch.setattr(neighbours, "_MANY", least)
            patch.setattr(neighbours, "_LARGE", least)
            found.append(
                sorted(zip(*(column.tolist() for column in neighbours.near(placed, new, PARAMS)), strict=True))
            )
    assert found[0] == found[1]
    assert len(set(found[0])) == len(found[0])


def test_documents_far_apart_in_time_do_not_meet() -> None:
    assert len(groups(cluster(documents(plane(0, 1), hours=[0, 24]), PARAMS))) == 1
    assert len(groups(cluster(documents(plane(0, 1), hours=[0, 24.1]), PARAMS))) == 2


def test_a_story_has_a_span_in_time() -> None:
    days = documents(plane(*[0] * 6), hours=[0, 20, 40, 60, 80, 100])
    for story in groups(cluster(days, PARAMS)):
        times = days.times[np.array(sorted(story)) - 1]
        assert times.max() - times.min() <= 48 * HOUR
    assert len(groups(cluster(days, PARAMS))) == 2


def test_any_dates_are_taken() -> None:
    odd = documents(plane(0, 1, 2, 3), hours=[0, 1_139_544, -(10**6), -(10**6)])
    assert groups(cluster(odd, PARAMS)) == {frozenset({1}), frozenset({2}), frozenset({3, 4})}


def test_documents_without_words_stay_alone() -> None:
    assert len(groups(cluster(documents(np.zeros((5, LENGTH))), PARAMS))) == 5


def test_more_of_the_same_than_are_divided_at_one_time_are_parted_by_time() -> None:
    few = msgspec.structs.replace(PARAMS, largest=10)
    same = documents(plane(*[0] * 25), hours=[number / 10 for number in range(25)])
    assert groups(cluster(same, few)) == {frozenset(range(1, 11)), frozenset(range(11, 21)), frozenset(range(21, 26))}


def test_a_part_that_is_too_large_is_parted_by_its_weakest_links() -> None:
    few = msgspec.structs.replace(PARAMS, largest=3)
    found = groups(cluster(documents(plane(0, 5, 10, 50, 55, 60)), few))
    assert found == {frozenset({1, 2, 3}), frozenset({4, 5, 6})}


def test_all_of_one_source_and_all_alike_make_one_story() -> None:
    assert len(groups(cluster(documents(plane(*[0] * 40), sources=[1] * 40), PARAMS))) == 1


def test_nothing_gives_nothing() -> None:
    empty = cluster(documents(np.zeros((0, LENGTH))), PARAMS)
    assert (len(empty), groups(empty)) == (0, set())
    assert groups(joined(empty, documents(plane(0, 1)))) == {frozenset({1, 2})}
    assert groups(removed(empty, np.array([1]))) == set()


def test_a_known_key_takes_the_place_of_the_old_document() -> None:
    before = cluster(documents(plane(0, 10, 90)), PARAMS)
    after = joined(before, documents(plane(95), start=1))
    assert groups(after) == {frozenset({2}), frozenset({1, 3})}


def test_a_key_stands_once() -> None:
    one = documents(plane(0, 1))
    with pytest.raises(AssertionError, match="a key stands for one document"):
        cluster(Documents(np.array([1, 1]), one.vectors, one.sources, one.times, one.keywords), PARAMS)


@st.composite
def worlds(draw: st.DrawFn) -> Documents:
    """Few topics, sources and hours, so that all rules are met."""
    count = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    topics = rng.normal(size=(draw(st.integers(1, 6)), LENGTH))
    noise = draw(st.sampled_from([0.0, 0.5, 0.9, 1.2]))
    vectors = topics[rng.integers(len(topics), size=count)] + noise * rng.normal(size=(count, LENGTH))
    hours = rng.integers(draw(st.integers(1, 200)), size=count)
    keywords = np.sort(rng.integers(draw(st.integers(1, 30)), size=(count, 3)), axis=1).tolist()
    sources = rng.integers(8, size=count).tolist()
    found = documents(vectors, sources=sources, hours=hours.tolist(), keywords=keywords)
    return chosen(found, rng.permutation(count))


def chosen(of: Documents, rows: NDArray[np.int64] | list[int]) -> Documents:
    return Documents(of.keys[rows], of.vectors[rows], of.sources[rows], of.times[rows], of.keywords[rows])


def regroup_always(patch: pytest.MonkeyPatch) -> None:
    """However few documents a company has."""
    patch.setattr(clustering, "FEW", 0)
    patch.setattr(regrouping, "FEW", 0)
    patch.setattr(regrouping, "_MOST", 0.999)


def same(one: Stories, other: Stories) -> None:
    """The same stories of the same documents, which hang together in the same way at every level."""
    ones, others = (np.argsort(stories.documents.keys) for stories in (one, other))
    np.testing.assert_array_equal(one.documents.keys[ones], other.documents.keys[others])
    np.testing.assert_array_equal(one.labels[ones], other.labels[others])
    np.testing.assert_array_equal(one.groups[ones], other.groups[others])
    for level in range(max(len(one.levels), len(other.levels))):
        np.testing.assert_array_equal(company_of(one, ones, level), company_of(other, others, level))


def company_of(stories: Stories, rows: NDArray[np.int64], level: int) -> NDArray[np.int64]:
    """For each of the rows the place among them of the first of its company."""
    names = stories.levels[min(level, len(stories.levels) - 1)][rows]
    _, first, places = np.unique(names, return_index=True, return_inverse=True)
    return np.asarray(first[places])


@settings(max_examples=60)
@given(worlds(), st.integers(1, 9), st.sampled_from([3, 6, 1000]), st.sampled_from([0.0, 1.0, 1e9]))
def test_as_they_come_and_all_at_one_time_give_the_same(world: Documents, step: int, largest: int, many: float) -> None:
    """Also where companies become too large over and over, and whatever number counts as many that come at one time."""
    params = msgspec.structs.replace(PARAMS, largest=largest, similarity=0.3)
    stories = cluster(chosen(world, []), params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clustering, "_MANY", many)
        regroup_always(patch)
        for start in range(0, len(world), step):
            stories = joined(stories, chosen(world, np.arange(start, min(start + step, len(world)))))
    same(stories, cluster(world, params))


@settings(max_examples=60)
@given(worlds(), st.integers(1, 5), st.sampled_from([3, 6]), st.lists(st.integers(1, 40), max_size=12))
def test_who_comes_goes_and_comes_again_leaves_no_trace(
    world: Documents, step: int, largest: int, leaving: list[int]
) -> None:
    params = msgspec.structs.replace(PARAMS, largest=largest, similarity=0.3)
    stories = cluster(chosen(world, []), params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clustering, "_MANY", 1e9)
        regroup_always(patch)
        for start in range(0, len(world), step):
            stories = joined(stories, chosen(world, np.arange(start, min(start + step, len(world)))))
            stories = removed(stories, np.array(leaving))
        stories = joined(stories, chosen(world, np.flatnonzero(np.isin(world.keys, leaving))))
    same(stories, cluster(world, params))


def test_an_older_version_stays_as_it_was_whatever_came_after() -> None:
    """Versions share what they agree on."""
    first = joined(cluster(documents(plane(0, 90)), PARAMS), documents(plane(5), start=3))
    one = joined(first, documents(plane(95), start=4))
    other = joined(first, documents(plane(180), start=5))
    assert groups(first) == {frozenset({1, 3}), frozenset({2})}
    assert groups(one) == {frozenset({1, 3}), frozenset({2, 4})}
    assert groups(other) == {frozenset({1, 3}), frozenset({2}), frozenset({5})}
    assert one.documents.keys.tolist() == [1, 2, 3, 4]
    assert joined(one, documents(plane(40), start=6)).documents.codes.base is one.documents.codes.base


@given(worlds(), st.integers(0, 40), st.integers(0, 200))
def test_what_goes_leaves_the_rest_as_if_it_had_never_been(world: Documents, leaving: int, hour: int) -> None:
    leaving = min(leaving, len(world))
    stories = expired(removed(cluster(world, PARAMS), world.keys[:leaving]), hour * HOUR)
    rest = [row for row in range(leaving, len(world)) if world.times[row] >= hour * HOUR]
    same(stories, cluster(chosen(world, rest), PARAMS))


@given(worlds())
def test_rules_hold_in_every_story(world: Documents) -> None:
    rows = {key: row for row, key in enumerate(world.keys.tolist())}
    for story in groups(cluster(world, PARAMS)):
        members = np.array([rows[key] for key in story])
        assert np.ptp(world.times[members]) <= 48 * HOUR
        near = neighbours.place(chosen(world, members))
        products = neighbours.products_of(near.codes, near.codes)
        one_source = near.sources[:, None] == near.sources[None, :]
        assert (products[one_source] >= 0.9 * SCALE**2).all()


@settings(max_examples=50)
@given(worlds())
def test_stories_are_those_of_plain_agglomeration_of_all(world: Documents) -> None:
    """The readable twin: join the two groups of highest mean while it is high enough, without caches; then sources."""
    params = msgspec.structs.replace(PARAMS, window_hours=48, span_hours=48)
    placed = neighbours.place(world)
    assert plainly(placed, params) == groups(cluster(world, params))


def plainly(placed: neighbours.Placed, params: ClusteringParams) -> set[frozenset[int]]:
    products = neighbours.products_of(placed.codes, placed.codes).astype(float)
    products[~hanging_together(placed, products, params)] = -1e12
    rest, found = list(range(len(placed))), set[frozenset[int]]()
    while rest:
        evicted: list[int] = []
        for group in joined_plainly(rest, products, placed.times, params):
            story: list[int] = []
            for row in sorted(group, key=lambda row: (-products[row, group].sum(), row)):
                rivals = [other for other in story if placed.sources[other] == placed.sources[row]]
                alike = all(products[row, other] >= params.duplicate * SCALE**2 for other in rivals)
                (story if alike else evicted).append(row)
            found.add(frozenset(placed.keys[story].tolist()))
        rest = sorted(evicted)
    return found


def hanging_together(
    placed: neighbours.Placed, products: NDArray[np.float64], params: ClusteringParams
) -> NDArray[np.bool_]:
    """(n, n) which documents a chain of similar pairs leads between."""
    one_source = placed.sources[:, None] == placed.sources[None, :]
    least = np.where(one_source, params.duplicate, params.similarity) * SCALE**2
    near = np.abs(placed.times[:, None] - placed.times[None, :]) <= params.window
    shared = (placed.keywords[:, None, :, None] == placed.keywords[None, :, None, :]).any(axis=(2, 3))
    reached = (products >= least) & near & shared | np.eye(len(placed), dtype=np.bool_)
    for _ in range(6):  # each doubles the length of the chains
        reached = (reached.astype(np.float32) @ reached.astype(np.float32)) > 0
    return np.asarray(reached)


def joined_plainly(
    rows: list[int], products: NDArray[np.float64], times: NDArray[np.int64], params: ClusteringParams
) -> list[list[int]]:
    groups = [[row] for row in rows]

    def mean(one: list[int], other: list[int]) -> float:
        if np.ptp(times[one + other]) > params.span:
            return -1
        return float(products[np.ix_(one, other)].sum() / (len(one) * len(other)))

    while True:
        pairs = [(mean(a, b), -i, -j) for i, a in enumerate(groups) for j, b in enumerate(groups[:i])]
        best, second, first = max(pairs, default=(-1.0, 0, 0), key=lambda pair: (pair[0], pair[2], pair[1]))
        if best < params.similarity * SCALE**2:
            return groups
        groups[-first] = sorted(groups[-first] + groups.pop(-second))
        groups.sort(key=min)


def test_a_product_of_many_is_that_of_two() -> None:
    vectors = np.random.default_rng(3).normal(size=(300, LENGTH))
    placed = neighbours.place(documents(vectors))
    together = neighbours.products_of(placed.codes, placed.codes)
    exact = placed.codes.astype(np.int64) @ placed.codes.astype(np.int64).T
    np.testing.assert_array_equal(together, exact)
    np.testing.assert_array_equal(neighbours.products_of(placed.codes[7:8], placed.codes)[0], exact[7])


def test_agglomeration_knows_each_document_by_the_first_of_its_story() -> None:
    placed = neighbours.place(documents(plane(0, 90, 5, 95)))
    groups = heads_of(4, agglomerate(placed, PARAMS))
    assert groups.tolist() == divide(placed, groups, PARAMS).tolist() == [0, 1, 0, 1]


@given(worlds(), st.integers(0, 6), st.integers(0, 6))
def test_groups_that_gain_and_lose_documents_are_those_of_all_agglomerated_anew(
    world: Documents, coming: int, leaving: int
) -> None:
    params = msgspec.structs.replace(PARAMS, similarity=0.3)
    placed = neighbours.place(world)
    order = np.random.default_rng(coming).permutation(len(placed))
    before, after = np.sort(order[coming:]), np.sort(order[: len(order) - leaving])
    groups = before[heads_of(len(before), agglomerate(placed[before], params))]
    gone = np.setdiff1d(before, after)
    known = np.full(len(placed), regrouping.NOBODY)
    known[before] = np.where(np.isin(groups, groups[np.isin(before, gone)]), regrouping.NOBODY, groups)
    with pytest.MonkeyPatch.context() as patch:
        regroup_always(patch)
        found = regrouping.regrouped(placed[after], known[after], params)
    np.testing.assert_array_equal(found, heads_of(len(after), agglomerate(placed[after], params)))


def test_who_loses_its_partner_to_a_newcomer_may_join_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 was with 2 (cosine 0.64) and so not with 3 (0.57); 2 goes to 4 (0.71)."""
    regroup_always(monkeypatch)
    before = cluster(documents(plane(0, 50, -55)), PARAMS)
    assert groups(before) == {frozenset({1, 2}), frozenset({3})}
    assert groups(joined(before, documents(plane(95), start=4))) == {frozenset({1, 3}), frozenset({2, 4})}
