"""What every model must do, as a list of small checks: each takes a `Model` and raises when it is not so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.domain import Interactions

DAY = 24 * 3600 * 1000


@dataclass(frozen=True)
class Model:
    """One model with its parameters: how it is fitted (interactions, seed), scored (users, items), and seen in arrays."""

    fit: Callable[[Interactions, int], Any]
    score: Callable[[Any, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
    arrays: Callable[[Any], dict[str, NDArray[Any]]]
    error: float
    """Largest mean absolute error on data that it can learn."""
    by_user: bool
    """Whether users differ."""


def interactions(users: Any, items: Any, labels: Any) -> Interactions:
    """Sorted by user and item, a day old at time 0."""
    user, item = np.asarray(users, np.int64), np.asarray(items, np.int64)
    order = np.lexsort((item, user))
    label = np.asarray(labels, np.float32)[order]
    return Interactions(user[order], item[order], label, np.ones(len(user), np.float32), np.zeros(len(user), np.int64))


def known_answer(by_user: bool) -> Interactions:
    """7 users × 31 items, all judged: good items end in 0 to 3; for the last three users, where users differ, they don't."""
    users, items = (part.ravel() for part in np.meshgrid(np.arange(7) * 1000, np.arange(31) + 2**40, indexing="ij"))
    good = (items - 2**40) % 10 < 4
    return interactions(users, items, np.where(good ^ (by_user & (users >= 4000)), 0.9, 0.1))


def check_known_answers_are_reproduced(model: Model) -> None:
    data = known_answer(model.by_user)
    found = model.score(model.fit(data, 1), data.user, data.item)
    assert np.abs(found - data.label).mean() < model.error


def check_scores_are_float32_between_0_and_1(model: Model) -> None:
    data = known_answer(model.by_user)
    found = model.score(model.fit(data, 1), data.user, data.item)
    assert found.dtype == np.float32
    assert found.shape == data.user.shape
    assert ((found >= 0) & (found <= 1)).all()


def check_scoring_does_not_change_the_model(model: Model) -> None:
    data = known_answer(model.by_user)
    fitted = model.fit(data, 1)
    before = contents(model, fitted)
    model.score(fitted, data.user, data.item)
    model.score(fitted, np.array([-5, 1, 2**62]), np.array([3, 2**40, 2**62]))
    assert contents(model, fitted) == before


def check_fitting_does_not_change_the_data(model: Model) -> None:
    data = known_answer(model.by_user)
    before = [getattr(data, name).tobytes() for name in data.__dataclass_fields__]
    model.fit(data, 1)
    assert [getattr(data, name).tobytes() for name in data.__dataclass_fields__] == before


def check_unknown_ids_are_at_the_prior(model: Model) -> None:
    data = known_answer(model.by_user)
    fitted = model.fit(data, 1)
    prior = model.score(fitted, np.array([99]), np.array([98]))
    assert abs(prior[0] - data.label.mean()) < 0.02
    assert model.score(fitted, np.array([2**62, -1]), np.array([-1, 0])).tolist() == [prior[0]] * 2


def check_the_same_seed_gives_the_same_bytes(model: Model) -> None:
    data = known_answer(model.by_user)
    assert contents(model, model.fit(data, 7)) == contents(model, model.fit(data, 7))


def check_labels_that_are_nan_are_no_examples(model: Model) -> None:
    data = known_answer(model.by_user)
    seen = interactions([*data.user.tolist(), 555], [*data.item.tolist(), 2**40 + 500], [*data.label.tolist(), np.nan])
    plain, with_seen = model.fit(data, 1), model.fit(seen, 1)
    some = data.user[::5], data.item[::5]
    np.testing.assert_allclose(model.score(with_seen, *some), model.score(plain, *some), atol=0.08)
    assert all(np.isfinite(array).all() for array in model.arrays(with_seen).values())
    prior = model.score(plain, np.array([99]), np.array([98]))[0]
    assert abs(model.score(with_seen, np.array([555]), np.array([2**40 + 500]))[0] - prior) < 0.02


def check_no_interactions_at_all_can_be_learned(model: Model) -> None:
    fitted = model.fit(interactions([], [], []), 1)
    assert model.score(fitted, np.array([1]), np.array([2])).tolist() == [0.5]


def check_labels_that_are_all_nan_can_be_learned(model: Model) -> None:
    fitted = model.fit(interactions([1, 2], [3, 4], [np.nan, np.nan]), 1)
    assert np.allclose(model.score(fitted, np.array([1, 9]), np.array([4, 9])), 0.5, atol=0.01)


def check_labels_that_are_all_alike_keep_scores_finite(model: Model) -> None:
    for label in (0.0, 1.0):
        fitted = model.fit(interactions([1, 1, 2], [3, 4, 5], [label] * 3), 1)
        found = model.score(fitted, np.array([1, 9]), np.array([4, 9]))
        assert np.isfinite(found).all()
        assert (np.abs(found - label) < 0.5).all()


def check_one_user_only(model: Model) -> None:
    data = interactions([8] * 6, range(6), [1, 1, 1, 1, 1, 0])
    found = model.score(model.fit(data, 1), data.user, data.item)
    assert found[0] > found[5]
    assert found[5] < data.label.mean()


def check_huge_keys(model: Model) -> None:
    data = interactions([2**31, 2**62, 2**63 - 1], [2**63 - 1, 2**31 + 5, 7], [1, 0, 1])
    found = model.score(model.fit(data, 1), data.user, data.item)
    assert found[0] > found[1] < found[2]


def check_a_user_with_very_many_interactions(model: Model) -> None:
    """Neither the many nor the few are drowned: 100,000 votes of one, 40 of each of three others on the same items."""
    few = np.arange(40)
    data = interactions(
        np.concatenate((np.full(100_000, 1), np.repeat([2, 3, 4], 40))),
        np.concatenate((np.arange(100_000), np.tile(few, 3))),
        np.concatenate((np.arange(100_000) % 2, np.tile(few % 2, 3))),
    )
    found = model.score(model.fit(data, 1), data.user, data.item)
    assert np.isfinite(found).all()
    others = data.user > 1
    assert found[others & (data.label == 1)].min() > found[others & (data.label == 0)].max()


def contents(model: Model, fitted: Any) -> dict[str, bytes]:
    """Every array of a fitted model, byte for byte."""
    return {name: array.tobytes() for name, array in model.arrays(fitted).items()}


ALL = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
