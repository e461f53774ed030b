"""Searching for the parameters of a model: trials by Optuna, or one parameter swept, on the tail of the training alone.

The test is never looked at during a search, and measured once at its end. A study is a folder that can be gone on with.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from palate.errors import PalateError
from palate.evaluation import evaluating, measuring
from palate.evaluation.evaluating import Conditions, Plan
from palate.evaluation.measuring import Figure, Metric
from palate.evaluation.protocols import Split

if TYPE_CHECKING:
    import optuna

FITTED_PEOPLE = 1_000
"""Users who are asked for what was learned itself."""

EARLY = 4
"""A trial is looked at after one part in so many of its epochs, and stopped when it is worse than most."""

LESS_IS_BETTER = frozenset({"rmse", "log-loss", "calibration", "abandoned", "popularity-bias"})


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both possible."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Choice:
    """One of these."""

    values: tuple[Any, ...]


Space = Mapping[str, Range | Choice]

SPACES: dict[str, dict[str, Range | Choice]] = {
    "popularity": {"half_life_days": Range(0.5, 500, log=True)},
    "fm": {
        "factors": Range(4, 64, log=True, whole=True),
        "epochs": Range(8, 60, log=True, whole=True),
        "learning_rate": Range(0.03, 0.6, log=True),
        "l2_users": Range(0.3, 30, log=True),
        "l2_items": Range(0.3, 30, log=True),
        "initial_scale": Range(0.01, 0.3, log=True),
    },
    "ials": {
        "factors": Range(8, 128, log=True, whole=True),
        "epochs": Range(4, 24, log=True, whole=True),
        "l2": Range(3e-4, 0.1, log=True),
        "unobserved_weight": Range(1e-3, 1.0, log=True),
        "power": Range(0.3, 3.0),
    },
    "itemknn": {
        "weighting": Choice(("count", "walk", "tfidf", "bm25")),
        "neighbours": Range(20, 500, log=True, whole=True),
        "source_exponent": Range(0.2, 0.8),
        "target_exponent": Range(0.0, 0.8),
        "shrinkage": Range(0.01, 100, log=True),
    },
    "ease": {"l2": Range(10, 10_000, log=True), "user_exponent": Range(0.0, 1.0)},
}
"""Where each model is searched, if nothing else is said; others around their defaults (`space`)."""


def space(model: str, params: type[msgspec.Struct]) -> dict[str, Range | Choice]:
    """Where a model is searched: its own space, or an eighth to eight times of each of its numbers.

    Numbers of threads and the like, that only say how, are left as they are.
    """
    if model in SPACES:
        return dict(SPACES[model])
    found: dict[str, Range | Choice] = {}
    for name, value in msgspec.to_builtins(params()).items():
        if name in ("threads", "seed", "blocks") or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        whole = isinstance(value, int)
        low, high = (max(round(value / 8), 1), value * 8) if whole else (value / 8, value * 8)
        if value > 0 and _is_allowed(params, name, low) and _is_allowed(params, name, high):
            found[name] = Range(low, high, log=True, whole=whole)
    return found


@dataclass(frozen=True)
class Trial:
    """One setting that was tried."""

    number: int
    values: dict[str, Any]
    """Of the parameters that are searched."""
    state: str
    """`complete`, `pruned` or `failed`."""
    seconds: float
    validation: dict[str, Figure]
    training: dict[str, Figure]


@dataclass(frozen=True, eq=False)
class Task:
    """What is searched for, on what."""

    plan: Plan
    """The model, with what is fixed."""
    fit: Split
    """The training without its tail, and the tail to be asked for."""
    conditions: Conditions
    """Metrics beside the objectives are measured to be looked at."""
    objectives: tuple[Metric, ...]
    """One, or accuracy and a second."""
    space: Space
    seed: int

    def identity(self) -> dict[str, Any]:
        """What must be the same for a study to be gone on with."""
        return {
            "model": self.plan.model,
            "fixed": {name: value for name, value in self.plan.settings().items() if name not in self.space},
            "space": {name: repr(part) for name, part in self.space.items()},
            "objectives": [metric.name for metric in self.objectives],
            "split": self.fit.name,
            "events": [len(self.fit.train), len(self.fit.test), float(self.fit.train.weight.sum())],
            "seed": self.seed,
        }


Told = Callable[[Trial], None]


# --- trials ---------------------------------------------------------------------------------------------------------------


def search(task: Task, folder: Path, trials: int, *, resume: bool, told: Told = lambda trial: None) -> list[Trial]:
    """All trials of the study in `folder` once it has so many, oldest first.

    The first is the model as it is set. A study that was stopped at any moment goes on with `resume`. Raises PalateError
    when there is one already and it isn't to be gone on with, or is of something else, or Optuna isn't installed.
    """
    study = _study(task, folder, resume)
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished() and trial.state.name == "RUNNING":  # it was killed
            study.tell(trial.number, state=_state("FAIL"))
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(_defaults(task))
    while len(finished := [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]) < trials:
        study.sampler = _sampler(task.seed + len(finished))
        study.optimize(lambda trial: _objective(task, trial), n_trials=1)
        told(_trials(study)[-1])
    return _trials(study)


def best(trials: Sequence[Trial], objectives: Sequence[Metric]) -> Trial:
    """The trial with the best first objective on the validation. Raises PalateError when none ended."""
    ended = [trial for trial in trials if trial.state == "complete" and _goal(trial, objectives[0]) > -math.inf]
    if not ended:
        raise PalateError(f"No trial has an answer for {objectives[0].name}: choose another metric.")
    return max(ended, key=lambda trial: _goal(trial, objectives[0]))


def front(trials: Sequence[Trial], objectives: Sequence[Metric]) -> list[Trial]:
    """The trials that no other beats in one objective without losing in another; best of the first objective first."""
    ended = [trial for trial in trials if trial.state == "complete"]
    goals = {trial.number: tuple(_goal(trial, metric) for metric in objectives) for trial in ended}
    kept = [trial for trial in ended if not any(_beats(goals[other.number], goals[trial.number]) for other in ended)]
    return sorted(kept, key=lambda trial: goals[trial.number], reverse=True)


def settled(task: Task, values: Mapping[str, Any]) -> Plan:
    """The model with these values of what was searched."""
    return Plan(task.plan.model, _with(task.plan.params, values))


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(ours >= theirs for ours, theirs in zip(one, other, strict=True))


def _goal(trial: Trial, metric: Metric) -> float:
    """What is to be large."""
    value = trial.validation[metric.name].value if metric.name in trial.validation else None
    if value is None:
        return -math.inf
    return -value if metric.kind in LESS_IS_BETTER else value


# --- one parameter --------------------------------------------------------------------------------------------------------


def sweep(task: Task, name: str, values: Sequence[Any], told: Told = lambda trial: None) -> list[Trial]:
    """A trial for each value of one parameter, in order, all else as it is set."""
    found = []
    for number, value in enumerate(values):
        begin = time.perf_counter()
        validation, training = _measured(task, settled(task, {name: value}))
        trial = Trial(number, {name: value}, "complete", time.perf_counter() - begin, validation, training)
        found.append(trial)
        told(trial)
    return found


def overfitting(trials: Sequence[Trial], metric: Metric) -> list[tuple[int, int]]:
    """Stretches of a sweep, as places of their first and last trial, in which training gets better and validation worse."""
    sign = -1 if metric.kind in LESS_IS_BETTER else 1
    fits = [_value(trial.training, metric) * sign for trial in trials]
    finds = [_value(trial.validation, metric) * sign for trial in trials]
    stretches: list[tuple[int, int]] = []
    for place in range(1, len(trials)):
        if fits[place] > fits[place - 1] and finds[place] < finds[place - 1]:
            first = stretches.pop()[0] if stretches and stretches[-1][1] == place - 1 else place - 1
            stretches.append((first, place))
    return stretches


def _value(figures: Mapping[str, Figure], metric: Metric) -> float:
    value = figures[metric.name].value
    return math.nan if value is None else value


# --- a trial --------------------------------------------------------------------------------------------------------------


def _objective(task: Task, trial: optuna.Trial) -> float | tuple[float, ...]:
    import optuna

    values = {name: _suggested(trial, name, part) for name, part in task.space.items()}
    plan, begin = settled(task, values), time.perf_counter()
    epochs = getattr(plan.params, "epochs", 0)
    if len(task.objectives) == 1 and epochs >= EARLY:
        early = Plan(plan.model, _with(plan.params, {"epochs": epochs // EARLY}))
        figures = _asked(task, early, (task.objectives[0],))
        trial.report(_told(figures, task.objectives[0]), 1)
        if trial.should_prune():
            _note(trial, time.perf_counter() - begin, figures, {})
            raise optuna.TrialPruned
    validation, training = _measured(task, plan)
    _note(trial, time.perf_counter() - begin, validation, training)
    goals = tuple(_told(validation, metric) for metric in task.objectives)
    return goals if len(goals) > 1 else goals[0]


def _measured(task: Task, plan: Plan) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """On the validation, and on a sample of what was learned."""
    fitted = evaluating.fit(task.fit.train, plan, task.conditions, task.seed)
    found = evaluating.ask(fitted, task.fit, task.conditions).measured.figures(np.random.default_rng(task.seed))
    return found, _on_training(task, fitted)


def _on_training(task: Task, fitted: evaluating.Fitted) -> dict[str, Figure]:
    from palate.evaluation import protocols

    learned = protocols.of_training(task.fit, FITTED_PEOPLE, np.random.default_rng(task.seed))
    conditions = replace(task.conditions, leave_out_seen=False)
    return evaluating.ask(fitted, learned, conditions).measured.figures(np.random.default_rng(task.seed))


def _asked(task: Task, plan: Plan, wanted: tuple[Metric, ...]) -> dict[str, Figure]:
    conditions = replace(task.conditions, wanted=wanted)
    fitted = evaluating.fit(task.fit.train, plan, conditions, task.seed)
    return evaluating.ask(fitted, task.fit, conditions).measured.figures(np.random.default_rng(task.seed))


def _told(figures: Mapping[str, Figure], metric: Metric) -> float:
    value = figures[metric.name].value
    if value is None:
        raise PalateError(f"The metric {metric.name} has no answer for this model and this validation: choose another.")
    return value


def _suggested(trial: optuna.Trial, name: str, part: Range | Choice) -> Any:
    if isinstance(part, Choice):
        return trial.suggest_categorical(name, part.values)
    if part.whole:
        return trial.suggest_int(name, round(part.low), round(part.high), log=part.log)
    return trial.suggest_float(name, part.low, part.high, log=part.log)


def _defaults(task: Task) -> dict[str, Any]:
    """What is set now, or the end of the space that is nearest to it."""
    now = task.plan.settings()
    nearest = {name: _nearest(part, now[name]) for name, part in task.space.items()}
    return {name: value for name, value in nearest.items() if value is not None}


def _nearest(part: Range | Choice, value: Any) -> Any:
    if isinstance(part, Choice):
        return value if value in part.values else None
    return min(max(value, part.low), part.high) if isinstance(value, int | float) else None


def _with(params: msgspec.Struct, values: Mapping[str, Any]) -> msgspec.Struct:
    return msgspec.convert(msgspec.to_builtins(params) | dict(values), type(params))


def _is_allowed(params: type[msgspec.Struct], name: str, value: float) -> bool:
    try:
        msgspec.convert(msgspec.to_builtins(params()) | {name: value}, params)
    except msgspec.ValidationError:
        return False
    return True


# --- the study ------------------------------------------------------------------------------------------------------------


def _study(task: Task, folder: Path, resume: bool) -> optuna.Study:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise PalateError("Tuning needs Optuna: install it with pip install 'palate[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / "study.journal"
    if journal.exists() and not resume:
        raise PalateError(
            f"There is a study in {folder}: go on with it by --resume, or name another folder with --study."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
    except OSError as error:
        raise PalateError(f"The study can't be kept in {folder}: {error.strerror}.") from error
    study = optuna.create_study(
        storage=storage,
        study_name="palate",
        load_if_exists=True,
        directions=["minimize" if metric.kind in LESS_IS_BETTER else "maximize" for metric in task.objectives],
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    _check_identity(study, task, folder)
    return study


def _check_identity(study: optuna.Study, task: Task, folder: Path) -> None:
    known, own = study.user_attrs.get("task"), task.identity()
    if known is None:
        study.set_user_attr("task", own)
    elif known != json.loads(json.dumps(own)):
        differing = [name for name in own if known.get(name) != json.loads(json.dumps(own[name]))]
        raise PalateError(
            f"The study in {folder} is another: its {' and '.join(differing)} differ. Name another folder."
        )


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.TPESampler(seed=seed)


def _state(name: str) -> optuna.trial.TrialState:
    import optuna

    return optuna.trial.TrialState[name]


def _note(
    trial: optuna.Trial, seconds: float, validation: Mapping[str, Figure], training: Mapping[str, Figure]
) -> None:
    trial.set_user_attr("seconds", seconds)
    trial.set_user_attr("validation", measuring.named(validation))
    trial.set_user_attr("training", measuring.named(training))


def _trials(study: optuna.Study) -> list[Trial]:
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    return [
        Trial(
            number=trial.number,
            values=dict(trial.params),
            state=states[trial.state.name],
            seconds=trial.user_attrs.get("seconds", 0.0),
            validation=_figures(trial.user_attrs.get("validation", {})),
            training=_figures(trial.user_attrs.get("training", {})),
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]


def _figures(named: Mapping[str, Mapping[str, float | None]]) -> dict[str, Figure]:
    return {name: Figure(**parts) for name, parts in named.items()}
