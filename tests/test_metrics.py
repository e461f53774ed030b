"""Metrics against answers worked out by hand, and AUC against counting every pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate import metrics


def test_rmse_of_known_errors() -> None:
    assert metrics.rmse([1, 0, 0.5], [0, 0, 0.5]) == pytest.approx(math.sqrt(1 / 3))
    assert math.isnan(metrics.rmse([], []))


def test_log_loss_of_known_scores_and_of_certain_error() -> None:
    assert metrics.log_loss([1, 0], [0.8, 0.4]) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert metrics.log_loss([1], [0]) == pytest.approx(-math.log(1e-7))
    assert math.isnan(metrics.log_loss([], []))


def test_auc_counts_ties_half() -> None:
    assert metrics.auc([1, 0, 1, 0], [0.9, 0.1, 0.5, 0.5]) == pytest.approx(3.5 / 4)


def test_auc_by_group_is_the_mean_over_groups_that_have_both_kinds() -> None:
    labels, scores = [1, 0, 1, 0, 0, 1, 1], [2, 1, 1, 2, 3, 9, 8]
    groups = ["a", "a", "b", "b", "b", "c", "c"]
    assert metrics.auc(labels, scores, groups) == pytest.approx((1 + 0) / 2)


def test_auc_without_a_pair_is_nan() -> None:
    assert math.isnan(metrics.auc([1, 1], [0, 1]))
    assert math.isnan(metrics.auc([], []))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=40))
def test_auc_equals_counting_every_pair(cases: list[tuple[bool, int, int]]) -> None:
    by_group = []
    for group in {case[2] for case in cases}:
        ups = [score for label, score, of in cases if label and of == group]
        downs = [score for label, score, of in cases if not label and of == group]
        if ups and downs:
            by_group.append(np.mean([(up > down) + (up == down) / 2 for up in ups for down in downs]))
    found = metrics.auc(*zip(*cases, strict=True))
    assert found == pytest.approx(np.mean(by_group)) if by_group else math.isnan(found)


def test_relevance_puts_the_worse_of_equal_scores_first() -> None:
    found = metrics.relevance([[1, 0, 0], [0, 1, 1]], [[0.5, 0.5, 0.1], [3.0, 2.0, 1.0]])
    assert found.tolist() == [[0, 1, 0], [0, 1, 1]]


def test_ndcg_of_a_known_list() -> None:
    found = metrics.ndcg_at([0, 1, 0, 1], 3)
    assert float(found) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_ndcg_takes_grades_and_scores_nothing_relevant_zero() -> None:
    found = metrics.ndcg_at([[0.5, 1.0], [1.0, 0.5], [0.0, 0.0]], 2)
    assert found[0] == pytest.approx((0.5 + 1 / math.log2(3)) / (1 + 0.5 / math.log2(3)))
    assert found[1:].tolist() == [1, 0]


def test_a_total_counts_what_the_list_lacks() -> None:
    relevance = [[1, 0, 0], [0, 0, 1]]
    assert metrics.ndcg_at(relevance, 2, total=[2, 1]).tolist() == pytest.approx([1 / (1 + 1 / math.log2(3)), 0])
    assert metrics.recall_at(relevance, 2, total=[4, 1]).tolist() == [0.25, 0]
    assert metrics.average_precision_at(relevance, 3, total=[2, 1]).tolist() == pytest.approx([0.5, 1 / 3])


def test_hit_rate_recall_and_average_precision_of_known_lists() -> None:
    relevance = [[0, 1, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert metrics.hit_rate_at(relevance, 3).tolist() == [1, 0, 0]
    assert metrics.recall_at(relevance, 3).tolist() == pytest.approx([2 / 3, 0, 0])
    assert metrics.average_precision_at(relevance, 5).tolist() == pytest.approx([(1 / 2 + 2 / 3 + 3 / 5) / 3, 1 / 4, 0])
    assert metrics.average_precision_at(relevance, 2).tolist() == pytest.approx([(1 / 2) / 2, 0, 0])


def test_k_beyond_the_list_is_the_whole_list() -> None:
    assert float(metrics.ndcg_at([1, 0], 10)) == 1
    assert float(metrics.recall_at([1, 0, 1], 10)) == 1


def test_a_bootstrap_interval_holds_the_mean_and_narrows_with_more_values() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    few = metrics.bootstrap_interval(values[:40], np.random.default_rng(1))
    many = metrics.bootstrap_interval(values, np.random.default_rng(1))
    assert many[0] < values.mean() < many[1]
    assert many[1] - many[0] == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert few[1] - few[0] > 2 * (many[1] - many[0])


def test_a_bootstrap_by_groups_draws_whole_groups() -> None:
    values, groups = np.repeat([0.0, 1.0, 0.0, 1.0], 100), np.repeat([7, 3, 5, 9], 100)
    single = metrics.bootstrap_interval(values, np.random.default_rng(0))
    grouped = metrics.bootstrap_interval(values, np.random.default_rng(0), groups=groups)
    assert single[1] - single[0] < 0.12
    assert grouped == (0, 1)


def test_a_bootstrap_takes_any_statistic_of_rows() -> None:
    labels = np.random.default_rng(0).integers(0, 2, 300)
    rows = np.column_stack((labels, labels + np.random.default_rng(1).normal(0, 1, 300)))
    low, high = metrics.bootstrap_interval(
        rows, np.random.default_rng(2), statistic=lambda rows: metrics.auc(rows[:, 0], rows[:, 1]), samples=200
    )
    assert low < metrics.auc(rows[:, 0], rows[:, 1]) < high
    assert (low, high) == metrics.bootstrap_interval(
        rows, np.random.default_rng(2), statistic=lambda rows: metrics.auc(rows[:, 0], rows[:, 1]), samples=200
    )


def test_recall_weighs_what_weighs_more() -> None:
    assert metrics.recall_at([[4, 0, 1, 3]], 2).tolist() == [0.5]


def test_precision_and_reciprocal_rank_of_known_lists() -> None:
    relevance = [[0, 1, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert metrics.precision_at(relevance, 3).tolist() == pytest.approx([2 / 3, 0, 0])
    assert metrics.precision_at(relevance, 10).tolist() == pytest.approx([3 / 10, 1 / 10, 0])
    assert metrics.reciprocal_rank_at(relevance, 5).tolist() == [1 / 2, 1 / 4, 0]
    assert metrics.reciprocal_rank_at(relevance, 3).tolist() == [1 / 2, 0, 0]


def test_auc_of_each_group_and_of_one_that_has_no_pair() -> None:
    found = metrics.auc_of_each([1, 0, 1, 0, 1], [2, 1, 1, 2, 5], np.array([0, 0, 2, 2, 1]), 4)
    np.testing.assert_array_equal(found, [1, np.nan, 0, np.nan])


def test_calibration_error_of_known_bins() -> None:
    labels, scores = [1, 0, 1, 1], [0.2, 0.2, 0.9, 0.9]
    assert metrics.calibration_error(labels, scores, bins=2) == pytest.approx((abs(1 - 0.4) + abs(2 - 1.8)) / 4)
    assert metrics.calibration_error([0, 1], [0.5, 0.5]) == 0  # equal scores are in one bin
    assert math.isnan(metrics.calibration_error([], []))


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=30), st.integers(1, 12))
def test_calibration_is_perfect_when_scores_are_the_labels(cases: list[tuple[bool, float]], bins: int) -> None:
    labels = np.array([label for label, _ in cases], float)
    assert metrics.calibration_error(labels, labels, bins) == 0
    assert metrics.calibration_error(labels, [score for _, score in cases], bins) <= 1


def interval(parts: NDArray[np.float64], random: np.random.Generator) -> tuple[float, float]:
    return metrics.intervals_of_sums([(parts, metrics.mean_of)], random)[0]


def test_the_interval_of_sums_is_that_of_drawing_rows() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    parts = np.column_stack((values, np.ones(400)))
    low, high = interval(parts, np.random.default_rng(1))
    slow = metrics.bootstrap_interval(values, np.random.default_rng(2))
    assert (low, high) == pytest.approx(slow, abs=0.02)


def test_cases_without_a_value_do_not_count() -> None:
    parts = np.array([[2.0, 1.0]] * 20 + [[0.0, 0.0]] * 20)
    assert interval(parts, np.random.default_rng(0)) == (2, 2)
    nothing = interval(np.zeros((5, 2)), np.random.default_rng(0))
    assert all(math.isnan(bound) for bound in nothing)


def test_many_cases_are_drawn_in_groups_and_give_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(0, 1, 5000)
    parts = np.column_stack((values, np.ones(5000)))
    whole = interval(parts, np.random.default_rng(1))
    monkeypatch.setattr(metrics, "BOOTSTRAP_GROUPS", 500)
    assert interval(parts, np.random.default_rng(1)) == pytest.approx(whole, abs=0.006)


def test_a_paired_difference_is_told_where_single_intervals_overlap() -> None:
    random = np.random.default_rng(0)
    base = random.normal(0, 1, 300)
    parts = np.column_stack((base + 0.1 + random.normal(0, 0.01, 300), np.ones(300), base, np.ones(300)))
    finish = lambda sums: metrics.mean_of(sums[..., :2]) - metrics.mean_of(sums[..., 2:])  # noqa: E731
    low, high = metrics.intervals_of_sums([(parts, finish)], np.random.default_rng(1))[0]
    assert 0.09 < low < 0.1 < high < 0.11


def test_statistics_of_the_same_users_are_drawn_together() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100)
    one = np.column_stack((values, np.ones(100)))
    first, second = metrics.intervals_of_sums(
        [(one, metrics.mean_of), (one + np.array([1, 0]), metrics.mean_of)], np.random.default_rng(1)
    )
    assert second == pytest.approx((first[0] + 1, first[1] + 1))
    assert metrics.intervals_of_sums([], np.random.default_rng(1)) == []
