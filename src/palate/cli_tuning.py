"""The command `palate tune`: parameters searched by trials, or one of them swept."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate import cli_evaluation as options
from palate.command_line import DATA, Config, Data, Json, settings_of
from palate.errors import PalateError

if TYPE_CHECKING:
    import msgspec

    from palate.evaluation.evaluating import Conditions, Outcome
    from palate.evaluation.measuring import Metric
    from palate.evaluation.protocols import Split
    from palate.evaluation.recordings import Recording
    from palate.evaluation.tuning import Choice, Range, Task, Trial

SHOWN = "hr@10,map@10,coverage@10"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("tune")(tune)


def tune(
    more: options.More = None,
    *,
    model: options.Model,
    events: options.Events = None,
    train: options.Train = None,
    test: options.Test = None,
    format: options.FormatOption = "auto",
    positive: options.Positive = None,
    split: options.SplitOption = "time",
    test_share: options.Share = 0.2,
    metric: Annotated[str, typer.Option(help="What is to become good.")] = "ndcg@10",
    second: Annotated[
        str | None, typer.Option(help="What else: the front of both is found. coverage@10, for one.")
    ] = None,
    show: Annotated[str, typer.Option(help="Metrics that are measured beside it.")] = SHOWN,
    trials: Annotated[int, typer.Option(help="Trials of the whole study.", min=1, max=100_000)] = 40,
    study: Annotated[Path, typer.Option(help="Folder that the study is kept in.", file_okay=False)] = Path("study"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in that folder.")] = False,
    search: Annotated[
        list[str] | None, typer.Option(help="Where to look: l2=0.001..0.1, or weighting=walk,bm25.")
    ] = None,
    fix: Annotated[list[str] | None, typer.Option("--fix", "--set", help="A parameter that stays: name=value.")] = None,
    sweep: Annotated[
        str | None, typer.Option(help="One parameter's values instead of a search: factors=8,16,32.")
    ] = None,
    seed: options.Seed = 1,
    items: options.Items = None,
    report: options.ReportOption = None,
    data: Data = DATA,
    config: Config = None,
    threads: options.Threads = None,
    as_json: Json = False,
) -> None:
    """Find the parameters of a model on the tail of the training; the test is measured once, at the end."""
    begin = time.perf_counter()
    settings = settings_of(config)
    plan = options.plan_of(settings, model, [*(fix or []), *(more or [])])
    fixed = options.values_of([*(fix or []), *(more or [])], type(plan.params), model)
    wanted = ",".join(filter(None, (metric, second, show)))
    recording, meaning = options.recording_of(settings, options.files_of(train, test, events), format, positive, data)
    conditions = options.conditions_of(recording, meaning, wanted, None, items, False, "behaviour", threads)
    cut = options.split_of(recording, meaning, train, split, test_share, 0.8, seed, False, timed=False)
    inner = _validation(meaning, cut, split, test_share, seed)
    space = _space(plan.params, model, search or [], fixed)
    work = _Work(_task(plan, inner, conditions, space, metric, second, seed), cut, recording, items, begin)
    if sweep is not None:
        answer, page = _sweep(work, sweep, as_json)
    else:
        answer, page = _search(work, study, trials, resume, as_json)
    if report is not None:
        from palate.evaluation import report as reports

        reports.write(report, page())
    typer.echo(json.dumps(answer, ensure_ascii=False) if as_json else _text(answer))


@dataclass(frozen=True, eq=False)
class _Work:
    """What both ways need."""

    task: Task
    cut: Split
    recording: Recording
    items: Path | None
    begin: float

    @property
    def title(self) -> str:
        return f"{self.task.plan.model} on {len(self.recording):,} events"


Answer = dict[str, Any]


# --- a search -------------------------------------------------------------------------------------------------------------


def _search(work: _Work, study: Path, trials: int, resume: bool, quiet: bool) -> tuple[Answer, Callable[[], str]]:
    from palate.evaluation import report, tuning

    task = work.task
    with _bar(quiet, f"Tuning {task.plan.model}", trials) as told:
        done = tuning.search(
            task, study, trials, resume=resume, told=lambda trial: told(_progress_of(task, trial), trial.number + 1)
        )
    best = tuning.best(done, task.objectives)
    found, before = _tested(work, best, quiet)
    answer = _answer(work, done, best, found, before)

    def page() -> str:
        lists = {"best": found, "as it was set": before}
        titles = options.known_items(work.recording, work.items).titles
        shelves = report.shelves(lists, work.cut, titles, work.recording.user_ids, work.recording.item_ids)
        return report.of_search(
            f"Tuning {work.title}", answer, done, task.space, task.objectives, task.conditions.wanted, shelves
        )

    return answer, page


def _tested(work: _Work, best: Trial, quiet: bool) -> tuple[Outcome, Outcome]:
    """The best settings, and those before, learned from the whole training and measured on the test."""
    from palate.evaluation import evaluating, tuning

    task = work.task
    plans = (tuning.settled(task, best.values), task.plan)
    with options.progress_bar(quiet) as progress:
        first, second = (evaluating.evaluate(work.cut, plan, task.conditions, [task.seed], progress) for plan in plans)
    return first, second


def _answer(work: _Work, trials: Sequence[Trial], best: Trial, found: Outcome, before: Outcome) -> Answer:
    from palate.evaluation import measuring, tuning

    task = work.task
    test = options.answer_of((found, before), task.conditions, work.cut.name, 0.0, task.seed)
    test["name"], test["against"]["name"] = "best", "as it was set"
    stated = [
        f"{len(trials)} trials were judged by {task.objectives[0].name} on the tail of the training (split: {task.fit.name}); "
        "the test was measured once, when they were done, with what was best and with what was set before.",
        "Training figures are of up to 1,000 users, asked for what was learned itself.",
        *(sentence for sentence in test["stated"] if not sentence.startswith("The difference is")),
        "The difference is what was best less what was set, both on the same drawn users.",
    ]
    answer: Answer = {
        "model": task.plan.model,
        "metric": task.objectives[0].name,
        "trials": {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed")},
        "best": _told(best) | {"settings": found.plan.settings()},
        "test": {name: test[name] for name in ("name", "model", "split", "users", "metrics", "against", "difference")},
        "seconds": round(time.perf_counter() - work.begin, 2),
        "stated": stated,
    }
    if len(task.objectives) > 1:
        answer["second"] = task.objectives[1].name
        answer["front"] = [_told(trial) for trial in tuning.front(trials, task.objectives)]
    assert measuring.named(found.figures).keys() == test["metrics"].keys(), "The test has every metric."
    return answer


def _told(trial: Trial) -> Answer:
    from palate.evaluation import measuring

    return {
        "trial": trial.number,
        "values": trial.values,
        "validation": measuring.named(trial.validation),
        "training": measuring.named(trial.training),
        "seconds": round(trial.seconds, 3),
    }


# --- a sweep --------------------------------------------------------------------------------------------------------------


def _sweep(work: _Work, text: str, quiet: bool) -> tuple[Answer, Callable[[], str]]:
    from palate.evaluation import report, tuning

    task = work.task
    name, values = _swept(text, task.plan.params, task.plan.model)
    with _bar(quiet, f"Sweeping {name}", len(values)) as told:
        trials = tuning.sweep(task, name, values, lambda trial: told(_progress_of(task, trial), trial.number + 1))
    wanted = task.conditions.wanted
    stretches = {
        metric.name: [[values[first], values[last]] for first, last in tuning.overfitting(trials, metric)]
        for metric in wanted
    }
    stated = [
        f"All is measured on the tail of the training (split: {task.fit.name}); the test was not touched.",
        "Training figures are of up to 1,000 users, asked for what was learned itself.",
        "Overfitting is where training gets better from one value to the next and validation worse.",
    ]
    answer: Answer = {
        "model": task.plan.model,
        "settings": task.plan.settings(),
        "sweep": name,
        "points": [_told(trial) for trial in trials],
        "best": _told(tuning.best(trials, task.objectives)),
        "metric": task.objectives[0].name,
        "overfitting": stretches,
        "seconds": round(time.perf_counter() - work.begin, 2),
        "stated": stated,
    }
    numbers = [value for value in values if isinstance(value, int | float)]
    log = len(numbers) == len(values) and min(numbers) > 0 and max(numbers) >= 10 * min(numbers)
    return answer, lambda: report.of_sweep(f"{name} of {work.title}", name, trials, wanted, stated, log)


def _swept(text: str, params: msgspec.Struct, model: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    found = [options.parsed(value.strip()) for value in values.split(",") if value.strip()]
    if not equals or len(found) < 2:
        raise PalateError(f"--sweep {text} must be a parameter and two values or more: factors=8,16,32.")
    ours = options.parameter(name.strip(), type(params), model)
    return ours, [getattr(options.with_values(params, {ours: value}), ours) for value in found]


# --- what is searched -----------------------------------------------------------------------------------------------------


def _validation(meaning: Any, cut: Split, split: str, test_share: float, seed: int) -> Split:
    import numpy as np

    from palate.evaluation import protocols

    params = protocols.SplitParams(kind=split, test_share=test_share)  # type: ignore[arg-type]
    return protocols.validation(meaning, cut, params, np.random.default_rng(seed))


def _task(
    plan: Any,
    inner: Split,
    conditions: Conditions,
    space: dict[str, Range | Choice],
    metric: str,
    second: str | None,
    seed: int,
) -> Task:
    from palate.evaluation import measuring
    from palate.evaluation.tuning import Task

    objectives: tuple[Metric, ...] = measuring.wanted(",".join(filter(None, (metric, second))))
    if len(objectives) != (1 if second is None else 2):
        raise PalateError("Name one metric with --metric, and another with --second if two are to be good.")
    return Task(plan, inner, replace(conditions, candidates=None), objectives, space, seed)


def _space(
    params: msgspec.Struct, model: str, search: Sequence[str], fixed: dict[str, Any]
) -> dict[str, Range | Choice]:
    from palate.evaluation import tuning

    kind = type(params)
    chosen = dict(_range(text, params, model) for text in search)
    space = {name: part for name, part in tuning.space(model, kind).items() if name not in fixed} | chosen
    if not space:
        raise PalateError(f"Nothing of {model} is left to be searched: name a parameter with --search.")
    return space


def _range(text: str, params: msgspec.Struct, model: str) -> tuple[str, Range | Choice]:
    from palate.evaluation.tuning import Choice, Range

    name, _, values = text.partition("=")
    ours = options.parameter(name.strip(), type(params), model)
    ends = re.fullmatch(r"\s*(\S+?)\.\.(\S+?)\s*", values)
    if ends is None:
        choices = [options.parsed(value.strip()) for value in values.split(",") if value.strip()]
        if len(choices) < 2:
            raise PalateError(f"--search {text} must be a range, l2=0.001..0.1, or choices, weighting=walk,bm25.")
        return ours, Choice(tuple(getattr(options.with_values(params, {ours: value}), ours) for value in choices))
    low, high = (getattr(options.with_values(params, {ours: options.parsed(end)}), ours) for end in ends.groups())
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not low < high:
        raise PalateError(f"--search {text} must go from a smaller number to a larger one.")
    whole = isinstance(low, int) and isinstance(high, int)
    return ours, Range(low, high, log=low > 0 and high >= 10 * low, whole=whole)


# --- on the terminal ------------------------------------------------------------------------------------------------------


def _text(answer: Answer) -> str:
    if "points" in answer:
        rows = [(trial["values"][answer["sweep"]], trial) for trial in answer["points"]]
        lines = [f"{answer['sweep']:>14}  {'validation':>28}  {'training':>28}   ({answer['metric']})"]
        lines += [
            f"{value!s:>14}  {options.shown(trial['validation'][answer['metric']]):>28}  "
            f"{options.shown(trial['training'][answer['metric']]):>28}"
            for value, trial in rows
        ]
        worse = answer["overfitting"][answer["metric"]]
        marks = [f"Overfitting from {first} to {last}." for first, last in worse]
        return "\n".join([*lines, "", *marks, *answer["stated"]])
    best = answer["best"]
    settings = " ".join(
        f"--set {name}={value:.4g}" if isinstance(value, float) else f"--set {name}={value}"
        for name, value in best["values"].items()
    )
    test = answer["test"]
    lines = [
        f"Best of {sum(answer['trials'].values())} trials: --model {answer['model']} {settings}",
        f"  {answer['metric']} on the validation {options.shown(best['validation'][answer['metric']])}",
        "",
        f"{'on the test':>16}  {'best':>28}  {'as it was set':>28}  {'difference':>30}",
    ]
    lines += [
        f"{name:>16}  {options.shown(test['metrics'][name]):>28}  {options.shown(test['against']['metrics'][name]):>28}  "
        f"{options.shown(test['difference'][name]):>30}"
        for name in test["metrics"]
    ]
    for trial in answer.get("front", ()):
        both = ", ".join(
            f"{name} {trial['validation'][name]['value']:.4f}" for name in (answer["metric"], answer["second"])
        )
        lines.append(f"On the front: trial {trial['trial']}, {both}.")
    return "\n".join([*lines, "", *answer["stated"]])


def _progress_of(task: Task, trial: Trial) -> str:
    figure = trial.validation.get(task.objectives[0].name)
    value = (
        "stopped early"
        if trial.state == "pruned"
        else f"{figure.value:.4f}"
        if figure and figure.value is not None
        else "–"
    )
    return f"{task.plan.model}, last {task.objectives[0].name} {value}"


@contextmanager
def _bar(quiet: bool, what: str, total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar of trials on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=quiet and not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda text, done: bar.update(task, description=text, completed=done)
