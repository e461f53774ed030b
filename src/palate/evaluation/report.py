"""Reports: one self-contained HTML file, with charts inside and nothing from elsewhere, for light and dark screens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from palate import charts
from palate.charts import Axis, Series
from palate.errors import PalateError
from palate.evaluation import tuning
from palate.evaluation.evaluating import Outcome
from palate.evaluation.measuring import Figure, Metric
from palate.evaluation.protocols import Split
from palate.evaluation.tuning import Choice, Space, Trial

SAMPLE_USERS = 12
SHOWN_ITEMS = 10


@dataclass(frozen=True)
class Shelf:
    """One person, and lists for them under their names."""

    user: str
    history: tuple[str, ...]
    """Titles of what they took to last in the training, newest first."""
    asked: tuple[str, ...]
    """Titles of what was to be found."""
    lists: dict[str, tuple[str, ...]]


def write(path: Path, page: str) -> None:
    """Write a page whole or not at all. Raises PalateError."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(page, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise PalateError(f"The report can't be written to {path}: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def of_evaluation(title: str, answer: Mapping[str, Any], shelves: Sequence[Shelf]) -> str:
    """The page of one evaluation, from what the command line answers as JSON."""
    return page(title, [_figures(answer), what_holds(answer["stated"]), _shelves(shelves)])


def of_search(
    title: str,
    answer: Mapping[str, Any],
    trials: Sequence[Trial],
    space: Space,
    objectives: Sequence[Metric],
    shown: Sequence[Metric],
    shelves: Sequence[Shelf],
) -> str:
    """The page of a study: what was best, every parameter against training and validation, the test, lists of some users."""
    return page(
        title,
        [
            _best(answer),
            _figures(answer["test"]),
            what_holds(answer["stated"]),
            _front(trials, objectives) if len(objectives) > 1 else "",
            _parameters(trials, space, shown),
            _history(trials, objectives[0]),
            _shelves(shelves),
            _table_of_trials(trials, space, shown),
        ],
    )


def of_sweep(
    title: str, name: str, trials: Sequence[Trial], shown: Sequence[Metric], stated: Sequence[str], log: bool
) -> str:
    """The page of one parameter: each metric on training and validation, where one gets better and the other worse shaded."""
    panels = [_swept(name, trials, metric, log) for metric in shown]
    heading = f"<h2>{escape(name)} against training and validation</h2>"
    space = {name: Choice(tuple(trial.values[name] for trial in trials))}
    return page(
        title,
        [heading, _legend(shade=True), _panels(panels), what_holds(stated), _table_of_trials(trials, space, shown)],
    )


def shelves(
    outcomes: Mapping[str, Outcome],
    split: Split,
    titles: Mapping[int, str],
    user_ids: Sequence[str],
    item_ids: Sequence[str],
) -> list[Shelf]:
    """The first users of the test with their lists by each model, as titles or, without these, ids."""

    def title(item: int) -> str:
        return titles.get(item) or item_ids[item]

    first = next(iter(outcomes.values())).measured
    found = []
    for row, user in enumerate(first.users[: len(first.lists)][:SAMPLE_USERS].tolist()):
        own = np.flatnonzero((split.known.user == user) & (split.known.weight > 0))
        newest = own[np.argsort(-split.known.time[own], kind="stable")][:SHOWN_ITEMS]
        asked = split.test.item[(split.test.user == user) & (split.test.weight > 0)]
        lists = {
            name: tuple(
                title(int(outcome.last.material.items.keys[column]))
                for column in outcome.measured.lists[row, :SHOWN_ITEMS]
                if column >= 0
            )
            for name, outcome in outcomes.items()
        }
        history = tuple(title(int(item)) for item in split.known.item[newest])
        found.append(Shelf(user_ids[user], history, tuple(title(int(item)) for item in asked), lists))
    return found


# --- sections -------------------------------------------------------------------------------------------------------------


def _figures(answer: Mapping[str, Any]) -> str:
    """Metrics with their intervals, of both models and their difference where there are two."""
    columns = [(answer.get("name", answer["model"]), answer["metrics"])]
    if "against" in answer:
        against = answer["against"]
        columns += [(against.get("name", against["model"]), against["metrics"]), ("difference", answer["difference"])]
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in columns)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(f"<td>{interval(figures[name])}</td>" for _, figures in columns)
        + "</tr>"
        for name in answer["metrics"]
    )
    return (
        f"<h2>On the test</h2><p>{answer['users']:,} users; split: {escape(answer['split'])}.</p>"
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def interval(figure: Mapping[str, float | None]) -> str:
    """A figure with the ends of its interval in small."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "–"
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} <small>{low:.4f} … {high:.4f}</small>"


def what_holds(sentences: Sequence[str]) -> str:
    """The section that says what holds of the figures."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<h2>What holds of these figures</h2><ul>{items}</ul>"


def _best(answer: Mapping[str, Any]) -> str:
    settings = answer["best"]["settings"]
    found = answer["best"]["values"]
    command = " ".join(f"--set {name}={_short(value)}" for name, value in found.items())
    cells = "".join(
        f'<tr class="{"found" if name in found else ""}"><th>{escape(name)}</th><td>{escape(str(_short(value)))}</td></tr>'
        for name, value in settings.items()
    )
    return (
        f"<h2>Best settings</h2><p><code>--model {escape(answer['model'])} {escape(command)}</code></p>"
        f"<table><tbody>{cells}</tbody></table>"
    )


def _parameters(trials: Sequence[Trial], space: Space, shown: Sequence[Metric]) -> str:
    parts = ["<h2>Every parameter against training and validation</h2>", _legend()]
    for name, part in space.items():
        log = not isinstance(part, Choice) and part.log
        panels = [_scattered(name, trials, metric, log, part) for metric in shown]
        parts += [f"<h3>{escape(name)}</h3>", _panels(panels)]
    return "".join(parts)


def _scattered(name: str, trials: Sequence[Trial], metric: Metric, log: bool, part: Any) -> str:
    names = tuple(str(value) for value in part.values) if isinstance(part, Choice) else ()
    tried = [trial for trial in trials if trial.state == "complete" and name in trial.values]
    xs = [_place(trial.values[name], names) for trial in tried]
    return _panel(metric, tried, xs, _x_axis(xs, names, log), line=False)


def _swept(name: str, trials: Sequence[Trial], metric: Metric, log: bool) -> str:
    values = [trial.values[name] for trial in trials]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    names = () if numbers else tuple(map(str, values))
    xs = [_place(value, names) for value in values]
    shaded = [(xs[first], xs[last]) for first, last in tuning.overfitting(trials, metric)]
    return _panel(metric, trials, xs, _x_axis(xs, names, log), line=True, shaded=shaded)


def _place(value: Any, names: Sequence[str]) -> float:
    return float(names.index(str(value))) if names else float(value)


def _x_axis(xs: Sequence[float], names: tuple[str, ...], log: bool) -> Axis:
    if names:
        return Axis(-0.5, len(names) - 0.5, names=names)
    return charts.axis(xs or [0.0, 1.0], log=log)


def _panel(
    metric: Metric,
    trials: Sequence[Trial],
    xs: Sequence[float],
    x: Axis,
    *,
    line: bool,
    shaded: Sequence[tuple[float, float]] = (),
) -> str:
    drawn = "".join(_chart(metric, kind, trials, xs, x, line, shaded) for kind in ("validation", "training"))
    return f"<figure><figcaption>{metric.name}</figcaption>{drawn or 'no answer'}</figure>"


def _chart(
    metric: Metric,
    kind: str,
    trials: Sequence[Trial],
    xs: Sequence[float],
    x: Axis,
    line: bool,
    shaded: Sequence[tuple[float, float]],
) -> str:
    """Training and validation have charts of their own: on one scale, what moves the validation could not be seen."""
    told = sorted(
        (
            (across, figure.value, figure, trial)
            for across, trial in zip(xs, trials, strict=True)
            if (figure := getattr(trial, kind).get(metric.name)) is not None and figure.value is not None
        ),
        key=lambda one: one[0],
    )
    if not told:
        return ""
    points = tuple((across, value) for across, value, _, _ in told)
    bounds = tuple(_bounds(figure) if line else None for _, _, figure, _ in told)
    titles = tuple(f"{kind} {value:.4f}: {_said(trial.values)}" for _, value, _, trial in told)
    heights = [value for _, value in points] + [end for bound in bounds if bound for end in bound]
    series = Series(kind, points, bounds, titles, line)
    return charts.chart(x, charts.axis(heights), [series], f"{metric.name} on the {kind}", shaded)


def _bounds(figure: Figure) -> tuple[float, float] | None:
    return None if figure.low is None or figure.high is None else (figure.low, figure.high)


def _history(trials: Sequence[Trial], metric: Metric) -> str:
    """The objective by the number of the trial: whether more trials would find more."""
    done = [trial for trial in trials if trial.state == "complete"]
    panel = _panel(
        metric, done, [float(trial.number) for trial in done], charts.axis([0.0, float(len(trials))]), line=False
    )
    stopped = sum(trial.state == "pruned" for trial in trials)
    early = f" {stopped} more were stopped early." if stopped else ""
    return f"<h2>Trial after trial</h2><p>{len(done)} trials to their end.{early}</p>{_legend()}{_panels([panel])}"


def _front(trials: Sequence[Trial], objectives: Sequence[Metric]) -> str:
    """Both objectives of every trial on the validation; those on the front are filled."""
    best = {trial.number for trial in tuning.front(trials, objectives)}
    series = []
    for kind, chosen in (("training", False), ("validation", True)):
        told = [trial for trial in trials if trial.state == "complete" and (trial.number in best) == chosen]
        points = [tuple(trial.validation[metric.name].value for metric in objectives) for trial in told]
        titles = tuple(f"trial {trial.number}: {_said(trial.values)}" for trial in told)
        series.append(Series(kind, tuple((one or 0.0, other or 0.0) for one, other in points), titles=titles))
    both = [point for one in series for point in one.points]
    x, y = (charts.axis([point[side] for point in both] or [0.0, 1.0]) for side in (0, 1))
    names = [metric.name for metric in objectives]
    drawn = charts.chart(x, y, series, f"{names[0]} against {names[1]}")
    figure = f"<figure><figcaption>{names[0]} across, {names[1]} up, on the validation</figcaption>{drawn}</figure>"
    others = '<span class="training">●</span> others'
    legend = f'<p class="legend"><span class="validation">●</span> no trial is better in both {others}</p>'
    return f"<h2>{names[0]} against {names[1]}</h2>{legend}{_panels([figure])}"


def _table_of_trials(trials: Sequence[Trial], space: Space, shown: Sequence[Metric]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in (*space, *(metric.name for metric in shown)))
    rows = "".join(
        f"<tr><th>{trial.number}</th>"
        + "".join(f"<td>{escape(str(_short(trial.values.get(name, ''))))}</td>" for name in space)
        + "".join(f"<td>{_both(trial, metric)}</td>" for metric in shown)
        + f"<td>{trial.seconds:.1f} s</td><td>{trial.state}</td></tr>"
        for trial in trials
    )
    return (
        "<h2>All trials</h2><p>Validation, and training in small.</p><table><thead><tr><th></th>"
        f"{head}<th></th><th></th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _both(trial: Trial, metric: Metric) -> str:
    found, fits = (getattr(trial, kind).get(metric.name) for kind in ("validation", "training"))
    shown = "–" if found is None or found.value is None else f"{found.value:.4f}"
    return shown if fits is None or fits.value is None else f"{shown} <small>{fits.value:.4f}</small>"


def _shelves(found: Sequence[Shelf]) -> str:
    if not found:
        return ""
    return "<h2>Lists of some users</h2><p>What was to be found is marked.</p>" + "".join(
        _shelf(shelf) for shelf in found
    )


def _shelf(shelf: Shelf) -> str:
    columns = {"took to last": shelf.history, "then took to": shelf.asked, **shelf.lists}
    cells = "".join(
        f"<div><h4>{escape(name)}</h4><ol>"
        + "".join(f"<li{_mark(title, shelf, name)}>{escape(title)}</li>" for title in titles[:SHOWN_ITEMS])
        + "</ol></div>"
        for name, titles in columns.items()
    )
    return f'<section class="shelf"><h3>{escape(shelf.user)}</h3><div class="columns">{cells}</div></section>'


def _mark(title: str, shelf: Shelf, column: str) -> str:
    return ' class="hit"' if title in shelf.asked and column in shelf.lists else ""


def _legend(*, shade: bool = False) -> str:
    shaded = ' <span class="shade"></span> training gets better, validation worse: overfitting' if shade else ""
    return f'<p class="legend"><span class="validation">●</span> validation <span class="training">●</span> training{shaded}</p>'


def _panels(panels: Sequence[str]) -> str:
    return f'<div class="panels">{"".join(panels)}</div>'


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.4g}")
    return value


def page(title: str, sections: Sequence[str]) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main><h1>{escape(title)}</h1>{''.join(sections)}</main></body></html>\n"
    )


STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1c1e; --soft: #6b6b70; --line: #d9d9de; --grid: #eeeef1;
  --validation: #0b62c4; --training: #c2570c; --shade: #f6d9d5; --hit: #dff1e1; }
@media (prefers-color-scheme: dark) { :root { --back: #17181b; --text: #ececef; --soft: #a0a0a8; --line: #3c3d43; --grid: #26272c;
  --validation: #6aaeff; --training: #f0a15c; --shade: #4a2723; --hit: #1f4028; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 26px; line-height: 1.25; } h2 { font-size: 19px; margin: 40px 0 8px; } h3 { font-size: 15px; margin: 20px 0 4px; }
h4 { font-size: 13px; margin: 0 0 4px; color: var(--soft); font-weight: 600; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 11px 4px 0; text-align: left; border-bottom: 1px solid var(--grid); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; } tbody th { font-weight: 500; } tr.found th, tr.found td { font-weight: 700; }
small { color: var(--soft); font-size: 12px; margin-left: 4px; }
code { background: var(--grid); padding: 3px 6px; border-radius: 4px; font-size: 13px; overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 14px; }
figure { margin: 0; } figcaption { font-size: 13px; color: var(--soft); }
.chart { width: 100%; height: auto; } .chart text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.axis { stroke: var(--line); fill: none; } .grid { stroke: var(--grid); fill: none; }
.overfit { fill: var(--shade); }
.line, .whisker { fill: none; stroke-width: 1.6; } .whisker { stroke-width: 1.2; opacity: .6; }
.line.validation, .whisker.validation { stroke: var(--validation); }
.line.training, .whisker.training { stroke: var(--training); }
.dot.validation { fill: var(--validation); } .dot.training { fill: none; stroke: var(--training); stroke-width: 1.6; }
.legend { color: var(--soft); font-size: 13px; } .legend .validation { color: var(--validation); }
.legend .training { color: var(--training); margin-left: 12px; }
.shade { display: inline-block; width: 14px; height: 12px; background: var(--shade); vertical-align: -1px; margin: 0 4px 0 12px; }
.shelf { border-top: 1px solid var(--line); margin-top: 14px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 18px; }
ol { margin: 0; padding-left: 24px; } li.hit { background: var(--hit); font-weight: 600; }
"""
