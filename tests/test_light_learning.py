from __future__ import annotations

import numpy as np
import pytest

from palate import light_learning
from palate.errors import SnapshotBroken
from palate.light_learning import Taught
from palate.models.additive import Additive

pytest.importorskip("catboost")
GIVEN = 2


def taught(people: int, seed: int, size: int = 400) -> list[Taught]:
    """The heavy ranker goes by the second column, bent, and hardly by the first, which is the plain score; each person's scores
    lie on a height of their own."""
    random, found = np.random.default_rng(seed), []
    for _ in range(people):
        plain, age, other = random.standard_normal((3, size)).astype(np.float32)
        raw = 0.2 * plain - 2 * np.abs(age) + random.normal(0, 0.1, size) + 10 * random.standard_normal()
        found.append(Taught(np.stack((plain, age, other)), raw))
    return found


def recall(light: Additive | None, asked: list[Taught], keep: int) -> float:
    return float(np.mean([light_learning.recall(light, one, keep, GIVEN) for one in asked]))


def test_what_the_heavy_ranker_puts_on_top_comes_through() -> None:
    light = light_learning.learn(taught(8, 1))
    asked = taught(8, 2)
    assert recall(light, asked, 60) > 0.95
    assert recall(None, asked, 60) < 0.5


def test_what_two_columns_say_together_comes_through() -> None:
    def together(seed: int) -> list[Taught]:
        return [Taught(one.columns, np.prod(one.columns[:2], axis=0)) for one in taught(8, seed, size=1000)]

    light, asked = light_learning.learn(together(1)), together(2)
    lines_alone = Additive(light.bends, light.heights, light_learning.NO_TREES)
    assert recall(light, asked, 25) > 0.9 > 0.8 > recall(lines_alone, asked, 25)


def test_of_few_candidates_all_come_through() -> None:
    assert recall(None, taught(2, 3, size=40), 40) == 1


def test_a_column_that_never_changes_adds_nothing() -> None:
    people = taught(6, 1)
    for one in people:
        one.columns[2] = 7
    light = light_learning.learn(people)
    assert np.isfinite(light.heights).all()
    assert not light.heights[2].any()
    assert not (light.trees.columns[np.isfinite(light.trees.borders)] == 2).any()


def test_what_few_items_have_counts() -> None:
    people = []
    for one in taught(8, 1, size=2000):
        heard = np.zeros(len(one.raw), np.float32)
        heard[:60] = np.linspace(1, 3, 60)
        people.append(Taught(np.concatenate((one.columns, [heard])), one.raw + 4 * heard))
    assert recall(light_learning.learn(people[:4]), people[4:], 60) > 0.95


def test_where_nothing_is_told_apart_nothing_is_learned() -> None:
    light = light_learning.learn([Taught(one.columns, np.ones(len(one.raw))) for one in taught(3, 1)])
    assert not light.heights.any()
    assert not len(light.trees.columns)


def test_the_best_are_among_those_that_are_learned_from() -> None:
    (one,) = taught(1, 1, size=2000)
    some = one.thinned(500, np.random.default_rng(0))
    assert some.columns.shape == (3, 500)
    best = np.sort(one.raw)[-light_learning.BEST :]
    assert np.isin(best, some.raw).all()
    assert one.thinned(2000, np.random.default_rng(0)) is one


def test_arrays_bring_it_back() -> None:
    light, (asked,) = light_learning.learn(taught(4, 1)), taught(1, 2)
    arrays = light_learning.to_arrays(light)
    again = light_learning.from_arrays(arrays, 3)
    assert again is not None
    assert recall(again, [asked], 40) == recall(light, [asked], 40)
    assert light_learning.from_arrays(arrays, 4) is None
    assert light_learning.from_arrays({}, 3) is None
    with pytest.raises(SnapshotBroken):
        light_learning.from_arrays(arrays | {"light_heights": light.heights[:1]}, 3)
