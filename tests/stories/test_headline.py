"""The headline: of a good source, close to the rest, fresh, and with a title that says what happened."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.stories import headline
from palate.stories.clustering import cluster
from palate.stories.headline import HeadlineParams, Member, title_faults
from palate.stories.neighbours import LENGTH, ClusteringParams, Documents

PARAMS = HeadlineParams()
HOUR = 3_600_000
TITLE = "Parliament passes the budget"


def first(*members: Member) -> int:
    return headline.order(members, PARAMS)[0].key


def test_closeness_and_source_decide() -> None:
    assert first(Member(1, TITLE, 0.5, 0.6, 0), Member(2, TITLE, 0.5, 0.7, 0)) == 2
    assert first(Member(1, TITLE, 1.0, 0.6, 0), Member(2, TITLE, 0.0, 0.7, 0)) == 1


def test_an_old_item_stands_behind() -> None:
    fresh, old = Member(1, TITLE, 0.2, 0.5, 20 * HOUR), Member(2, TITLE, 0.9, 0.7, 2 * HOUR)
    assert first(old, fresh) == 1
    assert first(old, fresh._replace(time=4 * HOUR)) == 2


def test_a_bad_title_stands_behind() -> None:
    assert first(Member(1, "You won't believe this budget!", 0.5, 0.7, 0), Member(2, TITLE, 0.5, 0.6, 0)) == 2


def test_what_the_owner_marked_stands_in_front() -> None:
    assert first(Member(1, TITLE, 0.9, 0.9, 0), Member(2, TITLE, 0.1, 0.4, 0, mark=5.0)) == 2


def test_each_factor_is_shown_and_their_product_is_the_score() -> None:
    (one,) = headline.order([Member(7, "Will it rain?", 0.5, 0.8, 0, mark=2.0)], PARAMS)
    assert one.score == pytest.approx((one.closeness + one.source) * one.freshness * one.clarity * one.mark)
    assert (one.key, one.closeness, one.source, one.mark) == (7, 0.8, 0.15, 2.0)
    assert one.faults == ("short", "question")
    assert one.clarity == pytest.approx(0.36)


def test_nobody_has_no_headline() -> None:
    assert headline.order([], PARAMS) == []


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_the_order_of_arrival_changes_nothing(seed: int, count: int) -> None:
    chance = random.Random(seed)
    members = [
        Member(key, chance.choice([TITLE, "Rain", "Sun"]), chance.choice([0, 0.5]), chance.random() // 0.25 / 4, 0)
        for key in range(count)
    ]
    shuffled = chance.sample(members, len(members))
    assert headline.order(members, PARAMS) == headline.order(shuffled, PARAMS)


def test_scores_that_differ_by_rounding_are_equal() -> None:
    """The order doesn't hang on the last bit of a sum."""
    one, other = Member(2, TITLE, 0.5, 0.1 + 0.2, 0), Member(1, TITLE, 0.5, 0.3, 0)
    assert [standing.key for standing in headline.order([one, other], PARAMS)] == [1, 2]


def test_dates_of_any_age_are_survived() -> None:
    old = Member(1, TITLE, 0.5, 0.5, -(10**14))
    assert [one.key for one in headline.order([old, Member(2, TITLE, 0.5, 0.5, 10**14)], PARAMS)] == [2, 1]


@pytest.mark.parametrize(
    ("title", "fault"),
    [
        ("Rain", "short"),
        ("", "short"),
        ("BREAKING: MARKETS FALL SHARPLY", "shouting"),
        ("СРОЧНО: РУБЛЬ РЕЗКО УПАЛ", "shouting"),
        ("Will the ruble fall this week?", "question"),
        ("What a match in Madrid tonight!", "exclamation"),
        ("The minister said that...", "unfinished"),
        ("«Мы всё сделали правильно»", "quotation"),
        ("This is why you should not sleep", "clickbait"),
        ("Вот почему нельзя спать днём", "clickbait"),
        ("10 things to know about the vote", "clickbait"),
        ("Богдан поссорился с козлом (ВИДЕО)", "clickbait"),
        ("A very long title " * 12, "long"),
    ],
)
def test_faults_of_titles(title: str, fault: str) -> None:
    assert fault in title_faults(title)


@pytest.mark.parametrize(
    "title",
    [
        "Djokovic beats Dimitrov to reach Paris Masters final",
        "Всемирный банк выделит Украине 150 млн",
        "США и КНДР начали переговоры в Женеве",
        "NASA and ESA launch a telescope",
        "«Арсенал» интересуется вратарем «Барселоны» Нету",
    ],
)
def test_plain_titles_have_none(title: str) -> None:
    assert title_faults(title) == ()


def test_closeness_is_the_mean_cosine_with_the_others() -> None:
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(LENGTH, 3)))[0].T
    angles = np.radians([0, 20, 50])
    vectors = np.vstack((np.outer(np.cos(angles), axes[0]) + np.outer(np.sin(angles), axes[1]), axes[2]))
    four = Documents(
        np.arange(4), vectors.astype(np.float16), np.arange(4), np.zeros(4, np.int64), np.zeros((4, 1), np.uint16)
    )
    stories = cluster(four, ClusteringParams(similarity=0.6))
    assert len(set(stories.labels.tolist())) == 2
    cosines = {(0, 1): np.cos(np.radians(20)), (0, 2): np.cos(np.radians(50)), (1, 2): np.cos(np.radians(30))}
    expected = [sum(value for pair, value in cosines.items() if row in pair) / 2 for row in range(3)]
    assert headline.closeness(stories) == pytest.approx([*expected, 1.0], abs=0.01)
