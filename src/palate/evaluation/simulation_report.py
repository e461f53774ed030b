"""What came of simulated policies, as a page: the figures, and how they went over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from palate import charts
from palate.charts import Axis, Series
from palate.evaluation import report
from palate.evaluation.policies import CATALOGUE, MEASURES, OVER_TIME

COLOURS = ("#0b62c4", "#c2570c", "#2e8540", "#8a3ffc", "#c9184a", "#008b8b", "#8d6e00", "#6b6b70")
"""Of the policies, in their order; they begin again after the last."""

Answer = Mapping[str, Any]


def page(answer: Answer) -> str:
    """One HTML file from what the command line answers as JSON."""
    people, days = answer["world"]["readers"], answer["hours"] / 24
    title = f"{len(answer['policies'])} policies, {people:,} simulated readers, {days:g} days"
    return report.page(
        title, [_style(), _legend(answer), _charts(answer), _table(answer), _differences(answer), _stated(answer)]
    )


def _style() -> str:
    lines = [
        f".line.p{number}, .whisker.p{number} {{ stroke: {colour}; }} .dot.p{number} {{ fill: {colour}; }} "
        f".key.p{number} {{ color: {colour}; margin-right: 14px; }}"
        for number, colour in enumerate(COLOURS)
    ]
    return f"<style>{' '.join(lines)}</style>"


def _class(number: int) -> str:
    return f"p{number % len(COLOURS)}"


def _legend(answer: Answer) -> str:
    keys = (
        f'<span class="key {_class(number)}">● {escape(name)}</span>' for number, name in enumerate(answer["policies"])
    )
    return f"<p>{''.join(keys)}</p>"


def _charts(answer: Answer) -> str:
    panels = [_chart(answer, measure) for measure in OVER_TIME]
    unit = "day" if answer["stretch_hours"] == 24 else "week"
    return f'<h2>{unit.capitalize()} by {unit}</h2><div class="panels">{"".join(panels)}</div>'


def _chart(answer: Answer, measure: str) -> str:
    policies = answer["policies"]
    series = [
        _series(name, number, len(policies), [stretch[measure] for stretch in found["over_time"]])
        for number, (name, found) in enumerate(policies.items())
    ]
    heights = [end for one in series for bound in one.bounds if bound for end in bound]
    heights += [height for one in series for _, height in one.points]
    if not heights:
        return ""
    x = _stretches(max(len(found["over_time"]) for found in policies.values()))
    drawn = charts.chart(x, charts.axis(heights), series, f"{measure} over time")
    return f"<figure><figcaption>{escape(measure)}</figcaption>{drawn}</figure>"


def _stretches(count: int) -> Axis:
    """Numbers from 1, of which about seven are written."""
    every = math.ceil(count / 7)
    names = (str(number) if (number - 1) % every == 0 else "" for number in range(1, count + 1))
    return Axis(0.5, count + 0.5, names=("", *names))


def _series(name: str, number: int, all_: int, stretches: Sequence[Mapping[str, float | None]]) -> Series:
    """Policies stand side by side, so that each one's intervals can be seen."""
    beside = _ASIDE * (number - (all_ - 1) / 2) / all_
    told = [(place, one) for place, one in enumerate(stretches, 1) if one["value"] is not None]
    return Series(
        _class(number),
        tuple((place + beside, one["value"] or 0.0) for place, one in told),
        tuple(_bounds(one) for _, one in told),
        tuple(f"{name}: {one['value']:.4f}" for _, one in told),
        line=True,
    )


_ASIDE = 0.5
"""Of the room of a stretch, that all policies take together."""


def _bounds(figure: Mapping[str, float | None]) -> tuple[float, float] | None:
    low, high = figure["low"], figure["high"]
    return None if low is None or high is None else (low, high)


def _table(answer: Answer) -> str:
    rows = {name: found["metrics"] for name, found in answer["policies"].items()}
    return f"<h2>Figures</h2>{_rows(rows)}"


def _differences(answer: Answer) -> str:
    rows = {name: found["difference"] for name, found in answer["policies"].items() if found["difference"] is not None}
    return f"<h2>Beside {escape(answer['against'])}, reader by reader</h2>{_rows(rows)}" if rows else ""


def _rows(rows: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> str:
    names = [*MEASURES, *CATALOGUE]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th>{escape(policy)}</th>"
        + "".join(f"<td>{report.interval(found[name])}</td>" for name in names)
        + "</tr>"
        for policy, found in rows.items()
    )
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _stated(answer: Answer) -> str:
    return report.what_holds(answer["stated"])
