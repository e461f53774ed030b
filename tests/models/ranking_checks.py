"""What every model of the table must do for ranking, as a list of small checks: each takes an entry and its params."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.domain import Interactions
from palate.models.factorization_machine import ItemSources
from palate.models.material import Known, Material, known, material
from palate.models.registry import Entry
from palate.vocabulary import vocabulary

NOW = datetime(1970, 1, 3, tzinfo=UTC)
HOUR = 3_600_000
NEW = 987_654_321
"""Nobody that any model has met."""


@dataclass(frozen=True)
class Case:
    """A model, and parameters that suit a few dozen interactions."""

    entry: Entry
    params: msgspec.Struct
    by_user: bool = True
    """Whether people differ."""

    def fit(self, data: Interactions, **more: Any) -> tuple[Any, Material]:
        learned = replace(material(data, NOW), **more)
        return self.entry.fit(learned, self.params, 7), learned

    def scores(self, model: Any, people: Known) -> NDArray[np.float32]:
        return np.asarray(self.entry.score_all(model, people))


def told(cells: list[tuple[int, int, float]]) -> Interactions:
    """User, item, weight; refusals have the label 0, others 1. An hour apart."""
    cells = sorted(cells)
    user, item = np.array([cell[:2] for cell in cells], np.int64).reshape(-1, 2).T
    weight = np.array([cell[2] for cell in cells], np.float32)
    return Interactions(user, item, (weight > 0).astype(np.float32), weight, np.arange(len(cells)) * HOUR)


def two_camps(users: int = 24, items: int = 20) -> Interactions:
    """Even users take to most of the even items, odd users to the odd ones; a few of the others they refuse."""
    random = np.random.default_rng(1)
    return told(
        [
            (user, item, 1.0 if (user + item) % 2 == 0 else -1.0)
            for user in range(users)
            for item in range(items)
            if random.random() < (0.7 if (user + item) % 2 == 0 else 0.2)
        ]
    )


CAMPS = two_camps()


def of_all(case: Case) -> tuple[Any, Material, NDArray[np.float32]]:
    model, learned = case.fit(CAMPS)
    return model, learned, case.scores(model, known(CAMPS, learned.users.keys, learned.items))


def check_there_is_a_finite_float32_for_every_person_and_item(case: Case) -> None:
    model, learned, scores = of_all(case)
    assert scores.dtype == np.float32
    assert scores.shape == (len(learned.users), len(learned.items))
    assert np.isfinite(scores).all()
    assert case.scores(model, known(CAMPS, np.empty(0, np.int64), learned.items)).shape == (0, len(learned.items))


def check_one_person_scores_as_among_others(case: Case) -> None:
    model, learned, scores = of_all(case)
    for place in (0, 5):
        alone = case.scores(model, known(CAMPS, learned.users.keys[[place]], learned.items))
        np.testing.assert_allclose(alone[0], scores[place], rtol=1e-3, atol=1e-4)


def check_people_get_what_people_like_them_took_to(case: Case) -> None:
    _, learned, scores = of_all(case)
    if not case.by_user:
        return
    own = np.equal.outer(learned.users.keys % 2, learned.items.keys % 2)
    seen = known(CAMPS, learned.users.keys, learned.items).weights
    row = np.repeat(np.arange(len(seen)), seen.counts)
    unseen = np.ones(own.shape, bool)
    unseen[row, seen.columns] = False
    assert scores[own & unseen].mean() > scores[~own & unseen].mean() + scores[~own].std()


def check_nobody_knows_a_new_person_and_their_order_is_finite(case: Case) -> None:
    model, learned, _ = of_all(case)
    scores = case.scores(model, known(CAMPS, np.array([NEW, NEW + 1]), learned.items))
    assert np.isfinite(scores).all()
    assert np.array_equal(scores[0], scores[1])


def check_the_same_seed_gives_the_same_bytes(case: Case) -> None:
    first, second = (case.entry.to_arrays(case.fit(CAMPS)[0]) for _ in range(2))
    assert {name: array.tobytes() for name, array in first.items()} == {
        name: array.tobytes() for name, array in second.items()
    }


def check_scoring_does_not_change_the_model_nor_fitting_the_data(case: Case) -> None:
    before = [getattr(CAMPS, name).tobytes() for name in CAMPS.__dataclass_fields__]
    model, learned = case.fit(CAMPS)
    arrays = {name: array.tobytes() for name, array in case.entry.to_arrays(model).items()}
    case.scores(model, known(CAMPS, np.array([0, NEW]), learned.items))
    assert {name: array.tobytes() for name, array in case.entry.to_arrays(model).items()} == arrays
    assert [getattr(CAMPS, name).tobytes() for name in CAMPS.__dataclass_fields__] == before


def check_items_without_interactions_have_a_row(case: Case) -> None:
    items = vocabulary([*CAMPS.item.tolist(), -5, 777])
    sources = ItemSources(items.keys, items.keys % 2)
    model, learned = case.fit(CAMPS, items=items, item_sources=sources)
    scores = case.scores(model, known(CAMPS, np.array([0, NEW]), items))
    assert scores.shape == (2, len(items))
    assert np.isfinite(scores).all()
    assert len(learned.items) == len(items)


def check_refusals_push_down(case: Case) -> None:
    """Everybody takes to half of the items; the last of the even ones they refuse, the last of the odd ones nobody has met."""
    liked = [(user, item, 1.0) for user in range(12) for item in range(6) if (user + item) % 3]
    model, learned = case.fit(told([*liked, *((user, 8, -1.0) for user in range(12))]))
    scores = case.scores(model, known(told(liked), np.arange(12), learned.items))
    assert scores[:, 6].mean() < scores[:, :6].mean()
    assert scores[:, 6].max() <= scores[:, :6].max(axis=1).min()


def check_a_persons_newest_items_count_most_where_that_is_set(case: Case) -> None:
    """Somebody took to even items, then to odd ones: that makes them one of the odd camp; in the other order of the even one."""
    if "recent_items" not in case.params.__struct_fields__:
        return
    model, learned = replace(case, params=msgspec.structs.replace(case.params, recent_items=0.5)).fit(CAMPS)
    mixed = told([(NEW, item, 1.0) for item in (2, 3, 4, 5, 6, 8)])
    odd_last = np.array([0, 4, 1, 5, 2, 3]) * HOUR
    entry = case.entry
    arrays, header = entry.to_arrays(model), json.loads(json.dumps(entry.header(model)))
    for which in (model, entry.from_arrays(arrays, header, learned.items)):
        for time, camp in ((odd_last, 1), (-odd_last, 0)):
            people = known(replace(mixed, time=time), np.array([NEW]), learned.items)
            scores = case.scores(which, people)[0][9:]
            own = learned.items.keys[9:] % 2 == camp
            assert scores[own].mean() > scores[~own].mean()


def check_parts_of_a_score_sum_to_it(case: Case) -> None:
    if case.entry.contributions is None or "recent_items" not in case.params.__struct_fields__:
        return
    params = msgspec.structs.replace(case.params, recent_items=2.0)
    model, learned = replace(case, params=params).fit(CAMPS)
    person = known(CAMPS, learned.users.keys[[3]], learned.items)
    wanted = np.arange(len(learned.items))
    found = case.entry.contributions(model, person, wanted).sum(axis=1)
    np.testing.assert_allclose(found, case.scores(model, person)[0], atol=0.003)


def check_one_user_only(case: Case) -> None:
    data = told([(8, item, 1.0) for item in range(5)])
    model, learned = case.fit(data)
    scores = case.scores(model, known(data, np.array([8]), learned.items))
    assert scores.shape == (1, 5)
    assert np.isfinite(scores).all()


def check_one_interaction_and_none_at_all(case: Case) -> None:
    for data in (told([(1, 2, 1.0)]), told([])):
        model, learned = case.fit(data)
        scores = case.scores(model, known(data, np.array([1, NEW]), learned.items))
        assert scores.shape == (2, len(data))
        assert np.isfinite(scores).all()


def check_huge_keys(case: Case) -> None:
    far = replace(CAMPS, user=CAMPS.user + 2**62, item=CAMPS.item + (2**63 - 1 - 100))
    model, learned = case.fit(far)
    near, _, expected = of_all(case)
    scores = case.scores(model, known(far, learned.users.keys, learned.items))
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)
    assert type(model) is type(near)


def check_weights_that_are_all_zero_are_no_evidence(case: Case) -> None:
    nothing = replace(CAMPS, weight=np.zeros_like(CAMPS.weight), label=np.full_like(CAMPS.label, np.nan))
    model, learned = case.fit(nothing)
    scores = case.scores(model, known(nothing, np.array([0, 1, NEW]), learned.items))
    assert np.isfinite(scores).all()


def check_weights_that_are_not_numbers_are_no_evidence(case: Case) -> None:
    some = np.arange(len(CAMPS)) % 7 == 0
    spoiled = replace(
        CAMPS,
        weight=np.where(some, np.float32(np.nan), CAMPS.weight),
        label=np.where(some, np.float32(np.nan), CAMPS.label),
    )
    model, learned = case.fit(spoiled)
    assert all(np.isfinite(array).all() for array in case.entry.to_arrays(model).values() if array.dtype.kind == "f")
    assert np.isfinite(case.scores(model, known(spoiled, np.array([0, 1, NEW]), learned.items))).all()


def check_arrays_and_header_bring_it_back(case: Case) -> None:
    model, learned, expected = of_all(case)
    arrays = {name: _read_only(array) for name, array in case.entry.to_arrays(model).items()}
    header = json.loads(json.dumps(case.entry.header(model), allow_nan=False))
    read = case.entry.from_arrays(arrays, header, learned.items)
    scores = case.scores(read, known(CAMPS, learned.users.keys, learned.items))
    spread = max(float(expected.std()), 1e-6)
    np.testing.assert_allclose(scores, expected, atol=0.02 * spread, rtol=0.01)


def check_names_of_arrays_fit_a_snapshot(case: Case) -> None:
    model, _, _ = of_all(case)
    for name, array in case.entry.to_arrays(model).items():
        assert name.replace("_", "").isalnum()
        assert name == name.lower()
        assert len(name) <= 64
        assert not array.dtype.hasobject


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


ALL = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
