"""Implicit ALS: the optimum it has to reach, its twin in NumPy, and what it does with strange weights."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from palate import matrix
from palate.domain import Interactions
from palate.errors import InvalidInput
from palate.matrix import Sparse
from palate.models import als_steps, implicit_als
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.models.material import Known, Material, known, material
from palate.vocabulary import vocabulary

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SMALL = ImplicitALSParams(factors=5, epochs=3, l2=0.02, unobserved_weight=0.1)


def interactions(users: Any, items: Any, weights: Any) -> Interactions:
    user, item = np.asarray(users, np.int64), np.asarray(items, np.int64)
    order = np.lexsort((item, user))
    weight = np.asarray(weights, np.float32)[order]
    return Interactions(user[order], item[order], np.ones(len(user), np.float32), weight, np.zeros(len(user), np.int64))


def some(seed: int = 0, users: int = 30, items: int = 17, share: float = 0.3, refusals: float = 0.1) -> Material:
    """A lopsided material; user keys are multiples of 10, item keys start at 2⁴⁰."""
    random = np.random.default_rng(seed)
    row, column = np.nonzero(random.random((users, items)) < share)
    weight = random.uniform(0.5, 3, len(row)) * np.where(random.random(len(row)) < refusals, -1, 1)
    return material(interactions(row * 10, column + 2**40, weight), NOW)


def dense(data: Material) -> NDArray[np.float64]:
    """(U, I): the weight of each pair, 0 where there is none."""
    result = np.zeros((len(data.users), len(data.items)))
    rows, columns = data.users.rows(data.interactions.user), data.items.rows(data.interactions.item)
    result[rows, columns] = data.interactions.weight
    return result


def test_people_of_few_items_teach_nothing_and_are_asked_about_all_the_same() -> None:
    users, items, weights = [1, 2, 2, 3, 3, 3, 9], [7, 7, 8, 6, 7, 8, 6], [1, 1, 2, 1, 1, 1, 1]
    whole = material(interactions(users, items, weights), NOW)
    several = material(interactions(users, items, [0, 1, 2, 1, 1, 1, 0]), NOW)
    found = implicit_als.fit(whole, msgspec.structs.replace(SMALL, min_items=2), 0)
    assert found.item_vectors.tobytes() == implicit_als.fit(several, SMALL, 0).item_vectors.tobytes()
    asked = known(whole.interactions, np.array([1, 9]), whole.items)
    assert (np.abs(implicit_als.score_all(found, asked)).max(axis=1) > 0).all()


def loss(weights: NDArray[np.float64], users: Any, items: Any, params: ImplicitALSParams) -> float:
    """As the module's head states it, cell by cell."""
    strong = params.alpha * np.abs(weights) ** params.power * (weights != 0)
    wanted, scores = weights > 0, users @ items.T
    if params.form == "confidence":
        unobserved, cells = 1.0, ((1 + strong) * (wanted - scores) ** 2).sum()
    else:
        assert params.unobserved_weight is not None
        unobserved = params.unobserved_weight
        cells = (strong * (wanted - scores) ** 2).sum() + unobserved * (scores**2).sum()
    seen = weights != 0
    ridges = 0.0
    for vectors, counts, others in ((users, seen.sum(1), len(items)), (items, seen.sum(0), len(users))):
        ridges += (params.l2 * (counts + unobserved * others) ** params.l2_exponent * (vectors**2).sum(1)).sum()
    return float(cells + ridges)


FORMS = [
    SMALL,
    msgspec.structs.replace(SMALL, form="confidence", alpha=4.0, power=2.0, l2=0.1, l2_exponent=0.0),
    msgspec.structs.replace(SMALL, factors=33, alpha=0.3, l2_exponent=0.5),
    msgspec.structs.replace(SMALL, factors=70, l2=0.05),
    msgspec.structs.replace(SMALL, factors=64, form="confidence", alpha=0.2, power=3.0),
]


@pytest.mark.parametrize("solver", ["exact", "cg"])
@pytest.mark.parametrize("params", FORMS)
def test_the_stated_loss_is_that_of_the_vectors_and_falls(params: ImplicitALSParams, solver: Any) -> None:
    data, params = some(), msgspec.structs.replace(params, solver=solver)
    model = implicit_als.fit(data, params, 1)
    expected = loss(dense(data), model.user_vectors.astype(float), model.item_vectors.astype(float), params)
    assert model.losses[-1] == pytest.approx(expected, rel=1e-5)
    assert list(model.losses) == sorted(model.losses, reverse=True)


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads(solver: Any) -> None:
    params = msgspec.structs.replace(SMALL, solver=solver)
    one, three = (implicit_als.fit(some(), msgspec.structs.replace(params, threads=threads), 7) for threads in (1, 3))
    assert {name: array.tobytes() for name, array in implicit_als.to_arrays(one).items()} == {
        name: array.tobytes() for name, array in implicit_als.to_arrays(three).items()
    }
    assert one.losses == three.losses


def test_all_pairs_together_weigh_eight_times_the_interactions_unless_it_is_said() -> None:
    data = some()
    weights = np.abs(dense(data))
    pairs = np.count_nonzero(weights.any(axis=1)) * np.count_nonzero(weights.any(axis=0))
    left = implicit_als.fit(data, msgspec.structs.replace(SMALL, unobserved_weight=None), 1)
    assert left.params.unobserved_weight == pytest.approx(8 * weights.sum() / pairs, rel=1e-6)
    said = implicit_als.fit(data, left.params, 1)
    np.testing.assert_array_equal(said.item_vectors, left.item_vectors)
    assert implicit_als.fit(data, SMALL, 1).params.unobserved_weight == SMALL.unobserved_weight


def cells_of(data: Material, params: ImplicitALSParams) -> Sparse:
    weights = implicit_als.strengths(data.interactions.weight, params)
    return matrix.of_interactions(data.interactions, weights, data.users, data.items)


@pytest.mark.parametrize("params", FORMS)
def test_an_epoch_equals_its_readable_twin(params: ImplicitALSParams) -> None:
    data, evidence = some(), implicit_als.evidence(params)
    params = msgspec.structs.replace(params, solver="exact")
    before = implicit_als.fit(data, params, 1)
    after = implicit_als.fit(data, msgspec.structs.replace(params, epochs=1), 2, warm=before)
    by_user = cells_of(data, params)
    users = als_steps.readable_half_step(by_user, before.item_vectors.astype(float), evidence)
    items = als_steps.readable_half_step(matrix.transposed(by_user), users, evidence)
    np.testing.assert_allclose(after.user_vectors @ after.item_vectors.T, users @ items.T, atol=1e-4)


@pytest.mark.parametrize("params", FORMS)
def test_conjugate_gradients_reach_the_loss_of_the_exact_solution(params: ImplicitALSParams) -> None:
    longer = msgspec.structs.replace(params, epochs=30)
    exact, cg = (implicit_als.fit(some(), msgspec.structs.replace(longer, solver=way), 1) for way in ("exact", "cg"))
    assert cg.losses[-1] <= exact.losses[-1] * 1.01


def test_what_people_took_scores_above_what_they_did_not_and_refusals_below() -> None:
    """Two tastes, each of seven people for five items; one item each is hidden from the first and refused by the second."""
    users, items = np.repeat(np.arange(14), 5), np.concatenate([np.arange(5) + 5 * (u >= 7) for u in range(14)])
    weights = np.ones(len(users))
    weights[(users == 13) & (items == 9)] = -1
    kept = ~((users == 0) & (items == 0))
    data = material(interactions(users[kept], items[kept], weights[kept]), NOW)
    params = ImplicitALSParams(factors=4, epochs=60, l2=0.01, unobserved_weight=0.1)
    model = implicit_als.fit(data, params, 3)
    found = implicit_als.score_all(model, known(data.interactions, np.array([0, 13]), data.items))
    assert found[0, 0] > 0.4 > 0.2 > np.abs(found[0, 5:]).max()
    assert found[1, 5:9].min() > 0.5
    assert found[1, 9] < found[1, 5:9].min() - 0.2


def test_weights_grow_as_alpha_and_power_say_and_keep_their_sign() -> None:
    params = ImplicitALSParams(alpha=2, power=3)
    found = implicit_als.strengths(np.array([0.5, -2, 0], np.float32), params)
    assert found.tolist() == [0.25, -16, 0]


def test_published_frequency_scaling_counts_interactions_and_unobserved_cells() -> None:
    evidence = implicit_als.evidence(ImplicitALSParams(l2=0.5, unobserved_weight=0.1, l2_exponent=2))
    assert evidence.ridge(3, 70) == pytest.approx(0.5 * (3 + 7) ** 2)


def test_rows_without_evidence_are_zero_and_counted_so() -> None:
    data = Material(interactions([1, 1], [5, 6], [1, 0]), vocabulary([1, 2]), vocabulary([5, 6, 7]), NOW)
    model = implicit_als.fit(data, SMALL, 0)
    assert model.item_examples.tolist() == [1, 0, 0]
    assert model.user_examples.tolist() == [1, 0]
    assert not model.item_vectors[1:].any()
    assert not model.user_vectors[1].any()
    assert model.item_vectors[0].any()


def test_on_epoch_sees_the_model_after_each_epoch() -> None:
    seen: list[ImplicitALS] = []
    model = implicit_als.fit(some(), SMALL, 1, on_epoch=seen.append)
    assert [each.losses for each in seen] == [model.losses[:n] for n in (1, 2, 3)]
    assert np.array_equal(seen[-1].item_vectors, model.item_vectors)


def test_a_warm_start_begins_where_the_other_model_ended() -> None:
    data = some()
    first = implicit_als.fit(data, SMALL, 1)
    again = implicit_als.fit(data, msgspec.structs.replace(SMALL, epochs=1), 2, warm=first)
    assert again.losses[0] < first.losses[-1]
    with pytest.raises(InvalidInput, match="has 5 factors, not 8"):
        implicit_als.fit(data, msgspec.structs.replace(SMALL, factors=8), 1, warm=first)


def test_a_prior_holds_items_where_it_is() -> None:
    data, evidence = some(), implicit_als.evidence(SMALL)
    prior = np.random.default_rng(4).normal(0, 0.5, (len(data.items), 5)).astype(np.float32)
    model = implicit_als.fit(data, SMALL, 1, item_prior=prior)
    by_item = matrix.transposed(cells_of(data, SMALL))
    expected = als_steps.readable_half_step(by_item, model.user_vectors.astype(float), evidence, prior.astype(float))
    np.testing.assert_allclose(model.item_vectors, expected, atol=1e-4)
    held = implicit_als.fit(data, msgspec.structs.replace(SMALL, l2=1e5), 1, item_prior=prior)
    np.testing.assert_allclose(held.item_vectors, prior, atol=1e-3)


def test_a_snapshot_gives_the_model_back() -> None:
    model = implicit_als.fit(some(), SMALL, 1)
    header = msgspec.json.decode(msgspec.json.encode(implicit_als.header(model)))
    back = implicit_als.from_arrays(implicit_als.to_arrays(model), header, model.items)
    people = known(some().interactions, model.users.keys, model.items)
    scores = implicit_als.score_all(model, people)
    np.testing.assert_allclose(implicit_als.score_all(back, people), scores, atol=3e-3)
    assert back.params == model.params
    assert back.losses == model.losses


# ------------------------------------------------------------------------------------------------ fold-in


@pytest.mark.parametrize("params", FORMS)
def test_folding_in_one_person_or_many_equals_the_half_step(params: ImplicitALSParams) -> None:
    data = some()
    model = implicit_als.fit(data, params, 1)
    weights = known(data.interactions, data.users.keys, data.items).weights
    expected = als_steps.readable_half_step(
        cells_of(data, params), model.item_vectors.astype(float), implicit_als.evidence(params)
    )
    np.testing.assert_allclose(implicit_als.fold_in_users(model, weights), expected, atol=1e-4)
    one_by_one = [implicit_als.fold_in_user(model, *weights.row(row)) for row in range(len(weights))]
    np.testing.assert_allclose(np.stack(one_by_one), expected, atol=1e-4)


@pytest.mark.parametrize("factors", [5, 40])
def test_folding_in_many_of_whom_most_have_nothing_keeps_the_axes(factors: int) -> None:
    model = implicit_als.fit(some(), msgspec.structs.replace(SMALL, factors=factors), 1)
    rows, columns = np.array([3, 3, 17]), np.array([0, 4, 9])
    weights = matrix.sparse(rows, columns, np.array([1, 2, 1], np.float32), (50, len(model.items)))
    expected = als_steps.readable_half_step(
        weights, model.item_vectors.astype(float), implicit_als.evidence(model.params)
    )
    np.testing.assert_allclose(implicit_als.fold_in_users(model, weights), expected, atol=1e-4)


def test_few_and_many_people_are_scored_alike() -> None:
    data = some(users=implicit_als.FEW + 3)
    model = implicit_als.fit(data, SMALL, 1)
    many = implicit_als.score_all(model, known(data.interactions, data.users.keys, data.items))
    few = implicit_als.score_all(model, known(data.interactions, data.users.keys[3:7], data.items))
    np.testing.assert_allclose(many[3:7], few, atol=1e-5)
    assert few.dtype == np.float32
    nobody = Known(
        np.empty(0, np.int64), matrix.taken(cells_of(data, SMALL), np.empty(0, np.int64)), cells_of(data, SMALL)
    )
    assert implicit_als.score_all(model, nobody).shape == (0, len(data.items))


def test_new_items_get_the_vectors_that_the_fit_would_give_them_with_users_fixed() -> None:
    data = some()
    model = implicit_als.fit(data, msgspec.structs.replace(SMALL, solver="exact"), 1)
    found = implicit_als.fold_in_items(
        model, matrix.transposed(known(data.interactions, data.users.keys, data.items).weights)
    )
    np.testing.assert_allclose(found, model.item_vectors, atol=1e-4)


def test_users_of_articles_give_the_vectors_of_videos() -> None:
    """Two tastes for articles; videos that only one of the groups watched score higher with that group."""
    users, items = np.repeat(np.arange(20), 6), np.concatenate([np.arange(6) + 6 * (u >= 11) for u in range(20)])
    data = material(interactions(users, items, np.ones(len(users))), NOW)
    model = implicit_als.fit(data, ImplicitALSParams(factors=3, epochs=60, l2=0.01, unobserved_weight=0.1), 1)
    watches = matrix.sparse(
        np.array([0, 0, 0, 1, 1]), np.array([1, 4, 7, 12, 15]), np.array([1, 1, 1, 1, 0.8], np.float32), (3, 20)
    )
    videos = implicit_als.fold_in_items(model, watches)
    scores = model.user_vectors @ videos.T
    assert scores[:11, 0].min() > scores[11:, 0].max() + 0.1
    assert scores[11:, 1].min() > scores[:11, 1].max() + 0.1
    assert not videos[2].any()


def test_contributions_sum_to_the_score_and_name_the_alike() -> None:
    data = some()
    model = implicit_als.fit(data, SMALL, 1)
    weights = known(data.interactions, data.users.keys, data.items).weights
    items, values = weights.row(4)
    wanted = np.arange(len(data.items))
    parts = implicit_als.contributions(model, items, values, wanted)
    scores = model.item_vectors @ implicit_als.fold_in_user(model, items, values)
    np.testing.assert_allclose(parts.sum(1), scores, atol=1e-4)
    assert (parts[:, values < 0] == 0).all()
    own = np.flatnonzero(values > 0)
    assert (parts[items[own], own] > 0).all()


# ------------------------------------------------------------------------------------------------ strange input


def test_nothing_at_all_can_be_learned() -> None:
    model = implicit_als.fit(material(interactions([], [], []), NOW), SMALL, 1)
    assert implicit_als.score_all(model, known(interactions([], [], []), np.array([3]), model.items)).shape == (1, 0)


@pytest.mark.parametrize("form", ["weighted", "confidence"])
def test_alpha_zero_or_weights_of_zero_are_no_error(form: Any) -> None:
    data = some()
    flat = implicit_als.fit(data, msgspec.structs.replace(SMALL, form=form, alpha=0.0), 1)
    assert np.isfinite(flat.losses).all()
    assert flat.item_vectors.any() == (form == "confidence")  # there a positive counts 1 even so
    empty = Material(interactions([1, 2], [3, 4], [0, 0]), data.users, data.items, NOW)
    assert not implicit_als.fit(empty, msgspec.structs.replace(SMALL, form=form), 1).item_vectors.any()


@pytest.mark.parametrize("solver", ["exact", "cg"])
@pytest.mark.parametrize("loose", [{"l2": 0.0}, {"l2": 0.0, "unobserved_weight": 0.0}])
def test_without_l2_vectors_stay_finite(loose: dict[str, float], solver: Any) -> None:
    params = msgspec.structs.replace(SMALL, factors=40, solver=solver, epochs=20, **loose)
    model = implicit_als.fit(some(), params, 1)
    assert np.isfinite(model.item_vectors).all()
    assert np.isfinite(model.user_vectors).all()


def test_one_user_only_with_more_factors_than_rows() -> None:
    data = material(interactions([8] * 6, range(6), [1, 1, 1, 1, 1, -1]), NOW)
    model = implicit_als.fit(data, ImplicitALSParams(factors=50, l2=0.001, unobserved_weight=0.01), 1)
    found = implicit_als.score_all(model, known(data.interactions, np.array([8]), data.items))[0]
    assert found[:5].min() > 0.8
    assert abs(found[5]) < 0.1


def test_keys_may_be_of_any_size() -> None:
    data = material(interactions([2**31, 2**62, 2**63 - 1], [2**63 - 1, 2**31 + 5, -7], [1, 1, 1]), NOW)
    model = implicit_als.fit(data, ImplicitALSParams(factors=3, l2=0.01, unobserved_weight=0.1), 1)
    found = implicit_als.score_all(model, known(data.interactions, np.array([2**62]), data.items))[0]
    assert data.items.keys[found.argmax()] == 2**31 + 5


def test_a_weight_that_is_no_number_is_no_evidence_and_an_infinite_one_an_error() -> None:
    data, params = some(), SMALL
    broken = data.interactions.weight.copy()
    broken[::3] = np.nan
    columns = data.interactions.user, data.interactions.item, data.interactions.label, broken, data.interactions.time
    without = np.where(np.isnan(broken), 0, broken)
    nan = implicit_als.fit(Material(Interactions(*columns), data.users, data.items, NOW), params, 1)
    columns = *columns[:3], without, columns[4]
    zero = implicit_als.fit(Material(Interactions(*columns), data.users, data.items, NOW), params, 1)
    assert np.array_equal(nan.item_vectors, zero.item_vectors)
    with pytest.raises(InvalidInput, match="too large"):
        implicit_als.fit(data, msgspec.structs.replace(params, alpha=1e38, power=10.0), 1)


def test_for_one_person_too_a_weight_that_is_no_number_is_no_evidence() -> None:
    model = implicit_als.fit(some(), SMALL, 1)
    weights = np.array([1, np.nan, -2, 0], np.float32)
    found = implicit_als.fold_in_user(model, np.array([3, 4, 5, 6]), weights)
    assert np.array_equal(found, implicit_als.fold_in_user(model, np.array([3, 5]), weights[[0, 2]]))
    assert not implicit_als.fold_in_user(model, np.array([4]), weights[1:2]).any()


def test_of_duplicate_pairs_the_last_holds() -> None:
    twice = Interactions(
        *(np.repeat(getattr(some().interactions, name), 2) for name in Interactions.__dataclass_fields__)
    )
    twice.weight[::2] = 77
    once = implicit_als.fit(some(), SMALL, 1)
    assert np.array_equal(implicit_als.fit(material(twice, NOW), SMALL, 1).item_vectors, once.item_vectors)


def test_a_user_with_a_million_events_keeps_its_digits() -> None:
    """Items are much alike, so that all that is added up has one sign: the worst that float32 can meet."""
    many, params = 1_000_000, ImplicitALSParams(factors=3, l2=1e-5, unobserved_weight=0.01)
    model = implicit_als.fit(some(), params, 1)
    vectors = np.random.default_rng(6).normal([0.7, -0.1, 0.3], 0.05, (many, 3)).astype(np.float32)
    wide = replace(model, item_vectors=vectors)
    weights = Sparse(np.array([0, many]), np.arange(many, dtype=np.int32), np.ones(many, np.float32), many)
    expected = als_steps.readable_half_step(weights, vectors.astype(float), implicit_als.evidence(params))
    np.testing.assert_allclose(implicit_als.fold_in_users(wide, weights), expected, rtol=1e-4, atol=1e-4)
