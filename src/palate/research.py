"""Palate in a notebook: event logs as frames, splits, models, figures with intervals, searches and plots.

A frame is whatever speaks Arrow: of Polars, PyArrow, pandas or DuckDB. Frames that come back are of Polars. Events have the
columns `user`, `item`, and if there are `type`, `value`, `time` (milliseconds since 1970, or timestamps) and `probability`.

    from palate import research
    events = research.read("events.parquet")
    cut = research.split(events, test_share=0.1)
    research.evaluate(cut, {"ALS": research.plan("ials", factors=32), "popular": research.plan("popularity")})
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import plots, usual
from palate.domain import to_milliseconds
from palate.errors import PalateError, SettingsError
from palate.evaluation import evaluating, measuring, protocols, ranking, recordings, tuning
from palate.evaluation.evaluating import Conditions, Fitted, Outcome, Plan
from palate.evaluation.protocols import Kind, Meaning, SplitParams
from palate.evaluation.recordings import Recording
from palate.evaluation.tuning import Choice, Range, Task, Trial
from palate.interactions import InteractionParams
from palate.models import material, registry
from palate.plots import Plot

try:
    import polars as pl
except ImportError as error:
    raise SettingsError("Frames are of Polars: install `palate[research]`.") from error

METRICS = "hr@10,ndcg@10,map@10,coverage@10"
USUAL_DAYS = 14
"""Days before one that say what is usual on it."""
DEVIATIONS = 4.0
LEAST_ACTS = 20
"""Of a person on a day, from which on their pauses say something."""


class Frame(Protocol):
    """A table of any library that speaks Arrow."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True, eq=False)
class Cut:
    """Events in two parts: what is learned, and what is asked for."""

    split: protocols.Split
    recording: Recording
    meaning: Meaning
    params: SplitParams
    seed: int

    @property
    def train(self) -> pl.DataFrame:
        """Pairs of user and item that are learned, with `label` (0..1), `weight` and `time`."""
        return _pairs(self.split.train, self.recording)

    @property
    def test(self) -> pl.DataFrame:
        """Pairs that are asked for."""
        return _pairs(self.split.test, self.recording)

    @property
    def stated(self) -> tuple[str, ...]:
        """What holds of the two parts, in sentences."""
        return self.split.stated


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted model, and whom and what it knows."""

    fitted: Fitted
    cut: Cut


# --- events ---------------------------------------------------------------------------------------------------------------


def read(*files: str | Path, format: recordings.Format = "auto") -> pl.DataFrame:
    """The events of files in any format that `palate import events` reads, and of lists of pairs. Raises ArchiveError."""
    return frame(recordings.read([Path(file) for file in files], format))


def read_log(data: str | Path = "data", database_url: str | None = None) -> pl.DataFrame:
    """The events of an installation, by its data folder and its database, if it has one of its own.

    Raises DatabaseError, DataFolderError.
    """
    from palate import database, events

    folder = Path(data)
    with database.opened(database_url, folder) as engine:
        return frame(recordings.of_log(events.stream(engine, folder / "events")))


def sample(now: datetime, readers: int = 200, days: float = 6.0, seed: int = 1) -> pl.DataFrame:
    """What so many simulated readers did in the days before `now` with the items that come with Palate."""
    from palate import demo
    from palate.evaluation import simulation

    items, random = demo.sample_items(now), np.random.default_rng(seed)
    happened = simulation.simulate(items, simulation.readers(random, readers, items), random, now, days)
    return frame(recordings.of_log(iter([happened])))


def frame(recording: Recording) -> pl.DataFrame:
    """A recording as it is: user, item, type, value, time (UTC), probability."""
    events = recording.events
    known = pl.DataFrame(
        {
            "user": _named(recording.user_ids, events.user),
            "item": _named(recording.item_ids, events.item),
            "type": _named(events.types, events.type),
            "value": events.value,
            "time": events.time,
            "probability": recording.probability,
        }
    )
    moments = pl.from_epoch("time", time_unit="ms").dt.replace_time_zone("UTC")
    return known.with_columns(moments, pl.col("value", "probability").fill_nan(None))


def describe(events: Frame) -> pl.DataFrame:
    """Of each type of event and of all: how many, of how many users and items, and from when to when."""
    known = _frame(events)
    told = [
        pl.len().alias("events"),
        pl.col("user").n_unique().alias("users"),
        pl.col("item").n_unique().alias("items"),
        pl.col("value").mean().alias("mean value"),
        pl.col("time").min().alias("first"),
        pl.col("time").max().alias("last"),
    ]
    every = known.select(pl.lit("all").alias("type"), *told)
    return pl.concat([every, known.group_by("type").agg(told).sort("events", descending=True)])


def daily(events: Frame) -> pl.DataFrame:
    """How many events of each type, and of how many people, each day (UTC) had; 0 where it had none."""
    known = _frame(events).with_columns(pl.col("time").dt.date().alias("day"))
    found = known.group_by("day", "type").agg(pl.len().alias("events"), pl.col("user").n_unique().alias("users"))
    days = known.select(pl.date_range(pl.col("day").min(), pl.col("day").max()))
    whole = days.join(known.select("type").unique(), how="cross").join(found, on=["day", "type"], how="left")
    return whole.with_columns(pl.col("events", "users").fill_null(0)).sort("day", "type")


def anomalies(events: Frame, now: datetime | None = None) -> pl.DataFrame:
    """What is odd about a log: how many rows each oddity has, and one that shows it.

    `now` None: no time is in the future. A person is moved by a machine by the rules of `palate.usual`; a day is
    unusual by the days before it.
    """
    known = _frame(events)
    twice = known.group_by("user", "item", "type", "time").len().filter(pl.col("len") > 1)
    found = [
        ("told twice", int((twice["len"] - 1).sum()), _first(twice, "user", "item", "type")),
        _which(known, "without a time", pl.col("time").dt.timestamp("ms") == 0),
        _which(known, "without a value where others of the type have one", _lacking(known)),
        _which(known, "a value below 0", pl.col("value") < 0),
    ]
    if now is not None:
        found.append(_which(known, "in the future", pl.col("time").dt.timestamp("ms") > to_milliseconds(now)))
    machines, days = _machines(known), _unusual_days(known)
    found.append(("by people who act like machines", sum(machines.values()), next(iter(machines), None)))
    found.append(("on days of unusually many or few", sum(days.values()), next(iter(days), None)))
    return pl.DataFrame(found, schema={"what": pl.String, "events": pl.Int64, "such as": pl.String}, orient="row")


# --- models ---------------------------------------------------------------------------------------------------------------


def split(
    events: Frame,
    kind: Kind = "time",
    *,
    test_share: float = 0.2,
    positive: str | None = None,
    meaning: InteractionParams | None = None,
    seed: int = 1,
) -> Cut:
    """What may be learned and what is asked for, as `palate evaluate --split` cuts them.

    `positive` names the types that count, such as `like,rating>=4`; None: as `meaning` says, or the settings do.
    Raises PalateError when one of the parts is empty.
    """
    known = recordings.of_table(_arrow(events), "The frame")
    read = protocols.meaning(known, meaning or InteractionParams(), positive)
    params = _checked(SplitParams, {"kind": kind, "test_share": test_share})
    return Cut(protocols.split(read, params, np.random.default_rng(seed)), known, read, params, seed)


def plan(model: str, **settings: Any) -> Plan:
    """A model by its name (popularity, fm, ials, itemknn, ease, svd, blend) and what of its settings is not as usual.

    Raises NotFound for another model, SettingsError for what isn't a setting of it.
    """
    return Plan(model, _checked(registry.entry(model).params, settings))


def fit(cut: Cut, plan: Plan) -> Model:
    """Learn the first part of a cut, by its seed."""
    return Model(evaluating.fit(cut.split.train, plan, Conditions(()), cut.seed), cut)


def score(model: Model, users: Sequence[str] | None = None, *, keep_seen: bool = True) -> NDArray[np.float32]:
    """(n, I): of each user (None: all of the log) and each of `items(model)`; −inf for what they had, without `keep_seen`.

    Scores compare within a user. People of whom nothing is known have scores too. Raises PalateError for who isn't in the log.
    """
    known = material.known(model.cut.split.known, _keys(model.cut, users), model.fitted.material.items)
    entry = registry.entry(model.fitted.plan.model)
    found = entry.score_all(model.fitted.model, known)
    if keep_seen:
        return found
    found = found.copy()
    cells = known.weights
    found[np.repeat(np.arange(len(cells)), cells.counts), cells.columns] = -np.inf
    return found


def items(model: Model) -> list[str]:
    """(I,): what a model knows, in the order of its scores."""
    return [model.cut.recording.item_ids[key] for key in model.fitted.material.items.keys.tolist()]


def recommend(
    model: Model, users: Sequence[str] | None = None, limit: int = 10, *, keep_seen: bool = False
) -> pl.DataFrame:
    """The best items of each user (None: all of the log): user, place (from 1), item, score."""
    keys, names = _keys(model.cut, users), np.array(items(model), object)
    wanted = [model.cut.recording.user_ids[key] for key in keys.tolist()]
    step = max(1, ranking.BLOCK // max(len(names), 1))
    parts = []
    for first in range(0, len(wanted), step):
        chosen = wanted[first : first + step]
        found = score(model, chosen, keep_seen=keep_seen)
        best = np.argsort(-found, axis=1, kind="stable")[:, :limit]
        row, place = (part.ravel() for part in np.indices(best.shape))
        columns = {
            "user": np.array(chosen, object)[row],
            "place": place + 1,
            "item": names[best.ravel()],
            "score": found[row, best.ravel()],
        }
        parts.append(pl.DataFrame(columns, schema_overrides={"user": pl.String, "item": pl.String}))
    return pl.concat(parts).filter(pl.col("score").is_finite())


# --- figures --------------------------------------------------------------------------------------------------------------


def evaluate(cut: Cut, plans: Mapping[str, Plan], metrics: str = METRICS, seeds: int = 1) -> dict[str, Outcome]:
    """Each of the plans fitted and measured, under its name; several seeds begin with that of the cut. Raises PalateError."""
    conditions = _conditions(cut, metrics)
    drawn = [cut.seed + number for number in range(seeds)]
    return {name: evaluating.evaluate(cut.split, plan, conditions, drawn) for name, plan in plans.items()}


def figures(outcomes: Mapping[str, Outcome]) -> pl.DataFrame:
    """model, metric, value, and low and high of its interval of 95 %."""
    rows = [
        (name, metric, figure.value, figure.low, figure.high)
        for name, outcome in outcomes.items()
        for metric, figure in outcome.figures.items()
    ]
    return _rows(rows, ("model", "metric"))


def differences(outcomes: Mapping[str, Outcome], seed: int = 1) -> pl.DataFrame:
    """By how much the first is better than each other, on the same users drawn together: other, metric, value, low, high."""
    (_, first), *others = outcomes.items()
    rows = [
        (name, metric, figure.value, figure.low, figure.high)
        for name, outcome in others
        for metric, figure in measuring.differences(
            first.measured, outcome.measured, np.random.default_rng(seed)
        ).items()
    ]
    return _rows(rows, ("other", "metric"))


# --- searches -------------------------------------------------------------------------------------------------------------


def sweep(cut: Cut, plan: Plan, name: str, values: Sequence[Any], metrics: str = METRICS) -> list[Trial]:
    """One setting's values in turn, measured on the tail of what may be learned and on what was learned itself."""
    return tuning.sweep(_task(cut, plan, {}, metrics), name, [_valid(plan, name, value) for value in values])


def tune(
    cut: Cut,
    plan: Plan,
    trials: int,
    folder: str | Path,
    metrics: str = "ndcg@10,coverage@10",
    space: Mapping[str, Range | Choice] | None = None,
) -> list[Trial]:
    """A search by Optuna for the best first metric on the tail of what may be learned; `folder` keeps it, and goes on with it.

    `space` None: what `palate tune` searches. The cut's test is not looked at: `evaluate` it with `settled` afterwards.
    """
    chosen = tuning.space(plan.model, type(plan.params)) if space is None else space
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # Optuna's progress bars, which aren't asked for
        return tuning.search(_task(cut, plan, chosen, metrics), Path(folder), trials, resume=True)


def settled(plan: Plan, trials: Sequence[Trial], metric: str) -> Plan:
    """The plan with the settings of the trial that was best on the validation. Raises PalateError when none ended."""
    best = tuning.best(trials, measuring.wanted(metric))
    return Plan(plan.model, _checked(type(plan.params), plan.settings() | best.values))


def told(trials: Sequence[Trial]) -> pl.DataFrame:
    """trial, its settings, part (validation, training), metric, value, low, high, state, seconds."""
    rows = [
        {"trial": trial.number, **trial.values, "part": part, "metric": metric}
        | figure.to_json()
        | {"state": trial.state, "seconds": trial.seconds}
        for trial in trials
        for part, found in (("validation", trial.validation), ("training", trial.training))
        for metric, figure in found.items()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def plot(table: Frame, x: str, y: str, by: str | None = None, *, log_x: bool = False, log_y: bool = False) -> Plot:
    """Columns of a frame against each other, a series for each value of `by`; `low` and `high`, if there, are y's interval.

    Numbers and days are joined by lines; what has names has points.
    """
    known = pl.DataFrame(_arrow(table)).filter(pl.col(y).is_not_null())
    numbers, days = known[x].dtype.is_numeric(), known[x].dtype.is_temporal()
    places = sorted(known[x].unique().to_list()) if days else known[x].unique(maintain_order=True).to_list()
    place = {value: float(value) if numbers else float(number) for number, value in enumerate(places)}
    names = [] if numbers else list(map(str, places))
    groups = {y: known} if by is None else {str(key[0]): part for key, part in known.group_by(by, maintain_order=True)}
    ordered = {name: part.sort(x) for name, part in groups.items()}
    series = {
        name: [(place[at], float(value)) for at, value in part.select(x, y).iter_rows()]
        for name, part in ordered.items()
    }
    bounds = {name: _bounds(part) for name, part in ordered.items()}
    joined = bool(numbers or days)
    return plots.lines(f"{y} by {x}", series, intervals=bounds, names=names, joined=joined, log_x=log_x, log_y=log_y)


def plot_trials(trials: Sequence[Trial], name: str, metric: str) -> Plot:
    """A metric against a setting, on validation and on training in charts of their own: on one scale neither would be seen."""
    table: Any = told([trial for trial in trials if trial.state == "complete"]).filter(pl.col("metric") == metric)
    values = table[name]
    log = bool(values.dtype.is_numeric() and values.min() > 0 and values.max() >= 10 * values.min())
    found = Plot("")
    for part in ("validation", "training"):
        chosen = table.filter(pl.col("part") == part).rename({"value": f"{metric} on {part}"})
        found += plot(chosen, name, f"{metric} on {part}", log_x=log)
    return found


# --- parts ----------------------------------------------------------------------------------------------------------------


def _arrow(given: Frame) -> Any:
    import pyarrow as pa

    table = pa.table(given)
    texts = [
        field.with_type(pa.string())
        if pa.types.is_large_string(field.type) or field.type == pa.string_view()
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(texts))


def _frame(events: Frame) -> pl.DataFrame:
    """Events with all of the columns."""
    return frame(recordings.of_table(_arrow(events), "The frame"))


def _named(names: Sequence[str], codes: NDArray[Any]) -> pl.Series:
    return pl.Series(list(names), dtype=pl.String).gather(codes) if len(names) else pl.Series([], dtype=pl.String)


def _pairs(of: Any, recording: Recording) -> pl.DataFrame:
    known = pl.DataFrame(
        {
            "user": _named(recording.user_ids, of.user),
            "item": _named(recording.item_ids, of.item),
            "label": of.label,
            "weight": of.weight,
            "time": of.time,
        }
    )
    moments = pl.from_epoch("time", time_unit="ms").dt.replace_time_zone("UTC")
    return known.with_columns(moments, pl.col("label", "weight").fill_nan(None))


def _rows(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> pl.DataFrame:
    schema = dict.fromkeys(names, pl.String) | dict.fromkeys(("value", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _keys(cut: Cut, users: Sequence[str] | None) -> NDArray[np.int64]:
    if users is None:
        return np.arange(len(cut.recording.user_ids), dtype=np.int64)
    known = {id: key for key, id in enumerate(cut.recording.user_ids)}
    if unknown := [user for user in users if user not in known]:
        raise PalateError(f"{unknown[0]} is no user of these events.")
    return np.array([known[user] for user in users], np.int64)


def _checked(params: type[Any], values: Mapping[str, Any]) -> Any:
    if unknown := [name for name in values if name not in params.__struct_fields__]:
        raise SettingsError(
            f"There is no setting {unknown[0]}: they are {', '.join(params.__struct_fields__) or 'none'}."
        )
    try:
        return msgspec.convert(msgspec.to_builtins(params()) | dict(values), params)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{error}.") from error


def _valid(plan: Plan, name: str, value: Any) -> Any:
    return getattr(_checked(type(plan.params), plan.settings() | {name: value}), name)


def _conditions(cut: Cut, metrics: str) -> Conditions:
    return Conditions(measuring.wanted(metrics), unit=cut.meaning.unit)


def _task(cut: Cut, plan: Plan, space: Mapping[str, Range | Choice], metrics: str) -> Task:
    inner = protocols.validation(cut.meaning, cut.split, cut.params, np.random.default_rng(cut.seed))
    conditions = _conditions(cut, metrics)
    return Task(plan, inner, conditions, conditions.wanted[:1], space, cut.seed)


def _which(events: pl.DataFrame, what: str, condition: pl.Expr) -> tuple[str, int, str | None]:
    rows = events.filter(condition)
    return what, len(rows), _first(rows, "user", "item", "type", "time")


def _first(rows: pl.DataFrame, *columns: str) -> str | None:
    return " ".join(str(value) for value in rows.select(columns).row(0)) if len(rows) else None


def _lacking(events: pl.DataFrame) -> pl.Expr:
    valued = events.filter(pl.col("value").is_not_null())["type"].unique().to_list()
    return pl.col("value").is_null() & pl.col("type").is_in(valued)


def _bounds(table: pl.DataFrame) -> list[tuple[float, float] | None]:
    if not {"low", "high"} <= set(table.columns):
        return []
    return [None if low is None else (low, high) for low, high in table.select("low", "high").iter_rows()]


def _machines(events: pl.DataFrame) -> dict[str, int]:
    """People who act like machines, with the reason, and their events."""
    found = {}
    acts = events.filter(pl.col("type") != "shown").with_columns(pl.col("time").dt.date().alias("day"))
    moments = pl.col("time").dt.timestamp("ms")
    days = acts.group_by("user", "day").agg(moments.unique().sort().alias("times"), pl.len().alias("events"))
    for user, _, times, count in days.filter(pl.col("times").list.len() >= LEAST_ACTS).sort("user", "day").iter_rows():
        if (reason := usual.machine_like(np.array(times))) is not None:
            found[f"{user}: {reason}"] = count
    return found


def _unusual_days(events: pl.DataFrame) -> dict[str, int]:
    """Whole days whose number of events is outside of what those before say, and that number."""
    found = {}
    counted = daily(events).group_by("day").agg(pl.col("events").sum()).sort("day")[1:-1]
    past: list[usual.Taken | None] = []
    for day, count in counted.iter_rows():
        today = usual.Taken(float(count))
        if len(past) >= usual.SAME_WEEKDAYS and not usual.usual_range(past[-USUAL_DAYS:], today, DEVIATIONS).holds(
            count
        ):
            found[f"{day}: {count} events"] = count
        past.append(today)
    return found
