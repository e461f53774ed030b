"""What another way to choose would have earned."""

from __future__ import annotations

import numpy as np
import pytest

from palate import off_policy
from palate.off_policy import explored_more


def test_the_same_way_earns_the_same() -> None:
    found = off_policy.estimate([1, 0, 1, 1], [0.5, 0.2, 0.9, 0.5], [0.5, 0.2, 0.9, 0.5], [1, 1, 2, 3])
    assert found.logged.value == found.ips.value == found.snips.value == 0.75
    assert (found.choices, found.people, found.effective) == (4, 3, 4)
    assert found.warning is not None


def test_weights_are_how_much_likelier_each_choice_would_have_been() -> None:
    found = off_policy.estimate([1, 0], [0.5, 0.25], [0.25, 0.75], [1, 2])
    assert found.ips.value == pytest.approx(0.5 * 1 / 2)
    assert found.snips.value == pytest.approx(0.5 / 3.5)
    assert found.effective == pytest.approx(3.5**2 / (0.25 + 9))


def test_the_truth_is_found_from_choices_by_chance() -> None:
    """One in five places explored; what is explored is liked less. What would half of them earn?"""
    rng = np.random.default_rng(1)
    n, before, after, learnable = 40_000, 0.2, 0.4, 10
    explores = rng.random(n) < before
    reward = rng.random(n) < np.where(explores, 0.1, 0.5)
    logged = np.where(explores, before / learnable, 1 - before)
    target = explored_more(logged, before, after)
    found = off_policy.estimate(reward, logged, target, np.arange(n) // 20)
    truth = after * 0.1 + (1 - after) * 0.5
    for one in (found.ips, found.snips):
        assert one.low is not None
        assert one.high is not None
        assert one.low < truth < one.high < one.low + 0.03
    assert found.effective > 10_000
    assert found.warning is None


def test_probabilities_of_another_share_of_exploration() -> None:
    logged = [1.0, 0.9, 0.9 + 0.1 / 5, 0.1 / 5, 0.5]
    assert explored_more(logged, 0.1, 0.3).tolist()[:4] == pytest.approx([1.0, 0.7, 0.7 + 0.3 / 5, 0.3 / 5])
    assert np.isnan(explored_more(logged, 0.1, 0.3)[4])
    assert explored_more(logged, 0.1, 0.1)[:4] == pytest.approx(logged[:4])


def test_nothing_of_nobody() -> None:
    assert off_policy.estimate([], [], [], []).snips.value is None
