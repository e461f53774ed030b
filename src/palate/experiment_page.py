"""An experiment in words, tables and charts: for its page, for a file, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from palate import charts, experiments
from palate.charts import Axis, Series
from palate.experiment_judging import Compared, Look, first_clear, guards, level_of, percent
from palate.experiments import METRICS, ExperimentParams, Stored

COLOURS = ("#1f6fb2", "#b4540a", "#2b8a57", "#8a3ffc")
"""Of the first variants; further ones are in the tables alone."""

STYLE = (
    "<style>"
    + " ".join(
        f".line.variant{number}, .whisker.variant{number} {{ stroke: {colour}; }} .dot.variant{number} {{ fill: {colour}; }} "
        f".legend .variant{number} {{ color: {colour}; }}"
        for number, colour in enumerate(COLOURS)
    )
    + " .legend span { margin-right: 14px; }</style>"
)
"""For a file; the page of the server has its own."""

BESIDE = 0.18
"""Of a day, by which the marks of one variant stand beside those of another."""

SHARES = {"visits_without_view", "retention_by_day", "retention_by_week"}


# --- in words -------------------------------------------------------------------------------------------------------------


def verdicts(stored: Stored, looks: Sequence[Look], params: ExperimentParams) -> list[str]:
    """What there is to say first, in sentences, for each variant."""
    if not looks or not sum(looks[-1].people.values()):
        return ["Nobody has been served by it yet."]
    now = looks[-1]
    said = [_verdict(stored, looks, variant.name, params) for variant in stored.experiment.variants[1:]]
    if now.split < params.uneven:
        said.insert(0, f"People aren't split as they should be (p = {now.split:.1g}): trust none of these figures.")
    return said


def _verdict(stored: Stored, looks: Sequence[Look], variant: str, params: ExperimentParams) -> str:
    metric, now = stored.experiment.metric, looks[-1]
    found, clear = now.figures[metric][variant], first_clear(looks, metric, variant)
    figure = metric.replace("_", " ")
    if found.relative is None:
        return f"{variant}: too few people to say anything of {figure}."
    level = level_of(stored.experiment, metric, (), params)
    lift = f"{variant}: {figure} {percent(found.relative)} ({100 * level:.4g} %: {_interval(found)})"
    if clear is not None:
        then = clear.figures[metric][variant]
        higher = (then.low or 0) > 0
        good = higher == METRICS[metric].higher_is_better
        return f"{lift}. It does {'better' if good else 'worse'} than the control; that was clear on {clear.day}."
    return f"{lift}. Not decided: {_left(stored, looks)}"


def _left(stored: Stored, looks: Sequence[Look]) -> str:
    now, wanted = looks[-1], stored.experiment.lift
    needed = next(one.people for one in now.needed if one.lift == wanted)
    so_far = sum(now.people.values())
    if needed is None:
        return f"it isn't known yet how many people would show a lift of {100 * wanted:g} %."
    text = f"a lift of {100 * wanted:g} % is found with {needed:,} people; {so_far:,} so far"
    if stored.stopped is not None or so_far >= needed:
        return f"{text}."
    pace = _pace(looks)
    return f"{text}." if pace <= 0 else f"{text}, at today's pace {math.ceil((needed - so_far) / pace)} days more."


def _pace(looks: Sequence[Look]) -> float:
    """New people a day, in the last week."""
    days = [one for one in looks if one.complete][-8:]
    counts = [sum(one.people.values()) for one in days]
    return (counts[-1] - counts[0]) / (len(counts) - 1) if len(counts) > 1 else 0.0


def stated(stored: Stored, looks: Sequence[Look], params: ExperimentParams) -> list[str]:
    """What holds of the figures."""
    own = ", ".join(name.replace("_", " ") for name in guards(stored.experiment, params))
    lines = [
        "Intervals and p-values hold at all looks together: the experiment may be looked at every day, and stopped at any look. "
        "They are of one metric at a time: the one that decides was named beforehand; of the others one in twenty may be off by "
        "chance.",
        f"Guards: {own}. Their intervals are wider, since each of them may stop the experiment.",
        "Only people who were served by a variant count, each from then on with all that they do. Shares of the catalogue grow "
        "with the number of people, and have no interval.",
    ]
    if looks:
        now = looks[-1]
        lines.append(
            f"Left out: {now.several:,} people who were served by several variants (two ids that were joined), {now.machines:,} "
            "accounts that do more in a day than a person can."
        )
    return lines


def _state(stored: Stored) -> str:
    over = "" if stored.stopped is None else f", stopped {stored.stopped:%Y-%m-%d %H:%M} ({stored.reason})"
    return f"Started {stored.started:%Y-%m-%d %H:%M} UTC{over}."


def text(stored: Stored, looks: Sequence[Look], params: ExperimentParams) -> str:
    """What the terminal shows."""
    lines = [_state(stored), *verdicts(stored, looks, params)]
    if looks:
        names = [one.name for one in stored.experiment.variants]
        lines += ["", " " * 22 + "".join(f"{name:>{_width(name)}}" for name in names)]
        lines += [f"{row[0]:<22}" + "".join(_cells(row[1:], names)) for row in _rows(stored, looks[-1])]
        lines += ["", *(_need(one.lift, one.people) for one in looks[-1].needed)]
    return "\n".join([*lines, "", *stated(stored, looks, params)])


def _width(name: str) -> int:
    return 12 if name == experiments.CONTROL else 40


def _cells(cells: Sequence[str], names: Sequence[str]) -> list[str]:
    return [f"{cell:>{_width(name)}}" for cell, name in zip(cells, names, strict=True)]


def _need(lift: float, people: int | None) -> str:
    return f"A lift of {100 * lift:g} % is found with {'an unknown number of' if people is None else f'{people:,}'} people."


def _rows(stored: Stored, now: Look) -> list[list[str]]:
    """A row a figure: its name, then a cell a variant."""
    names = [one.name for one in stored.experiment.variants]
    rows = [["people", *(f"{now.people[name]:,}" for name in names)]]
    rows += [
        [metric.replace("_", " "), *(_cell(metric, now.figures[metric][name]) for name in names)] for metric in METRICS
    ]
    return [*rows, ["catalogue recommended", *(_share(now.recommended[name]) for name in names)]]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _cell(metric: str, found: Compared) -> str:
    if found.value is None:
        return "–"
    if found.relative is None:
        return _number(metric, found.value)
    return f"{_number(metric, found.value)}  {percent(found.relative)} ({_interval(found)})"


def _number(metric: str, value: float) -> str:
    return f"{100 * value:.2f} %" if metric in SHARES else f"{value:.4g}"


def _interval(found: Compared) -> str:
    assert found.low is not None, "A lift has an interval."
    assert found.high is not None, "A lift has an interval."
    return f"{percent(found.low)} … {percent(found.high)}"


# --- as HTML --------------------------------------------------------------------------------------------------------------


def body(stored: Stored, looks: Sequence[Look], params: ExperimentParams) -> str:
    """All of it, without a heading of its own."""
    parts = [
        f'<p class="soft">{escape(_state(stored))}</p>',
        "".join(f"<p><strong>{escape(line)}</strong></p>" for line in verdicts(stored, looks, params)),
        _settings(stored),
    ]
    if looks:
        parts += [_legend(stored), _charts(stored, looks), _table(stored, looks[-1]), _needed(looks[-1])]
    parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in stated(stored, looks, params)) + "</ul>")
    return "".join(parts)


def _settings(stored: Stored) -> str:
    rows = "".join(
        f"<tr><th>{escape(one.name)}</th><td>{100 * share:.4g} %</td><td>{escape(_changes(one.settings)) or 'nothing'}</td></tr>"
        for one, share in zip(stored.experiment.variants, experiments.wanted_shares(stored.experiment), strict=True)
    )
    ramp = ", ".join(f"{100 * step.share:g} % from {step.hours:g} h on" for step in stored.experiment.ramp)
    head = "<thead><tr><th>variant</th><th>of those who take part</th><th>changed</th></tr></thead>"
    return f"<table>{head}<tbody>{rows}</tbody></table><p class='soft small'>Of all people take part: {ramp}.</p>"


def _changes(settings: dict[str, object]) -> str:
    return ", ".join(f"{path} = {value}" for path, value in settings.items())


def _legend(stored: Stored) -> str:
    marks = [
        f'<span class="variant{number}">● {escape(one.name)}</span>'
        for number, one in enumerate(stored.experiment.variants[1 : len(COLOURS) + 1])
    ]
    return f'<p class="legend">Lift over the control in percent, with what it lies in: {"".join(marks)}</p>'


def _charts(stored: Stored, looks: Sequence[Look]) -> str:
    """The lift of each metric by day; the deciding one first."""
    metric = stored.experiment.metric
    first = [metric, *(name for name in METRICS if name != metric)]
    panels = [
        f"<figure><figcaption>{escape(name.replace('_', ' '))}{' (decides)' if name == metric else ''} "
        f'<span class="soft small">{escape(METRICS[name].meaning)}</span></figcaption>{_chart(name, stored, looks)}</figure>'
        for name in first
    ]
    panels.append(f"<figure><figcaption>people so far</figcaption>{_people(stored, looks)}</figure>")
    return f'<div class="panels daily">{"".join(panels)}</div>'


def _chart(metric: str, stored: Stored, looks: Sequence[Look]) -> str:
    series = []
    for number, variant in enumerate(stored.experiment.variants[1 : len(COLOURS) + 1]):
        one = _series(metric, variant.name, number, looks)
        if one is not None:
            series.append(one)
    if not series:
        return '<p class="soft small">too few people yet</p>'
    ends = [end for one in series for bound in one.bounds if bound is not None for end in bound]
    axis = charts.axis([0.0, *ends], margin=0.03)
    return charts.chart(_days(looks), axis, series, f"Lift of {metric} over the control, in percent, by day")


def _series(metric: str, variant: str, number: int, looks: Sequence[Look]) -> Series | None:
    told = [
        (place, one.day, found)
        for place, one in enumerate(looks)
        if (found := one.figures[metric][variant]).relative is not None
    ]
    if not told:
        return None
    reaches = sorted(max(abs(found.low or 0.0), abs(found.high or 0.0)) for _, _, found in told)
    far = 150 * reaches[len(reaches) // 2]  # the first ones are much wider than all that follow
    return Series(
        f"variant{number}",
        tuple((place + BESIDE * number, _held(100 * (found.relative or 0.0), far)) for place, _, found in told),
        tuple((_held(100 * (found.low or 0.0), far), _held(100 * (found.high or 0.0), far)) for _, _, found in told),
        tuple(f"{day}, {variant}: {percent(found.relative or 0.0)} ({_interval(found)})" for _, day, found in told),
        line=True,
    )


def _held(value: float, far: float) -> float:
    return max(-far, min(far, value))


def _people(stored: Stored, looks: Sequence[Look]) -> str:
    names = [one.name for one in stored.experiment.variants[1 : len(COLOURS) + 1]]
    series = [
        Series(
            f"variant{number}",
            tuple((float(place), float(one.people[name])) for place, one in enumerate(looks)),
            titles=tuple(f"{one.day}, {name}: {one.people[name]:,}" for one in looks),
            line=True,
        )
        for number, name in enumerate(names)
    ]
    most = max(y for one in series for _, y in one.points)
    return charts.chart(_days(looks), charts.axis([0.0, most]), series, "People by variant and day")


def _days(looks: Sequence[Look]) -> Axis:
    step = -(-len(looks) // 5)
    names = tuple(one.day[5:] if place % step == 0 else "" for place, one in enumerate(looks))
    return Axis(-0.5, len(looks) - 0.5, names=names)


def _table(stored: Stored, now: Look) -> str:
    names = [one.name for one in stored.experiment.variants]
    tail = "" if now.complete else " so far"
    head = "".join(
        f"<th>{escape(name)}</th>" + ("" if name == experiments.CONTROL else "<th>lift</th><th>difference</th>")
        for name in names
    )
    counts = "".join(
        f"<td>{now.people[name]:,}</td>" + ("" if name == experiments.CONTROL else "<td></td><td></td>")
        for name in names
    )
    rows = [f"<tr><th>people</th>{counts}</tr>"]
    rows += [_line(metric, [now.figures[metric][name] for name in names]) for metric in METRICS]
    reached = "".join(
        f"<td>{_share(now.recommended[name])}</td>" + ("" if name == experiments.CONTROL else "<td></td><td></td>")
        for name in names
    )
    rows.append(f"<tr><th>catalogue recommended</th>{reached}</tr>")
    return (
        f"<h3>{now.day}{tail}</h3><table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _line(metric: str, found: Sequence[Compared]) -> str:
    cells = []
    for place, one in enumerate(found):
        cells.append(f"<td>{'–' if one.value is None else _number(metric, one.value)}</td>")
        if place and one.relative is None:
            cells.append("<td>–</td><td>–</td>")
        elif place:
            cells.append(f"<td>{percent(one.relative or 0.0)} <small>{_interval(one)}</small></td>")
            ends = [_number(metric, end) for end in (one.absolute_low or 0.0, one.absolute_high or 0.0)]
            cells.append(f"<td>{_number(metric, one.absolute or 0.0)} <small>{ends[0]} … {ends[1]}</small></td>")
    return f"<tr><th>{escape(metric.replace('_', ' '))}</th>{''.join(cells)}</tr>"


def _needed(now: Look) -> str:
    rows = "".join(
        f"<tr><th>{100 * one.lift:g} %</th><td>{'–' if one.people is None else f'{one.people:,}'}</td></tr>"
        for one in now.needed
    )
    return (
        "<h3>People that a lift takes</h3><table><thead><tr><th>lift</th><th>people in all variants</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
