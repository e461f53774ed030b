"""The figures as one self-contained HTML file, and as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from palate import charts
from palate.business.figures import EVERYBODY, MEANINGS, Line, Report
from palate.charts import Axis, Series
from palate.evaluation.measuring import Figure
from palate.evaluation.report import page

NAMES = {
    "retention": "retention",
    "hours_per_person": "hours per person",
    "visits_per_person": "visits per person",
    "visits_without_view": "visits without a view",
    "views_per_visit": "views per visit",
    "likes_per_view": "likes per view",
    "reach": "reach",
    "recommended": "catalogue recommended",
    "watched": "catalogue watched",
}
SHARES = {"retention", "visits_without_view", "reach", "recommended", "watched"}

COLOURS = ("#c2570c", "#1a7f4b", "#8a3ffc", "#b5179e", "#5b6b00", "#a61b1b")
"""Of the first variants; further ones are in the tables alone."""

MARKS = ".line.{0}, .whisker.{0} {{ stroke: {1}; }} .dot.{0} {{ fill: {1}; }} .legend .{0} {{ color: {1}; }}"
STYLE = (
    "<style>"
    + " ".join(MARKS.format(f"variant{number}", colour) for number, colour in enumerate(COLOURS))
    + " .days .dot { r: 1.5px; } .legend span { margin-right: 14px; }</style>"
)

SHOWN_VARIANTS = 8


def to_json(report: Report) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "first": report.first,
        "end": report.end,
        "events": report.events,
        "machines": report.machines,
        "catalogue": report.catalogue,
        "total": [_line_json(line) for line in report.total],
        "weeks": [_line_json(line) for line in report.weeks],
        "days": [_line_json(line) for line in report.days],
        "cohorts": [row | {"variant": row["variant"] or None} for row in report.cohorts],
        "lifetime_value": [
            {"variant": variant or None, **found.to_json()} for variant, found in report.lifetimes.items()
        ],
        "unit": report.unit,
        "stated": report.stated,
    }


def _line_json(line: Line) -> dict[str, Any]:
    return {
        "period": line.period,
        "variant": line.variant or None,
        "complete": line.complete,
        "people": line.people,
        "visits": line.visits,
        **{name: figure.to_json() for name, figure in line.figures.items()},
    }


def to_html(report: Report, title: str) -> str:
    """The page."""
    return page(
        title,
        [
            f"<p>{report.events:,} events; figures from {report.first} to {escape(report.end)}; {report.catalogue:,} items in "
            f"the catalogue; {report.machines:,} accounts left out as machines.</p>",
            STYLE,
            _total(report.total),
            _lifetimes(report),
            "<h2>Week by week</h2>" + _legend(report.variants) + _charts(report.weeks, report.variants, "weeks"),
            _cohorts(report),
            "<h2>Day by day</h2>" + _charts(report.days, [EVERYBODY], "days"),
            _table("Weeks", report.weeks),
            _table("Days", [line for line in report.days if line.variant == EVERYBODY]),
            "<h2>What each figure means</h2><table><tbody>"
            + "".join(f"<tr><th>{NAMES[name]}</th><td>{meaning}</td></tr>" for name, meaning in MEANINGS.items())
            + "</tbody></table>",
            "<h2>What holds of these figures</h2><ul>"
            + "".join(f"<li>{escape(line)}</li>" for line in report.stated)
            + "</ul>",
        ],
    )


def to_text(report: Report) -> str:
    """What the terminal shows: all of it by variant, and the weeks of everybody."""
    weeks = [line for line in report.weeks if line.variant == EVERYBODY]
    columns = [*report.total[:SHOWN_VARIANTS], *weeks[-4:]]
    heads = [line.variant or "everybody" for line in report.total[:SHOWN_VARIANTS]]
    heads += [f"{line.period}{'' if line.complete else ' …'}" for line in weeks[-4:]]
    rows = [("people", [f"{line.people:,}" for line in columns]), ("visits", [f"{line.visits:,}" for line in columns])]
    rows += [(NAMES[name], [_plain(name, line.figures[name]) for line in columns]) for name in MEANINGS]
    lines = [" " * 22 + "".join(f"{head[:22]:>24}" for head in heads)]
    lines += [f"{name:<22}" + "".join(f"{cell:>24}" for cell in cells) for name, cells in rows]
    for variant, found in report.lifetimes.items():
        if found.value.value is not None:
            lines.append(f"lifetime value of {variant or 'everybody'}: {_plain('', found.value)} {report.unit}")
    return "\n".join([*lines, "", *report.stated])


def _plain(name: str, figure: Figure) -> str:
    if figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return _number(name, figure.value)
    return f"{_number(name, figure.value)} [{_number(name, figure.low)}, {_number(name, figure.high)}]"


def _number(name: str, value: float) -> str:
    return f"{100 * value:.1f}%" if name in SHARES else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _cell(name: str, figure: Figure) -> str:
    if figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return _number(name, figure.value)
    return f"{_number(name, figure.value)} <small>{_number(name, figure.low)} … {_number(name, figure.high)}</small>"


def _total(lines: Sequence[Line]) -> str:
    """A row a figure, a column a variant."""
    head = "".join(f"<th>{escape(line.variant or 'everybody')}</th>" for line in lines)
    counts = {"active people": [f"{line.people:,}" for line in lines], "visits": [f"{line.visits:,}" for line in lines]}
    cells = counts | {NAMES[name]: [_cell(name, line.figures[name]) for line in lines] for name in NAMES}
    rows = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in own)}</tr>" for name, own in cells.items()
    )
    return f"<h2>All of it</h2><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _table(title: str, lines: Sequence[Line]) -> str:
    """A row a period and variant, the newest first."""
    named = any(line.variant for line in lines)
    head = "".join(f"<th>{name}</th>" for name in ("people", "visits", *NAMES.values()))
    rows = "".join(
        f"<tr><th>{escape(_name(line, named))}</th><td>{line.people:,}</td><td>{line.visits:,}</td>"
        + "".join(f"<td>{_cell(name, line.figures[name])}</td>" for name in NAMES)
        + "</tr>"
        for line in sorted(lines, key=lambda line: line.period, reverse=True)
    )
    return f"<h2>{title}</h2><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _name(line: Line, named: bool) -> str:
    return (
        line.period
        + (f" {line.variant or 'everybody'}" if named else "")
        + ("" if line.complete else " (not complete)")
    )


def _colour(variant: str, variants: Sequence[str]) -> str | None:
    """Class of a variant's marks; None for those that are in the tables alone."""
    place = list(variants).index(variant) - 1
    return "validation" if variant == EVERYBODY else f"variant{place}" if place < len(COLOURS) else None


def _legend(variants: Sequence[str]) -> str:
    marks = [
        f'<span class="{_colour(variant, variants)}">● {escape(variant or "everybody")}</span>'
        for variant in variants
        if _colour(variant, variants) is not None
    ]
    return f'<p class="legend">{"".join(marks)}</p>' if len(variants) > 1 else ""


def _lifetimes(report: Report) -> str:
    rows = "".join(
        f"<tr><th>{escape(variant or 'everybody')}</th><td>{_cell('', found.value)}</td>"
        f"<td>{'–' if found.seen is None else _number('', found.seen)}</td><td>{found.weeks}</td>"
        f"<td>{'–' if found.ratio is None else _number('', found.ratio)}</td></tr>"
        for variant, found in report.lifetimes.items()
    )
    return (
        f"<h2>Lifetime value, in {escape(report.unit)}</h2><table><thead><tr><th></th><th>value</th><th>of it seen</th>"
        "<th>weeks seen</th><th>r</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>"
    )


def _charts(lines: Sequence[Line], variants: Sequence[str], kind: str) -> str:
    """Each figure over the complete periods, everybody with intervals."""
    panels = [
        f"<figure><figcaption>{NAMES.get(name, 'active people')}</figcaption>{_chart(name, lines, variants)}</figure>"
        for name in ("people", *MEANINGS)
    ]
    return f'<div class="panels {kind}">{"".join(panels)}</div>'


def _chart(name: str, lines: Sequence[Line], variants: Sequence[str]) -> str:
    complete = [line for line in lines if line.complete]
    periods = sorted({line.period for line in complete})
    series = [one for variant in variants if (one := _series(name, variant, complete, periods, variants)) is not None]
    if not series:
        return "<p>no answer</p>"
    heights = [
        end
        for one in series
        for (_, y), bound in zip(one.points, one.bounds, strict=True)
        for end in (y, *(bound or ()))
    ]
    y = charts.axis([0.0, *heights], margin=0.03)
    return charts.chart(_x_axis(periods), y, series, NAMES.get(name, "active people"))


def _series(
    name: str, variant: str, lines: Sequence[Line], periods: Sequence[str], variants: Sequence[str]
) -> Series | None:
    told = [
        (float(periods.index(line.period)), figure, line)
        for line in lines
        if line.variant == variant and (figure := _of(line, name)).value is not None
    ]
    colour, everybody = _colour(variant, variants), variant == EVERYBODY
    if not told or colour is None or (not everybody and name in ("people", "recommended", "watched")):
        return None
    return Series(
        colour,
        tuple((x, figure.value or 0.0) for x, figure, _ in told),
        tuple(_bounds(figure) if everybody else None for _, figure, _ in told),
        tuple(f"{line.period}, {variant or 'everybody'}: {_plain(name, figure)}" for _, figure, line in told),
        line=True,
    )


def _of(line: Line, name: str) -> Figure:
    return Figure(float(line.people)) if name == "people" else line.figures[name]


def _bounds(figure: Figure) -> tuple[float, float] | None:
    return None if figure.low is None or figure.high is None else (figure.low, figure.high)


def _x_axis(periods: Sequence[str]) -> Axis:
    """Days and months at as many places as there is room for."""
    step = -(-len(periods) // 5)
    names = tuple(period[5:] if place % step == 0 else "" for place, period in enumerate(periods))
    return Axis(-0.5, len(periods) - 0.5, names=names)


def _cohorts(report: Report) -> str:
    """Of everybody: a row a first week, a column a week since, the darker the more were active."""
    own = [row for row in report.cohorts if row["variant"] == EVERYBODY]
    if not own:
        return ""
    head = "".join(f"<th>+{age}</th>" for age in range(max(len(row["active"]) for row in own)))
    rows = "".join(_cohort(row) for row in own)
    return (
        "<h2>Who came when, and is still there</h2><p>Share of the people of a first week who are active so many weeks later.</p>"
        f"<table><thead><tr><th></th><th>people</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _cohort(row: Mapping[str, Any]) -> str:
    cells = "".join(
        f'<td style="background: color-mix(in srgb, var(--validation) {60 * share:.0f}%, transparent)">{100 * share:.0f}%</td>'
        for share in row["active"]
    )
    return f"<tr><th>{row['week']}</th><td>{row['people']:,}</td>{cells}</tr>"
