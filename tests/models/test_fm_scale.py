"""How strongly a factorization machine holds its vectors is told by what people said last."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from palate.domain import Interactions
from palate.models import factorization_machine as fm
from palate.models import fm_scale, fm_stored
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachineParams

PARAMS = FactorizationMachineParams(factors=4, epochs=20, l2_users=1.0, l2_items=1.0, initial_scale=0.2, threads=1)
USERS, ITEMS = 40, 150


def votes(signal: float, seed: int = 0) -> Interactions:
    """Everybody votes on half of the items; what two kinds of people like of two kinds of items is clear, or mere chance."""
    random = np.random.default_rng(seed)
    user, item = np.nonzero(random.random((USERS, ITEMS)) < 0.5)
    alike = (user % 2 == item % 2).astype(np.float64)
    liked = random.random(len(user)) < 0.5 + signal * (alike - 0.5)
    times = random.permutation(len(user)).astype(np.int64)
    return Interactions(user, item, liked.astype(np.float32), np.ones(len(user), np.float32), times)


def test_votes_of_chance_are_held_strongly_and_clear_ones_as_set() -> None:
    scales = [fm.fit(votes(signal), NO_SOURCES, PARAMS, 1)[0].l2_scale for signal in (0.0, 0.9)]
    assert scales == [16.0, 1.0]


def test_what_was_chosen_is_what_would_have_been_set() -> None:
    found, _ = fm.fit(votes(0.0), NO_SOURCES, PARAMS, 1)
    strong = msgspec.structs.replace(PARAMS, l2_users=16.0, l2_items=16.0, l2_fields=48.0, l2_scales=(1.0,))
    np.testing.assert_array_equal(found.item_vectors, fm.fit(votes(0.0), NO_SOURCES, strong, 1)[0].item_vectors)


def test_later_fits_go_on_with_what_was_chosen() -> None:
    known, _ = fm.fit(votes(0.0), NO_SOURCES, PARAMS, 1)
    grown, _ = fm.partial_fit(known, votes(0.0, seed=1), NO_SOURCES, PARAMS, 1)
    assert grown.l2_scale == 16.0
    assert grown.l2_user[1] == pytest.approx(16 * PARAMS.l2_users)
    again = fm_stored.from_arrays(fm_stored.to_arrays(grown), grown.loss, grown.base, fm_stored.header(grown))
    assert again.l2_scale == 16.0


def test_the_setting_holds_where_nothing_is_tried() -> None:
    few = msgspec.structs.replace(PARAMS, l2_tried_below=100, l2_scales=(2.0, 16.0))
    assert fm.fit(votes(0.0), NO_SOURCES, few, 1)[0].l2_scale == 2.0


def test_people_are_asked_about_what_they_said_last() -> None:
    users, times = np.repeat(np.arange(30), 20), np.tile(np.arange(20), 30)
    asked = []

    def loss(older: fm_scale.Rows, newer: fm_scale.Rows, scale: float) -> fm_scale.Floats:
        asked.append((sorted(set(times[older].tolist())), sorted(set(times[newer].tolist())), scale))
        return np.full(len(newer), 1 / scale, np.float32)

    assert fm_scale.best(users, times, (1.0, 4.0), loss) == 4.0
    assert asked == [(list(range(18)), [18, 19], 1.0), (list(range(18)), [18, 19], 4.0)]


def test_of_one_moment_a_tenth_is_asked_about_all_the_same() -> None:
    users, seen = np.repeat(np.arange(10), 100), []

    def loss(older: fm_scale.Rows, newer: fm_scale.Rows, scale: float) -> fm_scale.Floats:
        seen.append((len(older), np.bincount(users[newer]).tolist()))
        return np.full(len(newer), scale, np.float32)

    assert fm_scale.best(users, np.zeros(len(users), np.int64), (1.0, 4.0), loss) == 1.0
    assert seen == [(900, [10] * 10)] * 2


def test_the_first_is_left_only_for_what_is_surely_better() -> None:
    users, times = np.repeat(np.arange(40), 40), np.tile(np.arange(40), 40)
    each = np.random.default_rng(1).normal(0, 1, len(users))
    each -= each[times >= 36].mean()  # those are asked about, 160 of them: a standard error is 0.08
    alike = each[36::40][users]
    alike -= alike.mean()

    def best(gains: tuple[float, float], noise: NDArray[np.float64]) -> float:
        gain = dict(zip((1.0, 4.0, 16.0), (0.0, *gains), strict=True))
        return fm_scale.best(
            users,
            times,
            tuple(gain),
            lambda _, newer, scale: (np.float32(scale > 1) * noise[newer] - gain[scale]).astype(np.float32),
        )

    assert best((0.1, 0.1), each) == 1.0
    assert best((0.22, 0.2), each) == 16.0
    assert best((0.3, 0.1), each) == 4.0
    assert best((0.22, 0.2), alike) == 1.0  # four votes of a person who is all alike say no more than one
    assert best((np.nan, 0.3), each) == 16.0


def test_nothing_is_tried_where_hardly_anything_can_be_asked() -> None:
    def loss(*_: object) -> fm_scale.Floats:
        raise AssertionError("a model was learned in vain")

    users = np.repeat(np.arange(49), 10)
    assert fm_scale.best(users, np.arange(490), (2.0, 4.0), loss) == 2.0
    assert fm_scale.best(np.zeros(0, np.int64), np.zeros(0, np.int64), (2.0, 4.0), loss) == 2.0
    assert fm_scale.best(np.repeat(users, 10), np.arange(4900), (2.0,), loss) == 2.0
