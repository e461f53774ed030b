"""How strongly a factorization machine holds its vectors is told by what people said last."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from palate.domain import Interactions
from palate.models import factorization_machine as fm
from palate.models import fm_scale, fm_stored
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachineParams

PARAMS = FactorizationMachineParams(factors=4, epochs=20, l2_users=1.0, l2_items=1.0, initial_scale=0.2, threads=1)
USERS, ITEMS = 40, 60


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
    users, times = np.repeat(np.arange(10), 20), np.tile(np.arange(20), 10)
    asked = []

    def loss(older: fm_scale.Rows, newer: fm_scale.Rows, scale: float) -> fm_scale.Floats:
        asked.append((sorted(set(times[older].tolist())), sorted(set(times[newer].tolist()))))
        return np.full(len(newer), scale, np.float32)

    assert fm_scale.best(users, times, (1.0, 4.0), loss) == 1.0
    assert asked[:3] == [(list(range(18)), [18, 19]), (list(range(16)), [16, 17]), (list(range(14)), [14, 15])]


def test_of_one_moment_a_tenth_is_asked_about_all_the_same() -> None:
    users, seen = np.repeat(np.arange(10), 100), []

    def loss(older: fm_scale.Rows, newer: fm_scale.Rows, scale: float) -> fm_scale.Floats:
        seen.append((len(older), np.bincount(users[newer]).tolist()))
        return np.ones(len(newer), np.float32)

    assert fm_scale.best(users, np.zeros(len(users), np.int64), (1.0, 4.0), loss) == 4.0
    assert seen[:3] == [(900, [10] * 10), (800, [10] * 10), (700, [10] * 10)]


def test_of_equals_the_strongest_is_taken_and_none_without_numbers() -> None:
    users, times = np.repeat(np.arange(10), 40), np.tile(np.arange(40), 10)
    random = np.random.default_rng(1)
    same = random.random(len(users)).astype(np.float32)
    found = fm_scale.best(users, times, (1.0, 4.0), lambda _older, newer, _scale: same[newer])
    assert found == 4.0
    broken = fm_scale.best(
        users, times, (1.0, 4.0), lambda _older, newer, scale: np.where(scale > 1, np.float32(np.nan), same[newer])
    )
    assert broken == 1.0
