"""What a cycle learns: each model of the settings, tested on the newest examples before it learns them too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from palate import metrics, trial
from palate.examples import Examples, Params, TrainParams
from palate.models import als_update, fm_content, fm_update, registry
from palate.models import factorization_machine as fm
from palate.models import fields as of_fields
from palate.models.factorization_machine import FactorizationMachine
from palate.models.fields import Field
from palate.models.registry import Solver, Update
from palate.pairs import Pairs
from palate.places import Places, Some, mask, size, together, within, without
from palate.places import places as places_of
from palate.trial import Calibration, RankingTest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from palate.examples import Mask

    Losses = NDArray[np.float32]


UPDATES: dict[str, Update] = {"ials": als_update.updated}
"""How models that can go on learn what is new."""


NO_TIMES = np.zeros(0, np.int64)
NO_SOLVERS: Mapping[str, Solver] = MappingProxyType({})


@dataclass(frozen=True)
class LossTest:
    """How a model of labels did on the held-out examples."""

    held_out: int = 0
    loss: float | None = None
    """Mean loss; None when there were too few examples for a test."""
    prior_loss: float | None = None
    """Of the mean label of what was learned."""
    error: float = 0.0
    """Standard error of loss − prior_loss."""

    def fails(self, params: TrainParams) -> bool:
        """Whether the model is worse than the prior by more than chance explains."""
        if self.loss is None or self.prior_loss is None:
            return False
        return not self.loss <= self.prior_loss + params.tolerance + params.doubt * self.error

    def to_json(self) -> dict[str, Any]:
        """What the header says of it."""
        return {"loss": self.loss, "prior_loss": self.prior_loss, "held_out": self.held_out}


@dataclass(frozen=True)
class Lesson:
    """One model that was learned, and how it did in the test."""

    name: str
    model: Any
    examples: int
    """New ones."""
    warm: bool
    """Whether it went on from the last model."""
    test: LossTest | RankingTest
    losses: Losses
    """Of each mini-batch; empty for a model that doesn't learn by steps."""

    def refusal(self, params: TrainParams) -> str | None:
        """Why the model can't be published: no number came out, or it is clearly worse than the prior; None if it can.

        A model that ranks worse than popularity is published, and marked: serving passes it over.
        """
        if isinstance(self.test, RankingTest):
            found = self.test.calibration
            return (
                None if np.isfinite((found.slope, found.intercept)).all() else f"refused: {self.name} gave no numbers"
            )
        if np.isfinite(self.losses).all() and not self.test.fails(params):
            return None
        loss, prior = self.test.loss or np.nan, self.test.prior_loss or np.nan
        return f"refused: its loss {loss:.4f} is worse than the prior's {prior:.4f}"


@dataclass(frozen=True)
class Last:
    """A model of the snapshot that is served, and what the header says of it."""

    model: Any
    header: Mapping[str, Any]
    quality: Mapping[str, Any] | None = None
    """None for a snapshot from before quality was kept by model."""


def learn(
    examples: Examples, name: str, last: Last | None, params: Params, solvers: Mapping[str, Solver] = NO_SOLVERS
) -> Lesson | None:
    """Learn a model anew, or go on from the last one. None without any example. `solvers` learn models elsewhere."""
    if name == "fm":
        return _learn_machine(examples, last.model if last else None, params)
    return _learn_ranking(examples, name, last, params, solvers)


def goes_on(name: str, header: Mapping[str, Any], params: Params) -> bool:
    """Whether the settings are still those of a model with this header, as far as it can't be learned further otherwise."""
    wanted = params.of(name)
    if name == "fm":
        same = (header["loss"], header["factors"]) == (fm.link_of(wanted.loss), wanted.factors)
        return same and {field["name"] for field in header.get("fields", ())} <= set(wanted.fields)
    return name not in UPDATES or all(
        value is None or header["params"].get(setting) == value
        for setting, value in msgspec.to_builtins(wanted).items()  # what the settings leave open the fit has settled
    )


def _learn_ranking(
    examples: Examples, name: str, last: Last | None, params: Params, solvers: Mapping[str, Solver] = NO_SOLVERS
) -> Lesson | None:
    """Learn all but the newest of the new examples, be tested on those, then learn them too.

    Models without a way to go on are fitted anew each time, which for them is quick.
    """
    positive = examples.weighted & (examples.pairs.weight > 0)
    if not positive.any():
        return None
    chosen = examples.weighted | examples.labelled
    new = chosen if last is None else chosen & mask(examples.new, len(chosen))
    held = mask(held_out(examples.pairs, chosen, new, params.train), len(chosen))
    random = np.random.default_rng([params.train.seed, examples.seq])
    old = last.model if last else None
    model = tested = _taught(name, old, examples, chosen & ~held, new & ~held, params, solvers)
    test = trial.run(name, model, examples, held, params.train.doubt, random) if held.any() else None
    if held.any():
        model = _taught(name, model, examples, chosen, held, params, solvers)
    if test is not None and name not in UPDATES:
        carried = trial.carried_over(test.calibration, name, tested, model, examples, random)
        test = replace(test, calibration=carried)
    test = test or (_kept(last) if last else trial.untested(name, model, examples, random))
    warm = last is not None and name in UPDATES
    return Lesson(name, model, int(new.sum()), warm, test, np.zeros(0, np.float32))


def _taught(
    name: str,
    old: Any | None,
    examples: Examples,
    chosen: Mask,
    new: Mask,
    params: Params,
    solvers: Mapping[str, Solver],
) -> Any:
    """The model of all that is chosen, of which the old one, if there is one, lacks the new."""
    if name == "ials" and examples.elsewhere is not None:
        return _transferred(examples, examples.elsewhere[examples.pairs.columns], chosen, params)
    material = examples.material(chosen)
    if old is not None and name in UPDATES:
        update = solvers[name].update if name in solvers else UPDATES[name]
        return update(old, material, examples.pairs.rows(new))
    fit = solvers[name].fit if name in solvers else registry.entry(name).fit
    return fit(material, params.of(name), params.train.seed)


def _transferred(examples: Examples, elsewhere: Mask, chosen: Mask, params: Params) -> Any:
    """People are learned from where it isn't elsewhere; items there get the vectors that fit who took to them."""
    at_home = examples.material(chosen & ~elsewhere)
    model = registry.entry("ials").fit(at_home, params.of("ials"), params.train.seed)
    others = examples.pairs.rows(chosen & elsewhere)
    return als_update.updated(model, examples.material(chosen), others, people_too=False)


def _kept(last: Last) -> RankingTest:
    """Without a new test the last one holds, and scores go on meaning what they meant."""
    return RankingTest(Calibration(*last.header["calibration"]), **last.quality or {})


def fold_items(examples: Examples, name: str, last: Last, params: Params) -> Lesson | None:
    """The last model with vectors for what is new, while people's stay. Models without such vectors are fitted anew."""
    chosen = examples.labelled if name == "fm" else examples.labelled | examples.weighted
    new, none = within(examples.new, chosen), np.zeros(0, np.float32)
    if name != "fm" and name not in UPDATES:
        return _learn_ranking(examples, name, last, params)
    material, fresh = examples.material(chosen), examples.pairs.rows(new)
    if name == "fm":
        known = fm_content.grown(last.model, examples.users, examples.items, examples.contents)
        machine = fm_update.with_new_items(known, material, fresh, params.factorization_machine)
        passed = LossTest(**last.quality or {}, error=np.inf)
        return Lesson(name, machine, size(new), True, passed, none)
    folded = als_update.updated(last.model, material, fresh, people_too=False)
    return Lesson(name, folded, size(new), True, _kept(last), none)


def _learn_machine(examples: Examples, last: FactorizationMachine | None, params: Params) -> Lesson | None:
    """Learn all but the newest of the new examples, be tested on those, then learn them too."""
    labelled = examples.labelled
    if not labelled.any():
        return None
    new: Some = labelled if last is None else within(examples.new, labelled)
    held = held_out(examples.pairs, labelled, new, params.train)
    last = None if last is None else _within(last, examples)
    fields = of_fields.known(params.factorization_machine.fields, examples.items, examples.contents, NO_TIMES)
    random, others = np.random.default_rng([params.train.seed, examples.seq]), held if last is None else new
    old = _drawn(examples.pairs, labelled, others, params.train, random)
    steps = _Steps(examples, fields, params, old, random)
    anew = size(labelled) < params.train.anew_below
    scale = steps.best_l2_scale(without(labelled, held)) if last is None else last.l2_scale
    if last is None or anew:
        model, losses = steps.fit(without(labelled, held), scale)
    else:
        model, losses = steps.partial_fit(last, without(new, held))
    test = LossTest()
    if len(held):
        test = _test_machine(model, examples.pairs, held, labelled)
        model, more = steps.fit(labelled, scale) if anew else steps.partial_fit(model, held)
        losses = np.concatenate((losses, more))
    return Lesson("fm", model, size(new), last is not None, test, losses)


def _within(model: FactorizationMachine, examples: Examples) -> FactorizationMachine:
    """The model without people and items that are no longer in the window."""
    users, items = model.users.within(examples.users), model.items.within(examples.items)
    return model if users is model.users and items is model.items else fm_update.with_rows(model, users, items)


@dataclass(frozen=True)
class _Steps:
    """The machine's two ways to learn, on the window of one cycle."""

    examples: Examples
    fields: tuple[Field, ...]
    """Those of items."""
    params: Params
    old: Places
    """A sample of old examples, to be learned with the new ones."""
    random: np.random.Generator

    def best_l2_scale(self, taken: Some) -> float:
        """The multiple of the settings' l2 with which these examples are learned best."""
        pairs, params, seed = self.examples.pairs, self.params.factorization_machine, self._seed()
        if len(params.l2_scales) == 1 or size(taken) >= params.l2_tried_below:
            return params.l2_scales[0]
        places = places_of(taken)
        users, items = pairs.keys(places)

        def loss(older: Places, newer: Places, scale: float) -> Losses:
            model, _ = self._fit(places[older], seed, scale)
            return fm.losses(model, pairs.label[places[newer]], users[newer], items[newer])

        return fm.best_l2_scale(users, pairs.time[places].astype(np.int64), params, loss)

    def fit(self, taken: Some, scale: float) -> tuple[FactorizationMachine, Losses]:
        """A new model. People and items without an example are in it, at the prior and at the mean of their source."""
        of, seed = self.examples, self._seed()
        model, losses = self._fit(taken, seed, scale, epochs=self._best_epochs(taken, seed, scale))
        return fm_content.learned(model, of.users, of.items, of.contents, self.params.content, self.fields), losses

    def _best_epochs(self, taken: Some, seed: int, scale: float) -> int | None:
        """As many passes as were best for the newest of these examples; None where the settings don't ask for that."""
        params = self.params.factorization_machine
        if not params.patience:
            return None
        newer = self.examples.pairs.newest(taken, round(params.validation_share * size(taken)))
        model, _ = self._fit(without(taken, newer), seed, scale, newer)
        return max(model.epochs, 1)

    def _fit(
        self, taken: Some, seed: int, scale: float, newer: Places | None = None, epochs: int | None = None
    ) -> tuple[FactorizationMachine, Losses]:
        of = self.examples
        tail = None if newer is None else of.pairs.labels(newer)
        return fm.fit_rows(
            of.pairs.labels(taken),
            of.pairs.users,
            of.pairs.items,
            self.params.factorization_machine,
            seed,
            item_sources=of.item_sources,
            fields=self._of_cells(taken),
            validation=tail,
            own=True,
            epochs=epochs,
            l2_scale=scale,
        )

    def partial_fit(self, model: FactorizationMachine, new: Some) -> tuple[FactorizationMachine, Losses]:
        """The model with the new examples among a sample of old ones, and with all people and items of the examples."""
        of, mixture = self.examples, together(new, self.old) if size(new) else new
        return fm.partial_fit_rows(
            fm_content.grown(model, of.users, of.items, of.contents),
            of.labels(mixture),
            of.users,
            of.items,
            self.params.factorization_machine,
            self._seed(),
            item_sources=of.item_sources,
            fields=self._of_cells(mixture),
            own=True,
        )

    def _of_cells(self, chosen: Some) -> tuple[Field, ...]:
        """The fields, those of events by the cells that the chosen pairs make."""
        names, pairs = self.params.factorization_machine.fields, self.examples.pairs
        if "hour" not in names:
            return self.fields
        times = pairs.time[chosen].astype(np.int64) * pairs.unit
        return (*self.fields, *of_fields.known(("hour",), self.examples.items, None, times))

    def _seed(self) -> int:
        return int(self.random.integers(2**31))


def _drawn(pairs: Pairs, labelled: Mask, new: Some, params: TrainParams, random: np.random.Generator) -> Places:
    """A sample of the examples that aren't new; it serves all steps of a cycle."""
    count, old = size(new), mask(without(labelled, new), len(pairs))
    wanted = max(min(params.old_per_new * count, params.max_old), params.min_mixture - count) if count else 0
    return pairs.drawn(old, min(wanted, size(old)), random)


def held_out(pairs: Pairs, all_: Mask, new: Some, params: TrainParams) -> Places:
    """Which of the new examples are held out: the newest share, none when that is too few for a test.

    The older half of each person's examples is taken only when there are not enough others. The newest of all are often the
    first of somebody who has just come: a model that knows nothing of a person can't be told from the prior by them.
    """
    examples = size(new)
    count = max(min(round(params.held_out_share * examples), params.max_held_out), params.min_held_out)
    if params.held_out_share == 0 or 2 * count > examples:
        return np.zeros(0, np.int64)
    later = pairs.late(all_, new)
    if len(later) >= count:
        return pairs.newest(later, count)
    return together(later, pairs.newest(without(new, later), count - len(later)))


def _test_machine(model: FactorizationMachine, pairs: Pairs, held: Places, labelled: Mask) -> LossTest:
    """Loss of the model and of the prior (the mean label of what else is labelled) on the held-out examples."""
    labels, (users, items) = pairs.label[held], pairs.keys(held)
    measure = metrics.log_losses if model.loss == "logistic" else metrics.squared_errors
    times = pairs.time[held].astype(np.int64) * pairs.unit
    losses = measure(labels, fm.score(model, users, items, {"hour": of_fields.hours(times)}))
    prior_losses = measure(labels, np.full(len(labels), pairs.mean_label(mask(without(labelled, held), len(pairs)))))
    error = metrics.standard_error(losses - prior_losses, users)
    return LossTest(len(labels), float(losses.mean()), float(prior_losses.mean()), error)
