"""The commands `palate evaluate` and `palate tune`."""

from __future__ import annotations

import difflib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from palate.command_line import DATA, Config, Data, Json, columns, database, settings_of, utc_now
from palate.errors import PalateError, SettingsError

if TYPE_CHECKING:
    import msgspec

    from palate.evaluation.evaluating import Conditions, Outcome, Plan, Progress
    from palate.evaluation.measuring import Figure
    from palate.evaluation.protocols import Meaning, Split
    from palate.evaluation.recordings import Recording
    from palate.settings import Settings

ALIASES = {"N": "power", "iterations": "epochs", "regularization": "l2", "regularisation": "l2", "rank": "factors"}
"""Names that other libraries and papers give to parameters of ours."""

METRICS = "hr@10,ndcg@10,recall@20,map@10"

Events = Annotated[
    Path | None, typer.Option(help="File of events to be split. [default: the log in --data]", dir_okay=False)
]
Train = Annotated[Path | None, typer.Option(help="File of events to learn from, with --test.", dir_okay=False)]
Test = Annotated[Path | None, typer.Option(help="File of events to ask for.", dir_okay=False)]
Negatives = Annotated[
    Path | None, typer.Option(help="Candidates: on each line a user and items, with blanks between.", dir_okay=False)
]
FormatOption = Annotated[
    str,
    typer.Option("--format", help="auto, jsonl, csv, parquet, movielens, deskdrop, gorse, pairs or rows (u i r t)."),
]
Positive = Annotated[
    str | None, typer.Option(help="The types that are positives, each of weight 1: like,save or rating>=4.")
]
SplitOption = Annotated[str, typer.Option(help="time, user-time, leave-last-out, random or strong.")]
Share = Annotated[float, typer.Option(help="Share of events, pairs or users that are asked for.", min=0.001, max=0.999)]
MODELS = "popularity, fm, ials, itemknn, ease, svd or blend."
Model = Annotated[str, typer.Option(help=MODELS)]
PerhapsModel = Annotated[str | None, typer.Option("--model", help=MODELS)]
Ranker = Annotated[
    str | None, typer.Option(help="heavy: in place of a model, by what the log in --data says was shown.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="A parameter as name=value; as often as needed.")]
More = Annotated[list[str] | None, typer.Argument(metavar="[name=value]…", help="More parameters, as after --set.")]
Wanted = Annotated[str, typer.Option("--metrics", help="Such as hr@10,ndcg@10,recall@20,map@10,rmse,auc.")]
Seed = Annotated[int, typer.Option(help="Of everything random.", min=0)]
Items = Annotated[
    Path | None,
    typer.Option(
        help="File of items: what models learn of them beside events, and titles for reports.", dir_okay=False
    ),
]
ReportOption = Annotated[Path | None, typer.Option(help="Write a report, one HTML file.", dir_okay=False)]
Told = Annotated[float, typer.Option(help="Of a held-out user's pairs, with --split strong.", min=0.01, max=0.99)]
Against = Annotated[str | None, typer.Option(help="Another model, compared on the same users.")]
AgainstSet = Annotated[list[str] | None, typer.Option(help="Its parameters, as --set.")]
Seeds = Annotated[int, typer.Option(help="How many fits; with several the interval is over them.", min=1, max=100)]
Every = Annotated[float | None, typer.Option(help="Hours between two snapshots, with --split time.", min=0.001)]
Delay = Annotated[str, typer.Option(help="Seconds until a snapshot serves, or: measured.")]
Exploration = Annotated[bool, typer.Option("--exploration", help="Ask only for what exploration showed.")]
KeepSeen = Annotated[bool, typer.Option("--keep-seen", help="Rank also what a user already has.")]
Similarity = Annotated[str, typer.Option(help="What makes items alike: behaviour, or content of --items.")]
Threads = Annotated[int | None, typer.Option(help="Threads that rank. [default: one a core]", min=1)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("evaluate")(evaluate)


def evaluate(
    more: More = None,
    *,
    model: PerhapsModel = None,
    ranker: Ranker = None,
    train: Train = None,
    test: Test = None,
    events: Events = None,
    negatives: Negatives = None,
    format: FormatOption = "auto",
    positive: Positive = None,
    split: SplitOption = "time",
    test_share: Share = 0.2,
    told_share: Told = 0.8,
    set_: Set = None,
    metrics: Wanted = METRICS,
    against: Against = None,
    against_set: AgainstSet = None,
    seed: Seed = 1,
    seeds: Seeds = 1,
    every: Every = None,
    delay: Delay = "measured",
    exploration: Exploration = False,
    keep_seen: KeepSeen = False,
    similarity: Similarity = "behaviour",
    items: Items = None,
    report: ReportOption = None,
    data: Data = DATA,
    config: Config = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """How good a model is on recorded events: learn from a part, ask for the rest."""
    from palate.evaluation import evaluating, freshness

    begin = time.perf_counter()
    settings = settings_of(config)
    if ranker is not None:
        _alone(ranker, {"model": model, "train": train, "test": test, "events": events, "against": against})
        _evaluate_ranker(settings, data, [*(set_ or []), *(more or [])], seed, as_json)
        return
    plans = _plans(settings, model, [*(set_ or []), *(more or [])], against, against_set or [])
    recording, meaning = recording_of(settings, files_of(train, test, events), format, positive, data)
    conditions = conditions_of(recording, meaning, metrics, negatives, items, keep_seen, similarity, threads)
    waiting = None if every is None else freshness.Schedule(every=every, delay=_delay(delay))
    timed = waiting is not None
    cut = split_of(recording, meaning, train, split, test_share, told_share, seed, exploration, timed=timed)
    read = time.perf_counter() - begin
    with progress_bar(as_json) as progress:
        if waiting is None:
            all_seeds = [seed + number for number in range(seeds)]
            outcomes = [evaluating.evaluate(cut, plan, conditions, all_seeds, progress) for plan in plans]
        else:
            _only_one_file(train, split, seeds)
            replayed = (meaning, test_share, waiting)
            outcomes = [freshness.evaluate(*replayed, plan, conditions, seed, progress) for plan in plans]
    answer = answer_of(outcomes, conditions, cut.name, read, seed)
    if report is not None:
        _write_report(report, outcomes, answer, cut, recording, items)
    typer.echo(json.dumps(answer, ensure_ascii=False) if as_json else table(answer))


def _plans(settings: Settings, model: str | None, own: list[str], against: str | None, others: list[str]) -> list[Plan]:
    """The model that is measured, and the one that it is compared with."""
    if model is None:
        raise PalateError("Name what is to be measured: --model, or --ranker heavy.")
    plans = [plan_of(settings, model, own)]
    return plans if against is None else [*plans, plan_of(settings, against, others)]


def _alone(ranker: str, others: Mapping[str, object]) -> None:
    """Raise PalateError for a ranker that isn't known, or with options that don't go with one."""
    one_of("ranker", ranker, ("heavy",))
    if given := [f"--{name}" for name, value in others.items() if value is not None]:
        raise PalateError(f"--ranker is judged by what the log in --data says was shown: leave out {', '.join(given)}.")


def _evaluate_ranker(settings: Settings, data: Path, assignments: Sequence[str], seed: int, as_json: bool) -> None:
    from palate import impressions
    from palate.evaluation import rankers
    from palate.heavy_learning import HeavyParams

    values = values_of(assignments, HeavyParams, "heavy")
    params = with_values(settings.heavy, values)
    assert isinstance(params, HeavyParams), "other values don't make it another type"
    answer_time = timedelta(minutes=params.answer_minutes)
    with database(data, settings) as engine, progress_bar(as_json) as progress:
        wanted = params.gains, answer_time, utc_now(), params.max_impressions
        found = impressions.read(engine, data / "events", *wanted)
        outcome = rankers.evaluate(found, params, seed, progress)
    told = {"ranker": "heavy", **outcome.to_json(), "stated": rankers.stated(outcome)}
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else ranker_table(told))


def ranker_table(told: dict[str, Any]) -> str:
    """What came out of a ranker, as a person reads it."""
    rows = [["", *told["metrics"]], ["heavy", *map(shown, told["metrics"].values())]]
    others = {"plain score": told["plain"]} | {f"without {join}": each for join, each in told["without"].items()}
    for name, each in others.items():
        rows.append([name, *map(shown, each["metrics"].values())])
        rows.append(["  difference", *map(shown, each["difference"].values())])
    return "\n".join([columns(rows), "", *told["stated"]])


def _write_report(
    path: Path,
    outcomes: Sequence[Outcome],
    answer: dict[str, Any],
    cut: Split,
    recording: Recording,
    items: Path | None,
) -> None:
    from palate.evaluation import report

    named = dict(zip(("model", "against"), outcomes, strict=False))
    lists = {
        f"{outcome.plan.model}{' (against)' if role == 'against' else ''}": outcome for role, outcome in named.items()
    }
    titles = known_items(recording, items).titles
    shelves = report.shelves(lists, cut, titles, recording.user_ids, recording.item_ids)
    report.write(path, report.of_evaluation(f"{answer['model']} on {len(recording):,} events", answer, shelves))


# --- options to values ----------------------------------------------------------------------------------------------------


def files_of(train: Path | None, test: Path | None, events: Path | None) -> list[Path]:
    """Training and test, or the one file, or none: then it is the log. Raises PalateError."""
    if (train is None) != (test is None):
        raise PalateError("--train and --test go together; to split one file, name it with --events.")
    if train is not None and events is not None:
        raise PalateError("Name either --train and --test, or --events, not both.")
    if train is not None and test is not None:
        return [train, test]
    return [] if events is None else [events]


def recording_of(
    settings: Settings, files: list[Path], format: str, positive: str | None, data: Path
) -> tuple[Recording, Meaning]:
    """The events, and what they mean. Raises PalateError."""
    from palate.evaluation import protocols, recordings

    one_of("format", format, recordings.FORMATS)
    recording = recordings.read(files, format) if files else _log(settings, data)  # type: ignore[arg-type]
    return recording, protocols.meaning(recording, settings.interactions, positive)


def _log(settings: Settings, data: Path) -> Recording:
    from palate import events
    from palate.evaluation import recordings

    with database(data, settings) as engine:
        return recordings.of_log(events.stream(engine, data / "events"))


def conditions_of(
    recording: Recording,
    meaning: Meaning,
    metrics: str,
    negatives: Path | None,
    items: Path | None,
    keep_seen: bool,
    similarity: str,
    threads: int | None,
) -> Conditions:
    """What is the same for all models of a run. Raises PalateError."""
    from palate.evaluation import measuring, recordings
    from palate.evaluation.evaluating import Conditions

    one_of("similarity", similarity, ("behaviour", "content"))
    if similarity == "content" and items is None:
        raise PalateError("--similarity content needs the labels and sources of a file of items: name it with --items.")
    known = known_items(recording, items)
    return Conditions(
        wanted=measuring.wanted(metrics),
        candidates=None if negatives is None else recordings.read_candidates(negatives, recording),
        leave_out_seen=not keep_seen,
        unit=meaning.unit,
        words=known.words if similarity == "content" else None,
        item_sources=known.sources,
        contents=None if items is None else recordings.read_contents(items, recording),
        threads=threads,
    )


def known_items(recording: Recording, items: Path | None) -> Any:
    """What a file of items says; nothing without one."""
    from palate.evaluation import recordings

    return recordings.NO_ITEMS if items is None else recordings.read_items(items, recording)


def split_of(
    recording: Recording,
    meaning: Meaning,
    train: Path | None,
    kind: str,
    test_share: float,
    told_share: float,
    seed: int,
    exploration: bool,
    *,
    timed: bool,
) -> Split:
    """The events cut as the options say. Raises PalateError."""
    import numpy as np

    from palate.evaluation import protocols

    one_of("split", kind, get_args(protocols.Kind))
    if exploration and timed:
        raise PalateError("--exploration and --every don't go together.")
    if train is not None:
        cut = protocols.given(meaning, recording.part)
    else:
        params = protocols.SplitParams(kind=kind, test_share=test_share, told_share=told_share)  # type: ignore[arg-type]
        cut = protocols.split(meaning, params, np.random.default_rng(seed))
    return protocols.explored(cut, recording) if exploration else cut


def _only_one_file(train: Path | None, split: str, seeds: int) -> None:
    if train is not None or split != "time" or seeds != 1:
        raise PalateError("--every replays one file (--events) with --split time and one seed.")


def _delay(text: str) -> float | None:
    if text == "measured":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e9:
        raise PalateError(f"--delay {text} must be seconds, or: measured.")
    return seconds


def one_of(what: str, given: str, known: Sequence[str]) -> None:
    """Raise PalateError, with the list, when it is none of the known."""
    if given not in known:
        raise PalateError(f"There is no {what} {given}: choose among {', '.join(known)}.")


def plan_of(settings: Settings, model: str, assignments: Sequence[str]) -> Plan:
    """A model with what the settings and the command line say of it. Raises PalateError."""
    from palate.evaluation.evaluating import Plan
    from palate.models import registry

    params = registry.entry(model).params
    return Plan(model, with_values(_of_settings(settings, params), values_of(assignments, params, model)))


def _of_settings(settings: Settings, params: type[msgspec.Struct]) -> msgspec.Struct:
    """What the settings file says of this model, or its defaults."""
    parts = (getattr(settings, name) for name in settings.__struct_fields__)
    return next((part for part in parts if type(part) is params), None) or params()


def values_of(assignments: Sequence[str], params: type[msgspec.Struct], model: str) -> dict[str, Any]:
    """Names and values of `name=value` (several with commas between), under our own names."""
    values = {}
    parts = [part for text in assignments for part in re.split(r",(?=[A-Za-z_][A-Za-z_0-9]*=)", text)]
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise SettingsError(f"{part!r} is no parameter: write name=value.")
        values[parameter(name.strip(), params, model)] = parsed(value.strip())
    return values


def parameter(name: str, params: type[msgspec.Struct], model: str) -> str:
    """Our own name of a parameter. Raises SettingsError that lists them all."""
    known = params.__struct_fields__
    ours = name if name in known else ALIASES.get(name, name)
    if ours in known:
        return ours
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? They are" if near else "they are"
    raise SettingsError(f"The model {model} has no parameter {name}: {hint} {', '.join(known) or 'none'}.")


def parsed(text: str) -> Any:
    """A value as it is typed: JSON where it is some, else text."""
    import msgspec

    try:
        return msgspec.json.decode(text)  # numbers, true, lists; any other text stays text
    except (msgspec.DecodeError, UnicodeError):
        return {"None": None, "none": None, "True": True, "False": False}.get(text, text)


def with_values(params: msgspec.Struct, values: dict[str, Any]) -> msgspec.Struct:
    """These parameters with other values. Raises SettingsError that names what is wrong."""
    import msgspec

    try:
        return msgspec.convert(msgspec.to_builtins(params) | values, type(params), strict=False)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        name = place.rstrip("`").strip(".")
        raise SettingsError(f"Parameter {name}: {reason[0].lower()}{reason[1:]}.") from error


# --- answers --------------------------------------------------------------------------------------------------------------


def answer_of(
    outcomes: Sequence[Outcome], conditions: Conditions, split: str, read: float, seed: int
) -> dict[str, Any]:
    """What `--json` prints."""
    import numpy as np

    from palate.evaluation import measuring

    ours = outcomes[0]
    answer: dict[str, Any] = {
        "model": ours.plan.model,
        "settings": ours.plan.settings(),
        "split": split,
        "metrics": _ordered(ours.figures, conditions),
        "users": ours.users,
        "seconds": {name: round(value, 4) for name, value in ({"read": read} | ours.seconds).items()},
        "stated": list(ours.stated),
    }
    if ours.snapshots:
        answer["snapshots"] = [snapshot.to_json() for snapshot in ours.snapshots]
    for theirs in outcomes[1:]:
        answer["against"] = {
            "model": theirs.plan.model,
            "settings": theirs.plan.settings(),
            "metrics": _ordered(theirs.figures, conditions),
            "seconds": {name: round(value, 4) for name, value in theirs.seconds.items()},
        }
        difference = measuring.differences(ours.measured, theirs.measured, np.random.default_rng(seed))
        answer["difference"] = _ordered(difference, conditions)
        answer["stated"] += [
            f"The difference is {ours.plan.model} − {theirs.plan.model}, both on the same drawn users.",
            *(sentence for sentence in theirs.stated if sentence not in ours.stated),
        ]
    return answer


def _ordered(figures: Mapping[str, Figure], conditions: Conditions) -> dict[str, Any]:
    """In the order in which the metrics were asked for."""
    return {metric.name: figures[metric.name].to_json() for metric in conditions.wanted}


def table(answer: dict[str, Any]) -> str:
    """An answer as a person reads it."""
    columns = {answer["model"]: answer["metrics"]}
    if "against" in answer:
        columns |= {
            f"{answer['against']['model']} (against)": answer["against"]["metrics"],
            "difference": answer["difference"],
        }
    names = list(answer["metrics"])
    width = max(map(len, names))
    lines = [" " * width + "".join(f"  {title:>28}" for title in columns)]
    lines += [
        f"{name:<{width}}" + "".join(f"  {shown(figures[name]):>28}" for figures in columns.values()) for name in names
    ]
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in answer["seconds"].items())
    return "\n".join(
        [*lines, "", f"{answer['users']:,} users; split: {answer['split']}; {seconds}.", *answer["stated"]]
    )


def shown(figure: dict[str, float | None]) -> str:
    """A figure as a table shows it."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "no answer"
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} [{low:.4f}, {high:.4f}]"


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A bar on stderr for each thing that is done, gone when all are done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=quiet and not sys.stderr.isatty()) as bar:
        task = bar.add_task("Reading", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)
