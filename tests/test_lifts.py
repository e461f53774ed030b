"""Lifts with intervals that may be looked at as often as one likes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import lifts


def group(people: int, lift: float, rng: np.random.Generator) -> lifts.Values:
    """Likes over views of people who differ in both."""
    views = 1 + rng.poisson(rng.gamma(1.0, 8.0, people))
    likes = rng.binomial(views, np.minimum(rng.beta(2, 6, people) * (1 + lift), 1))
    return lifts.moments(likes, views)


def test_the_variance_of_a_ratio_is_that_of_many_such_groups() -> None:
    rng = np.random.default_rng(1)
    groups = np.stack([group(500, 0.0, rng) for _ in range(800)])
    seen = float(np.log(lifts.ratio(groups)).var())
    told = float(np.median(lifts.spread(groups) / groups[:, 0]))
    assert told == pytest.approx(seen, rel=0.15)


def test_a_lift_is_told_in_both_ways() -> None:
    control, variant = (
        lifts.moments([1.0, 3.0] * 500, [10.0, 10.0] * 500),
        lifts.moments([2.0, 3.0] * 500, [10.0] * 1000),
    )
    found = lifts.compare(control, variant, 0.1)
    assert float(found.relative) == pytest.approx(0.25)
    assert float(found.absolute) == pytest.approx(0.05)
    assert 0 < float(found.low) < 0.25 < float(found.high)
    assert 0 < float(found.absolute_low) < 0.05 < float(found.absolute_high)
    assert float(found.p) < 0.05


def test_an_interval_is_widest_by_what_its_level_says() -> None:
    """The mixture's likelihood ratio at the end of the interval is one over the chance of an error."""
    variance, scale = 0.0004, lifts.prior(0.05)
    half = float(lifts.half_width(variance, scale, 0.95))
    odds = scale**2 / variance
    ratio = math.sqrt(1 / (1 + odds)) * math.exp(half**2 / variance * odds / (1 + odds) / 2)
    assert ratio == pytest.approx(20)


def test_the_interval_is_narrowest_where_the_wanted_lift_is_found() -> None:
    variance = 1 / lifts.needed_information(0.05, 0.05)
    widths = [float(lifts.half_width(variance, lifts.prior(wanted), 0.95)) for wanted in (0.02, 0.05, 0.12)]
    assert widths[1] == min(widths)


@pytest.mark.parametrize("people", [0, 1, 99])
def test_nothing_is_said_of_few(people: int) -> None:
    many, few = group(1000, 0, np.random.default_rng(2)), lifts.moments([1.0] * people, [2.0] * people)
    found = lifts.compare(many, few, 0.05)
    assert all(math.isnan(float(part)) for part in (found.low, found.high, found.p))


def test_nothing_is_said_of_a_control_without_a_like() -> None:
    nothing = lifts.moments(np.zeros(500), np.ones(500))
    found = lifts.compare(nothing, group(500, 0, np.random.default_rng(3)), 0.05)
    assert math.isnan(float(found.low))
    assert math.isnan(lifts.needed_people(nothing, 0.05, 0.05, (0.5, 0.5)))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 50)), min_size=100, max_size=110), st.floats(1.1, 5))
def test_a_group_against_itself_has_no_lift_whatever_it_is(rows: list[tuple[float, float]], factor: float) -> None:
    x, y = np.array(rows).T
    same = lifts.compare(lifts.moments(x, y), lifts.moments(factor * x, factor * y), 0.1)
    if not math.isnan(float(same.low)):
        assert float(same.low) <= 1e-6
        assert float(same.high) >= -1e-6
        assert float(same.p) == pytest.approx(1) or float(same.p) > 0.05


def test_twice_the_lift_takes_about_a_quarter_of_the_people() -> None:
    control = group(5000, 0, np.random.default_rng(4))
    ten, five = (lifts.needed_people(control, lift, 0.05, (0.5, 0.5)) for lift in (0.1, 0.05))
    assert 3.0 < five / ten < 4.5
    half = lifts.needed_people(control, 0.05, 0.05, (0.9, 0.1))
    assert half == pytest.approx(five * (1 / 0.9 + 1 / 0.1) / 4)


def test_people_who_are_split_wrongly_are_noticed_and_others_not() -> None:
    assert lifts.sample_ratio([0, 0], [0.5, 0.5]) == 1
    assert lifts.sample_ratio([5040, 4960], [0.5, 0.5]) > 0.5
    assert lifts.sample_ratio([10_000, 9_300], [0.5, 0.5]) < 0.001
    assert lifts.sample_ratio([10_000, 5_000], [2, 1]) == 1
    assert lifts.sample_ratio([10_000, 5_300, 5_000], [2, 1, 1]) > 0.001


def test_a_fair_split_is_hardly_ever_called_wrong_however_often_it_is_looked_at() -> None:
    rng = np.random.default_rng(5)
    heads = rng.binomial(100, 0.5, (300, 60)).cumsum(axis=1)
    tossed = 100 * np.arange(1, 61)
    alarms = [
        any(lifts.sample_ratio([k, n - k], [0.5, 0.5]) < 0.05 for k, n in zip(row, tossed, strict=True))
        for row in heads
    ]
    assert np.mean(alarms) <= 0.05
