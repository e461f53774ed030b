"""Where points, ticks and stretches of a chart lie."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from palate import charts
from palate.charts import Axis, Series


def test_an_axis_shares_its_length_by_value_or_by_logarithm() -> None:
    assert Axis(10, 30).share(15) == 0.25
    assert Axis(1, 100, log=True).share(10) == pytest.approx(0.5)
    assert Axis(3, 3).share(3) == 0.5


def test_ticks_are_round_and_within() -> None:
    assert [name for _, name in Axis(0.03, 0.52).ticks()] == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert [value for value, _ in Axis(0.0009, 0.2, log=True).ticks()] == pytest.approx([0.001, 0.01, 0.1])
    assert [value for value, _ in Axis(4, 60, log=True).ticks()] == pytest.approx([5, 10, 20, 50])
    assert [value for value, _ in Axis(1e-6, 1.0, log=True).ticks()] == pytest.approx(
        [10.0**power for power in range(-6, 1)]
    )
    assert Axis(-0.5, 1.5, names=("walk", "bm25")).ticks() == [(0, "walk"), (1, "bm25")]


def test_an_axis_has_room_and_is_not_logarithmic_below_nothing() -> None:
    axis = charts.axis([1.0, 3.0], margin=0.1)
    assert (axis.low, axis.high) == pytest.approx((0.8, 3.2))
    assert not charts.axis([0.0, 3.0], log=True).log
    assert charts.axis([2.0]).low < 2 < charts.axis([2.0]).high


def test_a_chart_is_one_whole_element_with_its_points_in_place() -> None:
    series = Series("validation", ((0.0, 0.0), (10.0, 1.0)), (None, (0.5, 1.0)), ("a < b", ""), line=True)
    drawn = charts.chart(Axis(0, 10), Axis(0, 1), [series], 'ndcg "10"', [(5, 10)])
    tree = ElementTree.fromstring(drawn)
    dots = [(float(dot.get("cx", 0)), float(dot.get("cy", 0))) for dot in tree.iter("circle")]
    assert dots == [
        (charts.LEFT, charts.HEIGHT - charts.BOTTOM),
        (charts.WIDTH - charts.RIGHT, charts.TOP),
    ]
    shade = next(tree.iter("rect"))
    assert float(shade.get("x", 0)) == (charts.LEFT + charts.WIDTH - charts.RIGHT) / 2
    assert "a &lt; b" in drawn
    assert len(re.findall("whisker", drawn)) == 1
