from __future__ import annotations

import numpy as np

from palate import light_learning
from palate.light_learning import Taught


def taught(people: int, seed: int, size: int = 400) -> list[Taught]:
    """The heavy ranker goes by the second column, bent, and hardly by the first, which is the plain score; each person's scores
    lie on a height of their own."""
    random, found = np.random.default_rng(seed), []
    for _ in range(people):
        plain, age, other = random.standard_normal((3, size)).astype(np.float32)
        raw = 0.2 * plain - 2 * np.abs(age) + random.normal(0, 0.1, size) + 10 * random.standard_normal()
        found.append(Taught([plain, age, other], raw))
    return found


def test_what_the_heavy_ranker_puts_on_top_comes_through() -> None:
    light = light_learning.learn(taught(8, 1))
    asked = taught(8, 2)
    assert light_learning.recall(light, asked, 60) > 0.95
    assert light_learning.recall(None, asked, 60) < 0.5


def test_of_few_candidates_all_come_through() -> None:
    asked = taught(2, 3, size=40)
    assert light_learning.recall(None, asked, 40) == 1


def test_a_column_that_never_changes_adds_nothing() -> None:
    same = [Taught([*one.columns[:2], np.full(len(one.raw), 7, np.float32)], one.raw) for one in taught(6, 1)]
    light = light_learning.learn(same)
    assert np.isfinite(light.heights).all()
    assert np.isfinite(light(same[0].columns)).all()


def test_what_few_items_have_counts() -> None:
    people = []
    for one in taught(8, 1, size=2000):
        heard = np.zeros(len(one.raw), np.float32)
        heard[:60] = np.linspace(1, 3, 60)
        people.append(Taught([*one.columns, heard], one.raw + 4 * heard))
    assert light_learning.recall(light_learning.learn(people[:4]), people[4:], 60) > 0.95


def test_what_its_columns_add_can_be_had_apart() -> None:
    light, one = light_learning.learn(taught(4, 1)), taught(1, 2)[0]
    apart = light(one.columns[:1]) + light(one.columns[1:], 1)
    np.testing.assert_allclose(apart, light(one.columns), atol=1e-4)


def test_arrays_bring_it_back() -> None:
    light, asked = light_learning.learn(taught(4, 1)), taught(1, 2)[0]
    again = light_learning.from_arrays(light_learning.to_arrays(light), 3)
    assert again is not None
    np.testing.assert_array_equal(again(asked.columns), light(asked.columns))
    assert light_learning.from_arrays(light_learning.to_arrays(light), 4) is None
    assert light_learning.from_arrays({}, 3) is None


def test_a_column_is_a_line_with_bends() -> None:
    bends = np.array([[0, 1, 2, 3, 5]], np.float32)
    heights = np.array([[1, 4, 2, 2, -3]], np.float32)
    column = np.linspace(-2, 7, 40, dtype=np.float32)
    expected = np.interp(column, bends[0], heights[0])
    np.testing.assert_allclose(light_learning.Light(bends, heights)([column]), expected, atol=1e-5)
