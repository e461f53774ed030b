"""What came of simulated policies, as a page: the figures, and how they went over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from palate import charts
from palate.charts import Series
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
    series = [
        _series(name, _class(number), [stretch[measure] for stretch in found["over_time"]])
        for number, (name, found) in enumerate(answer["policies"].items())
    ]
    heights = [end for one in series for bound in one.bounds if bound for end in bound]
    heights += [height for one in series for _, height in one.points]
    if not heights:
        return ""
    x = charts.axis([0.5, max(across for one in series for across, _ in one.points) + 0.5], margin=0)
    drawn = charts.chart(x, charts.axis(heights), series, f"{measure} over time")
    return f"<figure><figcaption>{escape(measure)}</figcaption>{drawn}</figure>"


def _series(name: str, kind: str, stretches: Sequence[Mapping[str, float | None]]) -> Series:
    told = [(number, one) for number, one in enumerate(stretches, 1) if one["value"] is not None]
    return Series(
        kind,
        tuple((float(number), one["value"] or 0.0) for number, one in told),
        tuple(
            (one["low"], one["high"]) if one["low"] is not None and one["high"] is not None else None for _, one in told
        ),
        tuple(f"{name}: {one['value']:.4f}" for _, one in told),
        line=True,
    )


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
