"""Searches with a model whose best parameters are known, killed and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from palate.domain import Event
from palate.errors import PalateError
from palate.evaluation import protocols, recordings, tuning
from palate.evaluation.evaluating import Conditions, Plan
from palate.evaluation.measuring import Figure, Metric, wanted
from palate.evaluation.protocols import SplitParams
from palate.evaluation.tuning import Choice, Range, Task, Trial
from palate.interactions import InteractionParams
from palate.models import registry
from palate.models.material import Known, Material
from palate.models.registry import Entry

FITS: list[tuple[float, int, int]] = []
"""shift, epochs and number of events of each fit."""


class ShiftParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a model that is right when `shift` is 3."""

    shift: Annotated[float, msgspec.Meta(ge=0, le=10)] = 9.0
    epochs: Annotated[int, msgspec.Meta(ge=1)] = 8
    kind: str = "plain"
    threads: int | None = None


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    """The people of the log take to items near their own number; the model guesses them `shift` − 3 away."""

    def fit(material: Material, params: ShiftParams, seed: int) -> tuple[Material, ShiftParams]:
        FITS.append((params.shift, params.epochs, len(material.interactions)))
        return material, params

    def score_all(model: tuple[Material, ShiftParams], known: Known) -> NDArray[np.float32]:
        material, params = model
        away = np.abs(material.items.keys[None, :] - known.users[:, None] - (params.shift - 3))
        return np.asarray(-away, np.float32)

    entry = Entry(ShiftParams, fit, score_all, lambda model: {}, lambda model: {}, lambda arrays, header, items: None)
    FITS.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.MODELS, "shift", entry)
        yield patch


def task(**more: Any) -> Task:
    """Item numbers are in the order of first appearance: 0 to 29 by somebody first, then each user those near their number."""
    first = [Event(user="all", item=f"{item}", type="like", time=item) for item in range(30)]
    users = [Event(user=f"{user}", item="29", type="like", time=100) for user in range(1, 25)]
    near = [
        Event(user=f"{user}", item=f"{user + step}", type="like", time=200 + 30 * step + user)
        for step in range(3)
        for user in range(1, 25)
    ]
    read = protocols.meaning(recordings.of_log(iter([first + users + near])), InteractionParams(), None)
    params = SplitParams(kind="time", test_share=0.19)
    random = np.random.default_rng(0)
    inner = protocols.validation(read, protocols.split(read, params, random), params, random)
    objectives = more.pop("objectives", (Metric("ndcg", 2),))
    space = more.pop("space", {"shift": Range(0.0, 10.0)})
    return Task(
        Plan("shift", ShiftParams(**more)),
        inner,
        Conditions(wanted("ndcg@2,coverage@2,hr@2,mrr")),
        objectives,
        space,
        1,
    )


def test_a_search_finds_what_is_best_and_begins_with_what_is_set(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[Trial] = []
    found = tuning.search(task(), tmp_path / "study", 20, resume=False, told=told.append)
    assert [trial.number for trial in found] == [trial.number for trial in told] == list(range(20))
    assert found[0].values == {"shift": 9.0}
    best = tuning.best(found, [Metric("ndcg", 2)])
    assert abs(best.values["shift"] - 3) < 1.5
    assert best.validation["ndcg@2"].value is not None
    assert best.training["hr@2"].value is not None
    assert tuning.settled(task(), best.values).params == ShiftParams(shift=best.values["shift"])


def test_the_test_is_never_learned_nor_asked(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = task()
    assert own.fit.train.time.max() < own.fit.test.time.min()
    assert own.fit.test.time.max() < 260  # the test begins there
    tuning.search(own, tmp_path, 3, resume=False)
    assert {events for *_, events in FITS} == {len(own.fit.train)}


def test_a_study_goes_on_where_it_was_stopped(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = tuning.search(task(), tmp_path / "whole", 6, resume=False)

    def stop(trial: Trial) -> None:
        if trial.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.search(task(), tmp_path / "stopped", 6, resume=False, told=stop)
    with pytest.raises(PalateError, match="go on with it by --resume"):
        tuning.search(task(), tmp_path / "stopped", 6, resume=False)
    rest = tuning.search(task(), tmp_path / "stopped", 6, resume=True)
    assert [trial.values for trial in rest] == [trial.values for trial in whole]
    assert [trial.validation for trial in rest] == [trial.validation for trial in whole]


def test_a_trial_that_was_killed_does_not_count(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def kill(*_: Any) -> Any:
        raise SystemExit

    with pytest.MonkeyPatch.context() as killing, pytest.raises(SystemExit):
        killing.setattr(tuning, "_measured", kill)
        tuning.search(task(epochs=1), tmp_path, 2, resume=False)
    found = tuning.search(task(epochs=1), tmp_path, 3, resume=True)
    assert [trial.state for trial in found] == ["failed", "complete", "complete"]


def test_a_study_of_something_else_is_refused(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tuning.search(task(), tmp_path, 1, resume=False)
    with pytest.raises(PalateError, match="its fixed differ"):
        tuning.search(task(kind="other"), tmp_path, 2, resume=True)


def test_hopeless_trials_are_stopped_after_a_part_of_their_epochs(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = tuning.search(task(objectives=(Metric("mrr"),)), tmp_path, 25, resume=False)
    stopped = [trial for trial in found if trial.state == "pruned"]
    assert stopped
    assert {epochs for _, epochs, _ in FITS} == {2, 8}
    assert sum(epochs == 8 for _, epochs, _ in FITS) == 25 - len(stopped)
    assert all(abs(trial.values["shift"] - 3) > 0.4 for trial in stopped)


def test_two_objectives_have_a_front(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    objectives = (Metric("ndcg", 2), Metric("coverage", 2))
    found = tuning.search(task(objectives=objectives), tmp_path, 12, resume=False)
    front = tuning.front(found, objectives)
    values = [[trial.validation[metric.name].value or 0.0 for metric in objectives] for trial in front]
    assert values == sorted(values, reverse=True)
    assert [both[1] for both in values] == sorted(both[1] for both in values)
    assert tuning.best(found, objectives).number == front[0].number


def test_choices_and_whole_numbers_are_searched_too(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    space = {"kind": Choice(("plain", "other")), "epochs": Range(1, 20, log=True, whole=True)}
    found = tuning.search(task(space=space), tmp_path, 6, resume=False)
    assert {trial.values["kind"] for trial in found} == {"plain", "other"}
    assert all(isinstance(trial.values["epochs"], int) for trial in found)


def test_a_sweep_measures_each_value_in_order(patch: pytest.MonkeyPatch) -> None:
    found = tuning.sweep(task(), "shift", [3.0, 5.0, 9.0])
    assert [trial.values for trial in found] == [{"shift": 3.0}, {"shift": 5.0}, {"shift": 9.0}]
    values = [trial.validation["ndcg@2"].value or 0 for trial in found]
    assert values[0] > values[1] >= values[2]


def trial(training: float, validation: float) -> Trial:
    return Trial(0, {}, "complete", 0.0, {"x": Figure(validation)}, {"x": Figure(training)})


def test_overfitting_is_where_training_gets_better_and_validation_worse() -> None:
    curve = [trial(1, 1), trial(2, 2), trial(3, 1.5), trial(4, 1.2), trial(4, 1.1), trial(5, 1.3), trial(6, 1.2)]
    assert tuning.overfitting(curve, Metric("x")) == [(1, 3), (5, 6)]
    worse = [Trial(0, {}, "complete", 0.0, {"rmse": Figure(v)}, {"rmse": Figure(t)}) for t, v in ((1, 1), (0.5, 1.2))]
    assert tuning.overfitting(worse, Metric("rmse")) == [(0, 1)]


@pytest.mark.parametrize("name", list(registry.MODELS))
def test_every_model_has_a_space_within_its_bounds(name: str) -> None:
    params = registry.entry(name).params
    for field, part in tuning.space(name, params).items():
        for value in part.values if isinstance(part, Choice) else (part.low, part.high):
            whole = isinstance(part, Range) and part.whole
            msgspec.convert(msgspec.to_builtins(params()) | {field: round(value) if whole else value}, params)


def test_a_model_without_a_space_is_searched_around_its_defaults() -> None:
    assert tuning.space("shift", ShiftParams) == {"epochs": Range(1, 64, log=True, whole=True)}  # shift ends at 10
